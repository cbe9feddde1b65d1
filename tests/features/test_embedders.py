"""Embedders in use: chosen, found missing, exchanged; and what pictures of every kind come to."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import open_clip
import PIL.Image
import PIL.ImageOps
import pytest
import torch
from sqlalchemy import select
from sqlalchemy.orm import Session
from torch import nn

from app.collecting import describe_preparation
from app.database import Database
from app.embedders import EmbedderChoice, list_embedders
from app.engine.embedders import load_embedder
from app.engine.index import read_manifest
from app.errors import BadInput, EmbedderMismatch, EmbedderNotUsable
from app.importing import import_images
from app.indexing import LoadedEmbedders, OpenIndexes, build_index, check_embedder, fetch_embedder
from app.preparing import Original, prepare_files
from app.settings import Settings
from app.tables import Collection, Image, ImageIndex, Import
from app.workers import Readers
from tests.factories import make_collection, make_image_file
from tests.stand_ins import make_tiny_clip


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"workers": 1, "device": "cpu"})


@pytest.fixture
def collection(database: Database, settings: Settings, tmp_path: Path) -> Collection:
    """Four photos, imported."""
    with database.session() as session:
        collection = make_collection(session)
    for number in range(4):
        make_image_file(tmp_path / "photos" / f"{number}.png", number, file_format="PNG")
    import_images(database, collection.id, tmp_path / "photos", settings=settings)
    return collection


def load(file: str | Path) -> PIL.Image.Image:
    """As examples of these libraries load pictures."""
    with PIL.Image.open(file) as picture:
        return PIL.ImageOps.exif_transpose(picture).convert("RGB")


def test_a_collection_is_prepared_from_weights_in_the_folder(
    database: Database, collection: Collection, settings: Settings, no_hub: None
) -> None:
    make_tiny_clip(settings.weights_folder / "someone" / "tiny")
    name = "open_clip:hf-hub:someone/tiny"
    row = build_index(database, collection.id, settings=settings, embedder=name)
    index = OpenIndexes(settings).get(row)
    embedder = load_embedder(name, device="cpu", weights_folder=settings.weights_folder)
    with database.session() as session:
        files = {row.id: row.file for row in session.execute(select(Image.id, Image.file))}
    pictures = [load(files[image_id]) for image_id in index.image_ids]
    expected = embedder.embed_images(np.stack([embedder.prepare(one) for one in pictures]))
    np.testing.assert_allclose(index.vectors, expected, atol=1e-6)
    manifest = read_manifest(settings.home / "indexes" / str(row.id))
    assert manifest.revision == row.revision == embedder.revision
    assert row.knows_words


def test_exchanged_weights_are_refused_until_the_images_are_prepared_again(
    database: Database, collection: Collection, settings: Settings, no_hub: None
) -> None:
    folder = settings.weights_folder / "someone" / "tiny"
    name = "open_clip:hf-hub:someone/tiny"
    make_tiny_clip(folder, seed=0)
    first = build_index(database, collection.id, settings=settings, embedder=name)
    assert LoadedEmbedders(settings, Readers(settings)).get(first).revision == first.revision
    make_tiny_clip(folder, seed=1)
    with pytest.raises(EmbedderMismatch, match=f"rarefind index build.*--embedder {name}"):
        LoadedEmbedders(settings, Readers(settings)).get(first)
    second = build_index(database, collection.id, settings=settings, embedder=name)
    assert second.id > first.id
    assert (
        LoadedEmbedders(settings, Readers(settings)).get(second).revision
        == second.revision
        != first.revision
    )
    vectors = [np.array(OpenIndexes(settings).get(row).vectors) for row in (first, second)]
    assert np.abs(vectors[0] - vectors[1]).max() > 0.01
    (folder / "open_clip_model.safetensors").unlink()
    with pytest.raises(EmbedderMismatch, match=r"can't be used now.*put it into"):
        LoadedEmbedders(settings, Readers(settings)).get(second)


@pytest.mark.parametrize("name", ["clip-b32", "open_clip:local-dir:/nowhere", "timm:nonsense"])
def test_what_cannot_be_loaded_leaves_its_reason_on_the_collections_page(
    database: Database, collection: Collection, settings: Settings, no_hub: None, name: str
) -> None:
    with pytest.raises((EmbedderNotUsable, BadInput)) as refused:
        build_index(database, collection.id, settings=settings, embedder=name)
    with database.session() as session:
        [row] = session.scalars(select(ImageIndex))
        preparation = describe_preparation(session, collection, now=datetime.now(UTC))
    assert (row.embedder, row.state, row.problem) == (name, "failed", str(refused.value))
    assert (preparation.stage, preparation.problem) == ("stopped", str(refused.value))
    built = build_index(database, collection.id, settings=settings)
    assert built.state == "ready"


def test_a_wrong_name_is_told_from_weights_that_may_still_come(
    settings: Settings, no_hub: None
) -> None:
    for name in ("clip-l14", "open_clip:ViT-B-32:laion2b_s34b_b79k", "timm:resnet18.a1_in1k"):
        check_embedder(name)
        with pytest.raises(EmbedderNotUsable, match=f"put it into {settings.weights_folder}/"):
            fetch_embedder(name, settings)
    for name in ("eagle-eye", "open_clip:ViT-B-32:nonsense", "timm:eagle_eye"):
        for refuse in (check_embedder, lambda name: fetch_embedder(name, settings)):
            with pytest.raises(BadInput, match="no "):
                refuse(name)


# --- Choosing -----------------------------------------------------------------------------------


def choices(session: Session, settings: Settings) -> dict[str, EmbedderChoice]:
    return {choice.name: choice for choice in list_embedders(session, settings)}


def test_embedders_say_what_they_take(session: Session, settings: Settings, no_hub: None) -> None:
    known = choices(session, settings)
    assert list(known)[:2] == ["efficientnet-lite0", "clip-b32"]
    bundled = known["efficientnet-lite0"]
    assert (bundled.is_on_disk, bundled.files, bundled.knows_words) == (True, (), False)
    siglip = known["siglip2-b16"]
    assert (siglip.is_on_disk, siglip.size_mb, siglip.knows_words) == (False, 1501, True)
    for file in siglip.files:
        assert not choices(session, settings)["siglip2-b16"].is_on_disk
        path = settings.weights_folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert choices(session, settings)["siglip2-b16"].is_on_disk


def test_speed_is_told_by_builds_that_embedded_everything(
    session: Session, settings: Settings
) -> None:
    start = datetime(2026, 5, 1, tzinfo=UTC)

    def add(
        collection: Collection,
        image_count: int,
        seconds: float,
        state: str = "ready",
        copied_count: int = 0,
    ) -> None:
        nonlocal start
        start += timedelta(hours=1)
        session.add(
            ImageIndex(
                collection_id=collection.id,
                embedder="clip-b32",
                revision="1",
                dimension=512,
                state=state,
                image_count=image_count,
                done_count=image_count,
                copied_count=copied_count,
                started_at=start,
                ready_at=start + timedelta(seconds=seconds) if state == "ready" else None,
            )
        )
        session.flush()

    def speed() -> float | None:
        return choices(session, settings)["clip-b32"].per_second

    pond, lake = make_collection(session, name="Pond"), make_collection(session, name="Lake")
    assert speed() is None
    add(pond, 99, 1)
    assert speed() is None  # too few to tell
    add(lake, 1_000, 50)
    assert speed() == 20
    add(lake, 1_010, 2, copied_count=1_000)  # took over what the first had
    assert speed() == 20
    add(make_collection(session, name="Sea"), 1_000, 1, state="failed")
    assert speed() == 20
    add(make_collection(session, name="Bay"), 300, 3)
    assert speed() == 100
    late = start + timedelta(days=1)
    run = Import(
        collection_id=pond.id,
        source="/photos/pond",
        embedder="clip-b32",
        state="done",
        imported_count=400,
        started_at=late,
        ended_at=late + timedelta(seconds=10),
    )
    session.add(run)  # it made the vectors on the way
    session.flush()
    assert speed() == 40
    run.imported_count = 99
    assert speed() == 100
    assert choices(session, settings)["clip-l14"].per_second is None


# --- Pictures of every kind ---------------------------------------------------------------------


def save_rgb(picture: PIL.Image.Image, path: Path) -> None:
    picture.save(path, "PNG")


def save_turned(picture: PIL.Image.Image, path: Path) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    picture.transpose(PIL.Image.Transpose.ROTATE_90).save(path, "PNG", exif=exif)


def save_alpha(picture: PIL.Image.Image, path: Path) -> None:
    picture.putalpha(255)
    picture.save(path, "PNG")


SAVES: dict[str, Callable[[PIL.Image.Image, Path], None]] = {
    "RGB": save_rgb,
    "opaque alpha": save_alpha,
    "EXIF-turned": save_turned,
    "grey": lambda picture, path: picture.convert("L").save(path, "PNG"),
    "grey JPEG": lambda picture, path: picture.convert("L").save(path, "JPEG"),
    "palette": lambda picture, path: picture.quantize(64).save(path, "PNG"),
    "palette GIF": lambda picture, path: picture.quantize(64).save(path, "GIF"),
    "black and white": lambda picture, path: picture.convert("1").save(path, "TIFF"),
    "JPEG": lambda picture, path: picture.save(path, "JPEG"),
    "JPEG of full colour": lambda picture, path: picture.save(path, "JPEG", subsampling=0),
    "CMYK JPEG": lambda picture, path: picture.convert("CMYK").save(path, "JPEG"),
    "CMYK TIFF": lambda picture, path: picture.convert("CMYK").save(path, "TIFF"),
    "WebP": lambda picture, path: picture.save(path, "WEBP"),
    "BMP": lambda picture, path: picture.save(path, "BMP"),
}
SIZES = [(61, 47), (32, 32), (90, 33), (5, 7)]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory):
    """A small CLIP through ours, and through OpenCLIP with its own transform."""
    folder = tmp_path_factory.mktemp("tiny")
    ours = load_embedder(make_tiny_clip(folder), device="cpu")
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    model.eval()

    def theirs(pictures: list[PIL.Image.Image]) -> np.ndarray:
        with torch.inference_mode():
            features = model.encode_image(torch.stack([transform(one) for one in pictures]))
        return nn.functional.normalize(features, dim=1).numpy()

    return ours, theirs


def make_pictures() -> list[PIL.Image.Image]:
    rng = np.random.default_rng(5)
    small = [PIL.Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)) for _ in SIZES]
    return [
        one.resize(size, PIL.Image.Resampling.BICUBIC)
        for one, size in zip(small, SIZES, strict=True)
    ]


def give_vectors(ours, files: list[Path]) -> np.ndarray:
    """By the whole way, from the file on."""
    originals = [Original(str(file), file.stat().st_size) for file in files]
    return ours.embed_images(np.stack(prepare_files(originals, ours.prepare, 100)))


@pytest.mark.parametrize("kind", SAVES)
def test_pictures_get_the_vectors_of_open_clip_whatever_their_kind(tmp_path, tiny, kind):
    ours, theirs = tiny
    files = [tmp_path / str(number) for number in range(len(SIZES))]
    for picture, file in zip(make_pictures(), files, strict=True):
        SAVES[kind](picture, file)
    expected = theirs([load(file) for file in files])
    np.testing.assert_allclose(give_vectors(ours, files), expected, atol=1e-5, rtol=0)
    assert np.abs(expected[0] - expected[1]).max() > 1e-3


def test_transparent_parts_are_white_and_sixteen_bits_become_eight(tmp_path, tiny):
    """Where the usual loading would show what a person never sees, or nothing but white."""
    ours, theirs = tiny
    [picture, *_] = make_pictures()
    veil = PIL.Image.linear_gradient("L").resize(picture.size)
    clear = picture.copy()
    clear.putalpha(veil)
    clear.save(tmp_path / "clear.png")
    white = PIL.Image.new("RGB", picture.size, "white")
    seen = PIL.Image.composite(picture, white, veil)
    grey = np.asarray(picture.convert("L"))
    deep = PIL.Image.fromarray(grey.astype(np.uint16) * 257)
    deep.save(tmp_path / "deep.png")
    shown = PIL.Image.fromarray(grey).convert("RGB")
    actual = give_vectors(ours, [tmp_path / "clear.png", tmp_path / "deep.png"])
    np.testing.assert_allclose(actual, theirs([seen, shown]), atol=2e-3, rtol=0)
    unseen = theirs([load(tmp_path / "clear.png")])
    assert np.abs(actual[:1] - unseen).max() > 0.01
