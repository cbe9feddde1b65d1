"""Builds of indexes that several workers share, part by part; jobs that help with them."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0039"
down_revision = "0038"
branch_labels = None
depends_on = None

KINDS = "'import', 'index', 'update', 'combine', 'replay', 'export'"


def upgrade() -> None:
    op.create_table(
        "index_parts",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("index_id", sa.BigInteger(), nullable=False),
        sa.Column("start_row", sa.BigInteger(), nullable=False),
        sa.Column("image_ids", postgresql.ARRAY(sa.BigInteger()), nullable=False),
        sa.Column("done_count", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("done_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("refused", postgresql.JSONB(), server_default="{}", nullable=False),
        sa.ForeignKeyConstraint(
            ["index_id"],
            ["indexes.id"],
            name=op.f("fk_index_parts_index_id_indexes"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_index_parts")),
        sa.UniqueConstraint(
            "index_id", "start_row", name=op.f("uq_index_parts_index_id_start_row")
        ),
    )
    say_kinds(f"{KINDS}, 'help'")


def downgrade() -> None:
    op.execute("DELETE FROM jobs WHERE kind = 'help'")
    say_kinds(KINDS)
    op.drop_table("index_parts")


def say_kinds(kinds: str) -> None:
    op.drop_constraint(op.f("ck_jobs_kind"), "jobs")
    op.create_check_constraint(op.f("ck_jobs_kind"), "jobs", f"kind IN ({kinds})")
