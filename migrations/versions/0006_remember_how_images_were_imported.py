"""Remember labels and copying of each import, so that it can be run again as it was."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("imports", sa.Column("labels", sa.String(), nullable=True))
    op.add_column(
        "imports", sa.Column("copy", sa.Boolean(), server_default=sa.text("false"), nullable=False)
    )


def downgrade() -> None:
    op.drop_column("imports", "copy")
    op.drop_column("imports", "labels")
