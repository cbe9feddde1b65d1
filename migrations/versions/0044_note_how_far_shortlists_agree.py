"""How far the shortlists of a large index agree with an exact ranking."""

import sqlalchemy as sa
from alembic import op

revision = "0044"
down_revision = "0043"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("indexes", sa.Column("agreement", sa.Float(), nullable=True))


def downgrade() -> None:
    op.drop_column("indexes", "agreement")
