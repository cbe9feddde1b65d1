"""The history of a search: everything done in it, told in sentences, what was taken back too.

Nothing here changes anything.
"""

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from math import ceil

from sqlalchemy import Row, func, select
from sqlalchemy.orm import Session

from app.engine.numerals import plural
from app.reporting import list_examples
from app.sensitive import find_people_images
from app.steps import UNDOABLE, list_standing_steps
from app.tables import Action, Answer, Example, Person, Round, Search

EVENTS_PER_PAGE = 100
TALLIED = {"yes": "yes", "no": "no", "unsure": "unsure", "cleared": "without an answer again"}


@dataclass(frozen=True)
class HistoryEvent:
    """One action, or answers that follow each other, as the history page tells it."""

    at: datetime
    who: str
    kind: str
    round_number: int | None
    images: list[tuple[int, str]]  # image id and the value it was given
    sentence: str
    taken_back: bool


@dataclass(frozen=True)
class HistoryPage:
    """One page of the history, newest first."""

    events: list[HistoryEvent]
    page: int
    pages: int


def list_history(session: Session, search: Search, *, page: int) -> HistoryPage:
    """Everything done in the search, newest first; what was taken back is marked."""
    total = session.scalar(select(func.count()).where(Action.search_id == search.id)) or 0
    pages = max(1, ceil(total / EVENTS_PER_PAGE))
    page = min(max(page, 1), pages)
    rows = session.execute(
        select(Action, Person.name, Round.number)
        .join(Person, Person.id == Action.person_id)
        .outerjoin(Round, Round.id == Action.round_id)
        .where(Action.search_id == search.id)
        .order_by(Action.id.desc())
        .limit(EVENTS_PER_PAGE)
        .offset((page - 1) * EVENTS_PER_PAGE)
    ).all()
    reversed_ids = {action.reverses_id for action, _, _ in rows if action.reverses_id is not None}
    of_reversed = select(Action.id, Action.kind).where(Action.id.in_(reversed_ids))
    kinds = {one.id: one.kind for one in session.execute(of_reversed)}
    told_ids = reversed_ids.union(action.id for action, _, _ in rows)
    given: dict[int, list[tuple[int, str]]] = {action_id: [] for action_id in told_ids}
    looked_at: dict[int, set[int]] = {action_id: set() for action_id in told_ids}
    for answer in session.scalars(
        select(Answer).where(Answer.action_id.in_(given)).order_by(Answer.id)
    ):
        given[answer.action_id].append((answer.image_id, answer.value))
        looked_at[answer.action_id].add(answer.with_image_id or answer.image_id)
    # Images of people are not even named here; the steps are.
    named = {image_id for pairs in given.values() for image_id, _ in pairs}
    hidden = find_people_images(session, sorted(named))
    standing = list_standing_steps(session, search)
    opened_with = _name_opening(list_examples(session, search))

    # Answers are saved one by one: those that follow each other in a round are one event, until an
    # image is answered again.
    folds: list[list[Row[Action, str, int | None]]] = []
    last: tuple[object, ...] = ()
    seen: set[int] = set()
    for row in rows:
        one, who, round_number = row
        alike = (one.kind, who, round_number, one.id in standing)
        image_ids = {image_id for image_id, _ in given[one.id]}
        if one.kind == "answer" and alike == last and seen.isdisjoint(image_ids):
            folds[-1].append(row)
        else:
            folds.append([row])
            seen = set()
        last = alike
        seen |= image_ids

    events = []
    for steps in folds:
        action, name, number = steps[0]
        told = [one.id for one, _, _ in reversed(steps)]
        values = dict(pair for action_id in told for pair in given[action_id])
        if action.reverses_id is not None:
            sentence = _tell_reversal(
                action.kind,
                kinds[action.reverses_id],
                number,
                [value for _, value in given[action.reverses_id]],
                len(looked_at[action.reverses_id]),
            )
        else:
            own = set().union(*(looked_at[action_id] for action_id in told))
            sentence = _tell(action, number, list(values.values()), len(own), opened_with)
        events.append(
            HistoryEvent(
                at=action.at,
                who=name,
                kind=action.kind,
                round_number=number,
                images=[pair for pair in values.items() if pair[0] not in hidden],
                sentence=sentence,
                taken_back=action.kind in UNDOABLE and action.id not in standing,
            )
        )
    return HistoryPage(events, page, pages)


def _name_opening(examples: list[Example]) -> str:
    image_count = sum(example.image_id is not None for example in examples)
    photo_count = sum(example.photo_id is not None for example in examples)
    named = [f"{plural(image_count, 'image')} of the collection"] if image_count else []
    named += [plural(photo_count, "photo")] if photo_count else []
    named += [f"the words “{example.words}”" for example in examples if example.words]
    return " and ".join(named)


def _tell(
    action: Action, number: int | None, values: list[str], looked_at_count: int, opened_with: str
) -> str:
    """An action as a sentence: `values` were given, `looked_at_count` of them for their own."""
    count = len(values)
    what = plural(count, "image")
    if looked_at_count == 1 < count:
        what = f"an event of {what}"
    elif looked_at_count < count:
        what = f"{looked_at_count} events and images, {what} in all"
    if action.kind == "submit":
        more = plural(count, "more image") if looked_at_count == count else what
        filled = f", answering {more}" if count else ""
        return f"Submitted round {number}{filled}"
    if action.kind == "example":
        return f"Opened the search with {opened_with}"
    if action.kind == "detour":
        return f"Asked for other images in round {number}"
    verb = "Corrected" if action.kind == "correct" else "Answered"
    where = "" if number is None else f" in round {number}"
    if set(values) == {"cleared"}:
        return f"Took the answer off {what}{where}"
    if len(set(values)) == 1:
        said = f"to “{values[0]}”" if action.kind == "correct" else f"“{values[0]}”"
        what = said if count == 1 else f"{what} {said}"
        return f"{verb} {what}{where}"
    counts = Counter(values)
    tally = [f"{counts[value]} {word}" for value, word in TALLIED.items() if counts[value]]
    return f"{verb} {what}{where}: {', '.join(tally)}"


def _tell_reversal(
    kind: str, reversed_kind: str, number: int | None, values: list[str], looked_at_count: int
) -> str:
    """What an undo took back, or a redo did again: a step of that kind, and the values it gave."""
    what = plural(len(values), "answer")
    said = {"cleared": "no answer"}.get(values[0], values[0]) if values else ""
    if reversed_kind == "submit":
        what = "the submit"
    elif reversed_kind == "detour":
        what = "the choice of other images"
    elif looked_at_count == 1 < len(values) and len(set(values)) == 1:
        what = f"the answer “{said}” for an event of {plural(len(values), 'image')}"
    elif len(values) == 1:
        what = f"the {'correction to' if reversed_kind == 'correct' else 'answer'} “{said}”"
    where = f"of round {number}" if reversed_kind == "submit" else f"in round {number}"
    return f"{'Took back' if kind == 'undo' else 'Did again'} {what} {where}"
