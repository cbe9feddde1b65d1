"""Uploads in a real Chromium: a zip over a line that is cut, many files, a folder, and a phone."""

import os
import re
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.line import Line
from tests.browser.server import Server
from tests.factories import make_image_file

pytestmark = [pytest.mark.browser, pytest.mark.slow]

PREPARED_MS = 150_000


@pytest.fixture(scope="module")
def empty_server(chromium, make_empty_server: Callable[[], Server]) -> Server:
    server = make_empty_server()
    server.start()
    return server


@pytest.fixture(scope="module")
def fish_zip(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """500 real images."""
    path = tmp_path_factory.mktemp("zip") / "reef.zip"
    with zipfile.ZipFile(shared_data / "fish.zip") as fish, zipfile.ZipFile(path, "w") as packed:
        names = [name for name in sorted(fish.namelist()) if name.endswith(".jpg")]
        for name in names[:: len(names) // 500][:500]:
            packed.writestr(name, fish.read(name))
    return path


@pytest.fixture
def slow_line() -> Iterator[Callable[[str, float], Line]]:
    """Makes a line to a server, of so many bytes a second."""
    with ExitStack() as stack:

        def make(address: str, bytes_per_s: float) -> Line:
            line = Line(address, bytes_per_s=bytes_per_s)
            stack.callback(line.close)
            return line

        yield make


def begin(page: Page, address: str, name: str) -> None:
    name = f"{name} {time.time_ns()}"  # a test may be run again
    page.goto(f"{address}/collections/new")
    page.get_by_role("textbox", name="Name").fill(name)
    expect(page.get_by_label("On this computer or phone")).to_be_checked()
    expect(page.locator("#source")).to_be_hidden()
    page.get_by_role("button", name="Add the collection").click()
    expect(page.get_by_role("heading", name=f"Upload to {name}")).to_be_visible()


def test_many_files_and_a_folder_go_on_after_a_reload_and_say_what_is_refused(
    page, empty_server, tmp_path
):
    for number in range(60):
        make_image_file(tmp_path / "season" / f"site{number % 3}" / f"{number}.jpg", number)
    (tmp_path / "season" / "notes.txt").write_text("no image")
    (tmp_path / "season" / ".hidden.jpg").write_text("skipped")
    empty_server.sign_in(page)
    begin(page, empty_server.address, "Season")
    files = sorted((tmp_path / "season").rglob("*.jpg"))
    taken = []

    def let_some_through(route):
        if route.request.method == "POST" and len(taken) >= 20:
            route.abort()
            return
        taken.append(route.request.method)
        route.continue_()

    page.route("**/uploads/*/files", let_some_through)
    page.set_input_files("#choose-folder", tmp_path / "season")
    expect(page.get_by_text("1 file not taken")).to_be_visible()
    expect(page.get_by_text("season/notes.txt")).to_be_visible()
    expect(page.get_by_text("The connection is lost; trying again")).to_be_visible()
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_text("Paused")).to_be_visible()
    page.unroute("**/uploads/*/files")
    page.on("dialog", lambda dialog: dialog.accept())
    page.reload()
    expect(page.get_by_text("arrived before.")).to_be_visible()
    sent = []
    page.on("request", lambda request: sent.append((request.method, request.url.split("/")[-1])))
    page.set_input_files("#choose-folder", tmp_path / "season")
    expect(page.get_by_text("Everything has arrived")).to_be_visible()
    # Of the quota, without a reload; on this server nobody uploaded much before.
    expect(page.locator("#used")).to_contain_text("kB")
    assert sent.count(("POST", "files")) == len(files) - 1 - taken.count("POST")
    expect(page.get_by_text("60 of 60 files")).to_be_visible()
    page.get_by_role("button", name="Import 60 files").click()
    expect(page.get_by_role("link", name="Start a search")).to_be_visible(timeout=PREPARED_MS)
    page.goto(f"{empty_server.address}/work")
    expect(page.get_by_text("Add images").first).to_be_visible()
    expect(page.get_by_text("Done").first).to_be_visible()


def test_page_of_a_collection_stays_at_the_top_while_it_is_prepared(page, empty_server, tmp_path):
    """The page that comes after each stage has pictures above what was the first thing on it."""
    files = [make_image_file(tmp_path / f"{number}.jpg", number) for number in range(40)]
    empty_server.sign_in(page)
    begin(page, empty_server.address, "Tall")
    loads = []
    page.on("load", lambda one: loads.append(one.url))
    page.set_input_files("#choose-files", files)
    expect(page.locator(".steps")).to_be_visible(timeout=20_000)
    expect(page.locator(".head-mosaic")).to_have_count(0)  # else there is nothing to see here
    expect(page.get_by_role("link", name="Start a search")).to_be_visible(timeout=PREPARED_MS)
    expect(page.locator(".head-mosaic")).to_be_visible()
    page.wait_for_load_state()
    assert len(loads) > 1, loads
    assert page.evaluate("document.documentElement.scrollHeight > innerHeight + 250")
    assert page.evaluate("scrollY") == 0


DROP = """
(bytes) => {
  const transfer = new DataTransfer();
  transfer.items.add(new File([new Uint8Array(bytes)], "dropped.jpg", { type: "image/jpeg" }));
  transfer.items.add(new File(["x"], "notes.txt", { type: "text/plain" }));
  document.getElementById("drop").dispatchEvent(
    new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true })
  );
}
"""


def test_photos_of_another_card_with_the_same_names_take_the_place_of_none(
    page, empty_server, tmp_path
):
    cards = [tmp_path / f"card{number}" / "DCIM" for number in range(3)]
    for number, card in enumerate(cards):
        for photo in range(3):
            file = make_image_file(card / "100MEDIA" / f"IMG_{photo}.JPG", 10 * number + photo)
            at_ns = 1_700_000_000_001_000_000  # as a float of seconds it is a little less
            os.utime(file, ns=(at_ns, at_ns))
    (cards[2] / "100MEDIA" / "notes.txt").write_text("no image")  # nothing is imported unasked
    empty_server.sign_in(page)
    begin(page, empty_server.address, "Cards")
    upload = page.url
    page.set_input_files("#choose-folder", cards[2])
    expect(page.get_by_text("Everything has arrived")).to_be_visible()
    page.set_input_files("#choose-folder", cards[1])
    told = page.get_by_text("Other photos of the same names are here already")
    expect(told).to_have_text(re.compile(r"in the folder “DCIM \(2\)”\.$"))
    expect(page.get_by_text("6 of 6 files")).to_be_visible()
    paths = {file["path"] for file in page.request.get(f"{upload}/files").json()}
    names = [f"100MEDIA/IMG_{photo}.JPG" for photo in range(3)]
    assert paths == {f"{card}/{name}" for card in ("DCIM", "DCIM (2)") for name in names}
    page.reload()
    page.set_input_files("#choose-folder", cards[1])  # all of it is here, and so it is imported
    expect(page.get_by_text("6 images").first).to_be_visible(timeout=PREPARED_MS)
    expect(page.get_by_role("link", name="Start a search")).to_be_visible(timeout=PREPARED_MS)
    collection = page.url
    # Another day: what the collection holds counts, too.
    page.get_by_text("Add images to this collection").click()
    page.get_by_role("button", name="Upload photos").click()
    page.set_input_files("#choose-folder", cards[0])
    expect(page.get_by_text("9 images").first).to_be_visible(timeout=PREPARED_MS)
    page.goto(f"{collection}/browse")
    expect(page.locator(".tile-name", has_text="DCIM (3)/")).to_have_count(3)
    # And a third: the same photos are told as the same.
    page.goto(collection)
    page.get_by_text("Add images to this collection").click()
    page.get_by_role("button", name="Upload photos").click()
    upload = page.url
    page.set_input_files("#choose-folder", cards[2])
    expect(page.get_by_text("3 of 3 files")).to_be_visible()
    assert {one["path"].split("/")[0] for one in page.request.get(f"{upload}/files").json()} == {
        "DCIM"
    }
    expect(page.locator("#upload-apart")).to_be_hidden()


def test_a_second_visit_keeps_two_sites_two(page, empty_server, tmp_path):
    visits = [tmp_path / f"{visit}/season" for visit in range(2)]
    for visit, folder in enumerate(visits):
        for number, site in enumerate(("siteA", "siteB")):
            make_image_file(folder / f"{site}/IMG_1.JPG", 10 * visit + number)
        make_image_file(folder / "IMG_2.JPG", 10 * visit + 5)
    empty_server.sign_in(page)
    begin(page, empty_server.address, "Visits")
    upload = page.url
    choose = """(files) => {
      const chosen = [];
      for (const [path, bytes, lastModified] of files) {
        const file = new File([new Uint8Array(bytes)], path.split("/").pop(), {
          type: path.endsWith("txt") ? "text/plain" : "image/jpeg", lastModified,
        });
        if (path.includes("/")) Object.defineProperty(file, "webkitRelativePath", { value: path });
        chosen.push(file);
      }
      const input = document.getElementById("choose-folder");
      Object.defineProperty(input, "files", { value: chosen, configurable: true });
      input.dispatchEvent(new Event("change"));
    }"""
    paths = ["siteA/IMG_1.JPG", "siteB/IMG_1.JPG", "IMG_2.JPG"]
    for visit, folder in enumerate(visits):
        files = [[path, list((folder / path).read_bytes()), 10**12 + visit] for path in paths]
        files.append(["siteA/notes.txt", [1], 10**12])  # nothing is imported unasked
        page.evaluate(choose, files)
        expect(page.get_by_text("Everything has arrived")).to_be_visible()
        expect(page.get_by_text(f"{3 * visit + 3} of {3 * visit + 3} files")).to_be_visible()
    told = page.get_by_text("Other photos of the same names are here already")
    expect(told).to_contain_text("in the folders “siteA (2)”, “siteB (2)”, “(2)”.")
    arrived = {file["path"] for file in page.request.get(f"{upload}/files").json()}
    assert arrived == {*paths, "siteA (2)/IMG_1.JPG", "siteB (2)/IMG_1.JPG", "(2)/IMG_2.JPG"}


def test_what_does_not_fit_the_quota_is_said_before_it_is_sent(page, empty_server, tmp_path):
    empty_server.sign_in(page)
    begin(page, empty_server.address, "Too much")
    left = 100_000
    page.locator("#used").evaluate(
        "(used, left) => { used.dataset.quota = Number(used.dataset.bytes) + left; }", left
    )
    first = make_image_file(tmp_path / "first.jpg", 1)
    others = [tmp_path / f"{number}.jpg" for number in range(3)]
    for number, file in enumerate(others):
        make_image_file(file, number + 2)
        with file.open("ab") as end:
            end.write(bytes(40_000))
    sent = []
    page.on("request", lambda request: sent.append((request.method, request.url.split("/")[-1])))
    page.set_input_files("#choose-files", others)
    expect(page.get_by_text("These photos take 1")).to_contain_text("100 kB are left")
    expect(page.get_by_text("Paused")).to_be_visible()
    assert {name for method, name in sent if method != "GET"} == {"here"}  # it only asked
    page.reload()
    page.set_input_files("#choose-files", first)  # as the server has it, there is room
    expect(page.get_by_role("link", name="Start a search")).to_be_visible(timeout=PREPARED_MS)


def test_labels_that_do_not_fit_the_chosen_files_are_told(page, empty_server, tmp_path):
    empty_server.sign_in(page)
    page.goto(f"{empty_server.address}/collections/new")
    page.get_by_role("textbox", name="Name").fill(f"Labelled {time.time_ns()}")
    page.locator("summary:visible", has_text="Known labels").click()
    page.locator("input[name=upload_labels][value=file]").check()
    labels = tmp_path / "l.csv"
    labels.write_text("file,label\none.jpg,owl\ntwo.jpg,owl\nlost.jpg,heron\n")
    page.set_input_files("input[name=labels_upload]", labels)
    page.get_by_role("button", name="Add the collection").click()
    expect(page.get_by_text("Drop photos, folders or a zip here")).to_be_visible()
    files = [make_image_file(tmp_path / f"{name}.jpg", 1) for name in ("one", "three")]
    page.set_input_files("#choose-files", files)
    told = page.locator("#upload-labels")
    expect(told).to_contain_text(
        "2 lines of l.csv name none of these files for certain, such as line 3, “two.jpg”, "
        "line 4, “lost.jpg”. 1 file has no line in it, such as “three.jpg”."
    )
    expect(page.get_by_text("Paused")).to_be_visible()
    expect(page.locator("#sending-bytes")).to_contain_text("0 bytes of")
    page.set_input_files("#choose-files", make_image_file(tmp_path / "two.jpg", 2))
    expect(told).to_contain_text("1 line of l.csv names none of these files")
    page.get_by_role("button", name="Resume").click()
    expect(page).to_have_url(re.compile(r"/collections/\d+$"))


def test_dropped_files_are_sent_and_what_is_none_is_told(page, empty_server, tmp_path):
    empty_server.sign_in(page)
    begin(page, empty_server.address, "Dropped")
    photo = make_image_file(tmp_path / "dropped.jpg", 5).read_bytes()
    expect(page.get_by_text("Drop photos, folders or a zip here")).to_be_visible()
    page.wait_for_load_state()
    page.evaluate(DROP, list(photo))
    expect(page.get_by_text("Everything has arrived")).to_be_visible()
    expect(page.get_by_text("notes.txt")).to_be_visible()
    expect(page.get_by_role("button", name="Import 1 file")).to_be_visible()


def test_phone_chooses_photos_and_a_page_without_scripts_sends_a_form(
    phone, page_without_scripts, empty_server, tmp_path
):
    photo = make_image_file(tmp_path / "photo.jpg", 3)
    empty_server.sign_in(phone)
    begin(phone, empty_server.address, "Phone")
    expect(phone.get_by_text("Choose a folder")).to_be_hidden()
    phone.set_input_files("#choose-files", photo)
    expect(phone).to_have_url(re.compile(r"/collections/\d+$"))

    page = page_without_scripts
    empty_server.sign_in(page)
    page.goto(f"{empty_server.address}/collections/new")
    page.get_by_role("textbox", name="Name").fill(f"Plain {time.time_ns()}")
    page.get_by_role("button", name="Add the collection").click()
    page.set_input_files("#plain-files", photo)
    page.get_by_role("button", name="Upload and import").click()
    expect(page).to_have_url(re.compile(r"/collections/\d+$"))


@pytest.mark.timeout(300)
def test_zip_of_500_images_over_a_line_that_is_cut_is_indexed(
    page, empty_server, fish_zip, slow_line
):
    size_bytes = fish_zip.stat().st_size
    line = slow_line(empty_server.address, size_bytes / 4)
    empty_server.sign_in(page)
    [cookie] = empty_server.cookies
    page.context.add_cookies([cookie | {"name": f"rarefind_login_{line.port}"}])
    begin(page, line.address, "Reef")
    pieces = []
    page.on("request", lambda request: pieces.append((request.method, request.headers)))
    sent_before = line.sent_bytes
    page.set_input_files("#choose-files", fish_zip)
    while line.sent_bytes < sent_before + size_bytes / 2:
        page.wait_for_timeout(20)
    line.cut()
    expect(page.get_by_text("The connection is lost; trying again")).to_be_visible()
    expect(page.locator("#sending-speed")).to_be_empty(timeout=2_000)
    expect(page.locator("#sending-left")).to_be_empty(timeout=2_000)
    line.mend()
    expect(page).to_have_url(re.compile(r"/collections/\d+$"), timeout=60_000)
    begun_at = [int(headers["upload-offset"]) for method, headers in pieces if method == "PATCH"]
    assert begun_at[0] == 0 and max(begun_at) > size_bytes / 4, begun_at
    assert line.sent_bytes - sent_before < 1.5 * size_bytes  # only the rest was sent again

    expect(page.get_by_role("link", name="Start a search")).to_be_visible(timeout=PREPARED_MS)
    expect(page.get_by_text("500 images").first).to_be_visible()
    page.get_by_role("link", name="Browse").click()
    expect(page.locator(".tile").first).to_be_visible()


def test_a_photo_edited_in_place_is_sent_again(page, empty_server, tmp_path):
    photos = [
        make_image_file(tmp_path / "site" / f"{n}.bmp", n, file_format="BMP") for n in (1, 2, 3)
    ]
    (tmp_path / "site/notes.txt").write_text("no image")  # nothing is imported unasked
    empty_server.sign_in(page)
    begin(page, empty_server.address, "Edited")
    upload = page.url

    def choose() -> dict[str, int]:
        page.set_input_files("#choose-folder", tmp_path / "site")
        expect(page.get_by_text("Everything has arrived")).to_be_visible()
        expect(page.get_by_text("3 of 3 files")).to_be_visible()
        return {one["path"]: one["modified"] for one in page.request.get(f"{upload}/files").json()}

    before = choose()
    size_bytes = photos[0].stat().st_size
    make_image_file(photos[0], 9, file_format="BMP")
    assert photos[0].stat().st_size == size_bytes
    os.utime(photos[0], (2_000_000_000, 2_000_000_000))
    page.reload()
    assert choose() == before | {"site/1.bmp": 2_000_000_000_000}
