"""The web application: `create_app(settings)` puts rooms, error pages and headers together."""

import gc
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from importlib.metadata import version
from typing import Any
from urllib.parse import unquote

import psycopg
from anyio import to_thread
from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles
from sqlalchemy.exc import DataError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.access import stand_before
from app.admitting import RETRY_S, Admitting
from app.api import health
from app.api import searches as api_searches
from app.chores import CHORES
from app.collecting import ImageCounts
from app.database import PROJECT, check_connections, count_places, open_database
from app.disk import explain_disk
from app.errors import (
    BadInput,
    DatabaseNotUsable,
    DiskFull,
    NotDoneHere,
    NotFound,
    RarefindError,
    RequestTooLarge,
    ServerBusy,
    TookTooLong,
)
from app.events import OpenEvents
from app.hosts import refuse_unknown_host
from app.indexing import LoadedEmbedders, OpenIndexes
from app.jobs import Worker
from app.limiting import Limits
from app.overview import FolderSizes
from app.pages import (
    account,
    bin,
    browse,
    collections,
    dashboard,
    deployments,
    events,
    exporting,
    filters,
    finds,
    guarding,
    help,
    home,
    images,
    indexes,
    labelling,
    metadata,
    overview,
    people,
    remarks,
    removing,
    replays,
    reviewing,
    searches,
    sharing,
    sign_in,
    uploads,
    work,
)
from app.pages.addresses import local_path, see_other
from app.pages.rendering import make_templates, render_error
from app.security import find_person, refuse_cross_site
from app.settings import Settings
from app.watching import Metrics, Readiness, Watching
from app.workers import Readers

logger = logging.getLogger(__name__)

# A form is read before it is known who sent it, so there must be an end to it for everybody.
PHOTOS_AT_ONCE = 10  # of the largest size

UNREADABLE = "What was sent can't be read. Reload the page and send it once more."

# What a field should have been, by how pydantic's names for what is wrong begin.
WANTED = {
    "int": "a whole number",
    "float": "a number",
    "bool": "yes or no",
    "greater_than_equal": "at least {ge}",
    "greater_than": "more than {gt}",
    "less_than_equal": "at most {le}",
    "less_than": "less than {lt}",
    "string_too_long": "at most {max_length} characters long",
    "missing": "there",
}

# No inline script or style anywhere, so text that people type can never become either.
SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; "
    "base-uri 'none'; frame-ancestors 'none'; form-action 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "X-Frame-Options": "DENY",  # for browsers that do not know frame-ancestors
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",  # no other site shows our images
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=(), "
    "serial=(), midi=(), display-capture=()",
}
RAW_HEADERS = [(name.lower().encode(), value.encode()) for name, value in SECURITY_HEADERS.items()]


def create_app(settings: Settings) -> FastAPI:
    """The application; its database, indexes and worker live as long as it runs."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        try:
            app.state.database = open_database(settings)
            check_connections(app.state.database, settings)
        except (RarefindError, OSError) as problem:
            app.state.problem = problem
            raise
        # A thread for each request that is worked on, and some for what ends.
        to_thread.current_default_thread_limiter().total_tokens = count_places(settings) + 8
        app.state.indexes = OpenIndexes(settings)
        app.state.events = OpenEvents()
        app.state.database.lend(open_events=app.state.events, image_counts=ImageCounts())
        app.state.metrics.watch(app.state.database)
        app.state.readiness = Readiness(settings, app.state.database)
        app.state.readers = Readers(settings)
        app.state.embedders = LoadedEmbedders(settings, app.state.readers)
        app.state.folder_sizes = FolderSizes(settings.home)
        worker = Worker(app.state.database, settings, CHORES) if settings.run_jobs else None
        if worker is not None:
            worker.start()
        # Models and tables stay for good: looking through them for garbage would hold up a round
        # by a tenth of a second now and then.
        gc.collect()
        gc.freeze()
        yield
        if worker is not None:
            worker.close(wait_s=settings.stop_s / 2)
        for held in (app.state.readers, app.state.indexes, app.state.database):
            held.close()

    app = FastAPI(
        title="Rarefind",
        version=version("rarefind"),
        lifespan=lifespan,
        redirect_slashes=False,  # it would lead to whatever host a request names
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/v1/openapi.json",
    )
    app.state.settings = settings
    app.state.problem = None  # why it can't start
    app.state.metrics = Metrics()
    app.state.limits = Limits(settings)
    app.state.templates = make_templates(PROJECT)
    app.mount("/static", StaticFiles(directory=PROJECT / "static"), name="static")
    rooms = (
        *(home, help, sign_in, account, people, sharing, bin, collections, indexes, removing),
        *(replays, metadata, labelling, filters, finds, deployments, remarks, guarding, events),
        *(browse, searches, reviewing, dashboard, exporting, overview, work),
    )
    seen = [Depends(stand_before)]
    # What is asked most comes first: a route is looked for in this order. It checks by itself who
    # may see it, as uploads do, so that no database connection is held while bytes arrive.
    app.router.routes += searches.quick_routes
    app.include_router(images.router, include_in_schema=False, dependencies=seen)
    app.router.routes += images.quick_routes
    for room in rooms:
        app.include_router(room.router, include_in_schema=False, dependencies=seen)
    app.include_router(health.router)  # no database is asked for it
    for by_itself in (uploads.router, health.metrics_router):
        app.include_router(by_itself, include_in_schema=False)
    app.include_router(api_searches.router, dependencies=seen)
    app.add_middleware(Admitting, places=count_places(settings), most_waiting=settings.most_waiting)
    app.add_middleware(Guarding)
    app.add_middleware(GZipMiddleware, minimum_size=1_000, compresslevel=5)
    app.add_middleware(Watching, metrics=app.state.metrics)
    add_error_pages(app)
    return app


class Guarding:
    """Refuses what other sites send and what has no end; puts the headers on every answer.

    It also answers what nobody foresaw: a handler's answer would have no headers.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        has_begun = False

        async def send_on(message: Message) -> None:
            nonlocal has_begun
            if message["type"] == "http.response.start":
                has_begun = True
                message["headers"] = add_headers(scope, list(message.get("headers", ())))
            await send(message)

        try:
            refuse_unknown_host(request)
            refuse_cross_site(request)
            refuse_too_large(request)
            await self._app(scope, receive, send_on)
        except Exception as error:
            if has_begun:
                raise
            answer = explain_error(request, error)
            await answer(scope, receive, send_on)


def explain_error(request: Request, error: Exception) -> Response:
    """The answer to an error that no route and no handler took."""
    if isinstance(error, RarefindError):
        return answer_error(request, error)
    logger.exception("Unforeseen error", exc_info=error)
    sentence = (
        "This is a fault in Rarefind, not something you did. Answers given so far are safe. "
        "Go back and try again; if it happens again, the server's log says more."
    )
    disk = explain_disk(error, request.app.state.settings.home)
    return answer_error(request, disk or RarefindError(sentence))


def add_headers(scope: Scope, headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """What every answer says of how it may be used, added to what it says already."""
    # In pairs of bytes, for each picture once: classes for headers take five times as long.
    said = {name for name, _ in headers}
    headers += [pair for pair in RAW_HEADERS if pair[0] not in said]
    if scope["scheme"] == "https" and b"strict-transport-security" not in said:
        headers.append((b"strict-transport-security", b"max-age=31536000"))
    if scope["path"].startswith("/static/") and scope["query_string"]:  # of one content for good
        headers = [pair for pair in headers if pair[0] != b"cache-control"]
        headers.append((b"cache-control", b"public, max-age=31536000, immutable"))
    elif b"cache-control" not in said:
        headers.append((b"cache-control", b"no-store"))  # back: ask again, never a stale grid
    return headers


def refuse_too_large(request: Request) -> None:
    """Refuse a body that is larger than any form of ours, or does not say how large it is."""
    limit_mb = PHOTOS_AT_ONCE * request.app.state.settings.max_photo_mb
    size_bytes = int(request.headers.get("content-length", "0"))
    if "transfer-encoding" in request.headers or size_bytes > limit_mb * 1e6:
        raise RequestTooLarge(
            f"At most {limit_mb:,.0f} MB can be sent at once. Send fewer photos at a time."
        )


def add_error_pages(app: FastAPI) -> None:
    """Every error is a page, a fragment or JSON with a sentence and a way on."""

    @app.exception_handler(RarefindError)
    def known(request: Request, error: RarefindError) -> Response:
        return answer_error(request, error)

    @app.exception_handler(HTTPException)
    def http(request: Request, error: HTTPException) -> Response:
        if error.status_code == 404:
            find_asker(request)
            return answer_error(request, NotFound("There is nothing at this address."))
        if error.status_code == 405:
            page = find_page_above(request)
            if page is not None:
                return see_other(page)
            answer = answer_error(request, NotDoneHere("Go back and do it from the page itself."))
            answer.headers.update(error.headers or {})  # what can be done
            return answer
        if error.status_code == 400:  # before the route: neither a form nor JSON in UTF-8
            return answer_error(request, BadInput(UNREADABLE))
        other = RarefindError(str(error.detail))
        other.status = error.status_code
        return answer_error(request, other)

    @app.exception_handler(RequestValidationError)
    def invalid(request: Request, error: RequestValidationError) -> Response:
        if any(part["loc"][0] == "path" for part in error.errors()):
            return answer_error(request, NotFound("There is nothing at this address."))
        return answer_error(request, BadInput(say_invalid(request, error.errors())))

    @app.exception_handler(DataError)
    def not_storable(request: Request, error: DataError) -> Response:
        """A NUL, say: it comes from no page of ours, and nothing was changed."""
        # Its own words quote the value.
        logger.warning("The database takes no such value: %s", type(error.orig).__name__)
        return answer_error(request, BadInput(UNREADABLE))

    @app.exception_handler(OperationalError)
    def database_away(request: Request, error: OperationalError) -> Response:
        if isinstance(error.orig, psycopg.errors.QueryCanceled | psycopg.errors.LockNotAvailable):
            logger.warning("The database was stopped at a statement: %s", error.orig)
            slow = (
                "The database was busy with this for too long, so it was stopped. Nothing was "
                "changed, and answers given so far are safe. Try again soon; if it happens "
                "again, ask for less at once."
            )
            return answer_error(request, TookTooLong(slow))
        logger.error("The database does not answer: %s", error.orig)
        if isinstance(error.orig, psycopg.errors.DiskFull):
            full = (
                "The disk of the database is full, so this was not saved. Answers given before are "
                "safe: make room, then try again."
            )
            return answer_error(request, DiskFull(full))
        sentence = "The database does not answer. Answers given so far are safe; try again soon."
        return answer_error(request, DatabaseNotUsable(sentence))

    @app.exception_handler(PoolTimeout)
    def no_connection(request: Request, _error: PoolTimeout) -> Response:
        return answer_error(request, ServerBusy(RETRY_S))


def find_page_above(request: Request) -> str | None:
    """Where to lead who opens a form's address: the nearest page above it; None if nobody did.

    It stands in the address bar while a form that was refused is shown again.
    """
    is_page = "text/html" in request.headers.get("accept", "")
    if request.method != "GET" or not is_page or request.url.path.startswith("/api/"):
        return None
    path = request.url.path
    while path:
        path = path.rpartition("/")[0]
        scope = {**request.scope, "path": unquote(path) or "/"}
        if any(route.matches(scope)[0] is Match.FULL for route in request.app.router.routes):
            return local_path(path or "/")
    return None


def find_asker(request: Request) -> None:
    """Ask who asks where no route did, for the account menu of a page."""
    if "text/html" not in request.headers.get("accept", ""):
        return
    with suppress(RarefindError, SQLAlchemyError), request.app.state.database.begin() as session:
        find_person(request, session)


def say_invalid(request: Request, wrong: Sequence[Mapping[str, Any]]) -> str:
    """What cannot be used of a request: for people in their words, for programs in pydantic's."""
    if request.url.path.startswith("/api/"):
        said = "; ".join(f"{part['loc'][-1]}: {part['msg']}" for part in wrong)
        return f"Some of what was sent can't be used ({said})."
    where = "this address" if all(part["loc"][0] == "query" for part in wrong) else "what was sent"
    said = " and ".join(f"“{part['loc'][-1]}” should be {_say_wanted(part)}" for part in wrong)
    return f"Part of {where} can't be used: {said}. Go back and try it from there."


def _say_wanted(part: Mapping[str, Any]) -> str:
    limits = part.get("ctx", {})
    for kind, wanted in WANTED.items():
        if part["type"].startswith(kind):
            return wanted.format(**limits)
    return "something else"


def answer_error(request: Request, error: RarefindError) -> Response:
    """The error in the form that was asked for, and when to try again where that is known."""
    answer = write_error(request, error)
    if error.wait_s is not None:
        answer.headers["Retry-After"] = str(error.wait_s)
    return answer


def write_error(request: Request, error: RarefindError) -> Response:
    """The error as a page, a fragment or JSON."""
    accept = request.headers.get("accept", "")
    if request.url.path.startswith("/api/") or (
        "application/json" in accept and "text/html" not in accept
    ):
        return JSONResponse(
            {"error": type(error).__name__, "title": error.title, "detail": str(error)},
            status_code=error.status,
        )
    return render_error(request, error)
