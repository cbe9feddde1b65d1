"""What a person waits for: from submit to the next grid, and what a grid weighs.

    python -m bench pages

Imports and indexes the fish collection (8,725 images), opens a search from one image of a rare
species, and lets the oracle answer rounds of 12 through a real server on the loopback address, as a
browser would. The floor of a round is one exact scoring pass over the same index in the same run.
"""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import uuid
import zipfile
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import httpx
import numpy as np
from sqlalchemy import select

from app.database import open_database
from app.indexing import OpenIndexes, get_current_index
from app.settings import Settings
from app.tables import Image, OracleLabel
from bench.throughput import SOURCE, measure_verbs

TARGET = "20_Zanclus_cornutus"
ROUNDS = 25
PAGE_LIMIT_KB = 600
ROUND_LIMIT_MS = 60


def run() -> list[dict[str, Any]]:
    """Measure rounds and page weight on the whole fish collection."""
    if not SOURCE.exists():
        print("pages needs the real images in ../shared/data/fish.zip", file=sys.stderr)
        return []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with zipfile.ZipFile(SOURCE) as archive:
            archive.extractall(folder / "fish")
        measure_verbs(folder / "fish", folder / "home")
        settings = Settings(home=folder / "home", database_url=None)
        positives, scoring_ms = read_collection(settings)
        rounds_ms, weight_kb, upcoming_ms = hunt(settings, positives)
    centiles = quantiles(rounds_ms, n=20)
    return [
        result("one exact scoring pass, fish", scoring_ms, "ms", scoring_ms),
        result("submit to next grid, median, fish", median(rounds_ms), "ms", scoring_ms),
        result("submit to next grid, 95th percentile, fish", centiles[18], "ms", scoring_ms),
        result("the same median, of the limit", median(rounds_ms), "ms", ROUND_LIMIT_MS),
        result("guess of the images to fetch early", median(upcoming_ms), "ms", scoring_ms),
        result("weight of a 12-image grid, all files", weight_kb, "kB", PAGE_LIMIT_KB),
    ]


def read_collection(settings: Settings) -> tuple[set[int], float]:
    """Images of the target, and milliseconds of one scoring pass."""
    database = open_database(settings)
    with database.session() as session:
        positives = set(
            session.scalars(select(Image.id).join(OracleLabel).where(OracleLabel.label == TARGET))
        )
        index = OpenIndexes(settings).get(get_current_index(session, 1))
    weights = np.ones(index.dimension, np.float32)
    spent = []
    for _ in range(20):
        started = time.perf_counter()
        index.scores(weights, 0.0)
        spent.append(1_000 * (time.perf_counter() - started))
    database.close()
    return positives, median(spent)


def hunt(settings: Settings, positives: set[int]) -> tuple[list[float], float, list[float]]:
    """Milliseconds of each round and each guess of what comes next, and a grid's weight in kB."""
    environment = os.environ | {"RAREFIND_HOME": str(settings.home)}
    environment.pop("DATABASE_URL", None)
    command = [str(Path(sys.executable).with_name("rarefind")), "serve", "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert server.stdout is not None
        link = next(line.strip() for line in server.stdout if "/sign-in" in line)
        with httpx.Client(base_url=link.split("/sign-in")[0], follow_redirects=True) as client:
            client.get(link)
            return answer_rounds(client, positives)
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(30)


def answer_rounds(
    client: httpx.Client, positives: set[int]
) -> tuple[list[float], float, list[float]]:
    """Open a search and let the oracle answer it."""
    opened = client.post(
        "/collections/1/searches",
        data={
            "target_name": "Bench",
            "image_ids": min(positives),
            "strategy": "pf-ma",
            "round_size": 12,
        },
    )
    address, page = str(opened.url), opened.text
    weight_kb = weigh(client, page)
    rounds_ms, upcoming_ms = [], []
    for _ in range(ROUNDS):
        shown = [int(found) for found in re.findall(r'name="was-(\d+)"', page)]
        fields = {f"answer-{image_id}": "yes" for image_id in shown if image_id in positives}
        round_id = re.search(r'name="round_id" value="(\d+)"', page)
        assert round_id is not None
        started = time.perf_counter()
        answered = client.post(
            f"{address}/submit",
            data={
                "round_id": round_id[1],
                "rest": "no",
                "gesture_key": str(uuid.uuid4()),
                **fields,
            },
            headers={"HX-Request": "true"},
        )
        rounds_ms.append(1_000 * (time.perf_counter() - started))
        page = answered.raise_for_status().text
        started = time.perf_counter()
        client.get(f"{address}/upcoming").raise_for_status()
        upcoming_ms.append(1_000 * (time.perf_counter() - started))
    return rounds_ms, weight_kb, upcoming_ms


def weigh(client: httpx.Client, page: str) -> float:
    """Bytes over the wire, in kB, of a grid's page with every file it names."""
    files = set(re.findall(r'(?:src|href)="(/(?:static|images|photos)/[^"]+)"', page))
    weight = len(page.encode())
    for file in files:
        with client.stream("GET", file) as response:
            weight += sum(len(part) for part in response.iter_raw())
    return weight / 1_000


def result(name: str, value: float, unit: str, floor: float) -> dict[str, Any]:
    """One line of the table that `make bench` prints."""
    return {"name": name, "value": value, "unit": unit, "floor": floor, "ratio": value / floor}
