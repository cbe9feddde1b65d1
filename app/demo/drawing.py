"""Draws the demo's collection: images in one folder per deployment, the labels apart in a file.

The sizes of the species have a long tail, and the rare species is one of the smallest. Images are
numbered by place and time, so that neither a file's name nor its folder tells the species.
"""

import csv
import math
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import groupby
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image

from app.demo.scenery import HABITATS
from app.demo.species import LOOKALIKE, RARE, SPECIES
from app.demo.specimens import draw_image, draw_plate
from app.reading import start_worker

IMAGES = "images"  # the folder to import
PLATES = {"ringed-amber.jpg": RARE, "banded-amber.jpg": LOOKALIKE}  # what to look for, and not
LABELS = "labels.csv"  # written last: a folder that has it is complete
RARE_COUNT = 28  # of the usual 3,200; never more than an eighth of the collection
SPREAD = 30  # the commonest species has about so many times as many images as the rarest
SEASON_START, SEASON_DAYS = datetime(2025, 5, 10), 130
JPEG_QUALITY = 85


@dataclass(frozen=True)
class Shot:
    """One photograph to draw."""

    number: int
    species: int  # position in SPECIES
    habitat: str
    deployment: str
    taken_at: datetime
    file: str = ""  # relative to the images' folder


def draw_collection(
    folder: Path,
    *,
    seed: int,
    count: int = 3200,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Draw `count` (at least 60) images and their labels into the folder; same seed, same files."""
    shots = plan_shots(seed, count)
    for deployment in {shot.deployment for shot in shots}:
        (folder / IMAGES / deployment).mkdir(parents=True, exist_ok=True)
    # Spawned, because a process that already runs threads must not be forked.
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn"), start_worker) as pool:
        chunks = [shots[start : start + 16] for start in range(0, count, 16)]
        drawn = pool.map(_draw_shots, [folder] * len(chunks), [seed] * len(chunks), chunks)
        for done, _ in enumerate(drawn, 1):
            if progress is not None:
                progress(min(done * 16, count), count)
    for name, species in PLATES.items():
        draw_plate(seed, SPECIES[species]).save(folder / name, quality=JPEG_QUALITY)
    unfinished = folder / f"{LABELS}.part"
    with unfinished.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("file", "label"))
        rows.writerows((shot.file, SPECIES[shot.species].name) for shot in shots)
    unfinished.replace(folder / LABELS)


def plan_shots(seed: int, count: int) -> list[Shot]:
    """Who is photographed where and when; files are numbered in each deployment by time."""
    rng = np.random.default_rng(seed)
    species = np.repeat(np.arange(len(SPECIES)), species_sizes(count))
    shots = []
    for number in range(count):
        habitat = list(HABITATS)[rng.integers(len(HABITATS))]
        day = math.floor(rng.uniform(0, SEASON_DAYS))
        second = int(np.clip(rng.normal(13, 2.2), 7, 20) * 3600)
        taken_at = SEASON_START + timedelta(days=day, seconds=second)
        deployment = f"{habitat}-{rng.integers(1, 3)}"
        shots.append(Shot(number, int(species[number]), habitat, deployment, taken_at))
    shots.sort(key=lambda shot: (shot.deployment, shot.taken_at, shot.number))
    return [
        replace(shot, file=f"{deployment}/{place:04d}.jpg")
        for deployment, group in groupby(shots, key=lambda shot: shot.deployment)
        for place, shot in enumerate(group, 1)
    ]


def species_sizes(count: int) -> list[int]:
    """How many of `count` images each species gets, in the order of SPECIES."""
    rare = min(RARE_COUNT, count // 8)
    others = len(SPECIES) - 1
    weights = np.array([SPREAD ** (-rank / (others - 1)) for rank in range(others)])
    sizes = np.maximum(1, np.floor(weights / weights.sum() * (count - rare))).astype(int)
    sizes[0] += count - rare - sizes.sum()
    return [*sizes[:RARE].tolist(), rare, *sizes[RARE:].tolist()]


def _draw_shots(folder: Path, seed: int, shots: list[Shot]) -> None:
    for shot in shots:
        image = draw_image(seed, shot.number, SPECIES[shot.species], shot.habitat)
        exif = Image.Exif()
        exif[0x010F], exif[0x0110] = "Rarefind", "Synthetic"  # make and model of the camera
        details = exif.get_ifd(0x8769)
        details[0x9003] = shot.taken_at.strftime("%Y:%m:%d %H:%M:%S")  # DateTimeOriginal
        image.save(folder / IMAGES / shot.file, quality=JPEG_QUALITY, exif=exif)
