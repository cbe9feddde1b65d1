"""Which indexes a collection has, side by side, and what each is good for.

An index is named by its embedder: of each embedder the newest ready one counts. What comes from
outside a collection (photos, words) gets its vector here, for any index, a combined one too.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session

from app.access import sees_collection
from app.database import Database
from app.detecting import has_boxes
from app.embedders import EmbedderChoice, list_embedders
from app.engine.combined import combine_vectors, place_in_part
from app.engine.embedders import BOXES, EMBEDDERS, Floats, looks_at_boxes
from app.engine.words import embed_words as embed_in_prompts
from app.errors import BadInput, NoIndexYet, NoWords
from app.events import group_by_itself
from app.indexing import (
    DEFAULT_EMBEDDER,
    CallForHelp,
    LoadedEmbedders,
    build_index,
    combine_indexes,
    embed_photo,
    get_current_index,
)
from app.searchers import describe_vectors
from app.settings import Settings
from app.tables import Collection, ImageIndex, Person, Photo

MAX_WORDS_LENGTH = 300
LOOKS_AT_BOXES = "Looks at what the detector drew a box around, else at the whole image."


@dataclass(frozen=True)
class IndexChoice:
    """A ready index as pages and programs offer it."""

    embedder: str
    summary: str
    knows_words: bool
    is_combined: bool
    is_stale: bool  # combined of indexes that have newer ones
    image_count: int
    dimension: int
    ready_at: datetime | None
    searched_by: str


@dataclass(frozen=True)
class Build:
    """The newest build by an embedder that has not ended well yet, for its place on the page."""

    embedder: str
    state: str  # building or failed
    done_count: int
    image_count: int
    problem: str | None


def list_indexes(session: Session, collection_id: int) -> list[IndexChoice]:
    """The newest ready index of each embedder, the newest first."""
    rows = _list_newest(session, collection_id, "ready")
    current = {row.id for row in rows}
    return [
        IndexChoice(
            embedder=row.embedder,
            summary=_summarise(row),
            knows_words=row.knows_words,
            is_combined=row.first_part_id is not None,
            is_stale=row.first_part_id is not None
            and not current.issuperset((row.first_part_id, row.second_part_id)),
            image_count=row.image_count,
            dimension=row.dimension,
            ready_at=row.ready_at,
            searched_by=_describe_search(row),
        )
        for row in rows
    ]


def list_builds(session: Session, collection_id: int) -> list[Build]:
    """What is being built or has failed, of embedders without a newer ready index."""
    ready = {row.embedder: row.id for row in _list_newest(session, collection_id, "ready")}
    return [
        Build(row.embedder, row.state, row.done_count, row.image_count, row.problem)
        for row in _list_newest(session, collection_id, "building", "failed")
        if row.id > ready.get(row.embedder, 0)
    ]


def list_more_embedders(
    session: Session, collection_id: int, settings: Settings
) -> list[EmbedderChoice]:
    """The embedders that the collection has no index by yet, as the register orders them."""
    known = {row.embedder for row in _list_newest(session, collection_id, "ready")}
    return [choice for choice in list_embedders(session, settings) if choice.name not in known]


def list_box_embedders(session: Session, collection_id: int, settings: Settings) -> list[str]:
    """By which embedders an index can look at boxes: those at hand, where there are boxes."""
    if not has_boxes(session, collection_id):
        return []
    rows = _list_newest(session, collection_id, "ready", "building")
    done = {row.embedder for row in rows}
    apart = [row.embedder for row in rows if row.first_part_id is None]
    names = [name for name in apart if not looks_at_boxes(name)]
    names += [one.name for one in list_embedders(session, settings) if one.is_on_disk]
    return [name for name in dict.fromkeys(names) if name + BOXES not in done]


def name_with_boxes(database: Database, collection_id: int, embedder: str) -> str:
    """The name of an index that looks at boxes, or a sentence that there are none."""
    with database.session() as session:
        if not has_boxes(session, collection_id):
            raise BadInput(
                "No detector drew a box on an image of this collection yet. Bring MegaDetector's "
                "JSON first: rarefind collection metadata COLLECTION FILE.json."
            )
    return embedder.removesuffix(BOXES) + BOXES


def choose_index(
    session: Session, collection_id: int, *, embedder: str | None = None, words: str = ""
) -> ImageIndex:
    """The index by that embedder; without one the newest, or the newest that knows words."""
    if embedder is not None:
        try:
            row = get_current_index(session, collection_id, embedder=embedder)
        except NoIndexYet as error:
            raise BadInput(
                f"This collection is not prepared with {embedder}. It is prepared with "
                f"{_name_all(list_indexes(session, collection_id)) or 'nothing yet'}."
            ) from error
        if words and not row.knows_words:
            raise NoWords(_say_no_words(row.embedder, list_indexes(session, collection_id)))
        return row
    row = get_current_index(session, collection_id)
    if words and not row.knows_words:
        able = [row for row in _list_newest(session, collection_id, "ready") if row.knows_words]
        if not able:
            raise NoWords(_say_no_words(row.embedder, []))
        row = able[0]
    return row


def list_collections_with_words(session: Session, person: Person) -> list[Collection]:
    """The collections a person sees that have an index that knows words, by name."""
    able = select(ImageIndex.collection_id).filter_by(state="ready", knows_words=True)
    query = select(Collection).where(Collection.id.in_(able), sees_collection(person))
    return list(session.scalars(query.order_by(Collection.name)))


def embed_example_photo(
    session: Session,
    photo: Photo,
    row: ImageIndex,
    *,
    embedders: LoadedEmbedders,
    settings: Settings,
) -> Floats:
    """The vector (d,) of a photo among those of an index."""
    vectors = [
        embed_photo(photo, embedders.get(part), settings=settings, readers=embedders.readers)
        for part in _list_parts(session, row)
    ]
    return vectors[0] if len(vectors) == 1 else combine_vectors(*vectors)


def embed_words(
    session: Session, words: str, row: ImageIndex, *, embedders: LoadedEmbedders
) -> Floats:
    """The vector (d,) of words among those of an index, or NoWords."""
    if not row.knows_words:
        raise NoWords(_say_no_words(row.embedder, list_indexes(session, row.collection_id)))
    parts = _list_parts(session, row)
    vectors: list[Floats | None] = []
    for part in parts:
        embed_text = embedders.get(part).embed_text if part.knows_words else None
        vectors.append(None if embed_text is None else embed_in_prompts(words, embed_text))
    if len(vectors) == 2:
        first, second = vectors
        if first is not None and second is not None:
            return combine_vectors(first, second)
        if first is not None:
            return place_in_part(first, before=0, after=parts[1].dimension)
        vectors = [
            None if second is None else place_in_part(second, before=parts[0].dimension, after=0)
        ]
    if vectors[0] is None:
        raise NoWords(_say_no_words(row.embedder, []))
    return vectors[0]


def prepare_index(
    database: Database,
    collection_id: int,
    *,
    embedder: str,
    settings: Settings,
    progress: Callable[[int, int], None] | None = None,
    call_for_help: CallForHelp | None = None,
) -> None:
    """Make the collection's index by an embedder, or a combined one, hold every image."""
    with database.session() as session:
        row = session.scalar(
            select(ImageIndex)
            .filter_by(collection_id=collection_id, embedder=embedder)
            .where(ImageIndex.state != "past")
            .order_by(ImageIndex.id.desc())
            .limit(1)
        )
        parts = [] if row is None else [part.embedder for part in _list_parts(session, row)]
    if len(parts) == 2:
        combine_indexes(database, collection_id, *parts, settings=settings)
    else:
        build_index(
            database,
            collection_id,
            settings=settings,
            embedder=embedder,
            progress=progress,
            call_for_help=call_for_help,
        )


def list_wanted(session: Session, collection_id: int, *, embedder: str | None = None) -> list[str]:
    """The embedders of the indexes to make, in order, if `embedder` is asked for.

    The first is never a combined one: an import makes its vectors on the way.
    """
    rows = _list_newest(session, collection_id, "ready")
    rows = rows or _list_newest(session, collection_id, "building", "failed")
    rows.sort(key=lambda row: (row.first_part_id is not None, row.id))
    wanted = [row.embedder for row in rows]
    if embedder is not None and embedder not in wanted:
        wanted = [embedder, *wanted]
    return wanted or [DEFAULT_EMBEDDER]


def update_indexes(
    database: Database,
    collection_id: int,
    *,
    settings: Settings,
    embedder: str | None = None,
    progress: Callable[[int, int], None] | None = None,
    call_for_help: CallForHelp | None = None,
) -> None:
    """Make every index of the collection hold all its images, and make one by `embedder` if given.

    A collection without any index gets one by what was begun for it, else by the default embedder.
    Combined ones come last: they are made again of their parts. Then its images are grouped into
    events, for which vectors may be needed.
    """
    with database.session() as session:
        wanted = list_wanted(session, collection_id, embedder=embedder)
    for name in wanted:
        prepare_index(
            database,
            collection_id,
            embedder=name,
            settings=settings,
            progress=progress,
            call_for_help=call_for_help,
        )
    group_by_itself(database, collection_id, settings=settings)


def _list_newest(session: Session, collection_id: int, *states: str) -> list[ImageIndex]:
    """The newest row of each embedder in one of these states, the newest first."""
    newest = (
        select(ImageIndex)
        .where(ImageIndex.collection_id == collection_id, ImageIndex.state.in_(states))
        .order_by(ImageIndex.embedder, ImageIndex.id.desc())
        .ext(distinct_on(ImageIndex.embedder))
    )
    return sorted(session.scalars(newest), key=lambda row: -row.id)


def _list_parts(session: Session, row: ImageIndex) -> list[ImageIndex]:
    """The parts of a combined index; any other is its own and only part."""
    if row.first_part_id is None:
        return [row]
    return [session.get_one(ImageIndex, part) for part in (row.first_part_id, row.second_part_id)]


def _summarise(row: ImageIndex) -> str:
    if row.first_part_id is not None:
        return "Two kinds of likeness counted half and half."
    entry = EMBEDDERS.get(row.embedder.removesuffix(BOXES))
    summary = entry.summary if entry else ""
    if looks_at_boxes(row.embedder):
        summary = f"{LOOKS_AT_BOXES} {summary}".strip()
    return summary


def _describe_search(row: ImageIndex) -> str:
    by = describe_vectors(row.vectors)
    if row.milvus_name is not None or row.agreement is None:
        return f"{by}."
    return (
        f"{by}. A round looks at likely images only: {100 * row.agreement:.1f} % of those that it "
        "would choose from if every image were scored."
    )


def _say_no_words(embedder: str, choices: list[IndexChoice]) -> str:
    able = _name_all([choice for choice in choices if choice.knows_words])
    if able:
        return f"{embedder} knows no words. For a search by words choose {able}."
    return (
        f"The images were prepared with {embedder}, which knows no words. "
        "Open the search with examples."
    )


def _name_all(choices: list[IndexChoice]) -> str:
    return " or ".join(choice.embedder for choice in choices)
