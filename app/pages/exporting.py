"""What leaves a search: the page of its exports, the files, and searches that come from files."""

import re
import tempfile
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, File, Form, Request, Response, UploadFile
from fastapi.responses import FileResponse, StreamingResponse
from sqlalchemy.orm import Session

from app.access import get_collection, get_search, may_answer
from app.audit import note
from app.database import DbSession
from app.deploying import may_folders_be_labels
from app.downloads import MadeExport, ask_for_file, get_file, get_made, list_made
from app.errors import BadInput, EmbedderMismatch
from app.exports.bundles import import_search, repeat_rounds
from app.exports.details import CAPTURES, DESIGNS, LICENCES, read_details, save_details
from app.exports.offers import FORMATS, list_offers, write_file
from app.pages.addresses import LARGEST_ID, Id, see_other
from app.pages.rendering import render, wants_fragment
from app.security import Searcher, SignedIn
from app.sensitive import read_sight
from app.tables import Collection, Person, Search

IN_MEMORY = 5_000_000  # bytes of a file before it goes to the disk
CHUNK = 1 << 16
REPEATED = 10  # rounds that are proposed again after an import, so that it takes seconds

Text = Annotated[str, Form(max_length=1_000)]

router = APIRouter()


@router.get("/searches/{search_id}/exports")
def exports_page(
    request: Request, session: DbSession, person: SignedIn, search_id: Id, after: str = ""
) -> Response:
    """Every format: for whom, what it will hold, and what it still needs.

    A part of the page looks again by itself while a file is being made.
    """
    search = get_search(session, person, search_id)
    if wants_fragment(request):
        made = list_made_now(request, session, person, search)
        return render(request, "_made_exports.html", person=person, search=search, made=made)
    given = vars(read_details(search))
    return render_exports(request, session, search, person, given, saved=after == "saved")


@router.post("/searches/{search_id}/exports")
def save_export_details(
    request: Request,
    session: DbSession,
    person: SignedIn,
    search_id: Id,
    scientific_name: Text = "",
    rights_holder: Text = "",
    licence: Text = "",
    utc_offset: Text = "",
    capture: Text = "",
    design: Text = "",
) -> Response:
    """Keep what only people know and exports need."""
    search = get_search(session, person, search_id)
    given = {
        "scientific_name": scientific_name,
        "rights_holder": rights_holder,
        "licence": licence,
        "utc_offset": utc_offset,
        "capture": capture,
        "design": design,
    }
    try:
        save_details(session, search, given)
    except BadInput as error:
        return render_exports(request, session, search, person, given, problem=str(error))
    return see_other(f"/searches/{search_id}/exports?after=saved")


@router.post("/exports")
def ask(
    session: DbSession,
    person: SignedIn,
    search_id: Annotated[int, Form(ge=1, le=LARGEST_ID)],
    name: Annotated[str, Form(max_length=40)],
) -> Response:
    """Have a file made that takes long; whoever sees the search may, as for any export."""
    search = get_search(session, person, search_id)
    export = ask_for_file(session, person, search, name)
    return see_other(f"/searches/{search_id}/exports#export-{export.id}")


@router.get("/exports/{export_id}/file")
def download(request: Request, session: DbSession, person: SignedIn, export_id: Id) -> FileResponse:
    """A file that was made; parts of it are given too, so that a download can go on."""
    settings = request.app.state.settings
    made = get_made(session, person, export_id, settings=settings, now=datetime.now(UTC))
    name = made.export.name
    return FileResponse(
        get_file(made, settings),
        media_type=FORMATS[name].media_type,
        # Parts are parts of the file as it is: it is not made smaller on its way.
        headers=name_file(made.export.search, name)
        | {"Content-Encoding": "identity", "Cache-Control": "private, no-cache"},
    )


@router.get("/searches/{search_id}/exports/{name}")
def export_file(
    request: Request, session: DbSession, person: SignedIn, search_id: Id, name: str
) -> Response:
    """One export as a file, made while it is asked for; the page has those made that take long."""
    search = get_search(session, person, search_id)
    state = request.app.state
    content = write_file(
        session,
        search,
        name,
        indexes=state.indexes,
        settings=state.settings,
        now=datetime.now(UTC),
        person=person,
        readers=state.readers,
    )
    note(session, person, "export", f"Exported “{search.target_name}” as {name}", search=search)
    if name != "pictures.zip":  # which reads originals and no database, for as long as it takes
        content = gather(content)
    kind = FORMATS[name]
    # A zip is not made smaller once more on its way.
    as_it_is = {"Content-Encoding": "identity"} if kind.media_type == "application/zip" else {}
    headers = name_file(search, name) | as_it_is
    return StreamingResponse(content, media_type=kind.media_type, headers=headers)


@router.get("/collections/{collection_id}/searches/import")
def import_page(
    request: Request, session: DbSession, person: Searcher, collection_id: Id
) -> Response:
    """Bring a search from another machine."""
    return render_import(request, person, get_collection(session, person, collection_id))


@router.post("/collections/{collection_id}/searches/import")
def import_file(
    request: Request,
    session: DbSession,
    person: Searcher,
    collection_id: Id,
    file: Annotated[UploadFile | None, File()] = None,
) -> Response:
    """Make a search of an uploaded file, and lead to its history."""
    collection = get_collection(session, person, collection_id)
    state = request.app.state
    try:
        if file is None or not file.filename:
            raise BadInput("Choose a file first.")
        with session.begin_nested():  # all of it or nothing
            search = import_search(
                session,
                person,
                collection,
                file.file.read(),
                indexes=state.indexes,
                settings=state.settings,
                now=datetime.now(UTC),
                readers=state.readers,
            )
    except (BadInput, EmbedderMismatch) as error:
        return render_import(request, person, collection, problem=str(error))
    note(session, person, "import", f"Imported the search “{search.target_name}”", search=search)
    repeated = repeat_rounds(session, search, state.indexes, at_most=REPEATED)
    after = "imported" if repeated.same == repeated.tried else "imported-unlike"
    return see_other(f"/searches/{search.id}/history?after={after}")


def name_file(search: Search, name: str) -> dict[str, str]:
    """The header by which a browser saves a file under the target's name."""
    target = re.sub(r"[^\w. -]+", "_", search.target_name).strip(" ._") or "search"
    return {
        "Content-Disposition": f'attachment; filename="rarefind-{search.id}-{name}"; '
        f"filename*=UTF-8''{quote(f'{target}-{name}')}"
    }


def list_made_now(
    request: Request, session: Session, person: Person, search: Search
) -> list[MadeExport]:
    """What the person had made of a search and can still have."""
    settings = request.app.state.settings
    return list_made(session, person, search, settings=settings, now=datetime.now(UTC))


def gather(content: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes, all made before the first is sent: an error must not cut a file short."""
    # Closed by whoever reads it to its end; the disk forgets it if nobody does.
    kept = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115
    for some in content:
        kept.write(some)
    kept.seek(0)

    def read() -> Iterator[bytes]:
        with kept:
            while some := kept.read(CHUNK):
                yield some

    return read()


def render_exports(
    request: Request,
    session: Session,
    search: Search,
    person: Person,
    given: dict[str, str],
    *,
    saved: bool = False,
    problem: str | None = None,
) -> Response:
    """The page, with the form as it was typed."""
    return render(
        request,
        "exports.html",
        status=422 if problem else 200,
        person=person,
        search=search,
        offers=list_offers(session, search),
        made=list_made_now(request, session, person, search),
        sight=read_sight(session, person, search.collection_id),
        with_folders=not may_folders_be_labels(session, search.collection_id),
        given=given,
        licences=LICENCES,
        captures=CAPTURES,
        designs=DESIGNS,
        saved=saved,
        problem=problem,
        may_answer=may_answer(session, person, search),
    )


def render_import(
    request: Request, person: Person, collection: Collection, *, problem: str | None = None
) -> Response:
    """The page, with what was wrong with a file."""
    return render(
        request,
        "search_import.html",
        status=422 if problem else 200,
        person=person,
        collection=collection,
        problem=problem,
    )
