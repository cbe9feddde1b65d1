"""Pages where words are typed and indexes chosen, and where a collection gets more of them."""

import html
import re
import time

import numpy as np
import pytest
from sqlalchemy import select

from app.indexes import list_indexes
from app.security import add_token, get_local_person
from app.tables import Example, ImageIndex, Search
from tests.factories import (
    make_collection,
    make_image_file,
    make_images,
    make_index,
    make_vectors,
)
from tests.stand_ins import DirectionEmbedder, HashEmbedder, register

HTMX = {"HX-Request": "true"}
COUNT = 100


@pytest.fixture
def pond(client, monkeypatch):
    """A collection that knows words by “reader” and none by the newer “hash”."""
    vectors = make_vectors(COUNT)
    register(monkeypatch, DirectionEmbedder("reader", {"heron": vectors[0], "newt": vectors[50]}))
    register(monkeypatch, HashEmbedder())
    state = client.app.state
    with state.database.session() as session:
        collection = make_collection(session)
        images = make_images(session, collection, COUNT)
        make_index(
            session,
            state.settings,
            images,
            vectors,
            embedder="reader",
            revision="reader:1",
            knows_words=True,
        )
        others = make_vectors(COUNT, dimension=24, seed=2)
        make_index(session, state.settings, images, others, embedder="hash", revision="hash:1")
    return f"/collections/{collection.id}"


@pytest.fixture
def wordless(client):
    """A collection prepared by an embedder that knows no words."""
    state = client.app.state
    with state.database.session() as session:
        collection = make_collection(session, name="Ditch")
        images = make_images(session, collection, 20)
        make_index(session, state.settings, images, embedder="efficientnet-lite0")
    return f"/collections/{collection.id}"


def open_search(client, pond, **form):
    given = {"target_name": "Grey heron", "round_size": "6", "words": "heron"} | form
    return client.post(f"{pond}/searches", data=given)


def shown_ids(page):
    return [int(number) for number in re.findall(r'<li class="tile" id="image-(\d+)"', page.text)]


def test_words_open_a_search_that_says_so(client, pond):
    page = open_search(client, pond, embedder="reader")
    assert page.status_code == 200
    assert "Opened with the words “heron”" in page.text
    assert "compared by reader" in page.text
    with client.app.state.database.session() as session:
        assert session.scalar(select(Example.words)) == "heron"
    assert "Opened the search with the words “heron”" in client.get(f"{page.url}/history").text


def test_words_for_an_index_without_are_told_beside_them(client, pond):
    page = open_search(client, pond, embedder="hash")
    assert page.status_code == 422
    beside = page.text.split('id="words-wrong"')[1].split("</p>")[0]
    assert "hash knows no words. For a search by words choose reader." in beside
    assert 'value="heron"' in page.text
    assert re.search(r'value="hash" checked', page.text)
    assert "Tick or add at least one example" in open_search(client, pond, words=" ").text
    with client.app.state.database.session() as session:
        assert session.scalars(select(Search)).all() == []


def test_choice_of_indexes_is_shown_only_where_there_is_one(client, pond, wordless):
    page = client.get(f"{pond}/searches/new").text
    assert re.search(r'value="reader" checked', page), "the newest that knows words"
    assert 'value="hash"' in page
    assert 'name="embedder"' not in client.get(f"{wordless}/searches/new").text.split("prepare-")[0]


def test_collection_without_words_says_so_and_what_would_help(client, pond, wordless):
    page = client.get(f"{wordless}/searches/new").text
    assert 'id="words"' not in page
    assert (
        "efficientnet-lite0, which\n" in page or "efficientnet-lite0, which knows no words" in page
    )
    assert f'<a href="{pond}/searches/new">Pond</a>' in page
    button = re.search(r'<button[^>]*form="prepare-words"[^>]*value="([^"]+)"', page)
    assert button
    assert f'action="{wordless}/indexes"' in page
    with client.app.state.database.session() as session:
        get_local_person(session).role = "ecologist"
    page = client.get(f"{wordless}/searches/new").text
    assert "prepare-words" not in page
    assert "An admin can prepare it" in page
    assert client.post(f"{wordless}/indexes", data={"embedder": "reader"}).status_code == 403


def test_offer_to_prepare_words_says_that_it_failed_before(client, wordless):
    form = f"{wordless}/searches/new"
    page = client.get(form).text
    (name,) = re.findall(r">Prepare for words with ([^<]+)</button>", page)
    assert "did not work before" not in page
    with client.app.state.database.session() as session:
        session.add(
            ImageIndex(
                collection_id=int(wordless.rpartition("/")[2]),
                embedder=name,
                revision="",
                dimension=0,
                state="failed",
                image_count=0,
                problem="The hub can't be reached.",
            )
        )
    page = html.unescape(client.get(form).text)
    assert f"Preparing it with {name} did not work before. The hub can't be reached." in page
    assert f">Try again to prepare for words with {name}</button>" in page


def test_browsing_by_words_is_paged_and_leads_to_a_search(client, pond, wordless):
    first = client.get(f"{pond}/browse", params={"words": " newt "})
    second = client.get(f"{pond}/browse?words=newt&page=2")
    assert len(shown_ids(first)) == 60 and len(shown_ids(second)) == 40
    assert len({*shown_ids(first), *shown_ids(second)}) == COUNT
    assert 'href="?words=newt&amp;page=2"' in first.text
    figures = [float(one) for one in re.findall(r'tile-name"[^>]*><span>(-?[\d.]+)<', first.text)]
    assert len(figures) == 60 and figures == sorted(figures, reverse=True) and figures[0] > 0.9
    assert f'href="{pond}/searches/new?words=newt"' in first.text
    form = client.get(f"{pond}/searches/new?words=newt").text
    assert re.search(r'id="words"\s+name="words"\s+value="newt"', form)
    none = client.get(f"{wordless}/browse?words=newt")
    assert none.status_code == 200
    assert "efficientnet-lite0, which knows no words" in none.text
    assert 'id="words"' not in none.text


def test_settings_move_a_search_to_another_index(client, pond):
    search = open_search(client, pond, embedder="reader").url
    form = {"target_name": "Heron", "round_size": "6", "strategy": "pf-ma", "embedder": "hash"}
    refused = client.post(f"{search}/settings", data=form)
    assert refused.status_code == 422
    assert "Answer yes to an image first" in refused.text
    grid = client.get(str(search)).text
    assert "compared by reader" in grid and "Grey heron" in grid
    round_id = re.search(r'name="round_id" value="(\d+)"', grid).group(1)
    first = re.search(r'data-image="(\d+)"', grid).group(1)
    answers = {"round_id": round_id, f"answer-{first}": "yes", "rest": "no"}
    client.post(f"{search}/submit", data=answers)
    moved = client.post(f"{search}/settings", data=form)
    assert moved.status_code == 200 and "compared by hash" in moved.text
    assert re.search(r'value="hash" checked', client.get(f"{search}/settings").text)


def wait_for(condition, *, timeout_s=60):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.2)


def test_admin_prepares_a_collection_with_one_more_and_combines_two(client, tmp_path, monkeypatch):
    register(monkeypatch, DirectionEmbedder("reader", {"heron": np.eye(16, dtype=np.float32)[0]}))
    register(monkeypatch, HashEmbedder())
    for number in range(4):
        make_image_file(tmp_path / "photos" / f"{number}.jpg", number)
    form = {"name": "Lake", "source": str(tmp_path / "photos")}
    lake = client.post("/collections", data=form).url.path
    database = client.app.state.database

    def names() -> list[str]:
        with database.session() as session:
            return [one.embedder for one in list_indexes(session, int(lake.rsplit("/", 1)[1]))]

    wait_for(lambda: names() == ["efficientnet-lite0"])
    page = client.post(f"{lake}/indexes", data={"embedder": "reader"})
    assert page.url.path == lake
    wait_for(lambda: "reader" in names())
    wait_for(lambda: "hx-get" not in client.get(f"{lake}/indexes", headers=HTMX).text)
    page = client.get(lake).text
    assert "knows words" in page and "Ready to search" in page and "Combine two of them" in page
    client.post(
        f"{lake}/indexes/combined", data={"first": "reader", "second": "efficientnet-lite0"}
    )
    wait_for(lambda: "reader + efficientnet-lite0" in names())
    make_image_file(tmp_path / "photos" / "4.jpg", 4)
    client.post(f"{lake}/imports", data={"source": str(tmp_path / "photos")})

    def counts() -> set[int]:
        with database.session() as session:
            choices = list_indexes(session, int(lake.rsplit("/", 1)[1]))
            assert len(choices) == 3
            return {one.image_count for one in choices}

    wait_for(lambda: counts() == {5})


def test_index_that_was_not_made_says_why(client, pond):
    assert client.post(f"{pond}/indexes", data={"embedder": "eagle-eye"}).status_code == 422
    client.post(f"{pond}/indexes/combined", data={"first": "hash", "second": "hash"})
    wait_for(lambda: "Name two different" in client.get(f"{pond}/indexes", headers=HTMX).text)
    with client.app.state.database.session() as session:
        ready = session.scalar(select(ImageIndex).filter_by(embedder="hash"))
        session.add(
            ImageIndex(
                collection_id=ready.collection_id,
                embedder="clip-b32",
                revision="",
                dimension=0,
                state="failed",
                image_count=0,
                problem="Its weights are not here.",
            )
        )
    page = client.get(pond).text
    assert "Its weights are not here." in page and "Try again" in page
    assert "Ready to search" in page, "what is ready still is"


def test_program_opens_by_words_and_moves(client, pond):
    with client.app.state.database.session() as session:
        token = add_token(session, get_local_person(session), "tests")
    headers = {"Authorization": f"Bearer {token}"}
    own = f"/api/v1{pond}"
    indexes = client.get(f"{own}/indexes", headers=headers).json()
    assert [(one["embedder"], one["knows_words"]) for one in indexes] == [
        ("hash", False),
        ("reader", True),
    ]
    body = {"target_name": "Grey heron", "words": "heron", "round_size": 6}
    opened = client.post(f"{own}/searches", json=body, headers=headers)
    assert opened.status_code == 201, opened.text
    search = opened.json()
    assert (search["words"], search["embedder"]) == ("heron", "reader")
    refused = client.post(f"{own}/searches", json=body | {"embedder": "hash"}, headers=headers)
    assert (refused.status_code, refused.json()["error"]) == (422, "NoWords")
    address = f"/api/v1/searches/{search['search_id']}"
    shown = [image["image_id"] for image in search["round"]["images"]]
    answers = {"round_id": search["round"]["round_id"], "answers": {str(shown[0]): "yes"}}
    client.post(f"{address}/submit", json=answers | {"rest_are_no": True}, headers=headers)
    moved = client.post(f"{address}/move", json={"embedder": "hash"}, headers=headers)
    assert (moved.status_code, moved.json()["embedder"]) == (200, "hash")
    assert client.get(address, headers=headers).json() == moved.json()
