"""A million images: opening the index, its memory, neighbours, and live rounds with the database.

    python -m bench million

Drawn vectors of 512 dimensions around 2,000 centres, and a row in the database for each image. The
floor of time is one exact scoring pass (a BLAS matrix-vector product) over the same vectors in the
same run, that of memory the vectors themselves. Takes about 3 GB of disk and 5 minutes.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil
from sqlalchemy import insert, select, text

COUNT = 1_000_000
DIMENSION = 512
CENTRES = 2_000
LATENT = 96
ROUNDS = 12


def run() -> list[dict[str, Any]]:
    """Build the index and its rows, then measure."""
    from app.database import open_database
    from app.settings import Settings

    with tempfile.TemporaryDirectory() as name:
        settings = Settings(home=Path(name), database_url=None)
        database = open_database(settings)
        try:
            build_s = fill(database, settings)
            return measure(database, settings, build_s)
        finally:
            database.close()


def fill(database: Any, settings: Any) -> float:
    """Draw vectors, index them, and add the rows of collection, images and index."""
    from app.engine.index import build_index
    from app.importing import add_collection
    from app.security import get_local_person
    from app.tables import ImageIndex

    with database.session() as session:
        person = get_local_person(session)
        collection = add_collection(session, "Drawn", source=settings.home, person=person)
        session.execute(
            text(
                "INSERT INTO images (collection_id, sha256, path, file, size_bytes, format, width, "
                "height) SELECT :collection_id, md5(n::text) || md5((-n)::text), n || '.jpg', "
                "'/' || n || '.jpg', 1, 'JPEG', 1, 1 FROM generate_series(1, :count) AS n"
            ),
            {"collection_id": collection.id, "count": COUNT},
        )
        session.execute(
            text(
                "INSERT INTO image_paths (collection_id, image_id, path, size_bytes, modified_ns) "
                "SELECT collection_id, id, path, 1, 0 FROM images"
            )
        )
        image_ids = np.fromiter(session.scalars(text("SELECT id FROM images ORDER BY id")), int)
        row_id = session.scalar(
            insert(ImageIndex)
            .values(
                collection_id=collection.id,
                embedder="efficientnet-lite0",
                revision="drawn",
                dimension=DIMENSION,
                state="ready",
                image_count=COUNT,
                done_count=COUNT,
            )
            .returning(ImageIndex.id)
        )
    folder = settings.home / "indexes" / str(row_id)
    folder.mkdir(parents=True)
    vectors = draw(folder / "vectors.npy")
    started = time.perf_counter()
    build_index(
        folder,
        vectors=vectors,
        image_ids=image_ids,
        embedder="efficientnet-lite0",
        revision="drawn",
    )
    return time.perf_counter() - started


def draw(path: Path) -> np.memmap[Any, Any]:
    """Unit vectors of few degrees of freedom in unequal clusters, as features of photos are."""
    rng = np.random.default_rng(0)
    spread = (1 / np.sqrt(np.arange(1, LATENT + 1))).astype(np.float32)
    axes = np.linalg.qr(rng.standard_normal((DIMENSION, LATENT)))[0].T.astype(np.float32)
    centres = rng.standard_normal((CENTRES, LATENT), dtype=np.float32) * spread
    share = 1 / np.arange(1, CENTRES + 1) ** 0.8
    vectors = np.lib.format.open_memmap(path, "w+", np.float32, (COUNT, DIMENSION))
    for start in range(0, COUNT, 50_000):
        own = centres[rng.choice(CENTRES, 50_000, p=share / share.sum())]
        noise = 0.7 * rng.standard_normal((50_000, LATENT), dtype=np.float32) * spread
        drawn = (own + noise) @ axes
        vectors[start : start + 50_000] = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    return vectors


def measure(database: Any, settings: Any, build_s: float) -> list[dict[str, Any]]:
    """Open, look for neighbours, and let a hunt for one image's neighbourhood go on."""
    from app.engine.index import read_manifest
    from app.engine.together import multiply_together
    from app.indexing import LoadedEmbedders, OpenIndexes
    from app.security import get_local_person
    from app.tables import Collection, ImageIndex, Round, RoundImage
    from app.workers import Readers

    process = psutil.Process()
    with database.session() as session:
        row = session.scalars(select(ImageIndex)).one()
        collection_id = session.scalars(select(Collection.id)).one()
    before = process.memory_info().rss
    indexes = OpenIndexes(settings)
    started = time.perf_counter()
    index = indexes.get(row)
    open_s = time.perf_counter() - started
    weights = np.array(index.vectors[0])
    heads = weights[np.newaxis]
    pass_ms = median_ms(lambda: multiply_together(index.vectors, heads, threads=2))
    nearest_ms = median_ms(lambda: index.nearest(weights[np.newaxis], 100))
    alike = index.similarities(weights)
    positives = set(index.image_ids[np.argsort(-alike)[:2_000]].tolist())

    from app.searching import open_search, submit_answers

    rounds_ms = []
    with database.session() as session:
        search = open_search(
            session,
            person=get_local_person(session),
            collection_id=collection_id,
            target_name="Bench",
            image_ids=[int(index.image_ids[0])],
            photo_ids=[],
            indexes=indexes,
            embedders=LoadedEmbedders(settings, Readers(settings)),
            settings=settings,
            seed=1,
        )
        search_id = search.id
    for _ in range(ROUNDS):
        started = time.perf_counter()
        with database.session() as session:
            search = session.get_one(type(search), search_id)
            made = session.get_one(Round, search.current_round_id)
            shown = session.scalars(select(RoundImage.image_id).filter_by(round_id=made.id))
            submit_answers(
                session,
                search,
                person=get_local_person(session),
                round_id=made.id,
                values={image_id: "yes" for image_id in shown if image_id in positives},
                rest_are_no=True,
                gesture_key=None,
                indexes=indexes,
            )
        rounds_ms.append(1_000 * (time.perf_counter() - started))
    grown = process.memory_info().rss - before
    size = COUNT * DIMENSION * 4
    manifest = read_manifest(settings.home / "indexes" / str(row.id))
    return [
        result("one exact scoring pass, 1,000,000 x 512", pass_ms, "ms", pass_ms),
        result("live round, database included", median(rounds_ms[1:]), "ms", pass_ms),
        result("100 nearest images", nearest_ms, "ms", pass_ms),
        result("recall of the nearest, as the manifest says", manifest.faiss_recall, "", 1.0),
        result("opening the index", 1_000 * open_s, "ms", 1_000),
        result("memory after all that", grown / 1e6, "MB", size / 1e6),
        result("building FAISS file and manifest", 1_000 * build_s, "ms", pass_ms),
    ]


def median_ms(do: Callable[[], object]) -> float:
    """Median wall time of a few calls, after one that reads the files."""
    do()
    spent = []
    for _ in range(7):
        started = time.perf_counter()
        do()
        spent.append(1_000 * (time.perf_counter() - started))
    return median(spent)


def result(name: str, value: float, unit: str, floor: float) -> dict[str, Any]:
    """One line of the table that `make bench` prints."""
    return {"name": name, "value": value, "unit": unit, "floor": floor, "ratio": value / floor}
