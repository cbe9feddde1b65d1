"""The exports of a search as its page offers them: for whom, what is in them, and why not."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.answers import read_current_answers
from app.database import is_among
from app.deploying import may_folders_be_labels
from app.engine.numerals import plural, spaced
from app.errors import BadInput, DetailsMissing, NotFound
from app.exports.archives import pack, to_bytes
from app.exports.bundles import bundle_parts
from app.exports.camtrap_dp import camtrap_dp_parts
from app.exports.coco import write_coco
from app.exports.darwin_core import darwin_core_parts
from app.exports.details import TITLES, read_details
from app.exports.heads import write_head
from app.exports.pictures import list_pictures, write_pictures
from app.exports.rows import Format, write_export, write_states
from app.indexing import OpenIndexes
from app.metadata import list_columns
from app.seats import list_standing, list_tips
from app.sensitive import Sight, read_sight
from app.settings import Settings
from app.tables import Image, Person, Round, Search
from app.workers import Readers

CSV_TYPE = "text/csv; charset=utf-8"
JSON_TYPE = "application/json"
LINES_TYPE = "application/x-ndjson"
ZIP_TYPE = "application/zip"
LONG_IMAGES = 20_000  # with more, a row for each takes longer than anybody waits for a page


Told = Callable[[str, int, int], None]  # step, done, in all


@dataclass(frozen=True)
class Known:
    """What is known of a search's images and answers, in numbers."""

    images: int
    timed: int  # images with a time
    placed: int  # with a place
    both: int
    yes: int
    no: int
    unsure: int
    yes_both: int  # positives with time and place
    hides_folders: bool  # which may be known labels
    rounds: int  # submitted ones
    has_head: bool


@dataclass(frozen=True)
class Described:
    """What a format holds for one search; what is missing in it; why it can't be had now."""

    holds: str
    remarks: tuple[str, ...] = ()
    refusal: str | None = None
    wanted: tuple[str, ...] = ()  # fields of ExportDetails, for want of which it is refused


@dataclass(frozen=True)
class Writing:
    """What an export is written from."""

    session: Session
    search: Search
    indexes: OpenIndexes
    settings: Settings
    now: datetime
    known: Known
    told: Told
    sight: Sight  # what whoever exports is shown of places
    readers: Readers  # of photos and originals


@dataclass(frozen=True)
class ExportFormat:
    """One file that a search can be had as."""

    title: str
    whom: str  # who wants it, and for what
    media_type: str
    describe: Callable[[Search, Known], Described]
    write: Callable[[Writing], Iterable[bytes]]
    takes_long: Callable[[Known], bool] = lambda _: False


@dataclass(frozen=True)
class Offer:
    """What the page offers, in one form or two."""

    title: str
    whom: str
    names: list[str]  # of FORMATS
    described: Described
    takes_long: bool  # and so is made by a job


def list_offers(session: Session, search: Search) -> list[Offer]:
    """Everything that can be had, with what it holds for this search, or why it can't be had."""
    known = count_known(session, search)
    offers: dict[str, Offer] = {}
    for name, one in FORMATS.items():
        described = one.describe(search, known)
        new = Offer(one.title, one.whom, [], described, one.takes_long(known))
        offers.setdefault(one.title, new).names.append(name)
    return list(offers.values())


def write_file(
    session: Session,
    search: Search,
    name: str,
    *,
    indexes: OpenIndexes,
    settings: Settings,
    now: datetime,
    person: Person,
    readers: Readers,
    told: Told = lambda *_: None,
) -> Iterable[bytes]:
    """The bytes of one export, or a sentence that says why it can't be had.

    Formats that know how much is to do call `told` with a step, what is done of it and its whole.
    """
    known = check_offered(session, search, name)
    sight = read_sight(session, person, search.collection_id)
    return FORMATS[name].write(
        Writing(session, search, indexes, settings, now, known, told, sight, readers)
    )


def check_offered(session: Session, search: Search, name: str) -> Known:
    """What is known of a search that can be had as `name`, or a sentence that says why not."""
    if name not in FORMATS:
        raise NotFound(f"There is no such export. There are: {', '.join(FORMATS)}.")
    known = count_known(session, search)
    described = FORMATS[name].describe(search, known)
    if described.wanted:
        asked_for = "That is asked for once, on the search's page of exports."
        raise DetailsMissing(f"{described.refusal} {asked_for}", described.wanted)
    if described.refusal is not None:
        raise BadInput(described.refusal)
    return known


def count_known(session: Session, search: Search) -> Known:
    """The numbers that decide what can be had."""
    timed = Image.captured_at.is_not(None)
    placed = Image.latitude.is_not(None) & Image.longitude.is_not(None)
    answers = read_current_answers(session, search)
    values = list(answers.values())
    positives = [image_id for image_id, value in answers.items() if value == "yes"]

    own = (Image.collection_id == search.collection_id) & Image.removed_at.is_(None)
    images, timed_count, placed_count, both = session.execute(  # in one reading of a million
        select(
            func.count(),
            func.count().filter(timed),
            func.count().filter(placed),
            func.count().filter(timed & placed),
        ).where(own)
    ).one()
    yes_both = select(func.count()).where(own, timed, placed, is_among(Image.id, positives))
    made = session.get(Round, search.current_round_id)
    return Known(
        images=images,
        timed=timed_count,
        placed=placed_count,
        both=both,
        yes=values.count("yes"),
        no=values.count("no"),
        unsure=values.count("unsure"),
        yes_both=session.scalar(yes_both) or 0,
        hides_folders=may_folders_be_labels(session, search.collection_id),
        rounds=session.scalar(
            select(func.count()).where(
                Round.id.in_(select(list_standing(search.id).c.id)),
                Round.id.not_in(list_tips(search.id)),
            )
        )
        or 0,
        has_head=made is not None and made.head_bias is not None,
    )


# --- What each holds ----------------------------------------------------------------------------


def _describe_answers(_search: Search, known: Known) -> Described:
    answered = known.yes + known.no + known.unsure
    return Described(f"{plural(answered, 'answered image')}, with all that is known of them.")


def _describe_images(_search: Search, known: Known) -> Described:
    unseen = known.images - known.yes - known.no - known.unsure
    return Described(
        f"{plural(known.images, 'image')}, {spaced(unseen)} of them without an answer."
    )


def _describe_pictures(_search: Search, known: Known) -> Described:
    return Described(
        f"{plural(known.yes, 'picture')}, as large as the originals. Place, owner and notes that "
        "cameras write into files are taken out; the table has times, places, and what the tables "
        "brought to the collection say.",
        refusal=None if known.yes else "Nothing is answered yes yet.",
    )


def _describe_camtrap_dp(search: Search, known: Known) -> Described:
    refusal, wanted = (
        None,
        _list_wanted(search, "scientific_name", "utc_offset", "capture", "design"),
    )
    if not known.both:
        refusal = "It takes only images with a time and a place, and no image here has both."
        wanted = ()
    elif wanted:
        refusal = _tell_wanted(wanted)
    remarks = ["It is for animals before cameras that stay in one place, not for plants."]
    left_out = known.images - known.both
    if left_out and known.both:
        remarks.insert(
            0,
            f"{plural(left_out, 'image')} without time or place can't be in it, "
            f"{spaced(known.yes - known.yes_both)} of them answered yes.",
        )
    return Described(
        f"{plural(known.yes_both, 'animal observation')} among {plural(known.both, 'image')} "
        f"with time and place. {_tell_stay('A deployment is a recorded one', known)} A no is no "
        "observation: it does not say that an image is blank.",
        tuple(remarks),
        refusal,
        wanted,
    )


def _describe_darwin_core(search: Search, known: Known) -> Described:
    remarks = [
        f"{plural(known.images - count, 'image has', 'images have')} no {what}."
        for what, count in (("time", known.timed), ("place", known.placed))
        if count < known.images
    ]
    refusal, wanted = None, _list_wanted(search, "scientific_name")
    if not known.yes + known.no:
        refusal, wanted = "Nothing is answered yes or no yet.", ()
    elif wanted:
        refusal = _tell_wanted(wanted)
    return Described(
        f"{plural(known.yes, 'occurrence')}, and for each event how many of its images were looked "
        f"at. {_tell_stay('An event is a recorded deployment', known)} An absence is stated only "
        "for events all of whose images were answered no.",
        tuple(remarks),
        refusal,
        wanted,
    )


def _list_wanted(search: Search, *fields: str) -> tuple[str, ...]:
    """Those of some fields of the details that nobody has filled in yet."""
    details = read_details(search)
    return tuple(field for field in fields if not getattr(details, field))


def _tell_wanted(wanted: tuple[str, ...]) -> str:
    return f"It needs {_join([TITLES[field] for field in wanted])}."


def _tell_stay(what: str, known: Known) -> str:
    """What is taken for a camera's stay."""
    if known.hides_folders:
        return (
            f"{what}, else all images of one place: folders are not told apart, for they may be "
            "the known labels."
        )
    return f"{what}, else a first folder, at one place."


def _describe_coco(_search: Search, known: Known) -> Described:
    left_out = plural(known.unsure, "unsure answer is", "unsure answers are")
    return Described(
        f"{plural(known.yes, 'image')} with the label, {spaced(known.no)} without. The labels "
        "are of whole images: there are no boxes.",
        (f"{left_out} left out.",) if known.unsure else (),
        None if known.yes + known.no else "Nothing is answered yes or no yet.",
    )


def _describe_head(search: Search, known: Known) -> Described:
    return Described(
        f"Weights and threshold, for images prepared with {search.embedder}. It holds no image and "
        "no answer.",
        refusal=None
        if known.has_head
        else "Nothing is learnt yet: submit a round with a yes in it first.",
    )


def _describe_bundle(_search: Search, known: Known) -> Described:
    return Described(
        f"{plural(known.rounds, 'round')}, with every answer and step; example photos, but no "
        "image of the collection.",
        ("Whoever gets it sees who answered what. Second opinions are not in it.",),
    )


# --- How each is written ------------------------------------------------------------------------


def _write_answers(writing: Writing, file_format: Format) -> Iterable[bytes]:
    lines = write_export(
        writing.session,
        writing.search,
        writing.indexes,
        file_format=file_format,
        sight=writing.sight,
    )
    return to_bytes(lines)


def _write_images(writing: Writing, file_format: Format) -> Iterable[bytes]:
    lines = write_states(
        writing.session,
        writing.search,
        writing.indexes,
        file_format=file_format,
        sight=writing.sight,
    )
    return to_bytes(_count_lines(lines, writing))


def _count_lines(lines: Iterable[str], writing: Writing) -> Iterable[str]:
    """The same lines; with each it is said how many of the images are written."""
    total = writing.known.images
    for done, line in enumerate(lines):
        writing.told("listing", min(done, total), total)
        yield line


def _write_pictures(writing: Writing) -> Iterable[bytes]:
    given = [one.name for one in list_columns(writing.session, writing.search.collection_id)]
    pictures = list_pictures(writing.session, writing.search, given, sight=writing.sight)
    return write_pictures(pictures, given, writing.settings, writing.readers, writing.told)


def _write_camtrap_dp(writing: Writing) -> Iterable[bytes]:
    parts = camtrap_dp_parts(writing.session, writing.search, now=writing.now, sight=writing.sight)
    return pack(parts, compress=True)


def _write_darwin_core(writing: Writing) -> Iterable[bytes]:
    parts = darwin_core_parts(writing.session, writing.search, now=writing.now, sight=writing.sight)
    return pack(parts, compress=True)


def _write_coco(writing: Writing) -> Iterable[bytes]:
    return to_bytes(write_coco(writing.session, writing.search, now=writing.now))


def _write_head(writing: Writing) -> Iterable[bytes]:
    return to_bytes(write_head(writing.session, writing.search, now=writing.now))


def _write_bundle(writing: Writing) -> Iterable[bytes]:
    parts = bundle_parts(
        writing.session,
        writing.search,
        writing.indexes,
        settings=writing.settings,
        now=writing.now,
        sight=writing.sight,
        readers=writing.readers,
    )
    return pack(parts, compress=True)


def _join(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


FORMATS = {
    "answers.csv": ExportFormat(
        "Answers",
        "To look at in a spreadsheet or in R, or to hand to a program.",
        CSV_TYPE,
        _describe_answers,
        partial(_write_answers, file_format="csv"),
    ),
    "answers.jsonl": ExportFormat(
        "Answers",
        "To look at in a spreadsheet or in R, or to hand to a program.",
        LINES_TYPE,
        _describe_answers,
        partial(_write_answers, file_format="jsonl"),
    ),
    "images.csv": ExportFormat(
        "Every image",
        "To reckon with what was not looked at, too: one row for each image of the collection.",
        CSV_TYPE,
        _describe_images,
        partial(_write_images, file_format="csv"),
        takes_long=lambda known: known.images > LONG_IMAGES,
    ),
    "images.jsonl": ExportFormat(
        "Every image",
        "To reckon with what was not looked at, too: one row for each image of the collection.",
        LINES_TYPE,
        _describe_images,
        partial(_write_images, file_format="jsonl"),
        takes_long=lambda known: known.images > LONG_IMAGES,
    ),
    "pictures.zip": ExportFormat(
        "The pictures found",
        "To show, to print, to send: copies of the images answered yes, with a table beside them.",
        ZIP_TYPE,
        _describe_pictures,
        _write_pictures,
        takes_long=lambda _: True,
    ),
    "camtrap-dp.zip": ExportFormat(
        "Camtrap DP 1.0",
        "To hand results of camera traps to GBIF, or to other tools for camera traps.",
        ZIP_TYPE,
        _describe_camtrap_dp,
        _write_camtrap_dp,
        takes_long=lambda _: True,
    ),
    "darwin-core.zip": ExportFormat(
        "Darwin Core archive",
        "To publish occurrences at GBIF or in the portal of a museum.",
        ZIP_TYPE,
        _describe_darwin_core,
        _write_darwin_core,
        takes_long=lambda _: True,
    ),
    "coco.json": ExportFormat(
        "COCO labels",
        "To train or test another model on your answers.",
        JSON_TYPE,
        _describe_coco,
        _write_coco,
    ),
    "head.json": ExportFormat(
        "What the search has learnt",
        "To score another collection for the same target, with “rarefind apply”.",
        JSON_TYPE,
        _describe_head,
        _write_head,
    ),
    "search.rarefind": ExportFormat(
        "The whole search",
        "To keep it, or to go on with it on another machine that has the same images.",
        ZIP_TYPE,
        _describe_bundle,
        _write_bundle,
        takes_long=lambda _: True,
    ),
}
