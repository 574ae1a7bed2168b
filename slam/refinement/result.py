"""`RUN/refined/`: a run directory with the depth of every frame, its keyframes and cloud refined, and the scores."""

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch

from slam import __version__
from slam.frames import Keyframe
from slam.inv_depth import InvDepth
from slam.io.refined import FramesWriter
from slam.io.run import DEPTH_LEVELS, KEYFRAMES, RECORD, TRAJECTORY, Run, write_cloud, write_keyframes
from slam.io.run_directory import RunDirectory
from slam.io.run_record import RunRecord
from slam.mapping.fusion import fused_cloud
from slam.refinement.acceptance import HeldOut
from slam.refinement.refiner import RefineConfig, Refined
from slam.refinement.scores import consistency_scores, mean_scores
from slam.settings import dump_config

COPIED = (TRAJECTORY, KEYFRAMES, RECORD, "config.yaml")
COLOUR_RANGE = (0.01, 0.99)  # quantiles of the depth that get the first and the last colour
PROBED = 50  # keyframes that tell of them, at most


@dataclass(frozen=True)
class Verdict:
    """What the held-out pairs say of a stretch."""

    before: HeldOut
    after: HeldOut
    accepted: bool
    frames: int


class Result:
    """Takes stretches in order of time, writes their frames at once and the rest at the end."""

    def __init__(self, directory: RunDirectory, run: Run, record: RunRecord, keyframes: Sequence[Keyframe]) -> None:
        """`directory`: new; `record` and `keyframes`: of the run."""
        self.directory, self.run, self.record = directory, run, record
        self.keyframes = list(keyframes)
        self._verdicts: list[Verdict] = []
        self._scores: list[tuple[dict[str, Any], int]] = []
        near, middle, far = _depth_range(keyframes)
        K, size = keyframes[0].view.K, keyframes[0].view.image.size
        self._frames = FramesWriter(directory, K, size, DEPTH_LEVELS / (4 * middle), (near, far))
        self._moving = 0.0

    @property
    def accepted(self) -> bool:
        """True if any stretch is better than before."""
        return any(verdict.accepted for verdict in self._verdicts)

    def add(self, refined: Refined, own: range) -> None:
        """Write the frames of a stretch that belong to it."""
        self._verdicts.append(Verdict(*refined.held_out, refined.accepted, len(own)))
        self._scores.append((consistency_scores(refined), len(own)))
        self._moving += float((refined.static[own.start : own.stop] < 0.5).float().mean()) * len(own)
        after_of: dict[int, InvDepth] = {}
        for n in own:
            view = refined.clip.views[n]
            self._frames.add(view, refined.clip.T_wc[n], refined.before[n], refined.after[n])
            after_of[view.time_ns] = refined.after[n]
        for n, keyframe in enumerate(self.keyframes):
            after = after_of.get(keyframe.view.time_ns)
            if after is not None and refined.accepted:
                self.keyframes[n] = replace(keyframe, dense=after)

    def verdict(self) -> str:
        """What the held-out pairs say, in words."""
        before, after = self._held_out(as_written=self.accepted)
        if not before.pairs:
            return "no two of the frames held out could be compared"
        return (
            f"on {before.pairs} pairs of frames held out, depths differ by {100 * before.log_ratio:.2f} % before and "
            f"{100 * after.log_ratio:.2f} % after, images by {before.reprojection_px:.2f} px before and "
            f"{after.reprojection_px:.2f} px after"
        )

    def _held_out(self, as_written: bool) -> tuple[HeldOut, HeldOut]:
        """Mean before and after; `as_written` counts what was not used as it is in the files, unchanged."""
        after = [v.after if v.accepted or not as_written else v.before for v in self._verdicts]
        return _mean([v.before for v in self._verdicts]), _mean(after)

    def finish(self, config: RefineConfig, end: str, seconds: float) -> str:
        """Write the rest; returns a summary."""
        self._frames.close()
        for name in COPIED:
            self.directory.write(name, partial(shutil.copyfile, self.run.path / name))
        write_keyframes(self.directory, self.keyframes)
        header = f"v2d-refine {__version__}, {self.record.source.name}\nscale: {self.record.scale_source}"
        write_cloud(self.directory, fused_cloud(tuple(self.keyframes)), header)
        frames = sum(v.frames for v in self._verdicts)
        kept = sum(v.frames for v in self._verdicts if not v.accepted)
        numbers = mean_scores(self._scores)
        for name, held_out in zip(("before", "after"), self._held_out(as_written=True), strict=True):
            numbers[name]["held_out"] = asdict(held_out)
        numbers |= {
            "frames": frames,
            "frames_kept_as_they_were": kept,
            "moving_share": self._moving / max(frames, 1),
            "end": end,
            "seconds": round(seconds, 1),
            "settings": dump_config(config),
        }
        self.directory.write_json("metrics.json", {"refinement": numbers})
        rest = f"; {kept} of them stay as they were, as nothing better was found" if kept else ""
        return f"{frames} frames in {seconds:.0f} s{rest}; {self.verdict()}"

    def close(self) -> None:
        """End what is open."""
        self._frames.close()


def _mean(each: Sequence[HeldOut]) -> HeldOut:
    """Mean over stretches by their pairs."""
    pairs = sum(h.pairs for h in each)
    pixels = sum(h.reprojection_px * h.pairs for h in each) / max(pairs, 1)
    return HeldOut(pixels, sum(h.log_ratio * h.pairs for h in each) / max(pairs, 1), pairs)


def _depth_range(keyframes: Sequence[Keyframe]) -> tuple[float, float, float]:
    """Near, median and far depth of the map."""
    few = [k.dense.depth()[::8, ::8].flatten() for k in keyframes[:: -(-len(keyframes) // PROBED)]]
    depth = torch.cat(few)
    low, middle, high = depth[depth > 0].quantile(torch.tensor([COLOUR_RANGE[0], 0.5, COLOUR_RANGE[1]])).tolist()
    return low, middle, max(high, 1.01 * low)
