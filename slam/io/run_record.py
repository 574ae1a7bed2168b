"""What `run.json` says of a run: its source, so that the frames can be opened again, its system and its outcome."""

from dataclasses import dataclass, field

from slam.geometry.camera import Camera
from slam.timing import StageTime


@dataclass(frozen=True)
class Conditioning:
    """What is done to the images of a source before they are used."""

    image_size: tuple[int, int]  # width and height as stored
    crop: tuple[int, int, int, int] | None = None  # left, top, width, height of the part that is used
    levels: tuple[float, float] | None = None  # stored values that become black and white
    mask: str | None = None  # file, of the part that is used: white shows the scene


@dataclass(frozen=True)
class SourceRecord:
    """Where the frames of a run came from; `slam.sources.reopened` opens them again."""

    name: str  # as the user named it
    kind: str  # key of `slam.sources.SOURCES`, "demo" or "camera"
    path: str  # absolute; of a camera or a video on the web its address, secrets as ***
    camera: Camera  # of the frames as delivered, before preparation
    start: int = 0  # first frame used; this and the next two count frames of the recording
    stride: int = 1
    max_frames: int | None = None
    fps: float | None = None  # given for images and videos; None: by the recording's own stamps
    topic: str | None = None  # of the images in a ROS bag, as the user named it
    with_depth: bool | None = None
    depth_scale: float | None = None  # value of one metre in its depth, where the user gave it
    conditioning: Conditioning | None = None
    first_ns: int | None = None  # stamps of the first and the last frame that the system took
    last_ns: int | None = None


@dataclass(frozen=True)
class SystemRecord:
    """What tracked and mapped."""

    tracking: str  # correspondence
    mapping: str
    stereo: str
    threads: bool
    live: bool
    device: str = "cpu"
    weights: str | None = None  # name of their file
    weights_sha256: str | None = None


@dataclass(frozen=True)
class RecordingRecord:
    """What `--record` kept of a camera."""

    path: str
    frames: int
    dropped: int  # the disk was slower than the camera
    error: str | None = None


@dataclass(frozen=True)
class Outcome:
    """How a run ended and what its backend did."""

    end: str  # "complete", "stopped by the user" (", and again": unadjusted), "crashed", or what went wrong
    loops: int = 0  # between active keyframes
    adjustments_skipped: int = 0  # of the whole map, too large for that while the run went on
    backend_windows_skipped: int = 0  # keyframes of a camera that the backend had no time for when they were made
    backend_jobs_deferred: int = 0  # dense depth and loop searches that had to wait
    recording: RecordingRecord | None = None


@dataclass(frozen=True)
class MapRecord:
    """A map that nothing joined to the others, each in a world and a unit of its own: its files in the directory of the
    run."""

    frames: int  # with a pose in it
    keyframes: int
    scale_source: str
    trajectory: str
    keyframe_trajectory: str
    listing: str
    cloud: str


@dataclass(frozen=True)
class RunRecord:
    """The whole of `run.json`."""

    version: str  # of the program
    source: SourceRecord
    system: SystemRecord
    outcome: Outcome
    scale_source: str
    frames_seen: int
    frames_tracked: int
    frames_lost: int
    frames_dropped: int
    frames_skipped: int
    keyframes: int
    keyframes_on_disk: int
    seconds: float
    fps: float
    maps: tuple[MapRecord, ...] = ()  # that with most frames first: its files are those of a run with one map alone
    stages: tuple[StageTime, ...] = ()
    missing: dict[str, str] = field(default_factory=dict)  # file -> why it is not there
