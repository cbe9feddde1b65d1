"""All tables, in the order of the glossary. Answers and actions are only ever added to."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    LargeBinary,
    MetaData,
    String,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

ROLES = ("admin", "ecologist", "evaluator", "viewer")
TOKEN_SCOPES = ("read", "search", "admin")
OPEN_TO = ("everyone", "listed", "private")
IMPORT_STATES = ("running", "done", "interrupted", "failed")
# A past index serves the rounds of a search that was imported with them, and nothing else.
INDEX_STATES = ("building", "ready", "failed", "past")
ANSWER_VALUES = ("yes", "no", "unsure", "cleared")
UPLOAD_STATES = ("receiving", "importing", "done")
JOB_KINDS = ("import", "index", "update", "combine", "replay", "export", "help")
JOB_STATES = ("waiting", "running", "done", "stopped", "failed")
REVIEW_KINDS = ("sample", "positives", "advised")
NO_REASONS = ("other-species", "too-poor", "empty")
REPLAY_STATES = ("waiting", "running", "done", "stopped", "failed")
ACTION_KINDS = ("example", "answer", "submit", "correct", "undo", "redo", "detour")
COLUMN_KINDS = ("number", "date", "text")
GROUPING_KINDS = ("bursts", "column", "near-duplicates", "none")
DETOUR_KINDS = ("gap", "estimate", "absence", "second-look", "other-embedder")
# A path's last part, small letters, in the order of code points, which an index can follow.
FILE_NAME = "(lower(regexp_replace(path, '^.*/'::text, ''::text)) COLLATE \"C\")"
# When an image was taken; those of which nobody knows come after all others.
TAKEN = "COALESCE(captured_at, '9999-12-31 00:00:00'::timestamp without time zone)"


class Table(DeclarativeBase):
    """The base of every table; constraints are named, so that migrations can name them too."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_N_label)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy's own way to declare it
        int: BigInteger,
        datetime: DateTime(timezone=True),
        bytes: LargeBinary,
        dict[str, Any]: JSONB,
    }


def one_of(column: str, values: tuple[str, ...]) -> str:
    """The SQL of a check that `column` holds one of `values`."""
    return f"{column} IN ({', '.join(repr(value) for value in values)})"


class Person(Table):
    """Someone with an account. People are never deleted, for answers name them; accounts close."""

    __tablename__ = "people"
    __table_args__ = (
        CheckConstraint(one_of("role", ROLES), name="role"),
        # People type their names to sign in: "Ada" and "ada" are one.
        Index("uq_people_name", text("lower(name)"), unique=True),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    name: Mapped[str]
    role: Mapped[str] = mapped_column(String(16))
    password_hash: Mapped[str | None]  # argon2; null until a password is set
    closed_at: Mapped[datetime | None]
    made_at: Mapped[datetime] = mapped_column(server_default=func.now())


class SignInLink(Table):
    """A one-time link, which signs in or lets a password be set; only its token's hash is kept."""

    __tablename__ = "sign_in_links"

    token_sha256: Mapped[bytes] = mapped_column(primary_key=True)
    person_id: Mapped[int] = mapped_column(ForeignKey("people.id", ondelete="CASCADE"), index=True)
    sets_password: Mapped[bool] = mapped_column(server_default="false")
    made_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None]


class LoginSession(Table):
    """A browser that is signed in; only the hash of its cookie is kept."""

    __tablename__ = "login_sessions"

    token_sha256: Mapped[bytes] = mapped_column(primary_key=True)
    id: Mapped[int] = mapped_column(Identity(), unique=True)  # what a page may name it by
    person_id: Mapped[int] = mapped_column(ForeignKey("people.id", ondelete="CASCADE"), index=True)
    browser: Mapped[str] = mapped_column(server_default="")  # as it calls itself
    address: Mapped[str] = mapped_column(server_default="")  # the network address it came from
    made_at: Mapped[datetime] = mapped_column(server_default=func.now())
    seen_at: Mapped[datetime] = mapped_column(server_default=func.now())  # within minutes
    expires_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]

    person: Mapped[Person] = relationship()


class ApiToken(Table):
    """Lets a program act for a person; shown once, only its hash is kept."""

    __tablename__ = "api_tokens"
    __table_args__ = (
        CheckConstraint(one_of("scope", TOKEN_SCOPES), name="scope"),
        # A name is free again once its token is revoked.
        Index(
            "uq_api_tokens_person_id_name",
            "person_id",
            "name",
            unique=True,
            postgresql_where="revoked_at IS NULL",
        ),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    person_id: Mapped[int] = mapped_column(ForeignKey("people.id", ondelete="CASCADE"))
    name: Mapped[str]
    scope: Mapped[str] = mapped_column(String(8))
    token_sha256: Mapped[bytes] = mapped_column(unique=True)
    made_at: Mapped[datetime] = mapped_column(server_default=func.now())
    seen_at: Mapped[datetime | None]  # within minutes
    revoked_at: Mapped[datetime | None]

    person: Mapped[Person] = relationship()


class FailedSignIn(Table):
    """One wrong name or password: what locks a name or an address out for a while."""

    __tablename__ = "failed_sign_ins"
    __table_args__ = (Index("ix_failed_sign_ins_name_at", "name", "at"),)

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    name: Mapped[str]  # as it was typed, in small letters; there need not be such a person
    address: Mapped[str] = mapped_column(index=True)
    at: Mapped[datetime] = mapped_column(server_default=func.now())


class Collection(Table):
    """A named set of images that can be searched."""

    __tablename__ = "collections"
    __table_args__ = (
        CheckConstraint(one_of("open_to", OPEN_TO), name="open_to"),
        # A name is free again once its collection is in the bin.
        Index("uq_collections_name", "name", unique=True, postgresql_where="deleted_at IS NULL"),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    name: Mapped[str]
    source: Mapped[str]  # folder or zip it was first imported from
    # What searches its next index: faiss, milvus:lite or milvus:URL.
    vectors: Mapped[str] = mapped_column(server_default="faiss")
    notice: Mapped[str | None]  # shown wherever the collection is: "synthetic"
    made_by_id: Mapped[int | None] = mapped_column(ForeignKey("people.id", ondelete="SET NULL"))
    # Who sees it beside who made it and the admins: `app/access.py`.
    open_to: Mapped[str] = mapped_column(String(8), server_default="everyone")
    # Degrees to which places are rounded for all but trusted people; null where they are exact.
    place_grid: Mapped[float | None]
    # When less of it might be shown to some than before, last: files made for them are of before.
    guarded_at: Mapped[datetime | None]
    # When known labels were last given apart from its images.
    labels_given_at: Mapped[datetime | None]
    # Images with a known label, removed ones among them; written where `LabelCount` is.
    labelled_count: Mapped[int] = mapped_column(server_default="0")
    # Whether an image lies in a folder called like its label; null until that was looked at.
    folders_name_labels: Mapped[bool | None]
    # By which its images are events now; null until it was first grouped.
    grouping_id: Mapped[int | None] = mapped_column(
        ForeignKey("groupings.id", use_alter=True, ondelete="SET NULL")
    )
    # Which columns of brought tables hold times, places, cameras and deployments: `app/taking.py`.
    taken_for: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    made_at: Mapped[datetime] = mapped_column(server_default=func.now())
    archived_at: Mapped[datetime | None]  # put away: works as before, but home does not show it
    deleted_at: Mapped[datetime | None]  # in the bin, and gone for good after some weeks
    deleted_by_id: Mapped[int | None] = mapped_column(ForeignKey("people.id"))


class CollectionPerson(Table):
    """Somebody on the list of people who see a collection."""

    __tablename__ = "collection_people"

    collection_id: Mapped[int] = mapped_column(
        ForeignKey("collections.id", ondelete="CASCADE"), primary_key=True
    )
    person_id: Mapped[int] = mapped_column(
        ForeignKey("people.id", ondelete="CASCADE"), primary_key=True
    )


class TrustedPerson(Table):
    """Somebody who sees the exact places of a collection, and its images of people."""

    __tablename__ = "trusted_people"

    collection_id: Mapped[int] = mapped_column(
        ForeignKey("collections.id", ondelete="CASCADE"), primary_key=True
    )
    person_id: Mapped[int] = mapped_column(
        ForeignKey("people.id", ondelete="CASCADE"), primary_key=True
    )


class Import(Table):
    """One run of importing a source into a collection, with its progress."""

    __tablename__ = "imports"
    __table_args__ = (CheckConstraint(one_of("state", IMPORT_STATES), name="state"),)

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    collection_id: Mapped[int] = mapped_column(
        ForeignKey("collections.id", ondelete="CASCADE"), index=True
    )
    source: Mapped[str]
    labels: Mapped[str | None]  # "folders", or the path of a CSV file
    copy: Mapped[bool] = mapped_column(server_default="false")
    embedder: Mapped[str | None]  # whose vectors are made on the way
    state: Mapped[str] = mapped_column(String(16))
    found_count: Mapped[int] = mapped_column(server_default="0")  # files to look at
    done_count: Mapped[int] = mapped_column(server_default="0")  # files looked at
    imported_count: Mapped[int] = mapped_column(server_default="0")
    duplicate_count: Mapped[int] = mapped_column(server_default="0")
    refused_count: Mapped[int] = mapped_column(server_default="0")
    problem: Mapped[str | None]  # why it failed, as a sentence
    remarks: Mapped[list[str]] = mapped_column(JSONB, server_default="[]")  # on known labels
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())
    ended_at: Mapped[datetime | None]


class Deployment(Table):
    """Where and when a camera stood. Times are by its own clock, as those of images."""

    __tablename__ = "deployments"
    __table_args__ = (UniqueConstraint("collection_id", "name"),)

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    collection_id: Mapped[int] = mapped_column(ForeignKey("collections.id", ondelete="CASCADE"))
    name: Mapped[str]  # of a folder, or the deploymentID of a package
    place: Mapped[str] = mapped_column(server_default="")
    latitude: Mapped[float | None]  # degrees, WGS 84
    longitude: Mapped[float | None]
    starts_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=False))
    ends_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=False))
    # Added to what the camera's clock said: `Image.captured_at` holds the sum.
    clock_shift_s: Mapped[int] = mapped_column(server_default="0")
    # A brought table names it and nobody has changed it: it goes when no table names it.
    is_told: Mapped[bool] = mapped_column(server_default="false")


class Grouping(Table):
    """Which images of a collection are one event: a burst, a track, near-duplicates; never changed.

    Grouping a collection anew adds a row; rounds name the one they went by.
    """

    __tablename__ = "groupings"
    __table_args__ = (CheckConstraint(one_of("kind", GROUPING_KINDS), name="kind"),)

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    collection_id: Mapped[int] = mapped_column(
        ForeignKey("collections.id", ondelete="CASCADE"), index=True
    )
    kind: Mapped[str] = mapped_column(String(16))
    gap_s: Mapped[int | None]  # bursts: between one image and the next, at most
    column_name: Mapped[str | None]  # of a brought table
    likeness: Mapped[float | None]  # near-duplicates: the cosine to the first, at least
    is_automatic: Mapped[bool]  # made by an import, and nobody chose how
    event_count: Mapped[int]  # of several images
    image_count: Mapped[int]  # in them
    cut_count: Mapped[int]  # events that end only because no event may be larger
    # Images in events of several, int64 little-endian, ascending; and for each of them the place in
    # this list of the first image of its event, int32 little-endian.
    image_ids: Mapped[bytes] = mapped_column(deferred=True)
    first_places: Mapped[bytes] = mapped_column(deferred=True)
    made_by_id: Mapped[int | None] = mapped_column(ForeignKey("people.id", ondelete="SET NULL"))
    made_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Image(Table):
    """One picture of a collection; exact duplicates are one image with several paths."""

    __tablename__ = "images"
    __table_args__ = (
        UniqueConstraint("collection_id", "sha256"),
        CheckConstraint(
            "shows_people IS NOT TRUE OR removed_at IS NOT NULL", name="people_are_removed"
        ),
        # The orders of browsing. With all that a page asks for, so that the pages before it are
        # passed over without reading an image.
        Index(
            "ix_images_collection_id_path_id",
            *("collection_id", "path", "id"),
            postgresql_include=["removed_at"],
        ),
        Index(
            "ix_images_file_name",
            *("collection_id", text(FILE_NAME), "id"),
            postgresql_include=["path", "removed_at"],
        ),
        Index(
            "ix_images_taken",
            *("collection_id", text(TAKEN), "id"),
            postgresql_include=["captured_at", "removed_at"],
        ),
        # Few are: every round asks for them.
        Index(
            "ix_images_removed",
            "collection_id",
            "removed_at",
            postgresql_where=text("removed_at IS NOT NULL"),
        ),
        Index("ix_images_boxed", "collection_id", postgresql_where=text("boxed_at IS NOT NULL")),
        Index(
            "ix_images_deployment_id",
            "deployment_id",
            postgresql_where=text("deployment_id IS NOT NULL"),
        ),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    collection_id: Mapped[int] = mapped_column(ForeignKey("collections.id", ondelete="CASCADE"))
    sha256: Mapped[str] = mapped_column(String(64))
    path: Mapped[str]  # relative to the source, as people know it
    file: Mapped[str]  # where the original is on disk
    size_bytes: Mapped[int]
    format: Mapped[str] = mapped_column(String(8))  # JPEG, PNG, WEBP, TIFF, GIF, BMP
    width: Mapped[int]  # pixels, after the EXIF orientation is applied
    height: Mapped[int]
    orientation: Mapped[int] = mapped_column(server_default="1")  # EXIF, 1 to 8
    deployment_id: Mapped[int | None] = mapped_column(
        ForeignKey("deployments.id", ondelete="SET NULL")
    )
    # Camera-local time, never converted: cameras do not know their time zone. With the clock shift
    # of its deployment, where that has one.
    captured_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=False))
    latitude: Mapped[float | None]  # degrees, WGS 84
    longitude: Mapped[float | None]
    camera: Mapped[str | None]
    added_at: Mapped[datetime] = mapped_column(server_default=func.now())
    # What tables that people brought say of it, by column: numbers, and texts (dates as ISO 8601).
    given: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    # Where such a table says when, where or by what it was taken: time, place, camera and
    # deployment without it.
    own: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    # Of an image that somebody removed: it is kept, and left out wherever images are looked at.
    removed_at: Mapped[datetime | None]
    removed_by_id: Mapped[int | None] = mapped_column(ForeignKey("people.id", ondelete="SET NULL"))
    # Such an image is removed, and only trusted people see it. False: somebody looked and said no,
    # and no import says otherwise; null: nobody did.
    shows_people: Mapped[bool | None]
    # Whether such an image had been removed before anyone knew that it shows people.
    was_removed: Mapped[bool] = mapped_column(server_default="false")
    # When what a detector drew on it changed last: an index that looks at boxes knows by it.
    boxed_at: Mapped[datetime | None]

    deployment: Mapped[Deployment | None] = relationship()


class Box(Table):
    """What a detector drew on an image, the most certain first; shares of the upright image."""

    __tablename__ = "boxes"

    image_id: Mapped[int] = mapped_column(
        ForeignKey("images.id", ondelete="CASCADE"), primary_key=True
    )
    position: Mapped[int] = mapped_column(primary_key=True)
    category: Mapped[str]
    confidence: Mapped[float]
    x: Mapped[float]
    y: Mapped[float]
    width: Mapped[float]
    height: Mapped[float]


class ImagePath(Table):
    """Every path under which an image was found: how duplicates and known files are told."""

    __tablename__ = "image_paths"
    __table_args__ = (
        UniqueConstraint("collection_id", "path"),
        # People jump to files by name: without it every letter typed reads a million paths.
        Index("ix_image_paths_file_name", "collection_id", text(FILE_NAME)),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    collection_id: Mapped[int] = mapped_column(ForeignKey("collections.id", ondelete="CASCADE"))
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id", ondelete="CASCADE"), index=True)
    path: Mapped[str]
    size_bytes: Mapped[int]
    modified_ns: Mapped[int]


class RefusedFile(Table):
    """A file of a source that did not become an image, and why."""

    __tablename__ = "refused_files"
    __table_args__ = (UniqueConstraint("collection_id", "path"),)

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    collection_id: Mapped[int] = mapped_column(ForeignKey("collections.id", ondelete="CASCADE"))
    path: Mapped[str]
    reason: Mapped[str]  # a short group: "not an image", "damaged", "too large", …
    detail: Mapped[str]  # a sentence about this file
    size_bytes: Mapped[int]
    modified_ns: Mapped[int]
    refused_at: Mapped[datetime] = mapped_column(server_default=func.now())


class GivenColumn(Table):
    """A column of the tables brought to a collection: its kind is told by what stands in it."""

    __tablename__ = "given_columns"
    __table_args__ = (CheckConstraint(one_of("kind", COLUMN_KINDS), name="kind"),)

    collection_id: Mapped[int] = mapped_column(
        ForeignKey("collections.id", ondelete="CASCADE"), primary_key=True
    )
    name: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(8))
    position: Mapped[int]  # columns are shown in the order they came
    choices: Mapped[list[str] | None] = mapped_column(ARRAY(String))  # its texts; null if many
    least: Mapped[str | None]  # of numbers and dates
    most: Mapped[str | None]
    # Shown rounded, or not at all, where places are.
    holds_place: Mapped[bool] = mapped_column(server_default="false")


class GivenTable(Table):
    """A table of any columns that was brought to a collection's images."""

    __tablename__ = "given_tables"
    __table_args__ = (UniqueConstraint("collection_id", "name"),)

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    collection_id: Mapped[int] = mapped_column(ForeignKey("collections.id", ondelete="CASCADE"))
    name: Mapped[str]  # of the file; brought again, it adds to the one before
    row_count: Mapped[int]
    image_count: Mapped[int]  # images that a row is about
    columns: Mapped[list[str]] = mapped_column(ARRAY(String), server_default="{}")  # it speaks of
    added_by_id: Mapped[int | None] = mapped_column(ForeignKey("people.id", ondelete="SET NULL"))
    added_at: Mapped[datetime] = mapped_column(server_default=func.now())


class GivenRow(Table):
    """What a brought table says of an image, by column; of all that speak of one the newest holds.

    Kept as it was written, so that a table can be removed as if it had never been brought.
    """

    __tablename__ = "given_rows"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    table_id: Mapped[int] = mapped_column(
        ForeignKey("given_tables.id", ondelete="CASCADE"), index=True
    )
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id", ondelete="CASCADE"), index=True)
    said: Mapped[dict[str, Any]]  # texts; null for an empty cell, which takes away what was there


class UnmatchedRow(Table):
    """A row of a brought table that is about no image, and why."""

    __tablename__ = "unmatched_rows"

    table_id: Mapped[int] = mapped_column(
        ForeignKey("given_tables.id", ondelete="CASCADE"), primary_key=True
    )
    line: Mapped[int] = mapped_column(primary_key=True)  # in the file, the header is 1
    name: Mapped[str]  # what the row calls its image
    reason: Mapped[str]


class OracleLabel(Table):
    """A known label: the oracle's knowledge, never shown in a search or read by the live loop.

    An image that is known to show no target has the empty one, alone.
    """

    __tablename__ = "oracle_labels"

    image_id: Mapped[int] = mapped_column(
        ForeignKey("images.id", ondelete="CASCADE"), primary_key=True
    )
    label: Mapped[str] = mapped_column(primary_key=True, index=True)


class LabelCount(Table):
    """How many images of a collection have a known label, removed ones among them.

    Counted anew whenever labels change, in the same transaction: pages would count for a second.
    """

    __tablename__ = "label_counts"

    collection_id: Mapped[int] = mapped_column(
        ForeignKey("collections.id", ondelete="CASCADE"), primary_key=True
    )
    label: Mapped[str] = mapped_column(primary_key=True)
    image_count: Mapped[int]


class ImageIndex(Table):
    """One immutable build of vectors for one collection and one embedder."""

    __tablename__ = "indexes"
    __table_args__ = (CheckConstraint(one_of("state", INDEX_STATES), name="state"),)

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    collection_id: Mapped[int] = mapped_column(
        ForeignKey("collections.id", ondelete="CASCADE"), index=True
    )
    embedder: Mapped[str]
    revision: Mapped[str]
    dimension: Mapped[int]
    knows_words: Mapped[bool] = mapped_column(server_default="false")  # its embedder embeds texts
    state: Mapped[str] = mapped_column(String(16))
    image_count: Mapped[int]  # images to embed
    done_count: Mapped[int] = mapped_column(server_default="0")
    # Of those done, the ones whose vectors were there: of an earlier index, or made at the import.
    copied_count: Mapped[int] = mapped_column(server_default="0")
    problem: Mapped[str | None]
    vectors: Mapped[str] = mapped_column(server_default="faiss")  # as the collection said then
    milvus_name: Mapped[str | None]  # of the collection in Milvus that holds them
    # Of what an exact ranking offers, the share that FAISS finds where not every image is ranked.
    agreement: Mapped[float | None]
    # Of a combined index: the two whose vectors stand side by side in it.
    first_part_id: Mapped[int | None] = mapped_column(ForeignKey("indexes.id"))
    second_part_id: Mapped[int | None] = mapped_column(ForeignKey("indexes.id"))
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())
    ready_at: Mapped[datetime | None]


class IndexPart(Table):
    """Some images of an index that is being built by several workers: one takes them at a time."""

    __tablename__ = "index_parts"
    __table_args__ = (UniqueConstraint("index_id", "start_row"),)

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    index_id: Mapped[int] = mapped_column(ForeignKey("indexes.id", ondelete="CASCADE"))
    start_row: Mapped[int]  # of the index's vectors
    image_ids: Mapped[list[int]] = mapped_column(ARRAY(BigInteger))  # in the order of the rows
    done_count: Mapped[int] = mapped_column(server_default="0")  # so far, for who looks on
    done_at: Mapped[datetime | None]  # its vectors are kept, all of them
    # Images that can't be read, by number, and why not.
    refused: Mapped[dict[str, Any]] = mapped_column(server_default="{}")


class UnreadableImage(Table):
    """An image left out of an index because its pixels could not be read when it was embedded."""

    __tablename__ = "unreadable_images"

    index_id: Mapped[int] = mapped_column(
        ForeignKey("indexes.id", ondelete="CASCADE"), primary_key=True
    )
    image_id: Mapped[int] = mapped_column(
        ForeignKey("images.id", ondelete="CASCADE"), primary_key=True, index=True
    )
    reason: Mapped[str]


class Photo(Table):
    """An example photo uploaded by a person; not an image of any collection."""

    __tablename__ = "photos"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    person_id: Mapped[int] = mapped_column(ForeignKey("people.id", ondelete="CASCADE"))
    name: Mapped[str]  # the file's name on the person's disk
    sha256: Mapped[str] = mapped_column(String(64))
    width: Mapped[int]
    height: Mapped[int]
    added_at: Mapped[datetime] = mapped_column(server_default=func.now())


class TrayItem(Table):
    """An example picked while browsing, kept until a search is opened with it."""

    __tablename__ = "tray_items"
    __table_args__ = (
        CheckConstraint("(image_id IS NULL) <> (photo_id IS NULL)", name="image_or_photo"),
        UniqueConstraint("person_id", "collection_id", "image_id"),
        UniqueConstraint("person_id", "collection_id", "photo_id"),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    person_id: Mapped[int] = mapped_column(ForeignKey("people.id", ondelete="CASCADE"))
    collection_id: Mapped[int] = mapped_column(ForeignKey("collections.id", ondelete="CASCADE"))
    image_id: Mapped[int | None] = mapped_column(
        ForeignKey("images.id", ondelete="CASCADE"), index=True
    )
    photo_id: Mapped[int | None] = mapped_column(
        ForeignKey("photos.id", ondelete="CASCADE"), index=True
    )
    # Of the form for a new search in which it was added; other forms offer it without a tick.
    opening_key: Mapped[str | None] = mapped_column(String(64))

    image: Mapped[Image | None] = relationship()
    photo: Mapped[Photo | None] = relationship()


class Search(Table):
    """One hunt for one target in one collection."""

    __tablename__ = "searches"
    __table_args__ = (UniqueConstraint("owner_id", "opening_key"),)

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    collection_id: Mapped[int] = mapped_column(
        ForeignKey("collections.id", ondelete="CASCADE"), index=True
    )
    owner_id: Mapped[int] = mapped_column(ForeignKey("people.id", ondelete="CASCADE"), index=True)
    target_name: Mapped[str]
    counts_as_yes: Mapped[str] = mapped_column(server_default="")  # in the owner's words
    counts_as_no: Mapped[str] = mapped_column(server_default="")
    # The owner's own reasons for no, beside NO_REASONS.
    no_reasons: Mapped[list[str]] = mapped_column(ARRAY(String), server_default="{}")
    # Whether a no to an image that is too poor, or empty, trains the head as any other.
    learns_from_poor: Mapped[bool] = mapped_column(server_default="false")
    # Whether every answered image of an event trains the head, and not one of them.
    learns_from_events: Mapped[bool] = mapped_column(server_default="false")
    embedder: Mapped[str]
    strategy: Mapped[str]
    round_size: Mapped[int]
    seed: Mapped[int]
    # Made for each form: a form that is sent twice opens one search.
    opening_key: Mapped[str | None] = mapped_column(String(64))
    # Keys and values of app/filtering.py; null where every image is looked at.
    filter: Mapped[list[list[str]] | None] = mapped_column(JSONB(none_as_null=True))
    # The newest of the rounds at its people's seats: its head is the search's.
    current_round_id: Mapped[int | None] = mapped_column(
        ForeignKey("rounds.id", use_alter=True, ondelete="SET NULL")
    )
    made_at: Mapped[datetime] = mapped_column(server_default=func.now())
    touched_at: Mapped[datetime] = mapped_column(server_default=func.now())
    # Whoever sees the collection may look at the search; only members answer.
    open_to_view: Mapped[bool] = mapped_column(server_default="false")
    # What exports in the field's standards need and only people know: app/exports/details.py.
    export_details: Mapped[dict[str, Any] | None]
    archived_at: Mapped[datetime | None]
    deleted_at: Mapped[datetime | None]
    deleted_by_id: Mapped[int | None] = mapped_column(ForeignKey("people.id"))

    collection: Mapped[Collection] = relationship()
    owner: Mapped[Person] = relationship(foreign_keys=[owner_id])


class SearchMember(Table):
    """Somebody who answers in a search that another person opened; the owner is no row here."""

    __tablename__ = "search_members"

    search_id: Mapped[int] = mapped_column(
        ForeignKey("searches.id", ondelete="CASCADE"), primary_key=True
    )
    person_id: Mapped[int] = mapped_column(
        ForeignKey("people.id", ondelete="CASCADE"), primary_key=True, index=True
    )
    added_by_id: Mapped[int] = mapped_column(ForeignKey("people.id"))
    added_at: Mapped[datetime] = mapped_column(server_default=func.now())

    person: Mapped[Person] = relationship(foreign_keys=[person_id])


class Example(Table):
    """What opened a search: an image of the collection, an uploaded photo, or words."""

    __tablename__ = "examples"
    __table_args__ = (
        CheckConstraint("num_nonnulls(image_id, photo_id, words) = 1", name="image_photo_or_words"),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    search_id: Mapped[int] = mapped_column(
        ForeignKey("searches.id", ondelete="CASCADE"), index=True
    )
    image_id: Mapped[int | None] = mapped_column(
        ForeignKey("images.id", ondelete="CASCADE"), index=True
    )
    photo_id: Mapped[int | None] = mapped_column(
        ForeignKey("photos.id", ondelete="CASCADE"), index=True
    )
    words: Mapped[str | None]

    image: Mapped[Image | None] = relationship()
    photo: Mapped[Photo | None] = relationship()


class ExampleVector(Table):
    """The vector of a photo or of words, by each embedder that a search has used."""

    __tablename__ = "example_vectors"

    example_id: Mapped[int] = mapped_column(
        ForeignKey("examples.id", ondelete="CASCADE"), primary_key=True
    )
    revision: Mapped[str] = mapped_column(primary_key=True)  # of the embedder
    vector: Mapped[bytes]  # float32 little-endian
    after_round_id: Mapped[int | None]  # the search's last round when it was made


class CardImage(Table):
    """A picture on the target card: an image that counts as yes, or one that does not."""

    __tablename__ = "card_images"

    search_id: Mapped[int] = mapped_column(
        ForeignKey("searches.id", ondelete="CASCADE"), primary_key=True
    )
    image_id: Mapped[int] = mapped_column(
        ForeignKey("images.id", ondelete="CASCADE"), primary_key=True, index=True
    )
    counts: Mapped[bool]
    added_at: Mapped[datetime] = mapped_column(server_default=func.now())

    image: Mapped[Image] = relationship()


class Pool(Table):
    """The images that a search's filter kept: what its rounds chose from, and are repeated from."""

    __tablename__ = "pools"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    search_id: Mapped[int] = mapped_column(
        ForeignKey("searches.id", ondelete="CASCADE"), index=True
    )
    filter: Mapped[list[list[str]]] = mapped_column(JSONB)
    image_ids: Mapped[bytes]  # int64 little-endian, ascending
    made_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Round(Table):
    """One grid as it was proposed; never changed. Rounds form a tree, branching after an undo."""

    __tablename__ = "rounds"
    __table_args__ = (
        # Deleting a round looks for what follows it, deleting a detour for its rounds.
        Index(
            "ix_rounds_previous_id", "previous_id", postgresql_where=text("previous_id IS NOT NULL")
        ),
        Index("ix_rounds_detour_id", "detour_id", postgresql_where=text("detour_id IS NOT NULL")),
        Index("ix_rounds_pool_id", "pool_id", postgresql_where=text("pool_id IS NOT NULL")),
        Index(
            "ix_rounds_grouping_id",
            "grouping_id",
            postgresql_where=text("grouping_id IS NOT NULL"),
        ),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    search_id: Mapped[int] = mapped_column(
        ForeignKey("searches.id", ondelete="CASCADE"), index=True
    )
    previous_id: Mapped[int | None] = mapped_column(ForeignKey("rounds.id", ondelete="CASCADE"))
    number: Mapped[int]
    strategy: Mapped[str]
    size: Mapped[int]
    seed: Mapped[int]
    index_id: Mapped[int] = mapped_column(ForeignKey("indexes.id"))
    # The newest answer event the proposal knew: what makes a round repeatable.
    answers_through_id: Mapped[int] = mapped_column(server_default="0")
    # The detour that chose its images; null where the strategy did.
    detour_id: Mapped[int | None] = mapped_column(
        ForeignKey("detours.id", use_alter=True, ondelete="SET NULL")
    )
    # Removed images that its index still held: as good as answered.
    left_out_ids: Mapped[list[int] | None] = mapped_column(ARRAY(BigInteger))
    # Images without an answer that others were being asked: as good as unsure.
    leased_ids: Mapped[list[int] | None] = mapped_column(ARRAY(BigInteger))
    learns_from_poor: Mapped[bool] = mapped_column(server_default="false")  # as the search's, then
    learns_from_events: Mapped[bool] = mapped_column(server_default="false")  # likewise
    # By which its images were events; null where each stood by itself.
    grouping_id: Mapped[int | None] = mapped_column(ForeignKey("groupings.id"))
    # The images it chose from; null where those were all.
    pool_id: Mapped[int | None] = mapped_column(ForeignKey("pools.id"))
    head_weights: Mapped[bytes | None]  # float32 little-endian; null while there is no head
    head_bias: Mapped[float | None]
    proposing_ms: Mapped[float]
    # Of the submit that led here, from the lock to the last write; null where none did.
    submitting_ms: Mapped[float | None]
    proposed_at: Mapped[datetime] = mapped_column(server_default=func.now())

    images: Mapped[list["RoundImage"]] = relationship(order_by="RoundImage.position")


class Seat(Table):
    """One person's place in a search: the grid they have, and whether they are there."""

    __tablename__ = "seats"

    search_id: Mapped[int] = mapped_column(
        ForeignKey("searches.id", ondelete="CASCADE"), primary_key=True
    )
    person_id: Mapped[int] = mapped_column(
        ForeignKey("people.id", ondelete="CASCADE"), primary_key=True, index=True
    )
    # The tip of their branch of the tree of rounds: undoing a submit moves it back, redoing moves
    # it forward.
    round_id: Mapped[int | None] = mapped_column(
        ForeignKey("rounds.id", ondelete="CASCADE"), index=True
    )
    here_until: Mapped[datetime] = mapped_column(server_default=func.now())
    visit: Mapped[str | None] = mapped_column(String(64))  # the page that was opened last
    rest_are_no: Mapped[bool] = mapped_column(server_default="false")  # as they chose last

    person: Mapped[Person] = relationship()


class Lease(Table):
    """An image that is asked of one person of a shared search, as long as they are there."""

    __tablename__ = "leases"
    __table_args__ = (
        ForeignKeyConstraint(
            ["search_id", "person_id"], ["seats.search_id", "seats.person_id"], ondelete="CASCADE"
        ),
    )

    search_id: Mapped[int] = mapped_column(primary_key=True)
    image_id: Mapped[int] = mapped_column(
        ForeignKey("images.id", ondelete="CASCADE"), primary_key=True, index=True
    )
    person_id: Mapped[int]


class Detour(Table):
    """Rounds that a person asked for: a gap, a sample, a second look, another embedder's look.

    Which images they show follows from the index and the head of the round that was on screen, the
    answers that stood, and the seed: `premises.read_plan`. The plan is kept, for a round of it not
    to cost more than others.
    """

    __tablename__ = "detours"
    __table_args__ = (
        CheckConstraint(one_of("kind", DETOUR_KINDS), name="kind"),
        Index("ix_detours_pool_id", "pool_id", postgresql_where=text("pool_id IS NOT NULL")),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    search_id: Mapped[int] = mapped_column(
        ForeignKey("searches.id", ondelete="CASCADE"), index=True
    )
    person_id: Mapped[int] = mapped_column(ForeignKey("people.id"))
    kind: Mapped[str] = mapped_column(String(16))
    size: Mapped[int]  # images
    from_round_id: Mapped[int] = mapped_column(
        ForeignKey("rounds.id", ondelete="CASCADE"), index=True
    )
    answers_through_id: Mapped[int]
    seed: Mapped[int]
    round_number: Mapped[int]  # of its first round
    anchor_image_id: Mapped[int | None] = mapped_column(ForeignKey("images.id"), index=True)  # gap
    # Of the other embedder, whose vectors chose the images.
    other_index_id: Mapped[int | None] = mapped_column(ForeignKey("indexes.id"))
    # The images it chose from; null where those were all.
    pool_id: Mapped[int | None] = mapped_column(ForeignKey("pools.id"))
    # The plan: all images in the order to show, int64 little-endian; and of a second look, the
    # positives it came upon, and how many images stand beside single ones. Null in detours of
    # earlier versions.
    planned_image_ids: Mapped[bytes | None]
    seen_again: Mapped[int | None]
    beside_count: Mapped[int | None]
    # Removed images that the index held when it was planned: none of them is in the plan.
    left_out_ids: Mapped[list[int] | None] = mapped_column(ARRAY(BigInteger))
    made_at: Mapped[datetime] = mapped_column(server_default=func.now())

    @property
    def image_count(self) -> int:
        """Images to show: fewer than `size` where fewer are left."""
        planned = self.planned_image_ids
        return self.size if planned is None else len(planned) // 8


class ChosenGoal(Table):
    """What a search is to reach and the stop rule it goes by; the newest one stands."""

    __tablename__ = "goals"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    search_id: Mapped[int] = mapped_column(
        ForeignKey("searches.id", ondelete="CASCADE"), index=True
    )
    person_id: Mapped[int] = mapped_column(ForeignKey("people.id"))
    rule: Mapped[str]
    recall: Mapped[float | None]  # 0..1 of the target's images
    positives: Mapped[int | None]
    coverage: Mapped[float | None]  # 0..1 of the target's looks
    confidence: Mapped[float]  # 0..1
    chosen_at: Mapped[datetime] = mapped_column(server_default=func.now())

    person: Mapped[Person] = relationship()


class RoundImage(Table):
    """One image of a grid: its place, and why it was chosen."""

    __tablename__ = "round_images"
    __table_args__ = (UniqueConstraint("round_id", "image_id"),)

    round_id: Mapped[int] = mapped_column(
        ForeignKey("rounds.id", ondelete="CASCADE"), primary_key=True
    )
    position: Mapped[int] = mapped_column(primary_key=True)
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id", ondelete="CASCADE"), index=True)
    score: Mapped[float]
    probability: Mapped[float | None]
    reason: Mapped[str]

    image: Mapped[Image] = relationship()


class Action(Table):
    """One thing a person did in a search; undo and redo are actions of their own."""

    __tablename__ = "actions"
    __table_args__ = (
        CheckConstraint(one_of("kind", ACTION_KINDS), name="kind"),
        UniqueConstraint("search_id", "gesture_key"),
        # Deleting an action or a round looks for what names it; most actions name neither.
        Index("ix_actions_reverses_id", "reverses_id", postgresql_where="reverses_id IS NOT NULL"),
        Index(
            "ix_actions_next_round_id",
            "next_round_id",
            postgresql_where="next_round_id IS NOT NULL",
        ),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    search_id: Mapped[int] = mapped_column(ForeignKey("searches.id", ondelete="CASCADE"))
    round_id: Mapped[int | None] = mapped_column(
        ForeignKey("rounds.id", ondelete="CASCADE"), index=True
    )
    person_id: Mapped[int] = mapped_column(ForeignKey("people.id"))
    kind: Mapped[str] = mapped_column(String(8))
    # Made by the browser for each gesture: a retried or repeated request is the same gesture.
    gesture_key: Mapped[str | None] = mapped_column(String(64))
    reverses_id: Mapped[int | None] = mapped_column(ForeignKey("actions.id"))
    next_round_id: Mapped[int | None] = mapped_column(ForeignKey("rounds.id"))
    at: Mapped[datetime] = mapped_column(server_default=func.now())


class Answer(Table):
    """One answer event; the newest event of an image is its current answer."""

    __tablename__ = "answers"
    __table_args__ = (
        CheckConstraint(one_of("value", ANSWER_VALUES), name="value"),
        CheckConstraint("reason IS NULL OR value = 'no'", name="reason"),
        Index("ix_answers_search_id_image_id_id", "search_id", "image_id", "id"),
        Index(
            "ix_answers_with_image_id",
            "with_image_id",
            postgresql_where=text("with_image_id IS NOT NULL"),
        ),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    search_id: Mapped[int] = mapped_column(ForeignKey("searches.id", ondelete="CASCADE"))
    action_id: Mapped[int] = mapped_column(ForeignKey("actions.id", ondelete="CASCADE"), index=True)
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id", ondelete="CASCADE"), index=True)
    value: Mapped[str] = mapped_column(String(8))
    reason: Mapped[str | None]  # for a no: one of NO_REASONS, or of the search's own
    # The image of the same event that a person looked at when they answered for all of it; null
    # where they looked at this one.
    with_image_id: Mapped[int | None] = mapped_column(ForeignKey("images.id", ondelete="SET NULL"))


class Review(Table):
    """A second opinion that the owner of a search asked somebody for."""

    __tablename__ = "reviews"
    __table_args__ = (CheckConstraint(one_of("kind", REVIEW_KINDS), name="kind"),)

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    search_id: Mapped[int] = mapped_column(
        ForeignKey("searches.id", ondelete="CASCADE"), index=True
    )
    reviewer_id: Mapped[int] = mapped_column(ForeignKey("people.id"), index=True)
    asked_by_id: Mapped[int] = mapped_column(ForeignKey("people.id"))
    kind: Mapped[str] = mapped_column(String(16))
    seed: Mapped[int]
    asked_at: Mapped[datetime] = mapped_column(server_default=func.now())
    withdrawn_at: Mapped[datetime | None]

    search: Mapped[Search] = relationship()
    reviewer: Mapped[Person] = relationship(foreign_keys=[reviewer_id])
    asked_by: Mapped[Person] = relationship(foreign_keys=[asked_by_id])


class ReviewImage(Table):
    """One image of a second opinion, with the answer that stood when it was asked for."""

    __tablename__ = "review_images"

    review_id: Mapped[int] = mapped_column(
        ForeignKey("reviews.id", ondelete="CASCADE"), primary_key=True
    )
    image_id: Mapped[int] = mapped_column(
        ForeignKey("images.id", ondelete="CASCADE"), primary_key=True, index=True
    )
    position: Mapped[int]
    first_value: Mapped[str] = mapped_column(String(8))
    first_person_id: Mapped[int] = mapped_column(ForeignKey("people.id"))

    image: Mapped[Image] = relationship()


class ReviewAnswer(Table):
    """One answer in a second opinion, or what a conflict was settled to; only ever added."""

    __tablename__ = "review_answers"
    __table_args__ = (
        CheckConstraint(one_of("value", ANSWER_VALUES), name="value"),
        ForeignKeyConstraint(
            ["review_id", "image_id"],
            ["review_images.review_id", "review_images.image_id"],
            ondelete="CASCADE",
        ),
        Index("ix_review_answers_review_id_image_id_id", "review_id", "image_id", "id"),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    review_id: Mapped[int]
    image_id: Mapped[int]
    person_id: Mapped[int] = mapped_column(ForeignKey("people.id"))
    value: Mapped[str] = mapped_column(String(8))
    settles: Mapped[bool]
    at: Mapped[datetime] = mapped_column(server_default=func.now())


class NoteEvent(Table):
    """What a person wrote on an image or a search; the newest event of a note is what it says."""

    __tablename__ = "note_events"
    __table_args__ = (
        CheckConstraint("num_nonnulls(image_id, search_id) = 1", name="image_or_search"),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    # The first event of the note that this one changes; null in a first.
    note_id: Mapped[int | None] = mapped_column(
        ForeignKey("note_events.id", ondelete="CASCADE"), index=True
    )
    image_id: Mapped[int | None] = mapped_column(
        ForeignKey("images.id", ondelete="CASCADE"), index=True
    )
    search_id: Mapped[int | None] = mapped_column(
        ForeignKey("searches.id", ondelete="CASCADE"), index=True
    )
    person_id: Mapped[int] = mapped_column(ForeignKey("people.id"))
    text: Mapped[str | None]  # null where it was removed
    at: Mapped[datetime] = mapped_column(server_default=func.now())


class TagEvent(Table):
    """A short word put on an image or a search, or taken off; the newest event of a tag holds."""

    __tablename__ = "tag_events"
    __table_args__ = (
        CheckConstraint("num_nonnulls(image_id, search_id) = 1", name="image_or_search"),
        Index("ix_tag_events_tag_image_id_id", "tag", "image_id", "id"),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    image_id: Mapped[int | None] = mapped_column(
        ForeignKey("images.id", ondelete="CASCADE"), index=True
    )
    search_id: Mapped[int | None] = mapped_column(
        ForeignKey("searches.id", ondelete="CASCADE"), index=True
    )
    tag: Mapped[str]  # in small letters
    is_on: Mapped[bool]
    person_id: Mapped[int] = mapped_column(ForeignKey("people.id"))
    at: Mapped[datetime] = mapped_column(server_default=func.now())


class Replay(Table):
    """One replay started in the browser; its runs and rounds are files of the data folder."""

    __tablename__ = "replays"
    __table_args__ = (CheckConstraint(one_of("state", REPLAY_STATES), name="state"),)

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    collection_id: Mapped[int] = mapped_column(
        ForeignKey("collections.id", ondelete="CASCADE"), index=True
    )
    person_id: Mapped[int] = mapped_column(ForeignKey("people.id", ondelete="CASCADE"))
    settings: Mapped[dict[str, Any]]  # targets, strategies, rounds, …: what the manifest says too
    state: Mapped[str] = mapped_column(String(16))
    run_count: Mapped[int]
    done_count: Mapped[int] = mapped_column(server_default="0")
    problem: Mapped[str | None]  # why it failed, as a sentence
    made_at: Mapped[datetime] = mapped_column(server_default=func.now())
    started_at: Mapped[datetime | None]  # of the process that plays it now
    started_count: Mapped[int] = mapped_column(server_default="0")  # runs done when that started
    ended_at: Mapped[datetime | None]

    person: Mapped[Person] = relationship()


class AuditEvent(Table):
    """Who did what that matters to others. The database refuses to change or delete a row."""

    __tablename__ = "audit_events"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=func.now(), index=True)
    person_id: Mapped[int | None]  # no foreign keys: events outlive what they tell of
    person_name: Mapped[str]
    kind: Mapped[str] = mapped_column(String(16))
    sentence: Mapped[str]
    collection_id: Mapped[int | None]
    search_id: Mapped[int | None]


class Job(Table):
    """One piece of long work as people see it; the queue only says when somebody is to run it."""

    __tablename__ = "jobs"
    __table_args__ = (
        CheckConstraint(one_of("kind", JOB_KINDS), name="kind"),
        CheckConstraint(one_of("state", JOB_STATES), name="state"),
        Index("ix_jobs_unfinished", "id", postgresql_where="state IN ('waiting', 'running')"),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))
    collection_id: Mapped[int] = mapped_column(
        ForeignKey("collections.id", ondelete="CASCADE"), index=True
    )
    person_id: Mapped[int | None] = mapped_column(ForeignKey("people.id", ondelete="SET NULL"))
    arguments: Mapped[dict[str, Any]]  # what its kind needs to know
    state: Mapped[str] = mapped_column(String(16), server_default="waiting")
    stop_asked: Mapped[bool] = mapped_column(server_default="false")
    problem: Mapped[str | None]  # why it failed, as a sentence
    step: Mapped[str | None] = mapped_column(String(16))  # importing, loading, indexing
    done_count: Mapped[int] = mapped_column(server_default="0")  # of this step
    total_count: Mapped[int] = mapped_column(server_default="0")
    step_started_at: Mapped[datetime | None]
    step_started_count: Mapped[int] = mapped_column(server_default="0")  # done when that began
    attempts: Mapped[int] = mapped_column(server_default="0")  # times it was begun
    queue_id: Mapped[int | None]  # its newest place in the queue
    request_id: Mapped[str | None] = mapped_column(String(64))  # of who asked for it, in the log
    made_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]

    collection: Mapped[Collection] = relationship()
    person: Mapped[Person | None] = relationship()


class ExportFile(Table):
    """An export that takes long, made by a job as a file of the data folder and kept some days."""

    __tablename__ = "export_files"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    search_id: Mapped[int] = mapped_column(
        ForeignKey("searches.id", ondelete="CASCADE"), index=True
    )
    # Who asked for it: nobody else is given the file.
    person_id: Mapped[int] = mapped_column(ForeignKey("people.id", ondelete="CASCADE"), index=True)
    name: Mapped[str]  # of the format: pictures.zip
    size_bytes: Mapped[int | None]
    asked_at: Mapped[datetime] = mapped_column(server_default=func.now())
    ready_at: Mapped[datetime | None]  # null until all of it is in its place
    guarded_at: Mapped[datetime | None]  # of its collection, as it was when the file was begun

    search: Mapped[Search] = relationship()
    person: Mapped[Person] = relationship()


class Upload(Table):
    """Files that a person sends from a browser, to become images of a collection."""

    __tablename__ = "uploads"
    __table_args__ = (CheckConstraint(one_of("state", UPLOAD_STATES), name="state"),)

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    collection_id: Mapped[int] = mapped_column(
        ForeignKey("collections.id", ondelete="CASCADE"), index=True
    )
    person_id: Mapped[int] = mapped_column(ForeignKey("people.id", ondelete="CASCADE"), index=True)
    state: Mapped[str] = mapped_column(String(16), server_default="receiving")
    labels: Mapped[str | None]  # "folders", or none, or what `labels_file` is called
    labels_file: Mapped[bytes | None] = mapped_column(deferred=True)
    embedder: Mapped[str | None]  # of a new collection
    size_bytes: Mapped[int] = mapped_column(server_default="0")  # of all its files, as announced
    made_at: Mapped[datetime] = mapped_column(server_default=func.now())
    touched_at: Mapped[datetime] = mapped_column(server_default=func.now())

    collection: Mapped[Collection] = relationship()


class UploadedFile(Table):
    """One file of an upload, until it is imported. Its size on disk says how much is here."""

    __tablename__ = "uploaded_files"
    __table_args__ = (UniqueConstraint("upload_id", "path"),)

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    upload_id: Mapped[int] = mapped_column(ForeignKey("uploads.id", ondelete="CASCADE"))
    path: Mapped[str]  # within the folder that was sent
    size_bytes: Mapped[int]
    modified_ms: Mapped[int | None]  # since 1970, by the clock of the person's machine
    has_arrived: Mapped[bool] = mapped_column(server_default="false")
