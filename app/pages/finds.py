"""What the searches of a collection have found together: a page, and a table to take along."""

import re
from urllib.parse import quote

from fastapi import APIRouter, Request, Response

from app.access import get_collection
from app.audit import note
from app.database import DbSession
from app.deploying import may_see_folders
from app.finds import describe_finds, write_finds
from app.pages.addresses import Id
from app.pages.rendering import render
from app.security import SignedIn
from app.sensitive import read_sight

router = APIRouter(prefix="/collections/{collection_id}/finds")


@router.get("")
def finds_page(
    request: Request, session: DbSession, person: SignedIn, collection_id: Id
) -> Response:
    """What each search found, and the images in which several targets were found."""
    return render(
        request,
        "finds.html",
        person=person,
        collection=get_collection(session, person, collection_id),
        finds=describe_finds(session, person, collection_id),
        with_folders=may_see_folders(session, person, collection_id),
        sight=read_sight(session, person, collection_id),
    )


@router.get("/finds.csv")
def finds_table(session: DbSession, person: SignedIn, collection_id: Id) -> Response:
    """All of it as CSV: a line for each image and each search that found it."""
    collection = get_collection(session, person, collection_id)
    sight = read_sight(session, person, collection_id)
    # All made before the first byte is sent: an error must not cut a table short.
    table = "".join(write_finds(session, person, collection_id, sight=sight))
    note(
        session,
        person,
        "export",
        f"Exported what was found in “{collection.name}”",
        collection=collection,
    )
    plain = re.sub(r"[^\w. -]+", "_", collection.name).strip(" ._") or "collection"
    name = f"filename=\"rarefind-finds-{collection.id}.csv\"; filename*=UTF-8''"
    return Response(
        table,
        media_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f"attachment; {name}{quote(f'{plain}-finds.csv')}"},
    )
