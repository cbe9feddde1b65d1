"""What a source holds: folders with links, hostile zips, labels in every spelling."""

import json
import os
import stat
import struct
import sys
import zipfile
from pathlib import Path

import pytest

from app.errors import LabelsNotUsable, SourceNotUsable
from app.reading import NOT_AN_IMAGE, NOT_READABLE, NOT_SUPPORTED, TOO_LARGE
from app.settings import Settings
from app.sources import (
    UNSAFE,
    Listing,
    check_source,
    list_source,
    match_files,
    match_labels,
    read_labels,
    read_table,
)


def write(path: Path, content: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def paths(listing: Listing) -> list[str]:
    return [file.path for file in listing.files]


def refusals(listing: Listing) -> dict[str, str]:
    return {file.path: refusal.reason for file, refusal in listing.refused}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    return folder


def test_a_folder_is_listed_with_all_below_it(source: Path, settings: Settings) -> None:
    for name in ("b.jpg", "a/2.jpg", "a/10.jpg", "a/deep/er/x.png", "Ünïcode 名/ß.jpg"):
        write(source / name)
    listing = list_source(source, settings, None)
    assert paths(listing) == sorted(
        ["a/10.jpg", "a/2.jpg", "a/deep/er/x.png", "b.jpg", "Ünïcode 名/ß.jpg"]
    )
    assert Path(str(listing.files[0].place)) == source / listing.files[0].path
    assert listing.files[0].modified_ns == (source / listing.files[0].path).stat().st_mtime_ns


def test_hidden_files_and_what_systems_leave_are_skipped(source: Path, settings: Settings) -> None:
    for name in (
        "photo.jpg",
        ".hidden.jpg",
        ".git/objects/photo.jpg",
        "__MACOSX/._photo.jpg",
        "sub/Thumbs.db",
        "sub/@eaDir/photo.jpg",
        "sub/.DS_Store",
    ):
        write(source / name)
    listing = list_source(source, settings, None)
    assert paths(listing) == ["photo.jpg"]
    assert listing.skipped == 6
    assert listing.refused == []


def test_links_in_circles_end(source: Path, settings: Settings) -> None:
    write(source / "a/photo.jpg")
    (source / "a/up").symlink_to(source)
    (source / "a/self").symlink_to(source / "a")
    (source / "round").symlink_to(source / "round")
    listing = list_source(source, settings, None)
    assert paths(listing) == ["a/photo.jpg"]
    assert refusals(listing) == {"round": NOT_READABLE}


def test_linked_folders_are_followed_once(source: Path, tmp_path: Path, settings: Settings) -> None:
    write(tmp_path / "elsewhere/far.jpg")
    write(source / "real/near.jpg")
    (source / "card").symlink_to(tmp_path / "elsewhere")
    (source / "card2").symlink_to(tmp_path / "elsewhere")
    (source / "also").symlink_to(source / "real")  # sorts before the real name, and loses to it
    listing = list_source(source, settings, None)
    assert paths(listing) == ["card/far.jpg", "real/near.jpg"]


def test_what_is_no_file_is_refused_and_never_opened(source: Path, settings: Settings) -> None:
    write(source / "photo.jpg")
    os.mkfifo(source / "pipe.jpg")  # opening it would wait for ever
    (source / "nowhere.jpg").symlink_to(source / "gone.jpg")
    listing = list_source(source, settings, None)
    assert paths(listing) == ["photo.jpg"]
    assert refusals(listing) == {"pipe.jpg": NOT_AN_IMAGE, "nowhere.jpg": NOT_READABLE}


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_forbidden_folder_is_refused_and_the_rest_listed(
    source: Path, settings: Settings
) -> None:
    write(source / "photo.jpg")
    closed = write(source / "closed/photo.jpg").parent
    closed.chmod(0)
    listing = list_source(source, settings, None)
    closed.chmod(0o700)
    assert paths(listing) == ["photo.jpg"]
    assert refusals(listing) == {"closed": NOT_READABLE}


@pytest.mark.skipif(sys.platform != "linux", reason="names there are always Unicode")
def test_a_name_that_is_no_utf8_is_shown_as_codes(source: Path, settings: Settings) -> None:
    write(Path(os.fsdecode(os.fsencode(source) + b"/caf\xe9.jpg")))
    listing = list_source(source, settings, None)
    assert paths(listing) == ["caf\\xe9.jpg"]
    assert Path(str(listing.files[0].place)).read_bytes() == b"x"


@pytest.mark.parametrize("kind", ["missing", "empty", "hidden only", "text file"])
def test_a_source_without_files_is_an_error_that_names_it(
    source: Path, settings: Settings, kind: str
) -> None:
    if kind == "missing":
        source = source / "gone"
    elif kind == "hidden only":
        write(source / ".hidden")
    elif kind == "text file":
        source = write(source / "notes.txt", b"no zip")
    with pytest.raises(SourceNotUsable, match=source.name):
        check_source(source, settings)
        list_source(source, settings, None)


# --- Zips ---------------------------------------------------------------------------------------


def make_zip(path: Path, *entries: tuple[str | zipfile.ZipInfo, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for entry, content in entries:
            archive.writestr(entry, content)
    return path


def test_a_zip_is_listed_as_a_folder_is(tmp_path: Path, settings: Settings) -> None:
    archive = make_zip(
        tmp_path / "photos.zip",
        ("b/1.jpg", b"one"),
        ("a.jpg", b"two"),
        ("b/", b""),
        ("__MACOSX/b/._1.jpg", b"x"),
        ("b/.hidden.jpg", b"x"),
        ("ä/ü.jpg", b"x"),
    )
    listing = list_source(archive, settings, None)
    assert paths(listing) == ["a.jpg", "b/1.jpg", "ä/ü.jpg"]
    assert listing.skipped == 2
    with zipfile.ZipFile(archive) as opened:
        entries = opened.infolist()
    assert [entries[int(file.place)].filename for file in listing.files] == paths(listing)


@pytest.mark.parametrize(
    "name",
    [
        "../outside.jpg",
        "a/../../outside.jpg",
        "/etc/outside.jpg",
        "..",
        "..\\outside.jpg",
        "\\outside.jpg",
        "C:\\outside.jpg",
        "C:outside.jpg",
    ],
)
def test_a_path_that_leads_out_is_refused_by_its_name(
    tmp_path: Path, settings: Settings, name: str
) -> None:
    archive = make_zip(tmp_path / "photos.zip", (name, b"x"), ("a..b/fine..jpg", b"x"))
    listing = list_source(archive, settings, None)
    assert refusals(listing) == {name.replace("\\", "/"): UNSAFE}
    assert paths(listing) == ["a..b/fine..jpg"]


def test_links_and_devices_in_a_zip_are_refused(tmp_path: Path, settings: Settings) -> None:
    entries = []
    for name, kind in (("link", stat.S_IFLNK), ("pipe", stat.S_IFIFO), ("file", stat.S_IFREG)):
        entry = zipfile.ZipInfo(f"{name}.jpg")
        entry.create_system = 3
        entry.external_attr = (kind | 0o644) << 16
        entries.append((entry, b"/etc/passwd"))
    listing = list_source(make_zip(tmp_path / "photos.zip", *entries), settings, None)
    assert refusals(listing) == {"link.jpg": UNSAFE, "pipe.jpg": UNSAFE}
    assert paths(listing) == ["file.jpg"]


def test_bombs_and_oversized_entries_are_refused_before_unpacking(
    tmp_path: Path, settings: Settings
) -> None:
    limits = settings.model_copy(
        update={"max_zip_entry_mb": 3.0, "max_zip_total_gb": 0.004, "max_zip_ratio": 200.0}
    )
    noise = os.urandom(1_500_000)
    archive = make_zip(
        tmp_path / "photos.zip",
        ("bomb.png", bytes(2_000_000)),  # packs to a thousandth
        ("fine1.jpg", noise),
        ("fine2.jpg", noise),
        ("large.tif", os.urandom(3_000_001)),
        ("total.jpg", noise),
        ("zeros.png", bytes(900_000)),  # small enough for any ratio
    )
    listing = list_source(archive, limits, None)
    assert refusals(listing) == {"bomb.png": UNSAFE, "large.tif": TOO_LARGE, "total.jpg": TOO_LARGE}
    assert paths(listing) == ["fine1.jpg", "fine2.jpg", "zeros.png"]


def test_encrypted_and_rarely_packed_entries_are_refused(
    tmp_path: Path, settings: Settings
) -> None:
    archive = make_zip(tmp_path / "photos.zip", ("locked.jpg", b"x"), ("open.jpg", b"x"))
    with zipfile.ZipFile(archive, "a") as opened:
        opened.writestr("rare.jpg", b"x", zipfile.ZIP_LZMA)
    data = bytearray(archive.read_bytes())
    at = data.index(b"PK\x01\x02")  # the first entry of the directory: its flags
    data[at + 8 : at + 10] = struct.pack("<H", 1)
    archive.write_bytes(data)
    listing = list_source(archive, settings, None)
    assert refusals(listing) == {"locked.jpg": NOT_READABLE, "rare.jpg": NOT_SUPPORTED}
    assert paths(listing) == ["open.jpg"]


def test_names_in_utf8_without_the_flag_are_read(tmp_path: Path, settings: Settings) -> None:
    # As macOS writes them: the flag that says UTF-8 is missing.
    data = make_zip(tmp_path / "photos.zip", ("Kröte.jpg", b"x")).read_bytes()
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = data.index(signature) + offset
        data = data[:at] + b"\0\0" + data[at + 2 :]
    archive = write(tmp_path / "mac.zip", data)
    assert paths(list_source(archive, settings, None)) == ["Kröte.jpg"]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_a_zip_repeats_is_numbered(tmp_path: Path, settings: Settings) -> None:
    archive = make_zip(tmp_path / "photos.zip", ("a.jpg", b"1"), ("a.jpg", b"22"))
    listing = list_source(archive, settings, None)
    assert [(file.path, file.size_bytes) for file in listing.files] == [
        ("a.jpg", 1),
        ("a.jpg (2)", 2),
    ]


# --- Labels -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        b"file,label\na/1.jpg,newt\nb.jpg,toad\n",
        b"\xef\xbb\xbffile,label\r\na/1.jpg,newt\r\nb.jpg,toad\r\n",
        b"Species;note;PATH\nnewt;x;a/1.jpg\n\ntoad;;b.jpg\n",
        b"class\tfilename\nnewt\ta/1.jpg\ntoad\tb.jpg\n",
        "file,label\na/1.jpg,newt\nb.jpg,toad\n".encode("utf-16"),
        b'"file","label"\n"a/1.jpg","newt"\n"b.jpg"," toad "\nc.jpg,\n',
        b"file,label\na/1.jpg,newt\nb.jpg,toad\n\r\n  \n\t\n\n",
    ],
)
def test_labels_are_read_in_many_spellings(
    source: Path, tmp_path: Path, settings: Settings, content: bytes
) -> None:
    labels = read_labels(write(tmp_path / "labels.csv", content), source, settings)
    assert labels is not None
    assert labels.rows is not None and labels.rows.pop("c.jpg", {""}) == {""}  # shows no target
    assert labels.rows == {"a/1.jpg": {"newt"}, "b.jpg": {"toad"}}
    assert labels.notes == ()


def test_labels_that_are_not_utf8_are_read_and_said(
    source: Path, tmp_path: Path, settings: Settings
) -> None:
    content = "file,label\n1.jpg,Kröte\n".encode("cp1252")
    labels = read_labels(write(tmp_path / "labels.csv", content), source, settings)
    assert labels is not None
    assert labels.rows == {"1.jpg": {"Kröte"}}
    assert "labels.csv is not UTF-8" in labels.notes[0]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"name,label\n1.jpg,newt\n", "no column file .*Its columns are: name, label"),
        (b"file,taxon\n1.jpg,newt\n", "no column label .or class, species.*file, taxon"),
        (b"file,label\n1.jpg,\0\x81\x8d\n", "neither UTF-8 nor"),
        (b"file,label\n1.jpg,%b\n" % (b"x" * 200_000), "in line 2 goes on for more"),
        (None, "no labels file"),
    ],
)
def test_unusable_labels_say_why(
    source: Path, tmp_path: Path, settings: Settings, content: bytes | None, words: str
) -> None:
    if content is not None:
        write(tmp_path / "labels.csv", content)
    with pytest.raises(LabelsNotUsable, match=words):
        check_source(source, settings, tmp_path / "labels.csv")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('file,note,label\n1.jpg,"deep,newt\n2.jpg,,toad\n', "line 2 a quotation mark is not"),
        ('file,note,label\n1.jpg,,newt\n2.jpg,,"toad', "line 3 a quotation mark is not"),
        ('file,note,label\n1.jpg,"a\nb",newt\n\n2.jpg,"', "line 5 a quotation mark is not"),
        ('file,note,label\n1.jpg,"a,newt\n2.jpg,"b",toad\n', "line 2 a quotation mark is not"),
        ('file,note,label\n1.jpg,"a "big" one",newt\n', "line 2 .*inside it are written twice"),
        ('file,note,"label\n1.jpg,,newt\n', "line 1 a quotation mark is not"),
        ("file,note,label\r1.jpg,,newt\r2.jpg,toad\r", r"line 3 has 2 cells.*\(line 1\) has 3\."),
        ("file;label\n\n1.jpg;newt;\n", "line 3 has 3 cells.*holds a semicolon into"),
        ('file,note,label\n1.jpg,"a\nb",newt\n2.jpg\n', "line 4 has 1 cell, and"),
        ("file\tlabel\n1.jpg\tnewt\n\t\t\t\n", "line 3 has 4 cells.*holds a tab into"),
        pytest.param(
            'file,label\n1.jpg,"' + "newt\n" * 40_000, "line 2 goes on .*be closed", id="long"
        ),
    ],
)
def test_labels_whose_cells_are_not_certain_are_refused_by_line(
    source: Path, tmp_path: Path, settings: Settings, content: str, words: str
) -> None:
    file = write(tmp_path / "labels.csv", content.encode())
    with pytest.raises(LabelsNotUsable, match=words):
        read_labels(file, source, settings)


def test_quotation_marks_that_are_closed_or_open_no_cell_are_taken() -> None:
    text = 'file,note\n1.jpg,"a ""big"", deep\none"\n2.jpg,5" long\n'
    assert read_table(text.encode(), "pond.csv").rows == [
        (2, ["1.jpg", 'a "big", deep\none']),
        (4, ["2.jpg", '5" long']),
    ]


def test_labels_may_be_inside_the_source(source: Path, tmp_path: Path, settings: Settings) -> None:
    content = b"file,label\na.jpg,newt\n"
    write(source / "a.jpg")
    write(source / "sub/labels.csv", content)
    archive = make_zip(tmp_path / "photos.zip", ("a.jpg", b"x"), ("sub/labels.csv", content))
    for place in (source, archive):
        labels = read_labels("sub/labels.csv", place, settings)
        assert labels is not None
        assert labels.rows == {"a.jpg": {"newt"}}
        assert paths(list_source(place, settings, labels)) == ["a.jpg"]
        assert paths(list_source(place, settings, None)) == ["a.jpg", "sub/labels.csv"]


def test_labels_obey_the_limits_of_zip_entries(tmp_path: Path, settings: Settings) -> None:
    limits = settings.model_copy(update={"max_zip_entry_mb": 3.0})
    header = b"file,label\n"
    archive = make_zip(
        tmp_path / "photos.zip",
        ("bomb.csv", header + b"\n" * 2_000_000),  # packs to a thousandth
        ("large.csv", header + os.urandom(1_500_000).hex().encode()),
        ("damaged.csv", header + b"a.jpg,newt\n"),
        ("lying.csv", header + b"a.jpg,toad\n" + b"\n" * 2_000_000),
    )
    data = bytearray(archive.read_bytes())
    data[data.index(b"damaged.csv") + len("damaged.csv") + 4] ^= 0xFF  # of its packed bytes
    entry = data.rindex(b"lying.csv") - 46  # in the directory: it says to unpack to little
    data[entry + 24 : entry + 28] = struct.pack("<I", 100)
    archive.write_bytes(data)
    for name, words in (
        ("bomb.csv", "may be a zip bomb"),
        ("large.csv", "unpacks to 3 MB; the limit is 3 MB"),
        ("damaged.csv", "is damaged"),
        ("lying.csv", "is damaged"),
        ("none.csv", "no labels file"),
    ):
        with pytest.raises(LabelsNotUsable, match=words):
            read_labels(name, archive, limits)


def test_labels_on_the_disk_have_a_limit_too(
    source: Path, tmp_path: Path, settings: Settings
) -> None:
    limits = settings.model_copy(update={"max_zip_entry_mb": 3.0})
    for folder in (tmp_path, source):
        with (folder / "labels.csv").open("wb") as file:
            file.write(b"file,label\n")
            file.truncate(3_000_001)  # a hole: takes no space
    for labels in (tmp_path / "labels.csv", "labels.csv"):
        with pytest.raises(LabelsNotUsable, match="3 MB; the limit is 3 MB"):
            read_labels(labels, source, limits)


def test_rows_match_by_path_or_where_one_ends_like_the_whole_of_the_other() -> None:
    rows = {
        "a/1.jpg": {"by path"},
        ".\\b\\1.jpg": {"by path, as Windows writes it"},
        "/other/disk/c/2.jpg": {"by the end of its path"},
        "/other/disk/6.jpg": {"another photo, of another folder"},
        "6.JPG": {"by name"},
        "3.jpg": {"of two files"},
        "4.jpg": {"of none"},
        "Kro\u0308te.jpg": {"accent as two letters"},
        "5.jpg": {"one", "two"},
    }
    files = ["a/1.jpg", "b/1.jpg", "c/2.jpg", "a/3.jpg", "b/3.jpg", "Kr\u00f6te.jpg", "5.jpg"]
    files += ["c/d/6.jpg"]
    matched, unmatched = match_labels(rows, files)
    assert matched == {
        "a/1.jpg": {"by path"},
        "b/1.jpg": {"by path, as Windows writes it"},
        "c/2.jpg": {"by the end of its path"},
        "c/d/6.jpg": {"by name"},
        "Kr\u00f6te.jpg": {"accent as two letters"},
        "5.jpg": {"one", "two"},
    }
    assert unmatched == ["/other/disk/6.jpg", "3.jpg", "4.jpg"]


def test_spellings_of_one_path_are_about_the_same_image() -> None:
    paths = ["a/1.jpg", "b/2.jpg"]
    for spellings in (
        ["./a/1.jpg", "a/1.jpg"],
        ["a\\1.jpg", "a/1.jpg"],
        ["1.jpg", "a/1.jpg"],
        ["1.JPG", "D:\\pond\\a\\1.jpg", "D:/pond/a/1.jpg"],
    ):
        assert match_files(spellings, paths) == {one: ["a/1.jpg"] for one in spellings}
    # Of another folder; and of one whose file may have been refused.
    apart = match_files(["a/1.jpg", "copy/a/1.jpg", "1.jpg"], [*paths, "3.jpg"])
    assert apart == {"a/1.jpg": ["a/1.jpg"], "copy/a/1.jpg": [], "1.jpg": []}


def test_labels_of_coco_are_the_categories_of_an_image(
    source: Path, tmp_path: Path, settings: Settings
) -> None:
    coco = {
        "images": [{"id": 1, "file_name": "sub/a.jpg"}, {"id": "x", "file_name": "b.jpg"}],
        "categories": [{"id": 7, "name": "heron"}, {"id": 8, "name": "duck"}],
        "annotations": [
            {"image_id": 1, "category_id": 7, "bbox": [0, 0, 5, 5]},
            {"image_id": 1, "category_id": 7},
            {"image_id": 1, "category_id": 8},
        ],
    }
    file = write(tmp_path / "coco.json", json.dumps(coco).encode())
    labels = read_labels(file, source, settings)
    assert labels is not None
    assert labels.rows == {"sub/a.jpg": {"heron", "duck"}, "b.jpg": {""}}
    coco["annotations"][0]["category_id"] = 9
    write(file, json.dumps(coco).encode())
    with pytest.raises(LabelsNotUsable, match="lacks 9"):
        read_labels(file, source, settings)
    write(file, b"[]")
    with pytest.raises(LabelsNotUsable, match="no JSON file of COCO"):
        read_labels(file, source, settings)
