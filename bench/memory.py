"""Memory of importing and indexing, whatever the size of the collection.

    python -m bench memory

Drawn JPEGs of 96 x 72 pixels, imported, embedded on the way and indexed in a process of its own,
whose memory is read every fifth of a second, with its workers', shared pages counted once (PSS);
PostgreSQL's and the page cache are not in it. The model is timm's smallest vision transformer with
random weights: it is quick, and what grows with the collection does not depend on it. The floor is
the peak for 10,000 images. Takes about 10 minutes.
"""

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

COUNTS = (10_000, 50_000, 100_000)
MODEL = "test_vit.r160_in1k"


def run() -> list[dict[str, Any]]:
    """Peak memory for each count."""
    peaks = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights = save_weights(folder / "weights.safetensors")
        for count in COUNTS:
            draw_images(folder / "images", count)
            home = folder / f"home{count}"
            peaks.append(watch([str(folder / "images"), str(home), f"timm:{MODEL}:{weights}"]))
    return [
        {
            "name": f"peak memory of importing and indexing {count:,} images",
            "value": peak / 1e6,
            "unit": "MB",
            "floor": peaks[0] / 1e6,
            "ratio": peak / peaks[0],
        }
        for count, peak in zip(COUNTS, peaks, strict=True)
    ]


def save_weights(path: Path) -> Path:
    """Random weights of the model, as a file of one's own."""
    import timm
    from safetensors.torch import save_model

    save_model(timm.create_model(MODEL, pretrained=False), str(path))
    return path


def draw_images(folder: Path, count: int) -> None:
    """Have that many different JPEGs in the folder: a few pictures, each with bytes of its own."""
    import simplejpeg

    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    pictures = [
        simplejpeg.encode_jpeg(rng.integers(0, 256, (72, 96, 3), dtype=np.uint8), 90)
        for _ in range(10)
    ]
    for number in range(len(list(folder.iterdir())), count):
        own = pictures[number % len(pictures)] + number.to_bytes(8)
        (folder / f"{number}.jpg").write_bytes(own)


def watch(arguments: list[str]) -> int:
    """The most memory that the process doing the work and its workers held, in bytes."""
    command = [sys.executable, "-m", "bench.memory", *arguments]
    environment = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
    worker = psutil.Popen(command, env=environment)
    peak = 0
    while worker.poll() is None:
        peak = max(peak, read_memory(worker))
        time.sleep(0.2)
    if worker.returncode != 0:
        raise RuntimeError(f"the work ended with status {worker.returncode}")
    return peak


def read_memory(worker: Any) -> int:
    """Bytes of a process and those it started, without PostgreSQL's."""
    size = 0
    try:
        for process in [worker, *worker.children(recursive=True)]:
            if "postgres" not in process.name():
                size += process.memory_full_info().pss
    except psutil.Error:  # one of them has just ended
        return 0
    return size


def work(source: Path, home: Path, embedder: str) -> None:
    """Import and index."""
    from app.database import open_database
    from app.importing import add_collection, import_images
    from app.indexing import build_index
    from app.security import get_local_person
    from app.settings import Settings

    settings = Settings(home=home, database_url=None)
    database = open_database(settings)
    with database.session() as session:
        person = get_local_person(session)
        collection = add_collection(session, "Drawn", source=source, person=person)
    import_images(database, collection.id, source, settings=settings, embedder=embedder)
    build_index(database, collection.id, settings=settings, embedder=embedder)
    database.close()


if __name__ == "__main__":
    work(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
