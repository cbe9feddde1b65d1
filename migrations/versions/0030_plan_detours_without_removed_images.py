"""Remember which removed images a detour was planned without."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

revision = "0030"
down_revision = "0029"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("detours", sa.Column("left_out_ids", ARRAY(sa.BigInteger()), nullable=True))


def downgrade() -> None:
    op.drop_column("detours", "left_out_ids")
