"""Shows what Rarefind does: prepares the demo's collection, and replays a whole search on it."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from pathlib import Path

import numpy as np
from rich.console import Console
from sqlalchemy import Select, select

from app.adjusting import DEFAULT_ROUND_SIZE, DEFAULT_STRATEGY
from app.browsing import add_image_to_tray
from app.database import Database, open_database
from app.demo.drawing import IMAGES, LABELS, PLATES, draw_collection
from app.demo.species import LOOKALIKE, RARE, SPECIES
from app.engine.answers import Value
from app.engine.coverage import class_radius, coverage
from app.engine.metrics import recall
from app.engine.replay import replay
from app.errors import BadInput, SourceNotUsable
from app.events import group_by_itself
from app.importing import get_or_add_collection, import_images
from app.indexing import DEFAULT_EMBEDDER, OpenIndexes, build_index
from app.security import get_local_person
from app.settings import Settings
from app.sources import check_source
from app.tables import Image, ImageIndex, OracleLabel

COLLECTION = "Synthetic butterflies: find the ringed amber"
NOTICE = "synthetic"
SEED = 1  # of the drawing, and of the replay's opening and rounds
ROUNDS = 15

ProgressOf = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]


def prepare_demo(
    settings: Settings, *, images: Path | None, console: Console, progress_of: ProgressOf
) -> None:
    """Import and index the drawn collection, or a person's own photos, whatever is new of them."""
    with closing(open_database(settings)) as database:
        _prepare(database, settings, images, console, progress_of)


def replay_demo(
    settings: Settings, *, images: Path | None, console: Console, progress_of: ProgressOf
) -> None:
    """The whole job without a browser: import, index, rounds answered by the oracle, each printed.

    The oracle knows the labels of the rare species; the loop is the one that serves live searches.
    """
    if images is not None:
        raise BadInput(
            "A replay needs known labels to answer by, which your own photos don't have here. "
            "Leave out --replay to search them yourself, or --images to replay the drawn ones."
        )
    with closing(open_database(settings)) as database:
        row = _prepare(database, settings, None, console, progress_of)
        _replay(database, settings, row, console)


def _prepare(
    database: Database,
    settings: Settings,
    images: Path | None,
    console: Console,
    progress_of: ProgressOf,
) -> ImageIndex:
    """The index that holds every image of the demo."""
    if images is None:
        folder = settings.home / "demo"
        if not (folder / LABELS).exists():
            with progress_of("Drawing") as advance:
                draw_collection(folder, seed=SEED, progress=advance)
        name, notice, source, labels = COLLECTION, NOTICE, folder / IMAGES, folder / LABELS
    else:
        images = images.expanduser().absolute()
        check_source(images, settings=settings)  # before a collection is made for it
        name, notice, source, labels = images.stem or str(images), None, images, None
    with database.session() as session:
        collection_id = get_or_add_collection(
            session, name, source=source, person=get_local_person(session), notice=notice
        ).id
    with progress_of("Importing") as advance:
        summary = import_images(
            database,
            collection_id,
            source,
            settings=settings,
            labels=labels,
            embedder=DEFAULT_EMBEDDER,
            progress=lambda done: advance(done.done_count, done.found_count),
        )
    console.print(
        f"“{name}”: {summary.imported:,} images imported, {summary.known:,} known already, "
        f"{summary.duplicates:,} duplicates, {sum(summary.refused.values()):,} refused, "
        f"{summary.seconds:.1f} s",
        highlight=False,
        soft_wrap=True,
    )
    if not summary.imported and not summary.known:
        raise SourceNotUsable(f"There are no images to search in {source}. Name another folder.")
    with progress_of("Preparing") as advance:
        row = build_index(database, collection_id, settings=settings, progress=advance)
    if images is not None:
        group_by_itself(database, collection_id, settings=settings)
    else:
        if summary.imported:
            _lay_out_example(database, collection_id)
        plates = " and ".join(str(folder / plate) for plate in PLATES)
        console.print(
            f"All of it is drawn. One species is rare: “{SPECIES[RARE].name}”, which the common "
            f"“{SPECIES[LOOKALIKE].name}” resembles. Both, to look at or to start from: {plates}",
            highlight=False,
            soft_wrap=True,
        )
    return row


def _lay_out_example(database: Database, collection_id: int) -> None:
    """Put one image of the rare species among the examples, so that a search can start at once."""
    with database.session() as session:
        images = list(session.scalars(_rare_images(collection_id)))
        add_image_to_tray(
            session, get_local_person(session), collection_id, images[_choose_example(len(images))]
        )


def _rare_images(collection_id: int) -> Select[int]:
    return (
        select(Image.id)
        .join(OracleLabel, OracleLabel.image_id == Image.id)
        .where(Image.collection_id == collection_id, OracleLabel.label == SPECIES[RARE].name)
        .order_by(Image.path)
    )


def _choose_example(count: int) -> int:
    """The example's place among the rare images, the same in the browser and in the replay."""
    return int(np.random.default_rng(SEED).integers(count))


def _replay(database: Database, settings: Settings, row: ImageIndex, console: Console) -> None:
    index = OpenIndexes(settings).get(row)
    with database.session() as session:
        of_target = _rare_images(row.collection_id).add_columns(Image.path)
        paths = {image_id: path for image_id, path in session.execute(of_target)}  # noqa: C416
    truth_rows = index.rows_of(np.array(list(paths)))
    example = _choose_example(len(truth_rows))
    console.print(
        f"\nLooking for the {len(paths)} images of “{SPECIES[RARE].name}” among {index.count:,}, "
        f"starting from {list(paths.values())[example]}; strategy {DEFAULT_STRATEGY}.\n",
        highlight=False,
        soft_wrap=True,
    )
    played = replay(
        index,
        truth_rows,
        opening_rows=truth_rows[[example]],
        strategy=DEFAULT_STRATEGY,
        rounds=ROUNDS,
        size=DEFAULT_ROUND_SIZE,
        seed=SEED,
        clock=time.perf_counter,
    )
    targets = np.asarray(index.vectors[truth_rows])
    radius = class_radius(targets)
    console.print("round   yes  positives  recall  coverage     ms", highlight=False)
    for number, made in enumerate(played, 1):
        yes_count = int((made.values == Value.YES).sum())
        found = np.isin(truth_rows, made.answers.positives)
        covered = coverage(targets, found, radius)
        milliseconds = 1000 * (made.proposal.fit_s + made.proposal.choose_s)
        console.print(
            f"{number:5}{yes_count:6}{len(made.answers.positives):11}"
            f"{recall(int(found.sum()), len(found)):8.2f}{covered:10.2f}{milliseconds:7.1f}",
            highlight=False,
        )
    console.print(
        f"found {int(found.sum())} of {len(found)}, coverage {covered:.2f}", highlight=False
    )
