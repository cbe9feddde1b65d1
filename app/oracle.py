"""The oracle: known labels that answer instead of a person; and indexes made of given vectors.

Labels come from a collection's own (imported beside its images) or from a CSV file. A file that
leaves an image out, or names one that nobody knows, is refused: a replay must not guess.
"""

import csv
import hashlib
import shutil
from collections import Counter, defaultdict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.engine import EngineError
from app.engine.index import VectorIndex, build_index, open_index, read_manifest
from app.errors import BadInput, IndexNotUsable, LabelsNotUsable
from app.filtering import Filter, list_image_ids
from app.indexing import get_current_index
from app.metadata import list_columns
from app.settings import Settings
from app.sources import (
    FILE_COLUMNS,
    LABEL_COLUMNS,
    NO_TARGET,
    find_column,
    match_labels,
    plain,
    read_table,
)
from app.store import fetch_folder
from app.tables import Collection, Image, ImageIndex, ImagePath, OracleLabel

IMAGE_ID = "imageid"  # as `plain` makes it
IMAGES = "images.csv"  # beside an index made from vectors: image_id, file
CHUNK_ROWS = 65_536
NAMED_AT_MOST = 5
LARGEST_IMAGE_ID = 2**63 - 1  # an index keeps 64 bits

Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Oracle:
    """Known labels of every image; `rows_of` lists for each target the rows of its images."""

    collection: str
    image_ids: Integers  # (n,) by row, as in the index
    names: list[str]  # by row
    rows_of: dict[str, Integers]
    groups: Integers | None = None  # (n,) images of one group stay together; None without --group
    kept_rows: Integers | None = None  # that a filter keeps, ascending; None for all

    @property
    def name_of(self) -> dict[int, str]:
        """The name of every image, by image id."""
        return dict(zip(self.image_ids.tolist(), self.names, strict=True))

    @property
    def sha256(self) -> str:
        """A checksum of the labels it knows, whatever file they came from."""
        known = hashlib.sha256()
        for target in sorted(self.rows_of):
            known.update(f"\0{target}\0".encode())
            known.update(np.sort(self.image_ids[self.rows_of[target]]).astype("<i8").tobytes())
        return known.hexdigest()

    @property
    def images_sha256(self) -> str:
        """A checksum of which images it knows of."""
        return _sha256(self.image_ids)

    @property
    def kept_sha256(self) -> str | None:
        """A checksum of which images a filter keeps; None for all."""
        return None if self.kept_rows is None else _sha256(self.image_ids[self.kept_rows])

    @property
    def groups_sha256(self) -> str | None:
        """A checksum of which images are of one event; None without groups."""
        return None if self.groups is None else _sha256(self.groups)


def read_oracle(folder: Path, labels: Path, *, group: str | None = None) -> Oracle:
    """The oracle of a bare index folder, from a labels file that names every image of it."""
    image_ids = _open(folder).image_ids
    named = _read_names(folder, image_ids)
    known = {name: image_id for image_id, name in named.items()}
    names = [named[image_id] for image_id in image_ids.tolist()]
    labelled, groups = read_labels_file(labels, known, group)
    return make_oracle(folder.resolve().name, image_ids, names, labelled, groups)


def read_oracle_of(
    session: Session,
    collection: Collection,
    *,
    settings: Settings,
    labels: Path | None = None,
    group: str | None = None,
    chosen: Filter | None = None,
    vectors_sha256: str | None = None,
) -> tuple[Oracle, Path]:
    """The oracle of a collection, from its known labels or from a file; and its index's folder.

    With a filter (`chosen`) it knows of the images alone that the filter keeps. The index is the
    current one, or the one of these vectors (`vectors_sha256`), on which a replay was begun.
    """
    if vectors_sha256 is None:
        index_row = get_current_index(session, collection.id)
        folder = settings.home / "indexes" / str(index_row.id)
        fetch_folder(settings, folder)
    else:
        folder = _find_index_folder(session, collection, vectors_sha256, settings)
    image_ids = _open(folder).image_ids
    own = select(Image.id, Image.path).where(Image.collection_id == collection.id)
    named = {image.id: image.path for image in session.execute(own)}
    names = [named[image_id] for image_id in image_ids.tolist()]
    groups: dict[int, str] = {}
    if labels is None:
        if group:
            groups = _read_given_groups(session, collection, group)
        labelled: dict[int, set[str]] = defaultdict(set)
        for image_id, label in session.execute(
            select(OracleLabel.image_id, OracleLabel.label)
            .join(Image, Image.id == OracleLabel.image_id)
            .where(Image.collection_id == collection.id, Image.removed_at.is_(None))
        ):
            labelled[image_id] |= {label} - {NO_TARGET}
    else:
        paths = select(ImagePath.path, ImagePath.image_id).filter_by(collection_id=collection.id)
        known = {found.path: found.image_id for found in session.execute(paths)}
        known |= {path: image_id for image_id, path in named.items()}
        labelled, groups = read_labels_file(labels, known, group)
    kept_rows = list_kept_rows(session, collection.id, image_ids, chosen)
    return make_oracle(collection.name, image_ids, names, labelled, groups, kept_rows), folder


def list_kept_rows(
    session: Session, collection_id: int, image_ids: Integers, chosen: Filter | None
) -> Integers | None:
    """The rows of an index that a filter keeps, without removed images; None for all of them."""
    kept = np.isin(image_ids, list_image_ids(session, collection_id, chosen or Filter()))
    return None if kept.all() else np.flatnonzero(kept)


def _find_index_folder(
    session: Session, collection: Collection, vectors_sha256: str, settings: Settings
) -> Path:
    """The folder of the index of these vectors, wherever the collection has moved since."""
    ready = select(ImageIndex.id).filter_by(collection_id=collection.id, state="ready")
    for index_id in session.scalars(ready.order_by(ImageIndex.id.desc())):
        folder = settings.home / "indexes" / str(index_id)
        fetch_folder(settings, folder)
        with suppress(EngineError):  # one that can't be read is not the one
            if read_manifest(folder).vectors_sha256 == vectors_sha256:
                return folder
    raise IndexNotUsable(
        f"The index of “{collection.name}” with which this replay began is not there any more, or "
        "can't be read, so it can't be gone on with. Its finished runs are kept; start a new one."
    )


def _read_given_groups(session: Session, collection: Collection, group: str) -> dict[int, str]:
    """What a column of the tables brought to a collection says of each image."""
    known = [column.name for column in list_columns(session, collection.id)]
    if group not in known:
        raise BadInput(
            f"No table here has a column “{group}”. Its columns: {', '.join(known) or 'none'}. "
            "Or give a labels file that has it, with --labels."
        )
    value = Image.given.op("->>")(group)
    rows = session.execute(
        select(Image.id, value).where(Image.collection_id == collection.id, value.is_not(None))
    )
    groups = {image_id: str(text) for image_id, text in rows}
    if not any(map(str.strip, groups.values())):
        raise BadInput(
            f"The column “{group}” has no value for any image of “{collection.name}”, so nothing "
            "is grouped by it. Name another, or leave --group out."
        )
    return groups


def make_oracle(
    collection: str,
    image_ids: Integers,
    names: list[str],
    labelled: Mapping[int, set[str]],
    groups: Mapping[int, str],
    kept_rows: Integers | None = None,
) -> Oracle:
    """The oracle of these images; refuses labels that leave out one of them, by name."""
    if kept_rows is not None and not len(kept_rows):
        raise BadInput(
            f"The filter keeps no image of “{collection}”: there is nothing to look at. Change it."
        )
    ids = image_ids.tolist()
    rows = range(len(ids)) if kept_rows is None else kept_rows.tolist()
    missing = [names[row] for row in rows if ids[row] not in labelled]
    if missing:
        raise LabelsNotUsable(
            f"{count_of(missing, 'image')} without a known label: {name_some(missing)}. "
            "Each needs a line in the labels file; leave the label empty if it shows no target. An "
            "admin can give the file to the collection, on its page “Known labels” or by “rarefind "
            "collection labels”."
        )
    rows_of: dict[str, list[int]] = defaultdict(list)
    for row in rows:
        for label in labelled[ids[row]]:
            rows_of[label].append(row)
    numbers: Integers | None = None
    if groups:
        # An image of which nothing is said is alone: no text of a group begins so.
        own_groups = [groups.get(image_id) or f"\0{image_id}" for image_id in ids]
        _, numbers = np.unique(own_groups, return_inverse=True)
    return Oracle(
        collection,
        image_ids,
        names,
        {label: np.array(rows_of[label], dtype=np.int64) for label in sorted(rows_of)},
        numbers,
        kept_rows,
    )


def read_labels_file(
    file: Path, known: Mapping[str, int], group: str | None
) -> tuple[dict[int, set[str]], dict[int, str]]:
    """Labels (and groups) by image id; refuses lines about images that nobody knows, by name."""
    header, lines = _read_table(file)
    label_column = _find(LABEL_COLUMNS, header)
    file_column = _find((*FILE_COLUMNS, IMAGE_ID), header)
    if label_column is None or file_column is None:
        raise LabelsNotUsable(
            f"{file.name} needs a column file (or image_id) and a column label. "
            f"Its columns are: {', '.join(header)}."
        )
    if group is not None and group not in header:
        raise LabelsNotUsable(
            f"{file.name} has no column {group}. Its columns are: {', '.join(header)}."
        )
    written: dict[str, set[str]] = {}
    groups_written: dict[str, set[str]] = {}
    for line in lines:
        written.setdefault(line[file_column], set()).update({line[label_column]} - {""})
        if group:  # one line of several for an image may say it
            groups_written.setdefault(line[file_column], set()).update({line[group]} - {""})
    if plain(file_column) == IMAGE_ID:
        known = {str(image_id): image_id for image_id in known.values()}
    by_name, unknown = match_labels(written, list(known))
    if unknown:
        raise LabelsNotUsable(
            f"{file.name} names {count_of(unknown, 'image')} that the collection does not hold "
            f"(or not under a unique name): {name_some(unknown)}."
        )
    labelled: dict[int, set[str]] = defaultdict(set)
    for name, labels in by_name.items():
        labelled[known[name]] |= labels
    events: dict[int, set[str]] = defaultdict(set)
    names_of: dict[int, list[str]] = defaultdict(list)  # an image may have several
    for name, own in match_labels(groups_written, list(known))[0].items():
        events[known[name]] |= own
        names_of[known[name]].append(name)
    several = [image_id for image_id, told in events.items() if len(told) > 1]
    if several:
        names = [name for image_id in several for name in names_of[image_id]]
        raise LabelsNotUsable(
            f"{file.name} gives {count_of(len(several), 'image')} more than one {group}: "
            f"{name_some(names)}. An image is of one event: write the same in all its lines, also "
            "where it has several names."
        )
    groups = {image_id: told.pop() for image_id, told in events.items() if told}
    if group and not groups:
        raise LabelsNotUsable(
            f"The column {group} of {file.name} is empty for every image, so nothing is grouped by "
            "it. Fill it, or leave --group out."
        )
    return dict(labelled), groups


def index_vectors(file: Path, ids: Path, out: Path) -> VectorIndex:
    """Make an index folder of vectors that somebody brings; they are brought to unit length.

    `ids` is a CSV file with one line for each vector, in the same order: a column `file` (any name
    of the image), `image_id` (whole numbers; the row's number without it), or both, each once.
    """
    if out.exists():
        raise BadInput(f"{out} exists already, and a finished index is never changed.")
    try:
        # Not np.load, which takes archives and pickles for arrays too.
        vectors = np.lib.format.open_memmap(file, mode="r")
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or (
            "it is no single array of numbers as numpy.save writes it, or not whole"
        )
        raise BadInput(f"{file} can't be read as a .npy file: {why}.") from error
    if vectors.ndim != 2 or vectors.size == 0 or vectors.dtype.kind != "f":
        raise BadInput(
            f"{file} holds no vectors: it needs one row of floating-point numbers for each image, "
            f"and has shape {vectors.shape} of {vectors.dtype}."
        )
    image_ids, names = _read_ids(ids, len(vectors))
    building = out.with_name(f"{out.name}.building")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    try:
        unit = np.lib.format.open_memmap(
            building / "vectors.npy", mode="w+", dtype=np.float32, shape=vectors.shape
        )
        for start in range(0, len(vectors), CHUNK_ROWS):
            chunk = np.asarray(vectors[start : start + CHUNK_ROWS], dtype=np.float64)
            lengths = np.linalg.norm(chunk, axis=1)
            bad = np.flatnonzero(~np.isfinite(lengths) | (lengths == 0))
            if len(bad):
                raise BadInput(
                    f"Row {start + bad[0]} of {file.name} ({names[start + bad[0]]}) has no "
                    "direction: it is zero or not finite."
                )
            unit[start : start + CHUNK_ROWS] = chunk / lengths[:, None]
        revision = hashlib.sha256(file.read_bytes()).hexdigest()[:16]
        build_index(
            building, vectors=unit, image_ids=image_ids, embedder="from-vectors", revision=revision
        )
        with (building / IMAGES).open("w", encoding="utf-8", newline="") as table:
            writer = csv.writer(table)
            writer.writerow(("image_id", "file"))
            writer.writerows(zip(image_ids.tolist(), names, strict=True))
    except BaseException:
        shutil.rmtree(building)
        raise
    building.rename(out)
    return open_index(out)


def _sha256(numbers: Integers) -> str:
    return hashlib.sha256(numbers.astype("<i8").tobytes()).hexdigest()


def _open(folder: Path) -> VectorIndex:
    try:
        return open_index(folder)
    except EngineError as error:
        raise IndexNotUsable(f"{folder} is no index that can be used: {error}.") from error


def _read_names(folder: Path, image_ids: Integers) -> dict[int, str]:
    """The names of a bare index's images; where it has none, their numbers."""
    if not (folder / IMAGES).exists():
        return {image_id: str(image_id) for image_id in image_ids.tolist()}
    with (folder / IMAGES).open(encoding="utf-8", newline="") as table:
        return {int(line["image_id"]): line["file"] for line in csv.DictReader(table)}


def _read_ids(file: Path, count: int) -> tuple[Integers, list[str]]:
    header, lines = _read_table(file)
    if len(lines) != count:
        raise BadInput(f"{file.name} has {count_of(len(lines), 'line')} for {count} vectors.")
    image_ids = np.arange(count)
    id_column, file_column = _find((IMAGE_ID,), header), _find(FILE_COLUMNS, header)
    column = file_column or id_column
    if column is None:
        raise BadInput(f"{file.name} needs a column file, a column image_id, or both.")
    if id_column is not None:
        image_ids = np.array([_whole_number(line[id_column], file) for line in lines])
    names = [line[column] for line in lines]
    for told in (image_ids.tolist(), names):
        times = Counter(told)
        if len(times) < count:
            name, many = times.most_common(1)[0]
            raise BadInput(
                f"{file.name}: image {name} stands {'twice' if many == 2 else f'{many} times'}. "
                "Labels go by it: give each vector one of its own."
            )
    if "" in names:
        raise BadInput(f"{file.name}: vector {names.index('') + 1} has no {column}.")
    return image_ids, names


def _read_table(file: Path) -> tuple[list[str], list[dict[str, str]]]:
    try:
        text = file.expanduser().read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no text in UTF-8"
        raise LabelsNotUsable(f"{file} can't be read as CSV: {why}.") from error
    table = read_table(text.encode(), file.name)
    header = [column.strip() for column in table.header]
    return header, [dict(zip(header, map(str.strip, row), strict=True)) for _, row in table.rows]


def _find(names: tuple[str, ...], header: list[str]) -> str | None:
    at = find_column(header, names)
    return None if at is None else header[at]


def _whole_number(text: str, file: Path) -> int:
    try:
        number = int(text)
    except ValueError as error:
        raise BadInput(f"{file.name}: image_id “{text}” is no whole number.") from error
    if abs(number) > LARGEST_IMAGE_ID:
        raise BadInput(f"{file.name}: image_id {text} is too large: at most {LARGEST_IMAGE_ID}.")
    return number


def name_some(names: list[str], at_most: int = NAMED_AT_MOST) -> str:
    more = f" and {len(names) - at_most} more" if len(names) > at_most else ""
    return ", ".join(f"“{name}”" for name in names[:at_most]) + more


def count_of(things: int | list[str], what: str) -> str:
    count = things if isinstance(things, int) else len(things)
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
