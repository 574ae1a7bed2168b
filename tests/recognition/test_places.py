"""The index of places: as good as asking all of them, whatever comes and goes."""

import pytest

from slam.frames import Image, Keypoints
from slam.recognition.keypoints import detect_keypoints, rank_places
from slam.recognition.places import SHORTLIST, PlaceIndex
from slam.sources.demo import DemoConfig, DemoSource

COUNT = 2 * SHORTLIST


@pytest.fixture(scope="module")
def walk() -> list[Keypoints]:
    """Of twice as many views of a hall as are short-listed."""
    source = DemoSource(DemoConfig(kind="hall", variant="loop", frames=COUNT, width=160, height=120))
    return [detect_keypoints(Image(frame.image)) for frame in source]


def index_of(places: dict[int, Keypoints]) -> PlaceIndex:
    index = PlaceIndex()
    for n, keypoints in places.items():
        index.put(n, keypoints)
    return index


def test_a_small_map_is_ranked_as_a_whole(walk):
    places = dict(enumerate(walk[: SHORTLIST - 1]))
    assert index_of(places).rank(walk[30]) == rank_places(walk[30], places)


def test_the_first_of_many_is_the_first_of_all(walk):
    """Each view asks all but its neighbours; one with nearly as many votes of all is as good."""
    index = index_of(dict(enumerate(walk)))
    for n in range(0, COUNT, 5):
        near = range(max(0, n - 2), min(COUNT, n + 3))
        for m in near:
            index.forget(m)
        found = index.rank(walk[n])
        expected = rank_places(walk[n], {m: k for m, k in enumerate(walk) if m not in near})
        assert len(found) <= SHORTLIST and found[0][1] > 0.8 * expected[0][1]
        assert dict(expected)[found[0][0]] > 0.8 * expected[0][1]
        for m in near:
            index.put(m, walk[m])


def test_only_earlier_places_are_asked(walk):
    index = index_of(dict(enumerate(walk)))
    assert index.rank(walk[80])[0][0] == 80  # itself
    assert index.rank(walk[80], among=range(75))[0][0] < 75
    assert index.rank(walk[80], among=range(0)) == []


def test_what_is_forgotten_is_not_found_again(walk):
    index = index_of(dict(enumerate(walk)))
    assert index.rank(walk[10])[0][0] == 10
    index.forget(10)
    assert len(index) == COUNT - 1 and 10 not in dict(index.rank(walk[10]))
    index.put(10, walk[10])
    assert index.rank(walk[10])[0][0] == 10


def test_many_places_with_nothing_to_see(walk):
    index = index_of({n: Keypoints.none() for n in range(COUNT)})
    assert index.rank(walk[0]) == [] and index.rank(Keypoints.none()) == []
    index.put(COUNT, walk[0])
    assert index.rank(walk[0]) == [(COUNT, len(walk[0].uv))]


def test_the_same_map_gives_the_same_answer(walk):
    first, second = (index_of(dict(enumerate(walk))) for _ in range(2))
    assert first.rank(walk[50], among=range(40)) == second.rank(walk[50], among=range(40))
