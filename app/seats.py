"""Who is in a shared search now, and which of its images each is being asked.

Everybody who answers in a search has a seat with a grid of their own. In a search with more than
one of them an image is leased to whoever is asked it, and asked of nobody else while they are
there: until they leave, or give no sign of themselves for `HERE` long. An event is leased whole.
Who changes leases holds the lock of the search.
"""

from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import (
    ARRAY,
    CTE,
    BigInteger,
    ColumnElement,
    Select,
    bindparam,
    delete,
    exists,
    func,
    literal,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.database import is_among
from app.events import list_asked
from app.tables import Lease, Person, Round, Search, SearchMember, Seat

HERE = timedelta(minutes=10)
# Asked at each round, so written once: to write it anew takes longer than to ask.
ASK_SHARED = select(
    or_(
        exists().where(SearchMember.search_id == bindparam("search_id")),
        exists().where(
            Seat.search_id == bindparam("search_id"), Seat.person_id != bindparam("owner_id")
        ),
    )
)


def find_seat(session: Session, search: Search, person: Person) -> Seat | None:
    """The person's place in the search, if they have been in it."""
    return session.get(Seat, (search.id, person.id), populate_existing=True)


def is_shared(session: Session, search: Search) -> bool:
    """Whether others than its owner may answer in the search, or have."""
    named = {"search_id": search.id, "owner_id": search.owner_id}
    return bool(session.scalar(ASK_SHARED, named))


def list_seats(session: Session, search: Search) -> list[Seat]:
    """All places of the search."""
    return list(session.scalars(select(Seat).filter_by(search_id=search.id)))


def list_standing(search_id: int | ColumnElement[int]):  # type: ignore[no-untyped-def]  # noqa: ANN201
    """A recursive query of the ids of the rounds at all seats, and of all rounds before them."""
    tips = (
        select(Round.id, Round.previous_id)
        .join(Seat, Seat.round_id == Round.id)
        .where(Seat.search_id == search_id)
        .cte(recursive=True)
    )
    return tips.union(step_back(tips))


def step_back(tips: CTE) -> Select[Any]:
    """The rounds before those of a recursive query.

    One by one: left to itself PostgreSQL reads the rounds of all searches for each step.
    """
    before = (
        select(Round.id, Round.previous_id)
        .where(Round.id == tips.c.previous_id)
        .offset(0)
        .lateral()
    )
    return select(before.c.id, before.c.previous_id).select_from(tips).join(before, true())


def list_tips(search_id: int | ColumnElement[int]):  # type: ignore[no-untyped-def]  # noqa: ANN201
    """A query of the ids of the rounds that people have before them, not yet submitted."""
    return select(Seat.round_id).where(Seat.search_id == search_id, Seat.round_id.is_not(None))


def list_held(session: Session, search: Search, person: Person) -> list[int]:
    """The images that others who are there are being asked."""
    query = (
        select(Lease.image_id)
        .join(Seat, (Seat.search_id == Lease.search_id) & (Seat.person_id == Lease.person_id))
        .where(
            Lease.search_id == search.id,
            Lease.person_id != person.id,
            Seat.here_until > func.now(),
        )
    )
    return list(session.scalars(query.order_by(Lease.image_id)))


def name_holders(session: Session, search: Search, image_ids: Collection[int]) -> list[str]:
    """Who is being asked these images, by name."""
    query = (
        select(Person.name)
        .join(Lease, Lease.person_id == Person.id)
        .where(Lease.search_id == search.id, is_among(Lease.image_id, list(image_ids)))
        .distinct()
    )
    return list(session.scalars(query.order_by(Person.name)))


def list_own(session: Session, seat: Seat) -> set[int]:
    """The images leased to somebody, whether they are still there or not."""
    query = select(Lease.image_id).filter_by(search_id=seat.search_id, person_id=seat.person_id)
    return set(session.scalars(query))


def list_here(session: Session, search: Search) -> list[Person]:
    """Who is there now, by name."""
    query = (
        select(Person)
        .join(Seat, Seat.person_id == Person.id)
        .where(Seat.search_id == search.id, Seat.here_until > func.now())
    )
    return list(session.scalars(query.order_by(Person.name)))


def name_here(session: Session, search: Search, person: Person) -> list[str]:
    """Who is there now as `person` is told it: of themselves as “you”, of others by name."""
    here = list_here(session, search)
    others = [one.name for one in here if one.id != person.id]
    if len(others) == len(here):
        return others
    return ["you", *others] if others else ["only you"]


def stay(session: Session, seat: Seat) -> None:
    """Be there, and have the images of one's grid that nobody else is being asked."""
    seat.here_until = func.now() + HERE
    session.flush()
    if seat.round_id is not None:
        lease(session, seat, list_asked(session, seat.round_id))


def let_go(session: Session, seat: Seat) -> None:
    """Give back all images."""
    session.execute(
        delete(Lease).where(Lease.search_id == seat.search_id, Lease.person_id == seat.person_id)
    )


def lease(session: Session, seat: Seat, image_ids: Sequence[int]) -> None:
    """Lease those of the images that nobody who is there has."""
    if not image_ids:
        return
    # As one array: whole events may be more images than a statement may have parameters.
    asked = func.unnest(bindparam(None, list(image_ids), ARRAY(BigInteger)))
    made = insert(Lease).from_select(
        ["search_id", "image_id", "person_id"],
        select(literal(seat.search_id), asked, literal(seat.person_id)),
    )
    holder_is_here = exists().where(
        Seat.search_id == Lease.search_id,
        Seat.person_id == Lease.person_id,
        Seat.here_until > func.now(),
    )
    session.execute(
        made.on_conflict_do_update(
            index_elements=[Lease.search_id, Lease.image_id],
            set_={"person_id": made.excluded.person_id},
            where=~holder_is_here,
        )
    )


def leave(session: Session, search: Search, person: Person, visit: str) -> None:
    """Leave, if no other page was opened since that of `visit`."""
    session.execute(
        update(Seat)
        .where(Seat.search_id == search.id, Seat.person_id == person.id, Seat.visit == visit)
        .values(here_until=func.now())
    )
