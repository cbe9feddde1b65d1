"""A place in a search for each person, and the images that are asked of one person alone."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0021"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "seats",
        sa.Column("search_id", sa.BigInteger(), nullable=False),
        sa.Column("person_id", sa.BigInteger(), nullable=False),
        sa.Column("round_id", sa.BigInteger(), nullable=True),
        sa.Column(
            "here_until", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False
        ),
        sa.Column("visit", sa.String(64), nullable=True),
        sa.ForeignKeyConstraint(
            ["search_id"],
            ["searches.id"],
            name=op.f("fk_seats_search_id_searches"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["person_id"], ["people.id"], name=op.f("fk_seats_person_id_people"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["round_id"], ["rounds.id"], name=op.f("fk_seats_round_id_rounds"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("search_id", "person_id", name=op.f("pk_seats")),
    )
    op.create_index(op.f("ix_seats_round_id"), "seats", ["round_id"])
    op.create_index(op.f("ix_seats_person_id"), "seats", ["person_id"])
    op.create_table(
        "leases",
        sa.Column("search_id", sa.BigInteger(), nullable=False),
        sa.Column("image_id", sa.BigInteger(), nullable=False),
        sa.Column("person_id", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["search_id", "person_id"],
            ["seats.search_id", "seats.person_id"],
            name=op.f("fk_leases_search_id_person_id_seats"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["image_id"], ["images.id"], name=op.f("fk_leases_image_id_images"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("search_id", "image_id", name=op.f("pk_leases")),
    )
    op.create_index(op.f("ix_leases_image_id"), "leases", ["image_id"])
    op.add_column(
        "rounds", sa.Column("leased_ids", postgresql.ARRAY(sa.BigInteger()), nullable=True)
    )
    op.execute(
        "INSERT INTO seats (search_id, person_id, round_id) "
        "SELECT id, owner_id, current_round_id FROM searches WHERE current_round_id IS NOT NULL"
    )


def downgrade() -> None:
    op.drop_column("rounds", "leased_ids")
    op.drop_table("leases")
    op.drop_table("seats")
