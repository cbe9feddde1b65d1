"""The screens of a search, asked for as a browser does, with and without scripts."""

import csv
import io
import json
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import func, select, update

from app.searching import open_search
from app.security import get_local_person, issue_sign_in_link
from app.settings import Settings
from app.tables import Image, Import, Person, Search, Seat
from tests.factories import make_collection, make_images, make_index, make_person

HTMX = {"HX-Request": "true"}
ROUND_SIZE = 6


@dataclass
class Browser:
    """A signed-in browser and the search it looks at."""

    client: TestClient
    search_id: int
    image_ids: list[int]

    @property
    def here(self) -> str:
        return f"/searches/{self.search_id}"

    def get(self, path: str = "", **more):
        return self.client.get(self.here + path, **more)

    def post(self, path: str, data: dict | None = None, **more):
        return self.client.post(self.here + path, data=data, follow_redirects=False, **more)

    def grid(self) -> "Page":
        return Page(self.get().text)

    def give(self, values: dict[int, str | None], *, key: str = "", round_id: int | None = None):
        """An answer as the script sends it."""
        body = {"round_id": round_id or self.grid().round_id, "values": values}
        return self.client.post(
            self.here + "/answers", json=body | ({"gesture_key": key} if key else {})
        )


@dataclass
class Page:
    """What a grid page says."""

    text: str

    @property
    def round_id(self) -> int:
        return int(re.search(r'data-round="(\d+)"', self.text).group(1))

    @property
    def number(self) -> int:
        return int(re.search(r"Round (\d+): is it", self.text).group(1))

    @property
    def image_ids(self) -> list[int]:
        return [int(found) for found in re.findall(r'id="card-(\d+)"', self.text)]

    @property
    def answers(self) -> dict[int, str]:
        found = re.findall(r'name="answer-(\d+)"\s+value="(\w+)"\s+checked', self.text)
        return {int(image_id): value for image_id, value in found}

    @property
    def rest_are_no(self) -> bool:
        return re.search(r'name="rest_are_no"\s+value="yes"\s+checked', self.text) is not None

    def form(self, **changes: str) -> dict[str, str]:
        """The grid's fields as a browser without scripts sends them."""
        fields = {"round_id": str(self.round_id), "gesture_key": self.gesture_key}
        for image_id in self.image_ids:
            fields[f"was-{image_id}"] = self.answers.get(image_id, "")
            fields[f"answer-{image_id}"] = self.answers.get(image_id, "")
        if self.rest_are_no:
            fields["rest_are_no"] = "yes"
        return fields | changes

    @property
    def gesture_key(self) -> str:
        return re.search(r'name="gesture_key" value="(\w+)"', self.text).group(1)


def start(
    client: TestClient, *, count: int = 60, target: str = "Grey heron", person=None
) -> Browser:
    state = client.app.state
    with state.database.session() as session:
        collection = make_collection(session, name=f"Pond {uuid.uuid4()}", notice="synthetic")
        images = make_images(session, collection, count)
        make_index(session, state.settings, images)
        search = open_search(
            session,
            person=make_person(session, name=person) if person else get_local_person(session),
            collection_id=collection.id,
            target_name=target,
            counts_as_yes="Adults & young",
            round_size=ROUND_SIZE,
            image_ids=[images[0].id],
            photo_ids=[],
            indexes=state.indexes,
            embedders=state.embedders,
            settings=state.settings,
        )
        return Browser(client, search.id, [image.id for image in images])


@pytest.fixture(scope="module")
def client(make_database_url, tmp_path_factory) -> Iterator[TestClient]:
    """One application for all tests here; each test has a collection and a search of its own."""
    from app.main import create_app  # brings torch: only the tests that need it pay

    settings = Settings(home=tmp_path_factory.mktemp("home"), database_url=make_database_url())
    address = "http://127.0.0.1:8321"
    with TestClient(
        create_app(settings), base_url=address, raise_server_exceptions=False
    ) as client:
        with client.app.state.database.session() as session:
            person = get_local_person(session)
            link = issue_sign_in_link(session, person, base_url=address, settings=settings)
        client.get(link)
        yield client


@pytest.fixture
def browser(client: TestClient) -> Browser:
    return start(client)


def test_grid_shows_its_images_with_the_answers_saved_so_far(browser):
    shown = browser.grid().image_ids
    assert len(shown) == ROUND_SIZE
    browser.give({shown[1]: "yes", shown[4]: "unsure"})

    page = browser.grid()

    assert page.image_ids == shown
    assert page.answers == {shown[1]: "yes", shown[4]: "unsure"}
    assert "<strong data-answered>2</strong> of 6 answered" in page.text
    assert '<strong data-found="2">2</strong> found' in page.text  # the example counts
    assert "Adults &amp; young" in page.text
    assert "synthetic" in page.text


def list_places_of_names(browser) -> dict[str, str]:
    """Pages that name the images of the grid, and what they say."""
    first = browser.grid().image_ids[0]
    browser.give({first: "yes"})
    paths = ("", f"/images/{first}", "/results", f"/events/{first}", "/history")
    fragments = {f"{path} by htmx": browser.get(path, headers=HTMX).text for path in paths[:2]}
    return {path: browser.get(path).text for path in paths} | fragments


def test_search_never_shows_folders_which_may_name_the_species(browser):
    with browser.client.app.state.database.session() as session:
        collection_id = session.get(Search, browser.search_id).collection_id
        labelled = Import(collection_id=collection_id, source="x", labels="folders", state="done")
        session.add(labelled)
    for path, text in list_places_of_names(browser).items():
        assert "site/" not in text, path
    assert "IMG_" in browser.get().text


def test_images_of_one_name_are_told_apart_by_their_folders(browser):
    with browser.client.app.state.database.session() as session:
        for number, image_id in enumerate(browser.image_ids):
            session.get(Image, image_id).path = f"north/cam{number}/IMG_0001.JPG"
    first = browser.grid().image_ids[0]
    path = f"north/cam{browser.image_ids.index(first)}/IMG_0001.JPG"
    for where, text in list_places_of_names(browser).items():
        if where != "/history":  # it shows small pictures without names
            said = text.replace('<span class="muted">', "").replace("/</span>", "/")
            assert path in said, where
    assert f'data-name="{path}"' in browser.get().text


def test_readme_calls_reasons_what_the_grid_calls_them(client):
    parts = client.app.state.templates.env.get_template("_search_parts.html").module
    readme = " ".join((Path(__file__).parents[2] / "README.md").read_text().split())
    for reason in ("opening", "close-to-line", "likely", "exploration"):
        assert f"*{parts.reason_words[reason]}*" in readme


def test_saved_answer_says_what_stands(browser):
    page = browser.grid()
    reply = browser.give({page.image_ids[0]: "no"})
    assert reply.json() == {
        "answers": {str(page.image_ids[0]): "no"},
        "stale": False,
        "can_undo": True,
        "can_redo": False,
        "found_events": None,
    }


def test_repeated_gesture_is_one_step(browser):
    page = browser.grid()
    browser.give({page.image_ids[0]: "yes"}, key="once")
    browser.give({page.image_ids[0]: "no"})
    browser.give({page.image_ids[0]: "yes"}, key="once")  # a retry that comes late

    assert browser.grid().answers == {page.image_ids[0]: "no"}


def test_answers_work_by_form(browser):
    page = browser.grid()
    first, second = page.image_ids[:2]
    reply = browser.post("/answers", page.form(**{f"answer-{first}": "yes"}))
    assert (reply.status_code, reply.headers["location"]) == (303, browser.here)
    assert browser.grid().answers == {first: "yes"}

    page = browser.grid()
    browser.post("/answers", page.form(**{f"answer-{first}": "", f"answer-{second}": "unsure"}))
    assert browser.grid().answers == {second: "unsure"}


def test_old_tab_does_not_take_newer_answers_away(browser):
    old = browser.grid()
    first, second = old.image_ids[:2]
    browser.give({first: "yes"})

    browser.post("/answers", old.form(**{f"answer-{second}": "no"}))

    assert browser.grid().answers == {first: "yes", second: "no"}


def test_submit_without_scripts_leaves_the_rest_open_unless_asked(browser):
    page = browser.grid()
    reply = browser.post("/submit", page.form(**{f"answer-{page.image_ids[0]}": "yes"}))
    assert (reply.status_code, reply.headers["location"]) == (303, browser.here)

    after = browser.grid()

    assert after.number == 2
    assert not set(after.image_ids) & set(page.image_ids)
    assert not after.rest_are_no
    assert 'data-count="open">5<' in browser.get("/results").text


def test_rest_as_no_is_remembered_until_switched_off(browser):
    page = browser.grid()
    browser.post("/submit", page.form(rest_are_no="yes", **{f"answer-{page.image_ids[0]}": "yes"}))
    assert 'data-count="no">5<' in browser.get("/results").text
    page = browser.grid()
    assert page.rest_are_no

    fields = page.form()
    del fields["rest_are_no"]  # the box unticked
    browser.post("/submit", fields)
    assert not browser.grid().rest_are_no
    assert 'data-count="open">6<' in browser.get("/results").text


def test_choice_about_the_rest_counts_more_than_the_box(browser):
    browser.post("/submit", browser.grid().form(rest="no"))
    assert browser.grid().rest_are_no
    browser.post("/submit", browser.grid().form(rest="later"))
    assert not browser.grid().rest_are_no


def test_submit_by_htmx_brings_grid_top_and_figures_only(browser):
    page = browser.grid()
    fields = page.form(**{f"answer-{page.image_ids[0]}": "yes"}, rest_are_no="yes")
    reply = browser.post("/submit", fields, headers=HTMX)

    assert reply.status_code == 200
    assert Page(reply.text).number == 2
    assert "<html" not in reply.text
    assert re.search(r'id="search-top"\s[^>]*hx-swap-oob="true"', reply.text)
    assert re.search(r'id="rail-figures"\s[^>]*hx-swap-oob="true"', reply.text)
    assert 'data-announce=" Round 2: 6 images, 1 found last round."' in reply.text
    assert Page(reply.text).image_ids == browser.grid().image_ids


def test_submitting_twice_makes_one_round_and_says_so(browser):
    fields = browser.grid().form()
    browser.post("/submit", fields)
    again = browser.post("/submit", fields)
    assert again.headers["location"] == f"{browser.here}?after=already"
    assert "submitted already" in browser.client.get(again.headers["location"]).text
    by_htmx = browser.post("/submit", fields, headers=HTMX)
    assert "submitted already" in by_htmx.text

    assert browser.grid().number == 2


def test_answer_from_a_tab_that_shows_an_earlier_round_is_kept(browser):
    old = browser.grid()
    browser.post("/submit", old.form(rest="later"))
    reply = browser.give({old.image_ids[2]: "yes"}, round_id=old.round_id)
    assert reply.json()["stale"] is True
    assert 'data-count="yes">2<' in browser.get("/results").text


def test_undo_and_redo_go_over_rounds(browser):
    first = browser.grid()
    browser.give({first.image_ids[0]: "yes"})
    browser.post("/submit", browser.grid().form(rest="no"))
    second = browser.grid()

    reply = browser.post("/undo", {"gesture_key": "u1"}, headers=HTMX)
    assert "Took back the submit of round 1." in reply.text
    back = browser.grid()
    assert (back.round_id, back.answers) == (first.round_id, {first.image_ids[0]: "yes"})

    browser.post("/undo", {"gesture_key": "u2"})
    assert browser.grid().answers == {}
    browser.post("/redo", {"gesture_key": "r1"})
    browser.post("/redo", {"gesture_key": "r2"})
    assert browser.grid().image_ids == second.image_ids


def test_undo_pressed_twice_by_a_double_click_is_one_step(browser):
    page = browser.grid()
    browser.give({page.image_ids[0]: "yes"})
    browser.give({page.image_ids[1]: "yes"})
    for _ in range(2):
        browser.post("/undo", {"gesture_key": "same"})
    assert browser.grid().answers == {page.image_ids[0]: "yes"}


def test_nothing_to_undo_is_a_sentence(browser):
    reply = browser.post("/undo", {"gesture_key": "u"}, headers=HTMX)
    assert reply.status_code == 409
    assert "nothing to take back" in reply.text.lower()


def test_upcoming_images_are_those_of_the_next_grid(browser, monkeypatch):
    monkeypatch.setattr("app.admitting.CALM_SHARE", 2)  # a test asks without a pause
    page = browser.grid()
    browser.give(dict.fromkeys(page.image_ids[1:], "no") | {page.image_ids[0]: "yes"})
    upcoming = browser.get("/upcoming").json()
    browser.post("/submit", browser.grid().form())
    assert upcoming == browser.grid().image_ids


def test_large_view_is_a_page_and_a_fragment(browser):
    page = browser.grid()
    first, second, third = page.image_ids[:3]

    fragment = browser.get(f"/images/{second}", headers=HTMX).text
    assert "<html" not in fragment
    assert "Among the images that fit best what you opened this search with." in fragment

    whole = browser.get(f"/images/{second}").text
    assert f'href="{browser.here}/images/{first}"' in whole
    assert f'href="{browser.here}/images/{third}"' in whole
    # Answering leads on to the image after.
    fields = {"round_id": str(page.round_id), "then": str(third), f"answer-{second}": "no"}
    reply = browser.post("/answers", fields)
    assert reply.headers["location"] == f"{browser.here}/images/{third}"
    assert browser.grid().answers == {second: "no"}


def test_large_view_shows_what_lies_beside_an_image_without_a_time_in_its_folder(browser):
    ids = browser.image_ids

    def change(**labels):
        with browser.client.app.state.database.session() as session:
            for number, one in enumerate(ids):
                image = session.get_one(Image, one)
                # A folder within one lies between its files in the order of paths.
                folder = "A" if number < 20 else "A/IMG_0010" if number > 25 else "B"
                image.path = f"{folder}/IMG_{number:04}.jpg"
                image.captured_at = datetime(2026, 5, 1) if one == ids[15] else None
                image.removed_at = datetime(2026, 5, 1, tzinfo=UTC) if one == ids[9] else None
            if labels:
                collection_id = session.get_one(Image, ids[0]).collection_id
                session.add(Import(collection_id=collection_id, source="x", state="done", **labels))

    def beside(number):
        text = browser.get(f"/images/{ids[number]}", headers=HTMX).text
        _, found, strip = text.partition("Before and after it in its folder")
        strip = strip.partition("</ul>")[0]
        assert not found or f'images/{ids[number]}"\n             aria-current' in strip
        return [ids.index(int(one)) for one in re.findall(r"/images/(\d+)/small", strip)]

    change()
    assert beside(10) == [5, 6, 7, 8, 10, 11, 12, 13, 14]  # without a removed one
    assert beside(18) == [14, 15, 16, 17, 18, 19]
    assert beside(20) == [20, 21, 22, 23, 24]
    assert beside(15) == []  # its burst is known by its time
    browser.post("/corrections", {f"answer-{ids[11]}": "yes"})
    assert '<span class="small muted">Yes</span>' in browser.get(f"/images/{ids[10]}").text
    change(labels="folders")
    assert beside(10) == []


def test_large_view_shows_nearest_positives_and_past_answers(browser):
    page = browser.grid()
    browser.give({page.image_ids[0]: "unsure"})
    browser.give({page.image_ids[0]: "yes", page.image_ids[2]: "no"})
    text = browser.get(f"/images/{page.image_ids[1]}", headers=HTMX).text
    _, positives = text.split("Your positives most like it")
    positives, negatives = positives.split("Your negatives most like it")
    assert f"/images/{browser.image_ids[0]}/small" in positives  # the example
    assert f"/images/{page.image_ids[0]}/small" in positives
    assert f"/images/{page.image_ids[2]}/small" in negatives
    assert f"/images/{page.image_ids[2]}/small" not in positives
    _, text = browser.get(f"/images/{page.image_ids[0]}", headers=HTMX).text.split("This image")
    assert text.index("Unsure") < text.index("Yes</span>")


def test_likely_needs_a_first_head(browser):
    text = browser.get("/results?show=likely").text
    assert "Nothing to rank by yet" in text

    page = browser.grid()
    browser.post("/submit", page.form(rest="no", **{f"answer-{page.image_ids[0]}": "yes"}))
    text = browser.get("/results?show=likely").text
    assert "Nothing to rank by yet" not in text


def test_results_change_an_answer_in_place(browser):
    page = browser.grid()
    first, second, third = page.image_ids[:3]
    browser.give({first: "yes", second: "yes", third: "yes"})

    reply = browser.post("/corrections", {"change": f"{first}:no", "show": "yes", "page": "1"})
    assert reply.headers["location"] == f"{browser.here}/results?show=yes&after=changed&page=1"
    assert "Changed." in browser.client.get(reply.headers["location"]).text
    browser.post("/corrections", {"set": "unsure", "picked": [str(second), str(third)]})
    assert browser.grid().answers == {first: "no", second: "unsure", third: "unsure"}

    browser.post("/undo", {"back": "results", "show": "unsure", "gesture_key": "u"})
    assert browser.grid().answers == {first: "no", second: "yes", third: "yes"}


def test_selecting_nothing_changes_nothing(browser):
    reply = browser.post("/corrections", {"set": "no", "show": "yes"})
    assert reply.headers["location"] == f"{browser.here}/results?show=yes"


def test_results_by_script(browser):
    first = browser.grid().image_ids[0]
    reply = browser.client.post(
        browser.here + "/corrections", json={"values": {str(first): "yes"}, "gesture_key": "k"}
    )
    assert reply.json() == {"answers": {str(first): "yes"}, "along": {}, "found_events": None}
    page = browser.get("/results").text
    assert 'data-count="yes">2<' in page
    assert f'id="card-{first}"' in page
    assert f'id="card-{first}"' not in browser.get("/results?show=no").text


def test_keys_are_those_of_the_screen(browser):
    on_grid, on_results = (
        browser.get(path).text.partition('id="keys"')[2] for path in ("", "/results")
    )
    assert "Next images" in on_grid and "Back to the grid" in on_grid
    assert "Select a range" not in on_grid
    assert "Select a range" in on_results and "Back to the results" in on_results
    for only_there in ("Next images", "No, because", "Redo", "Why these images"):
        assert only_there not in on_results


def test_unknown_gallery_is_not_found(browser):
    assert browser.get("/results?show=everything").status_code == 404


def test_history_keeps_what_was_taken_back_and_marks_it(browser):
    page = browser.grid()
    browser.give({page.image_ids[0]: "yes"})
    browser.post("/undo", {"gesture_key": "u"})
    browser.give({page.image_ids[1]: "no"})
    events = re.findall(r'<li class="event (\w+) ([\w-]*)"', browser.get("/history").text)
    assert events == [("answer", ""), ("undo", ""), ("answer", "taken-back"), ("example", "")]


def test_settings_are_saved(browser):
    reply = browser.post(
        "/settings",
        {
            "target_name": "Purple heron",
            "round_size": "9",
            "strategy": "random",
        },
    )
    assert reply.headers["location"] == browser.here
    browser.post("/submit", browser.grid().form(rest="later"))
    page = browser.grid()
    assert len(page.image_ids) == 9
    assert "Purple heron" in page.text


@pytest.mark.parametrize(
    ("field", "value"),
    [("round_size", "500"), ("round_size", "many"), ("strategy", "luck"), ("target_name", "  ")],
)
def test_settings_that_cannot_be_used_stay_in_the_form_and_change_nothing(browser, field, value):
    given = {
        "target_name": "Purple <heron>",
        "no_reasons": "typed",
        "round_size": "9",
        "strategy": "random",
    }
    reply = browser.post("/settings", given | {field: value})
    assert reply.status_code == 422
    assert "typed</textarea>" in reply.text
    if field != "target_name":
        assert 'value="Purple &lt;heron&gt;"' in reply.text
    with browser.client.app.state.database.session() as session:
        search = session.get_one(Search, browser.search_id)
        assert (search.target_name, search.round_size) == ("Grey heron", ROUND_SIZE)
        assert search.no_reasons == []


def test_exports_hold_what_was_answered(client):
    browser = start(client, target="Héron / cendré")
    first, second = browser.grid().image_ids[:2]
    browser.give({first: "yes", second: "unsure"})

    reply = browser.get("/export.csv")
    rows = list(csv.DictReader(io.StringIO(reply.text)))
    assert sorted(row["answer"] for row in rows) == ["unsure", "yes", "yes"]
    assert reply.headers["content-type"] == "text/csv; charset=utf-8"
    assert (
        "filename*=UTF-8''H%C3%A9ron%20_%20cendr%C3%A9.csv"
        in (reply.headers["content-disposition"])
    )

    lines = [json.loads(line) for line in browser.get("/export.jsonl").text.splitlines()]
    assert [line["path"] for line in lines] == [row["path"] for row in rows]
    assert browser.get("/export.xlsx").status_code == 404


def test_all_answered_says_so_and_leads_on(client):
    browser = start(client, count=7)  # the example and one round
    browser.post("/submit", browser.grid().form(rest="no"))
    text = browser.get().text
    assert "Every image of this collection has an answer" in text
    assert f'href="{browser.here}/results"' in text
    assert browser.get("/upcoming").json() == []
    browser.post("/undo", {"gesture_key": "u"})
    assert len(browser.grid().image_ids) == ROUND_SIZE


PAGES = ("", "/upcoming", "/images/1", "/results", "/history", "/settings", "/export.csv")
POSTS = ("/answers", "/submit", "/undo", "/redo", "/corrections", "/settings")


def test_searches_of_others_are_not_found(client):
    browser = start(client, person="somebody else")
    answer = {"round_id": "1", f"answer-{browser.image_ids[0]}": "yes", "target_name": "Mine"}
    assert [browser.get(path).status_code for path in PAGES] == [404] * len(PAGES)
    assert [browser.post(path, answer).status_code for path in POSTS] == [404] * len(POSTS)


def test_nobody_signed_in_is_asked_to(client):
    stranger = TestClient(client.app, base_url=str(client.base_url))
    browser = start(stranger)
    assert [browser.get(path).status_code for path in PAGES] == [401] * len(PAGES)
    answer = {"round_id": "1", "target_name": "Mine"}
    assert [browser.post(path, answer).status_code for path in POSTS] == [401] * len(POSTS)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"values": [1]}',
        b'{"values": {"x": "yes"}, "round_id": 1}',
        b'{"values": {"1": 7}, "round_id": 1}',
        b'{"values": {"1": "maybe"}, "round_id": ROUND}',
        b'{"values": {"1": "yes"}, "round_id": "99999999999999999999"}',
        b'{"values": {"1": "yes"}, "round_id": null}',
        b'{"values": {"1": "yes"}, "round_id": ROUND, "gesture_key": "a b"}',
        b'{"values": {"1": "yes"}, "round_id": ROUND, "gesture_key": ["k"]}',
    ],
)
def test_unreadable_answers_are_refused_with_a_sentence(browser, body):
    shown = browser.grid()
    body = body.replace(b"ROUND", str(shown.round_id).encode())
    reply = browser.client.post(
        browser.here + "/answers",
        content=body,
        headers={"Content-Type": "application/json", "Accept": "application/json"},
    )
    assert reply.status_code == 422
    assert reply.json()["detail"]
    assert browser.grid().answers == {}


def test_answer_on_an_image_that_is_not_in_the_grid_is_refused(browser):
    page = browser.grid()
    (other,) = sorted(set(browser.image_ids) - set(page.image_ids))[:1]
    assert browser.give({other: "yes"}).status_code == 422


@pytest.mark.parametrize("then", ["//evil.example", "1/../../x", "1?x", "-1"])
def test_forms_never_lead_to_another_place(browser, then):
    page = browser.grid()
    reply = browser.post("/answers", {"round_id": str(page.round_id), "then": then})
    assert reply.status_code == 422


def test_pages_need_no_inline_script_or_style(browser):
    shown = browser.grid().image_ids[0]
    for path in ("", f"/images/{shown}", "/results", "/history", "/settings"):
        text = browser.get(path).text
        assert not re.search(r"<script(?![^>]*\ssrc=)", text), path
        assert not re.search(r"<style|\sstyle=|\son\w+=|hx-on|javascript:", text), path


def test_what_people_type_is_text(client):
    browser = start(client, target="<b>heron</b>\" onload='x'")
    shown = browser.grid().image_ids[0]
    for path in ("", f"/images/{shown}", "/results", "/history", "/settings"):
        text = browser.get(path).text
        assert "<b>heron" not in text, path
        assert "&lt;b&gt;heron" in text, path


def test_large_rounds_get_more_columns(browser):
    assert "columns-3" in browser.get().text
    given = {"target_name": "x", "round_size": "24", "strategy": "pf-ma"}
    browser.post("/settings", given)
    browser.post("/submit", browser.grid().form(rest="no"))
    assert "columns-6" in browser.get().text


@pytest.mark.parametrize("left", [1, 2])
def test_the_last_images_get_no_empty_columns_beside_them(client, left):
    browser = start(client, count=1 + ROUND_SIZE + left)
    browser.post("/submit", browser.grid().form(rest="no"))
    page = browser.grid()
    assert len(page.image_ids) == left and f"cards columns-{left}" in page.text


def test_settings_lead_to_the_target_card_in_one_sentence(browser):
    """A hint that is a grid would set text, link and full stop on lines of their own."""
    page = browser.get("/settings").text
    hint = re.search(r'<p class="([^"]*)">What counts as a yes[^<]*<a href="[^"]*/card">', page)
    assert hint and hint[1] == "hint"


def test_who_was_invited_is_not_here_and_has_not_signed_in_until_they_do(browser):
    with browser.client.app.state.database.session() as session:
        ben = make_person(session, name="Ben", role="ecologist")
        state = browser.client.app.state
        link = issue_sign_in_link(
            session, ben, base_url=str(browser.client.base_url), settings=state.settings
        )
    assert browser.post("/members", {"name": "Ben"}).status_code == 303

    def read_line():
        page = browser.get("/share").text
        return re.search(r"<strong>Ben</strong>.*?</p>", page, re.DOTALL)[0]

    assert "Invited <time" in read_line() and ", has not signed in yet" in read_line()
    assert "<span data-here>only you</span>" in browser.get().text
    assert browser.client.post(f"{browser.here}/here").json()["people"] == ["only you"]
    bens = TestClient(browser.client.app, base_url=str(browser.client.base_url))
    bens.portal = browser.client.portal
    assert bens.get(link).status_code == 200
    assert "Invited <time" in read_line() and "not signed in" not in read_line()
    assert bens.get(browser.here).status_code == 200
    assert "<span data-here>you, Ben</span>" in browser.get().text


def test_who_comes_back_is_told_where_images_went_and_gets_others(client):
    browser = start(client, count=40)
    with client.app.state.database.session() as session:
        cleo = make_person(session, name="Cleo", role="ecologist")
        state = client.app.state
        link = issue_sign_in_link(
            session, cleo, base_url=str(client.base_url), settings=state.settings
        )
    browser.post("/members", {"name": "Cleo"})
    before = browser.grid()
    cleos = TestClient(client.app, base_url=str(client.base_url))
    cleos.portal = client.portal
    cleos.get(link)
    cleos.get(browser.here)
    with client.app.state.database.session() as session:
        session.execute(
            update(Seat)
            .where(Seat.person_id != session.scalar(select(Person.id).filter_by(name="Cleo")))
            .values(here_until=func.now() - timedelta(seconds=1))
        )
    cleo_round = re.search(r'name="round_id" value="(\d+)"', cleos.get(browser.here).text)[1]
    cleos.post(f"{browser.here}/submit", data={"round_id": cleo_round, "rest": "no"})
    shrunk = browser.grid()
    gone = len(before.image_ids) - len(shrunk.image_ids)
    assert gone > 0
    text = " ".join(shrunk.text.split())
    told = (
        f"{gone} of these {ROUND_SIZE} images went to Cleo while you were away."
        if shrunk.image_ids
        else f"All {gone} images of this grid went to Cleo while you were away."
    )
    assert told in text
    form = re.search(r'action="([^"]*)"\s+data-gone>.*?name="gesture_key" value="(\w+)"', text)
    client.post(form[1], data={"gesture_key": form[2], "rest": "again"})
    filled = browser.grid()
    assert len(filled.image_ids) == ROUND_SIZE
    assert "data-gone" not in filled.text
