"""Servers and workers killed with -9 at random points of upload, import and indexing.

Not part of the usual run: `make kills`. The seed is printed; KILLS_SEED=… plays the same plan
again, as far as a machine repeats its timing, and KILLS=… sets how many kills there are.
"""

import base64
import io
import os
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import PIL.Image
import pytest
from sqlalchemy import create_engine, func, select, text

from app.database import Database, psycopg_url
from app.engine.index import open_index
from app.tables import Collection, Image, ImageIndex, ImagePath, Job, Upload

pytestmark = [pytest.mark.kills, pytest.mark.timeout(3_600)]

RAREFIND = Path(sys.executable).parent / "rarefind"
LOOSE, ZIPPED = 160, 240  # images sent one by one, and in a zip
PIECE_BYTES = 60_000  # small, so that a kill finds many files begun
KILLS_A_COLLECTION = 5
PHASES = ("upload", "importing", "indexing")
PATIENCE_S = 300


@dataclass
class Fleet:
    """A server that does no long work, and two workers, on one database and one data folder."""

    home: Path
    url: str
    database: Database
    processes: dict[str, subprocess.Popen] = field(default_factory=dict)
    address: str = ""

    def start(self, name: str) -> None:
        port = self.address.rpartition(":")[2] or "0"
        command = ["serve", "--no-worker", "--port", port] if name == "server" else ["worker"]
        environment = {
            "RAREFIND_HOME": str(self.home),
            "DATABASE_URL": self.url,
            "OMP_NUM_THREADS": "1",
            "RAREFIND_WORKERS": "1",
        }
        with (self.home / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [RAREFIND, *command],
                env=os.environ | environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def sign_in(self) -> None:
        log = self.home / "server.log"
        deadline = time.monotonic() + PATIENCE_S
        while not (found := re.findall(r"http://\S+/sign-in\?token=\S+", log.read_text())):
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        self.address = found[-1].split("/sign-in")[0]
        self.client = httpx.Client(base_url=self.address, follow_redirects=True, timeout=30)
        assert self.client.get(found[-1]).status_code == 200

    def kill(self, name: str) -> None:
        self.processes[name].kill()
        self.processes[name].wait()

    def close(self) -> None:
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=30)
            process.kill()
            process.wait()
        self.client.close()

    def ask(self, method: str, path: str, **more) -> httpx.Response:
        """A request, again while the server is away."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                answer = self.client.request(method, path, **more)
                if answer.status_code not in (423, 503):
                    return answer
            except httpx.TransportError:
                pass
            assert time.monotonic() < deadline, f"{method} {path}"
            time.sleep(0.1)


def draw(number: int) -> bytes:
    """An image of its own for each number."""
    rng = np.random.default_rng(number)
    small = rng.integers(0, 255, (12, 16, 3), dtype=np.uint8)
    picture = PIL.Image.fromarray(small).resize((320, 240), PIL.Image.Resampling.BICUBIC)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=90)
    return file.getvalue()


def make_files() -> dict[str, bytes]:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for number in range(ZIPPED):
            archive.writestr(f"zipped/{number:04}.jpg", draw(LOOSE + number))
    loose = {f"card/{number:04}.jpg": draw(number) for number in range(LOOSE)}
    return {"card.zip": packed.getvalue()} | loose


def upload(fleet: Fleet, name: str, files: dict[str, bytes], arrived: list[str]) -> int:
    """Send everything as a browser does, through any number of kills; the collection's id."""
    page = fleet.ask("POST", "/collections", data={"name": name, "where": "here"})
    if page.status_code == 422:  # the server was killed after it had committed, before it said so
        with fleet.database.session() as session:
            row = session.scalars(select(Upload).order_by(Upload.id.desc())).first()
            here = f"/uploads/{row.id}"
    else:
        here = page.url.path
    for path, data in files.items():
        send(fleet, here, path, data)
        arrived.append(path)
    while True:
        page = fleet.ask("POST", f"{here}/finish")
        if page.url.path.startswith("/collections/"):
            return int(page.url.path.rsplit("/", 1)[1])
        # Not found any more: it was finished before the server was killed.
        assert page.status_code == 404, page.text
        with fleet.database.session() as session:
            return session.scalars(select(Collection.id).filter_by(name=name)).one()


def send(fleet: Fleet, here: str, path: str, data: bytes) -> None:
    tus = {"Tus-Resumable": "1.0.0", "Accept": "application/json"}
    metadata = f"path {base64.b64encode(path.encode()).decode()}"
    made = fleet.ask(
        "POST",
        f"{here}/files",
        headers=tus | {"Upload-Length": str(len(data)), "Upload-Metadata": metadata},
    )
    assert made.status_code == 201, made.text
    address, offset = made.headers["location"], int(made.headers["upload-offset"])
    piece = tus | {"Content-Type": "application/offset+octet-stream"}
    while offset < len(data):
        answer = fleet.ask(
            "PATCH",
            address,
            headers=piece | {"Upload-Offset": str(offset)},
            content=data[offset : offset + PIECE_BYTES],
        )
        if answer.status_code == 409:
            answer = fleet.ask("HEAD", address, headers=tus)
        assert answer.status_code in (200, 204), answer.text
        offset = int(answer.headers["upload-offset"])


class Killer(threading.Thread):
    """Waits for a phase, and a moment of chance in it; kills, and starts the killed again."""

    def __init__(self, fleet, database, plan, rng, arrived, file_count):
        super().__init__(daemon=True)
        self.fleet, self.database, self.plan, self.rng = fleet, database, plan, rng
        self.arrived, self.file_count = arrived, file_count
        self.done: list[str] = []
        self.ended = threading.Event()

    def run(self) -> None:
        for phase, share in self.plan:
            if not self.await_moment(phase, share):
                continue
            victims = (
                ["server"]
                if phase == "upload"
                else self.rng.choice(
                    [["worker-1"], ["worker-2"], ["worker-1", "worker-2"], ["server", "worker-1"]]
                )
            )
            for name in victims:
                self.fleet.kill(name)
            self.done.append(f"{phase}: {' and '.join(victims)}")
            time.sleep(self.rng.uniform(0, 0.5))
            for name in victims:
                self.fleet.start(name)

    def await_moment(self, phase: str, share: float) -> bool:
        """Whether the phase came, and was `share` through."""
        while not self.ended.is_set():
            if phase == "upload":
                if len(self.arrived) >= share * self.file_count:
                    time.sleep(self.rng.uniform(0, 0.05))
                    return len(self.arrived) < self.file_count
            else:
                with self.database.session() as session:
                    job = session.scalars(select(Job).order_by(Job.id.desc())).first()
                is_unfinished = job is not None and job.state in ("waiting", "running")
                if is_unfinished and job.step == phase:
                    time.sleep(self.rng.uniform(0, 2.5) * share)
                    return True
                if is_unfinished and phase == "importing" and job.step == "indexing":
                    return False
            time.sleep(0.02)
        return False


def await_job(database: Database, collection_id: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        with database.session() as session:
            jobs = session.scalars(select(Job).filter_by(collection_id=collection_id)).all()
        if jobs and all(job.state == "done" for job in jobs):
            return
        states = [(job.kind, job.state, job.step, job.problem) for job in jobs]
        assert not any(job.state in ("failed", "stopped") for job in jobs), states
        assert time.monotonic() < deadline, states
        time.sleep(0.1)


def read_vectors(database: Database, home: Path, collection_id: int) -> dict[str, np.ndarray]:
    """The vectors of a collection's one ready index, by the content of their image."""
    with database.session() as session:
        row = session.scalars(
            select(ImageIndex).filter_by(collection_id=collection_id, state="ready")
        ).one()
        shas = dict(
            session.execute(
                select(Image.id, Image.sha256).filter_by(collection_id=collection_id)
            ).all()
        )
    index = open_index(home / "indexes" / str(row.id), verify=True)
    return {
        shas[int(image_id)]: np.array(vector)
        for image_id, vector in zip(index.image_ids, index.vectors, strict=True)
    }


def await_empty_queue(database: Database) -> None:
    """A job is done in its row before its worker takes it from the queue.

    If that worker is killed in between, another finds the job done, and takes it from there.
    """
    deadline = time.monotonic() + PATIENCE_S
    while True:
        with database.session() as session:
            queued = session.scalar(text("SELECT count(*) FROM procrastinate_jobs"))
        if queued == 0:
            return
        assert time.monotonic() < deadline, f"{queued} jobs are left in the queue"
        time.sleep(0.1)


def check(database: Database, home: Path, collection_id: int, files: dict[str, bytes]) -> None:
    """Every image once, with its original; nothing left over; the one job done."""
    await_empty_queue(database)
    expected = {path for path in files if path.endswith(".jpg")}
    expected |= {f"zipped/{number:04}.jpg" for number in range(ZIPPED)}
    with database.session() as session:
        own = {"collection_id": collection_id}
        images = session.scalars(select(Image).filter_by(**own)).all()
        paths = session.scalars(select(ImagePath.path).filter_by(**own)).all()
        jobs = session.scalars(select(Job).filter_by(**own)).all()
        uploads = session.scalar(
            select(func.count()).select_from(Upload).filter_by(state="done", **own)
        )
    assert sorted(paths) == sorted(expected)
    assert len(images) == len({image.sha256 for image in images}) == LOOSE + ZIPPED
    for image in images:
        assert Path(image.file).stat().st_size == image.size_bytes
    assert [(job.kind, job.state) for job in jobs] == [("import", "done")]
    assert uploads == 1
    assert list((home / "uploads").glob("*/*")) == []
    assert list((home / "originals" / str(collection_id)).glob("*.part")) == []
    assert list((home / "indexes").glob("*.building")) == []


def test_nothing_is_lost_or_done_twice_whatever_is_killed(own_database_url, capsys):
    seed = int(os.environ.get("KILLS_SEED", random.randrange(10**6)))
    wanted = int(os.environ.get("KILLS", "30"))
    rng = random.Random(seed)
    files = make_files()
    database = Database(create_engine(psycopg_url(own_database_url)))
    killed: list[str] = []

    def say(line: str) -> None:
        with capsys.disabled():
            print(line, flush=True)  # noqa: T201

    say(f"\nKILLS_SEED={seed}")
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rarefind-kills-")))
        fleet = Fleet(home, own_database_url, database)
        stack.callback(fleet.close)
        for name in ("server", "worker-1", "worker-2"):
            fleet.start(name)
        fleet.sign_in()

        undisturbed = upload(fleet, "Undisturbed", files, [])
        await_job(database, undisturbed)
        check(database, home, undisturbed, files)
        vectors = read_vectors(database, home, undisturbed)
        worst = 0.0
        number = 0
        while len(killed) < wanted:
            number += 1
            phases = sorted(rng.choices(PHASES, k=KILLS_A_COLLECTION), key=PHASES.index)
            plan = [(phase, rng.random()) for phase in phases]
            shares = iter(sorted(share for phase, share in plan if phase == "upload"))
            plan = [(p, next(shares) if p == "upload" else share) for p, share in plan]
            arrived: list[str] = []
            killer = Killer(fleet, database, plan, rng, arrived, len(files))
            killer.start()
            collection_id = upload(fleet, f"Season {number}", files, arrived)
            await_job(database, collection_id)
            killer.ended.set()
            killer.join()
            killed += killer.done
            check(database, home, collection_id, files)
            made = read_vectors(database, home, collection_id)
            assert made.keys() == vectors.keys()
            worst = max(worst, *(float(np.abs(made[sha] - vectors[sha]).max()) for sha in vectors))
            say(f"{len(killed)} kills; Season {number}: {'; '.join(killer.done)}")
        by_phase = {phase: sum(one.startswith(phase) for one in killed) for phase in PHASES}
        say(f"{len(killed)} kills {by_phase}; vectors differ by at most {worst:.1e}")
    assert worst < 1e-5
    database.close()
