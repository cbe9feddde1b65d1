"""What does not count as yes, pictures of both, and why an image is a no."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "card_images",
        sa.Column("search_id", sa.BigInteger(), nullable=False),
        sa.Column("image_id", sa.BigInteger(), nullable=False),
        sa.Column("counts", sa.Boolean(), nullable=False),
        sa.Column(
            "added_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False
        ),
        sa.ForeignKeyConstraint(
            ["search_id"],
            ["searches.id"],
            name=op.f("fk_card_images_search_id_searches"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["image_id"],
            ["images.id"],
            name=op.f("fk_card_images_image_id_images"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("search_id", "image_id", name=op.f("pk_card_images")),
    )
    op.create_index(op.f("ix_card_images_image_id"), "card_images", ["image_id"])
    op.add_column(
        "searches", sa.Column("counts_as_no", sa.String(), server_default="", nullable=False)
    )
    op.add_column(
        "searches",
        sa.Column("no_reasons", postgresql.ARRAY(sa.String()), server_default="{}", nullable=False),
    )
    for table in ("searches", "rounds"):
        op.add_column(
            table,
            sa.Column("learns_from_poor", sa.Boolean(), server_default="false", nullable=False),
        )
    op.add_column("answers", sa.Column("reason", sa.String(), nullable=True))
    op.create_check_constraint(
        op.f("ck_answers_reason"), "answers", "reason IS NULL OR value = 'no'"
    )


def downgrade() -> None:
    op.drop_constraint(op.f("ck_answers_reason"), "answers")
    op.drop_column("answers", "reason")
    for table in ("rounds", "searches"):
        op.drop_column(table, "learns_from_poor")
    op.drop_column("searches", "no_reasons")
    op.drop_column("searches", "counts_as_no")
    op.drop_table("card_images")
