"""Putting away, deleting, the bin, and what is gone for good."""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, select, text
from starlette.testclient import TestClient

from app.accounts import add_person
from app.database import Database
from app.deleting import KEPT_FOR, describe_collection_contents, empty_bin
from app.importing import find_collection, import_images
from app.indexing import build_index
from app.main import create_app
from app.reading import thumbnail_path
from app.searching import open_search
from app.security import get_local_person
from app.tables import Action, Answer, Collection, Image, ImageIndex, Person, Replay, Search, Upload
from tests.factories import (
    make_collection,
    make_image_file,
    make_images,
    make_index,
    make_person,
)
from tests.stand_ins import HashEmbedder, register


@pytest.fixture
def pond(client):
    """A signed-in browser with a collection and a search; their numbers and addresses on it."""
    state = client.app.state
    with state.database.session() as session:
        collection = make_collection(session)
        images = make_images(session, collection, 30)
        make_index(session, state.settings, images)
        client.own = collection.id
        client.search_id = search(client, session, collection.id, images[0].id)
    client.here = f"/collections/{client.own}"
    return client


def search(client, session, collection_id, image_id):
    state = client.app.state
    return open_search(
        session,
        person=get_local_person(session),
        collection_id=collection_id,
        target_name="Grey heron",
        round_size=6,
        image_ids=[image_id],
        photo_ids=[],
        indexes=state.indexes,
        embedders=state.embedders,
        settings=state.settings,
    ).id


def grow_old(client, days):
    """As if everything in the bin had been deleted so many days ago."""
    with client.app.state.database.session() as session:
        for table in ("collections", "searches"):
            age = f"deleted_at = now() - interval '{days} days' WHERE deleted_at IS NOT NULL"
            session.execute(text(f"UPDATE {table} SET {age}"))


def test_put_away_is_off_the_home_page_and_works_as_before(pond):
    pond.post(f"{pond.here}/archive", data={"away": "yes"})
    pond.post(f"/searches/{pond.search_id}/archive", data={"away": "yes"})
    home, away = pond.get("/").text, pond.get("/", params={"away": 1}).text
    assert "Pond" not in home and "Grey heron" not in home and "Put away: 2" in home
    assert "Pond" in away and "Grey heron" in away
    assert pond.get(f"/searches/{pond.search_id}").status_code == 200
    pond.post(f"{pond.here}/archive", data={"away": "no"})
    assert "Pond" in pond.get("/").text


def test_deleted_search_can_be_put_back_with_all_its_answers(pond):
    asked = pond.get(f"/searches/{pond.search_id}/delete").text
    assert "1 image" in asked and "30 days" in asked
    assert pond.post(f"/searches/{pond.search_id}/delete").url.path == "/bin"
    pond.post(f"/searches/{pond.search_id}/delete")  # a double click finds nothing
    assert pond.get(f"/searches/{pond.search_id}").status_code == 404
    assert "Grey heron" not in pond.get("/").text
    assert "Grey heron" in pond.get("/bin").text
    back = pond.post(f"/bin/search/{pond.search_id}/restore")
    assert back.url.path == f"/searches/{pond.search_id}" and back.status_code == 200
    assert "Grey heron" not in pond.get("/bin").text
    assert pond.post(f"/bin/search/{pond.search_id}/restore").status_code == 404


def test_name_of_a_deleted_collection_is_free_and_it_comes_back_under_another(pond):
    pond.post(f"{pond.here}/delete")
    for address in (pond.here, f"/searches/{pond.search_id}", f"{pond.here}/browse"):
        assert pond.get(address).status_code == 404
    assert "Grey heron" not in pond.get("/bin").text, "it lies in the collection"
    with pond.app.state.database.session() as session:
        assert find_collection(session, "Pond") is None
        make_collection(session, name="Pond")
    assert "Pond (2)" in pond.post(f"/bin/collection/{pond.own}/restore").text
    assert pond.get(f"/searches/{pond.search_id}").status_code == 200


def test_what_works_is_stopped_before_its_collection_is_deleted(pond):
    with pond.app.state.database.session() as session:
        person = get_local_person(session)
        common = {"collection_id": pond.own, "person_id": person.id, "settings": {}}
        replay = Replay(**common, state="waiting", run_count=1)
        session.add(replay)
    refused = pond.post(f"{pond.here}/delete")
    assert refused.status_code == 409 and "replay" in refused.text
    with pond.app.state.database.session() as session:
        session.get_one(Replay, replay.id).state = "stopped"
        building = make_building(session, pond.own, updated_at=datetime.now(UTC))
    refused = pond.post(f"{pond.here}/delete")
    assert refused.status_code == 409 and "being prepared" in refused.text
    with pond.app.state.database.session() as session:
        made = session.get_one(ImageIndex, building)
        made.updated_at = datetime.now(UTC) - timedelta(minutes=5)  # its process was killed
    assert pond.post(f"{pond.here}/delete").status_code == 200
    with pond.app.state.database.session() as session:
        assert session.get_one(ImageIndex, building).state == "failed", "or a start goes on with it"


def make_building(session, collection_id, **more):
    row = ImageIndex(
        collection_id=collection_id,
        embedder="other",
        revision="1",
        dimension=8,
        state="building",
        image_count=30,
        **more,
    )
    session.add(row)
    session.flush()
    return row.id


def test_others_neither_delete_nor_see_it_in_their_bin(pond):
    with pond.app.state.database.session() as session:
        me = get_local_person(session)
        add_person(session, "Grace", "admin", by=me)
        me.role = "ecologist"
        own_id = me.id
    assert pond.get(f"{pond.here}/delete").status_code == 403
    assert pond.post(f"{pond.here}/delete").status_code == 403
    assert pond.post(f"{pond.here}/archive", data={"away": "yes"}).status_code == 403
    with pond.app.state.database.session() as session:
        session.get_one(Collection, pond.own).deleted_at = datetime.now(UTC)
    assert "Pond" not in pond.get("/bin").text
    assert pond.post(f"/bin/collection/{pond.own}/restore").status_code == 404
    with pond.app.state.database.session() as session:
        session.get_one(Person, own_id).role = "admin"
    assert "Pond" in pond.get("/bin").text


def test_who_answers_in_a_deleted_search_is_told_that_nothing_is_lost(pond):
    """Somebody else deletes the collection while a person searches in it."""
    with pond.app.state.database.session() as session:
        me = get_local_person(session)
        grace = add_person(session, "Grace", "admin", by=me)
        collection = session.get_one(Collection, pond.own)
        collection.deleted_at, collection.deleted_by_id = datetime.now(UTC), grace.id
        me.role = "ecologist"
    page = pond.get(f"/searches/{pond.search_id}")
    assert page.status_code == 404
    told = "“Pond”, the collection of this search, was deleted by Grace. Nothing is lost yet"
    assert told in page.text
    assert told in pond.get(f"/api/v1/searches/{pond.search_id}").json()["detail"]
    assert "an admin, or who added it, can put it back" in page.text
    # Deleted as well, it comes back after its collection; alone, by whose it is.
    with pond.app.state.database.session() as session:
        search = session.get_one(Search, pond.search_id)
        search.deleted_at, search.deleted_by_id = datetime.now(UTC), search.owner_id
    assert told in pond.get(f"/searches/{pond.search_id}").text
    with pond.app.state.database.session() as session:
        session.get_one(Collection, pond.own).deleted_at = None
    assert "you can put it back from there" in pond.get(f"/searches/{pond.search_id}").text
    with pond.app.state.database.session() as session:
        session.get_one(Search, pond.search_id).deleted_at = None
        session.get_one(Collection, pond.own).deleted_at = datetime.now(UTC)
    # To others it is as if there were none, and to whom the collection was closed before.
    with pond.app.state.database.session() as session:
        session.get_one(Search, pond.search_id).owner_id = grace.id
    assert "There is no such search" in pond.get(f"/searches/{pond.search_id}").text
    with pond.app.state.database.session() as session:
        session.get_one(Search, pond.search_id).owner_id = get_local_person(session).id
        collection = session.get_one(Collection, pond.own)
        collection.open_to, collection.made_by_id = "private", grace.id
    assert "There is no such search" in pond.get(f"/searches/{pond.search_id}").text


def test_after_a_month_it_is_gone_with_its_files_and_nothing_else(
    own_database, settings, tmp_path, monkeypatch
):
    """Thumbnails that another collection shows stay, and so do photos in a person's folder."""
    register(monkeypatch, HashEmbedder())
    for number in range(6):
        make_image_file(tmp_path / "one" / f"{number}.jpg", number, size=(500, 400))
    for number in range(4, 8):
        make_image_file(tmp_path / "two" / f"{number}.jpg", number, size=(500, 400))
    own_ids = {}
    for name, copy in (("one", True), ("two", False)):
        with own_database.session() as session:
            own_ids[name] = make_collection(session, name=name).id
        source = tmp_path / name
        import_images(own_database, own_ids[name], source, settings=settings, copy=copy)
        build_index(own_database, own_ids[name], settings=settings, embedder="hash")
    with own_database.session() as session:
        upload = Upload(
            collection_id=own_ids["one"], person_id=make_person(session).id, state="receiving"
        )
        session.add(upload)
        session.flush()
        for file in (f"uploads/{upload.id}/parts/1", f"indexes/ahead-{own_ids['one']}-0"):
            (settings.home / file).parent.mkdir(parents=True, exist_ok=True)
            (settings.home / file).write_bytes(b"x" * 5_000)
    before = list_files(settings.home)
    with own_database.session() as session:
        collection = session.get_one(Collection, own_ids["one"])
        told = describe_collection_contents(session, collection, settings)
        collection.deleted_at = datetime.now(UTC) - KEPT_FOR + timedelta(hours=1)
    now = datetime.now(UTC)
    assert empty_bin(own_database, settings, now=now).collections == 0, "not a month yet"
    assert list_files(settings.home) == before
    gone = empty_bin(own_database, settings, now=now + timedelta(hours=2))
    assert (gone.collections, gone.searches) == (1, 0)
    after = list_files(settings.home)
    freed = sum(size for path, size in before.items() if path not in after)
    assert gone.size_bytes == freed > 0
    shared = sum(size for path, size in before.items() if path in after and "thumbnails" in path)
    assert not any("ahead-" in path or "uploads/" in path for path in after)
    assert told.original_bytes > 0 and told.index_bytes > 5_000 and told.upload_bytes == 5_000
    assert freed < told.total_bytes < freed + shared
    with own_database.session() as session:
        assert session.scalars(select(Collection.name)).all() == ["two"]
        left = session.scalars(select(Image)).all()
        assert len(left) == 4
        for image in left:
            assert Path(image.file).is_file()
            for side in (320, 1280):
                size = (image.width, image.height)
                assert thumbnail_path(settings.home, image.sha256, *size, side).is_file()
    assert len(list((tmp_path / "one").iterdir())) == 6
    assert empty_bin(own_database, settings, now=now + timedelta(hours=2)).collections == 0


def list_files(home):
    return {
        str(path): path.stat().st_size
        for folder in ("originals", "thumbnails", "indexes", "uploads")
        for path in (home / folder).rglob("*")
        if path.is_file()
    }


def test_server_empties_the_bin_when_it_starts_searches_too(pond):
    pond.post(f"/searches/{pond.search_id}/delete")
    grow_old(pond, 29)
    database: Database = pond.app.state.database
    settings = pond.app.state.settings
    assert empty_bin(database, settings, now=datetime.now(UTC)).searches == 0
    grow_old(pond, 31)
    assert pond.post(f"/bin/search/{pond.search_id}/restore").status_code == 404
    with TestClient(create_app(settings)):  # another server starts
        wait_until(lambda: "Grey heron” for good" in pond.get("/log").text)
    with database.session() as session:
        for table in (Search, Action, Answer):
            assert session.scalar(select(func.count()).select_from(table)) == 0
        assert session.get(Collection, pond.own) is not None


def wait_until(holds):
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)
