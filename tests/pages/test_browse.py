"""Browsing, the examples tray and opening a search, with and without scripts."""

import io
import re
from datetime import UTC, datetime

import pytest
from sqlalchemy import select

from app.security import get_local_person
from app.tables import Example, Image, ImagePath, Import, Search, TrayItem
from tests.factories import (
    make_collection,
    make_images,
    make_index,
    make_person,
    make_picture,
)

HTMX = {"HX-Request": "true"}


@pytest.fixture
def pond(client):
    """A prepared collection of 130 images."""
    state = client.app.state
    with state.database.session() as session:
        collection = make_collection(session)
        images = make_images(session, collection, 130)
        for image in images:
            session.add(
                ImagePath(
                    collection_id=collection.id,
                    image_id=image.id,
                    path=image.path,
                    size_bytes=1_000,
                    modified_ns=1,
                )
            )
        make_index(session, state.settings, images)
    return collection, images


def png(number=0):
    file = io.BytesIO()
    make_picture(number).save(file, "PNG")
    return file.getvalue()


def shown_ids(page):
    return [int(number) for number in re.findall(r'<li class="tile" id="image-(\d+)"', page.text)]


def tray_of(client):
    with client.app.state.database.session() as session:
        items = session.scalars(select(TrayItem).order_by(TrayItem.id)).all()
        return [(item.image_id, item.photo_id) for item in items]


def test_pages_lead_on_and_back(client, pond):
    collection, images = pond
    page = client.get(f"/collections/{collection.id}/browse", params={"page": 2})
    assert shown_ids(page) == [image.id for image in images[60:120]]
    assert "Page 2 of 3" in page.text
    assert 'href="?page=1"' in page.text
    assert 'href="?page=3"' in page.text


def test_pictures_have_their_size_so_that_nothing_moves(client, pond):
    collection, _ = pond
    page = client.get(f"/collections/{collection.id}/browse").text
    tiles = re.findall(r'<img src="/images/\d+/small"[^>]*>', page)
    assert len(tiles) == 60
    assert all('width="640"' in tile and 'height="480"' in tile for tile in tiles)


def test_going_to_a_file_leads_to_its_page_and_place(client, pond):
    collection, images = pond
    response = client.get(
        f"/collections/{collection.id}/browse",
        params={"name": "img_0061.jpg"},
        follow_redirects=False,
    )
    assert response.status_code == 303
    expected = f"/collections/{collection.id}/browse?page=2#image-{images[61].id}"
    assert response.headers["location"] == expected


def test_part_of_a_name_and_an_unknown_name_say_what_was_found(client, pond):
    collection, images = pond
    url = f"/collections/{collection.id}/browse"
    part = client.get(url, params={"name": "IMG_012"})
    assert "10 files have it in the name" in part.text
    assert shown_ids(part) == [image.id for image in images[120:130]]
    unknown = client.get(url, params={"name": "IMG_0200.png"})
    assert "No file has “IMG_0200.png” in its name" in unknown.text
    assert f"browse?page=3#image-{images[129].id}" in unknown.text


def test_suggestions_are_options(client, pond):
    collection, _ = pond
    options = client.get(f"/collections/{collection.id}/names", params={"name": "img_0007"})
    assert options.text.strip() == '<option value="site/IMG_0007.jpg"></option>'


def test_order_is_kept_by_pages_filter_and_neighbours(client, pond):
    collection, images = pond
    own = f"/collections/{collection.id}"
    newest = [image.id for image in images[::-1]]
    first = client.get(f"{own}/browse?order=added")
    assert shown_ids(first) == newest[:60]
    assert "Newest added first" in first.text
    assert 'href="?order=added&amp;page=2"' in first.text
    assert f'href="{own}/images/{newest[1]}?order=added"' in first.text
    image = client.get(f"{own}/images/{newest[60]}?order=added").text
    assert f'href="{own}/images/{newest[59]}?order=added"' in image
    assert f'href="{own}/images/{newest[61]}?order=added"' in image
    assert f'href="{own}/browse?order=added&amp;page=2#image-{newest[60]}"' in image
    form = client.get(f"{own}/browse?order=added&filters=1").text
    assert '<input type="hidden" name="order" value="added">' in form
    assert shown_ids(client.get(f"{own}/browse?order=nonsense")) == [one.id for one in images[:60]]


def test_folders_lead_inwards_and_out_again(client, pond):
    collection, images = pond
    with client.app.state.database.session() as session:
        for place, image in enumerate(images):
            session.get_one(Image, image.id).path = f"s-{place % 2}/{place % 3} a&b/{place:03}.jpg"
    own = f"/collections/{collection.id}/browse"
    closed = client.get(own).text
    assert f'href="{own}?order=path&amp;folders=1"' in closed
    assert "s-0</span>" not in closed
    outside = client.get(f"{own}?folders=1")
    [count] = re.findall(
        r'folder=s-1">.*?<span>s-1</span>\s*<span class="muted">(\d+)<', outside.text, re.DOTALL
    )
    assert count == "65"
    inside = client.get(f"{own}?folders=1&folder=s-1&order=added")
    assert "Folder s-1" in inside.text
    assert shown_ids(inside) == [one.id for one in images[::-2]][:60]
    deeper = 'href="?order=added&amp;folders=1&amp;folder=s-1%2F2+a%26b"'
    assert deeper in inside.text
    innermost = client.get(f"{own}?folders=1&folder=s-1%2F2+a%26b").text
    assert "No folders inside" in innermost
    assert 'href="?order=path&amp;folders=1&amp;folder=s-1"' in innermost
    assert "21 of 130 images" in innermost


def test_folders_that_may_be_labels_are_neither_listed_nor_an_order(client, pond):
    collection, images = pond
    state = client.app.state
    with state.database.session() as session:
        session.add(
            Import(collection_id=collection.id, source="/s", labels="folders", state="done")
        )
        for place, image in enumerate(images):
            session.get_one(Image, image.id).path = f"kind-{place % 2}/{place:03}.jpg"
    own = f"/collections/{collection.id}/browse"
    seen = client.get(f"{own}?folders=1").text
    assert "kind-1" in seen
    assert ">Folders<" in seen
    with state.database.session() as session:
        get_local_person(session).role = "ecologist"
    page = client.get(f"{own}?folders=1&order=path")
    assert shown_ids(page) == [image.id for image in images[:60]]
    assert "kind-1" not in page.text
    assert ">Folders<" not in page.text
    refused = client.get(f"{own}?folder=kind-1")
    assert refused.status_code == 422
    assert "may tell the answer" in refused.text


def test_surprise_stays_the_same_on_reload_and_offers_another(client, pond):
    collection, _ = pond
    url = f"/collections/{collection.id}/browse"
    first, again = (client.get(url, params={"sample": 7}) for _ in range(2))
    assert len(shown_ids(first)) == 60
    assert shown_ids(first) == shown_ids(again)
    assert re.search(r"browse\?sample=\d+", first.text)


def test_similar_images_leave_out_the_one_they_are_like(client, pond):
    collection, images = pond
    page = client.get(f"/collections/{collection.id}/browse", params={"like": images[3].id})
    ids = shown_ids(page)
    assert len(ids) == 60
    assert images[3].id not in ids
    assert set(ids[:5]) <= {image.id for image in images[:13]}  # the cloud it belongs to
    assert f"/searches/new?image={images[3].id}" in page.text


def test_likeness_before_the_index_says_to_wait(client):
    with client.app.state.database.session() as session:
        collection = make_collection(session)
        (image,) = make_images(session, collection, 1)
    page = client.get(f"/collections/{collection.id}/browse", params={"like": image.id})
    assert page.status_code == 409
    assert "still being prepared" in page.text


def test_tray_works_as_plain_forms_and_survives_reload(client, pond):
    collection, images = pond
    base = f"/collections/{collection.id}"
    here = f"{base}/browse?page=2"
    form = {"image_id": images[70].id, "return_to": here}
    response = client.post(f"{base}/tray", data=form, follow_redirects=False)
    assert response.status_code == 303
    assert response.headers["location"] == f"{here}#image-{images[70].id}"
    client.post(f"{base}/tray", data=form)  # a double click
    assert tray_of(client) == [(images[70].id, None)]
    page = client.get(here).text
    assert "1 example<" in page
    assert re.search(rf'id="pick-{images[70].id}".*?aria-pressed="true"', page, re.DOTALL)
    client.post(f"{base}/tray/remove", data=form)
    assert tray_of(client) == []


def test_tray_answers_scripts_with_itself_and_the_changed_button(client, pond):
    collection, images = pond
    base = f"/collections/{collection.id}"
    form = {"image_id": images[1].id, "return_to": f"{base}/browse"}
    added = client.post(f"{base}/tray", data=form, headers=HTMX).text
    assert "<html" not in added
    button = re.search(rf'<button class="pick"\s+id="pick-{images[1].id}".*?>', added, re.DOTALL)
    assert 'aria-pressed="true"' in button[0]
    assert 'hx-swap-oob="true"' in button[0]
    client.post(f"{base}/tray", data={"image_id": images[2].id}, headers=HTMX)
    cleared = client.post(f"{base}/tray/remove", data={"all": "1"}, headers=HTMX).text
    assert "No examples yet" in cleared
    for image in images[1:3]:
        assert re.search(rf'id="pick-{image.id}".*?aria-pressed="false"', cleared, re.DOTALL)
    assert tray_of(client) == []


@pytest.mark.parametrize(
    "return_to", ["https://elsewhere.example/", "//elsewhere.example", "/searches/1", "\\\\x", ""]
)
def test_tray_never_leads_to_another_place(client, pond, return_to):
    collection, images = pond
    response = client.post(
        f"/collections/{collection.id}/tray",
        data={"image_id": images[0].id, "return_to": return_to},
        follow_redirects=False,
    )
    expected = f"/collections/{collection.id}/browse#image-{images[0].id}"
    assert response.headers["location"] == expected


def test_photos_come_into_the_tray_and_refused_ones_are_named(client, pond):
    collection, _ = pond
    url = f"/collections/{collection.id}/tray"
    files = [("photo", ("C:\\me\\one.png", png(1))), ("photo", ("two.png", png(2)))]
    tray = client.post(url, files=files, headers=HTMX).text
    assert "2 examples" in tray
    assert 'title="one.png: show images like it"' in tray
    refused = client.post(url, files=[("photo", ("notes.txt", b"hello"))], headers=HTMX)
    assert refused.status_code == 422
    assert "notes.txt: " in refused.text
    assert len(tray_of(client)) == 2


def test_form_sent_without_a_chosen_file_changes_nothing(client, pond):
    collection, _ = pond
    body = (  # what browsers send then
        '--x\r\nContent-Disposition: form-data; name="photo"; filename=""\r\n'
        "Content-Type: application/octet-stream\r\n\r\n\r\n--x--\r\n"
    )
    page = client.post(
        f"/collections/{collection.id}/tray",
        content=body,
        headers={"Content-Type": "multipart/form-data; boundary=x"},
    )
    assert page.status_code == 200
    assert tray_of(client) == []


def test_photo_above_the_limit_is_refused_before_it_is_read(client, pond):
    collection, _ = pond
    limit_bytes = int(client.app.state.settings.max_photo_mb * 1e6)
    files = [("photo", ("huge.png", b"\x00" * (limit_bytes + 1)))]
    refused = client.post(f"/collections/{collection.id}/tray", files=files, headers=HTMX)
    assert refused.status_code == 422
    assert "huge.png is larger than 50 MB" in refused.text


def test_image_page_shows_what_is_known_and_its_neighbours(client, pond):
    collection, images = pond
    base = f"/collections/{collection.id}"
    with client.app.state.database.session() as session:
        session.add(
            ImagePath(
                collection_id=collection.id,
                image_id=images[61].id,
                path="again/copy.jpg",
                size_bytes=1_000,
                modified_ns=1,
            )
        )
    page = client.get(f"{base}/images/{images[61].id}").text
    for text in ("site/IMG_0061.jpg", "again/copy.jpg", "640 × 480 pixels"):
        assert text in page
    assert f'href="{base}/images/{images[60].id}"' in page
    assert f'href="{base}/images/{images[62].id}"' in page
    assert f'href="{base}/browse?page=2#image-{images[61].id}"' in page
    assert client.get(f"{base}/images/{images[61].id + 10_000}").status_code == 404


def test_pictures_are_named_by_folder_and_file_unless_folders_may_be_labels(client, pond):
    collection, images = pond
    browse = f"/collections/{collection.id}/browse"
    shown = '<span class="muted">site/</span><span><bdi dir="ltr">IMG_0007.jpg</bdi></span>'
    one = f"/collections/{collection.id}/images/{images[7].id}"
    assert shown in client.get(browse).text
    assert shown in client.get(one).text
    assert 'alt="site/IMG_0007.jpg"' in client.get(browse).text
    with client.app.state.database.session() as session:
        session.add(Import(collection_id=collection.id, source="x", labels="x.csv", state="done"))
        get_local_person(session).role = "ecologist"
    for page in (browse, one, browse + f"?like={images[7].id}"):
        text = client.get(page).text
        assert "site/" not in text, page
        assert "IMG_0007.jpg" in text, page


def test_first_folder_and_file_are_parts_of_their_own_so_that_the_middle_is_cut(client, pond):
    collection, images = pond
    with client.app.state.database.session() as session:
        session.get_one(Image, images[7].id).path = "Weir (old)/DCIM/100RECNX/IMG_0007.jpg"
    page = client.get(f"/collections/{collection.id}/browse").text
    assert (
        '<span class="muted">Weir (old)/</span><span class="muted">DCIM/100RECNX/</span>'
        '<span><bdi dir="ltr">IMG_0007.jpg</bdi></span>'
    ) in page


def ticked(page):
    return re.findall(r'name="(image_ids|photo_ids)"\s+value="(\d+)" checked', page.text)


def read_key(page):
    return re.search(r'name="opening_key"\s+value="(\w+)"', page.text)[1]


def test_opening_a_search_without_examples_says_what_to_do(client, pond):
    collection, _ = pond
    page = client.get(f"/collections/{collection.id}/searches/new")
    assert "A search begins with an example" in page.text
    response = client.post(
        f"/collections/{collection.id}/searches",
        data={"target_name": "Heron", "round_size": "12", "strategy": "pf-ma"},
    )
    assert response.status_code == 422
    assert "at least one example" in response.text
    assert 'value="Heron"' in response.text


def test_tray_is_ticked_unless_one_image_was_asked_for(client, pond):
    collection, images = pond
    base = f"/collections/{collection.id}"
    client.post(f"{base}/tray", data={"image_id": images[1].id})
    client.post(f"{base}/tray", files=[("photo", ("one.png", png()))])
    whole = client.get(f"{base}/searches/new")
    assert ("image_ids", str(images[1].id)) in ticked(whole)
    assert [kind for kind, _ in ticked(whole)].count("photo_ids") == 1
    one = client.get(f"{base}/searches/new", params={"image": images[5].id})
    assert ticked(one) == [("image_ids", str(images[5].id))]
    assert f'value="{images[1].id}"' in one.text  # offered, not ticked


def test_photo_added_in_one_form_is_offered_in_others_and_ticked_there_by_choice_alone(
    client, pond
):
    collection, images = pond
    base = f"/collections/{collection.id}"
    client.post(f"{base}/tray", data={"image_id": images[1].id})
    first = client.get(f"{base}/searches/new")
    added = client.post(
        f"{base}/tray",
        params={"part": "examples"},
        data={"opening_key": read_key(first), "image_ids": [images[1].id]},
        files=[("photo", ("one.png", png()))],
        headers=HTMX,
    )
    (photo,) = [own_id for kind, own_id in ticked(added) if kind == "photo_ids"]
    other = client.get(f"{base}/searches/new")
    assert ticked(other) == [("image_ids", str(images[1].id))]
    assert f'name="photo_ids"\n                   value="{photo}"' in other.text
    again = client.get(first.url)
    assert ("photo_ids", photo) in ticked(again)
    tray = client.get(f"{base}/browse").text
    led = re.search(r'href="([^"]+searches/new[^"]*)">[^"]*"[^>]*>.*?Start a search', tray, re.S)
    assert ("photo_ids", photo) in ticked(client.get(led[1].replace("&amp;", "&")))
    with_one = client.get(f"{base}/searches/new", params={"image": images[5].id})
    assert ticked(with_one) == [("image_ids", str(images[5].id))]


def read_way_back(page):
    cancel = re.search(r'href="([^"]*)">Cancel<', page.text)[1]
    assert f'name="came_from" value="{cancel}"' in page.text
    return cancel.replace("&amp;", "&")


def test_cancel_leads_back_to_where_the_form_was_asked_for(client, pond):
    collection, images = pond
    own = f"/collections/{collection.id}"
    new = f"{own}/searches/new"
    host = f"{client.base_url}"
    like = f"{own}/browse?like={images[7].id}&page=2"
    form = {"target_name": "Heron", "round_size": "12", "image_ids": [images[0].id]}
    search = client.post(f"{own}/searches", data=form).url.path
    with client.app.state.database.session() as session:
        elsewhere = make_collection(session, name="Elsewhere")
        asked = session.scalars(select(Search)).one()
        stranger = make_person(session, name="stranger", role="ecologist")
        hidden = Search(
            collection_id=collection.id,
            owner_id=stranger.id,
            target_name="Hidden",
            strategy="rarefind",
            round_size=12,
            seed=1,
            embedder=asked.embedder,
        )
        session.add(hidden)
    for before in (own, like, f"{own}/images/{images[7].id}", f"{search}/images/{images[7].id}"):
        page = client.get(new, headers={"referer": host + before})
        assert read_way_back(page) == before
        wrong = client.post(f"{own}/searches", data={"came_from": before})
        assert read_way_back(wrong) == before
    others = [f"/collections/{elsewhere.id}", f"/searches/{hidden.id}", "/", f"{new}?words=a"]
    for before in (*others, "//evil.example/collections", "/\\evil.example", "javascript:alert(1)"):
        wrong = client.post(f"{own}/searches", data={"came_from": before})
        assert read_way_back(wrong) == own, before
    outside = client.get(new, headers={"referer": f"https://evil.example{own}/browse"})
    assert read_way_back(outside) == own
    assert read_way_back(client.get(new)) == own


def test_strategies_the_recommended_first_and_the_evaluators_own_folded(client, pond):
    collection, _ = pond
    page = client.get(f"/collections/{collection.id}/searches/new").text
    first = page.index('value="rarefind" checked')
    assert first < page.index("More ways to choose") < page.index("For evaluators")
    assert page.index("For evaluators") < page.index('value="random"')


def test_search_opens_with_what_the_form_says(client, pond):
    collection, images = pond
    base = f"/collections/{collection.id}"
    client.post(f"{base}/tray", data={"image_id": images[1].id})
    response = client.post(
        f"{base}/searches",
        data={
            "target_name": " Grey heron ",
            "counts_as_yes": "Adults and young",
            "round_size": "24",
            "strategy": "most-positive",
            "image_ids": [images[1].id, images[2].id],
        },
        follow_redirects=False,
    )
    assert response.status_code == 303
    with client.app.state.database.session() as session:
        search = session.scalars(select(Search)).one()
        examples = session.scalars(select(Example.image_id).order_by(Example.id)).all()
    assert response.headers["location"] == f"/searches/{search.id}"
    assert (search.target_name, search.counts_as_yes) == ("Grey heron", "Adults and young")
    assert (search.round_size, search.strategy) == (24, "most-positive")
    assert examples == [images[1].id, images[2].id]
    assert tray_of(client) == []


def test_form_that_opened_a_search_comes_back_like_it_and_leads_to_it(client, pond):
    collection, images = pond
    base = f"/collections/{collection.id}"
    client.post(f"{base}/tray", files=[("photo", ("one.png", png()))])
    ((_, photo_id),) = tray_of(client)
    first = client.get(f"{base}/searches/new", params={"image": images[5].id})
    assert first.url.params["image"] == str(images[5].id)
    sent = {
        "target_name": "Grey <heron>",
        "counts_as_yes": "Adults and young",
        "round_size": "24",
        "strategy": "most-positive",
        "image_ids": [images[2].id, images[5].id],
        "opening_key": read_key(first),
    }
    again = client.get(first.url)
    assert read_key(again) == read_key(first) and "You opened" not in again.text

    search = client.post(f"{base}/searches", data=sent).url.path
    with client.app.state.database.session() as session:  # no embedder here looks at photos
        search_id = int(search.removeprefix("/searches/"))
        session.add(Example(search_id=search_id, photo_id=photo_id))
    back = client.get(first.url)

    assert back.status_code == 200
    assert "You opened “Grey &lt;heron&gt;” with this form" in back.text
    assert f'class="button primary" href="{search}"' in back.text
    assert 'value="Grey &lt;heron&gt;"' in back.text and "Adults and young</textarea>" in back.text
    assert 'value="24"' in back.text and 'value="most-positive" checked' in back.text
    kinds = {("image_ids", str(one)) for one in sent["image_ids"]}
    assert set(ticked(back)) == kinds | {("photo_ids", str(photo_id))}
    # Changed and sent, it opens another search, and is then the form of that one.
    other = client.post(
        f"{base}/searches", data=sent | {"strategy": "pf-ma", "opening_key": read_key(back)}
    ).url.path
    assert other != search
    assert f'class="button primary" href="{other}"' in client.get(back.url).text
    # What lies in the bin is gone on with by nobody.
    client.post(f"{search}/delete")
    assert "You opened" not in client.get(first.url).text
    client.post(f"{other}/delete")
    gone = client.get(back.url)
    assert gone.status_code == 200 and "You opened" not in gone.text


def test_form_that_was_mended_keeps_its_key(client, pond):
    collection, images = pond
    base = f"/collections/{collection.id}"
    form = {"target_name": "", "round_size": "12", "image_ids": [images[1].id]}
    form["opening_key"] = read_key(client.get(f"{base}/searches/new"))
    wrong = client.post(f"{base}/searches", data=form)
    assert wrong.status_code == 422 and read_key(wrong) == form["opening_key"]


def test_form_of_a_search_is_its_owners(client, pond):
    collection, images = pond
    base = f"/collections/{collection.id}"
    form = {"target_name": "Heron", "round_size": "12", "image_ids": [images[1].id]}
    search_id = int(client.post(f"{base}/searches", data=form).url.path.rpartition("/")[2])
    like = f"/searches/new?like={search_id}"
    assert client.get(base + like).status_code == 200
    with client.app.state.database.session() as session:
        elsewhere = make_collection(session, name="Lake")
        session.get_one(Search, search_id).owner_id = make_person(session, name="Ben").id
    assert client.get(f"/collections/{elsewhere.id}{like}").status_code == 404
    assert client.get(base + like).status_code == 404
    # In somebody else's bin, or nowhere: it looks alike to others.
    with client.app.state.database.session() as session:
        session.get_one(Search, search_id).deleted_at = datetime.now(UTC)
    assert client.get(base + like).status_code == 404
    assert client.get(f"{base}/searches/new?like=99").status_code == 404


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"target_name": "  "}, "Give it a name"),
        ({"round_size": "5"}, "A whole number from 6 to 48."),
        ({"round_size": "49"}, "A whole number from 6 to 48."),
        ({"round_size": "twelve"}, "A whole number from 6 to 48."),
        ({"round_size": "9" * 5_000}, "A whole number from 6 to 48."),
        ({"strategy": "magic"}, "There is no strategy “magic”."),
        ({"target_name": "x" * 201}, "longer than 200"),
    ],
)
def test_wrong_search_keeps_what_was_typed_and_opens_nothing(client, pond, changes, sentence):
    collection, images = pond
    form = {
        "target_name": "Heron",
        "counts_as_yes": "Young <and> old",
        "round_size": "12",
        "strategy": "pf-ma",
        "image_ids": [images[1].id],
    } | changes
    page = client.post(f"/collections/{collection.id}/searches", data=form)
    assert page.status_code == 422
    assert sentence in page.text
    assert "Young &lt;and&gt; old" in page.text
    assert f'value="{form["round_size"]}"' in page.text
    assert ticked(page) == [("image_ids", str(images[1].id))]
    with client.app.state.database.session() as session:
        assert session.scalars(select(Search)).all() == []


@pytest.mark.parametrize("field", ["image_ids", "photo_ids"])
def test_example_that_no_table_could_hold_is_refused(client, pond, field):
    collection, _ = pond
    form = {"target_name": "Heron", "round_size": "12", field: [2**63]}
    page = client.post(f"/collections/{collection.id}/searches", data=form)
    assert page.status_code == 422
    assert "can&#39;t be used" in page.text


def test_photo_sent_with_a_wrong_form_is_not_lost(client, pond):
    collection, _ = pond
    page = client.post(
        f"/collections/{collection.id}/searches",
        data={"target_name": "", "round_size": "12"},
        files=[("photo", ("one.png", png()))],
    )
    assert page.status_code == 422
    assert [kind for kind, _ in ticked(page)] == ["photo_ids"]


def test_adding_a_photo_while_filling_in_the_form_keeps_the_ticks(client, pond):
    collection, images = pond
    fragment = client.post(
        f"/collections/{collection.id}/tray",
        params={"part": "examples"},
        data={"image_ids": [images[3].id]},
        files=[("photo", ("one.png", png()))],
        headers=HTMX,
    )
    assert [kind for kind, _ in ticked(fragment)] == ["image_ids", "photo_ids"]
    assert 'id="examples"' in fragment.text


def test_opening_a_search_waits_for_the_preparation(client):
    with client.app.state.database.session() as session:
        collection = make_collection(session)
    page = client.get(f"/collections/{collection.id}/searches/new").text
    assert "as soon as the images are prepared" in page
    assert 'name="target_name"' not in page


def test_filter_that_cannot_be_used_stays_in_its_form_and_says_why(client, pond):
    collection, images = pond
    with client.app.state.database.session() as session:
        session.merge(images[0]).captured_at = datetime(2026, 5, 1)
    own, days = f"/collections/{collection.id}", {"from": "2026-05-02", "to": "2026-05-01"}
    why = "From, 2026-05-02, is later than to, 2026-05-01"
    page = client.get(f"{own}/browse", params=days)
    assert page.status_code == 422 and why in page.text
    assert "All images are shown meanwhile" in page.text and len(shown_ids(page)) > 0
    form = client.post(f"{own}/searches", data={"target_name": "Heron", "words": ""} | days)
    assert why in form.text
    opened = {"target_name": "Heron", "round_size": "6", "image_ids": str(images[1].id)}
    search = client.post(f"{own}/searches", data=opened).url.path
    changed = client.post(f"{search}/filter", data=days)
    assert why in changed.text and "still stands" in changed.text
    for shown in (page, form, changed):
        assert all(f'value="{day}"' in shown.text for day in days.values())
