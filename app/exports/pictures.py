"""The positives as files: a zip of copies without metadata, with a table that says what each is."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC
from functools import partial
from pathlib import Path, PurePosixPath

from sqlalchemy.orm import Session

from app.answers import read_current_answers
from app.errors import ReadersBusy
from app.exports.archives import pack
from app.exports.rows import read_naming, write_csv
from app.exports.sightings import read_sightings
from app.exports.stripping import NotCopied, copy_without_metadata
from app.sensitive import Sight
from app.settings import Settings
from app.store import find_original
from app.tables import Search
from app.workers import AGAIN_S, Readers

FOLDER = "pictures"
WAITS = 12  # for a place, while pictures of others are read: some minutes
HEADER = [
    *("file", "path", "sha256", "captured_at", "latitude", "longitude"),
    *("coordinate_precision", "camera", "answered_by", "answered_at", "problem"),
]


@dataclass
class Picture:
    """One positive to copy."""

    original: Path
    orientation: int
    name: str  # in the zip
    cells: dict[str, object]


def list_pictures(
    session: Session, search: Search, given: list[str], *, sight: Sight
) -> list[Picture]:
    """The positives in order of path, with names that no two share on any system.

    `given` names columns of brought tables; each has a cell.
    """
    answers = read_current_answers(session, search)
    among = [image_id for image_id, value in answers.items() if value == "yes"]
    naming = read_naming(session, search.collection_id)
    pictures: list[Picture] = []
    taken: set[str] = set()
    for sighting in read_sightings(session, search, sight=sight, among=among):
        image, said = sighting.image, sight.given(sighting.image.given)
        path = PurePosixPath(naming.path(image.path))
        ending = path.suffix if image.format == "JPEG" else ".png"
        # A path of an import may hold what a zip must not: a drive, or a way out of its folder.
        folders = [part for part in path.parent.parts if part not in ("/", "..")]
        stem = str(PurePosixPath(FOLDER, *folders, path.stem)).replace("\\", "_").replace(":", "_")
        name, number = stem + ending, 1
        while name.lower() in taken:
            number += 1
            name = f"{stem}-{number}{ending}"
        taken.add(name.lower())
        pictures.append(
            Picture(
                Path(image.file),
                image.orientation,
                name,
                {
                    "file": name,
                    "path": naming.path(image.path),
                    "sha256": image.sha256,
                    "captured_at": image.captured_at.isoformat() if image.captured_at else "",
                    "latitude": sighting.latitude,
                    "longitude": sighting.longitude,
                    "coordinate_precision": None if sighting.latitude is None else sight.grid,
                    "camera": image.camera,
                    "answered_by": sighting.who,
                    "answered_at": sighting.at.astimezone(UTC).isoformat() if sighting.at else "",
                }
                | {f"given.{name}": said.get(name) for name in given},
            )
        )
    return pictures


def write_pictures(
    pictures: list[Picture],
    given: list[str],
    settings: Settings,
    readers: Readers,
    told: Callable[[str, int, int], None] = lambda *_: None,
) -> Iterator[bytes]:
    """The zip, one picture in memory at a time; the table comes last and says what was not copied.

    `given` names the columns of brought tables, which stand last in it.

    Needs no database, so that it may go on for as long as the download takes.
    """

    header = [*HEADER, *(f"given.{name}" for name in given)]

    def parts() -> Iterator[tuple[str, list[str | bytes] | Iterator[str]]]:
        for number, picture in enumerate(pictures):
            told("copying", number, len(pictures))
            try:
                copied = _copy_patiently(picture, settings, readers)
            except (NotCopied, ReadersBusy) as problem:
                picture.cells |= {"file": "", "problem": str(problem)}
                continue
            yield picture.name, [copied]
        yield "pictures.csv", write_csv(header, (picture.cells for picture in pictures))

    return pack(parts(), compress=False)


def _copy_patiently(picture: Picture, settings: Settings, readers: Readers) -> bytes:
    """A zip under way can't be refused: its pictures wait for those of others, up to a point."""
    copy = partial(
        copy_without_metadata,
        find_original(str(picture.original), settings),
        orientation=picture.orientation,
        max_megapixels=settings.max_megapixels,
        readers=readers,
    )
    for _ in range(WAITS):
        try:
            return copy()
        except ReadersBusy:
            time.sleep(AGAIN_S)
    return copy()
