"""The `rarefind` command: parses, calls one verb, prints."""

import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from math import inf
from pathlib import Path
from threading import Event, Timer
from typing import Annotated
from urllib.parse import urlsplit

import psutil
import typer
import uvicorn
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app.access import get_search_called
from app.accounts import (
    add_person,
    change_role,
    end_token,
    get_person_named,
    list_accounts,
    make_token,
    reset_password,
)
from app.audit import note
from app.backing_up import Manifest, back_up, restore_backup
from app.chores import CHORES
from app.collecting import list_collections
from app.database import Database, check_connections, open_database
from app.demo.showing import prepare_demo, replay_demo
from app.detecting import USUAL_THRESHOLD, add_detections, is_detections
from app.embedders import EmbedderChoice, list_embedders
from app.errors import BadInput, DatabaseNotUsable, NoIndexYet, NotFound, RarefindError
from app.evaluation import (
    ReplaySettings,
    choose_stops,
    choose_strategies,
    choose_targets,
    run_replays,
)
from app.events import describe_grouping, group_images, make_rule
from app.examining import examine
from app.exports.bundles import import_search, repeat_rounds
from app.exports.heads import apply_head, read_head_file
from app.exports.offers import write_file
from app.filling import fill_store
from app.filtering import Filter, read_filter, split_pairs
from app.importing import (
    ImportSummary,
    find_collection,
    get_or_add_collection,
    import_images,
)
from app.indexes import list_wanted, name_with_boxes, update_indexes
from app.indexing import (
    DEFAULT_EMBEDDER,
    OpenIndexes,
    build_index,
    combine_indexes,
    fetch_embedder,
)
from app.jobs import Worker, calling_for_help
from app.limiting import BoundedHead
from app.logs import start_logging
from app.main import create_app
from app.metadata import add_table
from app.open_sets import bring_set, find_set
from app.oracle import Oracle, index_vectors, read_oracle, read_oracle_of
from app.processes import Processes, end_with, tell_ready
from app.removing import describe_removal, find_listed, put_back_images, remove_images
from app.replay_client import connect, read_oracle_on_server, run_replays_on_server
from app.replay_report import find_thumbnails, write_report
from app.searchers import choose_vectors
from app.security import get_local_person, issue_sign_in_link, list_tokens
from app.settings import Settings
from app.sources import check_source
from app.store import say_store
from app.sweeping import Swept, sweep
from app.tables import Collection, Person
from app.workers import Readers

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
collection_app = typer.Typer(help="Collections of images.", no_args_is_help=True)
app.add_typer(collection_app, name="collection")
Vectors = Annotated[
    str | None,
    typer.Option(
        metavar="faiss|milvus:URL",
        help="What searches the collection's next index: faiss on this machine, milvus:lite in the "
        "data folder, or a cluster such as milvus:http://host:19530. Without it, as before.",
    ),
]
search_app = typer.Typer(help="Whole searches as files.", no_args_is_help=True)
app.add_typer(search_app, name="search")
index_app = typer.Typer(help="Indexes of vectors.", no_args_is_help=True)
app.add_typer(index_app, name="index")
user_app = typer.Typer(help="People and their accounts.", no_args_is_help=True)
app.add_typer(user_app, name="user")
token_app = typer.Typer(help="Tokens for programs that use the JSON API.", no_args_is_help=True)
app.add_typer(token_app, name="token")
console = Console()
errors = Console(stderr=True)
# A connection stays open between requests: longer than people look at a grid, so that they need
# not connect anew for each.
IDLE_S = 20
ADDRESS_FILE = "address.txt"  # where the last server listened, for `rarefind link`


def show_version(is_asked: bool) -> None:
    """Print the version and end."""
    if is_asked:
        console.print(f"rarefind {version('rarefind')}", highlight=False)
        raise typer.Exit


@app.callback()
def main(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=show_version, is_eager=True, help="Say which it is."),
    ] = False,
) -> None:
    """Find every image of one rare species in a large, unlabelled photo collection."""
    # A worker process begins by importing the main program's file, which here brings the whole web
    # server along: 1.5 core-seconds each. Without a file it imports only what it works with.
    sys.modules["__main__"].__dict__.pop("__file__", None)


class AddressNotFree(RarefindError):
    """Something else listens there."""

    title = "The server can't start"


class SettingsNotUsable(RarefindError):
    """A setting, or the environment variable behind it, has a value that can't be used."""

    title = "A setting can't be used"


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 takes a free one.")] = None,
    processes: Annotated[
        int | None, typer.Option(help="Processes on that port: as many as there are cores.")
    ] = None,
    no_worker: Annotated[
        bool, typer.Option("--no-worker", help="Leave long work to “rarefind worker”.")
    ] = False,
) -> None:
    """Open the server and print a link that signs you in."""
    with explained():
        run_jobs = False if no_worker else None
        settings = read_settings(host=host, port=port, processes=processes, run_jobs=run_jobs)
        run_server(settings)


@app.command(hidden=True)
def serve_part(
    listening: int, lifeline: int, tell: Annotated[int | None, typer.Argument()] = None
) -> None:
    """One process of a server of several: “serve” starts it."""
    with explained():
        settings = read_settings()
        start_logging(settings)
        end_with(lifeline)
        taken = socket.socket(fileno=listening)
        serve_on(taken, settings, announce=lambda _: tell_ready(tell), say_stopping=False)


@app.command()
def worker() -> None:
    """Do long work (imports, indexes, replays) beside the server, until Ctrl-C.

    Several may run, on any machine that shares the database and the data folder.
    """
    with opened() as (settings, database):
        stopping = Event()
        start_logging(settings)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stopping.set())
        working = Worker(database, settings, CHORES)
        working.start()
        console.print("Waiting for work. Stop with Ctrl-C.", highlight=False)
        stopping.wait()
        console.print("Stopping; what is under way is handed on.", highlight=False)
        end_within(settings.stop_s)
        working.close(wait_s=settings.stop_s / 2)


@app.command()
def link() -> None:
    """Print a new one-time sign-in link for the server that runs."""
    with opened() as (settings, database), database.session() as session:
        address = read_address(settings)
        if not answers(address):
            errors.print(
                f"No server answers at {address} now. Start one with “rarefind serve”; "
                "this link works once it runs.",
                style="yellow",
                highlight=False,
                soft_wrap=True,
            )
        url = issue_sign_in_link(
            session, get_local_person(session), base_url=link_url(settings), settings=settings
        )
    console.print(url, soft_wrap=True, highlight=False)


@app.command()
def demo(
    images: Annotated[
        Path | None, typer.Option(help="Your own photos, a folder or zip, instead of drawn ones.")
    ] = None,
    replay: Annotated[
        bool, typer.Option("--replay", help="Run the whole job without a browser and print it.")
    ] = False,
    port: Annotated[int | None, typer.Option(help="Port; 0 takes a free one.")] = None,
) -> None:
    """Prepare a collection to try Rarefind on, and open the server on it."""
    with explained():
        settings = read_settings(port=port)
        if replay:
            replay_demo(settings, images=images, console=console, progress_of=progress_of)
            return
        prepare_demo(settings, images=images, console=console, progress_of=progress_of)
        run_server(settings)


@collection_app.command("add")
def collection_add(
    name: Annotated[str, typer.Argument(help="Its name; an existing one gets what is new.")],
    source: Annotated[
        str | None,
        typer.Argument(
            help="A folder, searched through, a .zip, or torchvision:SET, a labelled set such as "
            "torchvision:OxfordIIITPet, which may also stand alone."
        ),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            help="Known labels for evaluators: 'folders', a CSV of file and label, or a COCO JSON."
        ),
    ] = None,
    embedder: Annotated[
        str | None,
        typer.Option(
            help="The model that makes images comparable; without it those the collection has, "
            f"or {DEFAULT_EMBEDDER} for a new one."
        ),
    ] = None,
    copy: Annotated[bool, typer.Option("--copy", help="Copy originals to the data folder")] = False,
    vectors: Vectors = None,
) -> None:
    """Import images into a collection and prepare it for searching."""
    with opened() as (settings, database):
        name, folder, labels = find_source(name, source, labels, settings)
        check_source(folder, settings, labels)  # before a collection is made for it
        if embedder is not None:
            fetch_embedder(embedder, settings)
        with database.session() as session:
            person = get_local_person(session)
            collection = get_or_add_collection(session, name, source=folder, person=person)
            what = f"Began to add images to “{collection.name}” from {folder}"
            note(session, person, "import", what)
            collection_id = collection.id
            if vectors is not None:
                choose_vectors(session, collection_id, vectors, settings)
            first = list_wanted(session, collection_id, embedder=embedder)[0]
        with progress_of("Importing") as advance:
            summary = import_images(
                database,
                collection_id,
                folder,
                settings=settings,
                copy=copy,
                labels=labels,
                embedder=first,
                progress=lambda done: advance(done.done_count, done.found_count),
            )
        print_summary(summary)
        if summary.imported or summary.known:
            with progress_of("Preparing") as advance, calling_for_help(database) as call_for_help:
                update_indexes(
                    database,
                    collection_id,
                    settings=settings,
                    embedder=embedder,
                    progress=advance,
                    call_for_help=call_for_help,
                )
        if not summary.imported:
            raise typer.Exit(1)


def find_source(
    name: str, source: str | None, labels: str | None, settings: Settings
) -> tuple[str, Path, str | None]:
    """The collection's name, the folder or zip to import, and its labels; a set is fetched."""
    open_set = find_set(source if source is not None else name)
    if open_set is None:
        if source is None:
            raise typer.BadParameter("Give a folder, a .zip or torchvision:SET after the name.")
        return name, Path(source), labels
    if labels is not None:
        raise typer.BadParameter("The set brings its own labels: leave --labels out.")
    with progress_of("Laying out") as advance:
        ready = bring_set(open_set, settings, progress=advance)
    return open_set if source is None else name, ready.folder, str(ready.labels)


@collection_app.command("metadata")
def collection_metadata(
    name: Annotated[str, typer.Argument(metavar="COLLECTION", help="Its name.")],
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="CSV with a row an image: file or sha256, and more; or MegaDetector's JSON.",
        ),
    ],
    threshold: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="Of MegaDetector: boxes that are less certain count as none."
        ),
    ] = USUAL_THRESHOLD,
) -> None:
    """Keep what a table or MegaDetector says of the images, to see, filter and export."""
    with opened() as (settings, database):
        data = file.expanduser().read_bytes()
        with database.session() as session:
            collection_id = get_collection_named(session, name).id
            person = get_local_person(session)
            if is_detections(file.name, data):
                summary = add_detections(
                    session,
                    collection_id,
                    name=file.name,
                    data=data,
                    threshold=threshold,
                    person=person,
                )
            else:
                summary = add_table(
                    session, collection_id, name=file.name, data=data, person=person
                )
        if is_detections(file.name, data):
            bring_indexes_up_to_date(database, collection_id, settings)
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    table.add_row("rows", f"{summary.rows:,}")
    table.add_row("images with a row", f"{summary.images:,}")
    table.add_row("images without any row", f"{summary.images_without:,}")
    table.add_row("rows without an image", f"{summary.unmatched:,}")
    console.print(table)
    for column, kind in summary.columns:
        console.print(f"column {column}: {kind}", highlight=False, markup=False)
    for line in (*summary.unmatched_examples, *summary.notes):
        console.print(line, style="dim", highlight=False, markup=False)
    if summary.unmatched > len(summary.unmatched_examples):
        console.print("All rows without an image: the collection's page, “Tables”.")


@collection_app.command("group")
def collection_group(
    name: Annotated[str, typer.Argument(metavar="COLLECTION", help="Its name.")],
    gap: Annotated[
        int | None,
        typer.Option(
            metavar="SECONDS", help="Bursts: at most so long between one image and the next."
        ),
    ] = None,
    column: Annotated[
        str | None,
        typer.Option(help="Images with the same text in a column of a brought table."),
    ] = None,
    near_duplicates: Annotated[
        float | None,
        typer.Option(
            metavar="LIKENESS",
            help="Files that follow one another and are so alike, such as 0.9; of images with a "
            "time only within a minute.",
        ),
    ] = None,
    none: Annotated[bool, typer.Option("--none", help="Each image by itself.")] = False,
) -> None:
    """Group images into events: one stands for all in searches. Without an option, say how it is.

    Searches go by it from their next round on; earlier rounds stay as they were.
    """
    given = {
        "bursts": gap is not None,
        "column": column is not None,
        "near-duplicates": near_duplicates is not None,
        "none": none,
    }
    kinds = [kind for kind, is_given in given.items() if is_given]
    if len(kinds) > 1:
        raise typer.BadParameter("Group in one way: --gap, --column, --near-duplicates or --none.")
    with opened() as (settings, database), database.session() as session:
        collection = get_collection_named(session, name)
        if kinds:
            rule = make_rule(
                kinds[0],
                gap_s="" if gap is None else str(gap),
                column=column or "",
                likeness="" if near_duplicates is None else str(near_duplicates),
            )
            person = get_local_person(session)
            indexes = OpenIndexes(settings, patience_s=inf)
            group_images(session, collection.id, rule, person=person, indexes=indexes)
        view = describe_grouping(session, collection.id)
    console.print(view.sentence, highlight=False, soft_wrap=True)
    if view.grouping is not None and view.has_events:
        console.print(
            f"{view.event_count:,} events hold {view.grouped_count:,} images; "
            f"{view.alone_count:,} images stand by themselves.",
            highlight=False,
            soft_wrap=True,
        )
    elif view.grouping is not None and view.grouping.kind != "none":
        console.print("No two images belong together by it.", highlight=False)


@collection_app.command("remove-images")
def collection_remove_images(
    name: Annotated[str, typer.Argument(metavar="COLLECTION", help="Its name.")],
    listed: Annotated[
        Path, typer.Option("--list", help="Text file, a path a line, as the collection has it.")
    ],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask first.")] = False,
) -> None:
    """Remove images from a collection; files are not touched, and they can be put back."""
    with opened() as (settings, database):
        with database.session() as session:
            collection_id = get_collection_named(session, name).id
            image_ids = find_listed(session, collection_id, read_lines(listed))
            removal = describe_removal(session, collection_id, image_ids)
            console.print(
                f"{len(removal.images):,} images will no longer be shown, counted or searched. "
                f"{removal.answer_count:,} answers in {removal.search_count:,} searches stand on "
                "them: kept in the history, but no longer counted, exported or learned from. "
                "Files are not touched; “rarefind collection put-back” undoes it.",
                highlight=False,
            )
            if not yes:
                typer.confirm("Remove them?", abort=True)
            remove_images(session, collection_id, image_ids, person=get_local_person(session))
        bring_indexes_up_to_date(database, collection_id, settings)


@collection_app.command("put-back")
def collection_put_back(
    name: Annotated[str, typer.Argument(metavar="COLLECTION", help="Its name.")],
    listed: Annotated[
        Path, typer.Option("--list", help="Text file, a path a line, as the collection has it.")
    ],
) -> None:
    """Put removed images back into a collection, with the answers on them."""
    with opened() as (settings, database):
        with database.session() as session:
            collection_id = get_collection_named(session, name).id
            image_ids = find_listed(session, collection_id, read_lines(listed))
            person = get_local_person(session)
            count = put_back_images(session, collection_id, image_ids, person=person)
        console.print(f"{count:,} images are back.", highlight=False)
        bring_indexes_up_to_date(database, collection_id, settings)


def read_lines(file: Path) -> list[str]:
    """The lines of a text file, or a sentence."""
    try:
        return file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"The list {file} can't be read: {error}") from error


def bring_indexes_up_to_date(database: Database, collection_id: int, settings: Settings) -> None:
    """Make the collection's indexes hold what it holds; without images there is nothing to do."""
    with progress_of("Preparing") as advance, suppress(NoIndexYet):
        update_indexes(database, collection_id, settings=settings, progress=advance)


@app.command()
def embedders() -> None:
    """List the models that make images comparable: what each is for and what it takes."""
    with opened() as (settings, database), database.session() as session:
        print_embedders(list_embedders(session, settings), settings.weights_folder)


@collection_app.command("list")
def collection_list() -> None:
    """Show the collections there are, and how each stands."""
    with opened() as (_, database), database.session() as session:
        table = Table("name", "images", "state", box=None, pad_edge=False)
        table.add_column("came from", overflow="fold")
        for summary in list_collections(session, get_local_person(session), now=datetime.now(UTC)):
            preparation = summary.preparation
            table.add_row(
                escape(summary.collection.name),
                f"{summary.image_count:,}",
                "being prepared" if preparation.is_running else preparation.stage,
                escape(preparation.source or ""),
            )
    if table.row_count:
        console.print(table, highlight=False)
    else:
        console.print("There is no collection yet. Add one: rarefind collection add NAME FOLDER")


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
    name: Annotated[str, typer.Argument(metavar="COLLECTION", help="It has the same images.")],
) -> None:
    """Make a search of a file, in a collection that has the same images, and check its rounds."""
    with opened() as (settings, database):
        data = file.read_bytes()
        indexes = OpenIndexes(settings, patience_s=inf)
        with Readers(settings) as readers, database.session() as session:
            person = get_local_person(session)
            search = import_search(
                session,
                person,
                get_collection_named(session, name),
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
    name: Annotated[str, typer.Argument(metavar="COLLECTION", help="Of the same embedder.")],
    out: Annotated[Path | None, typer.Option(help="A file; standard output without it.")] = None,
) -> None:
    """Score every image of a collection with the head of another search; writes CSV."""
    with opened() as (settings, database), database.session() as session:
        file = read_head_file(head.read_bytes())
        collection = get_collection_named(session, name)
        lines = apply_head(session, collection, file, OpenIndexes(settings, patience_s=inf))
        write_out((line.encode() for line in lines), out)


def write_export_file(called: str, name: str, out: Path | None) -> None:
    """Write one export of a search of the local person's."""
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


@app.command()
def replay(
    out: Annotated[Path, typer.Option(help="Folder for the results; resumed if it has some.")],
    collection: Annotated[
        str | None, typer.Argument(metavar="COLLECTION", help="A collection with known labels.")
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

    usual_holdout = 0.2 if server is None else 0.0  # a server's searches show every image

    def plan(oracle: Oracle) -> ReplaySettings:
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
                found = get_collection_named(session, collection or "")
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


@index_app.command("build")
def index_build(
    collection: Annotated[str, typer.Argument(metavar="COLLECTION", help="Its name.")],
    embedder: Annotated[str, typer.Option(help="A name of “rarefind embedders”.")],
    boxes: Annotated[
        bool,
        typer.Option(
            "--boxes", help="Look at what MegaDetector drew a box around, not at whole images."
        ),
    ] = False,
    vectors: Vectors = None,
) -> None:
    """Prepare a collection with one more embedder, beside those it has, or go on with that."""
    with opened() as (settings, database):
        fetch_embedder(embedder, settings)
        collection_id = get_collection_id(database, collection)
        if vectors is not None:
            with database.session() as session:
                choose_vectors(session, collection_id, vectors, settings)
        if boxes:
            embedder = name_with_boxes(database, collection_id, embedder)
        with progress_of("Preparing") as advance, calling_for_help(database) as call_for_help:
            made = build_index(
                database,
                collection_id,
                settings=settings,
                embedder=embedder,
                progress=advance,
                call_for_help=call_for_help,
            )
    console.print(f"{made.embedder}: {made.image_count:,} images", highlight=False)


@index_app.command("combine")
def index_combine(
    collection: Annotated[str, typer.Argument(metavar="COLLECTION", help="Its name.")],
    first: Annotated[str, typer.Argument(metavar="A", help="An embedder it is prepared with.")],
    second: Annotated[str, typer.Argument(metavar="B", help="Another one.")],
) -> None:
    """Make one index of two: likeness is the mean of both. Nothing is embedded again."""
    with opened() as (settings, database):
        collection_id = get_collection_id(database, collection)
        made = combine_indexes(database, collection_id, first, second, settings=settings)
    console.print(f"{made.embedder}: {made.image_count:,} images", highlight=False)


@index_app.command("from-vectors")
def index_from_vectors(
    file: Annotated[Path, typer.Argument(metavar="FILE.npy", help="One vector a row.")],
    ids: Annotated[
        Path, typer.Option(help="CSV with a line for each row: file, image_id, or both.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder to make; without it FILE with the ending .index.")
    ] = None,
) -> None:
    """Make an index of vectors that you bring, to replay searches on it."""
    with explained():
        folder = out or file.with_suffix(".index")
        made = index_vectors(file, ids, folder)
    what = f"{made.count:,} vectors of {made.dimension} dimensions"
    console.print(f"{folder}: {what}", soft_wrap=True, highlight=False)


@user_app.command("add")
def user_add(
    name: Annotated[str, typer.Argument(help="The name they sign in by.")],
    role: Annotated[str, typer.Option(help="viewer, ecologist, evaluator or admin.")] = "ecologist",
) -> None:
    """Add a person and print a one-time link by which they set their password."""
    with opened() as (settings, database), database.session() as session:
        admin = get_local_person(session)
        person = add_person(session, name, role, by=admin)
        url = reset_password(
            session, person, by=admin, base_url=link_url(settings), settings=settings
        )
    console.print(url, soft_wrap=True, highlight=False)


@user_app.command("list")
def user_list() -> None:
    """Show everybody who has an account."""
    with opened() as (_, database), database.session() as session:
        table = Table("name", "role", "last seen", "", box=None, pad_edge=False)
        for account in list_accounts(session):
            person = account.person
            waits = "waits for a password" if account.awaits_password else ""
            table.add_row(
                escape(person.name),
                person.role,
                f"{account.seen_at.astimezone():%Y-%m-%d %H:%M}" if account.seen_at else "never",
                "closed" if person.closed_at else waits,
            )
    console.print(table, highlight=False)


@user_app.command("role")
def user_role(
    name: Annotated[str, typer.Argument(help="Their name.")],
    role: Annotated[str, typer.Argument(help="viewer, ecologist, evaluator or admin.")],
) -> None:
    """Give a person another role."""
    with opened() as (_, database), database.session() as session:
        person = get_person_named(session, name)
        change_role(session, person, role, by=get_local_person(session))


@user_app.command("reset")
def user_reset(name: Annotated[str, typer.Argument(help="Their name.")]) -> None:
    """Sign a person out everywhere and print a link by which they set a new password."""
    with opened() as (settings, database), database.session() as session:
        url = reset_password(
            session,
            get_person_named(session, name),
            by=get_local_person(session),
            base_url=link_url(settings),
            settings=settings,
        )
    console.print(url, soft_wrap=True, highlight=False)


@app.command()
def gc(
    yes: Annotated[bool, typer.Option("--yes", help="Remove it; else it is only counted.")] = False,
) -> None:
    """Remove what has lain in the bin for 30 days, and files that nothing needs any more.

    Without --yes it only says what it would remove. Files that rows name and that are gone are
    listed. People and workers may go on meanwhile.
    """
    with opened() as (settings, database):
        swept = sweep(database, settings, now=datetime.now(UTC), remove=yes)
    print_swept(swept, is_done=yes)


@app.command()
def backup(
    folder: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="A new or empty folder, or that of an earlier backup."),
    ],
) -> None:
    """Copy the database and the files that it needs to a folder, while people work.

    In the folder of an earlier backup only what is new is copied. Originals that lie outside the
    data folder are not in it.
    """
    with explained(), progress_of("Backing up") as advance:
        made = back_up(read_settings(), folder, now=datetime.now(UTC), progress=advance)
    print_backup(made.manifest, folder)
    console.print(
        f"copied now: {made.copied_count:,} files, {made.copied_bytes / 1e6:,.1f} MB",
        highlight=False,
    )
    if made.manifest.store is not None:
        console.print(
            f"It holds the database alone. Files are in the store {made.manifest.store}: have it "
            "keep old versions and copies by its own means.",
            highlight=False,
            soft_wrap=True,
        )
    if made.manifest.outside_count:
        console.print(
            f"{made.manifest.outside_count:,} originals lie outside the data folder and are not in "
            "it: back their folders up yourself.",
            highlight=False,
            soft_wrap=True,
        )
    if made.missing:
        some = ", ".join(made.missing[:3]) + (", …" if len(made.missing) > 3 else "")
        print_error(
            f"{len(made.missing):,} files were gone from the data folder, and are not in the "
            f"backup: {some}. “rarefind doctor” says what to do."
        )


@app.command("fill-store")
def fill_the_store() -> None:
    """Put the files of a data folder that was one machine's into the store of RAREFIND_STORE.

    People and workers may go on, if they have RAREFIND_STORE set already.
    """
    with opened() as (settings, database), progress_of("Putting") as advance:
        count = fill_store(database, settings, progress=advance)
    console.print(f"{count:,} files are in {say_store(settings)}.", highlight=False, soft_wrap=True)


@app.command()
def restore(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="The folder that “rarefind backup” wrote.")
    ],
) -> None:
    """Bring a backup back into an empty data folder and an empty database.

    Checksums are compared before anything is touched. RAREFIND_HOME and DATABASE_URL say where to.
    """
    with explained():
        settings = read_settings()
        with progress_of("Restoring") as advance:
            manifest = restore_backup(settings, folder, progress=advance)
    print_backup(manifest, folder)
    console.print(
        f"Restored to {settings.home}. “rarefind doctor” says what else is needed, such as "
        "weights and originals; “rarefind serve” opens it.",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


@app.command()
def doctor() -> None:
    """Check everything Rarefind needs and say what to do; ends with 1 if something is wrong."""
    signs = {"well": ("✓", "green"), "remark": ("!", "yellow"), "wrong": ("✗", "red")}
    wrong_count = 0
    with explained():
        for finding in examine(read_settings(), now=datetime.now(UTC)):
            sign, style = signs[finding.state]
            line = Text.assemble((sign, style), f" {finding.what}: {finding.sentence}")
            console.print(line, soft_wrap=True, highlight=False)
            wrong_count += finding.state == "wrong"
    if wrong_count:
        console.print(f"\nTo mend: {wrong_count}", style="red", highlight=False)
        raise typer.Exit(1)


@token_app.command("add")
def token_add(
    name: Annotated[str, typer.Argument(help="To know it by later.")],
    scope: Annotated[str, typer.Option(help="read, search or admin.")] = "search",
    user: Annotated[str | None, typer.Option(help="For whom; without it for you.")] = None,
) -> None:
    """Make a token with which a program acts as a person; it is shown this once."""
    with opened() as (_, database), database.session() as session:
        made = make_token(session, get_owner(session, user), name, scope)
    console.print(made, soft_wrap=True, highlight=False)


@token_app.command("list")
def token_list(
    user: Annotated[str | None, typer.Option(help="Whose; without it yours.")] = None,
) -> None:
    """The names of the tokens that work."""
    with opened() as (_, database), database.session() as session:
        for token in list_tokens(session, get_owner(session, user)):
            line = f"{token.name}  {token.scope}  {token.made_at:%Y-%m-%d}"
            console.print(line, highlight=False, markup=False)


@token_app.command("revoke")
def token_revoke(
    name: Annotated[str, typer.Argument(help="As it was added.")],
    user: Annotated[str | None, typer.Option(help="Whose; without it yours.")] = None,
) -> None:
    """Make a token work no longer."""
    with opened() as (_, database), database.session() as session:
        end_token(session, get_owner(session, user), name)


def get_owner(session: Session, name: str | None) -> Person:
    """The person of that name, or whom this machine's commands act for."""
    return get_person_named(session, name) if name else get_local_person(session)


def get_collection_id(database: Database, name: str) -> int:
    """The collection's number."""
    with database.session() as session:
        return get_collection_named(session, name).id


def get_collection_named(session: Session, name: str) -> Collection:
    """The collection, or a sentence that there is none."""
    found = find_collection(session, name)
    if found is None:
        raise NotFound(f"There is no collection “{name}”.")
    return found


def read_where(session: Session, collection: Collection, where: list[str]) -> Filter:
    """The filter that KEY=VALUE options say."""
    return read_filter(session, collection.id, split_pairs(where), person=get_local_person(session))


def run_server(settings: Settings) -> None:
    """Serve until Ctrl-C; the sign-in link is printed once the server listens."""
    start_logging(settings)
    listening = listen(settings)
    settings = settings.model_copy(update={"port": listening.getsockname()[1]})
    if settings.processes == 1:
        serve_on(listening, settings, announce=partial(announce, settings=settings))
    else:
        run_processes(listening, settings)


def run_processes(listening: socket.socket, settings: Settings) -> None:
    """Serve with several processes until Ctrl-C."""
    stopping = Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    database = open_database(settings)  # an embedded one starts here, and ends last
    try:
        check_connections(database, settings)
        processes = Processes(settings, listening)
        if processes.start():
            announce(database, settings=settings)
            processes.watch(stopping)
            tell_stopping(settings)
            processes.stop(settings.stop_s)
        else:
            processes.stop(settings.stop_s)
            raise typer.Exit(1)  # what was wrong was said by the one that ended
    finally:
        listening.close()
        database.close()


def announce(database: Database, *, settings: Settings) -> None:
    """Say that the server is ready, and by which address."""
    (settings.home / ADDRESS_FILE).write_text(base_url(settings))
    with database.session() as session:
        person = get_local_person(session)
        # A standing way in for an admin must not lie in the logs of a shared server.
        by_link = settings.auth == "accounts" and person.password_hash is None
        url = settings.public_url or base_url(settings)
        if by_link:
            url = issue_sign_in_link(session, person, base_url=url, settings=settings)
    how = "Open this link; it signs you in once" if by_link else "Open"
    console.print(f"\nRarefind is ready. {how}:\n")
    console.print(f"    {url}\n", soft_wrap=True, highlight=False)
    if not settings.public_url and (addresses := list_addresses(settings)):
        console.print(
            f"From other machines: {', '.join(addresses)} (without encryption: "
            "docs/operations.md, “Behind a reverse proxy”).\n",
            soft_wrap=True,
            highlight=False,
        )
    end = "" if settings.auth == "local" else " A new sign-in link: rarefind link"
    console.print(f"Stop with Ctrl-C.{end}", highlight=False)


def tell_stopping(settings: Settings) -> None:
    """Say that the server stops, and what becomes of what it is at."""
    console.print(
        f"\nStopping, within {settings.stop_s:.0f} s; every answer is kept, and long work "
        "goes on at the next start.",
        soft_wrap=True,
        highlight=False,
    )


def serve_on(
    listening: socket.socket,
    settings: Settings,
    *,
    announce: Callable[[Database], None],
    say_stopping: bool = True,
) -> None:
    """Serve on a socket until a signal; `announce` is called when it is ready."""
    web = create_app(settings)
    gone: list[SQLAlchemyError] = []

    class Announcing(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                try:
                    announce(web.state.database)
                except SQLAlchemyError as error:
                    # The database has gone in this moment. What was asked in it is answered first.
                    gone.append(error)
                    self.should_exit = True

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            if say_stopping:
                tell_stopping(settings)
            end_within(settings.stop_s)
            await super().shutdown(sockets)

    # Of its stopping a third is for requests under way, half for the worker, the rest for the end.
    # Its own log of requests would hold their query strings, and with them links to sign in.
    def is_ours(_record: logging.LogRecord) -> bool:
        """Why it can't start is a sentence at the end, not a traceback."""
        return web.state.problem is None

    logging.getLogger("uvicorn.error").addFilter(is_ours)
    server = Announcing(
        uvicorn.Config(
            web,
            http=BoundedHead,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=IDLE_S,
            timeout_graceful_shutdown=int(settings.stop_s / 3),
        )
    )
    with suppress(SystemExit):  # with a number that says no more than the problem
        server.run(sockets=[listening])
    if gone:
        raise DatabaseNotUsable(
            "The database went away while the server started. Start it once more."
        ) from gone[0]
    if web.state.problem is not None:
        raise web.state.problem
    if not server.started:
        raise typer.Exit(1)


def end_within(seconds: float) -> None:
    """End this process by then even if something hangs, as a kill would: nothing is lost by it.

    The interpreter waits for threads that wait for a database or a disk that is gone.
    """

    def end() -> None:
        print_error("Something did not end in time, so it was cut off. Every answer is kept.")
        os._exit(1)

    timer = Timer(seconds, end)
    timer.daemon = True
    timer.start()


def play(oracle: Oracle, folder: Path, plan: ReplaySettings, out: Path, workers: int) -> None:
    """Play a replay with a progress bar."""
    with progress_of("Replaying") as advance:
        run_replays(oracle, folder, plan, out, workers=workers, progress=advance)


def read_settings(**given: str | int | bool | None) -> Settings:
    """The settings, with what was given on the command line before the environment."""
    known = {name: value for name, value in given.items() if value is not None}
    try:
        return Settings(**known)  # type: ignore[arg-type]  # checked by pydantic
    except ValidationError as error:
        wrong = "; ".join(
            f"{name_variable(str(part['loc'][0]))}: {part['msg'].removeprefix('Value error, ')}"
            for part in error.errors()
        )
        raise SettingsNotUsable(f"{wrong}. docs/operations.md lists every setting.") from error


def name_variable(setting: str) -> str:
    """The environment variable of a setting."""
    return setting if setting.isupper() else f"RAREFIND_{setting.upper()}"


def listen(settings: Settings) -> socket.socket:
    """The socket to serve on, or a sentence that says why not."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # Named as TCP, or the server's connections wait 40 ms for an acknowledgement at every answer.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((settings.host, settings.port))
    except OSError as error:
        listening.close()
        raise AddressNotFree(
            f"Can't listen on {settings.host}:{settings.port} ({os.strerror(error.errno or 0)}). "
            "If Rarefind runs already, “rarefind link” prints a link to it; "
            "else take another port with --port."
        ) from error
    return listening


def answers(address: str) -> bool:
    """Whether something listens at the address."""
    parts = urlsplit(address)
    try:
        socket.create_connection((parts.hostname or "", parts.port or 80), timeout=2).close()
    except OSError:
        return False
    return True


def read_address(settings: Settings) -> str:
    """Where the server listens, or listened last."""
    running = settings.home / ADDRESS_FILE
    return running.read_text() if running.exists() else base_url(settings)


def link_url(settings: Settings) -> str:
    """What a link begins with: where people reach the server."""
    return settings.public_url or read_address(settings)


def base_url(settings: Settings) -> str:
    """Where a browser on this machine finds the server."""
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "::1": "[::1]"}.get(settings.host, settings.host)  # noqa: S104  # nosec B104 # named to be left out
    return f"http://{host}:{settings.port}"


def list_addresses(settings: Settings) -> list[str]:
    """Where browsers of the network find a server that listens on every address."""
    if settings.host not in ("0.0.0.0", "::"):  # noqa: S104  # nosec B104 # looked for, not set
        return []
    addresses = (one for many in psutil.net_if_addrs().values() for one in many)
    return [
        f"http://{one.address}:{settings.port}"
        for one in addresses
        if one.family == socket.AF_INET and not one.address.startswith("127.")
    ]


@contextmanager
def opened() -> Iterator[tuple[Settings, Database]]:
    """Settings and an open database, closed again; errors become sentences."""
    with explained():
        settings = read_settings()
        database = open_database(settings)
        try:
            yield settings, database
        finally:
            database.close()


@contextmanager
def explained() -> Iterator[None]:
    """A known error is a sentence and exit status 1, not a traceback."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        yield
    except RarefindError as error:
        print_error(f"{error.title}: {error}")
        raise typer.Exit(1) from error
    except BrokenPipeError:
        raise  # whoever read our output has had enough: typer ends quietly
    except OSError as error:
        print_error(
            f"Can't go on: {error.filename or 'the system says'}: {error.strerror or error}."
        )
        raise typer.Exit(1) from error


def print_error(sentence: str) -> None:
    """A sentence on standard error."""
    errors.print(sentence, style="red", highlight=False, markup=False, soft_wrap=True)


@contextmanager
def progress_of(what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on a terminal; elsewhere a plain line at every tenth."""
    if not console.is_terminal:
        shown = -1

        def say(done: int, total: int) -> None:
            nonlocal shown
            tenth = 10 * done // total if total else 0
            if tenth > shown:
                shown = tenth
                print(f"{what}: {done} of {total}", flush=True)  # noqa: T201

        yield say
        return
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
    ) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total or None)


def print_summary(summary: ImportSummary) -> None:
    """The table an import ends with."""
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    table.add_row("imported", f"{summary.imported:,}")
    table.add_row("known already", f"{summary.known:,}")
    table.add_row("duplicates", f"{summary.duplicates:,}")
    if summary.removed:
        table.add_row("removed earlier, left so", f"{summary.removed:,}")
    for reason, count in summary.refused.items():
        table.add_row(f"refused: {reason}", f"{count:,}")
    if summary.labelled or summary.unmatched_labels:
        table.add_row("labelled (for evaluators)", f"{summary.labelled:,}")
        table.add_row("labels without an image", f"{summary.unmatched_labels:,}")
    table.add_row("seconds", f"{summary.seconds:.1f}")
    table.add_row("images per second", f"{summary.images_per_s:.0f}")
    console.print(table)
    for examples in summary.refused_examples.values():
        for example in examples:
            console.print(
                f"refused {make_printable(example)}", style="dim", highlight=False, markup=False
            )
    for remark in summary.notes:
        console.print(remark, highlight=False, markup=False)


def print_swept(swept: Swept, *, is_done: bool) -> None:
    """What `gc` removed or would, and what is missing."""
    if swept.is_empty:
        console.print("There is nothing to remove.")
    else:
        table = Table(show_header=False, box=None, pad_edge=False)
        table.add_column(style="bold")
        table.add_column(justify="right")
        table.add_column(justify="right")
        if swept.collections or swept.searches:
            both = f"{swept.collections:,} collections, {swept.searches:,} searches"
            table.add_row("too long in the bin", both, f"{swept.bin_bytes / 1e6:,.1f} MB")
        for left in swept.leftovers:
            size = f"{left.size_bytes / 1e6:,.1f} MB"
            table.add_row(left.kind, f"{left.count:,} files", size)
        console.print(table)
        what = "Removed" if is_done else "To remove"
        console.print(f"{what}: {swept.size_bytes / 1e6:,.1f} MB", highlight=False)
        if not is_done:
            console.print("Nothing was removed yet: “rarefind gc --yes” does it.", highlight=False)
    for lost in swept.missing:
        some = ", ".join(make_printable(str(path)) for path in lost.some)
        more = lost.count - len(lost.some)
        some += f" and {more:,} more" if more else ""
        print_error(
            f"{lost.count:,} of {lost.total:,} {lost.kind} of “{lost.collection}” are missing: "
            f"{some}. {lost.advice}"
        )


def make_printable(text: str) -> str:
    """Text with codes in place of letters by which a file's name could command the terminal."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in text
    )


def print_backup(manifest: Manifest, folder: Path) -> None:
    """What a backup holds."""
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    for name, count in manifest.counts.items():
        table.add_row(name, f"{count:,}")
    table.add_row("files", f"{manifest.file_count:,}")
    table.add_row("MB", f"{manifest.size_bytes / 1e6:,.1f}")
    console.print(
        f"{folder}: Rarefind as it was on {manifest.made_at.astimezone():%Y-%m-%d %H:%M}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    console.print(table)


def print_embedders(choices: list[EmbedderChoice], folder: Path) -> None:
    """The table of embedders, and where to put what is not here."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("name", no_wrap=True, style="bold")
    table.add_column("what for", min_width=22)
    table.add_column("words", no_wrap=True)
    table.add_column("numbers", no_wrap=True, justify="right")
    table.add_column("weights", no_wrap=True)
    table.add_column("images/s", no_wrap=True)
    for choice in choices:
        place = "on disk" if choice.is_on_disk else "to fetch"
        table.add_row(
            choice.name,
            choice.summary,
            "yes" if choice.knows_words else "no",
            f"{choice.dimension:,}",
            f"{place}\n{choice.size_mb:,} MB" if choice.files else "included",
            f"{choice.per_second:.1f}" if choice.per_second else "not\nmeasured",
        )
    console.print(table, highlight=False)
    console.print(
        "\nAny other model of OpenCLIP or timm: open_clip:MODEL:TAG, open_clip:MODEL:FILE, "
        "open_clip:hf-hub:OWNER/NAME, open_clip:local-dir:FOLDER, timm:MODEL, timm:MODEL:FILE.",
        highlight=False,
        markup=False,
    )
    missing = [choice for choice in choices if not choice.is_on_disk]
    if missing:
        console.print(
            "\nWeights are fetched from huggingface.co when a collection is prepared with them. To "
            "bring them yourself, put these files into the folder of weights (RAREFIND_WEIGHTS),",
            highlight=False,
        )
        console.print(f"{folder}:", soft_wrap=True, highlight=False, markup=False)
        for choice in missing:
            for file in choice.files:
                console.print(f"  {file}", soft_wrap=True, highlight=False, markup=False)
