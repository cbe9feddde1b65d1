"""The page of a collection's tables, and where their columns are shown and exported."""

import csv
import io
import json

from app.searching import open_search
from app.security import get_local_person
from app.tables import ImagePath
from tests.factories import make_collection, make_images, make_index


def test_table_is_added_shown_beside_the_image_exported_and_taken_away(client):
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
    own = f"/collections/{collection.id}"
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
    client.post(f"{own}/metadata/forget", data={"column": "water depth"})
    assert "water depth" not in client.get(f"{own}/images/{image_id}").text
