"""What searches a collection: chosen by command, filled, found, gone on with, and taken away."""

import shutil

import numpy as np
import pytest
from sqlalchemy import select, text
from sqlalchemy.orm import Session
from typer.testing import CliRunner, Result

from app.cli import app
from app.deleting import KEPT_FOR
from app.engine.milvus import Milvus, fill_collection
from app.errors import BadInput, VectorsAway
from app.indexing import OpenIndexes, build_index, get_current_index
from app.searchers import (
    LITE,
    Searchers,
    check_vectors,
    list_leftover_vectors,
    own_prefix,
)
from app.sweeping import sweep
from app.tables import Collection, ImageIndex
from tests.factories import make_image_file
from tests.features.test_sweeping import NOW
from tests.stand_ins import HashEmbedder, register

pytestmark = pytest.mark.slow


@pytest.fixture
def rarefind(monkeypatch, settings, own_database_url):
    """Runs `rarefind …` on a data folder and a database of the test's own."""
    monkeypatch.setenv("RAREFIND_HOME", str(settings.home))
    monkeypatch.setenv("DATABASE_URL", own_database_url)
    monkeypatch.setenv("RAREFIND_WORKERS", "1")
    register(monkeypatch, HashEmbedder())

    def run(*arguments: object) -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return run


@pytest.fixture
def settings(settings):
    return settings.model_copy(update={"workers": 1})


@pytest.fixture
def photos(tmp_path):
    for number in range(6):
        make_image_file(tmp_path / "photos" / f"{number}.jpg", number)
    return tmp_path / "photos"


@pytest.fixture
def searchers(settings):
    searchers = Searchers(settings)
    yield searchers
    searchers.close()


def current(session: Session) -> ImageIndex:
    return get_current_index(session, 1, embedder="hash")


def list_in_milvus(settings) -> list[str]:
    milvus = Milvus(str(settings.home / "milvus" / "lite.db"))
    try:
        return milvus.list_collections("")
    finally:
        milvus.close()


def test_a_collection_goes_to_milvus_and_grows_while_it_is_searched(
    rarefind, own_database, settings, photos, searchers
):
    added = rarefind("collection", "add", "Pond", photos, "--embedder", "hash", "--vectors", LITE)
    assert added.exit_code == 0, added.output
    opened = OpenIndexes(settings)
    with own_database.session() as session:
        first = current(session)
        assert first.vectors == LITE
        index = opened.get(first)
        searcher = searchers.find(first, settings.home / "indexes" / "1", index.vectors)
    expected = np.argsort(-(index.vectors[2] @ index.vectors.T))[:6]
    assert searcher.find_nearest(index.vectors[2:3], 6, None).tolist() == [expected.tolist()]

    make_image_file(photos / "6.jpg", 6)
    assert rarefind("collection", "add", "Pond", photos).exit_code == 0
    assert searcher.find_nearest(index.vectors[2:3], 1, None).tolist() == [[2]], "goes on"
    with own_database.session() as session:
        second = current(session)
        assert second.id != first.id and second.image_count == 7
        larger = opened.get(second)
        folder = settings.home / "indexes" / str(second.id)
        grown = searchers.find(second, folder, larger.vectors)
        assert grown.find_nearest(larger.vectors[6:], 1, None).tolist() == [[6]]
        assert list_leftover_vectors(session, settings) == [(LITE, first.milvus_name)]


def test_what_is_missing_in_milvus_is_said_and_filled_by_the_next_build(
    rarefind, own_database, settings, photos, searchers
):
    rarefind("collection", "add", "Pond", photos, "--embedder", "hash", "--vectors", LITE)
    shutil.rmtree(settings.home / "milvus")
    with own_database.session() as session:
        row = current(session)
    vectors = OpenIndexes(settings).get(row).vectors
    searcher = searchers.find(row, settings.home / "indexes" / str(row.id), vectors)
    with pytest.raises(VectorsAway, match=r"holds 0\. Run `rarefind index build`"):
        searcher.find_nearest(vectors[:1], 1, None)
    assert rarefind("index", "build", "Pond", "--embedder", "hash").exit_code == 0
    assert searcher.find_nearest(vectors[3:4], 1, None).tolist() == [[3]]
    with own_database.session() as session:
        assert current(session).id == row.id, "nothing was embedded or copied"


def test_a_collection_goes_back_to_faiss_and_what_milvus_held_is_swept(
    rarefind, own_database, settings, photos, monkeypatch
):
    rarefind("collection", "add", "Pond", photos, "--embedder", "hash", "--vectors", LITE)
    embedder = HashEmbedder()
    register(monkeypatch, embedder)
    changed = rarefind("index", "build", "Pond", "--embedder", "hash", "--vectors", "faiss")
    assert changed.exit_code == 0, changed.output
    assert embedder.embedded_count == 0, "its vectors are copied"
    with own_database.session() as session:
        assert current(session).vectors == "faiss"
        milvus = Milvus(str(settings.home / "milvus" / "lite.db"))
        strange = "rarefind_0123456789_1_abc"  # of another installation
        for name in (strange, f"{own_prefix(session)}77_abc"):
            list(fill_collection(milvus, name, vectors=np.eye(3, dtype=np.float32), fields=None))
        milvus.close()
    counted = sweep(own_database, settings, now=NOW, remove=False)
    assert [one.count for one in counted.leftovers if "Milvus" in one.kind] == [2]
    assert len(list_in_milvus(settings)) == 3
    sweep(own_database, settings, now=NOW, remove=True)
    assert list_in_milvus(settings) == [strange]


def test_deleting_a_collection_drops_what_milvus_holds_of_it(
    rarefind, own_database, settings, photos
):
    rarefind("collection", "add", "Pond", photos, "--embedder", "hash", "--vectors", LITE)
    rarefind("collection", "add", "Lake", photos, "--embedder", "hash", "--vectors", LITE)
    assert len(list_in_milvus(settings)) == 2
    with own_database.session() as session:
        pond = session.get_one(Collection, 1)
        pond.deleted_at = NOW - KEPT_FOR
    sweep(own_database, settings, now=NOW, remove=True)
    with own_database.session() as session:
        assert list_in_milvus(settings) == list(session.scalars(select(ImageIndex.milvus_name)))


def test_a_build_that_milvus_refused_goes_on_when_it_is_back(
    rarefind, own_database, settings, photos
):
    rarefind("collection", "add", "Pond", photos, "--embedder", "hash")
    with own_database.session() as session:
        session.get_one(Collection, 1).vectors = "milvus:http://127.0.0.1:9"
    with pytest.raises(VectorsAway, match=r"Milvus at http://127\.0\.0\.1:9 can't be used"):
        build_index(own_database, 1, settings=settings, embedder="hash")
    with own_database.session() as session:
        failed = session.scalars(select(ImageIndex).filter_by(state="failed")).one()
        assert "127.0.0.1:9" in failed.problem
        assert current(session).vectors == "faiss", "searches go on with what was there"
        failed.vectors = session.get_one(Collection, 1).vectors = LITE
    made = build_index(own_database, 1, settings=settings, embedder="hash")
    assert (made.id, made.vectors) == (failed.id, LITE)


def test_combined_indexes_go_to_milvus_too(rarefind, own_database, settings, photos, monkeypatch):
    other = HashEmbedder("other:1")
    other.name = "other"
    register(monkeypatch, other)
    for name in ("hash", "other"):
        rarefind("collection", "add", "Pond", photos, "--embedder", name, "--vectors", LITE)
    assert rarefind("index", "combine", "Pond", "hash", "other").exit_code == 0
    with own_database.session() as session:
        row = get_current_index(session, 1, embedder="hash + other")
        assert row.milvus_name in list_in_milvus(settings)


@pytest.mark.parametrize(
    "vectors",
    [
        "milvus",
        "milvus:",
        "qdrant",
        "milvus:ftp://host",
        "milvus:/srv/lite.db",
        "milvus:http://ada:secret@host:19530",
        "milvus:http://host:19530/?token=secret",
    ],
)
def test_what_is_no_place_for_vectors_is_refused_without_repeating_it(settings, vectors):
    with pytest.raises(BadInput, match="RAREFIND_MILVUS_TOKEN_FILE") as refused:
        check_vectors(vectors, settings)
    assert "secret" not in str(refused.value)


def test_a_cluster_that_does_not_answer_is_refused_at_once(settings, tmp_path):
    (tmp_path / "token").write_text("ada:secret\n")
    settings = settings.model_copy(update={"milvus_token_file": tmp_path / "token"})
    with pytest.raises(BadInput, match=r"Milvus at http://127\.0\.0\.1:9 can't be used") as refused:
        check_vectors("milvus:HTTP://127.0.0.1:9/", settings)
    assert "secret" not in str(refused.value)


def test_every_role_of_a_database_may_ask_whose_names_are_its_own(own_database):
    with own_database.session() as session:
        own = own_prefix(session)
        session.execute(text("CREATE ROLE nobody_of_milvus"))
        session.execute(text("SET LOCAL ROLE nobody_of_milvus"))
        assert own_prefix(session) == own
        session.rollback()
