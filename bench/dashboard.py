"""Milliseconds of each part of the dashboard: 100,000 images, 2,000 answers, live rounds.

    python -m bench dashboard

Drawn vectors of 512 dimensions, a row in the database for each image, and a search of 2,000 answers
in rounds of 48. The limit is 300 ms for the page and for each part that loads after it.
"""

import tempfile
import time
from datetime import datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from sqlalchemy import select

COUNT = 100_000
TARGETS = 1_000  # images of the target
DIMENSION = 512
ANSWERS = 2_000
ROUND_SIZE = 48
LIMIT_MS = 300
REPEATS = 5
PLACES = 50  # cameras


def run() -> list[dict[str, Any]]:
    """Fill a database, answer the rounds, then open each part a few times."""
    from app.database import open_database
    from app.settings import Settings

    with tempfile.TemporaryDirectory() as name:
        settings = Settings(home=Path(name), database_url=None)
        database = open_database(settings)
        try:
            with database.session() as session:
                search, indexes = fill(session, settings)
                return measure(session, search, indexes)
        finally:
            database.close()


def fill(session: Any, settings: Any) -> tuple[Any, Any]:
    """A collection of drawn vectors and a search with its answers."""
    from app.engine.index import build_index
    from app.importing import add_collection
    from app.indexing import LoadedEmbedders, OpenIndexes
    from app.searching import open_search, submit_answers
    from app.security import get_local_person
    from app.tables import Image, ImageIndex, Round
    from app.workers import Readers

    person = get_local_person(session)
    collection = add_collection(session, "Drawn", source=settings.home, person=person)
    rows = [
        {
            "collection_id": collection.id,
            "sha256": f"{number:064x}",
            "path": f"{number % PLACES:02}/{number}.jpg",
            "file": f"/{number}.jpg",
            "size_bytes": 1,
            "format": "JPEG",
            "width": 1,
            "height": 1,
            "captured_at": datetime(2026, 1, 1) + number * timedelta(minutes=5),
            "latitude": 50 + number % PLACES / 100,
            "longitude": 4 + number % 7 / 100,
        }
        for number in range(COUNT)
    ]
    session.bulk_insert_mappings(Image, rows)
    image_ids = np.array(session.scalars(select(Image.id).order_by(Image.id)).all())
    row = ImageIndex(
        collection_id=collection.id,
        embedder="drawn",
        revision="1",
        dimension=DIMENSION,
        state="ready",
        image_count=COUNT,
        done_count=COUNT,
    )
    session.add(row)
    session.flush()
    folder = settings.home / "indexes" / str(row.id)
    folder.mkdir(parents=True)
    vectors = draw_vectors()
    build_index(folder, vectors=vectors, image_ids=image_ids, embedder="drawn", revision="1")
    indexes = OpenIndexes(settings)
    search = open_search(
        session,
        person=person,
        collection_id=collection.id,
        target_name="Bench",
        strategy="pf-ma",
        image_ids=[int(image_ids[0])],
        photo_ids=[],
        round_size=ROUND_SIZE,
        indexes=indexes,
        embedders=LoadedEmbedders(settings, Readers(settings)),
        settings=settings,
        seed=0,
    )
    targets = set(image_ids[:TARGETS].tolist())
    for _ in range(-(-ANSWERS // ROUND_SIZE)):
        made = session.get_one(Round, search.current_round_id)
        shown = [place.image_id for place in made.images]
        submit_answers(
            session,
            search,
            person=person,
            round_id=made.id,
            values={image_id: "yes" if image_id in targets else "no" for image_id in shown},
            rest_are_no=False,
            gesture_key=None,
            indexes=indexes,
        )
    return search, indexes


def draw_vectors() -> np.ndarray:
    """Unit vectors around 200 centres; the target's first, in ten looks."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((200, DIMENSION), dtype=np.float32)
    looks = centres[0] + 0.7 * rng.standard_normal((10, DIMENSION), dtype=np.float32)
    vectors = centres[rng.integers(1, 200, COUNT)]
    vectors[:TARGETS] = looks[rng.integers(0, 10, TARGETS)]
    vectors += rng.standard_normal((COUNT, DIMENSION), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def measure(session: Any, search: Any, indexes: Any) -> list[dict[str, Any]]:
    """Median milliseconds of each part, everything read anew."""
    from app.dashboards import found, moments, stopping, trust, variety, whereabouts

    parts = {
        "the page, what was found": found.tell_found,
        "how varied": variety.tell_variety,
        "coverage over rounds": variety.tell_history,
        "gaps and map": variety.tell_looks,
        "when and where": whereabouts.tell_whereabouts,
        "how many are left": stopping.tell_left,
        "when to stop": stopping.tell_stopping,
        "the head": trust.tell_head,
    }
    stopping.choose_goal(
        session,
        search,
        person=search.owner,
        aim="recall",
        amount=0.9,
        confidence=0.95,
        rule="random-sample",
    )
    results = []
    for name, tell in parts.items():
        spent = []
        for _ in range(REPEATS + 1):
            session.expire_all()
            started = time.perf_counter()
            tell(moments.open_moment(session, search, indexes, None))
            spent.append(1_000 * (time.perf_counter() - started))
        value = median(spent[1:])
        results.append(
            {
                "name": f"dashboard: {name}, of the limit",
                "value": value,
                "unit": "ms",
                "floor": LIMIT_MS,
                "ratio": value / LIMIT_MS,
            }
        )
    return results


if __name__ == "__main__":
    for line in run():
        print(f"{line['name']:50s} {line['value']:9.1f} ms {line['ratio']:6.2f} of the limit")
