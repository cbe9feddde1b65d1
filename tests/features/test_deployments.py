"""Deployments: from folders and packages, with a place and a clock shift that images follow."""

import csv
import json
import shutil
import zipfile
from datetime import datetime

import pytest
from sqlalchemy import func, select

from app.deploying import (
    DeploymentSummary,
    change_deployment,
    count_deployments,
    find_far,
    join_by_folder,
    judge_folders,
    list_deployments,
    list_folders,
    may_folders_be_labels,
    may_see_folders,
    read_shift,
    take_folders,
    write_shift,
)
from app.errors import BadInput, SourceNotUsable
from app.filtering import Filter, describe_offer, list_image_ids, read_filter
from app.importing import import_images
from app.removing import remove_images
from app.tables import Deployment, Image, Import, OracleLabel, RefusedFile
from tests.factories import (
    make_collection,
    make_image_file,
    make_images,
    make_person,
    note_paths,
)


@pytest.fixture
def pond(session):
    """Two images in folder A, one in B, one in none; the first knows its own place."""
    collection = make_collection(session)
    images = make_images(session, collection, 4)
    for image, path in zip(images, ("A/1.jpg", "A/2.jpg", "B/3.jpg", "4.jpg"), strict=True):
        image.path = path
        image.captured_at = datetime(2024, 5, 31, 23, 30)
    images[0].latitude, images[0].longitude = 50.0, 4.0
    images[3].captured_at = None
    session.flush()
    return collection, images, make_person(session)


def change(session, pond, name, **values):
    deployment = session.scalars(select(Deployment).filter_by(name=name)).one()
    usual = {"place": "", "latitude": "", "longitude": "", "clock_shift": ""}
    change_deployment(session, pond[0].id, deployment.id, **(usual | values), person=pond[2])


def test_folders_become_deployments_whose_images_follow_place_and_clock(session, pond):
    collection, images, person = pond
    assert list_folders(session, collection.id) == [("A", 2), ("B", 1)]
    assert take_folders(session, collection.id, person=person) == 2
    assert list_folders(session, collection.id) == []
    change(session, pond, "A", place="Weir", latitude="51", longitude="5", clock_shift="1:00")
    assert [image.captured_at for image in images] == [
        datetime(2024, 6, 1, 0, 30),
        datetime(2024, 6, 1, 0, 30),
        datetime(2024, 5, 31, 23, 30),
        None,
    ]
    assert [image.latitude for image in images] == [50, 51, None, None]
    # Another shift counts from the camera's own time, and a place moves what it had placed.
    change(session, pond, "A", latitude="52", longitude="5", clock_shift="-1d")
    assert images[0].captured_at == datetime(2024, 5, 30, 23, 30)
    assert [image.latitude for image in images[:2]] == [50, 52]
    change(session, pond, "A")
    assert images[0].captured_at == datetime(2024, 5, 31, 23, 30)
    assert [image.latitude for image in images[:2]] == [50, None]
    # Images that come later follow too, once.
    change(session, pond, "B", clock_shift="+0:10")
    (late,) = make_images(session, collection, 1, first=9)
    late.path, late.captured_at = "B/9.jpg", datetime(2024, 1, 1)
    session.flush()
    for _ in range(2):
        join_by_folder(session, collection.id)
        session.expire_all()
        assert late.captured_at == datetime(2024, 1, 1, 0, 10)
    assert [one.image_count for one in list_deployments(session, collection.id)] == [2, 2]
    assert count_deployments(session, collection.id) == 2
    other = make_collection(session, name="Other")
    session.add(Deployment(collection_id=other.id, name="C"))
    remove_images(session, collection.id, [images[0].id], person=person)
    assert [one.image_count for one in list_deployments(session, collection.id)] == [1, 2]
    assert [one.image_count for one in list_deployments(session, other.id)] == [0]


def test_each_deployment_says_when_its_images_were_taken(session, pond):
    collection, images, person = pond
    images[0].captured_at = datetime(2012, 1, 1, 0, 5)
    images[2].captured_at = None
    take_folders(session, collection.id, person=person)
    change(session, pond, "A", latitude="27,5", longitude="-84.25", clock_shift="1 day")
    a, b = list_deployments(session, collection.id)
    assert (a.deployment.latitude, a.deployment.longitude) == (27.5, -84.25)
    assert (a.timed_count, a.first_at, a.last_at) == (
        2,
        datetime(2012, 1, 2, 0, 5),
        datetime(2024, 6, 1, 23, 30),
    )
    assert (b.image_count, b.timed_count, b.first_at) == (1, 0, None)


def test_clock_shift_is_reckoned_from_when_the_first_image_was_taken(session, pond):
    collection, images, person = pond
    images[0].captured_at = datetime(2012, 1, 1, 0, 5)
    images[1].captured_at = datetime(2012, 1, 2, 0, 5)
    take_folders(session, collection.id, person=person)
    change(session, pond, "A", clock_shift="1:00")
    change(session, pond, "A", clock_shift="+1:00:00", first_taken_at="2025-03-04T10:05:30")
    assert images[1].captured_at == datetime(2025, 3, 5, 10, 5, 30)
    assert list_deployments(session, collection.id)[0].clock_shift == "+4811d 10:00:30"
    with pytest.raises(BadInput, match="the one follows from the other"):
        change(session, pond, "A", clock_shift="2:00", first_taken_at="2025-03-04 10:05")
    kept = {"clock_shift": "+4811d 10:00:30"}
    with pytest.raises(BadInput, match="no day and time"):
        change(session, pond, "A", **kept, first_taken_at="in March")
    with pytest.raises(BadInput, match="too far"):
        change(session, pond, "A", **kept, first_taken_at="9999-03-04 10:05")
    with pytest.raises(BadInput, match="names a time zone"):
        change(session, pond, "A", **kept, first_taken_at="2025-03-04 10:05+02:00")
    images[2].captured_at = None
    with pytest.raises(BadInput, match="No image"):
        change(session, pond, "B", first_taken_at="2025-03-04 10:05")


@pytest.mark.parametrize(
    ("years", "far"),
    [
        ({1: (2025, 2025), 2: (2012, 2012), 3: (2025, 2026)}, {2}),
        ({1: (2025, 2025), 2: (2012, 2012)}, {2}),
        ({1: (2025, 2025), 2: (2012, 2025), 3: (2024, 2024)}, {2}),  # fell back midway
        ({1: (2024, 2024), 2: (2024, 2024), 3: (2040, 2040)}, {3}),
        ({year: (year, year) for year in range(2015, 2026)}, set()),  # each year a deployment
        ({1: (2012, 2012), 2: (None, None)}, set()),
        ({}, set()),
    ],
)
def test_deployments_years_away_from_most_are_told(years, far):
    def july(year):
        return None if year is None else datetime(year, 7, 1)

    deployments = [
        DeploymentSummary(Deployment(id=one), 1, 1, july(first), july(last))
        for one, (first, last) in years.items()
    ]
    assert find_far(deployments) == far


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1:00", 3600),
        ("-0:05:30", -330),
        ("+365d 2:00", 31543200),
        ("+4811 days", 415670400),
        ("-1 Day 0:30", -88200),
        ("-1d", -86400),
        ("", 0),
    ],
)
def test_clock_shift_is_read_as_it_is_written(text, seconds):
    assert read_shift(text) == seconds
    assert read_shift(write_shift(seconds)) == seconds


@pytest.mark.parametrize("text", ["1", "an hour", "1:60", "+", "99999d"])
def test_what_is_no_clock_shift_is_refused(text):
    with pytest.raises(BadInput, match="no clock shift"):
        read_shift(text)


def run(database, settings, source, name="River"):
    with database.session() as session:
        collection_id = make_collection(session, name=name).id
    return collection_id, import_images(database, collection_id, source, settings=settings)


def test_real_package_comes_in_with_times_places_and_labels(own_database, settings, shared_data):
    collection_id, summary = run(own_database, settings, shared_data / "camtrap_dp")
    assert (summary.imported, summary.refused) == (10, {"not available": 413})
    assert summary.labelled == 10
    assert summary.unmatched_labels == 0
    zones, agree = summary.notes
    assert "media.csv in +01:00, +02:00 and observations.csv in UTC" in zones
    assert "All 513 observations" in agree
    with own_database.session() as session:
        images = session.scalars(select(Image).order_by(Image.path)).all()
        # The camera's own time, which its EXIF has too: neither UTC nor this machine's zone.
        assert images[0].captured_at == datetime(2021, 4, 11, 20, 43, 9)
        assert {(image.latitude, image.longitude) for image in images} == {(50.699, 4.013)}
        assert set(session.scalars(select(OracleLabel.label))) == {"Ardea"}
        counts = {
            one.deployment.name: one.image_count for one in list_deployments(session, collection_id)
        }
        assert counts == {"00a2c20d": 0, "29b7d356": 0, "577b543a": 0, "62c200a9": 10}
        there = Filter((("deployment", "62c200a9"),))
        assert len(list_image_ids(session, collection_id, there)) == 10
        assert session.scalar(select(func.count()).select_from(RefusedFile)) == 413
        deployment = images[0].deployment
        assert deployment.place == "B_DM_val 4_'t WAD"
        change_deployment(
            session,
            collection_id,
            deployment.id,
            place=deployment.place,
            latitude="50.699",
            longitude="4.013",
            clock_shift="1:00",
            person=make_person(session),
        )
    # Again: nothing is doubled, and the clock shift stays.
    again = import_images(
        own_database, collection_id, shared_data / "camtrap_dp", settings=settings
    )
    assert (again.imported, again.known) == (0, 10)
    with own_database.session() as session:
        assert session.scalars(select(Image.captured_at).order_by(Image.path)).first() == datetime(
            2021, 4, 11, 21, 43, 9
        )
        assert session.scalar(select(func.count()).select_from(Deployment)) == 4


def write_package(folder, media, observations):
    folder.mkdir(parents=True, exist_ok=True)
    tables = {
        "deployments": [{"deploymentID": "d1", "latitude": "1.5", "longitude": "2.5"}],
        "media": media,
        "observations": observations,
    }
    resources = []
    for name, rows in tables.items():
        with (folder / f"{name}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        resources.append({"name": name, "path": f"{name}.csv"})
    (folder / "datapackage.json").write_text(json.dumps({"resources": resources}))


def medium(number, at):
    return {
        "mediaID": f"m{number}",
        "deploymentID": "d1",
        "timestamp": at,
        "filePath": f"media/{number}.jpg",
    }


def seen(media_id, start, end, kind, name):
    return {
        "deploymentID": "d1",
        "mediaID": media_id,
        "eventStart": start,
        "eventEnd": end,
        "observationType": kind,
        "scientificName": name,
    }


def test_package_in_a_zip_with_events_blanks_and_times_that_differ(
    own_database, settings, tmp_path
):
    folder = tmp_path / "package"
    for number in range(4):
        make_image_file(folder / "media" / f"{number}.jpg", number)
    make_image_file(folder / "stray.jpg", 9)  # not of the package
    noon = "2024-05-31T12:00:00"
    write_package(
        folder,
        [
            medium(0, f"{noon}+02:00"),
            medium(1, f"{noon}+02:00"),
            medium(2, "2024-05-31T12:00:30+02:00"),
            medium(3, f"{noon}Z"),  # two hours after the event
        ],
        [
            seen("m0", f"{noon}+02:00", f"{noon}+02:00", "blank", ""),
            seen("m1", f"{noon}Z", f"{noon}Z", "animal", "Lutra lutra"),  # two hours off
            seen("m3", f"{noon}Z", f"{noon}Z", "unclassified", ""),
            # An event: of its images m2 alone has no observation of its own.
            seen("", "2024-05-31T10:00:00Z", "2024-05-31T10:01:00Z", "animal", "Castor fiber"),
        ],
    )
    archive = tmp_path / "package.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for file in sorted(folder.rglob("*.*")):
            packed.write(file, file.relative_to(folder))
    _, summary = run(own_database, settings, archive)
    assert (summary.imported, summary.refused) == (4, {})
    assert any("1 of 3 observations begin at another moment" in one for one in summary.notes)
    with own_database.session() as session:
        rows = session.execute(
            select(Image.path, OracleLabel.label)
            .join(OracleLabel, OracleLabel.image_id == Image.id, isouter=True)
            .order_by(Image.path)
        ).all()
        assert rows == [
            ("media/0.jpg", "blank"),
            ("media/1.jpg", "Lutra lutra"),
            ("media/2.jpg", "Castor fiber"),
            ("media/3.jpg", None),
        ]
        assert set(session.scalars(select(Image.latitude))) == {1.5}


def test_package_whose_table_is_cut_is_refused_by_line(own_database, settings, tmp_path):
    folder = tmp_path / "package"
    make_image_file(folder / "media" / "0.jpg", 0)
    write_package(folder, [medium(0, "")], [seen("m0", "", "", "blank", "")])
    with (folder / "observations.csv").open("a") as file:
        file.write('d1,m0,,,"blank\n')
    with pytest.raises(SourceNotUsable, match=r"observations\.csv: .* line 3 a quotation mark"):
        run(own_database, settings, folder)
    with own_database.session() as session:
        assert session.scalars(select(Image)).all() == []
    shutil.rmtree(folder)


def test_package_whose_table_is_gone_is_refused_in_a_sentence(own_database, settings, tmp_path):
    folder = tmp_path / "package"
    make_image_file(folder / "media" / "0.jpg", 0)
    write_package(folder, [medium(0, "")], [seen("m0", "", "", "blank", "")])
    (folder / "media.csv").unlink()
    with pytest.raises(SourceNotUsable, match=r"media.csv can't be read"):
        run(own_database, settings, folder)
    shutil.rmtree(folder)


# --- Folders and known labels --------------------------------------------------------------------


def label(session, pond, labels, names=()):
    """The pond's images as if they had come with labels."""
    collection, images, _ = pond
    session.add(Import(collection_id=collection.id, source="/s", labels=labels, state="done"))
    for image, name in zip(images, names, strict=False):
        session.add(OracleLabel(image_id=image.id, label=name))
    note_paths(session, images)
    judge_folders(session, collection.id)


def test_folders_are_shown_where_a_file_brought_the_labels(session, pond):
    label(session, pond, "/s/labels.csv", ("newt", "toad", "newt", "none"))
    collection, _, admin = pond
    searcher = make_person(session, name="Ben", role="ecologist")
    assert may_see_folders(session, searcher, collection.id)
    # Folders that could be deployments are offered to filters before anybody made them any.
    folders = [("A", 2), ("B", 1)]
    assert list_folders(session, collection.id) == folders
    for person in (admin, searcher):
        offered = describe_offer(session, person, collection.id).deployments
        assert [(name, count) for name, _, count in offered] == folders


@pytest.mark.parametrize(
    ("labels", "names", "path"),
    [
        ("folders", (), "A/1.jpg"),
        ("/s/labels.csv", ("Grey heron",), "2026/grey_Heron/1.jpg"),
        ("/s/labels.csv", ("A",), "A/1.jpg"),
    ],
)
def test_folders_that_have_the_names_of_labels_are_not_told(session, pond, labels, names, path):
    collection, images, admin = pond
    images[0].path = path
    label(session, pond, labels, names)
    assert may_folders_be_labels(session, collection.id)
    searcher = make_person(session, name="Ben", role="ecologist")
    assert not may_see_folders(session, searcher, collection.id)
    assert list_folders(session, collection.id) == []
    assert describe_offer(session, admin, collection.id).deployments == []


def test_deployments_called_like_folders_that_may_be_labels_are_not_told(session, pond):
    collection, images, admin = pond
    images[0].path = "A/B/1.jpg"
    take_folders(session, collection.id, person=admin)
    label(session, pond, "/s/labels.csv", ("A",))
    searcher = make_person(session, name="Ben", role="ecologist")
    assert [one.deployment.name for one in list_deployments(session, collection.id)] == ["A", "B"]
    assert list_deployments(session, collection.id, with_folders=False) == []
    assert describe_offer(session, searcher, collection.id).deployments == []
    with pytest.raises(BadInput, match="No deployment “A” is recorded"):
        read_filter(session, collection.id, [("deployment", "A")], person=searcher)
    rename = session.scalars(select(Deployment).filter_by(name="A")).one()
    rename.name = "Weir"  # says no folder, so it is told
    session.flush()
    offered = describe_offer(session, searcher, collection.id).deployments
    assert [name for name, _, _ in offered] == ["Weir"]
    read_filter(session, collection.id, [("deployment", "Weir")], person=searcher)


def test_folders_may_be_labels_until_that_was_looked_at(session, pond):
    collection, _, _ = pond
    assert not may_folders_be_labels(session, collection.id)
    running = Import(
        collection_id=collection.id, source="/s", labels="/s/labels.csv", state="running"
    )
    session.add(running)
    session.flush()
    assert may_folders_be_labels(session, collection.id)
    judge_folders(session, collection.id)
    assert not may_folders_be_labels(session, collection.id)


def test_a_label_within_the_name_of_a_folder_or_file_hides_no_folders(session, pond):
    collection, images, _ = pond
    images[0].path = "Heron weir/heron.jpg"
    label(session, pond, "/s/labels.csv", ("heron", "weir"))
    assert not may_folders_be_labels(session, collection.id)


def test_a_folder_that_was_told_apart_is_called_like_its_label(session, pond):
    collection, images, _ = pond
    images[0].path = "Grey_heron (2)/1.jpg"
    label(session, pond, "/s/labels.csv", ("grey heron",))
    assert may_folders_be_labels(session, collection.id)
