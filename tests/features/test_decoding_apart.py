"""A decoder that crashes, has no end or eats memory costs its own file, and nothing else."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import psutil
import pytest
from sqlalchemy import select

from app.database import Database
from app.importing import import_images
from app.indexing import build_index
from app.reading import TOO_LARGE, read_original
from app.settings import Settings
from app.tables import Image, Photo, RefusedFile, UnreadableImage
from app.workers import CRASHED, TOO_SLOW, Readers
from tests.conftest import open_web, sign_in
from tests.factories import make_collection, make_image_file
from tests.stand_ins import HashEmbedder, register

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
