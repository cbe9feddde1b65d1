"""Numbers look alike on every page: counts by `number` and `plural`, shares by `in_percent`."""

import re

import pytest

from app.database import PROJECT
from app.engine.numerals import in_percent, plural, spaced
from app.pages import rendering

TEMPLATES = sorted((PROJECT / "templates").glob("*.html"))

# How sure an interval is (`level`) has no decimals, and addresses have numbers without spaces.
SHARE_BY_HAND = re.compile(r"format\(100 \*(?![^)]*level)[^}]*")
COUNTS = r"_count|\.pages|\.total|\.positives|\.found|\.answered|\.confirmed"
COUNT_BY_HAND = re.compile(rf"\{{\{{ *[\w.]*(?:{COUNTS}) *\}}\}}")


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda template: template.name)
def test_templates_print_counts_and_shares_by_the_shared_filters(template):
    text = template.read_text()
    assert not SHARE_BY_HAND.findall(text)
    values = r'(?:value|max|min|data-[\w-]+)="[^"]*"'  # for machines, not for people
    assert not COUNT_BY_HAND.findall(re.sub(values, "", text))


@pytest.mark.parametrize("value", [0, 0.4, 7, 999, 1000, 8725, 1_203_442.6])
def test_pages_and_sentences_write_numbers_alike(value):
    assert rendering.number(value) == spaced(value)
    assert rendering.plural(int(value), "image") == plural(int(value), "image")


@pytest.mark.parametrize(
    ("share", "said"),
    [
        (0, "0"),
        (0.004, "0.4"),
        (0.07, "7"),
        (0.0949, "9.5"),
        (0.0996, "10"),
        (0.19, "19"),
        (1, "100"),
    ],
)
def test_small_shares_have_a_decimal(share, said):
    assert rendering.in_percent(share) == in_percent(share) == said
