"""Two people in one search at once, in two browsers."""

import re
import time
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, Response, expect

from tests.browser.conftest import open_page
from tests.browser.server import Server

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(400)]
PASSWORD = "four brown herons wade"


@pytest.fixture(scope="module")
def server(chromium, make_server, drawn_images) -> Server:
    """A server of its own: these tests add people."""
    return make_server(drawn_images)


@pytest.fixture
def other_page(chromium: Browser) -> Iterator[Page]:
    yield from open_page(chromium)


def let_in(server: Server, page: Page, other: Page, name: str) -> str:
    """Sign the first page in as the admin and the other as an ecologist, whose name is returned."""
    name = f"{name} {time.time_ns()}"  # a test may be run again
    server.sign_in(page)
    page.goto(f"{server.address}/people")
    page.get_by_label("Name", exact=True).fill(name)
    page.get_by_role("button", name="Add and make a link").click()
    other.goto(page.locator("#password-link").inner_text())
    other.locator("[name=password]").fill(PASSWORD)
    other.locator("[name=again]").fill(PASSWORD)
    other.get_by_role("button", name="Set password and sign in").click()
    expect(other.get_by_role("link", name="Reef", exact=True)).to_be_visible()
    return name


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
    expect(page.locator(".picture-card.current")).to_have_count(1)  # keys are heard now
    return page.url


def share(page: Page, search: str, name: str) -> None:
    page.goto(f"{search}/share")
    page.get_by_label("Invite").fill(name)
    page.get_by_role("button", name="Invite").click()
    expect(page.get_by_role("button", name=f"Take out {name}")).to_be_visible()


def is_last_answer(response: Response) -> bool:
    return "no:other-species" in (response.request.post_data or "")


def read_images(page: Page) -> list[str]:
    return [card.get_attribute("data-image") for card in page.locator(".picture-card").all()]


def test_two_people_answer_one_search_and_never_get_the_same_image(server, page, other_page):
    ada = let_in(server, page, other_page, "Ada")
    search = open_search(server, page)
    share(page, search, ada)
    page.goto(search)
    other_page.goto(search)
    expect(other_page.locator(".search-here")).to_contain_text("you, ")
    assert ada not in other_page.locator(".search-here").inner_text()
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
    for _ in range(20):  # the browser sends its leave on the side
        with page.expect_response(re.compile("/here$")) as reply:
            page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        if len(reply.value.json()["people"]) == 1:
            break
    expect(page.locator(".search-here [data-here]")).not_to_contain_text("Ada")


def test_blind_second_opinion_is_given_and_its_conflicts_are_settled(  # noqa: PLR0915 - a story
    server, page, other_page
):
    eve = let_in(server, page, other_page, "Eve")
    search = open_search(server, page)
    # Two keys say why it is a no; the chip on the image says it too, and changes it.
    page.keyboard.press("y")
    page.keyboard.press("2")
    for _ in range(10):
        page.keyboard.press("n")
    chips = page.locator(".reason-chip:visible")
    expect(chips.first).to_have_text("Too poor to tell")
    chips.nth(1).click()
    with page.expect_response(is_last_answer) as saved:  # the answers before it are saved before
        page.keyboard.press("1")
    assert saved.value.ok
    expect(chips.nth(1)).to_have_text("Other species")
    page.reload()
    expect(chips).to_have_count(11)
    expect(chips.nth(1)).to_have_text("Other species")
    before = page.locator("#grid").get_attribute("data-round")
    page.keyboard.press("End")
    page.keyboard.press("n")
    page.keyboard.press("Enter")
    expect(page.locator("#grid")).not_to_have_attribute("data-round", before)

    # The card: what counts, in words and by a picture.
    page.get_by_role("link", name="Write the target card").click()
    page.get_by_label("What counts as yes").fill("Stripes all over")
    page.get_by_role("button", name="Save").click()
    expect(page.locator(".counts-as-yes")).to_contain_text("Stripes all over")
    page.get_by_role("link", name="Change the card").click()
    page.get_by_role("button", name="Put on").first.click()
    expect(page.get_by_role("button", name="Take off")).to_have_count(1)

    # All answered images are asked of Eve, who sees none of the answers and not the search.
    page.goto(f"{search}/reviews")
    expect(page.get_by_role("heading", name="Worth a second answer")).to_be_visible()
    page.get_by_label("Whom").fill(eve)
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.get_by_text("0 of 13 answered")).to_be_visible()
    other_page.goto(search)
    expect(other_page.get_by_role("heading", name="Not found")).to_be_visible()
    other_page.goto(server.address)
    other_page.get_by_role("link", name="Begin").click()
    expect(other_page.get_by_text("Stripes all over")).to_be_visible()
    expect(other_page.locator(".gallery input:checked")).to_have_count(0)
    expect(other_page.locator(".picture-card.current")).to_have_count(1)  # keys are heard now
    for _ in range(11):
        other_page.keyboard.press("n")
    other_page.keyboard.press("u")
    other_page.keyboard.press("Enter")
    expect(other_page.get_by_text("12 of 13 answered")).to_be_visible()
    other_page.keyboard.press("n")
    other_page.keyboard.press("Enter")
    expect(other_page.get_by_text("You have answered all of them")).to_be_visible()

    # The two yes (the example, and the first image) are conflicts, unless Eve was unsure of one.
    page.reload()
    conflicts = int(re.search(r"(\d) conflict", page.locator(".review-row").inner_text())[1])
    assert conflicts in (1, 2)
    page.get_by_role("link", name="Settle").click()
    expect(page.locator(".gallery .picture-card")).to_have_count(conflicts)
    expect(page.locator("main")).not_to_contain_text("First")
    for _ in range(conflicts):
        page.keyboard.press("n")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Settled")).to_be_visible()
    expect(page.locator(".settled-row")).to_have_count(conflicts)
    expect(page.get_by_text("Gwet's AC1")).to_be_visible()
    page.goto(f"{search}/results?show=yes")
    expect(page.locator('[data-count="yes"]')).to_have_text(str(2 - conflicts))
