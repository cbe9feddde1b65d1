"""Who may see a collection, and whom a search is shared with."""

from typing import Annotated

from fastapi import APIRouter, Form, Request, Response
from pydantic import Field
from sqlalchemy.orm import Session

from app.access import (
    get_collection,
    get_own_search,
    get_search,
    invite,
    list_invitable,
    list_members,
    list_people_of,
    may_open,
    open_collection,
    open_search_to_view,
    remove_member,
)
from app.accounts import list_accounts, list_awaited
from app.database import DbSession
from app.errors import BadInput, NotAllowed
from app.pages.addresses import LARGEST_ID, Id, see_other
from app.pages.rendering import render
from app.security import SignedIn
from app.tables import Person, Search

Text = Annotated[str, Form(max_length=1_000)]
Ids = Annotated[list[Annotated[int, Field(ge=1, le=LARGEST_ID)]], Form()]

router = APIRouter()


@router.get("/collections/{collection_id}/access")
def access_page(
    request: Request, session: DbSession, person: SignedIn, collection_id: Id
) -> Response:
    """Who may see a collection."""
    collection = get_collection(session, person, collection_id)
    if not may_open(person, collection):
        raise NotAllowed("Only an admin, or who added a collection, decides who may see it.")
    return render(
        request,
        "collection_access.html",
        person=person,
        collection=collection,
        listed={one.id for one in list_people_of(session, collection)},
        people=[one.person for one in list_accounts(session) if not one.person.closed_at],
    )


@router.post("/collections/{collection_id}/access")
def save_access(
    session: DbSession,
    person: SignedIn,
    collection_id: Id,
    open_to: Text = "",
    people: Ids = [],  # noqa: B006 - FastAPI copies it
) -> Response:
    """Choose who may see a collection."""
    collection = get_collection(session, person, collection_id)
    open_collection(session, person, collection, to=open_to, people=people)
    return see_other(f"/collections/{collection_id}")


@router.get("/searches/{search_id}/share")
def share_page(request: Request, session: DbSession, person: SignedIn, search_id: Id) -> Response:
    """Who answers in a search, and who may look at it."""
    return render_share(request, session, person, get_search(session, person, search_id))


@router.post("/searches/{search_id}/members")
def add_member(
    request: Request, session: DbSession, person: SignedIn, search_id: Id, name: Text = ""
) -> Response:
    """Let another person answer in the search."""
    search = get_own_search(session, person, search_id)
    try:
        invite(session, person, search, name)
    except BadInput as error:
        return render_share(request, session, person, search, name=name, wrong=str(error))
    return see_other(f"/searches/{search_id}/share")


@router.post("/searches/{search_id}/members/{person_id}/remove")
def take_member_out(session: DbSession, person: SignedIn, search_id: Id, person_id: Id) -> Response:
    """Take a member out, or leave."""
    search = get_search(session, person, search_id)
    remove_member(session, person, search, person_id)
    return see_other("/" if person.id == person_id else f"/searches/{search_id}/share")


@router.post("/searches/{search_id}/view")
def set_view(
    session: DbSession, person: SignedIn, search_id: Id, open_to_view: Text = ""
) -> Response:
    """Open the search to view, or close it."""
    search = get_own_search(session, person, search_id)
    open_search_to_view(session, person, search, is_open=open_to_view == "yes")
    return see_other(f"/searches/{search_id}/share")


def render_share(
    request: Request,
    session: Session,
    person: Person,
    search: Search,
    *,
    name: str = "",
    wrong: str | None = None,
) -> Response:
    """The page, with a name that can't be invited as it was typed."""
    is_owner = search.owner_id == person.id
    return render(
        request,
        "search_share.html",
        status=422 if wrong else 200,
        person=person,
        search=search,
        is_owner=is_owner,
        members=list_members(session, search),
        awaited=list_awaited(list_accounts(session), request.app.state.settings),
        invitable=list_invitable(session, search) if is_owner else [],
        name=name,
        wrong=wrong,
    )
