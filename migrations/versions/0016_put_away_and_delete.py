"""Collections and searches can be put away, or lie in the bin before they are deleted.

Deleting an image, a round or an action looks for what names it in these tables: without an index,
through all of them.
"""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

INDEXED = (
    ("unreadable_images", "image_id"),
    ("tray_items", "image_id"),
    ("tray_items", "photo_id"),
    ("examples", "image_id"),
    ("examples", "photo_id"),
    ("detours", "anchor_image_id"),
    ("round_images", "image_id"),
    ("answers", "image_id"),
    ("actions", "round_id"),
)
SELDOM = ("reverses_id", "next_round_id")  # of actions


def upgrade() -> None:
    for table in ("collections", "searches"):
        for name in ("archived_at", "deleted_at"):
            op.add_column(table, sa.Column(name, sa.DateTime(timezone=True), nullable=True))
        op.add_column(table, sa.Column("deleted_by_id", sa.BigInteger(), nullable=True))
        op.create_foreign_key(
            op.f(f"fk_{table}_deleted_by_id_people"), table, "people", ["deleted_by_id"], ["id"]
        )
    op.drop_constraint(op.f("uq_collections_name"), "collections", type_="unique")
    op.create_index(
        "uq_collections_name",
        "collections",
        ["name"],
        unique=True,
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    for table, column in INDEXED:
        op.create_index(op.f(f"ix_{table}_{column}"), table, [column])
    for column in SELDOM:
        named = sa.text(f"{column} IS NOT NULL")
        op.create_index(f"ix_actions_{column}", "actions", [column], postgresql_where=named)


def downgrade() -> None:
    for column in SELDOM:
        op.drop_index(f"ix_actions_{column}", "actions")
    for table, column in reversed(INDEXED):
        op.drop_index(op.f(f"ix_{table}_{column}"), table)
    # What lies in the bin comes back, under another name where its own is taken.
    op.execute("UPDATE collections SET name = name || ' (' || id || ')' WHERE deleted_at NOTNULL")
    op.drop_index("uq_collections_name", "collections")
    op.create_unique_constraint(op.f("uq_collections_name"), "collections", ["name"])
    for table in ("searches", "collections"):
        for name in ("deleted_by_id", "deleted_at", "archived_at"):
            op.drop_column(table, name)
