"""Who sees the exact places of a collection and its images of people, and these images."""

from typing import Annotated

from fastapi import APIRouter, Form, Request, Response
from pydantic import Field

from app.access import get_collection, get_search, is_trusted, may_open
from app.accounts import list_accounts
from app.browsing import IMAGES_PER_PAGE
from app.database import DbSession
from app.deploying import may_see_folders
from app.errors import BadInput, NotAllowed, NotFound
from app.events import list_events_of
from app.jobs import add_job
from app.metadata import list_columns
from app.pages.addresses import LARGEST_ID, Id, PageNumber, local_path, see_other
from app.pages.rendering import render
from app.security import SignedIn
from app.sensitive import (
    GRIDS,
    guard_places,
    hide_people,
    is_rounded,
    list_hidden_with,
    list_people_images,
    list_trusted,
    may_hold_places,
    show_people,
)
from app.tables import Round

Text = Annotated[str, Form(max_length=1_000)]
Ids = Annotated[list[Annotated[int, Field(ge=1, le=LARGEST_ID)]], Form()]
ImageIds = Annotated[
    list[Annotated[int, Field(ge=1, le=LARGEST_ID)]], Form(max_length=IMAGES_PER_PAGE)
]
RoundId = Annotated[int | None, Form(ge=1, le=LARGEST_ID)]

router = APIRouter(prefix="/collections/{collection_id}")


@router.get("/guard")
def guard_page(
    request: Request, session: DbSession, person: SignedIn, collection_id: Id
) -> Response:
    """How far places are rounded, and who is trusted."""
    collection = get_collection(session, person, collection_id)
    if not may_open(person, collection):
        raise NotAllowed("Only an admin, or who added a collection, decides who sees its places.")
    columns = list_columns(session, collection_id)
    return render(
        request,
        "collection_guard.html",
        person=person,
        collection=collection,
        grids=GRIDS,
        guarded=[(one.name, is_rounded(one)) for one in columns if one.holds_place],
        doubtful=[one.name for one in columns if not one.holds_place and may_hold_places(one.name)],
        trusted={one.id for one in list_trusted(session, collection)},
        people=[one.person for one in list_accounts(session) if not one.person.closed_at],
    )


@router.post("/guard")
def save_guard(
    session: DbSession,
    person: SignedIn,
    collection_id: Id,
    grid: Text = "",
    people: Ids = [],  # noqa: B006 - FastAPI copies it
) -> Response:
    """Choose how far places are rounded, and who is trusted."""
    collection = get_collection(session, person, collection_id)
    guard_places(session, person, collection, grid=grid, people=people)
    return see_other(f"/collections/{collection_id}")


@router.get("/people")
def people_images(
    request: Request, session: DbSession, person: SignedIn, collection_id: Id, page: PageNumber = 1
) -> Response:
    """The images that are hidden because they show people, for trusted people who ask."""
    collection = get_collection(session, person, collection_id)
    if not is_trusted(session, person, collection):
        raise NotAllowed(
            "Images that show people are for people who are trusted with them. Ask an admin if "
            "you need to see them."
        )
    return render(
        request,
        "people_images.html",
        person=person,
        collection=collection,
        listing=list_people_images(session, collection_id, page=page),
        with_folders=may_see_folders(session, person, collection_id),
    )


@router.post("/people")
def hide(
    session: DbSession,
    person: SignedIn,
    collection_id: Id,
    image_ids: ImageIds = [],  # noqa: B006
    back: Text = "",
    round_id: RoundId = None,
) -> Response:
    """Hide images that show people from all who are not trusted with them.

    With the round that showed them, whose cards stand for events, all images of these.
    """
    get_collection(session, person, collection_id)
    if not image_ids:
        raise BadInput("No image was chosen. Go back and choose one.")
    hidden_ids = list(image_ids)
    if round_id is not None:
        made = session.get(Round, round_id)
        if made is None or (
            get_search(session, person, made.search_id).collection_id != collection_id
        ):
            raise NotFound("There is no such round in this collection. Reload the page.")
        events = list_events_of(session, made, image_ids)
        hidden_ids += [one for own in events.values() for one in own]
    hide_people(session, collection_id, hidden_ids, person=person)
    back = local_path(back or f"/collections/{collection_id}/browse")
    return see_other(f"{back}{'&' if '?' in back else '?'}hidden={image_ids[0]}")


@router.post("/people/back")
def put_back(
    session: DbSession,
    person: SignedIn,
    collection_id: Id,
    image_ids: ImageIds = [],  # noqa: B006
    back: Text = "",
    with_others: Annotated[bool, Form()] = False,
) -> Response:
    """Images show nobody after all: everybody sees them again.

    `with_others`: and so do those that the person hid at once with them.
    """
    get_collection(session, person, collection_id)
    if with_others:
        hidden = (list_hidden_with(session, person, image_id) for image_id in image_ids)
        image_ids = [one for together in hidden for one in together]
    if show_people(session, collection_id, image_ids, person=person):
        add_job(session, "update", collection_id=collection_id, person=person)
    return see_other(local_path(back or f"/collections/{collection_id}/people"))
