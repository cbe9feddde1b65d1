"""What a worker does for each kind of job: import, index, update, combine, replay, export, help."""

from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from app.database import Database
from app.errors import NoIndexYet, RarefindError, SourceNotUsable
from app.exports.files import make_file, sweep_exports
from app.importing import ImportProgress, import_images
from app.indexes import list_wanted, prepare_index, update_indexes
from app.indexing import combine_indexes, help_build
from app.jobs import Do, StoppedByPerson, Tell, calling_for_help, does_nothing_else_wait
from app.labelling import keep_uploaded
from app.replays import play_replay
from app.settings import Settings
from app.tables import Job, Replay
from app.uploads import end_upload, find_name, list_sources, refuse_zip, remove_files


def do_import(database: Database, settings: Settings, job: Job, tell: Tell) -> None:
    """Import a source into its collection, then bring the collection's indexes up to date."""

    def imported(progress: ImportProgress) -> None:
        tell("importing", progress.done_count, progress.found_count)

    tell("importing", 0, 0)
    with database.session() as session:
        first = list_wanted(session, job.collection_id, embedder=job.arguments["embedder"])[0]
    upload_id = job.arguments.get("upload_id")
    sources = [Path(job.arguments["source"])]
    if upload_id is not None:
        with database.session() as session:
            sources = list_sources(session, upload_id, settings=settings)
    for source in sources:
        called = None
        if upload_id is not None:
            with database.session() as session:
                called = find_name(session, upload_id, source, settings=settings)
        try:
            import_images(
                database,
                job.collection_id,
                source,
                settings=settings,
                copy=job.arguments["copy"],
                labels=job.arguments["labels"],
                embedder=first,
                called=called,
                progress=imported,
            )
        except SourceNotUsable as error:
            if upload_id is None or len(sources) == 1:
                raise
            with database.session() as session:  # the others come in all the same
                refuse_zip(session, upload_id, source, str(error), settings=settings)
    if upload_id is not None:
        with database.session() as session:
            keep_uploaded(session, upload_id)
            end_upload(session, upload_id)
        remove_files(settings, upload_id)
    _update(database, settings, job, tell)


def do_update(database: Database, settings: Settings, job: Job, tell: Tell) -> None:
    """Bring the collection's indexes up to date: images were removed or put back."""
    with suppress(NoIndexYet):  # the last image was removed: there is nothing to prepare
        _update(database, settings, job, tell)


def do_index(database: Database, settings: Settings, job: Job, tell: Tell) -> None:
    """Make an index of a collection by an embedder, or bring the one there is up to date."""
    tell("loading", 0, 0)
    with calling_for_help(database) as call_for_help:
        prepare_index(
            database,
            job.collection_id,
            settings=settings,
            embedder=job.arguments["embedder"],
            progress=lambda done, total: tell("indexing", done, total),
            call_for_help=call_for_help,
        )


def do_help(database: Database, settings: Settings, job: Job, tell: Tell) -> None:
    """Take parts of a build that another worker is about, while nothing else waits."""

    def go_on() -> bool:
        with database.session() as session:
            return does_nothing_else_wait(session)

    tell("loading", 0, 0)
    help_build(
        database,
        job.arguments["index_id"],
        settings=settings,
        go_on=go_on,
        progress=lambda done, total: tell("indexing", done, total),
    )


def do_combine(database: Database, settings: Settings, job: Job, tell: Tell) -> None:
    """Make one index of those by two embedders."""
    tell("combining", 0, 0)
    combine_indexes(
        database,
        job.collection_id,
        job.arguments["first"],
        job.arguments["second"],
        settings=settings,
    )


def do_replay(database: Database, settings: Settings, job: Job, tell: Tell) -> None:
    """Play the runs of a replay that are not finished."""
    replay_id = job.arguments["replay_id"]
    with database.session() as session:
        replay = session.get(Replay, replay_id)
        if replay is None:
            return
        if replay.state == "running":
            replay.state = "waiting"  # whoever played it is gone: the job is ours alone

    def go_on() -> None:
        with database.session() as session:
            counts = session.get(Replay, replay_id)
        tell("playing", counts.done_count if counts else 0, counts.run_count if counts else 0)

    go_on()
    play_replay(database, replay_id, settings=settings, go_on=go_on)
    with database.session() as session:
        played = session.get(Replay, replay_id)
    if played is not None and played.state == "failed":
        raise RarefindError(played.problem or "It stopped before its end.")
    if played is not None and played.state in ("stopped", "waiting"):
        raise StoppedByPerson("It was stopped before its end. Finished runs are kept.")


def do_export(database: Database, settings: Settings, job: Job, tell: Tell) -> None:
    """Make the file of an export, and remove those that are kept no longer."""
    sweep_exports(database, settings, now=datetime.now(UTC))
    make_file(database, settings, job.arguments["export_id"], tell=tell)


def _update(database: Database, settings: Settings, job: Job, tell: Tell) -> None:
    tell("loading", 0, 0)
    with calling_for_help(database) as call_for_help:
        update_indexes(
            database,
            job.collection_id,
            settings=settings,
            embedder=job.arguments.get("embedder"),
            progress=lambda done, total: tell("indexing", done, total),
            call_for_help=call_for_help,
        )


CHORES: dict[str, Do] = {
    "import": do_import,
    "index": do_index,
    "update": do_update,
    "combine": do_combine,
    "replay": do_replay,
    "export": do_export,
    "help": do_help,
}
