"""Tables brought beside the images: matching, kinds, what replaces what, and what is listed."""

import pytest
from sqlalchemy import delete, select, update

from app.errors import LabelsNotUsable, NotFound, WorkGoesOn
from app.events import group_images, make_rule
from app.forgetting import (
    describe_column_removal,
    describe_table_removal,
    forget_column,
    remove_table,
)
from app.indexing import OpenIndexes
from app.metadata import (
    add_table,
    describe_metadata,
    get_table_called,
    list_columns,
    mark_column,
)
from app.sensitive import is_in_degrees, may_hold_places
from app.sources import read_labels_data
from app.tables import AuditEvent, GivenRow, Image, ImagePath, Replay, Search
from tests.factories import make_collection, make_images, make_index, make_person


@pytest.fixture
def pond(session):
    collection = make_collection(session)
    images = make_images(session, collection, 4)
    for image in images:
        paths = [image.path]
        if image is images[3]:
            paths.append("other/IMG_0000.jpg")  # the name of image 0 in another folder
        session.add_all(
            ImagePath(
                collection_id=collection.id,
                image_id=image.id,
                path=path,
                size_bytes=1,
                modified_ns=1,
            )
            for path in paths
        )
    session.flush()
    return collection, images, make_person(session)


def add(session, pond, text, name="pond.csv"):
    return add_table(session, pond[0].id, name=name, data=text.encode(), person=pond[2])


def read(session, pond):
    return list(session.scalars(select(Image.given).order_by(Image.path)))


def test_rows_find_their_images_by_path_by_unique_name_and_by_hash(session, pond):
    sha256 = pond[1][2].sha256
    summary = add(
        session,
        pond,
        "File;RelativePath;SHA256;water;seen;note\n"
        "IMG_0000.jpg;site;;12.5;2024-05-01;deep\n"
        "IMG_0009.jpg;;;7;2024-05-02;\n"
        f";;{sha256};007;2024-05-02 06:30;=x\n"
        "IMG_0000.jpg;;;3;;\n"  # two images have this name
        "site/IMG_0000.jpg;;;4;;\n"  # said already
        "IMG_0003.jpg;;;;;\n",
    )
    assert (summary.rows, summary.images, summary.unmatched) == (6, 3, 3)
    # 007 is a name, so the column is no column of numbers.
    assert summary.columns == [("water", "text"), ("seen", "date"), ("note", "text")]
    assert read(session, pond) == [
        {"water": "12.5", "seen": "2024-05-01", "note": "deep"},
        None,
        {"water": "007", "seen": "2024-05-02T06:30", "note": "=x"},
        None,  # its row says nothing
    ]
    page = describe_metadata(session, pond[0].id, page=1)
    assert [(row.line, row.reason) for _, row in page.unmatched] == [
        (3, "the collection has no such image, or not for certain"),
        (5, "2 images have this name: write their path"),
        (6, "line 2 is about the same image and was kept"),
    ]
    assert page.images_without == 2


@pytest.mark.parametrize(
    "text",
    [
        "filename,relative_path,water\nIMG_0000.jpg,site\\IMG_0000.jpg,1\n",
        "filename,relative_path,water\nIMG_0000.jpg,site,1\n",
        "SourceFile,Directory,water\n./site/IMG_0000.jpg,./site,1\n",
    ],
)
def test_a_folder_is_put_before_a_name_where_it_does_not_stand_there(session, pond, text):
    pond[1][0].path = "pond/site/IMG_0000.jpg"
    session.execute(
        update(ImagePath)
        .where(ImagePath.path == "site/IMG_0000.jpg")
        .values(path="pond/site/IMG_0000.jpg")
    )
    assert add(session, pond, text).images == 1


def test_rows_of_other_folders_are_about_no_image(session):
    """A table of all sites, for a collection that holds one of them."""
    collection = make_collection(session)
    images = make_images(session, collection, 3)
    for image, path in zip(images, ["A/1.jpg", "A/2.jpg", "A/only.jpg"], strict=True):
        image.path = path
        session.add(
            ImagePath(
                collection_id=collection.id,
                image_id=image.id,
                path=path,
                size_bytes=1,
                modified_ns=1,
            )
        )
    session.flush()
    pond = (collection, images, make_person(session))
    summary = add(
        session,
        pond,
        "file,water\nB/1.jpg,10\nB/only.jpg,11\nC:\\Photos\\a\\1.JPG,1\nphotos/A/2.jpg,2\n"
        "copy/A/2.jpg,12\nonly.jpg,3\n",
    )
    assert read(session, pond) == [{"water": 1}, None, {"water": 3}]
    page = describe_metadata(session, collection.id, page=1)
    assert summary.unmatched == 4
    assert [(row.line, row.reason) for _, row in page.unmatched] == [
        (line, "the collection has no such image in that folder, or not for certain")
        for line in (2, 3, 5, 6)
    ]


def test_decimal_commas_are_numbers_where_semicolons_part_the_cells(session, pond):
    text = (
        "file;depth;count;animals;both\n"
        "IMG_0001.jpg;-0,5;1,000;3,7;1,5\nIMG_0002.jpg;12;2,500;3,7,9;2.5\n"
    )
    summary = add(session, pond, text)
    assert summary.columns == [
        *(("depth", "number"), ("count", "text"), ("animals", "text"), ("both", "text")),
    ]
    assert read(session, pond)[1] == {
        "depth": -0.5,
        "count": "1,000",  # one, or a thousand
        "animals": "3,7",
        "both": "1,5",
    }
    add(session, pond, 'file,seen\nIMG_0001.jpg,"3,7"\n', "commas.csv")
    assert read(session, pond)[1]["seen"] == "3,7"
    # Lines that end as on an old Mac are lines, too.
    lines = "file;age;note\rIMG_0001.jpg;1,5;a, b, c, d\rIMG_0002.jpg;2,5;a, b, c, d\r"
    assert add(session, pond, lines, "mac.csv").columns[0] == ("age", "number")
    # What the table said is read again when a later one goes.
    add(session, pond, "file;depth\nIMG_0001.jpg;1,25\n", "later.csv")
    assert read(session, pond)[1]["depth"] == 1.25
    remove(session, pond, "later.csv")
    assert read(session, pond)[1]["depth"] == -0.5


def test_days_without_a_time_are_dates_where_it_is_certain_how_they_are_read(session, pond):
    add(
        session,
        pond,
        "file;collected;checked;open\n"
        "IMG_0001.jpg;28.03.2025;3/28/2025;03.04.2025\n"
        "IMG_0002.jpg;2.4.2025;4/2/2025;05.04.2025\n",
    )
    kinds = {column.name: column.kind for column in list_columns(session, pond[0].id)}
    assert kinds == {"collected": "date", "checked": "date", "open": "text"}
    assert read(session, pond)[1:3] == [
        {"collected": "2025-03-28", "checked": "2025-03-28", "open": "03.04.2025"},
        {"collected": "2025-04-02", "checked": "2025-04-02", "open": "05.04.2025"},
    ]
    # A later table's own days leave it open; those before them do not.
    add(session, pond, "file;collected\nIMG_0003.jpg;03.04.2025\n", name="april.csv")
    assert read(session, pond)[3] == {"collected": "2025-04-03"}
    collected = next(iter(list_columns(session, pond[0].id)))
    ends = (collected.kind, collected.least, collected.most)
    assert ends == ("date", "2025-03-28", "2025-04-03")
    # As if the first had never been, it is open again.
    first = get_table_called(session, pond[0].id, "pond.csv")
    remove_table(session, pond[0].id, first.id, person=pond[2])
    assert read(session, pond)[3] == {"collected": "03.04.2025"}
    assert [column.kind for column in list_columns(session, pond[0].id)] == ["text"]


def test_later_table_replaces_what_an_earlier_one_said_of_the_same_images(session, pond):
    add(session, pond, "file,depth,site\nIMG_0001.jpg,3,A\nIMG_0002.jpg,10,B\n", "first.csv")
    (depth, site) = list_columns(session, pond[0].id)
    assert (depth.kind, depth.least, depth.most) == ("number", "3", "10")  # not as texts
    assert site.choices == ["A", "B"]
    # A cell that is empty now takes the old one away; image 2 is not in it and keeps its own.
    add(session, pond, "file,depth,site\nIMG_0001.jpg,4,\n", "second.csv")
    assert read(session, pond)[1:3] == [{"depth": 4}, {"depth": 10, "site": "B"}]
    # One text makes texts of the numbers that were there.
    add(session, pond, "file,depth\nIMG_0003.jpg,shallow\n", "third.csv")
    assert read(session, pond)[1:] == [
        {"depth": "4"},
        {"depth": "10", "site": "B"},
        {"depth": "shallow"},
    ]
    forget_column(session, pond[0].id, "depth", person=pond[2])
    session.expire_all()
    assert read(session, pond) == [None, None, {"site": "B"}, None]


def remove(session, pond, name):
    table = get_table_called(session, pond[0].id, name)
    assert not remove_table(session, pond[0].id, table.id, person=pond[2])
    session.expire_all()


def test_a_removed_table_leaves_what_there_would_be_without_it(session, pond):
    add(session, pond, "file,depth,site\nIMG_0001.jpg,3.50,A\nIMG_0002.jpg,10,B\n", "first.csv")
    before = read(session, pond), [vars_of(one) for one in list_columns(session, pond[0].id)]
    # It says otherwise of image 1, empties a cell of it, speaks of an image more and in a column
    # more, and makes texts of numbers.
    add(
        session,
        pond,
        "file,depth,site,bait\nIMG_0001.jpg,shallow,,fish\nIMG_0003.jpg,2,C,\nlost.jpg,1,,\n",
        "second.csv",
    )
    assert read(session, pond)[1:] == [
        {"depth": "shallow", "bait": "fish"},
        {"depth": "10", "site": "B"},
        {"depth": "2", "site": "C"},
    ]
    remove(session, pond, "second.csv")
    assert (read(session, pond), [vars_of(o) for o in list_columns(session, pond[0].id)]) == before
    page = describe_metadata(session, pond[0].id, page=1)
    assert [table.name for table in page.tables] == ["first.csv"] and not page.unmatched
    said = session.scalars(select(AuditEvent).filter_by(kind="delete")).all()
    assert "Removed the table second.csv" in said[-1].sentence
    with pytest.raises(NotFound, match=r"No table “second.csv” was added here.*“first.csv”"):
        remove(session, pond, "second.csv")
    remove(session, pond, "first.csv")
    assert read(session, pond) == [None] * 4
    assert list_columns(session, pond[0].id) == []


def vars_of(column):
    return (column.name, column.kind, column.choices, column.least, column.most)


def test_an_earlier_table_that_is_removed_takes_nothing_from_a_later_one(session, pond):
    add(session, pond, "file,depth,site\nIMG_0001.jpg,3,A\nIMG_0002.jpg,9,B\n", "first.csv")
    add(session, pond, "file,depth\nIMG_0001.jpg,4\n", "second.csv")
    remove(session, pond, "first.csv")
    assert read(session, pond) == [None, {"depth": 4}, None, None]
    (depth,) = list_columns(session, pond[0].id)
    assert vars_of(depth) == ("depth", "number", None, "4", "4")


def test_a_file_brought_twice_is_one_table_and_a_column_taken_away_does_not_come_back(
    session, pond
):
    add(session, pond, "file,depth,site\nIMG_0001.jpg,3,A\n", "old.csv")
    add(session, pond, "file,depth,site\nIMG_0001.jpg,4,B\nIMG_0002.jpg,9,B\n")
    add(session, pond, "file,depth\nIMG_0001.jpg,5\nIMG_0003.jpg,6\n")
    add(session, pond, "file,depth\nIMG_0001.jpg,5\nIMG_0003.jpg,6\n")
    assert len(session.scalars(select(GivenRow)).all()) == 1 + 2 + 2, "what was said twice is once"
    assert read(session, pond)[1:] == [
        {"depth": 5, "site": "B"},
        {"depth": 9, "site": "B"},
        {"depth": 6},
    ]
    forget_column(session, pond[0].id, "depth", person=pond[2])
    remove(session, pond, "pond.csv")
    assert read(session, pond) == [None, {"site": "A"}, None, None]


def test_what_goes_with_a_table_is_said_and_a_replay_under_way_keeps_it(session, settings, pond):
    collection, images, admin = pond
    add(session, pond, "file,bait,site\nIMG_0001.jpg,fish,A\n", "first.csv")
    add(session, pond, "file,site\nIMG_0002.jpg,B\n", "second.csv")
    make_index(session, settings, images)
    rule = make_rule("column", column="bait")
    group_images(session, collection.id, rule, person=admin, indexes=OpenIndexes(settings))
    other = make_person(session, name="Ben", role="ecologist")
    for person, target, chosen in (
        (admin, "Heron", [["is.bait", "fish"]]),
        (other, "Newt", [["given", "any"]]),
        (other, "Toad", [["from", "2024-05-01"]]),
    ):
        session.add(
            Search(
                collection_id=collection.id,
                owner_id=person.id,
                target_name=target,
                embedder="hash",
                strategy="pf-ma",
                round_size=6,
                seed=0,
                filter=chosen,
            )
        )
    plan = {"where": ["is.site=A"]}
    replay = Replay(
        collection_id=collection.id, person_id=admin.id, settings=plan, state="failed", run_count=1
    )
    session.add(replay)
    session.flush()
    table = get_table_called(session, collection.id, "first.csv")

    def said():
        removal = describe_table_removal(session, collection.id, table, person=admin)
        return removal, "\n".join(removal.list_sentences())

    removal, text = said()
    assert removal.image_count == 1 and removal.gone == ["bait"]
    assert "The column goes from pages, filters and exports: “bait”." in text
    assert "“site” stays, with what is said there by second.csv." in text
    assert f"“Heron” ({admin.name}), searches of Ben that you don't see." in text
    assert "Newt" not in text and "Toad" not in text
    assert "Events were grouped by “bait”" in text
    assert "1 replay that stopped before the end can't be gone on with." in text
    replay.state = "running"
    assert "can't be gone on" not in said()[1] and said()[0].played is replay
    for refused in (
        lambda: remove_table(session, collection.id, table.id, person=admin),
        lambda: forget_column(session, collection.id, "site", person=admin),
    ):
        with pytest.raises(WorkGoesOn, match=r"A replay .* is under way"):
            refused()
    assert read(session, pond)[1] == {"bait": "fish", "site": "A"}
    forget_column(session, collection.id, "bait", person=admin)  # at which it does not look


def test_a_place_that_somebody_marked_is_to_be_marked_again_with_its_table(session, pond):
    collection, _, admin = pond
    add(session, pond, "file,bay,latitude,bait\nIMG_0001.jpg,Reed,47.1,fish\n", "first.csv")
    mark_column(session, collection.id, "bay", holds_place=True, person=admin)
    table = get_table_called(session, collection.id, "first.csv")
    bay, bait = (
        next(one for one in list_columns(session, collection.id) if one.name == name)
        for name in ("bay", "bait")
    )

    def say(removal):
        return [one for one in removal.list_sentences() if one.startswith("Added again")]

    (said,) = say(describe_table_removal(session, collection.id, table, person=admin))
    assert "mark “bay” as a place again" in said, "“latitude” says so by its name"
    assert say(describe_column_removal(session, collection.id, bay, person=admin)) == [said]
    assert not say(describe_column_removal(session, collection.id, bait, person=admin))
    add(session, pond, "file,bay\nIMG_0002.jpg,Reed\n", "second.csv")
    assert not say(describe_table_removal(session, collection.id, table, person=admin)), "it stays"


def test_that_the_first_of_older_tables_takes_what_the_others_said_is_told(session, pond):
    collection, _, admin = pond
    add(session, pond, "file,bait,site\nIMG_0001.jpg,fish,A\n", "first.csv")
    add(session, pond, "file,label\nIMG_0001.jpg,newt\n", "labels.csv")  # says nothing, as known
    second = get_table_called(session, collection.id, "labels.csv")

    def say(table):
        removal = describe_table_removal(session, collection.id, table, person=admin)
        return [one for one in removal.list_sentences() if "counts as said here" in one]

    first = get_table_called(session, collection.id, "first.csv")
    assert not say(first)
    # As migration 0046 leaves tables of before.
    session.execute(delete(GivenRow).where(GivenRow.table_id == second.id))
    (said,) = say(first)
    assert "add “labels.csv” again afterwards" in said
    assert not say(second)


def test_known_labels_are_not_kept_beside_the_images(session, pond):
    columns = "Species,Common,Nombre común,Nom commun,Trivialname"
    text = f"file,{columns},depth\nIMG_0001.jpg,heron,heron,garza,héron,Reiher,3\n"
    summary = add(session, pond, text)
    assert read(session, pond)[1] == {"depth": 3}
    assert f"{columns.replace(',', ', ')}." in summary.notes[0]


def test_columns_are_known_in_other_languages_and_spellings(session, pond):
    """A German table: its places are guarded, and its species not shown."""
    summary = add(
        session,
        pond,
        "Dateiname;Datum;Uhrzeit;Breitengrad;Längengrad;Art;Scientific Name\n"
        "IMG_0001.jpg;28.03.2025;05:00;47,006;9,512;Fuchs;Vulpes vulpes\n"
        "IMG_0002.jpg;29.03.2025;06:30;47,059;9,512;Dachs;Meles meles\n",
    )
    assert (summary.images, summary.unmatched) == (2, 0)
    assert summary.notes[0].startswith("Not kept: Art, Scientific Name. Known labels")
    guarded = {one.name: one.holds_place for one in list_columns(session, pond[0].id)}
    assert guarded == {"Datum": False, "Uhrzeit": False, "Breitengrad": True, "Längengrad": True}
    image = pond[1][1]
    session.refresh(image)
    assert (image.latitude, image.longitude) == (47.006, 9.512)
    assert image.given["Breitengrad"] == 47.006  # degrees are no thousands: rounded, not withheld
    assert image.captured_at.isoformat() == "2025-03-28T05:00:00"
    assert is_in_degrees("Längengrad (WGS84)")
    for name in ("Koordinate_X", "Coordonnées", "Rechtswert"):
        assert may_hold_places(name)
    for name in ("Länge", "Breite", "Datum", "température"):  # a length is no longitude
        assert not may_hold_places(name)
    # As exiftool and camtrapR write it. Folders tell which image, and may be known labels.
    csv = "SourceFile,Directory,Make\n/data/site/IMG_0003.jpg,/data/site,Reconyx\n"
    assert add(session, pond, csv, "exif.csv").images == 1
    session.refresh(pond[1][3])
    assert pond[1][3].given == {"Make": "Reconyx"}


@pytest.mark.parametrize(
    ("labels", "known"),
    [
        ("Datei;Art\na/1.jpg;Fuchs\n", {"a/1.jpg": {"Fuchs"}}),
        ("File name,Common,Scientific_Name\n1.jpg,fox,Vulpes\n", {"1.jpg": {"Vulpes"}}),
    ],
)
def test_labels_have_columns_of_other_languages_and_spellings(labels, known):
    assert read_labels_data(labels.encode(), "labels.csv").rows == known


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("name,depth\nx,1\n", "no column that tells the image"),
        ("file,depth,depth\nx,1,2\n", "two columns depth"),
        ("file,,depth\nx,1,2\n", "Column 2"),
        ('file,depth\nIMG_0001.jpg,1\nIMG_0002.jpg,"2\nIMG_0003.jpg,3\n', "line 3 a quotation"),
        ("file,depth\nIMG_0001.jpg,1\nIMG_0002.jpg,2,3\n", "line 3 has 3 cells"),
        ("file,depth\nIMG_0001.jpg,1\nIMG_0002.jpg\n", "line 3 has 1 cell,"),
    ],
)
def test_table_that_cannot_be_used_says_why(session, pond, text, said):
    with pytest.raises(LabelsNotUsable, match=said):
        add(session, pond, text)
    assert read(session, pond) == [None] * 4
    assert describe_metadata(session, pond[0].id, page=1).tables == []
