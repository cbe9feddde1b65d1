"""Everything that changes a search: open, answer, submit, detour, undo, redo, correct, change.

Answers and actions are only added. An answer is for an image, or for all images of its event
(app/events.py): then each gets a row of its own, which names the image that was looked at. Undo
takes back one's own newest action that still stands: an answer, or a whole submit, which makes the
round before the current one again. Rounds form a tree with a tip for each person, at their seat;
images that others are being asked (app/seats.py) are left out of a round. Whoever changes a search
holds its row's lock, so two people, two tabs and double clicks come one after the other.
"""

import secrets
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Double,
    FromClause,
    Insert,
    Integer,
    Row,
    Select,
    String,
    any_,
    bindparam,
    cast,
    delete,
    exists,
    func,
    insert,
    select,
    true,
    update,
)
from sqlalchemy.dialects.postgresql import array, distinct_on
from sqlalchemy.orm import InstrumentedAttribute, Session

from app.access import get_collection
from app.database import is_among
from app.engine.detours import DETOUR_REASONS, DetourPlan, detour_rng, plan_detour
from app.engine.events import rows_with
from app.engine.head import Head
from app.engine.index import VectorIndex
from app.engine.loop import (
    Answers,
    Choice,
    Opening,
    Proposal,
    Value,
    join_openings,
    make_opening,
    propose_round,
    round_rng,
)
from app.engine.strategies import (
    ANCHORAL,
    STRATEGIES,
    StrategyNeedsAllScores,
    UnknownStrategy,
    check_reach,
    get_strategy,
)
from app.errors import (
    BadInput,
    EmbedderMismatch,
    IndexNotUsable,
    NoIndexYet,
    NotFound,
    NothingToUndo,
    NoWords,
    RefusedPhoto,
)
from app.events import (
    ASK_GROUPING,
    ASK_SHOWN,
    Given,
    count_events,
    list_asked,
    list_events_of,
    read_events,
    read_pool,
    spread,
)
from app.filtering import (
    Filter,
    ask_removed,
    cover_filter,
    list_image_ids,
    read_removed_ids,
    to_image_ids,
)
from app.indexes import MAX_WORDS_LENGTH, choose_index, embed_example_photo, embed_words
from app.indexing import LoadedEmbedders, OpenIndexes, get_current_index
from app.seats import (
    find_seat,
    is_shared,
    lease,
    let_go,
    list_held,
    list_own,
    list_seats,
    stay,
    step_back,
)
from app.sensitive import read_sight
from app.settings import Settings
from app.tables import (
    DETOUR_KINDS,
    NO_REASONS,
    Action,
    Answer,
    Detour,
    Example,
    ExampleVector,
    Image,
    ImageIndex,
    Person,
    Photo,
    Pool,
    Round,
    RoundImage,
    Search,
    Seat,
    TrayItem,
)

ROUND_SIZES = range(6, 49)
DEFAULT_ROUND_SIZE = 12
NEAR_ANSWERS = f"{ANCHORAL}pf-ma"
DEFAULT_STRATEGY = "rarefind"
MAX_NAME_LENGTH = 200
MAX_COUNTS_LENGTH = 2_000
POOR_REASONS = ("too-poor", "empty")  # such a no says nothing of what the target looks like
MAX_REASON_LENGTH = 60
MAX_OWN_REASONS = 6  # with the three given ones, a key from 1 to 9 each
VALUES = {"yes": Value.YES, "no": Value.NO, "unsure": Value.UNSURE}
INTEGERS = ARRAY(BigInteger)
NEWER_THAN_ANY = 2**62
UNDOABLE = ("answer", "submit", "correct", "detour")
SMALLEST_DETOUR = 6  # images
# Each at most: a certificate can need very many, and the others are planned image by image.
LARGEST_DETOURS = {
    "gap": 200,
    "second-look": 200,
    "other-embedder": 200,
    "estimate": 1_000,
    "absence": 100_000,
}

# Image id -> yes, no, unsure, or None for no answer. A no may have its reason: "no:too-poor".
Values = dict[int, str | None]
StepRow = Row[int, str, int | None, int | None]  # id, kind, round_id, next_round_id


@dataclass(frozen=True, eq=False)
class KeptPlan:
    """What is kept of a detour's plan: a `DetourPlan` without the chances of a sample."""

    image_ids: NDArray[np.int64]  # in the order to show
    seen_again: int
    beside_count: int


@dataclass(frozen=True)
class StrategyChoice:
    """A strategy as the page offers it."""

    name: str
    title: str
    summary: str
    for_evaluators: bool


TABLES = Search.metadata.tables
# What is asked at each answer and each round is written once: to write a statement anew takes three
# times as long as to have it done.
LOCK_SEARCH = (
    select(Search)
    .where(Search.id == bindparam("search_id"))
    .with_for_update(of=Search)
    .execution_options(populate_existing=True)
)
ASK_GESTURE = select(Action.id).where(
    Action.search_id == bindparam("search_id"), Action.gesture_key == bindparam("gesture_key")
)
ASK_NEWEST_ANSWER = select(func.max(Answer.id)).where(Answer.search_id == bindparam("search_id"))
_SHOWN = (
    select(RoundImage.image_id)
    .join(Round, Round.id == RoundImage.round_id)
    .where(Round.id == bindparam("round_id"), Round.search_id == bindparam("search_id"))
)


def _ask_before(images: ColumnElement[bool]) -> Select[Any]:
    """In one statement all that must be known before answers are saved; what stands of `images`."""
    newest = (
        select(Answer.image_id, Answer.value, Answer.reason, Answer.with_image_id)
        .where(Answer.search_id == bindparam("search_id"), images)
        .order_by(Answer.image_id, Answer.id.desc())
        .ext(distinct_on(Answer.image_id))
        .subquery()
    )
    standing = select(
        array(
            [
                cast(newest.c.image_id, String),
                func.concat_ws(":", newest.c.value, newest.c.reason),
                cast(newest.c.with_image_id, String),
            ]
        )
    )
    return select(
        select(Seat.round_id)
        .where(Seat.search_id == bindparam("search_id"), Seat.person_id == bindparam("person_id"))
        .label("seat"),
        exists(ASK_GESTURE).label("is_repeated"),
        select(Round.grouping_id)
        .where(Round.id == bindparam("round_id"), Round.search_id == bindparam("search_id"))
        .label("grouping_id"),
        func.array(_SHOWN.scalar_subquery(), type_=INTEGERS).label("shown"),
        func.array(standing.scalar_subquery(), type_=ARRAY(String, dimensions=2)).label("standing"),
    )


ASK_BEFORE_ANSWER = _ask_before(Answer.image_id == any_(bindparam("image_ids", type_=INTEGERS)))
ASK_BEFORE_SUBMIT = _ask_before(Answer.image_id.in_(_SHOWN))
ASK_BEFORE_ROUND = select(
    ASK_NEWEST_ANSWER.scalar_subquery().label("newest_answer_id"),
    ASK_GROUPING.scalar_subquery().label("grouping_id"),
    ask_removed().scalar_subquery().label("removed"),
)
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
_GIVEN = (
    func.unnest(
        bindparam("image_ids", type_=INTEGERS),
        bindparam("values", type_=ARRAY(String)),
        bindparam("reasons", type_=ARRAY(String)),
        bindparam("alongs", type_=INTEGERS),
    )
    .table_valued("image_id", "value", "reason", "with_image_id")
    .render_derived()
)


def _add_given(action_id: ColumnElement[int], given: FromClause = _GIVEN) -> Insert:
    return insert(TABLES["answers"]).from_select(
        ["search_id", "action_id", *_GIVEN.c.keys()],
        select(bindparam("search_id", type_=BigInteger), action_id, *_GIVEN.c).select_from(given),
    )


_TOUCHED = (
    update(TABLES["searches"])
    .where(TABLES["searches"].c.id == bindparam("search_id", type_=BigInteger))
    .values(touched_at=func.now())
    .cte("touched")
)
_ACTION = (
    insert(TABLES["actions"])
    .from_select(
        ["search_id", "round_id", "person_id", "kind", "gesture_key"],
        select(
            bindparam("search_id", type_=BigInteger),
            bindparam("round_id", type_=BigInteger),
            bindparam("person_id", type_=BigInteger),
            bindparam("kind", type_=String),
            bindparam("gesture_key", type_=String),
        ),
    )
    .returning(TABLES["actions"].c.id)
    .cte("action")
)
ADD_ANSWERS = _add_given(bindparam("action_id", type_=BigInteger))
ADD_ACTION_WITH_ANSWERS = _add_given(_ACTION.c.id, _ACTION.join(_GIVEN, true())).add_cte(_TOUCHED)
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


@dataclass(frozen=True)
class RecordedAnswers:
    """What stands after half-given answers were saved."""

    answers: Values
    found_events: int | None  # None where each image stands by itself
    stale: bool  # the round had been submitted before: recorded as corrections
    can_undo: bool
    can_redo: bool


@dataclass(frozen=True)
class Submitted:
    """Whether the round had been submitted before, so that no new one was made."""

    already: bool


@dataclass(frozen=True)
class Step:
    """One step taken back or done again, as a sentence for the page."""

    kind: str
    sentence: str


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


def open_search(
    session: Session,
    *,
    person: Person,
    collection_id: int,
    target_name: str,
    counts_as_yes: str = "",
    strategy: str = DEFAULT_STRATEGY,
    round_size: int = DEFAULT_ROUND_SIZE,
    words: str = "",
    image_ids: list[int],
    photo_ids: list[int],
    embedder: str | None = None,
    chosen: Filter | None = None,
    indexes: OpenIndexes,
    embedders: LoadedEmbedders,
    settings: Settings,
    seed: int | None = None,
    opening_key: str | None = None,
) -> Search:
    """Open a search from words, example images and photos, and propose its first round.

    Example images of the collection are positives from the start. They leave the person's tray.
    The index is the one by `embedder`; without it the newest, or the newest that knows words.
    With a filter (`chosen`) its rounds show only images that the filter keeps.
    A given `seed` makes a search repeatable, as an evaluator's replay needs it; else it is drawn.
    The same `opening_key` again (a double click) gives the search it opened first.
    """
    session.refresh(person, with_for_update=True)  # two clicks come one after the other
    if opening_key is not None:
        opened = session.scalar(
            select(Search).filter_by(owner_id=person.id, opening_key=opening_key)
        )
        if opened is not None and opened.target_name == target_name.strip():
            return opened
        opening_key = None if opened is not None else opening_key  # the form was changed: another
    get_collection(session, person, collection_id)
    words = check_text("The description", words, MAX_WORDS_LENGTH)
    if not image_ids and not photo_ids and not words:
        raise BadInput(
            "Pick at least one example, an image of the collection or a photo, or describe in "
            "words what you are looking for."
        )
    index_row = choose_index(session, collection_id, embedder=embedder, words=words)
    vectors = indexes.get(index_row)
    _check_reach(strategy, vectors)
    search = Search(
        collection_id=collection_id,
        owner_id=person.id,
        target_name=check_text("The name", target_name, MAX_NAME_LENGTH, required=True),
        counts_as_yes=check_text("What counts as yes", counts_as_yes, MAX_COUNTS_LENGTH),
        embedder=index_row.embedder,
        strategy=check_strategy(strategy),
        round_size=check_round_size(round_size),
        seed=secrets.randbelow(2**31) if seed is None else seed,
        opening_key=opening_key,
        filter=_to_json(chosen),
    )
    session.add(search)
    session.flush()
    image_ids, photo_ids = list(dict.fromkeys(image_ids)), list(dict.fromkeys(photo_ids))
    left_out = list_left_out(session, collection_id, vectors)
    known = vectors.holds(image_ids) & ~np.isin(image_ids, left_out)
    if not known.all():
        raise BadInput(
            "One of the example images is not among the prepared images of this collection. "
            "Take it out of the examples and pick another."
        )
    examples = [Example(search_id=search.id, image_id=image_id) for image_id in image_ids]
    for photo_id in photo_ids:
        photo = session.get(Photo, photo_id)
        if photo is None or photo.person_id != person.id:
            raise NotFound("One of the example photos is gone. Add it again.")
        examples.append(Example(search_id=search.id, photo_id=photo_id))
    if words:
        examples.append(Example(search_id=search.id, words=words))
    session.add_all(examples)
    session.flush()
    for example in examples:
        _embed_example(session, example, index_row, embedders=embedders, settings=settings)
    action = _add_action(session, search, person, kind="example", round_id=None, gesture_key=None)
    _add_answers(session, search, action.id, dict.fromkeys(image_ids, ("yes", None)))
    session.flush()
    seat = Seat(search_id=search.id, person_id=person.id)
    session.add(seat)
    first = _add_round(
        session, search, person, previous=None, detour=None, shared=False, indexes=indexes
    )
    _move(session, search, seat, first.id, shared=False)
    session.execute(
        delete(TrayItem).where(
            TrayItem.person_id == person.id,
            TrayItem.collection_id == collection_id,
            TrayItem.image_id.in_(image_ids) | TrayItem.photo_id.in_(photo_ids),
        )
    )
    session.flush()
    return search


def sit_down(
    session: Session, search: Search, *, person: Person, visit: str | None, indexes: OpenIndexes
) -> None:
    """Take one's place in a search: a first grid for who is new in it.

    In a shared search the images of the grid are held again, as far as nobody else got them
    meanwhile. `visit` names the page that was opened, None where none was.
    """
    seat = find_seat(session, search, person)
    if seat is not None and not is_shared(session, search):
        return
    _lock(session, search)
    seat = find_seat(session, search, person)
    if seat is None:
        others = list_seats(session, search)
        for other in others:
            if other.round_id is not None and not list_own(session, other):  # alone until now
                lease(session, other, list_asked(session, other.round_id))
        seat = Seat(search_id=search.id, person_id=person.id)
        session.add(seat)
        session.flush()
        first = _add_round(
            session, search, person, previous=None, detour=None, shared=True, indexes=indexes
        )
        _move(session, search, seat, first.id, shared=True)
    else:
        stay(session, seat)
    if visit is not None:
        seat.visit = visit
    session.flush()


def stay_here(session: Session, search: Search, *, person: Person) -> set[int]:
    """Give a sign that one is still there; the images of one's grid that are one's own to answer.

    Those that have an answer are among them.
    """
    _lock(session, search)
    seat = find_seat(session, search, person)
    if seat is None or seat.round_id is None:
        return set()
    stay(session, seat)
    shown = _list_round_image_ids(session, seat.round_id)
    return set(shown) - list_asked_elsewhere(session, search, person, shown)


def list_asked_elsewhere(
    session: Session, search: Search, person: Person, image_ids: Sequence[int]
) -> set[int]:
    """Those of the images without an answer that others are being asked."""
    held = set(list_held(session, search, person)).intersection(image_ids)
    if not held:
        return held
    return held.difference(read_current_answers(session, search, image_ids=list(held)))


def record_answers(
    session: Session,
    search: Search,
    *,
    person: Person,
    round_id: int,
    values: Values,
    alone: Collection[int] = (),
    gesture_key: str | None,
    is_locked: bool = False,
) -> RecordedAnswers:
    """Save answers as they are given; repeating a gesture changes nothing.

    The search `is_locked` where `app.access.get_search` has done that.

    An answer is for the image's whole event, but that to an image in `alone` for it by itself.
    Answers from a tab that still shows an earlier round are kept as corrections.
    """
    if not is_locked:
        _lock(session, search)
    known = _ask_standing(session, ASK_BEFORE_ANSWER, search, person, round_id, gesture_key, values)
    stale = known.seat != round_id
    told = list(values)
    answers: Values
    can_undo, can_redo = True, False  # after a new step: what was taken back before it is past
    if known.is_repeated:
        answers = {**_read_standing(session, search, image_ids=told, with_removed=True)}
        is_changed = False
    else:
        kind = "correct" if stale else "answer"
        given, standing = _take(session, search, person, round_id, values, alone, known)
        told = list(given)
        answers, is_changed = _add_changes(
            session, search, person, kind, round_id, given, gesture_key, standing
        )
    if not is_changed:
        can_undo, can_redo = may_step(session, search, person)
    found_events = None
    if known.grouping_id is not None:
        made = session.get_one(Round, round_id)
        current = read_current_answers(session, search)
        found = [image_id for image_id, value in current.items() if value == "yes"]
        found_events = count_events(session, made, found)
    return RecordedAnswers(
        answers={image_id: answers.get(image_id) for image_id in told},
        found_events=found_events,
        stale=stale,
        can_undo=can_undo,
        can_redo=can_redo,
    )


def submit_answers(
    session: Session,
    search: Search,
    *,
    person: Person,
    round_id: int,
    values: Values,
    alone: Collection[int] = (),
    rest_are_no: bool,
    gesture_key: str | None,
    indexes: OpenIndexes,
    is_locked: bool = False,
) -> Submitted:
    """Submit a round: save its last answers, retrain the head, propose the next round.

    The search `is_locked` where `app.access.get_search` has done that.

    Answers are for whole events as in `record_answers`. `rest_are_no` answers no for every image of
    the round that has no answer, and its event, and is remembered; in a shared search not for those
    that went to somebody else meanwhile.
    """
    started = time.perf_counter()
    if not is_locked:
        _lock(session, search)
    known = _ask_standing(session, ASK_BEFORE_SUBMIT, search, person, round_id, gesture_key, values)
    if known.is_repeated:
        return Submitted(already=True)
    given, standing = _take(session, search, person, round_id, values, alone, known)
    if known.seat != round_id:
        # A second tab with an old grid: what it says is kept, the grid is not answered twice.
        _add_changes(session, search, person, "correct", round_id, given, gesture_key, standing)
        return Submitted(already=True)
    # A step of their own, as when they are saved one by one: undoing the submit leaves them.
    answers, _ = _add_changes(session, search, person, "answer", round_id, given, None, standing)
    action = _add_action(
        session, search, person, kind="submit", round_id=round_id, gesture_key=gesture_key
    )
    shared = is_shared(session, search)
    seat = session.get_one(Seat, (search.id, person.id), populate_existing=True)
    is_whole = standing is not None and all(answers.get(one) for one in known.shown)
    if rest_are_no and not is_whole:
        shown = _list_round_image_ids(session, round_id, with_removed=False)
        answered = read_current_answers(session, search, image_ids=shown)
        if shared:
            # A grid that was opened before somebody was invited has no leases yet.
            own = list_own(session, seat) or (
                set(shown) - list_asked_elsewhere(session, search, person, shown)
            )
            shown = [image_id for image_id in shown if image_id in own]
        rest = dict.fromkeys((one for one in shown if one not in answered), "no")
        _add_answers(
            session, search, action.id, _spread(session, search, person, round_id, rest, alone)
        )
    previous = session.get_one(Round, round_id)
    detour = session.get(Detour, previous.detour_id) if previous.detour_id else None
    proposed = _add_round(
        session,
        search,
        person,
        previous=previous,
        detour=detour,
        shared=shared,
        indexes=indexes,
        submitted_at=started,
    )
    action.next_round_id = proposed.id
    search.rest_are_no = rest_are_no
    search.touched_at = func.now()
    _move(session, search, seat, proposed.id, shared=shared)
    return Submitted(already=False)


def take_detour(
    session: Session,
    search: Search,
    *,
    person: Person,
    kind: str | None,
    size: int = 0,
    anchor_image_id: int | None = None,
    embedder: str | None = None,
    gesture_key: str | None,
    indexes: OpenIndexes,
) -> None:
    """Show other images than the strategy's next: a gap, a sample, a second look of `size` images,
    or what another `embedder` of the collection holds likely and the search does not.

    It goes on over as many rounds as it needs; kind None ends it, and the strategy chooses again.
    The grid on screen counts as submitted if any of its images has an answer; if none has, the new
    one takes its place. Undo brings it back.
    """
    _lock(session, search)
    if _is_repeated(session, search, gesture_key):
        return
    seat = find_seat(session, search, person)
    if seat is None:
        raise NotFound("You have no grid in this search yet. Open its grid first.")
    current = session.get_one(Round, seat.round_id)
    shown = _list_round_image_ids(session, current.id)
    is_answered = bool(read_current_answers(session, search, image_ids=shown))
    previous = (
        current
        if is_answered or current.previous_id is None
        else session.get_one(Round, current.previous_id)
    )
    detour = None
    if kind is not None:
        index = indexes.get(session.get_one(ImageIndex, current.index_id))
        _check_detour(current, kind, size, anchor_image_id, index)
        other = None
        if kind == "other-embedder":
            other = _choose_other_index(session, search, current, embedder or "")
        pool = _find_or_add_pool(session, search)
        detour = Detour(
            search_id=search.id,
            person_id=person.id,
            kind=kind,
            size=size,
            from_round_id=current.id,
            answers_through_id=_get_newest_answer_id(session, search),
            seed=search.seed,
            round_number=previous.number + 1,
            anchor_image_id=anchor_image_id,
            other_index_id=other.id if other else None,
            pool_id=pool.id if pool else None,
            left_out_ids=list_left_out(session, search.collection_id, index) or None,
        )
        plan, planned_in = read_plan(session, search, detour, indexes)
        if not len(plan.rows):
            raise BadInput("No such image is left to show. Your answers are safe.")
        detour.planned_image_ids = planned_in.image_ids[plan.rows].astype("<i8").tobytes()
        detour.seen_again, detour.beside_count = plan.seen_again, plan.beside_count
        session.add(detour)
        session.flush()
    action = _add_action(
        session, search, person, kind="detour", round_id=current.id, gesture_key=gesture_key
    )
    shared = is_shared(session, search)
    proposed = _add_round(
        session, search, person, previous=previous, detour=detour, shared=shared, indexes=indexes
    )
    action.next_round_id = proposed.id
    _move(session, search, seat, proposed.id, shared=shared)
    search.touched_at = func.now()
    session.flush()


def undo(
    session: Session, search: Search, *, person: Person, gesture_key: str | None
) -> Step | None:
    """Take back one's newest step that stands; None when the gesture is a repeated one.

    What somebody else answered on the same image after it stays.
    """
    _lock(session, search)
    if _is_repeated(session, search, gesture_key):
        return None
    done, _ = read_steps(session, search, person)
    if not done:
        raise NothingToUndo("There is nothing to take back: this is where the search began.")
    step = done[-1]
    action = _add_action(
        session, search, person, kind="undo", round_id=step.round_id, gesture_key=gesture_key
    )
    action.reverses_id = step.id
    session.flush()
    given = _read_answers_of(session, step)
    _restore_answers(session, search, action, list(given))
    _go_to(session, search, person, step, step.round_id)
    search.touched_at = func.now()
    session.flush()
    return Step(step.kind, f"Took back {_describe(session, step, given)}.")


def redo(
    session: Session, search: Search, *, person: Person, gesture_key: str | None
) -> Step | None:
    """Do again the step that one took back last; None when the gesture is a repeated one."""
    _lock(session, search)
    if _is_repeated(session, search, gesture_key):
        return None
    _, undone = read_steps(session, search, person)
    if not undone:
        raise NothingToUndo("There is nothing to do again.")
    step = undone[-1]
    action = _add_action(
        session, search, person, kind="redo", round_id=step.round_id, gesture_key=gesture_key
    )
    action.reverses_id = step.id
    session.flush()
    given = _read_answers_of(session, step)
    _restore_answers(session, search, action, list(given))
    _go_to(session, search, person, step, step.next_round_id)
    search.touched_at = func.now()
    session.flush()
    return Step(step.kind, f"Did again {_describe(session, step, given)}.")


def correct_answers(
    session: Session,
    search: Search,
    *,
    person: Person,
    values: Values,
    alone: Collection[int] = (),
    gesture_key: str | None,
) -> dict[int, list[int]]:
    """Change answers outside the grid; the head hears of it at the next round.

    A changed answer is also for the images of the event that got theirs along with it and have it
    still: these are returned, by the image that was looked at. Not so for an image in `alone`.
    """
    _lock(session, search)
    if _is_repeated(session, search, gesture_key):
        return {}
    _check_images(session, search, values)
    given: Given = {image_id: (value, None) for image_id, value in values.items()}
    along = _list_along(session, search, values, alone)
    for looked_at, others in along.items():
        given |= dict.fromkeys(others, (values[looked_at], looked_at))
    _add_changes(session, search, person, "correct", search.current_round_id, given, gesture_key)
    search.touched_at = func.now()
    session.flush()
    return along


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
    _lock(session, search)
    search.filter = _to_json(chosen)
    if chosen and not len(list_image_ids(session, search.collection_id, chosen)):
        raise BadInput("No image is left with this filter. Take a part of it away.")
    session.flush()


def read_search_filter(search: Search) -> Filter:
    """The filter of a search's next rounds."""
    return Filter(tuple((key, value) for key, value in search.filter or []))


def _to_json(chosen: Filter | None) -> list[list[str]] | None:
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
    _lock(session, search)
    index_row = choose_index(session, search.collection_id, embedder=embedder)
    for example in session.scalars(select(Example).filter_by(search_id=search.id)):
        with suppress(NoWords, RefusedPhoto, EmbedderMismatch):
            _embed_example(session, example, index_row, embedders=embedders, settings=settings)
    index = indexes.get(index_row)
    _check_reach(search.strategy, index)
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


def read_current_answers(
    session: Session,
    search: Search,
    *,
    image_ids: list[int] | None = None,
    through_id: int | None = None,
    with_removed: bool = False,
) -> dict[int, str]:
    """The newest answer of each image (all, or those given), without the cleared ones.

    Those on images that were removed from the collection do not count, but are kept.
    `through_id` looks back: the answers as they stood after that event.
    """
    standing = _read_standing(
        session, search, image_ids=image_ids, through_id=through_id, with_removed=with_removed
    )
    return {image_id: given.partition(":")[0] for image_id, given in standing.items()}


def read_answers_in_order(session: Session, search: Search) -> dict[int, str]:
    """As `read_current_answers`, the image answered last at the end."""
    query = _ask_given(of_some=False, through_one=False, with_removed=False)
    rows = session.execute(query, {"search_id": search.id}).all()
    by_time = sorted(rows, key=lambda row: row.id)
    return {row[0]: row[1].partition(":")[0] for row in by_time if row[1] != "cleared"}


def read_reasons(session: Session, search: Search, image_ids: list[int]) -> dict[int, str]:
    """Why those of the images that are a no are one, where it was said."""
    standing = _read_standing(session, search, image_ids=image_ids, with_removed=True)
    split = {image_id: split_reason(given)[1] for image_id, given in standing.items()}
    return {image_id: reason for image_id, reason in split.items() if reason is not None}


def count_along(
    session: Session, search: Search, events: Mapping[int, list[int]]
) -> dict[int, tuple[int, bool]]:
    """For images with an event: how many others an answer to it is for, and whether the one that
    stands is for it alone.

    `events` as of `app.events.list_events_of`.
    """
    members = list({one for own in events.values() for one in own})
    standing = _read_given(session, search, image_ids=members) if members else {}
    told = {}
    for image_id, own in events.items():
        others = [standing.get(one, (None, None)) for one in own if one != image_id]
        free = sum(value is None or along == image_id for value, along in others)
        came_along = any(along == image_id for _, along in others)
        is_alone = image_id in standing and free > 0 and not came_along
        told[image_id] = (free, is_alone)
    return told


def split_reason(given: str | None) -> tuple[str | None, str | None]:
    """An answer as it is sent, "no:too-poor", as its value and its reason."""
    value, _, reason = (given or "").partition(":")
    return value or None, reason or None


def with_reason() -> ColumnElement[str]:
    """The column of answers with their reasons, as they are sent."""
    joined: ColumnElement[str] = func.concat_ws(":", Answer.value, Answer.reason)
    return joined


def _read_standing(
    session: Session,
    search: Search,
    *,
    image_ids: list[int] | None = None,
    through_id: int | None = None,
    with_removed: bool = False,
) -> dict[int, str]:
    """As `read_current_answers`, with the reasons."""
    given = _read_given(
        session, search, image_ids=image_ids, through_id=through_id, with_removed=with_removed
    )
    return {image_id: value for image_id, (value, _) in given.items() if value is not None}


def _read_given(
    session: Session,
    search: Search,
    *,
    image_ids: Sequence[int] | None = None,
    through_id: int | None = None,
    with_removed: bool = True,
) -> Given:
    """As `_read_standing`, with the image of its event that each was given along with."""
    query = _ask_given(image_ids is not None, through_id is not None, with_removed)
    named = {
        "search_id": search.id,
        "image_ids": None if image_ids is None else list(image_ids),
        "through_id": through_id,
    }
    rows = session.execute(query, named).all()
    return {image_id: (value, along) for image_id, value, along, _ in rows if value != "cleared"}


@cache
def _ask_given(
    of_some: bool, through_one: bool, with_removed: bool
) -> Select[int, str, int | None, int]:
    query = (
        select(Answer.image_id, with_reason(), Answer.with_image_id, Answer.id)
        .where(Answer.search_id == bindparam("search_id"))
        .order_by(Answer.image_id, Answer.id.desc())
        .ext(distinct_on(Answer.image_id))
    )
    if not with_removed:
        query = query.where(~was_removed(Answer.image_id))
    if of_some:
        query = query.where(Answer.image_id == any_(bindparam("image_ids", type_=INTEGERS)))
    if through_one:
        query = query.where(Answer.id <= bindparam("through_id"))
    return query


def was_removed(image_id: InstrumentedAttribute[int]) -> ColumnElement[bool]:
    """The condition that an image was removed from its collection: of few of them, mostly."""
    return exists().where(Image.id == image_id, Image.removed_at.is_not(None))


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
    standing = _read_given(session, search, through_id=through_id)
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
    return _hold(index, read_removed_ids(session, collection_id))


def _hold(index: VectorIndex, image_ids: NDArray[np.int64]) -> list[int]:
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


def _check_reach(strategy: str, index: VectorIndex, *, where: str = "") -> None:
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


def to_bytes(vector: NDArray[np.float32]) -> bytes:
    """A vector as it is stored: float32, little-endian."""
    return vector.astype("<f4").tobytes()


def from_bytes(stored: bytes) -> NDArray[np.float32]:
    """A stored vector."""
    return np.frombuffer(stored, dtype="<f4").astype(np.float32)


def _embed_example(
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


def _add_round(
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
    _check_reach(search.strategy, index, where=", in the search's settings")
    previous_id = previous.id if previous else None
    removed = _hold(index, to_image_ids(known.removed))
    left_out = [*removed, *leased]
    pool = _find_or_add_pool(session, search)
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


def _move(
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


def _go_to(
    session: Session, search: Search, person: Person, step: StepRow, round_id: int | None
) -> None:
    """After a submit or a detour was taken back or done again: the round it leads to."""
    seat = find_seat(session, search, person)
    if seat is not None and step.kind in ("submit", "detour"):
        _move(session, search, seat, round_id, shared=is_shared(session, search))


def _restore_answers(
    session: Session, search: Search, action: Action, image_ids: list[int]
) -> None:
    """Give images the answers of the newest steps that stand, whoever took them."""
    standing = list_standing_steps(session, search)
    given: Given = dict.fromkeys(image_ids, (None, None))
    for action_id, image_id, value, along in session.execute(
        select(Answer.action_id, Answer.image_id, with_reason(), Answer.with_image_id)
        .where(Answer.search_id == search.id, is_among(Answer.image_id, image_ids))
        .order_by(Answer.action_id)
    ):
        if action_id in standing:
            given[image_id] = (None if value == "cleared" else value, along)
    _add_answers(
        session,
        search,
        action.id,
        _only_changes(given, _read_given(session, search, image_ids=image_ids)),
    )


def _find_or_add_pool(session: Session, search: Search) -> Pool | None:
    """The images that the search's filter keeps now: the last pool where it keeps the same.

    Its box is as fine as what its owner is shown of places now.
    """
    if search.filter is None:
        return None
    sight = read_sight(session, search.owner, search.collection_id)
    chosen = cover_filter(read_search_filter(search), sight)
    found = list_image_ids(session, search.collection_id, chosen)
    said = _to_json(chosen)
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


def _check_detour(
    current: Round, kind: str, size: int, anchor_image_id: int | None, index: VectorIndex
) -> None:
    if kind not in DETOUR_KINDS:
        raise BadInput("There is no such way to choose the next images.")
    if not SMALLEST_DETOUR <= size <= LARGEST_DETOURS[kind]:
        raise BadInput(f"This takes from {SMALLEST_DETOUR} to {LARGEST_DETOURS[kind]:,} images.")
    if kind in ("estimate", "other-embedder") and current.head_bias is None:
        what = "A sample by score" if kind == "estimate" else "A look by another embedder"
        raise BadInput(f"{what} needs a head: answer a round with a yes in it first.")
    no_anchor = anchor_image_id is None or not index.holds([anchor_image_id])[0]
    if kind == "gap" and no_anchor:
        raise NotFound("There is no such gap in this search.")


def _choose_other_index(
    session: Session, search: Search, current: Round, embedder: str
) -> ImageIndex:
    """The collection's index by another embedder than that of the grid on screen."""
    row = choose_index(session, search.collection_id, embedder=embedder)
    if row.embedder == session.get_one(ImageIndex, current.index_id).embedder:
        raise BadInput(f"This search goes by {embedder} itself. Choose another embedder.")
    return row


def _get_newest_answer_id(session: Session, search: Search) -> int:
    return session.scalar(ASK_NEWEST_ANSWER, {"search_id": search.id}) or 0


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


def _lock(session: Session, search: Search) -> None:
    """Wait for whoever changes this search now, then see what they did."""
    if session.scalar(LOCK_SEARCH, {"search_id": search.id}) is None:
        raise NotFound("This search was deleted for good a moment ago.")


def _is_repeated(session: Session, search: Search, gesture_key: str | None) -> bool:
    if gesture_key is None:
        return False
    named = {"search_id": search.id, "gesture_key": gesture_key}
    return session.scalar(ASK_GESTURE, named) is not None


def _ask_standing(
    session: Session,
    query: Select[Any],
    search: Search,
    person: Person,
    round_id: int,
    gesture_key: str | None,
    values: Values,
) -> Row[Any]:
    """What is known before answers are saved; `query` by `_ask_before`."""
    named = {
        "search_id": search.id,
        "person_id": person.id,
        "round_id": round_id,
        "gesture_key": gesture_key or "",
        "image_ids": list(values),
    }
    return session.execute(query, named).one()


def _take(
    session: Session,
    search: Search,
    person: Person,
    round_id: int,
    values: Values,
    alone: Collection[int],
    known: Row[Any],
) -> tuple[Given, Given | None]:
    """Answers as they are to be added, or a refusal; and what stands of the images that were asked
    about, None where answers are for other images, too. `known` as `_ask_before` asks for it.
    """
    is_alone = known.grouping_id is None and known.shown
    _check_values(session, search, round_id, values, known.shown if is_alone else None)
    if not is_alone:
        return _spread(session, search, person, round_id, values, alone), None
    standing: Given = {
        int(image_id): (value, int(along) if along else None)
        for image_id, value, along in known.standing
        if value != "cleared"
    }
    return {image_id: (value, None) for image_id, value in values.items()}, standing


def _check_values(
    session: Session,
    search: Search,
    round_id: int,
    values: Values,
    asked: Sequence[int] | None = None,
) -> None:
    """Refuse answers to what a round does not ask; `asked` where that is known."""
    if asked is None:
        made = session.get(Round, round_id)
        if made is None or made.search_id != search.id:
            raise NotFound("There is no such round in this search.")
        asked = list_asked(session, round_id)
    _check_answer_values(search, values)
    if not set(asked).issuperset(values):
        raise BadInput("An answer names an image that is not in this grid. Reload the page.")


def _check_images(session: Session, search: Search, values: Values) -> None:
    _check_answer_values(search, values)
    known = session.scalars(
        select(Image.id).where(Image.collection_id == search.collection_id, Image.id.in_(values))
    ).all()
    if len(known) != len(values):
        raise NotFound("An answer names an image that is not in this collection.")


def _check_answer_values(search: Search, values: Values) -> None:
    for given in values.values():
        value, reason = split_reason(given)
        if value is not None and value not in VALUES:
            raise BadInput(f"An answer is yes, no or unsure, not “{value}”.")
        if reason is not None and (
            value != "no" or reason not in (*NO_REASONS, *search.no_reasons)
        ):
            raise BadInput(
                f"This search knows no such reason for a no: “{reason}”. Reload the page."
            )


def _list_round_image_ids(
    session: Session, round_id: int, *, with_removed: bool = True
) -> list[int]:
    query = ASK_SHOWN if with_removed else _ask_shown_still()
    return list(session.scalars(query, {"round_id": round_id}))


@cache
def _ask_shown_still() -> Select[int]:
    return ASK_SHOWN.where(~was_removed(RoundImage.image_id))


def _add_changes(
    session: Session,
    search: Search,
    person: Person,
    kind: str,
    round_id: int | None,
    given: Given,
    gesture_key: str | None,
    standing: Given | None = None,
) -> tuple[Values, bool]:
    """Add an action for the answers that differ from what is `standing` (None: it is read); none if
    nothing differs.

    What stands then of the images, and whether anything was changed.
    """
    if standing is None:
        standing = _read_given(session, search, image_ids=list(given)) if given else {}
    changed = _only_changes(given, standing)
    if changed:
        named = {
            "search_id": search.id,
            "round_id": round_id,
            "person_id": person.id,
            "kind": kind,
            "gesture_key": gesture_key,
        }
        session.execute(ADD_ACTION_WITH_ANSWERS, named | _to_columns(changed))
        session.expire(search, ["touched_at"])
    return {image_id: value for image_id, (value, _) in (standing | changed).items()}, bool(changed)


def _spread(
    session: Session,
    search: Search,
    person: Person,
    round_id: int,
    values: Mapping[int, str | None],
    alone: Collection[int],
) -> Given:
    """Answers as answers to whole events, as far as nobody else is being asked their images."""
    events = list_events_of(session, session.get_one(Round, round_id), list(values))
    members = list({one for own in events.values() for one in own})
    standing = _read_given(session, search, image_ids=members) if members else {}
    given = spread(values, alone, events, standing)
    if members and is_shared(session, search):
        elsewhere = list_asked_elsewhere(session, search, person, members)
        for image_id in elsewhere.difference(values):
            given.pop(image_id, None)
    return given


def _list_along(
    session: Session, search: Search, image_ids: Collection[int], alone: Collection[int]
) -> dict[int, list[int]]:
    """For each image the others that got their answer along with it and have it still.

    Without `image_ids` themselves, and those of images in `alone`.
    """
    followed: list[int | None] = [one for one in image_ids if one not in alone]
    with_it = (
        select(Answer.image_id)
        .join(Image, Image.id == Answer.image_id)
        .where(
            Answer.search_id == search.id,
            is_among(Answer.with_image_id, followed),
            Image.removed_at.is_(None),
        )
    )
    others = set(session.scalars(with_it)).difference(image_ids)
    standing = _read_given(session, search, image_ids=[*image_ids, *others])
    found: dict[int, list[int]] = {}
    for image_id in sorted(others):
        value, looked_at = standing.get(image_id, (None, None))
        if looked_at is None or looked_at in alone or looked_at not in image_ids:
            continue
        if value == standing.get(looked_at, (None, None))[0]:
            found.setdefault(looked_at, []).append(image_id)
    return found


def _only_changes(given: Given, standing: Given) -> Given:
    changed = {}
    for image_id, (value, along) in given.items():
        now = standing.get(image_id, (None, None))
        if (value, along) != now and (value is not None or now[0] is not None):
            changed[image_id] = (value, along)
    return changed


def _add_action(
    session: Session,
    search: Search,
    person: Person,
    *,
    kind: str,
    round_id: int | None,
    gesture_key: str | None,
) -> Action:
    action = Action(
        search_id=search.id,
        round_id=round_id,
        person_id=person.id,
        kind=kind,
        gesture_key=gesture_key,
    )
    session.add(action)
    session.flush()
    return action


def _add_answers(session: Session, search: Search, action_id: int | None, given: Given) -> None:
    if given:
        named = {"search_id": search.id, "action_id": action_id}
        session.execute(ADD_ANSWERS, named | _to_columns(given))


def _to_columns(given: Given) -> dict[str, list[Any]]:
    """Answers as the parameters of a statement that adds them."""
    split = [split_reason(answer) for answer, _ in given.values()]
    return {
        "image_ids": list(given),
        "values": [value or "cleared" for value, _ in split],
        "reasons": [reason for _, reason in split],
        "alongs": [along for _, along in given.values()],
    }


def _read_answers_of(session: Session, step: StepRow) -> Values:
    rows = session.execute(
        select(Answer.image_id, with_reason())
        .where(Answer.action_id == step.id)
        .order_by(Answer.id)
    )
    return {image_id: None if value == "cleared" else value for image_id, value in rows}


def read_steps(
    session: Session, search: Search, person: Person
) -> tuple[list[StepRow], list[StepRow]]:
    """A person's steps that stand, and those taken back that can be done again; newest last.

    A new step after an undo starts a new branch: what was taken back before it stays in the
    history, but can't be done again.
    """
    done: list[StepRow] = []
    undone: list[StepRow] = []
    actions = session.execute(
        select(Action.id, Action.kind, Action.round_id, Action.next_round_id)
        .filter_by(search_id=search.id, person_id=person.id)
        .order_by(Action.id)
    )
    for action in actions:
        if action.kind in UNDOABLE:
            done.append(action)
            undone.clear()
        elif action.kind == "undo":
            undone.append(done.pop())
        elif action.kind == "redo":
            done.append(undone.pop())
    return done, undone


def may_step(session: Session, search: Search, person: Person) -> tuple[bool, bool]:
    """Whether a person has a step to take back, and one to do again: as `read_steps`, counted.

    Each undo takes one of the steps that stand, each redo gives one back; a new step leaves none to
    do again.
    """
    named = {"search_id": search.id, "person_id": person.id}
    done, undone = session.execute(_ask_steps(), named).one()
    return done > 0, undone > 0


@cache
def _ask_steps() -> Select[int, int]:
    own = (
        Action.search_id == bindparam("search_id"),
        Action.person_id == bindparam("person_id"),
    )
    is_step = Action.kind.in_(UNDOABLE)
    newest = select(func.coalesce(func.max(Action.id), 0)).where(*own, is_step).scalar_subquery()

    def count(condition: ColumnElement[bool]) -> ColumnElement[int]:
        return func.count().filter(condition)

    since = Action.id > newest
    return select(
        count(is_step) - count(Action.kind == "undo") + count(Action.kind == "redo"),
        count((Action.kind == "undo") & since) - count((Action.kind == "redo") & since),
    ).where(*own)


def list_standing_steps(session: Session, search: Search) -> set[int | None]:
    """The ids of all actions that gave answers and were not taken back, of everybody."""
    standing: set[int | None] = set()
    actions = session.execute(
        select(Action.id, Action.kind, Action.reverses_id)
        .filter_by(search_id=search.id)
        .order_by(Action.id)
    )
    for action_id, kind, reverses_id in actions:
        if kind == "undo":
            standing.discard(reverses_id)
        else:
            standing.add(reverses_id if kind == "redo" else action_id)
    return standing


def _describe(session: Session, step: StepRow, given: Values) -> str:
    number = session.scalar(select(Round.number).filter_by(id=step.round_id))
    if step.kind == "submit":
        return f"the submit of round {number}"
    if step.kind == "detour":
        return f"the choice of other images in round {number}"
    looked_at = func.count(func.distinct(func.coalesce(Answer.with_image_id, Answer.image_id)))
    count = session.scalar(select(looked_at).filter_by(action_id=step.id))
    if count == 1 < len(given) and len(set(given.values())) == 1:
        value = next(iter(given.values()))
        return f"“{value or 'no answer'}” for an event of {len(given)} images in round {number}"
    if len(given) > 1:
        return f"{len(given)} answers in round {number}"
    (value,) = given.values()
    return f"“{value or 'no answer'}” in round {number}"
