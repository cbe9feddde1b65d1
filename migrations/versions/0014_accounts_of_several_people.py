"""Accounts of several people: passwords, links that set them, scopes of tokens, failed sign-ins.

Whoever is in the database keeps everything; the local person stays an admin.
"""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # People sign in by their name: a second of the same name gets its number behind it.
    op.execute(
        "UPDATE people SET name = name || ' ' || id WHERE EXISTS (SELECT FROM people AS other "
        "WHERE lower(other.name) = lower(people.name) AND other.id < people.id)"
    )
    op.add_column("people", sa.Column("password_hash", sa.String(), nullable=True))
    op.add_column("people", sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True))
    op.create_index("uq_people_name", "people", [sa.text("lower(name)")], unique=True)
    op.add_column(
        "sign_in_links",
        sa.Column("sets_password", sa.Boolean(), server_default="false", nullable=False),
    )
    op.create_index(op.f("ix_sign_in_links_person_id"), "sign_in_links", ["person_id"])
    op.add_column("login_sessions", sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False))
    op.create_unique_constraint(op.f("uq_login_sessions_id"), "login_sessions", ["id"])
    op.create_index(op.f("ix_login_sessions_person_id"), "login_sessions", ["person_id"])
    for name in ("browser", "address"):
        op.add_column(
            "login_sessions", sa.Column(name, sa.String(), server_default="", nullable=False)
        )
    op.add_column(
        "login_sessions",
        sa.Column(
            "seen_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False
        ),
    )
    # Until now the API had nothing that needs more.
    op.add_column(
        "api_tokens", sa.Column("scope", sa.String(8), server_default="search", nullable=False)
    )
    op.alter_column("api_tokens", "scope", server_default=None)
    op.create_check_constraint(
        op.f("ck_api_tokens_scope"), "api_tokens", "scope IN ('read', 'search', 'admin')"
    )
    op.add_column("api_tokens", sa.Column("seen_at", sa.DateTime(timezone=True), nullable=True))
    op.create_table(
        "failed_sign_ins",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("address", sa.String(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_failed_sign_ins")),
    )
    op.create_index("ix_failed_sign_ins_name_at", "failed_sign_ins", ["name", "at"])
    op.create_index(op.f("ix_failed_sign_ins_address"), "failed_sign_ins", ["address"])


def downgrade() -> None:
    op.drop_table("failed_sign_ins")
    op.drop_column("api_tokens", "seen_at")
    op.drop_column("api_tokens", "scope")
    for name in ("seen_at", "address", "browser"):
        op.drop_column("login_sessions", name)
    op.drop_index(op.f("ix_login_sessions_person_id"), "login_sessions")
    op.drop_column("login_sessions", "id")
    op.drop_index(op.f("ix_sign_in_links_person_id"), "sign_in_links")
    # A link that was made to set a password must not sign in.
    op.execute("DELETE FROM sign_in_links WHERE sets_password")
    op.drop_column("sign_in_links", "sets_password")
    op.drop_index("uq_people_name", "people")
    op.drop_column("people", "closed_at")
    op.drop_column("people", "password_hash")
