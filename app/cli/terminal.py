"""What commands share: settings and an open database, and what people read of errors, progress.

A collection by its name or number and the address of the server are here too: more than one topic
needs them.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.console import Console
from typer.core import TyperCommand

from app.errors import RarefindError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails
    from sqlalchemy.orm import Session

    from app.database import Database
    from app.settings import Settings
    from app.tables import Collection

console = Console()
errors = Console(stderr=True)
CalledCollection = Annotated[str, typer.Argument(metavar="COLLECTION", help="Its name or number.")]
Verb = TypeVar("Verb", bound=Callable[..., Any])
ADDRESS_FILE = "address.txt"  # where the last server listened, for `rarefind link`


class PlainCommand(TyperCommand):
    """A command whose help says what to give in capitals, and never of which type of Python."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Arguments and options; typer would add a type to each argument."""
        for title, kind in (("Arguments", "argument"), ("Options", "option")):
            lines = []
            for one in self.get_params(ctx):
                line = one.get_help_record(ctx)
                if line is not None and one.param_type_name == kind:
                    name = one.metavar or one.name
                    lines.append((name, line[1]) if kind == "argument" else line)
            if lines:
                with formatter.section(title):
                    formatter.write_dl(lines)


class Commands(typer.Typer):
    """Commands whose help and errors are plain text, to be read anywhere and copied."""

    def __init__(self, **given: Any) -> None:
        super().__init__(rich_markup_mode=None, **given)

    def command(self, name: str | None = None, **given: Any) -> Callable[[Verb], Verb]:
        """Add a command, with plain help."""
        return super().command(name, cls=PlainCommand, **given)


class SettingsNotUsable(RarefindError):
    """A setting, or the environment variable behind it, has a value that can't be used."""

    title = "A setting can't be used"


@contextmanager
def opened() -> Iterator[tuple["Settings", "Database"]]:
    """Settings and an open database, closed again; errors become sentences."""
    from app.database import open_database

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


def whole_number(least: int, most: int | None = None) -> Callable[[str], int]:
    """What reads an option that is a whole number, or says which would do."""

    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if number < least or (most is not None and number > most):
            raise typer.BadParameter(
                f"Give {name_range('a whole number', least, most)}, not “{text}”."
            )
        return number

    return read


def number_between(least: float, most: float) -> Callable[[str], float]:
    """What reads an option that is a number, or says which would do."""

    def read(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = least - 1
        if not least <= number <= most:
            raise typer.BadParameter(f"Give {name_range('a number', least, most)}, not “{text}”.")
        return number

    return read


def name_range(what: str, least: float | None, most: float | None) -> str:
    """Which numbers would do, in words."""
    if least is None or most is None:
        return what if least is None else f"{what} of at least {least:g}"
    return f"{what} from {least:g} to {most:g}"


def read_settings(**given: str | int | bool | None) -> "Settings":
    """The settings, with what was given on the command line before the environment.

    What is wrong with an option is said of the option, anything else of its variable.
    """
    from pydantic import ValidationError

    from app.settings import Settings

    known = {name: value for name, value in given.items() if value is not None}
    try:
        return Settings(**known)  # type: ignore[arg-type]  # checked by pydantic
    except ValidationError as error:
        wrong = {str(part["loc"][0]): describe_wrong(part) for part in error.errors()}
        for name, what in wrong.items():
            if name in known:
                option = f"'--{name.replace('_', '-')}'"
                raise typer.BadParameter(
                    f"{what[0].upper()}{what[1:]}.", param_hint=option
                ) from error
        said = "; ".join(f"{name_variable(name)}: {what}" for name, what in wrong.items())
        raise SettingsNotUsable(f"{said}. docs/operations.md lists every setting.") from error


def describe_wrong(part: "ErrorDetails") -> str:
    """What would do in place of a setting's value; pydantic says what it is not."""
    from typing import Literal, get_args, get_origin

    from app.settings import Settings

    field = Settings.model_fields.get(str(part["loc"][0]).lower())
    if field is None or part["type"] == "value_error":
        return part["msg"].removeprefix("Value error, ")
    limits = {
        kind: getattr(one, kind)
        for one in field.metadata
        for kind in ("ge", "gt", "le")
        if hasattr(one, kind)
    }
    if get_origin(field.annotation) is Literal:
        *some, last = get_args(field.annotation)
        wanted = f"{', '.join(some)} or {last}"
    elif field.annotation is bool:
        wanted = "true or false"
    elif field.annotation in (int, float):
        what = "a whole number" if field.annotation is int else "a number"
        wanted = name_range(what, limits.get("ge"), limits.get("le"))
        wanted += f" above {limits['gt']:g}" if "gt" in limits else ""
    else:
        return "it is empty" if part["type"] == "string_too_short" else part["msg"]
    return f"give {wanted}, not “{part['input']}”"


def get_collection_called(session: "Session", called: str) -> "Collection":
    """The collection of that name or number, or a sentence that says which there are."""
    from app import importing
    from app.security import get_local_person

    return importing.get_collection_called(session, get_local_person(session), called)


def link_url(settings: "Settings") -> str:
    """What a link begins with: where people reach the server."""
    return settings.public_url or read_address(settings)


def read_address(settings: "Settings") -> str:
    """Where the server listens, or listened last."""
    running = settings.home / ADDRESS_FILE
    return running.read_text() if running.exists() else base_url(settings)


def base_url(settings: "Settings") -> str:
    """Where a browser on this machine finds the server."""
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "::1": "[::1]"}.get(settings.host, settings.host)  # noqa: S104  # nosec B104 # named to be left out
    return f"http://{host}:{settings.port}"


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
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

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


def print_error(sentence: str) -> None:
    """A sentence on standard error."""
    errors.print(sentence, style="red", highlight=False, markup=False, soft_wrap=True)


def make_printable(text: str) -> str:
    """Text with codes in place of letters by which a file's name could command the terminal."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in text
    )


def name_variable(setting: str) -> str:
    """The environment variable of a setting."""
    return setting if setting.isupper() else f"RAREFIND_{setting.upper()}"
