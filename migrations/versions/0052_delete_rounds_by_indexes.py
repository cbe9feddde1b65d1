"""What follows a round is found by an index when searches are deleted, not in all rounds."""

import sqlalchemy as sa
from alembic import op

revision = "0052"
down_revision = "0051"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for column in ("previous_id", "detour_id"):
        op.create_index(
            op.f(f"ix_rounds_{column}"),
            "rounds",
            [column],
            postgresql_where=sa.text(f"{column} IS NOT NULL"),
        )
    op.create_index(op.f("ix_detours_from_round_id"), "detours", ["from_round_id"])


def downgrade() -> None:
    op.drop_index(op.f("ix_detours_from_round_id"), "detours")
    for column in ("detour_id", "previous_id"):
        op.drop_index(op.f(f"ix_rounds_{column}"), "rounds")
