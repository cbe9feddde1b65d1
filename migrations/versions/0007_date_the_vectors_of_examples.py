"""Remember after which round the vector of an example was made: earlier ones did not know it."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("example_vectors", sa.Column("after_round_id", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    op.drop_column("example_vectors", "after_round_id")
