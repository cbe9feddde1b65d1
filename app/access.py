"""Who sees and changes which collection and search: decided here and nowhere else.

`refuse_unseen` stands before every route, so that an address that names something of others' is
answered as if there were no such thing. Lists ask `sees_collection` and `sees_search`.

A collection is seen by everyone, by listed people or by nobody else than its maker; admins see all.
A search is its owner's: members answer in it too, others look at it where it is open to view, and
all of them only while they see its collection. Admins are no exception.

Exact places and images of people are for trusted people: `is_trusted`.
"""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, ClassVar

from anyio import to_thread
from fastapi import Depends, Request, Response
from sqlalchemy import (
    BigInteger,
    BindParameter,
    ColumnElement,
    Select,
    bindparam,
    delete,
    exists,
    func,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, contains_eager
from starlette.routing import Match, Route
from starlette.types import Scope

from app.audit import note
from app.database import Database, DbSession
from app.errors import BadInput, NotAllowed, NotFound
from app.security import (
    SAFE_METHODS,
    MaybeSignedIn,
    check_signed_in,
    find_person,
    read_login_hash,
    refuse_viewer,
)
from app.tables import (
    OPEN_TO,
    Collection,
    CollectionPerson,
    Example,
    Image,
    LoginSession,
    Person,
    Photo,
    Review,
    Search,
    SearchMember,
    Seat,
    TrustedPerson,
)

MOST_NAMED = 20  # searches in one sentence
ID = re.compile(
    r"[0-9]{1,18}"
)  # other ways to write a number, like +5, must not go round the guard


@dataclass(frozen=True)
class Anybody:
    """Stands for a person in a statement that is written once: the parameter `person_id`.

    To write a statement takes three times as long as to have it done.
    """

    role: str
    id: ClassVar[BindParameter[int]] = bindparam("person_id", type_=BigInteger)


class Whoever:
    """Stands for the person of a joined login session, in a statement that asks for both."""

    role = Person.role
    id = Person.id


Someone = Person | Anybody | type[Whoever]


def sees_collection(person: Someone) -> ColumnElement[bool]:
    """The condition that a person sees a collection."""
    return Collection.deleted_at.is_(None) & _is_open_to(person)


def _is_open_to(person: Someone) -> ColumnElement[bool]:
    """The condition that a collection is open to a person, whether or not it lies in the bin."""
    # Both are of the statement around, however far: PostgreSQL would else take any person's role.
    listed = (
        exists()
        .where(
            CollectionPerson.collection_id == Collection.id,
            CollectionPerson.person_id == person.id,
        )
        .correlate(Collection, Person)
    )
    seen = or_(
        Collection.open_to == "everyone",
        Collection.made_by_id == person.id,
        (Collection.open_to == "listed") & listed,
    )
    if isinstance(person.role, str):
        return true() if person.role == "admin" else seen
    return or_(person.role == "admin", seen)


def sees_search(person: Someone) -> ColumnElement[bool]:
    """The condition that a person sees a search."""
    seen = select(Collection.id).where(sees_collection(person)).correlate(Person).scalar_subquery()
    return (
        Search.deleted_at.is_(None)
        & Search.collection_id.in_(seen)
        & or_(is_in_search(person), Search.open_to_view)
    )


def is_in_search(person: Someone) -> ColumnElement[bool]:
    """The condition that a search is a person's own, or that they are a member of it."""
    member = (
        exists()
        .where(SearchMember.search_id == Search.id, SearchMember.person_id == person.id)
        .correlate(Search, Person)
    )
    return or_(Search.owner_id == person.id, member)


def stand_before(request: Request, session: DbSession, person: MaybeSignedIn) -> None:
    """`refuse_unseen` as what a route depends on."""
    refuse_unseen(request, session, person)


def refuse_unseen(
    request: Request,
    session: Session,
    person: Person | None,
    *,
    locks: bool = False,
    seen: Search | Image | None = None,
) -> None:
    """Stands before every route: whatever its address names must be the person's to see.

    A request that changes something also needs the right to. Of `seen` it is known that they do.
    """
    named = {name: value for name, value in request.path_params.items() if name.endswith("_id")}
    if not named:
        return
    person = check_signed_in(request, person)
    if not all(ID.fullmatch(value) for value in named.values()):
        raise NotFound("There is nothing at this address.")
    ids = {name: int(value) for name, value in named.items()}
    changes = request.method not in SAFE_METHODS
    if ids.keys() == {"image_id"} and not isinstance(seen, Image):
        check_sees_image(session, person, ids["image_id"])
    if "image_id" in ids:
        check_sees_people(session, person, ids["image_id"])
    if "search_id" in ids:
        search = (
            seen
            if isinstance(seen, Search)
            else get_search(session, person, ids["search_id"], locks=locks)
        )
        request.state.search = search
        request.state.looks_only = not may_answer(session, person, search)  # pages offer less
        if changes:
            check_may_answer(session, person, search)
    elif "review_id" in ids:
        get_asked_review(session, person, ids["review_id"])
        if changes:
            refuse_viewer(person)
    elif "collection_id" in ids:
        get_collection(session, person, ids["collection_id"])
        if changes:
            refuse_viewer(person)
    elif "photo_id" in ids:
        get_photo(session, person, ids["photo_id"])


class QuickRoute(Route):
    """A route whose function takes the request as it is, and checks by itself who may ask.

    For what is asked most: FastAPI's look through a function's parameters and dependencies is a
    good part of what a picture costs.
    """

    def __init__(
        self, method: str, path: str, endpoint: Callable[[Request], Awaitable[Response]]
    ) -> None:
        super().__init__(path, endpoint)
        self.methods = {method}  # and not HEAD, as with all other routes

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """As any route, and noted as FastAPI's are."""
        match, found = super().matches(scope)
        if match == Match.FULL:
            found["route"] = self
        return match, found


async def in_one_thread(
    request: Request, do: Callable[[Session, Person], Response], *, locks: bool = False
) -> Response:
    """Answer a request in one thread: who asks, whether they may, then `do`, in one transaction.

    For what is asked most: as dependencies of a route each of these would change threads, which
    takes longer than the work. `locks` the search that the address names, as who changes it must.
    """
    database: Database = request.app.state.database

    def answer() -> Response:
        with database.begin() as session:
            login, seen = _ask_together(request, session, locks)
            person = find_person(request, session, login)
            if login is None or person is not login.person:
                seen = None
            refuse_unseen(request, session, person, locks=locks, seen=seen)
            return do(session, check_signed_in(request, person))

    return await to_thread.run_sync(answer)


def _ask_together(
    request: Request, session: Session, locks: bool
) -> tuple[LoginSession | None, Search | Image | None]:
    """Who asks by their cookie, and what the address names if they see it, in one statement.

    Nothing where that is not all there is to it; then each is asked for, and refused, by itself.
    """
    named = {name: value for name, value in request.path_params.items() if name.endswith("_id")}
    token_hash = read_login_hash(request)
    if token_hash is None or len(named) != 1:
        return None, None
    ((name, value),) = named.items()
    if name not in ("search_id", "image_id") or not ID.fullmatch(value):
        return None, None
    found = session.execute(
        _ask_login_and(name, locks), {"token_sha256": token_hash, name: int(value)}
    ).first()
    return (None, None) if found is None else (found[0], found[1])


@cache
def _ask_login_and(name: str, locks: bool) -> Select[LoginSession, Any]:
    with_person = contains_eager(LoginSession.person)
    token = LoginSession.token_sha256 == bindparam("token_sha256")
    if name == "image_id":
        return (
            select(LoginSession, Image)
            .join(LoginSession.person)
            .join(Image, Image.id == bindparam("image_id"))
            .join(Collection, Collection.id == Image.collection_id)
            .where(token, sees_collection(Whoever))
            .options(with_person)
        )
    query = (
        select(LoginSession, Search)
        .join(LoginSession.person)
        .join(Search, Search.id == bindparam("search_id"))
        .where(token, sees_search(Whoever))
        .options(with_person)
    )
    return query.with_for_update(of=Search) if locks else query


async def get_named_search(request: Request) -> Search:
    """The search that the address names, as `refuse_unseen` found it a moment ago."""
    search: Search = request.state.search
    return search


NamedSearch = Annotated[Search, Depends(get_named_search)]


def get_collection(session: Session, person: Person, collection_id: int) -> Collection:
    """The collection, if the person sees it."""
    query = select(Collection).where(Collection.id == collection_id, sees_collection(person))
    collection = session.scalar(query)
    if collection is None:
        raise NotFound("There is no such collection.")
    return collection


def get_search(session: Session, person: Person, search_id: int, *, locks: bool = False) -> Search:
    """The search, if the person sees it; `locks` it until the end of the transaction."""
    named = {"search_id": search_id, "person_id": person.id}
    search = session.scalar(_ask_search(person.role, locks), named)
    if search is None:
        raise NotFound(
            _say_in_bin(session, person, search_id)
            or "There is no such search, or it belongs to somebody else."
        )
    return search


def _say_in_bin(session: Session, person: Person, search_id: int) -> str | None:
    """To who answers in a search: who deleted it, or its collection, and that it is not lost."""
    found = session.execute(
        select(Search, Collection)
        .join(Collection, Collection.id == Search.collection_id)
        .where(Search.id == search_id, is_in_search(person), _is_open_to(person))
    ).one_or_none()
    if found is None:
        return None
    search, collection = found
    what, deleted_by_id = f"“{search.target_name}”", search.deleted_by_id
    back = "you" if search.owner_id == person.id else search.owner.name
    if collection.deleted_at is not None:  # it must come back first
        what = f"“{collection.name}”, the collection of this search,"
        back = "you" if may_open(person, collection) else "an admin, or who added it,"
        deleted_by_id = collection.deleted_by_id
    who = session.get(Person, deleted_by_id) if deleted_by_id is not None else None
    return (
        f"{what} was deleted{f' by {who.name}' if who else ''}. Nothing is lost yet: the search "
        f"lies in the bin with all its answers, and {back} can put it back from there."
    )


@cache
def _ask_search(role: str, locks: bool) -> Select[Search]:
    query = select(Search).where(Search.id == bindparam("search_id"), sees_search(Anybody(role)))
    return query.with_for_update(of=Search) if locks else query


def get_search_called(session: Session, person: Person, called: str) -> Search:
    """The search of that number or name, if the person sees it; else what they do see."""
    called = called.strip()
    query = select(Search).where(sees_search(person)).order_by(Search.touched_at.desc())
    searches = session.scalars(query).all()
    found = [one for one in searches if str(one.id) == called]
    found = found or [one for one in searches if one.target_name.casefold() == called.casefold()]
    if len(found) == 1:
        return found[0]
    if not searches:
        raise NotFound(f"There is no search “{called}”: there is none yet that you see.")
    if found:
        raise BadInput(
            f"Several searches are called “{called}”: {_name_all(found)}. Give a number."
        )
    raise NotFound(
        f"There is no search “{called}” that you see. There are: {_name_all(list(searches))}."
    )


def _name_all(searches: list[Search]) -> str:
    names = [f"{one.id} {one.target_name} (in {one.collection.name})" for one in searches]
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f", and {more} more" if more > 0 else "")


def get_own_search(session: Session, person: Person, search_id: int) -> Search:
    """The search, if it is theirs: only its owner shares, settles and deletes it."""
    search = get_search(session, person, search_id)
    if search.owner_id != person.id:
        raise NotAllowed(f"Only {search.owner.name}, who opened this search, can do this.")
    return search


def is_asked(person: Person) -> ColumnElement[bool]:
    """The condition that a person is asked for a second opinion, and still sees its images."""
    seen = select(Collection.id).where(sees_collection(person)).scalar_subquery()
    there = select(Search.id).where(Search.deleted_at.is_(None), Search.collection_id.in_(seen))
    return (
        (Review.reviewer_id == person.id)
        & Review.withdrawn_at.is_(None)
        & Review.search_id.in_(there)
    )


def get_asked_review(session: Session, person: Person, review_id: int) -> Review:
    """The second opinion, if the person is asked for it: they need not see the search."""
    review = session.scalar(select(Review).where(Review.id == review_id, is_asked(person)))
    if review is None:
        raise NotFound("There is no such second opinion, or somebody else is asked for it.")
    return review


def check_sees_image(session: Session, person: Person, image_id: int) -> None:
    """Refuse an image of a collection the person does not see."""
    named = {"image_id": image_id, "person_id": person.id}
    if session.scalar(_ask_image(person.role), named) is None:
        raise NotFound("There is no such image.")


@cache
def _ask_image(role: str) -> Select[Image]:
    query = select(Image).join(Collection, Collection.id == Image.collection_id)
    return query.where(Image.id == bindparam("image_id"), sees_collection(Anybody(role)))


def check_sees_people(session: Session, person: Person, image_id: int) -> None:
    """Refuse an image that shows people, but to those who are trusted and to who said so."""
    image = session.get(Image, image_id)
    if image is None or not image.shows_people:
        return
    if image.removed_by_id == person.id and not image.was_removed:
        return
    if not is_trusted(session, person, session.get_one(Collection, image.collection_id)):
        raise NotFound("There is no such image.")


def get_photo(session: Session, person: Person, photo_id: int) -> Photo:
    """A photo the person uploaded, or one that opened a search they see."""
    shown = select(Example.photo_id).join(Search, Search.id == Example.search_id)
    query = select(Photo).where(
        Photo.id == photo_id,
        or_(
            Photo.person_id == person.id,
            Photo.id.in_(shown.where(Example.photo_id == photo_id, sees_search(person))),
        ),
    )
    photo = session.scalar(query)
    if photo is None:
        raise NotFound("There is no such photo, or it belongs to somebody else.")
    return photo


def may_answer(session: Session, person: Person, search: Search) -> bool:
    """Whether a person who sees a search may answer in it."""
    if person.role == "viewer":
        return False
    return search.owner_id == person.id or (
        session.get(SearchMember, (search.id, person.id)) is not None
    )


def check_may_answer(session: Session, person: Person, search: Search) -> None:
    """Refuse somebody who may only look."""
    refuse_viewer(person)
    if not may_answer(session, person, search):
        raise NotAllowed(
            f"{search.owner.name} lets you look at this search. Ask them to share it with you if "
            "you want to answer in it."
        )


def may_open(person: Person, collection: Collection) -> bool:
    """Whether a person decides who sees a collection."""
    return person.role == "admin" or collection.made_by_id == person.id


def is_trusted(session: Session, person: Person, collection: Collection) -> bool:
    """Whether a person sees exact places and, if they ask, images of people."""
    if may_open(person, collection):
        return True
    return session.get(TrustedPerson, (collection.id, person.id)) is not None


def list_people_of(session: Session, collection: Collection) -> list[Person]:
    """The people on a collection's list, by name."""
    query = select(Person).join(CollectionPerson, CollectionPerson.person_id == Person.id)
    return list(session.scalars(query.filter_by(collection_id=collection.id).order_by(Person.name)))


def open_collection(
    session: Session, person: Person, collection: Collection, *, to: str, people: list[int]
) -> None:
    """Choose who sees a collection: everyone, these people, or nobody but its maker and admins."""
    if not may_open(person, collection):
        raise NotAllowed("Only an admin, or who added a collection, decides who may see it.")
    if to not in OPEN_TO:
        raise BadInput("Choose who may see the collection.")
    known = session.scalars(select(Person).where(Person.id.in_(people), Person.closed_at.is_(None)))
    chosen = {one.id: one.name for one in known.all()} if to == "listed" else {}
    before = {one.id for one in list_people_of(session, collection)}
    if (to, set(chosen)) == (collection.open_to, before):
        return
    collection.open_to = to
    session.execute(delete(CollectionPerson).filter_by(collection_id=collection.id))
    session.add_all(CollectionPerson(collection_id=collection.id, person_id=one) for one in chosen)
    who = {
        "everyone": "everyone",
        "listed": ", ".join(sorted(chosen.values())) or "nobody yet",
        "private": "nobody else",
    }[to]
    note(session, person, "share", f"Opened “{collection.name}” to {who}", collection=collection)


def list_members(session: Session, search: Search) -> list[SearchMember]:
    """Who answers in a search beside its owner, in the order they joined."""
    query = select(SearchMember).filter_by(search_id=search.id).order_by(SearchMember.added_at)
    return list(session.scalars(query))


def list_invitable(session: Session, search: Search) -> list[Person]:
    """Who could answer in a search: sees its collection, may search, and is not in it yet."""
    there = {search.owner_id} | {one.person_id for one in list_members(session, search)}
    people = session.scalars(
        select(Person)
        .where(Person.closed_at.is_(None), Person.role != "viewer")
        .order_by(Person.name)
    ).all()
    seen = select(Collection.id).where(Collection.id == search.collection_id)
    return [
        one
        for one in people
        if one.id not in there and session.scalar(seen.where(sees_collection(one))) is not None
    ]


def invite(session: Session, person: Person, search: Search, name: str) -> Person:
    """Let another person answer in one's search."""
    name = " ".join(name.split())
    invited = {one.name.lower(): one for one in list_invitable(session, search)}.get(name.lower())
    if invited is None:
        known = {one.person.name.lower() for one in list_members(session, search)}
        if name.lower() in known | {search.owner.name.lower()}:
            raise BadInput(f"{name} is in this search already.")
        raise BadInput(f"“{name}” can't be invited: {explain_unfit(session, search, name)}")
    made = {"search_id": search.id, "person_id": invited.id, "added_by_id": person.id}
    session.execute(insert(SearchMember).values(made).on_conflict_do_nothing())
    note(
        session,
        person,
        "share",
        f"Shared “{search.target_name}” with {invited.name}",
        search=search,
    )
    return invited


def explain_unfit(session: Session, search: Search, name: str) -> str:
    """Why somebody can't answer in a search, and what would help.

    Of people who don't see the collection no more is told than of those who are not there at all.
    """
    named = session.scalar(
        select(Person).where(func.lower(Person.name) == name.lower(), Person.closed_at.is_(None))
    )
    if named is not None and named.role == "viewer":
        seen = select(Collection.id).where(Collection.id == search.collection_id)
        if session.scalar(seen.where(sees_collection(named))) is not None:
            return (
                "as a viewer they may look and not answer. An admin can give them another role; "
                "to let them look, open the search to view."
            )
    return (
        "nobody of that name may search in this collection. An admin can add people, and open the "
        "collection to them."
    )


def remove_member(session: Session, person: Person, search: Search, person_id: int) -> None:
    """Take a member out of a search: its owner does, or they leave by themselves."""
    member = session.get(SearchMember, (search.id, person_id))
    if member is None or person.id not in (search.owner_id, person_id):
        raise NotFound("There is no such member in this search.")
    name = member.person.name
    session.delete(member)
    # Who is not there holds no images: others are asked them.
    seat = (Seat.search_id == search.id) & (Seat.person_id == person_id)
    session.execute(update(Seat).where(seat).values(here_until=func.now()))
    left = person.id == person_id
    what = f"Left “{search.target_name}”" if left else f"Took {name} out of “{search.target_name}”"
    note(session, person, "share", what, search=search)


def open_search_to_view(session: Session, person: Person, search: Search, *, is_open: bool) -> None:
    """Let everybody who sees the collection look at a search, or nobody but its members."""
    if search.open_to_view != is_open:
        search.open_to_view = is_open
        what = (
            f"Opened “{search.target_name}” to view"
            if is_open
            else (f"Closed “{search.target_name}” to all but its members")
        )
        note(session, person, "share", what, search=search)
