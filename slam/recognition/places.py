"""Which keyframes show the place of an image: an index of their keypoints, as quick in a large map as in a small one.

Words propose, keypoints decide: of many places those that share most rare words with the image are short-listed, and
only their keypoints vote. A word is a pair of centres, one for each half of a descriptor; the centres are descriptors
of the map itself, drawn at random, which short-list as well as clusters of them.

Reference: Sivic & Zisserman, Video Google, ICCV 2003; Jegou et al., Product quantization for nearest neighbor search,
PAMI 2011.
"""

from collections.abc import Collection, Iterable, Mapping

import numpy as np

from slam.frames import Keyframe, Keypoints
from slam.recognition.keypoints import KeypointConfig, rank_places

SHORTLIST = 50  # places whose keypoints vote
CENTRES = 48  # of each half of a descriptor
WORDS = CENTRES**2


class PlaceIndex:
    """Holds the keypoints of places by their ids. Each of its owners has one of its own, on its own thread."""

    def __init__(self, config: KeypointConfig = KeypointConfig()) -> None:
        self.config = config
        self._places: dict[int, Keypoints] = {}
        self._words: dict[int, np.ndarray] = {}  # of those short-listed from so far; each word once
        self._centres: np.ndarray | None = None  # (2, CENTRES, 64), once there are more than SHORTLIST places

    def __len__(self) -> int:
        return len(self._places)

    def put(self, place_id: int, keypoints: Keypoints) -> None:
        """Hold a place; its keypoints never change."""
        self._places[place_id] = keypoints

    def forget(self, place_id: int) -> None:
        """Hold a place no longer."""
        del self._places[place_id]
        self._words.pop(place_id, None)

    def follow(self, keyframes: Mapping[int, Keyframe]) -> None:
        """Hold these keyframes and nothing else; those without keypoints are left for later."""
        for n in self._places.keys() - keyframes.keys():
            self.forget(n)
        for n in sorted(keyframes.keys() - self._places.keys()):
            keypoints = keyframes[n].keypoints
            if keypoints is not None:
                self.put(n, keypoints)

    def rank(self, keypoints: Keypoints, among: Collection[int] | None = None) -> list[tuple[int, int]]:
        """The short-listed places that an image shows, as `rank_places` has them.

        Args:
            among: only places with these ids; None: all.
        """
        ids = sorted(n for n in self._places if among is None or n in among)
        if len(ids) > SHORTLIST:
            ids = self._shortlisted(keypoints, ids)
        return rank_places(keypoints, {n: self._places[n] for n in ids}, self.config)

    def _shortlisted(self, keypoints: Keypoints, ids: list[int]) -> list[int]:
        """Those of the places with most words of the image, by the cosine of their tf-idf vectors."""
        if self._centres is None:
            self._centres = _drawn_centres(self._places[n] for n in ids)
        if self._centres is None:
            return ids
        for n in self._places.keys() - self._words.keys():
            self._words[n] = _words(self._places[n], self._centres)
        words = [self._words[n] for n in ids]
        word, owner = np.concatenate(words), np.repeat(np.arange(len(ids)), [len(w) for w in words])
        weight = np.log(len(ids) / np.maximum(np.bincount(word, minlength=WORDS), 1)) ** 2
        shared = np.zeros(WORDS)
        shared[_words(keypoints, self._centres)] = 1
        dot = np.bincount(owner, (weight * shared)[word], len(ids))
        norm = np.sqrt(np.bincount(owner, weight[word], len(ids)))
        order = np.argsort(-dot / np.maximum(norm, 1e-9), kind="stable")[:SHORTLIST]
        return [ids[n] for n in np.sort(order)]


def _drawn_centres(places: Iterable[Keypoints]) -> np.ndarray | None:
    """(2, CENTRES, 64) halves of random descriptors; None if there are too few."""
    pool = np.concatenate([place.descriptors for place in places])
    if len(pool) < CENTRES:
        return None
    generator = np.random.default_rng(0)  # the same map gives the same words
    return np.stack([half[generator.choice(len(pool), CENTRES, replace=False)] for half in np.split(pool, 2, axis=1)])


def _words(keypoints: Keypoints, centres: np.ndarray) -> np.ndarray:
    """Words (at most one of each) of an image."""
    nearest = [
        (half @ c.T - 0.5 * np.square(c).sum(1)).argmax(1)
        for half, c in zip(np.split(keypoints.descriptors, 2, axis=1), centres, strict=True)
    ]
    return np.unique(nearest[0] * CENTRES + nearest[1])
