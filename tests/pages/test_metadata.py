"""The page of a collection's tables, and where their columns are shown and exported."""

import csv
import io
import json
import re

import pytest

from app.metadata import list_tables
from app.searching import open_search
from app.security import get_local_person
from app.tables import ImagePath
from tests.factories import make_collection, make_images, make_index


@pytest.fixture
def pond(client):
    """A collection and a search in it: their address and number, an image's number and path."""
    state = client.app.state
    with state.database.session() as session:
        collection = make_collection(session)
        images = make_images(session, collection, 20)
        for image in images:
            known = {"image_id": image.id, "path": image.path, "size_bytes": 1, "modified_ns": 1}
            session.add(ImagePath(collection_id=collection.id, **known))
        make_index(session, state.settings, images)
        search = open_search(
            session,
            person=get_local_person(session),
            collection_id=collection.id,
            target_name="Heron",
            round_size=6,
            image_ids=[images[0].id],
            photo_ids=[],
            indexes=state.indexes,
            embedders=state.embedders,
            settings=state.settings,
        )
        image_id, name, search_id = images[0].id, images[0].path, search.id
    return f"/collections/{collection.id}", search_id, image_id, name


def test_table_is_added_shown_beside_the_image_and_exported(client, pond):
    own, search_id, image_id, name = pond
    assert "Add a CSV file" in client.get(own).text
    table = f"file,water depth,seen,note\n{name},12.50,2024-05-02 06:30,=SUM(1)\nlost.jpg,1,,\n"
    added = client.post(f"{own}/metadata", files={"table": ("pond.csv", table.encode())})
    assert "1 image of 2 rows" in added.text.replace("\u202f", "")
    assert "lost.jpg" in added.text and "line 3" in added.text
    for page in (f"{own}/images/{image_id}", f"/searches/{search_id}/images/{image_id}"):
        shown = client.get(page).text
        assert "water depth" in shown and "12.5" in shown and "2024-05-02 06:30" in shown
    (row,) = csv.DictReader(io.StringIO(client.get(f"/searches/{search_id}/export.csv").text))
    assert (row["given.water depth"], row["given.note"]) == ("12.5", "'=SUM(1)")
    (line,) = client.get(f"/searches/{search_id}/export.jsonl").text.splitlines()
    said = {"water depth": 12.5, "seen": "2024-05-02T06:30", "note": "=SUM(1)"}
    assert json.loads(line)["given"] == said
    wrong = client.post(f"{own}/metadata", files={"table": ("bad.csv", b"depth\n1\n")})
    assert wrong.status_code == 422 and "Nothing was changed" in wrong.text
    for text, problem in (
        (f'file,water depth\n{name},"7\nlost.jpg,1\n', "line 2 a quotation mark is not closed"),
        (f"file,water depth\n{name},7\nlost.jpg\n", "line 3 has 1 cell"),
    ):
        wrong = client.post(f"{own}/metadata", files={"table": ("cut.csv", text.encode())})
        assert wrong.status_code == 422 and problem in wrong.text
        assert "Nothing was changed" in wrong.text
        assert "cut.csv" not in client.get(f"{own}/metadata").text
        assert "12.5" in client.get(f"{own}/images/{image_id}").text


def test_a_table_that_finds_no_image_says_what_to_do_and_its_rows_are_folded(client, pond):
    own, _, _, name = pond
    rows = "".join(f"elsewhere/{number}.jpg,1\n" for number in range(150))
    page = client.post(f"{own}/metadata", files={"table": ("a.csv", f"file,x\n{rows}".encode())})
    text = " ".join(page.text.split())
    assert "No row of a.csv found its image" in text and "0 images" not in text
    assert "line 2, elsewhere/0.jpg" in text and f"An image here is called <code>{name}" in text
    assert text.index("Add a table") < text.index("Rows without an image")
    folded = r'<details class="section fold"\s+id="unmatched">'
    assert re.search(folded, text) and re.search(folded, client.get(f"{own}/metadata").text)
    second = client.get(f"{own}/metadata?page=2").text
    assert re.search(r'id="unmatched" open>', second) and "elsewhere/149.jpg" in second


def submit(client, search_id: int) -> str:
    """The grid after this one, whose images are no."""
    grid = client.get(f"/searches/{search_id}").text
    form = dict(re.findall(r'name="(round_id|gesture_key)"\s+value="([^"]*)"', grid))
    return client.post(f"/searches/{search_id}/submit", data=form | {"rest": "no"}).text


def test_what_goes_with_a_column_and_a_table_is_said_before_they_go(client, pond):
    own, search_id, image_id, name = pond
    table = f"file,water depth,seen,note\n{name},12.50,2024-05-02 06:30,=SUM(1)\nlost.jpg,1,,\n"
    client.post(f"{own}/metadata", files={"table": ("pond.csv", table.encode())})
    client.post(f"/searches/{search_id}/filter", data={"min.water depth": "12"})
    asked = client.get(f"{own}/metadata/removal?column=water depth").text
    assert "Take “water depth” away?" in asked and "“Heron” (" in asked
    assert "water depth" in client.get(f"{own}/images/{image_id}").text, "nothing is changed yet"
    client.post(f"{own}/metadata/forget", data={"column": "water depth"})
    assert "water depth" not in client.get(f"{own}/images/{image_id}").text
    assert client.get(f"{own}/metadata/removal?column=water depth").status_code == 404
    assert client.get(f"{own}/metadata/removal").url.path == f"{own}/metadata"
    # Its filter stands, and a grid that it leaves nothing for leads to it.
    assert "water depth from 12" in client.get(f"/searches/{search_id}").text
    done = submit(client, search_id)
    assert "No image without an answer fits the filter" in done
    assert f'<a href="/searches/{search_id}/filter">change it</a>, then look again' in done
    client.post(f"/searches/{search_id}/filter", data={})
    assert "No image was left to ask about" in client.get(f"/searches/{search_id}").text
    assert "was left to ask" not in submit(client, search_id), "it is asked about"
    with client.app.state.database.session() as session:
        (table,) = list_tables(session, int(own.rpartition("/")[2]))
    page = client.get(f"{own}/metadata").text
    assert f'href="{own}/metadata/removal?table={table.id}"' in page and "lost.jpg" in page
    asked = client.get(f"{own}/metadata/removal?table={table.id}").text
    assert "Remove pond.csv?" in asked and "“seen”, “note”" in asked
    for status in (200, 404):  # the second is a double click
        gone = client.post(f"{own}/metadata/remove", data={"table": table.id})
        assert gone.status_code == status
    page = client.get(f"{own}/metadata").text
    assert "pond.csv" not in page and "lost.jpg" not in page
    assert "SUM(1)" not in client.get(f"{own}/images/{image_id}").text
    assert "Removed the table pond.csv" in client.get("/log").text


def test_times_places_and_cameras_of_a_table_are_gone_by_everywhere_at_once(client, pond):
    own, search_id, image_id, name = pond
    assert "No image says when it was taken" in client.get(own).text
    assert "no image here has both" in client.get(f"/searches/{search_id}/exports").text
    table = (
        "file,date (camera),date,lat,lon,camera,site\n"
        f"{name},spring,2026-03-08 11:27,51.5,7.25,Reconyx HP2X,Pond\n"
    )
    added = client.post(f"{own}/metadata", files={"table": ("pond.csv", table.encode())}).text
    assert "time from “date”, latitude from “lat”, longitude from “lon”" in added
    assert "camera from “camera”, deployment from “site”" in added
    collection = client.get(own).text
    assert "8 March 2026" in collection and "No image says" not in collection
    assert "Reconyx HP2X" in collection and "1 deployment" in collection
    shown = " ".join(client.get(f"{own}/images/{image_id}").text.split())
    assert "8 March 2026, 11:27" in shown and "from the column “date”" in shown
    for kept in ("hour_from=11&hour_to=11", "deployment=Pond", "from=2026-03-08"):
        assert f"/images/{image_id}" in client.get(f"{own}/browse?{kept}").text
    (row,) = csv.DictReader(io.StringIO(client.get(f"/searches/{search_id}/export.csv").text))
    assert (row["captured_at"], row["camera"]) == ("2026-03-08T11:27:00", "Reconyx HP2X")
    assert "no image here has both" not in client.get(f"/searches/{search_id}/exports").text
    # Another choice, without bringing the file again; then the table is removed.
    said = client.post(f"{own}/metadata/taken", data={"camera": "none", "deployment": "none"})
    assert "Pages, filters, events and exports go by it now" in said.text
    assert "No image names its camera" in client.get(own).text
    wrong = client.post(f"{own}/metadata/taken", data={"time": "=site"})
    assert wrong.status_code == 422 and "“site” can’t" in wrong.text.replace("&#39;", "’")
    assert "8 March 2026" in client.get(own).text
    with client.app.state.database.session() as session:
        (brought,) = list_tables(session, int(own.rsplit("/", 1)[1]))
    asked = client.get(f"{own}/metadata/removal?table={brought.id}").text
    assert "Images have their time, latitude, longitude from there" in asked
    client.post(f"{own}/metadata/remove", data={"table": brought.id})
    assert "No image says when it was taken" in client.get(own).text


def test_days_that_can_be_read_in_two_ways_are_asked_for_by_the_page(client, pond):
    own, _, image_id, name = pond
    table = f"file,date\n{name},03/04/2026 11:27\n"
    asked = client.post(f"{own}/metadata", files={"table": ("pond.csv", table.encode())}).text
    assert "The day comes first" in asked
    notice = asked[asked.index("pond.csv was added") : asked.index("columns-title")]
    assert "such as 03/04/2026 11:27: say which" in notice and "Say which</a>" in notice
    assert "not known" in client.get(f"{own}/images/{image_id}").text
    client.post(f"{own}/metadata/taken", data={"order": "day-first"})
    assert "3 April 2026, 11:27" in client.get(f"{own}/images/{image_id}").text
    said = client.get(f"{own}/metadata").text
    assert "time from “date” (day first)" in said and "The day comes first" not in said
