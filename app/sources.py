"""What a source holds before any image is read: the files of a folder or zip, and given labels.

Sources come from outside: links may go in circles, zips may lie, labels may be in any encoding.
"""

import codecs
import csv
import hashlib
import io
import json
import os
import re
import stat
import unicodedata
import zipfile
import zlib
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from app.errors import LabelsNotUsable, SourceNotUsable
from app.reading import (
    NO_FILE,
    NOT_AN_IMAGE,
    NOT_READABLE,
    NOT_SUPPORTED,
    TOO_LARGE,
    Refusal,
    SourceFile,
)
from app.settings import Settings

NO_TARGET = ""  # the label of an image that is known to show none
UNSAFE = "unsafe zip entry"
SKIPPED_NAMES = {"__MACOSX", "@eaDir", "Thumbs.db", "ehthumbs.db", "desktop.ini", "$RECYCLE.BIN"}
SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab"}
LONGEST_FIELD = 131_072  # characters: beyond that a quotation mark was never closed
LONGEST_LINE = 2_000_000  # characters, of a table's row
MOST_CELLS = 30_000_000  # of a table, each row counted as one more: they take some 3 GB
MOST_NAMED = 12  # columns, in a sentence
LONGEST_LABEL = 500  # characters: an index of the database holds it
LONGEST_PATH = 2_000  # bytes, for the same reason; a file system takes 4,096
# Bytes of a zip's list of contents: in memory it takes some ten times as much, in each process.
LONGEST_DIRECTORY = 100_000_000
# How long that list is stands at the end of a zip, before a comment of 65,535 bytes at most.
ENDS_OF_DIRECTORY = re.compile(
    rb"PK\x05\x06.{8}(?P<short>.{4})|PK\x06\x06.{36}(?P<long>.{8})", re.DOTALL
)
LONGEST_END = 65_535 + 22 + 20 + 56
TOO_LONG = "Its path is too long. Shorten the names of its folders, or of the file."
# Names of columns as `plain` makes them, in some languages; the first that fits counts.
FILE_COLUMNS = (
    *("file", "path", "filename", "filepath", "sourcefile", "relativepath", "absolutepath"),
    *("datei", "dateiname", "dateipfad", "fichier", "nomfichier", "nomdufichier", "archivo"),
)
LABEL_COLUMNS = (
    *("label", "class", "species", "scientificname"),
    *("art", "tierart", "artname", "espece", "nomscientifique", "especie", "nombrecientifico"),
)


@dataclass(frozen=True, slots=True)
class Labels:
    """Known labels as they were given: by the names of folders, or as the rows of a file."""

    rows: dict[str, set[str]] | None  # file as written there -> labels; None: by folders
    file: str = ""  # the labels file, which is no image
    lines: dict[str, int] = field(default_factory=dict)  # file as written there -> its first line
    notes: tuple[str, ...] = ()


class CsvTable(NamedTuple):
    """The header of a CSV file, its rows with their lines, and how it was read."""

    header: list[str]
    rows: list[tuple[int, list[str]]]
    notes: tuple[str, ...]  # what there is to say of it
    delimiter: str  # of SEPARATORS


@dataclass(slots=True)
class Listing:
    """What a source holds, before anything of it is read."""

    files: list[SourceFile] = field(default_factory=list)
    refused: list[tuple[SourceFile, Refusal]] = field(default_factory=list)
    skipped: int = 0


def check_source(source: Path, settings: Settings, labels: str | Path | None = None) -> None:
    """Refuse at once what can't be imported: SourceNotUsable, or LabelsNotUsable for the labels."""
    source = source.expanduser().absolute()
    try:
        if source.is_dir():
            os.scandir(source).close()
        elif source.is_file():
            open_zip(source).close()
        else:
            raise SourceNotUsable(
                f"There is no folder or zip file at {source}. Check the path; it must be on the "
                "computer that runs Rarefind."
            )
    except OSError as error:
        raise SourceNotUsable(
            f"{source} can't be read: {error.strerror}. Rarefind needs the right to read it."
        ) from error
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise SourceNotUsable(
            f"{source} is neither a folder nor a zip file that can be read ({error})."
        ) from error
    read_labels(labels, source, settings)


def read_labels(labels: str | Path | None, source: Path, settings: Settings) -> Labels | None:
    """Labels as they are given: None, "folders", or a file on the disk or in the source.

    The file is CSV, or JSON as COCO has it: an image is labelled by the categories of its
    annotations, and shows no target when it has none.
    """
    if labels is None:
        return None
    if labels == "folders":
        return Labels(rows=None)
    file, data = _read_labels_file(Path(labels).expanduser(), source, settings)
    return replace(read_labels_data(data, PurePosixPath(file).name), file=file)


def read_labels_data(data: bytes, name: str) -> Labels:
    """Labels as a file called `name` gives them.

    An image may have several lines. With none but empty labels it is known to show no target.
    """
    if name.lower().endswith(".json"):
        return Labels(_read_coco(data, name))
    header, rows, notes, _ = read_table(data, name)
    file_column = _need_column(header, FILE_COLUMNS, name)
    label_column = _need_column(header, LABEL_COLUMNS, name)
    labelled: dict[str, set[str]] = defaultdict(set)
    lines: dict[str, int] = {}
    for line, row in rows:
        file = row[file_column].strip()
        lines.setdefault(file, line)
        labelled[file].add(clean_label(row[label_column]))
    known = {file: labels - {NO_TARGET} or {NO_TARGET} for file, labels in labelled.items()}
    return Labels(known, lines=lines, notes=notes)


def read_table(data: bytes, name: str) -> CsvTable:
    """What a CSV file holds.

    Every row has as many cells as the header, and every quotation mark that opens a cell is closed:
    a file that has it otherwise is refused as a whole, since what its cells say is not certain.
    """
    encoding, notes = _tell_encoding(data, name)
    lines = io.TextIOWrapper(io.BytesIO(data), encoding, newline="")
    first_line = lines.readline(LONGEST_LINE)
    lines.seek(0)
    rows: list[tuple[int, list[str]]] = []
    cells = 0
    begins = 1  # the line in which the row begins that is being read
    unended = 0  # characters of that row

    def read_lines() -> Iterator[str]:
        nonlocal unended
        while line := lines.readline(LONGEST_LINE + 1):
            unended += len(line)
            if unended > LONGEST_LINE:
                raise _too_long(name, begins, LONGEST_LINE)
            yield line

    delimiter = max(SEPARATORS, key=first_line.count)
    # Strict: an open quotation mark would otherwise swallow the rows after it without a word.
    reader = csv.reader(read_lines(), delimiter=delimiter, strict=True)
    try:
        for row in reader:
            line, begins, unended = begins, reader.line_num + 1, 0
            if not row or (len(row) == 1 and row[0].isspace()):
                continue
            # The reader's own limit is of the whole process, and libraries lift it.
            if max(map(len, row)) > LONGEST_FIELD:
                raise _too_long(name, line, LONGEST_FIELD)
            if rows and len(row) != len(rows[0][1]):
                many = "1 cell" if len(row) == 1 else f"{len(row):,} cells"
                first, header = rows[0]
                raise LabelsNotUsable(
                    f"{name}: line {line:,} has {many}, and the header (line {first:,}) has "
                    f"{len(header):,}. Give every line as many as the header, and put a cell that "
                    f"holds a {SEPARATORS[delimiter]} into quotation marks."
                )
            cells += 1 + len(row)
            if cells > MOST_CELLS:
                raise LabelsNotUsable(
                    f"{name} has more than {MOST_CELLS:,} cells. Split it, or leave columns out."
                )
            rows.append((line, row))
    except csv.Error as error:
        if unended > LONGEST_FIELD:  # before its end is found the limit of a cell is met
            raise _too_long(name, begins, LONGEST_FIELD) from error
        raise LabelsNotUsable(
            f"{name}: in the row that begins in line {begins:,} a quotation mark is not closed, or "
            "stands alone inside a cell. A cell that begins with a quotation mark must end with "
            "one, and those inside it are written twice."
        ) from error
    if not rows:
        raise LabelsNotUsable(f"{name} is empty. Its first line must name its columns.")
    return CsvTable(rows[0][1], rows[1:], notes, delimiter)


def list_source(source: Path, settings: Settings, labels: Labels | None) -> Listing:
    """Every file of a source, sorted by path; the labels file itself is left out."""
    listing = _list_folder(source) if source.is_dir() else _list_zip(source, settings)
    if labels is not None:
        listing.files = [f for f in listing.files if labels.file not in (f.path, f.place)]
    if not listing.files and not listing.refused:
        raise SourceNotUsable(f"{source} holds no files. Choose the folder that holds the images.")
    return listing


def plain(name: str) -> str:
    """The name of a column as names are compared: in small letters and digits, without accents."""
    letters = unicodedata.normalize("NFKD", name.casefold())
    return "".join(letter for letter in letters if letter.isalnum())


def find_column(header: list[str], names: Iterable[str]) -> int | None:
    """Where the column stands that is called as the first of these names that there is."""
    found = [plain(column) for column in header]
    return next((found.index(name) for name in names if name in found), None)


def clean_label(text: str) -> str:
    """A label that the database can hold."""
    return clean_text(text).strip()[:LONGEST_LABEL]


def clean_text(text: str) -> str:
    """Text that the database can hold: JSON may write zeros, and halves of letters."""
    return text.replace("\0", "").encode(errors="replace").decode()


def match_labels(
    rows: dict[str, set[str]], paths: list[str]
) -> tuple[dict[str, set[str]], list[str]]:
    """Labels by path of an image, and the names of files that no image has."""
    found = match_files(rows, paths)
    matched: dict[str, set[str]] = defaultdict(set)
    for file, known in rows.items():
        if len(found[file]) == 1:
            matched[found[file][0]] |= known
    return dict(matched), [file for file in rows if len(found[file]) != 1]


def match_files(files: Iterable[str], paths: Iterable[str]) -> dict[str, list[str]]:
    """Of each file as it is written the paths it may mean: one, or it is not certain which.

    People and detectors write paths from wherever they looked, so one must end like the whole of
    the other; it is the one over the most folders. A file alone, as `IMG_0001.JPG`, may be in any
    folder. A path that several files may mean, as where every folder of a disk has such a file and
    one folder was imported, is the one's that shares most of it, or nobody's. It is also that of a
    shorter spelling of that one, unless images lie in the folder that this says: then it may be a
    file there that was not imported.
    """
    written = {file: _normalise(file) for file in files}
    wanted = {spelled.lower() for spelled in written.values()}
    by_path: dict[str, str] = {}
    by_whole: dict[str, list[str]] = defaultdict(list)
    by_end: dict[str, list[str]] = defaultdict(list)  # of paths that are longer than the file's
    for path in paths:
        spelled = _normalise(path)
        by_path[spelled] = path
        whole, *ends = _list_ends(spelled.lower())
        by_whole[whole].append(path)
        for end in ends:
            if end in wanted:
                by_end[end].append(path)
    folders = {spelled.rpartition("/")[0] for spelled in by_path}
    found: dict[str, list[str]] = {}  # by spelling
    claims: dict[str, list[tuple[tuple[int, bool], str]]] = defaultdict(list)
    for spelled in set(written.values()):
        whole, *ends = _list_ends(spelled.lower())
        if spelled in by_path:
            found[spelled], end = [by_path[spelled]], whole
        elif fitting := [*by_whole.get(whole, []), *by_end.get(whole, [])]:
            found[spelled], end = fitting, whole
        else:
            end = next((end for end in ends if end in by_whole), "")
            found[spelled] = by_whole.get(end, [])
        if len(found[spelled]) == 1:
            rank = (end.count("/"), spelled in by_path)
            claims[found[spelled][0]].append((rank, spelled))
    for claimed in claims.values():
        most = max(rank for rank, _ in claimed)
        winner, *others = (spelled for rank, spelled in claimed if rank == most)
        for _, spelled in claimed:
            is_shorter = f"/{winner}".lower().endswith(f"/{spelled}".lower())
            is_same = is_shorter and spelled.rpartition("/")[0] not in folders
            if others or not (spelled == winner or is_same):
                found[spelled] = []
    return {file: found[spelled] for file, spelled in written.items()}


def say_unknown(file: str) -> str:
    """Why a file of a table is no image's."""
    where = " in that folder" if "/" in _normalise(file) else ""
    return f"the collection has no such image{where}, or not for certain"


def show(path: str) -> str:
    """A path as text: names on a disk may be bytes that are no UTF-8; these are shown as codes."""
    return path.encode(errors="surrogateescape").decode(errors="backslashreplace")


def shorten(path: str) -> str:
    """A path that the database can hold: of one that is too long its beginning, and a checksum."""
    written = path.encode(errors="replace")
    if len(written) <= LONGEST_PATH:
        return path
    checksum = hashlib.sha256(written).hexdigest()[:16]
    return f"{written[:200].decode(errors='ignore')}… ({checksum})"


def open_zip(source: Path) -> zipfile.ZipFile:
    """Open a zip whose list of contents fits into memory; BadZipFile for any other."""
    with source.open("rb") as file:
        ended = file.seek(0, os.SEEK_END)
        file.seek(max(0, ended - LONGEST_END))
        tail = file.read()
    for end in ENDS_OF_DIRECTORY.finditer(tail):  # where more than one is found, zipfile chooses
        length = end["short"] or end["long"]
        if LONGEST_DIRECTORY < int.from_bytes(length, "little") <= ended:
            raise zipfile.BadZipFile("its list of contents is too long: pack several smaller zips")
    return zipfile.ZipFile(source)


def _list_folder(source: Path) -> Listing:
    listing = Listing()
    folders, linked = deque([(str(source), "")]), deque[tuple[str, str]]()
    seen: set[tuple[int, int]] = set()
    while folders or linked:
        # Linked folders last and each folder once: no loops, and real names win.
        folder, prefix = (folders or linked).popleft()
        try:
            status = os.stat(folder)  # noqa: PTH116 - Path can't hold what scandir gives unchanged
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            detail = f"The folder can't be opened: {error.strerror}."
            _refuse(listing, prefix, NOT_READABLE, detail)
            continue
        for entry in entries:
            path = prefix + entry.name
            if _is_skipped(entry.name):
                listing.skipped += 1
                continue
            try:
                if entry.is_dir():
                    (linked if entry.is_symlink() else folders).append((entry.path, f"{path}/"))
                    continue
                status = entry.stat()
            except OSError as error:
                _refuse(listing, path, NOT_READABLE, f"It can't be read: {error.strerror}.")
                continue
            if len(show(path).encode()) > LONGEST_PATH:
                _refuse(listing, path, NOT_SUPPORTED, TOO_LONG)
                continue
            if not stat.S_ISREG(status.st_mode):
                _refuse(listing, path, NOT_AN_IMAGE, NO_FILE)
                continue
            file = SourceFile(show(path), status.st_size, status.st_mtime_ns, entry.path)
            listing.files.append(file)
    return _put_in_order(listing)


def _list_zip(source: Path, settings: Settings) -> Listing:
    """Entries that may be unpacked; what is dangerous is refused by its name, before it is read."""
    with open_zip(source) as archive:
        entries = archive.infolist()
    listing = Listing()
    total_bytes = 0
    shared = _find_shared(entries)
    for number, entry in enumerate(entries):
        path = _read_name(entry)
        parts = PurePosixPath(path).parts
        if entry.is_dir():
            continue
        if path.startswith("/") or ".." in parts or path[1:2] == ":":
            _refuse(listing, path, UNSAFE, "Its path leads out of the zip.")
        elif any(_is_skipped(part) for part in parts):
            listing.skipped += 1
        elif len(path.encode(errors="replace")) > LONGEST_PATH:
            _refuse(listing, path, NOT_SUPPORTED, TOO_LONG)
        elif number in shared:
            _refuse(listing, path, UNSAFE, "It shares its bytes with others: it may be a zip bomb.")
        elif (danger := find_danger(entry, settings, total_bytes)) is not None:
            _refuse(listing, path, danger.reason, danger.detail)
        else:
            total_bytes += entry.file_size
            listing.files.append(SourceFile(path, entry.file_size, entry.CRC, number))
    return _put_in_order(listing)


def _find_shared(entries: list[zipfile.ZipInfo]) -> set[int]:
    """Which entries lie where another one does. Source: D. Fifield, "A better zip bomb", 2019."""
    shared: set[int] = set()
    order = sorted(range(len(entries)), key=lambda number: entries[number].header_offset)
    end, last = -1, -1
    for number in order:
        entry = entries[number]
        if entry.header_offset < end:
            shared |= {number, last}
        if entry.header_offset + entry.compress_size > end:
            end, last = entry.header_offset + entry.compress_size, number
    return shared


def find_danger(entry: zipfile.ZipInfo, settings: Settings, total_bytes: int) -> Refusal | None:
    """Why an entry of a zip must not be unpacked; None where it may."""
    size_bytes, packed_bytes = entry.file_size, entry.compress_size
    dangers = (
        (
            stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG),
            UNSAFE,
            "It is a link or a device, not a file.",
        ),
        (
            bool(entry.flag_bits & 1),
            NOT_READABLE,
            "It is encrypted: unpack the zip yourself and import the folder.",
        ),
        (
            # The rarer methods unpack without a bound on memory.
            entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED),
            NOT_SUPPORTED,
            "It is packed by a rare method: make the zip again, packed as usual.",
        ),
        (
            size_bytes > settings.max_zip_entry_mb * 1e6,
            TOO_LARGE,
            f"It unpacks to {size_bytes / 1e6:,.0f} MB; the limit is "
            f"{settings.max_zip_entry_mb:,.0f} MB (setting RAREFIND_MAX_ZIP_ENTRY_MB).",
        ),
        (
            size_bytes > max(1e6, settings.max_zip_ratio * packed_bytes),
            UNSAFE,
            "It would unpack to far more than a photo does: it may be a zip bomb.",
        ),
        (
            total_bytes + size_bytes > settings.max_zip_total_gb * 1e9,
            TOO_LARGE,
            f"With it the zip unpacks to more than {settings.max_zip_total_gb:,.0f} GB "
            "(setting RAREFIND_MAX_ZIP_TOTAL_GB).",
        ),
    )
    return next((Refusal(reason, detail) for is_so, reason, detail in dangers if is_so), None)


def _read_name(entry: zipfile.ZipInfo) -> str:
    name = entry.filename
    if not entry.flag_bits & 0x800:
        # Without the flag names are code page 437 by the standard, UTF-8 by many programs.
        with suppress(UnicodeError):
            name = name.encode("cp437").decode()
    return name if "/" in name else name.replace("\\", "/")


def _is_skipped(name: str) -> bool:
    return name.startswith(".") or name in SKIPPED_NAMES


def _refuse(listing: Listing, path: str, reason: str, detail: str) -> None:
    listing.refused.append((SourceFile(shorten(show(path)), 0, 0, ""), Refusal(reason, detail)))


def _put_in_order(listing: Listing) -> Listing:
    """Sort by path, and number paths that occur more than once (a zip may repeat a name)."""
    times: Counter[str] = Counter()

    def numbered(file: SourceFile) -> SourceFile:
        times[file.path] += 1
        if times[file.path] == 1:
            return file
        return replace(file, path=f"{file.path} ({times[file.path]})")

    listing.files = [numbered(f) for f in sorted(listing.files, key=lambda f: f.path)]
    listing.refused = [(numbered(file), refusal) for file, refusal in listing.refused]
    return listing


def _read_labels_file(labels: Path, source: Path, settings: Settings) -> tuple[str, bytes]:
    """The labels file, on the disk or else of that name in the source, within a zip's limits."""
    inside = labels.as_posix()
    try:
        file = labels.absolute() if labels.is_file() else source / inside
        if file.is_file():
            size_bytes = file.stat().st_size
            if size_bytes > settings.max_zip_entry_mb * 1e6:
                raise LabelsNotUsable(
                    f"{labels} has {size_bytes / 1e6:,.0f} MB; the limit is "
                    f"{settings.max_zip_entry_mb:,.0f} MB (setting RAREFIND_MAX_ZIP_ENTRY_MB)."
                )
            return str(file), file.read_bytes()
        if source.is_file():
            with open_zip(source) as archive:
                entry = archive.getinfo(inside)
                if (danger := find_danger(entry, settings, 0)) is not None:
                    raise LabelsNotUsable(f"{inside} in the zip can't be read. {danger.detail}")
                return inside, archive.read(entry)
    except OSError as error:
        raise LabelsNotUsable(f"{labels} can't be read: {error.strerror}.") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise LabelsNotUsable(f"{inside} in the zip is damaged ({error}).") from error
    except KeyError:
        pass
    raise LabelsNotUsable(
        f"There is no labels file {labels}, neither on the disk nor in the source. Give a CSV "
        "file, or “folders” to take the names of the folders as labels."
    )


def _read_coco(data: bytes, name: str) -> dict[str, set[str]]:
    """Labels by file. Source: the data format of COCO, cocodataset.org."""
    try:
        coco = json.loads(data)
        labels: dict[int | str, set[str]] = {one["id"]: set() for one in coco["images"]}
        categories = {one["id"]: clean_label(str(one["name"])) for one in coco["categories"]}
        for one in coco["annotations"]:
            labels[one["image_id"]].add(categories[one["category_id"]])
        rows: dict[str, set[str]] = defaultdict(set)
        for one in coco["images"]:
            rows[str(one["file_name"]).strip()] |= labels[one["id"]] - {NO_TARGET}
    except KeyError as error:
        raise LabelsNotUsable(
            f"{name} lacks {error}, or names it without having it. As COCO has it, it needs images "
            "(id, file_name), categories (id, name) and annotations (image_id, category_id)."
        ) from error
    except (ValueError, TypeError, RecursionError) as error:
        raise LabelsNotUsable(f"{name} is no JSON file of COCO's form ({error}).") from error
    return {file: known or {NO_TARGET} for file, known in rows.items()}


def _tell_encoding(data: bytes, name: str) -> tuple[str, tuple[str, ...]]:
    encoding = "utf-16" if data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"
    try:
        data.decode(encoding)
        return encoding, ()
    except UnicodeDecodeError:
        pass
    try:
        data.decode("cp1252")
        return "cp1252", (
            f"{name} is not UTF-8. It was read as Windows-1252; save it as UTF-8 if accents in "
            "labels look wrong.",
        )
    except UnicodeDecodeError as error:
        raise LabelsNotUsable(
            f"{name} is neither UTF-8 nor Windows-1252 text. Save it as CSV (UTF-8)."
        ) from error


def _too_long(name: str, line: int, most: int) -> LabelsNotUsable:
    return LabelsNotUsable(
        f"{name} is no CSV file: the row that begins in line {line:,} goes on for more than "
        f"{most:,} characters. A quotation mark in it may never be closed: close it, or take it "
        "away."
    )


def _need_column(header: list[str], names: tuple[str, ...], file: str) -> int:
    found = find_column(header, names)
    if found is None:
        raise LabelsNotUsable(
            f"{file} has no column {names[0]} (or {', '.join(names[1:3])}). "
            f"Its columns are: {name_columns(header)}."
        )
    return found


def name_columns(header: list[str]) -> str:
    """The columns of a table in a sentence: the first ones, of each its beginning."""
    named = ", ".join(show(column)[:40] for column in header[:MOST_NAMED])
    return named if len(header) <= MOST_NAMED else f"{named} and {len(header) - MOST_NAMED:,} more"


def _list_ends(path: str) -> list[str]:
    """A path, and what is left of it without its first folders."""
    parts = path.split("/")
    return ["/".join(parts[at:]) for at in range(len(parts))]


def _normalise(path: str) -> str:
    """One spelling of a path: the same accents, and slashes as on any system."""
    return unicodedata.normalize("NFC", path.replace("\\", "/")).removeprefix("./")
