"""What a round follows from, as the engine takes it: answers, opening, plan of a detour, pool.

All of it is read from what is stored, as of any earlier moment too, and none of it is written here:
so a round can be proposed again (app/rounds.py), and pages can tell why an image was shown.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import BigInteger, ColumnElement, Select, bindparam, func, select
from sqlalchemy.orm import Session

from app.answers import VALUES, read_given, split_reason
from app.engine.detours import DETOUR_REASONS, DetourPlan, detour_rng, plan_detour
from app.engine.events import rows_with
from app.engine.head import Head
from app.engine.index import VectorIndex
from app.engine.loop import Answers, Choice, Opening, Value, join_openings, make_opening
from app.errors import IndexNotUsable
from app.events import read_events, read_pool
from app.filtering import read_removed_ids
from app.indexing import OpenIndexes
from app.seats import step_back
from app.tables import Detour, Example, ExampleVector, ImageIndex, Round, RoundImage, Search

POOR_REASONS = ("too-poor", "empty")  # such a no says nothing of what the target looks like
NEWER_THAN_ANY = 2**62


@dataclass(frozen=True, eq=False)
class KeptPlan:
    """What is kept of a detour's plan: a `DetourPlan` without the chances of a sample."""

    image_ids: NDArray[np.int64]  # in the order to show
    seen_again: int
    beside_count: int


# Written once: app/answers.py says why.
ASK_OPENING = (
    select(Example.image_id, Example.photo_id, ExampleVector.vector)
    .outerjoin(
        ExampleVector,
        # Vectors of another revision of the embedder can't be compared with the index's.
        (ExampleVector.example_id == Example.id)
        & (ExampleVector.revision == bindparam("revision"))
        & (func.coalesce(ExampleVector.after_round_id, 0) < bindparam("before_round_id")),
    )
    .where(Example.search_id == bindparam("search_id"))
    .order_by(Example.id)
)


def read_plan(
    session: Session, search: Search, detour: Detour, indexes: OpenIndexes
) -> tuple[DetourPlan, VectorIndex]:
    """All images of a detour, as they were planned, and the index whose rows the plan names."""
    from_round = session.get_one(Round, detour.from_round_id)
    index = indexes.get(session.get_one(ImageIndex, from_round.index_id))
    answers = read_engine_answers(
        session,
        search,
        index,
        through_id=detour.answers_through_id,
        learns_from_poor=from_round.learns_from_poor,
        left_out=detour.left_out_ids or (),
    )
    events = read_events(session, from_round.grouping_id)
    answers = close_outside(index, answers, read_pool(session, detour))
    anchor_row = None
    if detour.anchor_image_id is not None:
        anchor_row = int(index.rows_of([detour.anchor_image_id])[0])
    plan = plan_detour(
        detour.kind,
        index,
        answers,
        head=read_head(from_round),
        size=detour.size,
        rng=detour_rng(detour.seed, detour.round_number),
        anchor_row=anchor_row,
        other=(
            indexes.get(session.get_one(ImageIndex, detour.other_index_id))
            if detour.other_index_id is not None
            else None
        ),
        events=events.rows_in(index) if events is not None else None,
    )
    return plan, index


def recall_plan(session: Session, search: Search, detour: Detour, indexes: OpenIndexes) -> KeptPlan:
    """The plan of a detour as it was kept; made again for detours of earlier versions."""
    if detour.planned_image_ids is not None:
        return KeptPlan(
            np.frombuffer(detour.planned_image_ids, dtype="<i8").astype(np.int64),
            detour.seen_again or 0,
            detour.beside_count or 0,
        )
    plan, index = read_plan(session, search, detour, indexes)
    return KeptPlan(index.image_ids[plan.rows], plan.seen_again, plan.beside_count)


def list_detour_images(session: Session, detour_id: int, round_id: int | None) -> list[int]:
    """The images that rounds of a detour have shown, up to and with a round, in their order."""
    chain = list_chain(round_id)
    shown = session.scalars(
        select(RoundImage.image_id)
        .join(Round, Round.id == RoundImage.round_id)
        .where(Round.id.in_(select(chain.c.id)), Round.detour_id == detour_id)
        .order_by(Round.number, RoundImage.position)
    )
    return list(shown)


def read_engine_answers(
    session: Session,
    search: Search,
    index: VectorIndex,
    *,
    through_id: int | None = None,
    left_out: Sequence[int] = (),
    learns_from_poor: bool = True,
) -> Answers:
    """The current answers as rows of `index`; answers on images it does not hold are left out.

    Images in `left_out` count as unsure: they are not shown, and nothing is learned from them. So
    do those that are a no because they are too poor or empty, unless it `learns_from_poor`.
    """
    standing = read_given(session, search, through_id=through_id)
    current = {}
    for image_id, (given, _) in standing.items():
        value, reason = split_reason(given)
        is_poor = reason in POOR_REASONS and not learns_from_poor
        current[image_id] = "unsure" if is_poor or value is None else value
    current |= dict.fromkeys(left_out, "unsure")
    image_ids = np.fromiter(current, dtype=np.int64, count=len(current))
    values = np.array([VALUES[value] for value in current.values()], dtype=np.int8)
    held = index.holds(image_ids)
    along = [image_id for image_id, (_, along) in standing.items() if along is not None]
    return Answers(
        rows=index.rows_of(image_ids[held]),
        values=values[held],
        looked_at=~np.isin(image_ids[held], np.array(along, dtype=np.int64)),
    )


def list_left_out(session: Session, collection_id: int, index: VectorIndex) -> list[int]:
    """The removed images that an index still holds, as one made before they were removed does."""
    return list_indexed(index, read_removed_ids(session, collection_id))


def list_indexed(index: VectorIndex, image_ids: NDArray[np.int64]) -> list[int]:
    """Those of the images that an index holds."""
    held: list[int] = image_ids[index.holds(image_ids)].tolist()
    return held


def find_rows(index: VectorIndex, image_ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """The rows of those of the images that an index holds, ascending."""
    return np.sort(index.rows_of(image_ids[index.holds(image_ids)]))


def close_outside(
    index: VectorIndex, answers: Answers, pool_ids: NDArray[np.int64] | None
) -> Answers:
    """The answers, with unsure for every open image outside a pool: as good as answered."""
    if pool_ids is None:
        return answers
    is_outside = ~np.isin(index.image_ids, pool_ids)
    is_outside[answers.rows] = False
    outside = np.flatnonzero(is_outside)
    unsure = np.full(len(outside), Value.UNSURE, np.int8)
    looked_at = answers.looked_at
    return Answers(
        np.concatenate([answers.rows, outside]),
        np.concatenate([answers.values, unsure]),
        None if looked_at is None else np.concatenate([looked_at, np.zeros(len(outside), bool)]),
    )


def read_head(made: Round) -> Head | None:
    """The head that chose a round, if there was one."""
    if made.head_weights is None or made.head_bias is None:
        return None
    return Head(weights=from_bytes(made.head_weights), bias=made.head_bias)


def to_bytes(vector: NDArray[np.float32]) -> bytes:
    """A vector as it is stored: float32, little-endian."""
    return vector.astype("<f4").tobytes()


def from_bytes(stored: bytes) -> NDArray[np.float32]:
    """A stored vector."""
    return np.frombuffer(stored, dtype="<f4").astype(np.float32)


def choose_planned(
    session: Session,
    search: Search,
    detour: Detour,
    index: VectorIndex,
    answers: Answers,
    previous_id: int | None,
    indexes: OpenIndexes,
) -> Choice | None:
    """What is left of a detour, of images that `index` holds; None when it has come to its end.

    Images answered since it was planned are passed over, and so are those it showed already. A
    filter that was changed since does not change it: a sample must stay the one that was drawn.
    """
    image_ids = recall_plan(session, search, detour, indexes).image_ids
    shown = list_detour_images(session, detour.id, previous_id)
    is_next = index.holds(image_ids) & ~np.isin(image_ids, shown)
    rows = index.rows_of(image_ids[is_next])
    rows = rows[~np.isin(rows, answers.rows)]
    return Choice.of(rows, DETOUR_REASONS[detour.kind]) if len(rows) else None


def read_opening(
    session: Session,
    search: Search,
    index: VectorIndex,
    answers: Answers,
    *,
    round_id: int | None = None,
) -> Opening:
    """What opened the search, as vectors of `index`; the positives where nothing else is left.

    Of a stored round (`round_id`), what was known when it was made.
    """
    # Vectors of another revision of the embedder can't be compared with the index's.
    named = {
        "search_id": search.id,
        "revision": index.manifest.revision,
        "before_round_id": NEWER_THAN_ANY if round_id is None else round_id,
    }
    rows = session.execute(ASK_OPENING, named).all()
    image_ids = np.array([row.image_id for row in rows if row.image_id is not None], dtype=np.int64)
    vectors = [(row.photo_id, from_bytes(row.vector)) for row in rows if row.vector is not None]
    photos = [vector for photo_id, vector in vectors if photo_id is not None]
    of_photos = np.array(photos, dtype=np.float32).reshape(-1, index.dimension)
    # An index made anew may have had to leave an example out: its original may be gone.
    of_images = index.vectors[index.rows_of(image_ids[index.holds(image_ids)])]
    examples = np.concatenate([of_images, of_photos])
    words = next((vector for photo_id, vector in vectors if photo_id is None), None)
    if len(examples) == 0 and words is None:
        examples = index.vectors[answers.positives]
    if len(examples) == 0 and words is None:
        raise IndexNotUsable(
            "What opened this search can't be read any more: its examples were removed from the "
            "collection or their originals are away, or its words were read by another version of "
            "the embedder. Put the images back where they were, and add their folder to the "
            "collection again, or open the search's settings and save them; your answers are safe."
        )
    if words is None:
        opening = make_opening(examples)
    elif len(examples) == 0:
        opening = words
    else:
        opening = join_openings(make_opening(examples), words, index.vectors)
    return Opening(vector=opening, examples=of_photos)


def list_pool(
    session: Session,
    index: VectorIndex,
    answers: Answers,
    previous_id: int | None,
    size: int,
    *,
    pool_ids: NDArray[np.int64] | None,
    events: NDArray[np.int64] | None,
) -> tuple[NDArray[np.int64] | None, NDArray[np.int64] | None]:
    """The rows of the images in `pool_ids`, ascending, None for all; and those not to be shown yet:
    shown before and left open, and their `events`. They are asked again at the end.

    Else an image that somebody does not want to answer would come straight back.
    """
    shown = session.scalars(_ask_chain_images(), {"round_id": previous_id}).all()
    image_ids = np.array(shown, dtype=np.int64)
    rows = index.rows_of(image_ids[index.holds(image_ids)])
    left_open = np.setdiff1d(rows, answers.rows)
    pool_rows = None if pool_ids is None else find_rows(index, pool_ids)
    if not len(left_open):
        return pool_rows, None
    if events is not None:
        left_open = rows_with(left_open, events)
        is_fresh = np.full(index.count, pool_rows is None)
        if pool_rows is not None:
            is_fresh[pool_rows] = True
        is_fresh[answers.rows] = is_fresh[left_open] = False
        fresh_count = len(np.unique(events[is_fresh]))
    else:
        closed = np.union1d(answers.rows, left_open)
        fresh_count = (
            index.count - len(closed)
            if pool_rows is None
            else len(pool_rows) - int(np.isin(closed, pool_rows).sum())
        )
    return pool_rows, left_open if fresh_count >= size else None


@cache
def _ask_chain_images() -> Select[int]:
    chain = list_chain(bindparam("round_id", type_=BigInteger))
    return select(RoundImage.image_id).where(RoundImage.round_id.in_(select(chain.c.id))).distinct()


def list_chain(round_id: int | ColumnElement[int] | None):  # type: ignore[no-untyped-def]  # noqa: ANN201
    """A recursive query of the ids of a round and all rounds before it."""
    tip = select(Round.id, Round.previous_id).where(Round.id == round_id).cte(recursive=True)
    return tip.union_all(step_back(tip))
