"""The report of a replay: curves, tables and filmstrips, on one page that needs nothing else.

The same parts (templates/_replay_parts.html) are shown in the browser and written to `report.html`,
where style sheet, script and pictures are put inside the file.
"""

import base64
import io
import json
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image as Pictures
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.database import PROJECT
from app.engine.numerals import in_percent, plural, spaced
from app.engine.stopping import get_stop_rule
from app.engine.strategies import get_strategy
from app.errors import NotFound
from app.evaluation import RIVAL, PlayedRun, ReplaySettings, read_replay, write_atomically
from app.importing import get_thumbnail
from app.replay_summary import (
    ALL,
    FEWEST_TARGETS,
    STOP_SUMMARY,
    SUMMARY,
    Figure,
    Interval,
    Measure,
    StopSummaryRow,
    SummaryRow,
    curve,
    interval,
    list_bands,
    list_measures,
    mean_by_target,
    summarise,
    summarise_stops,
    write_stop_summary,
    write_summary,
)
from app.settings import Settings
from app.tables import Image
from app.workers import Readers

REPORT = "report.html"
CURVES = {
    "coverage": ("Coverage", "Share of the target's visual variety that the finds span"),
    "recall": ("Recall", "Share of the target's images that were found"),
    "f1": ("F1", "How well the trained boundary separates yes from no"),
}
AT_END = "after the last round"  # of each, where two replays have not as many
NOT_GIVEN = f"not given: fewer than {FEWEST_TARGETS} targets"
AT_LEAST, AT_MOST = "≥\u202f", "≤\u202f"  # with a thin space
BAND_TITLES = {"all": "All targets", "head": "Head", "middle": "Middle", "tail": "Tail"}
WIDTH, HEIGHT = 236, 118  # of a curve's plot, in its own units
MOST_PICTURES = 6_000  # about 10 MB in the page; the images beyond keep their name
PICTURE_SIDE = 64  # pixels
PICTURE_QUALITY = 60
IMAGES_AT_A_TIME = 1_000
SMALL = 320  # pixels, of a collection's small renditions

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Line:
    """One curve in a panel: SVG paths of its mean and its interval, and where it ends."""

    mean: str
    shade: str
    end: float


@dataclass(frozen=True)
class Panel:
    """The curve of one strategy in front of another's."""

    strategy: str
    title: str
    line: Line
    behind: Line | None


@dataclass(frozen=True)
class Cell:
    """One figure of the table, as text; `verdict` is better, worse or nothing.

    Of too few targets, there is no verdict, `interval` is empty, and `difference_interval` says so.
    `reach` says in how many runs the recall was reached that a figure counts to, if not in all: the
    mean is then a lower bound, and says so.
    """

    mean: str
    interval: str
    difference: str
    difference_interval: str
    verdict: str
    reach: str = ""


@dataclass(frozen=True)
class StopLine:
    """A stop rule on the runs of one strategy, as text: each figure with its interval.

    `mostly_early`: in most of the runs in which it stopped, the goal was not reached.
    """

    strategy: str
    figures: list[tuple[str, str]]
    mostly_early: bool


@dataclass(frozen=True)
class StopBlock:
    """A stop rule: a line for each strategy with which it stopped, and the other strategies."""

    rule: str
    title: str
    kind: str
    goal: str
    lines: list[StopLine]
    never_with: list[str]


@dataclass(frozen=True)
class Shot:
    """One image of a filmstrip."""

    image_id: int
    value: str  # yes, no or unsure


@dataclass(frozen=True)
class Film:
    """One run, round by round."""

    target: str
    strategy: str
    seed: int
    opening: list[int]
    rounds: list[list[Shot]]
    recalls: list[float]


def write_report(
    out: Path,
    *,
    names: Mapping[int, str],
    find_pictures: Callable[[list[int]], Mapping[int, Path]],
) -> Path:
    """Sum up a finished replay: summary.csv, and report.html with all it shows inside.

    `find_pictures` gives a file for each image id it has a picture of; the others show their name.
    """
    manifest, runs = read_replay(out)
    settings = ReplaySettings(**manifest["settings"])
    write_summary(out / SUMMARY, summarise(runs, settings))
    if settings.stops:
        write_stop_summary(out / STOP_SUMMARY, summarise_stops(runs, settings))
    embedded = _embed(find_pictures(_choose_pictures(runs)))
    seen = {image_id for run in runs for shown in [run.opening, *run.shown] for image_id in shown}
    films = {
        "images": {
            image_id: [names.get(image_id, str(image_id)), embedded.get(image_id)]
            for image_id in sorted(seen)
        },
        "runs": [
            [
                run.target,
                run.strategy,
                run.seed,
                run.opening,
                run.shown,
                run.values,
                [round(row.recall, 3) for row in run.rows],
            ]
            for run in runs
        ],
    }
    static = PROJECT / "static"
    page = (
        _environment()
        .get_template("report.html")
        .render(
            **describe_report(manifest, runs),
            film=find_film(runs, None, None, None),
            names=names,
            embedded=embedded,
            # "<" could end the script element that holds the data.
            films=Markup(json.dumps(films, ensure_ascii=False).replace("<", "\\u003c")),  # noqa: S704  # nosec B704 # escaped, or files of ours
            style=Markup((static / "app.css").read_text() + (static / "replays.css").read_text()),  # noqa: S704  # nosec B704 # escaped, or files of ours
            script=Markup((static / "report.js").read_text()),  # noqa: S704  # nosec B704 # escaped, or files of ours
        )
    )
    write_atomically(out / REPORT, page)
    return out / REPORT


def find_thumbnails(
    session: Session, image_ids: list[int], *, settings: Settings
) -> dict[int, Path]:
    """The small renditions of images; those that are lost, or show people, are left out."""
    found = {}
    with Readers(settings) as readers:
        for start in range(0, len(image_ids), IMAGES_AT_A_TIME):
            some = image_ids[start : start + IMAGES_AT_A_TIME]
            seen = select(Image).where(Image.id.in_(some), Image.shows_people.is_not(True))
            for image in session.scalars(seen):
                with suppress(NotFound):
                    found[image.id] = get_thumbnail(
                        image, SMALL, settings=settings, readers=readers
                    )
    return found


def describe_report(manifest: dict[str, Any], runs: list[PlayedRun]) -> dict[str, Any]:
    """Everything but the filmstrips: facts, the table and the curves of each band."""
    settings = ReplaySettings(**manifest["settings"])
    measures = list_measures(runs, settings)
    chief = [one for one in measures if not one.further]
    further = [one for one in measures if one.further]
    summary = summarise(runs, settings)
    bands = list_bands(runs)
    if len(bands) == 2:  # all targets are of one band
        bands = bands[:1]
    strategies = sort_strategies(summary, settings)
    return {
        "manifest": manifest,
        "settings": settings,
        "run_count": len(runs),
        "rival": RIVAL if RIVAL in settings.strategies else None,
        "fewest_targets": FEWEST_TARGETS,
        "measures": chief,
        "further_measures": further,
        "titles": {name: get_strategy(name).title for name in strategies},
        "stops": describe_stops(summarise_stops(runs, settings)),
        "bands": [
            {
                "name": band,
                "title": BAND_TITLES[band],
                "targets": next(row.targets for row in summary if row.band == band),
                "few": _tell_few(
                    [row for row in summary if row.band == band], measures, with_differences=True
                ),
                "rows": _list_rows(summary, strategies, band, chief),
                "further_rows": _list_rows(summary, strategies, band, further),
                "charts": [
                    (title, meaning, draw_panels(runs, settings, strategies, band, column))
                    for column, (title, meaning) in CURVES.items()
                    if any(np.isfinite(getattr(run.rows[-1], column)) for run in runs)
                ],
            }
            for band in bands
        ],
    }


def compare_replays(
    left: tuple[dict[str, Any], list[PlayedRun]], right: tuple[dict[str, Any], list[PlayedRun]]
) -> dict[str, Any]:
    """Two replays side by side: what was set otherwise, figures, and curves of both.

    They are of the targets that both played, for others may be harder; of all if there are none.
    """
    sides = [(ReplaySettings(**manifest["settings"]), runs) for manifest, runs in (left, right)]
    targets = tuple(name for name in sides[0][0].targets if name in sides[1][0].targets)
    if targets:
        sides = [
            (replace(settings, targets=targets), [run for run in runs if run.target in targets])
            for settings, runs in sides
        ]
    left_settings, right_settings = (settings for settings, _ in sides)
    strategies = [s for s in left_settings.strategies if s in right_settings.strategies]
    kinds = [
        {_kind_of(measure, settings): measure for measure in list_measures(runs, settings)}
        for settings, runs in sides
    ]
    measures = [
        (one, kinds[1][kind])
        for kind, one in kinds[0].items()
        if kind in kinds[1] and not one.further
    ]
    summaries = [
        {row.strategy: row for row in summarise(runs, settings) if row.band == ALL}
        for settings, runs in sides
    ]
    return {
        "sides": [settings for settings, _ in sides],
        "targets": targets,
        "other_settings": _list_differences(left[0], right[0]),
        "strategies": strategies,
        "titles": {name: get_strategy(name).title for name in strategies},
        "measures": measures,
        "headings": [
            one.title if one.title == other.title else f"{one.title.split(' after ')[0]} {AT_END}"
            for one, other in measures
        ],
        "few": [
            _tell_few(
                [by_strategy[name] for name in strategies],
                [pair[side] for pair in measures],
                with_differences=False,
            )
            for side, by_strategy in enumerate(summaries)
        ],
        "figures": {
            name: [
                (
                    _describe_figure(summaries[0][name].figures[one.name], one),
                    _describe_figure(summaries[1][name].figures[other.name], other),
                )
                for one, other in measures
            ]
            for name in strategies
        },
        "charts": [
            (title, meaning, _draw_both(sides, strategies, column))
            for column, (title, meaning) in CURVES.items()
            if all(np.isfinite(getattr(runs[-1].rows[-1], column)) for _, runs in sides)
        ],
    }


def find_film(
    runs: list[PlayedRun], target: str | None, strategy: str | None, seed: int | None
) -> Film:
    """The run asked for, or the first that agrees with most of what was asked."""
    run = max(
        runs, key=lambda one: (one.target == target, one.strategy == strategy, one.seed == seed)
    )
    words = {"y": "yes", "n": "no", "u": "unsure"}
    return Film(
        run.target,
        run.strategy,
        run.seed,
        run.opening,
        [
            [Shot(image, words[value]) for image, value in zip(shown, values, strict=True)]
            for shown, values in zip(run.shown, run.values, strict=True)
        ],
        [row.recall for row in run.rows],
    )


def draw_panels(
    runs: list[PlayedRun], settings: ReplaySettings, strategies: list[str], band: str, column: str
) -> list[Panel]:
    """A panel for each strategy, with pf-ma behind."""
    lines = {
        name: draw_line(_list_intervals(runs, name, band, column, settings.rounds), settings.rounds)
        for name in strategies
    }
    behind = lines.get(RIVAL)
    return [
        Panel(name, get_strategy(name).title, line, None if name == RIVAL else behind)
        for name, line in lines.items()
    ]


def draw_line(intervals: list[Interval], rounds: int) -> Line:
    """SVG paths of a curve of shares, 0 at the foot of the plot and 1 at its top."""
    step = WIDTH / max(rounds - 1, 1)

    def path(places: list[tuple[float, float]]) -> str:
        return "M" + "L".join(f"{x:.1f} {HEIGHT * (1 - min(max(y, 0), 1)):.1f}" for x, y in places)

    known = [(n * step, one) for n, one in enumerate(intervals) if np.isfinite(one.mean)]
    sure = [(x, one) for x, one in known if np.isfinite(one.low)]
    if not known:
        return Line("", "", float("nan"))
    around = [(x, one.high) for x, one in sure] + [(x, one.low) for x, one in reversed(sure)]
    return Line(
        path([(x, one.mean) for x, one in known]),
        f"{path(around)}Z" if sure else "",
        known[-1][1].mean,
    )


def sort_strategies(summary: list[SummaryRow], settings: ReplaySettings) -> list[str]:
    """The strategy with the largest area under coverage (else recall) first."""
    rows = {row.strategy: row for row in summary if row.band == ALL}

    def rank(name: str) -> float:
        figures = rows[name].figures
        leading = figures.get("area") or figures[f"recall@{settings.rounds}"]
        return -leading.value.mean

    return sorted(settings.strategies, key=rank)


def _list_rows(
    summary: list[SummaryRow], strategies: list[str], band: str, measures: list[Measure]
) -> list[tuple[SummaryRow, list[Cell]]]:
    rows = {row.strategy: row for row in summary if row.band == band}

    def describe(name: str, one: Measure) -> Cell:
        rival = rows[RIVAL].figures[one.name] if RIVAL in rows else None
        return _describe_figure(rows[name].figures[one.name], one, rival)

    return [(rows[name], [describe(name, one) for one in measures]) for name in strategies]


def _tell_few(rows: list[SummaryRow], measures: list[Measure], *, with_differences: bool) -> str:
    """Why figures of a table have no interval, in words; empty if all have one."""
    if rows and rows[0].targets < FEWEST_TARGETS:
        count = plural(rows[0].targets, "target")
        return (
            f"Only {count}: too few to say how sure a mean is, or which strategy is better. So the "
            f"means stand alone. Play at least {FEWEST_TARGETS} targets to see more."
        )
    figures = [row.figures[measure.name] for row in rows for measure in measures]
    shown = [figure.value for figure in figures]
    if with_differences:
        shown += [figure.difference for figure in figures if figure.difference]
    if any(np.isfinite(one.mean) and np.isnan(one.low) for one in shown):
        return (
            f"Figures without an interval come from fewer than {FEWEST_TARGETS} targets: too few "
            "to say how sure the mean is, or which strategy is better."
        )
    return ""


def describe_stops(summary: list[StopSummaryRow]) -> list[StopBlock]:
    """A block for each stop rule; those that stopped in no run at all come last."""
    blocks = []
    for name in dict.fromkeys(row.rule for row in summary):
        rule = get_stop_rule(name)
        own = [row for row in summary if row.rule == name]
        goal = own[0].goal
        wanted = {
            "recall": f"{100 * goal:.0f} % of what is there",
            "coverage": f"a coverage of {100 * goal:.0f} %",
            "positives": f"{goal:.0f} images",
        }
        blocks.append(
            StopBlock(
                name,
                rule.title,
                rule.kind,
                wanted[rule.aim],
                [_describe_stop(row) for row in own if row.stopped.mean > 0],
                [row.strategy for row in own if not row.stopped.mean > 0],
            )
        )
    return sorted(blocks, key=lambda block: not block.lines)


def _describe_stop(row: StopSummaryRow) -> StopLine:
    figures = [(one, "{:.2f}") for one in (row.stopped, row.reached, row.recall)]
    figures += [(one, "{:.0f}") for one in (row.answers, row.beyond)]
    return StopLine(
        row.strategy,
        [(_put(one.mean, form), _put_range(one, form)) for one, form in figures],
        row.reached.mean < 0.5,
    )


def _put(number: float, form: str) -> str:
    return "–" if np.isnan(number) else form.format(number).replace("-", "\u2212")


def _put_range(one: Interval, form: str) -> str:
    return "" if np.isnan(one.low) else f"{_put(one.low, form)} to {_put(one.high, form)}"


def _describe_figure(figure: Figure, measure: Measure, rival: Figure | None = None) -> Cell:
    value = figure.value
    reach = ""
    if figure.runs_there is not None and figure.is_lower_bound:
        there, of = figure.runs_there
        reach = f"reached in {there} of {plural(of, 'run')}"
    cell = Cell(
        mean=(AT_LEAST if reach else "") + _write(value.mean, measure),
        interval="" if figure.never_there else _write_range(value, measure),
        difference="",
        difference_interval="",
        verdict="",
        reach=reach,
    )
    difference = figure.difference
    # Where neither ever got there, both count one budget: that is no difference.
    if difference is None or (rival and rival.never_there and figure.never_there):
        return cell
    own_open, rival_open = figure.is_lower_bound, bool(rival and rival.is_lower_bound)
    sign = "" if own_open == rival_open else AT_LEAST if own_open else AT_MOST
    verdict = ""
    if figure.beyond_chance:
        verdict = "better" if (difference.mean > 0) == measure.more_is_better else "worse"
    return replace(
        cell,
        difference=sign + _write(difference.mean, measure, signed=True),
        difference_interval=_write_range(difference, measure, signed=True) or NOT_GIVEN,
        verdict=verdict,
    )


def _write(number: float, measure: Measure, *, signed: bool = False) -> str:
    return _put(number, _form(measure, signed=signed))


def _write_range(one: Interval, measure: Measure, *, signed: bool = False) -> str:
    return _put_range(one, _form(measure, signed=signed))


def _form(measure: Measure, *, signed: bool) -> str:
    return f"{{:{'+' if signed else ''}.{measure.digits}f}}"


def _list_intervals(
    runs: list[PlayedRun], strategy: str, band: str, column: str, rounds: int
) -> list[Interval]:
    own = [r for r in runs if r.strategy == strategy and band in (ALL, r.rows[0].band)]
    targets = list(dict.fromkeys(run.target for run in own))

    def after(number: int) -> Interval:
        def of_run(run: PlayedRun) -> float:
            return float(curve(run, column, number)[-1])

        return interval(mean_by_target(own, strategy, targets, of_run))

    return [after(number) for number in range(1, rounds + 1)]


def _draw_both(
    sides: list[tuple[ReplaySettings, list[PlayedRun]]], strategies: list[str], column: str
) -> list[Panel]:
    rounds = max(settings.rounds for settings, _ in sides)
    panels = []
    for name in strategies:
        behind, front = (
            draw_line(_list_intervals(runs, name, ALL, column, settings.rounds), rounds)
            for settings, runs in sides
        )
        panels.append(Panel(name, get_strategy(name).title, front, behind))
    return panels


def _kind_of(measure: Measure, settings: ReplaySettings) -> tuple[str, bool]:
    """What is measured, and whether after the last round, however many these are."""
    name, _, after = measure.name.partition("@")
    return name, after == str(settings.rounds)


def _list_differences(
    left: dict[str, Any], right: dict[str, Any]
) -> list[tuple[str, object, object]]:
    pairs = [(name, value, right["settings"][name]) for name, value in left["settings"].items()]
    pairs.append(("engine", left["engine_sha256"][:8], right["engine_sha256"][:8]))
    pairs.append(("labels", left["oracle_sha256"][:8], right["oracle_sha256"][:8]))
    own, others = ((m.get("groups_sha256") or "none")[:8] for m in (left, right))
    pairs.append(("events", own, others))
    pairs.append(("index", _tell_index(left), _tell_index(right)))

    def tell(value: object) -> object:
        return ", ".join(value) if isinstance(value, list) else value

    return [
        (name.replace("_", " "), tell(one), tell(other))
        for name, one, other in pairs
        if one != other
    ]


def _tell_index(manifest: dict[str, Any]) -> str:
    index = manifest["index"]
    if index is None:
        return "the server's"
    return f"{plural(index['count'], 'image')} ({index['vectors_sha256'][:8]})"


def _choose_pictures(runs: list[PlayedRun]) -> list[int]:
    """The images that get a picture: finds and examples first, then what was shown most."""
    times: Counter[int] = Counter()
    for run in runs:
        times.update(dict.fromkeys(run.opening, 1_000))
        for shown, values in zip(run.shown, run.values, strict=True):
            for image_id, value in zip(shown, values, strict=True):
                times[image_id] += 1_000 if value == "y" else 1
    return [image_id for image_id, _ in times.most_common(MOST_PICTURES)]


def _embed(files: Mapping[int, Path]) -> dict[int, str]:
    """Small pictures as data: addresses."""
    embedded = {}
    for image_id, file in files.items():
        with Pictures.open(file) as picture:
            small = picture.convert("RGB")
        small.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
        data = io.BytesIO()
        small.save(data, "JPEG", quality=PICTURE_QUALITY)
        embedded[image_id] = f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"
    return embedded


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(PROJECT / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=spaced, plural=plural, in_percent=in_percent)
    return environment
