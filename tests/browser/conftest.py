"""Real servers with collections of images, and a real Chromium that looks at them."""

import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from playwright.sync_api import Browser, Page, sync_playwright

from tests.browser.server import Server

CHROMIUM_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def chromium(request: pytest.FixtureRequest) -> Iterator[Browser]:
    """The system's Chromium; without one these tests are skipped, unless they are required."""
    found = find_chromium()
    if found is None:
        missing = "no chromium on this machine: install Debian's package chromium"
        if os.environ.get("RAREFIND_REQUIRE_BROWSER") == "1":
            pytest.fail(f"RAREFIND_REQUIRE_BROWSER=1, but there is {missing}")
        pytest.skip(missing)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=CHROMIUM_ARGUMENTS)
        yield browser
        browser.close()


def find_chromium() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="session")
def make_empty_server() -> Iterator[Callable[[], Server]]:
    """Makes servers that are not started yet, without a collection."""
    with ExitStack() as stack:

        def make() -> Server:
            # Not under pytest's own folder: as root, PostgreSQL runs as a user that may not enter.
            home = stack.enter_context(tempfile.TemporaryDirectory(prefix="rarefind-test-home-"))
            server = Server(home=Path(home))
            stack.callback(server.stop)
            return server

        yield make


@pytest.fixture(scope="session")
def make_server(make_empty_server: Callable[[], Server]) -> Callable[[Path], Server]:
    """Makes servers that run, each with one collection imported from a folder."""

    def make(images: Path) -> Server:
        server = make_empty_server()
        server.run("collection", "add", "Reef", str(images), "--labels", "folders")
        server.start()
        return server

    return make


@pytest.fixture(scope="session")
def drawn_server(
    chromium: Browser, make_server: Callable[[Path], Server], drawn_images: Path
) -> Server:
    """A server whose collection is drawn: 12 images of a rare kind among 108 others."""
    return make_server(drawn_images)


@pytest.fixture(scope="session")
def drawn_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Discs on water: the rare kind is striped, the others are plain or spotted."""
    folder = tmp_path_factory.mktemp("drawn")
    rng = np.random.default_rng(7)
    for kind, count in {"striped": 12, "plain": 60, "spotted": 48}.items():
        (folder / kind).mkdir()
        for number in range(count):
            draw_fish(rng, kind).save(folder / kind / f"{rng.integers(10**9):09}_{number:03}.jpg")
    return folder


def draw_fish(rng: np.random.Generator, kind: str) -> Image.Image:
    width, height = int(rng.integers(180, 320)), int(rng.integers(140, 240))
    water = rng.integers(90, 170)
    image = Image.new("RGB", (width, height), (30, int(water), int(water) + 40))
    draw = ImageDraw.Draw(image)
    x, y = rng.uniform(0.3, 0.7) * width, rng.uniform(0.3, 0.7) * height
    long, tall = rng.uniform(0.25, 0.4) * width, rng.uniform(0.15, 0.3) * height
    body = (225, 215, 120) if kind == "striped" else (120, 90, 80)
    draw.polygon([(x - long, y), (x - 1.5 * long, y - tall), (x - 1.5 * long, y + tall)], fill=body)
    draw.ellipse([x - long, y - tall, x + long, y + tall], fill=body)
    for place in np.linspace(-0.6, 0.6, 5):
        left, reach = x + place * long, tall * (1 - place**2) ** 0.5
        if kind == "striped":
            draw.rectangle([left - 5, y - reach, left + 5, y + reach], fill=(20, 20, 20))
        elif kind == "spotted":
            draw.ellipse([left - 6, y - 6, left + 6, y + 6], fill=(240, 240, 240))
    return image


@pytest.fixture(scope="session")
def fish_images(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real underwater crops: all 42 of a rare species, and 250 of five common ones."""
    folder = tmp_path_factory.mktemp("fish")
    taken: dict[str, int] = {}
    with zipfile.ZipFile(shared_data / "fish.zip") as fish:
        for name in sorted(fish.namelist()):
            species = name.split("/")[0]
            most = 42 if species.startswith("11_") else 50 if species < "06_" else 0
            if name.endswith(".jpg") and taken.get(species, 0) < most:
                taken[species] = taken.get(species, 0) + 1
                fish.extract(name, folder)
    assert len(taken) == 6, taken
    return folder


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    """A fresh browser window; any error in a script of the page fails the test."""
    yield from open_page(chromium)


@pytest.fixture
def phone(chromium: Browser) -> Iterator[Page]:
    """As `page`, held in a hand."""
    yield from open_page(
        chromium, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True
    )


@pytest.fixture
def page_without_scripts(chromium: Browser) -> Iterator[Page]:
    """As `page`, with JavaScript switched off."""
    yield from open_page(chromium, java_script_enabled=False)


def open_page(chromium: Browser, **more: object) -> Iterator[Page]:
    context = chromium.new_context(
        **{"viewport": {"width": 1280, "height": 800}, "reduced_motion": "reduce"} | more
    )
    page = context.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    # A page that breaks the content security policy says so in the console alone.
    page.on(
        "console",
        lambda said: wrong.append(said.text) if "Content Security Policy" in said.text else None,
    )
    page.set_default_timeout(20_000)
    yield page
    context.close()
    assert not wrong, wrong
