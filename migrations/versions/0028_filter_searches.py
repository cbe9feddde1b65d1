"""Let a search look at some of its collection's images, and each round keep which they were."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("searches", sa.Column("filter", postgresql.JSONB(), nullable=True))
    op.create_table(
        "pools",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("search_id", sa.BigInteger(), nullable=False),
        sa.Column("filter", postgresql.JSONB(), nullable=False),
        sa.Column("image_ids", sa.LargeBinary(), nullable=False),
        sa.Column(
            "made_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.ForeignKeyConstraint(
            ["search_id"],
            ["searches.id"],
            name=op.f("fk_pools_search_id_searches"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_pools")),
    )
    op.create_index(op.f("ix_pools_search_id"), "pools", ["search_id"])
    for table in ("rounds", "detours"):
        op.add_column(table, sa.Column("pool_id", sa.BigInteger(), nullable=True))
        op.create_foreign_key(
            op.f(f"fk_{table}_pool_id_pools"), table, "pools", ["pool_id"], ["id"]
        )
        op.create_index(
            op.f(f"ix_{table}_pool_id"),
            table,
            ["pool_id"],
            postgresql_where=sa.text("pool_id IS NOT NULL"),
        )


def downgrade() -> None:
    # Rounds of a filtered search stay, but can't be repeated without their filter.
    op.drop_column("detours", "pool_id")
    op.drop_column("rounds", "pool_id")
    op.drop_table("pools")
    op.drop_column("searches", "filter")
