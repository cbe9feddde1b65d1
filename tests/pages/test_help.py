"""The page of help: found from where its words are used, and with the keys of the grid."""

import re

from app.database import PROJECT
from app.searching import open_search
from app.security import get_local_person
from tests.factories import make_collection, make_images, make_index

USED = re.compile(r"""(?:about\(|: \()["']([a-z-]+)["'], ["']|/help#([a-z-]+)""")


def test_help_stands_in_the_menu_and_explains_every_word_that_pages_ask_about(client):
    home = client.get("/").text
    assert '<li><a href="/help">Help</a></li>' in home
    page = client.get("/help").text
    anchors = set(re.findall(r'\bid="([a-z-]+)"', page))
    assert {"heuristic", "estimate", "certificate", "look"} <= anchors
    asked = set()
    for template in (PROJECT / "templates").glob("*.html"):
        asked |= {one or other for one, other in USED.findall(template.read_text())}
    assert asked >= {"event", "steps", "coverage", "gap", "boundary", "left"}
    assert asked <= anchors
    assert set(re.findall(r'href="#([a-z-]+)"', page)) - {"main"} <= anchors


def test_help_has_the_keys_of_the_grid(client):
    state = client.app.state
    with state.database.session() as session:
        collection = make_collection(session, name="Pond")
        images = make_images(session, collection, 30)
        make_index(session, state.settings, images)
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
        address = f"/searches/{search.id}"
    keys = re.search(r'<dialog id="keys".*?</dialog>', client.get(address).text, re.DOTALL).group()
    told = set(re.findall(r"<dd>\s*(.*?)\s*</dd>", keys, re.DOTALL))
    assert len(told) > 15
    page = client.get("/help").text
    event = "Hide the image and all of its event: it shows a person"
    assert all(one.replace("Hide the image: it shows a person", event) in page for one in told)
    assert 'href="/help"' in keys
