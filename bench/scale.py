"""From a hundred thousand to ten million images: what a round costs, and if it is the exact one.

    SCALE_COUNTS=100000,1000000,10000000 SCALE_FOLDER=/where/there/is/room python -m bench scale

The vectors of the fish collection (made by the default embedder, turned onto their 512 main
directions) are planted among vectors drawn from a mixture of Gaussians that is fitted to the fish
of the common species; the rare species are the targets. For each count an index is built as an
import builds it. Searches are then replayed against the labels, 15 rounds of 12 images:

- by the exact ranking;
- as the index does it, on the answers of the exact search: which of the chosen images are the same;
- as the index does it by itself: how many it finds at the end.

Up to 500,000 images every round is exact, and this is left out.

Live rounds go through the database, which has a row for each image. What is resident is told by the
process after them. At the end vectors of a hundred million images, along 128 directions in 4 bits
and as many of them as half of the memory holds, are looked at once; and bench/out/growth.svg shows
how times grow with the images. Without SCALE_COUNTS it measures 100,000 and 1,000,000. Ten million
take some 35 GB of disk, 12 GB of memory and an hour on two cores.
"""

import os
import shutil
import sys
import tempfile
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import NormalDist, median
from typing import Any

import numpy as np
import psutil
from sqlalchemy import insert, select, text

SOURCE = Path(__file__).parent.parent.parent / "shared" / "data" / "fish.zip"
COUNTS = "100000,1000000"
DIMENSION = 512
COMMON = 80  # images of a species: above, it is part of the background
COMPONENTS, OWN_SHARE, ROUNDNESS = 128, 0.3, 0.05  # by the likelihood of fish held out
SMALLEST = 8  # images of a target
ROUNDS, SIZE = 15, 12
STRATEGIES = ("rarefind", "pf-ma")
DRAWN_AT_ONCE = 100_000
MARGIN = 2_000  # rows of each part that are looked at exactly


def run() -> list[dict[str, Any]]:
    """Measure every count."""
    if not SOURCE.exists():
        print("scale needs the real images in ../shared/data/fish.zip", file=sys.stderr)
        return []
    folder = os.environ.get("SCALE_FOLDER")
    results: list[dict[str, Any]] = []
    counts = [int(count) for count in os.environ.get("SCALE_COUNTS", COUNTS).split(",")]
    with tempfile.TemporaryDirectory() as name:
        fish, species = read_fish(Path(folder or name))
        for count in counts:
            results += measure(Path(folder or name) / f"{count}", count, fish, species)
            if folder is None:
                shutil.rmtree(Path(name) / f"{count}")
    draw_growth(counts, results)
    return results + look_at_most()


def look_at_most() -> list[dict[str, Any]]:
    """The first step of a shortlist over as many rows as half of the memory holds, drawn by lot."""
    import faiss

    from app.engine.faiss_searcher import CANDIDATES_SHARE
    from app.engine.narrow import KEPT_DIRECTIONS, NARROW, TOGETHER, _make_part

    library: Any = faiss
    rng = np.random.default_rng(0)
    drawn = rng.standard_normal((10_000, KEPT_DIRECTIONS), dtype=np.float32)
    parts = [_make_part(KEPT_DIRECTIONS) for _ in NARROW]
    per_row = 8 + KEPT_DIRECTIONS // 2
    most = min(100_000_000, psutil.virtual_memory().available // 2 // per_row)
    size = most // len(parts) // TOGETHER * TOGETHER
    for number, part in enumerate(parts):
        part.train(drawn)
        lists = library.ArrayInvertedLists(1, part.code_size)
        lists.resize(0, size)
        codes = faiss.rev_swig_ptr(lists.get_codes(0), size * part.code_size)
        for start in range(0, len(codes), 50_000_000):
            some = codes[start : start + 50_000_000]
            some[:] = np.frombuffer(rng.bytes(len(some)), np.uint8)
        faiss.rev_swig_ptr(lists.get_ids(0), size)[:] = np.arange(
            number * size, size * (number + 1)
        )
        part.replace_invlists(lists, True)
        lists.this.disown()
        part.ntotal = size
    weights = rng.standard_normal(KEPT_DIRECTIONS, dtype=np.float32)
    levels = faiss.vector_to_array(parts[0].pq.centroids).reshape(KEPT_DIRECTIONS, -1)
    worth = levels * weights[:, np.newaxis]
    share = NormalDist().inv_cdf(1 - 1 / CANDIDATES_SHARE)
    above = float(worth.mean(axis=1).sum() + share * np.sqrt(worth.var(axis=1).sum()))
    count = size * len(parts)
    results = []
    for threads in (1, 2):
        started = time.perf_counter()
        with ThreadPoolExecutor(threads) as pool:
            found = list(
                pool.map(lambda part: part.range_search(weights[np.newaxis], above)[2], parts)
            )
        spent = 1_000 * (time.perf_counter() - started)
        assert 0.5 < sum(map(len, found)) * CANDIDATES_SHARE / count < 2
        what = f"{count:,} rows along {KEPT_DIRECTIONS} directions, {threads} threads"
        results.append(result(what, spent, "ms", spent))
    return results


LINES = {  # what the plot shows, by the ends of the results' names
    "one pass over all vectors": "one exact pass over all vectors",
    "live round, database included, 95th percentile": "live round, 95th percentile",
    "live round, database included, median": "live round, median",
}


def draw_growth(counts: list[int], results: list[dict[str, Any]]) -> None:
    """How times grow with the images, both by factors of ten, as bench/out/growth.svg."""
    values = {
        label: [
            (count, one["value"])
            for count in counts
            for one in results
            if one["name"] == f"{count:,}: {name}"
        ]
        for name, label in LINES.items()
    }
    if len(counts) < 2:
        return
    width, height, left, top = 640, 360, 64, 24
    low, high = np.log10(min(counts)), np.log10(max(counts))

    def place(count: float, ms: float) -> tuple[float, float]:
        across = (np.log10(count) - low) / (high - low)
        up = np.log10(ms) / 5  # 1 ms to 100 s
        return left + across * (width - left - 210), top + (1 - up) * (height - 2 * top - 20)

    parts = []
    for ms, said in (
        (1, "1 ms"),
        (10, "10 ms"),
        (100, "100 ms"),
        (1_000, "1 s"),
        (10_000, "10 s"),
        (100_000, "100 s"),
    ):
        x, y = place(counts[0], ms)
        end, _ = place(counts[-1], ms)
        parts.append(f'<path d="M{x:.0f} {y:.0f}H{end:.0f}" stroke="#bbb"/>')
        parts.append(f'<text x="{x - 8:.0f}" y="{y + 4:.0f}" text-anchor="end">{said}</text>')
    for count in counts:
        x, y = place(count, 1)
        parts.append(f'<text x="{x:.0f}" y="{y + 20:.0f}" text-anchor="middle">{count:,}</text>')
    said_at = 0.0
    for (label, points), dash in zip(values.items(), ("2 4", "7 4", "none"), strict=True):
        placed = [place(*point) for point in points]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
        drawn = f'fill="none" stroke="#0b6e4f" stroke-width="2" stroke-dasharray="{dash}"'
        parts.append(f'<polyline points="{line}" {drawn}/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="#0b6e4f"/>' for x, y in placed]
        x, y = placed[-1]
        said_at = max(y + 4, said_at + 15)  # from top to bottom, none over another
        parts.append(f'<text x="{x + 10:.0f}" y="{said_at:.0f}">{label}</text>')
    path = Path(__file__).parent / "out" / "growth.svg"
    path.parent.mkdir(exist_ok=True)
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12"><title>Milliseconds by number of images, both by '
        f'factors of ten</title><rect width="{width}" height="{height}" fill="#fff"/>'
        f"{''.join(parts)}</svg>\n"
    )


def read_fish(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors of all fish in 512 dimensions, and their species; kept in the folder."""
    kept = folder / "fish.npz"
    if not kept.exists():
        folder.mkdir(parents=True, exist_ok=True)
        vectors, species = embed_fish(folder / "fish")
        main = np.linalg.svd(vectors, full_matrices=False)[2][:DIMENSION]
        turned = (vectors @ main.T).astype(np.float32)
        turned /= np.linalg.norm(turned, axis=1, keepdims=True)
        np.savez(kept, vectors=turned, species=species)
    with np.load(kept) as file:
        return file["vectors"], file["species"]


def embed_fish(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Import and index the fish by the real verbs."""
    from app.database import open_database
    from app.importing import add_collection, import_images
    from app.indexing import OpenIndexes, build_index
    from app.security import get_local_person
    from app.settings import Settings
    from app.tables import Image

    with zipfile.ZipFile(SOURCE) as archive:
        archive.extractall(folder / "images")
    settings = Settings(home=folder / "home", database_url=None)
    database = open_database(settings)
    try:
        with database.session() as session:
            person = get_local_person(session)
            collection = add_collection(session, "Fish", source=folder / "images", person=person)
        import_images(database, collection.id, folder / "images", settings=settings)
        row = build_index(database, collection.id, settings=settings)
        index = OpenIndexes(settings).get(row)
        with database.session() as session:
            paths = dict(session.execute(select(Image.id, Image.path)).tuples().all())
    finally:
        database.close()
    species = [Path(paths[image_id]).parent.name for image_id in index.image_ids.tolist()]
    return np.array(index.vectors), np.array(species)


def measure(
    folder: Path, count: int, fish: np.ndarray, species: np.ndarray
) -> list[dict[str, Any]]:
    """Build one index, and measure it."""
    from app.database import open_database
    from app.engine.index import open_index
    from app.settings import Settings

    settings = Settings(home=folder, database_url=None)
    database = open_database(settings)
    try:
        built = fill(database, settings, count, fish, species)
        index = open_index(built.folder, memory_bytes=psutil.virtual_memory().total)
        targets = list_targets(index, species)
        pass_ms = time_pass(index, built.folder)
        for path in built.folder.glob("*.faiss"):  # as a server does after its start
            with path.open("rb") as file:
                while file.read(8_388_608):
                    pass
        rounds = live_rounds(database, settings, index, targets)
        results = [
            result(f"{count:,}: drawing", built.draw_s, "s", built.draw_s),
            result(f"{count:,}: building the index", built.build_s, "s", built.draw_s),
            result(f"{count:,}: disk of vectors and index", built.size_bytes / 1e9, "GB", 1.0),
            result(f"{count:,}: one pass over all vectors", pass_ms, "ms", pass_ms),
            *(
                result(f"{count:,}: {what}", value, unit, pass_ms if unit == "ms" else 1.0)
                for what, value, unit in rounds
            ),
        ]
        for strategy in () if index.ranks_all else STRATEGIES:
            results += compare(index, targets, strategy, count)
        return results
    finally:
        database.close()


@dataclass(frozen=True)
class Built:
    """An index, and what it took."""

    folder: Path
    draw_s: float
    build_s: float
    size_bytes: int


def fill(database: Any, settings: Any, count: int, fish: np.ndarray, species: np.ndarray) -> Built:
    """Draw vectors, index them, and add the rows of collection, images and index; or take what is
    there from an earlier run."""
    from app.engine.index import build_index
    from app.importing import add_collection
    from app.security import get_local_person
    from app.tables import ImageIndex

    folder = settings.home / "indexes" / "1"
    took = folder / "took.npy"
    if not took.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        started = time.perf_counter()
        vectors = draw(folder / "vectors.npy", count, fish, species)
        drawn = time.perf_counter()
        build_index(
            folder,
            vectors=vectors,
            image_ids=np.arange(1, len(vectors) + 1),
            embedder="efficientnet-lite0",
            revision="drawn",
            memory_bytes=psutil.virtual_memory().total,
        )
        np.save(took, np.array([drawn - started, time.perf_counter() - drawn]))
    with database.session() as session:
        is_filled = session.scalar(select(ImageIndex.id)) is not None
    if not is_filled:
        with database.session() as session:
            person = get_local_person(session)
            collection = add_collection(session, "Drawn", source=settings.home, person=person)
            session.execute(
                text(
                    "INSERT INTO images (collection_id, sha256, path, file, size_bytes, format, "
                    "width, height) SELECT :collection_id, md5(n::text) || md5((-n)::text), "
                    "n || '.jpg', '/' || n || '.jpg', 1, 'JPEG', 1, 1 "
                    "FROM generate_series(1, :count) AS n"
                ),
                {"collection_id": collection.id, "count": count + len(fish)},
            )
            session.execute(
                insert(ImageIndex).values(
                    collection_id=collection.id,
                    embedder="efficientnet-lite0",
                    revision="drawn",
                    dimension=DIMENSION,
                    state="ready",
                    image_count=count + len(fish),
                    done_count=count + len(fish),
                )
            )
        with database.bind.engine.connect() as connection:
            plain = connection.execution_options(isolation_level="AUTOCOMMIT")
            plain.execute(text("VACUUM ANALYZE images"))  # as it does by itself after a while
    draw_s, build_s = np.load(took).tolist()
    size = sum(path.stat().st_size for path in folder.iterdir())
    return Built(folder, draw_s, build_s, size)


def draw(path: Path, count: int, fish: np.ndarray, species: np.ndarray) -> np.ndarray:
    """`count` vectors of the mixture, then all fish."""
    from sklearn.cluster import KMeans

    rng = np.random.default_rng(0)
    names, sizes = np.unique(species, return_counts=True)
    common = fish[np.isin(species, names[sizes > COMMON])].astype(np.float64)
    groups = KMeans(COMPONENTS, n_init=1, random_state=0).fit(common)
    off = common - groups.cluster_centers_[groups.labels_]
    shared = off.T @ off / len(off)
    roots, share = [], np.bincount(groups.labels_, minlength=COMPONENTS) / len(common)
    for number in range(COMPONENTS):
        own = off[groups.labels_ == number]
        weight = OWN_SHARE * len(own) / (len(own) + 20)
        spread = weight * own.T @ own / len(own) + (1 - weight) * shared
        spread += ROUNDNESS * (np.trace(spread) / DIMENSION * np.eye(DIMENSION) - spread)
        roots.append(np.linalg.cholesky(spread).T.astype(np.float32))
    centres = groups.cluster_centers_.astype(np.float32)
    vectors = np.lib.format.open_memmap(path, "w+", np.float32, (count + len(fish), DIMENSION))
    for start in range(0, count, DRAWN_AT_ONCE):
        some = min(DRAWN_AT_ONCE, count - start)
        kinds = np.sort(rng.choice(COMPONENTS, some, p=share))
        drawn = rng.standard_normal((some, DIMENSION), dtype=np.float32)
        edges = np.searchsorted(kinds, np.arange(COMPONENTS + 1))
        for number in range(COMPONENTS):
            own = slice(edges[number], edges[number + 1])
            drawn[own] = drawn[own] @ roots[number] + centres[number]
        drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
        vectors[start : start + some] = drawn[rng.permutation(some)]
    vectors[count:] = fish
    return vectors


def time_pass(index: Any, folder: Path) -> float:
    """Milliseconds of one exact pass over all vectors, by parts where they don't fit in memory."""
    from app.engine.together import multiply_together

    weights = np.array(index.vectors[0])
    spent = []
    # A map of its own: that of a large index is for rows here and there.
    vectors = np.load(folder / "vectors.npy", mmap_mode="r")
    for _ in range(5 if index.count <= 1_100_000 else 1):
        started = time.perf_counter()
        for start in range(0, index.count, 1_000_000):
            multiply_together(vectors[start : start + 1_000_000], weights[np.newaxis], threads=2)
        spent.append(1_000 * (time.perf_counter() - started))
    return median(spent)


def list_targets(index: Any, species: np.ndarray) -> dict[str, np.ndarray]:
    """The rows of each rare species."""
    first = index.count - len(species)
    names, sizes = np.unique(species, return_counts=True)
    rare = names[(sizes >= SMALLEST) & (sizes <= COMMON)]
    return {name: first + np.flatnonzero(species == name) for name in rare.tolist()}


@dataclass(eq=False)
class Exact:
    """In the place of a searcher: all rows in 8 bits by one pass, then 2,000 of each part exactly.

    Around the boundary all within four times the deviation of 8 bits, if these are more. So that is
    the exact ranking unless 1,600 images of less score are within rounding of the best 360.
    """

    index: Any

    def find_ranked(
        self,
        weights: np.ndarray,
        bias: float,
        *,
        top: int,
        line: int,
        closed: np.ndarray,
        rows: np.ndarray | None,
    ) -> np.ndarray:
        """The rows of the three parts."""
        from app.engine.parts import pick_parts

        assert rows is None
        scores = self.index.scores(weights, bias)
        scores[closed] = np.nan
        held = np.flatnonzero(~np.isnan(scores))
        margin = 0
        if line:  # where the boundary lies deep among the images, very many are nearly as near
            rounding = 4 * self.index._searcher._wide.tell_rounding(weights)
            margin = max(MARGIN, int(np.count_nonzero(np.abs(scores[held]) < rounding)))
        some = held[pick_parts(scores[held], top=MARGIN, line=margin)]
        exact = self.index.read(some) @ weights.astype(np.float32) + np.float32(bias)
        return some[pick_parts(exact, top=top, line=line)]


def compare(
    index: Any, targets: dict[str, np.ndarray], strategy: str, count: int
) -> list[dict[str, Any]]:
    """Replay by the exact ranking and by the index: the same images, and as many finds?"""
    from app.engine.loop import Answers

    ranked = replace(index, _searcher=Exact(index))
    start = {name: open_at(index, rows, strategy) for name, rows in targets.items()}
    told = {name: opened[0] for name, opened in start.items()}
    by_itself = dict(told)
    same, spent, later = [], [], []
    for number in range(1, ROUNDS + 1):
        for name, (_, arguments) in start.items():
            chosen = propose(ranked, told[name], number, arguments).rows
            also = propose(index, told[name], number, arguments).rows
            same.append(np.isin(chosen, also).mean())
            if number > 3:
                later.append(same[-1])
            told[name] = answer(told[name], chosen, targets[name])
            started = time.perf_counter()
            own = propose(index, by_itself[name], number, arguments).rows
            spent.append(1_000 * (time.perf_counter() - started))
            by_itself[name] = answer(by_itself[name], own, targets[name])

    def found(answers: dict[str, Answers]) -> float:
        shares = [len(answers[name].positives) / len(rows) for name, rows in targets.items()]
        return float(np.mean(shares))

    what = f"{count:,}, {strategy}"
    return [
        result(f"{what}: chosen images that are the exact ones", float(np.mean(same)), "", 1.0),
        result(f"{what}: the same from round 4 on", float(np.mean(later)), "", 1.0),
        result(f"{what}: recall after {ROUNDS} rounds", found(by_itself), "", found(told)),
        result(f"{what}: choosing a round, median", median(spent), "ms", median(spent)),
        result(f"{what}: the same, 95th percentile", np.percentile(spent, 95), "ms", median(spent)),
    ]


def open_at(index: Any, rows: np.ndarray, strategy: str) -> tuple[Any, dict[str, Any]]:
    """One image of the target as a yes, and what goes into every round."""
    from app.engine.loop import Answers, Opening, make_opening

    first = np.random.default_rng(1).choice(rows, 1)
    opening = Opening(make_opening(index.vectors[first]), np.empty((0, DIMENSION), np.float32))
    return Answers(first, np.ones(1, np.int8)), {"opening": opening, "strategy": strategy}


def propose(index: Any, answers: Any, number: int, arguments: dict[str, Any]) -> Any:
    """The next round."""
    from app.engine.loop import propose_round, round_rng

    return propose_round(
        index, answers, size=SIZE, round_number=number, rng=round_rng(1, number), **arguments
    )


def answer(answers: Any, chosen: np.ndarray, rows: np.ndarray) -> Any:
    """The answers with the oracle's to a round."""
    from app.engine.loop import Answers

    values = np.where(np.isin(chosen, rows), 1, -1).astype(np.int8)
    return Answers(np.concatenate([answers.rows, chosen]), np.concatenate([answers.values, values]))


def live_rounds(
    database: Any, settings: Any, index: Any, targets: dict[str, np.ndarray]
) -> list[tuple[str, float, str]]:
    """Rounds as a server makes them, for each target, and what the process then holds."""
    from app.indexing import LoadedEmbedders, OpenIndexes
    from app.searching import open_search, submit_answers
    from app.security import get_local_person
    from app.tables import Collection, Round, RoundImage, Search
    from app.workers import Readers

    indexes = OpenIndexes(settings)
    with database.session() as session:
        collection_id = session.scalars(select(Collection.id)).one()
    spent = []
    with Readers(settings) as readers:
        for rows in targets.values():
            found = set(index.image_ids[rows].tolist())
            with database.session() as session:
                search = open_search(
                    session,
                    person=get_local_person(session),
                    collection_id=collection_id,
                    target_name="Bench",
                    image_ids=[min(found)],
                    photo_ids=[],
                    indexes=indexes,
                    embedders=LoadedEmbedders(settings, readers),
                    settings=settings,
                    seed=1,
                )
                search_id = search.id
            for _ in range(ROUNDS):
                started = time.perf_counter()
                with database.session() as session:
                    search = session.get_one(Search, search_id)
                    made = session.get_one(Round, search.current_round_id)
                    shown = session.scalars(select(RoundImage.image_id).filter_by(round_id=made.id))
                    submit_answers(
                        session,
                        search,
                        person=get_local_person(session),
                        round_id=made.id,
                        values={one: "yes" for one in shown if one in found},
                        rest_are_no=True,
                        gesture_key=None,
                        indexes=indexes,
                    )
                spent.append(1_000 * (time.perf_counter() - started))
    resident = psutil.Process().memory_info().rss / 2**30
    what = "live round, database included"
    return [
        (f"{what}, median", median(spent), "ms"),
        (f"{what}, 95th percentile", float(np.percentile(spent, 95)), "ms"),
        ("resident after them", resident, "GiB"),
    ]


def result(name: str, value: float, unit: str, floor: float) -> dict[str, Any]:
    """One line of the table that `make bench` prints; told at once, as the next may take long."""
    print(f"{name}: {value:.4g} {unit} ({value / floor:.3g})", file=sys.stderr)
    return {"name": name, "value": value, "unit": unit, "floor": floor, "ratio": value / floor}
