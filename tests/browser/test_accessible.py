"""Every page by axe-core and by its width: light and dark, on a desk and in a hand."""

import csv
import io
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from fastapi.routing import iter_route_contexts
from playwright.sync_api import APIRequestContext, APIResponse, Browser, Page, expect

from app.main import create_app
from app.settings import Settings
from tests.browser.conftest import open_page
from tests.browser.server import Server

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(400)]

PASSWORD = "four brown herons wade"
OWN = {"Sec-Fetch-Site": "same-origin"}
RULES = {
    "runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
    "resultTypes": ["violations"],
}
CONTRAST = {"runOnly": ["color-contrast"], "resultTypes": ["violations"]}
WIDTHS = (1280, 390)
# Contrast takes most of the time, and no colour depends on the width.
LOOKS = ((1280, "light", RULES), (1280, "dark", CONTRAST), (390, "dark", RULES))
OPEN = "document.querySelectorAll('details:not(.menu)').forEach((one) => one.open = true)"
# Rows of a table are all alike, and each costs time.
SHORTEN = "document.querySelectorAll('tbody tr:nth-child(n + 4)').forEach((one) => one.remove())"
# What is lower than 40 pixels, with its label; a tick in a row of its own is smaller.
LOW = """[...document.querySelectorAll(
    "button, summary, select, input:not([type=hidden], [type=range], li > *, td > *), .button"
  )]
  .filter((one) => one.checkVisibility({visibilityProperty: true}))
  .filter((one) => {
    const box = (one.closest("label") ?? one).getBoundingClientRect();
    const around = parseFloat(getComputedStyle(one, "::before").top) || 0;
    return box.width > 1 && box.height - 2 * Math.min(around, 0) < 39.5;
  })
  .map((one) => one.outerHTML.slice(0, 120))"""

COLLECTION, SEARCH = "/collections/{collection_id}", "/searches/{search_id}"
REPLAY = f"{COLLECTION}/replays/{{replay_id}}"
# Looked at in these forms; every other page by its plain address.
FORMS = {
    "/": ["/", "/ as Ben", "/ as Ada"],
    "/account": ["/account", "/account after token"],
    f"{COLLECTION}/browse": [
        f"{COLLECTION}/browse",
        f"{COLLECTION}/browse?filters=1&month=5",
        f"{COLLECTION}/browse?name=nothing",
    ],
    f"{COLLECTION}/metadata": [f"{COLLECTION}/metadata", f"{COLLECTION}/metadata after table"],
    f"{COLLECTION}/metadata/removal": [f"{COLLECTION}/metadata/removal?table={{table_id}}"],
    f"{COLLECTION}/replays/compare": [
        f"{COLLECTION}/replays/compare?of={{replay_id}}&of={{other_replay_id}}",
        f"{COLLECTION}/replays/compare",
    ],
    f"{REPLAY}/run": [f"{REPLAY}/run?whole=1"],
    f"{COLLECTION}/searches/new": [f"{COLLECTION}/searches/new?image={{image_id}}"],
    "/password": ["{password_link} as nobody", "/password?token=spent as nobody"],
    "/people": ["/people", "/people after link", "/people as Ben"],
    "/reviews/{review_id}": ["/reviews/{review_id} as Ada"],
    SEARCH: [SEARCH, *(f"{SEARCH} after {what}" for what in ("answers", "large", "keys"))],
    f"{SEARCH}/dashboard": [f"{SEARCH}/dashboard?whole=1", "/searches/{new_id}/dashboard?whole=1"],
    f"{SEARCH}/results": [f"{SEARCH}/results", "/searches/{new_id}/results"],
    "/sign-in": ["/sign-in as nobody", "/sign-in?token=spent as nobody", "/work as nobody"],
}
# Parts of pages, files, pictures, and addresses that only lead on.
NO_PAGES = {
    "/account/name",
    "/account/password",
    "/account/tokens",
    f"{COLLECTION}/finds/finds.csv",
    f"{COLLECTION}/indexes",
    f"{COLLECTION}/labels/{{name}}",
    f"{COLLECTION}/names",
    f"{COLLECTION}/progress",
    f"{REPLAY}/progress",
    f"{REPLAY}/run/rounds.csv",
    f"{REPLAY}/run/{{part}}",
    f"{REPLAY}/{{name}}",
    "/exports/{export_id}/file",
    "/images/{image_id}/original",
    "/images/{image_id}/{size}",
    "/metrics",
    "/overview/disk",
    "/overview/rounds.csv",
    "/people/{person_id}/close",
    "/people/{person_id}/name",
    "/people/{person_id}/reset",
    "/people/{person_id}/role",
    "/photos/{photo_id}/{size}",
    f"{SEARCH}/dashboard/tables/{{name}}.csv",
    f"{SEARCH}/dashboard/{{part}}",
    f"{SEARCH}/export.{{file_format}}",
    f"{SEARCH}/exports/{{name}}",
    f"{SEARCH}/upcoming",
    "/uploads/{upload_id}/files",
}
NOWHERE = "/nowhere"


def list_pages() -> list[str]:
    """Every page of the application, one that nobody has thought of here among them."""
    app = create_app(Settings(home=Path("/nowhere"), database_url=None))
    routes = {
        route.path
        for route in iter_route_contexts(app.routes)
        if "GET" in (route.methods or ()) and not route.path.startswith("/api/")
    }
    assert routes >= NO_PAGES | set(FORMS), (NO_PAGES | set(FORMS)) - routes
    pages = sorted(routes - NO_PAGES)
    return [form for page in pages for form in FORMS.get(page, [page])] + [NOWHERE]


@dataclass
class World:
    """A server on which there is something on every page, and windows of those who look at it."""

    server: Server
    windows: dict[str, Page]
    ids: dict[str, str] = field(default_factory=dict)  # what stands for what in an address

    @property
    def request(self) -> APIRequestContext:
        return self.windows["admin"].request

    def get(self, path: str) -> str:
        answer = self.request.get(self.server.address + path.format(**self.ids))
        assert answer.ok, (path, answer.status)
        return answer.text()

    def post(
        self, path: str, form: dict | None = None, *, who: str = "admin", **more
    ) -> APIResponse:
        answer = self.windows[who].request.post(
            self.server.address + path.format(**self.ids), form=form, headers=OWN, **more
        )
        assert answer.ok, (path, answer.status, answer.text())
        return answer

    def note(self, name: str, pattern: str, answer: APIResponse) -> None:
        found = re.search(pattern, answer.url) or re.search(pattern, answer.text())
        assert found, (name, answer.url)
        self.ids[name] = found[1]


def fill(world: World) -> None:
    """Something on every page."""
    world.server.sign_in(world.windows["admin"])
    world.ids["collection_id"] = "1"
    browse = "".join(world.get(f"{COLLECTION}/browse?page={page}") for page in (1, 2))
    images = dict(re.findall(r'/images/(\d+)"\s+title="([^"]+)"', browse))
    striped = [number for number, path in images.items() if path.startswith("striped/")]
    other = [number for number in images if number not in striped]
    world.ids["image_id"] = striped[0]
    for name, role in {"Ada": "evaluator", "Ben": "ecologist", "Cleo": "viewer"}.items():
        added = world.post("/people", {"name": name, "role": role})
        link = re.search(r"/password\?token=[\w.~-]+", added.text())[0]
        world.ids["password_link"] = link
        if name in world.windows:
            form = {"token": link.split("=")[1], "password": PASSWORD, "again": PASSWORD}
            world.post("/password", form, who=name)
    add_table(world, list(images.values()))
    world.post(f"{COLLECTION}/deployments/folders")
    world.post(f"{COLLECTION}/events", {"kind": "bursts", "gap_s": "60"})
    world.post(f"{COLLECTION}/people", {"image_ids": other[0]})
    world.post(f"{COLLECTION}/removed", {"image_ids": other[1]})
    world.note("upload_id", r"/uploads/(\d+)", world.post(f"{COLLECTION}/uploads"))
    world.post(f"{COLLECTION}/tray", {"image_id": striped[1]})
    for name in ("other_replay_id", "replay_id"):
        form = {
            "targets": "striped",
            "strategies": "pf-ma",
            "rounds": "3",
            "size": "6",
            "seeds": "1",
        }
        world.note(name, r"/replays/(\d+)", world.post(f"{COLLECTION}/replays", form))
    for name in ("new_id", "search_id"):
        form = {"target_name": "Sergeant", "round_size": "12", "image_ids": striped[0]}
        opened = world.post(f"{COLLECTION}/searches", form | {"strategy": "pf-ma"})
        world.note(name, r"/searches/(\d+)", opened)
    for _ in range(4):
        answer_round(world, images)
    world.post(f"{SEARCH}/remarks", {"text": "By the pier"})
    world.post(f"{SEARCH}/view", {"open_to_view": "yes"})
    world.post(f"{SEARCH}/members", {"name": "Ada"})
    world.post("/exports", {"search_id": world.ids["search_id"], "name": "coco.json"})
    give_second_opinion(world)


def give_second_opinion(world: World) -> None:
    """Ada says no to all, so that there is something to settle."""
    form = {"name": "Ada", "kind": "positives", "size": "20"}
    world.note("review_id", r"/reviews/(\d+)", world.post(f"{SEARCH}/reviews", form))
    reviews = "/reviews/{review_id}".format(**world.ids)
    asked = world.windows["Ada"].request.get(world.server.address + reviews).text()
    names = set(re.findall(r'name="(answer-\d+)"', asked))
    world.post(reviews, dict.fromkeys(names, "no"), who="Ada")


def add_table(world: World, paths: list[str]) -> None:
    """When and where each image was taken."""
    lines = io.StringIO()
    table = csv.writer(lines)
    table.writerow(["file", "date", "lat", "lon", "depth"])
    for number, path in enumerate(paths):
        moment = f"2026-05-{1 + number // 12:02} {number % 12 + 6:02}:{number % 3:02}:00"
        place = (f"{47 + number % 5 / 10:.4f}", f"{8 + number % 3 / 10:.4f}")
        table.writerow([path, moment, *place, number])
    file = {"name": "places.csv", "mimeType": "text/csv", "buffer": lines.getvalue().encode()}
    world.post(f"{COLLECTION}/metadata", multipart={"table": file})
    world.ids["table_id"] = re.search(r"removal\?table=(\d+)", world.get(f"{COLLECTION}/metadata"))[
        1
    ]


def answer_round(world: World, images: dict[str, str]) -> None:
    grid = world.get(SEARCH)
    form = {"round_id": re.search(r'data-round="(\d+)"', grid)[1], "rest": "no"}
    for number in re.findall(r'data-image="(\d+)"', grid):
        form[f"answer-{number}"] = "yes" if images[number].startswith("striped/") else "no"
    world.post(f"{SEARCH}/submit", form)


def answer_some(page: Page) -> None:
    for key in ("y", "n", "u"):
        with page.expect_response(re.compile("/answers$")):
            page.keyboard.press(key)


def open_large(page: Page) -> None:
    expect(page.locator(".picture-card.current")).to_be_focused()
    page.keyboard.press("f")
    expect(page.locator("#large img").first).to_be_visible()


def open_keys(page: Page) -> None:
    expect(page.locator(".picture-card.current")).to_be_focused()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keys")).to_be_visible()


def add_token(page: Page) -> None:
    page.get_by_label("Name of the program").fill(f"R {time.time_ns()}")
    page.get_by_role("button", name="Make a token").click()
    expect(page.locator("#token")).to_be_visible()


def add_person(page: Page) -> None:
    page.get_by_label("Name", exact=True).fill(f"Dora {time.time_ns()}")
    page.get_by_role("button", name="Add and make a link").click()
    expect(page.locator("#password-link")).to_be_visible()


def refuse_table(page: Page) -> None:
    table = {"name": "bad.csv", "mimeType": "text/csv", "buffer": b"depth\n1\n"}
    page.locator("input[name=table]").set_input_files(table)
    page.locator("form:has(input[name=table]) button").first.click()
    expect(page.get_by_role("alert").filter(has_text="bad.csv")).to_be_visible()


ACTS: dict[str, Callable[[Page], None]] = {
    "answers": answer_some,
    "large": open_large,
    "keys": open_keys,
    "token": add_token,
    "link": add_person,
    "table": refuse_table,
}


def visit(world: World, form: str) -> Page:
    """The page in the window of who looks at it, with all that is folded away open."""
    address, _, who = form.partition(" as ")
    address, _, act = address.partition(" after ")
    page = world.windows[who or "admin"]
    page.set_viewport_size({"width": WIDTHS[0], "height": 800})
    page.goto(world.server.address + address.format(**world.ids))
    if act:
        ACTS[act](page)
    page.evaluate(OPEN)
    expect(page.locator(".placeholder")).to_have_count(0)
    return page


def is_too_wide(page: Page) -> bool:
    return page.evaluate("document.documentElement.scrollWidth > innerWidth")


def find_wrong(page: Page) -> Iterator[str]:
    """What is wrong with a page in light and dark, wide and narrow."""
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 800})
        if is_too_wide(page):
            yield f"{width}: wider than the window"
    page.evaluate(SHORTEN)
    for width, scheme, rules in LOOKS:
        page.set_viewport_size({"width": width, "height": 800})
        page.emulate_media(color_scheme=scheme)
        for found in page.evaluate("rules => axe.run(rules)", rules)["violations"]:
            if found["impact"] != "minor":
                for node in found["nodes"]:
                    why = " ".join(node["failureSummary"].splitlines()[1:])
                    yield f"{width} {scheme}: {found['id']} {node['target']} {why}"


@pytest.fixture(scope="module")
def world(chromium: Browser, make_server, drawn_images: Path) -> Iterator[World]:
    """A server of its own: people are added, images removed and hidden."""
    opened = {name: open_page(chromium) for name in ("admin", "Ada", "Ben", "nobody")}
    world = World(make_server(drawn_images), {name: next(one) for name, one in opened.items()})
    fill(world)
    for window in world.windows.values():
        window.context.add_init_script(Axe().axe_script)
    yield world
    for one in opened.values():
        next(one, None)


def test_every_page_by_axe(world: World) -> None:
    wrong = [f"{form}: {one}" for form in list_pages() for one in find_wrong(visit(world, form))]
    assert not wrong, "\n".join(wrong)


def test_fingers_meet_what_can_be_pressed(world: World, phone: Page) -> None:
    world.server.sign_in(phone)
    small: set[str] = set()
    for form in (
        "/",
        "/account",
        "/people",
        COLLECTION,
        f"{COLLECTION}/browse",
        f"{COLLECTION}/metadata",
        f"{COLLECTION}/replays",
        SEARCH,
        f"{SEARCH}/card",
        f"{SEARCH}/dashboard?whole=1",
        f"{SEARCH}/results",
    ):
        phone.goto(world.server.address + form.format(**world.ids))
        phone.evaluate(OPEN)
        small |= {f"{form}: {one}" for one in phone.evaluate(LOW)}
        assert not is_too_wide(phone), form
    assert not small, "\n".join(sorted(small))
