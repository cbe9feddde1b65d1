"""The home page: first steps at first, searches to continue later."""

import html
import re
from datetime import UTC, datetime

import pytest

from app.accounts import get_person_named
from app.searching import open_search, record_answers, submit_answers
from app.security import get_local_person
from app.tables import Round, Search
from tests.factories import make_collection, make_images, make_index, make_person


def test_first_visit_without_collections_leads_to_adding_one(client):
    page = client.get("/").text
    assert "Add a collection to begin" in page
    assert 'href="/collections/new"' in page
    assert "Your searches" not in page


def test_first_visit_leads_to_browsing_a_prepared_collection(client):
    state = client.app.state
    with state.database.session() as session:
        ready = make_collection(session, name="Drawn", notice="synthetic")
        make_index(session, state.settings, make_images(session, ready, 30))
        waiting = make_collection(session, name="Lake & bay")
    page = client.get("/").text
    assert f'href="/collections/{ready.id}/browse"' in page
    assert '<span class="chip">synthetic</span>' in page
    assert f'href="/collections/{waiting.id}"' in page
    assert "Lake &amp; bay" in page
    assert "30 images" in page


def test_searches_that_went_with_a_collection_are_told_with_who_deleted_it(client):
    state = client.app.state
    with state.database.session() as session:
        me, ada = get_local_person(session), make_person(session, name="Ada")
        for name, by in (("Pond", ada), ("Lake", me)):
            collection = make_collection(session, name=name)
            images = make_images(session, collection, 20)
            make_index(session, state.settings, images)
            open_search(
                session,
                person=me,
                collection_id=collection.id,
                target_name=f"Heron of the {name}",
                image_ids=[images[0].id],
                photo_ids=[],
                indexes=state.indexes,
                embedders=state.embedders,
                settings=state.settings,
            )
            collection.deleted_at, collection.deleted_by_id = datetime.now(UTC), by.id
        me.role = "ecologist"
    page = " ".join(client.get("/").text.split())
    assert "Ada deleted “Pond”, and with it your search" in page
    assert "“Heron of the Pond”. Nothing of it is lost yet" in page and "an admin or who" in page
    assert "“Lake”" not in page, "I did that myself"


def test_searches_are_cards_with_what_was_found_and_others_stay_unseen(client):
    state = client.app.state
    with state.database.session() as session:
        collection = make_collection(session, name="Drawn", notice="synthetic")
        images = make_images(session, collection, 40)
        make_index(session, state.settings, images)
        other = make_person(session, name="other")
        searches = {
            name: open_search(
                session,
                person=person,
                collection_id=collection.id,
                target_name=name,
                image_ids=[images[0].id, images[1].id],
                photo_ids=[],
                indexes=state.indexes,
                embedders=state.embedders,
                settings=state.settings,
            )
            for name, person in (
                ("Heron <young>", get_local_person(session)),
                ("Of somebody else", other),
            )
        }
    page = client.get("/").text
    assert html.escape("Heron <young>") in page
    assert "Of somebody else" not in page
    assert f'href="/searches/{searches["Heron <young>"].id}"' in page
    assert "<strong>2</strong> found" in page
    for image in images[:2]:
        assert f'src="/images/{image.id}/small"' in page
    assert '<span class="chip">synthetic</span>' in page


def test_finds_of_a_round_under_way_are_not_told_as_earlier(client):
    state = client.app.state
    with state.database.session() as session:
        person = get_local_person(session)
        collection = make_collection(session)
        make_index(session, state.settings, images := make_images(session, collection, 40))
        search = open_search(
            session,
            person=person,
            collection_id=collection.id,
            target_name="Heron",
            image_ids=[images[0].id],
            photo_ids=[],
            indexes=state.indexes,
            embedders=state.embedders,
            settings=state.settings,
        )
        made = session.get_one(Round, search.current_round_id)
        search_id, round_id = search.id, made.id
        record_answers(
            session,
            search,
            person=person,
            round_id=round_id,
            values={made.images[0].image_id: "yes"},
            gesture_key=None,
        )
    pages = ("/", f"/collections/{collection.id}")
    for path in pages:
        text = " ".join(re.sub(r"<[^>]+>", "", client.get(path).text).split())
        assert "2 found so far; the first round is still open" in text
    with state.database.session() as session:
        submit_answers(
            session,
            session.get_one(Search, search_id),
            person=get_local_person(session),
            round_id=round_id,
            values={},
            rest_are_no=True,
            gesture_key=None,
            indexes=state.indexes,
        )
    for path in pages:
        text = " ".join(re.sub(r"<[^>]+>", "", client.get(path).text).split())
        assert "2 found in 1 round" in text


def test_who_invited_everybody_is_told_that_nobody_is_left(client):
    state = client.app.state
    with state.database.session() as session:
        collection = make_collection(session)
        make_index(session, state.settings, images := make_images(session, collection, 40))
        search = open_search(
            session,
            person=get_local_person(session),
            collection_id=collection.id,
            target_name="Heron",
            image_ids=[images[0].id],
            photo_ids=[],
            indexes=state.indexes,
            embedders=state.embedders,
            settings=state.settings,
        )
    share = f"/searches/{search.id}/share"
    assert "Nobody else here can search in Pond yet." in client.get(share).text
    with state.database.session() as session:
        make_person(session, name="Ben", role="ecologist")
    assert "else here" not in client.get(share).text
    client.post(f"/searches/{search.id}/members", data={"name": "Ben"})
    page = client.get(share).text
    assert "Everybody who can search in Pond is in this search." in page
    assert "account closed" not in page
    with state.database.session() as session:
        get_person_named(session, "Ben").closed_at = datetime.now(UTC)
    assert '<span class="chip">account closed</span>' in client.get(share).text
    page = client.get(share).text
    assert "else here" not in page


@pytest.mark.parametrize(
    ("before", "back"),
    [
        ("/searches?a=1", "/searches?a=1"),
        ("//elsewhere.example/x", "/elsewhere.example/x"),
        ("", None),
    ],
)
def test_errors_lead_back_to_where_one_was(client, before, back):
    here = str(client.base_url).rstrip("/")
    page = client.get("/searches/999", headers={"referer": f"{here}{before}"})
    assert page.status_code == 404
    found = re.search(r'href="([^"]*)">Back to where you were', page.text)
    assert (found[1] if found else None) == back
    elsewhere = client.get("/searches/999", headers={"referer": "http://elsewhere.example/x"})
    assert "Back to where you were" not in elsewhere.text
