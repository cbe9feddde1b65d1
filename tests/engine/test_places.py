"""Places on a map."""

import numpy as np

from app.engine.places import merge_places


def test_neighbours_become_one_point_and_the_fullest_comes_first():
    latitudes = np.array([50.0, 50.001, 51.0, 52.0])
    longitudes = np.array([4.0, 4.001, 4.0, 4.0])
    assert merge_places(latitudes, longitudes, np.array([1, 1, 5, 2])).tolist() == [1, 1, 0, 2]


def test_one_place_is_one_point_and_none_is_none():
    same = np.array([51.2, 51.2])
    assert merge_places(same, same, np.array([3, 4])).tolist() == [0, 0]
    assert merge_places(np.empty(0), np.empty(0), np.empty(0, np.int64)).tolist() == []


def test_a_degree_of_longitude_is_short_in_the_north():
    """At 60 degrees north it is half as long: what merges there stays apart at the equator."""
    longitudes = np.array([0.0, 0.019, 1.0])
    counts = np.ones(3, np.int64)
    north = merge_places(np.array([60.0, 60.0, 60.6]), longitudes, counts)
    assert north[0] == north[1]
    equator = merge_places(np.array([0.0, 0.0, 0.6]), longitudes * 2, counts)
    assert equator[0] == equator[1]
    assert len(set(merge_places(np.array([0.0, 0.0, 0.6]), longitudes * [1, 2, 1], counts))) == 3


def test_a_hundred_places_stay_countable():
    rng = np.random.default_rng(0)
    points = merge_places(rng.uniform(50, 51, 100), rng.uniform(4, 5, 100), np.ones(100, np.int64))
    assert 60 < len(set(points.tolist())) <= 100
