"""The dashboard as a browser asks for it: with and without scripts, its files, its forms."""

import csv
import io
import json
import re
from html import unescape

import pytest
from sqlalchemy import func, select, update

from app.dashboards.stopping import Verdict
from app.engine.remaining import Statement
from app.searching import open_search, submit_answers
from app.security import get_local_person
from app.tables import Image, Round, Search
from tests.factories import make_collection, make_images, make_index, make_vectors

HTMX = {"HX-Request": "true"}
PARTS = ("variety", "looks", "whereabouts", "left", "stopping", "head")


@pytest.fixture
def here(client):
    """The address of a search of 120 images with four rounds answered; twelve are of the target."""
    state = client.app.state
    with state.database.session() as session:
        person = get_local_person(session)
        collection = make_collection(session)
        images = make_images(session, collection, 120)
        targets = {image.id for image in images[:12]}
        make_index(session, state.settings, images)
        search = open_search(
            session,
            person=person,
            collection_id=collection.id,
            target_name="Heron <rare>",
            strategy="pf-ma",
            image_ids=[images[0].id],
            photo_ids=[],
            indexes=state.indexes,
            embedders=state.embedders,
            settings=state.settings,
            round_size=6,
            seed=1,
        )
        for _ in range(4):
            made = session.get_one(Round, search.current_round_id)
            shown = [place.image_id for place in made.images]
            values = {image_id: "yes" if image_id in targets else "no" for image_id in shown}
            submit_answers(
                session,
                search,
                person=person,
                round_id=made.id,
                values=values,
                rest_are_no=False,
                gesture_key=None,
                indexes=state.indexes,
            )
        return f"/searches/{search.id}"


def figure(page, name):
    return re.search(rf'data-figure="{name}">\s*([^<]*?)\s*<', page)[1]


def plot(page, name):
    """The numbers that a chart is drawn from."""
    plots = [json.loads(unescape(found)) for found in re.findall(r'data-plot="([^"]*)"', page)]
    return next(one for one in plots if one["name"] == name)


def test_page_shows_what_was_found_and_leaves_the_rest_for_later(client, here):
    page = client.get(f"{here}/dashboard").text
    assert figure(page, "answered") == "25"
    assert int(figure(page, "positives")) >= 6
    assert "Heron &lt;rare&gt;" in page
    for part in PARTS:
        assert f'hx-get="{here}/dashboard/{part}"' in page
    assert "<style" not in page
    assert 'style="' not in page


def word(client, **figures):
    """What the page says of a statement, without markup."""
    told = Statement(
        **{
            "name": "yield-curve",
            "title": "Finds thinning out",
            "kind": "heuristic",
            "quantity": "left",
            "value": 1.0,
            "low": 0.0,
            "high": 15.0,
            "level": 0.95,
            "assumption": "",
            "cost": 0,
        }
        | figures
    )
    macros = client.app.state.templates.env.get_template("_dashboard_macros.html").module
    return re.sub(r"<[^>]+>", "", str(macros.statement_words(told, False))).strip()


def test_interval_cannot_be_taken_for_its_level(client):
    assert word(client) == "about 1 left (95 % interval: 0 to 15)"
    many = word(client, value=1234.4, low=20.0, high=9876.0)
    assert many == "about 1\u202f234 left (95 % interval: 20 to 9\u202f876)"
    share = word(client, quantity="share", value=0.0, high=0.127)
    assert share.startswith("0 % of the next answers")
    assert share.endswith("(95 % interval: 0 to 13 %)")


def test_estimate_without_room_for_doubt_is_told_in_words(client):
    for name in ("yield-curve", "calibrated-sum", "two-looks"):
        told = word(client, name=name, value=0.2, low=0.0, high=0.4)
        assert told == "no more expected by this rule; it can’t see what the search never showed"
    told = word(client, name="score-sample", kind="estimate", value=0.0, high=0.0)
    assert told == "no more expected by this sample; it can’t see what it did not draw"
    told = word(client, value=2.0, low=2.0, high=2.0)
    assert told == "about 2 left by this rule; it can’t see what the search never showed"
    told = word(client, name="random-sample", kind="certificate", value=0.0, high=3.0)
    assert told == "at most 3 left (95 % sure)"


def test_a_sample_without_a_yes_is_no_word_that_none_is_left(client):
    def answer(value, high):
        one = Statement(
            "score-sample", "", "estimate", "left", value, 0.0, high, 0.95, assumption="", cost=150
        )
        verdict = Verdict(one, found=19, share=1.0, share_low=19 / (19 + high), share_high=1.0)
        macros = client.app.state.templates.env.get_template("_dashboard_macros.html").module
        words = re.sub(r"<[^>]+>", "", str(macros.verdict_words(verdict, "event")))
        return " ".join(unescape(words).split())

    assert answer(0.0, 10.0).startswith("At most 10 events left (95 % sure), perhaps none: with 19")
    assert answer(0.0, 1.2).startswith("At most 1 event left")
    assert answer(0.2, 0.4).startswith("Probably no event left (95 % sure): with 19 found")
    assert answer(2.0, 10.0).startswith("About 2 events left, 0 to 10 (95 % sure)")


def test_page_answers_by_the_statement_to_trust_most(client, here):
    part = client.get(f"{here}/dashboard/left", headers=HTMX).text
    assert "“Estimate now”" in part
    assert "drawn by lot from all" not in part
    client.post(f"{here}/detour", data={"kind": "absence", "size": "6"})
    grid = client.get(here).text
    fields = {
        "round_id": re.search(r'name="round_id"\s+value="(\d+)"', grid)[1],
        "rest_are_no": "on",
        "gesture_key": "sample",
    }
    client.post(f"{here}/submit", data=fields)
    part = client.get(f"{here}/dashboard/left", headers=HTMX).text
    answer = re.sub(r"<[^>]*>|\s+|&nbsp;", " ", part[part.index('data-figure="verdict"') :])
    assert re.search(r"At most +\d+ images +left \(95 % sure\): with \d+ found", answer)
    assert "drawn by lot from all" in part
    # The method it goes by stands open, the others are folded away.
    assert part.index("0 of 6 images drawn at random") < part.index("What other methods say")
    assert (
        "“0 of 6 images drawn at random” deserves most trust" in client.get(f"{here}/report").text
    )


def test_links_lead_to_the_dashboard_and_back(client, here):
    assert f'href="{here}/dashboard"' in client.get(here).text
    assert f'href="{here}/dashboard"' in client.get(f"{here}/results").text
    assert f'href="{here}"' in client.get(f"{here}/dashboard").text


@pytest.mark.parametrize("part", PARTS)
def test_part_comes_alone_for_scripts_and_in_the_page_without(client, here, part):
    fragment = client.get(f"{here}/dashboard/{part}", headers=HTMX)
    assert fragment.status_code == 200
    assert "<html" not in fragment.text
    whole = client.get(f"{here}/dashboard/{part}?round=2")
    assert str(whole.url).endswith(f"{here}/dashboard?whole=1&round=2#{part}")
    assert "hx-get" not in whole.text
    assert "after 2 rounds" in whole.text


def test_earlier_round_asks_its_parts_for_the_same_round(client, here):
    page = client.get(f"{here}/dashboard?round=1").text
    assert figure(page, "answered") == "7"
    assert f'hx-get="{here}/dashboard/left?round=1"' in page
    assert "Estimate now" not in client.get(f"{here}/dashboard/left?round=1", headers=HTMX).text
    assert client.get(f"{here}/dashboard?round=9").status_code == 404


def test_table_chart_and_file_hold_the_same_numbers(client, here):
    pages = {
        "yield": client.get(f"{here}/dashboard").text,
        "coverage": client.get(f"{here}/dashboard/history", headers=HTMX).text,
        "map": client.get(f"{here}/dashboard/looks", headers=HTMX).text,
        "scores": client.get(f"{here}/dashboard/head", headers=HTMX).text,
    }
    pages["calibration"] = pages["scores"]
    for name, page in pages.items():
        shown = plot(page, name)
        answer = client.get(f"{here}/dashboard/tables/{name}.csv")
        assert answer.headers["content-type"].startswith("text/csv")
        columns, *rows = csv.reader(io.StringIO(answer.text))
        assert columns == shown["columns"]
        assert rows == [[str(value) for value in row] for row in shown["rows"]]
        assert len(re.findall(r"<tr>", page)) >= len(rows)
    assert client.get(f"{here}/dashboard/tables/guess.csv").status_code == 404


def test_name_of_a_folder_is_no_formula_in_a_file(client, here):
    with client.app.state.database.session() as session:
        path = func.concat("=cmd", Image.id % 2, "()/", Image.path)
        session.execute(update(Image).values(path=path))
    _, *rows = csv.reader(io.StringIO(client.get(f"{here}/dashboard/tables/deployments.csv").text))
    assert {row[0] for row in rows} == {"'=cmd0()", "'=cmd1()"}


def test_sample_is_shown_in_the_grid_and_ends_when_asked(client, here):
    answer = client.post(f"{here}/detour", data={"kind": "absence", "size": "12"})
    assert str(answer.url).endswith(here)
    assert "images 1 to 6 of 12" in answer.text
    assert answer.text.count('aria-label="Image ') >= 6
    back = client.post(f"{here}/detour", data={})
    assert "A sample at random" not in back.text


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "absence", "size": "many"},
        {"kind": "absence", "size": "3"},
        {"kind": "absence", "size": "9" * 40},
        {"kind": "guess", "size": "12"},
        {"kind": "absence", "size": "12", "gesture_key": "<b>"},
    ],
)
def test_what_cannot_be_shown_is_said(client, here, fields):
    before = client.get(here).text
    assert client.post(f"{here}/detour", data=fields).status_code == 422
    ids = re.findall(r'id="card-(\d+)"', before)
    assert re.findall(r'id="card-(\d+)"', client.get(here).text) == ids


def test_gap_of_another_collection_is_not_found(client, here):
    with client.app.state.database.session() as session:
        (other,) = make_images(session, make_collection(session, name="Lake"), 1)
    fields = {"kind": "gap", "anchor_image_id": str(other.id)}
    assert client.post(f"{here}/detour", data=fields).status_code == 404


def test_goal_is_set_and_told(client, here):
    fields = {"aim": "recall", "amount": "90", "confidence": "95", "rule": "random-sample"}
    answer = client.post(f"{here}/goal", data=fields)
    assert str(answer.url).endswith("/dashboard#stopping")
    part = client.get(f"{here}/dashboard/stopping", headers=HTMX).text
    assert "90 % of what is there, 95 % sure" in part
    assert "Not yet." in part


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"amount": "all"}, "amount"),
        ({"amount": "nan"}, "amount"),
        ({"amount": "140"}, "amount"),
        ({"confidence": "20"}, "confidence"),
        ({"rule": "enough-positives"}, "rule"),
    ],
)
def test_refused_goal_stays_on_the_page_with_its_field_marked(client, here, wrong, field):
    fields = {"aim": "recall", "amount": "85", "confidence": "95", "rule": "sum-of-chances"}
    answer = client.post(f"{here}/goal", data=fields | wrong)
    assert answer.status_code == 422
    page = answer.text
    marked = re.findall(r"<(?:input|select)[^>]*aria-invalid[^>]*>", page)
    assert len(marked) == 1
    assert f'name="{field}"' in marked[0]
    described = re.search(r'aria-describedby="([^"]+)"', marked[0])[1]
    assert f'id="{described}"' in page
    if field != "amount":
        assert 'value="85"' in page  # what was typed is still there
    assert figure(page, "answered") == "25"
    assert "Your goal:" not in client.get(f"{here}/dashboard/stopping", headers=HTMX).text


def test_no_more_images_are_offered_than_have_no_answer(client, here):
    part = client.get(f"{here}/dashboard/left", headers=HTMX).text
    box = re.search(r'<input[^>]*id="absence-size"[^>]*>', part)[0]
    assert 'value="95"' in box
    assert 'max="95"' in box
    assert "95 images drawn by lot" in part
    answer = client.post(f"{here}/detour", data={"kind": "absence", "size": "300"})
    assert "images 1 to 6 of 95" in answer.text


def test_another_embedder_of_the_collection_can_take_a_look(client, here):
    ask = "As another embedder sees it"
    assert ask not in client.get(f"{here}/dashboard/left", headers=HTMX).text
    state = client.app.state
    with state.database.session() as session:
        search = session.get_one(Search, int(here.rsplit("/", 1)[1]))
        images = session.scalars(select(Image).filter_by(collection_id=search.collection_id)).all()
        vectors = make_vectors(120, dimension=8, seed=3)
        make_index(session, state.settings, images, vectors, embedder="other-eyes")
    part = client.get(f"{here}/dashboard/left", headers=HTMX).text
    form = part[part.index(ask) :]
    fields = dict(re.findall(r'name="(\w+)"\s+value="([^"]+)"', form))
    assert (fields["kind"], fields["embedder"]) == ("other-embedder", "other-eyes")
    answer = client.post(f"{here}/detour", data=fields)
    assert re.search(r"as another embedder sees your answers: images 1 to 6 of \d+\.", answer.text)
    assert "Likely as another embedder sees it" in answer.text
    refused = client.post(
        f"{here}/detour", data=fields | {"embedder": "hand-made", "gesture_key": ""}
    )
    assert refused.status_code == 422


def test_questions_of_the_page_are_listed(client, here):
    page = client.get(f"{here}/dashboard").text
    for part in ("found", *PARTS):
        # Beside the page, and at its head on phones.
        assert page.count(f'<li><a href="#{part}"') == 2
        assert f'id="{part}"' in page
    assert '<a href="/">Home</a>' in page


def test_report_is_a_page_and_a_file_that_needs_nothing_else(client, here):
    page = client.get(f"{here}/report")
    assert "Heron &lt;rare&gt;" in page.text
    assert "Likely, least sure first (pf-ma; 4 rounds)" in page.text
    # Not “looked at”: that is what has an answer.
    assert re.search(r"Searched in</th>\s*<td>all of them", page.text)
    assert "Looked at" not in page.text
    assert "<style" not in page.text
    kept = client.get(f"{here}/report?download=1")
    assert kept.headers["content-disposition"].startswith("attachment")
    assert "<style>" in kept.text
    assert not re.findall(r"(?:src|href)=", kept.text)


def test_dashboard_of_somebody_else_is_not_found(client, here):
    number = int(here.rsplit("/", 1)[1]) + 1
    for path in ("dashboard", "dashboard/left", "report", "dashboard/tables/yield.csv"):
        assert client.get(f"/searches/{number}/{path}").status_code == 404
    assert client.post(f"/searches/{number}/detour", data={}).status_code == 404
    assert client.post(f"/searches/{number}/goal", data={"amount": "1"}).status_code == 404
