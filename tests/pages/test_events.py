"""The page of a collection's events, and the strip of one, without scripts."""

import re
from datetime import datetime, timedelta

import pytest
from sqlalchemy import select
from sqlalchemy.event import listen

from app.answers import read_current_answers
from app.searching import open_search
from app.security import get_local_person
from app.tables import Image, Search
from tests.factories import make_collection, make_images, make_index


@pytest.fixture
def pond(client):
    """Forty images in ten bursts; the numbers of the collection, the search and the images."""
    state = client.app.state
    with state.database.session() as session:
        collection = make_collection(session)
        images = make_images(session, collection, 40)
        for number, image in enumerate(images):
            image.captured_at = datetime(2026, 5, 1) + timedelta(minutes=5 * (number // 4))
        make_index(session, state.settings, images)
        return collection.id, [image.id for image in images]


def open_in(client, pond):
    state = client.app.state
    with state.database.session() as session:
        return open_search(
            session,
            person=get_local_person(session),
            collection_id=pond[0],
            target_name="Heron",
            round_size=6,
            image_ids=[pond[1][0]],
            photo_ids=[],
            indexes=state.indexes,
            embedders=state.embedders,
            settings=state.settings,
        ).id


def read_answers(client, search_id):
    with client.app.state.database.session() as session:
        return read_current_answers(session, session.get_one(Search, search_id))


def test_nothing_is_said_of_events_where_there_are_none(client, pond):
    search = f"/searches/{open_in(client, pond)}"
    for page in (search, f"{search}/results", f"{search}/settings", f"{search}/dashboard?whole=1"):
        text = re.sub(r"static/event\.js[^\"]*|id=\"event\"[^>]*>", "", client.get(page).text)
        assert not re.search(r"\bevents?\b", text.lower().replace("event-title", "")), page
    assert "Group bursts and tracks" in client.get(f"/collections/{pond[0]}").text


def test_grids_without_an_image_that_stands_for_several_say_nothing_of_events(client, pond):
    """A burst of two among forty: the collection has events, most grids hold none."""
    with client.app.state.database.session() as session:
        images = [session.get_one(Image, image_id) for image_id in pond[1]]
        for place, image in enumerate(images):
            image.captured_at = datetime(2026, 5, 1) + timedelta(hours=max(place, 1))
    client.post(f"/collections/{pond[0]}/events", data={"kind": "bursts", "gap_s": "60"})
    search = f"/searches/{open_in(client, pond)}"
    told = set()
    for _ in range(4):
        grid = client.get(search).text
        told.add(
            ("data-event=" in grid, "stands for its event" in grid, "data-found-events" in grid)
        )
        round_id = re.search(r'name="round_id" value="(\d+)"', grid)[1]
        client.post(f"{search}/submit", data={"round_id": round_id, "rest": "no"})
    assert (False, False, False) in told
    assert told <= {(False, False, False), (True, True, True)}


def test_an_event_is_hidden_whole_and_taken_back_at_once(client, pond):
    own = f"/collections/{pond[0]}"
    client.post(f"{own}/events", data={"kind": "bursts", "gap_s": "60"})
    search = f"/searches/{open_in(client, pond)}"
    page = client.get(search).text
    shown = int(re.search(r'id="card-(\d+)"', page)[1])
    round_id = re.search(r'name="round_id" value="(\d+)"', page)[1]

    def list_hidden():
        with client.app.state.database.session() as session:
            return session.scalars(select(Image.id).where(Image.removed_at.is_not(None))).all()

    hide = {"image_ids": str(shown), "back": search}
    alone = client.post(f"{own}/people", data=hide)
    assert list_hidden() == [shown] and "Hidden, as it shows a person" in alone.text
    client.post(f"{own}/people/back", data=hide | {"with_others": "true"})
    assert list_hidden() == []
    whole = client.post(f"{own}/people", data=hide | {"round_id": round_id})
    mates = next(burst for burst in (pond[1][i : i + 4] for i in range(0, 40, 4)) if shown in burst)
    assert sorted(list_hidden()) == mates and "Hid 4 images of the event" in whole.text
    client.post(f"{own}/people/back", data=hide | {"with_others": "true"})
    assert list_hidden() == []
    assert client.post(f"{own}/people", data=hide | {"round_id": 10**9}).status_code == 404


def test_a_grouping_and_a_pool_are_read_once_for_all_requests(client, pond):
    own = f"/collections/{pond[0]}"
    client.post(f"{own}/events", data={"kind": "bursts", "gap_s": "60"})
    search = f"/searches/{open_in(client, pond)}"
    client.post(f"{search}/filter", data={"from": "2026-05-01"})
    page = client.get(search).text
    round_id = re.search(r'name="round_id" value="(\d+)"', page)[1]
    client.post(f"{search}/submit", data={"round_id": round_id, "rest": "no"})
    page = client.get(search).text
    round_id = re.search(r'name="round_id" value="(\d+)"', page)[1]
    (shown,) = re.findall(r'id="card-(\d+)"', page)[:1]
    asked = []

    def note(_connection, _cursor, statement, *_):
        asked.append(statement)

    listen(client.app.state.database.hasty, "before_cursor_execute", note)
    answer = {"round_id": int(round_id), "values": {shown: "yes"}}
    saved = client.post(f"{search}/answers", json=answer)
    assert len(saved.json()["answers"]) == 4
    client.post(f"{search}/here")
    client.get(search)
    assert any("INSERT INTO answers" in statement for statement in asked)
    read = [re.findall(r"groupings\.first_places|pools\.image_ids", one) for one in asked]
    assert not any(read)


def test_images_are_grouped_on_a_page_and_an_event_is_answered_on_another(client, pond):
    own = f"/collections/{pond[0]}/events"
    assert "stands by itself" in client.get(own).text
    wrong = client.post(own, data={"kind": "bursts", "gap_s": "soon"})
    assert wrong.status_code == 422
    assert "Nothing was changed" in wrong.text and 'value="soon"' in wrong.text
    made = client.post(own, data={"kind": "bursts", "gap_s": "60"})
    assert "10 events" in made.text and "40 images" in made.text
    assert "10 events" in client.get(f"/collections/{pond[0]}").text

    search_id = open_in(client, pond)
    grid = client.get(f"/searches/{search_id}").text
    shown = [
        int(one) for one in re.findall(r'<article class="picture-card"\s+id="card-(\d+)"', grid)
    ]
    assert len(shown) == 6 and grid.count('data-event="4"') == 6
    round_id = re.search(r'name="round_id" value="(\d+)"', grid)[1]
    mates = next(own for own in (pond[1][i : i + 4] for i in range(0, 40, 4)) if shown[0] in own)

    # The form of the grid, without scripts: for the whole event, then for one image alone.
    answer = {"round_id": round_id, f"answer-{shown[0]}": "no", f"was-{shown[0]}": ""}
    client.post(f"/searches/{search_id}/answers", data=answer)
    before = set(mates) & {pond[1][0]}  # an example has its own answer
    given = read_answers(client, search_id)
    assert {given[one] for one in set(mates) - before} == {"no"}
    alone = answer | {f"was-{shown[0]}": "no", f"alone-{shown[0]}": "alone"}
    client.post(f"/searches/{search_id}/answers", data=alone)
    given = read_answers(client, search_id)
    assert [one for one in mates if one in given and one not in before] == [shown[0]]

    strip = client.get(f"/searches/{search_id}/events/{shown[0]}")
    assert [int(one) for one in re.findall(r'data-image="(\d+)"', strip.text)] == mates
    one = {"round_id": round_id, "back": "event", "event": str(shown[0])}
    one |= {f"alone-{image_id}": "alone" for image_id in mates}
    back = client.post(
        f"/searches/{search_id}/answers", data=one | {"change": f"{mates[3]}:unsure"}
    )
    assert back.url.path == f"/searches/{search_id}/events/{shown[0]}"
    assert read_answers(client, search_id)[mates[3]] == "unsure"
    everything = one | {"set": "yes", "picked": [str(image_id) for image_id in mates]}
    client.post(f"/searches/{search_id}/answers", data=everything)
    assert {read_answers(client, search_id)[image_id] for image_id in mates} == {"yes"}
    assert client.get(f"/searches/{search_id}/events/{10**9}").status_code == 404

    # In the next grid another event is asked: this one's strip goes on to correct its answers.
    client.post(f"/searches/{search_id}/submit", data={"round_id": round_id, "rest": "no"})
    strip = client.get(f"/searches/{search_id}/events/{shown[0]}").text
    (action,) = re.findall(r'class="event-form"\s+method="post"\s+action="([^"]*)"', strip)
    changed = client.post(action, data=one | {"change": f"{shown[0]}:no"})
    assert changed.status_code == 200
    assert changed.url.path == f"/searches/{search_id}/events/{shown[0]}"
    given = read_answers(client, search_id)
    assert {image_id: given[image_id] for image_id in mates} == (
        dict.fromkeys(mates, "yes") | {shown[0]: "no"}
    )

    # A correction by script tells the number of events as the page would have it when read anew.
    for value in ("unsure", "yes"):
        told = client.post(
            f"/searches/{search_id}/corrections",
            json={"values": {str(image_id): value for image_id in mates}, "alone": mates},
        ).json()["found_events"]
        page = client.get(f"/searches/{search_id}/results").text
        assert f"<span data-found-events>{told} event" in page

    settings = {"target_name": "Heron", "strategy": "pf-ma", "round_size": "6"}
    client.post(f"/searches/{search_id}/settings", data=settings | {"learns_from_events": "true"})
    with client.app.state.database.session() as session:
        assert session.get_one(Search, search_id).learns_from_events
    assert "4 images</h2>" in client.get(f"/searches/{search_id}/images/{shown[0]}").text


def test_what_cannot_be_done_is_not_chosen_beforehand(client):
    """By the rule of now no image may be grouped: its button would only be refused."""
    state = client.app.state
    with state.database.session() as session:
        collection = make_collection(session)
        images = make_images(session, collection, 3)
        for image in images:
            image.captured_at = None
        own = f"/collections/{collection.id}/events"

    def read_choices(page):
        inputs = re.findall(r'<input type="radio"[^>]*>', page.text)
        return {
            re.search(r'value="([^"]*)"', one)[1]: ("checked" in one, "disabled" in one)
            for one in inputs
        }

    page = client.post(own, data={"kind": "bursts", "gap_s": "60"})  # as the command groups them
    assert "no more than 60 s" in page.text
    choices = read_choices(page)
    assert choices["bursts"] == (False, True) and choices["none"] == (True, False)
    with state.database.session() as session:
        make_index(session, state.settings, images)
    assert read_choices(client.get(own))["near-duplicates"] == (True, False)
    nothing = client.post(own, data={})
    assert nothing.status_code == 422 and "by time, by a column, by likeness" in nothing.text
    assert sum(checked for checked, _ in read_choices(nothing).values()) == 1
