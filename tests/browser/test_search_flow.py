"""From the sign-in link to the exported file, in a real browser, with a server that is killed."""

import csv
import io
import re
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.server import Server

pytestmark = [pytest.mark.browser, pytest.mark.timeout(400)]

ROUNDS = 6
KEYS = {"y": "yes", "n": "no", "u": "unsure"}


@dataclass
class Hunter:
    """Somebody at the keyboard who knows the rare kind when they see it."""

    page: Page
    server: Server
    truth: dict[str, str]  # file name -> kind
    rare: str
    given: dict[str, str] = field(default_factory=dict)  # file name -> answer

    def shown(self) -> list[str]:
        expect(self.page.locator(".bar .next")).to_be_visible()  # comes after the last card
        return self.page.locator(".cards .picture-card").evaluate_all(
            "cards => cards.map((card) => card.dataset.name)"
        )

    def states(self) -> dict[str, str]:
        """The answers that the page shows."""
        return dict(
            self.page.locator(".cards input:checked").evaluate_all(
                "all => all.filter((input) => input.value)"
                ".map((input) => [input.closest('article').dataset.name, input.value])"
            )
        )

    def answer(self, name: str, key: str | None = None) -> None:
        """Press a key on the card that has the focus, which must be this one."""
        expect(self.page.locator(f'.picture-card[data-name="{name}"]')).to_be_focused()
        key = key or ("y" if self.truth[name] == self.rare else "n")
        with self.page.expect_response(re.compile("/answers$")) as saved:
            self.page.keyboard.press(key)
        assert saved.value.ok
        self.given[name] = KEYS[key]

    def answer_all(self) -> None:
        names = self.shown()
        for name in names:
            self.answer(name)
        expect(self.page.get_by_role("button", name="Next images")).to_be_focused()
        assert self.states() == {name: self.given[name] for name in names}

    def expect_round(self, number: int) -> None:
        expect(self.page.locator(".search-round")).to_have_text(f"Round {number}")
        expect(self.page.locator("#grid")).not_to_have_class(re.compile("busy"))


@pytest.mark.parametrize(
    ("source", "rare"),
    [
        ("drawn", "striped"),
        pytest.param("fish", "11_Abudefduf_vaigiensis", marks=pytest.mark.slow),
    ],
)
def test_from_sign_in_link_to_export(source, rare, request, page, make_server):
    images: Path = request.getfixturevalue(f"{source}_images")
    server = make_server(images) if source == "fish" else request.getfixturevalue("drawn_server")
    truth = {path.name: path.parent.name for path in images.glob("*/*.jpg")}
    hunter = Hunter(page, server, truth, rare)

    start_search_from_an_example(hunter)
    hunter.expect_round(1)
    hunter.answer_all()
    page.keyboard.press("Enter")
    hunter.expect_round(2)
    answer_with_a_slip_and_count_the_rest_as_no(hunter)
    hunter.expect_round(3)
    take_the_submit_back_and_do_it_again(hunter)
    reload_and_kill_in_mid_round(hunter)
    for number in range(4, ROUNDS + 1):
        hunter.expect_round(number)
        hunter.answer_all()
        page.keyboard.press("Enter")
    hunter.expect_round(ROUNDS + 1)
    think_better_of_one_result(hunter)
    check_the_export(hunter)


def start_search_from_an_example(hunter: Hunter) -> None:
    page, truth = hunter.page, hunter.truth
    example = next(name for name in sorted(truth) if truth[name] == hunter.rare)
    hunter.server.sign_in(page)
    page.goto(hunter.server.address)
    page.get_by_role("link", name="Reef", exact=True).first.click()
    page.goto(f"{hunter.server.address}/collections/1")  # a first visit leads past it
    page.get_by_role("link", name="Browse", exact=True).click()
    page.get_by_label("File name").fill(example)
    page.get_by_label("File name").press("Enter")
    page.locator(f'a[title$="{example}"]').click()
    page.get_by_role("link", name="Start a search with this").click()
    page.get_by_label("What are you looking for?").fill("Sergeant")
    page.get_by_role("button", name="Start the search").click()
    hunter.given[example] = "yes"


def answer_with_a_slip_and_count_the_rest_as_no(hunter: Hunter) -> None:
    page, names = hunter.page, hunter.shown()
    assert not set(names) & set(hunter.given)
    hunter.answer(names[0])
    hunter.answer(names[1], "u")
    page.keyboard.press("z")
    # The focus is back on the slip, which has no answer again.
    expect(page.locator(f'.picture-card[data-name="{names[1]}"]')).to_be_focused()
    assert hunter.states() == {names[0]: hunter.given[names[0]]}
    del hunter.given[names[1]]
    for name in names[1:]:
        if hunter.truth[name] == hunter.rare:
            hunter.answer(name)
        else:
            page.keyboard.press("ArrowRight")
            hunter.given[name] = "no"
    page.locator(".picture-card").first.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Leave them for later")).to_be_focused()
    page.keyboard.press("ArrowLeft")
    expect(page.get_by_role("button", name="Count the rest as no")).to_be_focused()
    page.keyboard.press("Enter")


def take_the_submit_back_and_do_it_again(hunter: Hunter) -> None:
    page, third = hunter.page, hunter.shown()
    expect(page.get_by_label("The rest count as no")).to_be_checked()
    page.keyboard.press("z")
    hunter.expect_round(2)
    assert hunter.shown() != third
    page.keyboard.press("Shift+Z")
    hunter.expect_round(3)
    assert hunter.shown() == third


def reload_and_kill_in_mid_round(hunter: Hunter) -> None:
    page, server, names = hunter.page, hunter.server, hunter.shown()
    for name in names[:3]:
        hunter.answer(name)
    half = {name: hunter.given[name] for name in names[:3]}
    page.reload()
    assert (hunter.shown(), hunter.states()) == (names, half)

    server.kill()
    # What is answered while the server is away waits in the tab, and is saved when it is back.
    expect(page.locator(f'.picture-card[data-name="{names[3]}"]')).to_be_focused()
    page.keyboard.press("n")
    page.keyboard.press("u")
    expect(page.get_by_text("Not saved yet: trying again.")).to_be_visible()
    server.start()
    expect(page.get_by_text("Not saved yet: trying again.")).to_be_hidden(timeout=40_000)
    half |= {names[3]: "no", names[4]: "unsure"}
    hunter.given |= half

    page.goto(server.address)
    page.get_by_role("link", name="Sergeant", exact=True).first.click()  # the newest one
    assert (hunter.shown(), hunter.states()) == (names, half)
    for name in names[5:]:
        hunter.answer(name)
    page.keyboard.press("Enter")


def think_better_of_one_result(hunter: Hunter) -> None:
    page = hunter.page
    found = sum(answer == "yes" for answer in hunter.given.values())
    assert found >= 6, "the search finds more than luck would"
    expect(page.locator(".search-found strong")).to_have_text(str(found))
    page.locator(".search-found").click()
    cards = page.locator(".result-card")
    expect(cards).to_have_count(found)
    doubted = cards.first.get_attribute("data-name") or ""
    with page.expect_response(re.compile("/corrections$")):
        cards.first.get_by_role("button", name="Unsure").click()
    hunter.given[doubted] = "unsure"
    page.reload()
    expect(cards).to_have_count(found - 1)


def check_the_export(hunter: Hunter) -> None:
    """The file says what was answered, no more and no less; so does the command."""
    page = hunter.page
    with page.expect_download() as download:
        page.get_by_role("link", name="CSV").click()
    exported = download.value.path().read_text(encoding="utf-8")
    rows = list(csv.DictReader(io.StringIO(exported)))
    assert {Path(row["path"]).name: row["answer"] for row in rows} == hunter.given
    assert len(rows) == len(hunter.given)
    search_id = page.url.split("/searches/")[1].split("/")[0]
    by_command = hunter.server.run("export", search_id, "--format", "csv")
    assert by_command.splitlines() == exported.splitlines()
