"""What an index knows of when and where its images were taken, and bounds around some of them.

A vector database can leave out by itself what a filter leaves out, if it holds the numbers that the
filter goes by. It is not told the filter: what a date or place was when the index was made may have
been corrected since. It is told bounds around the rows that are allowed, by the numbers that it
holds. So no allowed row is ever outside, and of a filter by date or place little else is inside.
"""

from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FIELDS = "fields.npy"
# Seconds since 1970 by the camera's own clock, 0 to 23, 1 to 12, degrees, degrees, and a number for
# the name of the deployment.
NAMES = ("taken", "hour", "month", "latitude", "longitude", "place")
WHOLE = ("taken", "hour", "month", "place")  # those without fractions
UNKNOWN = (-1e15, -1.0, -1.0, -999.0, -999.0, -1.0)
EPOCH = datetime(1970, 1, 1)
MOST_VALUES = 32  # each named by itself; of more, ranges
RANGES = 3  # what is unknown lies apart, and so may both sides of the date line
NARROW = 0.9  # of the rows that are left: a field that leaves more is not worth asking about

Fields = NDArray[np.float64]  # (6, n) in the order of NAMES
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Bounds:
    """A field lies in one of some ranges, each with its first and last value."""

    field: str
    ranges: tuple[tuple[float, float], ...]


def note_fields(
    taken: datetime | None, latitude: float | None, longitude: float | None, place: str | None
) -> tuple[float, ...]:
    """What is kept of one image, in the order of NAMES; None is unknown."""
    when = UNKNOWN[:3]
    if taken is not None:
        seconds = (taken - EPOCH).total_seconds() // 1
        when = (seconds, float(taken.hour), float(taken.month))
    return (
        *when,
        UNKNOWN[3] if latitude is None else latitude,
        UNKNOWN[4] if longitude is None else longitude,
        UNKNOWN[5] if place is None else _number_place(place),
    )


def write_fields(folder: Path, fields: Fields) -> None:
    """Keep the fields of the rows of an index in its folder."""
    np.save(folder / FIELDS, fields)


def read_fields(folder: Path) -> Fields | None:
    """The fields of an index (6, n), memory-mapped, or None where none were noted."""
    path = folder / FIELDS
    return np.load(path, mmap_mode="r") if path.exists() else None


def enclose(fields: Fields, rows: Integers) -> tuple[tuple[Bounds, ...], int]:
    """Bounds that hold all of some rows, and how many rows they hold.

    Parameters: `fields` (6, n); `rows` (r,), r >= 1. Only fields that leave out a good part of what
    the others leave are among the bounds.
    """
    bounds: list[Bounds] = []
    is_within = np.ones(fields.shape[1], dtype=bool)
    for field, values in zip(NAMES, fields, strict=True):
        one = Bounds(field, _find_ranges(values[rows]))
        is_in_any = np.zeros(len(values), dtype=bool)
        for first, last in one.ranges:
            is_in_any |= (values >= first) & (values <= last)
        both = is_within & is_in_any
        if np.count_nonzero(both) < NARROW * np.count_nonzero(is_within):
            bounds.append(one)
            is_within = both
    return tuple(bounds), int(np.count_nonzero(is_within))


def _find_ranges(values: Fields) -> tuple[tuple[float, float], ...]:
    """Few values each by itself; many in ranges, parted where the gaps are widest."""
    values = np.unique(values)
    if len(values) <= MOST_VALUES:
        return tuple((float(value), float(value)) for value in values)
    gaps = np.sort(np.argsort(np.diff(values))[1 - RANGES :])
    firsts, lasts = values[[0, *(gaps + 1)]], values[[*gaps, -1]]
    return tuple((float(first), float(last)) for first, last in zip(firsts, lasts, strict=True))


def _number_place(name: str) -> float:
    """A number that stands for a name; of two names it is as good as never the same."""
    return float(int.from_bytes(sha256(name.encode()).digest()[:6], "big"))
