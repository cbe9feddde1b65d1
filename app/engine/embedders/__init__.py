"""Frozen models that turn pictures into unit vectors.

One file a backend, behind the small protocol `Embedder`; `EMBEDDERS` is the register. Importing
this file does not import torch: worker processes that only prepare pictures stay small.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from app.engine import EngineError

Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]


class UnknownEmbedder(EngineError):
    """A name that is not in the register."""


class WeightsNotUsable(EngineError):
    """Weights that are not those of the model they were meant for."""


@dataclass(frozen=True)
class Preparation:
    """What a model expects of a picture: shorter side resized, then the middle square cut out.

    Pixel for pixel what torchvision's `Resize` (bicubic, antialiased) and `CenterCrop` give.
    Sides are in pixels, `crop_side` <= `resize_side`.
    """

    resize_side: int
    crop_side: int

    def __call__(self, picture: PIL.Image.Image) -> Pixels:
        """Prepare an upright RGB picture of any size from 1 x 1 pixel on.

        Returns (crop_side, crop_side, 3) uint8. Source: torchvision's transforms of these names.
        """
        shorter = min(picture.size)
        width, height = (int(self.resize_side * side / shorter) for side in picture.size)
        left, top = (round((side - self.crop_side) / 2) for side in (width, height))
        resized = picture.resize((width, height), PIL.Image.Resampling.BICUBIC)
        square = resized.crop((left, top, left + self.crop_side, top + self.crop_side))
        return np.asarray(square)


class Embedder(Protocol):
    """A frozen model. Its vectors can be compared only with those of the same `revision`.

    `batch_size` pictures at a time suit the device, `streams` batches at the same time fill it.
    """

    name: str
    revision: str
    dimension: int
    batch_size: int
    streams: int
    prepare: Preparation
    embed_text: Callable[[list[str]], Floats] | None  # None when the model knows no words

    def embed_images(self, prepared: Pixels) -> Floats:
        """Embed (b, side, side, 3) uint8 prepared pictures, b >= 0, in any number at once.

        Returns (b, dimension) float32 unit rows.
        """
        ...


@dataclass(frozen=True)
class RegisteredEmbedder:
    """How to load an embedder onto a device, and a plain sentence about it."""

    load: Callable[[str], Embedder]
    summary: str


def load_embedder(name: str, *, device: str = "auto") -> Embedder:
    """Load the embedder `name` onto `device`: auto, cpu, mps, cuda or cuda:N.

    Raises UnknownEmbedder with the names there are, WeightsNotUsable when its weights are not the
    ones it was made for, and torch's RuntimeError for a device that is not there.
    """
    if name not in EMBEDDERS:
        raise UnknownEmbedder(f"there is no embedder {name!r}; there are: {', '.join(EMBEDDERS)}")
    return EMBEDDERS[name].load(device)


def _load_efficientnet_lite0(device: str) -> Embedder:
    from app.engine.embedders.efficientnet import load_efficientnet_lite0

    return load_efficientnet_lite0(device)


EMBEDDERS: dict[str, RegisteredEmbedder] = {
    "efficientnet-lite0": RegisteredEmbedder(
        load=_load_efficientnet_lite0,
        summary="Small and quick, comes with Rarefind and needs no download; knows no words.",
    ),
}
