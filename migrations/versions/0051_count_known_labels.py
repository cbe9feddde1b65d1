"""How many images have which known label is counted when labels change, not for each page."""

import sqlalchemy as sa
from alembic import op

revision = "0051"
down_revision = "0050"
branch_labels = None
depends_on = None


def upgrade() -> None:
    count = sa.Column("labelled_count", sa.BigInteger(), server_default="0", nullable=False)
    op.add_column("collections", count)
    op.create_table(
        "label_counts",
        sa.Column("collection_id", sa.BigInteger(), nullable=False),
        sa.Column("label", sa.String(), nullable=False),
        sa.Column("image_count", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["collection_id"],
            ["collections.id"],
            name=op.f("fk_label_counts_collection_id_collections"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("collection_id", "label", name=op.f("pk_label_counts")),
    )
    op.execute(
        "INSERT INTO label_counts (collection_id, label, image_count) "
        "SELECT i.collection_id, o.label, count(*) FROM oracle_labels o "
        "JOIN images i ON i.id = o.image_id GROUP BY i.collection_id, o.label"
    )
    op.execute(
        "UPDATE collections SET labelled_count = known.count FROM ("
        "SELECT i.collection_id, count(DISTINCT o.image_id) FROM oracle_labels o "
        "JOIN images i ON i.id = o.image_id GROUP BY i.collection_id) AS known "
        "WHERE known.collection_id = collections.id"
    )


def downgrade() -> None:
    op.drop_table("label_counts")
    op.drop_column("collections", "labelled_count")
