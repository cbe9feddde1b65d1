"""A collection prepared by an OpenCLIP model from a local weight file, and searched by words."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from app.engine.words import PROMPTS
from tests.browser.server import Server
from tests.stand_ins import make_tiny_clip

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(300)]

WORDS = "striped fish"
ROUNDING = 1e-5  # of a cosine computed in another batch; see also the spread asserted below


@pytest.fixture(scope="module")
def tiny_clip(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tiny-clip")
    make_tiny_clip(folder)
    return folder


@pytest.fixture(scope="module")
def pictures(drawn_images, tmp_path_factory) -> Path:
    """As PNG: large JPEGs are decoded at part of their size, which a drawn model takes ill."""
    folder = tmp_path_factory.mktemp("pictures")
    for file in drawn_images.glob("*/*.jpg"):
        Image.open(file).save(folder / f"{file.stem}.png")
    return folder


@pytest.fixture(scope="module")
def server(chromium, pictures, tiny_clip):
    with tempfile.TemporaryDirectory(prefix="rarefind-test-home-") as home:
        server = Server(home=Path(home))
        server.run(
            "collection",
            "add",
            "Reef",
            str(pictures),
            "--embedder",
            f"open_clip:local-dir:{tiny_clip}",
        )
        server.start()
        yield server
        server.stop()


@pytest.fixture(scope="module")
def similarities(pictures, tiny_clip) -> dict[str, float]:
    """Of every file to the words, by OpenCLIP itself from the same weights."""
    import open_clip
    import torch

    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{tiny_clip}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{tiny_clip}")
    files = sorted(pictures.iterdir())
    with torch.inference_mode():
        pixels = torch.stack([transform(Image.open(file).convert("RGB")) for file in files])
        images = model.eval().encode_image(pixels, normalize=True)
        texts = tokenizer([prompt.format(WORDS) for prompt in PROMPTS])
        words = model.encode_text(texts, normalize=True).mean(dim=0)
        cosines = (images @ (words / words.norm())).tolist()
    assert np.std(cosines) > 100 * ROUNDING, "else any order would pass"
    return {file.name: cosine for file, cosine in zip(files, cosines, strict=True)}


def assert_best_first(shown: list[str], similarities: dict[str, float]) -> None:
    best = sorted(similarities.values(), reverse=True)[: len(shown)]
    assert [similarities[name] for name in shown] == pytest.approx(best, abs=ROUNDING)
    assert len(set(shown)) == len(shown)


def test_from_sign_in_to_a_round_answered_by_words(server, page, similarities):
    server.sign_in(page)
    page.goto(f"{server.address}/collections/1")
    page.get_by_role("link", name="Start a search").click()
    page.get_by_label("What are you looking for?").fill("Sergeant")
    page.get_by_label("Describe it in words").fill(WORDS)
    page.get_by_role("button", name="Start the search").click()
    expect(page.locator(".search-round")).to_have_text("Round 1")
    expect(page.get_by_text(f"Opened with the words “{WORDS}”")).to_be_visible()
    cards = page.locator(".picture-card")
    expect(cards).to_have_count(12)
    shown = cards.evaluate_all("cards => cards.map((card) => card.dataset.name)")
    assert_best_first(shown, similarities)
    expect(page.locator(".picture-card.current")).to_have_count(1)  # keys are heard now
    for key in "yynnnnnnnnnn":
        with page.expect_response("**/answers"):
            page.keyboard.press(key)
    page.keyboard.press("Enter")
    expect(page.locator(".search-round")).to_have_text("Round 2")
    expect(page.locator(".search-found strong")).to_have_text("2")
    expect(cards).to_have_count(12)
    after = cards.evaluate_all("cards => cards.map((card) => card.dataset.name)")
    assert not set(after) & set(shown)


def test_words_find_images_while_browsing_without_scripts(
    server, page_without_scripts, similarities
):
    page = page_without_scripts
    server.sign_in(page)
    page.goto(f"{server.address}/collections/1/browse")
    page.get_by_label("Words for what the images show").fill(WORDS)
    page.get_by_role("button", name="Find", exact=True).click()
    expect(page.get_by_role("heading", name=f"Images that fit “{WORDS}”").last).to_be_visible()
    tiles = page.locator(".tile img")
    shown = tiles.evaluate_all("all => all.map((image) => image.alt)")
    page.get_by_role("link", name="Next").first.click()
    shown += tiles.evaluate_all("all => all.map((image) => image.alt)")
    assert_best_first(shown, similarities)
    assert len(shown) == len(similarities) == 120
    figures = page.locator(".tile-name").first.inner_text().split()[0]
    assert float(figures) == pytest.approx(similarities[shown[60]], abs=6e-4)
    page.get_by_role("link", name="Start a search with these words").click()
    expect(page.get_by_label("Describe it in words")).to_have_value(WORDS)
    page.get_by_role("button", name="Start the search").click()
    expect(page.locator(".search-round")).to_have_text("Round 1")


@pytest.mark.parametrize("width", [390, 320])
def test_two_rows_at_most_stand_above_the_pictures_of_a_phone(server, page, width):
    page.set_viewport_size({"width": width, "height": 800})
    server.sign_in(page)
    page.goto(f"{server.address}/collections/1/browse?order=added")
    toolbar = page.locator(".toolbar")
    shown = [
        one.bounding_box() for one in toolbar.locator(".filters > a, summary, input, button").all()
    ]
    rows = {round((box["y"] + box["height"] / 2) / 20) for box in shown if box}
    assert len(rows) == 2
    assert page.locator(".tile").first.bounding_box()["y"] < 180
    assert not page.evaluate("document.documentElement.scrollWidth > innerWidth")
    toolbar.locator("summary").click()
    menu = toolbar.locator(".menu-body").bounding_box()
    assert menu["x"] >= 0
    assert menu["x"] + menu["width"] <= width
    with page.expect_navigation():
        toolbar.get_by_role("link", name="By folder and file").click()
    assert "order=path" in page.url
