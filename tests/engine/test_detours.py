"""What detours show, on small indexes."""

import numpy as np
import pytest

from app.engine.answers import Answers
from app.engine.detours import DETOUR_REASONS, detour_rng, plan_detour
from app.engine.head import Head


@pytest.fixture
def index(make_index):
    angles = np.radians(np.arange(0, 90, 3))
    return make_index(np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32))


ANSWERS = Answers(np.array([10, 0]), np.array([1, -1], np.int8))


def plan(index, kind, *, size=5, head=None, anchor_row=None, seed=0):
    return plan_detour(
        kind, index, ANSWERS, head=head, size=size, rng=detour_rng(seed, 3), anchor_row=anchor_row
    )


def test_gap_shows_the_unanswered_images_nearest_to_its_anchor(index):
    shown = plan(index, "gap", size=4, anchor_row=11)
    assert shown.rows[:2].tolist() == [11, 12]  # 10 is answered
    assert set(shown.rows[2:].tolist()) == {9, 13}
    assert shown.sample is None
    assert DETOUR_REASONS["gap"] == "gap"


@pytest.mark.parametrize("kind", ["absence", "estimate"])
def test_sample_is_of_unanswered_images_and_says_its_chances(index, kind):
    head = Head(np.array([1.0, 0.0], np.float32), 0.0)
    sample = plan(index, kind, size=12, head=head)
    assert len(set(sample.rows.tolist())) == 12
    assert not {0, 10} & set(sample.rows.tolist())
    assert sample.sample.frame.tolist() == [row for row in range(30) if row not in (0, 10)]
    assert DETOUR_REASONS[kind] == "sample"
    assert ((sample.sample.chances > 0) & (sample.sample.chances <= 1)).all()
    again = plan(index, kind, size=12, head=head)
    assert again.rows.tolist() == sample.rows.tolist()
    assert plan(index, kind, size=12, head=head, seed=1).rows.tolist() != sample.rows.tolist()


def test_more_images_than_there_are_gives_all_of_them(index):
    assert len(plan(index, "absence", size=500).rows) == 28
    assert len(plan(index, "gap", size=500, anchor_row=3).rows) == 28


def test_what_cannot_be_planned_is_an_error(index):
    for kind in ("gap", "estimate", "guess"):
        with pytest.raises(ValueError, match=kind):
            plan(index, kind)
