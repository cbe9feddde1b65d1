"""Removing images from a collection: what it means, the doing, and putting them back."""

from typing import Annotated

from fastapi import APIRouter, Form, Request, Response
from pydantic import Field
from sqlalchemy.orm import Session

from app.access import get_collection
from app.browsing import IMAGES_PER_PAGE
from app.database import DbSession
from app.deploying import may_see_folders
from app.errors import BadInput
from app.jobs import add_job
from app.pages.addresses import LARGEST_ID, Id, PageNumber, see_other
from app.pages.rendering import render
from app.removing import describe_removal, list_removed, put_back_images, remove_images
from app.security import Admin, SignedIn
from app.tables import Person

ImageIds = Annotated[
    list[Annotated[int, Field(ge=1, le=LARGEST_ID)]], Form(max_length=IMAGES_PER_PAGE)
]

router = APIRouter(prefix="/collections/{collection_id}")


@router.post("/removal")
def ask_before_removing(
    request: Request,
    session: DbSession,
    admin: Admin,
    collection_id: Id,
    image_ids: ImageIds = [],  # noqa: B006 - FastAPI copies it
) -> Response:
    """What removing the chosen images will mean; nothing is changed yet."""
    collection = get_collection(session, admin, collection_id)
    removal = describe_removal(session, collection_id, image_ids)
    if not removal.images:
        raise BadInput("No image was chosen. Go back, tick those to remove, and try again.")
    return render(
        request,
        "removal.html",
        person=admin,
        collection=collection,
        removal=removal,
        with_folders=may_see_folders(session, admin, collection_id),
    )


@router.get("/removed")
def removed(
    request: Request, session: DbSession, person: SignedIn, collection_id: Id, page: PageNumber = 1
) -> Response:
    """The removed images, to be put back."""
    collection = get_collection(session, person, collection_id)
    listing = list_removed(session, collection_id, page=page)
    return render(
        request,
        "removed.html",
        person=person,
        collection=collection,
        listing=listing,
        with_folders=may_see_folders(session, person, collection_id),
    )


@router.post("/removed")
def remove(
    session: DbSession,
    admin: Admin,
    collection_id: Id,
    image_ids: ImageIds = [],  # noqa: B006
) -> Response:
    """Remove images; indexes are made without them in the background."""
    get_collection(session, admin, collection_id)
    remove_images(session, collection_id, image_ids, person=admin)
    return _update_indexes(session, admin, collection_id)


@router.post("/removed/back")
def put_back(
    session: DbSession,
    admin: Admin,
    collection_id: Id,
    image_ids: ImageIds = [],  # noqa: B006
) -> Response:
    """Put removed images back; indexes are made with them in the background."""
    get_collection(session, admin, collection_id)
    put_back_images(session, collection_id, image_ids, person=admin)
    return _update_indexes(session, admin, collection_id)


def _update_indexes(session: Session, admin: Person, collection_id: int) -> Response:
    add_job(session, "update", collection_id=collection_id, person=admin)
    return see_other(f"/collections/{collection_id}/removed")
