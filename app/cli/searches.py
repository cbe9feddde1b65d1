"""Commands of searches: exported, carried over whole, their heads applied, replayed on labels."""

import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import partial
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.terminal import console, explained, get_collection_called, opened, progress_of

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from app.evaluation import ReplaySettings
    from app.filtering import Filter
    from app.oracle import Oracle
    from app.tables import Collection

app = typer.Typer()
search_app = typer.Typer(help="Whole searches as files.", no_args_is_help=True)


@app.command()
def export(
    search: Annotated[str, typer.Argument(metavar="SEARCH", help="Its number or its name.")],
    file_format: Annotated[
        str,
        typer.Option(
            "--format",
            help="csv or jsonl for the answers; images.csv, images.jsonl, pictures.zip, "
            "camtrap-dp.zip, darwin-core.zip, coco.json, head.json.",
        ),
    ] = "csv",
    out: Annotated[Path | None, typer.Option(help="A file; standard output without it.")] = None,
) -> None:
    """Write a search as a table, an archive of the field's standards, pictures, or its head."""
    name = f"answers.{file_format}" if file_format in ("csv", "jsonl") else file_format
    write_export_file(search, name, out)


@search_app.command("export")
def search_export(
    search: Annotated[str, typer.Argument(metavar="SEARCH", help="Its number or its name.")],
    out: Annotated[Path, typer.Option(help="The file, best ending in .rarefind.")],
) -> None:
    """Write a whole search, every round and answer, into one file."""
    write_export_file(search, "search.rarefind", out)


@search_app.command("import")
def search_import(
    file: Annotated[Path, typer.Argument(help="What “search export” wrote.")],
    name: Annotated[
        str, typer.Argument(metavar="COLLECTION", help="With the same images; its name or number.")
    ],
) -> None:
    """Make a search of a file, in a collection that has the same images, and check its rounds."""
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
    head: Annotated[Path, typer.Argument(metavar="HEAD", help="The head.json of a search.")],
    name: Annotated[
        str, typer.Argument(metavar="COLLECTION", help="Of the same embedder; its name or number.")
    ],
    out: Annotated[Path | None, typer.Option(help="A file; standard output without it.")] = None,
) -> None:
    """Score every image of a collection with the head of another search; writes CSV."""
    from app.exports.heads import apply_head, read_head_file
    from app.indexing import OpenIndexes

    with opened() as (settings, database), database.session() as session:
        file = read_head_file(head.read_bytes())
        collection = get_collection_called(session, name)
        lines = apply_head(session, collection, file, OpenIndexes(settings, patience_s=inf))
        write_out((line.encode() for line in lines), out)


@app.command()
def replay(
    out: Annotated[Path, typer.Option(help="Folder for the results; resumed if it has some.")],
    collection: Annotated[
        str | None,
        typer.Argument(metavar="COLLECTION", help="One with known labels; its name or number."),
    ] = None,
    index: Annotated[
        Path | None, typer.Option(help="A bare index folder, in place of a collection.")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="CSV of file and label, one line for every image.")
    ] = None,
    group: Annotated[
        str | None,
        typer.Option(
            help="Column of --labels, or of a table of the collection: images that share it are an "
            "event, of which one is asked about, and are held out as a whole."
        ),
    ] = None,
    each_image: Annotated[
        bool,
        typer.Option("--each-image", help="Ask about each image all the same; for comparison."),
    ] = False,
    target: Annotated[
        list[str] | None, typer.Option(help="A label to look for; repeatable.")
    ] = None,
    targets_between: Annotated[
        tuple[int, int] | None,
        typer.Option(help="All labels with so many images; 10 200 without --target."),
    ] = None,
    strategy: Annotated[
        list[str] | None,
        typer.Option(help="Repeatable, or “all”; without it pf-ma and the usual one."),
    ] = None,
    rounds: Annotated[int, typer.Option(help="Rounds of each run.")] = 25,
    size: Annotated[int, typer.Option(help="Images a round.")] = 10,
    open_with: Annotated[int, typer.Option(help="Example images that open a run.")] = 1,
    seeds: Annotated[int, typer.Option(help="Runs of each target and strategy.")] = 3,
    oracle_error: Annotated[float, typer.Option(help="Chance of a wrong answer.")] = 0.0,
    oracle_unsure: Annotated[float, typer.Option(help="Chance of “unsure”.")] = 0.0,
    holdout: Annotated[
        float | None,
        typer.Option(help="Share of the images kept out of the search, to measure F1 on: 0.2."),
    ] = None,
    stop: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RULE[:GOAL]",
            help="A stop rule to try on the same rounds, such as score-sample:0.8; repeatable, or "
            "“all”.",
        ),
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="Look only at images that fit, such as month=12-2 or deployment=A3; repeatable.",
        ),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that play at a time.")] = 1,
    server: Annotated[
        str | None, typer.Option(help="Play through the API of this server, http://host:port.")
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(
            envvar="RAREFIND_TOKEN", help="For --server: what “rarefind token add” printed."
        ),
    ] = None,
) -> None:
    """Replay searches against known labels, to compare strategies; writes a report to --out."""
    if (collection is None) == (index is None):
        raise typer.BadParameter("Name a collection, or give the folder of an index with --index.")
    if index is not None and labels is None:
        raise typer.BadParameter("An index has no labels of its own. Give them with --labels.")
    if server is not None and (collection is None or labels is None or token is None):
        raise typer.BadParameter("With --server, give COLLECTION, --labels and --token too.")
    if (group or each_image) and server is not None:
        raise typer.BadParameter("A server's searches go by its own events: leave --group out.")
    if where and index is not None:
        raise typer.BadParameter("--where needs a collection: a bare index knows no more.")

    from app.evaluation import ReplaySettings, choose_stops, choose_strategies, choose_targets
    from app.oracle import read_oracle, read_oracle_of
    from app.replay_client import connect, read_oracle_on_server, run_replays_on_server
    from app.replay_report import find_thumbnails, write_report

    usual_holdout = 0.2 if server is None else 0.0  # a server's searches show every image

    def plan(oracle: "Oracle") -> ReplaySettings:
        return ReplaySettings(
            targets=choose_targets(oracle, target or (), targets_between),
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

    if server is not None and collection is not None and labels is not None and token is not None:
        with explained(), connect(server, token) as client:
            oracle, collection_id = read_oracle_on_server(
                client, collection, labels, where=where or ()
            )
            with progress_of("Replaying") as advance:
                run_replays_on_server(
                    client, collection_id, oracle, plan(oracle), out, progress=advance
                )
            report = write_report(out, names=oracle.name_of, find_pictures=lambda _: {})
    elif index is not None and labels is not None:
        with explained():
            oracle = read_oracle(index, labels, group=group)
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
                )
            play(oracle, folder, plan(oracle), out, workers)
            with database.session() as session:
                report = write_report(
                    out,
                    names=oracle.name_of,
                    find_pictures=partial(find_thumbnails, session, settings=settings),
                )
    console.print(f"Report: {report}", soft_wrap=True, highlight=False)


def write_export_file(called: str, name: str, out: Path | None) -> None:
    """Write one export of a search of the local person's."""
    from app.access import get_search_called
    from app.audit import note
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
