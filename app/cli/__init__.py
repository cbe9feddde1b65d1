"""The `rarefind` command: parses, calls one verb, prints.

Its parts stand here in the order in which its help names them. Each command imports what it works
with when it runs, and after what it checks of its words: the database takes a second to import, and
the models take more, for which nobody should wait who only asks for help or mistypes.
"""

import sys
from typing import Annotated

import typer

from app.cli import collections, indexes, searches, serving, upkeep
from app.cli.terminal import Commands, console

app = Commands(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(serving.app)
app.add_typer(indexes.app)
app.add_typer(searches.app)
app.add_typer(upkeep.app)
app.add_typer(collections.collection_app, name="collection")
app.add_typer(searches.search_app, name="search")
app.add_typer(indexes.index_app, name="index")
app.add_typer(upkeep.user_app, name="user")
app.add_typer(upkeep.token_app, name="token")


def show_version(is_asked: bool) -> None:
    """Print the version and end."""
    from importlib.metadata import version

    if is_asked:
        console.print(f"rarefind {version('rarefind')}", highlight=False)
        raise typer.Exit


@app.callback()
def main(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Find every image of one rare species in a large, unlabelled photo collection."""
    # A worker process begins by importing the main program's file, whatever that brings along.
    # Without a file it imports only what it works with.
    sys.modules["__main__"].__dict__.pop("__file__", None)
