"""How a search's next round comes about: proposed, stored, put before a person, proposed again.

A round stores all that it follows from (app/premises.py), so that proposed again it is the same.
Rounds form a tree with a tip for each person, at their seat; images that others are being asked
(app/seats.py) are left out of a round.
"""

import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import ARRAY, BigInteger, Double, Integer, String, bindparam, func, insert, select
from sqlalchemy.orm import Session

from app.adjusting import check_strategy_reach, find_or_add_pool
from app.answers import ASK_NEWEST_ANSWER, INTEGERS, TABLES, list_asked_elsewhere
from app.engine.index import VectorIndex
from app.engine.loop import Choice, Proposal, propose_round, round_rng
from app.events import ASK_GROUPING, read_events, read_pool
from app.filtering import ask_removed, to_image_ids
from app.indexing import OpenIndexes, get_current_index
from app.premises import (
    choose_planned,
    list_indexed,
    list_pool,
    read_engine_answers,
    read_opening,
    to_bytes,
)
from app.seats import let_go, list_held, stay
from app.tables import Detour, ImageIndex, Person, Round, Search, Seat

# Written once: app/answers.py says why.
ASK_BEFORE_ROUND = select(
    ASK_NEWEST_ANSWER.scalar_subquery().label("newest_answer_id"),
    ASK_GROUPING.scalar_subquery().label("grouping_id"),
    ask_removed().scalar_subquery().label("removed"),
)
_GIVEN_IMAGES = (
    func.unnest(
        bindparam("positions", type_=ARRAY(Integer)),
        bindparam("image_ids", type_=INTEGERS),
        bindparam("scores", type_=ARRAY(Double)),
        bindparam("probabilities", type_=ARRAY(Double)),
        bindparam("reasons", type_=ARRAY(String)),
    )
    .table_valued("position", "image_id", "score", "probability", "reason")
    .render_derived()
)
ADD_ROUND_IMAGES = insert(TABLES["round_images"]).from_select(
    ["round_id", *_GIVEN_IMAGES.c.keys()],
    select(bindparam("round_id", type_=BigInteger), *_GIVEN_IMAGES.c),
)


def repeat_round(session: Session, made: Round, indexes: OpenIndexes) -> Proposal:
    """Propose a stored round again from what it stores: must give the stored images."""
    search = session.get_one(Search, made.search_id)
    index = indexes.get(session.get_one(ImageIndex, made.index_id))
    planned = None
    left_out = [*(made.left_out_ids or ()), *(made.leased_ids or ())]
    if made.detour_id is not None:
        detour = session.get_one(Detour, made.detour_id)
        answers = read_engine_answers(
            session,
            search,
            index,
            through_id=made.answers_through_id,
            left_out=left_out,
        )
        planned = choose_planned(session, search, detour, index, answers, made.previous_id, indexes)
    return _propose(
        session,
        search,
        index=index,
        number=made.number,
        strategy=made.strategy,
        size=made.size,
        seed=made.seed,
        answers_through_id=made.answers_through_id,
        previous_id=made.previous_id,
        planned=planned,
        left_out=left_out,
        learns_from_poor=made.learns_from_poor,
        pool_ids=read_pool(session, made),
        grouping_id=made.grouping_id,
        learns_from_events=made.learns_from_events,
        round_id=made.id,
    )


def add_round(
    session: Session,
    search: Search,
    person: Person,
    *,
    previous: Round | None,
    detour: Detour | None,
    shared: bool,
    indexes: OpenIndexes,
    submitted_at: float | None = None,
) -> Round:
    """Propose the next round of a person, and store it with all that it follows from."""
    started = time.perf_counter()
    index_row = get_current_index(session, search.collection_id, embedder=search.embedder)
    number = 1 if previous is None else previous.number + 1
    leased: list[int] = []
    if shared:
        number = max(number, _get_last_number(session, search, person) + 1)
        held = list_held(session, search, person)
        leased = sorted(list_asked_elsewhere(session, search, person, held))
    named = {"search_id": search.id, "collection_id": search.collection_id}
    known = session.execute(ASK_BEFORE_ROUND, named).one()
    through_id = known.newest_answer_id or 0
    index = indexes.get(index_row)
    # The collection may have grown too large for it.
    check_strategy_reach(search.strategy, index, where=", in the search's settings")
    previous_id = previous.id if previous else None
    removed = list_indexed(index, to_image_ids(known.removed))
    left_out = [*removed, *leased]
    pool = find_or_add_pool(session, search)
    pool_ids = None if pool is None else np.frombuffer(pool.image_ids, dtype="<i8")
    planned = None
    if detour is not None:
        answers = read_engine_answers(session, search, index, left_out=left_out)
        planned = choose_planned(session, search, detour, index, answers, previous_id, indexes)
    proposal = _propose(
        session,
        search,
        index=index,
        number=number,
        strategy=search.strategy,
        size=search.round_size,
        seed=search.seed,
        answers_through_id=through_id,
        previous_id=previous_id,
        planned=planned,
        left_out=left_out,
        learns_from_poor=search.learns_from_poor,
        pool_ids=pool_ids,
        grouping_id=known.grouping_id,
        learns_from_events=search.learns_from_events,
    )
    now = time.perf_counter()
    made = Round(
        search_id=search.id,
        previous_id=previous_id,
        number=number,
        strategy=search.strategy,
        size=search.round_size,
        seed=search.seed,
        index_id=index_row.id,
        answers_through_id=through_id,
        left_out_ids=removed or None,
        leased_ids=leased or None,
        learns_from_poor=search.learns_from_poor,
        learns_from_events=search.learns_from_events,
        grouping_id=known.grouping_id,
        pool_id=pool.id if pool is not None else None,
        detour_id=detour.id if detour is not None and planned is not None else None,
        head_weights=to_bytes(proposal.head.weights) if proposal.head else None,
        head_bias=float(proposal.head.bias) if proposal.head else None,
        proposing_ms=(now - started) * 1_000,
        submitting_ms=None if submitted_at is None else (now - submitted_at) * 1_000,
    )
    session.add(made)
    session.flush()
    if len(proposal.rows):
        chances = proposal.probabilities.tolist()
        named_images = {
            "round_id": made.id,
            "positions": list(range(len(proposal.rows))),
            "image_ids": index.image_ids[proposal.rows].tolist(),
            "scores": proposal.scores.tolist(),
            "probabilities": [None if np.isnan(chance) else chance for chance in chances],
            "reasons": list(proposal.reasons),
        }
        session.execute(ADD_ROUND_IMAGES, named_images)
    return made


def _get_last_number(session: Session, search: Search, person: Person) -> int:
    """The number of the newest round that others have before them."""
    query = (
        select(func.max(Round.number))
        .join(Seat, Seat.round_id == Round.id)
        .where(Seat.search_id == search.id, Seat.person_id != person.id)
    )
    return session.scalar(query) or 0


def move_tip(
    session: Session, search: Search, seat: Seat, round_id: int | None, *, shared: bool
) -> None:
    """Put a round before a person, and hold its images for them if others answer too."""
    seat.round_id = round_id
    search.current_round_id = round_id
    session.flush()
    if not shared:
        return
    let_go(session, seat)
    stay(session, seat)
    search.current_round_id = session.scalar(
        select(func.max(Seat.round_id)).where(Seat.search_id == search.id)
    )


def _propose(
    session: Session,
    search: Search,
    *,
    index: VectorIndex,
    number: int,
    strategy: str,
    size: int,
    seed: int,
    answers_through_id: int,
    previous_id: int | None,
    planned: Choice | None,
    left_out: Sequence[int],
    learns_from_poor: bool,
    pool_ids: NDArray[np.int64] | None,
    grouping_id: int | None,
    learns_from_events: bool,
    round_id: int | None = None,
) -> Proposal:
    grouped = read_events(session, grouping_id)
    events = grouped.rows_in(index) if grouped is not None else None
    answers = read_engine_answers(
        session,
        search,
        index,
        through_id=answers_through_id,
        left_out=left_out,
        learns_from_poor=learns_from_poor,
    )
    pool_rows, hidden_rows = list_pool(
        session, index, answers, previous_id, size, pool_ids=pool_ids, events=events
    )
    return propose_round(
        index,
        answers,
        opening=read_opening(session, search, index, answers, round_id=round_id),
        strategy=strategy,
        size=size,
        round_number=number,
        rng=round_rng(seed, number),
        pool_rows=pool_rows,
        hidden_rows=hidden_rows,
        planned=planned,
        events=events,
        teach_all=learns_from_events,
    )
