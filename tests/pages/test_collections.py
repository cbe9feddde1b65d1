"""Adding a collection from a path, watching it being prepared, and what its page says."""

import re
import time
from datetime import UTC, datetime

import pytest
from sqlalchemy import select

from app.importing import CHUNK_FILES
from app.labelling import record_labels
from app.searchers import LITE
from app.security import get_local_person
from app.tables import Collection, Image, ImageIndex, Import, OracleLabel, RefusedFile
from tests.factories import make_collection, make_image_file, make_images, make_index
from tests.stand_ins import make_tiny_clip

HTMX = {"HX-Request": "true"}


def count_collections(client):
    with client.app.state.database.session() as session:
        return len(session.scalars(select(Collection)).all())


def wait_until(condition, *, timeout_s=60):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.2)


def test_collection_is_added_imported_and_prepared(client, tmp_path):
    source = tmp_path / "photos"
    for number in range(3):
        make_image_file(source / "herons" / f"{number}.jpg", number)
    (source / "notes.txt").write_text("no image")
    form = {"name": "  Lake   Como ", "source": f" {source} ", "labels": "folders"}
    page = client.post("/collections", data=form)
    assert page.status_code == 200, page.text
    collection_id = int(page.url.path.rsplit("/", 1)[1])
    assert "<h1>Lake Como" in page.text
    wait_until(lambda: client.get(f"/collections/{collection_id}/progress").text.count("Start a"))
    page = client.get(f"/collections/{collection_id}").text
    assert "3 images" in page
    assert read_facts(client, collection_id)["Refused"] == "1 file: not an image"
    assert "Ready to search" in page
    assert "Known for evaluation" in page
    assert "herons" not in page  # a label, and never shown


@pytest.mark.slow
def test_preparation_can_be_stopped_and_gone_on_with_as_it_was_begun(client, tmp_path):
    source = tmp_path / "photos"
    for number in range(CHUNK_FILES + 20):
        make_image_file(source / "herons" / f"{number}.jpg", number, size=(8, 8))
    form = {"name": "Lake", "source": str(source), "labels": "folders", "keep_copy": "1"}
    address = client.post("/collections", data=form).url.path

    assert f'action="{address}/stop"' in client.get(address).text
    assert client.post(f"{address}/stop").url.path == address

    wait_until(lambda: "was stopped before its end" in client.get(address).text)
    with client.app.state.database.session() as session:
        run = session.scalars(select(Import)).one()
        assert (run.state, run.labels, run.copy) == ("failed", "folders", True)
        assert session.scalars(select(OracleLabel)).first() is None
    fields = re.search(r'action="[^"]*/imports">(.*?)</form>', client.get(address).text, re.S)
    again = dict(re.findall(r'name="(\w+)"\s+value="([^"]*)"', fields[1]))
    assert again["source"] == str(source)
    client.post(f"{address}/imports", data=again)
    assert "Began to add images to “" in client.get("/log").text
    wait_until(lambda: "Start a search" in client.get(address).text)
    with client.app.state.database.session() as session:
        assert len(session.scalars(select(OracleLabel)).all()) == CHUNK_FILES + 20
        files = session.scalars(select(Image.file)).all()
    assert all(str(client.app.state.settings.home) in file for file in files)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"name": " "}, "needs a name"),
        ({"name": "pond"}, ""),
        ({"name": "Pond"}, "There is a collection “Pond” already."),
        ({"name": "x" * 121}, "longer than 120 characters"),
        ({"source": ""}, "Type the path"),
        ({"source": "/nowhere/at all"}, "There is no folder or zip file at /nowhere/at all."),
        ({"source": "a\x00b"}, "There is no folder or zip file"),
        ({"labels": "file", "labels_file": ""}, "Type the path of the CSV file"),
        ({"labels": "file", "labels_file": "/nowhere.csv"}, "/nowhere.csv"),
        ({"embedder": "eagle-eye"}, "There is no embedder eagle-eye."),
        ({"embedder": "other", "other_embedder": " "}, "Type the place of the model"),
        ({"embedder": "other", "other_embedder": "timm:eagle"}, "timm has no model"),
    ],
)
def test_wrong_form_says_what_is_wrong_and_keeps_what_was_typed(
    client, tmp_path, changes, sentence
):
    with client.app.state.database.session() as session:
        make_collection(session, name="Pond")
    form = {"name": "Lake", "source": str(tmp_path), "keep_copy": "1", "labels": "none"} | changes
    page = client.post("/collections", data=form)
    if not sentence:  # another name: capitals tell collections apart
        assert page.status_code == 200
        return
    assert page.status_code == 422
    assert sentence in page.text
    assert 'aria-invalid="true"' in page.text
    for typed in (
        form["name"],
        form["source"],
        form.get("labels_file", ""),
        form.get("other_embedder", "").strip(),
    ):
        if typed and "\x00" not in typed:
            assert f'value="{typed}"' in page.text
    assert re.search(r'name="keep_copy"\s+value="1" checked', page.text)
    assert count_collections(client) == 1


def test_collection_is_prepared_with_the_embedder_chosen(client, tmp_path, no_hub):
    page = client.get("/collections/new").text
    for name, words, takes in [
        ("efficientnet-lite0", False, "Included"),
        ("clip-b32", True, "605 MB to be fetched first"),
        ("dinov2-s14", False, "88 MB to be fetched first"),
    ]:
        card = page[page.index(f'value="{name}"') :].partition("</label>")[0]
        assert ("knows words" in card, "Knows no words" in card) == (words, not words)
        assert takes in card
        assert ("checked" in card) == (name == "efficientnet-lite0")
    for number in range(3):
        make_image_file(tmp_path / "photos" / f"{number}.jpg", number)
    form = {"name": "Pond", "source": str(tmp_path / "photos"), "embedder": "other"}
    form["other_embedder"] = f" {make_tiny_clip(tmp_path / 'tiny')} "
    address = client.post("/collections", data=form).url.path
    wait_until(lambda: client.get(f"{address}/progress").text.count("Start a"))
    with client.app.state.database.session() as session:
        [index] = session.scalars(select(ImageIndex))
    assert (index.embedder, index.knows_words) == (form["other_embedder"].strip(), True)


def test_missing_weights_are_told_on_the_collections_page(client, tmp_path, no_hub):
    make_image_file(tmp_path / "photos" / "1.jpg")
    form = {"name": "Pond", "source": str(tmp_path / "photos"), "embedder": "clip-b32"}
    address = client.post("/collections", data=form).url.path
    wait_until(lambda: "clip-b32 needs" in client.get(f"{address}/progress").text)
    assert "put it into" in client.get(address).text


def test_a_collection_is_searched_where_others_are_and_nowhere_else(client, tmp_path):
    make_image_file(tmp_path / "photos" / "0.jpg", 0)
    form = {"name": "Lake", "source": str(tmp_path / "photos")}
    assert "What searches the images" not in client.get("/collections/new").text
    away = "milvus:http://127.0.0.1:9"
    page = client.post("/collections", data=form | {"vectors": away})
    assert page.status_code == 422
    assert count_collections(client) == 0
    with client.app.state.database.session() as session:
        for name, vectors in (("Pond", away), ("Sea", LITE)):
            make_collection(session, name=name).vectors = vectors
    choices = client.get("/collections/new").text
    assert "FAISS, on this machine" in choices and "Milvus at http://127.0.0.1:9" in choices
    assert "tries with up to some ten thousand images" in choices
    page = client.post("/collections", data=form | {"vectors": away})
    assert page.status_code == 422
    assert "Milvus at http://127.0.0.1:9 can&#39;t be used" in page.text
    assert count_collections(client) == 2
    address = client.post("/collections", data=form | {"vectors": LITE}).url.path
    wait_until(lambda: client.get(f"{address}/progress").text.count("Start a"))
    page = client.get(address).text
    assert "Searched by milvus-lite, in the data folder." in page
    # One more model for it: where it is searched may be chosen anew.
    assert 'value="milvus:lite" checked' in page and "tries with up to" in page
    more = {"embedder": "efficientnet-lite0", "vectors": away}
    assert client.post(f"{address}/indexes", data=more).status_code == 422
    elsewhere = more | {"vectors": "milvus:http://127.0.0.1:10"}
    assert client.post(f"{address}/indexes", data=elsewhere).status_code == 422
    with client.app.state.database.session() as session:
        lake = session.get_one(Collection, int(address.rsplit("/", 1)[1]))
        assert lake.vectors == LITE
    client.post(f"{address}/indexes", data=more | {"vectors": "faiss"})
    with client.app.state.database.session() as session:
        lake = session.get_one(Collection, int(address.rsplit("/", 1)[1]))
        assert lake.vectors == "faiss"


def test_only_admins_add_collections(client, tmp_path):
    with client.app.state.database.session() as session:
        get_local_person(session).role = "ecologist"
        collection = make_collection(session)
    assert client.get("/collections/new").status_code == 403
    form = {"name": "Lake", "source": str(tmp_path)}
    assert client.post("/collections", data=form).status_code == 403
    assert client.post(f"/collections/{collection.id}/imports", data=form).status_code == 403
    page = client.get(f"/collections/{collection.id}").text
    assert "Add images" not in page
    assert "Labels" not in page
    assert count_collections(client) == 1


def test_progress_asks_again_only_while_work_goes_on(client):
    with client.app.state.database.session() as session:
        collection = make_collection(session)
        run = Import(
            collection_id=collection.id,
            source="/photos/pond",
            state="running",
            found_count=2_000,
            done_count=500,
            imported_count=480,
            refused_count=20,
            updated_at=datetime.now(UTC),
        )
        session.add(run)
    url = f"/collections/{collection.id}/progress"
    fragment = client.get(url, params={"stage": "importing"}, headers=HTMX)
    assert 'hx-trigger="every 1s"' in fragment.text
    assert "<strong>500</strong> of 2\u202f000 files" in fragment.text
    assert "20 refused" in fragment.text
    assert "/stop" not in fragment.text  # a command runs it, not this server
    client.post(f"/collections/{collection.id}/stop")
    assert "Stopping" not in client.get(url, headers=HTMX).text
    assert "hx-refresh" not in fragment.headers
    with client.app.state.database.session() as session:
        run = session.get_one(Import, run.id)
        run.state, run.problem = "failed", "The disk is full."
    fragment = client.get(url, params={"stage": "importing"}, headers=HTMX)
    assert fragment.headers["hx-refresh"] == "true"
    assert "hx-trigger" not in fragment.text
    assert "The disk is full." in fragment.text
    assert "Run again" in fragment.text


def test_progress_without_scripts_is_the_collections_page(client):
    with client.app.state.database.session() as session:
        collection = make_collection(session)
    page = client.get(f"/collections/{collection.id}/progress")
    assert page.url.path == f"/collections/{collection.id}"
    assert "See how it stands now" in page.text


def test_adding_images_from_a_wrong_path_keeps_the_form_open(client):
    with client.app.state.database.session() as session:
        collection = make_collection(session)
        make_index(session, client.app.state.settings, make_images(session, collection, 20))
    page = client.post(f"/collections/{collection.id}/imports", data={"source": "/nowhere"})
    assert page.status_code == 422
    assert "There is no folder or zip file at /nowhere." in page.text
    assert re.search(r'<details class="section fold" open>', page.text)


def test_labels_are_told_to_exist_and_never_shown(client):
    with client.app.state.database.session() as session:
        collection = make_collection(session)
        images = make_images(session, collection, 20)
        make_index(session, client.app.state.settings, images)
        record_labels(session, collection.id, {image.id: {"secret heron"} for image in images})
    base = f"/collections/{collection.id}"
    for path in ("", "/browse", f"/images/{images[0].id}", f"/browse?like={images[0].id}"):
        page = client.get(base + path)
        assert page.status_code == 200
        assert "secret heron" not in page.text
    assert "Known for evaluation" in client.get(base).text


def test_refused_files_say_why(client):
    with client.app.state.database.session() as session:
        collection = make_collection(session)
        for path, reason, detail in (
            ("a/<b>.jpg", "damaged", "It ends too early."),
            ("notes.txt", "not an image", "It is a text file."),
        ):
            session.add(
                RefusedFile(
                    collection_id=collection.id,
                    path=path,
                    reason=reason,
                    detail=detail,
                    size_bytes=2_500,
                    modified_ns=1,
                )
            )
    url = f"/collections/{collection.id}/refused"
    page = client.get(url).text
    assert "a/&lt;b&gt;.jpg" in page
    assert "It ends too early." in page
    assert "2.5 kB" in page
    damaged = client.get(url, params={"reason": "damaged"}).text
    assert "It is a text file." not in damaged
    assert "It ends too early." in damaged


def test_folders_of_refused_files_are_not_told_where_they_may_be_labels(client):
    with client.app.state.database.session() as session:
        collection = make_collection(session)
        collection.folders_name_labels = True
        refuse(session, collection, "heron/7.jpg", "damaged")
        refuse(session, collection, "pond/egret/", "not readable")
    url = f"/collections/{collection.id}/refused"
    assert "<code>heron/7.jpg</code>" in client.get(url).text
    with client.app.state.database.session() as session:
        get_local_person(session).role = "ecologist"
    page = client.get(url).text
    assert "<code>7.jpg</code>" in page and "heron" not in page
    assert "a folder" in page and "egret" not in page


def read_facts(client, collection_id):
    """What is known of a collection's images, without markup: name and text."""
    page = client.get(f"/collections/{collection_id}").text
    found = re.findall(r"<dt>(.*?)</dt>\s*<dd>(.*?)</dd>", page, re.DOTALL)
    return {name: " ".join(re.sub(r"<[^>]+>", "", text).split()) for name, text in found}


def refuse(session, collection, path, reason):
    session.add(
        RefusedFile(
            collection_id=collection.id,
            path=path,
            reason=reason,
            detail="It is none.",
            size_bytes=1,
            modified_ns=1,
        )
    )


def test_refused_files_are_counted_once(client):
    with client.app.state.database.session() as session:
        collection = make_collection(session)
        make_images(session, collection, 2)
        refuse(session, collection, "notes.txt", "not an image")
    assert read_facts(client, collection.id)["Refused"] == "1 file: not an image"
    with client.app.state.database.session() as session:
        refuse(session, collection, "more.txt", "not an image")
        refuse(session, collection, "away.jpg", "not available")
    told = "3 files: 2 not an image, 1 not available"
    assert read_facts(client, collection.id)["Refused"] == told


def test_dates_of_one_day_are_told_as_that_day(client):
    with client.app.state.database.session() as session:
        collection = make_collection(session)
        images = make_images(session, collection, 3)
        for image in images[:2]:
            image.captured_at = datetime(2021, 4, 11, 6)
        make_index(session, client.app.state.settings, images)
    told = "11 April 2021 (2 images with a date, 1 without)"
    assert read_facts(client, collection.id)["Dates"] == told
    with client.app.state.database.session() as session:
        image = session.get_one(Image, images[2].id)
        image.captured_at = datetime(2021, 5, 2, 6)
    assert read_facts(client, collection.id)["Dates"] == "11 April 2021 to 2 May 2021"
    fields = client.get(f"/collections/{collection.id}/searches/new").text
    assert "Images here are from 11 April 2021 to 2 May 2021." in fields


def test_synthetic_collection_says_so_wherever_it_is_named(client):
    with client.app.state.database.session() as session:
        collection = make_collection(session, notice="synthetic")
        images = make_images(session, collection, 20)
        make_index(session, client.app.state.settings, images)
    base = f"/collections/{collection.id}"
    for path in (
        "",
        f"/images/{images[0].id}",
        "/browse?sample=1",
        f"/browse?like={images[0].id}",
        "/searches/new",
    ):
        assert '<span class="chip">synthetic</span>' in client.get(base + path).text, path


def test_what_was_typed_of_a_deployment_stays_where_one_field_is_wrong(client):
    with client.app.state.database.session() as session:
        collection = make_collection(session)
        first, *others = make_images(session, collection, 3)
        first.captured_at = datetime(2012, 1, 1, 0, 5)
        for image in (first, *others):
            image.path = f"Weir/{image.path}"
        session.flush()
        address = f"/collections/{collection.id}/deployments"
    page = address.removesuffix("/deployments")
    assert "1 folder could be a deployment" in client.get(page).text
    text = client.post(f"{address}/folders").text
    assert "could be a deployment" not in client.get(page).text
    assert "3 images</a>, taken 1 January 2012 (2 without a time)" in text
    change = re.search(rf'action="({address}/\d+)"', text)
    assert change is not None
    typed = {"place": "Old weir", "latitude": "27,5", "longitude": "84.4", "clock_shift": "long"}
    refused = client.post(change[1], data=typed)
    assert refused.status_code == 422
    assert "“long” is no clock shift" in refused.text and "still here" in refused.text
    for name, value in typed.items():
        assert re.search(rf'name="{name}"\s+value="{re.escape(value)}"', refused.text), name
    text = client.post(change[1], data=typed | {"clock_shift": "+4811 days"}).text
    assert "taken 4 March 2025" in text and "clock set right by +4811d 0:00:00" in text
    kept = typed | {"clock_shift": "+4811d 0:00:00"}
    really = {"first_taken_at": "2025-03-05T10:05"}
    refused = client.post(change[1], data=kept | really | {"longitude": "x"})
    assert re.search(r'name="first_taken_at"\s+value="2025-03-05T10:05"', refused.text)
    text = client.post(change[1], data=kept | really).text
    assert "taken 5 March 2025" in text and "clock set right by +4812d 10:00:00" in text
    assert "clock wrong?" not in text
    with client.app.state.database.session() as session:
        (late,) = make_images(session, session.get_one(Collection, collection.id), 1, first=9)
        late.path, late.captured_at = f"Mill/{late.path}", datetime(2029, 3, 5)
    assert "years away" not in client.get(page).text
    text = client.post(f"{address}/folders").text
    assert text.count("clock wrong?") == 1
    assert ": times of 1 lie years away from those of the other" in client.get(page).text
