"""Deployments: where and when a camera stood, and how wrong its clock was.

They come from a Camtrap DP package, or from the folders of a collection: the first level of a path
is offered as the deployment. A clock shift moves the times of the deployment's images; the shift
that counts now is kept, so the camera's own time is never lost.
"""

import re
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, SQLColumnExpression, case, exists, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.audit import note
from app.camtrap import PackageDeployment
from app.errors import BadInput, NotFound
from app.tables import Collection, Deployment, Image, ImagePath, Import, OracleLabel, Person
from app.taking import without_tables

SHIFT = re.compile(
    r"([+-]?) *(?:([0-9]{1,5}) *(?:d|days?))? *(?:([0-9]{1,3}):([0-9]{2})(?::([0-9]{2}))?)?",
    re.IGNORECASE,
)
MOST_SHIFT_S = 50 * 366 * 86_400  # clocks that fell back to 1970 are that far off
MOST_LETTERS = 200
MOST_FOLDERS = 500
FAR = timedelta(days=2 * 365)  # between times of deployments, of which one may be wrong


@dataclass(frozen=True)
class DeploymentSummary:
    """A deployment, how many of the collection's images are of it, and when they were taken."""

    deployment: Deployment
    image_count: int
    timed_count: int  # images with a time
    first_at: datetime | None  # by the camera's clock, set right
    last_at: datetime | None

    @property
    def clock_shift(self) -> str:
        """As people write it: +1:00:00, -365d 0:00:00."""
        return write_shift(self.deployment.clock_shift_s)


def list_deployments(
    session: Session, collection_id: int, *, with_folders: bool = True
) -> list[DeploymentSummary]:
    """The deployments of a collection, by name; else without those called like their folders."""
    rows = session.execute(
        select(
            Deployment,
            func.count(Image.id),
            func.count(Image.captured_at),
            func.min(Image.captured_at),
            func.max(Image.captured_at),
        )
        .outerjoin(Image, (Image.deployment_id == Deployment.id) & Image.removed_at.is_(None))
        .where(Deployment.collection_id == collection_id)
        .where(*([] if with_folders else [~is_called_like_folder()]))
        .group_by(Deployment.id)
        .order_by(Deployment.name)
    )
    return [DeploymentSummary(*row) for row in rows]


def count_deployments(session: Session, collection_id: int) -> int:
    """How many deployments a collection has."""
    return (
        session.scalar(select(func.count()).where(Deployment.collection_id == collection_id)) or 0
    )


def find_far(deployments: list[DeploymentSummary]) -> set[int]:
    """Ids of deployments with times that lie years away from those of most: clocks may be wrong.

    Where times are apart as far as `FAR`, most is where times of the most deployments are; of as
    many, where they are later, since clocks fall back.
    """
    times = sorted(
        (at, one.deployment.id)
        for one in deployments
        for at in (one.first_at, one.last_at)
        if at is not None
    )
    if not times:
        return set()
    groups: list[set[int]] = [set()]
    for place, (at, deployment_id) in enumerate(times):
        if place and at - times[place - 1][0] >= FAR:
            groups.append(set())
        groups[-1].add(deployment_id)
    most = max(range(len(groups)), key=lambda place: (len(groups[place]), place))
    return {one for place, group in enumerate(groups) if place != most for one in group}


def list_folders(session: Session, collection_id: int) -> list[tuple[str, int]]:
    """First folders of images that are of no deployment yet, with their images.

    None where the folders are the known labels, which no search may show.
    """
    if may_folders_be_labels(session, collection_id):
        return []
    folder = folder_of()
    rows = session.execute(
        select(folder, func.count())
        .where(
            Image.collection_id == collection_id,
            Image.removed_at.is_(None),
            Image.deployment_id.is_(None),
            folder.is_not(None),
        )
        .group_by(folder)
        .order_by(folder)
        .limit(MOST_FOLDERS)
    )
    return [(name, count) for name, count in rows]


def may_folders_be_labels(session: Session, collection_id: int) -> bool:
    """Whether folders name what is to be found.

    They do where labels were taken from them, and where a file or a package brought the labels if
    an image is in a folder called like its own (`judge_folders`); until that was looked at, they
    may.
    """
    query = select(Collection.labels_given_at, Collection.folders_name_labels)
    given_at, name_labels = session.execute(query.filter_by(id=collection_id)).one()
    given = session.scalars(select(Import.labels).filter_by(collection_id=collection_id).distinct())
    kinds = set(given) - {None}
    if name_labels or "folders" in kinds:
        return True
    return name_labels is None and (bool(kinds) or given_at is not None)


def judge_folders(session: Session, collection_id: int) -> None:
    """Look whether an image lies in a folder called like one of its own labels, and remember it.

    Under any of its paths: copies are told, too, and “owl (2)” may be the “owl” of another card.
    Where it does, files made before may tell.
    """
    numberless = func.regexp_replace(ImagePath.path, r"^([^/]*) \([0-9]+\)/", r"\1/")
    label = func.concat(_plain(OracleLabel.label), "/")
    named = (
        select(ImagePath.id)
        .join(OracleLabel, OracleLabel.image_id == ImagePath.image_id)
        .where(
            ImagePath.collection_id == collection_id,
            or_(*(func.strpos(_plain(path), label) > 0 for path in (ImagePath.path, numberless))),
        )
    )
    of_it = update(Collection).filter_by(id=collection_id)
    session.execute(of_it.values(folders_name_labels=named.correlate(None).exists()))
    guard = of_it.where(Collection.folders_name_labels.is_(True))
    session.execute(guard.values(guarded_at=func.clock_timestamp()))


def may_see_folders(session: Session, person: Person, collection_id: int) -> bool:
    """Whether a person sees in which folders images lie: not where these may tell the answer.

    Except to who may see known labels anyway; in a search nobody does.
    """
    if person.role in ("admin", "evaluator"):
        return True
    return not may_folders_be_labels(session, collection_id)


def _plain(name: SQLColumnExpression[str]) -> ColumnElement[str]:
    """A name below a slash, as people mean it: Grey_heron is grey heron."""
    return func.concat("/", func.translate(func.lower(name), "_-", "  "))


def is_called_like_folder() -> ColumnElement[bool]:
    """Whether a deployment has the name of a folder in which an image of it lies."""
    theirs = select(Image.id).where(
        Image.deployment_id == Deployment.id, folder_of() == Deployment.name
    )
    return theirs.correlate(Deployment).exists()


def place_of(*, with_folders: bool) -> ColumnElement[str]:
    """The deployment of an image, else its first folder.

    Where folders may be labels neither a folder nor what is called like the image's own. To be
    selected from images, joined with their deployments.
    """
    if with_folders:
        return func.coalesce(Deployment.name, folder_of())
    return case((Deployment.name.is_distinct_from(folder_of()), Deployment.name.expression))


def folder_of() -> ColumnElement[str]:
    """The first folder of an image's path, where it has one."""
    slash = func.strpos(Image.path, "/")
    return func.nullif(func.left(Image.path, func.greatest(slash - 1, 0)), "")


def take_folders(session: Session, collection_id: int, *, person: Person) -> int:
    """Make a deployment of each first folder that is none yet; how many."""
    collection = session.get_one(Collection, collection_id, with_for_update=True)
    with without_tables(session, collection_id):
        known = {
            one.name: one
            for one in session.scalars(select(Deployment).filter_by(collection_id=collection_id))
        }
        folders = [name for name, _ in list_folders(session, collection_id)]
        for name in folders:
            if name in known:  # perhaps by a table, without which it would be made here
                known[name].is_told = False
        names = [name for name in folders if name not in known]
        session.add_all(Deployment(collection_id=collection_id, name=name) for name in names)
        session.flush()
        join_by_folder(session, collection_id)
    what = f"Made deployments of {len(names)} folders of “{collection.name}”"
    note(session, person, "import", what, collection=collection)
    return len(names)


def join_by_folder(session: Session, collection_id: int) -> None:
    """Give images that are of no deployment to the one that has the name of their first folder."""
    fits = (
        (Image.collection_id == collection_id)
        & (Deployment.collection_id == collection_id)
        & (Deployment.name == folder_of())
        & Deployment.is_told.is_(False)
    )
    # Few imports have any: laying tables on anew goes over all images that they speak of.
    behind_tables = exists().where(
        fits, Image.own.is_not(None), Image.own.op("->>")("deployment_id").is_(None)
    )
    with (
        without_tables(session, collection_id)
        if session.scalar(select(behind_tables))
        else nullcontext()
    ):
        session.execute(
            update(Image)
            .where(fits, Image.deployment_id.is_(None))
            .values(
                deployment_id=Deployment.id,
                captured_at=Image.captured_at
                + func.make_interval(0, 0, 0, 0, 0, 0, Deployment.clock_shift_s),
                latitude=func.coalesce(Image.latitude, Deployment.latitude),
                longitude=func.coalesce(Image.longitude, Deployment.longitude),
            )
            .execution_options(synchronize_session=False)
        )


def keep_deployments(
    session: Session, collection_id: int, deployments: list[PackageDeployment]
) -> dict[str, Deployment]:
    """Add a package's deployments, or bring those of the same name up to date; by name.

    The clock shift that somebody gave stays.
    """
    rows = {
        one.name: {
            "collection_id": collection_id,
            "name": one.name,
            "place": one.place,
            "latitude": one.latitude,
            "longitude": one.longitude,
            "starts_at": one.starts_at,
            "ends_at": one.ends_at,
            "is_told": False,
        }
        for one in deployments
        if one.name
    }
    if rows:
        statement = insert(Deployment).values(list(rows.values()))
        changed = ("place", "latitude", "longitude", "starts_at", "ends_at", "is_told")
        session.execute(
            statement.on_conflict_do_update(
                index_elements=["collection_id", "name"],
                set_={name: statement.excluded[name] for name in changed},
            )
        )
    session.expire_all()
    known = session.scalars(select(Deployment).filter_by(collection_id=collection_id))
    return {one.name: one for one in known}


def change_deployment(
    session: Session,
    collection_id: int,
    deployment_id: int,
    *,
    place: str,
    latitude: str,
    longitude: str,
    clock_shift: str,
    first_taken_at: str = "",
    person: Person,
) -> None:
    """Change where a deployment was and how its clock is set right; its images follow.

    The clock shift may be told by when the first image was really taken.
    """
    collection = session.get_one(Collection, collection_id, with_for_update={"key_share": True})
    deployment = session.get(Deployment, deployment_id)
    if deployment is None or deployment.collection_id != collection_id:
        raise NotFound("There is no such deployment in this collection.")
    shift_s = read_shift(clock_shift)
    if first_taken_at.strip():
        if shift_s != deployment.clock_shift_s:
            raise BadInput(
                "Give a clock shift, or when the first image was really taken: the one follows "
                "from the other."
            )
        shift_s += _reckon_shift(session, deployment, first_taken_at.strip())
    here = (_read_degrees(latitude, "Latitude", 90), _read_degrees(longitude, "Longitude", 180))
    if (here[0] is None) != (here[1] is None):
        raise BadInput("A place needs both latitude and longitude. Give both, or neither.")
    with without_tables(session, collection_id):
        own = update(Image).where(Image.deployment_id == deployment.id)
        before = (deployment.latitude, deployment.longitude)
        if here != before:
            # Images that the camera itself placed elsewhere stay where it says.
            unplaced: ColumnElement[bool] = Image.latitude.is_(None)
            if before[0] is not None:
                by_it = (Image.latitude == before[0]) & (Image.longitude == before[1])
                unplaced = unplaced | by_it
            moved = own.where(unplaced).values(latitude=here[0], longitude=here[1])
            session.execute(moved.execution_options(synchronize_session=False))
        if shift_s != deployment.clock_shift_s:
            by = timedelta(seconds=shift_s - deployment.clock_shift_s)
            shifted = own.where(Image.captured_at.is_not(None)).values(
                captured_at=Image.captured_at + by
            )
            session.execute(shifted.execution_options(synchronize_session=False))
        deployment.place = " ".join(place.replace("\0", "").split())[:MOST_LETTERS]
        deployment.latitude, deployment.longitude = here
        deployment.clock_shift_s = shift_s
        deployment.is_told = False  # it stays, whatever tables say
        session.flush()
    what = f"Changed the deployment {deployment.name} of “{collection.name}”"
    note(session, person, "import", what, collection=collection)
    session.flush()
    session.expire_all()


def _reckon_shift(session: Session, deployment: Deployment, first_taken_at: str) -> int:
    """Seconds between when the first image was taken as it is known now, and when really."""
    try:
        really = datetime.fromisoformat(first_taken_at)
    except ValueError as error:
        raise BadInput(
            f"“{first_taken_at}” is no day and time. Write them like 2025-03-04 10:05."
        ) from error
    if really.tzinfo is not None:
        raise BadInput(
            f"“{first_taken_at}” names a time zone. Cameras' clocks know none: write the time that "
            "the clock should have shown, like 2025-03-04 10:05."
        )
    first = session.scalar(
        select(func.min(Image.captured_at)).filter_by(deployment_id=deployment.id, removed_at=None)
    )
    if first is None:
        raise BadInput("No image of this deployment has a time that could be set right.")
    shift_s = round((really - first).total_seconds())
    if abs(deployment.clock_shift_s + shift_s) > MOST_SHIFT_S:
        raise BadInput(
            f"From {first:%Y-%m-%d %H:%M} to {really:%Y-%m-%d %H:%M} is too far for a clock shift: "
            "days go to 18 300."
        )
    return shift_s


def read_shift(text: str) -> int:
    """Seconds of a clock shift: 1:00, -0:05:30, +365d, -1d 2:00; nothing is none."""
    text = text.strip().replace("−", "-")
    if not text:
        return 0
    found = SHIFT.fullmatch(text)
    if found is None or not any(found.groups()[1:]):
        raise BadInput(
            f"“{text}” is no clock shift. Write hours and minutes, with days before if need be: "
            "1:00, -0:05:30, +365 days 2:00."
        )
    sign, days, hours, minutes, seconds = found.groups()
    total_s = int(days or 0) * 86_400 + int(hours or 0) * 3_600
    total_s += int(minutes or 0) * 60 + int(seconds or 0)
    if int(minutes or 0) > 59 or int(seconds or 0) > 59 or total_s > MOST_SHIFT_S:
        raise BadInput(f"“{text}” is no clock shift: minutes and seconds go to 59, days to 18 300.")
    return -total_s if sign == "-" else total_s


def write_shift(shift_s: int) -> str:
    """A clock shift as `read_shift` reads it; empty for none."""
    if not shift_s:
        return ""
    minutes, seconds = divmod(abs(shift_s), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    before = f"{days}d " if days else ""
    return f"{'-' if shift_s < 0 else '+'}{before}{hours}:{minutes:02}:{seconds:02}"


def _read_degrees(text: str, what: str, most: int) -> float | None:
    if not text.strip():
        return None
    try:
        value = float(text.replace(",", "."))  # as half of the world writes it
    except ValueError as error:
        raise BadInput(f"{what} is a number of degrees, such as 51.18; not “{text}”.") from error
    if not abs(value) <= most:
        raise BadInput(f"{what} goes from -{most} to {most} degrees.")
    return value
