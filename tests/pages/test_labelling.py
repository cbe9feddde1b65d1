"""The page of known labels: told first, kept by one press, downloaded; for whom it is."""

import hashlib

from sqlalchemy import select

from app.tables import AuditEvent, ImagePath, OracleLabel
from tests.factories import make_collection, make_images

HTMX = {"HX-Request": "true"}


def make_pond(client) -> str:
    with client.app.state.database.session() as session:
        collection = make_collection(session)
        images = make_images(session, collection, 3)
        for image, name in zip(images, "abc", strict=True):
            image.path = f"pond/{name}.jpg"
            known = {"image_id": image.id, "size_bytes": 1, "modified_ns": 1}
            session.add(ImagePath(collection_id=collection.id, path=image.path, **known))
        return f"/collections/{collection.id}"


def test_replays_without_labels_lead_to_where_they_are_added(client):
    pond = make_pond(client)
    page = client.get(f"{pond}/replays").text
    assert f'Add them on its page <a href="{pond}/labels">Known labels</a>' in page


def count_labels(client) -> int:
    with client.app.state.database.session() as session:
        return len(session.scalars(select(OracleLabel)).all())


def test_labels_are_told_first_kept_by_one_press_and_downloaded(client):
    pond = make_pond(client)
    here = f"{pond}/labels"
    assert f'href="{here}"' in client.get(pond).text
    assert "0 of 3 images" in client.get(here).text
    data = b"file,label\na.jpg,newt\nb.jpg,\nlost.jpg,newt\n"
    told = client.post(here, files={"labels": ("l.csv", data)}, headers=HTMX)
    assert told.status_code == 200 and "<html" not in told.text
    assert "gives a label to 2 images that had none" in told.text
    assert "line 4, “lost.jpg”: the collection has no such image" in told.text
    assert "Keep the others, leave out 1 line" in told.text
    assert count_labels(client) == 0
    checked = hashlib.sha256(data).hexdigest()
    assert f'value="{checked}"' in told.text
    # Another file under the same press is told first, too.
    other = b"file,label\na.jpg,toad\n"
    sent = {"data": {"checked": checked}, "headers": HTMX}
    told = client.post(here, files={"labels": ("l.csv", other)}, **sent)
    assert "is not kept yet" in told.text and count_labels(client) == 0
    kept = client.post(here, files={"labels": ("l.csv", data)}, **sent)
    assert "l.csv was kept" in kept.text and "2 of 3 images" in kept.text
    assert 'hx-swap-oob="true"' in kept.text and "pond/c.jpg" in kept.text
    assert count_labels(client) == 2
    page = client.get(pond).text
    assert "1 without" in page and "replays refuse" in page
    assert "newt" not in page

    known = client.get(f"{here}/known.csv")
    assert known.text == "file,label\npond/a.jpg,newt\npond/b.jpg,\n"
    assert known.headers["content-disposition"].startswith("attachment")
    assert client.get(f"{here}/without.csv").text == "file\npond/c.jpg\n"
    assert client.get(f"{here}/other.csv").status_code in (404, 422)
    log = client.get("/log").text
    assert "Kept known labels of" in log and "Exported the known labels of" in log


def test_without_javascript_the_whole_page_comes_and_errors_are_by_line(client):
    here = f"{make_pond(client)}/labels"
    for files, sentence in (
        ({}, "Choose a file first"),
        ({"labels": ("l.csv", b"file,label\na.jpg\n")}, "line 2 has 1 cell"),
        ({"labels": ("l.csv", b"file,label\n")}, "no line that names an image"),
    ):
        wrong = client.post(here, files=files)
        assert wrong.status_code == 422 and sentence in wrong.text
        assert "Nothing was changed" in wrong.text and "<html" in wrong.text
    data = b"file,label\nnone.jpg,newt\n"
    told = client.post(here, files={"labels": ("l.csv", data)})
    assert "names no image of this collection" in told.text and "Keep" not in told.text
    data = b"file,label\na.jpg,newt\n"
    told = client.post(here, files={"labels": ("l.csv", data)})
    assert "Choose the same file again" in told.text
    checked = {"checked": hashlib.sha256(data).hexdigest()}
    kept = client.post(here, files={"labels": ("l.csv", data)}, data=checked)
    assert "l.csv was kept" in kept.text and count_labels(client) == 1
    with client.app.state.database.session() as session:
        assert session.scalars(select(AuditEvent.kind)).all() == ["import"]
    again = client.post(here, files={"labels": ("l.csv", data)})
    assert "says what is known already" in again.text and 'name="checked"' not in again.text
