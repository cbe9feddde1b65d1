"""Times, places, cameras and deployments of images that brought tables say.

What the images said themselves is kept beside it, so that a table can be removed.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0049"
down_revision = "0048"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("collections", sa.Column("taken_for", postgresql.JSONB(), nullable=True))
    op.add_column("images", sa.Column("own", postgresql.JSONB(), nullable=True))
    op.add_column(
        "deployments",
        sa.Column("is_told", sa.Boolean(), server_default="false", nullable=False),
    )


def downgrade() -> None:
    op.execute(
        """
        UPDATE images SET
            captured_at = (own ->> 'captured_at')::timestamp,
            latitude = (own ->> 'latitude')::float8,
            longitude = (own ->> 'longitude')::float8,
            camera = own ->> 'camera',
            deployment_id = (own ->> 'deployment_id')::bigint
        WHERE own IS NOT NULL
        """
    )
    op.drop_column("deployments", "is_told")
    op.drop_column("images", "own")
    op.drop_column("collections", "taken_for")
