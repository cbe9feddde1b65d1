"""The page of exports, its files and its form; a search brought from a file."""

import io
import re
import zipfile
from functools import partial

import pytest

from app.deploying import judge_folders
from app.searching import open_search, submit_answers
from app.security import get_local_person
from app.steps import undo
from app.tables import AuditEvent, Image, Import, Search
from tests.factories import (
    make_collection,
    make_image_file,
    make_images,
    make_index,
    make_person,
)
from tests.features.test_jobs import wait_until


@pytest.fixture
def search_id(client, tmp_path):
    """A search for something with a dangerous name; its example's file is there."""
    state = client.app.state
    with state.database.session() as session:
        collection = make_collection(session)
        images = make_images(session, collection, 30)
        images[0].file = str(make_image_file(tmp_path / "one.jpg", 1))
        make_index(session, state.settings, images)
        return open_search(
            session,
            person=get_local_person(session),
            collection_id=collection.id,
            target_name="<b>Heron</b> / é",
            round_size=6,
            image_ids=[images[0].id],
            photo_ids=[],
            indexes=state.indexes,
            embedders=state.embedders,
            settings=state.settings,
        ).id


def offered(client, search_id):
    """What the page has at once, and what it has made by a job."""
    text = client.get(f"/searches/{search_id}/exports").text
    at_once = r'href="/searches/\d+/exports/([\w.-]+)"'
    return re.findall(rf'{at_once}|<button[^>]* name="name" value="([\w.-]+)"', text)


def names_of(offers):
    return [one or other for one, other in offers]


def test_page_offers_what_can_be_had_and_keeps_what_it_is_told(client, search_id):
    page = f"/searches/{search_id}/exports"
    assert offered(client, search_id) == [
        *(("answers.csv", ""), ("answers.jsonl", ""), ("images.csv", ""), ("images.jsonl", "")),
        *(("", "pictures.zip"), ("coco.json", ""), ("", "search.rarefind")),
    ]
    text = client.get(page).text
    assert "<b>Heron" not in text
    assert "no image here has both" in text
    own = re.search(r'<a href="(/collections/\d+)/deployments">Deployments</a>', text)
    assert own is not None
    for there in (f"{own[1]}/deployments", f"{own[1]}/metadata"):
        assert f'href="{there}"' in text and client.get(there).status_code == 200
    assert "Tables are in UTF-8" in text
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", text)
    assert "It needs the scientific name. Say so below." in text
    assert 'href="#details"' in text
    refused = client.get(f"{page}/darwin-core.zip")
    assert refused.status_code == 422
    assert "scientific name" in refused.text
    assert client.get(f"{page}/images.xlsx").status_code == 404

    given = {"scientific_name": "Ardea cinerea", "utc_offset": "two"}
    wrong = client.post(page, data=given)
    assert wrong.status_code == 422
    assert "“two” is not a difference from UTC" in wrong.text
    assert 'value="Ardea cinerea"' in wrong.text
    kept = client.post(page, data=given | {"utc_offset": "+02:00", "licence": "CC0-1.0"})
    assert "Kept with this search" in kept.text
    assert re.search(r'value="CC0-1.0"\s+selected', kept.text)
    assert ("", "darwin-core.zip") in offered(client, search_id)


def test_page_counts_the_rounds_that_the_dashboard_counts(client, search_id):
    state = client.app.state
    for rounds in range(3):
        lead = client.get(f"/searches/{search_id}/dashboard").text
        offers = client.get(f"/searches/{search_id}/exports").text
        told = f"{rounds} round{'' if rounds == 1 else 's'}"
        assert f"after {told}." in lead
        assert f"{told}, with every answer and step" in offers
        with state.database.session() as session:
            search = session.get_one(Search, search_id)
            me = get_local_person(session)
            submit = partial(
                submit_answers,
                session,
                search,
                person=me,
                values={},
                rest_are_no=True,
                gesture_key=None,
                indexes=state.indexes,
            )
            submit(round_id=search.current_round_id)
            if rounds:  # one that is taken back and answered again counts once
                undo(session, search, person=me, gesture_key=None)
                submit(round_id=search.current_round_id)


def test_page_says_where_folders_are_left_out(client, search_id):
    page = f"/searches/{search_id}/exports"
    told = "Files are named without their folders here"
    assert told not in client.get(page).text

    def know(labels):
        with client.app.state.database.session() as session:
            collection_id = session.get_one(Search, search_id).collection_id
            labelled = Import(collection_id=collection_id, source="x", labels=labels, state="done")
            session.add(labelled)
            judge_folders(session, collection_id)
        return f"/collections/{collection_id}/deployments"

    deployments = know("/x/labels.csv")
    assert told not in client.get(page).text
    assert "1 folder could be a deployment" in client.get(deployments).text
    know("folders")
    assert told in client.get(page).text
    text = client.get(deployments).text
    assert "could be" not in text and "they are not taken for any" in text


def test_files_have_names_and_stand_in_the_log(client, search_id):
    client.post(f"/searches/{search_id}/exports", data={"scientific_name": "Ardea cinerea"})
    names = names_of(offered(client, search_id))
    for name in names:
        reply = client.get(f"/searches/{search_id}/exports/{name}")
        assert reply.status_code == 200, name
        disposition = reply.headers["content-disposition"]
        assert f'filename="rarefind-{search_id}-{name}"' in disposition
        assert f"filename*=UTF-8''b_Heron_b_%20_%20%C3%A9-{name}" in disposition
        if reply.headers["content-type"] == "application/zip":
            assert zipfile.ZipFile(io.BytesIO(reply.content)).testzip() is None
    with client.app.state.database.session() as session:
        told = [one.sentence for one in session.query(AuditEvent).filter_by(kind="export")]
    assert told == [f"Exported “<b>Heron</b> / é” as {name}" for name in names]
    pictures = client.get(f"/searches/{search_id}/exports/pictures.zip").content
    assert len(zipfile.ZipFile(io.BytesIO(pictures)).namelist()) == 2


def test_search_comes_back_from_its_file(client, search_id):
    bundle = client.get(f"/searches/{search_id}/exports/search.rarefind").content
    with client.app.state.database.session() as session:
        collection_id = session.get_one(Search, search_id).collection_id
    page = f"/collections/{collection_id}/searches/import"
    assert "Import a search" in client.get(page).text
    for wrong in ({}, {"file": ("x.rarefind", b"nothing")}):
        refused = client.post(page, files=wrong)
        assert refused.status_code == 422
        assert "The search was not imported" in refused.text
    reply = client.post(page, files={"file": ("heron.rarefind", bundle)})
    assert "the same images came" in reply.text
    assert int(re.search(r"/searches/(\d+)/history", str(reply.url))[1]) > search_id

    with client.app.state.database.session() as session:
        image = session.query(Image).filter_by(collection_id=collection_id).first()
        image.sha256 = "f" * 64
    refused = client.post(page, files={"file": ("heron.rarefind", bundle)})
    assert refused.status_code == 422
    assert "1 of the 30 images of this search are not in Pond" in refused.text


def test_long_export_is_made_by_a_job_and_its_download_goes_on(client, search_id):
    page = f"/searches/{search_id}/exports"
    asked = client.post("/exports", data={"search_id": search_id, "name": "pictures.zip"})
    assert asked.url.path == page
    part = {"HX-Request": "true"}

    def is_ready():
        text = client.get(page, headers=part).text
        assert "<html" not in text
        return "/file" in text or not ('hx-trigger="every 2s"' in text or "failed" in text)

    wait_until(is_ready)
    text = client.get(page).text
    assert 'hx-trigger="every 2s"' not in text and "kept until" in text
    address = re.search(r'href="(/exports/\d+/file)"', text)[1]
    whole = client.get(address)
    assert zipfile.ZipFile(io.BytesIO(whole.content)).testzip() is None
    assert whole.headers["accept-ranges"] == "bytes"
    assert whole.headers["content-type"] == "application/zip"
    assert 'filename="rarefind-' in whole.headers["content-disposition"]
    rest = client.get(address, headers={"Range": "bytes=100-", "If-Range": whole.headers["etag"]})
    assert rest.status_code == 206 and rest.content == whole.content[100:]
    assert "Export “&lt;b&gt;Heron&lt;/b&gt; / é” as pictures.zip" in client.get("/work").text

    refused = client.post("/exports", data={"search_id": search_id, "name": "darwin-core.zip"})
    assert refused.status_code == 422 and "scientific name" in refused.text
    missing = client.post("/exports", data={"search_id": 987_654, "name": "pictures.zip"})
    assert missing.status_code == 404


def test_file_that_waits_is_stopped_and_tried_again_on_the_same_page(idle_client, settings):
    client = idle_client
    state = client.app.state
    with state.database.session() as session:
        collection = make_collection(session)
        images = make_images(session, collection, 30)
        make_index(session, state.settings, images)
        owner = make_person(session, name="Ada", role="ecologist")
        search = open_search(
            session,
            person=owner,
            collection_id=collection.id,
            target_name="Heron",
            round_size=6,
            image_ids=[images[0].id],
            photo_ids=[],
            indexes=state.indexes,
            embedders=state.embedders,
            settings=state.settings,
        )
        search_id = search.id
    form = {"search_id": search_id, "name": "search.rarefind"}
    assert client.post("/exports", data=form).status_code == 404  # a private search of another's
    with state.database.session() as session:
        session.get_one(Search, search_id).open_to_view = True
        get_local_person(session).role = "viewer"
    page = client.post("/exports", data=form)  # whoever sees it may
    assert page.url.path == f"/searches/{search_id}/exports"
    assert "Waits for its turn" in page.text
    stop, back = re.search(
        r'action="(/work/\d+/stop)">\s*<input type="hidden" name="return_to" value="([^"]+)"',
        page.text,
    ).groups()
    page = client.post(stop, data={"return_to": back})
    assert page.url.path == f"/searches/{search_id}/exports"
    assert "Stopped. Nothing of it is kept." in page.text
    page = client.post(stop.replace("stop", "again"), data={"return_to": back})
    assert "Waits for its turn" in page.text
