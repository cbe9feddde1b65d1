"""The grid and the results by keys, mouse and touch, in several tabs, with and without scripts."""

import re
import time

import pytest
from playwright.sync_api import Locator, Page, Route, expect

from tests.browser.conftest import CHROMIUM_ARGUMENTS, find_chromium
from tests.browser.server import Server

pytestmark = pytest.mark.browser

ANSWERS = re.compile("/answers$")
LAST_PART = "document.querySelector('.trail [aria-current]')"


def open_search(page: Page, server: Server, *, round_size: int = 12, name: str = "Sergeant") -> str:
    """A fresh search for the striped kind; the address of its grid, which the page shows."""
    server.sign_in(page)
    browse = f"{server.address}/collections/1/browse?page=2"
    found = re.findall(
        r'/collections/1/images/(\d+)"\s+title="striped/', page.request.get(browse).text()
    )
    reply = page.request.post(
        f"{server.address}/collections/1/searches",
        form={
            "target_name": name,
            "round_size": str(round_size),
            "strategy": "pf-ma",
            "image_ids": found[0],
        },
        headers={"Sec-Fetch-Site": "same-origin"},
    )
    page.goto(reply.url)
    expect(page.locator(".picture-card.current")).to_be_focused()
    return reply.url


def card(page: Page, place: int) -> Locator:
    return page.locator(".cards .picture-card").nth(place)


def wait_until(page: Page, expression: str) -> None:
    """Playwright's own wait looks anew from within the page, where our policy forbids `eval`."""
    deadline = time.monotonic() + 10
    while not page.evaluate(expression):
        assert time.monotonic() < deadline, expression
        page.wait_for_timeout(20)


def press(page: Page, *keys: str) -> None:
    """Press keys that answer, each saved before the next."""
    for key in keys:
        with page.expect_response(ANSWERS):
            page.keyboard.press(key)


def hold_answers(page: Page) -> list[Route]:
    """Answers that are on their way from now on, until they are let go."""
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    page.route("**/answers", hold)
    return held


def states(page: Page) -> str:
    """One letter for each image: y, n, u, or a dot."""
    expect(page.locator(".bar .next")).to_have_count(1)  # it comes after the last image
    return page.locator(".cards").evaluate(
        "cards => [...cards.children].map((card) =>"
        " card.querySelector('input:checked')?.value[0] ?? '.').join('')"
    )


def after_reload(page: Page) -> str:
    page.reload()
    return states(page)


def image_names(page: Page) -> list[str]:
    return page.locator(".cards .picture-card").evaluate_all(
        "all => all.map((c) => c.dataset.name)"
    )


def test_twelve_images_fit_the_window_and_nothing_jumps(page, drawn_server):
    open_search(page, drawn_server)
    page.wait_for_load_state("networkidle")

    def overflows() -> int:
        return page.evaluate(
            "Math.max(document.documentElement.scrollHeight - innerHeight,"
            " document.querySelector('.cards').scrollHeight"
            " - document.querySelector('.cards').clientHeight)"
        )

    assert overflows() <= 0
    narrowest = min(card(page, place).bounding_box()["width"] for place in range(12))
    assert narrowest > 220
    press(page, "y", "n", "u", "n")
    shifts = page.evaluate(
        """new Promise((resolve) => {
          const watch = new PerformanceObserver((list) => resolve(list.getEntries()));
          watch.observe({type: "layout-shift", buffered: true});
          setTimeout(() => resolve([]), 500);
        }).then((all) => all.map((one) => one.value))"""
    )
    assert sum(shifts) < 0.01
    page.keyboard.press("w")
    expect(card(page, 0).locator(".why")).to_be_visible()
    assert overflows() <= 0


def test_mouse_answers_with_one_click_and_takes_it_back_with_another(page, drawn_server):
    open_search(page, drawn_server)
    for place, word in enumerate(("Yes", "No", "Unsure")):
        with page.expect_response(ANSWERS):
            card(page, place).locator(f'label[title^="{word}"]').click()
    assert states(page) == "ynu........."
    with page.expect_response(ANSWERS):
        card(page, 1).locator('label[title^="No"]').click()
    with page.expect_response(ANSWERS):
        card(page, 2).locator('label[title^="Yes"]').click()
    expect(page.locator("[data-answered]")).to_have_text("2")
    assert after_reload(page) == "y.y........."


def test_double_click_on_an_answer_gives_it_once(page, drawn_server):
    address = open_search(page, drawn_server, round_size=6)
    with page.expect_response(ANSWERS):
        card(page, 0).locator("label.yes").dblclick()
    assert states(page) == "y....."
    page.wait_for_timeout(600)
    with page.expect_response(ANSWERS):
        card(page, 0).locator("label.yes").dblclick()  # takes it back, once
    assert after_reload(page) == "......"
    card(page, 1).locator("label.no").click()
    card(page, 1).locator("label.yes").click()  # another answer at once is one
    expect(page.locator("[data-answered]")).to_have_text("1")
    assert states(page) == ".y...."
    page.goto(address + "/results")
    doubted = page.locator(".result-card").first
    with page.expect_response(re.compile("/corrections$")):
        doubted.locator(".choose .unsure").dblclick()
    expect(doubted).to_have_attribute("data-answer", "unsure")
    page.reload()
    expect(page.locator('[data-count="unsure"]')).to_have_text("1")


def test_moving_does_not_answer_and_space_toggles(page, drawn_server):
    open_search(page, drawn_server)
    for key in ("ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp", "End", "ArrowRight"):
        page.keyboard.press(key)
    expect(card(page, 11)).to_be_focused()
    assert states(page) == "............"
    page.keyboard.press("Home")
    press(page, " ")
    assert states(page)[0] == "y"
    press(page, " ")
    expect(card(page, 0)).to_be_focused()
    assert after_reload(page) == "............"


def test_range_and_all_are_answered_as_one_step(page, drawn_server):
    open_search(page, drawn_server)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowDown")
    press(page, "u")
    assert states(page) == ".uuuuu......"
    card(page, 7).locator(".picture").click(modifiers=["Shift"])
    card(page, 9).locator(".picture").click(modifiers=["Shift"])
    press(page, "y")
    assert states(page) == ".uuuuuyyyy.."  # from the card that had the focus
    page.keyboard.press("Control+a")
    press(page, "n")
    assert states(page) == "nnnnnnnnnnnn"
    for before in (".uuuuuyyyy..", ".uuuuu......", "............"):
        page.keyboard.press("z")
        expect(page.locator("[data-answered]")).to_have_text(str(12 - before.count(".")))
        assert states(page) == before


def test_browser_keys_and_keys_elsewhere_are_left_alone(page, drawn_server):
    open_search(page, drawn_server)
    left_alone = page.locator(".picture-card.current").evaluate(
        """(card) => {
          const pressed = (target, key, more) => target.dispatchEvent(
            new KeyboardEvent("keydown", {key, bubbles: true, cancelable: true, ...more}));
          const link = document.querySelector(".rail-links a");
          const button = document.querySelector("[form=undo]");
          return {
            find: pressed(card, "f", {ctrlKey: true}),
            new: pressed(card, "n", {metaKey: true}),
            undo: pressed(card, "z", {ctrlKey: true}),
            back: pressed(card, "ArrowLeft", {altKey: true}),
            reload: pressed(card, "F5"),
            all: pressed(link, "a", {ctrlKey: true}),
            follow: pressed(link, "Enter"),
            press: pressed(button, " "),
          };
        }"""
    )
    assert set(left_alone.values()) == {True}, left_alone
    assert states(page) == "............"
    expect(page.locator("dialog[open]")).to_have_count(0)


@pytest.mark.parametrize(
    "names", [["Why shown"], ["Target and rounds"], ["Show the keys", "Close"], ["theme"]]
)
def test_keys_answer_after_a_button_was_pressed_with_the_mouse(page, drawn_server, names):
    open_search(page, drawn_server)
    for name in names:
        button = page.get_by_role("button", name=name)
        (page.locator("[data-theme-switch]") if name == "theme" else button).first.click()
    page.keyboard.press("n")
    expect(card(page, 1)).to_be_focused()
    assert states(page)[:2] == "n."


def test_keys_are_listed_behind_the_question_mark(page, drawn_server):
    open_search(page, drawn_server)
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    page.keyboard.press("y")  # behind the dialog nothing is answered
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog", name="Keys")).to_be_hidden()
    assert states(page) == "............"


def test_large_view_zooms_pans_lights_and_answers(page, drawn_server):
    open_search(page, drawn_server)
    card(page, 1).locator(".picture").click()
    large, zoom = page.locator("#large"), page.locator("[data-large-zoom]")
    expect(large).to_be_visible()
    expect(page.locator("#large-details")).to_contain_text("Among the images that fit best")
    nearest = page.locator("#large-details .nearest:not(.event-film)")
    expect(nearest.locator("img")).to_have_count(1)  # the example
    card_row, people_row = page.locator("#large-details .card-buttons").all()
    end = card_row.bounding_box()["y"] + card_row.bounding_box()["height"]
    assert people_row.bounding_box()["y"] >= end + 8

    whole = zoom.inner_text()
    page.keyboard.press("1")
    expect(zoom).to_have_text("100 %")
    page.keyboard.press("0")
    page.mouse.move(500, 400)
    page.mouse.wheel(0, -600)
    page.keyboard.press("+")
    closer = zoom.inner_text()
    assert int(closer.split()[0]) > 2 * int(whole.split()[0])
    picture = page.locator(".large-picture")
    before = picture.bounding_box()
    page.mouse.down()
    page.mouse.move(440, 360)
    page.mouse.up()
    after = picture.bounding_box()
    assert (after["x"] - before["x"], after["y"] - before["y"]) == pytest.approx((-60, -40), abs=1)
    page.keyboard.press("0")
    expect(zoom).to_have_text(whole)
    page.locator("[name=brightness]").fill("200")
    assert "brightness(200%)" in picture.evaluate("(one) => getComputedStyle(one).filter") or (
        picture.evaluate("(one) => one.style.filter").startswith("brightness(200%)")
    )

    page.locator(".large-stage").focus()
    press(page, "y")
    expect(page.locator("[data-large-place]")).to_have_text("3 of 12")
    page.keyboard.press("ArrowLeft")
    expect(page.get_by_role("button", name="Yes", exact=True)).to_have_attribute(
        "aria-pressed", "true"
    )
    page.keyboard.press("Escape")
    expect(card(page, 1)).to_be_focused()
    assert after_reload(page) == ".y.........."


def test_image_smaller_than_the_window_is_shown_pixel_for_pixel(page, phone, drawn_server):
    fine = {"width": 390, "height": 844, "deviceScaleFactor": 3, "mobile": True}
    phone.context.new_cdp_session(phone).send("Emulation.setDeviceMetricsOverride", fine)
    for one in (page, phone):
        open_search(one, drawn_server)
        shown = card(one, 1)
        size = {side: int(shown.get_attribute(f"data-{side}")) for side in ("width", "height")}
        one.keyboard.press("ArrowRight")
        one.keyboard.press("f")
        picture, zoom = one.locator(".large-picture"), one.locator("[data-large-zoom]")
        expect(one.locator("#large")).to_be_visible()
        whole, whole_box = zoom.inner_text(), picture.bounding_box()
        assert int(whole.split()[0]) > 100
        for pixels, fitted in (("1", "0"), ("1:1", "Whole")):
            if len(pixels) == 1:
                one.keyboard.press(pixels)
            else:
                one.get_by_role("button", name=pixels).click()
            expect(zoom).to_have_text("100 %")
            box = picture.bounding_box()
            fineness = one.evaluate("devicePixelRatio")  # its pixels are the screen's
            drawn = {side: fineness * box[side] for side in size}
            assert drawn == pytest.approx(size, abs=0.5 * fineness)
            stage = one.locator(".large-stage").bounding_box()
            middle = [
                part["x"] + part["width"] / 2 - part["y"] - part["height"] / 2
                for part in (box, stage)
            ]
            assert middle[0] == pytest.approx(middle[1], abs=1)
            one.keyboard.press("-")
            expect(zoom).to_have_text("100 %")  # nothing is shown smaller than it is
            if len(fitted) == 1:
                one.keyboard.press(fitted)
            else:
                one.get_by_role("button", name=fitted).click()
            expect(zoom).to_have_text(whole)
            assert picture.bounding_box() == pytest.approx(whole_box, abs=0.5)
    page.keyboard.press("1")
    page.set_viewport_size({"width": 700, "height": 700})
    expect(page.locator("[data-large-zoom]")).to_have_text("100 %")  # as it was asked for


def test_small_image_is_answered_by_a_swipe_at_any_zoom_that_shows_all_of_it(phone, drawn_server):
    page = phone
    open_search(page, drawn_server, round_size=6)
    page.keyboard.press("f")
    expect(page.locator("#large")).to_be_visible()
    page.keyboard.press("1")
    with page.expect_response(ANSWERS):
        touch(page, (100, 300), (180, 303), (260, 305))
    assert states(page) == "y....."


def latest(page: Page) -> list[str]:
    """The images beside the number found, the newest first."""
    return [
        re.sub(r"\D", "", source)
        for source in page.locator(".latest img").evaluate_all(
            "all => all.map((one) => one.getAttribute('src'))"
        )
    ]


def test_pictures_beside_the_number_found_change_with_it(page, drawn_server):
    open_search(page, drawn_server)
    [example] = latest(page)
    ids = [card(page, place).get_attribute("data-image") for place in range(12)]
    found = page.locator(".search-found strong")
    held = hold_answers(page)
    page.keyboard.press("y")  # nothing waits for the server
    expect(found).to_have_text("2")
    assert latest(page) == [ids[0], example]
    with page.expect_response(ANSWERS):
        held[0].continue_()
    page.unroute("**/answers")
    press(page, "n", "y")
    assert latest(page) == [ids[2], ids[0], example]
    card(page, 0).focus()
    press(page, "n")
    expect(found).to_have_text("2")
    assert latest(page) == [ids[2], example]
    for place in (0, 2):  # another answer, and the same again: it is the newest
        for key in "uy":
            card(page, place).focus()
            press(page, key)
    assert latest(page) == [ids[2], ids[0], example]
    page.reload()
    assert latest(page) == [ids[2], ids[0], example]

    page.keyboard.press("Control+a")
    press(page, "y")
    expect(found).to_have_text("13")
    drawn = latest(page)
    assert len(drawn) == 8
    page.reload()
    assert latest(page) == drawn
    card(page, 0).focus()
    press(page, "n")
    page.keyboard.press("z")
    expect(found).to_have_text("13")
    wait_until(page, "document.querySelectorAll('.latest img').length === 8")
    page.keyboard.press("Control+a")
    press(page, "n")
    expect(found).to_have_text("1")
    # The server drew the newest eight alone: older ones come with the next grid.
    assert set(latest(page)) <= {example}
    assert after_reload(page) == "nnnnnnnnnnnn"
    assert latest(page) == [example]


def test_back_closes_the_large_view_and_not_the_grid(page, drawn_server):
    address = open_search(page, drawn_server)
    large = page.locator("#large")
    before = page.evaluate("history.length")
    for close in (page.go_back, lambda: page.keyboard.press("Escape"), page.go_back):
        card(page, 3).locator(".picture").click()
        expect(large).to_be_visible()
        page.keyboard.press("ArrowRight")
        close()
        expect(large).to_be_hidden()
        expect(card(page, 4)).to_be_focused()
        wait_until(page, "!history.state?.over")
        assert page.url == address
    assert page.evaluate("history.length") == before + 1  # Forward alone is left, and does nothing
    page.go_forward()
    wait_until(page, "!history.state?.over")
    expect(large).to_be_hidden()

    for _ in range(5):  # quicker than the browser goes back
        page.keyboard.press("f")
    expect(large).to_be_visible()
    wait_until(page, "history.state?.over === 1")
    press(page, "y")
    expect(large).to_be_visible()
    page.reload()
    wait_until(page, "!history.state?.over")
    assert states(page) == "....y......."
    expect(page.locator(".picture-card.current")).to_be_focused()
    page.keyboard.press("f")
    expect(large).to_be_visible()
    page.go_back()
    expect(large).to_be_hidden()
    page.goto(address + "/history")
    page.go_back()
    expect(page.locator(".picture-card.current")).to_be_focused()  # one step back, not two
    assert page.url == address


def test_back_closes_the_large_view_on_a_phone_and_scrolls_nothing(phone, drawn_server):
    page = phone
    open_search(page, drawn_server)
    page.keyboard.press("f")
    expect(page.locator("#large")).to_be_visible()
    for _ in range(9):
        page.keyboard.press("ArrowRight")
    page.go_back()
    expect(card(page, 9)).to_be_focused()
    wait_until(page, "!history.state?.over")
    page.wait_for_timeout(300)
    expect(card(page, 9)).to_be_in_viewport(ratio=0.5)


PICTURES_COVERED = """
    [...document.querySelectorAll('.picture-card')].filter((card) => {
      const picture = card.querySelector('.picture').getBoundingClientRect();
      const border = parseFloat(getComputedStyle(card, '::after').borderTopWidth);
      const frame = card.getBoundingClientRect();
      const over = [...card.querySelectorAll('.tick, .event-tools, .badge')]
        .filter((one) => getComputedStyle(one).visibility === 'visible' && one.offsetWidth)
        .map((one) => one.getBoundingClientRect());
      return getComputedStyle(card.querySelector('.picture img')).objectFit !== 'contain'
        || picture.top < frame.top + border
        || picture.left < frame.left + border
        || picture.right > frame.right - border
        || over.some((one) => one.left < picture.right && one.right > picture.left
          && one.top < picture.bottom && one.bottom > picture.top);
    }).length
"""


@pytest.mark.parametrize("width", [1280, 390])
def test_pictures_are_whole_and_nothing_lies_over_them(page, drawn_server, width):
    page.set_viewport_size({"width": width, "height": 800})
    address = open_search(page, drawn_server)
    assert page.evaluate(PICTURES_COVERED) == 0
    press(page, "y", "y", "n")
    fit = "getComputedStyle(document.querySelector('.latest img')).objectFit"
    assert page.evaluate(fit) == "contain"
    page.goto(address + "/results")
    expect(page.locator(".result-card")).to_have_count(3)
    assert page.evaluate(PICTURES_COVERED) == 0
    with page.expect_response(re.compile("/corrections$")):
        page.locator(".result-card").first.get_by_role("button", name="No", exact=True).click()
    expect(page.locator(".result-card .badge.no").first).to_be_visible()  # changed here


def test_last_answer_in_the_large_view_leads_on(page, drawn_server):
    open_search(page, drawn_server, round_size=6)
    page.keyboard.press("End")
    page.keyboard.press("f")
    press(page, "n")
    expect(page.locator("#large")).to_be_hidden()
    expect(page.get_by_role("button", name="Next images")).to_be_focused()


def test_double_click_submits_once(page, drawn_server):
    address = open_search(page, drawn_server)
    press(page, "y")
    page.get_by_label("The rest count as no").check()
    page.get_by_role("button", name="Next images").dblclick()
    expect(page.locator(".search-round")).to_have_text("Round 2")
    page.goto(address)
    expect(page.locator(".search-round")).to_have_text("Round 2")


def test_two_tabs_lose_nothing(page, drawn_server):
    address = open_search(page, drawn_server)
    other = page.context.new_page()
    other.goto(address)
    press(page, "y")
    other.keyboard.press("ArrowRight")
    press(other, "n")
    other.get_by_label("The rest count as no").check()
    other.get_by_role("button", name="Next images").click()
    expect(other.locator(".search-round")).to_have_text("Round 2")

    # The first tab still shows round 1; its answer is kept, and it moves on.
    page.keyboard.press("ArrowRight")
    press(page, "u")
    expect(page.locator(".search-round")).to_have_text("Round 2")
    expect(page.locator("[data-notice]")).to_contain_text("submitted already")
    assert image_names(page) == image_names(other)
    page.goto(address + "/results?show=unsure")
    expect(page.locator(".result-card")).to_have_count(1)
    expect(page.locator('[data-count="yes"]')).to_have_text("2")  # with the example
    expect(page.locator('[data-count="no"]')).to_have_text("10")


def come_back_to(page: Page) -> None:
    """As when the person turns to this tab again; a browser without a window never does so."""
    page.evaluate("dispatchEvent(new Event('blur')); dispatchEvent(new Event('focus'))")


def test_tab_that_one_comes_back_to_shows_what_another_did(page, drawn_server):
    address = open_search(page, drawn_server, round_size=6)
    other = page.context.new_page()
    other.goto(address)
    page.keyboard.press("ArrowRight")
    page.get_by_label("The rest count as no").check()
    card(page, 1).focus()
    press(other, "y", "2")
    found = other.locator(".search-found strong").inner_text()
    come_back_to(page)
    expect(page.locator("[data-answered]")).to_have_text("2")
    assert states(page) == "yn...."
    expect(page.locator(".search-found strong")).to_have_text(found)
    expect(card(page, 1).locator(".reason-chip")).to_have_text("Too poor to tell")
    expect(card(page, 1)).to_be_focused()
    expect(page.get_by_label("The rest count as no")).to_be_checked()
    expect(page.locator("[form=undo]").first).to_be_enabled()
    press(page, "n")  # nothing that was shown is sent as one's own
    other.keyboard.press("End")
    press(other, "y")
    other.get_by_label("The rest count as no").check()
    other.get_by_role("button", name="Next images").click()
    expect(other.locator(".search-round")).to_have_text("Round 2")
    come_back_to(page)
    expect(page.locator(".search-round")).to_have_text("Round 2")
    assert image_names(page) == image_names(other)
    expect(card(page, 0)).to_be_focused()


def test_tab_with_answers_of_its_own_is_left_alone(page, drawn_server):
    address = open_search(page, drawn_server, round_size=6)
    other = page.context.new_page()
    other.goto(address)
    press(other, "n")
    page.route("**/answers", lambda route: route.abort())
    page.keyboard.press("y")
    expect(page.locator("#unsaved")).to_be_visible()
    come_back_to(page)
    page.wait_for_timeout(500)
    assert states(page) == "y....."
    page.unroute("**/answers")
    expect(page.locator("#unsaved")).to_be_hidden()
    come_back_to(other)
    expect(card(other, 0).locator("input:checked")).to_have_value("yes")  # the newest


def test_submit_does_not_bring_back_an_answer_that_another_tab_changed(page, drawn_server):
    address = open_search(page, drawn_server, round_size=6)
    other = page.context.new_page()
    other.goto(address)
    press(page, "y", "u")
    press(other, "n")  # newer, on the same image
    page.get_by_label("The rest count as no").check()
    page.get_by_role("button", name="Next images").click()
    expect(page.locator(".search-round")).to_have_text("Round 2")
    page.keyboard.press("z")
    expect(page.locator(".search-round")).to_have_text("Round 1")
    assert states(page) == "nu...."


def test_back_button_shows_the_grid_as_it_is_now(page, drawn_server):
    address = open_search(page, drawn_server)
    page.locator(".search-found").click()
    other = page.context.new_page()
    other.goto(address)
    press(other, "y")
    page.go_back()
    expect(page.locator("[data-answered]")).to_have_text("1")
    assert states(page)[0] == "y"


def open_search_by_form(page: Page, server: Server) -> str:
    """As `open_search`, by the form, so that it stands in the history before the grid."""
    server.sign_in(page)
    page.goto(f"{server.address}/collections/1/browse?page=2")
    page.goto(f"{server.address}/collections/1/searches/new?image=61")
    page.get_by_label("What are you looking for?").fill("Sergeant")
    page.get_by_label("Images per round").fill("6")
    page.get_by_role("button", name="Start the search").click()
    expect(page.locator(".picture-card.current")).to_be_focused()
    return page.url


def go_on_two_rounds(page: Page) -> None:
    for number in (2, 3):
        for key in "ynnnnn":
            page.keyboard.press(key)
        page.keyboard.press("Enter")
        expect(page.locator(".search-round")).to_have_text(f"Round {number}")


def test_back_from_the_rounds_leads_to_the_form_as_it_was_sent_and_on_to_the_search(
    page, drawn_server
):
    address = open_search_by_form(page, drawn_server)
    go_on_two_rounds(page)
    page.go_back()
    expect(page.get_by_text("You opened “Sergeant” with this form")).to_be_visible()
    expect(page.get_by_label("What are you looking for?")).to_have_value("Sergeant")
    expect(page.get_by_label("Images per round")).to_have_value("6")
    expect(page.get_by_role("button", name="Start the search")).to_have_count(0)
    page.go_forward()
    expect(page.locator(".search-round")).to_have_text("Round 3")
    page.go_back()
    page.get_by_role("link", name="Go on with that search").click()
    expect(page.locator(".search-round")).to_have_text("Round 3")
    assert page.url == address
    # Changed, the form opens another search, and Back from that one leads to that one.
    page.go_back()
    page.get_by_label("What are you looking for?").fill("Wrasse")
    page.get_by_role("button", name="Start another search").click()
    expect(page.locator(".search-round")).to_have_text("Round 1")
    assert page.url != address
    page.go_back()
    expect(page.get_by_text("You opened “Wrasse” with this form")).to_be_visible()
    page.go_back()
    assert page.url.endswith("/browse?page=2")


def test_back_to_a_form_that_the_browser_kept_tells_of_its_search_too(chromium, drawn_server):
    keeping = chromium.browser_type.launch(
        executable_path=find_chromium(),
        args=CHROMIUM_ARGUMENTS,
        ignore_default_args=["--disable-back-forward-cache"],
    )
    page = keeping.new_page()
    open_search_by_form(page, drawn_server)
    page.evaluate("history.back()")  # Playwright's own waits for a load that may not come
    expect(page.get_by_text("You opened “Sergeant” with this form")).to_be_visible()
    keeping.close()


def test_answers_not_saved_yet_outlive_a_reload(page, drawn_server):
    open_search(page, drawn_server)
    page.route("**/answers", lambda route: route.abort())
    page.keyboard.press("y")
    page.keyboard.press("n")
    expect(page.locator("#unsaved")).to_contain_text("Not saved yet: trying again.")
    page.on("dialog", lambda dialog: dialog.accept())  # "leave this page?"
    page.unroute("**/answers")
    page.reload()
    assert states(page) == "yn.........."
    expect(page.locator("#unsaved")).to_be_hidden()
    page.wait_for_load_state("networkidle")
    assert after_reload(page) == "yn.........."
    assert page.evaluate("Object.keys(sessionStorage).join()").count("unsaved") == 0


def test_answer_that_is_refused_takes_no_other_with_it(page, drawn_server):
    open_search(page, drawn_server)
    page.route("**/answers", lambda route: route.abort())
    for key in "ynu":
        page.keyboard.press(key)
    first, last = (f'"{card(page, place).get_attribute("data-image")}"' for place in (0, 2))

    def refuse_first(route):
        if first in route.request.post_data:
            route.fulfill(status=422, json={"detail": "That can't be."})
        else:
            route.continue_()

    with page.expect_response(lambda reply: last in (reply.request.post_data or "")):
        page.unroute("**/answers")
        page.route("**/answers", refuse_first)
    assert after_reload(page) == ".nu........."


def test_submit_saves_what_is_still_on_its_way(page, drawn_server):
    open_search(page, drawn_server, round_size=6)
    page.route("**/answers", lambda route: route.abort())
    for key in "ynnnnn":
        page.keyboard.press(key)
    expect(page.locator("#unsaved")).to_be_visible()
    page.keyboard.press("Enter")
    expect(page.locator(".search-round")).to_have_text("Round 2")
    expect(page.locator(".search-found strong")).to_have_text("2")
    expect(page.locator("#unsaved")).to_be_hidden()
    assert page.evaluate("Object.keys(sessionStorage).join()").count("unsaved") == 0
    page.unroute("**/answers")
    press(page, "n")  # at once, not after the pause for those before
    page.keyboard.press("z")
    page.keyboard.press("z")
    expect(page.locator(".search-round")).to_have_text("Round 1")
    assert states(page) == "ynnnnn"


def test_answer_that_comes_after_its_grid_was_submitted_changes_nothing(page, drawn_server):
    open_search(page, drawn_server, round_size=6)
    held = hold_answers(page)
    for key in "ynnnnn":
        page.keyboard.press(key)
    page.keyboard.press("Enter")
    expect(page.locator(".search-round")).to_have_text("Round 2")
    assert len(held) == 1  # answers go one by one
    with page.expect_response(ANSWERS) as late:
        held[0].continue_()
    page.unroute("**/answers")
    assert late.value.json()["stale"]
    press(page, "n")
    expect(page.locator(".search-round")).to_have_text("Round 2")
    expect(page.locator("[data-notice]")).to_have_count(0)
    assert states(page) == "n....."
    expect(page.locator(".search-found strong")).to_have_text("2")
    page.get_by_role("link", name="History").click()
    expect(page.locator("main")).not_to_contain_text("orrected")


def test_submit_waits_for_an_answer_that_was_changed_since(page, drawn_server):
    open_search(page, drawn_server, round_size=6)
    held = hold_answers(page)
    for key in ("y", "ArrowLeft", "n", "n", "n", "n", "n", "n"):
        page.keyboard.press(key)
    page.keyboard.press("Enter")
    page.wait_for_timeout(500)
    expect(page.locator(".search-round")).to_have_text("Round 1")
    held[0].continue_()
    page.unroute("**/answers")  # lets the others go
    expect(page.locator(".search-round")).to_have_text("Round 2")
    expect(page.locator(".search-found strong")).to_have_text("1")


def test_choice_about_the_rest_is_remembered(page, drawn_server):
    open_search(page, drawn_server)
    press(page, "y")
    page.keyboard.press("Enter")
    expect(page.locator(".ask-rest p")).to_have_text("11 of 12 not answered")
    page.keyboard.press("Escape")
    expect(card(page, 1)).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")  # leaves them for later
    expect(page.locator(".search-round")).to_have_text("Round 2")
    press(page, "n")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Count the rest as no").click()
    expect(page.locator(".search-round")).to_have_text("Round 3")
    submit = page.get_by_role("button", name="Next images")
    expect(submit).to_have_text("Next images, 12 as no")
    press(page, "n")
    expect(submit).to_have_text("Next images, 11 as no")
    page.keyboard.press("Enter")  # not asked again
    expect(page.locator(".search-round")).to_have_text("Round 4")
    press(page, "n")
    page.get_by_label("The rest count as no").click()  # the keys go on at the images
    expect(card(page, 1)).to_be_focused()
    expect(submit).to_have_text("Next images")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Leave them for later")).to_be_focused()


def test_rest_as_no_is_not_asked_again_and_a_double_press_answers_one_grid(page, drawn_server):
    address = open_search(page, drawn_server)
    press(page, "n")
    page.get_by_label("The rest count as no").click()
    page.keyboard.press("Enter")
    expect(page.locator(".search-round")).to_have_text("Round 2")
    page.keyboard.press("Enter")  # the second half of a double press
    expect(page.locator(".ask-rest")).to_be_hidden()
    page.wait_for_timeout(600)
    expect(page.get_by_role("button", name="Next images")).to_have_text("Next images, 12 as no")
    page.get_by_role("button", name="Next images").dblclick()
    expect(page.locator(".search-round")).to_have_text("Round 3")
    expect(page.locator(".ask-rest")).to_be_hidden()
    page.wait_for_timeout(600)
    expect(page.get_by_label("The rest count as no")).to_be_checked()
    page.goto(address)
    expect(page.locator(".search-round")).to_have_text("Round 3")
    expect(page.locator(".search-found strong")).to_have_text("1")
    page.keyboard.press("z")  # whoever did not mean it
    expect(page.locator(".search-round")).to_have_text("Round 2")
    assert states(page) == "............"


def test_held_down_enter_submits_once(page, drawn_server):
    open_search(page, drawn_server)
    page.get_by_label("The rest count as no").check()
    page.locator(".bar .next").focus()
    for _ in range(12):  # as a key that stays down repeats
        page.keyboard.down("Enter")
        page.wait_for_timeout(100)
    page.keyboard.up("Enter")
    expect(page.locator(".search-round")).to_have_text("Round 2")


def test_double_click_opens_the_question_and_leaves_it_open(page, drawn_server):
    open_search(page, drawn_server)
    page.locator(".bar .next").dblclick()
    expect(page.locator(".ask-rest p")).to_have_text("12 of 12 not answered")
    page.wait_for_timeout(600)
    expect(page.locator(".ask-rest")).to_be_visible()
    expect(page.locator(".search-round")).to_have_text("Round 1")
    page.get_by_role("button", name="Count the rest as no").dblclick()
    expect(page.locator(".search-round")).to_have_text("Round 2")
    page.wait_for_timeout(600)
    expect(page.locator(".search-round")).to_have_text("Round 2")
    expect(page.get_by_label("The rest count as no")).to_be_checked()


def test_next_images_are_fetched_before_they_are_asked_for(page, drawn_server):
    asked: set[str] = set()
    open_search(page, drawn_server, round_size=6)
    page.on("request", lambda request: asked.add(request.url))
    with page.expect_response(re.compile("/upcoming$"), timeout=20_000):
        press(page, "y", "n", "n", "n", "n", "n")
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(1_500)  # the last answer asks once more when nothing else goes on
    early = set(asked)
    page.keyboard.press("Enter")
    expect(page.locator(".search-round")).to_have_text("Round 2")
    shown = page.locator(".cards img").evaluate_all("all => all.map((image) => image.src)")
    assert set(shown) <= early


def test_picture_that_was_not_to_be_had_is_asked_for_again(page, drawn_server):
    refused: list[str] = []

    def refuse_once(route):
        if route.request.url in refused:
            route.continue_()
        else:
            refused.append(route.request.url)
            route.fulfill(status=503, headers={"Retry-After": "5"})

    page.route("**/images/*/small", refuse_once)
    open_search(page, drawn_server, round_size=6)
    for picture in page.locator(".cards img").all():
        expect(picture).not_to_have_js_property("naturalWidth", 0, timeout=15_000)
        assert picture.evaluate("one => one.src") in refused


def test_new_grid_is_announced(page, drawn_server):
    open_search(page, drawn_server, round_size=6)
    press(page, "y", "y", "n", "n", "n", "n")
    page.keyboard.press("Enter")
    expect(page.locator("#announce")).to_have_text("Round 2: 6 images, 2 found last round.")
    expect(page.locator(".strip g")).to_have_count(1)


def test_panel_and_reasons_are_remembered(page, drawn_server):
    open_search(page, drawn_server)
    page.keyboard.press("w")
    expect(card(page, 0).locator(".why")).to_have_text("As you asked")
    page.get_by_role("button", name="Target and rounds").click()
    expect(page.locator("#rail")).to_be_hidden()
    page.reload()
    expect(card(page, 0).locator(".why")).to_be_visible()
    expect(page.locator("#rail")).to_be_hidden()


def test_answers_are_equally_wide_and_high_enough_for_thumbs(page, phone, drawn_server):
    for one, least in ((page, 24), (phone, 44)):
        open_search(one, drawn_server)
        labels = card(one, 1).locator(".choose label:not(.none)").all()
        boxes = [label.bounding_box() for label in labels]
        assert len({round(box["width"]) for box in boxes}) == 1
        assert min(box["height"] for box in boxes) >= least
    page.set_viewport_size({"width": 390, "height": 800})
    assert card(page, 1).locator("label.yes").bounding_box()["height"] >= 44


def test_rows_are_whole_on_a_phone(phone, drawn_server):
    address = open_search(phone, drawn_server, name="Sergeant in its first round")
    for page in ("results", "history", "dashboard"):
        phone.goto(f"{address}/{page}")
        room = phone.locator(".page-head > .actions").bounding_box()
        last = phone.locator(".page-head > .actions > .button").last.bounding_box()
        assert last["x"] + last["width"] == pytest.approx(room["x"] + room["width"], abs=1)
    phone.goto(f"{drawn_server.address}/collections/1")
    row = phone.locator(".rows .row", has_text="first round is still open").first
    texts = (row.locator(".stretched"), row.get_by_text("the first round is still open"))
    for text in texts:  # each on one line
        assert text.evaluate("one => one.getClientRects().length") == 1
        assert text.bounding_box()["height"] < 30


def test_long_path_keeps_its_end_in_the_large_view(page, drawn_server):
    open_search(page, drawn_server)
    path = "survey of the northern fells in the year 2025/" * 5 + "cam2/IMG_0001.JPG"
    card(page, 0).evaluate("(one, path) => { one.dataset.name = path; }", path)
    page.keyboard.press("f")
    line = page.locator("#large .file-line")
    expect(line).to_have_attribute("title", path)
    expect(line).to_have_text(path)
    shown = line.bounding_box()
    name = page.locator("[data-large-name]").bounding_box()
    assert name["x"] >= shown["x"]
    assert name["x"] + name["width"] == pytest.approx(shown["x"] + shown["width"], abs=2)
    expect(page.locator("[data-large-place]")).to_be_in_viewport()


def test_where_one_is_can_be_read_on_a_phone(phone, drawn_server):
    name = "Juvenile sergeant major damselfish near the northern reef edge, at dusk"
    address = open_search(phone, drawn_server, name=name)
    search_id = address.rpartition("/")[2]
    image = f"{drawn_server.address}/collections/1/images/9"
    pages = [f"{address}/{page}" for page in ("share", "exports", "dashboard", "images/9")]
    for page in [*pages, image, f"{image}?search={search_id}"]:
        phone.goto(page)
        check_trail(phone)
        phone.evaluate(f"{LAST_PART}.textContent = 'station-12_'.repeat(8) + 'final.JPG'")
        check_trail(phone)


def check_trail(phone: Page) -> None:
    """The last part is whole and in the bar, the links before it can be hit, nothing sticks out."""
    shown = phone.evaluate(f"{LAST_PART}.getBoundingClientRect().toJSON()")
    bar = phone.evaluate("document.querySelector('.top').getBoundingClientRect().toJSON()")
    assert bar["left"] < shown["left"] and shown["right"] <= bar["right"], phone.url
    assert bar["top"] < shown["top"] and shown["bottom"] < bar["bottom"], phone.url
    assert phone.evaluate(f"{LAST_PART}.scrollWidth <= {LAST_PART}.clientWidth"), phone.url
    assert phone.evaluate("document.documentElement.scrollWidth") == 390, phone.url
    for link in phone.locator(".trail a:not(:first-child)").all():
        assert link.bounding_box()["width"] > 25, phone.url


def touch(page: Page, *points: tuple[float, float], hold_ms: int = 0) -> None:
    """A finger put down on the first point, moved over the others, and lifted."""
    finger = page.context.new_cdp_session(page)
    for place, (x, y) in enumerate(points):
        kind = "touchMove" if place else "touchStart"
        finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y}]})
    page.wait_for_timeout(hold_ms)
    finger.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


def test_touch_taps_presses_and_swipes(phone, drawn_server):
    page = phone
    open_search(page, drawn_server, round_size=6)
    for after in "ynu.y":
        with page.expect_response(ANSWERS):
            card(page, 0).locator(".picture").tap()
        assert states(page)[0] == after

    box = card(page, 1).bounding_box()
    touch(page, (box["x"] + 60, box["y"] + 60), hold_ms=700)
    expect(page.locator("#large")).to_be_visible()
    expect(page.locator("[data-large-place]")).to_have_text("2 of 6")
    for path in ([(100, 300), (180, 303), (260, 305)], [(260, 300), (180, 300), (90, 300)]):
        with page.expect_response(ANSWERS):
            touch(page, *path)
    with page.expect_response(ANSWERS):
        touch(page, (200, 500), (202, 440), (204, 380))
    page.get_by_role("button", name="Back", exact=True).tap()
    assert states(page) == "yynu.."


def test_everything_works_without_scripts(page_without_scripts, drawn_server):
    page = page_without_scripts
    drawn_server.sign_in(page)
    page.goto(drawn_server.address + "/collections/1/browse?page=2")
    page.goto(
        drawn_server.address
        + page.locator('.tiles a[title^="striped"]').first.get_attribute("href")
    )
    page.get_by_role("link", name="Start a search with this").click()
    page.get_by_label("What are you looking for?").fill("Sergeant by hand")
    page.get_by_label("Images per round").fill("6")
    page.get_by_role("button", name="Start the search").click()

    first = image_names(page)
    card(page, 0).get_by_role("radio", name="Yes").check(force=True)
    card(page, 1).get_by_role("radio", name="Unsure").check(force=True)
    page.get_by_label("The rest count as no").check()
    page.get_by_role("button", name="Next images").click()
    expect(page.locator(".search-round")).to_have_text("Round 2")
    page.get_by_role("button", name="Undo").click()
    expect(page.locator(".search-round")).to_have_text("Round 1")
    assert image_names(page) == first
    page.get_by_role("button", name="Redo").click()
    expect(page.locator(".search-round")).to_have_text("Round 2")

    card(page, 2).locator(".picture").click()
    page.get_by_role("button", name="No", exact=True).click()
    page.get_by_role("link", name="Back to the grid").click()
    assert states(page) == "..n..."

    page.locator(".search-found").click()
    expect(page.locator(".result-card")).to_have_count(2)
    page.locator(".result-card .tick input").first.check()
    page.locator(".picked-bar").get_by_role("button", name="No", exact=True).click()
    expect(page.locator(".result-card")).to_have_count(1)
    page.get_by_role("button", name="Undo").first.click()
    expect(page.locator(".result-card")).to_have_count(2)


def test_results_change_by_keys_one_and_many(page, drawn_server):
    address = open_search(page, drawn_server, round_size=6)
    page.keyboard.press("Control+a")
    press(page, "y")
    page.goto(address + "/results")
    cards = page.locator(".result-card")
    expect(cards).to_have_count(7)
    corrections = re.compile("/corrections$")
    cards.first.focus()
    with page.expect_response(corrections):
        page.keyboard.press("n")
    expect(cards.nth(1)).to_be_focused()
    expect(page.locator('[data-count="yes"]')).to_have_text("6")
    expect(page.locator('[data-count="no"]')).to_have_text("1")
    # It stays in sight, and says that it is counted elsewhere by now.
    expect(cards.first).to_have_class(re.compile("left-list"))
    expect(cards.first.get_by_text("No longer in this list")).to_be_visible()
    expect(cards.nth(1).get_by_text("No longer in this list")).to_be_hidden()

    page.keyboard.press(" ")
    cards.nth(4).locator(".tick input").click(modifiers=["Shift"])
    expect(page.locator("[data-picked]")).to_have_text("4")
    with page.expect_response(corrections):
        page.locator(".picked-bar").get_by_role("button", name="Unsure").click()
    expect(page.locator("#changed")).to_contain_text("4 images are now: unsure.")
    page.reload()
    expect(page.locator('[data-count="yes"]')).to_have_text("2")
    expect(page.locator('[data-count="unsure"]')).to_have_text("4")
    page.keyboard.press("z")
    expect(page.locator('[data-count="yes"]')).to_have_text("6")


def test_images_are_tagged_by_keys_and_many_at_once(page, drawn_server):
    """And letters typed into a tag answer nothing."""
    address = open_search(page, drawn_server, round_size=6)
    remarks = re.compile("/remarks$")
    page.keyboard.press("t")
    field = page.locator('#large-details [data-remark="tag"]')
    expect(field).to_be_focused()
    page.keyboard.type("yny")
    with page.expect_response(remarks):
        page.keyboard.press("Enter")
    expect(page.locator("#large-details .chip.removable").first).to_contain_text("yny")
    expect(field).to_be_focused()
    page.keyboard.press("Escape")
    page.keyboard.press("c")
    expect(page.locator("#large-details textarea:focus")).to_have_count(1)
    page.keyboard.type("Two of them")
    with page.expect_response(remarks):
        page.get_by_role("button", name="Keep the note").click()
    expect(page.locator("#large-details .remark-text")).to_have_text("Two of them")
    page.keyboard.press("Escape")
    expect(page.locator("#large")).not_to_have_attribute("open", "")
    assert states(page) == "......"

    page.keyboard.press("Control+a")
    press(page, "y")
    page.goto(address + "/results")
    cards = page.locator(".result-card")
    expect(cards).to_have_count(7)
    expect(page.locator(".result-tags .chip")).to_have_text(["yny"])
    cards.nth(0).locator(".tick input").check()
    cards.nth(6).locator(".tick input").click(modifiers=["Shift"])
    page.locator("#picked-tag").fill("striped, yny")
    page.keyboard.press("Enter")
    expect(page.locator("#tagged")).to_contain_text("Tagged 7 images: “striped”, “yny”.")
    expect(page.locator(".result-tags .chip")).to_have_count(14)
    expect(page.locator('[data-count="yes"]')).to_have_text("7")
    page.locator("#tagged").get_by_role("button", name="Undo").click()
    expect(page.locator(".result-tags .chip")).to_have_text(["yny"])  # was there before
    page.reload()
    expect(page.locator(".result-tags .chip")).to_have_text(["yny"])


def test_undo_in_the_results_waits_for_the_answer_it_takes_back(page, drawn_server):
    address = open_search(page, drawn_server, round_size=6)
    press(page, "y")
    page.goto(address + "/results")
    page.route("**/corrections", lambda route: route.abort())
    page.locator(".result-card").first.focus()
    page.keyboard.press("n")
    page.keyboard.press("z")
    expect(page.locator("#unsaved")).to_contain_text("Not saved yet")
    page.unroute("**/corrections")
    expect(page).to_have_url(re.compile("after=undo"))
    expect(page.locator('[data-count="yes"]')).to_have_text("2")
    expect(page.locator('[data-count="no"]')).to_have_text("0")


def test_result_that_is_refused_shows_its_saved_answer_again(page, drawn_server):
    address = open_search(page, drawn_server, round_size=6)
    press(page, "y")
    page.goto(address + "/results")
    cards = page.locator(".result-card")
    yes, no = (page.locator(f'[data-count="{value}"]') for value in ("yes", "no"))
    expect(yes).to_have_text("2")
    page.route(
        "**/corrections", lambda route: route.fulfill(status=422, json={"detail": "That can't be."})
    )
    cards.first.focus()
    page.keyboard.press("n")
    expect(page.locator("#unsaved")).to_have_text("That can't be. Nothing was changed.")
    expect(cards.first).to_have_attribute("data-answer", "yes")
    expect(cards.first.get_by_text("No longer in this list")).to_be_hidden()
    expect(cards.first.locator('[aria-pressed="true"]')).to_have_attribute(
        "value", re.compile("yes")
    )
    expect(yes).to_have_text("2")
    expect(no).to_have_text("0")


def test_empty_galleries_say_what_to_do(page, drawn_server):
    address = open_search(page, drawn_server)
    page.goto(address + "/results?show=likely")
    expect(page.get_by_role("heading", name="Nothing to rank by yet")).to_be_visible()
    page.goto(address + "/results?show=no")
    page.get_by_role("link", name="Back to the grid").click()
    expect(page.locator(".search-round")).to_have_text("Round 1")


def test_answers_and_focus_are_seen_where_the_system_sets_the_colours(page, drawn_server):
    open_search(page, drawn_server)
    page.emulate_media(forced_colors="active")
    press(page, "y", "n")
    edges = page.locator(".cards .picture-card").evaluate_all(
        """cards => cards.slice(0, 4).map((card) => [
          getComputedStyle(card, "::after").borderTopColor,
          getComputedStyle(card).outlineStyle,
        ])"""
    )
    (yes, _), (no, _), (current, focus), (none, no_focus) = edges
    assert yes == no != none == current
    assert (focus, no_focus) == ("solid", "none")
    chosen, other = (
        card(page, 0)
        .locator(f"label:has([value={value}])")
        .evaluate("label => getComputedStyle(label).backgroundColor")
        for value in ("yes", "no")
    )
    assert chosen != other


def test_large_view_says_which_image_it_shows_and_its_answer(page, drawn_server):
    open_search(page, drawn_server)
    page.keyboard.press("f")
    told = page.locator("#large [aria-live=polite]")
    expect(told).to_have_text(re.compile(r"\.jpg\s+1 of 12: not answered\s*$"))
    press(page, "u")
    expect(told).to_have_text(re.compile(r"\.jpg\s+2 of 12: not answered\s*$"))
    page.keyboard.press("ArrowLeft")
    expect(told).to_have_text(re.compile(r"\.jpg\s+1 of 12: unsure\s*$"))
