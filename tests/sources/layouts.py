"""Writers of the layouts that data sets have, each in its own axes, units and stamps, by formulas of their own."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from slam.frames import Frame
from slam.io.quaternion import quat_xyzw_from_matrix

Poses = np.ndarray  # (N, 4, 4) T_wc
FPS = 30


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    bgr = np.ascontiguousarray(pixels[..., ::-1]) if pixels.ndim == 3 else pixels
    assert cv2.imwrite(str(path), bgr)


def text(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


def words(values: Sequence[float] | np.ndarray) -> str:
    return " ".join(f"{x:.9g}" for x in np.ravel(values))


def quat_xyzw(R: np.ndarray) -> np.ndarray:
    return quat_xyzw_from_matrix(R[None])[0]


def calibration(path: Path, frame: Frame) -> None:
    """For layouts whose published camera has another size than these images."""
    c = frame.camera
    text(path / "calibration.yaml", f"width: {c.width}", f"height: {c.height}")
    with (path / "calibration.yaml").open("a") as file:
        file.write(f"calibration: [{c.fx}, {c.fy}, {c.cx}, {c.cy}]\n")


def units(depth: np.ndarray, scale: float) -> np.ndarray:
    return np.rint(depth * scale).astype(np.uint16)


def pinhole(frame: Frame) -> list[float]:
    c = frame.camera
    return [c.fx, c.fy, c.cx, c.cy]


def kitti(root: Path, frames: list[Frame], T_wc: Poses) -> Path:
    """Poses of the gray camera, 0.06 m to the right of the colour one whose images these are."""
    path = root / "dataset/sequences/07"
    fx, fy, cx, cy = pinhole(frames[0])
    beside = 0.06  # P2[0, 3] = fx * x of camera 0 in camera 2
    for n, frame in enumerate(frames):
        save(path / f"image_2/{n:06d}.png", frame.image)
    for name in ("image_0", "image_3"):
        save(path / name / "000000.png", np.zeros((4, 4), np.uint8))
    rows = {f"P{k}": [fx, 0, cx, fx * x, 0, fy, cy, 0, 0, 0, 1, 0] for k, x in enumerate((0.0, -0.54, beside, -0.47))}
    text(path / "calib.txt", *(f"{name}: {' '.join(f'{v:.12e}' for v in row)}" for name, row in rows.items()))
    text(path / "times.txt", *(f"{frame.time_ns / 1e9:.6e}" for frame in frames))
    T_wc = T_wc.copy()
    T_wc[:, :3, 3] += beside * T_wc[:, :3, 0]  # where camera 0 stands
    text(root / "dataset/poses/07.txt", *(words(T[:3]) for T in T_wc))
    return path


def tartanair(root: Path, frames: list[Frame], T_wc: Poses) -> Path:
    """The axes of the camera in the world, as columns forward, right, down; the world in north-east-down too."""
    path = root / "P003"
    north_east_down = np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])  # of the world's z, x, y
    for n, frame in enumerate(frames):
        save(path / f"image_left/{n:06d}_left.png", frame.image)
        (path / "depth_left").mkdir(exist_ok=True)
        np.save(path / f"depth_left/{n:06d}_left_depth.npy", frame.depth)
    lines = []
    for T in T_wc:
        right, down, forward = T[:3, :3].T
        R = north_east_down @ np.column_stack([forward, right, down])
        lines.append(f"{words(north_east_down @ T[:3, 3])} {words(quat_xyzw(R))}")
    text(path / "pose_left.txt", *lines)
    calibration(path, frames[0])
    return path


def scannet(root: Path, frames: list[Frame], T_wc: Poses) -> Path:
    """Depth of half the size; every second frame number."""
    path = root / "scene0001_00"
    fx, fy, cx, cy = pinhole(frames[0])
    K = np.array([[fx, 0, cx, 0], [0, fy, cy, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    half = K * [[0.5], [0.5], [1], [1]]
    half[:2, 2] = 0.5 * (K[:2, 2] + 0.5) - 0.5
    for n, (frame, T) in enumerate(zip(frames, T_wc)):
        save(path / f"color/{2 * n}.png", frame.image)
        save(path / f"depth/{2 * n}.png", units(frame.depth, 1000)[::2, ::2])
        text(path / f"pose/{2 * n}.txt", *(words(row) for row in T))
    for kind, matrix in (("color", K), ("depth", half)):
        text(path / f"intrinsic/intrinsic_{kind}.txt", *(words(row) for row in matrix))
        text(path / f"intrinsic/extrinsic_{kind}.txt", *(words(row) for row in np.eye(4)))
    return path


def replica(root: Path, frames: list[Frame], T_wc: Poses) -> Path:
    path = root / "Replica/room0"
    c = frames[0].camera
    for n, frame in enumerate(frames):
        save(path / f"results/frame{n:06d}.png", frame.image)
        save(path / f"results/depth{n:06d}.png", units(frame.depth, 6553.5))
    text(path / "traj.txt", *(words(T) for T in T_wc))
    camera = {"w": c.width, "h": c.height, "fx": c.fx, "fy": c.fy, "cx": c.cx, "cy": c.cy, "scale": 6553.5}
    text(root / "Replica/cam_params.json", json.dumps({"camera": camera}))
    return path


def icl(root: Path, frames: list[Frame], T_wc: Poses) -> Path:
    """The y axes of world and camera point the other way, which leaves two of the quaternion's parts reversed."""
    path = root / "living_room_traj0_frei_png"
    lines = []
    for n, (frame, T) in enumerate(zip(frames, T_wc), 1):
        save(path / f"rgb/{n}.png", frame.image)
        save(path / f"depth/{n}.png", units(frame.depth, 5000))
        x, y, z, w = quat_xyzw(T[:3, :3])
        lines.append(f"{n} {T[0, 3]:.9g} {-T[1, 3]:.9g} {T[2, 3]:.9g} {-x:.9g} {y:.9g} {-z:.9g} {w:.9g}")
    text(path / "livingRoom0.gt.freiburg", *lines)
    calibration(path, frames[0])
    return path


def opengl(T: np.ndarray) -> np.ndarray:
    """A pose whose columns are right, up and backward."""
    right, down, forward = T[:3, :3].T
    G = T.copy()
    G[:3, :3] = np.column_stack([right, -down, -forward])
    return G


def nerfstudio(root: Path, frames: list[Frame], T_wc: Poses) -> Path:
    """Frames in the order of their names as text, so 10 comes before 2."""
    path = root / "poly"
    c = frames[0].camera
    entries = []
    for n, (frame, T) in enumerate(zip(frames, T_wc)):
        save(path / f"images/frame_{n}.png", frame.image)
        save(path / f"depth/frame_{n}.png", units(frame.depth, 1000))
        entries.append(
            {
                "file_path": f"images/frame_{n}.png",
                "depth_file_path": f"depth/frame_{n}.png",
                "transform_matrix": opengl(T).tolist(),
            }
        )
    entries.sort(key=lambda entry: str(entry["file_path"]))
    camera = {"fl_x": c.fx, "fl_y": c.fy, "cx": c.cx + 0.5, "cy": c.cy + 0.5, "w": c.width, "h": c.height}
    camera["camera_model"] = "OPENCV"
    text(path / "transforms.json", json.dumps({**camera, "k1": 0.0, "k2": 0, "p1": 0, "p2": 0, "frames": entries}))
    return path


def record3d(root: Path, frames: list[Frame], T_wc: Poses) -> Path:
    path = root / "capture"
    c = frames[0].camera
    poses = []
    for n, (frame, T) in enumerate(zip(frames, T_wc)):
        save(path / f"rgb/{n}.png", frame.image)
        G = opengl(T)
        poses.append([*quat_xyzw(G[:3, :3]).tolist(), *G[:3, 3].tolist()])
    K = [c.fx, 0, 0, 0, c.fy, 0, c.cx, c.cy, 1]  # column by column
    text(path / "metadata.json", json.dumps({"w": c.width, "h": c.height, "K": K, "fps": FPS, "poses": poses}))
    return path


def openloris(root: Path, frames: list[Frame], T_wc: Poses) -> Path:
    """The truth is of the robot: the camera looks along its x axis, a step ahead and above."""
    path = root / "office1-1"
    c = frames[0].camera
    T_bc = np.array([[0.0, 0, 1, 0.2], [-1, 0, 0, 0.03], [0, -1, 0, 1.1], [0, 0, 0, 1]])
    T_bl = np.eye(4)
    T_bl[:3, 3] = 0.1, 0, 0.5
    color, depth, truth = [], [], []
    for frame, T in zip(frames, T_wc):
        stamp = f"{frame.time_ns / 1e9:.6f}"
        save(path / f"color/{stamp}.png", frame.image)
        save(path / f"aligned_depth/{stamp}.png", units(frame.depth, 1000))
        color.append(f"{stamp} color/{stamp}.png")
        depth.append(f"{stamp} aligned_depth/{stamp}.png")
        T_wb = T @ np.linalg.inv(T_bc)
        truth.append(f"{stamp} {words(T_wb[:3, 3])} {words(quat_xyzw(T_wb[:3, :3]))}")
    text(path / "color.txt", *color)
    text(path / "aligned_depth.txt", *depth)
    text(path / "groundtruth.txt", *truth)
    matrix = "!!opencv-matrix\n      rows: {0}\n      cols: 4\n      dt: d\n      data: [ {1} ]"
    text(
        path / "sensors.yaml",
        "%YAML:1.0",
        "d400_color_optical_frame:",
        f"   width: {c.width}\n   height: {c.height}\n   model: pinhole",
        "   intrinsics: " + matrix.format(1, ", ".join(str(x) for x in (c.fx, c.cx, c.fy, c.cy))),
    )
    entries = []
    frames_of = ((T_bl, "base_link", "mast"), (np.linalg.inv(T_bl) @ T_bc, "mast", "d400_color_optical_frame"))
    for T_pc, parent, child in frames_of:
        numbers = matrix.format(4, ", ".join(str(x) for x in T_pc.ravel()))
        entries.append(f" -\n   parent_frame: {parent}\n   child_frame: {child}\n   matrix: {numbers}")
    text(path / "trans_matrix.yaml", "%YAML:1.0", "trans_matrix:", *entries)
    return path


T_IC = np.array([[0.0, -1, 0, 0.05], [0.6, 0, -0.8, 0.02], [0.8, 0, 0.6, -0.03], [0, 0, 0, 1]])  # camera on the IMU


def of_imu(frames: list[Frame], T_wc: Poses, separator: str) -> list[str]:
    """Rows of ns, position and quaternion wxyz."""
    rows = []
    for frame, T in zip(frames, T_wc):
        T_wi = T @ np.linalg.inv(T_IC)
        x, y, z, w = quat_xyzw(T_wi[:3, :3])
        rows.append(separator.join([str(frame.time_ns + EPOCH_NS), *words([*T_wi[:3, 3], w, x, y, z]).split()]))
    return rows


EPOCH_NS = 1_520_530_308_000_000_000


def euroc(root: Path, frames: list[Frame], T_wc: Poses) -> Path:
    """With motion capture for truth, as TUM-VI has it."""
    path = root / "dataset-room1"
    rows = []
    for frame in frames:
        name = f"{frame.time_ns + EPOCH_NS}.png"
        save(path / f"mav0/cam0/data/{name}", frame.image)
        rows.append(f"{frame.time_ns + EPOCH_NS},{name}")
    text(path / "mav0/cam0/data.csv", "#timestamp [ns],filename", *rows)
    text(path / "mav0/mocap0/data.csv", "#timestamp [ns], p_RS_R_x [m]", *of_imu(frames, T_wc, ","))
    c = frames[0].camera
    text(
        path / "mav0/cam0/sensor.yaml",
        "T_BS:",
        f"  data: {T_IC.ravel().tolist()}",
        f"resolution: [{c.width}, {c.height}]",
        f"intrinsics: {pinhole(frames[0])}",
    )
    return path


def tumvi(root: Path, frames: list[Frame], T_wc: Poses) -> Path:
    path = root / "dataset-room2/dso"
    lines = []
    for frame in frames:
        name = str(frame.time_ns + EPOCH_NS)
        save(path / f"cam0/images/{name}.png", frame.image)
        lines.append(f"{name} {name[:-9]}.{name[-9:]} 4.2")
    text(path / "cam0/times.txt", "# id timestamp exposure", *lines)
    text(path / "gt_imu.csv", "# timestamp[ns],tx,ty,tz,qw,qx,qy,qz", *of_imu(frames, T_wc, ","))
    camchain(path / "camchain.yaml", frames[0])
    return path


def camchain(path: Path, frame: Frame) -> None:
    c = frame.camera
    text(
        path,
        "cam0:",
        f"  T_cam_imu: {np.linalg.inv(T_IC).tolist()}",
        "  camera_model: pinhole",
        "  distortion_coeffs: [0.0, 0.0, 0.0, 0.0]",
        "  distortion_model: radtan",
        f"  intrinsics: {pinhole(frame)}",
        f"  resolution: [{c.width}, {c.height}]",
    )


@dataclass(frozen=True)
class Layout:
    write: Callable[[Path, list[Frame], Poses], Path]  # gives the folder of the recording
    images: str  # where its images lie
    has_stamps: bool = False  # those of the frames
    depth_scale: float = 0  # value of one metre; 0: none is written


LAYOUTS = {
    "kitti": Layout(kitti, "image_2", has_stamps=True),
    "tartanair": Layout(tartanair, "image_left", depth_scale=1e9),
    "scannet": Layout(scannet, "color", depth_scale=1000),
    "replica": Layout(replica, "results", depth_scale=6553.5),
    "icl": Layout(icl, "rgb", depth_scale=5000),
    "nerfstudio": Layout(nerfstudio, "images", depth_scale=1000),
    "record3d": Layout(record3d, "rgb"),
    "openloris": Layout(openloris, "color", has_stamps=True, depth_scale=1000),
    "euroc": Layout(euroc, "mav0/cam0/data"),
    "tumvi": Layout(tumvi, "cam0/images"),
}
