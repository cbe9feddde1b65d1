"""The metric of an index: against its definition in plain loops, and what it is for."""

import json

import numpy as np
import pytest

from app.engine import metric as engine_metric
from app.engine.index import MANIFEST, METRIC, IndexDamaged, build_index, open_index
from app.engine.metric import learn_metric


def unit(vectors):
    vectors = np.asarray(vectors, np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def drawn(seed=0, count=60, dimension=7):
    return unit(np.random.default_rng(seed).standard_normal((count, dimension)) + 0.5)


def naive_map(vectors):
    """The dense map (d, d) of the definition, with every direction's own scale."""
    vectors = vectors.astype(float)
    differences = []
    for row, vector in enumerate(vectors):
        others = [other for other in range(len(vectors)) if other != row]
        for other in sorted(others, key=lambda other: -vector @ vectors[other])[:5]:
            differences.append(vector - vectors[other])
    local = sum(np.outer(one, one) for one in differences) / len(differences)
    variances, columns = np.linalg.eigh(local)
    typical = (variances**2).sum() / variances.sum()
    scale = sum(
        np.outer(column, column) / np.sqrt(1 + 3 * variance / typical)
        for variance, column in zip(variances, columns.T, strict=True)
    )
    centred = vectors - vectors.mean(axis=0)
    return scale * np.sqrt((centred**2).sum() / ((centred @ scale) ** 2).sum())


@pytest.mark.parametrize("seed", range(3))
def test_the_metric_is_its_definition(seed):
    vectors = drawn(seed)
    metric = learn_metric(vectors, vectors.mean(axis=0))
    expected = (vectors - vectors.mean(axis=0)) @ naive_map(vectors)
    np.testing.assert_allclose(metric.apply(vectors), expected, atol=2e-5)
    unit_length = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    rows = np.array([7, 0, 31])
    np.testing.assert_allclose(
        metric.similarities(vectors, rows), unit_length[rows] @ unit_length.T, atol=2e-4
    )


def test_an_image_at_the_centre_is_like_no_other():
    vectors = drawn(0)
    metric = learn_metric(vectors, vectors[4])
    cosines = metric.similarities(vectors, np.array([4, 5]))
    np.testing.assert_array_equal(cosines[0], 0)
    assert np.isfinite(cosines[1]).all()


def test_directions_beyond_the_first_share_the_mean_of_their_variances(monkeypatch):
    vectors = drawn(5)
    whole = learn_metric(vectors, vectors.mean(axis=0))
    monkeypatch.setattr(engine_metric, "DIRECTIONS", 2)
    part = learn_metric(vectors, vectors.mean(axis=0))
    assert part.directions.shape == (2, 7)
    # Before the common growth, 1 / gain^2 - 1 is the variance, but for one factor.
    ratio = (1 / part.rest) / (1 / part.gains.max())
    first = np.sort(whole.gains)[:2]
    np.testing.assert_allclose(
        np.sort(part.gains) / part.gains.max(), first / first.max(), rtol=1e-4
    )
    others = np.sort(whole.gains)[2:]
    assert 1 / others.max() < ratio * (1 / first.max()) < 1 / others.min()


def test_what_differs_among_neighbours_counts_less():
    # Pairs of images of one thing that differ along the first axis alone, things along the others.
    rng = np.random.default_rng(1)
    things = np.repeat(rng.standard_normal((40, 5)) * [0, 1, 1, 1, 1], 6, axis=0)
    vectors = unit(things + rng.standard_normal((240, 1)) * [0.6, 0, 0, 0, 0])
    metric = learn_metric(vectors, vectors.mean(axis=0))
    axes = metric.apply(np.eye(5, dtype=np.float32) + metric.centre)
    lengths = np.linalg.norm(axes, axis=1)
    assert lengths[0] < 0.75 * lengths[1:].min()


@pytest.mark.parametrize("vectors", [[[0.6, 0.8]], [[0.6, 0.8]] * 9], ids=["one", "equal"])
def test_images_that_do_not_differ_are_left_as_they_are(vectors):
    vectors = np.array(vectors, np.float32)
    metric = learn_metric(vectors, np.zeros(2, np.float32))
    np.testing.assert_array_equal(metric.apply(vectors), vectors)


def test_an_index_keeps_its_metric_and_one_of_before_learns_it(tmp_path):
    vectors, image_ids = drawn(3), np.arange(60)
    index = build_index(
        tmp_path, vectors=vectors, image_ids=image_ids, embedder="drawn", revision="1"
    )
    learnt = learn_metric(vectors, index.mean)
    np.testing.assert_allclose(index.metric.apply(vectors), learnt.apply(vectors), atol=1e-5)
    (tmp_path / METRIC).unlink()
    with pytest.raises(IndexDamaged, match=METRIC):
        open_index(tmp_path)
    manifest = json.loads((tmp_path / MANIFEST).read_text())
    del manifest["metric_sha256"]
    (tmp_path / MANIFEST).write_text(json.dumps(manifest))
    of_before = open_index(tmp_path)
    np.testing.assert_allclose(of_before.metric.apply(vectors), learnt.apply(vectors), atol=1e-5)
    np.savez(tmp_path / METRIC, directions=learnt.directions[:, :3], gains=learnt.gains, rest=1.0)
    with pytest.raises(IndexDamaged):
        open_index(tmp_path)
