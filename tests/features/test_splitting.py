"""One build by several workers: every image once, whoever dies, and the bytes of a lone one."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from sqlalchemy import func, select

from app.database import PROJECT, Database
from app.engine.index import VECTORS
from app.errors import RarefindError
from app.indexing import build_index, check_index, help_build
from app.jobs import add_job, calling_for_help, does_nothing_else_wait
from app.preparing import GONE
from app.settings import Settings
from app.splitting import parts_folder
from app.tables import Collection, Image, ImageIndex, IndexPart, Job, UnreadableImage
from tests.factories import make_collection
from tests.stand_ins import HashEmbedder, register

pytestmark = pytest.mark.slow

PART = 32
IMAGES = 12 * PART + 5  # the last part is a short one
BROKEN = 77  # the number of an image that can't be read

WORKER = """
    import logging, os, sys, time
    from datetime import UTC, datetime
    from pathlib import Path

    import pytest
    from sqlalchemy import create_engine

    from app import jobs
    from app.chores import CHORES
    from app.database import Database
    from app.jobs import Worker
    from app.settings import Settings
    from tests.stand_ins import HashEmbedder, register

    class SlowEmbedder(HashEmbedder):
        def embed_images(self, prepared):
            time.sleep(0.3)
            with open(sys.argv[3], "a") as said:
                said.write(f"{len(prepared)}\\n")
            return super().embed_images(prepared)

    def build(*asked):
        Path(sys.argv[3] + ".builds").touch()
        CHORES["index"](*asked)

    if __name__ == "__main__":
        url, settings = sys.argv[1], Settings.model_validate_json(sys.argv[2])
        with pytest.MonkeyPatch.context() as patch:
            register(patch, SlowEmbedder())
            patch.setattr("app.splitting.PART_IMAGES", 32)
            patch.setattr("app.splitting.NOTE_S", 0.1)
            patch.setattr("app.indexing.ASK_S", 0.2)
            patch.setattr("app.jobs.LOOK_S", 0.2)
            worker = Worker(Database(create_engine(url)), settings, CHORES | {"index": build})
            worker.start()
            print("ready", flush=True)
            time.sleep(600)
"""


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"workers": 1})


@pytest.fixture
def embedder(monkeypatch: pytest.MonkeyPatch) -> HashEmbedder:
    embedder = HashEmbedder()
    register(monkeypatch, embedder)
    monkeypatch.setattr("app.splitting.PART_IMAGES", PART)
    monkeypatch.setattr("app.indexing.ASK_S", 0.2)
    return embedder


@pytest.fixture
def collection(own_database: Database, tmp_path: Path) -> Collection:
    """A collection with images of noise, one of which can't be read."""
    return add_collection(own_database, tmp_path / "photos", name="Pond")


def add_collection(database: Database, folder: Path, *, name: str) -> Collection:
    folder.mkdir(exist_ok=True)
    with database.session() as session:
        collection = make_collection(session, name=name)
        for number in range(IMAGES):
            file = folder / f"{number}.png"
            if not file.exists():
                noise = np.random.default_rng(number).integers(0, 256, (20, 24, 3), dtype=np.uint8)
                PIL.Image.fromarray(noise).save(file)
                if number == BROKEN:
                    file.write_bytes(file.read_bytes()[:-600])
            session.add(
                Image(
                    collection_id=collection.id,
                    sha256=f"{number:064}",
                    path=file.name,
                    file=str(file),
                    size_bytes=file.stat().st_size,
                    format="PNG",
                    width=24,
                    height=20,
                )
            )
    return collection


def build_alone(database: Database, settings: Settings, tmp_path: Path) -> bytes:
    """The vectors of a build that nobody shares or disturbs, of the same files."""
    apart = add_collection(database, tmp_path / "photos", name="Alone")
    row = build_index(database, apart.id, settings=settings, embedder="hash")
    return (settings.home / "indexes" / str(row.id) / VECTORS).read_bytes()


def assert_same(database: Database, settings: Settings, row: ImageIndex, alone: bytes) -> None:
    """Every image but the broken one is there once, with the bytes of a lone build."""
    folder = settings.home / "indexes" / str(row.id)
    assert (folder / VECTORS).read_bytes() == alone
    check_index(row, settings)
    with database.session() as session:
        own = select(Image.id).filter_by(collection_id=row.collection_id)
        wanted = session.scalars(own.where(Image.path != f"{BROKEN}.png").order_by(Image.id)).all()
        assert np.load(folder / "image_ids.npy").tolist() == wanted
        [left_out] = session.scalars(select(UnreadableImage).filter_by(index_id=row.id))
        assert "truncated" in left_out.reason
        assert session.scalar(select(func.count()).select_from(IndexPart)) == 0
    assert row.image_count == row.done_count == IMAGES - 1
    assert not parts_folder(settings, row.id).exists()


@contextmanager
def working(database: Database, settings: Settings, folder: Path, name: str) -> Iterator["Working"]:
    script = folder / "worker.py"
    script.write_text(textwrap.dedent(WORKER))
    url = database.bind.engine.url.render_as_string(hide_password=False)
    said = folder / f"{name}.txt"
    said.touch()
    process = subprocess.Popen(
        [sys.executable, str(script), url, settings.model_dump_json(), str(said)],
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.readline()
    try:
        yield Working(process, said)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


class Working:
    """A worker, and how many images it has embedded."""

    def __init__(self, process: subprocess.Popen[bytes], said: Path) -> None:
        self.process = process
        self._said = said

    @property
    def count(self) -> int:
        return sum(map(int, self._said.read_text().split()))

    @property
    def builds(self) -> bool:
        """Whether it does the job itself, and does not only help."""
        return self._said.with_name(f"{self._said.name}.builds").exists()

    def die(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def wait_until(is_so: Callable[[], object], *, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < until, "did not come true"
        time.sleep(0.02)


def ask(database: Database, collection: Collection) -> int:
    with database.session() as session:
        job = add_job(session, "index", collection_id=collection.id, person=None, embedder="hash")
        return job.id


def is_done(database: Database, job_id: int) -> bool:
    with database.session() as session:
        job = session.get_one(Job, job_id)
        assert job.state not in ("failed", "stopped"), job.problem
        return job.state == "done"


def get_built(database: Database, collection: Collection) -> ImageIndex:
    with database.session() as session:
        [row] = session.scalars(select(ImageIndex).filter_by(collection_id=collection.id)).all()
    return row


@pytest.mark.parametrize("who_dies", ["helper", "builder"])
def test_of_two_workers_on_one_build_one_is_killed(
    who_dies: str,
    own_database: Database,
    settings: Settings,
    embedder: HashEmbedder,
    collection: Collection,
    tmp_path: Path,
) -> None:
    alone = build_alone(own_database, settings, tmp_path)
    with (
        working(own_database, settings, tmp_path, "one") as one,
        working(own_database, settings, tmp_path, "other") as other,
    ):
        job_id = ask(own_database, collection)
        wait_until(lambda: one.builds or other.builds)
        builder, helper = (one, other) if one.builds else (other, one)
        wait_until(lambda: helper.count >= 2 * PART and builder.count)
        assert not helper.builds
        (helper if who_dies == "helper" else builder).die()
        assert not is_done(own_database, job_id)
        wait_until(lambda: is_done(own_database, job_id))
        embedded = builder.count + helper.count
    assert_same(own_database, settings, get_built(own_database, collection), alone)
    # A kill loses the part under way, and those whose images were read ahead.
    assert IMAGES - 1 <= embedded <= IMAGES + 4 * PART


def test_a_build_alone_is_the_same_in_parts(
    own_database: Database,
    settings: Settings,
    embedder: HashEmbedder,
    collection: Collection,
    tmp_path: Path,
) -> None:
    alone = build_alone(own_database, settings, tmp_path)
    embedder.embedded_count = 0
    told: list[tuple[int, int]] = []
    with calling_for_help(own_database) as call_for_help:
        row = build_index(
            own_database,
            collection.id,
            settings=settings,
            embedder="hash",
            progress=lambda done, total: told.append((done, total)),
            call_for_help=call_for_help,
        )
    assert embedder.embedded_count == IMAGES - 1
    assert_same(own_database, settings, row, alone)
    done = [one for one, _ in told]
    assert done == sorted(done)
    assert done[-1] == IMAGES
    assert {total for _, total in told} == {IMAGES}
    with own_database.session() as session:  # nobody came; nobody need come any more
        assert set(session.scalars(select(Job.state).filter_by(kind="help"))) == {"done"}


def test_few_images_are_not_divided(
    own_database: Database,
    settings: Settings,
    embedder: HashEmbedder,
    collection: Collection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("app.splitting.PART_IMAGES", IMAGES)
    called: list[ImageIndex] = []
    build_index(
        own_database,
        collection.id,
        settings=settings,
        embedder="hash",
        call_for_help=called.append,
    )
    assert called == []


class Stopped(Exception):
    """What a worker that is told to stop raises."""


def begin(database: Database, collection: Collection, settings: Settings, *, until: int) -> None:
    """A divided build that ends after some images."""

    def stop(done: int, _total: int) -> None:
        if done >= until:
            raise Stopped

    with suppress(Stopped):
        build_index(
            database,
            collection.id,
            settings=settings,
            embedder="hash",
            progress=stop,
            call_for_help=lambda _: None,
        )


def rise(database: Database, collection: Collection) -> None:
    """As `_fail` leaves it unsaid: the process is gone, the build stands as begun."""
    with database.session() as session:
        [row] = session.scalars(select(ImageIndex).filter_by(collection_id=collection.id))
        row.state = "building"


def test_helpers_finish_what_the_builder_left_and_it_only_joins(
    own_database: Database,
    settings: Settings,
    embedder: HashEmbedder,
    collection: Collection,
    tmp_path: Path,
) -> None:
    alone = build_alone(own_database, settings, tmp_path)
    begin(own_database, collection, settings, until=5 * PART)
    rise(own_database, collection)
    row = get_built(own_database, collection)
    embedder.embedded_count = 0
    help_build(
        own_database, row.id, settings=settings, go_on=lambda: True, progress=lambda *_: None
    )
    assert embedder.embedded_count <= IMAGES - 5 * PART
    embedder.embedded_count = 0
    made = build_index(own_database, collection.id, settings=settings, embedder="hash")
    assert embedder.embedded_count == 0
    assert made.id == row.id
    assert_same(own_database, settings, made, alone)


def test_a_helper_that_sees_no_originals_leaves_them_to_others(
    own_database: Database,
    settings: Settings,
    embedder: HashEmbedder,
    collection: Collection,
    tmp_path: Path,
) -> None:
    alone = build_alone(own_database, settings, tmp_path)
    begin(own_database, collection, settings, until=5 * PART)
    rise(own_database, collection)
    row = get_built(own_database, collection)
    photos = tmp_path / "photos"
    photos.rename(tmp_path / "away")
    with pytest.raises(RarefindError, match="does not see all originals"):
        help_build(
            own_database, row.id, settings=settings, go_on=lambda: True, progress=lambda *_: None
        )
    (tmp_path / "away").rename(photos)
    made = build_index(own_database, collection.id, settings=settings, embedder="hash")
    assert_same(own_database, settings, made, alone)
    with own_database.session() as session:
        assert GONE not in session.scalars(select(UnreadableImage.reason)).all()


def test_vectors_of_a_part_that_are_lost_are_made_anew(
    own_database: Database,
    settings: Settings,
    embedder: HashEmbedder,
    collection: Collection,
    tmp_path: Path,
) -> None:
    alone = build_alone(own_database, settings, tmp_path)
    begin(own_database, collection, settings, until=5 * PART)
    lost = sorted(parts_folder(settings, get_built(own_database, collection).id).iterdir())[1]
    lost.unlink()
    with pytest.raises(RarefindError, match="are gone"):
        build_index(own_database, collection.id, settings=settings, embedder="hash")
    made = build_index(own_database, collection.id, settings=settings, embedder="hash")
    assert_same(own_database, settings, made, alone)


def test_an_image_that_was_removed_meanwhile_is_left_out(
    own_database: Database, settings: Settings, embedder: HashEmbedder, collection: Collection
) -> None:
    begin(own_database, collection, settings, until=5 * PART)
    with own_database.session() as session:
        [gone] = session.scalars(
            select(Image).filter_by(collection_id=collection.id, path=f"{3 * PART}.png")
        )
        gone.removed_at = func.now()
    embedder.embedded_count = 0
    made = build_index(own_database, collection.id, settings=settings, embedder="hash")
    assert made.image_count == IMAGES - 2
    assert embedder.embedded_count < IMAGES - 2 * PART  # parts before it stay as they are
    index = np.load(settings.home / "indexes" / str(made.id) / "image_ids.npy")
    assert gone.id not in index.tolist()
    assert len(set(index.tolist())) == len(index)


def test_who_helps_gives_way_to_what_waits(
    own_database: Database, settings: Settings, collection: Collection, tmp_path: Path
) -> None:
    with own_database.session() as session:
        assert does_nothing_else_wait(session)
        own = add_job(session, "index", collection_id=collection.id, person=None, embedder="a")
        own.state = "running"
        add_job(session, "index", collection_id=collection.id, person=None, embedder="b")
        session.flush()
        assert does_nothing_else_wait(session)  # that one has to wait for the first
        other = make_collection(session, name="Lake")
        add_job(session, "index", collection_id=other.id, person=None, embedder="a")
        assert not does_nothing_else_wait(session)
