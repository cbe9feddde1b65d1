"""What was found in a collection: the page, its table, and what pages of images say of it."""

import csv
import io

import pytest

from app import searching
from app.security import get_local_person
from tests.factories import make_collection, make_images, make_index, make_person


@pytest.fixture
def pond(client):
    """A collection, its images, and two searches of two people that share a find."""
    state = client.app.state
    with state.database.session() as session:
        collection = make_collection(session, name="Pond <1>")
        images = make_images(session, collection, 30)
        make_index(session, state.settings, images)
        me, other = get_local_person(session), make_person(session, name="Ada", role="ecologist")
        for person, name, found in ((me, "Heron", (0, 1)), (other, "Otter", (1, 2))):
            search = searching.open_search(
                session,
                person=person,
                collection_id=collection.id,
                target_name=name,
                round_size=6,
                image_ids=[images[found[0]].id],
                photo_ids=[],
                indexes=state.indexes,
                embedders=state.embedders,
                settings=state.settings,
            )
            search.open_to_view = True
            searching.correct_answers(
                session,
                search,
                person=person,
                values=dict.fromkeys([images[place].id for place in found], "yes"),
                gesture_key=None,
            )
        return collection.id, [image.id for image in images]


def test_page_and_table_hold_what_all_searches_found(client, pond):
    collection_id, image_ids = pond
    assert (
        f'href="/collections/{collection_id}/finds"'
        in client.get(f"/collections/{collection_id}").text
    )
    page = client.get(f"/collections/{collection_id}/finds")
    assert "3 images of “Pond &lt;1&gt;” answered yes, by 2 searches" in page.text
    assert "1 image is a yes for more than one target" in page.text
    assert page.text.count(f'href="/collections/{collection_id}/images/{image_ids[1]}"') == 1
    table = client.get(f"/collections/{collection_id}/finds/finds.csv")
    assert table.headers["content-type"] == "text/csv; charset=utf-8"
    assert "Pond%20_1-finds.csv" in table.headers["content-disposition"]
    rows = list(csv.DictReader(io.StringIO(table.text)))
    assert [(row["target"], row["also_found_as"]) for row in rows] == [
        ("Heron", ""),
        ("Heron", "Otter"),
        ("Otter", "Heron"),
        ("Otter", ""),
    ]


def test_pages_of_an_image_say_as_what_it_was_found(client, pond):
    collection_id, image_ids = pond
    page = client.get(f"/collections/{collection_id}/images/{image_ids[1]}").text
    facts = page[page.index("<dt>Found as</dt>") :]
    assert [name in facts[: facts.index("</dd>")] for name in ("Heron", "Otter")] == [True, True]
    assert "Found as" not in client.get(f"/collections/{collection_id}/images/{image_ids[9]}").text
    # In a search, the others are named: what it says itself stands there anyway.
    heron = page[page.index("<dt>Found as</dt>") :].split('href="/searches/')[1].split("/")[0]
    large = client.get(f"/searches/{heron}/images/{image_ids[1]}").text
    said = large[large.index("Found in other searches as") :]
    said = said[: said.index("</p>")]
    assert "Otter" in said
    assert "Heron" not in said


def test_a_collection_without_finds_says_how_to_begin(client):
    with client.app.state.database.session() as session:
        collection_id = make_collection(session).id
    page = client.get(f"/collections/{collection_id}/finds").text
    assert "No search that you may see has a yes here yet." in page
    assert f'href="/collections/{collection_id}/searches/new"' in page
    assert "finds.csv" not in page
    assert client.get("/collections/999999/finds").status_code == 404
