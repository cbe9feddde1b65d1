"""The web around a server: hosts, redirects, files, caches, limits, timing of sign-in, headers."""

import re
import socket
import threading
import time
from urllib.parse import quote

import pytest
from fastapi.routing import iter_route_contexts
from pwdlib import PasswordHash
from starlette.testclient import TestClient

from app import accounts
from app.accounts import close_account
from app.limiting import COSTLY, PIECES, Limits, SlowlyForgetting
from app.main import SECURITY_HEADERS
from app.security import issue_sign_in_link
from app.tables import Person
from tests.conftest import open_web, sign_in
from tests.contracts.test_routes import TABLE
from tests.factories import make_collection
from tests.planting import plant

EVIL = "elsewhere.example"


@pytest.fixture
def opened(settings, own_database_url):
    """Opens the application with other settings; the local admin is signed in."""
    webs = []

    def make(**more):
        web = open_web(settings.model_copy(update=more), own_database_url)
        webs.append(web)
        return sign_in(web.__enter__())

    yield make
    for web in webs:
        web.__exit__(None, None, None)


def browse_as(planted, name):
    """A browser in which the person is signed in."""
    web = planted.web
    with web.app.state.database.session() as session:
        person = session.get_one(Person, planted.people[name])
        settings = web.app.state.settings
        link = issue_sign_in_link(session, person, base_url="", settings=settings)
    browser = TestClient(web.app, base_url=str(web.base_url), raise_server_exceptions=False)
    assert browser.get(link).status_code == 200
    return browser


# --- Hosts ----------------------------------------------------------------------------------------


HOSTS = [EVIL, f"{EVIL}:8321", f"127.0.0.1.{EVIL}", f"127.0.0.1@{EVIL}", "[::1", "a b", "", "_:x"]


def test_another_host_is_refused_and_leads_nowhere(web):
    for host in HOSTS:
        for path in ("/", "/sign-in", "/api/v1/collections", "/nowhere/", "/static"):
            refused = web.get(path, headers={"Host": host}, follow_redirects=False)
            assert refused.status_code == 421, (host, path)
            advice = f"RAREFIND_PUBLIC_URL=http://{EVIL}"
            assert f"//{EVIL}" not in refused.text.replace(advice, "")
            assert "location" not in refused.headers
        for path in ("/api/v1/health", "/static/app.css"):
            assert web.get(path, headers={"Host": host}).status_code == 200
    for host in ("127.0.0.1", "localhost:99", "[::1]:8321", "LOCALHOST"):
        assert web.get("/sign-in", headers={"Host": host}).status_code == 200


def test_server_for_the_network_knows_its_own_names_and_no_other(opened):
    web = opened(host="0.0.0.0")
    assert web.get("/sign-in", headers={"Host": f"{socket.gethostname()}:8321"}).status_code == 200
    refused = web.get("/sign-in", headers={"Host": f"{EVIL}:99"})
    assert refused.status_code == 421 and f"RAREFIND_PUBLIC_URL=http://{EVIL}:99" in refused.text


def test_links_begin_with_the_public_address_whatever_a_request_says(opened):
    web = opened(public_url="https://rare.example.org")
    assert web.get("/sign-in", headers={"Host": "rare.example.org"}).status_code == 200
    forged = {"X-Forwarded-Host": EVIL, "Forwarded": f"host={EVIL}", "X-Forwarded-Server": EVIL}
    made = web.post("/people", data={"name": "Ada", "role": "viewer"}, headers=forged)
    assert "https://rare.example.org/password?token=" in made.text and EVIL not in made.text


def test_slash_too_many_is_not_found_and_no_redirect(client):
    for path in ("/people/", "/collections/1/", "/sign-in/"):
        assert client.get(path, follow_redirects=False).status_code == 404


# --- Redirects ------------------------------------------------------------------------------------

ELSEWHERE = [
    f"//{EVIL}", f"///{EVIL}", f"/\\{EVIL}", f"\\/{EVIL}", f"\\\\{EVIL}", f"https:{EVIL}",
    f"https://{EVIL}", f"HTTPS:/{EVIL}", f"javascript:alert(1)//{EVIL}", f"data:text/html,{EVIL}",
    f"/\t/{EVIL}", f"/\n/{EVIL}", f"\x00//{EVIL}", f" //{EVIL}", f"/\u2028/{EVIL}", f"/\x7f/{EVIL}",
    f"@{EVIL}", f".{EVIL}", f"/x\r\nLocation: https://{EVIL}", f"/ok\\..\\\\{EVIL}", "",
]  # fmt: skip


def test_signing_in_never_leads_to_another_site_and_else_back(client):
    for then in ELSEWHERE:
        answer = client.get(f"/sign-in?then={quote(then, safe='')}", follow_redirects=False)
        assert (answer.status_code, answer.headers["location"]) == (303, "/"), then
    back = client.get("/sign-in?then=/searches/1%3Fround%3D2", follow_redirects=False)
    assert back.headers["location"] == "/searches/1?round=2"


# --- Files ----------------------------------------------------------------------------------------

OUTSIDE = [
    "../../../../etc/passwd",
    "..%2f..%2f..%2f..%2fetc%2fpasswd",
    "%2e%2e/%2e%2e/etc/passwd",
    "..%5c..%5cetc%5cpasswd",
    "....//....//etc/passwd",
    "%2fetc%2fpasswd",
    "..%252f..%252fetc%252fpasswd",
    "rounds.csv%00.html",
    "file:%2f%2f%2fetc%2fpasswd",
    "postgres%2fPG_VERSION",
]


def test_no_route_serves_a_file_outside_its_folder(web):
    planted = plant(web)
    ids = {kind: numbers[0] for kind, numbers in planted.ids["all"].items()}
    ann = browse_as(planted, "ann")
    ada = browse_as(planted, "ada")
    served = [
        "/static/{}",
        "/images/%(image_id)d/{}",
        "/photos/%(photo_id)d/{}",
        "/collections/%(collection_id)d/replays/%(replay_id)d/{}",
        "/collections/%(collection_id)d/replays/%(replay_id)d/run/{}",
        "/searches/%(search_id)d/exports/{}",
        "/searches/%(search_id)d/dashboard/tables/{}.csv",
        "/searches/%(search_id)d/export.{}",
        "/exports/{}/file",
    ]
    for start in served:
        for outside in OUTSIDE:
            path = (start % ids).format(outside) if "%" in start else start.format(outside)
            for browser in (ann, ada):
                answer = browser.get(path)
                assert answer.status_code in (403, 404, 422), path
                assert "root:" not in answer.text, path


def test_images_are_for_one_browser_alone_and_gone_when_signed_out(web):
    planted = plant(web)
    ids = {kind: numbers[0] for kind, numbers in planted.ids["all"].items()}
    ada = browse_as(planted, "ada")
    paths = [
        f"/images/{ids['image_id']}/small",
        f"/images/{ids['image_id']}/large",
        f"/images/{ids['image_id']}/original",
        f"/photos/{ids['photo_id']}/small",
        f"/exports/{ids['export_id']}/file",
        f"/searches/{ids['search_id']}/export.csv",
        f"/searches/{ids['search_id']}",
    ]
    for path in paths:
        kept = ada.get(path)
        assert kept.status_code == 200, path
        control = kept.headers["cache-control"]
        assert control.startswith(("private", "no-store")), (path, control)
    out = ada.post("/sign-out")
    assert '"cache"' in out.headers["clear-site-data"]
    for path in paths:
        gone = ada.get(path)
        assert (gone.status_code, gone.headers["cache-control"]) == (401, "no-store"), path


# --- Error pages ----------------------------------------------------------------------------------

PAGE = {"Accept": "text/html,*/*;q=0.8"}  # as browsers ask for one


def test_error_pages_keep_the_account_menu_of_who_is_signed_in(web):
    planted = plant(web)
    own = f"/collections/{planted.ids['all']['collection_id'][0]}"
    ann, ada = browse_as(planted, "ann"), browse_as(planted, "ada")
    menu = 'class="menu"'
    for path, status in (
        ("/nowhere", 404),
        ("/collections/x", 404),
        ("/collections/999999", 404),
        (f"{own}/refused?page=abc", 422),
        ("/overview", 403),
    ):
        page = ada.get(path, headers=PAGE)
        assert page.status_code == status and menu in page.text, path
        assert "Signed in as" in page.text and "/sign-out" in page.text, path
    assert menu in ann.get("/searches/999999", headers=PAGE).text
    ada.cookies.clear()
    for path in ("/nowhere", "/overview"):
        assert menu not in ada.get(path, headers=PAGE).text
    forged = {"Cookie": "rarefind_login_8321=x; rarefind_login_http=x"}
    assert menu not in ada.get("/nowhere", headers=PAGE | forged).text


def test_address_of_a_form_leads_to_the_page_that_has_it(web):
    for path, page in (
        ("/collections/3/deployments/7", "/collections/3/deployments"),
        ("/collections/3/deployments/folders", "/collections/3/deployments"),
        ("/collections/3/imports?kept=no", "/collections/3"),
        ("/searches/5/submit", "/searches/5"),
        ("/sign-out", "/"),
    ):
        led = web.get(path, headers=PAGE, follow_redirects=False)
        assert (led.status_code, led.headers["location"]) == (303, page)
        assert web.get(path).status_code == 405  # a script is told what can be done there
        assert web.put(path, headers=PAGE).status_code == 405


def test_address_of_every_form_leads_on(web):
    taking: dict[str, set[str]] = {}
    for route in iter_route_contexts(web.app.routes):
        taking.setdefault(route.path, set()).update(getattr(route, "methods", None) or ())
    forms = [path for path, own in taking.items() if own == {"POST"} and "/api/" not in path]
    assert len(forms) >= 50
    for path in forms:
        address = re.sub(r"{[^}]+}", "9", path)
        led = web.get(address, headers=PAGE, follow_redirects=False)
        assert led.status_code != 405, path
        if led.status_code == 303:  # else another route takes the word for a number or a file
            assert address.startswith(led.headers["location"]), path


def test_what_an_address_asks_wrongly_is_said_in_plain_words(client):
    with client.app.state.database.session() as session:
        own = f"/collections/{make_collection(session).id}"
    page = client.get(f"{own}/refused?page=abc")
    assert page.status_code == 422 and "pars" not in page.text
    assert "“page” should be a whole number" in page.text
    assert "“page” should be at least 1" in client.get(f"{own}/refused?page=0").text
    long = client.get(f"/?find={'x' * 300}")
    assert long.status_code == 422 and "at most 200 characters" in long.text


# --- Limits ---------------------------------------------------------------------------------------


def test_who_answers_and_pages_as_fast_as_hands_can_is_never_held_up(web):
    """A minute of twelve images in six seconds, within less."""
    planted = plant(web)
    ids = planted.ids["all"]
    ada = browse_as(planted, "ada")
    search = f"/searches/{ids['search_id'][0]}"
    body = {"round_id": ids["round_id"][0], "values": {}}
    for _ in range(130):
        assert ada.post(f"{search}/answers", json=body).status_code == 200
    for page in range(1, 30):
        assert ada.get(f"{search}/results?page={page}").status_code == 200


def test_too_much_is_refused_in_plain_words_and_for_that_person_alone(opened):
    web = opened(changes_a_minute=5, costly_a_minute=2)
    planted = plant(web)
    ada, eva = browse_as(planted, "ada"), browse_as(planted, "eva")
    search_id = planted.ids["all"]["search_id"][0]
    for _ in range(5):
        assert ada.post(f"/searches/{search_id}/here").status_code == 200
    refused = ada.post(f"/searches/{search_id}/here")
    assert refused.status_code == 429 and 0 < int(refused.headers["retry-after"]) <= 60
    assert "do it again in" in refused.text and "<h1>That was a lot at once</h1>" in refused.text
    program = {"Authorization": f"Bearer {planted.tokens['ada']}"}
    api = web.post(f"/api/v1/searches/{search_id}/undo", json={}, headers=program)
    assert (api.status_code, api.json()["error"]) == (429, "TooManyRequests")
    assert ada.get(f"/searches/{search_id}").status_code == 200, "looking goes on"
    assert eva.post("/account/name", data={"name": "Eve"}).status_code == 200
    export = f"/searches/{search_id}/export.csv"
    assert [eva.get(export).status_code for _ in range(3)] == [200, 200, 429]


def test_guessing_tokens_is_ended(web, monkeypatch):
    monkeypatch.setattr("app.limiting.WRONG_TOKENS_A_MINUTE", 3)
    web.app.state.limits = Limits(web.app.state.settings)
    asked = [
        web.get("/api/v1/searches", headers={"Authorization": f"Bearer {number}"}).status_code
        for number in range(5)
    ]
    assert asked == [401, 401, 401, 429, 429]
    assert web.get("/sign-in").status_code == 200, "people come in all the same"


def test_counting_starts_no_thread_for_each_request_and_forgets(monkeypatch):
    monkeypatch.setattr("app.limiting.FORGET_S", 0.2)
    counted, begun = SlowlyForgetting(), []
    start = threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", lambda one: begun.append(one) or start(one))
    for _ in range(50):
        assert counted.acquire_entry("changes/7", limit=100, expiry=1)
        time.sleep(0.01)
    assert len(begun) <= 5
    assert len(counted.events["changes/7"]) == 50
    time.sleep(1.1)
    counted.acquire_entry("changes/8", limit=100, expiry=1)
    time.sleep(0.4)
    assert not counted.events["changes/7"]


def test_limited_routes_are_routes():
    assert set(TABLE) >= COSTLY
    assert set(TABLE) >= PIECES


# --- Signing in -----------------------------------------------------------------------------------


def test_unknown_name_takes_as_much_hashing_as_a_wrong_password(client, monkeypatch):
    state = client.app.state
    with state.database.session() as session:
        people = [Person(name=name, role="viewer") for name in ("Ada", "Bea", "Cleo")]
        session.add_all(people)
        session.flush()
        known = PasswordHash.recommended().hash("four brown herons wade")
        people[0].password_hash = people[2].password_hash = known
        close_account(session, people[2], by=people[2])
    hashed = []
    for method in ("hash", "verify_and_update"):
        usual = getattr(PasswordHash, method)

        def count(self, *given, usual=usual, method=method):
            hashed.append(method)
            return usual(self, *given)

        monkeypatch.setattr(PasswordHash, method, count)
    answers, costs = set(), []
    for name in ("Ada", "Bea", "Cleo", "nobody", "\x00", "x" * 500):
        accounts._no_ones_hash.cache_clear()  # as after a start
        hashed.clear()
        answer = client.post("/sign-in", data={"name": name, "password": "wrong wrong"})
        answers.add((answer.status_code, "is not right" in answer.text))
        costs.append(list(hashed))
    assert answers == {(401, True)}
    assert costs == [["hash", "verify_and_update"]] * 6


# --- Headers --------------------------------------------------------------------------------------


def test_every_kind_of_answer_carries_every_header(client):
    answers = [
        client.get("/"),
        client.get("/nowhere"),
        client.get("/static/app.css"),
        client.get("/api/v1/collections"),
        client.get("/api/v1/searches/9"),
        client.get("/", headers={"Host": EVIL}),
        client.post("/sign-out", headers={"Sec-Fetch-Site": "cross-site"}),
        client.put("/"),
        client.post("/sign-in", content=b"\xff", headers={"Content-Type": "multipart/form-data"}),
    ]
    assert {answer.status_code for answer in answers} == {200, 403, 404, 405, 421, 422}
    for answer in answers:
        for name, value in SECURITY_HEADERS.items():
            assert answer.headers[name] == value, (answer.url, name)
    policy = SECURITY_HEADERS["Content-Security-Policy"]
    assert "default-src 'self'" in policy and "unsafe" not in policy and "*" not in policy
