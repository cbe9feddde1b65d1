"""Small indexes for the engine's tests."""

from collections.abc import Callable

import numpy as np
import pytest

from app.engine.index import VectorIndex, build_index

MakeIndex = Callable[..., VectorIndex]


@pytest.fixture(scope="session")
def make_index(tmp_path_factory: pytest.TempPathFactory) -> MakeIndex:
    """Build an index of the given vectors (brought to unit length), image ids 100, 101, …"""

    def make(vectors: object, image_ids: object = None) -> VectorIndex:
        rows = np.asarray(vectors, dtype=np.float32)
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return build_index(
            tmp_path_factory.mktemp("index"),
            vectors=rows,
            image_ids=np.arange(100, 100 + len(rows)) if image_ids is None else image_ids,
            embedder="drawn",
            revision="1",
        )

    return make


@pytest.fixture(scope="session")
def clustered(make_index: MakeIndex) -> tuple[VectorIndex, np.ndarray]:
    """400 images in 16 dimensions; the 30 of the target have two looks with something in common."""
    vectors, target_rows = draw_clusters()
    return make_index(vectors), target_rows


@pytest.fixture(scope="session", params=[True, False], ids=["signed", "unsigned"])
def clusters(
    make_index: MakeIndex, request: pytest.FixtureRequest
) -> tuple[VectorIndex, np.ndarray]:
    """The same, and without numbers below 0, where `rarefind` has a second head."""
    vectors, target_rows = draw_clusters()
    return make_index(vectors if request.param else np.abs(vectors)), target_rows


def draw_clusters() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(4)
    vectors = rng.standard_normal((400, 16))
    looks = rng.standard_normal(16) * 1.5 + rng.standard_normal((2, 16)) * 1.5
    target_rows = np.sort(rng.choice(400, 30, replace=False))
    vectors[target_rows] += looks[np.arange(30) % 2]
    return vectors, target_rows
