"""Add files of exports, which jobs of a kind of their own make."""

import sqlalchemy as sa
from alembic import op

revision = "0032"
down_revision = "0031"
branch_labels = None
depends_on = None

KINDS = "'import', 'index', 'update', 'combine', 'replay'"


def upgrade() -> None:
    op.create_table(
        "export_files",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("search_id", sa.BigInteger(), nullable=False),
        sa.Column("person_id", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=True),
        sa.Column(
            "asked_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False
        ),
        sa.Column("ready_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["search_id"],
            ["searches.id"],
            name=op.f("fk_export_files_search_id_searches"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["person_id"],
            ["people.id"],
            name=op.f("fk_export_files_person_id_people"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_export_files")),
    )
    for column in ("search_id", "person_id"):
        op.create_index(op.f(f"ix_export_files_{column}"), "export_files", [column])
    say_kinds(f"{KINDS}, 'export'")


def downgrade() -> None:
    op.execute("DELETE FROM jobs WHERE kind = 'export'")
    say_kinds(KINDS)
    op.drop_table("export_files")


def say_kinds(kinds: str) -> None:
    op.drop_constraint(op.f("ck_jobs_kind"), "jobs")
    op.create_check_constraint(op.f("ck_jobs_kind"), "jobs", f"kind IN ({kinds})")
