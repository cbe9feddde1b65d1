"""Two people in one search at once, in two browsers."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import open_page
from tests.browser.server import Server

pytestmark = pytest.mark.browser
PASSWORD = "four brown herons wade"


@pytest.fixture(scope="module")
def server(chromium, make_server, drawn_images) -> Server:
    """A server of its own: these tests add people."""
    return make_server(drawn_images)


@pytest.fixture
def other_page(chromium: Browser) -> Iterator[Page]:
    yield from open_page(chromium)


def let_in(server: Server, page: Page, other: Page, name: str) -> None:
    """Sign the first page in as the admin and the other as an ecologist."""
    server.sign_in(page)
    page.goto(f"{server.address}/people")
    page.get_by_label("Name", exact=True).fill(name)
    page.get_by_role("button", name="Add and make a link").click()
    other.goto(page.locator("#password-link").inner_text())
    other.locator("[name=password]").fill(PASSWORD)
    other.locator("[name=again]").fill(PASSWORD)
    other.get_by_role("button", name="Set password and sign in").click()
    expect(other.get_by_role("link", name="Reef", exact=True)).to_be_visible()


def open_search(server: Server, page: Page) -> str:
    page.goto(server.address)
    reef = page.get_by_role("link", name="Reef", exact=True).get_attribute("href")
    collection = server.address + re.match(r"/collections/\d+", reef)[0]
    page.goto(f"{collection}/browse")
    number = page.locator("[id^=image-]").first.get_attribute("id").removeprefix("image-")
    page.goto(f"{collection}/searches/new?image={number}")
    page.locator("[name=target_name]").fill("Striped")
    page.locator("form button.primary").first.click()
    page.wait_for_url(re.compile(r"/searches/\d+$"))
    return page.url


def share(page: Page, search: str, name: str) -> None:
    page.goto(f"{search}/share")
    page.get_by_label("Invite").fill(name)
    page.get_by_role("button", name="Invite").click()
    expect(page.get_by_role("button", name=f"Take out {name}")).to_be_visible()


def read_images(page: Page) -> list[str]:
    return [card.get_attribute("data-image") for card in page.locator(".picture-card").all()]


def test_two_people_answer_one_search_and_never_get_the_same_image(server, page, other_page):
    let_in(server, page, other_page, "Ada")
    search = open_search(server, page)
    share(page, search, "Ada")
    page.goto(search)
    other_page.goto(search)
    expect(other_page.locator(".search-here")).to_contain_text("Ada")
    seen = {page: read_images(page), other_page: read_images(other_page)}
    for _ in range(4):
        for one in (page, other_page):  # both have a grid answered and not submitted
            one.keyboard.press("y")
            for _ in range(11):
                one.keyboard.press("n")
        for one in (page, other_page):
            before = one.locator("#grid").get_attribute("data-round")
            one.keyboard.press("Enter")
            expect(one.locator("#grid")).not_to_have_attribute("data-round", before)
            seen[one] += read_images(one)
    mine, theirs = seen.values()
    assert len(mine) > 40
    assert len(theirs) > 40
    assert len(set(mine)) == len(mine)
    assert not set(mine) & set(theirs)
    expect(page.locator(".search-here [data-here]")).to_contain_text("Ada")
    # Undo is one's own: the other's grid and answers stay.
    other_round = other_page.locator("#grid").get_attribute("data-round")
    page.keyboard.press("z")
    expect(page.locator("[data-notice]")).to_contain_text("Took back the submit")
    other_page.reload()
    expect(other_page.locator("#grid")).to_have_attribute("data-round", other_round)
    # Who leaves is not there any more.
    other_page.goto(server.address)
    with page.expect_response(re.compile("/here$")) as reply:
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    assert len(reply.value.json()["people"]) == 1
    expect(page.locator(".search-here [data-here]")).not_to_contain_text("Ada")
