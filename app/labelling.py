"""Known labels: what the oracle knows of a collection's images, kept apart from every search.

They come with the images, or as a file later: first it is told what the file would change, then it
is kept, all of it or nothing. What the file does not name stays as it is. An image that it names
with an empty label is known to show no target; of an image without any label nothing is known.
"""

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    String,
    bindparam,
    delete,
    exists,
    func,
    insert,
    literal,
    select,
    update,
)
from sqlalchemy.orm import Session

from app.audit import note
from app.database import is_among
from app.deploying import judge_folders
from app.engine.numerals import plural, spaced
from app.errors import LabelsNotUsable
from app.sources import NO_TARGET, Labels, clean_text, match_files, read_labels_data, say_unknown
from app.tables import (
    Collection,
    Image,
    ImagePath,
    Import,
    LabelCount,
    OracleLabel,
    Person,
    Upload,
)

NAMED = 5  # images without a label, in a sentence
EXAMPLES = 10  # of what a file changes
LINES_LISTED = 100  # that name no image
LONGEST_NAME = 200  # of a file, as it is told
CHUNK = 5_000
COLUMNS = ("file", "label")
FOLDERS = "folders"  # in place of a file's name: the folders' names are the labels


@dataclass(frozen=True)
class KnownLabels:
    """What is known of a collection's images; those that were removed are not counted."""

    image_count: int
    target_count: int  # with a label that names something
    empty_count: int  # known to show no target
    labels: list[tuple[str, int]]  # most frequent first
    without: list[str]  # a few images of which nothing is known, where some are

    @property
    def known_count(self) -> int:
        """Images that a replay can ask about."""
        return self.target_count + self.empty_count

    @property
    def without_count(self) -> int:
        """Images of which nothing is known."""
        return self.image_count - self.known_count


@dataclass(frozen=True)
class ChangedLabels:
    """An image whose known labels a file changes."""

    path: str
    before: str | None  # None: nothing was known
    after: str


@dataclass(frozen=True)
class LabelsPlan:
    """What a file would change, or has changed."""

    name: str
    checksum: str
    new_count: int  # images of which nothing was known
    changed_count: int  # images of which something else was known
    same_count: int
    examples: list[ChangedLabels]  # those that were known first
    counts: list[tuple[str, int, int]]  # labels whose number of images changes, most first
    unmatched_count: int
    unmatched: list[str]  # lines that name no image, with the reason
    notes: tuple[str, ...]
    by_image: dict[int, set[str]] = field(repr=False)  # what changes

    @property
    def image_count(self) -> int:
        """Images that the file names."""
        return self.new_count + self.changed_count + self.same_count


def describe_labels(session: Session, collection_id: int) -> KnownLabels:
    """How many images are labelled, with what, and which are not."""
    own = (Image.collection_id == collection_id) & Image.removed_at.is_(None)
    image_count = session.scalar(select(func.count()).where(own)) or 0
    known_count = count_known(session, collection_id)
    counted = count_by_label(session, collection_id)
    empty_count = counted.pop(NO_TARGET, 0)
    without: list[str] = []
    if 0 < known_count < image_count:
        known = exists().where(OracleLabel.image_id == Image.id)
        paths = select(Image.path).where(own, ~known).order_by(Image.path).limit(NAMED)
        without = list(session.scalars(paths))
    return KnownLabels(
        image_count=image_count,
        target_count=known_count - empty_count,
        empty_count=empty_count,
        labels=sorted(counted.items(), key=lambda one: (-one[1], one[0])),
        without=without,
    )


def count_known(session: Session, collection_id: int) -> int:
    """Images of which something is known, without those that were removed."""
    kept = select(Collection.labelled_count).filter_by(id=collection_id)
    removed = (
        select(func.count())
        .select_from(Image)
        .where(_is_removed(collection_id), exists().where(OracleLabel.image_id == Image.id))
    )
    return (session.scalar(kept) or 0) - (session.scalar(removed) or 0)


def count_by_label(session: Session, collection_id: int) -> dict[str, int]:
    """How many images have which label, the empty one too, without those that were removed."""
    kept = select(LabelCount.label, LabelCount.image_count).filter_by(collection_id=collection_id)
    removed = (
        select(OracleLabel.label, func.count())
        .join(Image, Image.id == OracleLabel.image_id)
        .where(_is_removed(collection_id))
        .group_by(OracleLabel.label)
    )
    counted = Counter(dict(session.execute(kept).all()))
    counted.subtract(dict(session.execute(removed).all()))
    return {label: count for label, count in counted.items() if count}


def _is_removed(collection_id: int) -> ColumnElement[bool]:
    return (Image.collection_id == collection_id) & Image.removed_at.is_not(None)


def say_without(known: KnownLabels) -> list[str]:
    """What images without a label mean for replays; nothing where all or no images have one."""
    count = known.without_count
    if not count or not known.known_count:
        return []
    names = ", ".join(f"“{path}”" for path in known.without)
    more = f" and {spaced(count - len(known.without))} more" if count > len(known.without) else ""
    return [
        f"{plural(count, 'image')} without a known label: {names}{more}. Replays refuse until each "
        "image they look at has one: give these in a labels file, with an empty label where no "
        "target is shown."
    ]


def say_unmatched(labels: Labels, files: list[str]) -> list[str]:
    """That files of a labels file are no image, with the lines of the first."""
    if not files:
        return []
    named = [_place(labels, file) for file in files[:NAMED]]
    more = f" and {spaced(len(files) - NAMED)} more" if len(files) > NAMED else ""
    return [
        f"Labels that name no image, or not under a unique name: {'; '.join(named)}{more}. "
        "All others were kept."
    ]


def check_labels(name: str, data: bytes) -> Labels:
    """The labels of a file that is given, or LabelsNotUsable, by line."""
    given = read_labels_data(data, name)
    if not given.rows:
        raise LabelsNotUsable(f"{name} has no line that names an image.")
    return given


def clean_name(name: str) -> str:
    """What a file that a browser sent is called."""
    name = clean_text(name).replace("\\", "/").rsplit("/", 1)[-1][-LONGEST_NAME:]
    return f"{name}.csv" if name == FOLDERS else name


def find_remarks(session: Session, collection_id: int) -> list[str]:
    """What there was to remark on labels that came with images, until others are kept."""
    query = select(Import.remarks).filter_by(collection_id=collection_id)
    return session.scalar(query.order_by(Import.id.desc()).limit(1)) or []


def plan_labels(session: Session, collection: Collection, *, name: str, data: bytes) -> LabelsPlan:
    """What a labels file would change; raises LabelsNotUsable, by line, for one that is none."""
    given = check_labels(name, data)
    lock_labels(session, collection.id)
    found, unmatched = _find_named(session, collection.id, given)
    before: dict[int, set[str]] = {}
    for some in _chunks(list(found)):
        query = select(OracleLabel.image_id, OracleLabel.label)
        for image_id, label in session.execute(query.where(is_among(OracleLabel.image_id, some))):
            before.setdefault(image_id, set()).add(label)
    changes = {one: labels for one, labels in found.items() if labels != before.get(one)}
    shown = sorted(changes, key=lambda one: (one not in before, one))[:EXAMPLES]
    paths = dict(session.execute(select(Image.id, Image.path).where(Image.id.in_(shown))).all())
    return LabelsPlan(
        name=name,
        checksum=hashlib.sha256(data).hexdigest(),
        new_count=sum(one not in before for one in changes),
        changed_count=sum(one in before for one in changes),
        same_count=len(found) - len(changes),
        examples=[
            ChangedLabels(
                paths[one], _name(before[one]) if one in before else None, _name(changes[one])
            )
            for one in shown
        ],
        counts=_count_changes(session, collection.id, before, changes),
        unmatched_count=len(unmatched),
        unmatched=unmatched[:LINES_LISTED],
        notes=given.notes,
        by_image=changes,
    )


def compare_labels(
    name: str, data: bytes, chosen: list[str], here: Iterable[str], *, whole: bool
) -> list[str]:
    """What to say of a labels file before the files that are `chosen` for it are sent.

    `here` are paths of images that are known already. Where the chosen ones are not the `whole` of
    what comes, as there are zips among them, a line may still be about one that is inside.
    """
    given = check_labels(name, data)
    meant = match_files(given.rows or {}, {*chosen, *here})
    said = []
    unmatched = [file for file, paths in meant.items() if len(paths) != 1]
    if unmatched and whole:
        some = ", ".join(_place(given, file) for file in unmatched[:NAMED])
        lines = "1 line" if len(unmatched) == 1 else f"{spaced(len(unmatched))} lines"
        verb = "names" if len(unmatched) == 1 else "name"
        said.append(f"{lines} of {name} {verb} none of these files for certain, such as {some}.")
    named = {paths[0] for paths in meant.values() if len(paths) == 1}
    without = [path for path in chosen if path not in named]
    if without:
        some = ", ".join(f"“{path}”" for path in without[:NAMED])
        verb = "has" if len(without) == 1 else "have"
        said.append(f"{plural(len(without), 'file')} {verb} no line in it, such as {some}.")
    return said


def keep_labels(
    session: Session,
    collection: Collection,
    plan: LabelsPlan,
    *,
    person: Person | None,
    leave_out: bool = False,
) -> None:
    """Keep what was planned. Lines that name no image refuse all of it, or are left out."""
    if plan.unmatched_count and not leave_out:
        some = "; ".join(plan.unmatched[:NAMED])
        more = plan.unmatched_count - NAMED
        some += f"; and {spaced(more)} more" if more > 0 else ""
        raise LabelsNotUsable(
            f"{plural(plan.unmatched_count, 'line')} of {plan.name} can't be used: {some}. "
            "Nothing was changed."
        )
    if not plan.image_count:
        raise LabelsNotUsable(
            f"{plan.name} names no image of this collection. Nothing was changed."
        )
    mark_given(session, collection)
    record_labels(session, collection.id, plan.by_image)
    judge_folders(session, collection.id)
    runs = update(Import).filter_by(collection_id=collection.id)
    session.execute(runs.values(remarks=[]))  # on what was known before
    what = (
        f"Kept known labels of “{collection.name}” from {plan.name}: "
        f"{plural(plan.new_count, 'image')} new, {spaced(plan.changed_count)} changed"
    )
    note(session, person, "import", what, collection=collection)


def keep_uploaded(session: Session, upload_id: int) -> None:
    """Keep the labels file that came with an upload, now that its images are here.

    Lines that name none of them are left out; the import's row says which.
    """
    upload = session.get(Upload, upload_id)
    if upload is None or upload.labels_file is None:
        return
    collection, data = upload.collection, upload.labels_file
    person = session.get_one(Person, upload.person_id)
    try:
        plan = plan_labels(session, collection, name=upload.labels or "", data=data)
        keep_labels(session, collection, plan, person=person, leave_out=True)
        remarks = [*plan.notes, *say_left_out(plan)]
    except LabelsNotUsable as error:
        remarks = [str(error)]
        judge_folders(session, collection.id)
    newest = select(func.max(Import.id)).filter_by(collection_id=collection.id).scalar_subquery()
    session.execute(update(Import).where(Import.id == newest).values(remarks=remarks))
    upload.labels_file = None


def say_left_out(plan: LabelsPlan) -> list[str]:
    """Which lines of a file were left out, in a sentence."""
    if not plan.unmatched_count:
        return []
    some = "; ".join(plan.unmatched[:NAMED])
    more = plan.unmatched_count - NAMED
    some += f"; and {spaced(more)} more" if more > 0 else ""
    return [f"{plural(plan.unmatched_count, 'line')} of {plan.name} left out: {some}."]


def mark_given(session: Session, collection: Collection) -> None:
    """Remember that labels are known: from now on folders may say what is to be found."""
    collection.labels_given_at = func.now()
    collection.folders_name_labels = None
    session.flush()


def lock_labels(session: Session, collection_id: int) -> None:
    """One change of labels at a time; images may come in meanwhile."""
    query = select(Collection.id).filter_by(id=collection_id)
    session.execute(query.with_for_update(key_share=True))


def record_labels(session: Session, collection_id: int, by_image: Mapping[int, set[str]]) -> None:
    """Put labels in the place of those that were known of the images; an empty set is none.

    Beside others an empty label says nothing. Nobody else may change the collection's labels
    meanwhile: `lock_labels`.
    """
    by_image = {one: known - {NO_TARGET} or known for one, known in by_image.items()}
    for some in _chunks(sorted(by_image)):
        session.execute(delete(OracleLabel).where(is_among(OracleLabel.image_id, some)))
        rows = [(one, label) for one in some for label in sorted(by_image[one])]
        if rows:
            ids = bindparam("ids", [one for one, _ in rows], ARRAY(OracleLabel.image_id.type))
            labels = bindparam("labels", [label for _, label in rows], ARRAY(String))
            names = ("image_id", "label")
            told = func.unnest(ids, labels).table_valued(*names).render_derived()
            session.execute(insert(OracleLabel).from_select(list(names), select(told)))
    if by_image:
        count_labels(session, collection_id)


def count_labels(session: Session, collection_id: int) -> None:
    """Keep how many images have which label: whoever changes labels calls it, nobody else."""
    own = Image.collection_id == collection_id
    by_label = (
        select(literal(collection_id), OracleLabel.label, func.count())
        .join(Image, Image.id == OracleLabel.image_id)
        .where(own)
        .group_by(OracleLabel.label)
    )
    session.execute(delete(LabelCount).filter_by(collection_id=collection_id))
    names = ["collection_id", "label", "image_count"]
    session.execute(insert(LabelCount).from_select(names, by_label))
    known = exists().where(OracleLabel.image_id == Image.id)
    labelled_count = session.scalar(select(func.count()).select_from(Image).where(own, known))
    changed = update(Collection).filter_by(id=collection_id)
    session.execute(changed.values(labelled_count=labelled_count))


def write_labels(session: Session, collection_id: int) -> Iterator[str]:
    """The known labels as a CSV file that can be given back: a line for each image and label."""
    query = (
        select(Image.path, OracleLabel.label)
        .join(OracleLabel, OracleLabel.image_id == Image.id)
        .where(Image.collection_id == collection_id, Image.removed_at.is_(None))
        .order_by(Image.path, OracleLabel.label)
    )
    rows = session.execute(query.execution_options(yield_per=CHUNK)).partitions()
    yield from _write(COLUMNS, rows)


def write_without(session: Session, collection_id: int) -> Iterator[str]:
    """The images without a known label, as a CSV file that lacks only their labels."""
    known = exists().where(OracleLabel.image_id == Image.id)
    query = (
        select(Image.path)
        .where(Image.collection_id == collection_id, Image.removed_at.is_(None), ~known)
        .order_by(Image.path)
    )
    rows = session.execute(query.execution_options(yield_per=CHUNK)).partitions()
    yield from _write(COLUMNS[:1], rows)


def _find_named(
    session: Session, collection_id: int, given: Labels
) -> tuple[dict[int, set[str]], list[str]]:
    """Labels by image, and of each line that names none where it stands and why."""
    query = select(ImagePath.path, ImagePath.image_id).filter_by(collection_id=collection_id)
    image_ids = dict(session.execute(query).all())
    rows = given.rows or {}
    meant = match_files(rows, image_ids)
    found: dict[int, set[str]] = {}
    unmatched: list[str] = []
    for file, labels in rows.items():
        ids = {image_ids[path] for path in meant[file]} if file else set()
        if len(ids) == 1:
            found.setdefault(ids.pop(), set()).update(labels)
            continue
        why = say_unknown(file)
        if not file:
            why = "it names no image"
        elif ids:
            why = f"{spaced(len(ids))} images have this name: write their path"
        unmatched.append(f"{_place(given, file)}: {why}")
    return {one: labels - {NO_TARGET} or labels for one, labels in found.items()}, unmatched


def _count_changes(
    session: Session,
    collection_id: int,
    before: Mapping[int, set[str]],
    changes: Mapping[int, set[str]],
) -> list[tuple[str, int, int]]:
    more: Counter[str] = Counter()
    for image_id, labels in changes.items():
        more.update(labels)
        more.subtract(before.get(image_id, set()))
    query = select(LabelCount.label, LabelCount.image_count).filter_by(collection_id=collection_id)
    counted = dict(session.execute(query).all())
    largest = sorted(more.items(), key=lambda one: (-abs(one[1]), one[0]))
    return [
        (_name({label}), counted.get(label, 0), counted.get(label, 0) + change)
        for label, change in largest
        if change
    ]


def _place(labels: Labels, file: str) -> str:
    """Where a file is named, as the database can hold it."""
    named = f"“{clean_text(file)[:LONGEST_NAME]}”"
    return f"line {spaced(labels.lines[file])}, {named}" if file in labels.lines else named


def _name(labels: set[str]) -> str:
    return ", ".join(sorted(labels - {NO_TARGET})) or "no target"


def _write(header: tuple[str, ...], chunks: Iterator[Sequence[Sequence[str]]]) -> Iterator[str]:
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(header)
    yield lines.getvalue()
    for chunk in chunks:
        lines = io.StringIO()
        csv.writer(lines, lineterminator="\n").writerows(chunk)
        yield lines.getvalue()


def _chunks(ids: list[int]) -> Iterator[list[int]]:
    return (ids[at : at + CHUNK] for at in range(0, len(ids), CHUNK))
