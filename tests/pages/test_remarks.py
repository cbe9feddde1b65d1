"""Tags and notes on pages: in place and by plain forms, escaped, and without steps for viewers."""

import re

import pytest

from app.remarks import read_remarks
from app.searching import open_search
from app.security import get_local_person
from app.tables import Deployment, Image, ImagePath, Import, Search
from tests.factories import make_collection, make_images, make_index

HTMX = {"HX-Request": "true"}


@pytest.fixture
def hunt(client):
    """A labelled collection in folders, and a search in it; `ids` of its images."""
    state = client.app.state
    with state.database.session() as session:
        collection = make_collection(session)
        collection.source = "/secret/place"
        images = make_images(session, collection, 30)
        for number, image in enumerate(images):
            image.path = f"{'heron' if number < 3 else 'empty'}/IMG_{number:04}.jpg"
            known = {"path": image.path, "size_bytes": 1, "modified_ns": 1}
            session.add(ImagePath(collection_id=collection.id, image_id=image.id, **known))
        deployment = Deployment(collection_id=collection.id, name="heron")
        session.add(deployment)
        session.flush()
        images[0].deployment_id = deployment.id
        session.add(
            Import(collection_id=collection.id, source="/s", labels="folders", state="done")
        )
        make_index(session, state.settings, images)
        search = open_search(
            session,
            person=get_local_person(session),
            collection_id=collection.id,
            target_name="Bird",
            round_size=6,
            image_ids=[images[0].id],
            photo_ids=[],
            indexes=state.indexes,
            embedders=state.embedders,
            settings=state.settings,
        )
        client.ids = [image.id for image in images]
        client.collection = f"/collections/{collection.id}"
        client.search = f"/searches/{search.id}"
    return client


def become(client, role):
    with client.app.state.database.session() as session:
        get_local_person(session).role = role


def stands_on(client, image_id):
    with client.app.state.database.session() as session:
        remarks = read_remarks(session, session.get_one(Image, image_id))
        return remarks.tags, [(note.note_id, note.text) for note in remarks.notes]


def test_image_is_tagged_and_written_on_in_place_and_by_forms(hunt):
    image = hunt.ids[5]
    page, action = f"{hunt.collection}/images/{image}", f"{hunt.collection}/images/{image}/remarks"
    part = hunt.post(action, data={"tag": "Wet, <b>fog</b>"}, headers=HTMX)
    assert part.status_code == 200 and "<html" not in part.text
    assert "&lt;b&gt;fog&lt;/b&gt;" in part.text and "<b>fog" not in part.text
    by_form = hunt.post(action, data={"text": "Two <i>herons</i>", "return_to": page})
    assert by_form.url.path == page
    assert "Two &lt;i&gt;herons&lt;/i&gt;" in by_form.text
    tags, [(note_id, _)] = stands_on(hunt, image)
    assert tags == ["<b>fog</b>", "wet"]

    off = hunt.post(action, data={"off": "wet"}, headers=HTMX).text
    assert "“wet” was taken off." in off and 'name="tag"\n              value="wet"' in off
    changed = hunt.post(action, data={"note_id": note_id, "text": "One"}, headers=HTMX).text
    assert "One" in changed and "changed " in changed
    removed = hunt.post(action, data={"remove": note_id, "text": "One"}, headers=HTMX).text
    assert "The note was removed." in removed and f'value="{note_id}"' in removed
    assert "One" in hunt.post(action, data={"back": note_id}, headers=HTMX).text
    assert stands_on(hunt, image) == (["<b>fog</b>"], [(note_id, "One")])

    wrong = hunt.post(action, data={"tag": "x" * 50}, headers=HTMX)
    assert wrong.status_code == 200  # an error would be put behind the large view
    assert 'role="alert"' in wrong.text and "x" * 50 in wrong.text
    assert hunt.post(action, data={"tag": "x" * 50}).status_code == 422
    elsewhere = {"tag": "a", "return_to": "//elsewhere.example"}
    sent = hunt.post(action, data=elsewhere, follow_redirects=False)
    assert sent.headers["location"] == "/"


def test_tags_of_a_search_are_on_its_pages_and_find_it(hunt):
    hunt.post(f"{hunt.search}/remarks", data={"tag": "pilot", "return_to": hunt.search})
    hunt.post(f"{hunt.search}/remarks", data={"text": "For the report"})
    for page in ("", "/results"):
        assert "pilot" in hunt.get(hunt.search + page).text
    assert "1 note" in hunt.get(f"{hunt.search}/results").text
    assert hunt.search in hunt.get("/?find=report").text
    nothing = hunt.get("/?find=stork").text
    assert hunt.search not in nothing and "0 searches with “stork”" in nothing
    assert 'href="/?find=pilot"' in nothing  # the way back


def test_selected_results_are_tagged_and_no_answer_is_given(hunt):
    results = hunt.get(f"{hunt.search}/results").text
    form = results[results.index('id="gallery"') :]
    first = re.search(r"<button[^>]*>", form)[0]
    assert "disabled" in first  # what Enter in the field for tags would press
    picked = [str(one) for one in hunt.ids[:2]]
    back = f"{hunt.search}/results?show=yes&page=1&after=tagged"
    fields = {"picked": picked, "tag": "wet", "put": "on", "return_to": back, "show": "yes"}
    shown = hunt.post(f"{hunt.collection}/tags", data=fields)
    assert "Tagged." in shown.text and '<span class="chip">wet</span>' in shown.text
    asked = {"Accept": "application/json"}
    again = hunt.post(f"{hunt.collection}/tags", data=fields, headers=asked).json()
    assert again == {"changed": {"wet": []}}
    refused = hunt.post(f"{hunt.collection}/tags", data={"tag": "wet"}, headers=asked)
    assert "Select the images" in refused.json()["detail"]
    assert f"{hunt.collection}/images/{hunt.ids[1]}?tag=wet" in (
        hunt.get(f"{hunt.collection}/browse?tag=wet").text
    )


def test_no_folder_is_told_in_a_search_nor_to_who_may_not_see_labels(hunt):
    image = f"{hunt.collection}/images/{hunt.ids[0]}"
    assert "heron" in hunt.get(image).text  # an admin, browsing
    number = hunt.search.rsplit("/", 1)[1]
    from_search = hunt.get(f"{image}?search={number}").text
    assert "heron" not in from_search and "IMG_0000.jpg" in from_search
    assert f"/images/{hunt.ids[1]}?search={number}" in from_search  # the next one, too
    assert "heron" not in hunt.get(f"{hunt.search}/images/{hunt.ids[0]}").text
    fragment = hunt.get(f"{hunt.search}/images/{hunt.ids[0]}", headers=HTMX).text
    assert "heron" not in fragment and f"{image}?search={number}" in fragment

    become(hunt, "ecologist")
    for page in ("/browse", f"/images/{hunt.ids[0]}", "/names?name=img", "/deployments"):
        text = hunt.get(hunt.collection + page).text
        assert page == "/deployments" or "IMG_00" in text
        assert "heron/" not in text and "empty/" not in text, page
    for guess in ("/browse?name=heron/", "/names?name=heron/"):
        assert "IMG_00" not in hunt.get(hunt.collection + guess).text, guess
    refused = hunt.get(f"{hunt.collection}/browse?deployment=empty")  # and all are shown
    assert refused.status_code == 422 and "No deployment “empty” is recorded" in refused.text
    for one in hunt.ids:
        assert f"/images/{one}/small" in refused.text
    for address in (f"{hunt.search}/round", f"{hunt.collection}/images"):
        reply = hunt.get(f"/api/v1{address}")
        assert "IMG_00" in reply.text and "heron" not in reply.text
    become(hunt, "evaluator")
    assert "heron" in hunt.get(image).text


def test_viewer_reads_and_is_offered_no_step_they_may_not_take(hunt):
    image = hunt.ids[0]
    hunt.post(f"{hunt.collection}/images/{image}/remarks", data={"tag": "wet"})
    hunt.post(f"{hunt.collection}/images/{image}/remarks", data={"text": "Two of them"})
    with hunt.app.state.database.session() as session:
        session.get_one(Search, int(hunt.search.rsplit("/", 1)[1])).open_to_view = True
    become(hunt, "viewer")
    pages = (
        hunt.collection,
        f"{hunt.collection}/browse",
        f"{hunt.collection}/browse?like={image}",
        f"{hunt.collection}/images/{image}",
        f"{hunt.search}/results",
        f"{hunt.search}/images/{image}",
    )
    for page in pages:
        text = hunt.get(page).text
        assert "/secret/place" not in text, page
        assert "/searches/new" not in text and "/tray" not in text, page
        assert "/remarks" not in text, page
    for page in pages[3], pages[5]:
        text = hunt.get(page).text
        assert "wet" in text and "Two of them" in text
    become(hunt, "admin")
    assert "/secret/place" in hunt.get(hunt.collection).text
