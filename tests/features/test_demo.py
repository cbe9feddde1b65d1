"""The demo: what is drawn, and the whole job done on it."""

import csv
import io
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from sqlalchemy import create_engine, select

from app.database import Database, psycopg_url
from app.demo.drawing import IMAGES, LABELS, draw_collection, plan_shots, species_sizes
from app.demo.showing import COLLECTION, prepare_demo, replay_demo
from app.demo.species import LOOKALIKE, RARE, SPECIES
from app.demo.specimens import draw_image, draw_plate
from app.errors import BadInput, SourceNotUsable
from app.settings import Settings
from app.tables import Collection, OracleLabel, TrayItem

pytestmark = pytest.mark.slow

COUNT = 72  # at least two images of each of most species
SEED = 5


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    steps: list[tuple[int, int]] = []
    draw_collection(folder, seed=SEED, count=COUNT, progress=lambda *step: steps.append(step))
    assert steps == [(16, 72), (32, 72), (48, 72), (64, 72), (72, 72)]
    return folder


def read_labels(folder: Path) -> dict[str, str]:
    with (folder / LABELS).open(encoding="utf-8") as file:
        return {row["file"]: row["label"] for row in csv.DictReader(file)}


def test_sizes_have_a_long_tail_and_one_rare_species() -> None:
    sizes = species_sizes(3200)
    assert sum(sizes) == 3200
    assert len(sizes) >= 24
    assert sizes[RARE] == 28
    assert max(sizes) > 20 * min(sizes)
    assert sizes[LOOKALIKE] > 10 * sizes[RARE]
    others = sizes[:RARE] + sizes[RARE + 1 :]
    assert others == sorted(others, reverse=True)


def test_every_image_drawn_has_a_label_and_every_species_is_there(drawn: Path) -> None:
    labels = read_labels(drawn)
    files = {path.relative_to(drawn / IMAGES).as_posix() for path in drawn.glob("images/*/*")}
    assert files == set(labels)
    counts = Counter(labels.values())
    assert [counts[species.name] for species in SPECIES] == species_sizes(COUNT)
    assert len({(drawn / IMAGES / file).read_bytes() for file in files}) == COUNT


def test_names_and_folders_do_not_tell_the_species(drawn: Path) -> None:
    labels = read_labels(drawn)
    for folder in (drawn / IMAGES).iterdir():
        names = sorted(path.name for path in folder.iterdir())
        assert names == [f"{number:04d}.jpg" for number in range(1, len(names) + 1)]
        species = [labels[f"{folder.name}/{name}"] for name in names]
        assert species != sorted(species)
        assert len(set(species)) > 1


def test_images_carry_camera_and_time_and_are_numbered_by_it(drawn: Path) -> None:
    for folder in (drawn / IMAGES).iterdir():
        times = []
        for path in sorted(folder.iterdir()):
            with Image.open(path) as image:
                assert image.size == (480, 360)
                exif = image.getexif()
            assert exif[0x0110] == "Synthetic"
            times.append(exif.get_ifd(0x8769)[0x9003])
        assert times == sorted(times)
        assert all(re.fullmatch(r"2025:0[5-9]:\d\d \d\d:\d\d:\d\d", time) for time in times)


def test_an_image_is_the_same_whoever_draws_it_and_in_whatever_order(drawn: Path) -> None:
    shots = plan_shots(SEED, COUNT)
    assert {shot.file: SPECIES[shot.species].name for shot in shots} == read_labels(drawn)
    for shot in (shots[40], shots[7], shots[61]):
        image = draw_image(SEED, shot.number, SPECIES[shot.species], shot.habitat)
        packed = io.BytesIO()
        image.save(packed, "JPEG", quality=85)
        with Image.open(packed) as redrawn, Image.open(drawn / IMAGES / shot.file) as there:
            assert np.array_equal(np.asarray(redrawn), np.asarray(there))


def test_another_seed_draws_other_images() -> None:
    first, second = (
        np.asarray(draw_image(seed, 3, SPECIES[0], "meadow"), dtype=np.float32) for seed in (1, 2)
    )
    assert np.abs(first - second).mean() > 5


def test_the_rare_species_differs_from_its_lookalike_by_its_eyespots_alone() -> None:
    rare, lookalike = (
        np.asarray(draw_plate(1, SPECIES[species]), dtype=np.float32).mean(axis=2)
        for species in (RARE, LOOKALIKE)
    )
    different = np.abs(rare - lookalike) > 40
    butterfly = np.abs(lookalike - lookalike[0, 0]) > 40
    assert 0.01 < different.sum() / butterfly.sum() < 0.1


# --- The job -------------------------------------------------------------------------------------

Show = Callable[..., str]


@pytest.fixture
def demo_settings(settings: Settings, own_database_url: str, drawn: Path) -> Settings:
    """A data folder in which a small demo is drawn already."""
    settings.home.mkdir(parents=True)
    (settings.home / "demo").symlink_to(drawn)
    return settings.model_copy(update={"database_url": own_database_url})


@pytest.fixture
def demo_database(demo_settings: Settings) -> Iterator[Database]:
    engine = create_engine(psycopg_url(demo_settings.database_url or ""))
    yield Database(engine)
    engine.dispose()


@contextmanager
def no_progress(what: str) -> Iterator[Callable[[int, int], None]]:
    yield lambda *step: None  # noqa: ARG005 - a progress bar that shows nothing


def printed(show: Callable[..., None], settings: Settings, images: Path | None = None) -> str:
    console = Console(file=io.StringIO(), width=200)
    show(settings, images=images, console=console, progress_of=no_progress)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_replay_tells_every_round_and_what_was_found(
    demo_settings: Settings, demo_database: Database
) -> None:
    first = printed(replay_demo, demo_settings)
    rounds = [line.split() for line in first.splitlines() if re.match(r" +\d+ +\d+ ", line)]
    # 72 images less the opening one, 12 a round: nothing is left for rounds 7 to 15.
    assert [int(row[0]) for row in rounds] == list(range(1, 7))
    yes_counts = np.array([int(row[1]) for row in rounds])
    positives = [int(row[2]) for row in rounds]
    assert positives == list(1 + yes_counts.cumsum())
    assert [float(row[3]) for row in rounds] == [round(found / 9, 2) for found in positives]
    coverages = [float(row[4]) for row in rounds]
    assert coverages == sorted(coverages)
    assert all(float(row[5]) > 0 for row in rounds)
    assert first.rstrip().endswith("found 9 of 9, coverage 1.00")
    assert f"{COUNT} images imported" in first

    # Better than asking in any order: more than half of the rare within a third of the images.
    assert positives[1] > 4

    again = printed(replay_demo, demo_settings)
    assert f"0 images imported, {COUNT} known already" in again
    rounds_again = [line.split() for line in again.splitlines() if re.match(r" +\d+ +\d+ ", line)]
    assert [row[:5] for row in rounds_again] == [row[:5] for row in rounds]

    with demo_database.session() as session:
        collection = session.scalars(select(Collection)).one()
        assert (collection.name, collection.notice) == (COLLECTION, "synthetic")
        (example,) = session.scalars(select(TrayItem)).all()
        # Laid out, so that a first search can start at once.
        label = session.get(OracleLabel, (example.image_id, SPECIES[RARE].name))
        assert label is not None
        labels = Counter(session.scalars(select(OracleLabel.label)))
    assert labels[SPECIES[RARE].name] == 9
    assert labels.total() == COUNT


def test_own_photos_are_a_collection_without_notice_or_labels(
    demo_settings: Settings, demo_database: Database, drawn: Path
) -> None:
    photos = next((drawn / IMAGES).iterdir())
    said = printed(prepare_demo, demo_settings, photos)
    assert f"“{photos.name}”: {len(list(photos.iterdir()))} images imported" in said
    with demo_database.session() as session:
        collection = session.scalars(select(Collection)).one()
        assert (collection.name, collection.notice) == (photos.name, None)
        assert session.scalars(select(OracleLabel)).all() == []


def test_a_folder_without_photos_is_told(demo_settings: Settings, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "notes.txt").write_text("no photo")
    with pytest.raises(SourceNotUsable, match="no images"):
        printed(prepare_demo, demo_settings, empty)


def test_own_photos_cannot_be_replayed(demo_settings: Settings, drawn: Path) -> None:
    with pytest.raises(BadInput, match="known labels"):
        printed(replay_demo, demo_settings, drawn / IMAGES)
