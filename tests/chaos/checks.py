"""What must hold when the killing pauses and all work has ended. Each gives what is not so."""

import hashlib
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from sqlalchemy import func, select, text

from app.answers import read_current_answers
from app.engine.index import open_index
from app.exports.bundles import repeat_rounds
from app.exports.files import export_path
from app.indexing import OpenIndexes
from app.reading import THUMBNAIL_SIDES, thumbnail_path
from app.tables import (
    Action,
    Answer,
    Collection,
    ExportFile,
    Image,
    ImageIndex,
    Import,
    Job,
    Person,
    Photo,
    Search,
    Upload,
)
from tests.chaos.fleet import Fleet
from tests.chaos.people import IN_THE_BIN, Hunt, Ledger, draw_image

PATIENCE_S = 240
EVERY_ROUND = 1_000_000
GIVING = ("answer", "correct", "submit")


def await_end_of_work(fleet: Fleet) -> Iterator[str]:
    """Until no job waits or runs, and the queue is empty; or what does not end."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        with fleet.database.session() as session:
            left = session.scalars(select(Job).where(Job.state.in_(("waiting", "running")))).all()
            queued = session.scalar(text("SELECT count(*) FROM procrastinate_jobs"))
        if not left and not queued:
            return
        if time.monotonic() > deadline:
            states = [(job.id, job.kind, job.state, job.step, job.attempts) for job in left]
            yield f"Work does not end: {states}, and {queued} places in the queue"
            return
        fleet.start_again_what_ended()
        time.sleep(0.2)


def check_jobs(fleet: Fleet) -> Iterator[str]:
    """Every job is done, and no import or build is left as if it still went on."""
    with fleet.database.session() as session:
        for job in session.scalars(select(Job).where(Job.state != "done")):
            if job.kind == "export" and IN_THE_BIN in (job.problem or ""):
                continue  # somebody deleted the search before its file was made
            yield f"Job {job.id}, {job.kind}, is {job.state}: {job.problem}"
        for made in session.scalars(select(Import).filter_by(state="running")):
            yield f"Import {made.id} is said to run"
        for index in session.scalars(select(ImageIndex).filter_by(state="building")):
            yield f"Index {index.id} is said to be built"
        unfinished = session.scalars(select(Upload.id).where(Upload.state != "done")).all()
        if unfinished:
            yield f"Uploads {unfinished} have no end"


def check_answers(fleet: Fleet, hunts: list[Hunt]) -> Iterator[str]:
    """What people were told was saved is there once; nothing else is; and it stands."""
    with fleet.database.session() as session:
        people = {person.name: person.id for person in session.scalars(select(Person))}
        names = Counter(session.scalars(select(Search.target_name)))
        yield from (f"Search “{name}” is there {n} times" for name, n in names.items() if n > 1)
        known = set(session.scalars(select(Search.id)))
        for hunt in hunts:
            if hunt.search_id not in known:
                yield f"Search {hunt.search_id} of {hunt.who} is gone"
                continue
            yield from _check_hunt(session, hunt, people[hunt.who])
        yield from _check_standing(session, hunts)


def _check_hunt(session, hunt: Hunt, person_id: int) -> Iterator[str]:
    where = f"search {hunt.search_id} of {hunt.who}"
    own = Action.search_id == hunt.search_id, Action.person_id == person_id
    keys = Counter(session.scalars(select(Action.gesture_key).where(*own)))
    for gesture in hunt.gestures:
        count = keys.pop(gesture.key, 0)
        if gesture.is_told and count != 1:
            yield f"{where}: {gesture.key} was told and is there {count} times: {gesture}"
        elif not gesture.is_told and count > gesture.is_doubtful:
            yield f"{where}: {gesture.key} was refused and is there {count} times"
        elif not gesture.is_told and count:
            hunt.follow(gesture)  # saved before its search went to the bin
    keys.pop(None, None)  # what came along with a submit, and examples
    if keys:
        yield f"{where}: nobody sent {keys}"
    given = session.execute(
        select(Answer.image_id, Answer.value)
        .join(Action, Action.id == Answer.action_id)
        .where(*own, Action.kind.in_(GIVING))
    )
    stored = Counter((image_id, value) for image_id, value in given)
    sent = Counter(
        (image_id, value or "cleared")
        for gesture in hunt.gestures
        if keys_has(session, gesture)
        for image_id, value in (gesture.values | dict.fromkeys(gesture.rest, "no")).items()
    )
    if stored != sent:
        yield f"{where}: sent and not there {sent - stored}, there and not sent {stored - sent}"


def keys_has(session, gesture) -> bool:
    """Whether a gesture was saved."""
    if gesture.is_told:
        return True
    query = select(Action.id).filter_by(search_id=gesture.search_id, gesture_key=gesture.key)
    return session.scalar(query) is not None


def _check_standing(session, hunts: list[Hunt]) -> Iterator[str]:
    by_search: dict[int, list[Hunt]] = {}
    for hunt in hunts:
        by_search.setdefault(hunt.search_id, []).append(hunt)
    for search_id, own in by_search.items():
        search = session.get_one(Search, search_id)
        stands = read_current_answers(session, search, with_removed=True)
        # Whose answer stands on an image that several answered, their undoing decides.
        by_image = Counter(one for hunt in own for one in hunt.list_touched())
        several = {one for one, people in by_image.items() if people > 1}
        told = {one: value for hunt in own for one, value in hunt.standing().items()}
        told = {one: value for one, value in told.items() if one not in several}
        stands = {one: value for one, value in stands.items() if one not in several}
        if stands != told:
            apart = {one: (told.get(one), stands.get(one)) for one in told.keys() | stands.keys()}
            apart = {one: pair for one, pair in apart.items() if pair[0] != pair[1]}
            yield f"Search {search_id}: told and standing answers differ: {apart}"


def check_indexes(fleet: Fleet, vectors: dict[str, np.ndarray]) -> Iterator[str]:
    """Each ready index opens, with the vectors of a build that nothing disturbed."""
    with fleet.database.session() as session:
        for row in session.scalars(select(ImageIndex).where(ImageIndex.state == "ready")):
            shas = dict(
                session.execute(
                    select(Image.id, Image.sha256).filter_by(collection_id=row.collection_id)
                ).all()
            )
            try:
                index = open_index(fleet.home / "indexes" / str(row.id), verify=True)
            except Exception as error:
                yield f"Index {row.id} does not open: {error!r}"
                continue
            wanted = np.stack([vectors[shas[int(one)]] for one in index.image_ids])
            apart = float(np.abs(wanted - index.vectors).max())
            if apart > 1e-5:
                yield f"Index {row.id}: vectors are {apart} apart from undisturbed ones"
        for collection in session.scalars(select(Collection)):
            newest = session.scalar(
                select(ImageIndex)
                .filter_by(collection_id=collection.id, state="ready")
                .order_by(ImageIndex.id.desc())
                .limit(1)
            )
            here = set(
                session.scalars(
                    select(Image.id).filter_by(collection_id=collection.id, removed_at=None)
                )
            )
            if newest is None:
                yield f"Collection {collection.id} has no index"
                continue
            held = open_index(fleet.home / "indexes" / str(newest.id)).image_ids.tolist()
            if len(held) != len(set(held)) or set(held) != here:
                yield f"Collection {collection.id}: its newest index holds other images"


def check_images(fleet: Fleet, sent: dict[int, set[int]], shas: dict[int, str]) -> Iterator[str]:
    """Every image that was sent is there once, and no other."""
    with fleet.database.session() as session:
        for collection_id, numbers in sent.items():
            query = select(Image.sha256).filter_by(collection_id=collection_id)
            stored = Counter(session.scalars(query))
            wanted = Counter(shas[number] for number in numbers)
            if stored != wanted:
                yield (
                    f"Collection {collection_id}: {len(wanted - stored)} images are missing, "
                    f"{len(stored - wanted)} nobody sent"
                )


def check_rounds(fleet: Fleet, searches: set[int] | None = None) -> Iterator[str]:
    """Each search proposes its stored rounds again, image for image."""
    indexes = OpenIndexes(fleet.settings)
    with fleet.database.session() as session:
        query = (
            select(Search) if searches is None else select(Search).where(Search.id.in_(searches))
        )
        for search in session.scalars(query):
            repeated = repeat_rounds(session, search, indexes, at_most=EVERY_ROUND)
            if repeated.same != repeated.total:
                yield f"Search {search.id}: {repeated.same} of {repeated.total} rounds repeat"


def check_files(fleet: Fleet) -> Iterator[str]:
    """Each row has its files, and each file its row; nothing half-written is left."""
    home = fleet.home
    with fleet.database.session() as session:
        images = session.scalars(select(Image)).all()
        expected: dict[str, set[Path]] = {
            "originals": {Path(one.file) for one in images if home in Path(one.file).parents},
            "thumbnails": {
                thumbnail_path(home, one.sha256, one.width, one.height, side)
                for one in images
                for side in THUMBNAIL_SIDES
            },
            "photos": {
                home / "photos" / sha256[:2] / sha256
                for sha256 in session.scalars(select(Photo.sha256))
            },
            "exports": {
                export_path(fleet.settings, one)
                for one in session.scalars(select(ExportFile))
                if one.ready_at is not None
            },
            "uploads": set(),
        }
        ready = {
            str(one) for one in session.scalars(select(ImageIndex.id).filter_by(state="ready"))
        }
        outside = [Path(one.file) for one in images if home not in Path(one.file).parents]
    for part, files in expected.items():
        there = {path for path in (home / part).rglob("*") if path.is_file()}
        if part == "exports":
            # A worker that lost its job to another, and was killed while it still wrote, leaves
            # one after the other has cleared up: the night's sweep takes it, as a test of it says.
            made = {path.parent for path in files}
            there = {one for one in there if one.suffix != ".part" or one.parent not in made}
        yield from _compare(part, files, there)
    folders = {path.name for path in (home / "indexes").glob("*")}
    yield from (f"index {one} has no folder" for one in sorted(ready - folders))
    yield from (f"indexes/{one} is of no ready index" for one in sorted(folders - ready))
    yield from (f"The original {one} is gone" for one in outside if not one.is_file())


def _compare(part: str, files: set[Path], there: set[Path]) -> Iterator[str]:
    for what, some in (("missing", files - there), ("nobody's", there - files)):
        if some:
            yield f"{part}: {len(some)} {what}, such as {sorted(some)[:3]}"


def count_rows(fleet: Fleet) -> dict[str, int]:
    """How much there was to lose."""
    with fleet.database.session() as session:
        return {
            kind.__tablename__: session.scalar(select(func.count()).select_from(kind)) or 0
            for kind in (Collection, Image, ImageIndex, Search, Action, Answer, Job)
        }


def hash_image(number: int) -> str:
    """The content of an image by its number."""
    return hashlib.sha256(draw_image(number)).hexdigest()


def summarise(ledger: Ledger) -> str:
    """What people were told."""
    return ", ".join(f"{count:,} {what}" for what, count in sorted(ledger.told.items()))
