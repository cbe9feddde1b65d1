"""One test for each fault that hostile files found: what was read too trustingly once."""

import json
import os
import random
import struct
import threading
import zipfile
from datetime import datetime
from pathlib import Path

import PIL.Image
import pytest
from sqlalchemy.orm import Session

from app.camtrap import read_package
from app.cli.terminal import make_printable
from app.database import Database
from app.detecting import add_detections
from app.engine.embedders import Pixels, Preparation
from app.errors import BadInput, LabelsNotUsable, SourceNotUsable
from app.exports.bundles import read_bundle
from app.exports.rows import defuse
from app.importing import import_images
from app.metadata import add_table, list_columns
from app.preparing import Original, prepare_files
from app.reading import (
    NOT_AN_IMAGE,
    NOT_READABLE,
    NOT_SUPPORTED,
    Reading,
    Refusal,
    SourceFile,
    read_files,
    read_image,
)
from app.settings import Settings
from app.sources import UNSAFE, check_source, list_source, read_labels, read_table
from tests.factories import make_collection, make_image_file, make_person
from tests.hostile_files import bomb_of_overlaps, long_names, make_image, pack, patch

# Of letters that do not repeat: the database packs what does.
LONG = "".join(map(chr, random.Random(1).choices(range(0x4E00, 0x9FFF), k=20_000)))


def test_a_name_that_no_index_holds_is_refused_by_its_beginning(
    database: Database, tmp_path: Path, settings: Settings
) -> None:
    data, _ = long_names(random.Random(1))
    (tmp_path / "long.zip").write_bytes(data)
    listing = list_source(tmp_path / "long.zip", settings, None)
    assert [file.path for file in listing.files] == ["fine.jpg"]
    assert [refusal.reason for _, refusal in listing.refused] == [NOT_SUPPORTED] * 2
    one, other = (file.path for file, _ in listing.refused)
    assert one != other
    assert max(len(one.encode()), len(other.encode())) < 300
    with database.session() as session:
        collection_id = make_collection(session).id
    summary = import_images(database, collection_id, tmp_path / "long.zip", settings=settings)
    assert (summary.imported, summary.refused) == (1, {NOT_SUPPORTED: 2})


def test_what_a_package_names_at_length_is_refused_by_its_beginning(
    database: Database, tmp_path: Path, settings: Settings
) -> None:
    folder = tmp_path / "package"
    make_image_file(folder / "fine.jpg")
    resources = [{"name": name, "path": f"{name}.csv"} for name in ("deployments", "media")]
    (folder / "datapackage.json").write_text(json.dumps({"resources": resources}))
    (folder / "deployments.csv").write_text(f"deploymentID\n{LONG}\n")
    (folder / "media.csv").write_text(
        f"mediaID,deploymentID,filePath\n1,{LONG},fine.jpg\n2,{LONG},{LONG}.jpg\n"
    )
    with database.session() as session:
        collection_id = make_collection(session).id
    summary = import_images(database, collection_id, folder, settings=settings)
    assert (summary.imported, sum(summary.refused.values())) == (1, 1)


@pytest.mark.parametrize("described", ["[" * 100_000, '{"resources": ["deployments"]}', "[1]"])
def test_a_package_that_is_none_is_a_folder(
    database: Database, tmp_path: Path, settings: Settings, described: str
) -> None:
    make_image_file(tmp_path / "folder/fine.jpg")
    (tmp_path / "folder/datapackage.json").write_text(described)
    with database.session() as session:
        collection_id = make_collection(session).id
    summary = import_images(database, collection_id, tmp_path / "folder", settings=settings)
    assert summary.imported == 1


def test_entries_that_share_their_bytes_are_refused(tmp_path: Path, settings: Settings) -> None:
    data, _ = bomb_of_overlaps(random.Random(1))
    (tmp_path / "bomb.zip").write_bytes(data)
    listing = list_source(tmp_path / "bomb.zip", settings, None)
    assert listing.files == []
    assert {refusal.reason for _, refusal in listing.refused} == {UNSAFE}
    with zipfile.ZipFile(tmp_path / "fine.zip", "w") as archive:
        for number in range(20):
            archive.writestr(f"{number}.jpg", make_image(random.Random(number)))
    assert len(list_source(tmp_path / "fine.zip", settings, None).files) == 20


def test_a_zip_whose_list_of_contents_fills_the_memory_is_refused(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(tmp_path / "many.zip", "w") as archive:
        for number in range(20):
            archive.writestr(f"{number}.jpg", b"x")
        archive.comment = b"twenty"
    data = (tmp_path / "many.zip").read_bytes()
    check_source(tmp_path / "many.zip", settings)
    monkeypatch.setattr("app.sources.LONGEST_DIRECTORY", 20 * 46)
    with pytest.raises(SourceNotUsable, match="several smaller zips"):
        check_source(tmp_path / "many.zip", settings)
    # The same by its 64-bit fields.
    at = data.rfind(b"PK\5\6")
    size_bytes = int.from_bytes(data[at + 12 : at + 16], "little")
    start = int.from_bytes(data[at + 16 : at + 20], "little")
    record = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, 20, 20, size_bytes, start)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, at, 1)
    end = data[at : at + 12] + b"\xff" * 8 + data[at + 20 :]
    (tmp_path / "many.zip").write_bytes(data[:at] + record + locator + end)
    assert len(zipfile.ZipFile(tmp_path / "many.zip").namelist()) == 20
    with pytest.raises(SourceNotUsable, match="several smaller zips"):
        check_source(tmp_path / "many.zip", settings)


@pytest.mark.parametrize("harm", ["encrypted", "damaged"])
def test_a_zip_of_a_package_or_a_search_that_does_not_unpack_is_said_to_be_damaged(
    tmp_path: Path, settings: Settings, harm: str
) -> None:
    picture = make_image(random.Random(1))
    data = pack(("datapackage.json", b"{" * 500), ("search.json", b"{" * 500), ("1.jpg", picture))
    if harm == "encrypted":
        patch(patch(data, b"PK\3\4", 6, "<H", 1), b"PK\1\2", 8, "<H", 1)
    else:
        for name in (b"datapackage.json", b"search.json"):
            at = data.find(name) + len(name)
            data[at : at + 4] = b"\xff" * 4
    (tmp_path / "odd.zip").write_bytes(data)
    assert read_package(tmp_path / "odd.zip", settings) is None
    with pytest.raises(BadInput, match="no search of Rarefind's"):
        read_bundle(bytes(data), settings)


def test_names_do_not_command_the_terminal() -> None:
    assert make_printable("a\x1b]0;b\a\u202e\n龘 é.jpg") == r"a\x1b]0;b\x07\u202e\n龘 é.jpg"


# --- Files that do not stay as they are -----------------------------------------------------------


def test_a_file_that_changes_while_it_is_read_leaves_nothing_behind(tmp_path: Path) -> None:
    file = make_image_file(tmp_path / "growing.jpg", size=(400, 300))

    class WritingPreparation(Preparation):
        """Somebody writes to the file while it is being prepared."""

        def __call__(self, picture: PIL.Image.Image) -> Pixels:
            with file.open("ab") as opened:
                opened.write(b"more")
            return super().__call__(picture)

    prepare = WritingPreparation(resize_side=12, crop_side=10)
    with file.open("rb") as stream, pytest.raises(Refusal) as refusal:
        read_image(stream, str(file), tmp_path / "home", 10.0, prepare)
    assert refusal.value.reason == NOT_READABLE
    assert not (tmp_path / "home").exists()


def test_a_pipe_in_place_of_a_file_holds_nothing_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    reading = Reading(tmp_path / "home", 10.0, tmp_path / "originals", copy=False, zip_file=None)
    found: list[object] = []

    def read() -> None:
        found.extend(read_files([SourceFile("a", 9, 9, str(tmp_path / "pipe.jpg"))], reading))
        original = Original(str(tmp_path / "pipe.jpg"), 9)
        found.extend(prepare_files([original], Preparation(resize_side=12, crop_side=10), 10.0))

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(5)
    assert [getattr(one, "reason", one) for one in found] == [NOT_AN_IMAGE] * 2


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("0001:01:01 00:00:00", None),
        ("9999:12:31 23:59:59", None),
        ("2024:05:06 07:08:09", datetime(2024, 5, 6, 7, 8, 9)),
    ],
)
def test_a_time_that_no_camera_has_is_none(
    tmp_path: Path, written: str, expected: datetime | None
) -> None:
    exif = PIL.Image.Exif()
    exif.get_ifd(0x8769)[0x9003] = written
    with make_image_file(tmp_path / "1.jpg", exif=exif).open("rb") as stream:
        read = read_image(stream, "", tmp_path / "home", 10.0)
    assert read.metadata.captured_at == expected


# --- Labels and tables ----------------------------------------------------------------------------


@pytest.mark.parametrize("spelling", ["csv", "coco"])
def test_labels_that_the_database_does_not_hold_are_mended(
    database: Database, tmp_path: Path, settings: Settings, spelling: str
) -> None:
    folder = tmp_path / "folder"
    make_image_file(folder / "1.jpg")
    labels = ["ne\0wt", LONG] + (["\ud800"] if spelling == "coco" else [])
    file = tmp_path / f"labels.{'json' if spelling == 'coco' else 'csv'}"
    if spelling == "coco":
        told = {
            "images": [{"id": 1, "file_name": "1.jpg"}],
            "categories": [{"id": n, "name": label} for n, label in enumerate(labels)],
            "annotations": [{"image_id": 1, "category_id": n} for n in range(len(labels))],
        }
        file.write_text(json.dumps(told))
    else:
        file.write_text("file,label\n" + "".join(f"1.jpg,{label}\n" for label in labels))
    with database.session() as session:
        collection_id = make_collection(session).id
    summary = import_images(database, collection_id, folder, settings=settings, labels=file)
    assert summary.labelled == 1
    given = read_labels(file, folder, settings)
    assert given is not None and given.rows is not None
    assert {"newt", LONG[:500]} <= given.rows["1.jpg"]


def test_labels_nested_without_end_are_refused(tmp_path: Path, settings: Settings) -> None:
    (tmp_path / "deep.json").write_text('{"images": ' + "[" * 200_000)
    with pytest.raises(LabelsNotUsable, match=r"deep\.json is no JSON"):
        read_labels(tmp_path / "deep.json", tmp_path, settings)


def test_columns_are_named_in_a_sentence_that_ends(tmp_path: Path, settings: Settings) -> None:
    (tmp_path / "wide.csv").write_text(",".join(f"c{number}" for number in range(100_000)))
    with pytest.raises(LabelsNotUsable, match=r"c0, c1, .* and 99,988 more\.") as error:
        read_labels(tmp_path / "wide.csv", tmp_path, settings)
    assert len(str(error.value)) < 300


@pytest.mark.parametrize(
    ("limit", "most", "text", "said"),
    [
        ("LONGEST_LINE", 1_000, "file,note\n1.jpg," + "x" * 1_200, "more than 1,000 characters"),
        ("LONGEST_LINE", 1_000, 'file,note\n1.jpg,"' + "x\n" * 600 + '"', "line 2 .*be closed"),
        ("LONGEST_FIELD", 1_000, 'file,note\n1.jpg,"' + "x\n" * 600 + '"', "line 2 .*be closed"),
        ("MOST_CELLS", 1_000, "file,note\n" + "a,b\n" * 400, "more than 1,000 cells"),
    ],
)
def test_tables_that_fill_the_memory_are_refused(
    monkeypatch: pytest.MonkeyPatch, limit: str, most: int, text: str, said: str
) -> None:
    read_table(text.encode(), "big.csv")
    monkeypatch.setattr(f"app.sources.{limit}", most)
    with pytest.raises(LabelsNotUsable, match=said):
        read_table(text.encode(), "big.csv")


def test_columns_and_numbers_that_the_database_does_not_hold(session: Session) -> None:
    collection, person = make_collection(session), make_person(session)

    def add(text: str) -> None:
        add_table(session, collection.id, name="a.csv", data=text.encode(), person=person)

    with pytest.raises(LabelsNotUsable, match=r"20,000 letters: .{40}… Shorten it"):
        add(f"file,{LONG}\n1.jpg,x\n")
    add("file,no\0te\n1.jpg,x\n")


def test_a_number_of_hundreds_of_digits_stays_text(
    database: Database, tmp_path: Path, settings: Settings
) -> None:
    make_image_file(tmp_path / "folder/1.jpg")
    with database.session() as session:
        collection_id = make_collection(session).id
    import_images(database, collection_id, tmp_path / "folder", settings=settings)
    data = f"file,a,b,no\0te\n1.jpg,{'9' * 400},12,x\n".encode()
    with database.session() as session:
        person = make_person(session)
        add_table(session, collection_id, name="a.csv", data=data, person=person)
        kinds = {one.name: one.kind for one in list_columns(session, collection_id)}
    assert kinds == {"a": "text", "b": "number", "note": "text"}


def test_detections_of_any_names_are_kept(session: Session) -> None:
    collection, person = make_collection(session), make_person(session)

    def told(categories: dict[str, str]) -> bytes:
        images = [{"file": "\ud800\0.jpg", "detections": []}]
        return json.dumps({"detection_categories": categories, "images": images}).encode()

    add_detections(
        session,
        collection.id,
        name="a.json",
        data=told({"1": "ani\0mal", "2": LONG, "3": "\ud800"}),
        threshold=0.2,
        person=person,
    )
    with pytest.raises(LabelsNotUsable, match="categories; at most 100"):
        add_detections(
            session,
            collection.id,
            name="b.json",
            data=told({str(number): str(number) for number in range(200)}),
            threshold=0.2,
            person=person,
        )


@pytest.mark.parametrize("text", ["=1", "+1", "-1", "@x", "\t=1", "\r=1", "\n=1", "＝1", "＠x"])
def test_formulas_are_text_in_an_export(text: str) -> None:
    assert defuse(text) == f"'{text}"
