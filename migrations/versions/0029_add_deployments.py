"""Deployments: where and when a camera stood, and how wrong its clock was."""

import sqlalchemy as sa
from alembic import op

revision = "0029"
down_revision = "0028"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "deployments",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("collection_id", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("place", sa.String(), server_default="", nullable=False),
        sa.Column("latitude", sa.Float(), nullable=True),
        sa.Column("longitude", sa.Float(), nullable=True),
        sa.Column("starts_at", sa.DateTime(), nullable=True),
        sa.Column("ends_at", sa.DateTime(), nullable=True),
        sa.Column("clock_shift_s", sa.BigInteger(), server_default="0", nullable=False),
        sa.ForeignKeyConstraint(
            ["collection_id"],
            ["collections.id"],
            name=op.f("fk_deployments_collection_id_collections"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deployments")),
        sa.UniqueConstraint(
            "collection_id", "name", name=op.f("uq_deployments_collection_id_name")
        ),
    )
    op.add_column("images", sa.Column("deployment_id", sa.BigInteger(), nullable=True))
    op.create_foreign_key(
        op.f("fk_images_deployment_id_deployments"),
        "images",
        "deployments",
        ["deployment_id"],
        ["id"],
        ondelete="SET NULL",
    )
    op.create_index(
        op.f("ix_images_deployment_id"),
        "images",
        ["deployment_id"],
        postgresql_where=sa.text("deployment_id IS NOT NULL"),
    )


def downgrade() -> None:
    # Times go back to what the cameras' clocks said.
    op.execute(
        "UPDATE images SET captured_at = captured_at - make_interval(secs => clock_shift_s) "
        "FROM deployments WHERE deployments.id = images.deployment_id AND clock_shift_s <> 0"
    )
    op.drop_column("images", "deployment_id")
    op.drop_table("deployments")
