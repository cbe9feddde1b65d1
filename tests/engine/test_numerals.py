"""Numbers in sentences."""

from app.engine.numerals import plural, spaced


def test_thousands_are_apart_and_nouns_agree():
    assert [spaced(value) for value in (0, 999, 8_725, 1_234_567.4)] == [
        "0",
        "999",
        "8\u202f725",
        "1\u202f234\u202f567",
    ]
    assert plural(1, "image") == "1 image"
    assert plural(0, "image") == "0 images"
    assert plural(2_000, "image has", "images have") == "2\u202f000 images have"
