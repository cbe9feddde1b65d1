"""What the field's standards are made of: images with their answers, and the places they lie in."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session

from app.database import is_among
from app.events import read_events
from app.exports.rows import Naming, read_images, read_naming
from app.sensitive import Sight
from app.tables import Action, Answer, Image, Person, Round, Search

PLACE_DECIMALS = 4  # of a degree, about 11 m: two fixes of one camera are one place


@dataclass(frozen=True)
class Sighting:
    """One image, and what a person answered on it."""

    image: Image
    latitude: float | None  # as whoever exports may see it
    longitude: float | None
    answer: str | None
    who: str | None
    at: datetime | None  # when it was answered


@dataclass
class Deployment:
    """Images of one recorded deployment, else of one folder, taken at one place.

    What the standards take for a camera's stay.
    """

    name: str
    locality: str  # as people call where it stood; empty where nobody said, or it may not be told
    latitude: float | None
    longitude: float | None
    camera: str | None
    first_at: datetime | None = None  # camera-local
    last_at: datetime | None = None
    images: int = 0
    yes: int = 0
    no: int = 0
    unsure: int = 0


@dataclass
class Span:
    """The images of one event in one deployment, from the first to the last."""

    name: str
    first_at: datetime  # camera-local
    last_at: datetime


Place = tuple[str, float | None, float | None]


def read_sightings(
    session: Session, search: Search, *, sight: Sight, among: Collection[int] | None = None
) -> Iterator[Sighting]:
    """Every image of the collection, or those of `among`, with its answer, in order of path."""
    for images in read_images(session, search.collection_id, among=among):
        newest = (
            select(Answer.image_id, Answer.value, Person.name, Action.at)
            .join(Action, Action.id == Answer.action_id)
            .join(Person, Person.id == Action.person_id)
            .where(
                Answer.search_id == search.id,
                is_among(Answer.image_id, [image.id for image in images]),
            )
            .order_by(Answer.image_id, Answer.id.desc())
            .ext(distinct_on(Answer.image_id))
        )
        answers = {row.image_id: row for row in session.execute(newest) if row.value != "cleared"}
        for image in images:
            row = answers.get(image.id)
            up, across = sight.degrees_of(image)
            if row is None:
                yield Sighting(image, up, across, None, None, None)
            else:
                yield Sighting(image, up, across, row.value, row.name, row.at)


def find_place(sighting: Sighting, naming: Naming) -> Place:
    """What tells one deployment from another."""
    record = naming.deployment(sighting.image)
    stay = record.name if record else naming.folder(sighting.image.path)
    if sighting.latitude is None or sighting.longitude is None:
        return stay, None, None
    return (
        stay,
        round(sighting.latitude, PLACE_DECIMALS),
        round(sighting.longitude, PLACE_DECIMALS),
    )


def list_deployments(session: Session, search: Search, *, sight: Sight) -> dict[Place, Deployment]:
    """The collection's deployments by their place, each with a name of its own."""
    naming = read_naming(session, search.collection_id)
    found: dict[Place, Deployment] = {}
    names: set[str] = set()
    for sighting in read_sightings(session, search, sight=sight):
        image, place = sighting.image, find_place(sighting, naming)
        deployment = found.get(place)
        if deployment is None:
            stay, latitude, longitude = place
            name = stay or "place"
            number = 1
            while name in names:
                number += 1
                name = f"{stay or 'place'}-{number}"
            names.add(name)
            record = naming.deployment(image)
            locality = (record.place if record else "") or stay
            deployment = Deployment(name, locality, latitude, longitude, image.camera)
            found[place] = deployment
        deployment.images += 1
        if sighting.answer is not None:
            setattr(deployment, sighting.answer, getattr(deployment, sighting.answer) + 1)
        if image.camera != deployment.camera:
            deployment.camera = None  # several
        at = image.captured_at
        if at is not None:
            deployment.first_at = min(deployment.first_at or at, at)
            deployment.last_at = max(deployment.last_at or at, at)
    return found


def list_spans(
    session: Session, search: Search, deployments: Mapping[Place, str], *, sight: Sight
) -> dict[int, Span]:
    """The event of every image with a time at one of these places, by image; empty without events.

    An event that goes over several deployments is one in each: the standards know no other.
    """
    tip = session.get(Round, search.current_round_id)
    events = read_events(session, tip.grouping_id if tip else None)
    if events is None:
        return {}
    naming = read_naming(session, search.collection_id)
    spans: dict[tuple[str, int], Span] = {}
    found = {}
    for images in read_images(session, search.collection_id):
        numbers = events.numbers_of([image.id for image in images]).tolist()
        for image, number in zip(images, numbers, strict=True):
            sighting = Sighting(image, *sight.degrees_of(image), None, None, None)
            deployment, at = deployments.get(find_place(sighting, naming)), image.captured_at
            if deployment is None or at is None:
                continue
            name = f"{deployment}-event-{number}"
            span = spans.setdefault((deployment, number), Span(name, at, at))
            span.first_at, span.last_at = min(span.first_at, at), max(span.last_at, at)
            found[image.id] = span
    return found
