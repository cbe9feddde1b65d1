"""What an index knows of when and where its images were taken, and what a filter asks of that.

A vector database can leave out by itself what a filter leaves out, if it holds what the filter asks
about. The same numbers lie beside the vectors, in `fields.npy`: what was noted when an index was
made may have been corrected since, and only where it still agrees with a filter it is gone by.
"""

from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FIELDS = "fields.npy"
KINDS = np.dtype(
    [
        ("taken", "<i8"),  # seconds since 1970 by the camera's own clock
        ("hour", "<i8"),  # 0 to 23
        ("month", "<i8"),  # 1 to 12
        ("latitude", "<f8"),  # degrees
        ("longitude", "<f8"),
        ("place", "<i8"),  # a number for the name of a deployment: `number_place`
    ]
)
NAMES: tuple[str, ...] = KINDS.names or ()
# What stands for unknown: no bounds hold it.
UNKNOWN = (-(2**62), -1, -1, -999.0, -999.0, -1)
LEAST_TAKEN, MOST_TAKEN = -(2**61), 2**61
EPOCH = datetime(1970, 1, 1)

Fields = NDArray[np.void]  # (n,) of KINDS


@dataclass(frozen=True)
class Bounds:
    """One thing that images must fulfil: a field lies in one of some ranges.

    `field` is a name of KINDS; each range has a first and a last value, both belonging to it.
    """

    field: str
    ranges: tuple[tuple[float, float], ...]


def note_fields(
    taken: datetime | None, latitude: float | None, longitude: float | None, place: str | None
) -> tuple[float, ...]:
    """What is kept of one image, in the order of KINDS; None is unknown."""
    when: tuple[float, ...] = UNKNOWN[:3]
    if taken is not None:
        when = (count_seconds(taken), taken.hour, taken.month)
    return (
        *when,
        UNKNOWN[3] if latitude is None else latitude,
        UNKNOWN[4] if longitude is None else longitude,
        UNKNOWN[5] if place is None else number_place(place),
    )


def count_seconds(moment: datetime) -> int:
    """Whole seconds from 1970 to a moment of the same unknown time zone."""
    return int((moment - EPOCH).total_seconds() // 1)


def number_place(name: str) -> int:
    """A number that stands for a name; of two names it is as good as never the same."""
    return int.from_bytes(sha256(name.encode()).digest()[:7], "big")


def write_fields(folder: Path, fields: Fields) -> None:
    """Keep the fields of the rows of an index in its folder."""
    np.save(folder / FIELDS, fields)


def read_fields(folder: Path) -> Fields | None:
    """The fields of an index (n,), memory-mapped, or None where none were noted."""
    path = folder / FIELDS
    return np.load(path, mmap_mode="r") if path.exists() else None


def find_within(fields: Fields, where: tuple[Bounds, ...]) -> NDArray[np.bool_]:
    """Which rows all of some bounds hold, (n,) bool."""
    is_within = np.ones(len(fields), dtype=bool)
    for one in where:
        values = np.ascontiguousarray(fields[one.field])
        is_in_any = np.zeros(len(fields), dtype=bool)
        for first, last in one.ranges:
            is_in_any |= (values >= first) & (values <= last)
        is_within &= is_in_any
    return is_within
