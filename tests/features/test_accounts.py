"""Accounts: passwords, links, lock-out, login sessions, sign-on by a proxy, the local mode."""

import re
import threading
from datetime import timedelta
from html import unescape

import pytest
from pwdlib import PasswordHash
from pydantic import ValidationError
from sqlalchemy import select, text, update
from starlette.testclient import TestClient

from app.accounts import LOCKED_FOR, TRIES_OF_NAME, TRIES_OF_NAME_HERE
from app.security import get_local_person
from app.settings import Settings
from app.tables import AuditEvent, FailedSignIn, Person

PASSWORD = "four brown herons wade"


@pytest.fixture
def another(client):
    """Makes further browsers of the same server, with nobody signed in."""

    def make(**more):
        made = TestClient(
            client.app, base_url=str(client.base_url), raise_server_exceptions=False, **more
        )
        made.portal = client.portal  # one loop for all, as in a server: lines wake who waits
        return made

    return make


def find_link(page):
    return re.search(r"http://[^<\s]+/password\?token=[\w-]+", page.text)[0]


def add(client, name="Ada Lovelace", role="ecologist"):
    page = client.post("/people", data={"name": name, "role": role})
    assert page.status_code == 200, page.text
    return find_link(page)


def set_password(browser, link, password=PASSWORD, again=None):
    token = link.partition("token=")[2]
    form = {"token": token, "password": password, "again": again or password}
    return browser.post("/password", data=form)


def sign_in(browser, name="ada lovelace", password=PASSWORD, **more):
    form = {"name": name, "password": password, **more}
    return browser.post("/sign-in", data=form, follow_redirects=False)


def test_person_sets_a_password_by_the_link_once_and_signs_in_by_it(client, another):
    link = add(client)
    ada = another()
    for _ in range(2):  # looking at it does not spend it
        assert "Welcome, Ada Lovelace" in ada.get(link).text
    assert set_password(ada, link, "short").status_code == 422
    assert set_password(ada, link, "Ada Lovelace").status_code == 422
    assert set_password(ada, link, PASSWORD, "something else").status_code == 422
    assert set_password(ada, link).status_code == 200
    assert "Signed in as" in ada.get("/").text
    assert set_password(another(), link).status_code == 403
    spent = another().get(link)
    assert spent.status_code == 403 and "sign-in link" not in spent.text
    assert "<h1>This link to set a password no longer works</h1>" in spent.text
    other = another()
    assert sign_in(other, password="not this one").status_code == 401
    done = sign_in(other, name="  ADA  lovelace ", then="/account")
    assert (done.status_code, done.headers["location"]) == (303, "/account")
    with client.app.state.database.session() as session:
        kept = str(session.connection().exec_driver_sql("SELECT * FROM people").all())
    assert "$argon2id$" in kept and PASSWORD not in kept


def test_a_password_kept_by_an_earlier_version_is_kept_anew_at_the_next_sign_in(client, another):
    set_password(another(), add(client))
    with client.app.state.database.session() as session:
        ada = session.scalars(select(Person).filter_by(name="Ada Lovelace")).one()
        ada.password_hash = PasswordHash.recommended().hash(PASSWORD)
        assert "m=65536,t=3" in ada.password_hash
    assert sign_in(another(), password="not this one").status_code == 401
    for _ in range(2):
        assert sign_in(another()).status_code == 303
        with client.app.state.database.session() as session:
            ada = session.scalars(select(Person).filter_by(name="Ada Lovelace")).one()
            assert "m=19456,t=2,p=1" in str(ada.password_hash)


@pytest.mark.parametrize("then", ["//elsewhere.example", "https://elsewhere.example", "/\\else"])
def test_signing_in_leads_to_no_other_site(client, another, then):
    set_password(another(), add(client))
    assert sign_in(another(), then=then).headers["location"] == "/"


def test_wrong_tries_lock_a_name_out_for_a_while_wherever_they_are_sent_to(client, another):
    """A thousand at once are no more than one after the other; an unknown name fares alike."""
    set_password(another(), add(client))
    answers = []

    def guess(name):
        status = 503
        while status == 503:  # all come from one address, and wait in one line
            status = sign_in(another(), name=name, password="wrong" * 3).status_code
        answers.append((name, status))

    names = ["ada lovelace", "nobody at all"]
    threads = [threading.Thread(target=guess, args=(name,)) for name in names for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name in names:
        tried = sorted(status for one, status in answers if one == name)
        assert tried == [401] * TRIES_OF_NAME_HERE + [429] * (8 - TRIES_OF_NAME_HERE)
    locked = sign_in(another())  # the right password, too
    assert locked.status_code == 429
    assert 0 < int(locked.headers["retry-after"]) <= LOCKED_FOR.total_seconds()
    assert "Try again at" in locked.text and "15 minutes" in locked.text
    state = client.app.state
    with state.database.session() as session:
        session.execute(update(FailedSignIn).values(address="203.0.113.9"))
    assert sign_in(another()).status_code == 303, "from another address, she is not locked out"
    with state.database.session() as session:
        for _ in range(TRIES_OF_NAME):
            session.add(FailedSignIn(name="ada lovelace", address="203.0.113.9"))
    assert sign_in(another()).status_code == 429, "guessed from everywhere"
    with state.database.session() as session:
        session.execute(update(FailedSignIn).values(at=FailedSignIn.at - LOCKED_FOR))
    assert sign_in(another()).status_code == 303


def test_login_sessions_are_listed_and_end_one_by_one_or_by_a_new_password(client, another):
    ada, phone, cafe = (
        another(),
        another(headers={"User-Agent": "X Firefox/140 Android"}),
        another(),
    )
    set_password(ada, add(client))
    sign_in(phone)
    sign_in(cafe)
    page = ada.get("/account").text
    assert "Firefox on Android" in page and page.count("this one") == 1
    login_ids = re.findall(r"/account/logins/(\d+)/end", page)
    assert len(login_ids) == 2
    assert client.post(f"/account/logins/{login_ids[0]}/end").status_code == 404, "another's"
    ada.post(f"/account/logins/{login_ids[0]}/end")
    assert sorted(one.get("/").status_code for one in (phone, cafe)) == [200, 401]
    wrong = {"old": "not this one", "new": "x" + PASSWORD, "again": "x" + PASSWORD}
    assert ada.post("/account/password", data=wrong).status_code == 422
    assert sorted(one.get("/").status_code for one in (phone, cafe)) == [200, 401]
    ada.post("/account/password", data=wrong | {"old": PASSWORD})
    assert [one.get("/").status_code for one in (ada, phone, cafe)] == [200, 401, 401]
    assert sign_in(another()).status_code == 401
    assert sign_in(another(), password="x" + PASSWORD).status_code == 303


def test_who_was_let_in_has_not_signed_in_until_they_do(client, another):
    link = add(client)

    def read_line():
        return re.search(
            r"<strong>Ada Lovelace</strong>.*?</p>", client.get("/people").text, re.DOTALL
        )[0]

    another().get("/password", params={"token": link.partition("token=")[2]})  # only looked at
    assert "Has not signed in yet" in read_line()
    set_password(another(), link)
    assert "Last seen <time" in read_line() and "not signed in" not in read_line()


def test_reset_and_closing_sign_out_everywhere(client, another):
    ada, program = another(), another()
    set_password(ada, add(client))
    token = re.search(
        r'id="token">([\w-]+)<',
        ada.post("/account/tokens", data={"name": "x", "scope": "read"}).text,
    )[1]
    bearer = {"Authorization": f"Bearer {token}"}
    assert program.get("/api/v1/searches", headers=bearer).status_code == 200
    with client.app.state.database.session() as session:
        ada_id = session.scalar(select(Person.id).filter_by(name="Ada Lovelace"))
    first = find_link(client.post(f"/people/{ada_id}/reset"))
    assert ada.get("/").status_code == 401
    assert sign_in(another()).status_code == 401
    second = find_link(client.post(f"/people/{ada_id}/reset"))
    assert set_password(another(), first).status_code == 403, "a newer link takes its place"
    assert set_password(ada, second).status_code == 200
    client.post(f"/people/{ada_id}/close")
    assert ada.get("/").status_code == 401
    assert program.get("/api/v1/searches", headers=bearer).status_code == 401
    assert sign_in(another()).status_code == 401
    assert set_password(ada, find_link(client.post(f"/people/{ada_id}/reset"))).status_code == 200


def test_reset_form_sent_again_ends_neither_its_link_nor_the_password_set_by_it(client, another):
    add(client)
    with client.app.state.database.session() as session:
        ada_id = session.scalar(select(Person.id).filter_by(name="Ada Lovelace"))
    drawn = re.search(r'name="link_count"\s+value="(\d+)"', client.get("/people").text)[1]
    reset = {"url": f"/people/{ada_id}/reset", "data": {"link_count": drawn}}
    ada = another()
    assert set_password(ada, find_link(client.post(**reset))).status_code == 200
    again = client.post(**reset)
    assert again.status_code == 422 and "was made since this page was opened" in again.text
    assert ada.get("/").status_code == 200 and sign_in(another()).status_code == 303
    # The page that says so has a form that makes another.
    reset["data"] = {"link_count": re.search(r'name="link_count"\s+value="([1-9])"', again.text)[1]}
    assert find_link(client.post(**reset))
    assert ada.get("/").status_code == 401


def test_address_that_a_form_leaves_behind_leads_to_the_list_and_adds_nothing(client):
    add(client)
    with client.app.state.database.session() as session:
        ada_id = session.scalar(select(Person.id).filter_by(name="Ada Lovelace"))
    form = {"name": "Field laptop", "scope": "read"}
    assert client.post("/account/tokens", data=form).status_code == 200
    lists = dict.fromkeys(("/account/name", "/account/password", "/account/tokens"), "Field laptop")
    people = (f"/people/{ada_id}/{what}" for what in ("name", "role", "reset", "close"))
    for address, entry in (lists | dict.fromkeys(people, "Ada Lovelace")).items():
        page = client.get(address)
        assert page.status_code == 200, address
        assert f"<strong>{entry}</strong>" in page.text, address
        assert "not shown again" not in page.text, address
    # Sent again, a form adds nobody and nothing.
    assert client.post("/people", data={"name": "Ada Lovelace"}).status_code == 422
    assert client.post("/account/tokens", data=form).status_code == 422
    assert client.get("/people").text.count("<strong>Ada Lovelace</strong>") == 1
    assert client.get("/account").text.count("<strong>Field laptop</strong>") == 1


def test_there_is_always_an_admin(client):
    with client.app.state.database.session() as session:
        own_id = get_local_person(session).id
    for what, form in (("role", {"role": "viewer"}), ("close", {})):
        refused = client.post(f"/people/{own_id}/{what}", data=form)
        assert refused.status_code == 422 and "only admin" in refused.text
    add(client, "Grace", "admin")
    assert client.post(f"/people/{own_id}/role", data={"role": "viewer"}).status_code == 403
    assert client.get("/people").status_code == 403


def test_names_are_one_whatever_their_letters(client):
    add(client, "Ada")
    taken = client.post("/people", data={"name": " aDA ", "role": "viewer"})
    assert taken.status_code == 422 and "Somebody is called" in taken.text
    odd = client.post("/people", data={"name": "<script>alert(1)</script>", "role": "viewer"})
    assert "<script>alert" not in odd.text and "&lt;script&gt;" in odd.text


def test_admin_gives_a_person_another_name_by_which_they_sign_in(client, another):
    ada = another()
    set_password(ada, add(client))
    add(client, "Grace")
    with client.app.state.database.session() as session:
        ada_id = session.scalar(select(Person.id).filter_by(name="Ada Lovelace"))
    for name, problem in (("grace", "Somebody is called"), ("  ", "A name has")):
        refused = client.post(f"/people/{ada_id}/name", data={"name": name})
        assert refused.status_code == 422 and problem in refused.text
    page = client.post(f"/people/{ada_id}/name", data={"name": "Ada King"})
    assert "<strong>Ada King</strong>" in page.text and "Ada Lovelace" not in page.text
    assert "Gave Ada Lovelace the name Ada King" in client.get("/log").text
    assert ada.get("/").status_code == 200, "she stays signed in"
    assert sign_in(another(), "Ada King").status_code == 303
    assert sign_in(another()).status_code == 401


def test_first_admin_sets_name_and_password_or_goes_on_without(client, another):
    assert "Go on without" in client.get("/").text
    assert "Go on without" not in client.post("/account/alone").text
    form = {"name": "Mary", "new": "short", "again": "short"}
    assert client.post("/account/password", data=form).status_code == 422
    with client.app.state.database.session() as session:
        assert get_local_person(session).name != "Mary", "nothing of a refused form stays"
    client.post("/account/password", data=form | {"new": PASSWORD, "again": PASSWORD})
    assert sign_in(another(), name="mary").status_code == 303


def test_what_was_done_is_kept_and_can_not_be_changed(client):
    add(client, "Ada")
    with client.app.state.database.session() as session:
        ada_id = session.scalar(select(Person.id).filter_by(name="Ada"))
    client.post(f"/people/{ada_id}/role", data={"role": "evaluator"})
    page = client.get("/log", params={"kind": "account"}).text
    assert "Changed Ada from ecologist to evaluator" in page
    assert "Ada" not in client.get("/log", params={"kind": "export"}).text
    assert client.get("/log", params={"kind": "nonsense"}).status_code == 404
    database = client.app.state.database
    for change in ("UPDATE audit_events SET sentence = ''", "DELETE FROM audit_events"):
        with pytest.raises(Exception, match="only ever added"), database.session() as session:
            session.execute(text(change))
    with database.session() as session:
        assert session.scalars(select(AuditEvent)).all()


def make_app(settings, own_database_url, **more):
    from app.main import create_app

    return create_app(settings.model_copy(update={"database_url": own_database_url, **more}))


def test_proxy_that_signs_people_in_must_know_the_secret(settings, own_database_url):
    given = Settings(remote_user_secret="between us").remote_user_secret
    app = make_app(settings, own_database_url, remote_user_secret=given)
    with TestClient(app, base_url="http://127.0.0.1:8321") as web:
        named = {"Remote-User": "Zoë".encode()}
        assert web.get("/", headers=named).status_code == 401
        wrong = {**named, "X-Rarefind-Secret": "guessed"}
        assert web.get("/", headers=wrong).status_code == 401
        right = {**named, "X-Rarefind-Secret": "between us"}
        for _ in range(2):
            assert "Zoë" in web.get("/", headers=right).text
        assert web.get("/people", headers=right).status_code == 403
        assert web.get("/").status_code == 401
        # Under another name the proxy would not find her again: she would be somebody new.
        assert "can't be changed here" in unescape(web.get("/account", headers=right).text)
        for path in ("name", "password"):
            data = {"name": "Zora", "new": "four words in a row", "again": "four words in a row"}
            refused = web.post(f"/account/{path}", data=data, headers=right)
            assert refused.status_code == 422
        with app.state.database.session() as session:
            (zoe,) = session.scalars(select(Person))
            assert (zoe.name, zoe.role) == ("Zoë", "ecologist")
            zoe.role = "admin"
        # Nothing is kept of when a proxy signed her in, so nothing is said of it.
        assert "igned in" not in web.get("/people", headers=right).text.partition("<ul")[2]


def test_header_of_a_person_is_nothing_without_a_secret(web):
    headers = {"Remote-User": "admin", "X-Rarefind-Secret": ""}
    assert web.get("/", headers=headers).status_code == 401


def test_local_mode_lets_this_machine_in_and_no_other_name_of_it(settings, own_database_url):
    app = make_app(settings, own_database_url, auth="local")
    with TestClient(app, base_url="http://127.0.0.1:8321") as web:
        assert "Add a collection to begin" in web.get("/").text
        assert "Go on without" not in web.get("/").text
        assert "This server asks nobody who they are" in web.get("/people").text
        rebound = web.get("/", headers={"Host": "elsewhere.example:8321"})
        assert rebound.status_code == 421 and "http://127.0.0.1" in rebound.text
        foreign = {"Sec-Fetch-Site": "cross-site"}
        assert web.post("/account/alone", headers=foreign).status_code == 403


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::", "example.org"])
def test_local_mode_is_refused_on_an_address_that_others_reach(host):
    with pytest.raises(ValidationError, match="only on this machine"):
        Settings(auth="local", host=host)
    assert Settings(auth="local", host="::1").auth == "local"


def test_cookies_and_pages_keep_to_tls_behind_a_proxy(client, another):
    set_password(another(), add(client))
    browser = TestClient(client.app, base_url="https://127.0.0.1")
    answer = sign_in(browser)
    assert "secure" in answer.headers["set-cookie"].lower()
    assert int(answer.headers["strict-transport-security"].split("=")[1]) >= 15_552_000
    assert "strict-transport-security" not in client.get("/").headers


def test_old_failures_are_forgotten(client):
    with client.app.state.database.session() as session:
        session.add(FailedSignIn(name="x", address="y"))
        session.flush()
        session.execute(update(FailedSignIn).values(at=FailedSignIn.at - timedelta(days=2)))
    sign_in(client, name="unknown")
    with client.app.state.database.session() as session:
        assert session.scalars(select(FailedSignIn.name)).all() == ["unknown"]
