"""Files that mean harm, through the three doors: what is good comes in, what is not says why.

A hundred of them in `make test`, a thousand in `make test-slow`. All memory and time is bounded.
"""

import base64
import csv
import hashlib
import io
import json
import os
import shutil
import threading
import time
import zipfile
from collections import Counter
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from sqlalchemy import select
from typer.testing import CliRunner

from app import searching
from app.cli import app as command
from app.database import Database
from app.errors import LabelsNotUsable
from app.exports.rows import write_states
from app.importing import import_images
from app.indexing import LoadedEmbedders, OpenIndexes
from app.metadata import add_table
from app.security import get_local_person
from app.sensitive import EXACT
from app.sources import read_labels, show
from app.tables import Collection, Image, ImageIndex, ImagePath, Job, RefusedFile
from app.uploads import clean_path
from app.workers import Readers
from tests.conftest import open_web, sign_in
from tests.factories import make_collection, make_image_file
from tests.hostile_files import (
    BAD,
    GOOD,
    HostileFile,
    lay_traps,
    make_heavy_files,
    make_hostile_files,
    make_hostile_tables,
    make_hostile_zips,
)
from tests.stand_ins import HashEmbedder, register

SEED = 9
MOST_READER_MB = 1_200  # one of 98 megapixels is among them
MOST_SERVER_MB = 1_200  # more than before: files of tables may have 500 MB, and stand in memory
LONGEST_SENTENCE = 1_000
Fates = dict[str, tuple[str, str]]  # by path: what kind it is, and what must become of it
TUS = {"Tus-Resumable": "1.0.0", "Accept": "application/json"}


class Watch:
    """The most memory that this process and each of its reading processes ever had."""

    def __init__(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
        self._before = read_peak_mb(os.getpid())
        self.readers_mb: dict[int, float] = {}
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()
        self.own_mb = read_peak_mb(os.getpid()) - self._before

    def _look(self) -> None:
        while not self._is_over.wait(0.1):
            for child in psutil.Process().children():
                with suppress(psutil.Error, OSError, StopIteration):
                    if "spawn_main" in " ".join(child.cmdline()):
                        self.readers_mb[child.pid] = read_peak_mb(child.pid)


def read_peak_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1_000


@pytest.fixture
def settings(settings):
    return settings.model_copy(update={"workers": 2, "max_decoding_s": 20.0})


def lay_out(folder: Path, files: list[HostileFile]) -> None:
    for file in files:
        place = folder / os.fsdecode(file.name)
        place.parent.mkdir(parents=True)
        place.write_bytes(file.data)


class Changing:
    """Files that grow, shrink, are replaced or vanish while they are read."""

    def __init__(self, folder: Path) -> None:
        self.files = [
            make_image_file(folder / f"{kind}-{number}.jpg", number, size=(900, 600))
            for kind in ("grow", "shrink", "replace", "vanish")
            for number in range(4)
        ]
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._change)

    def __enter__(self) -> "Changing":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _change(self) -> None:
        times = 0
        while not self._is_over.wait(0.002):
            times += 1
            for file in self.files:
                with suppress(FileNotFoundError):
                    if file.name.startswith("grow"):
                        with file.open("ab") as opened:
                            opened.write(b"more")
                    elif file.name.startswith("shrink"):
                        os.truncate(file, max(100, file.stat().st_size - 50))
                    elif file.name.startswith("replace"):
                        new = make_image_file(file.with_suffix(".new"), times)
                        new.replace(file)
                    elif times == 100:
                        file.unlink()


def check(
    database: Database, collection_id: int, fates: dict[str, tuple[str, str]]
) -> Counter[str]:
    """Each path came in or was refused with its reason, as it should; how often for what."""
    with database.session() as session:
        rows = select(ImagePath.path).filter_by(collection_id=collection_id)
        taken = set(session.scalars(rows))
        of_here = select(RefusedFile).filter_by(collection_id=collection_id)
        refused = {row.path: row for row in session.scalars(of_here)}
    wrong = []
    for path, (kind, fate) in fates.items():
        row = refused.get(path)
        if row is not None and not (row.reason and 5 < len(row.detail) < LONGEST_SENTENCE):
            wrong.append(f"{kind}: {path!r} is refused without a sentence: {row.detail[:200]!r}")
        if (path in taken) == (row is not None):
            wrong.append(f"{kind}: {path!r} is {'both' if row else 'neither'}")
        elif (fate == GOOD and row is not None) or (fate == BAD and row is None):
            wrong.append(f"{kind}: {path!r} is {row.detail if row else 'imported'!r}")
    assert not wrong, "\n".join(wrong)
    return Counter(refused[path].reason if path in refused else "imported" for path in fates)


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("singles", "heavy", "zips", "tables"),
    [
        pytest.param(40, 5, 18, 12, id="hundred"),
        pytest.param(787, 30, 54, 104, id="thousand", marks=pytest.mark.slow),
    ],
)
def test_hostile_files_do_no_harm(
    monkeypatch, settings, own_database, own_database_url, tmp_path, singles, heavy, zips, tables
):
    register(monkeypatch, HashEmbedder())
    settings = settings.model_copy(update={"database_url": own_database_url})
    files = make_hostile_files(SEED, singles)
    large = make_heavy_files(SEED, heavy)
    packed = make_hostile_zips(SEED, zips)
    csv_files = make_hostile_tables(SEED, tables)
    counted: Counter[str] = Counter()
    begun, busy_s = time.monotonic(), sum(os.times()[:4])
    with Watch() as watch:
        by_folder = files[0::3] + large[0::3]
        counted += go_by_folder(own_database, settings, tmp_path / "folder", by_folder)
        by_upload = files[1::3] + large[1::3]
        counted += go_by_upload(own_database, settings, by_upload, packed)
        by_command = files[2::3] + large[2::3]
        monkeypatch.setenv("RAREFIND_HOME", str(settings.home))
        monkeypatch.setenv("DATABASE_URL", own_database_url)
        counted += go_by_command(own_database, tmp_path / "command", by_command)
        counted += bring_tables(own_database, settings, tmp_path, csv_files)
        check_exports(own_database, settings)
    figures = {
        "files": counted.total(),
        "of them": dict(counted.most_common()),
        "seconds": round(time.monotonic() - begun, 1),
        "seconds of a processor": round(sum(os.times()[:4]) - busy_s, 1),
        "reading processes": len(watch.readers_mb),
        "most of one, MB": round(max(watch.readers_mb.values())),
        "more of the server, MB": round(watch.own_mb),
    }
    print(json.dumps(figures, indent=1))  # noqa: T201 - `pytest -s` shows it
    assert max(watch.readers_mb.values()) < MOST_READER_MB
    assert watch.own_mb < MOST_SERVER_MB


def go_by_folder(database, settings, folder, files) -> Counter[str]:
    """The door for who runs the server: a folder, with traps, in which somebody still writes."""
    lay_out(folder, files)
    outside = folder.parent / "outside"
    make_image_file(outside / "linked.jpg", 77)
    fates = {show(os.fsdecode(file.name)): (file.kind, file.fate) for file in files}
    traps = lay_traps(folder / "traps", outside)
    fates |= {f"traps/{path}": ("trap", fate) for path, fate in traps.items()}
    with database.session() as session:
        collection_id = make_collection(session, name="By folder").id
    with Changing(folder / "changing") as changing:
        summary = import_images(database, collection_id, folder, settings=settings)
    assert summary.imported > 0
    with database.session() as session:  # none under the hash of a content that it had not
        query = select(Image).where(Image.path.like("changing/%"))
        for image in session.scalars(query):
            data = Path(image.file).read_bytes() if Path(image.file).exists() else b""
            if len(data) == image.size_bytes and "replace" not in image.path:
                assert hashlib.sha256(data).hexdigest() == image.sha256
    shutil.rmtree(folder / "changing")
    return check(database, collection_id, fates) + Counter(changed=len(changing.files))


def go_by_upload(database, settings, files, packed) -> Counter[str]:
    """The door of the browser: single files and zips."""
    with open_web(settings, settings.database_url) as web:
        client = sign_in(web)
        form = {"name": "By upload", "where": "here", "embedder": "hash"}
        upload = client.post("/collections", data=form).url.path
        fates = {}
        for file in (*files, *packed):
            name = file.name.decode(errors="replace")
            told = base64.b64encode(name.encode()).decode()
            answer = client.post(
                f"{upload}/files",
                headers=TUS
                | {"Content-Type": "application/offset+octet-stream"}
                | {"Upload-Length": str(len(file.data)), "Upload-Metadata": f"path {told}"},
                content=file.data,
            )
            assert answer.status_code in (201, 422), answer.text
            if answer.status_code == 422:
                assert 5 < len(answer.json()["detail"]) < LONGEST_SENTENCE
                fates[name] = ("refused at the door", "")
            elif file not in packed:
                fates[clean_path(name)] = (file.kind, file.fate)
        at_door = [name for name, (kind, _) in fates.items() if kind == "refused at the door"]
        page = client.post(f"{upload}/finish", data={"leave_out": "1"})
        assert page.status_code == 200
        job = wait_for_job(database)
        assert job.state == "done", job.problem
    with database.session() as session:
        collection = session.scalars(select(Collection).filter_by(name="By upload")).one()
        collection_id = collection.id
        hashes = set(session.scalars(select(Image.sha256).filter_by(collection_id=collection_id)))
        refused = {
            row.path: row
            for row in session.scalars(select(RefusedFile).filter_by(collection_id=collection_id))
        }
        index = session.scalars(select(ImageIndex).filter_by(collection_id=collection_id)).one()
        assert index.state == "ready"
    counted = Counter({"refused at the door": len(at_door)})
    for file in packed:
        if file.fate == GOOD:
            with zipfile.ZipFile(io.BytesIO(file.data)) as archive:
                inside = hashlib.sha256(archive.read("fine.jpg")).hexdigest()
            assert inside in hashes, file.kind
            counted["zip, its good images imported"] += 1
        elif file.fate == BAD:
            names = [file.name.decode()]
            with suppress(zipfile.BadZipFile):
                inside = zipfile.ZipFile(io.BytesIO(file.data)).namelist()
                names += [f"{names[0]}/{name}" for name in inside]
            assert any(name in refused for name in names), (file.kind, names[:3])
            counted["zip, all refused"] += 1
        else:
            counted["zip, either way"] += 1
    fates = {path: fate for path, fate in fates.items() if path not in at_door}
    return check(database, collection_id, fates) + counted


def wait_for_job(database: Database) -> Job:
    ended = time.monotonic() + 600
    while time.monotonic() < ended:
        with database.session() as session:
            job = session.scalars(select(Job).order_by(Job.id.desc()).limit(1)).one()
            if job.state in ("done", "failed"):
                return job
        time.sleep(0.1)
    pytest.fail("the import of the upload did not come to an end")


def go_by_command(database, folder, files) -> Counter[str]:
    """The door of the command line."""
    lay_out(folder, files)
    fates = {show(os.fsdecode(file.name)): (file.kind, file.fate) for file in files}
    arguments = ["collection", "add", "By command", str(folder), "--embedder", "hash"]
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 0, (result.output, result.exception)
    assert "Traceback" not in result.output and "\x1b[31m.jpg" not in result.output
    with database.session() as session:
        collection = session.scalars(select(Collection).filter_by(name="By command")).one()
        return check(database, collection.id, fates)


def bring_tables(database, settings, tmp_path, tables) -> Counter[str]:
    """Tables beside a collection of nine images, and the same as known labels."""
    folder = tmp_path / "tables"
    for number in range(9):
        make_image_file(folder / f"{number}.jpg", number)
    with database.session() as session:
        collection_id = make_collection(session, name="With tables").id
    import_images(database, collection_id, folder, settings=settings)
    counted: Counter[str] = Counter()
    for table in tables:
        name = table.name.decode()
        problem = None
        try:
            with database.session() as session:
                person = get_local_person(session)
                add_table(session, collection_id, name=name, data=table.data, person=person)
        except LabelsNotUsable as error:
            problem = str(error)
            assert 5 < len(problem) < LONGEST_SENTENCE, (name, problem[:200])
        assert table.fate != (BAD if problem is None else GOOD), (name, problem)
        counted["table kept" if problem is None else "table refused"] += 1
        place = tmp_path / name
        place.write_bytes(table.data.replace(b"note", b"label", 1))
        with suppress(LabelsNotUsable):
            assert read_labels(place, folder, settings) is not None
        place.unlink()
    return counted


def check_exports(database, settings) -> None:
    """No cell of an export is a formula to a spreadsheet."""
    with database.session() as session:
        collection = session.scalars(select(Collection).filter_by(name="By command")).one()
        first = select(Image.id).filter_by(collection_id=collection.id).order_by(Image.id).limit(1)
        indexes = OpenIndexes(settings)
        search = searching.open_search(
            session,
            person=get_local_person(session),
            collection_id=collection.id,
            target_name="=1+1",
            round_size=6,
            image_ids=[session.scalars(first).one()],
            photo_ids=[],
            indexes=indexes,
            embedders=LoadedEmbedders(settings, Readers(settings)),
            settings=settings,
        )
        lines = write_states(session, search, indexes, file_format="csv", sight=EXACT)
        rows = list(csv.reader(io.StringIO("".join(lines), newline="")))
    assert len(rows) > 5
    for row in rows:
        for cell in row:
            is_number = cell.replace(".", "").replace("-", "").replace("e", "").isdigit()
            assert is_number or not cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n")), cell
