"""What columns of tables are taken for: recognised, chosen, laid on the images, taken off again."""

from datetime import datetime

import pytest
from sqlalchemy import select

from app.deploying import change_deployment, join_by_folder, take_folders
from app.errors import BadInput
from app.events import find_grouping, group_anew, group_images, make_rule
from app.forgetting import describe_table_removal, forget_column, remove_table
from app.indexing import OpenIndexes
from app.metadata import (
    add_table,
    choose_columns,
    describe_metadata,
    get_table_called,
    list_columns,
)
from app.tables import Collection, Deployment, Image, ImagePath, Replay
from app.taking import read_clock, read_day, read_moment, read_takes, tell_order, without_tables
from tests.factories import make_collection, make_images, make_person

OWN = datetime(2020, 1, 2, 3, 4)


@pytest.fixture
def pond(session):
    """A collection of four images; the camera wrote time, place and name into the last one."""
    collection = make_collection(session)
    images = make_images(session, collection, 4)
    images[3].captured_at, images[3].camera = OWN, "Nikon D500"
    images[3].latitude, images[3].longitude = 51.0, 7.0
    for image in images:
        known = {"image_id": image.id, "path": image.path, "size_bytes": 1, "modified_ns": 1}
        session.add(ImagePath(collection_id=collection.id, **known))
    session.flush()
    return collection, make_person(session)


def add(session, pond, header, *cells, name="pond.csv", **more):
    """A table whose lines are of the images in turn; none where there is None."""
    lines = [f"IMG_{i:04}.jpg;{row}" for i, row in enumerate(cells) if row is not None]
    data = "\n".join([f"file;{header}", *lines, ""]).encode()
    return add_table(session, pond[0].id, name=name, data=data, person=pond[1], **more).taken


def choose(session, pond, order=None, **chosen):
    taken = choose_columns(session, pond[0].id, chosen=chosen, order=order, person=pond[1])
    session.expire_all()
    return taken


def remove(session, pond, name="pond.csv"):
    table = get_table_called(session, pond[0].id, name)
    remove_table(session, pond[0].id, table.id, person=pond[1])
    session.expire_all()


def read(session, pond, *fields):
    session.expire_all()
    images = session.scalars(select(Image).order_by(Image.path)).all()
    told = [
        tuple(
            image.deployment.name if name == "deployment_id" and image.deployment_id else value
            for name in fields
            for value in (getattr(image, name),)
        )
        for image in images
    ]
    return [one[0] if len(fields) == 1 else one for one in told]


ALL = ("captured_at", "latitude", "longitude", "camera", "deployment_id")


def test_table_of_a_newcomer_says_when_where_and_by_what_images_were_taken(session, pond):
    before = read(session, pond, *ALL)
    taken = add(
        session,
        pond,
        "Date;Site;CAMERA;Lat;Lng;bait",
        "2026-03-08 11:27;A;Reconyx HP2X;51.5;7.25;fish",
        "2026-03-08 11:28:30;A;Reconyx HP2X;51.5;7.25;",
        "2026-03-09 23:59;B;;;;",
    )
    assert taken.columns == {
        "time": "Date",
        "latitude": "Lat",
        "longitude": "Lng",
        "camera": "CAMERA",
        "deployment": "Site",
    }
    assert taken.said == []
    assert read(session, pond, *ALL) == [
        (datetime(2026, 3, 8, 11, 27), 51.5, 7.25, "Reconyx HP2X", "A"),
        (datetime(2026, 3, 8, 11, 28, 30), 51.5, 7.25, "Reconyx HP2X", "A"),
        (datetime(2026, 3, 9, 23, 59), None, None, None, "B"),
        before[3],
    ]
    # The columns stay as they were brought.
    assert read(session, pond, "given")[0]["Date"] == "2026-03-08T11:27"
    remove(session, pond)
    assert read(session, pond, *ALL) == before
    assert session.scalars(select(Deployment)).all() == []
    assert read(session, pond, "own") == [None] * 4


def test_table_goes_before_what_the_file_says_and_gives_it_back(session, pond):
    add(
        session, pond, "timestamp;camera id;decimallatitude;lng", *[";;;"] * 3,
        "2026-05-01T06:00:00+02:00;C7;10,5;-20",
    )  # fmt: skip
    # The zone is left off: times are the camera's own.
    now = (datetime(2026, 5, 1, 6), 10.5, -20.0, "C7")
    assert read(session, pond, *ALL[:4])[3] == now
    # The names say nothing of places to those who round them; what they are taken for does.
    marked = [one.name for one in list_columns(session, pond[0].id) if one.holds_place]
    assert marked == ["decimallatitude", "lng"]
    # A later table speaks of the same image; without it the earlier one stands again.
    add(session, pond, "timestamp", "", "", "", "2026-06-01 07:00", name="later.csv")
    assert read(session, pond, "captured_at")[3] == datetime(2026, 6, 1, 7)
    remove(session, pond, "later.csv")
    assert read(session, pond, *ALL[:4])[3] == now
    # A column that is taken away takes its own along, and no more.
    forget_column(session, pond[0].id, "timestamp", person=pond[1])
    assert read(session, pond, *ALL[:4])[3] == (OWN, *now[1:])
    remove(session, pond)
    assert read(session, pond, *ALL[:4])[3] == (OWN, 51.0, 7.0, "Nikon D500")


def test_day_and_time_of_day_stand_together(session, pond):
    taken = add(session, pond, "date;Time", "8.3.2026;11:27", "13.3.2026;1:05 pm", "14.3.2026;")
    assert taken.columns == {"time": "date", "clock": "Time"}
    assert "1 image" in taken.said[0]
    assert read(session, pond, "captured_at")[:3] == [
        datetime(2026, 3, 8, 11, 27),
        datetime(2026, 3, 13, 13, 5),
        None,
    ]
    # Without the time of day, the day alone would make midnights.
    forget_column(session, pond[0].id, "Time", person=pond[1])
    assert read(session, pond, "captured_at")[0] is None
    said = describe_metadata(session, pond[0].id, page=1).choice.taken.said
    assert "“date” says the day alone" in said[0]


@pytest.mark.parametrize(
    ("header", "cells", "why"),
    [
        ("date", ["2026-03-08 11:27", "early May"], "not all of it can be read"),
        ("date", ["2026-03-08", "2026-03-09"], "says the day alone"),
        ("date", ["03/25/2026 10:00", "25/03/2026 10:00"], "not all of it can be read"),
        ("lat;lon", ["51;7", "north;7"], "not all of it is in degrees"),
        ("lat;depth", ["51;7", "52;7"], "there is no longitude"),
        ("latitude;longitude", ["510;7", "52;7"], "not all of it is in degrees"),
        ("camera", [f"{'long remark ' * 20}"], None),
        ("water;seen", ["3;2026-03-08 11:27"], None),  # no usual name
    ],
)
def test_columns_that_do_not_hold_it_are_not_taken(session, pond, header, cells, why):
    before = read(session, pond, *ALL)
    taken = add(session, pond, header, *cells)
    assert taken.columns == {}
    assert why is None if not taken.said else why in taken.said[0]
    assert read(session, pond, *ALL) == before


def test_days_that_can_be_read_in_two_ways_are_asked_about(session, pond):
    taken = add(session, pond, "date", "04/04/2026 10:00", "03/04/2026 10:00", "05/04/2026 9:00")
    assert taken.columns == {} and taken.asks == "date"
    assert "such as 03/04/2026 10:00" in taken.said[0]
    with pytest.raises(BadInput, match="say which"), session.begin_nested():
        choose(session, pond, time="date")
    choose(session, pond, order="day-first")
    assert read(session, pond, "captured_at")[1] == datetime(2026, 4, 3, 10)
    choose(session, pond, order="month-first")
    assert read(session, pond, "captured_at")[1] == datetime(2026, 3, 4, 10)
    # It stays said for what comes later, until another cell makes it plain.
    add(session, pond, "date", "", "", "", "06/04/2026 9:00", name="more.csv")
    assert read(session, pond, "captured_at")[3] == datetime(2026, 6, 4, 9)
    remove(session, pond, "more.csv")
    remove(session, pond)
    assert read(session, pond, "captured_at") == [None, None, None, OWN]
    assert describe_metadata(session, pond[0].id, page=1).choice.order is None


def test_people_choose_columns_and_none(session, pond):
    add(session, pond, "date;seen;y;x;site", *["2026-03-08 11:27;2026-03-07 10:00;51;7;A"] * 2)
    choose(session, pond, time="seen", latitude="y", longitude="x", deployment=None)
    assert read(session, pond, *ALL)[0] == (datetime(2026, 3, 7, 10), 51.0, 7.0, None, None)
    assert session.scalars(select(Deployment)).all() == []
    # Exact places are not shown to everyone because of a name that says nothing.
    marked = {one.name for one in list_columns(session, pond[0].id) if one.holds_place}
    assert marked == {"y", "x"}
    # The choice holds for tables that come later.
    add(session, pond, "seen;camera", ";", ";", "2026-03-09 10:00;C1", name="more.csv")
    assert read(session, pond, "captured_at", "camera")[2] == (datetime(2026, 3, 9, 10), "C1")
    for wrong, why in (
        ({"time": "site"}, "“site” can't be taken for time"),
        ({"time": "sight"}, "no column “sight”"),
        ({"place": "site"}, "there is no “place”"),
        ({"latitude": "y"}, "there is no longitude with it"),
    ):
        with pytest.raises(BadInput, match=why), session.begin_nested():
            choose(session, pond, **wrong)
    choose(session, pond)
    assert read(session, pond, "captured_at", "deployment_id")[0] == (
        datetime(2026, 3, 8, 11, 27),
        "A",
    )
    choose(session, pond, time=None)
    assert read(session, pond, "captured_at") == [None, None, None, OWN]


def test_a_chosen_column_may_have_cells_that_say_no_time(session, pond):
    add(session, pond, "date", "2026-03-08 11:27", "unknown")
    taken = choose(session, pond, time="date")
    assert "1 cell of “date” can't be read as a time, such as “unknown”" in taken.said[0]
    assert read(session, pond, "captured_at")[:2] == [datetime(2026, 3, 8, 11, 27), None]


def test_what_was_found_stays_found_when_a_later_table_is_less_plain(session, pond):
    add(session, pond, "date;camera", "2026-03-08 11:27;C1", "2026-03-08 11:28;C1")
    here = [datetime(2026, 3, 8, 11, 27), datetime(2026, 3, 8, 11, 28)]
    taken = add(session, pond, "date;datetime", None, None, "?;2026-01-01 10:00", name="b.csv")
    assert taken.columns["time"] == "date" and "such as “?”" in taken.said[0] + taken.said[1]
    assert read(session, pond, "captured_at") == [*here, None, OWN]
    # Nor is what can be read in two ways guessed because of it.
    taken = add(session, pond, "date", *[None] * 3, "03/04/2026 10:00", name="c.csv")
    assert taken.asks == "date" and read(session, pond, "captured_at") == [*here, None, OWN]
    choose(session, pond, order="day-first")
    assert read(session, pond, "captured_at")[3] == datetime(2026, 4, 3, 10)
    remove(session, pond, "b.csv")
    assert read(session, pond, "captured_at") == [*here, None, datetime(2026, 4, 3, 10)]
    remove(session, pond, "c.csv")
    assert read(session, pond, "captured_at") == [*here, None, OWN]


def test_clock_shifts_and_places_of_deployments_count_for_what_tables_say(session, pond):
    collection, person = pond
    add(session, pond, "date;station", "2026-03-08 11:27;A", "2026-03-08 11:28;A", ";", ";A")
    (deployment,) = session.scalars(select(Deployment))

    def change(**new):
        given = {"place": "", "latitude": "", "longitude": "", "clock_shift": ""} | new
        change_deployment(session, collection.id, deployment.id, **given, person=person)

    change(clock_shift="1:00", latitude="40", longitude="3")
    a, b = datetime(2026, 3, 8, 12, 27), datetime(2026, 3, 8, 12, 28)
    own = datetime(2020, 1, 2, 4, 4)
    assert read(session, pond, "captured_at", "latitude") == [
        (a, 40.0), (b, 40.0), (None, None), (own, 51.0),
    ]  # fmt: skip
    change(latitude="41", longitude="3")
    assert read(session, pond, "captured_at", "latitude") == [
        (datetime(2026, 3, 8, 11, 27), 41.0),
        (datetime(2026, 3, 8, 11, 28), 41.0),
        (None, None),
        (OWN, 51.0),
    ]
    remove(session, pond)
    assert read(session, pond, *ALL)[:2] == [(None, None, None, None, None)] * 2
    # Somebody said something of it: it stays.
    assert [one.name for one in session.scalars(select(Deployment))] == ["A"]


def test_deployments_of_folders_come_back_when_a_table_named_others(session, pond):
    collection, person = pond
    add(session, pond, "site", "site", "north")
    join_by_folder(session, collection.id)  # as an import does: no folder was chosen yet
    assert read(session, pond, "deployment_id") == ["site", "north", None, None]
    take_folders(session, collection.id, person=person)
    assert read(session, pond, "deployment_id") == ["site", "north", "site", "site"]
    remove(session, pond)
    assert read(session, pond, "deployment_id") == ["site"] * 4
    assert [one.name for one in session.scalars(select(Deployment))] == ["site"]


def test_what_a_package_says_later_is_kept_behind_a_table(session, pond):
    add(session, pond, "date", "2026-03-08 11:27")
    with without_tables(session, pond[0].id):
        assert read(session, pond, "captured_at")[0] is None
        image = session.scalars(select(Image).order_by(Image.path)).first()
        image.captured_at, image.camera = OWN, "Browning"
        session.flush()
    here = read(session, pond, "captured_at", "camera")
    assert here[0] == (datetime(2026, 3, 8, 11, 27), "Browning")
    remove(session, pond)
    assert read(session, pond, "captured_at", "camera")[0] == (OWN, "Browning")


def test_events_follow_times_of_tables(session, pond, settings):
    collection, person = pond
    indexes = OpenIndexes(settings)
    cells = ["2026-03-08 11:27:00", "2026-03-08 11:27:30", "2026-03-08 11:40", "2026-03-08 11:41"]
    add(session, pond, "date;camera", *(f"{cell};C1" for cell in cells))
    group_anew(session, collection.id, indexes=indexes)
    made = find_grouping(session, collection.id)
    assert (made.kind, made.event_count, made.is_automatic) == ("bursts", 2, True)
    group_images(
        session, collection.id, make_rule("bursts", gap_s="900"), person=person, indexes=indexes
    )
    remove(session, pond)
    group_anew(session, collection.id, indexes=indexes)
    # Without times no images belong together; what somebody chose stays the rule.
    assert find_grouping(session, collection.id) is None
    add(session, pond, "date;camera", *(f"{cell};C1" for cell in cells))
    group_anew(session, collection.id, indexes=indexes)
    made = find_grouping(session, collection.id)
    assert (made.gap_s, made.event_count, made.image_count) == (900, 1, 4)


def test_removal_says_what_images_have_from_a_table_and_waits_for_replays(session, pond):
    collection, person = pond
    add(session, pond, "date;camera", "2026-03-08 11:27;C1")
    replay = Replay(
        collection_id=collection.id,
        person_id=person.id,
        state="running",
        run_count=1,
        settings={"where": ["hour_from=20"]},
    )
    session.add(replay)
    session.flush()
    table = get_table_called(session, collection.id, "pond.csv")
    removal = describe_table_removal(session, collection.id, table, person=person)
    assert removal.told == ["time", "camera"] and removal.played is replay
    assert "Images have their time, camera from there" in " ".join(removal.list_sentences())


def test_tables_of_before_are_not_read_until_somebody_says_so(session, pond):
    """As after an upgrade: what searches filter by does not change by itself."""
    collection, person = pond
    add(session, pond, "date;site", "2026-03-08 11:27;A")
    choose(session, pond, time=None, deployment=None)
    session.get_one(Collection, collection.id).taken_for = None
    session.flush()
    take_folders(session, collection.id, person=person)
    assert read(session, pond, "captured_at")[0] is None
    choose(session, pond)
    assert read(session, pond, "captured_at")[0] == datetime(2026, 3, 8, 11, 27)


@pytest.mark.parametrize(
    ("text", "order", "moment"),
    [
        ("2026-03-08 11:27", None, (2026, 3, 8, 11, 27)),
        ("2026:03:08 11:27:05", None, (2026, 3, 8, 11, 27, 5)),
        ("2026/3/8 9:07", None, (2026, 3, 8, 9, 7)),
        ("2026-03-08T11:27:05.25Z", None, (2026, 3, 8, 11, 27, 5, 250_000)),
        ("8.3.2026 11:27", "day-first", (2026, 3, 8, 11, 27)),
        ("3/8/2026 12:27 AM", "month-first", (2026, 3, 8, 0, 27)),
        ("3/8/2026, 12:27 p.m.", "month-first", (2026, 3, 8, 12, 27)),
        ("8.3.2026 11:27", None, None),
        ("2026-02-30 11:27", None, None),
        ("2026-03-08 24:00", None, None),
        ("2026-03-08 13:00 pm", None, None),
        ("2026-03-08", None, None),
        ("20260308", None, None),
        ("46089.477", None, None),
    ],
)
def test_times_are_read_as_they_are_written(text, order, moment):
    assert read_moment(text, None, order) == (datetime(*moment) if moment else None)


def test_order_of_day_and_month_is_told_by_what_stands_there():
    assert tell_order(["03/04/2026", "13/04/2026"]) == "day-first"
    assert tell_order(["03/04/2026 10:00", "03-14-2026"]) == "month-first"
    assert tell_order(["03/04/2026"]) == ""
    assert tell_order(["13/14/2026"]) is None and tell_order(["2026-03-04"]) is None
    assert read_day("04/04/2026", tell_order(["04/04/2026"])) is not None
    assert read_clock("25:00") is None


def test_what_is_written_on_the_command_line():
    before = {"time": "date", "camera": None}
    takes = ["camera=found", "deployment=none", "clock=time of day"]
    assert read_takes(takes, before) == {
        "time": "date",
        "deployment": None,
        "clock": "time of day",
    }
    with pytest.raises(BadInput, match="write time, clock"):
        read_takes(["place=x"], {})
