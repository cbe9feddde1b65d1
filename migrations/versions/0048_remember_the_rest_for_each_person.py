"""Whether the rest of a grid counts as no is each person's choice, no longer the search's."""

import sqlalchemy as sa
from alembic import op

revision = "0048"
down_revision = "0047"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "seats",
        sa.Column("rest_are_no", sa.Boolean(), server_default=sa.text("false"), nullable=False),
    )
    # Who chose it is known only where one person has been there.
    op.execute(
        "UPDATE seats SET rest_are_no = true FROM searches "
        "WHERE searches.id = seats.search_id AND searches.rest_are_no "
        "AND NOT EXISTS (SELECT FROM seats AS other WHERE other.search_id = seats.search_id "
        "AND other.person_id <> seats.person_id)"
    )
    op.drop_column("searches", "rest_are_no")


def downgrade() -> None:
    op.add_column(
        "searches",
        sa.Column("rest_are_no", sa.Boolean(), server_default=sa.text("false"), nullable=False),
    )
    op.execute(
        "UPDATE searches SET rest_are_no = true FROM seats "
        "WHERE seats.search_id = searches.id AND seats.person_id = searches.owner_id "
        "AND seats.rest_are_no"
    )
    op.drop_column("seats", "rest_are_no")
