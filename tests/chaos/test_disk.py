"""The disk of the data folder full, or no longer to be written to, in the midst of work.

Each is said as a sentence, the server lives, and when the disk is back everything is gone on with.
"""

import errno
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import select

from app.accounts import add_person, make_token
from app.security import get_local_person
from app.tables import Job
from tests.chaos import checks
from tests.chaos.fleet import Fleet
from tests.chaos.people import PIECE, TUS, Hunt, Ledger, Searcher, Uploader, draw_image, name_image

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]

DISK_MB = 40
DISK_WITH_DATABASE_MB = 160
PIECE_BYTES = 4_000
WAIT_S = 120


@pytest.fixture
def disk(request) -> Iterator[Path]:
    """A small disk of its own, in memory."""
    size_mb = getattr(request, "param", DISK_MB)
    with tempfile.TemporaryDirectory(prefix="rarefind-disk-") as folder:
        options = f"size={size_mb}m,uid={os.getuid()},gid={os.getgid()},mode=711"
        try:
            as_root("mount", "-t", "tmpfs", "-o", options, "rarefind-disk", folder)
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"A full disk needs one that can be mounted here: {error}")
        try:
            yield Path(folder)
        finally:
            as_root("umount", "--lazy", folder)


def as_root(*command: str) -> None:
    how = () if os.geteuid() == 0 else ("sudo", "-n")
    subprocess.run([*how, *command], check=True, capture_output=True)


@contextmanager
def full(disk: Path) -> Iterator[None]:
    """Not a byte more can be written."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4_096))
        except OSError as error:
            assert error.errno == errno.ENOSPC
    yield
    filler.unlink()


@contextmanager
def read_only(disk: Path) -> Iterator[None]:
    """As when a disk has found errors in itself."""
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            as_root("mount", "-o", "remount,ro", str(disk))
            break
        except subprocess.CalledProcessError:  # something is open for writing at this moment
            assert time.monotonic() < deadline
    yield
    as_root("mount", "-o", "remount,rw", str(disk))


TROUBLES = {"full": full, "read-only": read_only}
SAID = {"full": r"full|make room|no room|left on device", "read-only": "read-only|can't be written"}


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="rarefind-chaos-") as folder:
        yield Path(folder)


@pytest.fixture
def fleet(disk, folder) -> Iterator[Fleet]:
    """A server and a worker on the small disk, with their database where there is room for it."""
    is_roomy = shutil.disk_usage(disk).total > DISK_MB * 2**20
    fleet = Fleet(folder, disk / "home", embedded=is_roomy, RAREFIND_KEEP_FREE_GB="0")
    fleet.start("server")
    fleet.start("worker 1")
    fleet.await_server()
    yield fleet
    fleet.close()


@pytest.fixture
def people(fleet) -> Iterator[tuple[Uploader, Searcher]]:
    """One person, in two windows."""
    with fleet.database.session() as session:
        uma = add_person(session, "Uma", "admin", by=get_local_person(session))
        token = make_token(session, uma, "chaos", "admin")
    given = "Uma", token, fleet, Ledger(), "disk"
    uploader, searcher = Uploader(*given, numbers=0), Searcher(*given, others=[], view=0)
    yield uploader, searcher
    uploader.http.close()
    searcher.http.close()


@pytest.mark.parametrize("trouble", TROUBLES)
def test_disk_in_trouble_is_said_and_work_goes_on_when_it_is_back(
    trouble, disk, folder, fleet, people
):
    uploader, searcher = people
    pids, ledger = dict(fleet.pids), searcher.ledger
    pond = add_folder(uploader, folder, "pond", range(30))
    uploader.await_work(pond)
    ledger.offered.append(pond)
    searcher.open()
    (hunt,) = ledger.hunts
    searcher.answer_round(hunt)

    # A file half sent, and an import half done.
    form = {"name": "sent", "where": "here"}
    upload = uploader.expect((303,), "POST", "/collections", data=form).leads_to
    data = draw_image(100)
    place = announce(uploader, upload, len(data))
    assert send(uploader, place, 0, data[:PIECE_BYTES]).status == 204
    lake = add_folder(uploader, folder, "lake", range(30, 130), keep_copy="yes")
    await_import(fleet, lake)
    with TROUBLES[trouble](disk):
        check_said(trouble, send(uploader, place, PIECE_BYTES, data[PIECE_BYTES:]))
        check_said(trouble, send_another(uploader, upload))
        form = {"image_ids": [first_image(uploader, pond)]}
        uploader.expect((303,), "POST", f"/collections/{pond}/removed", data=form)
        wanted = {"search_id": hunt.search_id, "name": "search.rarefind"}
        uploader.expect((202,), "POST", "/api/v1/exports", json=wanted)
        searcher.answer_round(hunt)
        for kind, problem in await_failures(fleet, {"import", "update", "export"}).items():
            assert matches(trouble, problem), (kind, problem)
        uploader.expect((200,), "GET", f"/collections/{lake}")

    answer = uploader.expect((200,), "HEAD", place, headers=TUS)
    here = int(answer.response.headers["upload-offset"])
    assert send(uploader, place, here, data[here:]).status == 204
    assert send_another(uploader, upload).status == 201
    uploader.expect((303,), "POST", f"{upload}/finish")
    sent = uploader.find_collection("sent")
    for collection_id in (sent, lake, pond):
        uploader.await_work(collection_id)  # it presses “Run again”
    run_again(uploader, "export")
    searcher.answer_round(hunt)
    numbers = {pond: set(range(30)), lake: set(range(30, 130)), sent: {100, 101}}
    faults = [
        *checks.await_end_of_work(fleet),
        *checks.check_jobs(fleet),
        *checks.check_answers(fleet, ledger.hunts),
        *checks.check_images(fleet, numbers, {one: checks.hash_image(one) for one in range(130)}),
        *checks.check_rounds(fleet),
        *checks.check_files(fleet),
    ]
    assert not faults, "\n".join(faults)
    fleet.start_again_what_ended()
    assert fleet.pids == pids, "a process ended by itself"


@pytest.mark.parametrize("disk", [DISK_WITH_DATABASE_MB], indirect=True)
def test_answers_that_the_database_has_no_room_for_are_refused_and_saved_once_there_is(
    disk, folder, fleet, people
):
    """The embedded database, on the same disk, which ends when it can't write its journal."""
    uploader, searcher = people
    pids, ledger = dict(fleet.pids), searcher.ledger
    pond = add_folder(uploader, folder, "pond", range(130))
    uploader.await_work(pond)
    ledger.offered.append(pond)
    searcher.open()
    (hunt,) = ledger.hunts
    path = f"/api/v1/searches/{hunt.search_id}/round"
    made = searcher.expect((200,), "GET", path).json()
    with full(disk):
        refused = None
        deadline = time.monotonic() + WAIT_S
        while refused is None:
            assert time.monotonic() < deadline, "everything still has room"
            refused = answer_once(searcher, hunt, made)
        gesture, path, body, answer = refused
        assert answer.status_code in (503, 507), answer.text
        assert "Answers given" in answer.json()["detail"]
    assert searcher.send(hunt, gesture, path, body) is not None
    searcher.answer_round(hunt)
    faults = [*checks.check_answers(fleet, ledger.hunts), *checks.check_rounds(fleet)]
    assert not faults, "\n".join(faults)
    fleet.start_again_what_ended()
    assert fleet.pids == pids, "a process ended by itself"


def answer_once(searcher: Searcher, hunt: Hunt, made: dict):
    """One answer, given or taken back: None when it was saved, else what was refused, and how."""
    image_id = made["images"][0]["image_id"]
    values = {image_id: None if image_id in hunt.standing() else "no"}
    gesture = searcher.begin(hunt, "answer", values, [])
    body = {"round_id": made["round_id"], "answers": values, "gesture_key": gesture.key}
    path = f"/api/v1/searches/{hunt.search_id}/answers"
    answer = searcher.http.post(searcher.address + path, json=body)
    if answer.status_code != 200:
        return gesture, "answers", body, answer
    gesture.is_told = True
    hunt.follow(gesture)
    return None


def add_folder(uploader: Uploader, folder: Path, name: str, numbers: range, **more: str) -> int:
    (folder / name).mkdir()
    for number in numbers:
        (folder / name / name_image(number)).write_bytes(draw_image(number))
    form = {"name": name, "where": "server", "source": str(folder / name)} | more
    uploader.expect((303,), "POST", "/collections", data=form)
    return uploader.find_collection(name)


def announce(uploader: Uploader, here: str, size_bytes: int) -> str:
    headers = TUS | {"Upload-Length": str(size_bytes), "Upload-Metadata": "path MTAwLmpwZw=="}
    return uploader.expect((201,), "POST", f"{here}/files", headers=headers).leads_to


def send_another(uploader: Uploader, here: str):
    """Another file, with its bytes."""
    data = draw_image(101)
    headers = {"Upload-Length": str(len(data)), "Upload-Metadata": "path MTAxLmpwZw=="}
    return uploader.ask("POST", f"{here}/files", headers=TUS | PIECE | headers, content=data)


def send(uploader: Uploader, place: str, offset: int, data: bytes):
    headers = TUS | PIECE | {"Upload-Offset": str(offset)}
    return uploader.ask("PATCH", place, headers=headers, content=data)


def check_said(trouble: str, answer) -> None:
    """An error that names what is the matter and what to do."""
    assert answer.status == 507, answer.response.text
    assert matches(trouble, answer.json()["detail"]), answer.json()


def matches(trouble: str, sentence: str | None) -> bool:
    return re.search(SAID[trouble], sentence or "", re.IGNORECASE) is not None


def first_image(uploader: Uploader, collection_id: int) -> int:
    path = f"/api/v1/collections/{collection_id}/images?limit=1"
    return uploader.expect((200,), "GET", path).json()[0]["image_id"]


def run_again(uploader: Uploader, kind: str) -> None:
    """Press it for what failed."""
    with uploader.fleet.database.session() as session:
        failed = session.scalars(select(Job.id).filter_by(kind=kind, state="failed")).all()
    for job_id in failed:
        uploader.expect((303,), "POST", f"/work/{job_id}/again")


def await_import(fleet: Fleet, collection_id: int) -> None:
    """Until an import is under way."""
    deadline = time.monotonic() + WAIT_S
    while True:
        with fleet.database.session() as session:
            job = session.scalars(select(Job).filter_by(collection_id=collection_id)).one()
        if job.state == "running" and job.total_count:
            return
        assert time.monotonic() < deadline, job.state
        time.sleep(0.02)


def await_failures(fleet: Fleet, kinds: set[str]) -> dict[str, str | None]:
    """Until the newest job of each kind has failed; what each says."""
    deadline = time.monotonic() + WAIT_S
    while True:
        with fleet.database.session() as session:
            jobs = {job.kind: job for job in session.scalars(select(Job).order_by(Job.id))}
        if all(jobs[kind].state == "failed" for kind in kinds):
            return {kind: jobs[kind].problem for kind in kinds}
        states = {kind: (jobs[kind].state, jobs[kind].step) for kind in kinds}
        assert time.monotonic() < deadline, states
        time.sleep(0.1)
