"""Every export opened by the reader of its own format; a search taken to another database."""

import csv
import io
import json
import zipfile
from contextlib import redirect_stdout
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jsonschema
import numpy as np
import PIL.Image
import pytest
from dwca.read import DwCAReader
from frictionless import Package, system
from pycocotools.coco import COCO
from sqlalchemy import select

from app import searching
from app.deploying import judge_folders
from app.errors import BadInput, EmbedderMismatch
from app.events import Rule, group_images
from app.exports.details import save_details
from app.exports.heads import apply_head, read_head_file
from app.exports.offers import FORMATS, count_known, list_offers, write_file
from app.exports.stripping import NotCopied, strip_jpeg
from app.indexing import LoadedEmbedders, OpenIndexes
from app.tables import Deployment, GivenColumn, Image, Import, OracleLabel, Round
from tests.factories import (
    make_collection,
    make_image_file,
    make_images,
    make_index,
    make_person,
    make_picture,
    note_paths,
)

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
CHECKS = Path(__file__).parent.parent / "camtrap_dp"
DETAILS = {
    "scientific_name": "Ardea cinerea",
    "rights_holder": "Pond & Marsh <Society>",
    "licence": "CC-BY-4.0",
    "utc_offset": "+02:00",
    "capture": "both",
    "design": "opportunistic",
}


class Hunt:
    """A search with answers in three folders: A has all, B only no, C was not looked at."""

    def __init__(self, session, settings, readers):
        self.readers = readers
        self.session, self.settings = session, settings
        self.indexes = OpenIndexes(settings)
        self.person = make_person(session, name="=Ada")
        self.collection = make_collection(session, name="Pond")
        self.images = make_images(session, self.collection, 30)
        for number, image in enumerate(self.images):
            folder = "ABC"[number // 10]
            image.path = f"{folder}/IMG..{number:02}.jpg"
            if number != 3:
                image.captured_at = datetime(2025, 5, 1, 3) + timedelta(hours=number)
            image.latitude, image.longitude = 50.00001 + number // 10, -4.0
        make_index(session, settings, self.images)
        self.search = searching.open_search(
            session,
            person=self.person,
            collection_id=self.collection.id,
            target_name="Grey heron",
            round_size=6,
            image_ids=[self.images[0].id],
            photo_ids=[],
            indexes=self.indexes,
            embedders=LoadedEmbedders(settings, readers),
            settings=settings,
        )
        self.answer(
            {0: "yes", 1: "yes", 2: "unsure", 3: "yes"} | dict.fromkeys(range(10, 20), "no")
        )
        self.submit()

    def answer(self, values):
        searching.correct_answers(
            self.session,
            self.search,
            person=self.person,
            values={self.images[number].id: value for number, value in values.items()},
            gesture_key=None,
        )

    def submit(self):
        searching.submit_answers(
            self.session,
            self.search,
            person=self.person,
            round_id=self.search.current_round_id,
            values={},
            rest_are_no=False,
            gesture_key=None,
            indexes=self.indexes,
        )

    def know(self, labels, name):
        """Known labels, as an import brings them."""
        collection_id = self.collection.id
        self.session.add(
            Import(collection_id=collection_id, source="/photos", labels=labels, state="done")
        )
        self.session.add_all(OracleLabel(image_id=image.id, label=name) for image in self.images)
        note_paths(self.session, self.images)
        judge_folders(self.session, collection_id)

    def describe(self):
        save_details(self.session, self.search, DETAILS)

    def write(self, name, path=None):
        content = b"".join(
            write_file(
                self.session,
                self.search,
                name,
                indexes=self.indexes,
                settings=self.settings,
                now=NOW,
                person=self.person,
                readers=self.readers,
            )
        )
        if path is not None:
            path.write_bytes(content)
        return content


@pytest.fixture
def hunt(session, settings, readers):
    return Hunt(session, settings, readers)


def refusals(hunt):
    offers = list_offers(hunt.session, hunt.search)
    return {
        name: offer.described.refusal
        for offer in offers
        for name in offer.names
        if offer.described.refusal
    }


# --- Every image --------------------------------------------------------------------------------


def test_every_image_has_one_row_in_csv_and_in_json_lines(hunt):
    hunt.images[29].removed_at = NOW
    hunt.images[28].path = "+C/@x.jpg"
    hunt.session.flush()
    lines = hunt.write("images.jsonl").decode().splitlines()
    rows = {row["path"]: row for row in map(json.loads, lines)}
    assert len(lines) == len(rows) == 29
    assert {path: row["state"] for path, row in rows.items() if row["answer"]} == {
        "A/IMG..00.jpg": "yes",
        "A/IMG..01.jpg": "yes",
        "A/IMG..02.jpg": "unsure",
        "A/IMG..03.jpg": "yes",
    } | {f"B/IMG..{number}.jpg": "no" for number in range(10, 20)}
    shown = {path for path, row in rows.items() if row["shown_because"]}
    assert {row["state"] for path, row in rows.items() if not row["answer"]} == {
        "left open",
        "unseen",
    }
    assert all(row["state"] != "unseen" for path, row in rows.items() if path in shown)
    assert all(row["score"] is not None for row in rows.values())  # by the head, seen or not
    table = list(csv.DictReader(io.StringIO(hunt.write("images.csv").decode())))
    assert [row["sha256"] for row in table] == [row["sha256"] for row in rows.values()]
    (risky,) = [row for row in table if "@x" in row["path"]]
    assert (risky["path"], risky["folder"], risky["longitude"]) == ("'+C/@x.jpg", "'+C", "-4.0")


# --- COCO ---------------------------------------------------------------------------------------


def test_coco_is_read_by_its_own_tools(hunt, tmp_path):
    hunt.describe()
    hunt.write("coco.json", tmp_path / "coco.json")
    with redirect_stdout(io.StringIO()):
        coco = COCO(tmp_path / "coco.json")
    (category,) = coco.loadCats(coco.getCatIds())
    assert (category["name"], category["scientific_name"]) == ("Grey heron", "Ardea cinerea")
    labelled = coco.loadImgs(coco.getImgIds(catIds=[category["id"]]))
    assert {image["file_name"] for image in labelled} == {
        f"A/IMG..0{number}.jpg" for number in (0, 1, 3)
    }
    assert len(coco.getImgIds()) == 13  # the unsure one is neither
    first = coco.loadImgs(labelled[0]["id"])[0]
    assert (first["width"], first["height"], first["location"]) == (640, 480, "A")
    assert len(coco.getAnnIds(imgIds=[image["id"] for image in labelled])) == 3


# --- Camtrap DP ---------------------------------------------------------------------------------


def check_camtrap_dp(folder: Path) -> dict[str, list[dict]]:
    """Validate a package by frictionless and our checks; its rows."""
    descriptor = json.loads((folder / "datapackage.json").read_text())
    jsonschema.validate(descriptor, json.loads((CHECKS / "profile.json").read_text()))
    tables = ("deployments", "media", "observations")
    resources = [one for one in descriptor["resources"] if one["name"] in tables]
    for one in resources:
        one["schema"] = json.loads((CHECKS / f"{one['name']}.json").read_text())
        del one["profile"]
    with system.use_context(trusted=True):
        package = Package({"name": "x", "resources": resources}, basepath=str(folder))
        report = package.validate()
        assert report.valid, report.flatten(["rowNumber", "fieldName", "type", "note"])
        return {
            name: [dict(row) for row in package.get_resource(name).read_rows()] for name in tables
        }


def test_our_checks_hold_for_a_package_of_the_standards_authors(shared_data, tmp_path):
    source = shared_data / "camtrap_dp"
    for name in ("deployments.csv", "media.csv", "observations.csv"):
        (tmp_path / name).write_bytes((source / name).read_bytes())
    descriptor = json.loads((source / "datapackage.json").read_text())
    descriptor["resources"] = descriptor["resources"][:3]
    (tmp_path / "datapackage.json").write_text(json.dumps(descriptor))
    assert len(check_camtrap_dp(tmp_path)["observations"]) == 549
    broken = (tmp_path / "media.csv").read_text().replace("00a2c20d", "nowhere", 1)
    (tmp_path / "media.csv").write_text(broken)
    with pytest.raises(AssertionError, match="foreign-key"):
        check_camtrap_dp(tmp_path)


def test_camtrap_dp_is_valid_and_says_no_more_than_was_answered(hunt, tmp_path):
    assert "the scientific name, how far" in refusals(hunt)["camtrap-dp.zip"]
    with pytest.raises(BadInput, match="asked for once, on the search's page of exports"):
        hunt.write("camtrap-dp.zip")
    hunt.describe()
    zipfile.ZipFile(io.BytesIO(hunt.write("camtrap-dp.zip"))).extractall(tmp_path)
    tables = check_camtrap_dp(tmp_path)
    assert [one["deploymentID"] for one in tables["deployments"]] == ["A", "B", "C"]
    first = tables["deployments"][0]
    assert first["deploymentStart"].isoformat() == "2025-05-01T03:00:00+02:00"  # not converted
    assert first["deploymentEnd"].isoformat() == "2025-05-01T12:00:00+02:00"
    assert len(tables["media"]) == 29  # all but the one without a time
    assert {one["filePath"] for one in tables["media"]} >= {"media/A/IMG%2E%2E00.jpg"}
    ids = {hunt.images[number].id: number for number in range(30)}
    found = {ids[int(one["mediaID"])]: one for one in tables["observations"]}
    assert {number: one["observationType"] for number, one in found.items()} == {
        0: "animal",
        1: "animal",
        2: "unknown",
    }
    assert [found[n]["scientificName"] for n in (0, 2)] == ["Ardea cinerea", None]
    assert {one["classificationMethod"] for one in found.values()} == {"human"}
    assert {one["classifiedBy"] for one in found.values()} == {"'=Ada"}
    assert all(one["classificationTimestamp"].utcoffset() == timedelta(0) for one in found.values())


def test_camtrap_dp_names_events_and_gives_their_whole_time(hunt, tmp_path):
    rule = Rule("bursts", gap_s=3_600)  # an image an hour in each of three folders
    group_images(hunt.session, hunt.collection.id, rule, person=hunt.person, indexes=hunt.indexes)
    hunt.submit()
    hunt.describe()
    zipfile.ZipFile(io.BytesIO(hunt.write("camtrap-dp.zip"))).extractall(tmp_path)
    found = check_camtrap_dp(tmp_path)["observations"]
    ids = {hunt.images[number].id: number for number in range(30)}
    events = {ids[int(one["mediaID"])]: one for one in found}
    # Number 3 has no time, so the burst of the first folder ends before it.
    assert {events[number]["eventID"] for number in (0, 1, 2)} == {f"A-event-{hunt.images[0].id}"}
    for number in (0, 1, 2):
        assert events[number]["eventStart"].isoformat() == "2025-05-01T03:00:00+02:00"
        assert events[number]["eventEnd"].isoformat() == "2025-05-01T05:00:00+02:00"


def test_camtrap_dp_is_not_offered_without_time_and_place_of_one_image(hunt):
    hunt.describe()
    for number, image in enumerate(hunt.images):
        if number % 2:
            image.captured_at = None
        else:
            image.latitude = None
    hunt.session.flush()
    assert refusals(hunt) == {
        "camtrap-dp.zip": "It takes only images with a time and a place, and no image here has "
        "both."
    }


# --- Darwin Core --------------------------------------------------------------------------------


def test_darwin_core_has_occurrences_and_absences_with_their_effort(hunt, tmp_path):
    assert "scientific name" in refusals(hunt)["darwin-core.zip"]
    hunt.describe()
    hunt.write("darwin-core.zip", tmp_path / "dwca.zip")
    terms = "http://rs.tdwg.org/dwc/terms/"
    with DwCAReader(str(tmp_path / "dwca.zip")) as archive:
        assert archive.core_contains_term(terms + "samplingEffort")
        assert archive.metadata.find("dataset/creator/organizationName").text == (
            "Pond & Marsh <Society>"
        )
        events = {row.data[terms + "locality"]: row for row in archive}
        found = {
            place: sorted(
                (one.data[terms + "occurrenceStatus"], one.data[terms + "associatedMedia"])
                for one in row.extensions
            )
            for place, row in events.items()
        }
        rows = [one.data for row in events.values() for one in row.extensions]
    assert found == {
        "A": [("present", f"A/IMG..0{number}.jpg") for number in (0, 1, 3)],
        "B": [("absent", "")],
    }
    assert events["A"].data[terms + "samplingEffort"] == "4 of 10 images looked at"
    assert events["A"].data[terms + "eventDate"] == "2025-05-01T03:00:00/2025-05-01T12:00:00"
    assert events["B"].data[terms + "decimalLongitude"] == "-4.0"
    assert {row[terms + "scientificName"] for row in rows} == {"Ardea cinerea"}
    assert len({row[terms + "occurrenceID"] for row in rows}) == len(rows)


def read_events(hunt):
    """The rows of event.csv."""
    archive = zipfile.ZipFile(io.BytesIO(hunt.write("darwin-core.zip")))
    return list(csv.DictReader(io.StringIO(archive.read("event.csv").decode())))


def tell(hunt, title):
    (offer,) = [one for one in list_offers(hunt.session, hunt.search) if one.title == title]
    return offer.described.holds


def test_events_are_the_recorded_deployments_then_the_folders(hunt):
    """Whatever lies in which folder, and though labels are known, which a file brought."""
    hunt.describe()
    hunt.know("/photos/labels.csv", "heron")
    weir = Deployment(collection_id=hunt.collection.id, name="Cam 1", place="Weir")
    mill = Deployment(collection_id=hunt.collection.id, name="Cam 2")
    for number, image in enumerate(hunt.images):
        image.latitude = image.longitude = None
        image.deployment = weir if number in (0, 1) else mill if number in (2, 10) else None
    hunt.session.flush()
    columns = ("eventID", "locality", "samplingEffort")
    assert [tuple(row[name] for name in columns) for row in read_events(hunt)] == [
        (f"rarefind:{hunt.search.id}:Cam 1", "Weir", "2 of 2 images looked at"),
        (f"rarefind:{hunt.search.id}:Cam 2", "Cam 2", "2 of 2 images looked at"),
        (f"rarefind:{hunt.search.id}:A", "A", "1 of 7 images looked at"),
        (f"rarefind:{hunt.search.id}:B", "B", "9 of 9 images looked at"),
    ]
    assert "a recorded deployment, else a first folder, at one place." in tell(
        hunt, "Darwin Core archive"
    )


@pytest.mark.parametrize(("labels", "name"), [("folders", "x"), ("/photos/labels.csv", "B")])
def test_folders_that_name_what_is_looked_for_are_no_events(hunt, labels, name):
    hunt.describe()
    hunt.know(labels, name)
    told = Deployment(collection_id=hunt.collection.id, name="Cam 1")
    untold = Deployment(collection_id=hunt.collection.id, name="A")  # made of its folder
    for number, image in enumerate(hunt.images[:4]):
        image.deployment = untold if number else told
    hunt.session.flush()
    assert {(row["eventID"].split(":")[-1], row["locality"]) for row in read_events(hunt)} == {
        ("Cam 1", "Cam 1"),
        ("place", ""),
        ("place-2", ""),
    }
    assert "folders are not told apart" in tell(hunt, "Darwin Core archive")
    assert "A/" not in hunt.write("coco.json").decode()


def test_one_image_not_looked_at_is_no_absence(hunt, tmp_path):
    hunt.describe()
    hunt.answer({15: None})
    hunt.write("darwin-core.zip", tmp_path / "dwca.zip")
    with zipfile.ZipFile(tmp_path / "dwca.zip") as archive:
        assert "absent" not in archive.read("occurrence.csv").decode()
        assert "9 of 10 images looked at" in archive.read("event.csv").decode()


# --- Pictures -----------------------------------------------------------------------------------


def test_pictures_are_the_same_pixels_and_say_no_place(hunt, shared_data, tmp_path):
    with_place = shared_data / "exif" / "DSCN0010.jpg"
    turned = shared_data / "exif" / "portrait_6.jpg"
    sources = [with_place, turned, make_image_file(tmp_path / "x.tif", file_format="TIFF")]
    for image, source in zip(
        (hunt.images[0], hunt.images[1], hunt.images[3]), sources, strict=True
    ):
        image.file = str(source)
        with PIL.Image.open(source) as opened:
            image.format = opened.format
            image.orientation = opened.getexif().get(0x0112, 1)
    hunt.images[0].path = "../A/same.jpg"
    hunt.images[1].path = "A/SAME.jpg"
    hunt.answer({5: "yes"})  # its file is not there
    hunt.session.flush()
    archive = zipfile.ZipFile(io.BytesIO(hunt.write("pictures.zip")))
    assert archive.testzip() is None
    table = list(csv.DictReader(io.StringIO(archive.read("pictures.csv").decode())))
    by_path = {row["path"]: row for row in table}
    assert by_path["A/IMG..05.jpg"]["problem"] == (
        "its original can't be read: No such file or directory"
    )
    names = [row["file"] for row in table if row["file"]]
    assert sorted([*names, "pictures.csv"]) == sorted(archive.namelist())
    assert names == ["pictures/A/same.jpg", "pictures/A/IMG..03.png", "pictures/A/SAME-2.jpg"]
    assert by_path["../A/same.jpg"]["latitude"] == "50.00001"
    for name, source in zip((names[0], names[2], names[1]), sources, strict=True):
        copied, original = archive.read(name), source.read_bytes()
        with PIL.Image.open(io.BytesIO(copied)) as one, PIL.Image.open(source) as other:
            assert np.array_equal(np.asarray(one), np.asarray(other))
            assert not one.getexif().get_ifd(0x8825)
            assert dict(one.getexif()) in ({}, {0x0112: other.getexif().get(0x0112)})
        assert len(copied) < len(original) or name.endswith("png")
        assert b"GPS" not in copied
        assert b"Nikon" not in copied
        assert b"NIKON" not in copied


def test_pictures_have_what_the_tables_say_and_their_paths(hunt, tmp_path):
    """A file brought the labels, so folders are sites: they are told."""
    given = {"date": "2026-03-08 11:27", "site": "=Weir", "camera": 7}
    for position, name in enumerate(given):
        hunt.session.add(
            GivenColumn(collection_id=hunt.collection.id, name=name, kind="text", position=position)
        )
    hunt.images[0].given = given | {"taken away": "x"}
    for number in (0, 1, 3):
        hunt.images[number].file = str(make_image_file(tmp_path / f"{number}.jpg", number))
    hunt.know("/photos/labels.csv", "heron")
    archive = zipfile.ZipFile(io.BytesIO(hunt.write("pictures.zip")))
    first, second, _ = csv.DictReader(io.StringIO(archive.read("pictures.csv").decode()))
    assert (first["path"], first["file"]) == ("A/IMG..00.jpg", "pictures/A/IMG..00.jpg")
    assert list(first)[-3:] == ["given.date", "given.site", "given.camera"]
    assert list(first.values())[-3:] == ["2026-03-08 11:27", "'=Weir", "7"]
    assert list(second.values())[-3:] == ["", "", ""]
    images = json.loads(hunt.write("coco.json"))["images"]
    assert {image["file_name"] for image in images} >= {"A/IMG..00.jpg", "B/IMG..10.jpg"}


def test_metadata_anywhere_in_a_jpeg_goes_and_the_coded_picture_stays():
    plain = io.BytesIO()
    make_picture(5, size=(64, 48)).save(plain, "JPEG", progressive=True)
    secret = b"51 deg 28' 38 N"
    head, rest = plain.getvalue()[:2], plain.getvalue()[2:]

    def segment(marker, content):
        return bytes([0xFF, marker]) + (len(content) + 2).to_bytes(2, "big") + content

    laden = head + segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + secret)
    laden += segment(0xED, b"Photoshop 3.0\0" + secret) + segment(0xFE, secret)
    laden += segment(0xE2, b"MPF\0" + secret) + segment(0xE2, b"ICC_PROFILE\0\1\1colours") + rest
    stripped = strip_jpeg(laden + b"\xff\xd8 a preview " + secret, orientation=1)
    assert secret not in stripped
    assert b"colours" in stripped
    with PIL.Image.open(io.BytesIO(stripped)) as one, PIL.Image.open(plain) as other:
        assert np.array_equal(np.asarray(one), np.asarray(other))
    with pytest.raises(NotCopied):
        strip_jpeg(plain.getvalue()[:-40], orientation=1)


# --- Heads --------------------------------------------------------------------------------------


def test_head_scores_another_collection_as_the_search_would(hunt, settings):
    file = read_head_file(hunt.write("head.json"))
    assert (file.target, file.yes, file.no) == ("Grey heron", 3, 10)
    other = make_collection(hunt.session, name="Marsh")
    images = make_images(hunt.session, other, 30)
    make_index(hunt.session, settings, images)  # the same vectors
    lines = "".join(apply_head(hunt.session, other, file, hunt.indexes))
    rows = list(csv.DictReader(io.StringIO(lines)))
    assert len(rows) == 30
    scores = [float(row["score"]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    states = map(json.loads, hunt.write("images.jsonl").decode().splitlines())
    own = {int(row["path"][7:9]): row["score"] for row in states}
    there = {int(row["path"][9:13]): float(row["score"]) for row in rows}
    assert there == pytest.approx(own, abs=1e-5)
    assert {row["predicted"] == "yes" for row in rows if float(row["score"]) > 0} == {True}


def test_head_is_refused_for_vectors_of_another_model(hunt, settings):
    head = hunt.write("head.json")
    other = make_collection(hunt.session, name="Marsh")
    make_index(hunt.session, settings, make_images(hunt.session, other, 30), revision="2")
    with pytest.raises(EmbedderMismatch, match=r"vectors of 1, but Marsh is prepared with 2"):
        apply_head(hunt.session, other, read_head_file(head), hunt.indexes)
    third = make_collection(hunt.session, name="Fen")
    make_index(hunt.session, settings, make_images(hunt.session, third, 30), embedder="other")
    with pytest.raises(BadInput, match=r"not prepared with hand-made.*prepared with other"):
        apply_head(hunt.session, third, read_head_file(head), hunt.indexes)
    for damaged in (b"", b"[]", b"{}", head.replace(b'"weights": [', b'"weights": [1,')):
        with pytest.raises(BadInput):
            read_head_file(damaged)


# --- What is offered ----------------------------------------------------------------------------


def test_search_without_answers_offers_what_can_be_had(hunt):
    hunt.answer(dict.fromkeys([*range(4), *range(10, 20)]))
    made = hunt.session.get_one(Round, hunt.search.current_round_id)
    made.head_bias = made.head_weights = None
    assert set(refusals(hunt)) == {
        *("pictures.zip", "camtrap-dp.zip", "darwin-core.zip", "coco.json", "head.json")
    }
    for name in set(FORMATS) - set(refusals(hunt)):
        hunt.write(name)
    assert hunt.write("answers.jsonl") == b""
    with pytest.raises(BadInput, match="learnt"):
        hunt.write("head.json")


def test_details_that_cannot_be_used_are_refused(hunt):
    for name, value in (
        ("utc_offset", "2 hours"),
        ("utc_offset", "+25:00"),
        ("utc_offset", "2:00"),
        ("utc_offset", "+2:75"),
        ("licence", "mine"),
        ("scientific_name", "x" * 201),
        ("rights_holder", "a\x07b"),
    ):
        with pytest.raises(BadInput):
            save_details(hunt.session, hunt.search, DETAILS | {name: value})


def test_difference_from_utc_is_kept_as_standards_write_it(hunt):
    for typed, kept in (
        (" −05:30 ", "-05:30"),
        ("+5:45", "+05:45"),
        ("+0545", "+05:45"),
        ("utc+2", "+02:00"),
        ("GMT -10", "-10:00"),
        ("Z", "+00:00"),
        ("-0000", "+00:00"),
        ("", ""),
    ):
        details = save_details(hunt.session, hunt.search, DETAILS | {"utc_offset": typed})
        assert details.utc_offset == kept, typed


def test_removed_image_is_in_no_export(hunt, tmp_path):
    hunt.describe()
    hunt.images[1].removed_at = NOW
    hunt.session.flush()
    sha256 = hunt.session.scalar(select(Image.sha256).filter_by(id=hunt.images[1].id))
    for name in set(FORMATS) - {"search.rarefind"}:  # which keeps the history
        content = hunt.write(name)
        if name.endswith("zip"):
            archive = zipfile.ZipFile(io.BytesIO(content))
            content = b"".join(archive.read(one) for one in archive.namelist())
        assert b"IMG..01" not in content, name
        assert b"IMG%2E%2E01" not in content, name
        assert sha256.encode() not in content, name


def test_offers_count_images_by_time_and_place(hunt):
    for number in (0, 12):
        hunt.images[number].latitude = None
    hunt.images[29].removed_at = NOW
    hunt.session.flush()
    known = count_known(hunt.session, hunt.search)
    assert (known.images, known.timed, known.placed, known.both) == (29, 28, 27, 26)
    assert (known.yes, known.yes_both) == (3, 1)  # the first has no place, the fourth no time
