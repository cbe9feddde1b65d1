"""How a collection's preparation stands, and what is known of its images."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import event
from sqlalchemy.orm import Session

from app import collecting
from app.collecting import (
    ImageCounts,
    describe_collection,
    describe_preparation,
    list_collections,
    list_refused,
)
from app.errors import NotFound
from app.removing import put_back_images, remove_images
from app.tables import Collection, ImageIndex, ImagePath, Import, Job, RefusedFile, Upload
from tests.factories import make_collection, make_images, make_index, make_person

NOW = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)


@pytest.fixture
def collection(session: Session) -> Collection:
    return make_collection(session)


def add_import(session, collection, **values):
    defaults = {
        "collection_id": collection.id,
        "source": "/photos/pond",
        "state": "done",
        "started_at": NOW - timedelta(seconds=60),
        "updated_at": NOW - timedelta(seconds=1),
    }
    run = Import(**defaults | values)
    session.add(run)
    session.flush()
    return run


def add_index(session, collection, **values):
    defaults = {
        "collection_id": collection.id,
        "embedder": "hand-made",
        "revision": "1",
        "dimension": 16,
        "image_count": 0,
        "started_at": NOW - timedelta(seconds=10),
        "updated_at": NOW - timedelta(seconds=1),
    }
    row = ImageIndex(**defaults | values)
    session.add(row)
    session.flush()
    return row


def prepare(session, collection):
    return describe_preparation(session, collection, now=NOW)


def test_new_collection_waits_for_its_import(session, collection):
    collection.made_at = NOW - timedelta(seconds=5)
    found = prepare(session, collection)
    assert (found.stage, found.is_running, found.stalled) == ("waiting", True, False)
    assert found.source == "/photos/pond"


def test_import_of_a_long_upload_is_queued_then_begins_and_is_not_called_stalled(
    session, collection
):
    collection.made_at = NOW - timedelta(hours=3)  # so long the files took to arrive
    job = Job(kind="import", collection_id=collection.id, arguments={}, state="waiting")
    job.made_at = NOW - timedelta(minutes=20)
    session.add(job)
    session.flush()
    found = prepare(session, collection)
    assert (found.stage, found.is_running, found.stalled) == ("queued", True, False)
    job.state, job.started_at = "running", NOW - timedelta(seconds=10)
    session.flush()
    found = prepare(session, collection)
    assert (found.stage, found.is_running, found.stalled) == ("waiting", True, False)
    job.started_at = NOW - timedelta(minutes=5)
    session.flush()
    assert prepare(session, collection).stalled


def test_adding_to_a_collection_is_shown_from_its_beginning(session, collection):
    images = make_images(session, collection, 2)
    add_import(session, collection, imported_count=2, started_at=NOW - timedelta(days=1))
    add_index(session, collection, state="ready", image_count=2)
    assert prepare(session, collection).stage == "ready"
    job = Job(kind="import", collection_id=collection.id, arguments={}, state="running")
    job.started_at = NOW - timedelta(seconds=3)
    session.add(job)
    session.flush()
    found = prepare(session, collection)
    assert (found.stage, found.is_running, found.stalled) == ("waiting", True, False)
    add_import(session, collection, imported_count=len(images), started_at=NOW)
    assert prepare(session, collection).stage == "loading"


def test_running_import_tells_speed_and_time_left_from_files_it_has_read(session, collection):
    add_import(
        session,
        collection,
        state="running",
        found_count=1_000,
        done_count=700,  # 580 of them known from before: they took no time
        imported_count=90,
        duplicate_count=20,
        refused_count=10,
        started_at=NOW - timedelta(seconds=70),
        updated_at=NOW - timedelta(seconds=10),
    )
    found = prepare(session, collection)
    assert (found.stage, found.done, found.total) == ("importing", 700, 1_000)
    assert found.per_second == pytest.approx(2.0)
    assert found.left_s == pytest.approx(140.0)
    assert (found.imported, found.duplicates, found.refused) == (90, 20, 10)


def test_speed_is_not_told_before_it_can_be(session, collection):
    just_now = {"started_at": NOW - timedelta(seconds=1), "updated_at": NOW}
    add_import(session, collection, state="running", found_count=10, imported_count=5, **just_now)
    found = prepare(session, collection)
    assert (found.per_second, found.left_s) == (None, None)


def test_work_that_says_nothing_for_minutes_is_called_stalled(session, collection):
    run = add_import(session, collection, state="running", found_count=10)
    assert not prepare(session, collection).stalled
    run.updated_at = NOW - timedelta(minutes=5)
    assert prepare(session, collection).stalled


def test_after_the_import_the_index_is_awaited_then_shown(session, collection):
    make_images(session, collection, 4)
    add_import(session, collection, imported_count=4)
    assert prepare(session, collection).stage == "loading"
    counts = {"image_count": 4, "done_count": 1, "updated_at": NOW}
    row = add_index(session, collection, state="building", **counts)
    found = prepare(session, collection)
    assert (found.stage, found.done, found.total) == ("indexing", 1, 4)
    assert found.left_s == pytest.approx(30.0)
    row.state = "ready"
    found = prepare(session, collection)
    assert (found.stage, found.problem, found.is_running) == ("ready", None, False)


def test_new_images_await_a_new_index_but_an_import_of_nothing_new_does_not(session, collection):
    make_images(session, collection, 4)
    add_index(session, collection, state="ready", started_at=NOW - timedelta(days=1))
    add_import(session, collection, imported_count=0)
    assert prepare(session, collection).stage == "ready"
    add_import(session, collection, imported_count=2)
    assert prepare(session, collection).stage == "loading"


def test_failed_import_says_why_and_an_older_index_stays_usable(session, collection):
    add_import(session, collection, state="failed", problem="There is no folder /photos/pond.")
    found = prepare(session, collection)
    assert (found.stage, found.problem) == ("stopped", "There is no folder /photos/pond.")
    add_index(session, collection, state="ready")
    found = prepare(session, collection)
    assert (found.stage, found.problem) == ("ready", "There is no folder /photos/pond.")


def test_interrupted_import_and_failed_index_say_so(session, collection):
    add_import(session, collection, state="interrupted")
    assert "interrupted" in prepare(session, collection).problem
    add_import(session, collection, state="done")
    add_index(session, collection, state="failed", problem="The disk is full.")
    found = prepare(session, collection)
    assert (found.stage, found.problem) == ("stopped", "The disk is full.")


def test_import_without_any_image_is_a_problem_and_not_a_wait(session, collection):
    add_import(session, collection, imported_count=0, refused_count=3)
    found = prepare(session, collection)
    assert found.stage == "stopped"
    assert "no image" in found.problem


def test_facts_count_what_the_metadata_says(session, collection):
    images = make_images(session, collection, 5)
    images[0].captured_at = datetime(2025, 3, 1, 6, 0)
    images[1].captured_at = datetime(2025, 9, 30, 18, 0)
    images[1].latitude, images[1].longitude = 47.5, -3.0
    for image, camera in zip(images, ["Reconyx", "Reconyx", "GoPro", None, None], strict=True):
        image.camera = camera
    (removed,) = make_images(session, collection, 1, first=5)
    removed.camera, removed.latitude, removed.longitude = "Bushnell", 1.0, 1.0
    removed.captured_at, removed.removed_at = datetime(2020, 1, 1), datetime.now(UTC)
    paths = [(image, image.path) for image in [*images, removed]]
    paths += [(images[2], "copy of it.jpg"), (removed, "copy of the removed.jpg")]
    for image, path in paths:
        session.add(
            ImagePath(
                collection_id=collection.id,
                image_id=image.id,
                path=path,
                size_bytes=1_000,
                modified_ns=1,
            )
        )
    other = make_collection(session, name="Lake")
    make_images(session, other, 3)
    session.flush()
    facts = describe_collection(session, collection.id)
    assert (facts.image_count, facts.duplicate_count, facts.size_bytes) == (5, 1, 5_000)
    assert facts.first_captured_at == datetime(2025, 3, 1, 6, 0)
    assert facts.last_captured_at == datetime(2025, 9, 30, 18, 0)
    assert (facts.dated_count, facts.placed_count, facts.camera_count) == (2, 1, 2)
    assert facts.cameras == [("Reconyx", 2), ("GoPro", 1)]
    assert sorted(facts.image_ids) == sorted(image.id for image in images)


def test_refused_files_are_counted_by_reason_and_paged(session, collection):
    for number in range(130):
        session.add(
            RefusedFile(
                collection_id=collection.id,
                path=f"bad/{number:03}.jpg",
                reason="damaged" if number < 120 else "not an image",
                detail="It ends too early.",
                size_bytes=10,
                modified_ns=1,
            )
        )
    session.flush()
    facts = describe_collection(session, collection.id)
    assert facts.refused == [("damaged", 120), ("not an image", 10)]
    last = list_refused(session, collection.id, reason="damaged", page=9)
    assert (last.page, last.pages, last.total) == (2, 2, 120)
    assert [file.path for file in last.files][:2] == ["bad/100.jpg", "bad/101.jpg"]
    assert list_refused(session, collection.id, reason="", page=1).total == 130


def test_collections_are_listed_by_name_with_their_own_counts(session, settings):
    pond, bay = make_collection(session, name="Pond"), make_collection(session, name="Bay")
    images = make_images(session, pond, 7)
    make_index(session, settings, images)
    listed = list_collections(session, make_person(session), now=NOW)
    assert [(one.collection.id, one.image_count) for one in listed] == [(bay.id, 0), (pond.id, 7)]
    assert [one.preparation.stage for one in listed] == ["waiting", "ready"]
    assert set(listed[1].image_ids) <= {image.id for image in images}


def test_many_collections_take_as_many_statements_as_few_and_none_is_told_of_anothers_work(
    session, settings
):
    person = make_person(session)
    made = {name: make_collection(session, name=name) for name in "ABCDEFG"}
    ids = {name: one.id for name, one in made.items()}
    images = make_images(session, made["A"], 7)
    removed = min(images, key=lambda image: image.sha256)
    removed.removed_at = NOW
    make_index(session, settings, images)
    running = {"state": "running", "source": "/s", "found_count": 9, "updated_at": NOW}
    failed = {"state": "failed", "source": "/f", "problem": "Full."}
    session.add(Import(collection_id=ids["B"], state="done", source="/old"))
    session.flush()
    session.add(Import(collection_id=ids["B"], **running))
    session.add(Import(collection_id=ids["C"], **running))
    session.flush()
    session.add(Import(collection_id=ids["C"], **failed))
    wanted = {"kind": "import", "arguments": {}}
    session.add(Job(collection_id=ids["D"], state="stopped", problem="Enough.", **wanted))
    session.add(Job(collection_id=ids["E"], state="waiting", **wanted))
    session.add(Upload(collection_id=ids["F"], person_id=person.id))
    session.flush()
    statements = []

    def note(_connection, _cursor, statement, *_more):
        statements.append(statement)

    event.listen(session.get_bind(), "before_cursor_execute", note)
    try:
        listed = list_collections(session, person, now=NOW)
        few = len(statements)
        for number in range(20):
            make_images(session, make_collection(session, name=f"More {number}"), 2)
        statements.clear()
        assert len(list_collections(session, person, now=NOW)) == 27
        assert len(statements) == few
    finally:
        event.remove(session.get_bind(), "before_cursor_execute", note)
    told = {one.collection.name: one.preparation for one in listed}
    stages = ("ready", "importing", "stopped", "stopped", "queued", "empty", "waiting")
    assert {name: one.stage for name, one in told.items()} == dict(
        zip("ABCDEFG", stages, strict=True)
    )
    assert (told["B"].source, told["B"].total) == ("/s", 9)
    assert (told["C"].problem, told["D"].problem) == ("Full.", "Enough.")
    pictures = {one.collection.name: one.image_ids for one in listed}
    shown = sorted((one for one in images if one is not removed), key=lambda one: one.sha256)
    assert pictures["A"] == [one.id for one in shown[:4]]
    assert not any(pictures[name] for name in "BCDEFG")


def test_images_are_counted_again_only_when_some_came_or_went(session, monkeypatch):
    pond, bay = make_collection(session, name="Pond"), make_collection(session, name="Bay")
    images = make_images(session, pond, 7)
    counts, asked = ImageCounts(), []

    def note(_connection, _cursor, statement, *_more):
        asked.append("removed_at IS NULL" in statement)

    event.listen(session.get_bind(), "before_cursor_execute", note)
    try:
        assert counts.read(session) == {pond.id: 7, bay.id: 0}
        assert any(asked)
        asked.clear()
        assert counts.read(session) == {pond.id: 7, bay.id: 0}
        assert not any(asked)
        person = make_person(session)
        make_images(session, bay, 2)
        assert counts.read(session) == {pond.id: 7, bay.id: 2}
        gone = [one.id for one in images[:3]]
        remove_images(session, pond.id, gone, person=person)
        assert counts.read(session) == {pond.id: 4, bay.id: 2}
        put_back_images(session, pond.id, gone[:1], person=person)
        assert counts.read(session) == {pond.id: 5, bay.id: 2}
        asked.clear()
        monkeypatch.setattr(collecting, "COUNTED_S", -1)
        assert counts.read(session) == {pond.id: 5, bay.id: 2}
        assert any(asked)
    finally:
        event.remove(session.get_bind(), "before_cursor_execute", note)


def test_unknown_collection_is_not_found(session):
    with pytest.raises(NotFound):
        describe_collection(session, 999)
