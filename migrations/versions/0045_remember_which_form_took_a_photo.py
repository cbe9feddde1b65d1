"""Which form for a new search a photo was added in, so that it is ticked in no other."""

import sqlalchemy as sa
from alembic import op

revision = "0045"
down_revision = "0044"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("tray_items", sa.Column("opening_key", sa.String(64), nullable=True))


def downgrade() -> None:
    op.drop_column("tray_items", "opening_key")
