"""Vectors made while importing: the same as those of a second pass, whatever stops or changes."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from sqlalchemy import select

from app import ahead
from app.database import PROJECT, Database
from app.importing import import_images
from app.indexing import OpenIndexes, build_index
from app.settings import Settings
from app.tables import Image, ImageIndex, Import
from tests.factories import make_collection, make_image_file
from tests.stand_ins import HashEmbedder, register

pytestmark = pytest.mark.slow

DEFAULT = "efficientnet-lite0"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"workers": 1, "device": "cpu"})


@pytest.fixture
def embedder(monkeypatch: pytest.MonkeyPatch) -> HashEmbedder:
    embedder = HashEmbedder()
    register(monkeypatch, embedder)
    return embedder


def make_noise_file(path: Path, number: int, size: tuple[int, int] = (60, 40)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    PIL.Image.fromarray(pixels).save(path)
    return path


def new_collection(database: Database, name: str) -> int:
    with database.session() as session:
        return make_collection(session, name=name).id


def read_index(database: Database, settings: Settings, row: ImageIndex) -> dict[str, np.ndarray]:
    """The vectors of an index by the paths of their images."""
    index = OpenIndexes(settings).get(row)
    with database.session() as session:
        paths = dict(session.execute(select(Image.id, Image.path)).all())
    return {
        paths[image_id]: index.vectors[number]
        for number, image_id in enumerate(index.image_ids.tolist())
    }


def list_kept(settings: Settings) -> list[Path]:
    return list((settings.home / "indexes").glob("ahead-*"))


def list_sizes(folder: Path) -> dict[str, tuple[int, int]]:
    sizes = {}
    for path in folder.rglob("*.jpg"):
        with PIL.Image.open(path) as thumbnail:
            sizes[path.name] = thumbnail.size
    return sizes


def test_one_pass_makes_the_vectors_that_two_make(
    database: Database, settings: Settings, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    coarse = PIL.Image.fromarray(
        np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    )
    for name, size, options in (
        ("half.jpg", (2000, 1500), {}),  # one decoding for all
        ("turned.jpg", (2000, 1500), {"exif": exif}),
        ("quarter.jpg", (4160, 3120), {}),
        ("half for the model, whole for thumbnails.jpg", (1600, 1200), {}),
        ("panorama.jpg", (5000, 600), {}),
        ("grey.jpg", (2000, 1500), {}),
        ("small.jpg", (90, 70), {}),
        ("large.png", (1500, 1000), {}),
        ("turned.png", (300, 200), {"exif": exif}),
        ("turned.tif", (1500, 300), {"exif": exif}),
    ):
        picture = coarse.resize(size, PIL.Image.Resampling.BICUBIC)
        if name == "grey.jpg":
            picture = picture.convert("L")
        picture.save(source / name, **options)
    shutil.copy(source / "small.jpg", source / "small again.jpg")
    (source / "broken.jpg").write_bytes((source / "half.jpg").read_bytes()[:900])

    apart = new_collection(database, "Apart")
    import_images(database, apart, source, settings=settings)
    by_two = build_index(database, apart, settings=settings)
    at_once = settings.model_copy(update={"home": tmp_path / "at-once"})
    collection_id = new_collection(database, "At once")
    summary = import_images(database, collection_id, source, settings=at_once, embedder=DEFAULT)
    assert (summary.imported, summary.duplicates, len(summary.refused)) == (10, 1, 1)
    for path in source.iterdir():
        path.unlink()  # no file is read again
    by_one = build_index(database, collection_id, settings=at_once)

    assert (by_one.copied_count, by_two.copied_count) == (10, 0)
    expected = read_index(database, settings, by_two)
    found = read_index(database, at_once, by_one)
    assert found.keys() == expected.keys()
    for path, vector in expected.items():
        np.testing.assert_allclose(found[path], vector, atol=1e-5, err_msg=path)
    assert list_kept(at_once) == []
    assert list_sizes(at_once.home / "thumbnails") == list_sizes(settings.home / "thumbnails")


def test_only_new_content_is_embedded_on_the_way(
    database: Database, settings: Settings, embedder: HashEmbedder, tmp_path: Path
) -> None:
    collection_id = new_collection(database, "Pond")
    source = tmp_path / "source"
    for number in range(5):
        make_noise_file(source / f"{number}.png", number)
    import_images(database, collection_id, source, settings=settings)  # an import alone
    make_noise_file(source / "5.png", 5)
    source.rename(tmp_path / "moved")  # every file is read anew
    moved = tmp_path / "moved"
    shutil.copy(moved / "5.png", moved / "5 again.png")
    import_images(database, collection_id, moved, settings=settings, embedder="hash")
    assert embedder.embedded_count == 1
    row = build_index(database, collection_id, settings=settings, embedder="hash")
    assert (embedder.embedded_count, row.copied_count, row.image_count) == (6, 1, 6)
    for path, vector in read_index(database, settings, row).items():
        pixels = embedder.prepare(PIL.Image.open(moved / path))
        np.testing.assert_array_equal(vector, embedder.embed(pixels), err_msg=path)


def test_vectors_of_another_version_or_torn_ones_are_not_used(
    database: Database, settings: Settings, embedder: HashEmbedder, tmp_path: Path
) -> None:
    collection_id = new_collection(database, "Pond")
    source = tmp_path / "source"
    for number in range(4):
        make_noise_file(source / f"{number}.png", number)
    import_images(database, collection_id, source, settings=settings, embedder="hash")
    [kept] = list_kept(settings)
    size = kept.stat().st_size // 4
    with kept.open("r+b") as file:  # what a power cut may leave: a hole, and half a record
        file.seek(size + 40)
        file.write(bytes(48))
        file.truncate(4 * size - 7)
    make_noise_file(source / "4.png", 4)
    import_images(database, collection_id, source, settings=settings, embedder="hash")
    row = build_index(database, collection_id, settings=settings, embedder="hash")
    assert (row.image_count, row.copied_count) == (5, 3)
    for path, vector in read_index(database, settings, row).items():
        pixels = embedder.prepare(PIL.Image.open(source / path))
        np.testing.assert_array_equal(vector, embedder.embed(pixels), err_msg=path)
    assert ahead.path_of(settings, collection_id, "hash:1") != ahead.path_of(
        settings, collection_id, "hash:2"
    )


def test_an_embedder_that_is_not_at_hand_holds_no_import_up(
    database: Database, settings: Settings, no_hub: None, tmp_path: Path
) -> None:
    collection_id = new_collection(database, "Pond")
    make_image_file(tmp_path / "source" / "1.jpg")
    summary = import_images(
        database, collection_id, tmp_path / "source", settings=settings, embedder="clip-b32"
    )
    assert summary.imported == 1
    assert list_kept(settings) == []
    with database.session() as session:
        assert session.scalars(select(Import.embedder)).all() == [None]


KILLED_IMPORT = """
    import sys
    from pathlib import Path

    import pytest
    from sqlalchemy import create_engine

    from app.database import Database
    from app.importing import import_images
    from app.settings import Settings
    from tests.stand_ins import HashEmbedder, register

    if __name__ == "__main__":
        url, home, collection_id, source = sys.argv[1:]
        with pytest.MonkeyPatch.context() as patch:
            register(patch, HashEmbedder())
            patch.setattr("app.importing.CHUNK_FILES", 20)
            import_images(
                Database(create_engine(url)),
                int(collection_id),
                Path(source),
                settings=Settings(home=Path(home), workers=1),
                embedder="hash",
                progress=lambda done: print(done.imported_count, flush=True),
            )
"""


def test_a_killed_import_keeps_the_vectors_of_what_it_imported(
    own_database: Database, settings: Settings, embedder: HashEmbedder, tmp_path: Path
) -> None:
    collection_id = new_collection(own_database, "Pond")
    source = tmp_path / "source"
    for number in range(1_000):
        make_noise_file(source / f"{number:04}.png", number)
    script = tmp_path / "killed_import.py"
    script.write_text(textwrap.dedent(KILLED_IMPORT))
    url = own_database.bind.engine.url.render_as_string(hide_password=False)
    process = subprocess.Popen(
        [sys.executable, str(script), url, str(settings.home), str(collection_id), str(source)],
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    while int(process.stdout.readline()) < 100:
        pass
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    with own_database.session() as session:
        imported = len(session.scalars(select(Image.id)).all())
    assert 100 <= imported < 1_000
    # The index alone finds the vectors of all that was imported, and goes on without the others.
    row = build_index(own_database, collection_id, settings=settings, embedder="hash")
    assert (row.copied_count, row.image_count, embedder.embedded_count) == (imported, imported, 0)
    summary = import_images(own_database, collection_id, source, settings=settings, embedder="hash")
    assert (summary.known, summary.imported) == (imported, 1_000 - imported)
    row = build_index(own_database, collection_id, settings=settings, embedder="hash")
    assert (row.copied_count, embedder.embedded_count) == (1_000, 1_000 - imported)
    vectors = read_index(own_database, settings, row)
    assert len(vectors) == 1_000
    for path, vector in vectors.items():
        pixels = embedder.prepare(PIL.Image.open(source / path))
        np.testing.assert_array_equal(vector, embedder.embed(pixels), err_msg=path)
