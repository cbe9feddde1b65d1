"""Several people on one server: the first admin, an ecologist, what she sees, shares and loses."""

import re

import pytest
from playwright.sync_api import expect

from tests.browser.server import Server

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


def test_first_admin_lets_an_ecologist_in_who_shares_and_is_signed_out(  # noqa: PLR0915 - a story
    server, chromium
):
    admin, ada, bob = (chromium.new_context().new_page() for _ in range(3))
    errors = []
    for page in (admin, ada, bob):
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: errors.append(str(error)))
    admin.goto(server.link)
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
    again = admin.locator("#password-link").inner_text()
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
