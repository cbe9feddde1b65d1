"""What stands in at the edge, named by how it fakes."""

import hashlib
from collections.abc import Callable

import numpy as np
import pytest

from app.engine.embedders import (
    EMBEDDERS,
    Floats,
    Pixels,
    Preparation,
    RegisteredEmbedder,
)


class HashEmbedder:
    """A unit vector drawn by the hash of the pixels: right or wrong, but never about right."""

    name = "hash"
    batch_size = 4
    streams = 2
    dimension = 24
    embed_text: Callable[[list[str]], Floats] | None = None

    def __init__(self, revision: str = "hash:1") -> None:
        self.revision = revision
        self.prepare = Preparation(resize_side=12, crop_side=10)
        self.embedded_count = 0

    def embed_images(self, prepared: Pixels) -> Floats:
        self.embedded_count += len(prepared)
        return np.stack([self.embed(pixels) for pixels in prepared])

    def embed(self, pixels: Pixels) -> Floats:
        seed = int.from_bytes(hashlib.sha256(pixels.tobytes()).digest()[:8])
        vector = np.random.default_rng(seed).normal(size=self.dimension)
        return (vector / np.linalg.norm(vector)).astype(np.float32)


def register(monkeypatch: pytest.MonkeyPatch, embedder: HashEmbedder) -> None:
    """Let `embedder` be loaded by its name."""
    entry = RegisteredEmbedder(load=lambda _device: embedder, summary="Draws by the hash.")
    monkeypatch.setitem(EMBEDDERS, embedder.name, entry)
