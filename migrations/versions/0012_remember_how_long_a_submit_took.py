"""Remember how long the submit took that led to a round; null for first rounds and older ones."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("rounds", sa.Column("submitting_ms", sa.Double(), nullable=True))


def downgrade() -> None:
    op.drop_column("rounds", "submitting_ms")
