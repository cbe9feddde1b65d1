"""Remember openings, revisions of example vectors, and file names."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("searches", sa.Column("opening_key", sa.String(length=64), nullable=True))
    op.create_unique_constraint(
        op.f("uq_searches_owner_id_opening_key"), "searches", ["owner_id", "opening_key"]
    )
    op.add_column("examples", sa.Column("revision", sa.String(), nullable=True))
    # Vectors of photos were made by the embedder of the search's first round.
    op.execute(
        "UPDATE examples SET revision = indexes.revision FROM rounds, indexes "
        "WHERE rounds.search_id = examples.search_id AND rounds.previous_id IS NULL "
        "AND indexes.id = rounds.index_id AND examples.vector IS NOT NULL"
    )
    op.create_index(
        "ix_image_paths_file_name",
        "image_paths",
        [
            "collection_id",
            sa.text("(lower(regexp_replace(path, '^.*/'::text, ''::text)) COLLATE \"C\")"),
        ],
    )


def downgrade() -> None:
    op.drop_index("ix_image_paths_file_name", table_name="image_paths")
    op.drop_column("examples", "revision")
    op.drop_constraint(op.f("uq_searches_owner_id_opening_key"), "searches", type_="unique")
    op.drop_column("searches", "opening_key")
