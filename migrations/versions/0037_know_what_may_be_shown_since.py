"""Made files know what might be shown; removed images of people; images with boxes."""

import sqlalchemy as sa
from alembic import op

revision = "0037"
down_revision = "0036"
branch_labels = None
depends_on = None

# Nobody knows whether files that are there were made before that.
GUARD = """
    UPDATE collections SET guarded_at = now()
    WHERE place_grid IS NOT NULL
        OR EXISTS (SELECT FROM trusted_people WHERE collection_id = collections.id)
        OR EXISTS (SELECT FROM images WHERE collection_id = collections.id AND shows_people)
"""


def upgrade() -> None:
    for table in ("collections", "export_files"):
        op.add_column(table, sa.Column("guarded_at", sa.DateTime(timezone=True), nullable=True))
    op.execute(GUARD)
    # Of those hidden so far nobody knows: they come back, as they did.
    op.add_column(
        "images", sa.Column("was_removed", sa.Boolean(), server_default="false", nullable=False)
    )
    op.create_index(
        "ix_images_boxed",
        "images",
        ["collection_id"],
        postgresql_where=sa.text("boxed_at IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_index("ix_images_boxed", "images")
    op.drop_column("images", "was_removed")
    for table in ("export_files", "collections"):
        op.drop_column(table, "guarded_at")
