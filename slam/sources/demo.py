"""A rendered hand-held sequence with known poses: needs no data, camera or network."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from slam.errors import ConfigError
from slam.frames import Frame, Trajectory
from slam.geometry.camera import Camera, ray_map
from slam.geometry.lens import FISHEYE, project
from slam.rendering.effects import convolve, streak_kernels
from slam.rendering.movers import MOVER_KINDS, Movers, make_movers
from slam.rendering.paths import PATH_VARIANTS, between, handheld_path, shaken
from slam.rendering.renderer import render, render_primitives
from slam.rendering.scenes import SCENE_KINDS, Scenes, make_scene, stack

START_NS = 1_000_000_000  # time of the first frame
BATCH = 4  # frames rendered at a time
INSTANTS = 9  # of an exposure, whose images are averaged; the one in the middle has the depth
FISHEYE_COEFFICIENTS = (0.02, -0.004, 0.001, -0.0002)  # Kannala-Brandt k1 to k4
MOVERS = ("none", *MOVER_KINDS)


@dataclass(frozen=True)
class DemoConfig:
    """What to render."""

    kind: str = "living"  # one of SCENE_KINDS
    variant: str = "loop"  # one of PATH_VARIANTS
    seed: int = 0
    frames: int = 300
    width: int = 320  # pixels
    height: int = 240
    fps: float = 30.0
    hfov_deg: float = 62.0  # horizontal field of view
    noise: float = 0.01  # standard deviation of the sensor's noise, of full scale
    exposure_drift_stops: float = 0.15  # slow change of exposure
    blur_px: float = 0.45  # standard deviation of the lens blur
    readout_s: float = 0.0  # time from the first row's exposure to the last's: a rolling shutter, about its middle row
    exposure_s: float = 0.0  # time over which what a pixel sees is averaged, about the stamp: motion blur
    shake_deg: float = 0.0  # standard deviation of a shake of 3 to 6 Hz, about each axis
    k1: float = 0.0  # first radial coefficient of the lens; hfov_deg is what the focal length says without it
    fisheye: bool = False  # a Kannala-Brandt lens, hfov_deg along its rows, instead of a pinhole
    movers: str = "none"  # one of MOVERS: what moves through the scene; still while a frame is read out
    mover_share: float = 0.0  # of the image that movers cover, mean over all frames; 0: one or more are mostly in sight

    def __post_init__(self) -> None:
        if self.kind not in SCENE_KINDS:
            raise ConfigError(f"demo.kind must be one of {', '.join(SCENE_KINDS)}, got '{self.kind}'")
        if self.variant not in PATH_VARIANTS:
            raise ConfigError(f"demo.variant must be one of {', '.join(PATH_VARIANTS)}, got '{self.variant}'")
        if self.movers not in MOVERS:
            raise ConfigError(f"demo.movers must be one of {', '.join(MOVERS)}, got '{self.movers}'")
        if not 0 <= self.mover_share <= 0.6 or (self.mover_share and self.movers == "none"):
            raise ConfigError(f"demo.mover_share must be in 0..0.6, and 0 without movers, got {self.mover_share}")
        for name in ("frames", "width", "height", "fps"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"demo.{name} must be positive, got {getattr(self, name)}")
        if not 1 <= self.hfov_deg <= 150:
            raise ConfigError(f"demo.hfov_deg must be in 1..150, got {self.hfov_deg}")
        if (self.fisheye or self.k1) and self.movers != "none":
            raise ConfigError("demo.movers are for a pinhole, not for demo.fisheye or demo.k1")
        if self.fisheye and self.k1:
            raise ConfigError("demo.fisheye has coefficients of its own; leave out demo.k1")
        if min(self.noise, self.exposure_drift_stops, self.blur_px) < 0:
            raise ConfigError("demo.noise, demo.exposure_drift_stops and demo.blur_px must be at least 0")
        for name in ("readout_s", "exposure_s"):
            if not 0 <= getattr(self, name) <= 1 / self.fps:
                raise ConfigError(f"demo.{name} must be from 0 to the time of a frame, got {getattr(self, name)}")
        if not 0 <= self.shake_deg <= 10:
            raise ConfigError(f"demo.shake_deg must be in 0..10, got {self.shake_deg}")


class DemoSource:
    """Renders frame after frame; iterating again gives the same bytes."""

    live = False

    def __init__(self, config: DemoConfig = DemoConfig(), with_depth: bool = False, device: str = "cpu") -> None:
        self.config = config
        self.with_depth = with_depth
        self.count: int | None = config.frames
        self.skipped = 0
        self.camera = _camera(config)
        self._rays = ray_map(self.camera) if self.camera.is_distorted else None
        if self._rays is not None and bool(self._rays.isnan().any()):
            raise ConfigError(
                f"demo.hfov_deg {config.hfov_deg:g}: the corners see what is beside the camera; take less"
            )
        generator = torch.Generator().manual_seed(config.seed)
        self._scenes = stack([make_scene(config.kind, generator, device)])
        self._T_wc = handheld_path(self._scenes, config.frames, config.fps, generator, config.variant)
        if config.shake_deg:
            self._T_wc = shaken(self._T_wc, config.fps, config.shake_deg, generator)
        self.movers: Movers | None = None
        if config.movers != "none":
            self.movers = make_movers(
                *(config.movers, self._scenes, self._T_wc, config.fps, self.camera, generator),
                config.mover_share or None,
            )
        self._time_ns = START_NS + np.round(np.arange(config.frames) * 1e9 / config.fps).astype(np.int64)
        phase = torch.linspace(0, 4 * torch.pi, config.frames)
        self._exposure = 2 ** (config.exposure_drift_stops * torch.sin(phase))
        self._lens = streak_kernels(torch.tensor([config.blur_px]), torch.zeros(1), torch.zeros(1))

    def __len__(self) -> int:
        return self.config.frames

    def __iter__(self) -> Iterator[Frame]:
        generator = torch.Generator().manual_seed(self.config.seed + 1)
        for start in range(0, len(self), BATCH):
            yield from self._rendered(start, min(start + BATCH, len(self)), generator)

    def mover_masks(self, start: int, stop: int) -> np.ndarray:
        """(n, H, W) bool of the frames start .. stop - 1: the pixel centre shows something that moves."""
        c = self.config
        if self.movers is None:
            return np.zeros((stop - start, c.height, c.width), bool)
        with torch.inference_mode():
            scenes, T_wc = self._views(start, stop)
            rows = self._row_poses(start, stop)
            shown = render_primitives(scenes, T_wc, self.camera.matrix(), c.height, c.width, row_T_wc=rows)
            return (shown >= self._scenes.kind.shape[1]).cpu().numpy()

    def _rendered(self, start: int, stop: int, generator: torch.Generator) -> list[Frame]:
        c = self.config
        with torch.inference_mode():
            scenes, T_wc = self._views(start, stop)
            K = self.camera.matrix()
            instants = INSTANTS if c.exposure_s else 1
            views = [
                render(
                    *(scenes, T_wc, K, c.height, c.width),
                    row_T_wc=self._row_poses(start, stop, c.exposure_s * ((n + 0.5) / instants - 0.5)),
                    rays_c=self._rays,
                )
                for n in range(instants)
            ]
            image = torch.stack([view.image for view in views]).mean(0)
            image = convolve(image, self._lens.to(image).expand(stop - start, -1, -1)).cpu()
            image = image * self._exposure[start:stop, None, None, None]
            image = image + c.noise * torch.randn(image.shape, generator=generator)
            pixels = (255 * image.clamp(0, 1)).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
            depth = views[instants // 2].depth.cpu().numpy() if self.with_depth else [None] * len(pixels)
        return [
            Frame(start + k, int(self._time_ns[start + k]), pixels[k], self.camera, depth[k])
            for k in range(stop - start)
        ]

    def _views(self, start: int, stop: int) -> tuple[Scenes, Tensor]:
        """Of frames start .. stop - 1: one scene, or one each; poses."""
        scenes = self._scenes if self.movers is None else self.movers.within(self._scenes, slice(start, stop))
        return scenes, self._T_wc[start:stop]

    def _row_poses(self, start: int, stop: int, shift_s: float = 0.0) -> Tensor | None:
        """(B, H, 4, 4) of the rows of frames, `shift_s` after the middle of their exposure; None where nothing moves
        meanwhile."""
        c = self.config
        if not (c.readout_s or c.exposure_s) or c.frames == 1:
            return None
        rows_s = c.readout_s * ((torch.arange(c.height, dtype=torch.float64) + 0.5) / c.height - 0.5)
        return between(self._T_wc, torch.arange(start, stop)[:, None] + c.fps * (rows_s + shift_s))

    def groundtruth(self) -> Trajectory:
        """True poses of all frames, metres."""
        return Trajectory(self._time_ns.copy(), self._T_wc.numpy().copy())

    def close(self) -> None:
        """Nothing is open."""


def _camera(config: DemoConfig) -> Camera:
    half = float(np.radians(config.hfov_deg) / 2)
    centre = ((config.width - 1) / 2, (config.height - 1) / 2)
    if not config.fisheye:
        focal = 0.5 * config.width / float(np.tan(half))
        distortion = (config.k1, 0.0, 0.0, 0.0) if config.k1 else ()
        return Camera(config.width, config.height, focal, focal, *centre, distortion)
    edge = torch.tensor([np.sin(half), 0.0, np.cos(half)], dtype=torch.float64)
    focal = 0.5 * config.width / float(project(edge, FISHEYE_COEFFICIENTS, FISHEYE)[0])
    return Camera(config.width, config.height, focal, focal, *centre, FISHEYE_COEFFICIENTS, FISHEYE)
