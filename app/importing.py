"""Import images into a collection from a folder or a zip: list, read in workers, record in chunks.

An import that is killed loses at most one chunk, and running it again reads only what is new.
`sources.py` lists the files, `reading.py` reads one of them, this file writes all the rows. Where
it is told an embedder, the vectors are made on the way and kept for the index (`ahead.py`).
"""

import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cache, partial
from itertools import chain, count
from pathlib import Path, PurePosixPath
from typing import TypeVar

from sqlalchemy import Cast, Integer, bindparam, cast, delete, func, select, text, update
from sqlalchemy.dialects.postgresql import ARRAY, Insert, insert
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.orm import Session

from app.access import sees_collection
from app.ahead import WithVector, begin_embedding, without_vectors
from app.camtrap import Package, read_package
from app.database import IMPORT_LOCK, Database, is_among
from app.deploying import join_by_folder, judge_folders, keep_deployments
from app.engine.numerals import plural
from app.errors import (
    BadInput,
    NameTaken,
    NotFound,
    RarefindError,
    RefusedPhoto,
)
from app.labelling import (
    describe_labels,
    lock_labels,
    mark_given,
    record_labels,
    say_unmatched,
    say_without,
)
from app.reading import (
    DAMAGED,
    EMPTY,
    NOT_AN_IMAGE,
    NOT_SUPPORTED,
    THUMBNAIL_SIDES,
    ReadImage,
    Reading,
    Refusal,
    SourceFile,
    mark_kept,
    read_bytes,
    read_checksums,
    read_files,
    read_original,
    thumbnail_path,
    write_whole,
)
from app.sensitive import hide_people
from app.settings import Settings
from app.sources import (
    Labels,
    Listing,
    check_source,
    list_source,
    match_labels,
    read_labels,
    shorten,
    show,
)
from app.store import fetch_file, find_original, list_stored, place_original, put_files
from app.tables import (
    Collection,
    Image,
    ImagePath,
    Import,
    Person,
    Photo,
    RefusedFile,
    Table,
)
from app.taking import without_tables
from app.workers import READ_FILES, Readers, count_processes, work_through

CHUNK_FILES = 200  # recorded in one transaction: what a kill can lose
CHUNK_S = 2.0  # or sooner, so that progress moves with large photographs too
NOT_AVAILABLE = "not available"  # named by a package, but its file is not here
# Nothing about these can change while the file does not: they are not read again.
FINAL_REASONS = (NOT_AN_IMAGE, NOT_SUPPORTED, EMPTY, DAMAGED)
MOST_NAMED = 10  # collections in one sentence
COMPARED = 20  # files whose content tells of which card all of a folder is
NUMBER = re.compile(r"(^| )\([0-9]+\)$")  # of a folder that was told apart
EXAMPLES = 3  # named for each reason, and of label rows without an image


@dataclass(frozen=True, slots=True)
class ImportProgress:
    """How far a running import is."""

    import_id: int
    found_count: int  # files to look at
    done_count: int  # files looked at, those known before included
    imported_count: int
    duplicate_count: int
    refused_count: int


@dataclass(frozen=True, slots=True)
class ImportSummary:
    """What one run of an import did."""

    import_id: int
    imported: int
    duplicates: int  # files with the content of another image of the collection
    known: int  # files unchanged since an earlier import, not read again
    removed: int  # of the known, those whose image was removed from the collection: it stays so
    skipped: int  # hidden files and what systems leave behind
    refused: dict[str, int]  # files by reason, most frequent first; also those refused before
    refused_examples: dict[str, tuple[str, ...]]  # by reason, the first few: "path: sentence"
    seconds: float
    images_per_s: float
    labelled: int  # images that have a label now
    unmatched_labels: int  # rows of the labels file without an image
    unmatched_examples: tuple[str, ...]
    notes: tuple[str, ...]  # sentences people should see


@dataclass(slots=True)
class _Tally:
    """Counts of a running import."""

    import_id: int
    collection_id: int
    called: str  # the source, by people
    apart: dict[str, str] = field(default_factory=dict)  # what first folders are kept in
    own: dict[str, str] = field(default_factory=dict)  # and of these what they are in the source
    is_zip: bool = False
    found: int = 0
    done: int = 0
    imported: int = 0
    duplicates: int = 0
    known: int = 0
    removed: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def name_refused(self, path: str) -> str:
        """What a refused file is called: of those of a zip people must know in which it is."""
        own = self.find_own(path)
        return shorten(f"{self.called}/{own}" if self.is_zip else self.put_apart(own))

    def put_apart(self, path: str) -> str:
        """The path in the collection of one in the source."""
        return _move(path, self.apart)

    def find_own(self, path: str) -> str:
        """The path in the source of one in the collection; its own stays."""
        return _move(path, self.own)

    def name_folder(self, path: str) -> str:
        """The folder of a file, without the number by which the upload's page told it apart."""
        folder = PurePosixPath(self.find_own(path)).parent
        is_numbered = not self.called and len(folder.parts) == 1
        return NUMBER.sub("", folder.name) if is_numbered else folder.name

    def refuse(self, path: str, reason: str, detail: str) -> None:
        self.reasons[reason] += 1
        if len(self.examples[reason]) < EXAMPLES:
            self.examples[reason].append(f"{path}: {detail}")

    def progress(self) -> ImportProgress:
        return ImportProgress(
            import_id=self.import_id,
            found_count=self.found,
            done_count=self.done,
            imported_count=self.imported,
            duplicate_count=self.duplicates,
            refused_count=self.reasons.total(),
        )


_Outcome = tuple[SourceFile, WithVector]
_IsThere = Callable[[str], bool]
# By path: size and time of the file, its image's original, and when that was removed.
_Known = dict[str, tuple[int, int, str, datetime | None]]
Thing = TypeVar("Thing")


def add_collection(
    session: Session, name: str, *, source: Path | None, person: Person, notice: str | None = None
) -> Collection:
    """Add an empty collection; `notice` is shown wherever it is, no source means uploads."""
    name = " ".join(show(name).split())
    if not name or "\0" in name:
        raise BadInput("A collection needs a name. Type one that tells it from the others.")
    collection = Collection(
        name=name,
        source="" if source is None else show(str(source.expanduser().absolute())),
        notice=notice,
        made_by_id=person.id,
    )
    try:
        with session.begin_nested():
            session.add(collection)
    except IntegrityError as error:
        raise NameTaken(f"There is a collection “{name}” already. Choose another name.") from error
    return collection


def get_or_add_collection(
    session: Session, name: str, *, source: Path, person: Person, notice: str | None = None
) -> Collection:
    """The collection of that name, added if there is none."""
    found = find_collection(session, name)
    return found or add_collection(session, name, source=source, person=person, notice=notice)


def find_collection(session: Session, name: str) -> Collection | None:
    """The collection of that name, or None."""
    return session.scalar(
        select(Collection).filter_by(name=" ".join(show(name).split()), deleted_at=None)
    )


def get_collection_called(session: Session, person: Person, called: str) -> Collection:
    """The collection of that name or number, if the person sees it; else which there are."""
    names = list_names(session, person)
    if not names:
        raise NotFound(
            f"There is no collection “{show(called)}”: there is none yet. "
            "Add one: rarefind collection add NAME FOLDER"
        )
    number = pick_collection(names, called)
    return session.get_one(Collection, number)


def list_names(session: Session, person: Person) -> dict[int, str]:
    """The names of the collections that a person sees, by their numbers."""
    query = select(Collection.id, Collection.name).where(sees_collection(person))
    return dict(session.execute(query.order_by(Collection.id)).all())


def pick_collection(names: dict[int, str], called: str) -> int:
    """The number of the collection of that name or number, or NotFound with which there are.

    The name goes first: a collection may be called “2024”.
    """
    called = " ".join(show(called).split())
    for number, name in [*names.items(), *((number, str(number)) for number in names)]:
        if name == called:
            return number
    if not names:
        raise NotFound(f"There is no collection “{called}”, nor any other that you see.")
    some = [f"{number} {name}" for number, name in names.items()][:MOST_NAMED]
    more = len(names) - len(some)
    raise NotFound(
        f"There is no collection “{called}”. There are: {', '.join(some)}"
        f"{f', and {more} more' if more else ''}."
    )


def import_images(
    database: Database,
    collection_id: int,
    source: Path,
    *,
    settings: Settings,
    copy: bool = False,
    labels: str | Path | None = None,
    embedder: str | None = None,
    called: str | None = None,
    progress: Callable[[ImportProgress], None] | None = None,
) -> ImportSummary:
    """Import a folder or zip into a collection.

    With an `embedder` the vectors of new images are made on the way: the next index by it finds
    them, and no file is read twice. One that can't be had at once is left to indexing.
    `labels` is "folders" (the name of a file's folder is its label) or a CSV file, on the disk or
    inside the source. Labels go to the oracle's table alone. `called` is the name by which people
    know the source, where that is not its own ("" for what was uploaded in no zip). `progress` is
    called after each chunk; what it raises stops the import, which then counts as interrupted.
    """
    started = time.monotonic()
    source = source.expanduser().absolute()
    called = show(source.name) if called is None else called
    # With a store the data folder is this machine's alone, and what lies there may be let go.
    is_here = source.is_relative_to(settings.home.expanduser().absolute())
    copy = copy or (settings.store is not None and is_here)
    with _claim(database, collection_id):
        import_id, was_judged = _start(database, collection_id, source, labels, copy, embedder)
        tally = _Tally(import_id, collection_id, called, is_zip=source.is_file())
        try:
            check_source(source, settings)
            given = read_labels(labels, source, settings)
            package = read_package(source, settings)
            if package is not None and given is None:
                given = Labels(dict(package.labels))
                with database.session() as session:
                    mark_given(session, session.get_one(Collection, collection_id))
            listing = list_source(source, settings, given)
            if package is not None:
                _follow_package(listing, package)
            _read_and_record(database, source, listing, tally, settings, copy, embedder, progress)
            with database.session() as session:
                if package is not None:
                    with without_tables(session, collection_id):
                        _record_package(session, tally, package)
                join_by_folder(session, collection_id)
                hidden = _hide_people(session, tally, package) if package else 0
            is_own = package is not None and labels is None
            labelled, unmatched, remarks = _record_labels(database, tally, listing, given, is_own)
            _end(database, tally.import_id, "done", None)
        except RarefindError as error:
            _end(database, tally.import_id, "failed", str(error))
            if was_judged and not tally.imported:  # nothing came in: folders tell what they did
                with database.session() as session:
                    judge_folders(session, collection_id)
            raise
        except BaseException:
            with suppress(SQLAlchemyError):  # the database may be what failed
                _end(database, tally.import_id, "interrupted", None)
            raise
    seconds = time.monotonic() - started
    return ImportSummary(
        import_id=tally.import_id,
        imported=tally.imported,
        duplicates=tally.duplicates,
        known=tally.known,
        removed=tally.removed,
        skipped=listing.skipped,
        refused=dict(tally.reasons.most_common()),
        refused_examples={reason: tuple(some) for reason, some in tally.examples.items()},
        seconds=seconds,
        images_per_s=(tally.imported + tally.duplicates) / seconds,
        labelled=labelled,
        unmatched_labels=len(unmatched),
        unmatched_examples=tuple(unmatched[:EXAMPLES]),
        notes=(
            *_tell_apart(tally),
            *remarks,
            *(package.notes if package else ()),
            *_tell_hidden(hidden),
        ),
    )


def mark_interrupted_imports(database: Database) -> int:
    """Mark imports whose process is gone; those that run in another process are left alone."""
    with database.session() as session:
        dead = [
            row.id
            for row in session.scalars(select(Import).filter_by(state="running"))
            if session.scalar(select(func.pg_try_advisory_xact_lock(*_lock_key(row.collection_id))))
        ]
        session.execute(
            update(Import)
            .where(Import.id.in_(dead))
            .values(state="interrupted", ended_at=func.now(), updated_at=func.now())
        )
    return len(dead)


def read_photo(data: bytes, *, settings: Settings, readers: Readers) -> ReadImage:
    """Check an uploaded example photo, and keep it with its thumbnails in the data folder."""
    limit = settings.max_photo_mb
    if len(data) > limit * 1e6:
        raise RefusedPhoto(
            f"The photo has {len(data) / 1e6:,.0f} MB; the limit is {limit:,.0f} MB. "
            "Save it smaller and try again."
        )
    if not data:
        raise RefusedPhoto("The file is empty. Choose a photo and try again.")
    try:
        photo = readers.run(partial(read_bytes, data, settings.home, settings.max_megapixels))
    except Refusal as refusal:
        raise RefusedPhoto(f"{refusal.detail} Try another photo.") from refusal
    path = photo_path(photo.sha256, settings=settings)
    if not mark_kept(path):
        write_whole(path, data)
    put_files(settings, [path, *_list_thumbnails(photo, settings)])
    return photo


def photo_path(sha256: str, *, settings: Settings) -> Path:
    """Where the original of an uploaded example photo is."""
    return settings.home / "photos" / sha256[:2] / sha256


def get_thumbnail(image: Image | Photo, side: int, *, settings: Settings, readers: Readers) -> Path:
    """The thumbnail's file (`side` 320 or 1280), made anew from the original if it is gone."""
    path = thumbnail_path(settings.home, image.sha256, image.width, image.height, side)
    if not fetch_file(settings, path):
        if isinstance(image, Image):
            original = find_original(image.file, settings)
        else:
            original = photo_path(image.sha256, settings=settings)
            fetch_file(settings, original)
        try:
            read = readers.run(
                partial(read_original, str(original), settings.home, settings.max_megapixels)
            )
        except Refusal as error:
            raise NotFound(
                f"The original {original.name} can't be read any more. If its folder was moved, "
                "import it again from its new place."
            ) from error
        if read.sha256 != image.sha256:
            raise NotFound(f"The original {original.name} was changed. Import its folder again.")
        put_files(settings, _list_thumbnails(image, settings))
    return path


def _list_thumbnails(image: Image | Photo | ReadImage, settings: Settings) -> set[Path]:
    return {
        thumbnail_path(settings.home, image.sha256, image.width, image.height, side)
        for side in THUMBNAIL_SIDES
    }


# --- Reading and recording ----------------------------------------------------------------------


def _read_and_record(
    database: Database,
    source: Path,
    listing: Listing,
    tally: _Tally,
    settings: Settings,
    copy: bool,
    embedder: str | None,
    progress: Callable[[ImportProgress], None] | None,
) -> None:
    zip_file = source if source.is_file() else None
    known = _read_known(database, tally.collection_id)
    _set_apart(database, listing, known, tally, zip_file)
    tally.found = len(listing.files) + len(listing.refused)
    originals = settings.home / "originals" / str(tally.collection_id)
    for leftover in originals.glob("*.part"):  # of a killed import: no other has this collection
        leftover.unlink()
    reading = Reading(
        home=settings.home,
        max_megapixels=settings.max_megapixels,
        originals=originals,
        copy=copy,
        zip_file=zip_file,
    )
    is_there = _make_look(tally.collection_id, settings)
    fresh = _leave_out_known(database, listing.files, known, tally, is_there)
    del known  # of a million images it is large
    embedding = None
    if fresh:
        embedding = begin_embedding(database, tally.collection_id, embedder, settings)
        if embedding is None and embedder is not None:
            _update(database, tally.import_id, embedder=None)

    def record(chunk: list[_Outcome]) -> None:
        if embedding is not None:
            # Before its rows: of an image that is known, the vector is not made on the way again.
            embedding.keep([outcome for _, outcome in chunk])
        _put_read([read for _, (read, _) in chunk if isinstance(read, ReadImage)], settings)
        with database.session() as session:
            # A cut that loses the newest chunks makes the next run read their files again.
            session.execute(text("SET LOCAL synchronous_commit TO off"))
            _record(session, chunk, tally, is_there)
        if progress is not None:
            progress(tally.progress())

    record([(file, (refusal, None)) for file, refusal in listing.refused])
    if not fresh:
        return
    work = partial(
        work_through,
        iter(fresh),
        settings=settings,
        processes=min(count_processes(settings), -(-len(fresh) // READ_FILES)),
    )
    if embedding is None:
        read = partial(read_files, reading=reading)
        # Spare ones are read while a chunk is recorded.
        tasks = work(read, without_vectors, threads=1, size=READ_FILES, spare=CHUNK_FILES)
    else:
        model = embedding.model
        read = partial(read_files, reading=replace(reading, prepare=model.prepare))
        size = max(READ_FILES, model.batch_size)
        tasks = work(read, embedding.embed, threads=model.streams, size=size)
    chunk: list[_Outcome] = []
    recorded_at = time.monotonic()
    with closing(tasks):
        for _, outcome in zip(fresh, chain.from_iterable(tasks), strict=True):  # none may be lost
            chunk.append(outcome)
            if len(chunk) >= CHUNK_FILES or time.monotonic() - recorded_at > CHUNK_S:
                record(chunk)
                chunk = []
                recorded_at = time.monotonic()
    record(chunk)


def _read_known(database: Database, collection_id: int) -> _Known:
    with database.session() as session:
        query = select(
            ImagePath.path,
            ImagePath.size_bytes,
            ImagePath.modified_ns,
            Image.file,
            Image.removed_at,
        ).join(Image, Image.id == ImagePath.image_id)
        rows = session.execute(query.where(ImagePath.collection_id == collection_id))
        return {path: (size, modified, file, at) for path, size, modified, file, at in rows}


def _set_apart(
    database: Database, listing: Listing, known: _Known, tally: _Tally, zip_file: Path | None
) -> None:
    """Keep the folders of another card with the same names beside those that are here.

    Cameras name their folders and photos alike. Where most of what has a path that is here already
    is another photo, that first folder gets a number, as on the upload's page, which is told again
    by the same rule when the source comes again. A folder of which some photos were edited since
    stays where it is, and so does one whose files took the very places of those that are here.
    """
    by_folder: dict[str, list[SourceFile]] = defaultdict(list)
    for file in listing.files:
        by_folder[_first_folder(file.path)].append(file)
    taken = {*by_folder, *(_first_folder(file.path) for file, _ in listing.refused)}
    for folder, files in by_folder.items():
        for kept in _number_folder(folder, taken):
            put = files  # a million of them are most often none to move
            if kept != folder:
                put = [replace(file, path=_move(file.path, {folder: kept})) for file in files]
            if not _are_others(database, put, known, tally, zip_file):
                break
        if kept != folder:
            taken.add(kept)
            tally.apart[folder], tally.own[kept] = kept, folder
    if tally.apart:
        listing.files = [replace(file, path=tally.put_apart(file.path)) for file in listing.files]


def _number_folder(folder: str, taken: set[str]) -> Iterator[str]:
    yield folder
    for number in count(2):
        name = f"{folder} ({number})" if folder else f"({number})"
        if name not in taken:
            yield name


def _move(path: str, folders: dict[str, str]) -> str:
    """A path with another first folder, where its own ("" for none) has another name."""
    folder = _first_folder(path)
    if folder not in folders:
        return path
    rest = path[len(folder) :].lstrip("/")
    return f"{folders[folder]}/{rest}" if folders[folder] else rest


def _first_folder(path: str) -> str:
    return path.partition("/")[0] if "/" in path else ""


def _are_others(
    database: Database,
    files: list[SourceFile],
    known: _Known,
    tally: _Tally,
    zip_file: Path | None,
) -> bool:
    """Whether most files that have the path of an image are other photos."""
    same = other = 0.0
    doubtful = []  # of the same size, with another time
    for file in files:
        image = known.get(file.path)
        if image is None:
            continue
        size_bytes, modified_ns, original, _ = image
        stamp = (file.size_bytes, file.modified_ns)
        if original == file.place or stamp == (size_bytes, modified_ns):
            same += 1
        elif size_bytes != file.size_bytes:
            other += 1
        else:
            doubtful.append(file)
    if doubtful:  # some of them tell for all: a disk may hold a million that were copied
        some = doubtful[:: -(-len(doubtful) // COMPARED)]
        with database.session() as session:
            rows = session.execute(
                select(ImagePath.path, Image.sha256)
                .join(Image, Image.id == ImagePath.image_id)
                .where(
                    ImagePath.collection_id == tally.collection_id,
                    is_among(ImagePath.path, [file.path for file in some]),
                )
            )
            before = dict(rows.all())
        checksums = read_checksums(some, zip_file)
        alike = [
            before[file.path] == checksum for file, checksum in zip(some, checksums, strict=True)
        ]
        share = alike.count(True) / len(alike)
        same, other = same + share * len(doubtful), other + (1 - share) * len(doubtful)
    return other > same


def _tell_apart(tally: _Tally) -> Iterator[str]:
    if tally.apart:
        kept = [f"“{folder}”" for folder in tally.apart.values()]
        more = f" and {len(kept) - EXAMPLES} more" if len(kept) > EXAMPLES else ""
        yield (
            "Other photos of the same names were in the collection already. These are kept beside "
            f"them, in {plural(len(kept), 'folder')}: {', '.join(kept[:EXAMPLES])}{more}."
        )


def _leave_out_known(
    database: Database,
    files: list[SourceFile],
    images: _Known,
    tally: _Tally,
    is_there: _IsThere,
) -> list[SourceFile]:
    """The files to read: those that are new, were changed, or whose original is gone."""
    with database.session() as session:
        refused = {
            row.path: row
            for row in session.scalars(
                select(RefusedFile).filter_by(collection_id=tally.collection_id)
            )
        }
    fresh = []
    for file in files:
        stamp = (file.size_bytes, file.modified_ns)
        image, refusal = images.get(file.path), refused.get(tally.name_refused(file.path))
        if refusal is not None and stamp == (refusal.size_bytes, refusal.modified_ns):
            if refusal.reason in FINAL_REASONS:
                tally.refuse(refusal.path, refusal.reason, refusal.detail)
                continue
        elif image is not None and stamp == image[:2] and is_there(image[2]):
            tally.known += 1
            tally.removed += image[3] is not None
            continue
        fresh.append(file)
    tally.done = len(files) - len(fresh)
    return fresh


def _make_look(collection_id: int, settings: Settings) -> _IsThere:
    """What tells whether an original is there, on this machine or in the store, listed once."""

    @cache
    def list_kept() -> set[str]:
        return {file.name for file in list_stored(settings, f"originals/{collection_id}")}

    def is_there(file: str) -> bool:
        path = place_original(file, settings)
        try:
            if path.exists():
                return True
        except OSError:  # its folder can't be entered any more
            return False
        is_ours = settings.store is not None and path.is_relative_to(settings.home)
        return is_ours and path.relative_to(settings.home).as_posix() in list_kept()

    return is_there


def _put_read(images: list[ReadImage], settings: Settings) -> None:
    """Have in the store what was written of images, before their rows say that it is there."""
    if settings.store is None:
        return
    paths = {path for image in images for path in _list_thumbnails(image, settings)}
    originals = {Path(image.file) for image in images}
    paths |= {path for path in originals if path.is_relative_to(settings.home)}
    put_files(settings, sorted(paths))


def _record(session: Session, chunk: list[_Outcome], tally: _Tally, is_there: _IsThere) -> None:
    """Write one chunk's rows and the import's counts."""
    images = [(file, read) for file, (read, _) in chunk if isinstance(read, ReadImage)]
    refused = [(file, read) for file, (read, _) in chunk if isinstance(read, Refusal)]
    image_ids = _add_images(session, images, tally, is_there)
    if images:
        _insert_or_replace(
            session,
            ImagePath,
            [
                {
                    "collection_id": tally.collection_id,
                    "image_id": image_ids[read.sha256],
                    "path": file.path,
                    "size_bytes": file.size_bytes,
                    "modified_ns": file.modified_ns,
                }
                for file, read in images
            ],
        )
        readable = {tally.name_refused(file.path) for file, _ in images}
        above = {str(folder) for path in readable for folder in PurePosixPath(path).parents}
        readable |= above | {f"{folder}/" for folder in above}
        session.execute(
            delete(RefusedFile).where(
                RefusedFile.collection_id == tally.collection_id, RefusedFile.path.in_(readable)
            )
        )
    if refused:
        _insert_or_replace(
            session,
            RefusedFile,
            [
                {
                    "collection_id": tally.collection_id,
                    "path": tally.name_refused(file.path),
                    "reason": refusal.reason,
                    "detail": refusal.detail,
                    "size_bytes": file.size_bytes,
                    "modified_ns": file.modified_ns,
                }
                for file, refusal in refused
            ],
        )
    for file, refusal in refused:
        tally.refuse(tally.name_refused(file.path), refusal.reason, refusal.detail)
    tally.done += len(chunk)
    session.execute(
        update(Import)
        .filter_by(id=tally.import_id)
        .values(
            found_count=tally.found,
            done_count=tally.done,
            imported_count=tally.imported,
            duplicate_count=tally.duplicates,
            refused_count=tally.reasons.total(),
            updated_at=func.clock_timestamp(),
        )
    )


def _add_images(
    session: Session,
    images: list[tuple[SourceFile, ReadImage]],
    tally: _Tally,
    is_there: _IsThere,
) -> dict[str, int]:
    """Insert what the collection does not have yet; image ids by SHA-256."""
    stored = {
        row.sha256: row
        for row in session.execute(
            select(Image.id, Image.sha256, Image.path, Image.file, Image.removed_at).where(
                Image.collection_id == tally.collection_id,
                is_among(Image.sha256, [read.sha256 for _, read in images]),
            )
        )
    }
    added: dict[str, dict[str, object]] = {}
    moved: dict[int, str] = {}
    for file, read in images:
        known = stored.get(read.sha256)
        tally.removed += known is not None and known.removed_at is not None
        if known is None and read.sha256 not in added:
            tally.imported += 1
            added[read.sha256] = _make_row(tally.collection_id, file, read)
        elif known is None or known.path != file.path:
            tally.duplicates += 1
        else:
            tally.known += 1  # touched or moved, not changed
        if known is not None and not is_there(known.file):
            moved[known.id] = (
                read.file if known.path == file.path else moved.get(known.id, read.file)
            )
    for image_id, original in moved.items():
        session.execute(update(Image).filter_by(id=image_id).values(file=original))
    image_ids = {sha256: row.id for sha256, row in stored.items()}
    if added:
        statement = _insert(Image, list(added.values())).returning(Image.sha256, Image.id)
        image_ids.update(session.execute(statement).all())
    return image_ids


def _make_row(collection_id: int, file: SourceFile, read: ReadImage) -> dict[str, object]:
    return {
        "collection_id": collection_id,
        "sha256": read.sha256,
        "path": file.path,
        "file": read.file,
        "size_bytes": read.size_bytes,
        "format": read.format,
        "width": read.width,
        "height": read.height,
        "orientation": read.orientation,
        "captured_at": read.metadata.captured_at,
        "latitude": read.metadata.latitude,
        "longitude": read.metadata.longitude,
        "camera": read.metadata.camera,
    }


def _insert_or_replace(
    session: Session, table: type[ImagePath] | type[RefusedFile], rows: list[dict[str, object]]
) -> None:
    """Insert rows, replacing those of the same path: a file may have changed since."""
    by_path = {row["path"]: row for row in rows}  # a zip may hold a name twice: the last counts
    statement = _insert(table, list(by_path.values()))
    changed = {name: statement.excluded[name] for name in rows[0] if name != "collection_id"}
    session.execute(
        statement.on_conflict_do_update(index_elements=["collection_id", "path"], set_=changed)
    )


def _insert(table: type[Table], rows: list[dict[str, object]]) -> Insert:
    """Insert rows, of one set of columns, that are handed over as one array a column.

    As values of a statement of their own, a chunk's rows took longer than decoding its images.
    """
    columns = [table.__table__.c[name] for name in rows[0]]
    arrays = [
        bindparam(column.name, [row[column.name] for row in rows], ARRAY(column.type))
        for column in columns
    ]
    unnested = func.unnest(*arrays).table_valued(*rows[0]).render_derived()
    return insert(table).from_select(list(rows[0]), select(unnested))


# --- Packages -----------------------------------------------------------------------------------


def _follow_package(listing: Listing, package: Package) -> None:
    """Leave only the media of a package in a listing; those that are not here are refused."""
    here = {file.path: file for file in listing.files}
    listing.files = [file for path, file in here.items() if path in package.media]
    listing.skipped += len(here) - len(listing.files)
    listed = {file.path for file, _ in listing.refused}
    for path, medium in package.media.items():
        if path in here or path in listed:
            continue
        name, where = path, "the package names it, but it is not here"
        if medium.is_on_web:
            name, where = (
                f"{medium.deployment}/{medium.name}",
                "it is on the web: nothing is fetched",
            )
        detail = f"Of deployment {medium.deployment}; {where}."
        listing.refused.append(
            (SourceFile(shorten(name), 0, 0, ""), Refusal(NOT_AVAILABLE, detail))
        )


def _record_package(session: Session, tally: _Tally, package: Package) -> None:
    """Give a package's deployments, times and places to its images."""
    deployments = keep_deployments(session, tally.collection_id, package.deployments)
    image_ids = _find_images(session, tally, package.media)
    rows = []
    for path, image_id in image_ids.items():
        medium = package.media[tally.find_own(path)]
        of = deployments.get(medium.deployment)
        shift = timedelta(seconds=of.clock_shift_s if of else 0)
        is_placed = of is not None and of.latitude is not None and of.longitude is not None
        rows.append(
            {
                "id": image_id,
                "captured_at": medium.captured_at + shift if medium.captured_at else None,
                "deployment_id": of.id if of else None,
                "latitude": of.latitude if of and is_placed else None,
                "longitude": of.longitude if of and is_placed else None,
            }
        )
    columns = [Image.__table__.c[name] for name in rows[0]] if rows else []
    for some in _chunks(rows):
        arrays = [
            bindparam(column.name, [row[column.name] for row in some], ARRAY(column.type))
            for column in columns
        ]
        told = func.unnest(*arrays).table_valued(*rows[0]).render_derived("told")
        session.execute(
            update(Image)
            .where(Image.id == told.c.id)
            .values(  # what the package does not say stays as the file says it
                {
                    column.name: func.coalesce(told.c[column.name], column)
                    for column in columns
                    if column.name != "id"
                }
            )
            .execution_options(synchronize_session=False)
        )


def _hide_people(session: Session, tally: _Tally, package: Package) -> int:
    image_ids = _find_images(session, tally, package.people)
    return hide_people(session, tally.collection_id, list(image_ids.values()))


def _tell_hidden(count: int) -> Iterator[str]:
    if count:
        yield (
            f"{plural(count, 'image')} on which observations say there are people "
            "are hidden: only people who are trusted with such images see them."
        )


# --- Labels -------------------------------------------------------------------------------------


def _record_labels(
    database: Database, tally: _Tally, listing: Listing, labels: Labels | None, is_own: bool
) -> tuple[int, list[str], list[str]]:
    """Store labels for the images of the listing: how many have one, rows about none, remarks.

    Labels of an image that is labelled again replace its earlier ones: files get corrected. Where
    they are the source's own (`is_own`), it also names images that are not here, listed as such.
    """
    by_image: dict[int, set[str]] = defaultdict(set)
    unmatched: list[str] = []
    remarks: list[str] = []
    with database.session() as session:
        if labels is not None:
            paths = [tally.find_own(file.path) for file in listing.files]
            image_ids = _find_images(session, tally, paths)
            if labels.rows is None:
                by_path = {path: {tally.name_folder(path)} - {""} for path in image_ids}
            else:
                by_path, unmatched = match_labels(labels.rows, list(image_ids))
            for path, known in by_path.items():
                by_image[image_ids[path]] |= known
            lock_labels(session, tally.collection_id)
            record_labels(session, tally.collection_id, by_image)
            unmatched = [] if is_own else unmatched
            remarks = [*labels.notes, *say_unmatched(labels, unmatched)]
        judge_folders(session, tally.collection_id)  # also what has other paths now
        session.execute(update(Import).filter_by(id=tally.import_id).values(remarks=remarks))
        without = say_without(describe_labels(session, tally.collection_id))
    return sum(1 for known in by_image.values() if known), unmatched, [*remarks, *without]


def _find_images(session: Session, tally: _Tally, paths: Iterable[str]) -> dict[str, int]:
    """Images by their paths in the collection, of paths in the source."""
    found: dict[str, int] = {}
    for some in _chunks([tally.put_apart(path) for path in paths]):
        query = select(ImagePath.path, ImagePath.image_id).where(
            ImagePath.collection_id == tally.collection_id, is_among(ImagePath.path, some)
        )
        found.update(session.execute(query).all())
    return found


def _chunks(things: list[Thing], size: int = 1_000) -> Iterator[list[Thing]]:
    return (things[at : at + size] for at in range(0, len(things), size))


# --- The row of the import ----------------------------------------------------------------------


@contextmanager
def _claim(database: Database, collection_id: int) -> Iterator[None]:
    """Hold the collection for one import; the database lets go when this process dies."""
    key = _lock_key(collection_id)
    engine = database.bind.engine.execution_options(isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        if not connection.scalar(select(func.pg_try_advisory_lock(*key))):
            raise BadInput(
                "Images are being imported into this collection right now. Wait until that import "
                "has ended, then start this one."
            )
        try:
            yield
        finally:
            with suppress(SQLAlchemyError):  # lost with the connection
                connection.execute(select(func.pg_advisory_unlock(*key)))


def _lock_key(collection_id: int) -> tuple[Cast[int], Cast[int]]:
    return cast(IMPORT_LOCK, Integer), cast(collection_id, Integer)


def _start(
    database: Database,
    collection_id: int,
    source: Path,
    labels: str | Path | None,
    copy: bool,
    embedder: str | None,
) -> tuple[int, bool]:
    """The row of a new import, and whether it was known what the collection's folders tell."""
    with database.session() as session:
        collection = session.get(Collection, collection_id)
        if collection is None:
            raise NotFound("There is no such collection. Somebody may have removed it.")
        was_judged = collection.folders_name_labels is not None
        if labels is not None:
            collection.folders_name_labels = None  # looked at once the labels are here
        # Holding the collection's lock shows that whatever ran before is dead.
        session.execute(
            update(Import)
            .filter_by(collection_id=collection_id, state="running")
            .values(state="interrupted", ended_at=func.now())
        )
        row = Import(
            collection_id=collection_id,
            source=show(str(source)),
            labels=None if labels is None else show(str(labels)),
            copy=copy,
            embedder=embedder,
            state="running",
        )
        session.add(row)
        session.flush()
        return row.id, was_judged


def _end(database: Database, import_id: int, state: str, problem: str | None) -> None:
    now = func.clock_timestamp()
    _update(database, import_id, state=state, problem=problem, updated_at=now, ended_at=now)


def _update(database: Database, import_id: int, **values: object) -> None:
    with database.session() as session:
        session.execute(update(Import).filter_by(id=import_id).values(**values))
