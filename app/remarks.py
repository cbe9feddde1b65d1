"""Remarks: the notes and tags that people put on images and on searches.

Both are only ever added to: the newest event of a note is what it says, or that it was removed; the
newest event of a tag says whether it is on. Those on an image are the collection's: whoever sees
that reads them, and whoever may search in it writes them. Those on a search are its members'.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import ColumnElement, Select, Subquery, func, insert, select
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import InstrumentedAttribute, Session

from app.access import check_may_answer, sees_search
from app.database import is_among
from app.errors import BadInput, NotAllowed, NotFound
from app.security import refuse_viewer
from app.tables import Collection, Image, NoteEvent, Person, Search, TagEvent

MAX_TAG_LENGTH = 40
MAX_TAGS = 20  # on one image or search
MAX_NOTE_LENGTH = 2_000
MOST_OFFERED = 200  # tags in use, the most used first
MOST_AT_ONCE = 1_000  # images that are tagged by one request

About = Image | Search


@dataclass(frozen=True)
class Note:
    """A note as it stands."""

    note_id: int
    text: str
    person_id: int
    who: str
    at: datetime
    changed_at: datetime | None  # null where it stands as it was written


@dataclass(frozen=True)
class Remarks:
    """What stands on one image or search: tags by the alphabet, notes in the order of writing."""

    tags: list[str] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.tags or self.notes)


# --- Reading --------------------------------------------------------------------------------------


def read_remarks(session: Session, about: About) -> Remarks:
    """The tags and notes of one image or search."""
    found = _read(session, _column_of(about), [about.id])
    return found.get(about.id, Remarks())


def read_remarks_of_images(session: Session, image_ids: Sequence[int]) -> dict[int, Remarks]:
    """The tags and notes of those images that have any."""
    return _read(session, "image_id", image_ids)


def read_remarks_of_searches(session: Session, search_ids: Sequence[int]) -> dict[int, Remarks]:
    """The tags and notes of those searches that have any."""
    return _read(session, "search_id", search_ids)


def list_image_tags(session: Session, collection_id: int) -> list[tuple[str, int]]:
    """The tags in use in a collection, with how many images have each; the most used first."""
    # The events of its own images alone: those of other collections need not be sorted.
    newest = (
        select(TagEvent.tag, TagEvent.is_on)
        .join(Image, Image.id == TagEvent.image_id)
        .where(Image.collection_id == collection_id, Image.removed_at.is_(None))
        .order_by(TagEvent.tag, TagEvent.image_id, TagEvent.id.desc())
        .ext(distinct_on(TagEvent.tag, TagEvent.image_id))
        .subquery()
    )
    query = select(newest.c.tag, func.count()).where(newest.c.is_on)
    return _count_tags(session, query, newest)


def list_search_tags(session: Session, person: Person) -> list[tuple[str, int]]:
    """The tags in use on searches that a person sees, the most used first."""
    tags = standing_tags()
    query = select(tags.c.tag, func.count()).join(Search, Search.id == tags.c.search_id)
    return _count_tags(session, query.where(sees_search(person)), tags)


def has_image_notes(session: Session, collection_id: int) -> bool:
    """Whether a note stands on any image of a collection."""
    notes = standing_notes()
    query = select(notes.c.id).join(Image, Image.id == notes.c.image_id)
    query = query.where(Image.collection_id == collection_id, Image.removed_at.is_(None))
    return session.scalar(query.limit(1)) is not None


def is_remarked(text: str) -> ColumnElement[bool]:
    """The condition that a search has a tag or note with this text in it."""
    tags, notes = standing_tags(), standing_notes()
    tagged = select(tags.c.search_id).where(tags.c.tag.icontains(text, autoescape=True))
    noted = select(notes.c.search_id).where(notes.c.text.icontains(text, autoescape=True))
    return Search.id.in_(tagged.union(noted))


def list_standing_tags(
    session: Session, search: Search, image_ids: Sequence[int]
) -> list[TagEvent]:
    """Who put on when what is on a search, and on some images."""
    wanted: list[int | None] = list(image_ids)
    newest = (
        select(TagEvent)
        .where((TagEvent.search_id == search.id) | is_among(TagEvent.image_id, wanted))
        .order_by(TagEvent.tag, TagEvent.image_id, TagEvent.search_id, TagEvent.id.desc())
        .ext(distinct_on(TagEvent.tag, TagEvent.image_id, TagEvent.search_id))
    )
    return [event for event in session.scalars(newest) if event.is_on]


def standing_tags(among: list[str] | None = None) -> Subquery:
    """The tags that are on, or those of `among`: rows of image_id, search_id and tag."""
    query = select(TagEvent.image_id, TagEvent.search_id, TagEvent.tag, TagEvent.is_on)
    if among is not None:
        query = query.where(TagEvent.tag.in_(among))
    newest = (
        query.order_by(TagEvent.tag, TagEvent.image_id, TagEvent.search_id, TagEvent.id.desc())
        .ext(distinct_on(TagEvent.tag, TagEvent.image_id, TagEvent.search_id))
        .subquery()
    )
    return select(newest).where(newest.c.is_on).subquery()


def standing_notes() -> Subquery:
    """The notes that stand, by their newest event: also its note's number, as `first_id`."""
    first_id = func.coalesce(NoteEvent.note_id, NoteEvent.id)
    newest = (
        select(NoteEvent, first_id.label("first_id"))
        .order_by(first_id, NoteEvent.id.desc())
        .ext(distinct_on(first_id))
        .subquery()
    )
    return select(newest).where(newest.c.text.is_not(None)).subquery()


# --- Tags -----------------------------------------------------------------------------------------


def split_tags(text: str) -> list[str]:
    """Tags as people type them, several between commas, as they are kept: in small letters."""
    parts = (" ".join(part.split()).lower() for part in text.replace(";", ",").split(","))
    tags = list(dict.fromkeys(part for part in parts if part))
    for tag in tags:
        if len(tag) > MAX_TAG_LENGTH:
            raise BadInput(
                f"A tag is a short word, of {MAX_TAG_LENGTH} characters at most. For more, write a "
                "note."
            )
        if not tag.isprintable():
            raise BadInput("A tag holds a character that can't be kept.")
    return tags


def add_tags(session: Session, person: Person, about: About, text: str) -> list[str]:
    """Put tags on an image or a search; those that are there stay. The tags that `text` names."""
    _check_may_write(session, person, about)
    tags = split_tags(text)
    if not tags:
        raise BadInput("Type a tag first: a short word, or several between commas.")
    there = read_remarks(session, about).tags
    new = [tag for tag in tags if tag not in there]
    if len(there) + len(new) > MAX_TAGS:
        raise BadInput(f"There is room for {MAX_TAGS} tags. Take one off first.")
    _add_tag_events(session, person, _column_of(about), [about.id], new, is_on=True)
    return tags


def take_tag_off(session: Session, person: Person, about: About, tag: str) -> None:
    """Take a tag off an image or a search; one that is not there is no error."""
    _check_may_write(session, person, about)
    if tag in read_remarks(session, about).tags:
        _add_tag_events(session, person, _column_of(about), [about.id], [tag], is_on=False)


def tag_images(
    session: Session,
    person: Person,
    collection: Collection,
    image_ids: Iterable[int],
    text: str,
    *,
    is_on: bool,
) -> dict[str, list[int]]:
    """Put tags on many images of a collection, or take them off; for each, the images changed."""
    refuse_viewer(person)
    wanted = sorted(set(image_ids))
    tags = split_tags(text)
    if not tags:
        raise BadInput("Type a tag first: a short word, or several between commas.")
    if not wanted:
        raise BadInput("Select the images first.")
    if len(wanted) > MOST_AT_ONCE:
        raise BadInput(f"At most {MOST_AT_ONCE:,} images can be tagged at once.")
    known = session.scalars(
        select(Image.id).where(
            Image.collection_id == collection.id,
            Image.removed_at.is_(None),
            is_among(Image.id, wanted),
        )
    ).all()
    if len(known) != len(wanted):
        raise NotFound("There is no such image in this collection.")
    there = read_remarks_of_images(session, wanted)
    changed: dict[str, list[int]] = {}
    for tag in tags:
        changed[tag] = [one for one in wanted if (tag in there.get(one, Remarks()).tags) != is_on]
        _add_tag_events(session, person, "image_id", changed[tag], [tag], is_on=is_on)
    if is_on and any(
        len(one.tags) > MAX_TAGS for one in read_remarks_of_images(session, wanted).values()
    ):
        raise BadInput(f"One of these images has {MAX_TAGS} tags already. Take one off first.")
    return changed


# --- Notes ----------------------------------------------------------------------------------------


def write_note(session: Session, person: Person, about: About, text: str) -> int:
    """Write a note on an image or a search; its number."""
    _check_may_write(session, person, about)
    event = NoteEvent(**{_column_of(about): about.id}, person_id=person.id, text=_check_note(text))
    session.add(event)
    session.flush()
    return event.id


def change_note(session: Session, person: Person, about: About, note_id: int, text: str) -> None:
    """Say something else in a note of one's own; what it said before is kept."""
    _check_may_write(session, person, about)
    events = _get_events(session, about, note_id)
    if events[0].person_id != person.id:
        raise NotAllowed("Only who wrote a note changes it. Write one of your own beside it.")
    if events[-1].text is None:
        raise NotFound("That note was removed. Load the page again.")
    checked = _check_note(text)
    if checked != events[-1].text:
        _add_note_event(session, person, about, note_id, checked)


def remove_note(session: Session, person: Person, about: About, note_id: int) -> None:
    """Remove a note: one's own, or any on what is one's own."""
    events = _get_removable(session, person, about, note_id)
    if events[-1].text is not None:
        _add_note_event(session, person, about, note_id, None)


def put_note_back(session: Session, person: Person, about: About, note_id: int) -> None:
    """Let a removed note stand again, with what it said."""
    events = _get_removable(session, person, about, note_id)
    if events[-1].text is None:
        said = next(one.text for one in reversed(events) if one.text is not None)
        _add_note_event(session, person, about, note_id, said)


def may_remove(person: Person, about: About, note: Note, collection: Collection) -> bool:
    """Whether a person who may write here may remove a note."""
    if note.person_id == person.id:
        return True
    if isinstance(about, Search):
        return about.owner_id == person.id
    return person.role == "admin" or collection.made_by_id == person.id


# --- What all of them use -------------------------------------------------------------------------


def _read(session: Session, column: str, ids: Sequence[int]) -> dict[int, Remarks]:
    """By what they are about; asked by number, so that only their own events are looked at."""
    found: dict[int, Remarks] = defaultdict(Remarks)
    if not ids:
        return found
    about_id: InstrumentedAttribute[int] = getattr(TagEvent, column)
    newest = (
        select(about_id, TagEvent.tag, TagEvent.is_on)
        .where(is_among(about_id, list(ids)))
        .order_by(about_id, TagEvent.tag, TagEvent.id.desc())
        .ext(distinct_on(about_id, TagEvent.tag))
    )
    for own_id, tag, is_on in session.execute(newest):
        if is_on:
            found[own_id].tags.append(tag)
    about_id = getattr(NoteEvent, column)
    events: dict[int, list[tuple[NoteEvent, str]]] = defaultdict(list)
    query = select(NoteEvent, Person.name).join(Person, Person.id == NoteEvent.person_id)
    for event, name in session.execute(
        query.where(is_among(about_id, list(ids))).order_by(NoteEvent.id)
    ):
        events[event.note_id or event.id].append((event, name))
    for note_id, changes in events.items():
        first, name = changes[0]
        last, _ = changes[-1]
        if last.text is not None:
            changed_at = last.at if last.text != first.text else None
            note = Note(note_id, last.text, first.person_id, name, first.at, changed_at)
            found[getattr(first, column)].notes.append(note)
    return dict(found)


def _count_tags(session: Session, query: Select[str, int], tags: Subquery) -> list[tuple[str, int]]:
    rows = session.execute(
        query.group_by(tags.c.tag).order_by(func.count().desc(), tags.c.tag).limit(MOST_OFFERED)
    )
    return [(tag, count) for tag, count in rows]


def _column_of(about: About) -> str:
    return "image_id" if isinstance(about, Image) else "search_id"


def _check_may_write(session: Session, person: Person, about: About) -> None:
    if isinstance(about, Search):
        check_may_answer(session, person, about)
    else:
        refuse_viewer(person)


def _check_note(text: str) -> str:
    text = text.replace("\r\n", "\n").strip()
    if not text:
        raise BadInput("Write the note first.")
    if "\x00" in text:  # PostgreSQL's text cannot hold it
        raise BadInput("The note holds a character that can't be kept.")
    if len(text) > MAX_NOTE_LENGTH:
        raise BadInput(f"The note is longer than {MAX_NOTE_LENGTH:,} characters. Make two of it.")
    return text


def _get_events(session: Session, about: About, note_id: int) -> list[NoteEvent]:
    """All that was ever done to a note, in order."""
    own = (NoteEvent.id == note_id) | (NoteEvent.note_id == note_id)
    events = session.scalars(
        select(NoteEvent)
        .where(own, getattr(NoteEvent, _column_of(about)) == about.id)
        .order_by(NoteEvent.id)
        .with_for_update()
    ).all()
    if not events or events[0].note_id is not None:
        raise NotFound("There is no such note here.")
    return list(events)


def _get_removable(session: Session, person: Person, about: About, note_id: int) -> list[NoteEvent]:
    _check_may_write(session, person, about)
    events = _get_events(session, about, note_id)
    first = events[0]
    note = Note(note_id, first.text or "", first.person_id, "", first.at, None)
    collection = session.get_one(Collection, about.collection_id)
    if not may_remove(person, about, note, collection):
        raise NotAllowed("Only who wrote a note, or whom this belongs to, removes it.")
    return events


def _add_note_event(
    session: Session, person: Person, about: About, note_id: int, text: str | None
) -> None:
    session.add(
        NoteEvent(**{_column_of(about): about.id}, note_id=note_id, person_id=person.id, text=text)
    )
    session.flush()


def _add_tag_events(
    session: Session,
    person: Person,
    column: str,
    ids: Sequence[int],
    tags: Sequence[str],
    *,
    is_on: bool,
) -> None:
    rows = [
        {column: one, "tag": tag, "is_on": is_on, "person_id": person.id}
        for one in ids
        for tag in tags
    ]
    if rows:
        session.execute(insert(TagEvent), rows)
