"""The dashboard of a search among real fish: figures, gap, sample, second look, report; and charts
of given numbers."""

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Callable
from datetime import date, timedelta
from itertools import combinations
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.server import Server

pytestmark = [pytest.mark.browser, pytest.mark.timeout(400), pytest.mark.slow]

RARE = "11_Abudefduf_vaigiensis"
ROUNDS = 2  # then there are likely looks that no find resembles
SAMPLED_ROUNDS = 3  # any beginning of a sample is one


class Hunter:
    """Somebody who knows the rare species when they see it."""

    def __init__(self, page: Page, server: Server, images: Path) -> None:
        self.page, self.server = page, server
        self.rare = {path.name for path in (images / RARE).iterdir()}

    def open_search(self) -> None:
        page = self.page
        self.server.sign_in(page)
        page.goto(f"{self.server.address}/collections/1/browse?name={min(self.rare)}")
        page.locator(f'a[title$="{min(self.rare)}"]').click()
        page.get_by_role("link", name="Start a search with this").click()
        page.get_by_label("What are you looking for?").fill("Sergeant")
        page.get_by_role("button", name="Start the search").click()
        expect(page.locator(".search-round")).to_have_text("Round 1")
        page.goto(f"{page.url.split('?')[0]}/settings")
        page.locator("input[name=strategy][value=pf-ma]").check()
        page.get_by_role("button", name="Save").click()
        expect(page.locator(".search-round")).to_have_text("Round 1")

    def shown(self) -> list[str]:
        return self.page.locator(".cards .picture-card").evaluate_all(
            "cards => cards.map((card) => card.dataset.name)"
        )

    def answer_round(self) -> None:
        """Yes where it is one, no for the rest, and the next grid."""
        page = self.page
        shown = self.shown()
        # A grid without any answer is not submitted by one press.
        keys = {name: "y" for name in shown if name in self.rare} or {shown[0]: "n"}
        for name, key in keys.items():
            page.locator(f'.picture-card[data-name="{name}"]').focus()
            with page.expect_response(re.compile("/answers$")):
                page.keyboard.press(key)
        rest = page.get_by_label(re.compile("rest count as no", re.IGNORECASE))
        if not rest.is_checked():
            rest.check()
        before = page.locator("#grid").get_attribute("data-round")
        page.get_by_role("button", name="Next images").click()
        expect(page.locator("#grid")).not_to_have_attribute("data-round", before or "")
        expect(page.locator("#grid")).not_to_have_class(re.compile("busy"))

    def open_dashboard(self) -> None:
        address = re.match(r".*/searches/\d+", self.page.url)
        assert address is not None
        self.page.goto(f"{address[0]}/dashboard")
        expect(self.page.locator(".placeholder")).to_have_count(0)

    def figure(self, name: str) -> int:
        text = self.page.locator(f'[data-figure="{name}"]').inner_text()
        return int(re.sub(r"\D", "", text))

    def plot(self, name: str) -> list[list[float | str]]:
        """The numbers of a chart that was drawn."""
        for box in self.page.locator("[data-plot]").all():
            told = json.loads(box.get_attribute("data-plot") or "")
            if told["name"] == name:
                expect(box.locator("svg")).to_be_visible()
                return told["rows"]
        raise AssertionError(f"There is no chart {name}")

    def export(self) -> list[dict[str, str]]:
        address = self.page.url.split("/dashboard")[0]
        answer = self.page.request.get(f"{address}/export.csv")
        return list(csv.DictReader(io.StringIO(answer.text())))


def test_dashboard_of_a_search_among_real_fish(
    page: Page, make_server: Callable[[Path], Server], fish_images: Path
) -> None:
    hunter = Hunter(page, make_server(fish_images), fish_images)
    hunter.open_search()
    for _ in range(ROUNDS):
        hunter.answer_round()
    hunter.open_dashboard()
    figures_are_those_of_the_export(hunter)
    gap_becomes_the_next_round(hunter)
    estimate_is_run_in_the_grid(hunter)
    second_look_is_taken(hunter)
    report_is_kept(hunter)


def figures_are_those_of_the_export(hunter: Hunter) -> None:
    rows = hunter.export()
    tally = Counter(row["answer"] for row in rows)
    assert hunter.figure("positives") == tally["yes"] > 5
    assert hunter.figure("answered") == len(rows)
    by_round = Counter((row["round"], row["answer"]) for row in rows)
    for number, yes, no, unsure, left_open in hunter.plot("yield"):
        assert by_round[str(number), "yes"] == yes
        assert by_round[str(number), "no"] == no
        assert (unsure, left_open) == (0, 0)
    groups = Counter(group for _, group, _, _ in hunter.plot("map"))
    assert groups["Found"] == tally["yes"]
    scores = hunter.plot("scores")
    assert sum(row[2] for row in scores) == tally["yes"]
    assert sum(row[3] for row in scores) == tally["no"]
    below = sum(float(row["score"]) < 0 for row in rows if row["answer"] == "yes")
    assert sum(row[2] for row in scores if row[1] <= 0) <= below


def gap_becomes_the_next_round(hunter: Hunter) -> None:
    page = hunter.page
    picture = page.locator(".gap").first.locator("img").first.get_attribute("src")
    number = re.search(r"\d+", picture or "")
    assert number is not None
    page.locator(".gap").first.get_by_role("button", name="Show me these next").click()
    expect(page.locator(".detour")).to_contain_text("The gap that you picked")
    assert page.locator(".picture-card").first.get_attribute("data-image") == number[0]
    hunter.answer_round()
    expect(page.locator(".detour")).to_have_count(0)


def estimate_is_run_in_the_grid(hunter: Hunter) -> None:
    page = hunter.page
    hunter.open_dashboard()
    page.get_by_role("button", name="Estimate now").click()
    expect(page.locator(".detour")).to_contain_text("images 1 to 12 of 150")
    for _ in range(SAMPLED_ROUNDS):
        hunter.answer_round()
    expect(page.locator(".detour")).to_contain_text("images 37 to 48 of 150")
    page.get_by_role("button", name="Back to the search's own choice").click()
    expect(page.locator(".detour")).to_have_count(0)
    hunter.open_dashboard()
    page.get_by_text("What other methods say").click()  # the sample was not shown to its end
    stated = page.locator(".statement", has_text="images by score").locator(".statement-value")
    numbers = [int(found) for found in re.findall(r"\d+", stated.inner_text())]
    value, level, low, high = numbers
    # Whether the truth is inside is chance, one time in twenty not: replays tell how often it is.
    assert 0 <= low <= value <= high
    assert level == 95
    expect(page.locator(".statement", has_text="Sample of 36 images by score")).to_be_visible()
    expect(page.locator(".taken")).to_contain_text("36 of 150 images shown")


def second_look_is_taken(hunter: Hunter) -> None:
    page = hunter.page
    before = hunter.figure("positives")
    page.get_by_role("button", name="Take a second look").click()
    while page.locator(".detour").count():
        hunter.answer_round()
    hunter.open_dashboard()
    new = hunter.figure("positives") - before
    expect(page.locator(".taken li").last).to_have_text(
        re.compile(rf"A second look, from round \d+: 40 of 40 images shown, {new} yes")
    )


def report_is_kept(hunter: Hunter) -> None:
    page = hunter.page
    with page.expect_download() as kept:
        page.locator(".plot [data-svg]").first.click()
    assert kept.value.path().read_text().startswith("<svg")
    found = hunter.figure("positives")
    page.get_by_role("link", name="Report").click()
    with page.expect_download() as kept:
        page.get_by_role("link", name="Download as one file").click()
    report = kept.value.path().read_text()
    assert f"{found} yes" in report
    assert "Sergeant: report of a search" in report
    assert "<style>" in report


DRAW = """(plot) => {
  const figure = document.createElement("figure");
  figure.className = "plot card";
  figure.innerHTML = '<div class="chart" data-plot></div>';
  figure.firstChild.dataset.plot = JSON.stringify(plot);
  document.querySelector("main .page").prepend(figure);
  document.dispatchEvent(new Event("htmx:afterSettle"));
}"""

# Of each shape and word: where it is, without its stroke, and how it is drawn.
SHAPES = """(svg) => [...svg.querySelectorAll("path, text")].map((one) => {
  const {left, right, top, bottom} = one.getBoundingClientRect();
  const fill = one.getAttribute("fill");
  const opacity = Number(one.getAttribute("fill-opacity") ?? 1);
  return {
    text: one.tagName === "text" ? one.textContent : null,
    left, right, top, bottom,
    fill: fill === "none" || fill === "transparent" ? null : fill,
    opacity,
    stroke: one.getAttribute("stroke"),
  };
})"""


def draw(page: Page, kind: str, rows: list, **more: object) -> list[dict]:
    """What is in the drawing of a chart of these numbers, on the page of the overview."""
    page.evaluate(DRAW, {"name": kind, "kind": kind, "rows": rows, **more})
    drawing = page.locator("main .page > figure").first.locator("svg")
    expect(drawing).to_be_visible()
    return drawing.evaluate(SHAPES)


def find_text(shapes: list[dict], text: str) -> dict:
    return min((one for one in shapes if one["text"] == text), key=lambda one: one["top"])


def find_mark(shapes: list[dict], name: str) -> str:
    """Whether the legend has a line or an area beside this name."""
    marks = list_marks(shapes, name)
    wide = [mark for mark in marks if mark["right"] - mark["left"] >= 15]
    assert len(wide) == 1, (name, marks)
    [mark] = wide
    if mark["bottom"] - mark["top"] < 2:
        return "line"
    assert len(marks) == 1, (name, marks)
    assert mark["bottom"] - mark["top"] >= 8
    assert mark["fill"] and mark["opacity"] < 0.5  # pale, as it is drawn
    return "area"


def list_marks(shapes: list[dict], name: str) -> list[dict]:
    """What the legend, which is at the top, draws beside this name."""
    word = find_text(shapes, name)
    return [
        shape
        for shape in shapes
        if shape["text"] is None
        and word["left"] - 24 <= shape["left"] <= shape["right"] <= word["left"]
        and word["top"] - 2 <= shape["top"] <= shape["bottom"] <= word["bottom"] + 2
    ]


@pytest.fixture
def overview(page: Page, drawn_server: Server) -> Page:
    drawn_server.sign_in(page)
    page.goto(f"{drawn_server.address}/overview")
    return page


def test_few_rounds_are_drawn_over_the_whole_week(overview: Page) -> None:
    bars = [["2026-03-02T10:00:00+00:00", 3], ["2026-03-08T14:00:00+00:00", 5]]
    week = {"since": "2026-03-01T12:00:00+00:00", "until": "2026-03-08T15:20:00+00:00"}
    for rows in (bars, bars[:1]):
        shapes = draw(overview, "hours", rows, marks=week)
        frame = overview.locator("main .page > figure svg").first.bounding_box()
        drawn = [one for one in shapes if one["fill"] and 1 < one["right"] - one["left"] < 6]
        assert len(drawn) == len(rows), drawn
        places = [(bar["left"] + bar["right"]) / 2 - frame["x"] for bar in drawn]
        room = frame["width"] - 80  # without the axis
        days = [(one["left"] + one["right"]) / 2 - frame["x"] for one in shapes if one["text"]]
        assert places[0] == pytest.approx(68 + room * 22 / 171.3, abs=12)
        assert max(days) > 0.8 * frame["width"]
        if len(rows) == 2:
            assert places[1] == pytest.approx(68 + room * 170 / 171.3, abs=12)


def test_marks_of_a_legend_look_like_what_they_name(overview: Page) -> None:
    shapes = draw(overview, "interval", [[1, 0.2, 0.1, 0.4], [2, 0.5, 0.4, 0.8]])
    assert find_mark(shapes, "90 % interval") == "area"
    assert find_mark(shapes, "Coverage") == "line"
    rows = [[1, 20, 10, 40, 25], [2, 50, 40, 80, 45]]
    shapes = draw(overview, "against", rows, marks={"level": 0.9, "share": False})
    assert find_mark(shapes, "90 % interval") == "area"
    assert [find_mark(shapes, name) for name in ("Said", "True")] == ["line", "line"]
    columns = ["from", "to", "Yes", "No", "No answer"]
    rows = [[-1, 0, 1, 20, 500], [0, 1, 10, 2, 50]]
    shapes = draw(overview, "histogram", rows, columns=columns, marks={"boundary": 0})
    assert find_mark(shapes, "No answer") == "area"
    assert [find_mark(shapes, name) for name in ("Yes", "No")] == ["line", "line"]
    rows = [["2026-03-01", 1, 0, 20], ["2026-04-01", 4, 2, 30]]
    shapes = draw(overview, "dates", rows, columns=["Month", "Found", "Likely", "All images"])
    assert find_mark(shapes, "All images") == "area"
    rows = [[0, 0.2, 0.1, 1, 20, 0.05, 0.01, 0.2], [0.8, 1, 0.9, 9, 10, 0.9, 0.7, 0.98]]
    shapes = draw(overview, "calibration", rows)
    assert find_mark(shapes, "Promise kept") == "line"
    [interval] = list_marks(shapes, "90 % interval")  # upright, as it is drawn
    assert interval["bottom"] - interval["top"] > interval["right"] - interval["left"] > 5


def test_title_of_an_axis_keeps_clear_of_its_numbers(overview: Page) -> None:
    month = ["Month", "Found", "Likely", "All images"]
    score = ["from", "to", "Yes", "No", "No answer"]
    for width in (1280, 390):
        overview.set_viewport_size({"width": width, "height": 800})
        dates = draw(overview, "dates", [["2026-03-01", 3, 1, 20]], columns=month)
        rows = [[0, 1, 10, 2, 50]]
        scores = draw(overview, "histogram", rows, columns=score, marks={"boundary": 0})
        for shapes in (dates, scores):
            title = find_text(shapes, "Share of its group")
            full = find_text(shapes, "100 %")
            assert title["left"] >= 0
            assert full["left"] - title["right"] >= 4
        assert not overview.evaluate("document.documentElement.scrollWidth > innerWidth")


def list_touching(shapes: list[dict]) -> list[tuple[str, str]]:
    """Pairs of words and numbers that touch or run together."""
    words = [one for one in shapes if one["text"]]
    return [
        (one["text"], other["text"])
        for one, other in combinations(words, 2)
        if max(one["left"], other["left"]) - min(one["right"], other["right"]) < 4
        and max(one["top"], other["top"]) - min(one["bottom"], other["bottom"]) < 2
    ]


@pytest.mark.parametrize("width", [1280, 640, 390, 320])
def test_numbers_of_axes_keep_clear_of_each_other(overview: Page, width: int) -> None:
    overview.set_viewport_size({"width": width, "height": 800})
    touching = {}

    def look(kind: str, rows: list, **more: object) -> None:
        if pairs := list_touching(draw(overview, kind, rows, **more)):
            touching[kind, len(rows)] = pairs

    yields = ["Round", "Yes", "No", "Unsure", "Open"]
    for count in (9, 23, 60, 140, 1200):
        rounds = range(1, count + 1)
        look("bars", [[number, 3, 9, 0, 0] for number in rounds], columns=yields)
        look("interval", [[number, 0.5, 0.4, 0.6] for number in rounds])
        level = {"level": 0.9, "share": True}
        look("against", [[number, 0.5, 0.4, 0.6, 0.5] for number in rounds], marks=level)
    first = date(2025, 5, 5)
    for name, days, count in (("Day", 1, 30), ("Week", 7, 19), ("Month", 31, 14), ("Year", 366, 9)):
        given = [[f"{first + timedelta(days * place)}", 3, 1, 20] for place in range(count)]
        look("dates", given, columns=[name, "Found", "Likely", "All images"])
    columns = ["from", "to", "Yes", "No", "No answer"]
    scores = [[place - 13, place - 12, 7, 20, 5000] for place in range(18)]
    look("histogram", scores, columns=columns, marks={"boundary": 0})
    scores = [[place / 100, place / 100 + 0.01, 7, 20, 5000] for place in range(-13, 5)]
    look("histogram", scores, columns=columns, marks={"boundary": 0})
    look("calibration", [[0, 0.2, 0.1, 1, 20, 0.05, 0.01, 0.2]])
    week = {"since": "2026-03-01T12:00:00+00:00", "until": "2026-03-08T15:20:00+00:00"}
    look("hours", [["2026-03-02T10:00:00+00:00", 3]], marks=week)
    cameras = ["Deployment", "Found", "Answered", "Likely", "All images"]
    look(
        "deployments",
        [[f"Camera {n}", 9000, 19_500, 900, 90_000] for n in range(6)],
        columns=cameras,
    )
    spots = [[51.1 + n / 100, 4.3 + n / 90, 3, 1, 40] for n in range(8)]
    look("places", spots, columns=["Latitude", "Longitude", "Found", "Likely", "All images"])
    assert touching == {}
