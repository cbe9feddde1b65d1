"""Tags and notes on images and on searches, as pages show and change them."""

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import JSONResponse
from pydantic import Field
from sqlalchemy.orm import Session

from app.access import get_collection, get_search
from app.browsing import get_image
from app.database import DbSession
from app.errors import BadInput
from app.pages.addresses import LARGEST_ID, Id, local_path, see_other
from app.pages.rendering import render, wants_fragment
from app.remarks import (
    MAX_NOTE_LENGTH,
    MAX_TAG_LENGTH,
    About,
    add_tags,
    change_note,
    list_image_tags,
    list_search_tags,
    may_remove,
    put_note_back,
    read_remarks,
    remove_note,
    tag_images,
    take_tag_off,
    write_note,
)
from app.security import SignedIn
from app.tables import Collection, Image, Person

OFTEN_USED = 6  # tags that are one click away

Text = Annotated[str, Form(max_length=100_000)]
NoteId = Annotated[int | None, Form(ge=1, le=LARGEST_ID)]
ImageIds = Annotated[list[Annotated[int, Field(ge=1, le=LARGEST_ID)]], Form()]

router = APIRouter()


@router.post("/collections/{collection_id}/images/{image_id}/remarks")
def change_image(
    request: Request,
    session: DbSession,
    person: SignedIn,
    collection_id: Id,
    image_id: Id,
    tag: Text = "",
    off: Text = "",
    text: Text = "",
    note_id: NoteId = None,
    remove: NoteId = None,
    back: NoteId = None,
    return_to: Text = "/",
) -> Response:
    """Tag an image or write on it; answers with what stands on it now."""
    get_collection(session, person, collection_id)
    image = get_image(session, image_id, collection_id=collection_id)
    given = Given(tag, off, text, note_id, remove, back)
    return change(request, session, person, image, given, return_to)


@router.post("/searches/{search_id}/remarks")
def change_search(
    request: Request,
    session: DbSession,
    person: SignedIn,
    search_id: Id,
    tag: Text = "",
    off: Text = "",
    text: Text = "",
    note_id: NoteId = None,
    remove: NoteId = None,
    back: NoteId = None,
    return_to: Text = "/",
) -> Response:
    """Tag a search or write on it; answers with what stands on it now."""
    search = get_search(session, person, search_id)
    given = Given(tag, off, text, note_id, remove, back)
    return change(request, session, person, search, given, return_to)


@router.post("/collections/{collection_id}/tags")
def tag_many(
    request: Request,
    session: DbSession,
    person: SignedIn,
    collection_id: Id,
    picked: ImageIds = [],  # noqa: B006 - FastAPI copies it
    tag: Text = "",
    put: Annotated[str, Form(pattern="^(on|off)$")] = "on",
    return_to: Text = "/",
) -> Response:
    """Put tags on selected images of a collection, or take them off."""
    collection = get_collection(session, person, collection_id)
    changed = tag_images(session, person, collection, picked, tag, is_on=put == "on")
    accept = request.headers.get("accept", "")
    if "application/json" in accept and "text/html" not in accept:
        return JSONResponse({"changed": changed})
    return see_other(local_path(return_to))


@dataclass(frozen=True)
class Given:
    """What a form asks for: one thing at a time."""

    tag: str
    off: str
    text: str
    note_id: int | None
    remove: int | None
    back: int | None

    def do(self, session: Session, person: Person, about: About) -> None:
        """Do it."""
        if self.off:
            take_tag_off(session, person, about, self.off)
        elif self.remove is not None:
            remove_note(session, person, about, self.remove)
        elif self.back is not None:
            put_note_back(session, person, about, self.back)
        elif self.note_id is not None:
            change_note(session, person, about, self.note_id, self.text)
        elif self.text:
            write_note(session, person, about, self.text)
        else:
            add_tags(session, person, about, self.tag)


def change(
    request: Request,
    session: Session,
    person: Person,
    about: About,
    given: Given,
    return_to: str,
) -> Response:
    """Do what was asked for; a fragment says what is wrong beside what was typed."""
    if not wants_fragment(request):
        given.do(session, person, about)
        return see_other(local_path(return_to))
    problem = None
    try:
        given.do(session, person, about)
    except BadInput as error:
        problem = str(error)
    context = describe_remarks(
        session,
        person,
        about,
        may_write=True,
        return_to=return_to,
        given=given,
        problem=problem,
    )
    return render(request, "_remarks.html", person=person, **context)


def describe_remarks(
    session: Session,
    person: Person,
    about: About,
    *,
    may_write: bool,
    return_to: str,
    given: Given | None = None,
    problem: str | None = None,
) -> dict[str, Any]:
    """What the template of tags and notes needs."""
    remarks = read_remarks(session, about)
    collection = session.get_one(Collection, about.collection_id)
    if isinstance(about, Image):
        key, action = f"image-{about.id}", f"/collections/{collection.id}/images/{about.id}/remarks"
        in_use = list_image_tags(session, collection.id) if may_write else []
    else:
        key, action = f"search-{about.id}", f"/searches/{about.id}/remarks"
        in_use = list_search_tags(session, person) if may_write else []
    return {
        "remarks": remarks,
        "remarks_of": {
            "key": key,
            "action": action,
            "collection_id": collection.id if isinstance(about, Image) else None,
            "may_write": may_write,
            "return_to": return_to,
            "tags_in_use": [tag for tag, _ in in_use],
            "offered": [tag for tag, _ in in_use if tag not in remarks.tags][:OFTEN_USED],
            "removable": {
                note.note_id
                for note in remarks.notes
                if may_write and may_remove(person, about, note, collection)
            },
            "taken_off": given.off if given and not problem else "",
            "removed": given.remove if given and not problem else None,
            "problem": problem,
            "typed": given if problem else None,
            "max_tag_length": MAX_TAG_LENGTH,
            "max_note_length": MAX_NOTE_LENGTH,
        },
    }
