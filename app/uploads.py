"""Files sent from a browser, in pieces that a lost connection does not undo.

The pieces of a file are appended in `<home>/uploads/<upload>/parts`, and how much is there is the
size on disk, whatever was killed in between. A whole file moves to its own path beside the others;
the folder, and each zip, then is the source of an import like any other.
"""

import fcntl
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from zipfile import is_zipfile

from sqlalchemy import BigInteger, cast, event, exists, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.database import is_among
from app.deploying import judge_folders
from app.errors import (
    BadInput,
    DiskFull,
    NotFound,
    RequestTooLarge,
    SourceNotUsable,
    StoreNotUsable,
    UploadBusy,
    UploadMovedOn,
)
from app.jobs import UNFINISHED, add_job
from app.labelling import check_labels, compare_labels, mark_given
from app.reading import DAMAGED
from app.settings import Settings
from app.sources import show
from app.store import delete_folders, fetch_file, put_files
from app.tables import Collection, ImagePath, Job, Person, RefusedFile, Upload, UploadedFile

LONGEST_NAME = 255  # bytes of one part of a path, on every usual file system
LONGEST_PATH = 1_000
LATEST_MS = 253_402_300_799_000  # the end of the year 9999
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)


@dataclass(frozen=True)
class Place:
    """Where the bytes of one file go."""

    file_id: int
    upload_id: int
    path: str
    part: Path
    whole: Path
    size_bytes: int
    modified_ms: int | None

    @property
    def offset(self) -> int:
        """Bytes that are here."""
        for file in (self.part, self.whole):
            with suppress(OSError):
                size_bytes = _measure(file)
                # A whole file of another size is the one that this one is to replace.
                if file == self.part or size_bytes == self.size_bytes:
                    return size_bytes
        return 0

    @property
    def is_whole(self) -> bool:
        """Whether all of it is where it belongs."""
        with suppress(OSError):
            return _measure(self.whole) == self.size_bytes
        return False


@dataclass(frozen=True)
class UploadState:
    """What an upload's page shows."""

    upload: Upload
    file_count: int
    arrived_count: int
    arrived_bytes: int
    used_bytes: int  # of the person's quota, this upload included
    quota_bytes: int


def start_upload(
    session: Session,
    collection: Collection,
    person: Person,
    *,
    settings: Settings,
    labels: str | None = None,
    labels_file: bytes | None = None,
    embedder: str | None = None,
) -> Upload:
    """An upload into a collection, to which files can be sent; forgotten ones are cleared away.

    `labels` is "folders", or the name of a labels file, whose content is `labels_file`.
    """
    if labels is not None and labels_file is not None:
        check_labels(labels, labels_file)  # refused by line, before a photo is sent
    sweep_uploads(session, settings)
    upload = Upload(
        collection_id=collection.id,
        person_id=person.id,
        state="receiving",
        labels=labels,
        labels_file=labels_file,
        embedder=embedder,
    )
    session.add(upload)
    session.flush()
    return upload


def get_upload(session: Session, person: Person, upload_id: int) -> Upload:
    """The person's own upload, while it takes files."""
    upload = session.get(Upload, upload_id)
    if upload is not None and upload.person_id != person.id:
        upload = None
    return _check_receiving(upload)


def list_open_uploads(session: Session, person: Person, collection_id: int) -> list[UploadState]:
    """The person's uploads into a collection that wait for more files."""
    query = select(Upload).filter_by(
        collection_id=collection_id, person_id=person.id, state="receiving"
    )
    return [
        _describe(session, upload, quota_bytes=0)
        for upload in session.scalars(query.order_by(Upload.id))
    ]


def describe_upload(session: Session, upload: Upload, *, settings: Settings) -> UploadState:
    """How much of an upload is here, and how much its person may still send."""
    return _describe(session, upload, quota_bytes=int(settings.upload_quota_gb * 1e9))


def list_files(session: Session, upload: Upload) -> list[UploadedFile]:
    """The files announced so far: those that arrived need not be sent again."""
    query = select(UploadedFile).filter_by(upload_id=upload.id)
    return list(session.scalars(query.order_by(UploadedFile.path)))


def find_here(session: Session, upload: Upload, asked: list[str]) -> dict[str, tuple[int, int]]:
    """Sizes and times (in ms) of what the upload's collection holds by the paths that are asked."""
    as_kept: dict[str, str] = {}
    for path in asked:
        with suppress(BadInput):  # it will be refused when it is sent
            as_kept[clean_path(path)] = path
    query = select(ImagePath.path, ImagePath.size_bytes, ImagePath.modified_ns).where(
        ImagePath.collection_id == upload.collection_id, is_among(ImagePath.path, [*as_kept])
    )
    return {
        as_kept[path]: (size_bytes, modified_ns // 1_000_000)
        for path, size_bytes, modified_ns in session.execute(query)
    }


def say_labels(session: Session, upload: Upload, chosen: list[str]) -> list[str]:
    """What to say of the upload's labels file, before the chosen files are sent."""
    if upload.labels_file is None:
        return []
    paths = {*chosen, *(file.path for file in list_files(session, upload))}
    zips = {path for path in paths if path.lower().endswith(".zip")}
    here = select(ImagePath.path).filter_by(collection_id=upload.collection_id)
    return compare_labels(
        upload.labels or "",
        upload.labels_file,
        sorted(paths - zips),
        session.scalars(here),
        whole=not zips,
    )


def add_file(
    session: Session,
    upload: Upload,
    *,
    path: str,
    size_bytes: int,
    modified_ms: int | None,
    settings: Settings,
) -> Place:
    """A place for a file of the upload; the one that it has, when it was begun before."""
    path = clean_path(path)
    # One at a time for a person: files that are announced together must not pass a quota together.
    person = select(Person.id).filter_by(id=upload.person_id)
    session.scalar(person.with_for_update(key_share=True))  # others may refer to the person
    upload = _lock(session, upload.id)
    file = session.scalar(select(UploadedFile).filter_by(upload_id=upload.id, path=path))
    is_of_size = file is not None and file.size_bytes == size_bytes
    if file is not None and is_of_size and _is_of_time(file.modified_ms, modified_ms):
        return make_place(upload, file, settings)
    left_over: set[Path] = set()
    if file is not None:  # another file by the same path: the last one counts
        former = make_place(upload, file, settings)
        left_over = {former.part, former.whole}
        upload.size_bytes -= file.size_bytes
        session.delete(file)
        session.flush()
    _refuse_without_room(session, upload, size_bytes, settings)
    file = UploadedFile(
        upload_id=upload.id, path=path, size_bytes=size_bytes, modified_ms=modified_ms
    )
    session.add(file)
    upload.size_bytes += size_bytes
    upload.touched_at = datetime.now(UTC)
    session.flush()
    place = make_place(upload, file, settings)
    if not is_of_size:  # else it would be taken for this one
        left_over.discard(place.whole)  # it is replaced when this one has arrived
    _after_commit(session, lambda: _unlink(left_over))
    return place


def get_place(session: Session, upload: Upload, file_id: int, *, settings: Settings) -> Place:
    """Where the bytes of a file of the upload go."""
    file = session.get(UploadedFile, file_id)
    if file is None or file.upload_id != upload.id:
        raise NotFound("There is no such file in this upload.")
    if settings.store is not None:  # other servers see no piece of it, and must not forget it
        upload.touched_at = datetime.now(UTC)
    return make_place(upload, file, settings)


def make_place(upload: Upload, file: UploadedFile, settings: Settings) -> Place:
    """Zips lie apart: each is a source of its own."""
    folder = upload_folder(settings, upload.id)
    is_zip = file.path.lower().endswith(".zip")
    return Place(
        file_id=file.id,
        upload_id=upload.id,
        path=file.path,
        part=folder / "parts" / str(file.id),
        whole=folder / "zips" / f"{file.id}.zip" if is_zip else folder / "files" / file.path,
        size_bytes=file.size_bytes,
        modified_ms=file.modified_ms,
    )


class Appending:
    """A file that bytes are appended to, by one connection at a time."""

    def __init__(self, place: Place, descriptor: int) -> None:
        self._place = place
        self._descriptor = descriptor

    def write(self, data: bytes) -> int:
        """Append, and say how much is here now."""
        size_bytes = os.fstat(self._descriptor).st_size
        if size_bytes + len(data) > self._place.size_bytes:
            raise BadInput(f"{self._place.path} is larger than was announced. Send it again.")
        left = memoryview(data)
        while left:
            left = left[os.write(self._descriptor, left) :]
        return os.fstat(self._descriptor).st_size


@contextmanager
def append_to(place: Place, offset: int) -> Iterator[Appending]:
    """Append to a file from `offset`, which must be where it ends."""
    if place.is_whole:
        raise UploadMovedOn("All of this file is here already.")
    place.part.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(place.part, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UploadBusy("It goes on when the other connection has ended.") from error
        # It may have been completed between the two.
        own = os.fstat(descriptor)
        is_there = place.part.exists() and os.path.samestat(own, place.part.stat())
        if not is_there or own.st_size != offset:
            raise UploadMovedOn("Ask how much of the file is here, and go on from there.")
        yield Appending(place, descriptor)
    finally:
        os.close(descriptor)  # and with it the lock


def complete(session: Session, place: Place, *, settings: Settings) -> None:
    """Put a whole file where it belongs. Killed in between, the next request does the rest."""
    upload = _lock(session, place.upload_id)
    file = session.get(UploadedFile, place.file_id)
    if file is None:
        raise NotFound("There is no such file in this upload.")
    if place.size_bytes == 0 and not place.is_whole:
        place.part.parent.mkdir(parents=True, exist_ok=True)
        place.part.touch()
    if place.part.exists():
        _date(place.part, place.modified_ms)
        try:
            place.whole.parent.mkdir(parents=True, exist_ok=True)
            place.part.replace(place.whole)
        except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
            raise BadInput(
                f"{place.path} can't be kept: another file has the name of its folder."
            ) from error
    if not place.is_whole:
        raise NotFound("There is no such file in this upload.")
    put_files(settings, [place.whole])  # for the worker that imports it, on whatever machine
    file.has_arrived = True
    upload.touched_at = datetime.now(UTC)


def finish_upload(
    session: Session, upload: Upload, person: Person, *, settings: Settings, leave_out: bool = False
) -> Job:
    """Have what arrived imported. Files that have not are refused by name, or left out."""
    upload = _lock(session, upload.id)
    files = list_files(session, upload)
    missing = [file for file in files if not file.has_arrived]
    if len(missing) == len(files):
        raise BadInput("No file has arrived yet. Choose images, a folder or a zip first.")
    if missing and not leave_out:
        names = ", ".join(file.path for file in missing[:3])
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise BadInput(f"Not all of it has arrived: {names}{more}. Choose these files again.")
    for file in missing:
        # Before the commit: the import may begin at once, and takes the folder as it is.
        place = make_place(upload, file, settings)
        _unlink({place.part, place.whole})
        upload.size_bytes -= file.size_bytes
        session.delete(file)
    upload.state, upload.touched_at = "importing", datetime.now(UTC)
    by_folders = upload.labels if upload.labels_file is None else None
    if upload.labels_file is not None:  # kept when all images are here
        mark_given(session, upload.collection)
    return add_job(
        session,
        "import",
        collection_id=upload.collection_id,
        person=person,
        source="",
        upload_id=upload.id,
        labels=by_folders,
        copy=True,
        embedder=upload.embedder,
    )


def list_sources(session: Session, upload_id: int, *, settings: Settings) -> list[Path]:
    """What is to be imported of an upload: its zips, then its other files; nothing once done.

    Zips that can't be read are listed as refused; SourceNotUsable, when there is nothing else.
    Raises NotFound, and names them, when files that had arrived are gone from the disk.
    """
    upload = session.get(Upload, upload_id)
    if upload is None:
        raise NotFound("The uploaded files were cleared away after some days. Upload them again.")
    if upload.state == "done":
        return []
    arrived = [
        make_place(upload, file, settings)
        for file in list_files(session, upload)
        if file.has_arrived
    ]
    for place in arrived:
        _bring(place, settings)
    lost = [place.path for place in arrived if not place.is_whole]
    if lost:
        more = f" and {len(lost) - 3:,} more" if len(lost) > 3 else ""
        raise NotFound(
            f"Uploaded files are missing in Rarefind's data folder: {', '.join(lost[:3])}{more}. "
            "What was imported before is kept. Upload these files again."
        )
    folder = upload_folder(settings, upload_id)
    packed = [place for place in arrived if place.whole.parent == folder / "zips"]
    broken = [place for place in packed if not is_zipfile(place.whole)]
    _refuse(session, upload, broken, "It can't be read as a zip: it is damaged, or was cut off.")
    zips = [place.whole for place in packed if place not in broken]
    others = [folder / "files"] if len(packed) < len(arrived) else []
    if broken and not zips and not others:
        names = ", ".join(place.path for place in broken[:3])
        raise SourceNotUsable(
            f"{names} can't be read as a zip: it is damaged, or was cut off. Nothing was imported. "
            "Pack it again, and upload it again."
        )
    return [*sorted(zips, key=lambda file: int(file.stem)), *others]


def find_name(session: Session, upload_id: int, source: Path, *, settings: Settings) -> str:
    """What a zip of `list_sources` is called by who sent it; "" for the other files."""
    upload = session.get_one(Upload, upload_id)
    places = (make_place(upload, file, settings) for file in list_files(session, upload))
    return next((place.path for place in places if place.whole == source), "")


def refuse_zip(
    session: Session, upload_id: int, source: Path, problem: str, *, settings: Settings
) -> None:
    """List a zip of `list_sources` that can't be used among the collection's refused files."""
    upload = session.get_one(Upload, upload_id)
    places = [make_place(upload, file, settings) for file in list_files(session, upload)]
    own = [place for place in places if place.whole == source]
    for place in own:  # where it lies on the server says nothing to who sent it
        _refuse(session, upload, [place], problem.replace(str(source), "It"))


def _refuse(session: Session, upload: Upload, places: list[Place], detail: str) -> None:
    """List zips that can't be read among the collection's refused files, once."""
    for place in places:
        session.execute(
            insert(RefusedFile)
            .values(
                collection_id=upload.collection_id,
                path=place.path,
                reason=DAMAGED,
                detail=detail,
                size_bytes=place.size_bytes,
                modified_ns=0,
            )
            .on_conflict_do_nothing()
        )


def end_upload(session: Session, upload_id: int) -> None:
    """Note that the originals are in the collection; its folder can go."""
    upload = session.get(Upload, upload_id)
    if upload is not None:
        upload.state = "done"
        for file in session.scalars(select(UploadedFile).filter_by(upload_id=upload_id)):
            session.delete(file)


def cancel_upload(session: Session, upload: Upload, *, settings: Settings) -> None:
    """Forget an upload and what arrived of it."""
    upload = _lock(session, upload.id)
    session.delete(upload)
    session.flush()
    _after_commit(session, lambda: remove_files(settings, upload.id))


def sweep_uploads(session: Session, settings: Settings) -> None:
    """Clear away uploads that nobody went on with for days, and folders that none has."""
    for upload_id in list_forgotten(session, settings):
        upload = session.get(Upload, upload_id)
        if upload is not None and upload.state != "done":
            if upload.labels_file is not None:  # it may be waited for
                judge_folders(session, upload.collection_id)
            session.delete(upload)
        _after_commit(session, partial(remove_files, settings, upload_id))
    session.flush()


def list_forgotten(session: Session, settings: Settings) -> list[int]:
    """Uploads that nobody went on with for days, and numbers of folders that none has."""
    # Listed first: a folder is made after its row, so one without a row below has none for good.
    folders = list((settings.home / "uploads").glob("[0-9]*"))
    oldest = datetime.now(UTC) - timedelta(days=settings.upload_days)
    goes_on = exists().where(
        cast(Job.arguments["upload_id"].as_string(), BigInteger) == Upload.id,
        Job.state.in_(UNFINISHED),
    )
    old = select(Upload).where(Upload.state != "done", Upload.touched_at < oldest, ~goes_on)
    forgotten = {
        upload.id
        for upload in session.scalars(old.with_for_update(skip_locked=True))
        if _last_piece_s(settings, upload.id) < oldest.timestamp()  # a large file may take days
    }
    kept = set(session.scalars(select(Upload.id).where(Upload.state != "done"))) - forgotten
    without = {int(folder.name) for folder in folders} - kept
    return sorted(forgotten | without)


def remove_files(settings: Settings, upload_id: int) -> None:
    """Remove what arrived of an upload."""
    shutil.rmtree(upload_folder(settings, upload_id), ignore_errors=True)
    with suppress(StoreNotUsable):  # then `rarefind gc` does it
        delete_folders(settings, [upload_folder(settings, upload_id)])


def upload_folder(settings: Settings, upload_id: int) -> Path:
    """Where the files of an upload arrive."""
    return settings.home / "uploads" / str(upload_id)


def clean_path(path: str) -> str:
    """A path as a file system can keep it, below a folder; BadInput for one that leads out."""
    shown = CONTROL.sub("_", show(path)).replace("\\", "/")
    if shown.startswith("/") or re.match(r"[A-Za-z]:", shown):
        raise BadInput(f"{shown} can't be sent: its path is not within a folder.")
    names = [name for name in shown.split("/") if name not in ("", ".")]
    if not names or ".." in names:
        raise BadInput(f"{shown or 'A file'} can't be sent: its path leads out of the folder.")
    names = [_clean_name(name) for name in names]
    cleaned = "/".join(names)
    longest = max(len(name.encode()) for name in names)
    if longest > LONGEST_NAME or len(cleaned.encode()) > LONGEST_PATH:
        raise BadInput(f"{cleaned[:80]}… can't be sent: its name is too long. Shorten it.")
    return cleaned


def _bring(place: Place, settings: Settings) -> None:
    """Have a file that arrived at another server, with the time that the person's disk said."""
    if not place.whole.exists() and fetch_file(settings, place.whole):
        _date(place.whole, place.modified_ms)


def _is_of_time(one_ms: int | None, other_ms: int | None) -> bool:
    """Whether two files may be one: a form without JavaScript tells no time."""
    return one_ms is None or other_ms is None or one_ms == other_ms


def _date(file: Path, modified_ms: int | None) -> None:
    if modified_ms is not None:
        # A float of seconds is a little less for half of all times, and then a millisecond off.
        modified_ns = min(max(modified_ms, 0), LATEST_MS) * 1_000_000
        os.utime(file, ns=(modified_ns, modified_ns))


def _measure(file: Path) -> int:
    """The size of a file, opened: on a shared folder what is known without may be of before."""
    descriptor = os.open(file, os.O_RDONLY)
    try:
        return os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)


def _check_receiving(upload: Upload | None) -> Upload:
    if upload is None or upload.collection.deleted_at is not None:
        raise NotFound("There is no such upload. It may have been cleared away after some days.")
    if upload.state != "receiving":
        raise NotFound("This upload has ended. Its collection's page shows how the import stands.")
    return upload


def _lock(session: Session, upload_id: int) -> Upload:
    """An upload that takes files, and that nobody ends before this transaction does."""
    upload = session.get(Upload, upload_id, with_for_update=True, populate_existing=True)
    return _check_receiving(upload)


def _after_commit(session: Session, remove: Callable[[], None]) -> None:
    """Have files removed once their rows are gone for certain: a commit that fails loses none."""
    event.listen(session, "after_commit", lambda _: remove(), once=True)


def _unlink(files: set[Path]) -> None:
    for file in files:
        with suppress(OSError):
            file.unlink()


def _last_piece_s(settings: Settings, upload_id: int) -> float:
    """When the last piece of a file that is not whole came, in seconds since 1970; else 0."""
    times_s = [0.0]
    for part in (upload_folder(settings, upload_id) / "parts").glob("*"):
        with suppress(OSError):  # it has just become whole
            times_s.append(part.stat().st_mtime)
    return max(times_s)


def _clean_name(name: str) -> str:
    name = name.rstrip(". ") or "_"
    return f"_{name}" if RESERVED.fullmatch(name) else name


def _refuse_without_room(
    session: Session, upload: Upload, size_bytes: int, settings: Settings
) -> None:
    used_bytes = _count_used(session, upload.person_id)
    if used_bytes + size_bytes > settings.upload_quota_gb * 1e9:
        unit, one = ("GB", 1e9) if settings.upload_quota_gb >= 1 else ("MB", 1e6)
        raise RequestTooLarge(
            f"You may upload {settings.upload_quota_gb * 1e9 / one:,.10g} {unit}, and "
            f"{used_bytes / one:,.1f} {unit} of them are used. For more, have the setting "
            "RAREFIND_UPLOAD_QUOTA_GB raised on the server."
        )
    announced = session.scalar(
        select(func.coalesce(func.sum(UploadedFile.size_bytes), 0)).filter_by(has_arrived=False)
    )
    settings.home.mkdir(parents=True, exist_ok=True)
    free_bytes = shutil.disk_usage(settings.home).free - settings.keep_free_gb * 1e9
    if size_bytes + int(announced or 0) > free_bytes:
        raise DiskFull(
            "The disk of Rarefind's data folder has no room for this file. What has arrived is "
            "kept: make room, then go on with the upload."
        )


def _count_used(session: Session, person_id: int) -> int:
    query = select(func.coalesce(func.sum(Upload.size_bytes), 0)).filter_by(person_id=person_id)
    return int(session.scalar(query) or 0)


def _describe(session: Session, upload: Upload, *, quota_bytes: int) -> UploadState:
    own = select(func.count(), func.coalesce(func.sum(UploadedFile.size_bytes), 0)).filter_by(
        upload_id=upload.id
    )
    file_count, _ = session.execute(own).one()
    arrived_count, arrived_bytes = session.execute(own.filter_by(has_arrived=True)).one()
    return UploadState(
        upload=upload,
        file_count=file_count,
        arrived_count=arrived_count,
        arrived_bytes=int(arrived_bytes),
        used_bytes=_count_used(session, upload.person_id),
        quota_bytes=quota_bytes,
    )
