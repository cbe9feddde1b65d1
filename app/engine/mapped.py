"""Vectors in a file that is larger than the memory: read ahead of time, and let go of."""

import mmap
import os
from contextlib import suppress
from pathlib import Path
from threading import Lock, Thread

import numpy as np
from numpy.typing import NDArray

READ_BYTES = 8_388_608

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]

_being_read: set[Path] = set()
_lock = Lock()


def have_read(path: Path) -> None:
    """Read a file through in the background, so that it is in the system's memory.

    Page by page, in the order in which rounds need them, it would take minutes. Parameters: `path`
    of a file; one that is being read, or can't be, is passed over.
    """
    with _lock:
        if path in _being_read:
            return
        _being_read.add(path)

    def read() -> None:
        try:
            with suppress(OSError), path.open("rb", buffering=0) as file:
                while file.read(READ_BYTES):
                    pass
        finally:
            _being_read.discard(path)

    Thread(target=read, daemon=True).start()


def read_singly(vectors: Floats) -> None:
    """Tell the system that rows are read here and there: else it reads megabytes around each.

    Parameters: `vectors` (n, d), a map of a file or nothing is done.
    """
    found = _find_map(vectors)
    if found is not None and hasattr(mmap, "MADV_RANDOM"):
        found[0].madvise(mmap.MADV_RANDOM)


def read_ahead(vectors: Floats, rows: Integers) -> None:
    """Have the system read rows side by side instead of one after the other.

    Parameters: `vectors` (n, d), a map of a file or nothing is done; `rows` (k,).
    """
    found = _find_map(vectors)
    if found is None or not hasattr(mmap, "MADV_WILLNEED"):
        return
    mapped, offset, _ = found
    width = vectors.strides[0]
    for start in (offset + np.unique(rows) * width).tolist():
        first = start // mmap.PAGESIZE * mmap.PAGESIZE
        mapped.madvise(mmap.MADV_WILLNEED, first, start + width - first)


def let_go(vectors: Floats, start: int, stop: int) -> None:
    """Tell the system that rows that were read will not be needed soon.

    A pass over all of a large file would else push out of the memory what every round needs.
    Parameters: `vectors` (n, d) as in `read_ahead`; rows from `start` to before `stop`.
    """
    found = _find_map(vectors)
    if found is None or not hasattr(os, "posix_fadvise"):
        return
    mapped, offset, filename = found
    width = vectors.strides[0]
    first = (offset + start * width) // mmap.PAGESIZE * mmap.PAGESIZE
    length = offset + stop * width - first
    mapped.madvise(mmap.MADV_DONTNEED, first, length)
    with Path(filename).open("rb") as file:
        os.posix_fadvise(file.fileno(), first, length, os.POSIX_FADV_DONTNEED)


def _find_map(vectors: Floats) -> tuple[mmap.mmap, int, str] | None:
    """The map that all rows lie in, where in it the first one begins, and its file."""
    holder: object = vectors
    while isinstance(holder, np.ndarray):
        mapped = getattr(holder, "_mmap", None)
        if isinstance(mapped, mmap.mmap):
            start = np.frombuffer(mapped, np.uint8).ctypes.data
            return mapped, vectors.ctypes.data - start, str(getattr(holder, "filename", ""))
        holder = holder.base
    return None
