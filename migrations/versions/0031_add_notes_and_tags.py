"""Add notes and tags on images and searches, as events that are only ever added."""

import sqlalchemy as sa
from alembic import op

revision = "0031"
down_revision = "0030"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "note_events",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("note_id", sa.BigInteger(), nullable=True),
        sa.Column("image_id", sa.BigInteger(), nullable=True),
        sa.Column("search_id", sa.BigInteger(), nullable=True),
        sa.Column("person_id", sa.BigInteger(), nullable=False),
        sa.Column("text", sa.String(), nullable=True),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.ForeignKeyConstraint(
            ["note_id"],
            ["note_events.id"],
            name=op.f("fk_note_events_note_id_note_events"),
            ondelete="CASCADE",
        ),
        *list_references("note_events"),
    )
    op.create_index(op.f("ix_note_events_note_id"), "note_events", ["note_id"])
    op.create_table(
        "tag_events",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("image_id", sa.BigInteger(), nullable=True),
        sa.Column("search_id", sa.BigInteger(), nullable=True),
        sa.Column("tag", sa.String(), nullable=False),
        sa.Column("is_on", sa.Boolean(), nullable=False),
        sa.Column("person_id", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        *list_references("tag_events"),
    )
    op.create_index("ix_tag_events_tag_image_id_id", "tag_events", ["tag", "image_id", "id"])
    for table in ("note_events", "tag_events"):
        for column in ("image_id", "search_id"):
            op.create_index(op.f(f"ix_{table}_{column}"), table, [column])


def downgrade() -> None:
    op.drop_table("tag_events")
    op.drop_table("note_events")


def list_references(table: str) -> list[sa.Constraint]:
    return [
        sa.CheckConstraint(
            "num_nonnulls(image_id, search_id) = 1", name=op.f(f"ck_{table}_image_or_search")
        ),
        sa.ForeignKeyConstraint(
            ["image_id"],
            ["images.id"],
            name=op.f(f"fk_{table}_image_id_images"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["search_id"],
            ["searches.id"],
            name=op.f(f"fk_{table}_search_id_searches"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["person_id"], ["people.id"], name=op.f(f"fk_{table}_person_id_people")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{table}")),
    ]
