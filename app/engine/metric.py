"""A metric for comparing images of one collection, learnt without labels.

Images that are neighbours mostly show the same kind of thing. The directions along which they
differ all the same - pose, light, water, background - tell little about what is shown, and count
less in this metric. It is learnt once, when an index is built.
"""

from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh

from app.engine.parts import evenly

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]

QUERIES = 2_048  # images whose neighbours are looked at
POOL = 8_192  # images among which neighbours are looked for
NEIGHBOURS = 5
DIRECTIONS = 128  # that get a scale of their own; all others share one
STRENGTH = 3.0  # at 0 every direction counts as before


@dataclass(frozen=True, eq=False)
class Metric:
    """`(x - centre)` with each of `directions` scaled by its own of `gains`, all else by `rest`.

    `centre` (d,); `directions` (r, d) orthonormal rows; `gains` (r,) > 0; all float32. The map is
    symmetric and, over the collection, keeps the mean squared distance to the centre.
    """

    centre: Floats
    directions: Floats
    gains: Floats
    rest: float

    def apply(self, vectors: Floats) -> Floats:
        """Vectors (k, d) of the index in this metric, (k, d) float32."""
        rest = np.float32(self.rest)
        centred = vectors - self.centre
        along: Floats = (centred @ self.directions.T) * (self.gains - rest)
        applied: Floats = (rest * centred + along @ self.directions).astype(np.float32, copy=False)
        return applied

    def similarities(self, vectors: Floats, rows: Integers) -> Floats:
        """Cosines in this metric of `vectors[rows]` to all of `vectors`, (len(rows), k) float32.

        Parameters: `vectors` (k, d) of the index; `rows` of them. One that lies at the centre has
        a cosine of 0 to all. As of `apply`, but nothing is brought back from the directions, which
        is half of its work: the products of vectors along them and of all else add up.
        Source: cosines of vectors under a linear map; where the map comes from: `learn_metric`.
        """
        rest = np.float32(self.rest) ** 2
        extra = self.gains**2 - rest
        centred = vectors - self.centre
        along = centred @ self.directions.T
        squares = rest * np.einsum("ij,ij->i", centred, centred) + along**2 @ extra
        lengths = np.sqrt(np.maximum(squares, np.float32(1e-24)))
        products = rest * (centred[rows] @ centred.T) + (along[rows] * extra) @ along.T
        cosines: Floats = products / lengths[rows, None] / lengths
        return cosines


def learn_metric(vectors: Floats, centre: Floats) -> Metric:
    """The metric of a collection, from how its neighbours differ.

    With `L` the mean of `d d'` over the differences `d` of images to their 5 nearest, a direction
    of variance `l` in it is scaled by `(1 + 3 l / m)^(-1/2)`, where `m` is the variance of `L`
    along a difference itself, the mean of `l` weighted by `l`.

    Parameters: `vectors` (n, d) float32 unit rows, n >= 1, and `centre` (d,), their mean. At most
    2,048 evenly spaced rows are compared with at most 8,192. Where neighbours do not differ, or
    there is one image, nothing is scaled. The same vectors give the same metric.
    Source: within-class covariance normalisation, A. O. Hatch, S. Kajarekar, A. Stolcke,
    Interspeech 2006, with neighbours in the place of labels as in T. Hastie, R. Tibshirani,
    "Discriminant adaptive nearest neighbor classification", IEEE PAMI 18, 1996; shrinking towards
    equal scales is ours.
    """
    count, dimension = vectors.shape
    pool = np.asarray(vectors[evenly(count, POOL)])
    differences = _differences(pool, evenly(len(pool), QUERIES))
    total = float(np.square(differences).sum()) / max(len(differences), 1)
    kept = min(DIRECTIONS, dimension)
    plain = Metric(centre, np.zeros((0, dimension), np.float32), np.zeros(0, np.float32), 1.0)
    if total < 1e-9:
        return plain
    covariance = (differences.T @ differences).astype(np.float64) / len(differences)
    variances, columns = eigh(covariance, subset_by_index=[dimension - kept, dimension - 1])
    typical = float(np.square(covariance).sum()) / total
    others = max(total - variances.sum(), 0.0) / max(dimension - kept, 1)
    gains = (1 + STRENGTH * np.maximum(variances, 0) / typical) ** -0.5
    rest = (1 + STRENGTH * others / typical) ** -0.5
    scaled = Metric(centre, columns.T.astype(np.float32), gains.astype(np.float32), rest)
    centred = np.square(pool - centre).sum()
    growth = float(np.sqrt(centred / np.square(scaled.apply(pool)).sum()))
    return Metric(centre, scaled.directions, scaled.gains * np.float32(growth), rest * growth)


def write_metric(path: Path, metric: Metric) -> None:
    """Keep a metric in a file, but for its centre."""
    np.savez(path, directions=metric.directions, gains=metric.gains, rest=np.float64(metric.rest))


def read_metric(path: Path, centre: Floats) -> Metric:
    """A metric from its file. Raises OSError or ValueError when that can't be read."""
    try:
        with path.open("rb") as file, np.load(file) as kept:
            directions, gains, rest = kept["directions"], kept["gains"], float(kept["rest"])
    except KeyError as missing:
        raise ValueError(f"{path.name} lacks {missing}") from missing
    except BadZipFile as cut:
        raise ValueError(f"{path.name} is no whole file: {cut}") from cut
    if directions.shape != (len(gains), len(centre)):
        raise ValueError(f"{path.name} is of another shape than its index")
    return Metric(centre, directions, gains, rest)


def _differences(pool: Floats, queries: Integers) -> Floats:
    """Of each query to its nearest others in the pool, (q * k, d)."""
    k = min(NEIGHBOURS, len(pool) - 1)
    if k == 0:
        return np.zeros((0, pool.shape[1]), np.float32)
    similarities = pool[queries] @ pool.T
    similarities[np.arange(len(queries)), queries] = -2.0
    nearest = np.argpartition(-similarities, k - 1, axis=1)[:, :k]
    differences: Floats = np.repeat(pool[queries], k, axis=0) - pool[nearest.ravel()]
    return differences
