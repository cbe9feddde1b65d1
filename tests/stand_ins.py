"""What stands in at the edge, named by how it fakes."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import constants

from app.engine.embedders import (
    EMBEDDERS,
    Floats,
    Pixels,
    Preparation,
    RegisteredEmbedder,
)

TINY_CLIP = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8},
    "text_cfg": {
        "context_length": 77,
        "vocab_size": 49408,
        "width": 32,
        "heads": 2,
        "layers": 2,
    },
}


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


class DirectionEmbedder(HashEmbedder):
    """Knows the words it is given, each as a direction, and nudges them by what stands around."""

    def __init__(self, name: str, meanings: dict[str, Floats]) -> None:
        super().__init__(f"{name}:1")
        self.name = name
        self.meanings = meanings
        self.dimension = len(next(iter(meanings.values())))
        self.embed_text = self.embed_by_direction

    def embed_by_direction(self, texts: list[str]) -> Floats:
        return np.stack([self.embed_one(text) for text in texts])

    def embed_one(self, text: str) -> Floats:
        meaning = next(vector for word, vector in self.meanings.items() if word in text)
        rng = np.random.default_rng(len(text))
        vector = meaning + rng.normal(scale=0.01, size=self.dimension)
        return (vector / np.linalg.norm(vector)).astype(np.float32)


def register(monkeypatch: pytest.MonkeyPatch, embedder: HashEmbedder) -> None:
    """Let `embedder` be loaded by its name."""
    entry = RegisteredEmbedder(
        load=lambda _name, _loading: embedder,
        summary="Draws by the hash.",
        dimension=embedder.dimension,
        knows_words=embedder.embed_text is not None,
    )
    monkeypatch.setitem(EMBEDDERS, embedder.name, entry)


def make_tiny_clip(folder: Path, *, seed: int = 0, **preprocessing: object) -> str:
    """A drawn CLIP of two layers, 24 dimensions and 32-pixel pictures, laid out as on the hub.

    Returns the name by which it is loaded, in any process: it knows words, but means nothing.
    """
    import open_clip
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = open_clip.CLIP(**TINY_CLIP)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    config = {"model_cfg": TINY_CLIP, "preprocess_cfg": preprocessing}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return f"open_clip:local-dir:{folder}"


def use_hub(monkeypatch: pytest.MonkeyPatch, address: str, cache: Path) -> None:
    """Have weights fetched from `address` in place of huggingface.co, into an empty cache."""
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
