"""Signing in by link and signing out, as a browser sees it."""

from app.security import get_local_person, issue_sign_in_link


def make_link(web):
    state = web.app.state
    with state.database.session() as session:
        return issue_sign_in_link(
            session, get_local_person(session), base_url=str(web.base_url), settings=state.settings
        )


def test_link_leads_home_and_its_token_does_not_stay_in_the_address(web):
    response = web.get(make_link(web), follow_redirects=False)
    assert (response.status_code, response.headers["location"]) == (303, "/")
    cookie = response.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie


def test_the_same_link_again_in_the_same_browser_is_no_error(web):
    link = make_link(web)
    web.get(link)
    again = web.get(link, follow_redirects=False)
    assert (again.status_code, again.headers["location"]) == (303, "/")


def test_without_a_link_the_page_says_where_to_get_one(web):
    page = web.get("/sign-in")
    assert page.status_code == 200
    assert "rarefind link" in page.text


def test_a_spent_link_leads_to_signing_in_and_not_to_pages_that_ask_for_it(web):
    link = make_link(web)
    web.get(link)
    web.cookies.clear()
    for spent in (link, "/password?token=spent"):
        page = web.get(spent)
        assert page.status_code == 403
        assert 'href="/sign-in?then=/"' in page.text
        assert "Go to your searches" not in page.text
    assert web.get("/sign-in?then=/").status_code == 200


def test_signing_out_ends_the_login_session_for_good(client):
    cookies = dict(client.cookies)
    page = client.post("/sign-out")
    assert "You are signed out" in page.text
    assert client.get("/").status_code == 401
    client.cookies.update(cookies)  # the cookie of before, kept by somebody
    assert client.get("/").status_code == 401


def test_error_page_names_what_happened_and_a_way_on(client):
    page = client.get("/collections/999")
    assert page.status_code == 404
    assert "There is no such collection." in page.text
    assert 'href="/"' in page.text
    fragment = client.get("/collections/999", headers={"HX-Request": "true"})
    assert fragment.status_code == 404
    assert "<html" not in fragment.text
    assert "There is no such collection." in fragment.text
