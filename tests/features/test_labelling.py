"""Known labels that come later: what a file would change, kept whole or not at all."""

import csv
import io

import pytest
from sqlalchemy import event, select

from app.deploying import may_folders_be_labels
from app.errors import LabelsNotUsable
from app.labelling import (
    check_labels,
    clean_name,
    count_by_label,
    count_known,
    describe_labels,
    keep_labels,
    plan_labels,
    say_without,
    write_labels,
    write_without,
)
from app.oracle import read_oracle_of
from app.removing import put_back_images, remove_images
from app.replays import list_target_choices
from app.security import get_local_person
from app.sensitive import hide_people
from app.tables import AuditEvent, Collection, ImagePath, Import, OracleLabel
from tests.factories import make_collection, make_images, make_index


@pytest.fixture
def images(session):
    """Five images in two folders, of which two have the same file name."""
    collection = make_collection(session)
    made = make_images(session, collection, 5)
    for image, path in zip(
        made, ("a/1.jpg", "a/2.jpg", "b/1.jpg", "b/ü 3.jpg", "b/4,5.jpg"), strict=True
    ):
        image.path = path
        known = {"image_id": image.id, "size_bytes": 1, "modified_ns": 1}
        session.add(ImagePath(collection_id=collection.id, path=path, **known))
    session.flush()
    return made


def give(session, images, text, **how):
    collection = session.get_one(Collection, images[0].collection_id)
    plan = plan_labels(session, collection, name="labels.csv", data=text.encode())
    if how.pop("keeps", True):
        keep_labels(session, collection, plan, person=get_local_person(session), **how)
    return plan


def read(session) -> dict[int, set[str]]:
    known: dict[int, set[str]] = {}
    for row in session.scalars(select(OracleLabel)):
        known.setdefault(row.image_id, set()).add(row.label)
    return known


def test_labels_are_told_kept_corrected_and_given_back(session, images):
    collection_id = images[0].collection_id
    first = "file,label\na/1.jpg,newt\na/1.jpg,frog\nb\\1.jpg,newt\n./a/2.jpg,\n"
    plan = give(session, images, first, keeps=False)
    assert (plan.new_count, plan.changed_count, plan.same_count) == (3, 0, 0)
    assert read(session) == {}  # it only says what it would change
    give(session, images, first)
    ids = [image.id for image in images]
    assert read(session) == {ids[0]: {"newt", "frog"}, ids[1]: {""}, ids[2]: {"newt"}}
    known = describe_labels(session, collection_id)
    assert (known.image_count, known.known_count, known.empty_count) == (5, 3, 1)
    assert known.labels == [("newt", 2), ("frog", 1)]
    assert known.without == ["b/4,5.jpg", "b/ü 3.jpg"]
    (sentence,) = say_without(known)
    assert "2 images without a known label" in sentence and "“b/ü 3.jpg”" in sentence
    assert "Replays refuse" in sentence

    # An empty label beside another says nothing; a bare name will do where one image has it.
    plan = give(session, images, 'label;file\n;2.jpg\ntoad;2.jpg\nnewt;b/1.jpg\n;"b/4,5.jpg"\n')
    assert (plan.new_count, plan.changed_count, plan.same_count) == (1, 1, 1)
    assert [(one.path, one.before, one.after) for one in plan.examples] == [
        ("a/2.jpg", "no target", "toad"),
        ("b/4,5.jpg", None, "no target"),
    ]
    assert plan.counts == [("toad", 0, 1)]
    assert read(session)[ids[1]] == {"toad"} and read(session)[ids[0]] == {"newt", "frog"}

    written = "".join(write_labels(session, collection_id))
    rows = list(csv.reader(io.StringIO(written)))
    assert rows[0] == ["file", "label"] and ["b/4,5.jpg", ""] in rows and len(rows) == 6
    again = give(session, images, written, keeps=False)
    assert (again.new_count, again.changed_count, again.same_count) == (0, 0, 4)
    assert "".join(write_without(session, collection_id)) == "file\nb/ü 3.jpg\n"
    give(session, images, "file,label\nb/u\u0308 3.jpg,\n")  # its ü in two letters
    assert say_without(describe_labels(session, collection_id)) == []
    events = session.scalars(select(AuditEvent.sentence).order_by(AuditEvent.id)).all()
    assert events[-2].endswith("from labels.csv: 1 image new, 1 changed")


def test_removed_images_are_not_counted_and_no_image_is_read_to_count_the_others(session, images):
    """Half a million labels took over a second to count for each page."""
    collection_id, person = images[0].collection_id, get_local_person(session)
    given = "file,label\na/1.jpg,newt\na/1.jpg,frog\na/2.jpg,\nb/1.jpg,newt\nb/ü 3.jpg,toad\n"

    def count():
        assert count_known(session, collection_id) == (
            describe_labels(session, collection_id).known_count
        )
        return count_known(session, collection_id), count_by_label(session, collection_id)

    assert count() == (0, {})
    give(session, images, given)
    make_images(session, make_collection(session, name="Other"), 3)
    assert count() == (4, {"newt": 2, "frog": 1, "": 1, "toad": 1})
    ids = [image.id for image in images]
    remove_images(session, collection_id, [ids[0], ids[1], ids[4]], person=person)
    assert count() == (2, {"newt": 1, "toad": 1})
    hide_people(session, collection_id, [ids[3]])
    assert count() == (1, {"newt": 1})
    give(session, images, "file,label\na/1.jpg,newt\nb/1.jpg,toad\n")  # removed ones too
    assert count() == (1, {"toad": 1})
    put_back_images(session, collection_id, ids[:2], person=person)
    assert count() == (3, {"newt": 1, "toad": 1, "": 1})

    statements: list[str] = []

    def keep(_connection, _cursor, statement, *_) -> None:
        statements.append(statement)

    bind = session.connection()
    event.listen(bind, "before_cursor_execute", keep)
    count_known(session, collection_id)
    count_by_label(session, collection_id)
    event.remove(bind, "before_cursor_execute", keep)
    assert all("removed_at IS NOT NULL" in one for one in statements if "images" in one)
    assert len(statements) == 4


def test_what_names_no_image_is_told_by_line_and_nothing_is_done_by_halves(session, images):
    text = "file,label\na/1.jpg,newt\n\n1.jpg,frog\nlost.jpg,newt\n,newt\n"
    with pytest.raises(LabelsNotUsable) as refused:
        give(session, images, text)
    for said in (
        "3 lines of labels.csv",
        "line 4, “1.jpg”: 2 images have this name",
        "line 5, “lost.jpg”: the collection has no such image, or not for certain",
        "line 6, “”: it names no image",
        "Nothing was changed",
    ):
        assert said in str(refused.value)
    assert read(session) == {}
    give(session, images, text, leave_out=True)
    assert read(session) == {images[0].id: {"newt"}}
    with pytest.raises(LabelsNotUsable, match="names no image of this collection"):
        give(session, images, "file,label\nlost.jpg,newt\n", leave_out=True)
    for bad, problem in (
        ("file,label\n", "no line that names an image"),
        ("file,label\na/1.jpg\n", "line 2 has 1 cell"),
        ("file,depth\na/1.jpg,2\n", "no column label"),
    ):
        with pytest.raises(LabelsNotUsable, match=problem):
            check_labels("labels.csv", bad.encode())


def test_image_that_shows_no_target_answers_and_is_no_target_to_look_for(session, settings, images):
    make_index(session, settings, images)
    collection = session.get_one(Collection, images[0].collection_id)
    lines = [f'"{image.path}",newt\n' for image in images[:4]]
    give(session, images, "file,label\n" + "".join(lines))
    with pytest.raises(LabelsNotUsable, match="1 image without a known label"):
        read_oracle_of(session, collection, settings=settings)
    give(session, images, f'file,label\n"{images[4].path}",\n')
    oracle, _ = read_oracle_of(session, collection, settings=settings)
    assert {name: rows.tolist() for name, rows in oracle.rows_of.items()} == {"newt": [0, 1, 2, 3]}
    assert [one.name for one in list_target_choices(session, collection.id)] == ["newt"]
    give(session, images, f'file,label\n"{images[3].path}",\n')
    assert [one.name for one in list_target_choices(session, collection.id)] == ["newt"]


def test_labels_that_come_later_hide_folders_called_like_them_and_clear_remarks(session, images):
    collection_id = images[0].collection_id
    run = Import(collection_id=collection_id, source="x", state="done", remarks=["line 3 is none"])
    session.add(run)
    session.flush()
    assert not may_folders_be_labels(session, collection_id)
    give(session, images, "file,label\na/1.jpg,newt\n")
    session.expire_all()
    assert not may_folders_be_labels(session, collection_id)
    give(session, images, "file,label\na/1.jpg,A\n")
    session.expire_all()
    assert may_folders_be_labels(session, collection_id)
    assert session.get_one(Collection, collection_id).guarded_at is not None
    assert run.remarks == []


def test_name_of_a_sent_file_is_no_path_and_no_word_of_ours():
    assert clean_name("C:\\photos\\labels.csv") == "labels.csv"
    assert clean_name("folders") == "folders.csv"
