"""Jobs: asked for in a transaction, done once, stopped, tried again, taken over from the dead."""

import errno
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import create_engine, select, text, update

from app.database import Database, psycopg_url
from app.errors import BadInput, NotFound
from app.jobs import Worker, add_job, get_job, list_preparing, stop_job, try_again
from app.tables import JOB_KINDS, Job
from tests.factories import make_collection, make_person

WAIT_S = 30


def wait_until(condition) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.05)


@contextmanager
def working(database, settings, do, *, workers=1):
    """Workers whose every kind of job is `do`."""
    kinds = dict.fromkeys(JOB_KINDS, do)
    made = [Worker(database, settings, kinds) for _ in range(workers)]
    for one in made:
        one.start()
    try:
        yield made
    finally:
        for one in made:
            one.close(wait_s=15)


def ask(database, embedder="a", *, name="Pond", kind="index"):
    with database.session() as session:
        collection = make_collection(session, name=name)
        return add_job(
            session, kind, collection_id=collection.id, person=None, embedder=embedder
        ).id


def read(database, job_id) -> Job:
    with database.session() as session:
        return session.get_one(Job, job_id)


def count_queued(database) -> int:
    with database.session() as session:
        return session.scalar(text("SELECT count(*) FROM procrastinate_jobs"))


def count_waiting_for_locks(database) -> int:
    query = (
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    with database.session() as session:
        return session.scalar(text(query))


def test_work_is_in_line_only_if_the_transaction_that_asked_is_committed(own_database):
    with pytest.raises(RuntimeError), own_database.session() as session:
        collection = make_collection(session)
        add_job(session, "index", collection_id=collection.id, person=None, embedder="a")
        assert session.scalar(text("SELECT count(*) FROM procrastinate_jobs")) == 1
        raise RuntimeError
    assert count_queued(own_database) == 0
    ask(own_database)
    assert count_queued(own_database) == 1


def test_the_same_work_waits_once(own_database):
    with own_database.session() as session:
        where = {"collection_id": make_collection(session).id, "person": None}
        first = add_job(session, "index", embedder="a", **where)
        assert add_job(session, "index", embedder="a", **where).id == first.id
        assert add_job(session, "index", embedder="b", **where).id != first.id


def test_work_that_begins_while_it_is_asked_for_again_waits_again(own_database):
    """What this request removes or adds is not part of what begins before its commit."""
    first = ask(own_database)
    where = {"collection_id": read(own_database, first).collection_id, "person": None}

    def ask_again() -> int:
        with own_database.session() as session:
            return add_job(session, "index", embedder="a", **where).id

    with ThreadPoolExecutor(1) as elsewhere, own_database.session() as beginning:
        beginning.get_one(Job, first, with_for_update=True).state = "running"
        beginning.flush()
        second = elsewhere.submit(ask_again)
        wait_until(lambda: second.done() or count_waiting_for_locks(own_database))
        beginning.commit()
        assert second.result(WAIT_S) != first
    with own_database.session() as asking:
        assert add_job(asking, "index", embedder="a", **where).id == second.result()
        with own_database.session() as beginning:
            held = select(Job).filter_by(id=second.result()).with_for_update(skip_locked=True)
            assert beginning.scalar(held) is None, "a worker would begin it too early"


def test_two_workers_do_each_job_once_and_a_collections_one_after_the_other(own_database, settings):
    done, here = [], set()
    overlaps = []

    def do(database, _settings, job, tell):
        if job.collection_id in here:
            overlaps.append(job.id)
        here.add(job.collection_id)
        for step in range(3):
            tell("indexing", step, 3)
            time.sleep(0.02)
        here.discard(job.collection_id)
        done.append(job.id)

    with own_database.session() as session:
        job_ids = []
        for collection in [make_collection(session, name=f"Pond {n}") for n in range(3)]:
            for embedder in "abcd":
                job = add_job(
                    session, "index", collection_id=collection.id, person=None, embedder=embedder
                )
                job_ids.append(job.id)
    with working(own_database, settings, do, workers=2):
        wait_until(lambda: count_queued(own_database) == 0)
    assert sorted(done) == job_ids
    assert overlaps == []
    assert {(read(own_database, one).state, read(own_database, one).attempts) for one in done} == {
        ("done", 1)
    }


def test_failures_say_why_and_can_be_tried_again(own_database, settings):
    raised = [
        BadInput("The folder is gone."),
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EROFS, "Read-only file system"),
        OSError(errno.EACCES, "Permission denied", str(settings.home / "indexes" / "7.building")),
        OSError(errno.EACCES, "Permission denied", "/photos/secret"),
        KeyError("secret"),
    ]
    sentences = [
        "The folder is gone.",
        "disk of Rarefind's data folder is full",
        "data folder is read-only",
        "may not read or write all of its data folder",
        "the log says",
        "the log says",
    ]
    job_id = ask(own_database)
    with own_database.session() as session:
        admin = make_person(session)

    def do(*_):
        if raised:
            raise raised.pop(0)

    with working(own_database, settings, do):
        for sentence in sentences:
            wait_until(lambda: read(own_database, job_id).state == "failed")
            problem = read(own_database, job_id).problem
            assert sentence in problem and "secret" not in problem
            with own_database.session() as session:
                try_again(session, session.get_one(Job, job_id), admin)
        wait_until(lambda: read(own_database, job_id).state == "done")
    job = read(own_database, job_id)
    assert (job.problem, job.attempts, job.ended_at is None) == (None, 7, False)


def test_stopped_work_ends_at_its_next_chunk_or_never_begins(own_database, settings):
    begun = threading.Event()

    def do(_database, _settings, job, tell):
        begun.set()
        for done in range(10_000):
            tell("indexing", done, 10_000)
            time.sleep(0.01)

    running = ask(own_database)
    with own_database.session() as session:
        waiting = add_job(
            session,
            "index",
            collection_id=read(own_database, running).collection_id,
            person=None,
            embedder="b",
        ).id
    with working(own_database, settings, do):
        assert begun.wait(WAIT_S)
        wait_until(lambda: read(own_database, running).done_count > 3)
        with own_database.session() as session:
            for job_id in (running, waiting):
                stop_job(session, session.get_one(Job, job_id))
        assert read(own_database, waiting).state == "stopped"
        wait_until(lambda: read(own_database, running).state == "stopped")
        wait_until(lambda: count_queued(own_database) == 0)
    job = read(own_database, running)
    assert (job.step, job.total_count, job.problem) == ("indexing", 10_000, None)
    assert read(own_database, waiting).attempts == 0


def test_work_on_a_deleted_collection_never_begins(own_database, settings):
    job_id = ask(own_database)
    with own_database.session() as session:
        session.get_one(Job, job_id).collection.deleted_at = datetime.now(UTC)
    done = []
    with working(own_database, settings, lambda *given: done.append(given[2].id)):
        wait_until(lambda: count_queued(own_database) == 0)
    assert (done, read(own_database, job_id).state) == ([], "stopped")


def test_closing_a_worker_hands_its_job_to_another(own_database, settings):
    begun = threading.Event()
    ways = []

    def slow(_database, _settings, job, tell):
        begun.set()
        for done in range(10_000):
            tell("indexing", done, 10_000)
            time.sleep(0.01)

    job_id = ask(own_database)
    with working(own_database, settings, slow):
        assert begun.wait(WAIT_S)
    assert read(own_database, job_id).state == "waiting"
    with working(own_database, settings, lambda *_: ways.append("quick")):
        wait_until(lambda: read(own_database, job_id).state == "done")
    assert ways == ["quick"]
    assert read(own_database, job_id).attempts == 2


SLOW_WORKER = """
    import sys, time
    from sqlalchemy import create_engine
    from app.database import Database, psycopg_url
    from app.jobs import Worker
    from app.settings import Settings

    def do(database, settings, job, tell):
        for done in range(10_000):
            tell("indexing", done, 10_000)
            time.sleep(0.01)

    worker = Worker(Database(create_engine(psycopg_url(sys.argv[1]))), Settings(), {"index": do})
    worker.start()
    time.sleep(60)
"""


def test_killed_workers_job_goes_on_elsewhere_once(own_database, own_database_url, settings):
    job_ids = [ask(own_database), ask(own_database, name="Lake")]
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SLOW_WORKER), own_database_url],
        env=os.environ | {"RAREFIND_HOME": str(settings.home), "PYTHONPATH": str(Path.cwd())},
    )
    try:
        wait_until(lambda: read(own_database, job_ids[0]).done_count > 2)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert read(own_database, job_ids[0]).state == "running"
    done = []
    with working(own_database, settings, lambda *given: done.append(given[2].id), workers=2):
        wait_until(lambda: count_queued(own_database) == 0)
    assert sorted(done) == job_ids
    assert [read(own_database, one).attempts for one in job_ids] == [2, 1]


@pytest.mark.slow
def test_job_whose_worker_died_before_it_began_does_not_block_its_collection(
    own_database, settings
):
    """Stopped and tried again since: no row of `jobs` knows that place in the queue any more."""
    job_id = ask(own_database)
    with own_database.session() as session:
        session.execute(text("UPDATE procrastinate_jobs SET status = 'doing'"))
        job = session.get_one(Job, job_id)
        stop_job(session, job)
        try_again(session, job, make_person(session))
        others = {"collection_id": job.collection_id, "person": None}
        other_id = add_job(session, "index", embedder="b", **others).id
    done = []
    with working(own_database, settings, lambda *given: done.append(given[2].id)):
        wait_until(lambda: count_queued(own_database) == 0)
    assert sorted(done) == [job_id, other_id]


@pytest.mark.slow
@pytest.mark.parametrize("state", ["waiting", "done"])
def test_place_that_a_living_worker_took_and_forgot_is_free_again(own_database, settings, state):
    """The database was killed as the worker took the job, or as it gave its place back."""
    done = []
    with working(own_database, settings, lambda *given: done.append(given[2].id)):
        first = ask(own_database)
        wait_until(lambda: count_queued(own_database) == 0)
        with own_database.session() as session:
            others = {"collection_id": read(own_database, first).collection_id, "person": None}
            job = add_job(session, "index", embedder="b", **others)
            job.state = state
            session.execute(
                text(
                    "UPDATE procrastinate_jobs SET status = 'doing', "
                    "worker_id = (SELECT max(id) FROM procrastinate_workers)"
                )
            )
            behind = add_job(session, "index", embedder="c", **others).id
        wait_until(lambda: count_queued(own_database) == 0)
    assert done == [first, *([job.id] if state == "waiting" else []), behind]


def test_worker_that_lost_its_hold_does_not_go_on(own_database, settings):
    """As when its network was cut: by then another may do the job."""
    outcomes = []

    def do(database, _settings, job, tell):
        tell("indexing", 0, 2)
        if not outcomes:
            outcomes.append("began")
            with database.session() as session:
                session.execute(
                    text(
                        "SELECT pg_terminate_backend(pid) FROM pg_locks "
                        "WHERE locktype = 'advisory' AND objid = :job_id"
                    ),
                    {"job_id": job.id},
                )
            tell("indexing", 1, 2)
        outcomes.append("ended")

    job_id = ask(own_database)
    with working(own_database, settings, do):
        wait_until(lambda: read(own_database, job_id).state == "done")
    assert outcomes == ["began", "ended"]
    assert read(own_database, job_id).attempts == 2


def test_work_that_the_database_cut_off_is_handed_back_not_failed(own_database, settings):
    """PostgreSQL was killed in mid-work and is back at once: nobody need press Run again."""
    outcomes = []

    def do(database, _settings, _job, tell):
        tell("indexing", 0, 2)
        if not outcomes:
            outcomes.append("began")
            with database.session() as work, database.session() as other:
                work.execute(text("SELECT 1"))
                other.execute(
                    text(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                    )
                )
                work.execute(text("SELECT 1"))
        outcomes.append("ended")

    job_id = ask(own_database)
    with working(own_database, settings, do):
        wait_until(lambda: read(own_database, job_id).state not in ("waiting", "running"))
    job = read(own_database, job_id)
    assert (job.state, job.problem, outcomes) == ("done", None, ["began", "ended"])


def test_worker_goes_on_when_the_database_was_away(own_database_url, settings):
    engine = create_engine(psycopg_url(own_database_url), pool_pre_ping=True)
    database = Database(engine)
    done = []
    with working(database, settings, lambda *given: done.append(given[2].id)):
        first = ask(database)
        wait_until(lambda: done == [first])
        with database.session() as session:
            session.execute(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            )
        second = ask(database, name="Lake")
        wait_until(lambda: second in done and read(database, second).state == "done")
    engine.dispose()


def test_others_see_their_own_jobs_only(session):
    admin, owner, other = (
        make_person(session, name=name, role=role)
        for name, role in (("a", "admin"), ("o", "evaluator"), ("x", "evaluator"))
    )
    collection = make_collection(session)
    job = add_job(session, "index", collection_id=collection.id, person=owner, embedder="a")
    assert get_job(session, admin, job.id) is get_job(session, owner, job.id) is job
    with pytest.raises(NotFound):
        get_job(session, other, job.id)
    assert list_preparing(session, collection.id) == [job]


def test_builds_that_a_killed_command_left_become_jobs(own_database, settings):
    from app.tables import ImageIndex

    with own_database.session() as session:
        collection = make_collection(session)
        session.add(
            ImageIndex(
                collection_id=collection.id,
                embedder="a",
                revision="1",
                dimension=4,
                state="building",
                image_count=3,
            )
        )
    done = []

    def build(*given):
        with own_database.session() as session:
            session.execute(update(ImageIndex).values(state="ready"))
        done.append(given[2].arguments)

    with working(own_database, settings, build, workers=2):
        wait_until(lambda: done and count_queued(own_database) == 0)
    assert done == [{"embedder": "a"}]
    with own_database.session() as session:
        assert [job.state for job in session.scalars(select(Job))] == ["done"]
