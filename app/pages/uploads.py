"""Uploads from a browser: their page, and the tus protocol (1.0.0, https://tus.io) for the pieces.

Of the protocol: creation, creation-with-upload, and the core's HEAD and PATCH. A request takes no
connection to the database while its bytes arrive: slow lines would use them all up.
"""

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Annotated

from fastapi import APIRouter, Body, Depends, File, Form, Request, Response
from fastapi import UploadFile as SentFile
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from starlette.datastructures import UploadFile
from starlette.requests import ClientDisconnect

from app.access import get_collection
from app.audit import note
from app.database import DbSession
from app.errors import BadInput, LabelsNotUsable, RarefindError, UploadMovedOn
from app.pages.addresses import LARGEST_ID, Id, see_other
from app.pages.collections import render_collection
from app.pages.labelling import take_labels
from app.pages.rendering import render
from app.security import Admin, check_admin, check_signed_in, find_person
from app.tables import Person, Upload
from app.uploads import (
    Place,
    add_file,
    append_to,
    cancel_upload,
    complete,
    describe_upload,
    find_here,
    finish_upload,
    get_place,
    get_upload,
    list_files,
    say_labels,
    start_upload,
)

VERSION = "1.0.0"
PIECE = "application/offset+octet-stream"
PIECE_BYTES = 8_000_000  # of a request: a lost connection costs no more, proxies let it through
WRITE_BYTES = 1_000_000  # gathered in memory, so that not every packet is a write of its own
SILENT_S = 60  # then a connection is lost, and its file free for another
MOST_FILES = 1_000  # of a form without JavaScript

Text = Annotated[str, Form()]

router = APIRouter()


class OtherVersion(RarefindError):
    """A program that speaks another version of the protocol."""

    status = 412
    title = "That version of the protocol is not spoken here"


# --- Pages ----------------------------------------------------------------------------------------


@router.post("/collections/{collection_id}/uploads")
def add_upload(
    request: Request,
    session: DbSession,
    admin: Admin,
    collection_id: Id,
    upload_labels: Text = "",
    labels_upload: Annotated[SentFile | None, File()] = None,
) -> Response:
    """Begin an upload into a collection."""
    collection = get_collection(session, admin, collection_id)
    try:
        labels, labels_file = take_labels(upload_labels, labels_upload)
    except LabelsNotUsable as error:
        wrong = {"labels_upload": str(error)}
        form = {"upload_labels": upload_labels}
        return render_collection(request, session, admin, collection_id, form=form, wrong=wrong)
    note(session, admin, "import", f"Began an upload to “{collection.name}”", collection=collection)
    upload = start_upload(
        session,
        collection,
        admin,
        settings=request.app.state.settings,
        labels=labels,
        labels_file=labels_file,
    )
    return see_other(f"/uploads/{upload.id}")


@router.get("/uploads/{upload_id}")
def upload_page(request: Request, session: DbSession, admin: Admin, upload_id: Id) -> Response:
    """Where files are dropped, and how far they are."""
    return render_upload(request, session, admin, get_upload(session, admin, upload_id))


@router.post("/uploads/{upload_id}/finish")
def finish(
    request: Request, session: DbSession, admin: Admin, upload_id: Id, leave_out: Text = ""
) -> Response:
    """Import what has arrived."""
    upload = get_upload(session, admin, upload_id)
    settings = request.app.state.settings
    try:
        finish_upload(session, upload, admin, settings=settings, leave_out=bool(leave_out))
    except BadInput as error:
        return render_upload(request, session, admin, upload, problem=str(error))
    return see_other(f"/collections/{upload.collection_id}")


@router.post("/uploads/{upload_id}/cancel")
def cancel(request: Request, session: DbSession, admin: Admin, upload_id: Id) -> Response:
    """Forget an upload and what arrived of it."""
    upload = get_upload(session, admin, upload_id)
    cancel_upload(session, upload, settings=request.app.state.settings)
    return see_other(f"/collections/{upload.collection_id}")


@router.get("/uploads/{upload_id}/files")
def files(session: DbSession, admin: Admin, upload_id: Id) -> JSONResponse:
    """What is known of the files, so that a page that was loaded again sends only the rest."""
    upload = get_upload(session, admin, upload_id)
    return JSONResponse(
        [
            {
                "id": file.id,
                "path": file.path,
                "size": file.size_bytes,
                "modified": file.modified_ms,
                "arrived": file.has_arrived,
            }
            for file in list_files(session, upload)
        ]
    )


@router.post("/uploads/{upload_id}/here")
def here(
    session: DbSession, admin: Admin, upload_id: Id, asked: Annotated[list[str], Body()]
) -> JSONResponse:
    """What the collection holds by these paths, to tell other photos of the same names."""
    found = find_here(session, get_upload(session, admin, upload_id), asked)
    return JSONResponse(
        [
            {"path": path, "size": size_bytes, "modified": modified_ms}
            for path, (size_bytes, modified_ms) in found.items()
        ]
    )


@router.post("/uploads/{upload_id}/labels")
def compare(
    session: DbSession, admin: Admin, upload_id: Id, chosen: Annotated[list[str], Body()]
) -> JSONResponse:
    """How the labels file fits the files that were chosen, before any of them is sent."""
    upload = get_upload(session, admin, upload_id)
    return JSONResponse(say_labels(session, upload, chosen))


# --- The protocol ---------------------------------------------------------------------------------


def check_version(request: Request) -> None:
    """Refuse another version of the protocol, as it demands."""
    if request.headers.get("tus-resumable") != VERSION:
        raise OtherVersion(f"Send the header Tus-Resumable: {VERSION}.")


def new_place(request: Request, upload_id: Id) -> Place:
    """A place for the file that the headers announce, in a transaction of its own."""
    state = request.app.state
    with state.database.session() as session:
        person = check_admin(request, check_signed_in(request, find_person(request, session)))
        check_version(request)
        length = read_number(request.headers.get("upload-length", ""))
        if length is None:
            raise BadInput("Send the size of the file as the header Upload-Length.")
        metadata = read_metadata(request.headers.get("upload-metadata", ""))
        return add_file(
            session,
            get_upload(session, person, upload_id),
            path=metadata.get("path", ""),
            size_bytes=length,
            modified_ms=read_number(metadata.get("modified", "")),
            settings=state.settings,
        )


def known_place(request: Request, upload_id: Id, file_id: Id) -> Place:
    """The place of a file that was announced before, in a transaction of its own."""
    state = request.app.state
    with state.database.session() as session:
        person = check_admin(request, check_signed_in(request, find_person(request, session)))
        check_version(request)
        upload = get_upload(session, person, upload_id)
        return get_place(session, upload, file_id, settings=state.settings)


@router.post("/uploads/{upload_id}/files")
async def create(request: Request, upload_id: Id) -> Response:
    """Announce a file, and send its first piece with that, unless it was begun before."""
    async with read_to_the_end(request):
        place = await run_in_threadpool(new_place, request, upload_id)
        offset = place.offset
        if request.headers.get("content-type") == PIECE and offset == 0:
            offset = await receive(request, place, 0)
        elif offset == place.size_bytes:
            await run_in_threadpool(put_away, request, place)
    address = f"/uploads/{upload_id}/files/{place.file_id}"
    return say_offset(offset, status=201, Location=address)


@router.head("/uploads/{upload_id}/files/{file_id}")
async def offset(request: Request, place: Annotated[Place, Depends(known_place)]) -> Response:
    """How much of a file is here."""
    here = place.offset
    if here == place.size_bytes:
        await run_in_threadpool(put_away, request, place)
    headers = {"Upload-Length": str(place.size_bytes), "Cache-Control": "no-store"}
    return say_offset(here, status=200, **headers)


@router.patch("/uploads/{upload_id}/files/{file_id}")
async def append(request: Request, upload_id: Id, file_id: Id) -> Response:
    """Append a piece to a file."""
    async with read_to_the_end(request):
        place = await run_in_threadpool(known_place, request, upload_id, file_id)
        begins_at = read_number(request.headers.get("upload-offset", ""))
        if request.headers.get("content-type") != PIECE or begins_at is None:
            raise BadInput(f"Send a piece as {PIECE}, with the header Upload-Offset.")
        return say_offset(await receive(request, place, begins_at), status=204)


@asynccontextmanager
async def read_to_the_end(request: Request) -> AsyncIterator[None]:
    """When a piece is refused, read the rest of it: else the browser sees a broken connection.

    Then it could not tell a full disk, for which people must act, from a lost network.
    """
    try:
        yield
    except (RarefindError, OSError):  # such as of the disk
        read_bytes = 0
        with suppress(ClientDisconnect, TimeoutError, RuntimeError):  # it has been read before
            async for piece in gather(request):
                read_bytes += len(piece)
                if read_bytes > PIECE_BYTES:
                    break
        raise


async def receive(request: Request, place: Place, begins_at: int) -> int:
    """Write the bytes of a request as they come; how much is here at its end, whatever ends it."""
    with append_to(place, begins_at) as file:
        here = begins_at
        with suppress(ClientDisconnect, TimeoutError):  # what came is kept
            async for piece in gather(request):
                here = await run_in_threadpool(file.write, piece)
    if here == place.size_bytes:
        await run_in_threadpool(put_away, request, place)
    return here


async def gather(request: Request) -> AsyncIterator[bytes]:
    """The body in larger pieces; on a lost connection what had come of it, then the error."""
    gathered = bytearray()
    stream = request.stream()
    try:
        while True:
            async with asyncio.timeout(SILENT_S):
                piece = await anext(stream, None)
            if piece is None:
                break
            gathered += piece
            if len(gathered) >= WRITE_BYTES:
                yield bytes(gathered)
                gathered.clear()
    except (ClientDisconnect, TimeoutError):
        if gathered:
            yield bytes(gathered)
        raise
    if gathered:
        yield bytes(gathered)


def put_away(request: Request, place: Place) -> None:
    """Note that a file has arrived."""
    with request.app.state.database.session() as session:
        complete(session, place, settings=request.app.state.settings)


def say_offset(offset: int, *, status: int, **headers: str) -> Response:
    """An answer of the protocol."""
    told = {"Tus-Resumable": VERSION, "Upload-Offset": str(offset)} | headers
    return Response(status_code=status, headers=told)


def read_metadata(header: str) -> dict[str, str]:
    """`key base64,key base64` as text."""
    pairs = (pair.strip().partition(" ") for pair in header.split(","))
    try:
        return {key: base64.b64decode(value, validate=True).decode() for key, _, value in pairs}
    except ValueError as error:
        raise BadInput("The header Upload-Metadata can't be read.") from error


def read_number(text: str) -> int | None:
    """A number that the database can keep, or None."""
    if not text.isascii() or not text.isdigit() or len(text) > len(str(LARGEST_ID)):
        return None
    number = int(text)
    return number if number <= LARGEST_ID else None


# --- Without JavaScript ---------------------------------------------------------------------------


def find_own_upload(request: Request, upload_id: Id) -> tuple[int, int]:
    """The upload and its person, before a byte of the form is read."""
    with request.app.state.database.session() as session:
        person = check_admin(request, check_signed_in(request, find_person(request, session)))
        return get_upload(session, person, upload_id).id, person.id


@router.post("/uploads/{upload_id}/form")
async def send_form(
    request: Request, own: Annotated[tuple[int, int], Depends(find_own_upload)]
) -> Response:
    """Files of a plain form, all at once, and their import."""
    async with request.form(max_files=MOST_FILES) as form:
        sent = [file for file in form.getlist("files") if isinstance(file, UploadFile)]
        return await run_in_threadpool(keep_form, request, own, sent)


def keep_form(request: Request, own: tuple[int, int], sent: list[UploadFile]) -> Response:
    """Keep the files of a form as if they had come in pieces: what fails undoes no other."""
    state = request.app.state
    upload_id, person_id = own
    problem = None
    try:
        for file in sent:
            if file.filename:  # else no file was chosen
                keep_sent(request, own, file)
    except BadInput as error:
        problem = str(error)
    with state.database.session() as session:
        person = session.get_one(Person, person_id)
        upload = get_upload(session, person, upload_id)
        try:
            if problem is None:
                finish_upload(session, upload, person, settings=state.settings, leave_out=True)
                return see_other(f"/collections/{upload.collection_id}")
        except BadInput as error:
            problem = str(error)
        return render_upload(request, session, person, upload, problem=problem)


def keep_sent(request: Request, own: tuple[int, int], file: UploadFile) -> None:
    """Keep one file of a form: announced, written and noted as arrived, as pieces are."""
    state = request.app.state
    upload_id, person_id = own
    with state.database.session() as session:
        place = add_file(
            session,
            get_upload(session, session.get_one(Person, person_id), upload_id),
            path=file.filename or "",
            size_bytes=file.size or 0,
            modified_ms=None,
            settings=state.settings,
        )
    if not place.is_whole:
        place.part.unlink(missing_ok=True)  # begun in pieces before
        with suppress(UploadMovedOn), append_to(place, 0) as kept:
            while piece := file.file.read(WRITE_BYTES):
                kept.write(piece)
    put_away(request, place)


def render_upload(
    request: Request,
    session: DbSession,
    person: Person,
    upload: Upload,
    *,
    problem: str | None = None,
) -> Response:
    """The page of an upload."""
    settings = request.app.state.settings
    return render(
        request,
        "upload.html",
        status=422 if problem else 200,
        person=person,
        collection=upload.collection,
        state=describe_upload(session, upload, settings=settings),
        upload_days=settings.upload_days,
        piece_bytes=PIECE_BYTES,
        problem=problem,
    )
