"""The server watched from outside: a number for each request, what is measured, what is ready.

Measures hold numbers of things and times, never a name or an address. What happens in this process
is counted as it happens; what stands in the database, other workers' jobs included, is counted when
somebody asks.
"""

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from tempfile import TemporaryFile
from threading import Lock, Thread
from typing import Any

import psycopg
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from sqlalchemy import Insert, func, select
from sqlalchemy.orm import ORMExecuteState, Session
from sqlalchemy.pool import QueuePool
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.collecting import ImageCounts
from app.database import Database, find_head
from app.errors import StoreNotUsable
from app.indexing import OpenIndexes, is_on_disk
from app.logs import REQUEST_ID, take_request_id
from app.processes import MEASURES
from app.settings import Settings
from app.store import check_store
from app.tables import JOB_STATES, Answer, Collection, Job, Round

REQUEST_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
ROUND_S = (0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
CHECK_S = 3.0  # until what has not answered counts as not there
CONNECT_S = 2
NO_ROUTE = "none"  # whatever is typed as an address must not become a label
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

logger = logging.getLogger("rarefind.requests")


# --- Measures -----------------------------------------------------------------------------------


class Metrics:
    """What is measured in this server, as Prometheus reads it."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Histogram(
            "rarefind_request_seconds",
            "Requests, from their first byte to the last of the answer.",
            ("method", "route", "status"),
            buckets=REQUEST_S,
            registry=self.registry,
        )
        self.proposed = Histogram(
            "rarefind_round_proposing_seconds",
            "Rounds proposed: training the head and choosing the next images.",
            buckets=ROUND_S,
            registry=self.registry,
        )
        self.submitted = Histogram(
            "rarefind_round_submitting_seconds",
            "Rounds submitted: from the turn of a search to the choice of its next round.",
            buckets=ROUND_S,
            registry=self.registry,
        )
        self.answers = Counter(
            "rarefind_answers",
            "Answers stored, corrections and undone ones included.",
            ("value",),
            registry=self.registry,
        )

    def watch(self, database: Database) -> None:
        """Count the rounds and answers that are committed."""
        pending = "watched"  # in the session: what it has not committed yet

        def note_answers(state: ORMExecuteState) -> None:
            statement = state.statement
            if isinstance(statement, Insert) and statement.table is Answer.__table__:
                given: Any = state.parameters
                # One by one, or as columns: app/answers.py.
                values = (
                    [row["value"] for row in given] if isinstance(given, list) else given["values"]
                )
                counting = state.session.info.setdefault(pending, [])
                counting += [self.answers.labels(value).inc for value in values]

        def note_rounds(session: Session, _context: object) -> None:
            counting = session.info.setdefault(pending, [])
            for one in session.new:
                if isinstance(one, Round) and one.proposing_ms is not None:
                    counting.append(_observing(self.proposed, one.proposing_ms))
                if isinstance(one, Round) and one.submitting_ms is not None:
                    counting.append(_observing(self.submitted, one.submitting_ms))

        def count(session: Session) -> None:
            if not session.in_nested_transaction():
                for do in session.info.pop(pending, []):
                    do()

        def forget(session: Session) -> None:
            if not session.in_nested_transaction():
                session.info.pop(pending, None)

        database.listen("do_orm_execute", note_answers)
        database.listen("after_flush", note_rounds)
        database.listen("after_commit", count)
        database.listen("after_rollback", forget)

    def write(self, session: Session, database: Database, indexes: OpenIndexes) -> bytes:
        """All that is measured, in Prometheus' text form."""
        standing = CollectorRegistry()
        standing.register(_Standing(session, database, indexes))
        counted = self.registry
        if MEASURES in os.environ:  # what all processes of this server have counted
            counted = CollectorRegistry()
            MultiProcessCollector(counted)  # type: ignore[no-untyped-call]
        return generate_latest(counted) + generate_latest(standing)


class _Standing:
    """How things stand at this moment."""

    def __init__(self, session: Session, database: Database, indexes: OpenIndexes) -> None:
        self._gauges = [
            *_count_jobs(session),
            GaugeMetricFamily(
                "rarefind_images",
                "Images of all collections that are not removed.",
                value=_count_images(session),
            ),
            *_count_indexes(indexes),
            *_count_connections(database),
        ]

    def collect(self) -> list[GaugeMetricFamily]:
        """As prometheus_client asks for it."""
        return self._gauges


def _observing(histogram: Histogram, ms: float) -> Callable[[], None]:
    return lambda: histogram.observe(ms / 1_000)


def _count_jobs(session: Session) -> list[GaugeMetricFamily]:
    jobs = GaugeMetricFamily("rarefind_jobs", "Long work by its state.", labels=("state",))
    counted = dict(session.execute(select(Job.state, func.count()).group_by(Job.state)).all())
    for state in JOB_STATES:
        jobs.add_metric((state,), counted.get(state, 0))
    oldest = session.scalar(select(func.min(Job.made_at)).filter_by(state="waiting"))
    age_s = (datetime.now(UTC) - oldest).total_seconds() if oldest else 0
    waiting = GaugeMetricFamily(
        "rarefind_oldest_waiting_job_seconds",
        "How long the oldest job has waited; 0 if none waits.",
        value=max(age_s, 0),
    )
    return [jobs, waiting]


def _count_images(session: Session) -> int:
    counts = session.info.get("image_counts", ImageCounts()).read(session)  # asked for all the time
    shown = session.scalars(select(Collection.id).where(Collection.deleted_at.is_(None)))
    return sum(counts.get(one, 0) for one in shown)


def _count_indexes(indexes: OpenIndexes) -> list[GaugeMetricFamily]:
    count, size_bytes = indexes.measure()
    return [
        GaugeMetricFamily(
            "rarefind_open_indexes", "Indexes held open by the process that answers.", value=count
        ),
        GaugeMetricFamily(
            "rarefind_open_indexes_bytes",
            "Vectors of the indexes held open by the process that answers.",
            value=size_bytes,
        ),
    ]


def _count_connections(database: Database) -> list[GaugeMetricFamily]:
    pools = {engine.pool for engine in (database.bind.engine, database.hasty.engine)}
    return [
        GaugeMetricFamily(
            "rarefind_database_connections_in_use",
            "Connections to PostgreSQL in use by the process that answers this.",
            value=sum(pool.checkedout() for pool in pools if isinstance(pool, QueuePool)),
        )
    ]


# --- Each request -------------------------------------------------------------------------------


class Watching:
    """Gives each request its number, and measures and logs it; outside of all else.

    The number is the X-Request-ID that a proxy sent, where that can be one, and is sent back.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        request_id = take_request_id(given.decode("latin-1"))
        token = REQUEST_ID.set(request_id)
        started = time.perf_counter()
        status = 500

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            await self._app(scope, receive, send_on)
        finally:
            self._note(scope, status, time.perf_counter() - started)
            REQUEST_ID.reset(token)

    def _note(self, scope: Scope, status: int, took_s: float) -> None:
        route = _name_route(scope)
        is_known = route != NO_ROUTE and scope["method"] in METHODS
        method = scope["method"] if is_known else NO_ROUTE
        self._metrics.requests.labels(method, route, str(status)).observe(took_s)
        about: dict[str, Any] = {
            "method": method,
            "route": route,
            "status": status,
            "ms": round(took_s * 1_000, 1),
        }
        if route not in (NO_ROUTE, "/static"):
            about["path"] = scope["path"]  # never the query: links to sign in hold a token
        line = "%(method)s %(shown)s %(status)s %(ms).0f ms"
        logger.info(line, about | {"shown": about.get("path", route)}, extra=about)


def _name_route(scope: Scope) -> str:
    """The route as it is written in the code, such as /searches/{search_id}."""
    path: str | None = getattr(scope.get("route"), "path", None)
    if path is None and scope["path"].startswith("/static/"):
        return "/static"
    return path or NO_ROUTE


# --- Ready ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """One thing that the server needs."""

    name: str
    problem: str | None  # None: it is there


Problems = dict[str, str | None]  # of each part: what is wrong with it


class Readiness:
    """Looks whether all is there that a request may need, and never waits long for the answer.

    A disk or a database that hangs is not asked again until it has answered the last time; who asks
    meanwhile waits for the same answer.
    """

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings = settings
        self._url = database.bind.engine.url.render_as_string(hide_password=False)
        self._asking: dict[str, tuple[Thread, Problems]] = {}
        self._lock = Lock()

    def check(self) -> list[Part]:
        """Every part, in at most some seconds."""
        looks = {
            "database": self._check_database,
            "data folder": self._check_folder,
            "indexes": self._check_indexes,
        }
        if self._settings.store is not None:
            looks["store"] = partial(check_store, self._settings)
        with self._lock:
            for name, look in looks.items():
                if name not in self._asking or not self._asking[name][0].is_alive():
                    problems: Problems = {}
                    thread = Thread(
                        target=_look_at,
                        args=(name, look, problems),
                        name=f"ready {name}",
                        daemon=True,
                    )
                    thread.start()
                    self._asking[name] = (thread, problems)
            asked = {name: self._asking[name] for name in looks}
        until = time.monotonic() + CHECK_S
        for thread, _ in asked.values():
            thread.join(max(0.0, until - time.monotonic()))
        late = f"It has not answered for {CHECK_S:.0f} s."
        return [Part(name, problems.get(name, late)) for name, (_, problems) in asked.items()]

    def _check_database(self) -> str | None:
        with self._connect() as connection:
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        head = find_head()
        if row is None or row[0] != head:
            return f"Its tables are at version {row and row[0]}, this code needs {head}."
        return None

    def _check_folder(self) -> str | None:
        with TemporaryFile(dir=self._settings.home) as file:
            file.write(b"rarefind")
            file.flush()
        return None

    def _check_indexes(self) -> str | None:
        """The newest index of each collection and embedder: those that searches open."""
        query = (
            "SELECT max(i.id) FROM indexes AS i JOIN collections AS c ON c.id = i.collection_id "
            "WHERE i.state = 'ready' AND c.deleted_at IS NULL "
            "GROUP BY i.collection_id, i.embedder ORDER BY 1"
        )
        with self._connect() as connection:
            index_ids = [row[0] for row in connection.execute(query)]
        gone = [str(one) for one in index_ids if not is_on_disk(one, self._settings)]
        if gone:
            more = f" and {len(gone) - 3:,} more" if len(gone) > 3 else ""
            return (
                f"Missing: number {', '.join(gone[:3])}{more}. “rarefind doctor” says what to do."
            )
        return None

    def _connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        # Its own, not of the pool: a pool that is used up is busy, not broken.
        return psycopg.connect(
            self._url.replace("postgresql+psycopg://", "postgresql://", 1),
            connect_timeout=CONNECT_S,
            options=f"-c statement_timeout={CONNECT_S * 1_000}",
            autocommit=True,
        )


def _look_at(name: str, look: Callable[[], str | None], problems: Problems) -> None:
    try:
        problems[name] = look()
    except psycopg.errors.UndefinedTable:
        problems[name] = "It has no tables of Rarefind's."
    except StoreNotUsable:
        problems[name] = "It does not answer, or refuses us. “rarefind doctor” says more."
    except psycopg.Error:
        problems[name] = "PostgreSQL does not answer."  # its own words name hosts and people
    except OSError as error:
        problems[name] = f"It can't be written to: {error.strerror}."
