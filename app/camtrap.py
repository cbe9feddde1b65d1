"""Read a Camtrap DP package: deployments, media and observations beside the files themselves.

Source: Camera Trap Data Package 1.0, camtrap-dp.tdwg.org. Its times carry a zone, so they are
compared as moments, whatever zone each is written in; an image keeps the camera's own time, as
media.csv writes it. Nothing is fetched: media on the web are listed as not available.
"""

import json
import zipfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath

from app.errors import LabelsNotUsable, SourceNotUsable
from app.settings import Settings
from app.sources import clean_label, find_danger, open_zip, read_table

DESCRIPTOR = "datapackage.json"
TABLES = ("deployments", "media", "observations")
UNCLASSIFIED = "unclassified"  # nobody has looked yet: no label
HUMAN = "human"
HUMAN_NAMES = ("homo", "homo sapiens")
NEAR_S = 1.0  # two times nearer than this are one

Row = dict[str, str]


@dataclass(frozen=True)
class PackageDeployment:
    """Where and when a camera stood; times by its own clock."""

    name: str
    place: str
    latitude: float | None
    longitude: float | None
    starts_at: datetime | None
    ends_at: datetime | None


@dataclass(frozen=True)
class PackageMedium:
    """One image of the package; its time by the camera's clock."""

    path: str  # in the package, or an address on the web
    name: str
    deployment: str
    captured_at: datetime | None

    @property
    def is_on_web(self) -> bool:
        """Whether its file is elsewhere."""
        return "://" in self.path


@dataclass(frozen=True)
class Package:
    """What a package says of its images."""

    tables: frozenset[str]  # files of the package that are no images
    deployments: list[PackageDeployment]
    media: dict[str, PackageMedium]  # by path
    labels: dict[str, set[str]]  # by path: what observations say is seen
    people: set[str]  # paths of media on which somebody is seen
    notes: tuple[str, ...]


def read_package(source: Path, settings: Settings) -> Package | None:
    """The package in a folder or zip; None where there is none."""
    described = _read(source, DESCRIPTOR, settings)
    if described is None:
        return None
    try:
        resources = json.loads(described)["resources"]
        paths = {one["name"]: one["path"] for one in resources if "path" in one}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None  # some other program's datapackage.json
    if not {"deployments", "media"} <= paths.keys():
        return None
    rows = {
        name: list(_read_rows(source, str(paths[name]), settings))
        for name in TABLES
        if name in paths
    }
    media = _read_media(rows["media"])
    observations = rows.get("observations", [])
    seen, notes = _read_observations(observations, rows["media"])
    labels = {path: {_read_label(row) for row in found} - {""} for path, found in seen.items()}
    return Package(
        tables=frozenset({DESCRIPTOR, *(str(path) for path in paths.values())}),
        deployments=[_read_deployment(row) for row in rows["deployments"]],
        media=media,
        labels=labels,
        people={path for path, found in seen.items() if any(map(_shows_people, found))},
        notes=notes,
    )


def _read(source: Path, name: str, settings: Settings) -> bytes | None:
    """A file of the source, within its limits; None where there is none, or it lies outside."""
    if name.startswith("/") or ".." in PurePosixPath(name).parts:
        return None
    try:
        if source.is_dir():
            file = source / name
            if not file.is_file() or file.stat().st_size > settings.max_zip_entry_mb * 1e6:
                return None
            return file.read_bytes()
        with open_zip(source) as archive:
            entry = archive.getinfo(name)
            return None if find_danger(entry, settings, 0) else archive.read(entry)
    except (KeyError, OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error):
        return None


def _read_rows(source: Path, name: str, settings: Settings) -> Iterator[Row]:
    data = _read(source, name, settings)
    if data is None:
        raise SourceNotUsable(
            f"The package's {name} can't be read, though {DESCRIPTOR} names it. Put it beside it, "
            "unpacked, and try again."
        )
    try:
        table = read_table(data, name)
    except LabelsNotUsable as error:
        raise SourceNotUsable(f"The package can't be read: {error}") from error
    for _, row in table.rows:
        yield dict(zip(table.header, row, strict=False))


def _read_deployment(row: Row) -> PackageDeployment:
    return PackageDeployment(
        name=clean_label(row.get("deploymentID", "")),
        place=row.get("locationName", "").replace("\0", ""),
        latitude=_read_degrees(row.get("latitude", ""), 90),
        longitude=_read_degrees(row.get("longitude", ""), 180),
        starts_at=_read_local(row.get("deploymentStart", "")),
        ends_at=_read_local(row.get("deploymentEnd", "")),
    )


def _read_media(rows: list[Row]) -> dict[str, PackageMedium]:
    media = {}
    for row in rows:
        path = row.get("filePath", "").removeprefix("./").replace("\0", "")
        if path:
            media[path] = PackageMedium(
                path=path,
                name=row.get("fileName", "") or PurePosixPath(path).name,
                deployment=clean_label(row.get("deploymentID", "")),
                captured_at=_read_local(row.get("timestamp", "")),
            )
    return media


def _read_observations(
    observations: list[Row], media: list[Row]
) -> tuple[dict[str, list[Row]], tuple[str, ...]]:
    """What is seen on each medium, by its path, and what there is to say of the times.

    An observation of an event counts for its images that have none of their own.
    """
    path_of = {row.get("mediaID", ""): row.get("filePath", "").removeprefix("./") for row in media}
    moment_of = {row.get("mediaID", ""): _read_moment(row.get("timestamp", "")) for row in media}
    of_deployment: dict[str, list[str]] = defaultdict(list)
    for row in media:
        of_deployment[row.get("deploymentID", "")].append(row.get("mediaID", ""))
    found: dict[str, list[Row]] = defaultdict(list)
    seen: set[str] = set()  # media with an observation of their own
    compared, differing = 0, 0
    zones: dict[str, Counter[str]] = {"media.csv": Counter(), "observations.csv": Counter()}
    zones["media.csv"].update(_zone_of(row.get("timestamp", "")) for row in media)
    events = []
    for row in observations:
        medium = row.get("mediaID", "")
        zones["observations.csv"][_zone_of(row.get("eventStart", ""))] += 1
        if medium not in path_of:
            events.append(row)
            continue
        seen.add(medium)
        found[path_of[medium]].append(row)
        start, moment = _read_moment(row.get("eventStart", "")), moment_of[medium]
        if start is not None and moment is not None:
            compared += 1
            differing += abs((moment - start).total_seconds()) > NEAR_S
    for row in events:
        start, end = (_read_moment(row.get(name, "")) for name in ("eventStart", "eventEnd"))
        if start is None or end is None:
            continue
        for medium in of_deployment[row.get("deploymentID", "")]:
            moment = moment_of[medium]
            if medium not in seen and moment is not None and start <= moment <= end:
                found[path_of[medium]].append(row)
    return dict(found), tuple(_tell_times(compared, differing, zones))


def _tell_times(compared: int, differing: int, zones: dict[str, Counter[str]]) -> Iterator[str]:
    if not compared:
        return
    written = {file: sorted(zone for zone in found if zone) for file, found in zones.items()}
    if written["media.csv"] != written["observations.csv"]:
        said = " and ".join(f"{file} in {', '.join(found)}" for file, found in written.items())
        yield (
            f"Times are written in different zones, {said}, so the same moment reads an hour or "
            "more apart. They were compared as moments, as the standard says; images keep the "
            "camera's own time, as media.csv writes it."
        )
    if differing:
        yield (
            f"{differing:,} of {compared:,} observations begin at another moment than their image "
            "was taken. The images' own times were kept."
        )
    else:
        yield f"All {compared:,} observations of single images agree with the images' times."


def _read_label(row: Row) -> str:
    """What an observation names; empty where nobody has looked."""
    kind = row.get("observationType", "")
    label = row.get("scientificName", "").strip() or kind
    return "" if kind == UNCLASSIFIED else clean_label(label)


def _shows_people(row: Row) -> bool:
    name = row.get("scientificName", "").strip().lower()
    return row.get("observationType", "").strip().lower() == HUMAN or name in HUMAN_NAMES


def _read_degrees(text: str, most: int) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if abs(value) <= most else None


def _read_moment(text: str) -> datetime | None:
    """A moment in time: only with a zone is it one."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else None


def _read_local(text: str) -> datetime | None:
    """The time on the camera's clock."""
    try:
        return datetime.fromisoformat(text).replace(tzinfo=None)
    except ValueError:
        return None


def _zone_of(text: str) -> str:
    moment = _read_moment(text)
    if moment is None:
        return ""
    name = moment.strftime("%z")
    return "UTC" if name == "+0000" else f"{name[:3]}:{name[3:5]}"
