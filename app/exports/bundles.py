"""A whole search as one file: every round, answer and step, to be imported beside the same images.

The file is a zip of `search.json` and copies of the example photos. Numbers in it are those of the
database it came from; an import gives everything new ones, in the same order. Images are told by
their SHA-256. Rounds are repeatable there, since each names the index it came from, row by row, and
an import lays the vectors of the collection out in that order. Leases are not in it, which end with
a visit, nor are second opinions, which are about a search and no step of it.
"""

import io
import zipfile
import zlib
from collections.abc import Collection as Several
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import numpy as np
from pydantic import ValidationError
from sqlalchemy import case, func, insert, select, update
from sqlalchemy.exc import DataError, IntegrityError
from sqlalchemy.orm import Session

from app.adjusting import (
    MAX_COUNTS_LENGTH,
    MAX_NAME_LENGTH,
    check_reasons,
    check_round_size,
    check_strategy,
    check_text,
    filter_search,
    read_search_filter,
)
from app.cards import MAX_CARD_IMAGES
from app.database import is_among
from app.errors import BadInput
from app.events import Rule, add_grouping, read_events
from app.exports.archives import Parts
from app.exports.details import read_details, save_details
from app.exports.kept import (
    KeptAction,
    KeptAnswer,
    KeptCardImage,
    KeptDetour,
    KeptExample,
    KeptGoal,
    KeptGrouping,
    KeptImage,
    KeptIndex,
    KeptNote,
    KeptPlace,
    KeptPool,
    KeptRound,
    KeptSearch,
    KeptSeat,
    KeptTag,
    KeptVector,
    Part,
)
from app.exports.rows import read_naming
from app.exports.stripping import NotCopied, copy_without_metadata
from app.filtering import GRID, Filter, cover_filter, read_filter
from app.importing import photo_path, read_photo
from app.indexing import OpenIndexes, discard_files, lay_out_past
from app.reading import ReadImage
from app.remarks import Remarks, list_standing_tags, read_remarks, read_remarks_of_images
from app.rounds import repeat_round
from app.seats import list_seats
from app.security import same_name
from app.sensitive import Sight, find_people_images
from app.settings import Settings
from app.steps import read_steps
from app.store import fetch_file
from app.tables import (
    Action,
    Answer,
    CardImage,
    ChosenGoal,
    Collection,
    Detour,
    Example,
    ExampleVector,
    Grouping,
    Image,
    ImageIndex,
    NoteEvent,
    Person,
    Photo,
    Pool,
    Round,
    RoundImage,
    Search,
    Seat,
    Table,
    TagEvent,
)
from app.workers import Readers

SEARCH_FILE = "search.json"
ENDING = ".rarefind"
MOST_BYTES = 400_000_000  # of search.json: some hundred thousand images
FROM_A_FILE = " (from a file)"  # after the name of somebody whose answers were imported
SHOWS_PEOPLE = "an image that shows people"
NAMED = 3  # of the images that are not in a collection


@dataclass(frozen=True)
class Repeated:
    """How stored rounds came out when they were proposed again."""

    tried: int
    same: int
    total: int  # rounds of the search


def bundle_parts(
    session: Session,
    search: Search,
    indexes: OpenIndexes,
    *,
    settings: Settings,
    now: datetime,
    sight: Sight,
    readers: Readers,
) -> Parts:
    """The files of the bundle."""
    kept, photos = keep_search(session, search, indexes, now=now, sight=sight)
    yield SEARCH_FILE, [kept.model_dump_json()]
    for number, photo in photos.items():
        path = photo_path(photo.sha256, settings=settings)
        fetch_file(settings, path)
        try:
            copied = copy_without_metadata(
                path, max_megapixels=settings.max_megapixels, readers=readers
            )
        except NotCopied as problem:
            raise BadInput(
                f"The example photo {photo.name} can't be exported: {problem}."
            ) from problem
        yield f"photos/{number}", [copied]


def keep_search(
    session: Session, search: Search, indexes: OpenIndexes, *, now: datetime, sight: Sight
) -> tuple[KeptSearch, dict[int, Photo]]:
    """The search as its file holds it, and the photos by the number of their example."""
    own = {"search_id": search.id}
    rounds = session.scalars(select(Round).filter_by(**own).order_by(Round.id)).all()
    detours = session.scalars(select(Detour).filter_by(**own).order_by(Detour.id)).all()
    actions = session.scalars(select(Action).filter_by(**own).order_by(Action.id)).all()
    answers = session.scalars(select(Answer).filter_by(**own).order_by(Answer.id)).all()
    goals = session.scalars(select(ChosenGoal).filter_by(**own).order_by(ChosenGoal.id)).all()
    examples = session.scalars(select(Example).filter_by(**own).order_by(Example.id)).all()
    card = session.scalars(select(CardImage).filter_by(**own).order_by(CardImage.image_id)).all()
    names = {one.id: one.name for one in session.scalars(select(Person))}
    used = {made.index_id for made in rounds} | {one.other_index_id for one in detours} - {None}
    kept_indexes = []
    for row in session.scalars(select(ImageIndex).where(ImageIndex.id.in_(used))):
        image_ids = indexes.get(row).image_ids.tolist()
        kept_indexes.append(
            KeptIndex(id=row.id, embedder=row.embedder, revision=row.revision, image_ids=image_ids)
        )
    image_ids = {image_id for index in kept_indexes for image_id in index.image_ids}
    image_ids |= {answer.image_id for answer in answers}
    image_ids |= {answer.with_image_id for answer in answers if answer.with_image_id is not None}
    image_ids |= {example.image_id for example in examples if example.image_id is not None}
    image_ids |= {picture.image_id for picture in card}
    for made in rounds:
        image_ids.update(made.left_out_ids or (), made.leased_ids or ())
    pools = keep_pools(session, search, image_ids, sight)
    groupings = keep_groupings(session, {made.grouping_id for made in rounds} - {None}, image_ids)
    images = session.execute(
        select(
            Image.id,
            Image.sha256,
            # Names help whoever lacks an image; those of images of people are nobody's.
            case((Image.shows_people.is_(True), SHOWS_PEOPLE), else_=Image.path).label("path"),
        )
        .where(is_among(Image.id, sorted(image_ids)))
        .order_by(Image.id)
    )
    naming = read_naming(session, search.collection_id)
    # What is written on images that the search says something of; the others are not its business.
    said_of = {one.image_id for one in answers} | {one.image_id for one in card}
    about = sorted(said_of - find_people_images(session, sorted(said_of)))
    remarks: list[tuple[int | None, Remarks]] = [(None, read_remarks(session, search))]
    remarks += read_remarks_of_images(session, about).items()
    vectors: dict[int, list[KeptVector]] = {}
    for vector in session.scalars(
        select(ExampleVector).where(ExampleVector.example_id.in_([one.id for one in examples]))
    ):
        vectors.setdefault(vector.example_id, []).append(
            KeptVector.model_construct(
                revision=vector.revision,
                vector=vector.vector,
                after_round_id=vector.after_round_id,
            )
        )
    kept = KeptSearch.model_construct(
        exported_at=now,
        collection=search.collection.name,
        target_name=search.target_name,
        counts_as_yes=search.counts_as_yes,
        counts_as_no=search.counts_as_no,
        no_reasons=search.no_reasons,
        learns_from_poor=search.learns_from_poor,
        learns_from_events=search.learns_from_events,
        embedder=search.embedder,
        strategy=search.strategy,
        round_size=search.round_size,
        seed=search.seed,
        made_at=search.made_at,
        details=read_details(search),
        images=[
            KeptImage.model_construct(
                id=image.id, sha256=image.sha256, path=naming.path(image.path)
            )
            for image in images
        ],
        indexes=kept_indexes,
        groupings=groupings,
        filter=list(cover_filter(read_search_filter(search), sight).pairs),
        pools=pools,
        examples=[
            KeptExample.model_construct(
                id=one.id,
                image_id=one.image_id,
                words=one.words,
                photo=one.photo.name if one.photo else None,
                vectors=vectors.get(one.id, []),
            )
            for one in examples
        ],
        card=[keep(KeptCardImage, picture) for picture in card],
        rounds=[
            keep(
                KeptRound,
                made,
                images=[keep(KeptPlace, place) for place in made.images],
            )
            for made in rounds
        ],
        seats=[
            keep(KeptSeat, seat, person=names[seat.person_id])
            for seat in list_seats(session, search)
            if seat.round_id is not None
        ],
        detours=[
            keep(
                KeptDetour,
                one,
                person=names[one.person_id],
                planned=(
                    None
                    if one.planned_image_ids is None
                    else np.frombuffer(one.planned_image_ids, dtype="<i8").tolist()
                ),
            )
            for one in detours
        ],
        actions=[keep(KeptAction, one, person=names[one.person_id]) for one in actions],
        answers=[keep(KeptAnswer, one) for one in answers],
        goals=[keep(KeptGoal, one, person=names[one.person_id]) for one in goals],
        notes=[
            KeptNote.model_construct(image_id=image_id, person=note.who, text=note.text, at=note.at)
            for image_id, written in remarks
            for note in written.notes
        ],
        tags=[
            KeptTag.model_construct(
                image_id=one.image_id, person=names[one.person_id], tag=one.tag, at=one.at
            )
            for one in list_standing_tags(session, search, about)
        ],
    )
    return kept, {one.id: one.photo for one in examples if one.photo is not None}


def keep_groupings(
    session: Session, grouping_ids: Several[int | None], image_ids: Several[int]
) -> list[KeptGrouping]:
    """Groupings as the file holds them, of the images that are in it."""
    known = np.array(sorted(image_ids), np.int64)
    kept = []
    for row in session.scalars(select(Grouping).where(Grouping.id.in_(grouping_ids))):
        events = read_events(session, row.id)
        members = {} if events is None else events.members_of(known)
        # The event's first image stands first: by it the event is numbered.
        of_file = [
            sorted((one for one in own if one in image_ids), key=lambda one: (one != number, one))
            for number, own in members.items()
        ]
        large = [own for own in of_file if len(own) > 1]
        if large:
            kept.append(keep(KeptGrouping, row, events=large))
    return kept


def keep_pools(
    session: Session, search: Search, image_ids: Several[int], sight: Sight
) -> list[KeptPool]:
    """What filters kept, of the images that are in the file: no round shows another."""
    known = np.array(sorted(image_ids), np.int64)
    kept = []
    for pool in session.scalars(select(Pool).filter_by(search_id=search.id).order_by(Pool.id)):
        said = Filter(tuple((key, value) for key, value in pool.filter))
        own = np.frombuffer(pool.image_ids, "<i8")
        own_ids = own[np.isin(own, known)].tolist()
        said_pairs = list(cover_filter(said, sight).pairs)
        kept.append(keep(KeptPool, pool, filter=said_pairs, image_ids=own_ids))
    return kept


def import_search(
    session: Session,
    person: Person,
    collection: Collection,
    data: bytes,
    *,
    indexes: OpenIndexes,
    settings: Settings,
    now: datetime,
    readers: Readers,
) -> Search:
    """Make a search of a file: the person's own, in a collection that has the same images.

    Answers keep their times. They stay the person's where the file names them; others stand under
    a closed account that says that it came from a file.
    """
    kept, packed = read_bundle(data, settings)
    # Before anything is written: nobody waits for a row while photos are read.
    photos = {
        number: read_photo(photo, settings=settings, readers=readers)
        for number, photo in packed.items()
    }
    try:
        return _Importing(session, person, collection, kept, now).run(photos, indexes, settings)
    except (KeyError, IndexError, IntegrityError, DataError) as error:
        # It names what it does not hold, or takes back what was not done.
        raise BadInput("This file is damaged: its parts don't fit together.") from error


def repeat_rounds(
    session: Session, search: Search, indexes: OpenIndexes, *, at_most: int
) -> Repeated:
    """Propose the newest rounds of a search again, and count those with the images they stored."""
    rounds = session.scalars(
        select(Round).filter_by(search_id=search.id).order_by(Round.id.desc())
    ).all()
    same = 0
    for made in rounds[:at_most]:
        proposal = repeat_round(session, made, indexes)
        index = indexes.get(session.get_one(ImageIndex, made.index_id))
        stored = [place.image_id for place in made.images]
        same += index.image_ids[proposal.rows].tolist() == stored
    return Repeated(min(at_most, len(rounds)), same, len(rounds))


def read_bundle(data: bytes, settings: Settings) -> tuple[KeptSearch, dict[int, bytes]]:
    """A file as `bundle_parts` made it, checked, with its photos by their example's number."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as bundle:
            if bundle.getinfo(SEARCH_FILE).file_size > MOST_BYTES:
                raise BadInput("This file holds more than a search can hold.")
            kept = KeptSearch.model_validate_json(bundle.read(SEARCH_FILE))
            photos = {}
            for one in kept.examples:
                if one.photo is not None:
                    entry = bundle.getinfo(f"photos/{one.id}")
                    if entry.file_size > settings.max_photo_mb * 1e6:
                        raise BadInput(f"The photo {one.photo} in this file is too large.")
                    photos[one.id] = bundle.read(entry)
    except (ValueError, KeyError, RuntimeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        what = f" ({describe_problem(error)})" if isinstance(error, ValidationError) else ""
        raise BadInput(
            f"This is no search of Rarefind's, or it is damaged or of a newer version{what}. A "
            f"search's export page makes such files; their names end in {ENDING}."
        ) from error
    return kept, photos


class _Importing:
    """One import: what everything of the file is called here."""

    def __init__(
        self,
        session: Session,
        person: Person,
        collection: Collection,
        kept: KeptSearch,
        now: datetime,
    ) -> None:
        self.session, self.person, self.collection, self.kept = session, person, collection, kept
        self.now = now
        self.images = self._find_images()
        self.people: dict[str, int] = {}
        self.laid_out: dict[int, ImageIndex] = {}
        self.groupings: dict[int, int] = {}
        self.pools: dict[int, int] = {}
        self.rounds = self._number(Round, [one.id for one in kept.rounds])
        self.detours = self._number(Detour, [one.id for one in kept.detours])
        self.actions = self._number(Action, [one.id for one in kept.actions])
        self.answers = self._number(Answer, [one.id for one in kept.answers])

    def run(self, photos: dict[int, ReadImage], indexes: OpenIndexes, settings: Settings) -> Search:
        """Write all of it."""
        kept, session = self.kept, self.session
        search = Search(
            collection_id=self.collection.id,
            owner_id=self.person.id,
            target_name=check_text("The name", kept.target_name, MAX_NAME_LENGTH, required=True),
            counts_as_yes=check_text("What counts as yes", kept.counts_as_yes, MAX_COUNTS_LENGTH),
            counts_as_no=check_text("What does not count", kept.counts_as_no, MAX_COUNTS_LENGTH),
            no_reasons=check_reasons(kept.no_reasons),
            learns_from_poor=kept.learns_from_poor,
            learns_from_events=kept.learns_from_events,
            embedder=check_text("An embedder's name", kept.embedder, MAX_NAME_LENGTH),
            strategy=check_strategy(kept.strategy),
            round_size=check_round_size(kept.round_size),
            seed=kept.seed,
            made_at=kept.made_at,
        )
        session.add(search)
        session.flush()
        save_details(session, search, asdict(kept.details))
        known = session.scalars(select(ImageIndex.id).filter_by(state="past")).all()
        try:
            self._lay_out_indexes(indexes, settings)
            self._add_groupings()
            self._add_pools(search)
            self._check_vectors()
            self._add_rounds(search)
            self._add_steps(search)
            self._add_examples(search, photos)
            self._add_card(search)
            self._add_seats(search)
            self._add_remarks(search)
            self._set_filter(search)
            for name in {one.person for one in kept.actions}:
                # As the pages do.
                read_steps(session, search, session.get_one(Person, self._name(name)))
        except Exception:
            for row in self.laid_out.values():
                if row.state == "past" and row.id not in known:
                    discard_files(row, settings)
            raise
        return search

    def _find_images(self) -> dict[int, int]:
        here: dict[str, int] = {}
        wanted = [image.sha256 for image in self.kept.images]
        for start in range(0, len(wanted), 10_000):
            rows = self.session.execute(
                select(Image.sha256, Image.id).where(
                    Image.collection_id == self.collection.id,
                    is_among(Image.sha256, wanted[start : start + 10_000]),
                )
            )
            here |= dict(rows.all())
        missing = [image for image in self.kept.images if image.sha256 not in here]
        if missing:
            names = ", ".join(image.path for image in missing[:NAMED])
            raise BadInput(
                f"{len(missing):,} of the {len(wanted):,} images of this search are not in "
                f"{self.collection.name}: {names}{', …' if len(missing) > NAMED else ''}. Nothing "
                "was imported. Add them to the collection first, or choose the collection that "
                "has them."
            )
        return {image.id: here[image.sha256] for image in self.kept.images}

    def _number(self, table: type[Table], keys: list[int]) -> dict[int, int]:
        """New keys for those of the file, in the same order."""
        if keys != sorted(set(keys)):
            raise BadInput("This file is damaged: its parts are not in order.")
        sequence = func.pg_get_serial_sequence(table.__tablename__, "id")
        drawn = self.session.scalars(
            select(func.nextval(sequence)).select_from(
                func.generate_series(1, len(keys)).alias("numbers")
            )
        ).all()
        return dict(zip(keys, sorted(drawn), strict=True))

    def _name(self, name: str) -> int:
        """Who is meant by a name of the file."""
        if name not in self.people:
            self.people[name] = self._find_person(name)
        return self.people[name]

    def _find_person(self, name: str) -> int:
        if name.casefold() == self.person.name.casefold():
            return self.person.id
        bare = check_text("A name", name, MAX_NAME_LENGTH, required=True)[:60]
        shown = bare.removesuffix(FROM_A_FILE) + FROM_A_FILE
        known = self.session.scalar(select(Person).where(same_name(shown)))
        if known is None:
            known = Person(name=shown, role="viewer", closed_at=self.now)
            self.session.add(known)
            self.session.flush()
        return known.id

    def _lay_out_indexes(self, indexes: OpenIndexes, settings: Settings) -> None:
        for index in self.kept.indexes:
            self.laid_out[index.id] = lay_out_past(
                self.session,
                self.collection,
                embedder=index.embedder,
                revision=index.revision,
                image_ids=np.array([self.images[i] for i in index.image_ids], dtype=np.int64),
                indexes=indexes,
                settings=settings,
            )

    def _add_groupings(self) -> None:
        """The groupings of the rounds, as the collection's past ones."""
        for one in self.kept.groupings:
            events = [[self.images[image_id] for image_id in event] for event in one.events]
            rule = Rule(one.kind, one.gap_s, one.column_name, one.likeness)
            self.groupings[one.id] = add_grouping(
                self.session, self.collection, events, rule, self.person
            ).id

    def _add_pools(self, search: Search) -> None:
        """What filters kept; how they were written, where that says something here."""
        for one in sorted(self.kept.pools, key=lambda pool: pool.id):
            try:
                said = self._read_filter(one.filter)
            except BadInput:
                said = Filter()
            image_ids = sorted({self.images[image_id] for image_id in one.image_ids})
            pool = Pool(
                search_id=search.id,
                filter=[list(pair) for pair in said.pairs],
                image_ids=np.array(image_ids, "<i8").tobytes(),
                made_at=one.made_at,
            )
            self.session.add(pool)
            self.session.flush()
            self.pools[one.id] = pool.id

    def _set_filter(self, search: Search) -> None:
        """The filter of the rounds to come: another collection may not know what it looks at."""
        try:
            if chosen := self._read_filter(self.kept.filter):
                filter_search(self.session, search, chosen)
        except BadInput as error:
            raise BadInput(
                "This search has a filter that can't be used in this collection. Bring the tables, "
                "tags and deployments that it looks at, or take it off before you export the "
                f"search. {error}"
            ) from error

    def _read_filter(self, pairs: list[tuple[str, str]]) -> Filter:
        """A filter of the file as it goes for the importer, without answers of other searches."""
        said = [pair for pair in pairs if pair[0] not in ("answer", GRID)]
        return read_filter(self.session, self.collection.id, said, person=self.person)

    def _check_vectors(self) -> None:
        """Heads and vectors must be as long as those of the index they are used with."""
        laid_out = self.laid_out
        sizes = {row.revision: 4 * row.dimension for row in laid_out.values()}
        heads = [
            len(one.head_weights) == 4 * laid_out[one.index_id].dimension
            for one in self.kept.rounds
            if one.head_weights is not None
        ]
        vectors = [
            len(vector.vector) == sizes.get(vector.revision, len(vector.vector))
            for one in self.kept.examples
            for vector in one.vectors
        ]
        if not all(heads + vectors):
            raise BadInput("This file is damaged: its vectors are of another length.")

    def _add_rounds(self, search: Search) -> None:
        rounds, detours = self.rounds, self.detours
        index_ids = {key: row.id for key, row in self.laid_out.items()}
        self._insert(
            Round,
            [
                take(
                    one,
                    Round,
                    "previous_id",
                    "detour_id",
                    "index_id",
                    "answers_through_id",
                    "grouping_id",
                )
                | {
                    "id": rounds[one.id],
                    "search_id": search.id,
                    "strategy": check_strategy(one.strategy),
                    "previous_id": find(rounds, one.previous_id),
                    "index_id": index_ids[one.index_id],
                    # One that held no event among the images of the file is not in it.
                    "grouping_id": self.groupings.get(one.grouping_id or 0),
                    "pool_id": find(self.pools, one.pool_id),
                    "answers_through_id": find(self.answers, one.answers_through_id) or 0,
                    "left_out_ids": one.left_out_ids
                    and [self.images[image_id] for image_id in one.left_out_ids],
                    "leased_ids": one.leased_ids
                    and [self.images[image_id] for image_id in one.leased_ids],
                }
                for one in self.kept.rounds
            ],
        )
        self._insert(
            RoundImage,
            [
                take(place, RoundImage)
                | {"round_id": rounds[one.id], "image_id": self.images[place.image_id]}
                for one in self.kept.rounds
                for place in one.images
            ],
        )
        self._insert(
            Detour,
            [
                take(one, Detour)
                | {
                    "id": detours[one.id],
                    "search_id": search.id,
                    "person_id": self._name(one.person),
                    "from_round_id": rounds[one.from_round_id],
                    "answers_through_id": find(self.answers, one.answers_through_id) or 0,
                    "anchor_image_id": find(self.images, one.anchor_image_id),
                    "other_index_id": find(index_ids, one.other_index_id),
                    "pool_id": find(self.pools, one.pool_id),
                    "planned_image_ids": None
                    if one.planned is None
                    else np.array([self.images[i] for i in one.planned], "<i8").tobytes(),
                }
                for one in self.kept.detours
            ],
        )
        for one in self.kept.rounds:  # the two name each other
            if one.detour_id is not None:
                self.session.execute(
                    update(Round)
                    .filter_by(id=rounds[one.id])
                    .values(detour_id=detours[one.detour_id])
                )

    def _add_steps(self, search: Search) -> None:
        self._insert(
            Action,
            [
                take(one, Action)
                | {
                    "id": self.actions[one.id],
                    "search_id": search.id,
                    "person_id": self._name(one.person),
                    "round_id": find(self.rounds, one.round_id),
                    "next_round_id": find(self.rounds, one.next_round_id),
                    "reverses_id": find(self.actions, one.reverses_id),
                }
                for one in self.kept.actions
            ],
        )
        self._insert(
            Answer,
            [
                {
                    "id": self.answers[one.id],
                    "search_id": search.id,
                    "action_id": self.actions[one.action_id],
                    "image_id": self.images[one.image_id],
                    "value": one.value,
                    "reason": one.reason,
                    "with_image_id": find(self.images, one.with_image_id),
                }
                for one in self.kept.answers
            ],
        )
        self._insert(
            ChosenGoal,
            [
                take(one, ChosenGoal)
                | {"search_id": search.id, "person_id": self._name(one.person)}
                for one in self.kept.goals
            ],
        )

    def _add_examples(self, search: Search, photos: dict[int, ReadImage]) -> None:
        for one in self.kept.examples:
            example = Example(
                search_id=search.id, image_id=find(self.images, one.image_id), words=one.words
            )
            if one.photo is not None:
                photo = Photo(
                    person_id=self.person.id,
                    name=check_text("A photo's name", one.photo, MAX_NAME_LENGTH),
                    sha256=photos[one.id].sha256,
                    width=photos[one.id].width,
                    height=photos[one.id].height,
                )
                self.session.add(photo)
                self.session.flush()
                example.photo_id = photo.id
            self.session.add(example)
            self.session.flush()
            for vector in one.vectors:
                self.session.add(
                    ExampleVector(
                        example_id=example.id,
                        revision=vector.revision,
                        vector=vector.vector,
                        after_round_id=find(self.rounds, vector.after_round_id),
                    )
                )

    def _add_card(self, search: Search) -> None:
        counts = [one.counts for one in self.kept.card]
        if max(counts.count(True), counts.count(False)) > MAX_CARD_IMAGES:
            raise BadInput("This file is damaged: its target card has no room for its pictures.")
        self._insert(
            CardImage,
            [
                take(one, CardImage)
                | {"search_id": search.id, "image_id": self.images[one.image_id]}
                for one in self.kept.card
            ],
        )

    def _add_seats(self, search: Search) -> None:
        """Everybody's, for their branches stand; the owner is at the newest round if new here."""
        tips: dict[int, int] = {}
        for one in self.kept.seats:
            person_id = self._name(one.person)
            tips[person_id] = max(tips.get(person_id, 0), self.rounds[one.round_id])
        newest = max(tips.values())
        tips.setdefault(self.person.id, newest)
        self._insert(
            Seat,
            [
                {"search_id": search.id, "person_id": person_id, "round_id": round_id}
                for person_id, round_id in tips.items()
            ],
        )
        search.current_round_id = newest
        self.session.flush()

    def _add_remarks(self, search: Search) -> None:
        """Notes and tags, without those that stand on the images here already.

        Nor those on images that are hidden here: nobody but trusted people reads these.
        """
        named = {one.image_id for one in self.kept.notes} | {one.image_id for one in self.kept.tags}
        image_ids = {self.images[key] for key in named if key is not None}
        there = read_remarks_of_images(self.session, sorted(image_ids))
        hidden = find_people_images(self.session, sorted(image_ids))
        notes = {(key, note.text, note.at) for key, one in there.items() for note in one.notes}
        tags = {(key, tag) for key, one in there.items() for tag in one.tags}
        for note in self.kept.notes:
            image_id = find(self.images, note.image_id)
            if image_id not in hidden and (image_id, note.text, note.at) not in notes:
                about = {"image_id": image_id, "search_id": None if image_id else search.id}
                person_id = self._name(note.person)
                self.session.add(
                    NoteEvent(**about, text=note.text, person_id=person_id, at=note.at)
                )
        for tag in self.kept.tags:
            image_id = find(self.images, tag.image_id)
            if image_id not in hidden and (image_id, tag.tag) not in tags:
                about = {"image_id": image_id, "search_id": None if image_id else search.id}
                person_id = self._name(tag.person)
                self.session.add(
                    TagEvent(**about, tag=tag.tag, is_on=True, person_id=person_id, at=tag.at)
                )
        self.session.flush()

    def _insert(self, table: type[Table], rows: list[dict[str, Any]]) -> None:
        if rows:
            self.session.execute(insert(table), rows)


def keep(kind: type[Any], row: Table, **more: object) -> Any:
    """A row's columns of the same names as a part of the file."""
    names = set(kind.model_fields) & set(type(row).__table__.columns.keys())
    return kind.model_construct(**{name: getattr(row, name) for name in names} | more)


def take(part: Part, table: type[Table], *but: str) -> dict[str, Any]:
    """A part's fields that are columns of a table, but for `but` and its key."""
    names = set(type(part).model_fields) & set(table.__table__.columns.keys()) - {"id", *but}
    return {name: getattr(part, name) for name in names}


def find(numbers: Mapping[int, int], key: int | None) -> int | None:
    """What a key of the file is called here; none stays none, and 0 is before all."""
    return numbers[key] if key else None


def describe_problem(error: ValidationError) -> str:
    """The first thing that is wrong with a file, for who looks into it."""
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc'][:4]))}: {first['msg']}"
