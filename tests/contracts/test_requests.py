"""What every request promises: committed before the answer, signed in, from this site."""

import pytest
from sqlalchemy import select, text

from app.security import issue_sign_in_link
from app.tables import Person, TrayItem
from tests.factories import make_collection, make_images
from tests.planting import plant

FORM = "application/x-www-form-urlencoded"
NUL_NAMED = b'{"target_name": "x", "image_ids": [1], "embedder": "\\u0000"}'


def test_failing_commit_is_not_a_200(client):
    """The database refuses at commit time, after the endpoint has returned."""
    database = client.app.state.database
    with database.session() as session:
        collection = make_collection(session)
        (image,) = make_images(session, collection, 1)
        session.execute(
            text(
                "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql "
                "AS $$ BEGIN RAISE EXCEPTION 'refused at commit'; END $$"
            )
        )
        session.execute(
            text(
                "CREATE CONSTRAINT TRIGGER refuse_tray AFTER INSERT ON tray_items "
                "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse()"
            )
        )
    response = client.post(
        f"/collections/{collection.id}/tray", data={"image_id": image.id}, follow_redirects=False
    )
    assert response.status_code == 500
    assert "Answers given so far are safe" in response.text
    assert "default-src 'self'" in response.headers["content-security-policy"]
    with database.session() as session:
        assert session.scalars(select(TrayItem)).all() == []


def test_sign_in_link_works_once(web):
    state = web.app.state
    with state.database.session() as session:
        person = Person(name="me", role="admin")
        session.add(person)
        session.flush()
        link = issue_sign_in_link(
            session, person, base_url=str(web.base_url), settings=state.settings
        )
    assert web.get("/").status_code == 401
    assert web.get(link, follow_redirects=False).status_code == 303
    assert web.get("/").status_code == 200
    web.cookies.clear()
    spent = web.get(link)
    assert spent.status_code == 403
    assert "rarefind link" in spent.text
    assert web.get("/").status_code == 401


def test_expired_link_signs_nobody_in(web):
    state = web.app.state
    with state.database.session() as session:
        person = Person(name="me", role="admin")
        session.add(person)
        session.flush()
        link = issue_sign_in_link(
            session, person, base_url=str(web.base_url), settings=state.settings
        )
        session.execute(text("UPDATE sign_in_links SET expires_at = now() - interval '1 minute'"))
    assert web.get(link).status_code == 403
    assert web.get("/").status_code == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://elsewhere.example"},
        {"Origin": "null"},
    ],
)
def test_form_of_another_site_is_refused(client, headers):
    assert client.post("/sign-out", headers=headers).status_code == 403
    assert client.get("/").status_code == 200  # still signed in


def test_form_of_this_site_is_accepted(client):
    own = {"Origin": "http://127.0.0.1:8321"}
    assert client.post("/sign-out", headers=own).status_code == 200
    assert client.get("/").status_code == 401


@pytest.mark.parametrize("length", [{"Content-Length": "500000001"}, {}])
def test_body_without_an_end_is_refused_before_it_is_read(web, length):
    def send():
        yield b"x"
        raise AssertionError("the body was read")

    form = {"Content-Type": "application/x-www-form-urlencoded"}
    refused = web.post("/collections/1/tray", content=send(), headers=form | length)
    assert refused.status_code == 413
    assert "At most 500 MB" in refused.text


@pytest.mark.parametrize(
    ("method", "path", "content", "kind"),
    [
        ("GET", "/collections/{}/refused?reason=a%00b", b"", ""),
        ("POST", "/collections/{}/indexes/combined", b"first=%00&second=x", FORM),
        ("POST", "/api/v1/exports", b"[" * 100_000, "application/json"),
        ("POST", "/api/v1/collections/{}/searches", NUL_NAMED, "application/json"),
        ("POST", "/api/v1/exports", b"\xe8\tk", "application/json"),
        ("POST", "/sign-in", b"--x", "multipart/form-data"),
    ],
)
def test_what_nobody_can_read_is_bad_input_and_no_fault(client, method, path, content, kind):
    with client.app.state.database.session() as session:
        collection = make_collection(session)
    path = path.format(collection.id)
    answer = client.request(method, path, content=content, headers={"Content-Type": kind})
    assert answer.status_code == 422, answer.status_code
    assert "Something went wrong" not in answer.text


def test_answers_nested_too_deep_are_bad_input_and_no_fault(web):
    planted = plant(web)
    path = f"/searches/{planted.ids['all']['search_id'][0]}/answers"
    headers = planted.headers("ada") | {"Content-Type": "application/json"}
    assert web.post(path, content=b'{"a":' * 50_000, headers=headers).status_code == 422


def test_errors_are_json_where_json_is_asked_for(client):
    page = client.get("/searches/999", headers={"Accept": "text/html"})
    assert page.status_code == 404
    assert "<html" in page.text
    data = client.get("/searches/999", headers={"Accept": "application/json"})
    assert data.status_code == 404
    assert data.json()["error"] == "NotFound"


def test_every_answer_carries_the_security_headers(client):
    for path in ("/", "/nowhere", "/static/app.css"):
        policy = client.get(path).headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "unsafe" not in policy
