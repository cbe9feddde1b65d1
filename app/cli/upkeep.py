"""Commands of upkeep: people and their tokens; the bin, backups, the store, the doctor."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from app.cli.terminal import (
    Commands,
    console,
    explained,
    link_url,
    make_printable,
    opened,
    print_error,
    progress_of,
    read_settings,
)

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from app.backing_up import Manifest
    from app.sweeping import Swept
    from app.tables import Person

ROLES = "viewer, ecologist, evaluator or admin."
User = Annotated[
    str | None, typer.Option(metavar="NAME", help="The person it acts for; without it you.")
]
app = Commands()
user_app = Commands(help="People and their accounts.", no_args_is_help=True)
token_app = Commands(help="Tokens for programs that use the JSON API.", no_args_is_help=True)


@user_app.command("add")
def user_add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The name they sign in by.")],
    role: Annotated[
        str, typer.Option(metavar="ROLE", help="What they may do: " + ROLES)
    ] = "ecologist",
) -> None:
    """Add a person, and print a link by which they set a password.

    The link works once.
    """
    from app.accounts import add_person, reset_password
    from app.security import get_local_person

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
    from app.accounts import list_accounts

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
    name: Annotated[str, typer.Argument(metavar="NAME", help="The name they sign in by.")],
    role: Annotated[str, typer.Argument(metavar="ROLE", help="What they may do: " + ROLES)],
) -> None:
    """Give a person another role."""
    from app.accounts import change_role, get_person_named
    from app.security import get_local_person

    with opened() as (_, database), database.session() as session:
        person = get_person_named(session, name)
        change_role(session, person, role, by=get_local_person(session))


@user_app.command("reset")
def user_reset(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The name they sign in by.")],
) -> None:
    """Print a link by which a person sets a new password.

    They are signed out everywhere. The link works once.
    """
    from app.accounts import get_person_named, reset_password
    from app.security import get_local_person

    with opened() as (settings, database), database.session() as session:
        url = reset_password(
            session,
            get_person_named(session, name),
            by=get_local_person(session),
            base_url=link_url(settings),
            settings=settings,
        )
    console.print(url, soft_wrap=True, highlight=False)


@token_app.command("add")
def token_add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name to know it by later.")],
    scope: Annotated[
        str, typer.Option(metavar="SCOPE", help="What it lets do: read, search or admin.")
    ] = "search",
    user: User = None,
) -> None:
    """Make a token with which a program acts as a person.

    It is shown this once.
    """
    from app.accounts import make_token

    with opened() as (_, database), database.session() as session:
        made = make_token(session, get_owner(session, user), name, scope)
    console.print(made, soft_wrap=True, highlight=False)


@token_app.command("list")
def token_list(
    user: User = None,
) -> None:
    """Show the tokens that work, by their names."""
    from app.security import list_tokens

    with opened() as (_, database), database.session() as session:
        for token in list_tokens(session, get_owner(session, user)):
            line = f"{token.name}  {token.scope}  {token.made_at:%Y-%m-%d}"
            console.print(line, highlight=False, markup=False)


@token_app.command("revoke")
def token_revoke(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The name that it was given.")],
    user: User = None,
) -> None:
    """Make a token work no longer."""
    from app.accounts import end_token

    with opened() as (_, database), database.session() as session:
        end_token(session, get_owner(session, user), name)


@app.command()
def gc(
    yes: Annotated[
        bool, typer.Option("--yes", help="Remove them; without it they are only counted.")
    ] = False,
) -> None:
    """Count files that nothing needs any more; --yes removes them.

    Among them is what has lain in the bin for 30 days. Files that are missing are listed. People
    and workers may go on meanwhile.
    """
    from app.sweeping import sweep

    with opened() as (settings, database):
        swept = sweep(database, settings, now=datetime.now(UTC), remove=yes)
    print_swept(swept, is_done=yes)


@app.command()
def backup(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER", help="A new or empty folder, or that of an earlier backup."
        ),
    ],
) -> None:
    """Copy all that is kept to a folder, while people work.

    That is the database and the files that it needs.
    In the folder of an earlier backup only what is new is copied. Originals that lie outside the
    data folder are not in it.
    """
    from app.backing_up import back_up

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
    """Put the files of the data folder into RAREFIND_STORE.

    Several machines can then go on with what was one machine's. People and workers may go on
    meanwhile, if they have RAREFIND_STORE set already.
    """
    from app.filling import fill_store
    from app.store import say_store

    with opened() as (settings, database), progress_of("Putting") as advance:
        count = fill_store(database, settings, progress=advance)
    console.print(f"{count:,} files are in {say_store(settings)}.", highlight=False, soft_wrap=True)


@app.command()
def restore(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="The folder that “rarefind backup” wrote.")
    ],
) -> None:
    """Bring a backup back into an empty data folder and database.

    Checksums are compared before anything is touched. RAREFIND_HOME and DATABASE_URL say where to.
    """
    from app.backing_up import restore_backup

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
    """Check everything that Rarefind needs, and say what to do.

    If something is wrong it ends with status 1.
    """
    from app.examining import examine

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


def get_owner(session: "Session", name: str | None) -> "Person":
    """The person of that name, or whom this machine's commands act for."""
    from app.accounts import get_person_named
    from app.security import get_local_person

    return get_person_named(session, name) if name else get_local_person(session)


def print_swept(swept: "Swept", *, is_done: bool) -> None:
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


def print_backup(manifest: "Manifest", folder: Path) -> None:
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
