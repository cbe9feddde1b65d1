"""When and where the target was found: dates, hours, places and deployments, as metadata say.

Finds and likely images stand beside all images of the index: a target that is found where most
images are may be no more frequent there. Times are those of the cameras' clocks, set right by the
clock shifts that deployments have.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
from sqlalchemy import ColumnElement, Date, Integer, cast, extract, func, select, tuple_

from app.dashboards.moments import MOST_LIKELY, Moment, Plot, rounded
from app.database import is_among
from app.deploying import may_folders_be_labels, place_of
from app.engine.numerals import plural, spaced
from app.engine.places import merge_places
from app.tables import Deployment, Image, ImageIndex, UnreadableImage

PLACES_PER_DEGREE = 10_000  # places nearer than some 11 m are one
MOST_DAYS, MOST_WEEKS, MOST_MONTHS = 92, 104, 240
WINDOW_HOURS = 4
MOST_DEPLOYMENTS = 200

Key = date | int | str | tuple[float, float] | None
Counts = Counter[Key]
Cells = list[float | int | str | None]


@dataclass(frozen=True)
class Whereabouts:
    """What metadata say of the finds: plots, and sentences where there is nothing to plot."""

    plots: list[Plot]
    missing: list[str]
    scope: str = ""  # of which images it tells, where a filter keeps only some


@dataclass(frozen=True)
class Tallies:
    """Images by a date, an hour, a place or a folder; None stands for not known."""

    found: Counts
    likely: Counts
    answered: Counts
    every: Counts
    is_filtered: bool  # `every` are all images that a filter keeps

    def total(self, counts: Counts) -> int:
        """Those of which it is known."""
        return counts.total() - counts[None]


@dataclass(frozen=True)
class _Facts:
    """What is known of one image."""

    day: date | None
    hour: int | None
    place: tuple[float, float] | None
    folder: str | None


def tell_whereabouts(moment: Moment) -> Whereabouts:
    """When and where was it found? Under a filter, of the images that it keeps."""
    found = _list_found(moment, moment.kept_values)
    elsewhere = len(_list_found(moment, moment.values)) - len(found)
    scope = ""
    if moment.pool_ids is not None:
        scope = "This tells only of the images that the search's filter keeps"
        if elsewhere:
            scope += f": {plural(elsewhere, 'find')} outside it {_are(elsewhere)} left out"
        scope += "."
    if not found:
        return Whereabouts([], ["To tell this, the search needs a find."], scope)
    likely = moment.index.image_ids[moment.list_likely(MOST_LIKELY)].tolist()
    known = _read_facts(moment, [*moment.kept_values, *likely])
    every = _count_all(moment)

    def tally(name: str) -> Tallies:
        def count(image_ids: Iterable[int]) -> Counts:
            return Counter(getattr(known[one], name) for one in image_ids if one in known)

        return Tallies(
            count(found), count(likely), count(moment.kept_values), every[name], bool(scope)
        )

    told = [
        _plot_dates(tally("day")),
        _plot_hours(tally("hour")),
        _plot_places(tally("place"), moment.sight.size),
        _plot_deployments(moment, tally("folder")),
    ]
    return Whereabouts(
        [one for one in told if isinstance(one, Plot)],
        list(dict.fromkeys(one for one in told if isinstance(one, str))),
        scope,
    )


def _list_found(moment: Moment, values: dict[int, str]) -> list[int]:
    return [one for one, value in values.items() if value == "yes" and one not in moment.removed]


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _read_facts(moment: Moment, image_ids: list[int]) -> dict[int, _Facts]:
    rows = moment.session.execute(
        select(Image.id, Image.captured_at, Image.latitude, Image.longitude, _name_of(moment))
        .outerjoin(Deployment, Deployment.id == Image.deployment_id)
        .where(is_among(Image.id, image_ids), Image.removed_at.is_(None))
    )
    return {
        image_id: _Facts(
            at.date() if at else None,
            at.hour if at else None,
            _to_place(moment.sight.place(latitude, longitude)),
            deployment,
        )
        for image_id, at, latitude, longitude, deployment in rows
    }


def _name_of(moment: Moment) -> ColumnElement[str]:
    """The deployment of an image, else its first folder, where that may be told."""
    is_secret = may_folders_be_labels(moment.session, moment.search.collection_id)
    return place_of(with_folders=not is_secret)


def _to_place(place: tuple[float, float] | None) -> tuple[float, float] | None:
    if place is None:
        return None
    return tuple(  # type: ignore[return-value]
        round(degrees * PLACES_PER_DEGREE) / PLACES_PER_DEGREE for degrees in place
    )


def _count_all(moment: Moment) -> dict[str, Counts]:
    """All images of the index that are not removed, counted in one look at the table."""
    index = moment.session.get_one(ImageIndex, moment.made.index_id)
    parts = [one for one in (index.id, index.first_part_id, index.second_part_id) if one]
    day = cast(Image.captured_at, Date)
    hour = cast(extract("hour", Image.captured_at), Integer)
    north, east = (
        func.round(moment.sight.in_sql(degrees.expression) * PLACES_PER_DEGREE)
        for degrees in (Image.latitude, Image.longitude)
    )
    folder = _name_of(moment)
    pool = moment.pool_ids
    which = func.grouping(day, hour, north, folder)
    rows = moment.session.execute(
        select(which, day, hour, north, east, folder, func.count())
        .select_from(Image)
        .outerjoin(Deployment, Deployment.id == Image.deployment_id)
        .where(
            Image.collection_id == index.collection_id,
            Image.removed_at.is_(None),
            # Images that joined later are in later indexes.
            Image.id <= int(moment.index.image_ids.max()),
            Image.id.not_in(
                select(UnreadableImage.image_id).where(UnreadableImage.index_id.in_(parts))
            ),
            *(() if pool is None else (is_among(Image.id, pool.tolist()),)),
        )
        .group_by(
            func.grouping_sets(tuple_(day), tuple_(hour), tuple_(north, east), tuple_(folder))
        )
    )
    counts: dict[str, Counts] = {name: Counter() for name in ("day", "hour", "place", "folder")}
    for mask, one_day, one_hour, one_north, one_east, one_folder, count in rows:
        if mask == 0b0111:
            counts["day"][one_day] += count
        elif mask == 0b1011:
            counts["hour"][one_hour] += count
        elif mask == 0b1101:
            place = None
            if one_north is not None and one_east is not None:
                place = (one_north / PLACES_PER_DEGREE, one_east / PLACES_PER_DEGREE)
            counts["place"][place] += count
        else:
            counts["folder"][one_folder] += count
    return counts


def _check_known(tallies: Tallies, what: str) -> str | None:
    """Why there is nothing to plot, if so."""
    whose = "that the filter keeps" if tallies.is_filtered else "of this collection"
    if not tallies.total(tallies.every):
        return f"No image {whose} says {what}."
    if not tallies.total(tallies.found):
        return f"None of your finds says {what}, though other images {whose} do."
    return None


def _tell_unknown(tallies: Tallies, what: str) -> str:
    """How many finds are not in a plot."""
    unknown = tallies.found[None]
    if not unknown:
        return ""
    return f" {plural(unknown, 'find')} without {what} {_are(unknown)} left out."


# --- Dates ----------------------------------------------------------------------------------------


def _plot_dates(tallies: Tallies) -> Plot | str:
    lack = _check_known(tallies, "when it was taken")
    if lack:
        return lack
    days = [day for day in tallies.every if isinstance(day, date)]
    first, last = min(days), max(days)
    unit, start_of, step = _choose_step(first, last)
    starts = [start_of(first)]
    while step(starts[-1]) <= last:
        starts.append(step(starts[-1]))
    found, likely, every = (
        _count_by_start(counts, start_of)
        for counts in (tallies.found, tallies.likely, tallies.every)
    )
    own = sorted(day for day in tallies.found if isinstance(day, date))
    (best, most), *_ = found.most_common(1)
    total = found.total()
    when = f"on {_name(own[0])}" if own[0] == own[-1] else f"{_name(own[0])} to {_name(own[-1])}"
    peak = ""
    if len(found) > 1:
        peak = f", most {_name_step(unit, best)} ({spaced(most)} of {spaced(total)})"
    whole = "What the filter keeps" if tallies.is_filtered else "The collection"
    span = f"{whole} reaches from {_name(first)} to {_name(last)}"
    if first == last:
        span = "All images that have a date are of one day"
    return Plot(
        "dates",
        "dates",
        "Dates",
        f"Found {when}{peak}. {span}, by the cameras' clocks, with the clock shifts of deployments."
        f"{_tell_unknown(tallies, 'a date')}",
        [unit.capitalize(), "Found", "Likely", "All images"],
        [[start.isoformat(), found[start], likely[start], every[start]] for start in starts],
        {},
    )


def _count_by_start(counts: Counts, start_of: Callable[[date], date]) -> Counter[date]:
    summed: Counter[date] = Counter()
    for day, count in counts.items():
        if isinstance(day, date):
            summed[start_of(day)] += count
    return summed


def _choose_step(
    first: date, last: date
) -> tuple[str, Callable[[date], date], Callable[[date], date]]:
    """Days, weeks, months or years: its name, where one begins, and where the next one does."""
    days = (last - first).days + 1
    if days <= MOST_DAYS:
        return "day", lambda day: day, lambda day: day + timedelta(1)
    if days <= 7 * MOST_WEEKS:
        return (
            "week",
            lambda day: day - timedelta(day.weekday()),
            lambda day: day + timedelta(7),
        )
    if days <= 30 * MOST_MONTHS:
        return (
            "month",
            lambda day: day.replace(day=1),
            lambda day: (day + timedelta(31)).replace(day=1),
        )
    return (
        "year",
        lambda day: day.replace(month=1, day=1),
        lambda day: day.replace(year=day.year + 1),
    )


def _name_step(unit: str, start: date) -> str:
    """A day, week, month or year that begins on `start`, as people say when something was."""
    if unit == "day":
        return f"on {_name(start)}"
    if unit == "week":
        return f"in the week of {_name(start)}"
    return f"in {start:%B %Y}" if unit == "month" else f"in {start:%Y}"


def _name(day: date) -> str:
    return f"{day.day} {day:%B %Y}"


# --- Hours ----------------------------------------------------------------------------------------


def _plot_hours(tallies: Tallies) -> Plot | str:
    lack = _check_known(tallies, "when it was taken")
    if lack:
        return lack
    counts = [tallies.found[hour] for hour in range(24)]
    sums = [sum(counts[(hour + k) % 24] for k in range(WINDOW_HOURS)) for hour in range(24)]
    best = int(np.argmax(sums))
    total = sum(counts)
    share = sum(tallies.every[(best + k) % 24] for k in range(WINDOW_HOURS))
    return Plot(
        "hours",
        "clock",
        "Hours of the day",
        f"{spaced(sums[best])} of {plural(total, 'find')} {'was' if sums[best] == 1 else 'were'} "
        f"taken between {best} and "
        f"{(best + WINDOW_HOURS) % 24} h, as were {_percent(share, tallies.total(tallies.every))} "
        "of all images. By the cameras' clocks, with the clock shifts of deployments; no time is "
        "converted."
        f"{_tell_unknown(tallies, 'a time')}",
        ["Hour", "Found", "Likely", "All images"],
        [
            [hour, tallies.found[hour], tallies.likely[hour], tallies.every[hour]]
            for hour in range(24)
        ],
        {},
    )


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} %"


# --- Places ---------------------------------------------------------------------------------------


def _plot_places(tallies: Tallies, size: str) -> Plot | str:
    lack = _check_known(tallies, "where it was taken")
    if lack:
        return lack
    places = sorted(place for place in tallies.every if isinstance(place, tuple))
    degrees = np.array(places, np.float64)
    every = np.array([tallies.every[place] for place in places], np.int64)
    points = merge_places(degrees[:, 0], degrees[:, 1], every)
    rows: list[Cells] = []
    for point in range(int(points.max()) + 1):
        own = np.flatnonzero(points == point)
        north, east = np.average(degrees[own], axis=0, weights=every[own])
        rows.append(
            [
                *rounded(north, east),
                sum(tallies.found[places[place]] for place in own),
                sum(tallies.likely[places[place]] for place in own),
                int(every[own].sum()),
            ]
        )
    with_finds = sum(bool(row[2]) for row in rows)
    merged = (
        f" Places close together are one point: {spaced(len(places))} are shown as "
        f"{spaced(len(rows))}."
        if len(rows) < len(places)
        else ""
    )
    if size:
        merged += f" Places are rounded to {size} for you."
    return Plot(
        "places",
        "places",
        "Places",
        f"Found at {spaced(with_finds)} of {plural(len(rows), 'place')}. The larger a circle, the "
        f"more images.{merged}{_tell_unknown(tallies, 'a place')}",
        ["Latitude", "Longitude", "Found", "Likely", "All images"],
        rows,
        {},
    )


# --- Deployments ----------------------------------------------------------------------------------


def _plot_deployments(moment: Moment, tallies: Tallies) -> Plot | str:
    folders = [folder for folder in tallies.every if isinstance(folder, str)]
    by_record = may_folders_be_labels(moment.session, moment.search.collection_id)
    if by_record and not folders:
        return (
            "Folders are not compared: they have the names of this collection's known labels, or "
            "may have, and a search is never told them."
        )
    if len(folders) < 2:
        return "All images are of one deployment or in one folder: there are none to compare."
    order = sorted(
        folders,
        key=lambda name: (
            -tallies.found[name],
            -tallies.answered[name],
            -tallies.every[name],
            name,
        ),
    )
    with_finds = sum(bool(tallies.found[name]) for name in folders)
    cut = "" if len(order) <= MOST_DEPLOYMENTS else f" The first {MOST_DEPLOYMENTS} are listed."
    return Plot(
        "deployments",
        "deployments",
        "Deployments",
        f"Found in {spaced(with_finds)} of {spaced(len(folders))} deployments; where none is "
        f"recorded, the first folder of an image's path stands for it.{cut}",
        ["Deployment", "Found", "Answered", "Likely", "All images"],
        [
            [
                name,
                tallies.found[name],
                tallies.answered[name],
                tallies.likely[name],
                tallies.every[name],
            ]
            for name in order[:MOST_DEPLOYMENTS]
        ],
        {},
    )
