"""The keyframes of a run directory, read one after the other."""

from collections.abc import Iterator, Sequence
from typing import overload

from slam.errors import SourceError
from slam.frames import Keyframe
from slam.io.run import KeyframeRecord, Run
from slam.mapping.fusion import AgreedView, FusionConfig, agreed_views, median_depth


class KeyframesOnDisk(Sequence[Keyframe]):
    """The keyframes of a run, each read from its files when it is asked for."""

    def __init__(self, run: Run) -> None:
        self._run, self._records = run, usable_records(run)

    def __len__(self) -> int:
        return len(self._records)

    @overload
    def __getitem__(self, index: int) -> Keyframe: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Keyframe]: ...

    def __getitem__(self, index: int | slice) -> Keyframe | Sequence[Keyframe]:
        if isinstance(index, slice):
            return [self._run.keyframe(record) for record in self._records[index]]
        return self._run.keyframe(self._records[index])


def usable_records(run: Run) -> list[KeyframeRecord]:
    """All keyframes, oldest first.

    Raises:
        SourceError: if there are none.
    """
    records = run.keyframe_records()
    if not records:
        raise SourceError(f"the map of {run.path} is empty: it has no keyframes")
    return records


def agreed(run: Run, config: FusionConfig) -> Iterator[AgreedView]:
    """Every keyframe with its agreed depth.

    Raises:
        SourceError: if a file is missing or damaged, or the map is empty.
    """
    return agreed_views(KeyframesOnDisk(run), config)


def typical_depth(run: Run, config: FusionConfig) -> float:
    """Of the confident pixels of the keyframes, map units.

    Raises:
        SourceError: if there are none.
    """
    depth = median_depth(KeyframesOnDisk(run), config)
    if not depth:
        raise SourceError(
            f"the map of {run.path} is empty: no keyframe has depth of confidence {config.min_confidence:g} or more"
        )
    return depth
