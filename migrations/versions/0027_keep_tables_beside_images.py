"""Keep what tables say of images beside them, and which of their rows had no image."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("images", sa.Column("given", postgresql.JSONB(), nullable=True))
    op.create_table(
        "given_columns",
        sa.Column("collection_id", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("kind", sa.String(length=8), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("choices", postgresql.ARRAY(sa.String()), nullable=True),
        sa.Column("least", sa.String(), nullable=True),
        sa.Column("most", sa.String(), nullable=True),
        sa.CheckConstraint(
            "kind IN ('number', 'date', 'text')", name=op.f("ck_given_columns_kind")
        ),
        sa.ForeignKeyConstraint(
            ["collection_id"],
            ["collections.id"],
            name=op.f("fk_given_columns_collection_id_collections"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("collection_id", "name", name=op.f("pk_given_columns")),
    )
    op.create_table(
        "given_tables",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("collection_id", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("row_count", sa.BigInteger(), nullable=False),
        sa.Column("image_count", sa.BigInteger(), nullable=False),
        sa.Column("added_by_id", sa.BigInteger(), nullable=True),
        sa.Column(
            "added_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.ForeignKeyConstraint(
            ["added_by_id"],
            ["people.id"],
            name=op.f("fk_given_tables_added_by_id_people"),
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(
            ["collection_id"],
            ["collections.id"],
            name=op.f("fk_given_tables_collection_id_collections"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_given_tables")),
        sa.UniqueConstraint(
            "collection_id", "name", name=op.f("uq_given_tables_collection_id_name")
        ),
    )
    op.create_table(
        "unmatched_rows",
        sa.Column("table_id", sa.BigInteger(), nullable=False),
        sa.Column("line", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["table_id"],
            ["given_tables.id"],
            name=op.f("fk_unmatched_rows_table_id_given_tables"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("table_id", "line", name=op.f("pk_unmatched_rows")),
    )


def downgrade() -> None:
    op.drop_table("unmatched_rows")
    op.drop_table("given_tables")
    op.drop_table("given_columns")
    op.drop_column("images", "given")
