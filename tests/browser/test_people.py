"""Several people on one server: the first admin, an ecologist, what she sees, shares and loses."""

import csv
import io
import re
import time
from pathlib import Path

import PIL.Image
import pytest
from playwright.sync_api import expect

from tests.browser.server import Server
from tests.factories import make_image_file

pytestmark = [pytest.mark.browser, pytest.mark.slow]
PASSWORD = "four brown herons wade"
EVIL = "<img src=x onerror=window.bad=1><script>window.bad=1</script>"  # 66 letters


@pytest.fixture(scope="module")
def server(chromium, make_server, drawn_images) -> Server:
    """A server of its own: these tests change who may sign in."""
    return make_server(drawn_images)


def choose_password(page):
    page.locator("[name=password], [name=new]").fill(PASSWORD)
    page.locator("[name=again]").fill(PASSWORD)


def test_what_is_shown_once_survives_a_second_press_and_a_reload_is_the_list(server, page):
    server.sign_in(page)
    page.goto(f"{server.address}/people")
    name, sent = f"Grace {time.time_ns()}", []  # a test may be run again
    page.on("request", lambda request: sent.append(request.method))
    page.get_by_label("Name", exact=True).fill(name)
    # Too slow for the browser to take both as one, too quick for the answer.
    page.get_by_role("button", name="Add and make a link").evaluate(
        "button => { button.click(); setTimeout(() => button.click(), 5); }"
    )
    expect(page.locator("#password-link")).to_contain_text("/password?token=")
    assert sent.count("POST") == 1
    row = page.locator(".person-row", has_text=name)
    row.locator("summary").click()
    row.get_by_role("button", name="Reset the password").click()
    expect(page.get_by_text(f"Give {name} this link")).to_be_visible()
    assert page.reload().status == 200
    assert page.url == f"{server.address}/people"
    expect(page.locator("#password-link")).to_have_count(0)
    expect(row).to_have_count(1)

    page.goto(f"{server.address}/account")
    page.get_by_label("Name of the program").fill(name)
    page.get_by_role("button", name="Make a token").click()
    expect(page.locator("#token")).to_be_visible()
    assert page.reload().status == 200
    expect(page.locator("#token")).to_have_count(0)
    expect(page.locator("li", has_text=name)).to_have_count(1)
    assert sent.count("POST") == 3, "a reload sends no form"


def test_first_admin_lets_an_ecologist_in_who_shares_and_is_signed_out(  # noqa: PLR0915 - a story
    server, chromium
):
    admin, ada, bob = (chromium.new_context().new_page() for _ in range(3))
    errors = []
    for page in (admin, ada, bob):
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: errors.append(str(error)))
    server.sign_in(admin)
    admin.goto(server.address)
    admin.get_by_role("link", name="Choose name and password").click()
    admin.get_by_label("Name", exact=True).fill("Mary")
    choose_password(admin)
    admin.get_by_role("button", name="Set name and password").click()
    expect(admin.get_by_role("heading", name="Mary", level=1)).to_be_visible()

    # One of the people has a script for a name, as far as the name's length allows.
    admin.goto(f"{server.address}/people")
    links = {}
    for name in ("Ada Lovelace", EVIL):
        admin.get_by_label("Name", exact=True).fill(name)
        admin.get_by_role("button", name="Add and make a link").click()
        links[name] = admin.locator("#password-link").inner_text()
    expect(admin.get_by_text(EVIL).first).to_be_visible()

    ada.goto(links["Ada Lovelace"])
    choose_password(ada)
    ada.get_by_role("button", name="Set password and sign in").click()
    expect(ada.get_by_role("link", name="Reef", exact=True)).to_be_visible()
    reef = ada.get_by_role("link", name="Reef", exact=True).get_attribute("href")
    collection = server.address + re.match(r"/collections/\d+", reef)[0]
    bob.goto(links[EVIL])
    choose_password(bob)
    bob.get_by_role("button", name="Set password and sign in").click()

    # She opens a search and shares it.
    ada.goto(f"{collection}/browse")
    image = ada.locator("[id^=image-]").first
    number = image.get_attribute("id").removeprefix("image-")
    ada.goto(f"{collection}/searches/new?image={number}")
    ada.locator("[name=target_name]").fill("Striped")
    ada.locator("form button.primary").first.click()
    ada.wait_for_url(re.compile(r"/searches/\d+$"))
    search = ada.url
    bob.goto(search)
    expect(bob.get_by_role("heading", name="Not found")).to_be_visible()
    ada.get_by_role("link", name="Share").click()
    ada.get_by_label("Invite").fill(EVIL)
    ada.get_by_role("button", name="Invite").click()
    expect(ada.get_by_role("button", name=f"Take out {EVIL}")).to_be_visible()
    bob.goto(server.address)
    expect(bob.get_by_text("shared by Ada Lovelace")).to_be_visible()
    bob.goto(search)
    expect(bob.locator("#grid")).to_be_visible()

    # The collection is closed to all but Ada, then to her too.
    admin.goto(f"{collection}/access")
    admin.get_by_role("radio", name="These people").check()
    admin.get_by_role("checkbox", name="Ada Lovelace").check()
    admin.get_by_role("button", name="Save").click()
    expect(admin.get_by_text("Ada Lovelace, and admins.")).to_be_visible()
    assert bob.goto(search).status == 404
    thumbnail = f"{server.address}/images/{number}/small"
    asked = [page.request.get(thumbnail).status for page in (bob, ada)]  # past their caches
    assert asked == [404, 200]

    # Reset: she is out at once, and in again by the new link alone.
    admin.goto(f"{server.address}/people")
    row = admin.locator(".person-row", has_text="Ada Lovelace")
    row.locator("summary").click()
    row.get_by_role("button", name="Reset the password").click()
    admin.context.grant_permissions(["clipboard-read", "clipboard-write"])
    admin.get_by_role("button", name="Copy the link").click()
    expect(admin.get_by_text("Copied")).to_be_visible()
    again = admin.evaluate("navigator.clipboard.readText()")
    assert ada.goto(search).status == 401
    ada.get_by_role("link", name="Sign in").click()
    ada.get_by_label("Name").fill("ada lovelace")
    ada.get_by_label("Password").fill(PASSWORD)
    ada.get_by_role("button", name="Sign in").click()
    expect(ada.get_by_role("alert").filter(has_text="not right")).to_be_visible()
    ada.goto(again)
    choose_password(ada)
    ada.get_by_role("button", name="Set password and sign in").click()
    assert ada.goto(search).status == 200

    admin.goto(f"{server.address}/log")
    expect(admin.get_by_text("Shared “Striped” with")).to_be_visible()
    for page in (admin, ada, bob):
        assert page.evaluate("window.bad") is None, "a name ran as a script"
    assert errors == []


def test_policy_keeps_a_script_from_running_even_if_it_got_into_a_page(server, chromium):
    page = chromium.new_context().new_page()
    page.goto(f"{server.address}/sign-in")
    page.evaluate(
        """() => {
          const script = document.createElement("script");
          script.textContent = "window.bad = 1";
          document.body.append(script);
          document.body.insertAdjacentHTML("beforeend", "<img src=x onerror='window.bad = 1'>");
        }"""
    )
    page.wait_for_timeout(200)
    assert page.evaluate("window.bad") is None


# --- What people and files say --------------------------------------------------------------------

# Each would run, or ask for /bad, if it got into a page as anything but text.
SAID = (
    "<img src=/bad onerror=window.bad=1>",
    "<script>window.bad=1</script>",
    "\"'><b hx-get=/bad hx-trigger=load>",
    "<i data-hx-on:load=window.bad=1 hx-on::load=window.bad=1>",
    "<a href=javascript:window.bad=1>x</a>",
    "{{7*7}}${window.bad=1}",
)
ALL_SAID = " ".join(SAID)
INJECTED = (
    "[hx-get='/bad'], [src='/bad'], [onerror], [data-hx-on\\:load], [href^='javascript:'], "
    "b[hx-trigger]"
)


def make_hostile_images(folder: Path) -> Path:
    """Pictures whose folders, names and EXIF are markup, as far as a file system takes it."""
    for number in range(24):
        said = SAID[number % len(SAID)].replace("/", "")
        exif = PIL.Image.Exif()
        exif[0x010E] = exif[0x0110] = exif[0x013B] = ALL_SAID  # description, model, artist
        exif[0x0132] = exif.get_ifd(0x8769)[0x9003] = f"2025:05:{number + 1:02} 12:00:00"
        path = folder / f"site {said}" / f"{number:02} {said}.jpg"
        make_image_file(path, number, size=(240, 160), exif=exif, comment=ALL_SAID.encode())
    return folder


@pytest.fixture(scope="module")
def hostile_server(chromium, make_empty_server, tmp_path_factory) -> Server:
    """A server whose one collection came with markup wherever a file can hold it."""
    server = make_empty_server()
    images = make_hostile_images(tmp_path_factory.mktemp("hostile"))
    server.run("collection", "add", SAID[0], str(images), "--labels", "folders")
    server.start()
    return server


def say_it_everywhere(server: Server, page) -> str:
    """In every field that people fill in; the address of a search."""

    def post(path, **form):
        more = {"multipart": form} if "table" in form else {"form": form}
        answer = page.request.post(f"{server.address}{path}", **more)
        assert answer.status < 400, f"{path}: {answer.status} {answer.text()[-600:]}"
        return answer

    server.sign_in(page)
    page.goto(server.address)
    collection = re.search(r"/collections/\d+", page.content())[0]
    page.goto(f"{server.address}{collection}/browse")
    numbers = [
        one.get_attribute("id").removeprefix("image-")
        for one in page.locator("[id^=image-]").all()[:8]
    ]
    names = page.request.get(f"{server.address}/api/v1{collection}/images").json()
    cells = [[one["path"], *SAID] for one in names]
    table = io.StringIO()
    csv.writer(table).writerows([["file", *(f"{n} {said}" for n, said in enumerate(SAID))], *cells])
    sent = {"name": f"{SAID[0].replace('/', '')}.csv", "mimeType": "text/csv"}
    post(f"{collection}/metadata", table=sent | {"buffer": table.getvalue().encode()})
    post(f"{collection}/deployments/folders")
    page.goto(f"{server.address}{collection}/deployments")
    for action in page.locator("form[action*='/deployments/']").all():
        if (path := action.get_attribute("action")).rsplit("/", 1)[-1].isdigit():
            post(path, place=ALL_SAID[:190], latitude="47.5", longitude="12.5", clock_shift="")
    for said in SAID:
        post("/people", name=said[:80], role="ecologist")
    post("/account/tokens", name=SAID[0], scope="read")
    post("/account/name", name="Mary " + SAID[1])
    for number in numbers:
        post(f"{collection}/images/{number}/remarks", text=ALL_SAID)
        post(
            f"{collection}/images/{number}/remarks", tag=SAID[int(number) % 5][:40].replace(",", "")
        )
    opened = post(
        f"{collection}/searches",
        target_name=SAID[1],
        counts_as_yes=ALL_SAID,
        image_ids=numbers[0],
        round_size="6",
    )
    search = re.search(r"/searches/\d+", opened.url)[0]
    post(f"{search}/card", counts_as_yes=ALL_SAID, counts_as_no=ALL_SAID)
    post(f"{search}/remarks", text=ALL_SAID)
    post(f"{search}/remarks", tag=SAID[0][:40])
    known = page.request.get(f"{server.address}/api/v1{search}").json()
    kept = {name: str(known[name]) for name in ("embedder", "strategy", "round_size")}
    post(f"{search}/settings", target_name=SAID[1], no_reasons=SAID[2][:30], **kept)
    post(f"{search}/view", open_to_view="yes")
    grid = page.request.get(f"{server.address}/api/v1{search}/round").json()
    answers = {f"answer-{one['image_id']}": "yes" for one in grid["images"][:3]}
    post(f"{search}/submit", round_id=str(grid["round_id"]), rest_are_no="yes", **answers)
    return search


@pytest.mark.timeout(600)  # some forty pages
def test_nothing_that_people_or_files_say_runs_on_any_page(hostile_server, chromium):
    page = chromium.new_context().new_page()
    page.set_default_timeout(20_000)
    asked, said_to_console = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda said: said_to_console.append(said.text))
    search = say_it_everywhere(hostile_server, page)
    waiting = ["/", search, f"{search}/results", f"{search}/dashboard"]
    seen = set()  # addresses that differ in numbers alone are looked at once
    heard = 0
    while waiting:
        path = waiting.pop(0)
        alike = re.sub(r"\d+", "N", path.split("?")[0])
        if alike in seen or re.search(r"\.\w+$|/original$|/file$|/delete$", alike):
            continue
        seen.add(alike)
        answer = page.goto(f"{hostile_server.address}{path}")
        policy = answer.headers["content-security-policy"]
        assert answer.status < 400, path
        assert "default-src 'self'" in policy and "unsafe" not in policy, path
        if path.endswith("/dashboard"):
            page.wait_for_load_state("networkidle")  # its parts come after it
        heard += "window.bad" in page.inner_text("body")
        assert page.locator(INJECTED).count() == 0, path
        assert page.evaluate("window.bad") is None, path
        assert page.evaluate("!window.htmx || htmx.config.allowEval === false"), path
        links = page.eval_on_selector_all("a[href^='/']", "all => all.map(a => a.pathname)")
        waiting += links
    assert len(seen) > 30, seen
    assert heard > 15, "what was said stands on the pages, as text"
    page.goto(f"{hostile_server.address}{search}")  # the large view, whose details come by a script
    page.keyboard.press("Enter")
    page.wait_for_timeout(1_000)
    assert page.locator(INJECTED).count() == 0 and page.evaluate("window.bad") is None
    assert not [url for url in asked if url.split("?")[0].endswith("/bad")]
    assert not [said for said in said_to_console if "Content Security Policy" in said]
