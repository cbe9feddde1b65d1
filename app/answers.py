"""The answers of a search: which stand, and how more are checked and added.

Answers and actions are only added; of an image the newest answer counts. One that came along with
the answer to another image of its event (app/events.py) names the image that was looked at. Whoever
adds some holds the lock of the search.
"""

from collections.abc import Collection, Mapping, Sequence
from functools import cache
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    FromClause,
    Insert,
    Row,
    Select,
    String,
    any_,
    bindparam,
    cast,
    exists,
    func,
    insert,
    select,
    true,
    update,
)
from sqlalchemy.dialects.postgresql import array, distinct_on
from sqlalchemy.orm import InstrumentedAttribute, Session

from app.database import is_among
from app.engine.loop import Value
from app.errors import BadInput, NotFound
from app.events import ASK_SHOWN, Given, list_asked, list_events_of, spread
from app.seats import is_shared, list_held
from app.tables import NO_REASONS, Action, Answer, Image, Person, Round, RoundImage, Search, Seat

VALUES = {"yes": Value.YES, "no": Value.NO, "unsure": Value.UNSURE}
INTEGERS = ARRAY(BigInteger)

# Image id -> yes, no, unsure, or None for no answer. A no may have its reason: "no:too-poor".
Values = dict[int, str | None]

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


def list_asked_elsewhere(
    session: Session, search: Search, person: Person, image_ids: Sequence[int]
) -> set[int]:
    """Those of the images without an answer that others are being asked."""
    held = set(list_held(session, search, person)).intersection(image_ids)
    if not held:
        return held
    return held.difference(read_current_answers(session, search, image_ids=list(held)))


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
    standing = read_standing(
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
    standing = read_standing(session, search, image_ids=image_ids, with_removed=True)
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
    standing = read_given(session, search, image_ids=members) if members else {}
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


def read_standing(
    session: Session,
    search: Search,
    *,
    image_ids: list[int] | None = None,
    through_id: int | None = None,
    with_removed: bool = False,
) -> dict[int, str]:
    """As `read_current_answers`, with the reasons."""
    given = read_given(
        session, search, image_ids=image_ids, through_id=through_id, with_removed=with_removed
    )
    return {image_id: value for image_id, (value, _) in given.items() if value is not None}


def read_given(
    session: Session,
    search: Search,
    *,
    image_ids: Sequence[int] | None = None,
    through_id: int | None = None,
    with_removed: bool = True,
) -> Given:
    """As `read_standing`, with the image of its event that each was given along with."""
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


def lock_search(session: Session, search: Search) -> None:
    """Wait for whoever changes this search now, then see what they did."""
    if session.scalar(LOCK_SEARCH, {"search_id": search.id}) is None:
        raise NotFound("This search was deleted for good a moment ago.")


def is_repeated_gesture(session: Session, search: Search, gesture_key: str | None) -> bool:
    """Whether a gesture was recorded before: a double click, a request sent again."""
    if gesture_key is None:
        return False
    named = {"search_id": search.id, "gesture_key": gesture_key}
    return session.scalar(ASK_GESTURE, named) is not None


def read_known(
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


def prepare_answers(
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
        return spread_answers(session, search, person, round_id, values, alone), None
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


def check_corrections(session: Session, search: Search, values: Values) -> None:
    """Refuse answers to images outside the collection, and such as there are not."""
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


def list_round_image_ids(
    session: Session, round_id: int, *, with_removed: bool = True
) -> list[int]:
    """The images of a round, in their order, those removed since among them or not."""
    query = ASK_SHOWN if with_removed else _ask_shown_still()
    return list(session.scalars(query, {"round_id": round_id}))


@cache
def _ask_shown_still() -> Select[int]:
    return ASK_SHOWN.where(~was_removed(RoundImage.image_id))


def add_changes(
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
        standing = read_given(session, search, image_ids=list(given)) if given else {}
    changed = only_changes(given, standing)
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


def spread_answers(
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
    standing = read_given(session, search, image_ids=members) if members else {}
    given = spread(values, alone, events, standing)
    if members and is_shared(session, search):
        elsewhere = list_asked_elsewhere(session, search, person, members)
        for image_id in elsewhere.difference(values):
            given.pop(image_id, None)
    return given


def list_along(
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
    standing = read_given(session, search, image_ids=[*image_ids, *others])
    found: dict[int, list[int]] = {}
    for image_id in sorted(others):
        value, looked_at = standing.get(image_id, (None, None))
        if looked_at is None or looked_at in alone or looked_at not in image_ids:
            continue
        if value == standing.get(looked_at, (None, None))[0]:
            found.setdefault(looked_at, []).append(image_id)
    return found


def only_changes(given: Given, standing: Given) -> Given:
    """Those of the answers that differ from what is standing."""
    changed = {}
    for image_id, (value, along) in given.items():
        now = standing.get(image_id, (None, None))
        if (value, along) != now and (value is not None or now[0] is not None):
            changed[image_id] = (value, along)
    return changed


def add_action(
    session: Session,
    search: Search,
    person: Person,
    *,
    kind: str,
    round_id: int | None,
    gesture_key: str | None,
) -> Action:
    """Add an action; the answers that it gives come with `add_answers`."""
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


def add_answers(session: Session, search: Search, action_id: int | None, given: Given) -> None:
    """Add the answers of an action, if there are any."""
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
