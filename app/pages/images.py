"""The pictures themselves: two thumbnails and the original of an image, thumbnails of a photo."""

from enum import Enum
from pathlib import PurePosixPath
from urllib.parse import quote

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse
from sqlalchemy.orm import Session

from app.access import QuickRoute, get_photo, in_one_thread
from app.browsing import get_image
from app.database import DbSession
from app.errors import NotFound
from app.exports.stripping import NotCopied, copy_without_metadata
from app.importing import get_thumbnail
from app.pages.addresses import Id
from app.pages.rendering import file_name
from app.security import SignedIn
from app.sensitive import read_sight
from app.settings import Settings
from app.store import find_original
from app.tables import Image, Person
from app.workers import Readers

# A thumbnail never changes: another picture has another number.
FOREVER = {"Cache-Control": "private, max-age=31536000, immutable"}
# The file on disk may change or go.
ASK_AGAIN = {"Cache-Control": "private, no-cache"}


class Size(Enum):
    """Thumbnails by the name they have in addresses."""

    SMALL = "small"
    LARGE = "large"


SIDES = {Size.SMALL: 320, Size.LARGE: 1280}  # pixels of the long side
SIDES_BY_NAME = {size.value: side for size, side in SIDES.items()}

router = APIRouter()


@router.get("/images/{image_id}/original")
def original(request: Request, session: DbSession, person: SignedIn, image_id: Id) -> Response:
    """The file as it was imported; without what cameras wrote into it for who sees no places."""
    image = get_image(session, image_id)
    settings: Settings = request.app.state.settings
    file = find_original(image.file, settings)
    if not file.is_file():
        # Where files lie on the server is an admin's business.
        what_to_do = "Ask an admin to put it back"
        if person.role == "admin":
            what_to_do = f"It was {image.file}: put it back there"
        raise NotFound(
            f"The original of {file_name(image.path)} is not in its place any more. {what_to_do}; "
            "its thumbnails still show."
        )
    if read_sight(session, person, image.collection_id).grid is not None:
        return send_copy(image, settings, request.app.state.readers)
    return FileResponse(
        file,
        media_type=f"image/{image.format.lower()}",
        filename=file_name(image.path),
        content_disposition_type="inline",
        headers=ASK_AGAIN,
    )


def send_copy(image: Image, settings: Settings, readers: Readers) -> Response:
    """The picture of a file alone: the place, too, is among what cameras write into it."""
    try:
        copied = copy_without_metadata(
            find_original(image.file, settings),
            orientation=image.orientation,
            max_megapixels=settings.max_megapixels,
            readers=readers,
        )
    except NotCopied as problem:
        raise NotFound(
            f"{file_name(image.path)} can't be shown in full: {problem}. You are not shown where "
            "images were taken, so the file itself is not sent. Its thumbnails still show."
        ) from problem
    is_jpeg = image.format == "JPEG"
    name = file_name(image.path)
    if not is_jpeg:
        name = f"{PurePosixPath(name).stem}.png"
    return Response(
        copied,
        media_type="image/jpeg" if is_jpeg else "image/png",
        headers=ASK_AGAIN | {"Content-Disposition": f"inline; filename*=UTF-8''{quote(name)}"},
    )


async def image_thumbnail(request: Request) -> Response:
    """An image, small (in a grid) or large (on its own)."""
    state = request.app.state
    image_id, size = request.path_params["image_id"], request.path_params["size"]

    def send(session: Session, _person: Person) -> Response:
        # Read only now: what can't be read is told to nobody who is not signed in.
        if size not in SIDES_BY_NAME:
            raise NotFound("There is nothing at this address.")
        image = get_image(session, int(image_id))
        side = SIDES_BY_NAME[size]
        path = get_thumbnail(image, side, settings=state.settings, readers=state.readers)
        return Response(path.read_bytes(), media_type="image/jpeg", headers=FOREVER)

    return await in_one_thread(request, send)


quick_routes = [QuickRoute("GET", "/images/{image_id}/{size}", image_thumbnail)]


@router.get("/photos/{photo_id}/{size}")
def photo_thumbnail(
    request: Request, session: DbSession, person: SignedIn, photo_id: Id, size: Size
) -> Response:
    """An example photo, for the person who added it."""
    photo = get_photo(session, person, photo_id)
    path = get_thumbnail(
        photo, SIDES[size], settings=request.app.state.settings, readers=request.app.state.readers
    )
    return Response(path.read_bytes(), media_type="image/jpeg", headers=FOREVER)
