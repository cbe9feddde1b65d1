"""What `rarefind doctor` finds wrong, and that it finds nothing where nothing is."""

import os
import shutil
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from app.database import RESTORING
from app.deleting import KEPT_FOR
from app.examining import examine
from app.importing import import_images
from app.indexing import build_index
from app.jobs import add_job
from app.tables import Collection, Image
from tests.factories import make_collection, make_image_file, make_index
from tests.stand_ins import HashEmbedder, make_tiny_clip, register


@pytest.fixture
def pond(own_database, own_database_url, settings, tmp_path, monkeypatch):
    """Settings of a server in good order: photos of its own, an index."""
    register(monkeypatch, HashEmbedder())
    settings = settings.model_copy(
        update={"database_url": own_database_url, "workers": 1, "keep_free_gb": 0.001}
    )
    for number in range(5):
        make_image_file(tmp_path / "photos" / f"{number}.jpg", number)
    with own_database.session() as session:
        collection_id = make_collection(session).id
    import_images(own_database, collection_id, tmp_path / "photos", settings=settings)
    build_index(own_database, collection_id, settings=settings, embedder="hash")
    return settings


def look(settings, *, now=None) -> dict[str, list[str]]:
    """By state, what was found."""
    found: dict[str, list[str]] = {"well": [], "remark": [], "wrong": []}
    for one in examine(settings, now=now or datetime.now(UTC)):
        found[one.state].append(f"{one.what}: {one.sentence}")
    found["remark"] = [line for line in found["remark"] if not line.startswith("disk: ")]
    return found


def only(settings, *, state="wrong", **options) -> str:
    """The one thing of that state."""
    (line,) = look(settings, **options)[state]
    return line


def test_server_in_good_order_is_well(pond):
    found = look(pond)
    assert found["wrong"] == [] and found["remark"] == []
    text_of_all = "\n".join(found["well"])
    for what in ("data folder", "device", "clock", "long work", "left over"):
        assert f"{what}: " in text_of_all
    assert "indexes: 1, all as" in text_of_all
    assert "weights: Those of hash" in text_of_all
    assert "originals: All 5 of “Pond”" in text_of_all


def test_originals_that_are_gone_are_counted_and_the_first_named(pond, own_database, tmp_path):
    for number in (0, 1, 2, 3):
        (tmp_path / "photos" / f"{number}.jpg").unlink()
    line = only(pond)
    assert "4 of 5 of “Pond” are gone" in line and "1 more" in line
    assert str(tmp_path / "photos" / "0.jpg") in line
    with own_database.session() as session:
        session.execute(text("UPDATE images SET removed_at = now()"))
    assert look(pond)["wrong"] == [], "removed images need no file"


def test_damaged_missing_and_unknown_indexes_are_told_apart(pond, own_database):
    vectors = pond.home / "indexes" / "1" / "vectors.npy"
    whole = vectors.read_bytes()
    vectors.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    line = only(pond)
    assert "Number 1 of “Pond”" in line and "vectors.npy" in line and "--embedder hash" in line
    shutil.rmtree(vectors.parent)
    assert "its folder is gone" in only(pond)
    with own_database.session() as session:
        session.execute(text("DELETE FROM indexes"))
    for name in ("7", "8.building", "ahead-9-abc"):
        (pond.home / "indexes" / name).mkdir()
        (pond.home / "indexes" / name / "vectors.npy").write_bytes(bytes(1000))
    assert look(pond)["remark"] == [], "their rows may be on the way"
    later = datetime.now(UTC) + timedelta(days=2)
    found = "\n".join(look(pond, now=later)["remark"])
    assert "3 files" in found and "indexes/8.building" in found


def test_what_nothing_needs_is_told(pond, own_database):
    old = (datetime.now(UTC) - timedelta(days=3)).timestamp()
    orphan = pond.home / "thumbnails" / "ab" / f"{'ab' * 32}-320.jpg"
    for path in (orphan, pond.home / "exports" / "5" / "images.csv"):
        path.parent.mkdir(parents=True)
        path.write_bytes(bytes(100_000))
        os.utime(path, (old, old))
    os.utime(pond.home / "exports" / "5", (old, old))
    with own_database.session() as session:
        away = make_collection(session, name="Old pond")
        away.deleted_at = datetime.now(UTC) - KEPT_FOR
    remarks = look(pond)["remark"]
    assert [line.partition(":")[0] for line in remarks] == ["bin", "exports", "left over"]
    assert "1 files (0.1 MB)" in remarks[2] and str(orphan) in remarks[2]


def test_weights_that_are_not_here_are_named(pond, own_database, tmp_path):
    name = make_tiny_clip(tmp_path / "clip")
    with own_database.session() as session:
        images = session.query(Image).all()
        make_index(session, pond, images, embedder=name)
    assert look(pond)["wrong"] == []
    (tmp_path / "clip" / "open_clip_model.safetensors").unlink()
    line = only(pond)
    assert line.startswith("weights: ") and "open_clip_model.safetensors" in line


def test_work_without_a_worker_is_told(pond, own_database):
    with own_database.session() as session:
        collection_id = session.query(Collection).one().id
        add_job(session, "index", collection_id=collection_id, person=None)
    line = only(pond)
    assert "1 waiting" in line and "rarefind worker" in line
    with own_database.session() as session:
        session.execute(text("INSERT INTO procrastinate_workers DEFAULT VALUES"))
    assert look(pond)["wrong"] == []


def test_clock_that_went_back_is_told(pond, own_database):
    with own_database.session() as session:
        session.execute(
            text(
                "INSERT INTO audit_events (at, person_name, kind, sentence) "
                "VALUES (now() + interval '1 hour', 'me', 'import', 'Added')"
            )
        )
    assert "earlier than the newest thing" in only(pond)


def test_device_that_is_not_there_is_told(pond):
    line = only(pond.model_copy(update={"device": "cuda:7"}))
    assert line.startswith("device: RAREFIND_DEVICE=cuda:7 can't be used")


def test_databases_of_other_versions_are_told(pond, own_database, empty_database_url):
    with own_database.session() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '0035'"))
    assert "at version 0035" in only(pond, state="remark")
    with own_database.session() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    assert "newer Rarefind" in only(pond)
    empty = pond.model_copy(update={"database_url": empty_database_url})
    assert "no tables yet" in only(empty, state="remark")


def test_database_that_does_not_answer_is_told_without_its_password(pond):
    url = "postgresql://rarefind:geheim@127.0.0.1:9/rarefind"
    line = only(pond.model_copy(update={"database_url": url}))
    assert "127.0.0.1:9" in line and "does not answer" in line and "geheim" not in line


def test_folders_that_are_not_in_order_are_told(pond, settings, tmp_path):
    nowhere = settings.model_copy(update={"home": tmp_path / "nowhere"})
    assert "not there yet" in only(nowhere, state="remark")
    assert not nowhere.home.exists()
    (pond.home / RESTORING).touch()
    assert "did not come to its end" in only(pond)
    (pond.home / RESTORING).unlink()
    assert "set DATABASE_URL" in only(pond.model_copy(update={"database_url": None}))
    assert "RAREFIND_KEEP_FREE_GB" in only(pond.model_copy(update={"keep_free_gb": 1e6}))
