"""A decoder that crashes, has no end or eats memory costs its own file, and nothing else."""

import os
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from hashlib import sha256
from itertools import islice
from pathlib import Path

import psutil
import pytest
from sqlalchemy import select

from app.database import Database
from app.errors import ReadersBusy
from app.importing import import_images, read_photo
from app.indexing import build_index, embed_photo
from app.reading import TOO_LARGE, read_original
from app.settings import Settings
from app.tables import Image, Photo, RefusedFile, UnreadableImage
from app.workers import CRASHED, TOO_SLOW, Readers
from tests.conftest import open_web, sign_in
from tests.factories import make_collection, make_image_file, make_images
from tests.stand_ins import HashEmbedder, register

pytestmark = pytest.mark.slow

LIMIT_S = 1.0
FAULTS = {"03.jpg": "crash", "09.jpg": "endless", "14.jpg": "greedy"}
REASONS = {"03.jpg": CRASHED, "09.jpg": TOO_SLOW, "14.jpg": TOO_LARGE}
FAULTY = """\
import itertools, os, signal
import simplejpeg
decode = simplejpeg.decode_jpeg
def decode_with_faults(data, *arguments, **options):
    if b"crash" in data:
        os.kill(os.getpid(), signal.SIGSEGV)
    if b"endless" in data:
        sum(itertools.repeat(1))  # in C, and lets no other thread run
    if b"greedy" in data:
        kept = [bytes(100_000_000) for _ in range(40)]
    return decode(data, *arguments, **options)
simplejpeg.decode_jpeg = decode_with_faults
"""
# Comes to its end once `count` processes run it at the same time.
MEET = """\
import time
from pathlib import Path
(Path(folder) / str(number)).touch()
while len(list(Path(folder).iterdir())) < count:
    time.sleep(0.02)
"""
# Comes to its end once the file it makes is gone.
HOLD = """\
import time
from pathlib import Path
Path(held).touch()
while Path(held).exists():
    time.sleep(0.02)
"""
# As installers write it, but for what follows.
SCRIPT = """\
from {module} import {function}
if __name__ == "__main__":
    from tests.features.test_decoding_apart import print_what_embedding_a_photo_imports
    print_what_embedding_a_photo_imports()
"""


@pytest.fixture
def settings(settings: Settings) -> Settings:
    limits = {"workers": 2, "max_decoding_s": LIMIT_S, "max_megapixels": 1.0}
    return settings.model_copy(update=limits)


@pytest.fixture
def make_faulty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From now on new processes have a decoder with faults, which it shows at a comment."""

    def make() -> None:
        (tmp_path / "faulty").mkdir()
        (tmp_path / "faulty/sitecustomize.py").write_text(FAULTY)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path / "faulty"))

    return make


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(20):
        name = f"{number:02}.jpg"
        comment = FAULTS.get(name, "fine").encode()
        make_image_file(tmp_path / "photos" / name, number, size=(400, 300), comment=comment)
    return tmp_path / "photos"


@pytest.fixture
def collection_id(database: Database) -> int:
    with database.session() as session:
        return make_collection(session).id


@pytest.fixture(autouse=True)
def no_process_is_left() -> Iterator[None]:
    before = set(psutil.Process().children(recursive=True))
    yield
    ended = time.monotonic() + 10
    while time.monotonic() < ended:
        left = set(psutil.Process().children(recursive=True)) - before
        if all("resource_tracker" in " ".join(one.cmdline()) for one in left):
            return
        time.sleep(0.1)
    pytest.fail(f"still running: {left}")


def test_an_import_loses_the_files_of_a_faulty_decoder_alone(
    database: Database,
    collection_id: int,
    settings: Settings,
    folder: Path,
    make_faulty: Callable[[], None],
) -> None:
    make_faulty()
    summary = import_images(database, collection_id, folder, settings=settings)
    assert summary.imported == 17
    with database.session() as session:
        refused = {row.path: row for row in session.scalars(select(RefusedFile))}
    assert {path: row.reason for path, row in refused.items()} == REASONS
    assert "RAREFIND_MAX_DECODING_S" in refused["09.jpg"].detail


def test_an_index_leaves_out_the_files_of_a_faulty_decoder_alone(
    database: Database,
    collection_id: int,
    settings: Settings,
    folder: Path,
    make_faulty: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    register(monkeypatch, HashEmbedder())
    assert import_images(database, collection_id, folder, settings=settings).imported == 20
    make_faulty()
    row = build_index(database, collection_id, settings=settings, embedder="hash")
    assert row.image_count == 17
    with database.session() as session:
        rows = session.execute(select(Image.path, UnreadableImage.reason).join(UnreadableImage))
        left_out = dict(rows.all())
    assert set(left_out) == set(FAULTS)
    assert "ended the process" in left_out["03.jpg"]
    assert "did not come to an end" in left_out["09.jpg"]
    assert "memory" in left_out["14.jpg"]


def test_the_server_outlives_photos_that_a_decoder_fails_at(
    settings: Settings,
    own_database_url: str,
    folder: Path,
    make_faulty: Callable[[], None],
) -> None:
    make_faulty()
    with open_web(settings.model_copy(update={"run_jobs": False}), own_database_url) as web:
        client = sign_in(web)
        state = web.app.state
        with state.database.session() as session:
            tray = f"/collections/{make_collection(session).id}/tray"
        for name, sentence in (
            ("03.jpg", "ended the process"),
            ("09.jpg", "did not come to an end within 1 s"),
            ("14.jpg", "not enough memory"),
        ):
            photo = [("photo", (name, (folder / name).read_bytes()))]
            answer = client.post(tray, files=photo, headers={"HX-Request": "true"})
            assert answer.status_code == 422
            assert name in answer.text and sentence in answer.text
        photo = [("photo", ("fine.jpg", (folder / "00.jpg").read_bytes()))]
        assert client.post(tray, files=photo, headers={"HX-Request": "true"}).status_code == 200
        with state.database.session() as session:
            assert [one.name for one in session.scalars(select(Photo))] == ["fine.jpg"]


def test_what_is_read_beside_a_crash_is_read_all_the_same(
    settings: Settings, folder: Path, make_faulty: Callable[[], None]
) -> None:
    make_faulty()
    read = partial(read_original, home=settings.home, max_megapixels=1.0)
    files = [str(folder / f"{number:02}.jpg") for number in range(8)]
    with Readers(settings) as readers, ThreadPoolExecutor(8) as people:
        asked = [people.submit(readers.run, partial(read, file)) for file in files]
        outcomes = [one.exception() or one.result() for one in asked]
    assert [getattr(one, "reason", "fine") for one in outcomes] == [
        CRASHED if number == 3 else "fine" for number in range(8)
    ]


def test_as_many_are_decoded_at_once_as_there_are_workers(
    settings: Settings, tmp_path: Path
) -> None:
    folder = tmp_path / "met"
    folder.mkdir()
    three = settings.model_copy(update={"workers": 3, "max_decoding_s": 60.0})
    told = [{"folder": str(folder), "number": number, "count": 3} for number in range(3)]
    with Readers(three) as readers, ThreadPoolExecutor(3) as people:
        list(people.map(lambda one: readers.run(partial(exec, MEET, one)), told))


def test_who_finds_no_place_is_told_when_to_come_again_and_others_go_on(
    settings: Settings, own_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.workers.PLACE_S", 0.2)
    one = {"workers": 1, "max_decoding_s": 60.0, "run_jobs": False}
    file = make_image_file(tmp_path / "photo.jpg", 1)
    photo = [("photo", ("heron.jpg", file.read_bytes()))]
    swapped = {"HX-Request": "true"}
    held = tmp_path / "held"
    with (
        open_web(settings.model_copy(update=one), own_database_url) as web,
        ThreadPoolExecutor(1) as others,
    ):
        client = sign_in(web)
        with web.app.state.database.session() as session:
            collection = make_collection(session)
            [image] = make_images(session, collection, 1)
            image.file, image.sha256 = str(file), sha256(file.read_bytes()).hexdigest()
            address = f"/images/{image.id}/small"  # its thumbnail is gone
            tray = f"/collections/{collection.id}/tray"
        holding = others.submit(web.app.state.readers.run, hold(held))
        wait_for(held)
        try:
            for answer in (client.get(address), client.post(tray, files=photo, headers=swapped)):
                assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
                assert answer.headers["Cache-Control"] == "no-store"
                assert "Nothing was changed: try again in 5 seconds." in answer.text
            assert client.get("/").status_code == 200
        finally:
            held.unlink()
        holding.result()
        assert client.get(address).status_code == 200
        assert client.post(tray, files=photo, headers=swapped).status_code == 200


def test_no_more_wait_for_a_place_than_leave_room_for_rounds(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.workers.MOST_ASKING", 2)
    monkeypatch.setattr("app.workers.PLACE_S", 60.0)
    one = settings.model_copy(update={"workers": 1, "max_decoding_s": 60.0})
    held = tmp_path / "held"
    with ThreadPoolExecutor(4) as people, Readers(one) as readers:
        asked = [people.submit(readers.run, hold(held)) for _ in range(4)]
        wait_for(held)
        refused = list(islice(as_completed(asked, timeout=30), 2))
        assert [type(one.exception()) for one in refused] == [ReadersBusy] * 2
        for one in set(asked) - set(refused):
            assert not one.done()  # it has a place, or waits for it
            wait_for(held)
            held.unlink()
        for one in set(asked) - set(refused):
            one.result()


def test_a_process_that_decodes_for_the_command_imports_neither_it_nor_torch(
    settings: Settings, tmp_path: Path
) -> None:
    scripts = tomllib.loads(Path("pyproject.toml").read_text())["project"]["scripts"]
    module, function = scripts["rarefind"].split(":")
    script = tmp_path / "rarefind"
    script.write_text(SCRIPT.format(module=module, function=function))
    environment = os.environ | {"PYTHONPATH": str(Path.cwd()), "RAREFIND_HOME": str(settings.home)}
    done = subprocess.run(
        [sys.executable, script], env=environment, capture_output=True, text=True, check=False
    )
    imported = set(done.stdout.split())
    assert {"app.reading", "app.preparing"} <= imported, done.stderr
    assert not imported & {"app.cli", "app.main", "fastapi", "sqlalchemy", "sklearn", "torch"}


def print_what_embedding_a_photo_imports() -> None:
    """The modules of the process that decoded a large photo, one a line."""
    settings = Settings(database_url=None, workers=1)
    file = make_image_file(settings.home / "large.jpg", 1, size=(1600, 1200))
    with Readers(settings) as readers:
        read = read_photo(file.read_bytes(), settings=settings, readers=readers)
        photo = Photo(name="large.jpg", sha256=read.sha256, width=1600, height=1200)
        embed_photo(photo, HashEmbedder(), settings=settings, readers=readers)
        print("\n".join(readers.run(partial(eval, "list(__import__('sys').modules)"))))  # noqa: T201


def hold(held: Path) -> Callable[[], None]:
    return partial(exec, HOLD, {"held": str(held)})


def wait_for(path: Path) -> None:
    ended = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < ended
        time.sleep(0.02)
