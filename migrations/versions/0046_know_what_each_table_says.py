"""What each brought table says of each image, so that it can be removed.

Of tables that were brought before, only what they say together is known: it becomes what the first
of a collection's says.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0046"
down_revision = "0045"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "given_tables",
        sa.Column("columns", postgresql.ARRAY(sa.String()), server_default="{}", nullable=False),
    )
    op.create_table(
        "given_rows",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("table_id", sa.BigInteger(), nullable=False),
        sa.Column("image_id", sa.BigInteger(), nullable=False),
        sa.Column("said", postgresql.JSONB(), nullable=False),
        sa.ForeignKeyConstraint(
            ["image_id"],
            ["images.id"],
            name=op.f("fk_given_rows_image_id_images"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["table_id"],
            ["given_tables.id"],
            name=op.f("fk_given_rows_table_id_given_tables"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_given_rows")),
    )
    op.execute(
        """
        INSERT INTO given_rows (table_id, image_id, said)
        SELECT first.id, images.id,
            (SELECT jsonb_object_agg(key, value) FROM jsonb_each_text(images.given))
        FROM images JOIN (
            SELECT collection_id, min(id) AS id FROM given_tables GROUP BY collection_id
        ) AS first USING (collection_id)
        WHERE images.given IS NOT NULL
        ORDER BY images.id
        """
    )
    op.execute(
        """
        UPDATE given_tables SET columns = ARRAY(
            SELECT name FROM given_columns
            WHERE given_columns.collection_id = given_tables.collection_id ORDER BY position, name
        )
        WHERE id IN (SELECT min(id) FROM given_tables GROUP BY collection_id)
        """
    )
    op.create_index(op.f("ix_given_rows_table_id"), "given_rows", ["table_id"])
    op.create_index(op.f("ix_given_rows_image_id"), "given_rows", ["image_id"])


def downgrade() -> None:
    op.drop_table("given_rows")
    op.drop_column("given_tables", "columns")
