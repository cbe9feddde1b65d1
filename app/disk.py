"""What an error says of the disk of the data folder, where that is what failed."""

import errno
import shutil
from pathlib import Path

from app.errors import DiskFull, DiskLocked, RarefindError

FULL = (errno.ENOSPC, errno.EDQUOT)
LOCKED = (errno.EACCES, errno.EPERM)
NO_ROOM_BYTES = 100_000  # with so little left, it is the disk that something failed for


def explain_disk(error: Exception, home: Path) -> RarefindError | None:
    """The sentence for an error that the disk of the data folder is behind; None for any other.

    Not every library names the reason: with no room left, none needs to.
    """
    number = error.errno if isinstance(error, OSError) else None
    if number in FULL or (number is None and _has_no_room(home)):
        return DiskFull(
            "The disk of Rarefind's data folder is full. What was done so far is kept: make room, "
            "then try again."
        )
    if number == errno.EROFS:
        return DiskLocked(
            "The disk of Rarefind's data folder is read-only. What was done so far is kept: make "
            "it writable again (a disk with faults is set so by the system), then try again."
        )
    if number in LOCKED and _is_in(error, home):
        return DiskLocked(
            "Rarefind may not read or write all of its data folder. What was done so far is kept: "
            "set the folder's rights for whoever runs Rarefind, then try again."
        )
    return None


def _has_no_room(home: Path) -> bool:
    try:
        return shutil.disk_usage(home).free < NO_ROOM_BYTES
    except OSError:
        return False


def _is_in(error: Exception, home: Path) -> bool:
    named = getattr(error, "filename", None)
    return isinstance(named, (str, Path)) and Path(named).is_relative_to(home)
