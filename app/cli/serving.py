"""Commands that serve: the server and its processes, the worker, a link to sign in, the demo."""

import logging
import os
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import Event, Timer
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from app.cli.terminal import (
    ADDRESS_FILE,
    Commands,
    base_url,
    console,
    errors,
    explained,
    link_url,
    opened,
    print_error,
    progress_of,
    read_address,
    read_settings,
)
from app.errors import DatabaseNotUsable, RarefindError

if TYPE_CHECKING:
    from app.database import Database
    from app.settings import Settings

app = Commands()
# The settings say which ports there are.
Port = Annotated[
    str | None,
    typer.Option(
        metavar="PORT",
        help="Port to listen on, 0 for any free one; without it RAREFIND_PORT, else 8321.",
    ),
]
# A connection stays open between requests: longer than people look at a grid, so that they need
# not connect anew for each.
IDLE_S = 20


class AddressNotFree(RarefindError):
    """Something else listens there."""

    title = "The server can't start"


@app.command()
def serve(
    host: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Address to listen on; without it RAREFIND_HOST, else 127.0.0.1, which only this "
            "machine can reach.",
        ),
    ] = None,
    port: Port = None,
    processes: Annotated[
        str | None,
        typer.Option(
            metavar="N",
            help="Processes that serve, for many people best one for each core; without it "
            "RAREFIND_PROCESSES, else 1.",
        ),
    ] = None,
    no_worker: Annotated[
        bool, typer.Option("--no-worker", help="Leave long work to “rarefind worker”.")
    ] = False,
) -> None:
    """Open the server and print a link that signs you in."""
    with explained():
        run_jobs = False if no_worker else None
        settings = read_settings(host=host, port=port, processes=processes, run_jobs=run_jobs)
        run_server(settings)


@app.command(hidden=True)
def serve_part(
    listening: int, lifeline: int, tell: Annotated[int | None, typer.Argument()] = None
) -> None:
    """One process of a server of several: “serve” starts it."""
    from app.logs import start_logging
    from app.processes import end_with, tell_ready

    with explained():
        settings = read_settings()
        start_logging(settings)
        end_with(lifeline)
        taken = socket.socket(fileno=listening)
        serve_on(taken, settings, announce=lambda _: tell_ready(tell), say_stopping=False)


@app.command()
def worker() -> None:
    """Do long work beside the server, until Ctrl-C.

    Long work is imports, preparing images, replays and large exports. Several workers may run, on
    any machine that shares the database and the data folder.
    """
    from app.chores import CHORES
    from app.jobs import Worker
    from app.logs import start_logging

    with opened() as (settings, database):
        stopping = Event()
        start_logging(settings)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stopping.set())
        working = Worker(database, settings, CHORES)
        working.start()
        console.print("Waiting for work. Stop with Ctrl-C.", highlight=False)
        stopping.wait()
        console.print("Stopping; what is under way is handed on.", highlight=False)
        end_within(settings.stop_s)
        working.close(wait_s=settings.stop_s / 2)


@app.command()
def link() -> None:
    """Print a new one-time sign-in link for the server that runs."""
    from app.security import get_local_person, issue_sign_in_link

    with opened() as (settings, database), database.session() as session:
        address = read_address(settings)
        if not answers(address):
            errors.print(
                f"No server answers at {address} now. Start one with “rarefind serve”; "
                "this link works once it runs.",
                style="yellow",
                highlight=False,
                soft_wrap=True,
            )
        url = issue_sign_in_link(
            session, get_local_person(session), base_url=link_url(settings), settings=settings
        )
    console.print(url, soft_wrap=True, highlight=False)


@app.command()
def demo(
    images: Annotated[
        Path | None,
        typer.Option(
            metavar="SOURCE", help="Folder or zip of your own photos, in place of drawn ones."
        ),
    ] = None,
    replay: Annotated[
        bool, typer.Option("--replay", help="Run the whole job without a browser, and print it.")
    ] = False,
    port: Port = None,
) -> None:
    """Make a collection to try Rarefind on, and open the server."""
    with explained():
        settings = read_settings(port=port)

        from app.demo.showing import prepare_demo, replay_demo

        if replay:
            replay_demo(settings, images=images, console=console, progress_of=progress_of)
            return
        prepare_demo(settings, images=images, console=console, progress_of=progress_of)
        run_server(settings)


def run_server(settings: "Settings") -> None:
    """Serve until Ctrl-C; the sign-in link is printed once the server listens."""
    from app.logs import start_logging

    start_logging(settings)
    listening = listen(settings)
    settings = settings.model_copy(update={"port": listening.getsockname()[1]})
    if settings.processes == 1:
        serve_on(listening, settings, announce=partial(announce, settings=settings))
    else:
        run_processes(listening, settings)


def run_processes(listening: socket.socket, settings: "Settings") -> None:
    """Serve with several processes until Ctrl-C."""
    from app.database import check_connections, open_database
    from app.processes import Processes

    stopping = Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    database = open_database(settings)  # an embedded one starts here, and ends last
    try:
        check_connections(database, settings)
        processes = Processes(settings, listening)
        if processes.start():
            announce(database, settings=settings)
            processes.watch(stopping)
            tell_stopping(settings)
            processes.stop(settings.stop_s)
        else:
            processes.stop(settings.stop_s)
            raise typer.Exit(1)  # what was wrong was said by the one that ended
    finally:
        listening.close()
        database.close()


def announce(database: "Database", *, settings: "Settings") -> None:
    """Say that the server is ready, and by which address."""
    from app.security import get_local_person, issue_sign_in_link

    (settings.home / ADDRESS_FILE).write_text(base_url(settings))
    with database.session() as session:
        person = get_local_person(session)
        # A standing way in for an admin must not lie in the logs of a shared server.
        by_link = settings.auth == "accounts" and person.password_hash is None
        url = settings.public_url or base_url(settings)
        if by_link:
            url = issue_sign_in_link(session, person, base_url=url, settings=settings)
    how = "Open this link; it signs you in once" if by_link else "Open"
    console.print(f"\nRarefind is ready. {how}:\n")
    console.print(f"    {url}\n", soft_wrap=True, highlight=False)
    if not settings.public_url and (addresses := list_addresses(settings)):
        console.print(
            f"From other machines: {', '.join(addresses)} (without encryption: "
            "docs/operations.md, “Behind a reverse proxy”).\n",
            soft_wrap=True,
            highlight=False,
        )
    end = "" if settings.auth == "local" else " A new sign-in link: rarefind link"
    console.print(f"Stop with Ctrl-C.{end}", highlight=False)


def tell_stopping(settings: "Settings") -> None:
    """Say that the server stops, and what becomes of what it is at."""
    console.print(
        f"\nStopping, within {settings.stop_s:.0f} s; every answer is kept, and long work "
        "goes on at the next start.",
        soft_wrap=True,
        highlight=False,
    )


def serve_on(
    listening: socket.socket,
    settings: "Settings",
    *,
    announce: Callable[["Database"], None],
    say_stopping: bool = True,
) -> None:
    """Serve on a socket until a signal; `announce` is called when it is ready."""
    import uvicorn
    from sqlalchemy.exc import SQLAlchemyError

    from app.limiting import BoundedHead
    from app.main import create_app

    web = create_app(settings)
    gone: list[SQLAlchemyError] = []

    class Announcing(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                try:
                    announce(web.state.database)
                except SQLAlchemyError as error:
                    # The database has gone in this moment. What was asked in it is answered first.
                    gone.append(error)
                    self.should_exit = True

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            if say_stopping:
                tell_stopping(settings)
            end_within(settings.stop_s)
            await super().shutdown(sockets)

    # Of its stopping a third is for requests under way, half for the worker, the rest for the end.
    # Its own log of requests would hold their query strings, and with them links to sign in.
    def is_ours(_record: logging.LogRecord) -> bool:
        """Why it can't start is a sentence at the end, not a traceback."""
        return web.state.problem is None

    logging.getLogger("uvicorn.error").addFilter(is_ours)
    server = Announcing(
        uvicorn.Config(
            web,
            http=BoundedHead,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=IDLE_S,
            timeout_graceful_shutdown=int(settings.stop_s / 3),
        )
    )
    with suppress(SystemExit):  # with a number that says no more than the problem
        server.run(sockets=[listening])
    if gone:
        raise DatabaseNotUsable(
            "The database went away while the server started. Start it once more."
        ) from gone[0]
    if web.state.problem is not None:
        raise web.state.problem
    if not server.started:
        raise typer.Exit(1)


def end_within(seconds: float) -> None:
    """End this process by then even if something hangs, as a kill would: nothing is lost by it.

    The interpreter waits for threads that wait for a database or a disk that is gone.
    """

    def end() -> None:
        print_error("Something did not end in time, so it was cut off. Every answer is kept.")
        os._exit(1)

    timer = Timer(seconds, end)
    timer.daemon = True
    timer.start()


def listen(settings: "Settings") -> socket.socket:
    """The socket to serve on, or a sentence that says why not."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # Named as TCP, or the server's connections wait 40 ms for an acknowledgement at every answer.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((settings.host, settings.port))
    except OSError as error:
        listening.close()
        raise AddressNotFree(
            f"Can't listen on {settings.host}:{settings.port} ({os.strerror(error.errno or 0)}). "
            "If Rarefind runs already, “rarefind link” prints a link to it; "
            "else take another port with --port."
        ) from error
    return listening


def answers(address: str) -> bool:
    """Whether something listens at the address."""
    parts = urlsplit(address)
    try:
        socket.create_connection((parts.hostname or "", parts.port or 80), timeout=2).close()
    except OSError:
        return False
    return True


def list_addresses(settings: "Settings") -> list[str]:
    """Where browsers of the network find a server that listens on every address."""
    import psutil

    if settings.host not in ("0.0.0.0", "::"):  # noqa: S104  # nosec B104 # looked for, not set
        return []
    addresses = (one for many in psutil.net_if_addrs().values() for one in many)
    return [
        f"http://{one.address}:{settings.port}"
        for one in addresses
        if one.family == socket.AF_INET and not one.address.startswith("127.")
    ]
