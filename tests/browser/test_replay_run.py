"""A replay started in the browser, one run of it beside the truth, and the admins' overview."""

import csv
import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.server import Server

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(400)]

ROUNDS = 4


def start_replay(page: Page, server: Server) -> None:
    server.sign_in(page)
    page.goto(f"{server.address}/collections/1/replays")
    boxes = page.locator(".tick input")
    boxes.evaluate_all("boxes => boxes.forEach((box) => (box.checked = false))")
    page.get_by_role("checkbox", name=re.compile("^striped")).check()
    page.get_by_role("checkbox", name=re.compile("^pf-ma")).check()
    page.get_by_label("Rounds").fill(str(ROUNDS))
    page.get_by_label("Seeds").fill("1")
    page.get_by_role("button", name="Start the replay").click()
    link = page.get_by_role("link", name="Its dashboard, beside the truth")
    expect(link).to_be_visible(timeout=120_000)
    link.click()


def test_a_long_target_keeps_away_from_the_next(page: Page, drawn_server: Server):
    drawn_server.sign_in(page)
    page.goto(f"{drawn_server.address}/collections/1/replays")
    first, second = page.locator(".tick-list").first.locator(".tick span:not(.count)").all()[:2]
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 900})
        names = page.locator(".tick-list").first
        names.evaluate("list => (list.style.gridTemplateColumns = '290px')")  # one below the other
        for name in (first, second):
            name.evaluate("name => (name.textContent = 'Vulpes_vulpes_crucigera '.repeat(4))")
        upper, lower = first.bounding_box(), second.bounding_box()
        assert upper and lower and upper["height"] > 40  # several lines
        assert lower["y"] - upper["y"] - upper["height"] >= 8
        box = page.locator(".tick-list .tick input").first.bounding_box()
        assert box and box["y"] < upper["y"] + 20  # beside the first line


def test_a_run_beside_the_truth_and_the_overview(page: Page, drawn_server: Server):
    start_replay(page, drawn_server)
    expect(page.locator("#moment table").first).to_be_visible(timeout=60_000)
    charts = page.locator("#rounds .chart svg")
    expect(charts).to_have_count(4, timeout=60_000)
    assert not page.evaluate("document.documentElement.scrollWidth > innerWidth")
    as_large = page.locator("#moment .verdict").evaluate_all(
        "all => all.map((one) => getComputedStyle(one).fontSize"
        " === getComputedStyle(one.closest('td')).fontSize)"
    )
    assert as_large and all(as_large)

    # The plot, the table behind it and the file hold the same numbers.
    with page.expect_download() as download:
        page.get_by_role("link", name="All rounds").click()
    with download.value.path().open() as file:
        lines = list(csv.DictReader(file))
    assert [int(line["round"]) for line in lines] == list(range(1, ROUNDS + 1))
    page.locator("#rounds summary").first.click()
    table = page.locator("#rounds figure table").first.locator("tbody tr")
    told = [row.locator("td").all_inner_texts() for row in table.all()]
    assert [float(cells[-1]) for cells in told] == [
        pytest.approx(float(line["recall"]), abs=1e-4) for line in lines
    ]
    said = lines[-1]["recall_said"]
    assert told[-1][1] == "–" if not said else abs(float(told[-1][1]) - float(said)) < 1e-3

    page.get_by_role("link", name="Round before").click()
    expect(page.locator("#round")).to_have_value(str(ROUNDS - 1))
    recall = float(lines[ROUNDS - 2]["recall"])
    expect(page.locator('[data-figure="recall"]')).to_have_text(f"{100 * recall:.0f} %")

    page.locator("details.menu summary").click()
    page.get_by_role("link", name="Overview of this server").click()
    expect(page.locator("#disk table").first).to_be_visible()
    expect(page.get_by_role("region", name="Table of collections")).to_contain_text("Reef")
