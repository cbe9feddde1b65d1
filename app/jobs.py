"""Long work as jobs: asked for in a request's transaction, done by any worker.

A job is a row of `jobs`, which pages show and which says whether to stop; procrastinate's queue
only says who does it next, and nothing else knows the queue. Whoever does a job holds its advisory
lock: the database lets go when that process dies, and the job goes on elsewhere.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from threading import Event, Thread
from typing import Any

import procrastinate
from procrastinate.exceptions import ConnectorException
from procrastinate.jobs import Job as QueuedJob
from procrastinate.retry import BaseRetryStrategy, RetryDecision
from sqlalchemy import BigInteger, Cast, Connection, Integer, cast, exists, func, select, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, aliased

from app.access import get_collection
from app.database import JOB_LOCK, Database
from app.deleting import empty_bin
from app.disk import explain_disk
from app.engine import EngineError
from app.errors import NotAllowed, NotFound, RarefindError
from app.exports.files import sweep_exports
from app.importing import mark_interrupted_imports
from app.indexing import list_unfinished_builds
from app.logs import JOB_ID, REQUEST_ID
from app.replays import list_unfinished_replays, resume_replay, stop_replay
from app.settings import Settings
from app.tables import ImageIndex, Job, Person, Replay
from app.work import may_run

UNFINISHED = ("waiting", "running")
# A worker does one job of each queue at a time: an export need not wait for a day of embedding.
QUEUES = ("default", "exports")
# Kinds that only read a collection: they run beside what prepares it.
READING = ("replay", "export")
HELP_PRIORITY = -1  # below all else: who helps gives way to what waits
FAILED_S = 300  # after somebody could not help, until help is called for again
TASK = "run_job"
NOT_IN_QUEUE = "NOT EXISTS (SELECT FROM procrastinate_jobs AS q WHERE q.id = jobs.queue_id)"
# Places that a worker took and that nobody holds the job of.
IDLE_PLACES = (
    "SELECT q.id FROM procrastinate_jobs AS q WHERE q.status = 'doing' AND NOT EXISTS ("
    "SELECT FROM pg_locks AS held JOIN pg_database AS own ON own.oid = held.database "
    "WHERE held.locktype = 'advisory' AND own.datname = current_database() "
    "AND held.classid::bigint = :lock AND held.objid::bigint = (q.args ->> 'job_id')::bigint)"
)
LIVING_WORKERS = (
    "SELECT count(*) FROM procrastinate_workers "
    "WHERE last_heartbeat > now() - make_interval(secs => :seconds)"
)
LOOK_S = 2.0  # between looks for jobs whose worker died; the queue itself is heard at once
SILENT_S = 30.0  # a worker without a sign of life for so long has died: it gives one every 10 s
BUSY_S = 5  # until a job is tried again that another worker still holds
CONNECTION_S = 5.0  # to wait for a connection of the queue: its end waits as long
RESTART_S = 2.0  # until a worker begins again that has lost the database

Tell = Callable[[str, int, int], None]  # step, done, in all
Do = Callable[[Database, Settings, Job, Tell], None]

logger = logging.getLogger(__name__)


class Stopping(BaseException):
    """The worker is being stopped, or has lost the job. No job may take it for a fault."""


class StoppedByPerson(RarefindError):
    """Somebody stopped the job; what is done so far is kept."""


class HandedBack(Exception):
    """The job is to be gone on with by another worker, at once."""


class HeldElsewhere(Exception):
    """Another worker does this job at this moment."""


@dataclass(frozen=True)
class Asked:
    """An index somebody asked for that is not there: waiting, under way, or failed."""

    embedder: str
    problem: str | None = None


# --- Asking for work, in the transaction of a request --------------------------------------------


def add_job(
    session: Session,
    kind: str,
    *,
    collection_id: int,
    person: Person | None,
    **arguments: Any,
) -> Job:
    """Put work in line; the same work that waits already is not asked for twice.

    It is in the queue when the session's transaction is committed, and never was when it is not.
    """
    same = select(Job).where(
        Job.kind == kind,
        Job.collection_id == collection_id,
        Job.state == "waiting",
        Job.arguments == arguments,
    )
    # Held until the commit: begun before, it would not see what this transaction changed.
    found = session.scalar(same.limit(1).with_for_update())
    if found is not None:
        return found  # a double click
    job = Job(
        kind=kind,
        collection_id=collection_id,
        person_id=None if person is None else person.id,
        arguments=arguments,
        state="waiting",
        request_id=REQUEST_ID.get(),
    )
    session.add(job)
    session.flush()
    _enqueue(session, job)
    return job


def get_job(session: Session, person: Person, job_id: int) -> Job:
    """A job that the person may see: an admin any, others their own."""
    job = session.get(Job, job_id, with_for_update=True)
    if job is None or (person.role != "admin" and job.person_id != person.id):
        raise NotFound("There is no such job.")
    return job


def stop_job(session: Session, job: Job) -> None:
    """Have a job stop: at once if it waits, else after the file or chunk under way."""
    if job.state not in UNFINISHED:
        return
    job.stop_asked = True
    if job.kind == "replay":
        replay = session.get(Replay, job.arguments["replay_id"])
        if replay is not None:
            stop_replay(session, replay)
    if job.state == "waiting":
        job.state, job.ended_at = "stopped", datetime.now(UTC)
    session.flush()


def try_again(session: Session, job: Job, person: Person) -> None:
    """Put a job that stopped or failed back in line; it goes on where it was."""
    get_collection(session, person, job.collection_id)  # not in the bin, and still theirs to see
    if not may_run(person, job):
        raise NotAllowed("Your role does not let you run this again. Ask an admin.")
    if job.state not in ("stopped", "failed"):
        return
    if job.kind == "replay":
        replay = session.get(Replay, job.arguments["replay_id"])
        if replay is not None:
            resume_replay(session, replay)
    _wait_again(session, job)


def play(session: Session, replay: Replay, person: Person) -> Job:
    """Put a replay in line; one that was in line before goes on as the same job."""
    job = find_replay_job(session, replay.id)
    if job is not None and job.state in ("stopped", "failed"):
        _wait_again(session, job)
        return job
    return add_job(
        session,
        "replay",
        collection_id=replay.collection_id,
        person=person,
        replay_id=replay.id,
    )


def stop_preparing(session: Session, collection_id: int) -> None:
    """Stop what prepares a collection, what waits of it and who helps included."""
    for job in (*list_preparing(session, collection_id), *_list_help(session, collection_id)):
        stop_job(session, job)


@contextmanager
def calling_for_help(database: Database) -> Iterator[Callable[[ImageIndex], None]]:
    """What calls for help with a build; at the end nobody needs to come any more."""
    collection_ids: set[int] = set()

    def call(row: ImageIndex) -> None:
        """Have the next worker that has nothing else to do help with the build of an index."""
        collection_ids.add(row.collection_id)
        since = datetime.now(UTC) - timedelta(seconds=FAILED_S)
        with database.session() as session:
            failed = select(Job.id).filter_by(kind="help", collection_id=row.collection_id)
            failed = failed.where(Job.state.in_(("failed", "stopped")), Job.ended_at > since)
            if session.scalar(failed.limit(1)) is None:
                add_job(
                    session,
                    "help",
                    collection_id=row.collection_id,
                    person=None,
                    index_id=row.id,
                    embedder=row.embedder,
                )

    try:
        yield call
    finally:
        # If the database is away: who comes finds nothing to do.
        with suppress(SQLAlchemyError), database.session() as session:
            for collection_id in collection_ids:
                for job in _list_help(session, collection_id):
                    if job.state == "waiting":
                        stop_job(session, job)
                        job.state = "done"


def does_nothing_else_wait(session: Session) -> bool:
    """Whether no other work waits for a worker; what waits for its collection's line does not."""
    Before = aliased(Job)
    aside = (*READING, "help")
    has_turn = Job.kind.in_(READING) | ~exists().where(
        Before.collection_id == Job.collection_id,
        Before.state == "running",
        Before.kind.not_in(aside),
    )
    waiting = select(Job.id).where(
        Job.state == "waiting", Job.kind.not_in(("help", "export")), has_turn
    )
    return session.scalar(waiting.limit(1)) is None


def _list_help(session: Session, collection_id: int) -> list[Job]:
    query = select(Job).filter_by(kind="help", collection_id=collection_id)
    return list(session.scalars(query.where(Job.state.in_(UNFINISHED)).order_by(Job.id)))


def list_preparing(session: Session, collection_id: int) -> list[Job]:
    """The unfinished jobs that prepare a collection, the oldest first."""
    query = select(Job).where(
        Job.collection_id == collection_id,
        Job.kind.not_in((*READING, "help")),
        Job.state.in_(UNFINISHED),
    )
    return list(session.scalars(query.order_by(Job.id)))


def find_failed_upload(session: Session, collection_id: int) -> Job | None:
    """The newest import into a collection, if it is one of uploaded files that did not end well."""
    query = select(Job).filter_by(collection_id=collection_id, kind="import")
    job = session.scalar(query.order_by(Job.id.desc()).limit(1))
    if job is None or "upload_id" not in job.arguments or job.state not in ("stopped", "failed"):
        return None
    return job


def list_asked(session: Session, collection_id: int) -> list[Asked]:
    """The indexes that were asked for and are not there, the newest word about each."""
    query = select(Job).where(
        Job.collection_id == collection_id, Job.kind.in_(("index", "combine"))
    )
    newest = {_name_index(job): job for job in session.scalars(query.order_by(Job.id))}
    return [
        Asked(name, job.problem)
        for name, job in newest.items()
        if job.state in UNFINISHED or job.state == "failed"
    ]


def has_worker(session: Session) -> bool:
    """Whether any worker has given a sign of life lately."""
    return bool(session.scalar(text(LIVING_WORKERS), {"seconds": SILENT_S}))


def find_replay_job(session: Session, replay_id: int) -> Job | None:
    """The newest job of a replay."""
    query = select(Job).where(
        Job.kind == "replay", cast(Job.arguments["replay_id"].as_string(), BigInteger) == replay_id
    )
    return session.scalar(query.order_by(Job.id.desc()).limit(1))


def _name_index(job: Job) -> str:
    if job.kind == "combine":
        return f"{job.arguments['first']} + {job.arguments['second']}"
    return str(job.arguments["embedder"])


def _wait_again(session: Session, job: Job) -> None:
    now = datetime.now(UTC)
    job.state, job.stop_asked, job.problem = "waiting", False, None
    job.step = job.started_at = job.ended_at = None
    job.done_count = job.total_count = 0
    job.made_at = job.updated_at = now
    job.request_id = REQUEST_ID.get()
    session.flush()
    _enqueue(session, job)


def _enqueue(session: Session, job: Job) -> None:
    """A place in the queue, in the session's own transaction.

    Jobs of one collection run one after the other; replays and exports only read it, and any number
    of workers help with a build.
    """
    app = _make_queue(procrastinate.SyncPsycopgConnector(), lambda _: None)
    lock = f"collection {job.collection_id}"
    if job.kind in READING:
        lock = f"{job.kind} {job.arguments[f'{job.kind}_id']}"
    elif job.kind == "help":
        lock = f"help {job.id}"
    queue = "exports" if job.kind == "export" else "default"
    connection = session.connection().connection.driver_connection
    priority = HELP_PRIORITY if job.kind == "help" else 0
    task = app.configure_task(
        TASK, lock=lock, queue=queue, priority=priority, connection=connection
    )
    job.queue_id = task.defer(job_id=job.id)
    session.flush()


class _GoOn(BaseRetryStrategy):
    """What becomes of a job that a worker could not end: only its row says whether it failed."""

    def get_retry_decision(
        self,
        *,
        exception: BaseException,
        job: QueuedJob,  # noqa: ARG002
    ) -> RetryDecision | None:
        if isinstance(exception, HandedBack):
            return RetryDecision(retry_at=datetime.now(UTC))
        if isinstance(exception, HeldElsewhere):
            return RetryDecision(retry_in={"seconds": BUSY_S})
        return None


def _make_queue(
    connector: procrastinate.BaseConnector, run: Callable[[int], None]
) -> procrastinate.App:
    app = procrastinate.App(connector=connector)

    @app.task(name=TASK, retry=_GoOn())
    def run_job(job_id: int) -> None:
        run(job_id)

    return app


# --- Doing it -------------------------------------------------------------------------------------


class Worker:
    """Does jobs, one after the other, in a thread of its own, until it is closed."""

    def __init__(self, database: Database, settings: Settings, do: dict[str, Do]) -> None:
        self._database = database
        self._settings = settings
        self._do = do
        self._stopping = Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._works: list[asyncio.Task[None]] = []
        self._under_way: set[int] = set()  # jobs
        self._idle: set[int] = set()  # places in the queue, at the last look
        self._thread = Thread(target=self._live, name="jobs", daemon=True)

    def start(self) -> None:
        """Take up what no worker does any more, and wait for work."""
        mark_interrupted_imports(self._database)
        self._adopt()
        self._thread.start()

    def close(self, *, wait_s: float) -> None:
        """Hand the job under way back at its next file or chunk; everything before it is kept.

        Whatever hangs, a database that is gone included, is not waited for longer than `wait_s`:
        then the job is taken up by another worker once this process has ended.
        """
        self._stopping.set()
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop has just ended by itself
                self._loop.call_soon_threadsafe(self._cancel)
        if self._thread.ident is None:
            return
        self._thread.join(wait_s)
        if self._thread.is_alive():
            under_way = ", ".join(map(str, sorted(self._under_way))) or "none"
            logger.warning("The worker does not end by itself; jobs under way: %s", under_way)

    def _adopt(self) -> None:
        """Jobs for what an earlier version, or a command that was killed, left unfinished."""
        with self._database.session() as session:
            session.execute(select(func.pg_advisory_xact_lock(*_lock_key(0))))  # two starts at once
            # Looked for only now: the other start's job may be done by this time.
            for collection_id, embedder in list_unfinished_builds(self._database):
                if not list_preparing(session, collection_id):
                    add_job(
                        session,
                        "index",
                        collection_id=collection_id,
                        person=None,
                        embedder=embedder,
                    )
            for replay_id in list_unfinished_replays(self._database):
                job = find_replay_job(session, replay_id)
                if job is None or job.state not in UNFINISHED:
                    replay = session.get_one(Replay, replay_id)
                    play(session, replay, replay.person)

    def _live(self) -> None:
        """Empty the bin, work, and begin again when the database was away."""
        try:
            empty_bin(self._database, self._settings, now=datetime.now(UTC))
            sweep_exports(self._database, self._settings, now=datetime.now(UTC))
        except Exception:
            logger.exception("The bin could not be emptied")
        while not self._stopping.is_set():
            try:
                with self._database.session() as session:
                    session.execute(select(1))  # an embedded server that was killed is started
                asyncio.run(self._listen())
            except Exception:
                logger.exception("The worker stopped; it begins again")
            self._stopping.wait(RESTART_S)

    async def _listen(self) -> None:
        url = self._database.bind.engine.url.set(drivername="postgresql")
        connector = procrastinate.PsycopgConnector(
            conninfo=url.render_as_string(hide_password=False),
            min_size=1,
            max_size=6,
            timeout=CONNECTION_S,
        )
        app = _make_queue(connector, self._run)
        async with app.open_async():
            self._loop = asyncio.get_running_loop()
            self._works = [
                asyncio.create_task(
                    app.run_worker_async(
                        queues=[queue],
                        install_signal_handlers=False,
                        delete_jobs=procrastinate.jobs.DeleteJobCondition.ALWAYS,
                        stalled_worker_timeout=SILENT_S,
                    )
                )
                for queue in QUEUES
            ]
            if self._stopping.is_set():
                self._cancel()
            looking = asyncio.create_task(self._take_over(app, self._works))
            try:
                await asyncio.wait(self._works, return_when=asyncio.FIRST_EXCEPTION)
                self._cancel()  # one has lost the database: both begin again
                for outcome in await asyncio.gather(*self._works, return_exceptions=True):
                    if isinstance(outcome, Exception):
                        raise outcome
            finally:
                looking.cancel()
                with suppress(asyncio.CancelledError):
                    await looking

    def _cancel(self) -> None:
        for work in self._works:
            work.cancel()

    async def _take_over(self, app: procrastinate.App, works: list[asyncio.Task[None]]) -> None:
        """Put jobs whose worker died back in line, for any worker, until this one is stopped."""
        while not self._stopping.is_set():
            try:
                silent = await app.job_manager.get_stalled_jobs(seconds_since_heartbeat=SILENT_S)
                queue_ids = await asyncio.to_thread(
                    self._list_dead, [job.id for job in silent if job.id is not None]
                )
                for queue_id in queue_ids:
                    # Another worker may have been faster.
                    with suppress(ConnectorException):
                        await app.job_manager.retry_job_by_id_async(
                            queue_id, retry_at=datetime.now(UTC)
                        )
            except (ConnectorException, SQLAlchemyError) as error:
                logger.warning("Can't look for jobs that nobody does: %s", error)
            await asyncio.sleep(LOOK_S)
        # The pool of connections loses a cancellation now and then: it is asked for again, but not
        # while a job is under way, which is handed back in good order.
        while not all(work.done() for work in works):
            if not self._under_way:
                self._cancel()
            await asyncio.sleep(LOOK_S)

    def _list_dead(self, silent: list[int]) -> list[int]:
        """Places in the queue that were taken, of jobs that nobody holds.

        `silent` are those of workers that give no sign of life: they may have died before they
        began. A row that says running, whose lock is free, has lost its worker for certain. So has
        a place that was taken and idle at two looks: the database was away when its worker heard of
        it, or gave it back. It would keep its collection's line shut, as would places that no row
        knows, since their job was tried again.
        """
        with self._database.session() as session:
            idle = set(session.scalars(text(IDLE_PLACES), {"lock": JOB_LOCK}))
            begun = session.scalars(
                select(Job).where((Job.state == "running") | Job.queue_id.in_(silent))
            ).all()
            dead = [
                job
                for job in begun
                if session.scalar(select(func.pg_try_advisory_xact_lock(*_lock_key(job.id))))
            ]
            for job in dead:
                session.refresh(job)  # it may have ended between the two
                if job.state == "running":
                    job.state = "waiting"
            session.flush()
            queue_ids = [job.queue_id for job in dead if job.queue_id is not None]
            queue_ids += set(silent) - {job.queue_id for job in begun}
            queue_ids += (idle & self._idle).difference(queue_ids)
            self._idle = idle
            # A worker that lost the database at the end may have left the queue, not the row.
            lost = select(Job).where(Job.state == "waiting", text(NOT_IN_QUEUE))
            for job in session.scalars(lost.with_for_update(skip_locked=True)):
                _enqueue(session, job)
            return queue_ids

    def _run(self, job_id: int) -> None:
        self._under_way.add(job_id)
        try:
            self._run_held(job_id)
        finally:
            self._under_way.discard(job_id)

    def _run_held(self, job_id: int) -> None:
        with self._hold(job_id) as lock:
            job = self._begin(job_id)
            if job is None:
                return
            JOB_ID.set(job_id)
            REQUEST_ID.set(job.request_id)
            logger.info("Job %s begins: %s", job_id, job.kind)
            try:
                tell = self._make_tell(job_id, lock)
                self._do[job.kind](self._database, self._settings, job, tell)
            except Stopping:
                logger.info("Job %s is handed back; another worker goes on with it.", job_id)
                state, problem = "waiting", None
            except StoppedByPerson:
                logger.info("Job %s was stopped", job_id)
                state, problem = "stopped", None
            except (RarefindError, EngineError) as error:
                # Its sentence, for its page, may name files and people.
                logger.warning("Job %s failed: %s", job_id, type(error).__name__)
                state, problem = "failed", str(error)
            except Exception as error:
                if _is_held(lock):
                    logger.exception("Job %s failed", job_id)
                state, problem = "failed", _say_fault(error, self._settings)
            else:
                logger.info("Job %s is done", job_id)
                state, problem = "done", None
            if not _is_held(lock):  # whoever holds it by now says how it stands
                logger.warning("Job %s lost the database, and is gone on with", job_id)
                raise HandedBack
            self._end(job_id, state, problem)
            if state == "waiting":
                raise HandedBack

    @contextmanager
    def _hold(self, job_id: int) -> Iterator[Connection]:
        """Hold a job; the database lets go when this process dies."""
        key = _lock_key(job_id)
        engine = self._database.bind.engine.execution_options(isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            if not connection.scalar(select(func.pg_try_advisory_lock(*key))):
                raise HeldElsewhere
            try:
                yield connection
            finally:
                with suppress(SQLAlchemyError):  # lost with the connection
                    connection.execute(select(func.pg_advisory_unlock(*key)))

    def _begin(self, job_id: int) -> Job | None:
        """What there is to do, or None: stopped, done before, or its collection is deleted."""
        with self._database.session() as session:
            job = session.get(Job, job_id, with_for_update=True)
            if job is None or job.state not in UNFINISHED:
                return None
            if job.stop_asked or job.collection.deleted_at is not None:
                job.state, job.ended_at = "stopped", datetime.now(UTC)
                return None
            now = datetime.now(UTC)
            job.state, job.attempts = "running", job.attempts + 1
            job.step = job.step_started_at = None
            job.done_count = job.total_count = 0
            job.started_at = job.started_at or now
            job.updated_at = now
            return job

    def _make_tell(self, job_id: int, lock: Connection) -> Tell:
        """What a job calls after each file or chunk: notes progress, and ends what is over."""

        def tell(step: str, done: int, total: int) -> None:
            if self._stopping.is_set():
                raise Stopping
            if not _is_held(lock):  # then another worker may hold the job by now
                raise Stopping
            now = datetime.now(UTC)
            with self._database.session() as session:
                job = session.get(Job, job_id, with_for_update=True)
                if job is None or job.stop_asked:
                    raise StoppedByPerson(
                        "It was stopped before its end. What was done is kept: press Run again to "
                        "go on."
                    )
                if job.step != step or done < job.done_count:
                    job.step, job.step_started_at, job.step_started_count = step, now, done
                job.done_count, job.total_count, job.updated_at = done, total, now

        return tell

    def _end(self, job_id: int, state: str, problem: str | None) -> None:
        with self._database.session() as session:
            job = session.get(Job, job_id, with_for_update=True)
            if job is not None:
                now = datetime.now(UTC)
                job.state, job.problem, job.updated_at = state, problem, now
                job.ended_at = None if state in UNFINISHED else now


def _is_held(lock: Connection) -> bool:
    """Whether the connection that holds a job is still there: the lock goes with it."""
    try:
        lock.execute(select(1))
    except SQLAlchemyError:
        return False
    return True


def _say_fault(error: Exception, settings: Settings) -> str:
    disk = explain_disk(error, settings.home)
    if disk is not None:
        return str(disk)
    request_id = REQUEST_ID.get()
    under = f" under {request_id}" if request_id else ""
    return f"Something went wrong; the log says more{under}. What was done so far is kept."


def _lock_key(job_id: int) -> tuple[Cast[int], Cast[int]]:
    return cast(JOB_LOCK, Integer), cast(job_id, Integer)
