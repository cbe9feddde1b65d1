"""Filters in a real browser, on real photographs with times and places: the map, the hours."""

import io
import re
import shutil
import zipfile

import pytest
from playwright.sync_api import Page, expect

from tests.browser.server import Server
from tests.features.test_export_formats import check_camtrap_dp

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="session")
def sample_server(chromium, make_server, shared_data, tmp_path_factory) -> Server:
    """The photographs with GPS, and the frames of a camera trap, in a folder each."""
    folder = tmp_path_factory.mktemp("samples")
    for name, images in (("exif", "exif"), ("river", "camtrap_dp/media")):
        shutil.copytree(shared_data / images, folder / name)
    return make_server(folder)


def test_images_are_found_by_hour_and_by_a_box_on_the_map(sample_server: Server, page: Page):
    sample_server.sign_in(page)
    page.goto(f"{sample_server.address}/collections/1/browse")
    expect(page.locator(".tile")).to_have_count(32)
    page.get_by_role("link", name="Filter", exact=True).click()
    # Eight of the nine photographs with a place were taken between four and five.
    page.locator("select[name=hour_from]").select_option("16")
    page.locator("select[name=hour_to]").select_option("16")
    page.get_by_role("button", name="Show these images").click()
    expect(page.locator(".tile")).to_have_count(8)
    assert "south" not in page.url  # what is not filled in stays out of the address
    expect(page.locator(".filter-bar")).to_contain_text("16:00 to 16:59")

    page.get_by_role("link", name="Filter", exact=True).click()
    places = page.locator(".filter-map circle")
    xs = sorted(place.bounding_box()["x"] for place in places.all())
    frame = page.locator(".filter-map").bounding_box()
    # A box around the western half of the places.
    middle = (xs[0] + xs[-1]) / 2
    page.mouse.move(frame["x"] + 2, frame["y"] + 2)
    page.mouse.down()
    page.mouse.move(middle, frame["y"] + frame["height"] - 2, steps=4)
    page.mouse.up()
    expect(page.locator("[data-map-box]")).to_be_visible()
    west = float(page.locator("input[name=west]").input_value())
    east = float(page.locator("input[name=east]").input_value())
    assert 11.8 < west < east < 11.9
    page.get_by_role("button", name="Show these images").click()
    kept = page.locator(".tile").count()
    assert 0 < kept < 8
    expect(page.locator(".filter-bar")).to_contain_text(f"{kept} of 32 images")
    expect(page.locator(".filter-bar")).to_contain_text("23 with no known place")

    # One chip is taken away, the other stays; a search goes on with what is left.
    page.locator(".chip.removable", has_text="16:00").click()
    expect(page.locator(".chip.removable")).to_have_count(1)
    page.locator(".tile .pick").first.click()
    expect(page.locator("#tray")).to_contain_text("1 example")
    now = page.locator(".tile").count()
    page.get_by_role("link", name="Search among these").click()
    page.get_by_label("What are you looking for?").fill("A lane")
    page.get_by_role("button", name="Start the search").click()
    expect(page.locator(".rail")).to_contain_text(f"{now} of 32 images")
    # The example is answered already.
    expect(page.locator(".picture-card")).to_have_count(now - 1)


def test_a_burst_has_one_place_in_the_grid_and_a_strip_of_its_own(
    sample_server: Server, page: Page
):
    sample_server.sign_in(page)
    page.goto(f"{sample_server.address}/collections/1/browse")
    page.locator(".tile .pick").first.click()
    expect(page.locator("#tray")).to_contain_text("example")
    page.goto(f"{sample_server.address}/collections/1/searches/new")
    page.get_by_label("What are you looking for?").fill("An egret")
    page.get_by_label("Images per round").fill("32")
    page.get_by_role("button", name="Start the search").click()
    burst = page.locator('.picture-card[data-event="10"]')
    expect(burst).to_have_count(1)
    expect(page.locator("[data-found-events]")).to_have_text("1")
    answered, current = page.locator("[data-given]"), page.locator(".picture-card.current")
    expect(current).to_be_visible()  # the page hears keys now
    before = int(answered.text_content())

    # The strip: keys walk through it, and each image is answered by itself.
    burst.focus()
    page.keyboard.press("e")
    strip = page.locator("#event")
    expect(strip.locator(".event-card")).to_have_count(10)
    for key in ("Home", "y", "n"):
        page.keyboard.press(key)
    expect(strip.locator(".event-card.current")).to_have_attribute(
        "aria-label", "Image 3 of 10: no answer"
    )
    page.keyboard.press("Escape")
    expect(answered).to_have_text(str(before + 2))
    expect(page.locator("[data-found-events]")).to_have_text("2")

    # In the grid an answer is for all that were not answered there, and undone as one.
    expect(current).to_be_visible()
    burst.focus()
    with page.expect_response("**/answers"):
        page.keyboard.press("u")
    expect(answered).to_have_text(str(before + 10))
    burst.focus()
    with page.expect_response("**/answers"):
        page.keyboard.press("o")  # after all for this image alone
    expect(answered).to_have_text(str(before + 3))
    # The form knows that this is saved, and does not send it again over a newer answer.
    expect(burst.locator('[type=hidden][name^="was-alone-"]')).to_have_count(1)
    page.reload()
    expect(current).to_be_visible()
    expect(answered).to_have_text(str(before + 3))
    expect(burst.locator("[data-alone]")).to_be_checked()
    expect(burst.locator("[type=radio][value=unsure]")).to_be_checked()
    for _ in range(2):
        page.keyboard.press("z")
    expect(answered).to_have_text(str(before + 2))
    expect(burst.locator("[type=radio][value=unsure]")).not_to_be_checked()

    # A person in one of them: all are hidden, and put back at once.
    burst.focus()
    page.keyboard.press("h")
    expect(page.locator("[data-hidden-notice]")).to_contain_text("Hid 10 images of the event")
    expect(burst).to_have_count(0)
    page.get_by_role("button", name="Take it back").click()
    expect(burst).to_have_count(1)


def test_camtrap_package_comes_in_is_filtered_searched_and_leaves_valid(  # noqa: PLR0915 - a story
    sample_server: Server, shared_data, page: Page, tmp_path
):
    river = f"River {tmp_path.name}"  # a second chance finds its own one
    told = sample_server.run("collection", "add", river, str(shared_data / "camtrap_dp"))
    assert "different zones" in " ".join(told.split())  # media.csv and observations.csv
    # They are one burst: each is to be asked about here.
    sample_server.run("collection", "group", river, "--none")
    sample_server.sign_in(page)
    page.goto(sample_server.address)
    page.get_by_role("link", name=river, exact=True).first.click()
    own = page.url.removesuffix("/browse")
    page.goto(own)
    expect(page.locator("main")).to_contain_text("413 files")  # that the package names only
    for hour, count in (("20", 10), ("3", 0)):
        page.goto(f"{own}/browse?filters=true")
        page.locator("select[name=hour_from]").select_option(hour)
        page.locator("select[name=hour_to]").select_option(hour)
        page.get_by_role("button", name="Show these images").click()
        expect(page.locator(".tile")).to_have_count(count)
    page.goto(f"{own}/browse?filters=true")
    frame = page.locator(".filter-map").bounding_box()
    page.mouse.move(frame["x"] + 2, frame["y"] + 2)
    page.mouse.down()
    page.mouse.move(frame["x"] + frame["width"] - 2, frame["y"] + frame["height"] - 2, steps=4)
    page.mouse.up()
    page.get_by_role("button", name="Show these images").click()
    expect(page.locator(".tile")).to_have_count(10)
    page.locator(".tile .pick").first.click()
    page.get_by_role("link", name="Search among these").click()
    page.get_by_label("What are you looking for?").fill("Heron")
    page.get_by_role("button", name="Start the search").click()
    expect(page.locator(".picture-card")).to_have_count(9)
    page.locator(".picture-card").first.focus()
    for key in "yyn":
        page.keyboard.press(key)
    # An image that shows a person goes at once, and comes back.
    page.keyboard.press("h")
    expect(page.locator("[data-hidden-notice]")).to_be_visible()
    expect(page.locator(".picture-card")).to_have_count(8)
    page.get_by_role("button", name="Take it back").click()
    expect(page.locator(".picture-card")).to_have_count(9)
    expect(page.locator(".picture-card :checked[value=yes]")).to_have_count(2)
    search = re.search(r"/searches/\d+", page.url)[0]
    page.goto(f"{sample_server.address}{search}/exports")
    page.locator("[name=scientific_name]").fill("Ardea cinerea")
    page.locator("[name=utc_offset]").fill("+02:00")
    page.locator("[name=capture]").select_option("activityDetection")
    page.locator("[name=design]").select_option("opportunistic")
    page.get_by_role("button", name="Keep these").click()
    page.locator("button[value='camtrap-dp.zip']").click()
    with page.expect_download() as download:
        page.locator("#made a[download]").click()  # once it is made; the page looks again by itself
    content = download.value.path().read_bytes()
    zipfile.ZipFile(io.BytesIO(content)).extractall(tmp_path)
    tables = check_camtrap_dp(tmp_path)
    assert len(tables["media"]) == 10
    assert [one["observationType"] for one in tables["observations"]] == ["animal"] * 3
    assert tables["media"][0]["timestamp"].isoformat() == "2021-04-11T20:43:09+02:00"
