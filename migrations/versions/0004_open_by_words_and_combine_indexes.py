"""Open searches by words, keep vectors of openings by revision, and name the parts of an index."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("examples", sa.Column("words", sa.String(), nullable=True))
    op.drop_constraint(op.f("ck_examples_image_or_photo"), "examples", type_="check")
    op.create_check_constraint(
        op.f("ck_examples_image_photo_or_words"),
        "examples",
        "num_nonnulls(image_id, photo_id, words) = 1",
    )
    op.create_table(
        "example_vectors",
        sa.Column("example_id", sa.BigInteger(), nullable=False),
        sa.Column("revision", sa.String(), nullable=False),
        sa.Column("vector", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["example_id"],
            ["examples.id"],
            name=op.f("fk_example_vectors_example_id_examples"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("example_id", "revision", name=op.f("pk_example_vectors")),
    )
    op.execute(
        "INSERT INTO example_vectors (example_id, revision, vector) "
        "SELECT id, revision, vector FROM examples "
        "WHERE vector IS NOT NULL AND revision IS NOT NULL"
    )
    op.drop_column("examples", "vector")
    op.drop_column("examples", "revision")
    op.add_column(
        "indexes", sa.Column("knows_words", sa.Boolean(), server_default="false", nullable=False)
    )
    for name in ("first_part_id", "second_part_id"):
        op.add_column("indexes", sa.Column(name, sa.BigInteger(), nullable=True))
        op.create_foreign_key(
            op.f(f"fk_indexes_{name}_indexes"), "indexes", "indexes", [name], ["id"]
        )


def downgrade() -> None:
    for name in ("first_part_id", "second_part_id"):
        op.drop_constraint(op.f(f"fk_indexes_{name}_indexes"), "indexes", type_="foreignkey")
        op.drop_column("indexes", name)
    op.drop_column("indexes", "knows_words")
    op.add_column("examples", sa.Column("revision", sa.String(), nullable=True))
    op.add_column("examples", sa.Column("vector", sa.LargeBinary(), nullable=True))
    op.execute(
        "UPDATE examples SET revision = kept.revision, vector = kept.vector "
        "FROM example_vectors AS kept WHERE kept.example_id = examples.id"
    )
    op.drop_table("example_vectors")
    op.execute("DELETE FROM examples WHERE words IS NOT NULL")
    op.drop_constraint(op.f("ck_examples_image_photo_or_words"), "examples", type_="check")
    op.drop_column("examples", "words")
    op.create_check_constraint(
        op.f("ck_examples_image_or_photo"), "examples", "(image_id IS NULL) <> (photo_id IS NULL)"
    )
