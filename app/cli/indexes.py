"""Commands of indexes: which embedders there are; indexes built, combined, made of vectors."""

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from app.cli.terminal import (
    CalledCollection,
    Commands,
    console,
    explained,
    get_collection_called,
    opened,
    progress_of,
)
from app.errors import NoIndexYet

if TYPE_CHECKING:
    from app.database import Database
    from app.embedders import EmbedderChoice
    from app.settings import Settings

app = Commands()
index_app = Commands(help="What collections are prepared with.", no_args_is_help=True)
Vectors = Annotated[
    str | None,
    typer.Option(
        metavar="faiss|milvus:URL",
        help="What searches the images: faiss on this machine, milvus:lite in the data folder, or "
        "a Milvus cluster such as milvus:http://host:19530; without it, as before.",
    ),
]


@app.command()
def embedders() -> None:
    """List the models that images can be prepared with.

    Of each it says what it is for, whether it knows words, and what it takes.
    """
    from app.embedders import list_embedders

    with opened() as (settings, database), database.session() as session:
        print_embedders(list_embedders(session, settings), settings.weights_folder)


@index_app.command("build")
def index_build(
    collection: CalledCollection,
    embedder: Annotated[
        str, typer.Option(metavar="MODEL", help="A model of “rarefind embedders”.")
    ],
    boxes: Annotated[
        bool,
        typer.Option(
            "--boxes", help="Look at what MegaDetector drew a box around, not at whole images."
        ),
    ] = False,
    vectors: Vectors = None,
) -> None:
    """Prepare a collection with a model, beside those it has.

    Where that was begun before and not finished, it is gone on with.
    """
    from app.indexes import name_with_boxes
    from app.indexing import build_index, fetch_embedder
    from app.jobs import calling_for_help
    from app.searchers import choose_vectors

    with opened() as (settings, database):
        collection_id = get_collection_id(database, collection)
        fetch_embedder(embedder, settings)
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
    collection: CalledCollection,
    first: Annotated[str, typer.Argument(metavar="A", help="A model that it is prepared with.")],
    second: Annotated[str, typer.Argument(metavar="B", help="Another one.")],
) -> None:
    """Combine two models: images are as like as both say on average.

    No image has to be prepared again.
    """
    from app.indexing import combine_indexes

    with opened() as (settings, database):
        collection_id = get_collection_id(database, collection)
        made = combine_indexes(database, collection_id, first, second, settings=settings)
    console.print(f"{made.embedder}: {made.image_count:,} images", highlight=False)


@index_app.command("from-vectors")
def index_from_vectors(
    file: Annotated[
        Path, typer.Argument(metavar="FILE.npy", help="NumPy file with a vector in each row.")
    ],
    ids: Annotated[
        Path,
        typer.Option(
            metavar="FILE", help="CSV table with a line for each vector: file, image_id, or both."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Folder to make; without it FILE.index beside FILE.npy."
        ),
    ] = None,
) -> None:
    """Make an index of vectors that you bring, to replay on it."""
    from app.oracle import index_vectors

    with explained():
        folder = out or file.with_suffix(".index")
        made = index_vectors(file, ids, folder)
    what = f"{made.count:,} vectors of {made.dimension} dimensions"
    console.print(f"{folder}: {what}", soft_wrap=True, highlight=False)


def bring_indexes_up_to_date(
    database: "Database", collection_id: int, settings: "Settings"
) -> None:
    """Make the collection's indexes hold what it holds; without images there is nothing to do."""
    from app.indexes import update_indexes

    with progress_of("Preparing") as advance, suppress(NoIndexYet):
        update_indexes(database, collection_id, settings=settings, progress=advance)


def print_embedders(choices: list["EmbedderChoice"], folder: Path) -> None:
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


def get_collection_id(database: "Database", name: str) -> int:
    """The collection's number."""
    with database.session() as session:
        return get_collection_called(session, name).id
