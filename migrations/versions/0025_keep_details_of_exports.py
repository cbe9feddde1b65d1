"""What exports in the field's standards need and only people know, kept with the search."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0025"
down_revision = "0023"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("searches", sa.Column("export_details", JSONB(), nullable=True))


def downgrade() -> None:
    op.drop_column("searches", "export_details")
