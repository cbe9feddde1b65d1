"""What `rarefind gc` takes, what it leaves to work under way, and what it finds missing."""

import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import event, text

from app.deleting import KEPT_FOR
from app.importing import get_thumbnail, import_images
from app.indexing import build_index
from app.reading import thumbnail_path
from app.sweeping import SETTLED, sweep
from app.tables import ExportFile, Image, ImageIndex, Search, Upload
from tests.factories import make_collection, make_image_file, make_person
from tests.stand_ins import HashEmbedder, register

NOW = datetime.now(UTC)
OLD_S = (NOW - timedelta(days=3)).timestamp()


@pytest.fixture
def pond(own_database, settings, tmp_path, monkeypatch):
    """A data folder in good order, of days ago: copied originals, an index."""
    register(monkeypatch, HashEmbedder())
    settings = settings.model_copy(update={"workers": 1})
    for number in range(4):
        make_image_file(tmp_path / "photos" / f"{number}.jpg", number, size=(400, 300))
    with own_database.session() as session:
        collection_id = make_collection(session).id
    import_images(own_database, collection_id, tmp_path / "photos", settings=settings, copy=True)
    build_index(own_database, collection_id, settings=settings, embedder="hash")
    for path in settings.home.rglob("*"):
        os.utime(path, (OLD_S, OLD_S))
    return settings


def put(path: Path, *, size_bytes: int = 1_000, at_s: float = OLD_S) -> Path:
    """A file that was written days ago, its new folders too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size_bytes))
    for one in (path, *path.parents[:3]):
        os.utime(one, (at_s, at_s))
    return path


def list_all(home: Path) -> set[Path]:
    return {path for path in home.rglob("*") if path.is_file()}


def test_nothing_is_taken_of_a_folder_in_good_order(own_database, pond):
    before = list_all(pond.home)
    swept = sweep(own_database, pond, now=NOW + SETTLED, remove=True)
    assert swept.is_empty and swept.missing == []
    assert list_all(pond.home) == before


def test_what_no_row_knows_is_counted_first_and_taken_when_asked(own_database, pond):
    kept = list_all(pond.home)
    ab = "ab" * 32
    with own_database.session() as session:
        image = session.query(Image).first()
        index = session.query(ImageIndex).one()
        upload = Upload(collection_id=1, person_id=make_person(session).id, state="receiving")
        failed = ImageIndex(
            collection_id=1,
            embedder="hash",
            revision="other",
            dimension=2,
            image_count=1,
            state="failed",
        )
        session.add_all([upload, failed])
        session.flush()
        home, known = pond.home, Path(image.file)
        wanted = {  # of what may be gone on with
            put(home / "indexes" / f"{failed.id}.building" / "vectors.npy"),
            put(home / "indexes" / "ahead-1-abc"),
        }
        orphans = {
            put(home / "thumbnails" / "ab" / f"{ab}-320.jpg"),
            put(home / "thumbnails" / image.sha256[:2] / f"{image.sha256}-320.jpg.7-7.part"),
            put(home / "photos" / "ab" / ab),
            put(home / "originals" / "1" / "ab" / f"{ab}.jpg"),
            put(home / "originals" / "1" / "incoming-7.part"),
            put(home / "originals" / "77" / "ab" / known.name),
            put(home / "indexes" / "77" / "vectors.npy"),
            put(home / "indexes" / f"{index.id}.building" / "vectors.npy"),
            put(home / "indexes" / "ahead-77-abc"),
            put(home / "replays" / "77" / "runs" / "a.json"),
            put(home / "uploads" / f"{upload.id}" / "parts" / "77"),
            put(home / "uploads" / "77" / "parts" / "1"),
            put(home / "exports" / "77" / "images.csv"),
        }
    young = put(home / "originals" / "1" / "cd" / f"{'cd' * 32}.jpg", at_s=NOW.timestamp())

    counted = sweep(own_database, pond, now=NOW, remove=False)
    assert list_all(home) == kept | wanted | orphans | {young}
    assert sum(one.count for one in counted.leftovers) == len(orphans)
    assert counted.size_bytes == 1_000 * len(orphans)
    taken = sweep(own_database, pond, now=NOW, remove=True)
    assert list_all(home) == kept | wanted | {young}
    assert taken == counted
    assert sweep(own_database, pond, now=NOW, remove=True).is_empty


def test_what_was_kept_long_enough_goes_with_its_rows(own_database, pond):
    with own_database.session() as session:
        person = make_person(session)
        away = make_collection(session, name="Old pond")
        away.deleted_at = NOW - KEPT_FOR
        search = Search(
            collection_id=1,
            owner_id=person.id,
            target_name="heron",
            embedder="hash",
            strategy="random",
            round_size=6,
            seed=1,
        )
        upload = Upload(collection_id=1, person_id=person.id, state="receiving")
        upload.touched_at = NOW - timedelta(days=30)
        session.add_all([search, upload])
        session.flush()
        exports = [
            ExportFile(person_id=person.id, search_id=search.id, name="images.csv", ready_at=at)
            for at in (NOW, NOW - timedelta(days=30))
        ]
        session.add_all(exports)
        session.flush()
        new, old = (put(pond.home / "exports" / str(one.id) / one.name) for one in exports)
        cut_off = put(new.parent / f"{'7' * 32}.part")  # by a worker that was killed
        parts = pond.home / "uploads" / str(upload.id) / "parts"
        piece = put(parts / "1", at_s=upload.touched_at.timestamp())
        original = put(pond.home / "originals" / str(away.id) / "ab" / f"{'ab' * 32}.jpg")
    counted = sweep(own_database, pond, now=NOW, remove=False)
    assert (counted.collections, counted.searches, counted.bin_bytes) == (1, 0, 1_000)
    assert original.exists() and piece.exists() and old.exists()
    assert sweep(own_database, pond, now=NOW, remove=True) == counted
    assert new.exists() and not any(path.exists() for path in (original, piece, old, cut_off))
    with own_database.session() as session:
        assert session.scalar(text("SELECT count(*) FROM uploads")) == 0
        assert session.scalar(text("SELECT count(*) FROM export_files")) == 1


def test_thumbnail_that_an_import_wants_again_meanwhile_stays(own_database, pond, tmp_path):
    make_image_file(tmp_path / "late" / "9.jpg", 9, size=(400, 300))
    with own_database.session() as session:
        late_id = make_collection(session, name="Late").id
    import_images(own_database, late_id, tmp_path / "late", settings=pond)
    with own_database.session() as session:
        image = session.query(Image).filter_by(collection_id=late_id).one()
        paths = [
            thumbnail_path(pond.home, image.sha256, image.width, image.height, side)
            for side in (320, 1280)
        ]
        session.execute(text("DELETE FROM image_paths WHERE collection_id = 2"))
        session.execute(text("DELETE FROM images WHERE collection_id = 2"))
    for path in paths:
        os.utime(path, (OLD_S, OLD_S))
    assert sweep(own_database, pond, now=NOW, remove=False).size_bytes > 0
    begun = []

    def import_again(_connection, _cursor, statement, *_):
        if "FROM uploaded_files" in statement and not begun:  # all rows of images were read
            begun.append(True)
            import_images(own_database, late_id, tmp_path / "late", settings=pond)

    event.listen(own_database.bind, "after_cursor_execute", import_again)
    try:
        swept = sweep(own_database, pond, now=NOW, remove=True)
    finally:
        event.remove(own_database.bind, "after_cursor_execute", import_again)
    assert begun and all(path.exists() for path in paths)
    assert swept.is_empty and swept.missing == []


def test_what_is_missing_is_named_with_what_to_do(own_database, pond, readers, tmp_path):
    with own_database.session() as session:
        images = session.query(Image).order_by(Image.id).all()
    first, second = images[:2]
    small = get_thumbnail(first, 320, settings=pond, readers=readers)
    get_thumbnail(second, 1280, settings=pond, readers=readers).unlink()
    shutil.rmtree(small.parent)
    Path(first.file).unlink()
    originals, thumbnails = sweep(own_database, pond, now=NOW, remove=True).missing
    assert (originals.kind, originals.count, originals.total) == ("originals", 1, 4)
    assert originals.some == [Path(first.file)] and "--copy" in originals.advice
    assert (thumbnails.kind, thumbnails.count, thumbnails.total) == ("thumbnails", 2, 4)
    assert "Of 1 the original is gone too" in thumbnails.advice
    import_images(own_database, 1, tmp_path / "photos", settings=pond, copy=True)
    assert Path(first.file).is_file(), "the advice helps"
    (thumbnails,) = sweep(own_database, pond, now=NOW, remove=False).missing
    assert thumbnails.count == 1 and "Of" not in thumbnails.advice, "it can be made anew"
