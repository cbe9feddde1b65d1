"""Putting away, deleting, and the bin."""

from datetime import UTC, datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Form, Request, Response

from app.access import get_collection, get_own_search, may_open
from app.database import DbSession
from app.deleting import (
    KEPT_FOR,
    delete_collection,
    delete_search,
    describe_collection_contents,
    describe_search_contents,
    list_bin,
    put_collection_away,
    put_search_away,
    restore,
)
from app.errors import NotAllowed
from app.pages.addresses import Id, see_other
from app.pages.rendering import render
from app.security import Searcher, SignedIn

Text = Annotated[str, Form(max_length=1_000)]

router = APIRouter()


@router.get("/collections/{collection_id}/delete")
def ask_collection(
    request: Request, session: DbSession, person: SignedIn, collection_id: Id
) -> Response:
    """What deleting a collection means, before it is done."""
    collection = get_collection(session, person, collection_id)
    if not may_open(person, collection):
        raise NotAllowed("Only an admin, or who added a collection, can delete it.")
    settings = request.app.state.settings
    return render(
        request,
        "delete.html",
        person=person,
        collection=collection,
        search=None,
        contents=describe_collection_contents(session, collection, settings),
        days=KEPT_FOR.days,
    )


@router.post("/collections/{collection_id}/delete")
def remove_collection(session: DbSession, person: SignedIn, collection_id: Id) -> Response:
    """Move a collection to the bin."""
    collection = get_collection(session, person, collection_id)
    delete_collection(session, person, collection, now=datetime.now(UTC))
    return see_other("/bin")


@router.post("/collections/{collection_id}/archive")
def archive_collection(
    session: DbSession, person: SignedIn, collection_id: Id, away: Text = ""
) -> Response:
    """Put a collection away, or take it out again."""
    collection = get_collection(session, person, collection_id)
    put_collection_away(session, person, collection, is_away=away == "yes")
    return see_other(f"/collections/{collection_id}")


@router.get("/searches/{search_id}/delete")
def ask_search(request: Request, session: DbSession, person: SignedIn, search_id: Id) -> Response:
    """What deleting a search means, before it is done."""
    search = get_own_search(session, person, search_id)
    return render(
        request,
        "delete.html",
        person=person,
        collection=search.collection,
        search=search,
        contents=describe_search_contents(session, search),
        days=KEPT_FOR.days,
    )


@router.post("/searches/{search_id}/delete")
def remove_search(session: DbSession, person: SignedIn, search_id: Id) -> Response:
    """Move a search to the bin."""
    search = get_own_search(session, person, search_id)
    delete_search(session, person, search, now=datetime.now(UTC))
    return see_other("/bin")


@router.post("/searches/{search_id}/archive")
def archive_search(
    session: DbSession, person: SignedIn, search_id: Id, away: Text = ""
) -> Response:
    """Put a search away, or take it out again."""
    search = get_own_search(session, person, search_id)
    put_search_away(session, person, search, is_away=away == "yes")
    return see_other(f"/searches/{search_id}/settings")


@router.get("/bin")
def bin_page(request: Request, session: DbSession, person: SignedIn) -> Response:
    """What was deleted and can be put back."""
    items = list_bin(session, person)
    return render(request, "bin.html", person=person, items=items, days=KEPT_FOR.days)


@router.post("/bin/{kind}/{thing_id}/restore")
def put_back(
    session: DbSession, person: Searcher, kind: Literal["collection", "search"], thing_id: Id
) -> Response:
    """Put something back where it was."""
    restore(session, person, kind, thing_id, now=datetime.now(UTC))
    where = "collections" if kind == "collection" else "searches"
    return see_other(f"/{where}/{thing_id}")
