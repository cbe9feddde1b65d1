"""Uploads: the pieces of a file, what is refused, quota, full disks, the import that follows."""

import base64
import io
import os
import shutil
import subprocess
import time
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, select

from app.errors import NotFound, SourceNotUsable
from app.security import get_local_person
from app.tables import (
    Collection,
    Image,
    ImagePath,
    Job,
    OracleLabel,
    RefusedFile,
    Upload,
    UploadedFile,
)
from app.uploads import (
    add_file,
    append_to,
    cancel_upload,
    clean_path,
    finish_upload,
    get_place,
    get_upload,
    list_sources,
    sweep_uploads,
)
from tests.factories import make_collection, make_image_file, make_images, make_person

TUS = {"Tus-Resumable": "1.0.0", "Accept": "application/json"}
PIECE = TUS | {"Content-Type": "application/offset+octet-stream"}


@pytest.fixture
def begin():
    """Begins an upload into a new collection; its address."""

    def make(client, name="Lake", **form) -> str:
        page = client.post("/collections", data={"name": name, "where": "here"} | form)
        assert page.status_code == 200, page.text
        assert page.url.path.startswith("/uploads/")
        return page.url.path

    return make


def announce(client, upload, path, size, *, body=None, modified_ms=1_700_000_000_000, **headers):
    told = base64.b64encode(path.encode(errors="surrogatepass")).decode()
    modified = base64.b64encode(str(modified_ms).encode()).decode()
    return client.post(
        f"{upload}/files",
        headers=(TUS if body is None else PIECE)
        | {"Upload-Length": str(size), "Upload-Metadata": f"path {told},modified {modified}"}
        | headers,
        content=body,
    )


def send(client, address, offset, data):
    return client.patch(address, headers=PIECE | {"Upload-Offset": str(offset)}, content=data)


def how_much(client, address) -> int:
    return int(client.head(address, headers=TUS).headers["upload-offset"])


def count(client, table) -> int:
    with client.app.state.database.session() as session:
        return len(session.scalars(select(table)).all())


def folder_of(client, upload) -> Path:
    return client.app.state.settings.home / upload.lstrip("/")


def read_job(client) -> Job:
    with client.app.state.database.session() as session:
        return session.scalars(select(Job)).one()


def picture(number=0) -> bytes:
    file = io.BytesIO()
    make_image_file(path := Path(os.environ["TMPDIR_OF_TEST"]) / f"{number}.jpg", number)
    file.write(path.read_bytes())
    return file.getvalue()


@pytest.fixture(autouse=True)
def pictures(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR_OF_TEST", str(tmp_path / "pictures"))


def wait_until(condition, *, timeout_s=60):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.1)


def test_files_in_pieces_and_a_zip_become_images_and_leave_nothing_behind(client, begin):
    upload = begin(client, upload_labels="folders")
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for number in range(3):
            archive.writestr(f"owl/{number}.jpg", picture(number))
    zip_bytes = packed.getvalue()
    made = announce(client, upload, "site/zipped.ZIP", len(zip_bytes))
    assert (made.status_code, made.headers["upload-offset"]) == (201, "0")
    address = made.headers["location"]
    assert send(client, address, 0, zip_bytes[:1_000]).headers["upload-offset"] == "1000"
    assert how_much(client, address) == 1_000
    assert client.head(address, headers=TUS | {"Tus-Resumable": "2"}).status_code == 412
    assert send(client, address, 500, zip_bytes[500:]).status_code == 409
    assert send(client, address, 1_000, zip_bytes[1_000:] + b"x").status_code == 422
    assert how_much(client, address) == 1_000
    again = announce(client, upload, "site/zipped.ZIP", len(zip_bytes), body=zip_bytes[:900])
    assert again.headers["location"] == address and again.headers["upload-offset"] == "1000"
    unfinished = client.post(f"{upload}/finish")
    assert unfinished.status_code == 422 and "No file has arrived" in unfinished.text
    assert send(client, address, 1_000, zip_bytes[1_000:]).status_code == 204
    assert how_much(client, address) == len(zip_bytes)

    data = picture(7)
    made = announce(client, upload, "site/heron/7.jpg", len(data), body=data)
    assert made.headers["upload-offset"] == str(len(data))
    announce(client, upload, "late.jpg", 10)
    known = {file["path"]: file["arrived"] for file in client.get(f"{upload}/files").json()}
    assert known == {"site/zipped.ZIP": True, "site/heron/7.jpg": True, "late.jpg": False}
    unfinished = client.post(f"{upload}/finish")
    assert unfinished.status_code == 422 and "late.jpg" in unfinished.text
    page = client.post(f"{upload}/finish", data={"leave_out": "1"})
    assert page.url.path.startswith("/collections/"), page.text
    wait_until(lambda: "Start a search" in client.get(page.url.path).text)

    with client.app.state.database.session() as session:
        paths = set(session.scalars(select(ImagePath.path)))
        files = session.scalars(select(Image.file)).all()
        labels = set(session.scalars(select(OracleLabel.label)))
        assert session.scalars(select(Upload.state)).all() == ["done"]
    assert paths == {"owl/0.jpg", "owl/1.jpg", "owl/2.jpg", "site/heron/7.jpg"}
    assert labels == {"owl", "heron"}
    originals = client.app.state.settings.home / "originals"
    assert all(Path(file).is_relative_to(originals) and Path(file).exists() for file in files)
    assert not folder_of(client, upload).exists()
    assert count(client, UploadedFile) == 0
    assert "Uploaded from a browser" in client.get(page.url.path).text
    assert client.get(upload).status_code == 404


def test_zips_of_two_cards_keep_what_they_name_alike_apart(client, begin, tmp_path):
    packed_before = tmp_path / "more.zip"
    with zipfile.ZipFile(packed_before, "w") as archive:
        archive.writestr("1.jpg", picture(9))
    upload = begin(client)
    for card in (1, 2):
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr("DCIM/1.jpg", picture(card))
            archive.writestr("DCIM/notes.txt", "notes")
            archive.writestr("../outside.jpg", picture(card))
            archive.write(packed_before, "more.zip")
        data = packed.getvalue()
        announce(client, upload, f"cards/card{card}.zip", len(data), body=data)
    page = client.post(f"{upload}/finish")
    wait_until(lambda: "Start a search" in client.get(page.url.path).text)
    with client.app.state.database.session() as session:
        assert set(session.scalars(select(ImagePath.path))) == {"DCIM/1.jpg", "DCIM (2)/1.jpg"}
        refused = {row.path: row.detail for row in session.scalars(select(RefusedFile))}
    inside = ("DCIM/notes.txt", "../outside.jpg", "more.zip")
    assert set(refused) == {f"cards/card{card}.zip/{name}" for card in (1, 2) for name in inside}
    assert "unpack it" in refused["cards/card2.zip/more.zip"]
    page = client.get(f"{page.url.path}/refused").text
    assert "upload it again" in page and "0 bytes" not in page


def test_number_of_a_folder_told_apart_is_no_part_of_its_label(client, begin):
    upload = begin(client, upload_labels="folders")
    paths = ["owl (2)/1.jpg", "(2)/2.jpg", "site (2)/heron (3)/3.jpg"]
    for number, path in enumerate(paths):
        data = picture(number)
        announce(client, upload, path, len(data), body=data)
    page = client.post(f"{upload}/finish")
    wait_until(lambda: "Start a search" in client.get(page.url.path).text)
    with client.app.state.database.session() as session:
        known = session.execute(select(Image.path, OracleLabel.label).join(OracleLabel))
        assert dict(known.all()) == {paths[0]: "owl", paths[2]: "heron (3)"}


def test_times_of_photos_are_kept_to_the_millisecond(client, begin):
    upload = begin(client)
    times_ms = {f"{number}.jpg": 1_700_000_000_000 + 37 * number for number in range(9)}
    for number, (path, modified_ms) in enumerate(times_ms.items()):
        data = picture(number)
        announce(client, upload, path, len(data), body=data, modified_ms=modified_ms)
    page = client.post(f"{upload}/finish")
    wait_until(lambda: "Start a search" in client.get(page.url.path).text)
    with client.app.state.database.session() as session:
        kept = dict(session.execute(select(ImagePath.path, ImagePath.modified_ns)).all())
    assert kept == {path: modified_ms * 1_000_000 for path, modified_ms in times_ms.items()}


def test_labels_file_comes_with_an_upload_and_is_checked_before_it(client, begin):
    form = {"name": "Pond", "where": "here", "upload_labels": "file"}
    for sent, sentence in (
        ({}, "Choose the file"),
        ({"labels_upload": ("l.csv", b"file,label\na.jpg\n")}, "line 2 has 1 cell"),
        ({"labels_upload": ("l.csv", b"file,label\n")}, "no line that names an image"),
        ({"labels_upload": ("l.csv", b"file,depth\na.jpg,1\n")}, "has no column label"),
    ):
        page = client.post("/collections", data=form, files=sent)
        assert page.status_code == 422 and sentence in page.text
    assert count(client, Collection) == count(client, Upload) == 0
    # Who picked a file and then chose “None” sends it all the same.
    picked = {"labels_upload": ("l.csv", b"no labels")}
    for choice in ("", "folders"):
        page = client.post("/collections", data=form | {"upload_labels": choice}, files=picked)
        assert page.url.path.startswith("/uploads/") and "l.csv" not in page.text
        with client.app.state.database.session() as session:
            (begun,) = session.scalars(select(Upload))
            assert (begun.labels or "", begun.labels_file) == (choice, None)
            session.delete(begun.collection)
    # The file may name images of the zip and of the folder; a line that names none is told.
    labels = b"file,label\nsite/7.jpg,heron\n0.jpg,owl\npond/1.jpg,\nlost.jpg,owl\n"
    page = client.post("/collections", data=form, files={"labels_upload": ("l.csv", labels)})
    upload = page.url.path
    assert upload.startswith("/uploads/") and "l.csv" in page.text
    for chosen, said in (
        (["site/7.jpg", "a/0.jpg", "pond/1.jpg", "lost.jpg"], []),
        (["7.jpg", "more.jpg"], ["3 lines of l.csv name", "1 file has no line"]),
        (["site/7.jpg", "more.jpg", "a.zip"], ["1 file has no line in it, such as “more.jpg”"]),
    ):
        told = client.post(f"{upload}/labels", json=chosen).json()
        assert len(told) == len(said) and all(map(str.startswith, told, said)), told
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for number in range(3):
            archive.writestr(f"pond/{number}.jpg", picture(number))
    for path, data in (("a.zip", packed.getvalue()), ("site/7.jpg", picture(7))):
        announce(client, upload, path, len(data), body=data)
    collection = client.post(f"{upload}/finish").url.path
    wait_until(lambda: "Start a search" in client.get(collection).text)
    with client.app.state.database.session() as session:
        known = session.execute(select(Image.path, OracleLabel.label).join(OracleLabel))
        assert dict(known.all()) == {"site/7.jpg": "heron", "pond/0.jpg": "owl", "pond/1.jpg": ""}
        assert session.scalars(select(Upload)).one().labels_file is None
    page = client.get(collection).text.replace("\u202f", " ")
    assert "3 of 4 images" in page and "1 without" in page
    page = client.get(f"{collection}/labels").text
    assert "1 line of l.csv left out: line 5, “lost.jpg”" in page and "pond/2.jpg" in page
    assert "heron" not in client.get(f"{collection}/browse").text

    # More images come with labels that can't be read, or with a good file.
    wrong = client.post(
        f"{collection}/uploads",
        data={"upload_labels": "file"},
        files={"labels_upload": ("m.csv", b'file,label\n"x\n')},
    )
    assert wrong.status_code == 422 and "quotation mark" in wrong.text
    good = {"labels_upload": ("m.csv", b"file,label\n2.jpg,owl\n")}
    again = client.post(f"{collection}/uploads", data={"upload_labels": "file"}, files=good)
    assert again.url.path.startswith("/uploads/") and "m.csv" in again.text


def test_half_a_piece_before_a_kill_is_not_sent_twice(idle_client, begin):
    """Bytes that reached the disk without an answer: the size on disk is what counts."""
    client = idle_client
    upload = begin(client)
    data = picture()
    address = announce(client, upload, "a.jpg", len(data)).headers["location"]
    send(client, address, 0, data[:100])
    [part] = (folder_of(client, upload) / "parts").iterdir()
    with part.open("ab") as file:
        file.write(data[100:150])  # and then the server was killed
    assert send(client, address, 100, data[100:]).status_code == 409
    assert how_much(client, address) == 150
    assert send(client, address, 150, data[150:]).status_code == 204
    assert (folder_of(client, upload) / "files" / "a.jpg").read_bytes() == data
    whole = folder_of(client, upload) / "files" / "a.jpg"
    assert whole.stat().st_mtime == 1_700_000_000

    address = announce(client, upload, "b.jpg", len(data), body=data).headers["location"]
    with client.app.state.database.session() as session:
        [file] = session.scalars(select(UploadedFile).filter_by(path="b.jpg"))
        file.has_arrived = False  # killed between the move and the row
    assert how_much(client, address) == len(data)
    assert all(file["arrived"] for file in client.get(f"{upload}/files").json())


def test_one_connection_at_a_time_writes_a_file(idle_client, begin):
    client = idle_client
    upload = begin(client)
    address = announce(client, upload, "a.jpg", 100).headers["location"]
    state = client.app.state
    with state.database.session() as session:
        row = session.scalars(select(Upload)).one()
        place = get_place(session, row, int(address.rsplit("/", 1)[1]), settings=state.settings)
    with append_to(place, 0) as file:
        file.write(b"x" * 10)
        refused = send(client, address, 10, b"y" * 10)
        assert refused.status_code == 423 and refused.json()["error"] == "UploadBusy"
    assert send(client, address, 10, b"y" * 10).status_code == 204


@pytest.mark.parametrize(
    "path",
    [
        "../a.jpg",
        "a/../../b.jpg",
        "/etc/passwd",
        "C:\\a.jpg",
        "c:/a.jpg",
        "..\\a.jpg",
        "",
        "./",
        "x" * 300,
    ],
)
def test_paths_that_lead_out_are_refused(idle_client, begin, path):
    upload = begin(idle_client)
    refused = announce(idle_client, upload, path, 10, body=b"x" * 10)
    assert refused.status_code == 422 and "sent" in refused.json()["detail"]
    assert not folder_of(idle_client, upload).exists()


def test_odd_names_are_cleaned():
    assert clean_path("DCIM\\100/./IMG 1.jpg") == "DCIM/100/IMG 1.jpg"
    assert clean_path("a\nb\x00\u202ec.jpg") == "a_b__c.jpg"
    assert clean_path("con/NUL.jpg/ab. ") == "_con/_NUL.jpg/ab"
    assert clean_path("Žirafa/č.jpg") == "Žirafa/č.jpg"


def test_what_is_here_is_told_of_the_paths_that_are_asked(idle_client, begin):
    upload = begin(idle_client)
    with idle_client.app.state.database.session() as session:
        collection = session.scalars(select(Collection)).one()
        other = make_collection(session, name="Other")
        for one, names in (
            (collection, ["A_1/50%.jpg", "AB1/50%.jpg", "A_1/50x.jpg", "none.jpg", "a_b.jpg"]),
            (other, ["theirs.jpg"]),
        ):
            images = make_images(session, one, len(names))
            session.add_all(
                ImagePath(
                    collection_id=one.id,
                    image_id=images[number].id,
                    path=path,
                    size_bytes=100 + number,
                    modified_ns=1_700_000_000_123_456_789 + number * 1_000_000,
                )
                for number, path in enumerate(names)
            )

    def ask(*paths: str) -> dict[str, tuple[int, int]]:
        told = idle_client.post(f"{upload}/here", json=paths)
        assert told.status_code == 200
        return {one["path"]: (one["size"], one["modified"]) for one in told.json()}

    at_ms = 1_700_000_000_123
    assert ask("A_1/50%.jpg") == {"A_1/50%.jpg": (100, at_ms)}
    assert ask("none.jpg", "A_1/none.jpg", "theirs.jpg") == {"none.jpg": (103, at_ms + 3)}
    # As it will be kept, told by the name that is asked; what can't be sent is not here.
    assert ask("a\0b.jpg", "../none.jpg", "%", "A_1/") == {"a\0b.jpg": (104, at_ms + 4)}
    assert ask() == {}


def test_others_reach_neither_uploads_nor_their_files(idle_client, begin):
    client = idle_client
    upload = begin(client)
    address = announce(client, upload, "a.jpg", 100, body=b"x" * 10).headers["location"]
    with client.app.state.database.session() as session:
        collection = session.scalars(select(Collection)).one()
        collection.deleted_at = datetime.now(UTC)
    assert send(client, address, 10, b"y").status_code == 404, "it is in the bin"
    with client.app.state.database.session() as session:
        session.scalars(select(Collection)).one().deleted_at = None
        session.scalars(select(Upload)).one().person_id = make_person(session, name="other").id
    requests = [
        client.get(upload),
        client.get(f"{upload}/files"),
        client.head(address, headers=TUS),
        send(client, address, 10, b"y"),
        announce(client, upload, "b.jpg", 1),
        client.post(f"{upload}/finish"),
        client.post(f"{upload}/cancel"),
        client.post(f"{upload}/form", files={"files": ("a.jpg", b"x")}),
    ]
    assert [answer.status_code for answer in requests] == [404] * len(requests)
    with client.app.state.database.session() as session:
        get_local_person(session).role = "ecologist"
    assert send(client, address, 10, b"y").status_code == 403
    client.cookies.clear()
    assert send(client, address, 10, b"y").status_code == 401
    assert announce(client, upload, "b.jpg", 1, body=b"x").status_code == 401


def test_quota_counts_what_a_person_uploaded_and_says_so(idle_client, begin):
    client = idle_client
    state = client.app.state
    state.settings = state.settings.model_copy(update={"upload_quota_gb": 1_000 / 1e9})
    upload = begin(client)
    assert announce(client, upload, "a.jpg", 600).status_code == 201
    assert announce(client, upload, "a.jpg", 600).status_code == 201  # the same file again
    refused = announce(client, upload, "b.jpg", 500)
    assert refused.status_code == 413 and "You may upload" in refused.json()["detail"]
    state.settings = state.settings.model_copy(update={"upload_quota_gb": 0.25})
    refused = announce(client, upload, "b.jpg", 300_000_000)
    told = "You may upload 250 MB, and 0.0 MB of them are used. For more, have the setting"
    assert refused.json()["detail"].startswith(told)
    state.settings = state.settings.model_copy(update={"upload_quota_gb": 1_000 / 1e9})
    assert announce(client, upload, "a.jpg", 900).status_code == 201  # in place of the 600
    assert "900 bytes</span> of the 1.0 kB" in client.get(upload).text
    client.post(f"{upload}/cancel")
    assert announce(client, begin(client, "Pond"), "b.jpg", 500).status_code == 201


def test_numbers_that_are_none_are_refused(idle_client, begin):
    client = idle_client
    upload = begin(client)
    made = announce(client, upload, "a.jpg", 10)
    for wrong in ("²".encode("latin-1"), b"9" * 5_000, b""):
        refused = send(client, made.headers["location"], wrong, b"x")
        assert refused.status_code == 422 and "Upload-Offset" in refused.json()["detail"]
    assert announce(client, upload, "b.jpg", "9" * 5_000).status_code == 422
    told = [base64.b64encode(text).decode() for text in (b"c.jpg", b"9" * 30)]
    dated = {"Upload-Metadata": f"path {told[0]},modified {told[1]}"}
    assert announce(client, upload, "", 10, **dated).status_code == 201
    odd = {"Upload-Metadata": "path ²".encode("latin-1")}
    assert announce(client, upload, "", 10, **odd).status_code == 422


def test_announced_files_must_fit_the_disk(idle_client, begin):
    client = idle_client
    upload = begin(client)
    free = shutil.disk_usage(client.app.state.settings.home).free
    state = client.app.state
    state.settings = state.settings.model_copy(
        update={"upload_quota_gb": 1e9, "keep_free_gb": free / 1e9 - 0.002}
    )
    refused = announce(client, upload, "a.jpg", 10**9)
    assert refused.status_code == 507 and "no room" in refused.json()["detail"]


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 3 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip("may not mount a small disk here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_disk_that_fills_up_is_told_and_goes_on_when_there_is_room(client, begin, small_disk):
    state = client.app.state
    home = state.settings.home
    for folder in ("uploads", "originals", "thumbnails"):
        shutil.rmtree(home / folder, ignore_errors=True)
        (small_disk / folder).mkdir()
        (home / folder).symlink_to(small_disk / folder)
    upload = begin(client)
    files = [(f"{number}.jpg", picture(number)) for number in range(3)]
    for path, content in files:
        announce(client, upload, path, len(content), body=content)
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 2_800_000)
    noise = os.urandom(400_000)
    address = announce(client, upload, "big.bmp", len(noise)).headers["location"]
    full = send(client, address, 0, noise)
    assert full.status_code == 507 and "full" in full.json()["detail"]
    kept = how_much(client, address)
    assert 0 < kept < len(noise)

    ballast.write_bytes(b"x" * 2_000_000)
    assert send(client, address, kept, noise[kept:]).status_code == 204
    free = shutil.disk_usage(small_disk).free
    ballast2 = small_disk / "ballast2"
    ballast2.write_bytes(b"x" * (free - 8_192))
    page = client.post(f"{upload}/finish")
    wait_until(lambda: read_job(client).state == "failed")
    assert "This collection is not ready" in client.get(page.url.path).text
    with state.database.session() as session:
        [job] = session.scalars(select(Job))
        assert job.state == "failed" and "can't write" in job.problem, job.problem
        images = session.scalars(select(Image)).all()
        assert all(Path(image.file).stat().st_size == image.size_bytes for image in images)
    assert "Run again" in client.get(page.url.path).text
    ballast.unlink()
    ballast2.unlink()
    client.post(f"/work/{job.id}/again")
    wait_until(lambda: "Start a search" in client.get(page.url.path).text)
    assert count(client, Image) == 3


def test_form_without_scripts_takes_files_and_imports_them(client, begin):
    upload = begin(client)
    nothing = client.post(f"{upload}/form", files={"files": ("", b"")})
    assert nothing.status_code == 422 and "No file has arrived" in nothing.text
    files = [("files", (f"{number}.jpg", picture(number))) for number in range(2)]
    page = client.post(f"{upload}/form", files=files)
    assert page.url.path.startswith("/collections/"), page.text
    wait_until(lambda: "Start a search" in client.get(page.url.path).text)
    assert count(client, Image) == 2


def test_files_of_a_form_before_one_that_fails_are_kept_and_counted(idle_client, begin):
    client = idle_client
    state = client.app.state
    state.settings = state.settings.model_copy(update={"upload_quota_gb": 1_000 / 1e9})
    upload = begin(client)
    files = [("files", (name, b"x" * 600)) for name in ("a.jpg", "b.jpg")]
    assert client.post(f"{upload}/form", files=files).status_code == 413
    [known] = client.get(f"{upload}/files").json()
    assert (known["path"], known["arrived"]) == ("a.jpg", True)
    assert "600 bytes</span> of the 1.0 kB" in client.get(upload).text
    another = announce(client, upload, "a.jpg", 700)
    assert (another.status_code, another.headers["upload-offset"]) == (201, "0")
    assert send(client, another.headers["location"], 0, b"y" * 700).status_code == 204
    assert (folder_of(client, upload) / "files" / "a.jpg").read_bytes() == b"y" * 700


def test_commit_that_fails_loses_no_file(idle_client, begin):
    client = idle_client
    upload = begin(client)
    announce(client, upload, "a.jpg", 3, body=b"one")
    announce(client, upload, "a.zip", 3, body=b"two")
    announce(client, upload, "b.jpg", 9, body=b"half")
    state = client.app.state

    def replace(session, row):
        for path in ("a.jpg", "a.zip", "b.jpg"):
            add_file(
                session, row, path=path, size_bytes=8, modified_ms=None, settings=state.settings
            )

    def sweep(session, row):
        row.touched_at = datetime.now(UTC) - timedelta(days=30)
        for part in (folder_of(client, upload) / "parts").iterdir():
            os.utime(part, (0, 0))
        session.flush()
        sweep_uploads(session, state.settings)

    def cancel(session, row):
        cancel_upload(session, row, settings=state.settings)

    def list_bytes():
        files = folder_of(client, upload).rglob("*")
        return sorted(file.read_bytes() for file in files if file.is_file())

    for deed in (replace, sweep, cancel):
        with pytest.raises(RuntimeError), state.database.session() as session:
            deed(session, session.scalars(select(Upload)).one())
            session.flush()
            raise RuntimeError
        assert list_bytes() == [b"half", b"one", b"two"]
    for deed, left in ((replace, [b"one"]), (sweep, [])):
        with state.database.session() as session:
            deed(session, session.scalars(select(Upload)).one())
        assert list_bytes() == left


def test_zip_that_cannot_be_read_is_refused_by_name_and_keeps_nothing_back(idle_client, begin):
    client = idle_client
    state = client.app.state
    for number, paths in enumerate((["broken.zip"], ["broken.zip", "a.jpg"]), 1):
        upload = begin(client, f"Lake {number}")
        for path in paths:
            announce(client, upload, path, 3, body=b"one")
        client.post(f"{upload}/finish")
        with state.database.session() as session:
            upload_id = session.scalars(select(func.max(Upload.id))).one()
            if number == 1:
                with pytest.raises(SourceNotUsable, match=r"broken\.zip can't be read as a zip"):
                    list_sources(session, upload_id, settings=state.settings)
            else:
                [files] = list_sources(session, upload_id, settings=state.settings)
                assert [file.name for file in files.iterdir()] == ["a.jpg"]
                refused = session.scalars(
                    select(RefusedFile.path)
                    .join(Upload, Upload.collection_id == RefusedFile.collection_id)
                    .where(Upload.id == upload_id)
                )
                assert refused.all() == ["broken.zip"]


def test_replaced_file_that_did_not_arrive_is_left_out_in_both_its_forms(idle_client, begin):
    client = idle_client
    upload = begin(client)
    for path in ("a.jpg", "b.jpg"):
        announce(client, upload, path, 3, body=b"one")
    announce(client, upload, "a.jpg", 5)
    client.post(f"{upload}/finish", data={"leave_out": "1"})
    state = client.app.state
    with state.database.session() as session:
        upload_id = session.scalars(select(Upload.id)).one()
        [files] = list_sources(session, upload_id, settings=state.settings)
        assert [file.name for file in files.iterdir()] == ["b.jpg"]
        (files / "b.jpg").unlink()
        with pytest.raises(NotFound, match=r"missing .* b\.jpg"):
            list_sources(session, upload_id, settings=state.settings)


def test_photo_of_the_same_size_that_was_edited_is_sent_again(idle_client, begin):
    client = idle_client
    upload = begin(client)
    first = announce(client, upload, "a.jpg", 3, body=b"one").headers["location"]
    assert announce(client, upload, "a.jpg", 3).headers["location"] == first
    edited = announce(client, upload, "a.jpg", 3, modified_ms=1_700_000_000_001)
    assert edited.headers["location"] != first and edited.headers["upload-offset"] == "0"
    assert [file["arrived"] for file in client.get(f"{upload}/files").json()] == [False]
    send(client, edited.headers["location"], 0, b"two")
    assert [file["arrived"] for file in client.get(f"{upload}/files").json()] == [True]
    assert (folder_of(client, upload) / "files/a.jpg").read_bytes() == b"two"
    assert count(client, UploadedFile) == 1


def test_upload_that_another_request_has_just_ended_is_not_ended_again(idle_client, begin):
    client = idle_client
    settings = client.app.state.settings

    def finish(session, row, person):
        finish_upload(session, row, person, settings=settings)

    def cancel(session, row, _person):
        cancel_upload(session, row, settings=settings)

    def add(session, row, _person):
        add_file(session, row, path="b.jpg", size_bytes=1, modified_ms=None, settings=settings)

    for name, first in (("Pond", finish), ("Lake", cancel)):
        upload = begin(client, name)
        announce(client, upload, "a.jpg", 1, body=b"x")
        upload_id = int(upload.rsplit("/", 1)[1])
        with client.app.state.database.session() as late:
            person = get_local_person(late)
            row = get_upload(late, person, upload_id)
            with client.app.state.database.session() as session:
                first(session, get_upload(session, person, upload_id), person)
            for second in (finish, cancel, add):
                with pytest.raises(NotFound):
                    second(late, row, person)
        assert (folder_of(client, upload) / "files" / "a.jpg").exists() == (first is finish)
    assert count(client, Job) == count(client, UploadedFile) == 1


def test_open_upload_is_found_again_and_forgotten_ones_are_cleared(idle_client, begin):
    client = idle_client
    upload = begin(client)
    with client.app.state.database.session() as session:
        collection_id = session.scalars(select(Collection.id)).one()
    here = f"/collections/{collection_id}"
    assert "No photo has been uploaded yet" in client.get(here).text
    announce(client, upload, "a.jpg", 10, body=b"x" * 10)
    announce(client, upload, "b.jpg", 10)
    assert "1 of 2 files arrived" in client.get(here).text
    made = announce(client, upload, "large.zip", 20, body=b"x")
    state = client.app.state
    with state.database.session() as session:
        long_ago = datetime.now(UTC) - timedelta(days=30)
        session.scalars(select(Upload)).one().touched_at = long_ago
        session.flush()
        sweep_uploads(session, state.settings)  # a piece of the zip came just now
    assert client.get(upload).status_code == 200
    send(client, made.headers["location"], 1, b"x" * 19)
    stray = state.settings.home / "uploads" / "999"
    stray.mkdir()
    with state.database.session() as session:
        sweep_uploads(session, state.settings.model_copy(update={"upload_days": 1e-9}))
    assert client.get(upload).status_code == 404
    assert list((state.settings.home / "uploads").iterdir()) == []


def test_failed_import_keeps_its_files_for_some_days_only(idle_client, begin):
    client = idle_client
    upload = begin(client)
    announce(client, upload, "a.jpg", 1, body=b"x")
    client.post(f"{upload}/finish")
    state = client.app.state
    soon = state.settings.model_copy(update={"upload_days": 1e-9})
    with state.database.session() as session:
        sweep_uploads(session, soon)  # its job still waits
        assert session.scalars(select(Upload)).one().state == "importing"
    assert folder_of(client, upload).exists()
    with state.database.session() as session:
        session.scalars(select(Job)).one().state = "failed"
    with state.database.session() as session:
        sweep_uploads(session, soon)
        assert session.scalars(select(Upload)).first() is None
        with pytest.raises(NotFound, match="Upload them again"):
            list_sources(session, 1, settings=state.settings)
    assert not folder_of(client, upload).exists()


def test_adding_to_a_collection_begins_an_upload(idle_client):
    client = idle_client
    with client.app.state.database.session() as session:
        collection = make_collection(session)
    page = client.post(f"/collections/{collection.id}/uploads")
    assert page.url.path.startswith("/uploads/") and "Upload to Pond" in page.text
