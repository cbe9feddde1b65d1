"""A person's steps in a search: which stand, undo and redo, and what they say of themselves.

Undo takes back one's own newest action that still stands: an answer, or a whole submit, which makes
the round before the current one again. Nothing is deleted for it: an action is added that says so,
with answers that restore what stands without the step.
"""

from dataclasses import dataclass
from functools import cache

from sqlalchemy import ColumnElement, Row, Select, bindparam, func, select
from sqlalchemy.orm import Session

from app.answers import (
    Values,
    add_action,
    add_answers,
    is_repeated_gesture,
    lock_search,
    only_changes,
    read_given,
    with_reason,
)
from app.database import is_among
from app.errors import NothingToUndo
from app.events import Given
from app.rounds import move_tip
from app.seats import find_seat, is_shared
from app.tables import Action, Answer, Person, Round, Search

UNDOABLE = ("answer", "submit", "correct", "detour")
StepRow = Row[int, str, int | None, int | None]  # id, kind, round_id, next_round_id


@dataclass(frozen=True)
class Step:
    """One step taken back or done again, as a sentence for the page."""

    kind: str
    sentence: str


def undo(
    session: Session, search: Search, *, person: Person, gesture_key: str | None
) -> Step | None:
    """Take back one's newest step that stands; None when the gesture is a repeated one.

    What somebody else answered on the same image after it stays.
    """
    lock_search(session, search)
    if is_repeated_gesture(session, search, gesture_key):
        return None
    done, _ = read_steps(session, search, person)
    if not done:
        raise NothingToUndo("There is nothing to take back: this is where the search began.")
    step = done[-1]
    action = add_action(
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
    lock_search(session, search)
    if is_repeated_gesture(session, search, gesture_key):
        return None
    _, undone = read_steps(session, search, person)
    if not undone:
        raise NothingToUndo("There is nothing to do again.")
    step = undone[-1]
    action = add_action(
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


def _go_to(
    session: Session, search: Search, person: Person, step: StepRow, round_id: int | None
) -> None:
    """After a submit or a detour was taken back or done again: the round it leads to."""
    seat = find_seat(session, search, person)
    if seat is not None and step.kind in ("submit", "detour"):
        move_tip(session, search, seat, round_id, shared=is_shared(session, search))


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
    add_answers(
        session,
        search,
        action.id,
        only_changes(given, read_given(session, search, image_ids=image_ids)),
    )


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
