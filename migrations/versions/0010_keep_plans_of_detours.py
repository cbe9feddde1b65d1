"""Keep the plan of a detour, and let another embedder choose its images."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

KINDS = "'gap', 'estimate', 'absence', 'second-look'"


def upgrade() -> None:
    op.add_column("detours", sa.Column("other_index_id", sa.BigInteger(), nullable=True))
    op.create_foreign_key(
        op.f("fk_detours_other_index_id_indexes"), "detours", "indexes", ["other_index_id"], ["id"]
    )
    # Detours of before are planned again at each of their rounds, as they were.
    op.add_column("detours", sa.Column("planned_image_ids", sa.LargeBinary(), nullable=True))
    op.add_column("detours", sa.Column("seen_again", sa.BigInteger(), nullable=True))
    op.add_column("detours", sa.Column("beside_count", sa.BigInteger(), nullable=True))
    op.drop_constraint(op.f("ck_detours_kind"), "detours", type_="check")
    op.create_check_constraint(
        op.f("ck_detours_kind"), "detours", f"kind IN ({KINDS}, 'other-embedder')"
    )


def downgrade() -> None:
    # Their rounds stay, as rounds that the strategy chose.
    op.execute("DELETE FROM detours WHERE kind = 'other-embedder'")
    op.drop_constraint(op.f("ck_detours_kind"), "detours", type_="check")
    op.create_check_constraint(op.f("ck_detours_kind"), "detours", f"kind IN ({KINDS})")
    op.drop_column("detours", "beside_count")
    op.drop_column("detours", "seen_again")
    op.drop_column("detours", "planned_image_ids")
    op.drop_constraint(op.f("fk_detours_other_index_id_indexes"), "detours", type_="foreignkey")
    op.drop_column("detours", "other_index_id")
