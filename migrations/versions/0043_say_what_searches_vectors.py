"""What searches the vectors of a collection: FAISS, or a Milvus."""

import sqlalchemy as sa
from alembic import op

revision = "0043"
down_revision = "0039"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table in ("collections", "indexes"):
        op.add_column(
            table, sa.Column("vectors", sa.String(), server_default="faiss", nullable=False)
        )
    op.add_column("indexes", sa.Column("milvus_name", sa.String(), nullable=True))


def downgrade() -> None:
    op.drop_column("indexes", "milvus_name")
    for table in ("indexes", "collections"):
        op.drop_column(table, "vectors")
