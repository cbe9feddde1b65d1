"""Who sees a collection, who answers in a search, and who may look at it.

Collections that are there stay open to everyone, searches stay their owner's alone.
"""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "collections",
        sa.Column("open_to", sa.String(8), server_default="everyone", nullable=False),
    )
    op.create_check_constraint(
        op.f("ck_collections_open_to"),
        "collections",
        "open_to IN ('everyone', 'listed', 'private')",
    )
    op.create_table(
        "collection_people",
        sa.Column("collection_id", sa.BigInteger(), nullable=False),
        sa.Column("person_id", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["collection_id"],
            ["collections.id"],
            name=op.f("fk_collection_people_collection_id_collections"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["person_id"],
            ["people.id"],
            name=op.f("fk_collection_people_person_id_people"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("collection_id", "person_id", name=op.f("pk_collection_people")),
    )
    op.add_column(
        "searches", sa.Column("open_to_view", sa.Boolean(), server_default="false", nullable=False)
    )
    op.create_table(
        "search_members",
        sa.Column("search_id", sa.BigInteger(), nullable=False),
        sa.Column("person_id", sa.BigInteger(), nullable=False),
        sa.Column("added_by_id", sa.BigInteger(), nullable=False),
        sa.Column(
            "added_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False
        ),
        sa.ForeignKeyConstraint(
            ["search_id"],
            ["searches.id"],
            name=op.f("fk_search_members_search_id_searches"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["person_id"],
            ["people.id"],
            name=op.f("fk_search_members_person_id_people"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["added_by_id"], ["people.id"], name=op.f("fk_search_members_added_by_id_people")
        ),
        sa.PrimaryKeyConstraint("search_id", "person_id", name=op.f("pk_search_members")),
    )
    op.create_index(op.f("ix_search_members_person_id"), "search_members", ["person_id"])


def downgrade() -> None:
    op.drop_table("search_members")
    op.drop_column("searches", "open_to_view")
    op.drop_table("collection_people")
    op.drop_column("collections", "open_to")
