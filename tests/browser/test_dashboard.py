"""The dashboard of a search among real fish: figures, gap, sample, second look, report."""

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.server import Server

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(400)]

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
