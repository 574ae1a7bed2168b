"""Refinement of a whole video, a stretch after the other, within the time that is given."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from slam.errors import OutputError
from slam.frames import Keyframe, Trajectory
from slam.reading import reason
from slam.refinement.clip import stretches
from slam.refinement.fine_tuning import TunedHead
from slam.refinement.refiner import RefineConfig, Refined, Refiner, Tools
from slam.sources import Source

LENGTH = 256  # frames of a stretch: at 256x192, with those beside it, a gigabyte of depth, flow and features
MARGIN = 32  # frames beside it
HURRY = 0.8  # share of a stretch's time after which its training ends


@dataclass(frozen=True)
class Deadlines:
    """When the work on a stretch ends."""

    stop: Callable[[], bool]
    end_s: float  # of the monotonic clock
    near_s: float

    def is_over(self) -> bool:
        """All of it."""
        return self.stop() or time.monotonic() > self.end_s

    def is_near(self) -> bool:
        """The training."""
        return self.stop() or time.monotonic() > self.near_s


def _told(tell: Callable[[str], None], frames: str, words: str) -> None:
    tell(f"{frames}: {words}")


def refine_video(
    name: str,
    source: Source,
    pixels: int,
    trajectory: Trajectory,
    keyframes: Sequence[Keyframe],
    tools: Tools,
    config: RefineConfig,
    folder: Path,
    minutes: float = float("inf"),
    tell: Callable[[str], None] = lambda words: None,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[Refined, range]]:
    """Refine the frames of a run that have a pose.

    Args:
        name, source, pixels, trajectory: see `stretches`.
        keyframes: final, with dense depth.
        folder: for what is kept while it goes on.
        minutes: after which the work ends with what there is.

    Yields:
        a stretch, and which of its frames belong to it.
    """
    total, done, begin = len(trajectory), 0, time.monotonic()
    head: TunedHead | None = None
    for number, stretch in enumerate(stretches(name, source, pixels, trajectory, LENGTH, MARGIN)):
        now = time.monotonic()
        share = min(len(stretch.own) / max(total - done, 1), 1.0)
        left = 60 * minutes - (now - begin)
        own = folder / f"stretch-{number:03d}"
        try:
            own.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot make {own}: {reason(error)}") from error
        if config.mode == "train" and tools.prior is not None and head is None:
            head = TunedHead(tools.prior, stretch.clip.K)
        elif head is not None:
            head.done = 0  # goes on from what the stretch before has taught
        until = Deadlines(stop, now + share * left, now + HURRY * share * left)
        words = partial(_told, tell, f"frames {done} to {done + len(stretch.own)} of {total}")
        refiner = Refiner(stretch.clip, keyframes, tools, config, own, words, until.is_over, until.is_near)
        refined = refiner.run(head)
        done += len(stretch.own)
        yield refined, stretch.own
        del refiner, refined  # a stretch is a third of the memory
