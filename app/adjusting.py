"""What a search goes by: name, reasons, strategy, size of rounds, filter, index; and their limits.

What chooses images takes effect with the next round: each keeps what it was made with.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.answers import lock_search
from app.engine.index import VectorIndex
from app.engine.strategies import (
    ANCHORAL,
    STRATEGIES,
    StrategyNeedsAllScores,
    UnknownStrategy,
    check_reach,
    get_strategy,
)
from app.errors import BadInput, EmbedderMismatch, IndexNotUsable, NoIndexYet, NoWords, RefusedPhoto
from app.filtering import Filter, check_for_search, cover_filter, list_image_ids
from app.indexes import choose_index, embed_example_photo, embed_words
from app.indexing import LoadedEmbedders, OpenIndexes, get_current_index
from app.premises import read_engine_answers, read_opening, to_bytes
from app.sensitive import read_sight
from app.settings import Settings
from app.tables import NO_REASONS, Example, ExampleVector, ImageIndex, Photo, Pool, Round, Search

ROUND_SIZES = range(6, 49)
DEFAULT_ROUND_SIZE = 12
NEAR_ANSWERS = f"{ANCHORAL}pf-ma"
DEFAULT_STRATEGY = "rarefind"
MAX_NAME_LENGTH = 200
MAX_COUNTS_LENGTH = 2_000
MAX_REASON_LENGTH = 60
MAX_OWN_REASONS = 6  # with the three given ones, a key from 1 to 9 each


@dataclass(frozen=True)
class StrategyChoice:
    """A strategy as the page offers it."""

    name: str
    title: str
    summary: str
    for_evaluators: bool


def list_strategies(
    session: Session, collection_id: int, indexes: OpenIndexes
) -> list[StrategyChoice]:
    """The strategies that can choose in a collection, the recommended one first; of those near the
    answers the usual one.

    Some look at every image, which is too much where an index does not rank them all.
    """
    entries = STRATEGIES | {NEAR_ANSWERS: get_strategy(NEAR_ANSWERS)}
    ranks_all = True
    with suppress(NoIndexYet, IndexNotUsable):
        ranks_all = indexes.get(get_current_index(session, collection_id)).ranks_all
    choices = [
        StrategyChoice(name, entry.title, entry.summary, entry.for_evaluators)
        for name, entry in entries.items()
        if ranks_all or not entry.needs_all
    ]
    return sorted(choices, key=lambda choice: (choice.name != DEFAULT_STRATEGY,))


def change_search(
    session: Session,
    search: Search,
    *,
    target_name: str,
    strategy: str,
    round_size: int,
    no_reasons: Sequence[str],
    learns_from_poor: bool,
    learns_from_events: bool = False,
) -> None:
    """Change a search's settings; what chooses images takes effect with the next round."""
    search.target_name = check_text("The name", target_name, MAX_NAME_LENGTH, required=True)
    search.no_reasons = check_reasons(no_reasons)
    search.learns_from_poor = learns_from_poor
    search.learns_from_events = learns_from_events
    search.strategy = check_strategy(strategy)
    search.round_size = check_round_size(round_size)
    session.flush()


def filter_search(session: Session, search: Search, chosen: Filter) -> None:
    """Let the next rounds show only images that a filter keeps; an empty one keeps all."""
    check_for_search(session, search.collection_id, chosen)
    lock_search(session, search)
    search.filter = filter_to_json(chosen)
    if chosen and not len(list_image_ids(session, search.collection_id, chosen)):
        raise BadInput("No image is left with this filter. Take a part of it away.")
    session.flush()


def read_search_filter(search: Search) -> Filter:
    """The filter of a search's next rounds."""
    return Filter(tuple((key, value) for key, value in search.filter or []))


def filter_to_json(chosen: Filter | None) -> list[list[str]] | None:
    """A filter as a search and a pool keep it; None for an empty one."""
    return [list(pair) for pair in chosen.pairs] if chosen else None


def move_search(
    session: Session,
    search: Search,
    *,
    embedder: str,
    indexes: OpenIndexes,
    embedders: LoadedEmbedders,
    settings: Settings,
) -> None:
    """Let the next round come from the collection's index by `embedder`; answers stay.

    What opened the search gets its vectors there, as far as it can: words only where they are
    known. To name the embedder of before makes good what another version of it left behind.
    """
    lock_search(session, search)
    index_row = choose_index(session, search.collection_id, embedder=embedder)
    for example in session.scalars(select(Example).filter_by(search_id=search.id)):
        with suppress(NoWords, RefusedPhoto, EmbedderMismatch):
            embed_example(session, example, index_row, embedders=embedders, settings=settings)
    index = indexes.get(index_row)
    check_strategy_reach(search.strategy, index)
    try:
        read_opening(session, search, index, read_engine_answers(session, search, index))
    except IndexNotUsable as error:
        if embedder == search.embedder:
            return  # it stands no worse than before
        raise BadInput(
            f"This search can't go on with {embedder} yet, which knows none of what opened it. "
            "Answer yes to an image first: then there is something to go by."
        ) from error
    search.embedder = embedder
    session.flush()


def check_text(what: str, text: str, longest: int, *, required: bool = False) -> str:
    """`text` without white space at its ends, if it can be used."""
    text = text.strip()
    if "\x00" in text:  # PostgreSQL's text cannot hold it
        raise BadInput(f"{what} holds a character that can't be kept.")
    if required and not text:
        raise BadInput(f"{what} is empty. Say what you are looking for.")
    if len(text) > longest:
        raise BadInput(f"{what} is longer than {longest} characters.")
    return text


def check_reasons(reasons: Sequence[str]) -> list[str]:
    """One's own reasons for a no, each once, without empty ones."""
    checked = (check_text("A reason", reason, MAX_REASON_LENGTH) for reason in reasons)
    own = list(dict.fromkeys(reason for reason in checked if reason))
    if len(own) > MAX_OWN_REASONS:
        raise BadInput(
            f"There are keys for {MAX_OWN_REASONS} reasons of your own, and {len(own)} are given."
        )
    if set(own) & set(NO_REASONS):
        raise BadInput("One of the reasons is there already.")
    return own


def check_strategy(strategy: str) -> str:
    """`strategy`, if it is a known one."""
    try:
        get_strategy(strategy)
    except UnknownStrategy as error:
        raise BadInput(
            f"There is no strategy “{strategy}”. Known are: {', '.join(STRATEGIES)}."
        ) from error
    return strategy


def check_strategy_reach(strategy: str, index: VectorIndex, *, where: str = "") -> None:
    """Refuse a strategy that looks at every image where the index does not rank them all."""
    try:
        check_reach(check_strategy(strategy), ranks_all=index.ranks_all)
    except StrategyNeedsAllScores as error:
        raise BadInput(f"{error}{where}.") from error


def check_round_size(round_size: int) -> int:
    """`round_size`, if it is within the limits."""
    if round_size not in ROUND_SIZES:
        raise BadInput(
            f"Images per round must be from {ROUND_SIZES[0]} to {ROUND_SIZES[-1]}, "
            f"not {round_size}."
        )
    return round_size


def embed_example(
    session: Session,
    example: Example,
    index_row: ImageIndex,
    *,
    embedders: LoadedEmbedders,
    settings: Settings,
) -> None:
    """Keep the vector of a photo or of words among those of an index, if it is not kept yet."""
    key = (example.id, index_row.revision)
    if example.image_id is not None or session.get(ExampleVector, key) is not None:
        return
    if example.words is not None:
        vector = embed_words(session, example.words, index_row, embedders=embedders)
    else:
        photo = session.get_one(Photo, example.photo_id)
        vector = embed_example_photo(
            session, photo, index_row, embedders=embedders, settings=settings
        )
    session.add(
        ExampleVector(
            example_id=example.id,
            revision=index_row.revision,
            vector=to_bytes(vector),
            # A round that was made without it is repeated without it.
            after_round_id=session.scalar(
                select(func.max(Round.id)).filter_by(search_id=example.search_id)
            ),
        )
    )
    session.flush()


def find_or_add_pool(session: Session, search: Search) -> Pool | None:
    """The images that the search's filter keeps now: the last pool where it keeps the same.

    Its box is as fine as what its owner is shown of places now.
    """
    if search.filter is None:
        return None
    sight = read_sight(session, search.owner, search.collection_id)
    chosen = cover_filter(read_search_filter(search), sight)
    found = list_image_ids(session, search.collection_id, chosen)
    said = filter_to_json(chosen)
    stored = found.astype("<i8").tobytes()
    last = session.scalar(
        select(Pool).filter_by(search_id=search.id).order_by(Pool.id.desc()).limit(1)
    )
    if last is not None and last.filter == said and last.image_ids == stored:
        return last
    pool = Pool(search_id=search.id, filter=said or [], image_ids=stored)
    session.add(pool)
    session.flush()
    return pool
