"""Group the images of a collection into events; each round keeps by which grouping it went."""

import sqlalchemy as sa
from alembic import op

revision = "0033"
down_revision = "0032"
branch_labels = None
depends_on = None

KINDS = "kind IN ('bursts', 'column', 'near-duplicates', 'none')"


def upgrade() -> None:
    op.create_table(
        "groupings",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("collection_id", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("gap_s", sa.BigInteger(), nullable=True),
        sa.Column("column_name", sa.String(), nullable=True),
        sa.Column("likeness", sa.Float(), nullable=True),
        sa.Column("is_automatic", sa.Boolean(), nullable=False),
        sa.Column("event_count", sa.BigInteger(), nullable=False),
        sa.Column("image_count", sa.BigInteger(), nullable=False),
        sa.Column("cut_count", sa.BigInteger(), nullable=False),
        sa.Column("image_ids", sa.LargeBinary(), nullable=False),
        sa.Column("first_places", sa.LargeBinary(), nullable=False),
        sa.Column("made_by_id", sa.BigInteger(), nullable=True),
        sa.Column(
            "made_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.CheckConstraint(KINDS, name=op.f("ck_groupings_kind")),
        sa.ForeignKeyConstraint(
            ["collection_id"],
            ["collections.id"],
            name=op.f("fk_groupings_collection_id_collections"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["made_by_id"],
            ["people.id"],
            name=op.f("fk_groupings_made_by_id_people"),
            ondelete="SET NULL",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_groupings")),
    )
    op.create_index(op.f("ix_groupings_collection_id"), "groupings", ["collection_id"])
    op.add_column("collections", sa.Column("grouping_id", sa.BigInteger(), nullable=True))
    op.create_foreign_key(
        op.f("fk_collections_grouping_id_groupings"),
        "collections",
        "groupings",
        ["grouping_id"],
        ["id"],
        ondelete="SET NULL",
    )
    op.add_column("rounds", sa.Column("grouping_id", sa.BigInteger(), nullable=True))
    op.create_foreign_key(
        op.f("fk_rounds_grouping_id_groupings"), "rounds", "groupings", ["grouping_id"], ["id"]
    )
    op.create_index(
        op.f("ix_rounds_grouping_id"),
        "rounds",
        ["grouping_id"],
        postgresql_where=sa.text("grouping_id IS NOT NULL"),
    )
    for table in ("searches", "rounds"):
        op.add_column(
            table,
            sa.Column("learns_from_events", sa.Boolean(), server_default="false", nullable=False),
        )


def downgrade() -> None:
    # Rounds that went by events stay, but can't be repeated without them.
    for table in ("rounds", "searches"):
        op.drop_column(table, "learns_from_events")
    op.drop_column("rounds", "grouping_id")
    op.drop_column("collections", "grouping_id")
    op.drop_table("groupings")
