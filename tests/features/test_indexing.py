"""Indexing: every image its own vector, whatever stops, breaks, comes or goes."""

import io
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import active_children
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageCms
import PIL.ImageOps
import pytest
from sqlalchemy import delete, select, text, update
from sqlalchemy.orm import Session

from app.database import PROJECT, Database
from app.engine.embedders import (
    EMBEDDERS,
    Pixels,
    Preparation,
    RegisteredEmbedder,
    load_embedder,
)
from app.engine.index import MANIFEST, VECTORS, VectorIndex, read_manifest
from app.errors import (
    BadInput,
    EmbedderMismatch,
    IndexNotUsable,
    NoIndexYet,
    RarefindError,
    RefusedPhoto,
    SourceNotUsable,
)
from app.importing import photo_path, read_photo
from app.indexes import list_indexes
from app.indexing import (
    INDEX_LOCK,
    MOST_LOADED,
    PLAN,
    LoadedEmbedders,
    OpenIndexes,
    build_index,
    embed_photo,
    get_current_index,
    list_unfinished_builds,
)
from app.preparing import Original, prepare_files
from app.settings import Settings
from app.tables import Collection, Image, ImageIndex, Photo, UnreadableImage
from app.workers import Readers
from tests.factories import make_collection, make_image_file, make_person
from tests.stand_ins import HashEmbedder, register

Build = Callable[..., ImageIndex]
CHUNK = 20


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"workers": 1})


@pytest.fixture
def embedder(monkeypatch: pytest.MonkeyPatch) -> HashEmbedder:
    embedder = HashEmbedder()
    register(monkeypatch, embedder)
    monkeypatch.setattr("app.indexing.CHUNK_IMAGES", CHUNK)
    return embedder


@pytest.fixture
def collection(database: Database) -> Collection:
    with database.session() as session:
        return make_collection(session)


@pytest.fixture
def build(
    database: Database, collection: Collection, settings: Settings, embedder: HashEmbedder
) -> Build:
    """Builds the test collection's index with the stand-in embedder."""

    def build(**options: object) -> ImageIndex:
        return build_index(database, collection.id, settings=settings, embedder="hash", **options)

    return build


def add_images(
    database: Database, collection: Collection, folder: Path, numbers: range
) -> list[Image]:
    """Rows and files, as an import leaves them."""
    images = []
    with database.session() as session:
        for number in numbers:
            file = make_noise_file(folder / f"{number}.png", number)
            image = Image(
                collection_id=collection.id,
                sha256=f"{number:064}",
                path=file.name,
                file=str(file),
                size_bytes=file.stat().st_size,
                format="PNG",
                width=60,
                height=40,
            )
            session.add(image)
            images.append(image)
    return images


def make_noise_file(path: Path, number: int, *, width: int = 60) -> Path:
    """An image that even its small middle tells from every other."""
    noise = np.random.default_rng(number).integers(0, 256, (40, width, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(noise).save(path)
    return path


def open_row(settings: Settings, row: ImageIndex) -> VectorIndex:
    return OpenIndexes(settings).get(row)


def assert_own_vectors(index: VectorIndex, images: list[Image], embedder: HashEmbedder) -> None:
    """Exactly these images are there, each with the vector of its own file."""
    assert sorted(index.image_ids) == sorted(image.id for image in images)
    rows = index.rows_of([image.id for image in images])
    expected = [
        embedder.embed(embedder.prepare(PIL.Image.open(image.file).convert("RGB")))
        for image in images
    ]
    np.testing.assert_array_equal(index.vectors[rows], expected)


def get_row(database: Database, index_id: int) -> ImageIndex:
    with database.session() as session:
        return session.get_one(ImageIndex, index_id)


def list_left_out(database: Database, row: ImageIndex) -> dict[int, str]:
    with database.session() as session:
        rows = session.scalars(select(UnreadableImage).filter_by(index_id=row.id))
        return {row.image_id: row.reason for row in rows}


class Stopping(Exception):
    """What a server that stops raises from its progress."""


def stop_after(count: int) -> Callable[[int, int], None]:
    def progress(done: int, _total: int) -> None:
        if done >= count:
            raise Stopping

    return progress


# --- Building -----------------------------------------------------------------------------------


def test_every_image_gets_the_vector_of_its_own_file(
    database: Database,
    collection: Collection,
    settings: Settings,
    embedder: HashEmbedder,
    build: Build,
    tmp_path: Path,
) -> None:
    images = add_images(database, collection, tmp_path, range(70))
    heard: list[tuple[int, int]] = []
    row = build(progress=lambda done, total: heard.append((done, total)))
    assert_own_vectors(open_row(settings, row), images, embedder)
    assert (row.state, row.image_count, row.done_count) == ("ready", 70, 70)
    assert (row.embedder, row.revision, row.dimension) == ("hash", "hash:1", 24)
    assert row.ready_at is not None
    assert row.updated_at >= row.started_at
    assert heard == sorted(set(heard))
    assert heard[0] == (0, 70)
    assert heard[-1] == (70, 70)
    assert len(heard) == 4  # tasks of 16, recorded when at least 20 are done
    manifest = read_manifest(settings.home / "indexes" / str(row.id))
    assert (manifest.embedder, manifest.revision, manifest.count) == ("hash", "hash:1", 70)
    assert [folder.name for folder in (settings.home / "indexes").iterdir()] == [str(row.id)]
    assert not (settings.home / "indexes" / str(row.id) / PLAN).exists()


def test_only_new_images_are_embedded_and_the_earlier_index_stays(
    database: Database,
    collection: Collection,
    settings: Settings,
    embedder: HashEmbedder,
    build: Build,
    tmp_path: Path,
) -> None:
    images = add_images(database, collection, tmp_path, range(30))
    first = build()
    assert build().id == first.id  # nothing is new
    images += add_images(database, collection, tmp_path, range(30, 33))
    second = build()
    assert second.id > first.id
    assert embedder.embedded_count == 33
    assert_own_vectors(open_row(settings, second), images, embedder)
    assert_own_vectors(open_row(settings, first), images[:30], embedder)
    with database.session() as session:
        assert get_current_index(session, collection.id).id == second.id


def test_removed_images_are_left_out_without_embedding_anything(
    database: Database,
    collection: Collection,
    settings: Settings,
    embedder: HashEmbedder,
    build: Build,
    tmp_path: Path,
) -> None:
    images = add_images(database, collection, tmp_path, range(12))
    first = build()
    with database.session() as session:
        session.execute(delete(Image).filter_by(id=images[5].id))
    second = build()
    assert second.id != first.id
    assert embedder.embedded_count == 12
    assert_own_vectors(open_row(settings, second), images[:5] + images[6:], embedder)


def test_an_empty_collection_has_no_index(build: Build, embedder: HashEmbedder) -> None:
    with pytest.raises(NoIndexYet, match="no images"):
        build()


def test_an_unknown_embedder_is_refused_and_its_builds_end(
    database: Database, collection: Collection, settings: Settings
) -> None:
    with database.session() as session:
        row = ImageIndex(
            collection_id=collection.id,
            embedder="gone",
            revision="1",
            dimension=3,
            state="building",
            image_count=1,
        )
        session.add(row)
    with pytest.raises(BadInput, match="efficientnet-lite0"):
        build_index(database, collection.id, settings=settings, embedder="gone")
    assert get_row(database, row.id).state == "failed"
    assert list_unfinished_builds(database) == []


# --- Images that can't be read ------------------------------------------------------------------


def test_files_that_cannot_be_read_are_left_out_with_their_reasons(
    database: Database,
    collection: Collection,
    settings: Settings,
    embedder: HashEmbedder,
    build: Build,
    tmp_path: Path,
) -> None:
    images = add_images(database, collection, tmp_path, range(40))
    gone, text, cut, changed = images[3], images[17], images[18], images[39]
    Path(gone.file).unlink()
    Path(text.file).write_bytes(b"x" * text.size_bytes)
    header = Path(cut.file).read_bytes()[:40]
    Path(cut.file).write_bytes(header.ljust(cut.size_bytes, b"\xff"))
    Path(changed.file).write_bytes(Path(changed.file).read_bytes() + b"x")
    row = build()
    bad = (gone, text, cut, changed)
    good = [image for image in images if image not in bad]
    assert_own_vectors(open_row(settings, row), good, embedder)
    assert (row.state, row.image_count) == ("ready", 36)
    left_out = list_left_out(database, row)
    assert set(left_out) == {image.id for image in bad}
    assert "gone" in left_out[gone.id]
    assert "not a JPEG" in left_out[text.id]
    assert "decoded" in left_out[cut.id] or "read" in left_out[cut.id]
    assert "changed" in left_out[changed.id]
    assert build().id == row.id  # what can't be read is no reason for another index


def test_images_whose_disk_is_back_come_into_a_new_index(
    database: Database,
    collection: Collection,
    settings: Settings,
    embedder: HashEmbedder,
    build: Build,
    tmp_path: Path,
) -> None:
    images = add_images(database, collection, tmp_path / "disk", range(3))
    images += add_images(database, collection, tmp_path / "other", range(3, 6))
    (tmp_path / "disk").rename(tmp_path / "unplugged")
    first = build()
    assert first.image_count == 3
    (tmp_path / "unplugged").rename(tmp_path / "disk")
    second = build()
    assert embedder.embedded_count == 6
    assert_own_vectors(open_row(settings, second), images, embedder)
    assert list_left_out(database, second) == {}


def test_a_collection_of_which_nothing_can_be_read_fails_until_it_can(
    database: Database,
    collection: Collection,
    settings: Settings,
    embedder: HashEmbedder,
    build: Build,
    tmp_path: Path,
) -> None:
    images = add_images(database, collection, tmp_path / "disk", range(5))
    (tmp_path / "disk").rename(tmp_path / "unplugged")
    with pytest.raises(SourceNotUsable, match="disk"):
        build()
    with database.session() as session:
        row = session.scalars(select(ImageIndex)).one()
    assert row.state == "failed"
    assert "disk" in (row.problem or "")
    (tmp_path / "unplugged").rename(tmp_path / "disk")
    assert_own_vectors(open_row(settings, build()), images, embedder)


class CrashingPreparation(Preparation):
    """Ends its process on the one picture that is wider than high by 30."""

    def __call__(self, picture: PIL.Image.Image) -> Pixels:
        if picture.width - picture.height == 30:
            os._exit(11)
        return super().__call__(picture)


@pytest.mark.slow
def test_a_file_that_kills_its_reader_is_left_out_alone(
    database: Database,
    collection: Collection,
    settings: Settings,
    embedder: HashEmbedder,
    build: Build,
    tmp_path: Path,
) -> None:
    images = add_images(database, collection, tmp_path, range(40))
    hostile = make_noise_file(Path(images[18].file), 18, width=70)
    with database.session() as session:
        size_bytes = hostile.stat().st_size
        session.execute(update(Image).filter_by(id=images[18].id).values(size_bytes=size_bytes))
    embedder.prepare = CrashingPreparation(resize_side=12, crop_side=10)
    row = build()
    embedder.prepare = Preparation(resize_side=12, crop_side=10)
    assert_own_vectors(open_row(settings, row), images[:18] + images[19:], embedder)
    assert "ended the process" in list_left_out(database, row)[images[18].id]


@pytest.mark.slow
def test_a_reader_killed_while_a_chunk_is_recorded_moves_no_vector(
    database: Database,
    collection: Collection,
    settings: Settings,
    embedder: HashEmbedder,
    build: Build,
    tmp_path: Path,
) -> None:
    images = add_images(database, collection, tmp_path, range(160))
    killed: list[int] = []

    def kill_once(done: int, _total: int) -> None:
        if done and not killed:
            killed.extend(child.pid for child in active_children() if child.pid)
            os.kill(killed[0], signal.SIGKILL)
            time.sleep(0.15)  # busy meanwhile: the next files go to processes that are gone

    row = build(progress=kill_once)
    assert killed
    assert_own_vectors(open_row(settings, row), images, embedder)
    assert (row.image_count, row.done_count) == (160, 160)
    assert list_left_out(database, row) == {}


def test_a_build_that_waits_for_another_is_asked_whether_to_stop(
    own_database: Database, settings: Settings, embedder: HashEmbedder, tmp_path: Path
) -> None:
    with own_database.session() as session:
        collection = make_collection(session)
    add_images(own_database, collection, tmp_path, range(2))

    def stop_waiting(_done: int, total: int) -> None:
        if not total:
            raise Stopping

    key = {"lock": INDEX_LOCK, "collection": collection.id}
    with own_database.bind.connect() as other:  # as a process between two rows of its own
        other.execute(text("SELECT pg_advisory_lock(:lock, :collection)"), key)
        letting_go = threading.Timer(2, other.execute, [text("SELECT pg_advisory_unlock_all()")])
        letting_go.start()
        with pytest.raises(Stopping):
            build_index(
                own_database,
                collection.id,
                settings=settings,
                embedder="hash",
                progress=stop_waiting,
            )
        letting_go.cancel()
        letting_go.join()


def test_a_vector_that_is_none_leaves_its_image_out(
    database: Database,
    collection: Collection,
    settings: Settings,
    embedder: HashEmbedder,
    build: Build,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images = add_images(database, collection, tmp_path, range(5))
    flat = embedder.prepare(PIL.Image.open(images[2].file).convert("RGB"))
    embed = embedder.embed

    def embed_flat(pixels: Pixels) -> np.ndarray:
        vector = embed(pixels)
        return vector * np.nan if np.array_equal(pixels, flat) else vector

    monkeypatch.setattr(embedder, "embed", embed_flat)
    row = build()
    assert_own_vectors(open_row(settings, row), images[:2] + images[3:], embedder)
    assert set(list_left_out(database, row)) == {images[2].id}


# --- Builds that are cut off --------------------------------------------------------------------


def test_a_stopped_build_goes_on_where_it_was(
    own_database: Database, settings: Settings, embedder: HashEmbedder, tmp_path: Path
) -> None:
    with own_database.session() as session:
        collection = make_collection(session)
    images = add_images(own_database, collection, tmp_path, range(100))
    Path(images[4].file).unlink()

    def build(**options: object) -> ImageIndex:
        return build_index(
            own_database, collection.id, settings=settings, embedder="hash", **options
        )

    with pytest.raises(Stopping):
        build(progress=stop_after(30))
    with pytest.raises(NoIndexYet), own_database.session() as session:
        get_current_index(session, collection.id)
    [row] = list_rows(own_database)
    assert (row.state, row.done_count, row.problem) == ("building", 32, None)
    assert list_unfinished_builds(own_database) == [(collection.id, "hash")]
    embedder.embedded_count = 0
    finished = build()
    assert finished.id == row.id
    assert embedder.embedded_count == 100 - 32
    assert_own_vectors(open_row(settings, finished), images[:4] + images[5:], embedder)
    assert set(list_left_out(own_database, finished)) == {images[4].id}
    assert list_unfinished_builds(own_database) == []


def test_a_build_that_somebody_stopped_waits_for_a_new_call(
    own_database: Database, settings: Settings, embedder: HashEmbedder, tmp_path: Path
) -> None:
    with own_database.session() as session:
        collection = make_collection(session)
    images = add_images(own_database, collection, tmp_path, range(60))

    def stop(done: int, _total: int) -> None:
        if done:
            raise RarefindError("It was stopped.")

    with pytest.raises(RarefindError, match="stopped"):
        build_index(own_database, collection.id, settings=settings, embedder="hash", progress=stop)
    [row] = list_rows(own_database)
    assert (row.state, row.problem) == ("failed", "It was stopped.")
    assert list_unfinished_builds(own_database) == []
    done, embedder.embedded_count = row.done_count, 0
    finished = build_index(own_database, collection.id, settings=settings, embedder="hash")
    assert (finished.id, finished.problem) == (row.id, None)
    assert embedder.embedded_count == 60 - done < 60
    assert_own_vectors(open_row(settings, finished), images, embedder)


def list_rows(database: Database) -> list[ImageIndex]:
    with database.session() as session:
        return list(session.scalars(select(ImageIndex).order_by(ImageIndex.id)))


def test_images_added_while_a_build_was_cut_off_are_in_the_end_there_too(
    database: Database,
    collection: Collection,
    settings: Settings,
    embedder: HashEmbedder,
    build: Build,
    tmp_path: Path,
) -> None:
    images = add_images(database, collection, tmp_path, range(40))
    with pytest.raises(Stopping):
        build(progress=stop_after(20))
    images += add_images(database, collection, tmp_path, range(40, 45))
    embedder.embedded_count = 0
    row = build()
    assert embedder.embedded_count == 45 - 32
    assert_own_vectors(open_row(settings, row), images, embedder)


def test_images_removed_while_a_build_was_cut_off_are_not_there(
    database: Database,
    collection: Collection,
    settings: Settings,
    embedder: HashEmbedder,
    build: Build,
    tmp_path: Path,
) -> None:
    images = add_images(database, collection, tmp_path, range(40))
    with pytest.raises(Stopping):
        build(progress=stop_after(20))
    with database.session() as session:
        session.execute(delete(Image).filter_by(id=images[7].id))
    assert_own_vectors(open_row(settings, build()), images[:7] + images[8:], embedder)


def test_a_failing_build_says_why_and_is_taken_up_again(
    database: Database,
    collection: Collection,
    settings: Settings,
    embedder: HashEmbedder,
    build: Build,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images = add_images(database, collection, tmp_path, range(100))
    embed_images = embedder.embed_images

    def embed_or_fail(prepared: Pixels) -> np.ndarray:
        if embedder.embedded_count >= 60:
            raise OSError(28, "No space left on device")
        return embed_images(prepared)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="space"):
        patch.setattr(embedder, "embed_images", embed_or_fail)
        build()
    [row] = list_rows(database)
    assert row.state == "failed"
    assert "data folder is full" in (row.problem or "")
    assert row.done_count >= 32
    embedder.embedded_count = 0
    finished = build()
    assert (finished.id, finished.state, finished.problem) == (row.id, "ready", None)
    assert embedder.embedded_count == 100 - row.done_count
    assert_own_vectors(open_row(settings, finished), images, embedder)


def test_a_build_by_another_revision_is_not_gone_on_with(
    database: Database,
    collection: Collection,
    settings: Settings,
    embedder: HashEmbedder,
    build: Build,
    tmp_path: Path,
) -> None:
    images = add_images(database, collection, tmp_path, range(40))
    with pytest.raises(Stopping):
        build(progress=stop_after(20))
    embedder.revision = "hash:2"
    row = build()
    old, new = list_rows(database)
    assert (old.state, new.id, new.revision) == ("failed", row.id, "hash:2")
    assert_own_vectors(open_row(settings, row), images, embedder)
    assert [folder.name for folder in (settings.home / "indexes").iterdir()] == [str(row.id)]


@pytest.mark.parametrize(
    "moment",
    ["renamed", "written", "manifest half written", "gaps closed", "nothing written"],
)
def test_a_kill_while_finishing_loses_no_vector(
    database: Database,
    collection: Collection,
    settings: Settings,
    embedder: HashEmbedder,
    build: Build,
    tmp_path: Path,
    moment: str,
) -> None:
    images = add_images(database, collection, tmp_path, range(25))
    Path(images[4].file).unlink()
    row = build()
    folder = settings.home / "indexes" / str(row.id)
    building = folder.with_name(f"{row.id}.building")
    with database.session() as session:
        values = {"state": "building", "image_count": 25, "done_count": 25, "ready_at": None}
        session.execute(update(ImageIndex).filter_by(id=row.id).values(**values))
    np.save(folder / PLAN, np.array([image.id for image in images]))
    if moment != "renamed":
        folder.rename(building)
    if moment == "manifest half written":
        (building / MANIFEST).write_text((building / MANIFEST).read_text()[:40])
    if moment in ("gaps closed", "nothing written"):
        for name in (MANIFEST, "image_ids.npy", "mean.npy", "index.faiss"):
            (building / name).unlink()
    if moment == "nothing written":
        vectors = np.load(building / VECTORS)
        np.save(building / VECTORS, np.insert(vectors, 4, 0, axis=0))
    embedder.embedded_count = 0
    finished = build()
    assert (finished.id, finished.state, finished.image_count) == (row.id, "ready", 24)
    assert embedder.embedded_count == 0
    assert_own_vectors(open_row(settings, finished), images[:4] + images[5:], embedder)
    assert [path.name for path in folder.parent.iterdir()] == [str(row.id)]


@pytest.mark.parametrize("damage", ["no folder", "no vectors", "other shape", "no numbers"])
def test_an_unusable_building_folder_is_begun_again(
    database: Database,
    collection: Collection,
    settings: Settings,
    embedder: HashEmbedder,
    build: Build,
    tmp_path: Path,
    damage: str,
) -> None:
    images = add_images(database, collection, tmp_path, range(40))
    with pytest.raises(Stopping):
        build(progress=stop_after(20))
    [building] = (settings.home / "indexes").iterdir()
    if damage == "no folder":
        shutil.rmtree(building)
    elif damage == "no vectors":
        (building / VECTORS).unlink()
    elif damage == "other shape":
        np.save(building / VECTORS, np.zeros((40, 3), np.float32))
    else:
        (building / PLAN).write_bytes(b"")
    assert_own_vectors(open_row(settings, build()), images, embedder)


KILLED_BUILD = """
    import sys
    from pathlib import Path

    import pytest

    from app.database import Database
    from app.indexing import build_index
    from app.settings import Settings
    from sqlalchemy import create_engine
    from tests.stand_ins import HashEmbedder, register

    if __name__ == "__main__":
        url, home, collection_id = sys.argv[1:]
        embedder = HashEmbedder()
        with pytest.MonkeyPatch.context() as patch:
            register(patch, embedder)
            patch.setattr("app.indexing.CHUNK_IMAGES", 20)
            build_index(
                Database(create_engine(url)),
                int(collection_id),
                settings=Settings(home=Path(home), workers=1),
                embedder="hash",
                progress=lambda done, total: print(done, flush=True),
            )
"""


@pytest.mark.slow
def test_a_killed_build_goes_on_where_it_was(
    own_database: Database,
    settings: Settings,
    embedder: HashEmbedder,
    tmp_path: Path,
) -> None:
    with own_database.session() as session:
        collection = make_collection(session)
    images = add_images(own_database, collection, tmp_path, range(2_000))
    script = tmp_path / "killed_build.py"
    script.write_text(textwrap.dedent(KILLED_BUILD))
    url = own_database.bind.engine.url.render_as_string(hide_password=False)
    process = subprocess.Popen(
        [sys.executable, str(script), url, str(settings.home), str(collection.id)],
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    while int(process.stdout.readline()) < 100:
        pass
    assert list_unfinished_builds(own_database) == []  # it runs: not to be taken up
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    [row] = list_rows(own_database)
    assert row.state == "building"
    assert 100 <= row.done_count < 2_000
    wait_until(lambda: list_unfinished_builds(own_database) == [(collection.id, "hash")])
    finished = build_index(own_database, collection.id, settings=settings, embedder="hash")
    assert finished.id == row.id
    assert embedder.embedded_count == 2_000 - row.done_count
    assert_own_vectors(open_row(settings, finished), images, embedder)


def wait_until(is_so: Callable[[], bool]) -> None:
    """The database needs a moment to see that a process is gone."""
    for _ in range(500):
        if is_so():
            return
        time.sleep(0.02)
    raise AssertionError("did not come true")


def test_two_builds_at_once_make_one_index(
    own_database: Database, settings: Settings, embedder: HashEmbedder, tmp_path: Path
) -> None:
    with own_database.session() as session:
        collection = make_collection(session)
    images = add_images(own_database, collection, tmp_path, range(60))
    second_waits = threading.Event()
    rows: list[ImageIndex] = []

    def build_second() -> None:
        rows.append(
            build_index(
                own_database,
                collection.id,
                settings=settings,
                embedder="hash",
                progress=lambda *_: second_waits.set(),
            )
        )

    second = threading.Thread(target=build_second)

    def start_second(done: int, total: int) -> None:
        if not second.ident:
            second.start()
        assert second_waits.wait(60)

    row = build_index(
        own_database, collection.id, settings=settings, embedder="hash", progress=start_second
    )
    second.join()
    assert [row.id for row in list_rows(own_database)] == [row.id] == [rows[0].id]
    assert embedder.embedded_count == 60
    assert_own_vectors(open_row(settings, row), images, embedder)


# --- Opening ------------------------------------------------------------------------------------


def test_open_indexes_are_kept_and_the_least_recently_used_is_closed(
    database: Database,
    collection: Collection,
    settings: Settings,
    build: Build,
    tmp_path: Path,
) -> None:
    rows = []
    for number in range(3):
        add_images(database, collection, tmp_path, range(number * 4, number * 4 + 4))
        rows.append(build())
    two_gb = (8 + 12) * 24 * 4 / 1e9  # vectors of the second and the third
    indexes = OpenIndexes(settings.model_copy(update={"open_indexes_gb": two_gb}))
    first, second = indexes.get(rows[0]), indexes.get(rows[1])
    assert indexes.get(rows[0]) is first
    third = indexes.get(rows[2])  # closes the second
    assert indexes.get(rows[2]) is third
    assert indexes.get(rows[0]) is first
    assert indexes.get(rows[1]) is not second
    alone = OpenIndexes(settings.model_copy(update={"open_indexes_gb": 1e-9}))
    assert alone.get(rows[2]) is alone.get(rows[2])  # one is always kept


@pytest.mark.parametrize("damage", ["no folder", "manifest", "vectors cut", "another's"])
def test_a_damaged_index_is_not_opened_and_is_built_anew(
    database: Database,
    collection: Collection,
    settings: Settings,
    embedder: HashEmbedder,
    build: Build,
    tmp_path: Path,
    damage: str,
) -> None:
    images = add_images(database, collection, tmp_path, range(10))
    row = build()
    folder = settings.home / "indexes" / str(row.id)
    if damage == "no folder":
        shutil.rmtree(folder)
    elif damage == "manifest":
        (folder / MANIFEST).write_text("{}")
    elif damage == "vectors cut":
        (folder / VECTORS).write_bytes((folder / VECTORS).read_bytes()[:300])
    else:
        text = (folder / MANIFEST).read_text()
        (folder / MANIFEST).write_text(text.replace("hash:1", "hash:0"))
    with pytest.raises(IndexNotUsable):
        open_row(settings, row)
    embedder.embedded_count = 0
    again = build()
    assert again.id > row.id
    assert embedder.embedded_count == 10
    assert get_row(database, row.id).state == "failed"
    assert_own_vectors(open_row(settings, again), images, embedder)


def test_vectors_are_not_copied_from_an_index_with_a_flipped_bit(
    database: Database,
    collection: Collection,
    settings: Settings,
    embedder: HashEmbedder,
    build: Build,
    tmp_path: Path,
) -> None:
    images = add_images(database, collection, tmp_path, range(10))
    file = settings.home / "indexes" / str(build().id) / VECTORS
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    images += add_images(database, collection, tmp_path, range(10, 11))
    assert_own_vectors(open_row(settings, build()), images, embedder)


def test_an_unfinished_index_is_not_opened(database: Database, settings: Settings) -> None:
    row = ImageIndex(id=1, state="building", embedder="hash", revision="hash:1")
    with pytest.raises(NoIndexYet):
        open_row(settings, row)


def test_the_current_index_is_the_newest_of_the_embedder_asked_for(
    session: Session, collection: Collection
) -> None:
    def add(embedder: str, state: str) -> ImageIndex:
        row = ImageIndex(
            collection_id=collection.id,
            embedder=embedder,
            revision="1",
            dimension=3,
            state=state,
            image_count=1,
        )
        session.add(row)
        session.flush()
        return row

    _, b, c, _ = add("x", "ready"), add("x", "ready"), add("y", "ready"), add("x", "building")
    assert get_current_index(session, collection.id).id == c.id
    assert get_current_index(session, collection.id, embedder="x").id == b.id
    with pytest.raises(NoIndexYet):
        get_current_index(session, collection.id, embedder="z")


def make_loadable(
    monkeypatch: pytest.MonkeyPatch, name: str, load: Callable[[], HashEmbedder]
) -> ImageIndex:
    """An index row of an embedder that is loaded by `load`."""
    entry = RegisteredEmbedder(
        load=lambda _name, _loading: load(), summary="", dimension=24, knows_words=False
    )
    monkeypatch.setitem(EMBEDDERS, name, entry)
    return ImageIndex(embedder=name, revision="hash:1")


def test_an_embedder_that_loads_holds_up_only_who_needs_it(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, may_end = threading.Event(), threading.Event()
    loads: list[str] = []

    def load_slowly() -> HashEmbedder:
        loads.append("slow")
        begun.set()
        assert may_end.wait(60)
        return HashEmbedder()

    slow = make_loadable(monkeypatch, "slow", load_slowly)
    quick = make_loadable(monkeypatch, "quick", HashEmbedder)
    embedders = LoadedEmbedders(settings, Readers(settings))
    with ThreadPoolExecutor(2) as threads:
        waiting = [threads.submit(embedders.get, slow) for _ in range(2)]
        assert begun.wait(60)
        assert embedders.get(quick) is embedders.get(quick)
        assert not any(one.done() for one in waiting)
        may_end.set()
        assert waiting[0].result() is waiting[1].result()
    assert loads == ["slow"]


def test_only_the_embedders_used_last_stay_in_memory(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[str] = []

    def loadable(name: str) -> ImageIndex:
        def load() -> HashEmbedder:
            loads.append(name)
            return HashEmbedder()

        return make_loadable(monkeypatch, name, load)

    rows = [loadable(f"embedder {number}") for number in range(MOST_LOADED + 1)]
    embedders = LoadedEmbedders(settings, Readers(settings))
    for row in rows[:-1]:
        embedders.get(row)
    embedders.get(rows[0])
    embedders.get(rows[-1])  # the second was used the longest ago
    for row in (rows[0], *rows[2:]):
        embedders.get(row)
    assert loads == [row.embedder for row in rows]
    embedders.get(rows[1])
    assert loads[-1] == rows[1].embedder


def test_an_embedder_must_be_the_one_that_made_the_index(
    settings: Settings, embedder: HashEmbedder
) -> None:
    embedders = LoadedEmbedders(settings, Readers(settings))
    assert embedders.get(ImageIndex(embedder="hash", revision="hash:1")) is embedder
    with pytest.raises(EmbedderMismatch, match="hash:0"):
        embedders.get(ImageIndex(embedder="hash", revision="hash:0"))
    with pytest.raises(EmbedderMismatch, match="lost"):
        embedders.get(ImageIndex(embedder="lost", revision="1"))


def test_an_example_photo_gets_the_vector_it_would_have_in_the_collection(
    session: Session, settings: Settings, embedder: HashEmbedder, tmp_path: Path, readers: Readers
) -> None:
    file = make_image_file(tmp_path / "heron.png", 7, file_format="PNG")
    read = read_photo(file.read_bytes(), settings=settings, readers=readers)
    person = make_person(session)
    photo = Photo(person_id=person.id, name="heron.png", sha256=read.sha256, width=60, height=40)
    vector = embed_photo(photo, embedder, settings=settings, readers=readers)
    expected = embedder.embed(embedder.prepare(PIL.Image.open(file).convert("RGB")))
    np.testing.assert_array_equal(vector, expected)
    photo_path(read.sha256, settings=settings).unlink()
    with pytest.raises(RefusedPhoto, match=r"heron\.png is gone"):
        embed_photo(photo, embedder, settings=settings, readers=readers)


# --- Preparing ----------------------------------------------------------------------------------


def prepare(file: Path, preparation: Preparation) -> Pixels:
    [pixels] = prepare_files([Original(str(file), file.stat().st_size)], preparation, 100)
    assert isinstance(pixels, np.ndarray), pixels
    return pixels


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_prepared_upright(tmp_path: Path, orientation: int) -> None:
    upright = make_image_file(tmp_path / "upright.png", 5, size=(60, 40), file_format="PNG")
    turns = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the transposition that undoes each
    with PIL.Image.open(upright) as picture:
        stored = picture
        if orientation != 1:
            stored = picture.transpose(PIL.Image.Transpose(turns[orientation]))
        exif = PIL.Image.Exif()
        exif[0x0112] = orientation
        stored.save(tmp_path / "turned.png", exif=exif)
    whole = Preparation(resize_side=40, crop_side=40)
    np.testing.assert_array_equal(prepare(tmp_path / "turned.png", whole), prepare(upright, whole))


@pytest.mark.parametrize(
    ("mode", "file_format", "tolerance"),
    [
        ("RGB", "PNG", 0),
        ("P", "PNG", 0),
        ("RGBA", "PNG", 0),
        ("L", "JPEG", 2),
        ("CMYK", "JPEG", 4),
        ("I;16", "PNG", 1),
        ("1", "TIFF", 0),
        ("RGB", "WEBP", 8),
        ("P", "GIF", 0),
    ],
)
def test_every_kind_of_picture_is_prepared(
    tmp_path: Path, mode: str, file_format: str, tolerance: int
) -> None:
    across = np.linspace(20, 235, 300).astype(np.uint8)
    grey = PIL.Image.fromarray(np.broadcast_to(across, (200, 300)).copy())
    if mode == "I;16":
        picture = PIL.Image.fromarray(np.asarray(grey).astype(np.uint16) * 256 + 128)
    elif mode == "RGBA":
        picture = grey.convert("RGBA")
        picture.putalpha(255)
    else:
        picture = (
            grey.convert(mode) if mode in ("1", "L", "P") else grey.convert("RGB").convert(mode)
        )
    options = {"quality": 100} if file_format in ("JPEG", "WEBP") else {}
    picture.save(tmp_path / "picture", file_format, **options)
    shown = picture.convert("RGB") if mode in ("1", "P") else grey.convert("RGB")
    preparation = Preparation(resize_side=32, crop_side=28)
    difference = prepare(tmp_path / "picture", preparation).astype(int) - preparation(shown)
    assert np.abs(difference).max() <= tolerance


def test_transparent_parts_are_white(tmp_path: Path) -> None:
    PIL.Image.new("RGBA", (40, 40), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert (prepare(tmp_path / "clear.png", Preparation(8, 8)) == 255).all()


def test_large_jpegs_are_prepared_nearly_as_if_decoded_in_full(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    coarse = PIL.Image.fromarray(rng.integers(0, 256, (90, 120, 3), dtype=np.uint8))
    coarse.resize((1200, 900), PIL.Image.Resampling.BICUBIC).save(tmp_path / "1.jpg", quality=95)
    preparation = Preparation(resize_side=100, crop_side=88)
    with PIL.Image.open(tmp_path / "1.jpg") as picture:
        full = preparation(picture.convert("RGB")).astype(int)
    difference = prepare(tmp_path / "1.jpg", preparation) - full
    assert 0 < np.abs(difference).mean() < 1  # of 255; 0 would mean that nothing was saved


def test_real_photos_get_the_vectors_that_timm_gives_them(shared_data: Path) -> None:
    embedder = load_embedder("efficientnet-lite0", device="cpu")
    photos = sorted((shared_data / "exif").glob("*.jpg"))
    large = sorted((shared_data / "camtrap_dp" / "media").glob("*.JPG"))
    by_us = np.stack([prepare(file, embedder.prepare) for file in photos + large])
    in_full = []
    for file in photos + large:
        with PIL.Image.open(file) as picture:
            upright = PIL.ImageOps.exif_transpose(picture)
            profile = picture.info.get("icc_profile")
        if profile:  # the colours that people see
            own = PIL.ImageCms.ImageCmsProfile(io.BytesIO(profile))
            upright = PIL.ImageCms.profileToProfile(
                upright, own, PIL.ImageCms.createProfile("sRGB")
            )
        in_full.append(embedder.prepare(upright))
    cosines = (embedder.embed_images(by_us) * embedder.embed_images(np.stack(in_full))).sum(axis=1)
    assert cosines[: len(photos)].min() > 1 - 1e-5
    assert 0.997 < cosines[len(photos) :].min() < 0.9999  # decoded at half their size


def test_admins_are_told_how_far_an_index_that_does_not_rank_all_agrees(
    build, database, collection, settings, tmp_path, monkeypatch
):
    add_images(database, collection, tmp_path, range(70))
    row = build()
    assert row.agreement is None
    with database.session() as session:
        (choice,) = list_indexes(session, collection.id)
    assert choice.searched_by == "FAISS, on this machine."

    monkeypatch.setattr("app.engine.index.RANKED_ROWS", 50)
    add_images(database, collection, tmp_path, range(70, 80))
    row = build()
    with database.session() as session:
        (choice,) = list_indexes(session, collection.id)
    manifest = read_manifest(settings.home / "indexes" / str(row.id))
    assert row.agreement == manifest.agreement > 0.9
    assert f"{100 * row.agreement:.1f} % of those that it would choose from" in choice.searched_by
