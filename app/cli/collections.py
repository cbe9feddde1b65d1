"""Commands of collections: images, tables, known labels, events, what is left out."""

from datetime import UTC, datetime
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from app.cli.indexes import Vectors, bring_indexes_up_to_date
from app.cli.terminal import (
    CalledCollection,
    Commands,
    console,
    explained,
    get_collection_called,
    make_printable,
    number_between,
    opened,
    progress_of,
)
from app.errors import BadInput

if TYPE_CHECKING:
    from app.collecting import CollectionFacts
    from app.importing import ImportSummary
    from app.labelling import LabelsPlan
    from app.settings import Settings
    from app.tables import Collection
    from app.taking import Taken

Takes = Annotated[
    list[str] | None,
    typer.Option(
        metavar="ROLE=COLUMN",
        help="Which column is taken for time, clock (time of day), latitude, longitude, camera or "
        "deployment; “none” for none, “found” to have it found by itself. May be repeated.",
    ),
]
Dates = Annotated[
    str | None,
    typer.Option(
        metavar="ORDER",
        help="“day-first” or “month-first”: how days such as 03/04/2026 are read, where no other "
        "day makes it plain.",
    ),
]

LABELS_SHOWN = 15  # of those that a file changes, most changed first
collection_app = Commands(help="Collections of images.", no_args_is_help=True)


@collection_app.command("add")
def collection_add(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="Its name; one that there is gets what is new."),
    ],
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="SOURCE",
            help="Folder, which is searched through, or zip; or a labelled set such as "
            "torchvision:OxfordIIITPet, which may also stand without NAME.",
        ),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="folders|FILE",
            help="Known labels for evaluators: “folders” takes the folders' names, FILE is a CSV "
            "table of file and label or a COCO file.",
        ),
    ] = None,
    embedder: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="A model of “rarefind embedders”; without it those that the collection has, or "
            "efficientnet-lite0 for a new one.",
        ),
    ] = None,
    copy: Annotated[
        bool, typer.Option("--copy", help="Copy the images into the data folder.")
    ] = False,
    vectors: Vectors = None,
) -> None:
    """Import images into a collection, and prepare them."""
    asked = name if source is None else source
    open_set = find_open_set(asked)
    if open_set is None and source is None:
        raise typer.BadParameter("Give a folder, a .zip or torchvision:SET after the name.")
    if open_set is not None and labels is not None:
        raise typer.BadParameter("The set brings its own labels: leave --labels out.")

    from app.audit import note
    from app.collecting import describe_collection
    from app.importing import find_collection, get_or_add_collection, import_images
    from app.indexes import list_wanted, update_indexes
    from app.indexing import fetch_embedder
    from app.jobs import calling_for_help
    from app.searchers import choose_vectors
    from app.security import get_local_person
    from app.sources import check_source

    with opened() as (settings, database):
        folder = Path(asked)
        if open_set is not None:
            name = open_set if source is None else name
            folder, labels = bring_open_set(open_set, settings)
        check_source(folder, settings, labels)  # before a collection is made for it
        if embedder is not None:
            fetch_embedder(embedder, settings)
        with database.session() as session:
            person = get_local_person(session)
            # By its name alone: sites may be called 1, 2, 3, and be added to a wrong number.
            if (known := find_collection(session, name)) is not None:
                console.print(f"Adding to collection {known.id}, “{known.name}”.", markup=False)
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
        with database.session() as session:
            facts = describe_collection(session, collection_id)
        print_next(facts)


@collection_app.command("metadata")
def collection_metadata(
    name: CalledCollection,
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="CSV table with a line for each image (file or sha256, and any more columns), or "
            "MegaDetector's JSON.",
        ),
    ],
    threshold: Annotated[
        float,
        typer.Option(
            metavar="CERTAINTY",
            parser=number_between(0, 1),
            help="Boxes of MegaDetector that are less certain count as none.",
        ),
    ] = 0.2,
    take: Takes = None,
    dates: Dates = None,
) -> None:
    """Keep what a table or MegaDetector says of the images.

    It is shown with them, filtered by and exported. Columns that hold time, place, camera or
    deployment are taken for that; it is said which.
    """
    from app.detecting import add_detections, is_detections
    from app.events import group_anew
    from app.indexing import OpenIndexes
    from app.metadata import add_table
    from app.security import get_local_person
    from app.taking import is_told

    with opened() as (settings, database):
        data = file.expanduser().read_bytes()
        with database.session() as session:
            collection = get_collection_called(session, name)
            collection_id = collection.id
            was_told = is_told(collection)
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
                    session,
                    collection_id,
                    name=file.name,
                    data=data,
                    person=person,
                    **read_taking(collection, take, dates),
                )
                if summary.taken is not None and (was_told or summary.taken.columns):
                    indexes = OpenIndexes(settings, patience_s=inf)
                    group_anew(session, collection_id, indexes=indexes)
        if is_detections(file.name, data):
            bring_indexes_up_to_date(database, collection_id, settings)
    print_rows(
        ("rows", summary.rows),
        ("images with a row", summary.images),
        ("images without any row", summary.images_without),
        ("rows without an image", summary.unmatched),
    )
    for column, kind in summary.columns:
        console.print(f"column {column}: {kind}", highlight=False, markup=False)
    if summary.taken is not None:
        print_taken(summary.taken)
    for line in (*summary.unmatched_examples, *summary.notes):
        console.print(line, style="dim", highlight=False, markup=False)
    if summary.unmatched > len(summary.unmatched_examples):
        console.print("All rows without an image: the collection's page, “Tables”.")


@collection_app.command("columns")
def collection_columns(name: CalledCollection, take: Takes = None, dates: Dates = None) -> None:
    """Say what columns of tables are taken for, or change it.

    Time, place, camera and deployment of images come from there.
    """
    from app.events import group_anew
    from app.indexing import OpenIndexes
    from app.metadata import choose_columns, list_columns
    from app.security import get_local_person
    from app.taking import read_choice

    with opened() as (settings, database), database.session() as session:
        collection = get_collection_called(session, name)
        for column in list_columns(session, collection.id):
            console.print(f"column {column.name}: {column.kind}", highlight=False, markup=False)
        taken = read_choice(collection).taken
        if take or dates:
            taken = choose_columns(
                session,
                collection.id,
                person=get_local_person(session),
                **read_taking(collection, take, dates),
            )
            indexes = OpenIndexes(settings, patience_s=inf)
            group_anew(session, collection.id, indexes=indexes)
        print_taken(taken)


def read_taking(
    collection: "Collection", take: list[str] | None, dates: str | None
) -> "dict[str, Any]":
    """What was chosen before, with what the options say; nothing where they say nothing."""
    from app.taking import read_choice, read_takes

    if not take and dates is None:
        return {}
    before = read_choice(collection)
    return {"chosen": read_takes(take or [], before.chosen), "order": dates or before.order}


def print_taken(taken: "Taken") -> None:
    """Which column is taken for what, and what there is to say of it."""
    for line in taken.list_words():
        console.print(line, highlight=False, markup=False)
    if not taken.columns:
        console.print("No column is taken for time, place, camera or deployment.", highlight=False)
    for line in taken.said:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    if taken.asks is not None:
        what = "rarefind collection columns COLLECTION --dates day-first, or month-first"
        console.print(f"To say which: {what}.", highlight=False, markup=False, soft_wrap=True)


@collection_app.command("remove-table")
def collection_remove_table(
    name: CalledCollection,
    table: Annotated[
        str, typer.Argument(metavar="TABLE", help="Name of the file, as it was when it was added.")
    ],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask first.")] = False,
) -> None:
    """Remove a table, as if it had never been added.

    It is said first what goes with it. The table can be added again.
    """
    from app.events import group_anew
    from app.forgetting import describe_table_removal, remove_table
    from app.indexing import OpenIndexes
    from app.metadata import get_table_called
    from app.security import get_local_person
    from app.tables import Collection
    from app.taking import is_told

    with opened() as (settings, database):
        with database.session() as session:
            collection_id = get_collection_called(session, name).id
            person = get_local_person(session)
            found = get_table_called(session, collection_id, table)
            removal = describe_table_removal(session, collection_id, found, person=person)
            said = [f"“{found.name}” speaks of {removal.image_count:,} images."]
            for line in (*said, *removal.list_sentences()):
                console.print(line, highlight=False, markup=False, soft_wrap=True)
            if not yes and removal.played is None:
                typer.confirm("Remove it?", abort=True)
            was_told = is_told(session.get_one(Collection, collection_id))
            draws = remove_table(session, collection_id, found.id, person=person)
            if not draws and (was_told or is_told(session.get_one(Collection, collection_id))):
                group_anew(session, collection_id, indexes=OpenIndexes(settings, patience_s=inf))
        console.print("Removed.", highlight=False)
        if draws:
            bring_indexes_up_to_date(database, collection_id, settings)


@collection_app.command("labels")
def collection_labels(
    name: CalledCollection,
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE",
            help="CSV table of file and label, or a COCO file; an empty label says that the image "
            "shows no target. Without it: what there is.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the known labels into a CSV file."),
    ] = None,
    leave_out: Annotated[
        bool,
        typer.Option("--leave-out", help="Leave out lines that name no image of the collection."),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask first.")] = False,
) -> None:
    """Show, add or correct known labels, for evaluators.

    No image is read again. What the file says of an image takes the place of what was known of it;
    all others stay.
    """
    from app.audit import note
    from app.labelling import describe_labels, keep_labels, plan_labels, say_without, write_labels
    from app.security import get_local_person

    with opened() as (_, database):
        plan = None
        if file is not None:
            data = file.expanduser().read_bytes()
            with database.session() as session:  # planning locks: left before anybody is asked
                collection = get_collection_called(session, name)
                plan = plan_labels(session, collection, name=file.name, data=data)
            print_labels_plan(plan)
            if plan.unmatched_count and not leave_out:
                raise BadInput(
                    f"{plan.unmatched_count:,} lines of {plan.name} can't be used. Nothing was "
                    "changed. Correct them, or leave them out with --leave-out."
                )
            if plan.by_image and not yes:
                typer.confirm("Keep these labels?", abort=True)
        with database.session() as session:
            collection = get_collection_called(session, name)
            person = get_local_person(session)
            if plan is not None and plan.by_image:
                if plan_labels(session, collection, name=plan.name, data=data) != plan:
                    raise BadInput(
                        f"The labels or images of “{collection.name}” changed meanwhile. Nothing "
                        "was kept: give the file again, to be told what it would change now."
                    )
                keep_labels(session, collection, plan, person=person, leave_out=leave_out)
            known = describe_labels(session, collection.id)
            if out is not None:
                with out.expanduser().open("w", encoding="utf-8", newline="") as table:
                    table.writelines(write_labels(session, collection.id))
                what = f"Exported the known labels of “{collection.name}”"
                note(session, person, "export", what, collection=collection)
    print_rows(
        ("images", known.image_count),
        ("with a known label", known.known_count),
        ("of them showing no target", known.empty_count),
        ("without", known.without_count),
        ("different labels", len(known.labels)),
    )
    for sentence in say_without(known):
        console.print(make_printable(sentence), highlight=False, markup=False)


@collection_app.command("group")
def collection_group(
    name: CalledCollection,
    gap: Annotated[
        str | None,
        typer.Option(
            metavar="SECONDS",
            help="Bursts: images are one event when at most so long lies between one and the next.",
        ),
    ] = None,
    column: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="Tracks: images with the same text in this column of a table are one event.",
        ),
    ] = None,
    near_duplicates: Annotated[
        str | None,
        typer.Option(
            metavar="LIKENESS",
            help="Files that follow one another and are at least so alike, such as 0.9, are one "
            "event, those with a time only within a minute.",
        ),
    ] = None,
    none: Annotated[bool, typer.Option("--none", help="Each image stands by itself.")] = False,
) -> None:
    """Group images into events, of which a search asks about one.

    Without an option it says how they are grouped. Searches go by it from their next round on;
    earlier rounds stay as they were.
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

    from app.events import describe_grouping, group_images, make_rule
    from app.indexing import OpenIndexes
    from app.security import get_local_person

    rule = None
    if kinds:
        try:
            rule = make_rule(
                kinds[0], gap_s=gap or "", column=column or "", likeness=near_duplicates or ""
            )
        except BadInput as error:
            option = {"bursts": "gap"}.get(kinds[0], kinds[0])
            raise typer.BadParameter(str(error), param_hint=f"'--{option}'") from error
    with opened() as (settings, database), database.session() as session:
        collection = get_collection_called(session, name)
        if rule is not None:
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
    name: CalledCollection,
    listed: Annotated[
        Path,
        typer.Option(
            "--list",
            metavar="FILE",
            help="Text file with an image's path on each line, as the collection has it.",
        ),
    ],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask first.")] = False,
) -> None:
    """Remove images from a collection; no file is touched.

    They can be put back, with the answers on them.
    """
    from app.removing import describe_removal, find_listed, remove_images
    from app.security import get_local_person

    with opened() as (settings, database):
        with database.session() as session:
            collection_id = get_collection_called(session, name).id
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
    name: CalledCollection,
    listed: Annotated[
        Path,
        typer.Option(
            "--list",
            metavar="FILE",
            help="Text file with an image's path on each line, as the collection has it.",
        ),
    ],
) -> None:
    """Put removed images back, with the answers on them."""
    from app.removing import find_listed, put_back_images
    from app.security import get_local_person

    with opened() as (settings, database):
        with database.session() as session:
            collection_id = get_collection_called(session, name).id
            image_ids = find_listed(session, collection_id, read_lines(listed))
            person = get_local_person(session)
            count = put_back_images(session, collection_id, image_ids, person=person)
        console.print(f"{count:,} images are back.", highlight=False)
        bring_indexes_up_to_date(database, collection_id, settings)


@collection_app.command("list")
def collection_list() -> None:
    """Show the collections, their numbers and how each stands."""
    from app.collecting import list_collections
    from app.security import get_local_person

    with opened() as (_, database), database.session() as session:
        table = Table("number", "name", "images", "state", box=None, pad_edge=False)
        table.add_column("came from", overflow="fold")
        for summary in list_collections(session, get_local_person(session), now=datetime.now(UTC)):
            preparation = summary.preparation
            table.add_row(
                str(summary.collection.id),
                escape(summary.collection.name),
                f"{summary.image_count:,}",
                "being prepared" if preparation.is_running else preparation.stage,
                escape(summary.collection.source or "uploaded from a browser"),
            )
    if table.row_count:
        console.print(table, highlight=False)
    else:
        console.print("There is no collection yet. Add one: rarefind collection add NAME FOLDER")


def find_open_set(asked: str) -> str | None:
    """The labelled set that a source calls, or None for a folder or zip."""
    from app.open_sets import find_set

    with explained():
        return find_set(asked)


def bring_open_set(open_set: str, settings: "Settings") -> tuple[Path, str]:
    """Fetch a labelled set; its folder and its labels."""
    from app.open_sets import bring_set

    with progress_of("Laying out") as advance:
        ready = bring_set(open_set, settings, progress=advance)
    return ready.folder, str(ready.labels)


def print_labels_plan(plan: "LabelsPlan") -> None:
    """What a labels file would change."""
    print_rows(
        ("images that had no label", plan.new_count),
        ("images whose label changes", plan.changed_count),
        ("images that stay as they are", plan.same_count),
        ("lines that can't be used", plan.unmatched_count),
    )
    lines = [f"{one.path}: {one.before or 'nothing known'} → {one.after}" for one in plan.examples]
    lines += [
        f"{label}: {before:,} → {after:,} images"
        for label, before, after in plan.counts[:LABELS_SHOWN]
    ]
    if (more := len(plan.counts) - LABELS_SHOWN) > 0:
        lines.append(f"and {more:,} more labels")
    for line in (*lines, *plan.unmatched, *plan.notes):
        console.print(make_printable(line), style="dim", highlight=False, markup=False)


def print_rows(*rows: tuple[str, int | str]) -> None:
    """Counts, one a line."""
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    for words, count in rows:
        table.add_row(words, count if isinstance(count, str) else f"{count:,}")
    console.print(table)


def print_summary(summary: "ImportSummary") -> None:
    """The table an import ends with."""
    rows: list[tuple[str, int | str]] = [
        ("imported", summary.imported),
        ("known already", summary.known),
        ("duplicates", summary.duplicates),
    ]
    if summary.removed:
        rows.append(("removed earlier, left so", summary.removed))
    rows += [(f"refused: {reason}", count) for reason, count in summary.refused.items()]
    if summary.labelled or summary.unmatched_labels:
        rows.append(("labelled (for evaluators)", summary.labelled))
        rows.append(("labels without an image", summary.unmatched_labels))
    rows.append(("seconds", f"{summary.seconds:.1f}"))
    rows.append(("images per second", f"{summary.images_per_s:.0f}"))
    print_rows(*rows)
    for examples in summary.refused_examples.values():
        for example in examples:
            console.print(
                f"refused {make_printable(example)}", style="dim", highlight=False, markup=False
            )
    for remark in summary.notes:
        console.print(remark, highlight=False, markup=False)


def print_next(facts: "CollectionFacts") -> None:
    """What to do with images that were added, and what they lack."""
    without = facts.image_count - facts.dated_count
    if without:
        console.print(
            f"{without:,} of {facts.image_count:,} images have no time; a table can give them one: "
            "“rarefind collection metadata”.",
            highlight=False,
            soft_wrap=True,
        )
    console.print("“rarefind serve” opens it, to search.", highlight=False)


def read_lines(file: Path) -> list[str]:
    """The lines of a text file, or a sentence."""
    try:
        return file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no text in UTF-8"
        raise BadInput(f"The list {file} can't be read: {why}.") from error
