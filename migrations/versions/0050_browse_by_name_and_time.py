"""Images in the order of paths, file names and of when they were taken, from an index alone."""

from alembic import op

revision = "0050"
down_revision = "0049"
branch_labels = None
depends_on = None

PATH = "ix_images_collection_id_path_id"
FILE_NAME = "(lower(regexp_replace(path, '^.*/'::text, ''::text)) COLLATE \"C\")"
TAKEN = "COALESCE(captured_at, '9999-12-31 00:00:00'::timestamp without time zone)"


def upgrade() -> None:
    op.drop_index(PATH, "images")
    for name, key, also in (
        (PATH, "path", "removed_at"),
        ("ix_images_file_name", FILE_NAME, "path, removed_at"),
        ("ix_images_taken", TAKEN, "captured_at, removed_at"),
    ):
        op.execute(f"CREATE INDEX {name} ON images (collection_id, {key}, id) INCLUDE ({also})")


def downgrade() -> None:
    for name in ("ix_images_taken", "ix_images_file_name", PATH):
        op.drop_index(name, "images")
    op.create_index(PATH, "images", ["collection_id", "path", "id"])
