"""What lasts, in object storage that several machines share (RAREFIND_STORE).

The data folder is then each machine's working place and cache: what is written there is put into
the store before a row says it is there, and fetched on first need. A file has the same name in
both, from the data folder on. Without a store every verb here does with the data folder alone.

A folder is put file by file and, last, the list of them with their checksums: without the list it
is not there. A fetched one gets its name when it is whole and as the list says.
"""

import errno
import fcntl
import hashlib
import json
import logging
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from math import inf
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

from app.errors import BeingFetched, RarefindError, StoreDamaged, StoreNotUsable
from app.settings import Settings

LIST = "files.json"  # of a folder that is whole in the store, its files and their checksums
PARTS = ("indexes", "originals", "thumbnails", "photos", "exports", "replays", "uploads")
AT_ONCE = 16  # files on the way
MOST_DELETED = 1_000  # in one request, as S3 has it
READ_BYTES = 1 << 20
LOOK_S = 0.2  # between looks whether another process has fetched a folder
PATIENCE_S = 20.0  # that a request waits for a folder: below what proxies wait for an answer
# What was used so lately is left in the cache: it may be in use, or not be in the store yet.
IN_USE_S = 3_600.0
TRIM_S = 300.0  # between looks at what the cache takes: a million files are slow to look at
# An answer is waited for so long, and asked for so often: a store that is away is said to be.
S3_PATIENCE = {"connect_timeout": 5, "read_timeout": 30, "retries": {"max_attempts": 2}}
OWN_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
# An original that an import copied, in any machine's data folder; named by its content.
ORIGINAL = re.compile(r".*/(originals/[0-9]+/[0-9a-f]{2}/[0-9a-f]{64}\.[a-z]+)", re.DOTALL)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StoredFile:
    """A file of the store."""

    name: str  # from the data folder on, with "/" between
    size_bytes: int
    modified_at: datetime


# --- Putting and fetching ------------------------------------------------------------------------


def put_files(settings: Settings, paths: Iterable[Path]) -> None:
    """Have files of the data folder in the store, anew if they are there."""
    if settings.store is None:
        return
    with _reaching(settings) as place:
        _each(place.put, [(path, place.name(path)) for path in paths])
    _trim_now_and_then(settings)


def put_folder(settings: Settings, folder: Path) -> None:
    """Have a finished folder of the data folder in the store, its list last."""
    if settings.store is None:
        return
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != LIST]
    listed = {
        path.relative_to(folder).as_posix(): [path.stat().st_size, _sha256(path)] for path in paths
    }
    with _reaching(settings) as place:
        _each(place.put, [(path, place.name(path)) for path in paths])
        # In the data folder, it says that the store has all of the folder.
        (folder / LIST).write_text(json.dumps(listed))
        place.put(folder / LIST, place.name(folder / LIST))


def fetch_file(settings: Settings, path: Path) -> bool:
    """Have a file of the data folder here if the store has it; whether it is here."""
    if settings.store is None or not path.is_relative_to(settings.home):
        return path.exists()
    if _touch(path):
        return True
    with _reaching(settings) as place:
        is_here = place.get(path)
    _trim_now_and_then(settings)
    return is_here


def fetch_files(settings: Settings, paths: Iterable[Path]) -> None:
    """Have files of the data folder here, those that the store has, several at a time."""
    if settings.store is not None:
        _each(partial(fetch_file, settings), [(path,) for path in paths])


def fetch_folder(settings: Settings, folder: Path, *, patience_s: float = inf) -> bool:
    """Have a finished folder here, whole and as its checksums say; whether it is here.

    One process of a machine fetches it, others wait. After `patience_s` BeingFetched is raised, and
    it comes all the same. StoreDamaged when the store holds other bytes than were put there.
    """
    if settings.store is None:
        return folder.is_dir()
    if _touch(folder / LIST):
        return True
    until = time.monotonic() + patience_s
    with _reaching(settings) as place:
        if not place.holds(folder / LIST):
            return folder.is_dir()  # from before there was a store
        while not (folder / LIST).is_file():
            lock = _try_lock(settings, folder)
            if lock is not None:
                fetching: Future[None] = Future()
                own = (fetching, lock, place, folder, settings)
                Thread(target=_fetch_locked, args=own, name="fetch", daemon=True).start()
                wait([fetching], None if patience_s == inf else until - time.monotonic())
                if fetching.done():
                    fetching.result()
            if time.monotonic() > until and not (folder / LIST).is_file():
                raise BeingFetched(int(PATIENCE_S))
            time.sleep(0 if lock is not None else LOOK_S)
    return True


def mark_used(settings: Settings, folder: Path) -> None:
    """Have the cache keep a folder that is in use."""
    if settings.store is not None:
        _touch(folder / LIST)


def holds_folder(settings: Settings, folder: Path) -> bool:
    """Whether a finished folder is in the store."""
    if settings.store is None:
        return False
    with _reaching(settings) as place:
        return place.holds(folder / LIST)


def check_folder(settings: Settings, folder: Path) -> None:
    """Compare the sizes of a stored folder's files with its list, or raise StoreDamaged."""
    with _reaching(settings) as place:
        listed = place.get_list(folder)
        found = place.list(folder.relative_to(settings.home).as_posix())
        sizes = {file.name.rpartition(f"{folder.name}/")[2]: file.size_bytes for file in found}
        damaged = [name for name, (size, _) in listed.items() if sizes.get(name) != size]
    if damaged:
        raise StoreDamaged(_say_damaged(folder, damaged[0]))


def find_original(file: str, settings: Settings) -> Path:
    """Where an original is on this machine, or would be, fetched if the store has it.

    A row names one that an import copied by the data folder of the machine that did it.
    """
    path = place_original(file, settings)
    fetch_file(settings, path)
    return path


def place_original(file: str, settings: Settings) -> Path:
    """Where an original is on this machine, or would be; nothing is fetched."""
    own = ORIGINAL.fullmatch(file)
    if settings.store is None or own is None or Path(file).is_file():
        return Path(file)
    return settings.home / own[1]


# --- Deleting and listing ------------------------------------------------------------------------


def replay_folder(settings: Settings, replay_id: int) -> Path:
    """Where the files of a replay are."""
    return settings.home / "replays" / str(replay_id)


def delete_folders(settings: Settings, folders: Iterable[Path]) -> None:
    """Remove folders and all beneath from the store; those of the data folder stay."""
    if settings.store is not None:
        with _reaching(settings) as place:
            _each(place.remove_folder, [(folder,) for folder in folders])


def delete_files(settings: Settings, paths: Iterable[Path]) -> None:
    """Remove files from the store; those of the data folder stay."""
    if settings.store is None:
        return
    with _reaching(settings) as place:
        names = iter(paths)
        while some := list(islice(names, MOST_DELETED)):
            place.remove_files(some)


def list_stored(settings: Settings, part: str) -> Iterator[StoredFile]:
    """The files of the store below a part of the data folder, such as `originals/7`."""
    if settings.store is None:
        return
    with _reaching(settings) as place:
        found = place.list(part)
    yield from found


def remove_stored(settings: Settings, file: StoredFile) -> bool:
    """Remove a file that was listed, unless it was put anew since."""
    with _reaching(settings) as place:
        return place.remove_unchanged(file)


def check_store(settings: Settings) -> None:
    """Write, read and remove a small file, or raise StoreNotUsable with what is wrong."""
    with _reaching(settings) as place:
        place.try_out()


def say_store(settings: Settings) -> str:
    """The store by its address, without the password that one may hold."""
    parts = urlsplit(settings.store or "")
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


# --- The cache -----------------------------------------------------------------------------------


def trim(settings: Settings, *, now_s: float, needed_bytes: int = 0) -> int:
    """Let go of what was used longest ago, until the cache has room; the bytes freed.

    Index folders, thumbnails, photos and originals, each if the store has it: a data folder from
    before there was a store may hold the only one. What was used within the last hour stays.
    """
    held: list[tuple[float, int, Path]] = []
    for path, used_s, size_bytes in _list_cached(settings.home):
        held.append((used_s, size_bytes, path))
    left_bytes = sum(size for _, size, _ in held) + needed_bytes - round(settings.cache_gb * 1e9)
    freed_bytes = 0
    if left_bytes <= 0:
        return 0
    with _reaching(settings) as place:
        for used_s, size_bytes, path in sorted(held, key=lambda one: one[0]):
            if left_bytes <= freed_bytes or used_s > now_s - IN_USE_S:
                break
            if not place.holds(path / LIST if path.is_dir() else path):
                continue
            aside = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
            with suppress(OSError):  # another process was faster
                path.rename(aside)  # a folder goes at once, not file by file
                shutil.rmtree(aside) if aside.is_dir() else aside.unlink()
                freed_bytes += size_bytes
    return freed_bytes


def _list_cached(home: Path) -> Iterator[tuple[Path, float, int]]:
    """What may be let go, when it was used last, and its bytes."""
    for folder in (home / "indexes").glob("[0-9]*"):
        with suppress(OSError):
            used_s = (folder / LIST).stat().st_mtime  # not there: the store has not all of it
            yield folder, used_s, sum(file.stat().st_size for file in folder.iterdir())
    files = (home.glob(pattern) for pattern in ("thumbnails/*/*", "photos/*/*", "originals/*/*/*"))
    for path in (path for some in files for path in some if path.suffix != ".part"):
        with suppress(OSError):
            found = path.stat()
            yield path, found.st_mtime, found.st_size


def _trim_now_and_then(settings: Settings) -> None:
    looked = settings.home / "fetching" / "trimmed"
    with suppress(OSError):
        if time.time() - looked.stat().st_mtime < TRIM_S:
            return
    looked.parent.mkdir(parents=True, exist_ok=True)
    looked.touch()  # first: the other threads and processes need not look as well

    def look() -> None:
        with suppress(StoreNotUsable):
            trim(settings, now_s=time.time())

    # A million thumbnails take long to look through, and nobody has to wait for it.
    Thread(target=look, name="trim", daemon=True).start()


def _touch(path: Path) -> bool:
    """Mark a file of the data folder as used just now; False if it is not there."""
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    except OSError:
        return path.exists()
    return True


# --- The place -----------------------------------------------------------------------------------


class _Place:
    """The store's file system, and where in it the data folder's names begin."""

    def __init__(self, settings: Settings) -> None:
        import fsspec  # takes a while, and few need it

        url = str(settings.store)
        options: dict[str, Any] = {"use_listings_cache": False}  # other machines write there
        protocol = urlsplit(url).scheme
        self._is_s3 = protocol == "s3"
        if self._is_s3:
            options |= {"config_kwargs": S3_PATIENCE}
        self._is_folder = protocol in ("file", "local")
        if self._is_folder:
            options |= {"auto_mkdir": True}
        self._home = settings.home
        self._files, root = fsspec.core.url_to_fs(url, **options)
        self._root = str(root).rstrip("/")

    def name(self, path: Path) -> str:
        """The name of a file of the data folder in the store."""
        return f"{self._root}/{path.relative_to(self._home).as_posix()}"

    def put(self, path: Path, name: str) -> None:
        if not self._is_folder:  # object storage shows an object when all of it is there
            self._files.put_file(str(path), name)
            return
        part = f"{name}.{uuid.uuid4().hex}.part"
        self._files.put_file(str(path), part)
        self._files.mv(part, name)

    def get(self, path: Path) -> bool:
        part = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._files.get_file(self.name(path), str(part))
            part.replace(path)
        except FileNotFoundError as error:
            if _says_no_bucket(error):
                raise
            return False
        finally:
            part.unlink(missing_ok=True)
        return True

    def holds(self, path: Path) -> bool:
        return bool(self._files.exists(self.name(path)))

    def get_list(self, folder: Path) -> dict[str, tuple[int, str]]:
        listed = json.loads(self._files.cat_file(self.name(folder / LIST)))
        return {name: (int(size), str(sha256)) for name, (size, sha256) in listed.items()}

    def get_checked(self, folder: Path, part: Path, name: str, sha256: str) -> None:
        """A file of a folder, compared with its checksum."""
        path = part / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            self._files.get_file(self.name(folder / name), str(path))
        if not path.is_file() or _sha256(path) != sha256:
            raise StoreDamaged(_say_damaged(folder, name))

    def remove_folder(self, folder: Path) -> None:
        with suppress(FileNotFoundError):
            self._files.rm(self.name(folder), recursive=True)

    def remove_files(self, paths: list[Path]) -> None:
        if self._is_s3:  # in one request; what is not there is no error
            self._files.rm([self.name(path) for path in paths])
            return
        for path in paths:
            with suppress(FileNotFoundError):
                self._files.rm_file(self.name(path))

    def list(self, part: str) -> list[StoredFile]:
        found = self._files.find(f"{self._root}/{part}", detail=True)
        return [self._describe(info) for info in found.values()]

    def remove_unchanged(self, file: StoredFile) -> bool:
        name = f"{self._root}/{file.name}"
        try:
            if self._describe(self._files.info(name)).modified_at != file.modified_at:
                return False
            self._files.rm_file(name)
        except FileNotFoundError:
            return False
        return True

    def try_out(self) -> None:
        name, said = f"{self._root}/try-{uuid.uuid4().hex}", b"rarefind"
        self._files.pipe_file(name, said)
        try:
            if self._files.cat_file(name) != said:
                raise OSError("it gives back other bytes than were put there")
        finally:
            self._files.rm_file(name)

    def _describe(self, info: dict[str, Any]) -> StoredFile:
        # As each kind of store calls it: S3, a folder, others.
        when = info.get("LastModified", info.get("mtime", info.get("last_modified")))
        if isinstance(when, (int, float)):
            when = datetime.fromtimestamp(when, UTC)
        name = str(info["name"]).removeprefix(self._root).lstrip("/")
        # One that does not tell has nothing swept.
        return StoredFile(name, int(info["size"]), when or datetime.now(UTC))


def _fetch_locked(
    fetching: "Future[None]", lock: int, place: _Place, folder: Path, settings: Settings
) -> None:
    """Fetch a folder in a thread of its own, and say how that ended."""
    try:
        if not (folder / LIST).is_file():
            _fetch_folder(place, folder, settings)
        fetching.set_result(None)
    except BaseException as error:
        logger.warning("%s/%s could not be fetched: %s", folder.parent.name, folder.name, error)
        fetching.set_exception(error)
    finally:
        os.close(lock)  # and with it the lock


def _fetch_folder(place: _Place, folder: Path, settings: Settings) -> None:
    listed = place.get_list(folder)
    total_bytes = sum(size for size, _ in listed.values())
    trim(settings, now_s=time.time(), needed_bytes=total_bytes)
    folder.parent.mkdir(parents=True, exist_ok=True)
    for left in folder.parent.glob(f"{folder.name}.*.part"):  # of a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    part = folder.with_name(f"{folder.name}.{uuid.uuid4().hex}.part")
    done_bytes = 0
    try:
        for name, (size_bytes, sha256) in listed.items():
            logger.info(
                "Fetching %s/%s from the store: %.1f of %.1f MB",
                folder.parent.name,
                folder.name,
                done_bytes / 1e6,
                total_bytes / 1e6,
            )
            place.get_checked(folder, part, name, sha256)
            done_bytes += size_bytes
        (part / LIST).write_text(json.dumps(listed))
        if folder.exists():  # begun here, and ended on another machine
            folder.rename(folder.with_name(f"{folder.name}.{uuid.uuid4().hex}.part"))
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _try_lock(settings: Settings, folder: Path) -> int | None:
    """The right to fetch a folder on this machine, or None while another process has it."""
    path = settings.home / "fetching" / f"{folder.parent.name}-{folder.name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _each(do: Any, many: list[tuple[Any, ...]]) -> None:
    """Do it for each, several at a time; the first error ends it."""
    if len(many) == 1:
        do(*many[0])
    elif many:
        with ThreadPoolExecutor(min(AT_ONCE, len(many)), thread_name_prefix="store") as pool:
            for _ in pool.map(lambda one: do(*one), many):
                pass


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- What is wrong with it -----------------------------------------------------------------------


@contextmanager
def _reaching(settings: Settings) -> Iterator[_Place]:
    """Whatever a store's library raises becomes one sentence; our own disk's errors stay."""
    try:
        yield _Place(settings)
    except RarefindError:
        raise
    except Exception as error:  # each kind of store has errors of its own
        if isinstance(error, OSError) and error.errno in OWN_DISK:
            raise
        what, why = _explain(error)
        detail = f"{say_store(settings)}: {why}"
        logger.warning("The store can't be used: %s", detail)
        raise StoreNotUsable(
            f"The store of Rarefind's files {what} What was done so far is kept; “rarefind doctor” "
            "tries the store, and says more.",
            detail,
        ) from error


def _explain(error: Exception) -> tuple[str, str]:
    """What people are told, and what only admins: addresses are their business."""
    why = str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
    if isinstance(error, FileNotFoundError):
        return "is not there: make its bucket or folder, or mend RAREFIND_STORE.", why
    if isinstance(error, PermissionError) or type(error).__name__ == "NoCredentialsError":
        return (
            "refuses us: set its keys (for S3 AWS_ACCESS_KEY_ID and so on), or their rights.",
            why,
        )
    if isinstance(error, ImportError):
        return "can't be opened: for s3:// install Rarefind with its extra, rarefind[s3].", why
    return "does not answer.", why


def _say_damaged(folder: Path, name: str) -> str:
    return (
        f"{name} of {folder.parent.name}/{folder.name} in the store is not what was put there. "
        "Bring it back from a version that the store keeps, or build it again."
    )


def _says_no_bucket(error: Exception) -> bool:
    response = getattr(error.__cause__, "response", {})
    return bool(response.get("Error", {}).get("Code") == "NoSuchBucket")
