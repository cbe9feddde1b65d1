"""The main verbs of a search: open, sit down, answer, submit, detour, correct.

Answers and actions are only added. An answer is for an image, or for all images of its event
(app/events.py): then each gets a row of its own, which names the image that was looked at. Rounds
form a tree with a tip for each person, at their seat; images that others are being asked
(app/seats.py) are left out of a round. Whoever changes a search holds its row's lock, so two
people, two tabs and double clicks come one after the other.
"""

import secrets
import time
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from app.access import get_collection
from app.adjusting import (
    DEFAULT_ROUND_SIZE,
    DEFAULT_STRATEGY,
    MAX_COUNTS_LENGTH,
    MAX_NAME_LENGTH,
    check_round_size,
    check_strategy,
    check_strategy_reach,
    check_text,
    embed_example,
    filter_to_json,
    find_or_add_pool,
)
from app.answers import (
    ASK_BEFORE_ANSWER,
    ASK_BEFORE_SUBMIT,
    ASK_NEWEST_ANSWER,
    Values,
    add_action,
    add_answers,
    add_changes,
    check_corrections,
    is_repeated_gesture,
    list_along,
    list_asked_elsewhere,
    list_round_image_ids,
    lock_search,
    prepare_answers,
    read_current_answers,
    read_known,
    read_standing,
    spread_answers,
)
from app.engine.index import VectorIndex
from app.engine.numerals import spaced
from app.errors import BadInput, NotFound
from app.events import Given, count_events, list_asked
from app.filtering import Filter, check_for_search
from app.indexes import MAX_WORDS_LENGTH, choose_index
from app.indexing import LoadedEmbedders, OpenIndexes
from app.premises import list_left_out, read_plan
from app.rounds import add_round, move_tip
from app.seats import find_seat, is_shared, lease, list_own, list_seats, stay
from app.settings import Settings
from app.steps import may_step
from app.tables import (
    DETOUR_KINDS,
    Detour,
    Example,
    ImageIndex,
    Person,
    Photo,
    Round,
    Search,
    Seat,
    TrayItem,
)

SMALLEST_DETOUR = 6  # images
# Each at most: a certificate can need very many, and the others are planned image by image.
LARGEST_DETOURS = {
    "gap": 200,
    "second-look": 200,
    "other-embedder": 200,
    "estimate": 1_000,
    "absence": 100_000,
}


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
    target_name = check_text("The name", target_name, MAX_NAME_LENGTH, required=True)
    words = check_text("The description", words, MAX_WORDS_LENGTH)
    session.refresh(person, with_for_update=True)  # two clicks come one after the other
    if opening_key is not None:
        opened = find_opened(session, person, opening_key)
        said = (target_name, strategy, round_size, words, set(image_ids))
        if opened is not None and _is_opened_by(session, opened, *said):
            return opened
        opening_key = None if opened is not None else opening_key  # the form was changed: another
    get_collection(session, person, collection_id)
    if not image_ids and not photo_ids and not words:
        raise BadInput(
            "Pick at least one example, an image of the collection or a photo, or describe in "
            "words what you are looking for."
        )
    check_for_search(session, collection_id, chosen or Filter())
    index_row = choose_index(session, collection_id, embedder=embedder, words=words)
    vectors = indexes.get(index_row)
    check_strategy_reach(strategy, vectors)
    search = Search(
        collection_id=collection_id,
        owner_id=person.id,
        target_name=target_name,
        counts_as_yes=check_text("What counts as yes", counts_as_yes, MAX_COUNTS_LENGTH),
        embedder=index_row.embedder,
        strategy=check_strategy(strategy),
        round_size=check_round_size(round_size),
        seed=secrets.randbelow(2**31) if seed is None else seed,
        opening_key=opening_key,
        filter=filter_to_json(chosen),
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
        embed_example(session, example, index_row, embedders=embedders, settings=settings)
    action = add_action(session, search, person, kind="example", round_id=None, gesture_key=None)
    add_answers(session, search, action.id, dict.fromkeys(image_ids, ("yes", None)))
    session.flush()
    seat = Seat(search_id=search.id, person_id=person.id)
    session.add(seat)
    first = add_round(
        session, search, person, previous=None, detour=None, shared=False, indexes=indexes
    )
    move_tip(session, search, seat, first.id, shared=False)
    session.execute(
        delete(TrayItem).where(
            TrayItem.person_id == person.id,
            TrayItem.collection_id == collection_id,
            TrayItem.image_id.in_(image_ids) | TrayItem.photo_id.in_(photo_ids),
        )
    )
    session.flush()
    return search


def find_opened(session: Session, person: Person, opening_key: str) -> Search | None:
    """The search that a form opened, also one in the bin."""
    return session.scalar(select(Search).filter_by(owner_id=person.id, opening_key=opening_key))


def _is_opened_by(session: Session, search: Search, *said: object) -> bool:
    """Whether a form that says this is the one that opened the search.

    Photos don't count: sent once more, one from the disk is another photo.
    """
    examples = session.scalars(select(Example).filter_by(search_id=search.id)).all()
    words = "".join(one.words for one in examples if one.words)
    images = {one.image_id for one in examples if one.image_id}
    return said == (search.target_name, search.strategy, search.round_size, words, images)


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
    lock_search(session, search)
    seat = find_seat(session, search, person)
    if seat is None:
        others = list_seats(session, search)
        for other in others:
            if other.round_id is not None and not list_own(session, other):  # alone until now
                lease(session, other, list_asked(session, other.round_id))
        seat = Seat(search_id=search.id, person_id=person.id)
        session.add(seat)
        session.flush()
        first = add_round(
            session, search, person, previous=None, detour=None, shared=True, indexes=indexes
        )
        move_tip(session, search, seat, first.id, shared=True)
    else:
        stay(session, seat)
    if visit is not None:
        seat.visit = visit
    session.flush()


def stay_here(session: Session, search: Search, *, person: Person) -> set[int]:
    """Give a sign that one is still there; the images of one's grid that are one's own to answer.

    Those that have an answer are among them.
    """
    lock_search(session, search)
    seat = find_seat(session, search, person)
    if seat is None or seat.round_id is None:
        return set()
    stay(session, seat)
    shown = list_round_image_ids(session, seat.round_id)
    return set(shown) - list_asked_elsewhere(session, search, person, shown)


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
        lock_search(session, search)
    known = read_known(session, ASK_BEFORE_ANSWER, search, person, round_id, gesture_key, values)
    stale = known.seat != round_id
    told = list(values)
    answers: Values
    can_undo, can_redo = True, False  # after a new step: what was taken back before it is past
    if known.is_repeated:
        answers = {**read_standing(session, search, image_ids=told, with_removed=True)}
        is_changed = False
    else:
        kind = "correct" if stale else "answer"
        given, standing = prepare_answers(session, search, person, round_id, values, alone, known)
        told = list(given)
        answers, is_changed = add_changes(
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
    is_chosen: bool = True,
    gesture_key: str | None,
    indexes: OpenIndexes,
    is_locked: bool = False,
) -> Submitted:
    """Submit a round: save its last answers, retrain the head, propose the next round.

    The search `is_locked` where `app.access.get_search` has done that.

    Answers are for whole events as in `record_answers`. `rest_are_no` answers no for every image of
    the round that has no answer, and its event; in a shared search not for those that went to
    somebody else meanwhile. It is remembered for the person, where they chose it (`is_chosen`).
    """
    started = time.perf_counter()
    if not is_locked:
        lock_search(session, search)
    known = read_known(session, ASK_BEFORE_SUBMIT, search, person, round_id, gesture_key, values)
    if known.is_repeated:
        return Submitted(already=True)
    given, standing = prepare_answers(session, search, person, round_id, values, alone, known)
    if known.seat != round_id:
        # A second tab with an old grid: what it says is kept, the grid is not answered twice.
        add_changes(session, search, person, "correct", round_id, given, gesture_key, standing)
        return Submitted(already=True)
    # A step of their own, as when they are saved one by one: undoing the submit leaves them.
    answers, _ = add_changes(session, search, person, "answer", round_id, given, None, standing)
    action = add_action(
        session, search, person, kind="submit", round_id=round_id, gesture_key=gesture_key
    )
    shared = is_shared(session, search)
    seat = session.get_one(Seat, (search.id, person.id), populate_existing=True)
    is_whole = standing is not None and all(answers.get(one) for one in known.shown)
    if rest_are_no and not is_whole:
        shown = list_round_image_ids(session, round_id, with_removed=False)
        answered = read_current_answers(session, search, image_ids=shown)
        if shared:
            # A grid that was opened before somebody was invited has no leases yet.
            own = list_own(session, seat) or (
                set(shown) - list_asked_elsewhere(session, search, person, shown)
            )
            shown = [image_id for image_id in shown if image_id in own]
        rest = dict.fromkeys((one for one in shown if one not in answered), "no")
        add_answers(
            session,
            search,
            action.id,
            spread_answers(session, search, person, round_id, rest, alone),
        )
    previous = session.get_one(Round, round_id)
    detour = session.get(Detour, previous.detour_id) if previous.detour_id else None
    proposed = add_round(
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
    if is_chosen:
        seat.rest_are_no = rest_are_no
    search.touched_at = func.now()
    move_tip(session, search, seat, proposed.id, shared=shared)
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
    lock_search(session, search)
    if is_repeated_gesture(session, search, gesture_key):
        return
    seat = find_seat(session, search, person)
    if seat is None:
        raise NotFound("You have no grid in this search yet. Open its grid first.")
    current = session.get_one(Round, seat.round_id)
    shown = list_round_image_ids(session, current.id)
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
        pool = find_or_add_pool(session, search)
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
    action = add_action(
        session, search, person, kind="detour", round_id=current.id, gesture_key=gesture_key
    )
    shared = is_shared(session, search)
    proposed = add_round(
        session, search, person, previous=previous, detour=detour, shared=shared, indexes=indexes
    )
    action.next_round_id = proposed.id
    move_tip(session, search, seat, proposed.id, shared=shared)
    search.touched_at = func.now()
    session.flush()


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
    lock_search(session, search)
    if is_repeated_gesture(session, search, gesture_key):
        return {}
    check_corrections(session, search, values)
    given: Given = {image_id: (value, None) for image_id, value in values.items()}
    along = list_along(session, search, values, alone)
    for looked_at, others in along.items():
        given |= dict.fromkeys(others, (values[looked_at], looked_at))
    add_changes(session, search, person, "correct", search.current_round_id, given, gesture_key)
    search.touched_at = func.now()
    session.flush()
    return along


def _check_detour(
    current: Round, kind: str, size: int, anchor_image_id: int | None, index: VectorIndex
) -> None:
    if kind not in DETOUR_KINDS:
        raise BadInput("There is no such way to choose the next images.")
    if not SMALLEST_DETOUR <= size <= LARGEST_DETOURS[kind]:
        raise BadInput(
            f"This takes from {SMALLEST_DETOUR} to {spaced(LARGEST_DETOURS[kind])} images."
        )
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
