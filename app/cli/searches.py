"""Commands of searches: exported, carried over whole, their heads applied, replayed on labels."""

import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from app.cli.terminal import (
    Commands,
    console,
    explained,
    get_collection_called,
    make_printable,
    number_between,
    opened,
    progress_of,
    whole_number,
)

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from app.evaluation import ReplaySettings
    from app.filtering import Filter
    from app.oracle import Oracle
    from app.tables import Collection

# What a search can be had as, named as in app/exports/offers.py, which takes too long to import
# only to say that a format was mistyped.
EXPORTS = (
    "answers.csv",
    "answers.jsonl",
    "images.csv",
    "images.jsonl",
    "pictures.zip",
    "camtrap-dp.zip",
    "darwin-core.zip",
    "coco.json",
    "head.json",
    "search.rarefind",
)
MOST_HELD_OUT = 0.9  # as in app/evaluation.py, for the same reason
CalledSearch = Annotated[str, typer.Argument(metavar="SEARCH", help="Its name or number.")]
Out = Annotated[
    Path | None, typer.Option(metavar="FILE", help="File to write; without it, it is printed.")
]
NOTHING: Mapping[str, str] = {}
app = Commands()
search_app = Commands(help="Whole searches as files.", no_args_is_help=True)


@app.command()
def export(
    search: CalledSearch,
    file_format: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="csv or jsonl for the answers; else images.csv, images.jsonl, coco.json, "
            "head.json, pictures.zip, camtrap-dp.zip or darwin-core.zip.",
        ),
    ] = "csv",
    out: Out = None,
    scientific_name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Of the target, for Darwin Core and Camtrap DP."),
    ] = None,
    utc_offset: Annotated[
        str | None,
        typer.Option(
            metavar="OFFSET",
            help="How far the cameras' clocks are from UTC, such as +02:00, for Camtrap DP.",
        ),
    ] = None,
    capture: Annotated[
        str | None,
        typer.Option(
            metavar="WHEN",
            help="When the cameras took pictures, for Camtrap DP: activityDetection, timeLapse or "
            "both.",
        ),
    ] = None,
    design: Annotated[
        str | None,
        typer.Option(
            metavar="HOW",
            help="How their places were chosen, for Camtrap DP: simpleRandom, systematicRandom, "
            "clusteredRandom, experimental, targeted or opportunistic.",
        ),
    ] = None,
    rights_holder: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Who holds the rights, for the formats that say so."),
    ] = None,
    licence: Annotated[
        str | None,
        typer.Option(metavar="LICENCE", help="One of CC0-1.0, CC-BY-4.0 and CC-BY-NC-4.0."),
    ] = None,
) -> None:
    """Write what a search found, in one of several formats.

    They are tables, pictures, archives for other programs, and what the search has learnt:
    docs/exports.md describes each. What formats need and only people know is given once: it is kept
    with the search, as on its page of exports.
    """
    given = {
        "scientific_name": scientific_name,
        "utc_offset": utc_offset,
        "capture": capture,
        "design": design,
        "rights_holder": rights_holder,
        "licence": licence,
    }
    name = f"answers.{file_format}" if file_format in ("csv", "jsonl") else file_format
    if name not in EXPORTS:
        there_are = ", ".join(one.removeprefix("answers.") for one in EXPORTS)
        raise typer.BadParameter(
            f"There is no format “{file_format}”. There are: {there_are}.",
            param_hint="'--format'",
        )
    write_export_file(
        search, name, out, {key: said for key, said in given.items() if said is not None}
    )


@search_app.command("export")
def search_export(
    search: CalledSearch,
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="File to write, best with the ending .rarefind.")
    ],
) -> None:
    """Write a whole search, every round and answer, into a file."""
    write_export_file(search, "search.rarefind", out)


@search_app.command("import")
def search_import(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="What “rarefind search export” wrote.")
    ],
    name: Annotated[
        str,
        typer.Argument(metavar="COLLECTION", help="Name or number of one with the same images."),
    ],
) -> None:
    """Go on with a search that was written into a file.

    Its rounds are proposed again, to say whether they come out with the same images.
    """
    from app.audit import note
    from app.exports.bundles import import_search, repeat_rounds
    from app.indexing import OpenIndexes
    from app.security import get_local_person
    from app.workers import Readers

    with opened() as (settings, database):
        data = file.read_bytes()
        indexes = OpenIndexes(settings, patience_s=inf)
        with Readers(settings) as readers, database.session() as session:
            person = get_local_person(session)
            search = import_search(
                session,
                person,
                get_collection_called(session, name),
                data,
                indexes=indexes,
                settings=settings,
                now=datetime.now(UTC),
                readers=readers,
            )
            what = f"Imported the search “{search.target_name}”"
            note(session, person, "import", what, search=search)
        with database.session() as session:
            repeated = repeat_rounds(session, search, indexes, at_most=sys.maxsize)
    console.print(
        f"Imported “{search.target_name}” as search {search.id}. Of its {repeated.total:,} rounds "
        f"{repeated.same:,} come out with the same images when they are proposed again.",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


@app.command("apply")
def apply(
    head: Annotated[
        Path,
        typer.Argument(
            metavar="HEAD.json", help="What “rarefind export SEARCH --format head.json” wrote."
        ),
    ],
    name: Annotated[
        str,
        typer.Argument(
            metavar="COLLECTION", help="Name or number of one that is prepared with the same model."
        ),
    ],
    out: Out = None,
) -> None:
    """Score a collection's images with what a search has learnt.

    The scores are a CSV table, the likeliest image first.
    """
    from app.exports.heads import apply_head, read_head_file
    from app.indexing import OpenIndexes

    with opened() as (settings, database), database.session() as session:
        file = read_head_file(head.read_bytes())
        collection = get_collection_called(session, name)
        lines = apply_head(session, collection, file, OpenIndexes(settings, patience_s=inf))
        write_out((line.encode() for line in lines), out)


def check_order(between: tuple[int, int] | None) -> tuple[int, int] | None:
    """Refuse a range that ends before it begins."""
    if between is not None and between[0] > between[1]:
        raise typer.BadParameter(f"Give the smaller number first: {between[1]} {between[0]}.")
    return between


def check_url(url: str | None) -> str | None:
    """Refuse what is no address of a server."""
    if url is not None and not url.startswith(("http://", "https://")):
        raise typer.BadParameter(f"Give an address such as http://host:8321, not “{url}”.")
    return url


def _check_source(
    collection: str | None,
    index: Path | None,
    labels: Path | None,
    token: str | None,
    server: str | None,
    where: list[str] | None,
) -> None:
    """Refuse options that name no one source of images and labels."""
    if (collection is None) == (index is None):
        raise typer.BadParameter("Name a collection, or give the folder of an index with --index.")
    if index is not None and labels is None:
        raise typer.BadParameter("An index has no labels of its own. Give them with --labels.")
    if server is not None and (collection is None or labels is None or token is None):
        raise typer.BadParameter("With --server, give COLLECTION, --labels and --token too.")
    if where and index is not None:
        raise typer.BadParameter("--where needs a collection: a bare index knows no more.")


@app.command()
def replay(
    collection: Annotated[
        str | None,
        typer.Argument(metavar="COLLECTION", help="Name or number of one with known labels."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Folder for the results; one that has some is gone on with."
        ),
    ] = None,
    list_targets: Annotated[
        bool,
        typer.Option(
            "--list-targets",
            help="List the labels and how many images each has, in place of a replay.",
        ),
    ] = False,
    index: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder that “rarefind index from-vectors” made, in place of COLLECTION.",
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="CSV table of file and label, with a line for every image; without it what the "
            "collection knows.",
        ),
    ] = None,
    group: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="Images with the same text in this column, of --labels or of a table of the "
            "collection, are one event.",
        ),
    ] = None,
    each_image: Annotated[
        bool,
        typer.Option("--each-image", help="Ask about each image of an event, for comparison."),
    ] = False,
    target: Annotated[
        list[str] | None,
        typer.Option(metavar="LABEL", help="A label to look for; may be given several times."),
    ] = None,
    targets_between: Annotated[
        tuple[int, int] | None,
        typer.Option(
            metavar="FEWEST MOST",
            parser=whole_number(1),
            callback=check_order,
            help="Look for every label with so many images; without it and --target from 10 to "
            "200.",
        ),
    ] = None,
    strategy: Annotated[
        list[str] | None,
        typer.Option(
            metavar="STRATEGY",
            help="A way to choose images, or “all”; may be given several times; without it pf-ma "
            "and rarefind.",
        ),
    ] = None,
    rounds: Annotated[
        int, typer.Option(metavar="N", parser=whole_number(1), help="Rounds of each run.")
    ] = 25,
    size: Annotated[
        int, typer.Option(metavar="N", parser=whole_number(1), help="Images of each round.")
    ] = 10,
    open_with: Annotated[
        int,
        typer.Option(
            metavar="N", parser=whole_number(1), help="Example images that open each run."
        ),
    ] = 1,
    seeds: Annotated[
        int,
        typer.Option(
            metavar="N", parser=whole_number(1), help="Runs of each label with each strategy."
        ),
    ] = 3,
    oracle_error: Annotated[
        float,
        typer.Option(
            metavar="SHARE",
            parser=number_between(0, 1),
            help="Share of the answers that are wrong.",
        ),
    ] = 0.0,
    oracle_unsure: Annotated[
        float,
        typer.Option(
            metavar="SHARE",
            parser=number_between(0, 1),
            help="Share of the answers that are “unsure”.",
        ),
    ] = 0.0,
    holdout: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            parser=number_between(0, MOST_HELD_OUT),
            help="Share of the images that is never shown, to test on them what was learnt; "
            "without it 0.2, with --server none.",
        ),
    ] = None,
    stop: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RULE[:GOAL]",
            help="A rule of when to stop, tried on the same rounds, such as score-sample:0.8, or "
            "“all”; may be given several times.",
        ),
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="Look only at images that fit, such as month=12-2 or deployment=A3; may be given "
            "several times.",
        ),
    ] = None,
    workers: Annotated[
        int,
        typer.Option(
            metavar="N", parser=whole_number(1), help="Runs that are played at the same time."
        ),
    ] = 1,
    server: Annotated[
        str | None,
        typer.Option(
            metavar="URL", callback=check_url, help="Play on this server, such as http://host:8321."
        ),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(
            metavar="TOKEN",
            envvar="RAREFIND_TOKEN",
            help="For --server, what “rarefind token add” printed.",
        ),
    ] = None,
) -> None:
    """Replay searches against known labels, to compare strategies.

    Ends with a report in the folder of --out; docs/evaluation.md explains it.
    """
    if (out is None) != list_targets:
        raise typer.BadParameter("Give a folder for the results with --out, or --list-targets.")
    if target and targets_between:
        raise typer.BadParameter("Give either --target or --targets-between, not both.")
    _check_source(collection, index, labels, token, server, where)
    if (group or each_image) and server is not None:
        raise typer.BadParameter("A server's searches go by its own events: leave --group out.")

    from app.evaluation import (
        ReplaySettings,
        check_out,
        check_plan,
        choose_stops,
        choose_strategies,
        choose_targets,
        find_begun_vectors,
    )
    from app.oracle import read_oracle, read_oracle_of
    from app.replay_client import connect, read_oracle_on_server, run_replays_on_server
    from app.replay_report import find_thumbnails, write_report

    usual_holdout = 0.2 if server is None else 0.0  # a server's searches show every image

    wanted = ReplaySettings(
        targets=tuple(dict.fromkeys(target or ())),
        strategies=choose_strategies(strategy or ()),
        rounds=rounds,
        size=size,
        open_with=open_with,
        seeds=seeds,
        oracle_error=oracle_error,
        oracle_unsure=oracle_unsure,
        holdout=usual_holdout if holdout is None else holdout,
        stops=choose_stops(stop or ()),
        where=tuple(where or ()),
        each_image=each_image,
    )
    with explained():  # what is wrong with these would else be told after what is with the labels
        check_plan(wanted, is_grouped=group is not None, has_targets=bool(target))
        if out is not None:
            check_out(out)

    def plan(oracle: "Oracle") -> ReplaySettings:
        return replace(wanted, targets=choose_targets(oracle, target or (), targets_between))

    if server is not None and collection is not None and labels is not None and token is not None:
        with explained(), connect(server, token) as client:
            oracle, collection_id = read_oracle_on_server(
                client, collection, labels, where=where or ()
            )
            if out is None:
                return print_targets(oracle)
            with progress_of("Replaying") as advance:
                run_replays_on_server(
                    client, collection_id, oracle, plan(oracle), out, progress=advance
                )
            report = write_report(out, names=oracle.name_of, find_pictures=lambda _: {})
    elif index is not None and labels is not None:
        with explained():
            oracle = read_oracle(index, labels, group=group)
            if out is None:
                return print_targets(oracle)
            play(oracle, index, plan(oracle), out, workers)
            report = write_report(out, names=oracle.name_of, find_pictures=lambda _: {})
    else:
        with opened() as (settings, database):
            with database.session() as session:
                found = get_collection_called(session, collection or "")
                oracle, folder = read_oracle_of(
                    session,
                    found,
                    settings=settings,
                    labels=labels,
                    group=group,
                    chosen=read_where(session, found, where or []),
                    vectors_sha256=None if out is None else find_begun_vectors(out),
                )
            if out is None:
                return print_targets(oracle)
            play(oracle, folder, plan(oracle), out, workers)
            with database.session() as session:
                report = write_report(
                    out,
                    names=oracle.name_of,
                    find_pictures=partial(find_thumbnails, session, settings=settings),
                )
    console.print(f"Report: {report}", soft_wrap=True, highlight=False)
    return None


def print_targets(oracle: "Oracle") -> None:
    """Every label with the number of its images, the rarest first."""
    table = Table("images", "label", box=None, pad_edge=False)
    table.columns[0].justify = "right"
    table.columns[1].overflow = "fold"
    for name, rows in sorted(oracle.rows_of.items(), key=lambda one: len(one[1])):
        table.add_row(f"{len(rows):,}", escape(make_printable(name)))
    console.print(table, highlight=False)


def write_export_file(
    called: str, name: str, out: Path | None, given: Mapping[str, str] = NOTHING
) -> None:
    """Write one export of a search of the local person's; what is `given` is kept with it."""
    from dataclasses import asdict

    from app.access import get_search_called
    from app.audit import note
    from app.errors import BadInput, DetailsMissing
    from app.exports.details import read_details, save_details
    from app.exports.offers import write_file
    from app.indexing import OpenIndexes
    from app.security import get_local_person
    from app.workers import Readers

    with (
        opened() as (settings, database),
        Readers(settings) as readers,
        database.session() as session,
    ):
        person = get_local_person(session)
        search = get_search_called(session, person, called)
        if given:
            save_details(session, search, {**asdict(read_details(search)), **given})
        try:
            content = write_file(
                session,
                search,
                name,
                indexes=OpenIndexes(settings, patience_s=inf),
                settings=settings,
                now=datetime.now(UTC),
                person=person,
                readers=readers,
            )
        except DetailsMissing as error:
            options = ", ".join(f"--{one.replace('_', '-')}" for one in error.wanted)
            raise BadInput(f"{error} Here give {options}.") from error
        note(session, person, "export", f"Exported “{search.target_name}” as {name}", search=search)
        write_out(content, out)


def write_out(content: Iterable[bytes], out: Path | None) -> None:
    """Write bytes into a file, or to standard output."""
    if out is None:
        sys.stdout.buffer.writelines(content)
        sys.stdout.buffer.flush()
    else:
        with out.open("wb") as file:
            file.writelines(content)


def play(oracle: "Oracle", folder: Path, plan: "ReplaySettings", out: Path, workers: int) -> None:
    """Play a replay with a progress bar."""
    from app.evaluation import run_replays

    with progress_of("Replaying") as advance:
        run_replays(oracle, folder, plan, out, workers=workers, progress=advance)


def read_where(session: "Session", collection: "Collection", where: list[str]) -> "Filter":
    """The filter that KEY=VALUE options say."""
    from app.filtering import read_filter, split_pairs
    from app.security import get_local_person

    return read_filter(session, collection.id, split_pairs(where), person=get_local_person(session))
