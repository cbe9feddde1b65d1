"""Rounds that a person asks for (a gap, a sample, a second look), and the goal of a search."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

ACTION_KINDS = "'example', 'answer', 'submit', 'correct', 'undo', 'redo'"


def upgrade() -> None:
    op.drop_constraint(op.f("ck_actions_kind"), "actions", type_="check")
    op.create_check_constraint(
        op.f("ck_actions_kind"), "actions", f"kind IN ({ACTION_KINDS}, 'detour')"
    )
    op.create_table(
        "detours",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("search_id", sa.BigInteger(), nullable=False),
        sa.Column("person_id", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("from_round_id", sa.BigInteger(), nullable=False),
        sa.Column("answers_through_id", sa.BigInteger(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("round_number", sa.BigInteger(), nullable=False),
        sa.Column("anchor_image_id", sa.BigInteger(), nullable=True),
        sa.Column(
            "made_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False
        ),
        sa.CheckConstraint(
            "kind IN ('gap', 'estimate', 'absence', 'second-look')", name=op.f("ck_detours_kind")
        ),
        sa.ForeignKeyConstraint(
            ["search_id"],
            ["searches.id"],
            name=op.f("fk_detours_search_id_searches"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["person_id"], ["people.id"], name=op.f("fk_detours_person_id_people")
        ),
        sa.ForeignKeyConstraint(
            ["from_round_id"],
            ["rounds.id"],
            name=op.f("fk_detours_from_round_id_rounds"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["anchor_image_id"], ["images.id"], name=op.f("fk_detours_anchor_image_id_images")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_detours")),
    )
    op.create_index(op.f("ix_detours_search_id"), "detours", ["search_id"])
    op.add_column("rounds", sa.Column("detour_id", sa.BigInteger(), nullable=True))
    op.create_foreign_key(
        op.f("fk_rounds_detour_id_detours"),
        "rounds",
        "detours",
        ["detour_id"],
        ["id"],
        ondelete="SET NULL",
    )
    op.create_table(
        "goals",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("search_id", sa.BigInteger(), nullable=False),
        sa.Column("person_id", sa.BigInteger(), nullable=False),
        sa.Column("rule", sa.String(), nullable=False),
        sa.Column("recall", sa.Float(), nullable=True),
        sa.Column("positives", sa.BigInteger(), nullable=True),
        sa.Column("coverage", sa.Float(), nullable=True),
        sa.Column("confidence", sa.Float(), nullable=False),
        sa.Column(
            "chosen_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False
        ),
        sa.ForeignKeyConstraint(
            ["search_id"],
            ["searches.id"],
            name=op.f("fk_goals_search_id_searches"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["person_id"], ["people.id"], name=op.f("fk_goals_person_id_people")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_goals")),
    )
    op.create_index(op.f("ix_goals_search_id"), "goals", ["search_id"])


def downgrade() -> None:
    op.drop_table("goals")
    op.drop_constraint(op.f("fk_rounds_detour_id_detours"), "rounds", type_="foreignkey")
    op.drop_column("rounds", "detour_id")
    op.drop_table("detours")
    # Nothing is deleted, for answers go with their action. A detour, its undo, and the redo of that
    # become steps that stand for themselves; the round that is shown stays the one shown.
    op.execute(
        "WITH RECURSIVE of_detours AS (SELECT id FROM actions WHERE kind = 'detour' UNION "
        "SELECT actions.id FROM actions JOIN of_detours ON actions.reverses_id = of_detours.id) "
        "UPDATE actions SET kind = 'correct', reverses_id = NULL, next_round_id = NULL "
        "WHERE id IN (SELECT id FROM of_detours)"
    )
    op.drop_constraint(op.f("ck_actions_kind"), "actions", type_="check")
    op.create_check_constraint(op.f("ck_actions_kind"), "actions", f"kind IN ({ACTION_KINDS})")
