"""Keep of an answer with which image of its event it was given."""

import sqlalchemy as sa
from alembic import op

revision = "0034"
down_revision = "0033"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("answers", sa.Column("with_image_id", sa.BigInteger(), nullable=True))
    op.create_foreign_key(
        op.f("fk_answers_with_image_id_images"),
        "answers",
        "images",
        ["with_image_id"],
        ["id"],
        ondelete="SET NULL",
    )
    op.create_index(
        op.f("ix_answers_with_image_id"),
        "answers",
        ["with_image_id"],
        postgresql_where=sa.text("with_image_id IS NOT NULL"),
    )


def downgrade() -> None:
    # Each image keeps its answer, as if it had been looked at.
    op.drop_column("answers", "with_image_id")
