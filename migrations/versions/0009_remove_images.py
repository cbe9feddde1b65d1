"""Let images be removed from a collection and put back; a round remembers which it left out."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("images", sa.Column("removed_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("images", sa.Column("removed_by_id", sa.BigInteger(), nullable=True))
    op.create_foreign_key(
        "fk_images_removed_by_id_people",
        "images",
        "people",
        ["removed_by_id"],
        ["id"],
        ondelete="SET NULL",
    )
    op.create_index(
        "ix_images_removed",
        "images",
        ["collection_id", "removed_at"],
        postgresql_where=sa.text("removed_at IS NOT NULL"),
    )
    op.add_column("rounds", sa.Column("left_out_ids", ARRAY(sa.BigInteger()), nullable=True))


def downgrade() -> None:
    op.drop_column("rounds", "left_out_ids")
    op.drop_index("ix_images_removed", "images")
    op.drop_column("images", "removed_by_id")
    op.drop_column("images", "removed_at")
