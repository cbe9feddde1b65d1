"""Who sees exact places and images of people; which columns of tables hold places."""

import re

import sqlalchemy as sa
from alembic import op

revision = "0035"
down_revision = "0034"
branch_labels = None
depends_on = None

# As new columns are told since: app/sensitive.py.
PLACES = {
    *("lat", "lats", "latitude", "latitudes", "lon", "lons", "lng", "longitude", "longitudes"),
    *("coordinate", "coordinates", "coord", "coords", "easting", "eastings", "northing"),
    *("northings", "utm", "mgrs", "geohash", "wkt", "geometry", "geopoint", "gps"),
}
WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


def upgrade() -> None:
    op.add_column("collections", sa.Column("place_grid", sa.Float(), nullable=True))
    op.create_table(
        "trusted_people",
        sa.Column("collection_id", sa.BigInteger(), nullable=False),
        sa.Column("person_id", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["collection_id"],
            ["collections.id"],
            name=op.f("fk_trusted_people_collection_id_collections"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["person_id"],
            ["people.id"],
            name=op.f("fk_trusted_people_person_id_people"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("collection_id", "person_id", name=op.f("pk_trusted_people")),
    )
    op.add_column("images", sa.Column("shows_people", sa.Boolean(), nullable=True))
    op.create_check_constraint(
        op.f("ck_images_people_are_removed"),
        "images",
        "shows_people IS NOT TRUE OR removed_at IS NOT NULL",
    )
    op.add_column(
        "given_columns",
        sa.Column("holds_place", sa.Boolean(), server_default="false", nullable=False),
    )
    connection = op.get_bind()
    for (name,) in connection.execute(sa.text("SELECT DISTINCT name FROM given_columns")).all():
        words = {word.lower() for word in WORD.findall(name)}
        if words & PLACES or words == {"long"}:
            connection.execute(
                sa.text("UPDATE given_columns SET holds_place = true WHERE name = :name"),
                {"name": name},
            )


def downgrade() -> None:
    # Images of people stay removed: an earlier version shows nobody what was hidden.
    op.drop_column("given_columns", "holds_place")
    op.drop_constraint(op.f("ck_images_people_are_removed"), "images")
    op.drop_column("images", "shows_people")
    op.drop_table("trusted_people")
    op.drop_column("collections", "place_grid")
