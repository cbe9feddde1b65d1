"""Remember the embedder an import made vectors by, and how many vectors an index found made."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("imports", sa.Column("embedder", sa.String(), nullable=True))
    op.add_column(
        "indexes",
        sa.Column("copied_count", sa.BigInteger(), server_default="0", nullable=False),
    )
    # Speed is told by indexes that embedded all their images: not those that had an earlier one.
    op.execute(
        """
        UPDATE indexes SET copied_count = done_count WHERE EXISTS (
            SELECT FROM indexes AS earlier
            WHERE earlier.collection_id = indexes.collection_id
            AND earlier.embedder = indexes.embedder
            AND earlier.id < indexes.id AND earlier.done_count > 0
        )
        """
    )


def downgrade() -> None:
    op.drop_column("indexes", "copied_count")
    op.drop_column("imports", "embedder")
