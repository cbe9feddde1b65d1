"""What it is worth to ask about one image of an event: bursts made of the fish, as none are there.

The fish have one image a track. Every track of a rare species, and a sample of the others, becomes
a burst of 1 to 8 frames: the picture, and the picture again as a camera would have taken it a
moment later, moved by up to 6 % and a little lighter or darker. The folder that is written is
imported and replayed by the commands in docs/evaluation.md.

    python -m bench.events ../shared/data/fish.zip bursts/
"""

import csv
import io
import sys
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageEnhance

RARE = range(5, 81)  # images of a species
OTHERS = 2_000  # tracks of the other species
MOST_FRAMES = 8
MOVED, LIGHTER = 0.06, 0.08  # of a side, of the brightness
SEED = 20261126


def main(fish: Path, out: Path) -> None:
    """Write the frames, and labels.csv with a column burst."""
    rng = np.random.default_rng(SEED)
    out.mkdir(parents=True)
    with zipfile.ZipFile(fish) as source, (out / "labels.csv").open("w", newline="") as file:
        folder = next(name for name in source.namelist() if name.endswith("labels.csv"))
        rows = list(csv.DictReader(io.TextIOWrapper(source.open(folder), encoding="utf-8")))
        sizes = Counter(row["class"] for row in rows)
        rare = [row for row in rows if sizes[row["class"]] in RARE]
        others = [row for row in rows if sizes[row["class"]] not in RARE]
        chosen = rare + [others[i] for i in rng.choice(len(others), OTHERS, replace=False).tolist()]
        table = csv.writer(file)
        table.writerow(["file", "class", "burst"])
        root = folder.removesuffix("labels.csv")
        for number, row in enumerate(chosen):
            picture = PIL.Image.open(source.open(root + row["file"])).convert("RGB")
            for frame in range(int(rng.integers(1, MOST_FRAMES + 1))):
                name = f"{number:05}_{frame}.jpg"
                shown = picture if frame == 0 else take_again(picture, rng)
                shown.save(out / name, quality=92)
                table.writerow([name, row["class"], f"burst-{number}"])


def take_again(picture: PIL.Image.Image, rng: np.random.Generator) -> PIL.Image.Image:
    """The picture as a moment later: a part of it, moved, at its size, and another light."""
    width, height = picture.size
    left, top, right, bottom = rng.uniform(0, MOVED, 4)
    box = (left * width, top * height, (1 - right) * width, (1 - bottom) * height)
    moved = picture.resize(picture.size, PIL.Image.Resampling.BICUBIC, box=box)
    return PIL.ImageEnhance.Brightness(moved).enhance(float(rng.uniform(1 - LIGHTER, 1 + LIGHTER)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
