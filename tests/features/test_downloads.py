"""Exports as files: made by a job, whole or not at all, for whoever asked, for some days."""

import os
import signal
import subprocess
import sys
import textwrap
import time
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from sqlalchemy import event, select

from app.access import invite
from app.chores import CHORES
from app.deleting import delete_search
from app.downloads import ask_for_file, get_file, get_made, list_made
from app.errors import BadInput, DiskFull, NotFound
from app.exports.files import make_file, sweep_exports
from app.jobs import Worker, add_job, get_job, stop_job, try_again
from app.metadata import mark_column
from app.sensitive import guard_places, hide_people
from app.tables import AuditEvent, ExportFile, GivenColumn, Image, Job, Person, Search
from app.work import list_work
from tests.factories import make_person
from tests.features.test_export_formats import Hunt
from tests.features.test_jobs import read, wait_until

NAME = "search.rarefind"


def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
def world(own_database, settings, readers):
    """A search in a database that workers share; `ask()` is one request."""
    with own_database.session() as session:
        hunt = Hunt(session, settings, readers)
        world = SimpleNamespace(
            database=own_database,
            settings=settings,
            search_id=hunt.search.id,
            ada=hunt.person.id,
            folder=settings.home / "exports",
        )

    def ask(name=NAME, person_id=world.ada):
        with own_database.session() as session:
            person = session.get_one(Person, person_id)
            search = session.get_one(Search, world.search_id)
            export = ask_for_file(session, person, search, name)
            job = session.scalars(select(Job).order_by(Job.id.desc())).first()
            return export.id, job.id

    def made(export_id, person_id=world.ada, *, at=None):
        with own_database.session() as session:
            person = session.get_one(Person, person_id)
            return get_made(session, person, export_id, settings=settings, now=at or now())

    world.ask, world.made = ask, made
    return world


def test_file_that_is_ready_while_somebody_looks_is_ready_for_them(world):
    """Its row was read before the end of the work, the job after it."""
    export_id, job_id = world.ask()
    with world.database.session() as session:
        read_before = session.get_one(ExportFile, export_id)
        assert read_before.ready_at is None
        worker = Worker(world.database, world.settings, CHORES)
        worker.start()
        wait_until(lambda: read(world.database, job_id).state == "done")
        worker.close(wait_s=15)
        ada = session.get_one(Person, world.ada)
        made = get_made(session, ada, export_id, settings=world.settings, now=now())
        assert made.state == "ready"


def test_file_is_made_once_and_is_whole(world):
    export_id, job_id = world.ask()
    assert world.ask() == (export_id, job_id)  # a double click
    assert world.made(export_id).state == "waiting"
    with pytest.raises(NotFound, match="not made yet"):
        get_file(world.made(export_id), world.settings)
    worker = Worker(world.database, world.settings, CHORES)
    worker.start()
    try:
        wait_until(lambda: read(world.database, job_id).state == "done")
    finally:
        worker.close(wait_s=15)
    made = world.made(export_id)
    file = get_file(made, world.settings)
    assert made.state == "ready" and made.export.size_bytes == file.stat().st_size
    assert zipfile.ZipFile(file).testzip() is None
    assert [one.name for one in file.parent.iterdir()] == [NAME]
    assert world.ask() != (export_id, job_id)  # the search may be another by now
    with world.database.session() as session:
        told = session.scalars(select(AuditEvent.sentence).filter_by(kind="export")).all()
    assert told == ["Exported “Grey heron” as search.rarefind"] * 2


def test_only_who_asked_and_still_sees_the_search_gets_it(world):
    export_id, _ = world.ask()
    make_file(world.database, world.settings, export_id, tell=lambda *_: None)
    with world.database.session() as session:
        ben = make_person(session, name="Ben", role="ecologist")
        boss = make_person(session, name="Boss", role="admin")
        search = session.get_one(Search, world.search_id)
        invite(session, session.get_one(Person, world.ada), search, "Ben")
        assert list_made(session, ben, search, settings=world.settings, now=now()) == []
        (line,) = list_work(session, boss, now=now())["waiting"]
        assert (line.what, line.may_run) == ("Export a search", False)
        ada = session.get_one(Person, world.ada)
        (line,) = list_work(session, ada, now=now())["waiting"]
        assert line.what == "Export “Grey heron” as search.rarefind"
        assert line.address == f"/searches/{world.search_id}/exports"
    for other in (ben, boss):
        with pytest.raises(NotFound):
            world.made(export_id, other.id)
    with world.database.session() as session:
        search = session.get_one(Search, world.search_id)
        delete_search(session, session.get_one(Person, world.ada), search, now=now())
    with pytest.raises(NotFound):
        world.made(export_id)


def test_file_is_not_given_once_less_may_be_shown(world):
    def change(what):
        with world.database.session() as session:
            search = session.get_one(Search, world.search_id)
            what(session, session.get_one(Person, boss.id), search.collection)

    def hide(session, boss, collection):
        query = select(Image.id).filter_by(collection_id=collection.id, removed_at=None)
        image_id = session.scalars(query).first()
        assert hide_people(session, collection.id, [image_id], person=boss) == 1

    def round_places(session, boss, collection):
        guard_places(session, boss, collection, grid="0.1", people=[])

    def mark(session, boss, collection):
        mark_column(session, collection.id, "camp", holds_place=True, person=boss)

    def trust(*people):
        return lambda session, boss, collection: guard_places(
            session, boss, collection, grid="0.1", people=people
        )

    with world.database.session() as session:
        ben = make_person(session, name="Ben", role="ecologist")
        boss = make_person(session, name="Boss", role="admin")
        search = session.get_one(Search, world.search_id)
        invite(session, session.get_one(Person, world.ada), search, "Ben")
        column = GivenColumn(collection_id=search.collection_id, name="camp", kind="text")
        column.position, column.holds_place = 0, False
        session.add(column)

    def ask_and_make(tell=lambda *_: None):
        export_id, job_id = world.ask("images.csv", ben.id)
        make_file(world.database, world.settings, export_id, tell=tell)
        with world.database.session() as session:
            session.get_one(Job, job_id).state = "done"
        return export_id

    def make():
        export_id = ask_and_make()
        assert world.made(export_id, ben.id).state == "ready"
        return export_id

    for what in (hide, round_places, mark):
        export_id = make()
        change(what)
        with pytest.raises(NotFound, match="has changed since"):
            world.made(export_id, ben.id)
        with world.database.session() as session:
            search = session.get_one(Search, world.search_id)
            assert list_made(session, ben, search, settings=world.settings, now=now()) == []
    change(trust(ben.id))
    assert world.made(export_id, ben.id).state == "ready"
    export_id = make()
    change(trust())
    with pytest.raises(NotFound, match="has changed since"):
        world.made(export_id, ben.id)
    # A change that is made known only after the file was begun.
    told = iter((hide,))

    def change_meanwhile(*_):
        for what in told:
            change(what)

    export_id = ask_and_make(change_meanwhile)
    with pytest.raises(NotFound, match="has changed since"):
        world.made(export_id, ben.id)


def test_what_can_not_be_had_is_not_put_in_line(world):
    with pytest.raises(BadInput, match="scientific name"):
        world.ask("darwin-core.zip")
    with pytest.raises(NotFound, match=r"There are: answers\.csv"):
        world.ask("images.xlsx")
    with world.database.session() as session:
        assert session.scalars(select(Job)).all() == []


def test_work_that_is_stopped_or_fails_leaves_nothing_and_is_tried_again(world, monkeypatch):
    class Stop(Exception):
        pass

    export_id, job_id = world.ask("images.csv")
    steps = []

    def stop_at_the_end(step, done, total):
        steps.append((step, done, total))
        if done == total > 0:
            raise Stop

    monkeypatch.setattr("app.exports.files.TELL_S", 0)
    with pytest.raises(Stop):
        make_file(world.database, world.settings, export_id, tell=stop_at_the_end)
    assert steps[0] == ("gathering", 0, 0)  # before the first byte it may be stopped, too
    assert ("listing", 12, 30) in steps
    assert list(world.folder.glob("*/*")) == []
    assert world.made(export_id).export.ready_at is None

    full = world.settings.model_copy(update={"keep_free_gb": 1e9})
    with pytest.raises(DiskFull):
        make_file(world.database, full, export_id, tell=lambda *_: None)
    assert list(world.folder.glob("*/*")) == []

    with world.database.session() as session:
        ada = session.get_one(Person, world.ada)
        ada.role = "viewer"  # whoever sees a search may export it
        job = get_job(session, ada, job_id)
        stop_job(session, job)
        assert list_work(session, ada, now=now())["ended"][0].can_try_again
        try_again(session, job, ada)
        assert job.state == "waiting"
    make_file(world.database, world.settings, export_id, tell=lambda *_: None)
    assert get_file(world.made(export_id), world.settings).read_text().count("\n") == 31


SLOW_WORKER = """
    import sys, time
    from sqlalchemy import create_engine
    from app.chores import do_export
    from app.database import Database, psycopg_url
    from app.exports import files
    from app.jobs import Worker
    from app.settings import Settings

    files.TELL_S = 0
    def do(database, settings, job, tell):
        def slowly(*told):
            tell(*told)
            time.sleep(0.3)
        do_export(database, settings, job, slowly)

    worker = Worker(Database(create_engine(psycopg_url(sys.argv[1]))), Settings(), {"export": do})
    worker.start()
    time.sleep(60)
"""


@pytest.mark.slow
def test_killed_workers_file_is_made_elsewhere_and_no_half_is_offered(world, own_database_url):
    export_id, job_id = world.ask("images.csv")
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SLOW_WORKER), own_database_url],
        env=os.environ | {"RAREFIND_HOME": str(world.settings.home), "PYTHONPATH": str(Path.cwd())},
    )
    try:
        wait_until(lambda: list(world.folder.glob("*/*.part")))
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert list(world.folder.glob("*/*.part"))
    with pytest.raises(NotFound):
        get_file(world.made(export_id), world.settings)
    worker = Worker(world.database, world.settings, CHORES)
    worker.start()
    try:
        wait_until(lambda: read(world.database, job_id).state == "done")
    finally:
        worker.close(wait_s=15)
    file = get_file(world.made(export_id), world.settings)
    assert file.read_text().count("\n") == 31
    assert [one.name for one in file.parent.iterdir()] == ["images.csv"]
    assert read(world.database, job_id).attempts == 2


def test_export_does_not_wait_for_what_prepares_a_collection(world):
    begun, ended = [], []

    def prepare(_database, _settings, _job, tell):
        begun.append(True)
        while not ended:
            tell("indexing", 0, 1)
            time.sleep(0.02)

    with world.database.session() as session:
        collection_id = session.get_one(Search, world.search_id).collection_id
        add_job(session, "index", collection_id=collection_id, person=None, embedder="a")
    worker = Worker(world.database, world.settings, CHORES | {"index": prepare})
    worker.start()
    try:
        wait_until(lambda: begun)
        _, job_id = world.ask("images.csv")
        wait_until(lambda: read(world.database, job_id).state == "done")
    finally:
        ended.append(True)
        worker.close(wait_s=15)


def test_files_are_kept_some_days_and_what_nobody_knows_is_swept(world):
    export_id, job_id = world.ask("images.csv")
    make_file(world.database, world.settings, export_id, tell=lambda *_: None)
    size_bytes = world.made(export_id).export.size_bytes
    lost = world.folder / "987654" / "pictures.zip"
    lost.parent.mkdir()
    lost.write_bytes(b"12345")
    days = timedelta(days=world.settings.export_days)
    soon, late = now() + days - timedelta(hours=1), now() + days + timedelta(hours=1)
    assert sweep_exports(world.database, world.settings, now=soon) == 5
    assert get_file(world.made(export_id), world.settings).exists()
    with pytest.raises(NotFound, match="Have it made again"):
        world.made(export_id, at=late)
    assert sweep_exports(world.database, world.settings, now=late) == 0  # its job has not ended
    with world.database.session() as session:
        session.get_one(Job, job_id).state = "done"
    assert sweep_exports(world.database, world.settings, now=late) == size_bytes
    assert list(world.folder.glob("*")) == []
    with world.database.session() as session:
        assert session.scalars(select(ExportFile)).all() == []


def test_file_made_anew_takes_the_place_of_the_earlier_one(world):
    def make(*args):
        export_id, job_id = world.ask(*args)
        make_file(world.database, world.settings, export_id, tell=lambda *_: None)
        with world.database.session() as session:
            session.get_one(Job, job_id).state = "done"
        return export_id

    with world.database.session() as session:
        boss = make_person(session, name="Boss")
        session.get_one(Search, world.search_id).open_to_view = True
    other_format, other_person = make("answers.csv"), make("images.csv", boss.id)
    first = make("images.csv")
    waiting, _ = world.ask("images.csv")
    assert world.made(first).state == "ready"  # until there is another
    make_file(world.database, world.settings, waiting, tell=lambda *_: None)
    with pytest.raises(NotFound):
        world.made(first)
    kept = {other_format, other_person, waiting}
    assert {int(one.name) for one in world.folder.glob("*")} == kept
    with world.database.session() as session:
        assert set(session.scalars(select(ExportFile.id))) == kept


def test_folder_of_an_export_asked_for_meanwhile_is_not_swept(world):
    folder = world.folder / "987654"

    def make_folder(_connection, _cursor, statement, *_):
        if "FROM export_files" in statement and "WHERE" not in statement:
            folder.mkdir(parents=True)  # known to nobody when the rows were read

    engine = world.database.bind.engine
    event.listen(engine, "after_cursor_execute", make_folder)
    try:
        sweep_exports(world.database, world.settings, now=now())
    finally:
        event.remove(engine, "after_cursor_execute", make_folder)
    assert folder.exists()


def test_file_follows_what_its_person_sees_when_it_is_made(world):
    """Not what they saw when they asked."""
    export_id, _ = world.ask("images.csv")
    with world.database.session() as session:
        session.get_one(Search, world.search_id).collection.deleted_at = now()
    with pytest.raises(NotFound):
        make_file(world.database, world.settings, export_id, tell=lambda *_: None)
    assert list(world.folder.glob("*/*")) == []
