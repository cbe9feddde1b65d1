"""Importing: what becomes rows and files, running again, kills, crashes, labels, photos."""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
import zipfile
from collections.abc import Callable
from datetime import datetime
from multiprocessing import active_children
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.database import PROJECT, Database
from app.deploying import may_folders_be_labels
from app.errors import (
    BadInput,
    LabelsNotUsable,
    NameTaken,
    NotFound,
    RarefindError,
    RefusedPhoto,
    SourceNotUsable,
)
from app.importing import (
    CHUNK_FILES,
    ImportProgress,
    ImportSummary,
    add_collection,
    get_or_add_collection,
    get_thumbnail,
    import_images,
    mark_interrupted_imports,
    photo_path,
    read_photo,
)
from app.labelling import describe_labels
from app.reading import DAMAGED, EMPTY, NOT_AN_IMAGE, TOO_LARGE
from app.settings import Settings
from app.sources import UNSAFE
from app.tables import Collection, Image, ImagePath, Import, OracleLabel, Photo, RefusedFile
from app.workers import CRASHED, Readers
from tests.factories import make_collection, make_image_file, make_person

Run = Callable[..., ImportSummary]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    return folder


@pytest.fixture
def collection_id(database: Database) -> int:
    with database.session() as session:
        return make_collection(session).id


@pytest.fixture
def run(database: Database, collection_id: int, source: Path, settings: Settings) -> Run:
    """Imports `source` (or another one) into the test's collection."""

    def run(
        place: Path = source, *, settings: Settings = settings, **options: object
    ) -> ImportSummary:
        return import_images(database, collection_id, place, settings=settings, **options)

    return run


def list_images(database: Database) -> list[Image]:
    with database.session() as session:
        return list(session.scalars(select(Image).order_by(Image.id)))


def list_refused(database: Database) -> dict[str, tuple[str, str]]:
    with database.session() as session:
        return {row.path: (row.reason, row.detail) for row in session.scalars(select(RefusedFile))}


def list_labels(database: Database) -> dict[str, set[str]]:
    with database.session() as session:
        labels: dict[str, set[str]] = {}
        for path, label in session.execute(select(Image.path, OracleLabel.label).join(OracleLabel)):
            labels.setdefault(path, set()).add(label)
        return labels


def get_import(database: Database) -> Import:
    with database.session() as session:
        return session.scalars(select(Import).order_by(Import.id.desc()).limit(1)).one()


def list_files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


# --- A folder -----------------------------------------------------------------------------------


def test_a_folder_becomes_images_in_the_order_of_their_paths(
    database: Database, source: Path, run: Run
) -> None:
    exif = PIL.Image.Exif()
    exif.update({0x0112: 6, 0x010F: "Acme", 0x0110: "Trap 3"})
    exif.get_ifd(0x8769)[0x9003] = "2024:05:06 07:08:09"
    exif.get_ifd(0x8825).update({1: "N", 2: (50.0, 30.0, 0.0), 3: "W", 4: (1.0, 15.0, 0.0)})
    first = make_image_file(source / "a/1.jpg", 1, size=(40, 60), exif=exif)
    for number in range(2, 30):  # more than two batches, so that workers may finish in any order
        make_image_file(source / f"b/{number:02}.jpg", number)
    summary = run()
    assert (summary.imported, summary.duplicates, summary.known) == (29, 0, 0)
    assert summary.refused == {}
    assert summary.seconds > 0
    images = list_images(database)
    assert [image.path for image in images] == ["a/1.jpg"] + [f"b/{n:02}.jpg" for n in range(2, 30)]
    assert images[0].file == str(first)  # it stays where it is
    assert (images[0].width, images[0].height, images[0].orientation) == (60, 40, 6)
    assert images[0].captured_at == datetime(2024, 5, 6, 7, 8, 9)
    assert (images[0].latitude, images[0].longitude) == (50.5, -1.25)
    assert (images[0].camera, images[0].format) == ("Acme Trap 3", "JPEG")
    assert images[0].size_bytes == first.stat().st_size
    row = get_import(database)
    assert (row.state, row.problem, row.found_count, row.done_count) == ("done", None, 29, 29)
    assert (row.imported_count, row.duplicate_count, row.refused_count) == (29, 0, 0)
    assert row.ended_at is not None


def test_exact_duplicates_are_one_image_with_several_paths(
    database: Database, source: Path, run: Run
) -> None:
    make_image_file(source / "a/IMG_0001.jpg", 1)
    make_image_file(source / "b/IMG_0001.jpg", 2)  # the same name is another image
    make_image_file(source / "c/copy.png", 1)  # the same bytes under any name
    summary = run()
    assert (summary.imported, summary.duplicates) == (2, 1)
    assert [image.path for image in list_images(database)] == ["a/IMG_0001.jpg", "b/IMG_0001.jpg"]
    make_image_file(source / "d/later.jpg", 2)
    summary = run()
    assert (summary.imported, summary.duplicates, summary.known) == (0, 1, 3)
    with database.session() as session:
        paths = session.execute(select(ImagePath.path.label("found"), Image.path).join(Image))
        assert {row.found: row.path for row in paths} == {
            "a/IMG_0001.jpg": "a/IMG_0001.jpg",
            "b/IMG_0001.jpg": "b/IMG_0001.jpg",
            "c/copy.png": "a/IMG_0001.jpg",
            "d/later.jpg": "b/IMG_0001.jpg",
        }


def test_refused_files_are_rows_with_a_reason(
    database: Database, source: Path, run: Run, settings: Settings
) -> None:
    make_image_file(source / "fine.jpg")
    make_image_file(source / "large.png", file_format="PNG", size=(200, 100))
    (source / "notes.jpg").write_text("not an image at all")
    (source / "notes.txt").write_text("not an image either")
    (source / "empty.jpg").touch()
    (source / "cut.jpg").write_bytes((source / "fine.jpg").read_bytes()[:-100])
    (source / ".hidden").touch()
    limits = settings.model_copy(update={"max_megapixels": 0.01})
    summary = run(settings=limits)
    assert (summary.imported, summary.skipped) == (1, 1)
    assert summary.refused == {NOT_AN_IMAGE: 2, TOO_LARGE: 1, EMPTY: 1, DAMAGED: 1}
    assert next(iter(summary.refused)) == NOT_AN_IMAGE
    assert summary.refused_examples[NOT_AN_IMAGE] == tuple(
        f"notes.{ending}: It is not a JPEG, PNG, WebP, TIFF, GIF or BMP file."
        for ending in ("jpg", "txt")
    )
    refused = list_refused(database)
    assert {path: reason for path, (reason, _) in refused.items()} == {
        "large.png": TOO_LARGE,
        "notes.jpg": NOT_AN_IMAGE,
        "notes.txt": NOT_AN_IMAGE,
        "empty.jpg": EMPTY,
        "cut.jpg": DAMAGED,
    }
    assert "200 × 100" in refused["large.png"][1]
    assert get_import(database).refused_count == 5


def test_running_again_reads_only_what_is_new(database: Database, source: Path, run: Run) -> None:
    known = make_image_file(source / "known.jpg", 1)
    changed = make_image_file(source / "changed.jpg", 2)
    (source / "damaged.jpg").write_bytes(known.read_bytes()[:-100])
    (source / "mended.jpg").write_bytes(known.read_bytes()[:-101])
    run()
    known_at = known.stat()
    known.write_bytes(bytes(known_at.st_size))  # were it read again, it would be refused
    os.utime(known, ns=(known_at.st_atime_ns, known_at.st_mtime_ns))
    make_image_file(changed, 3, quality=60)
    make_image_file(source / "mended.jpg", 4)
    make_image_file(source / "new.jpg", 5)
    reports: list[ImportProgress] = []
    summary = run(progress=reports.append)
    assert (summary.imported, summary.known) == (3, 1)
    assert summary.refused == {DAMAGED: 1}  # not read again, but counted
    assert (reports[0].found_count, reports[0].done_count) == (5, 2)
    assert [image.path for image in list_images(database)] == [
        "changed.jpg",
        "known.jpg",
        "changed.jpg",  # the earlier content stays, with its answers
        "mended.jpg",
        "new.jpg",
    ]
    assert set(list_refused(database)) == {"damaged.jpg"}


def test_what_became_readable_is_no_longer_refused(
    database: Database, source: Path, run: Run
) -> None:
    make_image_file(source / "1.jpg", 1)
    for name in ("folder", "file.jpg"):
        (source / name).symlink_to(source / name)
    run()
    assert set(list_refused(database)) == {"folder", "file.jpg"}
    for name in ("folder", "file.jpg"):
        (source / name).unlink()
    make_image_file(source / "folder/deep/2.jpg", 2)
    make_image_file(source / "file.jpg", 3)
    assert run().refused == {}
    assert list_refused(database) == {}


def test_a_folder_that_cannot_be_opened_is_told_as_one(
    database: Database, source: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_image_file(source / "1.jpg", 1)
    make_image_file(source / "pond/egret/2.jpg", 2)
    scandir = os.scandir

    def forbid(folder: str) -> object:  # to whoever runs the tests, be it root
        if str(folder).endswith("egret"):
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    with monkeypatch.context() as forbidding:
        forbidding.setattr(os, "scandir", forbid)
        run()
    assert set(list_refused(database)) == {"pond/egret/"}
    assert run().imported == 1
    assert list_refused(database) == {}


def test_a_raised_limit_reads_too_large_files_again(
    database: Database, source: Path, run: Run, settings: Settings
) -> None:
    make_image_file(source / "large.png", file_format="PNG", size=(200, 100))
    assert run(settings=settings.model_copy(update={"max_megapixels": 0.01})).imported == 0
    assert run().imported == 1
    assert list_refused(database) == {}


def test_a_folder_that_moved_is_found_at_its_new_place(
    database: Database, source: Path, run: Run
) -> None:
    make_image_file(source / "b/1.jpg", 1)
    run()
    make_image_file(source / "a/copy.jpg", 1)
    make_image_file(source / "c/copy.jpg", 1)
    run()
    moved = source.rename(source.parent / "moved")
    summary = run(moved)
    assert summary.imported == 0
    [image] = list_images(database)
    assert (image.path, image.file) == ("b/1.jpg", str(moved / "b/1.jpg"))


def test_copying_leaves_the_collection_whole_without_its_source(
    database: Database, source: Path, run: Run, settings: Settings, collection_id: int
) -> None:
    original = make_image_file(source / "a/1.jpg", 1).read_bytes()
    run(copy=True)
    shutil.rmtree(source)
    [image] = list_images(database)
    assert (image.path, Path(image.file).read_bytes()) == ("a/1.jpg", original)
    assert Path(image.file).is_relative_to(settings.home / f"originals/{collection_id}")


@pytest.mark.skipif(sys.platform != "linux", reason="names there are always Unicode")
def test_names_of_any_bytes_are_imported(database: Database, source: Path, run: Run) -> None:
    make_image_file(source / "Ünïcode 名 \n.jpg", 1)
    odd = Path(os.fsdecode(os.fsencode(source) + b"/caf\xe9.jpg"))
    make_image_file(odd, 2)
    assert run().imported == 2
    images = {image.path: image for image in list_images(database)}
    assert set(images) == {"Ünïcode 名 \n.jpg", "caf\\xe9.jpg"}
    # The row can't hold the name, so the original is kept under one that it can.
    assert Path(images["caf\\xe9.jpg"].file).read_bytes() == odd.read_bytes()
    assert run().known == 2


def test_thumbnails_are_in_the_data_folder_and_are_made_again_when_lost(
    database: Database, source: Path, run: Run, settings: Settings, readers: Readers
) -> None:
    file = make_image_file(source / "1.jpg", size=(1500, 1000))
    run()
    [image] = list_images(database)
    for side, size in ((320, (320, 214)), (1280, (1280, 853))):
        path = get_thumbnail(image, side, settings=settings, readers=readers)
        assert path == settings.home / f"thumbnails/{image.sha256[:2]}/{image.sha256}-{side}.jpg"
        assert path.exists()
        with PIL.Image.open(path) as thumbnail:
            assert thumbnail.size == size
    shutil.rmtree(settings.home / "thumbnails")
    assert get_thumbnail(image, 320, settings=settings, readers=readers).exists()
    shutil.rmtree(settings.home / "thumbnails")
    file.unlink()
    with pytest.raises(NotFound, match=r"1\.jpg can't be read any more"):
        get_thumbnail(image, 320, settings=settings, readers=readers)


# --- A zip --------------------------------------------------------------------------------------


def test_a_zip_is_unpacked_into_the_data_folder_alone(
    database: Database, tmp_path: Path, source: Path, run: Run, settings: Settings
) -> None:
    image = make_image_file(source / "1.jpg", 1).read_bytes()
    other = make_image_file(source / "2.png", 2, file_format="PNG").read_bytes()
    archive = tmp_path / "photos.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("a/1.jpg", image)
        opened.writestr("a/again.jpg", image)
        opened.writestr("a/2.gif", other)  # content decides, here too
        opened.writestr("readme.txt", "notes")
        opened.writestr("cut.jpg", image[:-100])
        for name in ("../outside.jpg", "/outside.jpg", "..\\outside.jpg"):
            opened.writestr(name, image)
    before = list_files(tmp_path)
    summary = run(archive)
    assert (summary.imported, summary.duplicates) == (2, 1)
    assert summary.refused == {UNSAFE: 3, NOT_AN_IMAGE: 1, DAMAGED: 1}
    images = {row.path: row for row in list_images(database)}
    assert Path(images["a/1.jpg"].file).read_bytes() == image
    assert Path(images["a/2.gif"].file).read_bytes() == other
    assert Path(images["a/2.gif"].file).suffix == ".png"
    new = list_files(tmp_path) - before
    assert all(name.startswith(("home/originals/", "home/thumbnails/")) for name in new)
    assert len([name for name in new if "originals" in name]) == 2
    again = run(archive)
    assert (again.imported, again.duplicates, again.known) == (0, 0, 3)
    assert again.refused == summary.refused


def test_a_zip_with_the_same_names_and_other_content_is_read(
    database: Database, tmp_path: Path, source: Path, run: Run
) -> None:
    # Same path, size and packing time: only the checksum tells them apart.
    for number in (1, 2):
        file = make_image_file(source / "1.bmp", number, file_format="BMP")
        with zipfile.ZipFile(tmp_path / f"{number}.zip", "w") as opened:
            opened.writestr(zipfile.ZipInfo("1.bmp"), file.read_bytes())
    assert run(tmp_path / "1.zip").imported == 1
    assert run(tmp_path / "2.zip", labels="folders").imported == 1
    assert [image.path for image in list_images(database)] == ["1.bmp", "(2)/1.bmp"]
    assert list_labels(database) == {}  # in the zip it lies in no folder


def test_folders_of_another_card_with_the_same_names_get_a_number_each(
    database: Database, tmp_path: Path, source: Path, run: Run
) -> None:
    names = ["siteA/1/IMG_1.BMP", "siteA/1/IMG_2.BMP", "siteB/1/IMG_1.BMP"]

    def fill(folder: Path, first: int) -> Path:
        for number, name in enumerate(names, start=first):
            make_image_file(folder / name, number, file_format="BMP")  # all of one size
        return folder

    def pack(folder: Path) -> Path:
        with zipfile.ZipFile(folder.with_suffix(".zip"), "w") as opened:
            for name in names:
                opened.write(folder / name, name)
        return folder.with_suffix(".zip")

    def list_paths() -> list[str]:
        with database.session() as session:
            own = session.execute(
                select(ImagePath.path, Image.path).join(Image).order_by(ImagePath.path)
            )
            return [path for path, known_as in own if path == known_as]

    first, second = (fill(tmp_path / name, 10 * at) for at, name in enumerate(("a", "b")))
    assert run(pack(first)).notes == ()
    summary = run(pack(second), labels="folders")
    assert (summary.imported, summary.labelled) == (3, 3)
    assert "kept beside them, in 2 folders: “siteA (2)”, “siteB (2)”." in summary.notes[0]
    numbered = [name.replace("/1/", " (2)/1/") for name in names]
    assert list_paths() == sorted([*names, *numbered])
    assert list_labels(database) == {path: {"1"} for path in numbered}
    # Again each is the same, as a zip or unpacked, and whatever times it has by now.
    for again in (tmp_path / "b.zip", tmp_path / "a.zip", second, first):
        for file in again.rglob("*.BMP"):
            os.utime(file, (1, 1))
        summary = run(again)
        assert (summary.imported, summary.duplicates, summary.known) == (0, 0, 3), again
    third = fill(tmp_path / "elsewhere/b", 20)
    assert run(third).imported == 3
    assert list_paths() == sorted(
        [*names, *numbered, *(name.replace("/1/", " (3)/1/") for name in names)]
    )
    # What was edited since, and what took the very place of another, replaces it.
    make_image_file(third / names[0], 31, file_format="BMP", size=(50, 40))
    assert run(third, copy=True).imported == 1
    fill(third, 40)
    assert (run(third).imported, run(third).known) == (3, 3)
    with database.session() as session:
        assert session.scalar(select(func.count()).select_from(ImagePath)) == 9


def test_an_entry_that_lies_about_its_size_writes_no_more_than_it_declared(
    database: Database, tmp_path: Path, source: Path, run: Run, settings: Settings
) -> None:
    image = make_image_file(source / "1.jpg", 1).read_bytes()
    archive = tmp_path / "photos.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("liar.jpg", image + bytes(50_000_000))
        opened.writestr("fine.jpg", image)
    data = bytearray(archive.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        at = data.index(signature) + offset
        data[at : at + 4] = (len(image) - 10).to_bytes(4, "little")
    archive.write_bytes(data)
    summary = run(archive)
    assert (summary.imported, summary.refused) == (1, {DAMAGED: 1})
    originals = settings.home / "originals"
    assert sum((originals / name).stat().st_size for name in list_files(originals)) == len(image)


# --- Labels -------------------------------------------------------------------------------------


def test_names_of_folders_become_labels(database: Database, source: Path, run: Run) -> None:
    make_image_file(source / "pond/newt/1.jpg", 1)
    make_image_file(source / "lake/newt/2.jpg", 2)
    make_image_file(source / "toad/1.jpg", 3)
    make_image_file(source / "toad/same.jpg", 1)  # known under both names
    make_image_file(source / "4.jpg", 4)  # in no folder: no label
    summary = run(labels="folders")
    assert summary.labelled == 3
    assert list_labels(database) == {
        "pond/newt/1.jpg": {"newt", "toad"},
        "lake/newt/2.jpg": {"newt"},
        "toad/1.jpg": {"toad"},
    }
    with database.session() as session:  # and how many have which is kept
        (collection_id,) = session.scalars(select(Collection.id))
        known = describe_labels(session, collection_id)
    assert (known.image_count, known.known_count) == (4, 3)
    assert known.labels == [("newt", 2), ("toad", 2)]


def test_labels_of_a_file_are_matched_and_the_rest_is_counted(
    database: Database, source: Path, run: Run
) -> None:
    for number, name in enumerate(("a/1.jpg", "b/1.jpg", "b/2.jpg")):
        make_image_file(source / name, number)
    (source / "broken.jpg").write_text("no image")
    labels = source / "labels.csv"
    labels.write_text(
        "file,label\na/1.jpg,newt\n2.jpg,toad\n1.jpg,of two\nbroken.jpg,x\nx.jpg,y\nz.jpg,y\n"
    )
    summary = run(labels=labels)
    assert summary.labelled == 2
    assert summary.unmatched_labels == 4
    assert summary.unmatched_examples == ("1.jpg", "broken.jpg", "x.jpg")
    assert list_labels(database) == {"a/1.jpg": {"newt"}, "b/2.jpg": {"toad"}}
    assert set(list_refused(database)) == {"broken.jpg"}  # the labels file is none


def test_folders_are_told_but_where_one_is_called_like_a_label_of_its_images(
    database: Database, collection_id: int, source: Path, run: Run
) -> None:
    def may_be_labels() -> bool:
        with database.session() as session:
            return may_folders_be_labels(session, collection_id)

    labels = source.parent / "labels.csv"
    for name in ("newt", "toad"):
        make_image_file(source / "weir" / f"{name}.jpg", ord(name[0]))
    labels.write_text("file,label\nweir/newt.jpg,newt\nweir/toad.jpg,toad\n")
    run(labels=labels)
    assert not may_be_labels()
    with pytest.raises(LabelsNotUsable):
        run(labels=source.parent / "lost.csv")
    assert not may_be_labels()  # none came
    (source / "Newt").mkdir()  # copies of what is there, sorted by what they show
    shutil.copy(source / "weir" / "newt.jpg", source / "Newt" / "1.jpg")
    run()
    assert may_be_labels()


def test_labels_can_be_given_later_and_corrected(
    database: Database, source: Path, run: Run
) -> None:
    make_image_file(source / "1.jpg", 1)
    make_image_file(source / "2.jpg", 2)
    run()
    labels = source.parent / "labels.csv"
    labels.write_text("file,label\n1.jpg,newt\n2.jpg,toad\n")
    assert run(labels=str(labels)).labelled == 2
    labels.write_text("file,label\n1.jpg,frog\n")
    assert run(labels=str(labels)).labelled == 1
    assert list_labels(database) == {"1.jpg": {"frog"}, "2.jpg": {"toad"}}


def test_images_left_without_a_label_are_told_and_an_empty_one_is_kept_later(
    database: Database, source: Path, run: Run
) -> None:
    for number in (1, 2, 3):
        make_image_file(source / f"{number}.jpg", number)
    labels = source.parent / "labels.csv"
    labels.write_text("file,label\n1.jpg,newt\n2.jpg,newt\n9.jpg,newt\n")
    summary = run(labels=labels)
    assert summary.labelled == 2
    remark, left = summary.notes
    assert "line 4, “9.jpg”" in remark
    assert "1 image without a known label: “3.jpg”. Replays refuse until" in left
    assert get_import(database).remarks == [remark]
    labels.write_text("file,label\n1.jpg,newt\n2.jpg,newt\n3.jpg,\n")
    summary = run(labels=labels)
    assert (summary.labelled, summary.notes) == (3, ())
    assert list_labels(database) == {"1.jpg": {"newt"}, "2.jpg": {"newt"}, "3.jpg": {""}}
    coco = {"images": [{"id": 1, "file_name": "\ud800\0.jpg"}], "categories": [], "annotations": []}
    (source.parent / "coco.json").write_text(json.dumps(coco))
    (remark,) = run(labels=source.parent / "coco.json").notes
    assert "“?.jpg”" in remark and get_import(database).remarks == [remark]
    # Without labels of its own an import tells of those that the collection has.
    make_image_file(source / "4.jpg", 4)
    assert "“4.jpg”" in run().notes[0]


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        ("name,taxon\n1.jpg,newt\n", "Its columns are: name, taxon"),
        ('file,label\n1.jpg,"newt\n2.jpg,toad\n', "line 2 a quotation mark is not closed"),
        ("file,label\n1.jpg,newt\n2.jpg\n", "line 3 has 1 cell"),
    ],
)
def test_unusable_labels_fail_before_anything_is_imported(
    database: Database, source: Path, run: Run, labels: str, problem: str
) -> None:
    make_image_file(source / "1.jpg", 1)
    (source / "labels.csv").write_text(labels)
    with pytest.raises(LabelsNotUsable, match=problem):
        run(labels="labels.csv")
    assert list_images(database) == []
    assert list_labels(database) == {}
    assert get_import(database).state == "failed"
    assert problem in (get_import(database).problem or "")


# --- Failures, kills and crashes ----------------------------------------------------------------


@pytest.mark.parametrize("kind", ["missing", "empty", "text"])
def test_an_unusable_source_fails_with_a_sentence(
    database: Database, source: Path, run: Run, kind: str
) -> None:
    place = {"missing": source / "gone", "empty": source, "text": source / "notes.txt"}[kind]
    if kind == "text":
        place.write_text("neither folder nor zip")
    with pytest.raises(SourceNotUsable, match=place.name):
        run(place)
    row = get_import(database)
    assert row.state == "failed"
    assert place.name in (row.problem or "")
    assert row.ended_at is not None


def test_a_full_or_forbidden_data_folder_stops_with_a_sentence(
    database: Database, source: Path, run: Run, settings: Settings
) -> None:
    make_image_file(source / "1.jpg", 1)
    settings.home.mkdir()
    (settings.home / "thumbnails").write_text("in the way")
    with pytest.raises(RarefindError, match="can't write"):
        run()
    assert get_import(database).state == "failed"
    assert list_refused(database) == {}


def test_progress_tells_counts_and_may_stop_the_import(
    database: Database, source: Path, run: Run
) -> None:
    for number in range(CHUNK_FILES + 1):
        make_image_file(source / f"{number:03}.jpg", number, size=(16, 8))

    class Stop(Exception):
        pass

    def stop(progress: ImportProgress) -> None:
        if progress.done_count > 0:
            raise Stop

    with pytest.raises(Stop):
        run(progress=stop)
    row = get_import(database)
    assert row.state == "interrupted"
    assert 0 < row.done_count == row.imported_count == len(list_images(database)) < CHUNK_FILES + 1
    reports: list[ImportProgress] = []
    summary = run(progress=reports.append)
    assert summary.imported + summary.known == CHUNK_FILES + 1
    assert reports == sorted(reports, key=lambda report: report.done_count)
    last = reports[-1]
    assert (last.found_count, last.done_count) == (CHUNK_FILES + 1, CHUNK_FILES + 1)
    assert last.imported_count == summary.imported


@pytest.mark.parametrize("killed_after", [0, 1], ids=["reading", "recording"])
def test_a_killed_worker_loses_no_file(
    database: Database,
    source: Path,
    run: Run,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    killed_after: int,
) -> None:
    monkeypatch.setattr("app.importing.CHUNK_FILES", 16)
    for number in range(160):
        make_image_file(source / f"{number:03}.jpg", number, size=(90, 60))
    killed = threading.Event()

    def kill_one() -> None:
        wait_until((settings.home / "thumbnails").exists)  # the first files are being read
        pid = active_children()[0].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        killed.set()

    def kill_once(progress: ImportProgress) -> None:
        if progress.done_count == 0 and not killed_after:
            threading.Thread(target=kill_one).start()
        elif progress.done_count and killed_after and not killed.is_set():
            kill_one()
            time.sleep(0.15)  # busy meanwhile: the next files go to processes that are gone

    summary = run(settings=settings.model_copy(update={"workers": 1}), progress=kill_once)
    assert killed.is_set()
    assert summary.imported == 160
    assert summary.refused == {}
    assert [image.path for image in list_images(database)] == [f"{n:03}.jpg" for n in range(160)]


def test_a_file_that_crashes_the_decoder_is_refused_alone(
    database: Database,
    source: Path,
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A stand-in for a decoder with a fault: new processes load it, and it dies of a comment.
    (tmp_path / "faulty").mkdir()
    (tmp_path / "faulty/sitecustomize.py").write_text(
        textwrap.dedent("""\
            import os
            import simplejpeg
            decode = simplejpeg.decode_jpeg
            def decode_or_die(data, *arguments, **options):
                if b"crash" in data:
                    os.abort()
                return decode(data, *arguments, **options)
            simplejpeg.decode_jpeg = decode_or_die
        """)
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "faulty"))
    for number in range(20):
        comment = b"crash" if number in (3, 17) else b"fine"
        make_image_file(source / f"{number:02}.jpg", number, comment=comment)
    summary = run()
    assert summary.imported == 18
    assert summary.refused == {CRASHED: 2}
    assert set(list_refused(database)) == {"03.jpg", "17.jpg"}


IMPORTING = """
import sys, time
from pathlib import Path
from app.database import open_database
from app.importing import import_images
from app.settings import Settings

settings = Settings(home=Path(sys.argv[1]), database_url=sys.argv[2], workers=2)

def wait_to_be_killed(progress):
    if progress.done_count:
        print(progress.done_count, flush=True)
        time.sleep(600)

import_images(
    open_database(settings), int(sys.argv[3]), Path(sys.argv[4]),
    settings=settings, progress=wait_to_be_killed,
)
"""


def test_a_killed_import_goes_on_where_it_was(
    own_database: Database, own_database_url: str, source: Path, settings: Settings
) -> None:
    database = own_database
    count = CHUNK_FILES + 100
    for number in range(count):
        make_image_file(source / f"{number:03}.jpg", number, size=(16, 8))
    with database.session() as session:
        collection_id = make_collection(session).id
    arguments = [str(settings.home), own_database_url, str(collection_id), str(source)]
    process = subprocess.Popen(
        [sys.executable, "-c", IMPORTING, *arguments],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    recorded = int(process.stdout.readline())
    assert 0 < recorded < count
    with pytest.raises(BadInput, match="right now"):
        import_images(database, collection_id, source, settings=settings)
    assert mark_interrupted_imports(database) == 0  # it lives
    workers = list_descendants(process.pid)
    assert workers
    process.kill()
    process.wait()
    process.stdout.close()
    wait_until(lambda: not any(is_running(pid) for pid in workers))
    assert len(list_images(database)) == recorded
    assert get_import(database).state == "running"
    assert mark_interrupted_imports(database) == 1
    assert get_import(database).state == "interrupted"
    summary = import_images(database, collection_id, source, settings=settings)
    assert (summary.known, summary.imported) == (recorded, count - recorded)
    assert [image.path for image in list_images(database)] == [f"{n:03}.jpg" for n in range(count)]


def list_descendants(pid: int) -> list[int]:
    """The processes of the session that `pid` leads, but itself."""
    found = subprocess.run(["ps", "-o", "pid=", "-s", str(pid)], capture_output=True, check=True)
    return [int(line) for line in found.stdout.split() if int(line) != pid]


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_until(is_so: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.001)


def test_an_import_that_died_is_marked_by_the_next_one(
    database: Database, source: Path, run: Run, collection_id: int
) -> None:
    with database.session() as session:
        dead = Import(collection_id=collection_id, source=str(source), state="running")
        session.add(dead)
    make_image_file(source / "1.jpg")
    run()
    with database.session() as session:
        assert session.get_one(Import, dead.id).state == "interrupted"
        assert session.scalars(select(Import.state).order_by(Import.id)).all()[-1] == "done"


def test_workers_do_not_load_what_they_do_not_need() -> None:
    code = "import app.reading, sys; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"torch", "sqlalchemy", "faiss", "sklearn", "fastapi", "app.database"} & set(loaded)


# --- Collections and photos ---------------------------------------------------------------------


def test_a_name_belongs_to_one_collection(session: Session, tmp_path: Path) -> None:
    person = make_person(session)
    pond = add_collection(session, "  Pond  2024 ", source=tmp_path, person=person)
    assert (pond.name, pond.source, pond.made_by_id) == ("Pond 2024", str(tmp_path), person.id)
    with pytest.raises(NameTaken, match="Pond 2024"):
        add_collection(session, "Pond 2024", source=tmp_path, person=person)
    with pytest.raises(BadInput):
        add_collection(session, " \t", source=tmp_path, person=person)
    assert get_or_add_collection(session, "Pond 2024", source=tmp_path, person=person) is pond
    lake = get_or_add_collection(
        session, "Lake", source=tmp_path, person=person, notice="synthetic"
    )
    assert lake.notice == "synthetic"
    assert session.scalar(select(func.count()).select_from(Collection)) == 2


def test_a_photo_is_checked_and_kept(
    session: Session, tmp_path: Path, settings: Settings, readers: Readers
) -> None:
    data = make_image_file(tmp_path / "photo.jpg", size=(500, 400)).read_bytes()
    read = read_photo(data, settings=settings, readers=readers)
    assert (read.width, read.height, read.format) == (500, 400, "JPEG")
    assert photo_path(read.sha256, settings=settings).read_bytes() == data
    photo = Photo(sha256=read.sha256, width=read.width, height=read.height)
    shutil.rmtree(settings.home / "thumbnails")
    with PIL.Image.open(get_thumbnail(photo, 320, settings=settings, readers=readers)) as thumbnail:
        assert thumbnail.size == (320, 256)


def test_an_unusable_photo_is_refused_with_a_sentence(
    tmp_path: Path, settings: Settings, readers: Readers
) -> None:
    data = make_image_file(tmp_path / "photo.jpg").read_bytes()
    limits = settings.model_copy(update={"max_photo_mb": 0.0005, "max_megapixels": 0.001})
    for refused, given, words in (
        (b"", settings, "empty"),
        (b"hello", settings, "not a JPEG"),
        (data[:-100], settings, "cut short"),
        (data, limits, "MB"),
        (data, settings.model_copy(update={"max_megapixels": 0.001}), "megapixels"),
    ):
        with pytest.raises(RefusedPhoto, match=words):
            read_photo(refused, settings=given, readers=readers)
    assert not settings.home.exists()


# --- Real images --------------------------------------------------------------------------------


def test_real_photos_lie_upright_and_broken_ones_are_named(
    database: Database,
    shared_data: Path,
    run: Run,
    settings: Settings,
    tmp_path: Path,
    readers: Readers,
) -> None:
    folder = tmp_path / "exif"
    shutil.copytree(shared_data / "exif", folder)
    whole = (folder / "DSCN0010.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 3])
    (folder / "notes.jpg").write_bytes(b"not a photograph")
    summary = run(folder)
    assert (summary.imported, summary.refused) == (22, {"damaged": 1, "not an image": 1})
    images = {image.path: image for image in list_images(database)}
    # The same two scenes, stored in three ways each; scenes shot upright are taller than wide.
    for scene, is_wide in (("landscape", True), ("portrait", False)):
        pictures = []
        for orientation in (3, 6, 8):
            image = images[f"{scene}_{orientation}.jpg"]
            assert image.orientation == orientation
            assert (image.width > image.height) == is_wide
            thumbnail = get_thumbnail(image, 320, settings=settings, readers=readers)
            with PIL.Image.open(thumbnail) as opened:
                assert (opened.width > opened.height) == is_wide
                pictures.append(np.asarray(opened.convert("L").resize((32, 32)), np.float64))
        for other in pictures[1:]:
            turned = np.abs(pictures[0][::-1, ::-1] - other).mean()
            assert np.abs(pictures[0] - other).mean() < min(8, turned / 3)
    # Where the camera's own notes are broken, the picture is there without them.
    broken = [image for path, image in images.items() if path.startswith("image0")]
    assert len(broken) == 7
    assert all(image.captured_at is None and image.latitude is None for image in broken)


def test_real_photos_are_imported_whole(
    database: Database, shared_data: Path, run: Run, settings: Settings, readers: Readers
) -> None:
    assert run(shared_data / "exif").imported == 22
    summary = run(shared_data / "camtrap_dp" / "media")  # a level up it is a package
    assert (summary.imported, summary.refused) == (10, {})
    images = list_images(database)
    assert sum(image.latitude is not None for image in images) == 9
    assert sum(image.captured_at is not None for image in images) == 19
    grid = [
        get_thumbnail(image, 320, settings=settings, readers=readers).stat().st_size
        for image in images
    ]
    assert sum(sorted(grid)[-12:]) < 500_000  # of 600 KB for a grid of twelve and its page
