"""The indexes of a collection side by side: how each stands, one more of them, two as one."""

from typing import Annotated, Any

from fastapi import APIRouter, Form, Request, Response
from sqlalchemy.orm import Session

from app.access import get_collection
from app.database import DbSession
from app.indexes import (
    list_box_embedders,
    list_builds,
    list_indexes,
    list_more_embedders,
)
from app.indexing import check_embedder
from app.jobs import add_job, list_asked
from app.pages.addresses import Id, see_other
from app.pages.rendering import render, wants_fragment
from app.searchers import check_listed, list_places
from app.security import Admin, SignedIn
from app.settings import Settings
from app.tables import Collection

Text = Annotated[str, Form()]

router = APIRouter(prefix="/collections/{collection_id}/indexes")


@router.get("")
def show_indexes(
    request: Request, session: DbSession, person: SignedIn, collection_id: Id
) -> Response:
    """How the indexes stand: the part of the collection's page that looks again by itself."""
    collection = get_collection(session, person, collection_id)
    if not wants_fragment(request):
        return see_other(f"/collections/{collection_id}#indexes")
    context = describe_indexes(session, collection, request.app.state.settings)
    return render(request, "_indexes.html", person=person, collection=collection, **context)


@router.post("")
def add_index(
    request: Request,
    session: DbSession,
    admin: Admin,
    collection_id: Id,
    embedder: Text = "",
    vectors: Text = "",
) -> Response:
    """Prepare the collection with one more embedder, in the background, or try again."""
    collection = get_collection(session, admin, collection_id)
    if embedder not in {build.embedder for build in list_builds(session, collection_id)}:
        check_embedder(embedder)
    if vectors not in ("", collection.vectors):
        collection.vectors = check_listed(session, vectors, request.app.state.settings)
    add_job(session, "index", collection_id=collection_id, person=admin, embedder=embedder)
    return see_other(f"/collections/{collection_id}#indexes")


@router.post("/combined")
def add_combined(
    session: DbSession,
    admin: Admin,
    collection_id: Id,
    first: Text = "",
    second: Text = "",
) -> Response:
    """Make one index of two, in the background."""
    get_collection(session, admin, collection_id)
    add_job(
        session, "combine", collection_id=collection_id, person=admin, first=first, second=second
    )
    return see_other(f"/collections/{collection_id}#indexes")


def describe_indexes(
    session: Session, collection: Collection, settings: Settings
) -> dict[str, Any]:
    """What the section about indexes needs, on whatever page it stands."""
    indexes, builds = list_indexes(session, collection.id), list_builds(session, collection.id)
    told = {one.embedder for one in indexes} | {build.embedder for build in builds}
    asked = [one for one in list_asked(session, collection.id) if one.embedder not in told]
    begun = {build.embedder for build in builds if build.state == "building"}
    return {
        "indexes": indexes,
        "builds": builds,
        "asked": asked,
        "more_embedders": [
            choice
            for choice in list_more_embedders(session, collection.id, settings)
            if choice.name not in begun
        ],
        "places": list_places(session),
        "box_embedders": list_box_embedders(session, collection.id, settings),
        "is_building": bool(begun) or any(one.problem is None for one in asked),
    }
