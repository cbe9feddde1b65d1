"""The store of files: two machines with a data folder each are one installation; nothing is lost.

Every test runs against a folder and against a server that speaks S3.
"""

import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import fsspec
import pytest
from sqlalchemy import func, select, update

from app import store
from app.backing_up import back_up
from app.chores import do_import
from app.database import Database
from app.deleting import KEPT_FOR, describe_collection_contents, empty_bin
from app.errors import BadInput, BeingFetched, IndexNotUsable, StoreDamaged, StoreNotUsable
from app.examining import examine
from app.filling import fill_store
from app.importing import get_thumbnail, import_images, photo_path, read_photo
from app.indexing import OpenIndexes, build_index, check_index, help_build, is_on_disk
from app.settings import Settings
from app.splitting import parts_folder
from app.store import LIST
from app.sweeping import sweep
from app.tables import Collection, Image, ImageIndex, IndexPart, Job, Person, Upload
from app.uploads import add_file, append_to, complete, finish_upload, start_upload
from app.watching import Readiness
from app.workers import Readers
from tests.conftest import open_web, sign_in
from tests.factories import make_collection, make_image_file, make_person
from tests.object_storage import serving_s3
from tests.stand_ins import HashEmbedder, register

KEYS = {
    "AWS_ACCESS_KEY_ID": "a-key",
    "AWS_SECRET_ACCESS_KEY": "a-secret",
    "AWS_DEFAULT_REGION": "us-east-1",
}
Machine = Callable[[str], Settings]


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    with serving_s3() as address, pytest.MonkeyPatch.context() as patch:
        for name, value in KEYS.items():
            patch.setenv(name, value)
        patch.setenv("AWS_ENDPOINT_URL", address)
        yield address


@pytest.fixture(params=["file", "s3"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store of its own for each test."""
    if request.param == "file":
        return f"file://{tmp_path}/store"
    request.getfixturevalue("s3")
    bucket = f"bucket-{tmp_path.name.replace('_', '-').lower()[-40:]}"
    fsspec.filesystem("s3", use_listings_cache=False).mkdir(bucket)
    return f"s3://{bucket}/a/prefix"


@pytest.fixture
def machine(address: str, tmp_path: Path) -> Machine:
    """The settings of a machine, by its name: a data folder of its own, and the same store."""
    return lambda name: Settings(
        home=tmp_path / name / "home", store=address, workers=1, run_jobs=False
    )


@pytest.fixture
def embedder(monkeypatch: pytest.MonkeyPatch) -> HashEmbedder:
    embedder = HashEmbedder()
    register(monkeypatch, embedder)
    return embedder


def put_aside(path: Path, data: bytes = b"whatever") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def list_names(settings: Settings) -> set[str]:
    return {file.name for part in store.PARTS for file in store.list_stored(settings, part)}


def make_folder(settings: Settings, number: int = 7, *, size: int = 100) -> Path:
    folder = settings.home / "indexes" / str(number)
    put_aside(folder / "vectors.npy", b"v" * size)
    put_aside(folder / "manifest.json", b"{}")
    return folder


def add_pond(database: Database, settings: Settings, tmp_path: Path) -> Collection:
    """A collection of six copied images, imported and prepared on one machine."""
    for number in range(6):
        make_image_file(tmp_path / "photos" / f"{number}.jpg", number, size=(500, 400))
    with database.session() as session:
        collection = make_collection(session)
    import_images(database, collection.id, tmp_path / "photos", settings=settings, copy=True)
    build_index(database, collection.id, settings=settings, embedder="hash")
    shutil.rmtree(tmp_path / "photos")
    return collection


# --- Files and folders ---------------------------------------------------------------------------


def test_what_one_machine_puts_another_has(machine: Machine) -> None:
    one, other = machine("one"), machine("other")
    file = put_aside(one.home / "thumbnails" / "ab" / "ab-320.jpg", b"small")
    store.put_files(one, [file])
    there = other.home / "thumbnails" / "ab" / "ab-320.jpg"
    assert store.fetch_file(other, there)
    assert there.read_bytes() == b"small"
    assert [path.name for path in there.parent.iterdir()] == ["ab-320.jpg"]
    assert not store.fetch_file(other, there.with_name("cd-320.jpg"))
    [stored] = store.list_stored(one, "thumbnails")
    assert (stored.name, stored.size_bytes) == ("thumbnails/ab/ab-320.jpg", 5)
    assert abs(stored.modified_at - datetime.now(UTC)) < timedelta(minutes=1)
    store.delete_files(other, [there, there.with_name("never-there.jpg")])
    assert list_names(one) == set()
    assert there.exists()


def test_a_folder_is_there_as_a_whole_or_not_at_all(machine: Machine) -> None:
    one, other = machine("one"), machine("other")
    folder, there = make_folder(one), other.home / "indexes" / "7"
    store.put_files(one, folder.iterdir())  # as a kill before the list leaves it
    assert not store.holds_folder(other, there)
    assert not store.fetch_folder(other, there)
    store.put_folder(one, folder)
    assert store.holds_folder(other, there)
    assert store.fetch_folder(other, there)
    assert {path.name for path in there.iterdir()} == {"vectors.npy", "manifest.json", LIST}
    assert (there / "vectors.npy").read_bytes() == b"v" * 100
    assert {path.name for path in there.parent.iterdir()} == {"7"}


@pytest.mark.parametrize("harm", ["changed", "shorter", "gone"])
def test_a_folder_that_is_not_what_was_put_there_is_refused(machine: Machine, harm: str) -> None:
    one, other = machine("one"), machine("other")
    folder, there = make_folder(one), other.home / "indexes" / "7"
    store.put_folder(one, folder)
    if harm == "gone":
        store.delete_files(one, [folder / "vectors.npy"])
    else:
        (folder / "vectors.npy").write_bytes(b"x" * (100 if harm == "changed" else 99))
        store.put_files(one, [folder / "vectors.npy"])
    with pytest.raises(StoreDamaged, match=r"vectors\.npy of indexes/7"):
        store.fetch_folder(other, there)
    assert list(there.parent.iterdir()) == []
    if harm != "changed":
        with pytest.raises(StoreDamaged):
            store.check_folder(other, there)


def test_what_was_begun_here_gives_way_to_what_another_ended(machine: Machine) -> None:
    one, other = machine("one"), machine("other")
    store.put_folder(one, make_folder(one))
    begun = put_aside(other.home / "indexes" / "7" / "vectors.npy", b"of a build that was killed")
    assert store.fetch_folder(other, begun.parent)
    assert begun.read_bytes() == b"v" * 100


def test_a_folder_is_fetched_once_and_requests_do_not_wait_for_it(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = machine("one"), machine("other")
    store.put_folder(one, make_folder(one))
    there = other.home / "indexes" / "7"
    count, may_go_on = [0], threading.Event()
    fetch = store._fetch_folder

    def fetch_slowly(*arguments: object) -> None:
        count[0] += 1
        may_go_on.wait(30)
        fetch(*arguments)

    monkeypatch.setattr(store, "_fetch_folder", fetch_slowly)
    begun = time.monotonic()
    for _ in range(2):
        with pytest.raises(BeingFetched, match="try again"):
            store.fetch_folder(other, there, patience_s=0.2)
    assert time.monotonic() - begun < 10
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(store.fetch_folder, other, there) for _ in range(4)]
        may_go_on.set()
        assert all(one.result(60) for one in waiting)
    assert count == [1]


def test_what_was_used_longest_ago_is_let_go(machine: Machine) -> None:
    settings = machine("one").model_copy(update={"cache_gb": 1_500 / 1e9})
    now = time.time()
    # Else the look that follows what is put lets go, beside this test, of what it counts.
    put_aside(settings.home / "fetching" / "trimmed")
    old = put_aside(settings.home / "thumbnails" / "ab" / "old.jpg", b"x" * 1_000)
    put = make_folder(settings, 7, size=1_000)
    store.put_folder(settings, put)
    unput = make_folder(settings, 8, size=1_000)  # nobody but this machine has it
    only = put_aside(settings.home / "originals" / "1" / "ab" / "only.jpg", b"x" * 1_000)
    young = put_aside(settings.home / "thumbnails" / "ab" / "young.jpg", b"x" * 1_000)
    store.put_files(settings, [old, young])
    upload = put_aside(settings.home / "uploads" / "1" / "parts" / "1", b"x" * 9_000)
    ages = ((old, 5), (put / LIST, 4), (unput / "vectors.npy", 9), (only, 98), (upload, 99))
    for path, hours in ages:
        os.utime(path, (now - hours * 3_600,) * 2)
    assert store.trim(settings, now_s=now) == 1_000 + sum(
        len(data) for data in (b"x" * 1_000, b"{}", json.dumps(_listed(1_000)).encode())
    )
    assert not old.exists() and not put.exists()
    assert unput.exists() and young.exists() and upload.exists()
    assert only.exists()  # from before there was a store
    assert store.fetch_folder(settings, put)
    assert store.trim(settings, now_s=now) == 0  # what is left was used just now


def _listed(size: int) -> dict[str, list[object]]:
    digest = "0" * 64
    return {"manifest.json": [2, digest], "vectors.npy": [size, digest]}


# --- What is wrong with it -----------------------------------------------------------------------


def test_a_wrong_bucket_is_one_sentence(machine: Machine, address: str) -> None:
    if not address.startswith("s3"):
        pytest.skip("a folder is made")
    settings = machine("one").model_copy(update={"store": "s3://another-bucket/prefix"})
    file = put_aside(settings.home / "thumbnails" / "ab" / "a.jpg")
    for ask in (
        lambda: store.check_store(settings),
        lambda: store.put_files(settings, [file]),
        lambda: store.fetch_file(settings, file.with_name("b.jpg")),
        lambda: list(store.list_stored(settings, "originals")),
    ):
        with pytest.raises(StoreNotUsable, match="is not there: make its bucket") as raised:
            ask()
        assert "s3://another-bucket/prefix" in raised.value.detail
        assert "another-bucket" not in str(raised.value)  # people who see it need not know


def test_a_store_that_is_away_or_refuses_is_one_sentence(
    machine: Machine, address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = machine("one")
    if address.startswith("s3"):
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        fsspec.filesystem("s3").clear_instance_cache()
        said = "does not answer"
    else:
        put_aside(tmp_path / "store", b"a file where the folder should be")
        said = "does not answer|is not there|refuses us"
    with pytest.raises(StoreNotUsable, match=said):
        store.check_store(settings)
    if address.startswith("s3"):
        fsspec.filesystem("s3").clear_instance_cache()


def test_no_password_of_a_store_is_shown(machine: Machine) -> None:
    settings = machine("one").model_copy(update={"store": "sftp://me:secret@host/folder"})
    assert store.say_store(settings) == "sftp://host/folder"


def test_an_import_that_can_not_put_its_files_says_so_and_is_gone_on_with(
    own_database: Database, machine: Machine, embedder: HashEmbedder, tmp_path: Path
) -> None:
    one = machine("one")
    wrong = one.model_copy(update={"store": "memory-of-nobody://bucket"})
    for number in range(3):
        make_image_file(tmp_path / "photos" / f"{number}.jpg", number)
    with own_database.session() as session:
        collection = make_collection(session)
    with pytest.raises(StoreNotUsable):
        import_images(
            own_database, collection.id, tmp_path / "photos", settings=wrong, embedder="hash"
        )
    with own_database.session() as session:
        assert session.scalar(select(func.count()).select_from(Image)) == 0
    import_images(own_database, collection.id, tmp_path / "photos", settings=one)
    build_index(own_database, collection.id, settings=one, embedder="hash")
    with own_database.session() as session:
        assert session.scalar(select(func.count()).select_from(Image)) == 3


# --- Two machines --------------------------------------------------------------------------------


def test_a_second_machine_serves_what_the_first_made(
    own_database: Database,
    own_database_url: str,
    machine: Machine,
    embedder: HashEmbedder,
    readers: Readers,
    tmp_path: Path,
) -> None:
    one, other = machine("one"), machine("other")
    collection = add_pond(own_database, one, tmp_path)
    with own_database.session() as session:
        images = session.scalars(select(Image).order_by(Image.id)).all()
        [row] = session.scalars(select(ImageIndex))
    made = (one.home / "indexes" / str(row.id) / "vectors.npy").read_bytes()
    shutil.rmtree(tmp_path / "one")  # the first machine is gone for good
    index = OpenIndexes(other).get(row)
    assert sorted(index.image_ids.tolist()) == [image.id for image in images]
    assert (other.home / "indexes" / str(row.id) / "vectors.npy").read_bytes() == made
    small = get_thumbnail(images[0], 320, settings=other, readers=readers)
    assert small.is_relative_to(other.home) and small.is_file()
    with open_web(other, own_database_url) as web:
        sign_in(web)
        original = web.get(f"/images/{images[1].id}/original")
        assert original.status_code == 200 and len(original.content) == images[1].size_bytes
        assert web.get("/api/v1/ready").status_code == 200
    # The same files again are known, though their originals are in another machine's folder.
    for number in range(7):
        make_image_file(tmp_path / "photos" / f"{number}.jpg", number, size=(500, 400))
    for file, image in zip(sorted((tmp_path / "photos").iterdir()), images, strict=False):
        os.utime(file, ns=(0, 0))
        assert file.stat().st_size == image.size_bytes
    again = import_images(
        own_database, collection.id, tmp_path / "photos", settings=other, copy=True
    )
    assert (again.imported, again.duplicates + again.known) == (1, 6)
    embedder.embedded_count = 0
    grown = build_index(own_database, collection.id, settings=other, embedder="hash")
    assert (grown.image_count, embedder.embedded_count) == (7, 1)
    # A new embedder reads all originals: those that the first machine copied are fetched.
    shutil.rmtree(other.home / "originals")
    with own_database.session() as session:
        session.execute(update(ImageIndex).values(revision="another"))
    anew = build_index(own_database, collection.id, settings=other, embedder="hash")
    assert anew.image_count == 7


def test_an_upload_at_one_server_is_imported_by_a_worker_elsewhere(
    own_database: Database, machine: Machine, embedder: HashEmbedder, tmp_path: Path
) -> None:
    one, other = machine("one"), machine("other")
    data = make_image_file(tmp_path / "a.jpg", 3).read_bytes()
    with own_database.session() as session:
        person, collection = make_person(session), make_collection(session)
        upload = start_upload(session, collection, person, settings=one, embedder="hash")
        place = add_file(
            session, upload, path="a.jpg", size_bytes=len(data), modified_ms=10**12, settings=one
        )
    with append_to(place, 0) as appending:
        appending.write(data)
    with own_database.session() as session:
        complete(session, place, settings=one)
    with own_database.session() as session:
        person = session.get_one(Person, person.id)
        job = finish_upload(session, session.get_one(Upload, upload.id), person, settings=one)
        job_id = job.id
    shutil.rmtree(one.home)
    with own_database.session() as session:
        job = session.get_one(Job, job_id)
    do_import(own_database, other, job, lambda *_: None)
    with own_database.session() as session:
        [image] = session.scalars(select(Image))
        assert image.path == "a.jpg"
        assert session.scalar(select(ImageIndex.state)) == "ready"
    assert not any(name.startswith("uploads/") for name in list_names(other))
    assert f"originals/{collection.id}/{image.sha256[:2]}/{image.sha256}.jpg" in list_names(other)


def test_an_example_photo_is_there_on_every_machine(
    machine: Machine, readers: Readers, tmp_path: Path
) -> None:
    one, other = machine("one"), machine("other")
    data = make_image_file(tmp_path / "a.jpg", 3).read_bytes()
    photo = read_photo(data, settings=one, readers=readers)
    path = photo_path(photo.sha256, settings=other)
    assert store.fetch_file(other, path) and path.read_bytes() == data


@pytest.mark.slow
def test_a_build_is_shared_by_machines_without_a_common_folder(
    own_database: Database,
    machine: Machine,
    embedder: HashEmbedder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("app.splitting.PART_IMAGES", 16)
    one, other, third = machine("one"), machine("other"), machine("third")
    for number in range(100):
        make_image_file(tmp_path / "photos" / f"{number:03}.png", number, file_format="PNG")
    with own_database.session() as session:
        collection, apart = make_collection(session), make_collection(session, name="Apart")
    for here in (collection, apart):
        import_images(own_database, here.id, tmp_path / "photos", settings=one, copy=True)
    alone = build_index(own_database, apart.id, settings=one, embedder="hash")

    class Killed(Exception):
        pass

    def die(done: int, _total: int) -> None:
        if done >= 32:
            raise Killed

    with pytest.raises(Killed):
        build_index(
            own_database,
            collection.id,
            settings=one,
            embedder="hash",
            progress=die,
            call_for_help=lambda _: None,
        )
    with own_database.session() as session:
        [row] = session.scalars(select(ImageIndex).filter_by(collection_id=collection.id))
        row.state = "building"
    lone = (one.home / "indexes" / str(alone.id) / "vectors.npy").read_bytes()
    shutil.rmtree(one.home)  # with all that it had laid out
    embedder.embedded_count = 0
    help_build(own_database, row.id, settings=other, go_on=lambda: True, progress=lambda *_: None)
    assert 0 < embedder.embedded_count <= 100 - 32
    embedder.embedded_count = 0
    made = build_index(own_database, collection.id, settings=third, embedder="hash")
    assert embedder.embedded_count == 0
    assert (third.home / "indexes" / str(made.id) / "vectors.npy").read_bytes() == lone
    with own_database.session() as session:
        assert session.scalar(select(func.count()).select_from(IndexPart)) == 0
    assert not any(".parts" in name for name in list_names(third))
    assert not parts_folder(third, made.id).exists()


# --- Keeping it ----------------------------------------------------------------------------------


def test_a_deleted_collection_is_gone_from_the_store_too(
    own_database: Database, machine: Machine, embedder: HashEmbedder, tmp_path: Path
) -> None:
    one, other = machine("one"), machine("other")
    collection = add_pond(own_database, one, tmp_path)
    assert {name.partition("/")[0] for name in list_names(one)} == {
        "originals",
        "thumbnails",
        "indexes",
    }
    with own_database.session() as session:
        kept = session.get_one(Collection, collection.id)
        told = describe_collection_contents(session, kept, other)
        assert told.original_bytes and told.index_bytes  # this machine has nothing of it
        kept.deleted_at = datetime.now(UTC) - KEPT_FOR
    gone = empty_bin(own_database, other, now=datetime.now(UTC))
    assert gone.collections == 1
    assert list_names(one) == set()


def test_gc_takes_from_the_store_what_no_row_knows(
    own_database: Database, machine: Machine, embedder: HashEmbedder, tmp_path: Path
) -> None:
    one = machine("one")
    collection = add_pond(own_database, one, tmp_path)
    kept = list_names(one)
    ab = "ab" * 32
    orphans = [
        put_aside(one.home / "thumbnails" / "ab" / f"{ab}-320.jpg"),
        put_aside(one.home / "photos" / "ab" / ab),
        put_aside(one.home / "originals" / str(collection.id) / "ab" / f"{ab}.jpg"),
        put_aside(one.home / "originals" / "77" / "ab" / f"{ab}.jpg"),
        put_aside(one.home / "indexes" / "77" / "vectors.npy"),
        put_aside(one.home / "indexes" / "77.parts" / "0.npy"),
        put_aside(one.home / "replays" / "77" / "runs" / "a.json"),
        put_aside(one.home / "exports" / "77" / "images.csv"),
        put_aside(one.home / "uploads" / "77" / "files" / "a.jpg"),
    ]
    store.put_files(one, orphans)
    now = datetime.now(UTC)
    names = {path.relative_to(one.home).as_posix() for path in orphans}
    for path in orphans:
        path.unlink()
    for part in ("exports", "uploads"):  # of which a folder here would say enough
        shutil.rmtree(one.home / part)
    sweep(own_database, one, now=now, remove=True)
    assert names - list_names(one) <= {"exports/77/images.csv"}  # too young, but for exports
    later = now + timedelta(days=2)
    counted = sweep(own_database, one, now=later, remove=False)
    assert list_names(one) >= kept
    in_store = [one for one in counted.leftovers if one.kind.endswith("in the store")]
    assert sum(one.count for one in in_store) == len(orphans) - 1
    assert counted.missing == []
    sweep(own_database, one, now=later, remove=True)
    assert list_names(one) == kept
    store.delete_folders(one, [one.home / "thumbnails", one.home / "originals"])
    shutil.rmtree(one.home / "thumbnails")
    shutil.rmtree(one.home / "originals")
    missing = sweep(own_database, one, now=later, remove=False).missing
    assert [(one.kind, one.count) for one in missing] == [("originals", 6), ("thumbnails", 6)]


def test_the_doctor_knows_the_store(
    own_database: Database,
    own_database_url: str,
    machine: Machine,
    embedder: HashEmbedder,
    tmp_path: Path,
) -> None:
    one = machine("one").model_copy(update={"database_url": own_database_url})
    other = machine("other").model_copy(update={"database_url": own_database_url})
    add_pond(own_database, one, tmp_path)
    other.home.mkdir(parents=True)
    [row] = _list_rows(own_database)

    def look(settings: Settings) -> dict[str, tuple[str, str]]:
        found = examine(settings, now=datetime.now(UTC))
        return {one.what: (one.state, one.sentence) for one in found}

    said = look(other)
    assert said["store"][0] == said["originals"][0] == said["indexes"][0] == "well"
    assert not (other.home / "indexes").exists()  # looking fetches nothing
    assert is_on_disk(row.id, other)
    folder = one.home / "indexes" / str(row.id)
    store.delete_files(one, [folder / "vectors.npy"])
    with pytest.raises(IndexNotUsable, match=r"vectors\.npy"):
        check_index(row, other)
    store.delete_folders(one, [one.home / "originals"])
    shutil.rmtree(one.home)
    said = look(other)
    assert said["index"][0] == said["originals"][0] == "wrong"
    wrong = other.model_copy(update={"store": "memory-of-nobody://bucket"})
    said = look(wrong)
    assert said["store"][0] == "wrong" and "memory-of-nobody" in said["store"][1]
    parts = {part.name: part.problem for part in Readiness(wrong, own_database).check()}
    assert parts["store"] is not None and parts["database"] is None


def _list_rows(database: Database) -> list[ImageIndex]:
    with database.session() as session:
        return list(session.scalars(select(ImageIndex)))


def test_a_backup_says_that_files_are_in_the_store(
    own_database: Database,
    own_database_url: str,
    machine: Machine,
    embedder: HashEmbedder,
    tmp_path: Path,
    address: str,
) -> None:
    one = machine("one").model_copy(update={"database_url": own_database_url})
    add_pond(own_database, one, tmp_path)
    made = back_up(one, tmp_path / "backup", now=datetime.now(UTC), progress=lambda *_: None)
    assert made.manifest.store == address
    assert (made.manifest.file_count, made.manifest.outside_count) == (0, 0)
    assert made.missing == []


def test_a_data_folder_of_one_machine_fills_the_store(
    own_database: Database,
    machine: Machine,
    embedder: HashEmbedder,
    readers: Readers,
    tmp_path: Path,
) -> None:
    one, other = machine("one"), machine("other")
    without = one.model_copy(update={"store": None})
    collection = add_pond(own_database, without, tmp_path)
    left = put_aside(one.home / "thumbnails" / "ab" / f"{'ab' * 32}-320.jpg")  # of nobody
    assert list_names(one) == set()
    with pytest.raises(BadInput, match="RAREFIND_STORE"):
        fill_store(own_database, without, progress=lambda *_: None)
    told: list[tuple[int, int]] = []
    count = fill_store(own_database, one, progress=lambda *pair: told.append(pair))
    assert told[-1] == (count, count)
    assert left.relative_to(one.home).as_posix() not in list_names(one)
    shutil.rmtree(one.home)
    with own_database.session() as session:
        [row] = session.scalars(select(ImageIndex))
        images = session.scalars(select(Image).filter_by(collection_id=collection.id)).all()
    assert OpenIndexes(other).get(row).count == 6
    for image in images:
        assert store.find_original(image.file, other).stat().st_size == image.size_bytes
        assert get_thumbnail(image, 1280, settings=other, readers=readers).is_file()


def test_without_a_store_nothing_is_asked_of_one(settings: Settings) -> None:
    file = put_aside(settings.home / "thumbnails" / "a.jpg")
    store.put_files(settings, [file])
    store.delete_files(settings, [file])
    store.delete_folders(settings, [file.parent])
    assert store.fetch_file(settings, file)
    assert not store.fetch_folder(settings, settings.home / "indexes" / "1")
    assert list(store.list_stored(settings, "thumbnails")) == []
    assert store.find_original("/else/originals/1/ab/" + "ab" * 32 + ".jpg", settings) == Path(
        "/else/originals/1/ab/" + "ab" * 32 + ".jpg"
    )
