"""Known labels may come with an upload, or later; an import says what it had to remark."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0047"
down_revision = "0046"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("collections", sa.Column("labels_given_at", sa.DateTime(timezone=True)))
    op.add_column("collections", sa.Column("folders_name_labels", sa.Boolean()))
    # As app/deploying.py looks at it whenever labels come.
    op.execute(
        "UPDATE collections SET labels_given_at = now(), folders_name_labels = EXISTS ("
        "SELECT 1 FROM image_paths p JOIN oracle_labels o ON o.image_id = p.image_id "
        "WHERE p.collection_id = collections.id AND strpos("
        "'/' || translate(lower(p.path), '_-', '  '), "
        "'/' || translate(lower(o.label), '_-', '  ') || '/') > 0) "
        "WHERE EXISTS (SELECT 1 FROM oracle_labels o JOIN images i ON i.id = o.image_id "
        "WHERE i.collection_id = collections.id)"
    )
    remarks = postgresql.JSONB(astext_type=sa.Text())
    op.add_column("imports", sa.Column("remarks", remarks, server_default="[]", nullable=False))
    op.add_column("uploads", sa.Column("labels_file", sa.LargeBinary()))


def downgrade() -> None:
    # What an image shows no target of was not kept before.
    op.execute("DELETE FROM oracle_labels WHERE label = ''")
    op.drop_column("uploads", "labels_file")
    op.drop_column("imports", "remarks")
    op.drop_column("collections", "folders_name_labels")
    op.drop_column("collections", "labels_given_at")
