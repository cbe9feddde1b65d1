"""When and where the finds are, by metadata of images whose truth is known."""

from datetime import datetime, timedelta

import pytest

from app import removing
from app.adjusting import filter_search
from app.dashboards.found import tell_found
from app.dashboards.whereabouts import tell_whereabouts
from app.filtering import read_filter
from app.tables import Import
from tests.factories import make_images, make_index
from tests.features.test_dashboards import Hunt


@pytest.fixture
def hunt(session, settings):
    """Finds were taken at dawn in May at two places; a third of the others have no metadata."""
    hunt = Hunt(session, settings)
    for number, image in enumerate(hunt.images):
        is_target = image.id in hunt.targets
        image.path = f"{'north' if number % 2 else 'south'}/{image.path}"
        if number % 3 == 0 and not is_target:
            continue
        day = datetime(2026, 5, 4 if is_target else 1, 6 if is_target else 14, 30)
        image.captured_at = day + timedelta(days=0 if is_target else number % 60)
        image.latitude = 51.0 + 0.5 * (number % 2)
        image.longitude = 4.0 + 0.000_001 * number
    hunt.images[0].captured_at = None
    session.flush()
    for _ in range(3):
        hunt.submit()
    return hunt


def tell(hunt, after=None):
    return {one.name: one for one in tell_whereabouts(hunt.moment(after)).plots}


def count_found(hunt, column):
    found = [i for i in hunt.images if hunt.answers().get(i.id) == "yes"]
    return sum(getattr(image, column) is not None for image in found)


def test_every_image_of_known_time_or_place_is_counted_once(hunt):
    plots = tell(hunt)
    known = sum(image.captured_at is not None for image in hunt.images)
    placed = sum(image.latitude is not None for image in hunt.images)
    for name, column, total in (
        ("dates", "captured_at", known),
        ("hours", "captured_at", known),
        ("places", "latitude", placed),
    ):
        assert sum(row[-1] for row in plots[name].rows) == total
        assert sum(row[-3] for row in plots[name].rows) == count_found(hunt, column)
    assert sum(row[-1] for row in plots["deployments"].rows) == 300
    assert "1 find without a time is left out" in plots["hours"].sentence


def test_strip_of_dates_has_every_day_and_says_when(hunt):
    dates = tell(hunt)["dates"]
    assert dates.columns[0] == "Day"
    assert [row[0] for row in dates.rows][:3] == ["2026-05-02", "2026-05-03", "2026-05-04"]
    assert len(dates.rows) == 59
    found = {row[0]: row[1] for row in dates.rows if row[1]}
    assert found == {"2026-05-04": count_found(hunt, "captured_at")}
    assert "on 4 May 2026" in dates.sentence


def test_clock_keeps_the_cameras_hour(hunt):
    hours = tell(hunt)["hours"]
    assert [row[0] for row in hours.rows] == list(range(24))
    found = count_found(hunt, "captured_at")
    assert [row[1] for row in hours.rows] == [found if hour == 6 else 0 for hour in range(24)]
    assert f"{found} of {found} finds were taken between 3 and 7 h" in hours.sentence
    assert "clocks" in hours.sentence


def test_places_within_metres_are_one_point(hunt):
    rows = tell(hunt)["places"].rows
    assert sorted(round(row[0], 2) for row in rows) == [51.0, 51.5]
    assert all(row[2] for row in rows)


def test_deployments_are_the_first_folders(hunt):
    rows = {row[0]: row[1:] for row in tell(hunt)["deployments"].rows}
    answers = hunt.answers()
    for folder, own in (("south", hunt.images[::2]), ("north", hunt.images[1::2])):
        said = [answers.get(image.id) for image in own]
        assert rows[folder][:2] == [said.count("yes"), len(said) - said.count(None)]


def test_figures_of_an_earlier_round_stay_when_images_join(hunt, settings):
    before = tell_whereabouts(hunt.moment(2))
    vectors = hunt.moment().index.vectors
    more = make_images(hunt.session, hunt.search.collection, 20, first=300)
    for image in more:
        image.captured_at = datetime(2020, 1, 1)
    make_index(hunt.session, settings, hunt.images + more, vectors[[*range(300), *range(20)]])
    hunt.submit()
    assert tell_whereabouts(hunt.moment(2)) == before
    assert tell(hunt)["dates"].columns[0] == "Month"


@pytest.mark.parametrize(
    ("reach", "told"),
    [
        (30, "most on 4 May 2026 ("),
        (200, "most in the week of 4 May 2026 ("),
        (2000, "most in May 2026 ("),
        (9000, "most in 2026 ("),
    ],
)
def test_when_most_were_found_is_said_as_people_say_it(hunt, reach, told):
    answers = hunt.answers()
    first = next(image for image in hunt.images[1:] if answers.get(image.id) == "yes")
    first.captured_at = datetime(2026, 5, 4) - timedelta(days=reach)
    hunt.session.flush()
    sentence = tell(hunt)["dates"].sentence
    assert told in sentence
    assert "by the cameras' clocks, with the clock shifts of deployments" in sentence


def test_removed_images_are_in_no_count(hunt):
    found = [i for i, value in hunt.answers().items() if value == "yes"]
    rest = [image.id for image in hunt.images[100:110]]
    _, *others = found
    gone = [*others, *rest]
    removing.remove_images(hunt.session, hunt.search.collection_id, gone, person=hunt.person)
    for after in (None, 2):
        rows = tell(hunt, after)["deployments"].rows
        assert sum(row[1] for row in rows) == 1  # found
        assert sum(row[-1] for row in rows) == 300 - len(gone)
    plot = tell_found(hunt.moment()).plot
    assert sum(row[1] for row in plot.rows) <= 1
    assert sum(sum(row[1:]) for row in plot.rows) < len(hunt.moment().showings)
    removing.remove_images(hunt.session, hunt.search.collection_id, found[:1], person=hunt.person)
    assert tell_whereabouts(hunt.moment()).plots == []


def test_what_is_not_known_is_said(session, settings):
    hunt = Hunt(session, settings)
    told = tell_whereabouts(hunt.moment())
    assert told.plots == []
    assert len(told.missing) == 3
    assert "No image of this collection says where it was taken." in told.missing
    hunt.images[50].latitude = hunt.images[50].longitude = 3.0
    session.flush()
    assert any("None of your finds" in one for one in tell_whereabouts(hunt.moment()).missing)


def test_under_a_filter_it_tells_of_what_is_kept_and_says_so(hunt):
    assert tell_whereabouts(hunt.moment()).scope == ""
    found = [image for image in hunt.images if hunt.answers().get(image.id) == "yes"]
    north = [image for image in found if image.path.startswith("north")]
    assert 0 < len(north) < len(found)

    def keep(folder):
        parts = [("deployment", folder)]
        chosen = read_filter(hunt.session, hunt.search.collection_id, parts, person=hunt.person)
        filter_search(hunt.session, hunt.search, chosen)
        hunt.submit()

    keep("north")
    told = tell_whereabouts(hunt.moment())
    outside = sum(
        value == "yes" and image.path.startswith("south")
        for image in hunt.images
        if (value := hunt.answers().get(image.id))
    )
    assert f"{outside} finds outside it are left out" in told.scope
    kept = [i for i in hunt.images if i.path.startswith("north")]
    yes = sum(hunt.answers().get(image.id) == "yes" for image in kept)
    for plot in told.plots:
        assert sum(row[plot.columns.index("Found")] for row in plot.rows) == yes, plot.name
    assert "What the filter keeps reaches from" in told.plots[0].sentence
    for image in kept:
        image.captured_at = None
    hunt.session.flush()
    told = tell_whereabouts(hunt.moment())
    assert "No image that the filter keeps says when it was taken." in told.missing


def test_folders_that_may_name_the_label_are_not_shown(hunt):
    hunt.session.add(
        Import(collection_id=hunt.search.collection_id, source="x", labels="folders", state="done")
    )
    hunt.session.flush()
    told = tell_whereabouts(hunt.moment())
    assert "deployments" not in [one.name for one in told.plots]
    assert any("known labels" in one for one in told.missing)
