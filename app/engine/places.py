"""Places that lie close together on a map, merged into one point."""

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
Integers = NDArray[np.int64]

CELLS = 40  # along the longer side of the map: points nearer than this would lie on each other


def merge_places(latitudes: Doubles, longitudes: Doubles, counts: Integers) -> Integers:
    """Which point of a map each place belongs to.

    Places fall into the squares of a grid, 40 along the longer side of what they span; degrees of
    longitude are as long as they are at the middle latitude. A span across 180 degrees is not seen.
    Parameters: `latitudes`, `longitudes` (n,) in degrees, WGS 84; `counts` (n,) >= 0 images.
    Returns (n,) int64 from 0: points by falling number of images, ties from south to north.
    Source: binning by a square grid, as in W. Cleveland, "Visualizing Data", 1993.
    """
    if not len(latitudes):
        return np.empty(0, np.int64)
    east = longitudes * np.cos(np.radians((latitudes.min() + latitudes.max()) / 2))
    span = max(float(np.ptp(latitudes)), float(np.ptp(east)))
    if span == 0:
        return np.zeros(len(latitudes), np.int64)
    cell = span / CELLS
    across = np.floor((east - east.min()) / cell).astype(np.int64)
    up = np.floor((latitudes - latitudes.min()) / cell).astype(np.int64)
    _, squares = np.unique(up * (CELLS + 1) + across, return_inverse=True)
    sums = np.bincount(squares, weights=counts)
    ranks = np.empty(len(sums), np.int64)
    ranks[np.argsort(-sums, kind="stable")] = np.arange(len(sums))
    return ranks[squares]
