"""Hand-held camera paths through a scene: smooth, with tremor, clear of geometry, looking at things."""

from collections.abc import Callable

import torch
from torch import Tensor

from slam.errors import ConfigError
from slam.geometry import se3
from slam.rendering.clips import clip_poses
from slam.rendering.primitives import Scene, Scenes, distance, stack
from slam.rendering.renderer import render
from slam.rendering.viewpoints import (
    PREVIEW,
    default_intrinsics,
    look_at,
    preview_intrinsics,
    random_targets,
    texture_score,
    uniform,
)

__all__ = ["PATH_VARIANTS", "between", "clip_poses", "handheld_path", "shaken"]

MAX_SPEED = 0.6  # metres a second
MAX_TURN_RAD = 0.9  # radians a second
CLEARANCE = 0.25  # metres to any surface
ATTEMPTS = 6
TURNING, STEP = 0.6, 0.8  # share of the time that a turn takes, metres walked after it
CONTROL_RATE = 10  # control points of a path a second
SHAKE_HZ, SHAKE_WAVES = (3.0, 6.0), 4  # of a shaken camera, about each axis

Sketch = tuple[Tensor, Tensor]  # positions and targets, both (n, 3) world


def handheld_path(
    scene: Scene | Scenes,
    count: int,
    fps: float,
    generator: torch.Generator,
    variant: str = "loop",
    tremor: float = 1.0,
) -> Tensor:
    """A path as of somebody walking about with a camera.

    Args:
        scene: one scene (or a batch of one).
        count: poses, >= 1.
        fps: poses a second.
        variant: one of PATH_VARIANTS; "loop" ends where it began.
        tremor: 1 for a usual hand, 0 for none; "turn" has none.

    Returns:
        (count, 4, 4) float64 T_wc on the CPU, nowhere nearer than 0.25 m to a surface.

    Raises:
        ConfigError: for an unknown variant, no poses, or a scene without room for a camera.
    """
    if variant not in _SKETCHES:
        raise ConfigError(f"no path variant '{variant}'; there are {', '.join(PATH_VARIANTS)}")
    if count < 1 or fps <= 0:
        raise ConfigError(f"a path needs count >= 1 and fps > 0, got {count} and {fps}")
    scenes = stack([scene]) if isinstance(scene, Scene) else scene
    control = max(8, round(count / fps * CONTROL_RATE))
    best, best_score = None, -1.0
    for _ in range(ATTEMPTS):
        position, target = _SKETCHES[variant](scenes, control, generator)
        closed = variant == "loop"
        position, target = _limited(scenes, position, target, count / fps, closed)
        score = _judge(scenes, look_at(position, target))
        if score > best_score:
            best, best_score = (position, target), score
    assert best is not None
    T_wc = look_at(_resampled(best[0], count), _resampled(best[1], count))
    if tremor > 0 and variant != "turn":
        T_wc = T_wc @ se3.exp(tremor * _tremor(count, fps, variant == "loop", generator))
    clear = distance(scenes, T_wc[None, :, :3, 3].to(scenes.device, torch.float32)).min()
    if clear < CLEARANCE:
        raise ConfigError(f"no room for a camera in this scene: {float(clear):.2f} m to a surface; try another seed")
    return T_wc


def shaken(T_wc: Tensor, fps: float, deviation_deg: float, generator: torch.Generator) -> Tensor:
    """A path (n, 4, 4) whose camera shakes: turns of some waves of SHAKE_HZ about each axis, of that deviation."""
    n = len(T_wc)
    hertz = uniform(generator, 3, SHAKE_WAVES, low=SHAKE_HZ[0], high=SHAKE_HZ[1])
    cycles = (hertz * n / fps).round()  # whole ones: a loop stays closed
    phase = cycles * torch.arange(n, dtype=torch.float64)[:, None, None] / n + uniform(generator, 3, SHAKE_WAVES)
    angle_deg = deviation_deg * (2 / SHAKE_WAVES) ** 0.5 * torch.sin(2 * torch.pi * phase).sum(-1)  # (n, 3)
    return T_wc @ se3.exp(torch.cat([torch.zeros_like(angle_deg), torch.deg2rad(angle_deg)], -1))


def between(T_wc: Tensor, at: Tensor) -> Tensor:
    """Poses (..., 4, 4) of a path (n, 4, 4), n > 1, at places `at` (...) counted in poses; beyond its ends it goes
    on as before."""
    n = at.floor().long().clamp(0, len(T_wc) - 2)
    steps = se3.log(se3.inverse(T_wc[:-1]) @ T_wc[1:])
    return T_wc[n] @ se3.exp((at - n)[..., None] * steps[n])


def _room(scenes: Scenes) -> tuple[Tensor, Tensor]:
    return scenes.centre[0, 0].double().cpu(), scenes.half[0, 0].double().cpu()


def _free_point(scenes: Scenes, generator: torch.Generator, low: float = 1.0, high: float = 1.7) -> Tensor:
    """(3,) a clear place, at eye height `low` .. `high` above the floor; the clearest of some."""
    centre, half = _room(scenes)
    point = centre + half * uniform(generator, 40, 3, low=-0.8, high=0.8)
    point[:, 1] = -uniform(generator, 40, low=low, high=min(high, 1.8 * float(half[1])))
    clear = distance(scenes, point[None].to(scenes.device, torch.float32))[0].cpu().double()
    return point[(clear.clamp_max(0.8) + 0.3 * uniform(generator, 40)).argmax()]


def _loop(scenes: Scenes, n: int, generator: torch.Generator) -> Sketch:
    """Round the middle of the room looking across it or outwards; in a narrow room, there and back."""
    centre, half = _room(scenes)
    angle = 2 * torch.pi * (torch.arange(n) / n + uniform(generator, 1)) * torch.sign(uniform(generator, 1) - 0.5)
    height = -float(uniform(generator, 1, low=1.1, high=1.6))
    radius = half[[0, 2]] * uniform(generator, 2, low=0.4, high=0.6)
    circle = torch.stack([angle.cos() * radius[0], torch.zeros(n), angle.sin() * radius[1]], -1).double()
    position = circle + torch.stack([centre[0], torch.tensor(height).double(), centre[2]])
    position[:, 1] += 0.12 * torch.sin(2 * angle)
    if n / CONTROL_RATE * MAX_TURN_RAD < 7:  # no time for a full turn: look one way, swaying
        sway = torch.pi * uniform(generator, 1, low=-1, high=1) + 0.04 * n / CONTROL_RATE * torch.sin(angle)
        return position, position + 3 * torch.stack([sway.sin(), 0.1 + 0 * sway, sway.cos()], -1)
    across = -1.0 if float(uniform(generator, 1)) < 0.7 and float(half.min()) > 1.3 else 2.5
    target = centre + across * (circle * torch.tensor([1.0, 0.0, 1.0]))
    target[:, 1] = -0.8 + 0.3 * torch.sin(angle + 1)
    return position, target


def _orbit(scenes: Scenes, n: int, generator: torch.Generator) -> Sketch:
    """An arc round one thing, there and half back."""
    target = random_targets(scenes, 12, generator)[0]
    stand = torch.stack([_free_point(scenes, generator, 1.0, 1.6) for _ in range(4)])
    reach = (stand[:, None] - target[None]).norm(dim=-1)
    pick = int((reach - 1.6).abs().argmin())
    start, goal = stand[pick // 12], target[pick % 12]
    arm = start - goal
    sway = 0.8 * torch.sin(torch.linspace(-1.3, 2.6, n).double()) * torch.sign(uniform(generator, 1) - 0.5)
    omega = torch.zeros(n, 3, dtype=torch.float64)
    omega[:, 1] = sway
    position = goal + (se3.so3_exp(omega) @ arm) * (1 + 0.15 * torch.sin(1.7 * sway))[:, None]
    position[:, 1] += 0.1 * torch.sin(2 * sway)
    return position, goal.expand(n, 3)


def _sweep(scenes: Scenes, n: int, generator: torch.Generator) -> Sketch:
    """Standing at one place, swaying, looking from thing to thing."""
    stand = _free_point(scenes, generator)
    position = stand + 0.25 * _smooth_noise(n, n / 3, generator)
    goals = random_targets(scenes, 6, generator)[0]
    azimuth = torch.atan2(goals[:, 0] - stand[0], goals[:, 2] - stand[2])
    return position, _steps(goals[azimuth.argsort()][:4], n)


def _walk(scenes: Scenes, n: int, generator: torch.Generator) -> Sketch:
    """From place to place through the room."""
    places = torch.stack([_free_point(scenes, generator) for _ in range(4)])
    order = [0]
    while len(order) < len(places):
        rest = [i for i in range(len(places)) if i not in order]
        order.append(min(rest, key=lambda i: float((places[i] - places[order[-1]]).norm())))
    s = torch.linspace(0, len(places) - 1, n).double()
    low = s.floor().long().clamp_max(len(places) - 2)
    position = torch.lerp(places[order][low], places[order][low + 1], (s - low)[:, None])
    return position, _steps(random_targets(scenes, 4, generator)[0], n)


def _turn(scenes: Scenes, n: int, generator: torch.Generator) -> Sketch:
    """On a tripod, a quarter turn and back, then a step or two to the side, looking the same way."""
    stand = _free_point(scenes, generator)
    share = torch.linspace(0, 1, n).double() / TURNING
    turned = 0.3 * torch.pi * (1 - torch.cos(2 * torch.pi * share.clamp_max(1)))  # smoothing takes some of it
    angle = torch.pi * uniform(generator, 1, low=-1, high=1) + turned
    ahead = torch.stack([angle.sin(), 0.05 + 0 * angle, angle.cos()], -1)
    aside = torch.stack([angle.cos(), 0 * angle, -angle.sin()], -1)[-1]
    step = ((share - 1).clamp_min(0) / (1 / TURNING - 1))[:, None] * STEP * aside
    return stand + step, stand + step + 3 * ahead


_SKETCHES: dict[str, Callable[[Scenes, int, torch.Generator], Sketch]] = {
    "loop": _loop,
    "orbit": _orbit,
    "sweep": _sweep,
    "walk": _walk,
    "turn": _turn,
}
PATH_VARIANTS = tuple(_SKETCHES)


def _steps(points: Tensor, n: int) -> Tensor:
    """(n, 3) the points (k, 3) one after another, each for as long."""
    return points[(torch.arange(n) * len(points)) // n]


def _smoothed(values: Tensor, sigma: float, closed: bool) -> Tensor:
    """(n, 3) after a Gaussian of `sigma` samples, periodic or with the ends held."""
    reach = min(int(3 * sigma) + 1, len(values) - 1)
    t = torch.arange(-reach, reach + 1).double()
    kernel = torch.exp(-0.5 * (t / max(sigma, 1e-3)).square())
    padded = torch.nn.functional.pad(values.T[None], (reach, reach), mode="circular" if closed else "replicate")
    return torch.nn.functional.conv1d(padded, (kernel / kernel.sum()).expand(3, 1, -1), groups=3)[0].T


def _smooth_noise(n: int, period: float, generator: torch.Generator, closed: bool = False) -> Tensor:
    """(n, 3) noise of unit deviation and about that period in samples."""
    values = uniform(generator, n, 3, low=-1, high=1)
    values = _smoothed(values, period / 4, closed)
    return values / values.std(0).clamp_min(1e-9) if n > 1 else 0 * values


def _limited(scenes: Scenes, position: Tensor, target: Tensor, seconds: float, closed: bool) -> Sketch:
    """The sketch smoothed, pushed off surfaces, and no faster than a hand moves."""
    n = len(position)
    rate = n / seconds
    for _ in range(12):
        position = _smoothed(_pushed(scenes, position), 0.35 * rate, closed)
        if distance(scenes, position[None].to(scenes.device, torch.float32)).min() > CLEARANCE + 0.1:
            break
    target = _smoothed(target, 0.8 * rate, closed)
    fastest = float(position.diff(dim=0).norm(dim=-1).max()) * rate
    # shrinking towards the clearest point keeps the shape, and ends clear of everything
    clear = distance(scenes, position[None].to(scenes.device, torch.float32))[0].cpu()
    anchor = position[clear.argmax()]
    shrink = min(1.0, MAX_SPEED / max(fastest, 1e-6))
    for _ in range(30):
        shrunk = anchor + shrink * (position - anchor)
        if distance(scenes, shrunk[None].to(scenes.device, torch.float32)).min() > CLEARANCE + 0.08:
            break
        shrink *= 0.85
    for _ in range(12):
        T = look_at(shrunk, target)
        if float(se3.angle_rad(se3.inverse(T[:-1]) @ T[1:]).max()) * rate < MAX_TURN_RAD:
            break
        # nearer to one common direction: the mean of the targets, pushed away from the camera
        middle = target.mean(0)
        target = middle + 0.8 * (target - middle)
        if not closed:
            target = _smoothed(target, 0.4 * rate, closed)
    return shrunk, target


def _pushed(scenes: Scenes, position: Tensor) -> Tensor:
    """Points moved off surfaces nearer than half a metre, along the gradient of the distance."""
    h = 0.05
    probes = torch.cat([torch.zeros(1, 3), h * torch.eye(3), -h * torch.eye(3)])
    points = (position[:, None].float() + probes).reshape(1, -1, 3).to(scenes.device)
    d = distance(scenes, points).view(-1, 7).cpu().double()
    gradient = (d[:, 1:4] - d[:, 4:]) / (2 * h)
    gradient = gradient / gradient.norm(dim=-1, keepdim=True).clamp_min(1e-6)
    return position + gradient * (0.5 - d[:, :1]).clamp(0, 0.3) * 0.5


def _judge(scenes: Scenes, T_wc: Tensor) -> float:
    """How much there is to see in the poorest tenth of a path."""
    views = T_wc[:: max(1, len(T_wc) // 16)]
    K = preview_intrinsics(default_intrinsics(192, 256), 192, 256)
    small = render(scenes, views, K, *PREVIEW)
    near_enough = (small.depth.flatten(1).median(1).values > 0.35).float()
    return float((texture_score(small.image) * near_enough).quantile(0.1))


def _resampled(values: Tensor, count: int) -> Tensor:
    """(n, 3) control points -> (count, 3) on a natural-looking C1 curve (Catmull-Rom), ends kept."""
    n = len(values)
    s = torch.linspace(0, n - 1, count, dtype=torch.float64)
    i = s.floor().long().clamp_max(n - 2)
    t = (s - i)[:, None]
    p = [values[(i + k).clamp(0, n - 1)] for k in (-1, 0, 1, 2)]
    a = 2 * p[1]
    b = p[2] - p[0]
    c = 2 * p[0] - 5 * p[1] + 4 * p[2] - p[3]
    d = -p[0] + 3 * p[1] - 3 * p[2] + p[3]
    return 0.5 * (a + t * (b + t * (c + t * d)))


def _tremor(count: int, fps: float, closed: bool, generator: torch.Generator) -> Tensor:
    """(count, 6) twists: a slow drift about 2 s, and a tremor of 0.3 s of 1 mm and 0.1 degrees."""
    slow = [_smooth_noise(count, 2.0 * fps, generator, closed) for _ in range(2)]
    quick = [_smooth_noise(count, 0.3 * fps, generator, closed) for _ in range(2)]
    return torch.cat([0.006 * slow[0] + 0.001 * quick[0], 0.008 * slow[1] + 0.0018 * quick[1]], -1)
