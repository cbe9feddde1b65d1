"""Tables brought beside the images: matching, kinds, what replaces what, and what is listed."""

import pytest
from sqlalchemy import select

from app.errors import LabelsNotUsable
from app.metadata import add_table, describe_metadata, forget_column, list_columns
from app.tables import Image
from tests.factories import make_collection, make_images, make_person


@pytest.fixture
def pond(session):
    collection = make_collection(session)
    images = make_images(session, collection, 4)
    from app.tables import ImagePath

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
        "IMG_0001.JPG;;;7;2024-05-02;\n"  # the name's letters differ: no such image
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
        (3, "the collection has no such image"),
        (5, "2 images have this name: write their path"),
        (6, "line 2 is about the same image and was kept"),
    ]
    assert page.images_without == 2


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


def test_known_labels_are_not_kept_beside_the_images(session, pond):
    summary = add(session, pond, "file,Species,depth\nIMG_0001.jpg,heron,3\n")
    assert read(session, pond)[1] == {"depth": 3}
    assert "Species" in summary.notes[0]


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
