"""What `rarefind gc` removes: files that no row knows, and what was kept long enough.

Files come before the rows that name them, so a file without a row may be of work under way: what
is younger than `SETTLED` is left. A file that is named by its content may also be old and wanted
again by an import that runs now; that import marks it as just written (`reading.mark_kept`), and it
is looked at once more when it is out of everybody's sight, before it goes.
"""

import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import exists, select
from sqlalchemy.orm import Session, aliased

from app.backing_up import find_inside
from app.database import Database
from app.deleting import describe_collection_contents, empty_bin, list_due
from app.exports.files import list_old_exports, sweep_exports
from app.reading import THUMBNAIL_SIDES, thumbnail_path
from app.searchers import list_leftover_vectors, remove_leftover_vectors
from app.settings import Settings
from app.store import PARTS, StoredFile, list_stored, place_original, remove_stored
from app.tables import (
    Collection,
    ExportFile,
    Image,
    ImageIndex,
    Photo,
    Replay,
    Upload,
    UploadedFile,
)
from app.uploads import list_forgotten, sweep_uploads, upload_folder

SETTLED = timedelta(days=1)  # an import writes files before their rows; it never takes so long
MOST_NAMED = 3
SHA256_LENGTH = 64
ASIDE = ".gone.part"
UNFINISHED_ENDS = (".building", ".parts")  # of an index's number

Owner = type[Collection] | type[ExportFile] | type[ImageIndex] | type[Replay]


@dataclass(frozen=True)
class Leftover:
    """Files of one kind that nothing needs."""

    kind: str
    count: int
    size_bytes: int


@dataclass(frozen=True)
class Missing:
    """Files that rows name and that are not there."""

    kind: str  # originals, thumbnails
    collection: str
    count: int
    total: int
    some: list[Path]
    advice: str


@dataclass(frozen=True)
class Swept:
    """What is removed, or would be, and what is missing."""

    collections: int  # out of the bin
    searches: int
    bin_bytes: int
    leftovers: list[Leftover]
    missing: list[Missing]

    @property
    def size_bytes(self) -> int:
        """All that is free again."""
        return self.bin_bytes + sum(one.size_bytes for one in self.leftovers)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to remove."""
        return not (self.collections or self.searches or self.leftovers)


def sweep(
    database: Database,
    settings: Settings,
    *,
    now: datetime,
    remove: bool,
) -> Swept:
    """Count what nothing needs and what is missing; with `remove` the former is removed.

    People and workers may go on meanwhile. Killed in between, the next one does the rest.
    """
    with database.session() as session:
        due, search_count = list_due(session, now=now)
        bin_bytes = sum(
            describe_collection_contents(session, one, settings).total_bytes for one in due
        )
        collection_count = len(due)
        counted = {settings.home / "originals" / str(one.id) for one in due}
    if remove:
        gone = empty_bin(database, settings, now=now)
        collection_count, search_count = gone.collections, gone.searches
        bin_bytes = gone.size_bytes
    leftovers = []
    for folders, leftover in (
        _sweep_uploads(database, settings, remove=remove),
        _sweep_exports(database, settings, now=now, remove=remove),
    ):
        counted.update(folders)
        leftovers.append(leftover)
    found: dict[str, list[Path]] = {}
    with database.session() as session:
        for kind, path in list_leftovers(session, settings, now=now):
            if counted.isdisjoint(path.parents):
                found.setdefault(kind, []).append(path)
    oldest_s = (now - SETTLED).timestamp()
    for kind, paths in found.items():
        counts = [
            _remove(path, oldest_s=oldest_s) if remove else measure_files([path]) for path in paths
        ]
        count, size_bytes = (sum(part) for part in zip(*counts, strict=True))
        leftovers.append(Leftover(kind, count, size_bytes))
    leftovers += _sweep_store(database, settings, now=now, remove=remove)
    with database.session() as session:
        in_milvus = (
            remove_leftover_vectors(session, settings)
            if remove
            else len(list_leftover_vectors(session, settings))
        )
        leftovers.append(Leftover("indexes in Milvus that nothing needs", in_milvus, 0))
    with database.session() as session:
        missing = [*_list_missing(session, settings)]
    return Swept(
        collections=collection_count,
        searches=search_count,
        bin_bytes=bin_bytes,
        leftovers=[one for one in leftovers if one.count],
        missing=missing,
    )


def list_leftovers(
    session: Session, settings: Settings, *, now: datetime
) -> Iterator[tuple[str, Path]]:
    """Files and folders that no row knows, each with its kind, but those that may be on the way."""
    oldest_s = (now - SETTLED).timestamp()
    for kind, path in _list_unknown(session, settings):
        if _changed_s(path) < oldest_s:
            yield kind, path


def measure_files(paths: Iterable[Path]) -> tuple[int, int]:
    """Files, and the bytes they take; a folder counts by what is in it."""
    count = size_bytes = 0
    for path in paths:
        for file in (path, *path.rglob("*")):
            with suppress(FileNotFoundError):  # whoever wrote it has tidied up by now
                if file.is_file():
                    count, size_bytes = count + 1, size_bytes + file.stat().st_size
    return count, size_bytes


# --- What is there for nothing -------------------------------------------------------------------


def _list_unknown(session: Session, settings: Settings) -> Iterator[tuple[str, Path]]:
    # Listed before the rows are read: what comes after may be of a row that nobody sees yet.
    home = settings.home
    folders = {
        part: sorted((home / part).glob("*")) for part in ("indexes", "originals", "replays")
    }
    collections = _list_ids(session, Collection)
    kept, unfinished = _list_indexes(session)
    building = {f"{one}{end}" for one in unfinished for end in UNFINISHED_ENDS}
    for path in folders["indexes"]:
        first, _, rest = path.name.partition("-")
        if first == "ahead":
            if rest.partition("-")[0] not in collections:
                yield "vectors of no collection", path
        elif path.name.endswith(UNFINISHED_ENDS):
            if path.name not in building:
                yield "builds that nobody goes on with", path
        elif path.name not in kept:
            yield "indexes of no collection", path
    for path in folders["originals"]:
        if path.name not in collections:
            yield "originals of no collection", path
        else:
            yield from _list_unknown_originals(session, path)
    replays = _list_ids(session, Replay)
    for path in folders["replays"]:
        if path.name not in replays:
            yield "replays of no collection", path
        else:
            yield from (("parts of files", part) for part in path.rglob(".*.part"))
    yield from _list_unknown_pictures(session, home)
    yield from _list_unknown_pieces(session, settings)


def _list_unknown_originals(session: Session, folder: Path) -> Iterator[tuple[str, Path]]:
    """Copies that an import made and was killed before it said so. They are named by content."""
    yield from (("parts of files", part) for part in folder.glob("*.part"))
    copies = [*folder.glob("*/*")]
    known = set(
        session.scalars(
            select(Image.sha256)
            .filter_by(collection_id=int(folder.name))
            .execution_options(yield_per=10_000)
        )
    )
    for path in copies:
        if path.name.endswith(ASIDE):
            yield "parts of files", path
        elif len(path.stem) == SHA256_LENGTH and path.stem not in known:
            yield "originals of no image", path


def _list_unknown_pictures(session: Session, home: Path) -> Iterator[tuple[str, Path]]:
    """Thumbnails and photos, which are named by content, of no image and no photo."""
    found = {part: [*(home / part).glob("*/*")] for part in ("thumbnails", "photos")}
    photos = set(session.scalars(select(Photo.sha256)))
    shown = photos.union(session.scalars(select(Image.sha256).execution_options(yield_per=10_000)))
    for part, known in (("thumbnails", shown), ("photos", photos)):
        for path in found[part]:
            if path.name.endswith(".part"):
                yield "parts of files", path
            elif path.name[:SHA256_LENGTH] not in known:
                yield f"{part} of nothing", path


def _list_unknown_pieces(session: Session, settings: Settings) -> Iterator[tuple[str, Path]]:
    """Pieces of uploads and exports that a kill left in folders that are known."""
    pieces = [*(settings.home / "uploads").glob("*/parts/*")]
    wanted = _list_ids(session, UploadedFile)
    yield from (("pieces of no upload", path) for path in pieces if path.name not in wanted)
    exports = [*(settings.home / "exports").glob("*/*.part")]
    yield from (("parts of files", path) for path in exports)


def _list_ids(session: Session, table: Owner | type[Upload] | type[UploadedFile]) -> set[str]:
    return {str(one) for one in session.scalars(select(table.id))}


def _list_indexes(session: Session) -> tuple[set[str], set[str]]:
    """Indexes that have a row, and those whose building may be gone on with.

    One that failed may, until a newer one is ready; a combined one begins anew each time.
    """
    Newer = aliased(ImageIndex)
    is_outdone = exists().where(
        Newer.collection_id == ImageIndex.collection_id,
        Newer.embedder == ImageIndex.embedder,
        Newer.revision == ImageIndex.revision,
        Newer.state == "ready",
        Newer.id > ImageIndex.id,
    )
    goes_on = (ImageIndex.state == "building") | (
        (ImageIndex.state == "failed") & ImageIndex.first_part_id.is_(None) & ~is_outdone
    )
    rows = session.execute(select(ImageIndex.id, goes_on)).all()
    return {str(one) for one, _ in rows}, {str(one) for one, may in rows if may}


def _changed_s(path: Path) -> float:
    """When a file, or anything in a folder, was changed last, in seconds since 1970."""
    newest_s = 0.0
    for one in (path, *path.rglob("*")):
        with suppress(FileNotFoundError):
            newest_s = max(newest_s, one.stat(follow_symlinks=False).st_mtime)
    return newest_s or float("inf")  # gone by itself


def _remove(path: Path, *, oldest_s: float) -> tuple[int, int]:
    """Delete a file or folder; files and bytes that are gone."""
    if path.is_dir():
        size = measure_files([path])
        shutil.rmtree(path, ignore_errors=True)
        return size
    aside = path.with_name(f"{path.name.removesuffix(ASIDE)}{ASIDE}")
    try:
        path.replace(aside)
        found = aside.stat()
        if found.st_mtime >= oldest_s:  # an import has just found that it needs it
            aside.replace(path)
            return 0, 0
        aside.unlink()
    except FileNotFoundError:
        return 0, 0
    return 1, found.st_size


def _sweep_uploads(
    database: Database, settings: Settings, *, remove: bool
) -> tuple[list[Path], Leftover]:
    with database.session() as session:
        folders = [upload_folder(settings, one) for one in list_forgotten(session, settings)]
        count, size_bytes = measure_files(folders)
    if remove:
        with database.session() as session:
            sweep_uploads(session, settings)
    return folders, Leftover("uploads that nobody goes on with", count, size_bytes)


def _sweep_exports(
    database: Database, settings: Settings, *, now: datetime, remove: bool
) -> tuple[list[Path], Leftover]:
    with database.session() as session:
        folders = list_old_exports(session, settings, now=now)
        count, size_bytes = measure_files(folders)
    if remove:
        size_bytes = sweep_exports(database, settings, now=now)
    return folders, Leftover("exports kept long enough", count, size_bytes)


# --- In the store ---------------------------------------------------------------------------------


def list_stored_leftovers(
    session: Session, settings: Settings, *, now: datetime
) -> Iterator[tuple[str, StoredFile]]:
    """Files of the store that no row knows, each with its kind, but those that may be on the way.

    Folders are judged by their number, originals, thumbnails and photos by their content.
    """
    if settings.store is None:
        return
    # Listed before the rows are read, as those of the data folder.
    stored = [file for part in PARTS for file in list_stored(settings, part)]
    kept, unfinished = _list_indexes(session)
    collections = _list_ids(session, Collection)
    numbers = {
        "indexes": kept | {f"{one}{UNFINISHED_ENDS[1]}" for one in unfinished},
        "originals": collections,
        "exports": _list_ids(session, ExportFile),
        "replays": _list_ids(session, Replay),
        "uploads": _list_ids(session, Upload),
    }
    photos = set(session.scalars(select(Photo.sha256)))
    images = set(session.scalars(select(Image.sha256).execution_options(yield_per=10_000)))
    contents = {"originals": images, "photos": photos, "thumbnails": images | photos}
    for file in stored:
        part, _, rest = file.name.partition("/")
        name = file.name.rpartition("/")[2]
        is_known = part not in numbers or rest.partition("/")[0] in numbers[part]
        is_known &= part not in contents or name[:SHA256_LENGTH] in contents[part]
        if (not is_known or name.endswith(".part")) and file.modified_at < now - SETTLED:
            yield f"{part} of nothing, in the store", file


def _sweep_store(
    database: Database, settings: Settings, *, now: datetime, remove: bool
) -> list[Leftover]:
    found: dict[str, list[StoredFile]] = {}
    with database.session() as session:
        for kind, file in list_stored_leftovers(session, settings, now=now):
            found.setdefault(kind, []).append(file)
    if remove:
        found = {
            kind: [file for file in files if remove_stored(settings, file)]
            for kind, files in found.items()
        }
    return [
        Leftover(kind, len(files), sum(file.size_bytes for file in files))
        for kind, files in found.items()
    ]


# --- What is missing ----------------------------------------------------------------------------


def _list_missing(session: Session, settings: Settings) -> Iterator[Missing]:
    collections = session.execute(
        select(Collection.id, Collection.name).filter_by(deleted_at=None).order_by(Collection.id)
    ).all()
    small = {file.name for file in list_stored(settings, "thumbnails")}
    for collection_id, name in collections:
        own = list_stored(settings, f"originals/{collection_id}")
        kept = small.union(file.name for file in own)
        rows = session.execute(
            select(Image.file, Image.sha256, Image.width, Image.height)
            .filter_by(collection_id=collection_id, removed_at=None)
            .order_by(Image.id)
            .execution_options(yield_per=10_000)
        )
        originals: list[Path] = []
        thumbnails: list[Path] = []
        total = inside_count = hopeless_count = 0
        for file, sha256, width, height in rows:
            total += 1
            original = place_original(file, settings)
            inside = find_inside(str(original), settings)
            inside_count += inside is not None
            is_there = inside in kept or original.is_file()
            if inside is not None and not is_there:
                originals.append(original)
            for side in THUMBNAIL_SIDES:
                path = thumbnail_path(settings.home, sha256, width, height, side)
                stored = path.relative_to(settings.home).as_posix()
                if stored not in kept and not path.is_file():
                    thumbnails.append(path)
                    hopeless_count += not is_there
                    break
        if originals:
            advice = (
                "Bring them back from a backup, or import the same files again "
                f"(“rarefind collection add '{name}' FOLDER --copy”): answers stay."
            )
            yield Missing(
                "originals", name, len(originals), inside_count, originals[:MOST_NAMED], advice
            )
        if thumbnails:
            advice = "They are made anew when they are looked at."
            if hopeless_count:
                advice = (
                    f"Of {hopeless_count:,} the original is gone too: connect its disk, or bring "
                    "them back from a backup. Others are made anew when they are looked at."
                )
            yield Missing(
                "thumbnails", name, len(thumbnails), total, thumbnails[:MOST_NAMED], advice
            )
