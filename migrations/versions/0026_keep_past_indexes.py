"""Indexes that only serve the rounds of a search imported from a file.

Going down leaves them as failed builds: the rounds that came from them can't be repeated then.
"""

from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None


def upgrade() -> None:
    allow("'building', 'ready', 'failed', 'past'")


def downgrade() -> None:
    op.execute("UPDATE indexes SET state = 'failed' WHERE state = 'past'")
    allow("'building', 'ready', 'failed'")


def allow(states: str) -> None:
    op.drop_constraint(op.f("ck_indexes_state"), "indexes", type_="check")
    op.create_check_constraint(op.f("ck_indexes_state"), "indexes", f"state IN ({states})")
