"""What the pages show of a search: the current grid, why an image is shown; a person's searches.

Its results and its history have files of their own (app/results.py, app/history.py). Nothing here
changes anything.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import BigInteger, Integer, Select, bindparam, func, or_, select
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session, joinedload

from app.access import is_in_search, sees_search
from app.answers import (
    count_along,
    list_asked_elsewhere,
    read_answers_in_order,
    read_current_answers,
    read_reasons,
    was_removed,
)
from app.detecting import list_boxes
from app.engine.head import probabilities
from app.engine.index import VectorIndex
from app.engine.loop import nearest_among, propose_round, round_rng
from app.engine.strategies import get_strategy
from app.errors import NotFound
from app.events import count_events, find_grouping_id, list_events_of, read_events, read_pool
from app.indexing import OpenIndexes
from app.premises import (
    choose_planned,
    list_detour_images,
    list_left_out,
    list_pool,
    read_engine_answers,
    read_head,
    read_opening,
)
from app.remarks import Remarks, is_remarked, read_remarks_of_searches
from app.seats import (
    find_seat,
    is_shared,
    list_held,
    list_standing,
    list_tips,
    name_here,
    name_holders,
)
from app.steps import may_step
from app.tables import (
    Action,
    Answer,
    Box,
    Detour,
    Example,
    Image,
    ImageIndex,
    Person,
    Round,
    RoundImage,
    Search,
    Seat,
)

Integers = NDArray[np.int64]

LATEST_POSITIVES = 8
RECENT_ROUNDS = 3
NEAREST = 6  # positives, and negatives

REASON_SENTENCES = {
    "opening": "Among the images that fit best what you opened this search with.",
    "close-to-line": "Of the images left, one that your answers so far tell least about: answering "
    "it teaches most.",
    "likely": "Among the likeliest of the images left, however likely that is.",
    "exploration": "A look somewhere new, to find what your answers don't cover yet.",
    "gap": "Among the images most like the gap you picked on the dashboard.",
    "sample": "Drawn by lot for the sample, whether it is likely or not.",
    "second-look": "Chosen by something else than your search, to see what it may have missed.",
    "other-embedder": "Likely as another embedder sees it, though not as your search does.",
}


@dataclass(frozen=True)
class Card:
    """One image of a grid."""

    image_id: int
    position: int
    path: str
    width: int
    height: int
    captured_at: datetime | None
    answer: str | None
    no_reason: str | None
    reason: str
    reason_sentence: str
    score: float
    probability: float | None
    boxes: list[Box]  # that a detector drew
    event_ids: list[int]  # all images of its event in order of time; none where it is alone
    along_count: int  # others that an answer to it is for
    answers_alone: bool  # its answer is for it alone


@dataclass(frozen=True)
class RoundTally:
    """How the images of one submitted round stand now."""

    round_id: int
    number: int
    yes: int
    no: int
    unsure: int
    open: int


@dataclass(frozen=True)
class Grid:
    """The current round of a search, and what led to it."""

    search: Search
    round_id: int
    number: int
    cards: list[Card]
    is_shared: bool
    people_here: list[str]  # of a shared search
    asked_elsewhere: int  # images that others were being asked when these were chosen
    gone: int  # images of this round that are being asked of others by now
    gone_to: list[str]  # these others
    rest_are_no: bool  # as the person chose last in this search
    strip: list[RoundTally]
    found: int
    found_events: int | None  # None where each image stands by itself
    answered: int
    image_count: int
    latest_positives: list[int]
    recent_yes_share: float | None
    can_undo: bool
    can_redo: bool
    has_head: bool
    strategy_title: str
    detour: str | None  # what a person asked to be shown, as a sentence
    proposing_ms: float


@dataclass(frozen=True)
class AnswerEvent:
    """One answer an image was given, at its time."""

    value: str
    reason: str | None
    who: str
    at: datetime
    round_number: int | None


@dataclass(frozen=True)
class Explanation:
    """Why an image is shown, and what is known of it."""

    image: Image
    answer: str | None
    no_reason: str | None
    position: int | None  # in the current grid
    reason: str | None  # null for an image that no grid of this search has shown
    reason_sentence: str
    score: float | None
    probability: float | None
    answers: list[AnswerEvent]
    nearest_positives: list[tuple[int, float]]  # image id, similarity
    nearest_negatives: list[tuple[int, float]]
    boxes: list[Box]
    event_ids: list[int]  # all images of its event in order of time; none where it is alone


@dataclass(frozen=True)
class SearchSummary:
    """A search as a card of the home page."""

    search: Search
    collection_name: str
    notice: str | None
    found: int
    answered: int
    rounds: int  # submitted, by whomever
    positive_image_ids: list[int]
    remarks: Remarks


# Asked at each round, so written once, as others below: to write it anew takes longer than to ask.
ASK_CARDS = (
    select(RoundImage, Image)
    .join(Image, Image.id == RoundImage.image_id)
    .where(RoundImage.round_id == bindparam("round_id"), Image.removed_at.is_(None))
    .order_by(RoundImage.position)
)


def current_grid(session: Session, search: Search, person: Person) -> Grid:
    """The round a person has to answer now, with the half-given answers as they were saved.

    Who has none in this search is shown the newest of the others'.
    """
    made = get_round_of(session, search, person)
    seat = session.get(Seat, (search.id, person.id))  # as it was read for the round
    shown = session.execute(ASK_CARDS, {"round_id": made.id}).all()
    answers = read_answers_in_order(session, search)
    positives = [image_id for image_id, value in answers.items() if value == "yes"]
    refused = [image.id for _, image in shown if answers.get(image.id) == "no"]
    reasons = read_reasons(session, search, refused) if refused else {}
    boxes = list_boxes(session, [image.id for _, image in shown])
    shared = is_shared(session, search)
    elsewhere: set[int] = set()
    if shared:
        image_ids = [image.id for _, image in shown]
        elsewhere = list_asked_elsewhere(session, search, person, image_ids)
    tally = Counter(answers.values())
    events = list_events_of(session, made, [image.id for _, image in shown])
    along = count_along(session, search, events)
    strip = _tally_rounds(session, search, answers)
    recent = strip[-RECENT_ROUNDS:]
    recent_answered = sum(one.yes + one.no + one.unsure for one in recent)
    can_undo, can_redo = may_step(session, search, person)
    return Grid(
        search=search,
        round_id=made.id,
        number=made.number,
        cards=[
            Card(
                image_id=image.id,
                position=place.position,
                path=image.path,
                width=image.width,
                height=image.height,
                captured_at=image.captured_at,
                answer=answers.get(image.id),
                no_reason=reasons.get(image.id),
                reason=place.reason,
                reason_sentence=REASON_SENTENCES[place.reason],
                score=place.score,
                probability=place.probability,
                boxes=boxes.get(image.id, []),
                event_ids=events.get(image.id, []),
                along_count=along.get(image.id, (0, False))[0],
                answers_alone=along.get(image.id, (0, False))[1],
            )
            for place, image in shown
            if image.id not in elsewhere
        ],
        is_shared=shared,
        people_here=name_here(session, search, person) if shared else [],
        asked_elsewhere=len(made.leased_ids or ()),
        gone=len(elsewhere),
        gone_to=name_holders(session, search, elsewhere) if elsewhere else [],
        rest_are_no=seat is not None and seat.rest_are_no,
        strip=strip,
        found=tally["yes"],
        found_events=count_found_events(session, made, answers),
        answered=len(answers),
        image_count=session.get_one(ImageIndex, made.index_id).image_count,
        latest_positives=positives[: -1 - LATEST_POSITIVES : -1],
        recent_yes_share=(
            sum(one.yes for one in recent) / recent_answered if recent_answered else None
        ),
        can_undo=can_undo,
        can_redo=can_redo,
        has_head=made.head_bias is not None,
        strategy_title=get_strategy(made.strategy).title,
        detour=_tell_detour(session, made, len(shown)),
        proposing_ms=made.proposing_ms,
    )


def list_examples(session: Session, search: Search) -> list[Example]:
    """What opened the search: images of the collection and uploaded photos."""
    query = (
        select(Example)
        .outerjoin(Image, Image.id == Example.image_id)
        .where(Example.search_id == search.id, Image.removed_at.is_(None))
        .order_by(Example.id)
    )
    return list(
        session.scalars(query.options(joinedload(Example.image), joinedload(Example.photo)))
    )


def upcoming_images(
    session: Session, search: Search, person: Person, indexes: OpenIndexes
) -> list[int]:
    """The images the next grid would most likely show, so that a browser can fetch them early.

    Proposes the next round as if this one were submitted as it stands, open images left aside.
    """
    made = get_round_of(session, search, person)
    index = indexes.get(session.get_one(ImageIndex, made.index_id))
    left_out = list_left_out(session, search.collection_id, index)
    held = list_held(session, search, person) if is_shared(session, search) else []
    left_out += list_asked_elsewhere(session, search, person, held)
    answers = read_engine_answers(
        session,
        search,
        index,
        left_out=left_out,
        learns_from_poor=search.learns_from_poor,
    )
    planned = None
    if made.detour_id is not None:
        detour = session.get_one(Detour, made.detour_id)
        planned = choose_planned(session, search, detour, index, answers, made.id, indexes)
    grouped = read_events(session, find_grouping_id(session, search.collection_id))
    events = grouped.rows_in(index) if grouped is not None else None
    pool_rows, hidden_rows = list_pool(
        session,
        index,
        answers,
        made.id,
        search.round_size,
        pool_ids=read_pool(session, made),
        events=events,
    )
    proposal = propose_round(
        index,
        answers,
        opening=read_opening(session, search, index, answers),
        strategy=search.strategy,
        size=search.round_size,
        round_number=made.number + 1,
        rng=round_rng(search.seed, made.number + 1),
        pool_rows=pool_rows,
        hidden_rows=hidden_rows,
        planned=planned,
        events=events,
        teach_all=search.learns_from_events,
    )
    image_ids: list[int] = index.image_ids[proposal.rows].tolist()
    return image_ids


def explain_image(
    session: Session, search: Search, image_id: int, person: Person, indexes: OpenIndexes
) -> Explanation:
    """Why this search shows an image: by figures, and the positives and negatives nearest to it.

    The figures are those of the round that showed it; of an image never shown, those of now.
    """
    image = session.get(Image, image_id)
    if image is None or image.collection_id != search.collection_id:
        raise NotFound("There is no such image in this collection.")
    made = get_round_of(session, search, person)
    chain = list_standing(search.id)
    place = session.scalar(
        select(RoundImage)
        .where(RoundImage.image_id == image_id, RoundImage.round_id.in_(select(chain.c.id)))
        .order_by(RoundImage.round_id.desc())
        .limit(1)
    )
    index = indexes.get(session.get_one(ImageIndex, made.index_id))
    left_out = list_left_out(session, search.collection_id, index)
    answers = read_engine_answers(session, search, index, left_out=left_out)
    nearest_positives: list[tuple[int, float]] = []
    nearest_negatives: list[tuple[int, float]] = []
    score, probability = (place.score, place.probability) if place else (None, None)
    if index.holds([image_id])[0]:
        (row,) = index.rows_of([image_id])
        nearest_positives = _list_nearest(index, row, answers.positives)
        nearest_negatives = _list_nearest(index, row, answers.negatives)
        head = read_head(made)
        if place is None and head is not None:
            own = index.vectors[row : row + 1] @ head.weights + np.float32(head.bias)
            score, probability = float(own[0]), float(probabilities(own)[0])
    examples = select(Example.image_id).filter_by(search_id=search.id, image_id=image_id)
    sentence = (
        "One of the examples that opened this search."
        if session.scalar(examples) is not None
        else "No grid of this search has shown this image yet."
    )
    return Explanation(
        image=image,
        answer=read_current_answers(session, search, image_ids=[image_id]).get(image_id),
        no_reason=read_reasons(session, search, [image_id]).get(image_id),
        position=place.position if place and place.round_id == made.id else None,
        reason=place.reason if place else None,
        reason_sentence=REASON_SENTENCES[place.reason] if place else sentence,
        score=score,
        probability=probability,
        answers=_list_answer_events(session, search, image_id),
        nearest_positives=nearest_positives,
        nearest_negatives=nearest_negatives,
        boxes=list_boxes(session, [image_id]).get(image_id, []),
        event_ids=list_events_of(session, made, [image_id]).get(image_id, []),
    )


def list_searches(
    session: Session,
    person: Person,
    *,
    collection_id: int | None = None,
    of_others: bool = False,
    find: str = "",
) -> list[SearchSummary]:
    """Searches a person owns or answers in (in one collection, or all), touched last first.

    Those `of_others` are the ones they may look at without being in them. With `find` only those
    that have these words in the name, what counts, a tag or a note.
    """
    own = is_in_search(person)
    query = select(Search).where(sees_search(person), ~own if of_others else own)
    if collection_id is not None:
        query = query.where(Search.collection_id == collection_id)
    for word in find.replace("\0", "").split():
        columns = (Search.target_name, Search.counts_as_yes, Search.counts_as_no)
        named = or_(*(column.icontains(word, autoescape=True) for column in columns))
        query = query.where(named | is_remarked(word))
    query = query.options(joinedload(Search.collection))
    searches = session.scalars(query.order_by(Search.touched_at.desc(), Search.id.desc())).all()
    remarks = read_remarks_of_searches(session, [search.id for search in searches])
    summaries = []
    for search in searches:
        tally = Counter(read_current_answers(session, search).values())
        summaries.append(
            SearchSummary(
                search=search,
                collection_name=search.collection.name,
                notice=search.collection.notice,
                found=tally["yes"],
                answered=sum(tally.values()),
                rounds=session.scalar(_ask_submitted(), {"search_id": search.id}) or 0,
                positive_image_ids=_list_latest_positives(session, search, 4),
                remarks=remarks.get(search.id, Remarks()),
            )
        )
    return summaries


def list_answered(
    session: Session, search: Search, value: str, limit: int | None = None
) -> list[int]:
    """Images whose newest answer is `value`, the one answered last first."""
    named = {"search_id": search.id, "value": value, "limit": limit}
    return list(session.scalars(_ask_answered(), named))


def get_round_of(session: Session, search: Search, person: Person) -> Round:
    """The round a person has to answer now; the newest of the search for who has none."""
    seat = find_seat(session, search, person)
    if seat is None or seat.round_id is None:
        return get_current_round(session, search)
    return session.get_one(Round, seat.round_id)


def get_current_round(session: Session, search: Search) -> Round:
    """The newest round of a search, or a sentence that it has none."""
    if search.current_round_id is None:
        raise NotFound("This search has no grid. Start a new one from the collection.")
    return session.get_one(Round, search.current_round_id)


def count_found_events(session: Session, made: Round, answers: dict[int, str]) -> int | None:
    """How many events were found; None where each image stands by itself."""
    found = [image_id for image_id, value in answers.items() if value == "yes"]
    return count_events(session, made, found)


def _list_nearest(index: VectorIndex, row: int, among: Integers) -> list[tuple[int, float]]:
    """The images nearest to one among some rows, with their similarities."""
    rows, similarities = nearest_among(index, row, among, NEAREST)
    return list(zip(index.image_ids[rows].tolist(), similarities.tolist(), strict=True))


def _tell_detour(session: Session, made: Round, shown_count: int) -> str | None:
    if made.detour_id is None:
        return None
    detour = session.get_one(Detour, made.detour_id)
    if detour.kind == "gap":
        return "The gap that you picked: the images most like it that have no answer yet."
    before = len(list_detour_images(session, detour.id, made.previous_id))
    what = {
        "estimate": "A sample by score, to tell how many are left",
        "absence": "A sample at random, to tell how many are left at most",
        "second-look": "A second look, by something else than your search",
        "other-embedder": "A second look, as another embedder sees your answers",
    }[detour.kind]
    return f"{what}: images {before + 1} to {before + shown_count} of {detour.image_count}."


def _tally_rounds(session: Session, search: Search, answers: dict[int, str]) -> list[RoundTally]:
    """How the images of each submitted round stand now."""
    shown = session.execute(_ask_shown(), {"search_id": search.id})
    tallies = []
    for round_id, number, image_ids in shown:
        tally = Counter([answers.get(image_id, "open") for image_id in image_ids])
        counts = (tally[value] for value in ("yes", "no", "unsure", "open"))
        tallies.append(RoundTally(round_id, number, *counts))
    return tallies


@cache
def _ask_submitted() -> Select[int]:
    search_id = bindparam("search_id", type_=BigInteger)
    return select(func.count()).where(
        Round.id.in_(select(list_standing(search_id).c.id)), Round.id.not_in(list_tips(search_id))
    )


@cache
def _ask_shown() -> Select[int, int, Sequence[int]]:
    search_id = bindparam("search_id", type_=BigInteger)
    return (
        select(Round.id, Round.number, func.array_agg(RoundImage.image_id))
        .join(RoundImage, RoundImage.round_id == Round.id)
        .where(
            Round.id.in_(select(list_standing(search_id).c.id)),
            Round.id.not_in(list_tips(search_id)),
            ~was_removed(RoundImage.image_id),
        )
        .group_by(Round.id)
        .order_by(Round.number, Round.id)
    )


@cache
def _ask_answered() -> Select[int]:
    newest = (
        select(Answer.image_id, Answer.value, Answer.id)
        .where(Answer.search_id == bindparam("search_id"), ~was_removed(Answer.image_id))
        .order_by(Answer.image_id, Answer.id.desc())
        .ext(distinct_on(Answer.image_id))
        .subquery()
    )
    query = select(newest.c.image_id).where(newest.c.value == bindparam("value"))
    return query.order_by(newest.c.id.desc()).limit(bindparam("limit", type_=Integer))


def _list_latest_positives(session: Session, search: Search, limit: int) -> list[int]:
    return list_answered(session, search, "yes", limit)


def _list_answer_events(session: Session, search: Search, image_id: int) -> list[AnswerEvent]:
    rows = session.execute(
        select(Answer.value, Answer.reason, Person.name, Action.at, Round.number)
        .join(Action, Action.id == Answer.action_id)
        .join(Person, Person.id == Action.person_id)
        .outerjoin(Round, Round.id == Action.round_id)
        .where(Answer.search_id == search.id, Answer.image_id == image_id)
        .order_by(Answer.id)
    )
    return [AnswerEvent(*row) for row in rows]
