"""Which topics of a bag are the camera: its images, its calibration, its depth."""

import logging
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from slam.errors import SourceError, UsageError, listed
from slam.geometry.camera import Camera
from slam.io.calibration import camera_of
from slam.sources.bags.messages import ENCODINGS, Decoder, Message, MessageError
from slam.sources.bags.pixels import COMPRESSED, IMAGE, ImageForm, form_of
from slam.sources.bags.storage import Storage, Topic

log = logging.getLogger(__name__)

CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
DEPTH_NAME = re.compile(r"(^|[/_])(depth|disparity)([/_]|$)")
ALIGNED_NAME = re.compile(r"aligned|registered")


@dataclass(frozen=True)
class ImageTopic:
    """A topic with images, and what they are like."""

    topic: Topic
    form: ImageForm | None  # None: none of them can be used
    frame_id: str = ""
    problem: str = ""

    @property
    def name(self) -> str:
        """Of the topic."""
        return self.topic.name

    @property
    def base(self) -> str:
        """The name without its transport: raw and compressed images of one camera share it."""
        return re.sub(r"/(compressed|compressedDepth)$", "", self.name)

    @property
    def is_depth(self) -> bool:
        """True where the encoding says so, or the name of a topic without colour."""
        if self.form is None:
            return False
        return self.form.is_depth or (self.form.is_gray and DEPTH_NAME.search(self.name) is not None)

    def __str__(self) -> str:
        kind = self.topic.type.rpartition("/")[2]
        return f"{self.name} ({kind}, {self.form or self.problem}, {self.topic.count})"


@dataclass(frozen=True)
class Contents:
    """What a bag shows of cameras."""

    images: list[ImageTopic]
    infos: dict[str, Any]  # the first CameraInfo of each topic


def survey(storage: Storage, topics: Sequence[Topic], decoder: Decoder, wanted: str | None, name: str) -> Contents:
    """Look at the first readable message of each topic with images or calibration.

    Args:
        wanted: the topic that the user named: of others only depth is looked at.

    Raises:
        SourceError: if there are no images.
        UsageError: if the topic named is not one of images.
    """
    readable = {t.name: t for t in topics if t.count and t.encoding in ENCODINGS}
    images = {
        n: ImageTopic(t, None, problem="unreadable") for n, t in readable.items() if t.type in (IMAGE, COMPRESSED)
    }
    if not images:
        if not topics:
            raise SourceError(f"{name} has no message that can be read: it is empty or damaged")
        raise SourceError(f"{name} has no images; its topics: {listed(map(_words, topics)) or 'none'}")
    if wanted is not None:
        wanted = _named(wanted, topics, images, name)
        images = {n: t for n, t in images.items() if n == wanted or DEPTH_NAME.search(n)}
    infos: dict[str, Any] = {}
    names = {*images, *(n for n, t in readable.items() if t.type == CAMERA_INFO)}
    missing = set(names)
    for raw in storage.messages(names):
        if raw.topic not in missing:
            continue
        try:
            message = decoder.decode(raw)
            if raw.topic in images:
                images[raw.topic] = _seen(images[raw.topic], message)
            else:
                infos[raw.topic] = message.content
            missing.discard(raw.topic)
        except MessageError as error:
            if raw.topic in images:
                images[raw.topic] = replace(images[raw.topic], problem=str(error))
        if not missing:
            break
    return Contents(list(images.values()), infos)


def chosen_images(images: Sequence[ImageTopic], wanted: str | None, name: str) -> ImageTopic:
    """The topic to track: that of the user, else the only one in colour, else the only one in gray.

    Raises:
        SourceError: if none can be used.
        UsageError: if there are several, or that of the user shows depth.
    """
    if wanted is not None:
        return _of_user(next(t for t in images if t.name.strip("/") in _spellings(wanted)), name)
    usable = [t for t in images if t.form is not None and not t.is_depth]
    colored = [t for t in usable if t.form is not None and not t.form.is_gray]
    cameras: dict[str, ImageTopic] = {}
    for image in colored or usable:
        if image.base not in cameras or image.topic.type == IMAGE:  # the same images, without loss
            cameras[image.base] = image
    all_images = listed(map(str, images))
    if not cameras:
        raise SourceError(f"{name} has no images that can be used: {all_images}")
    if len(cameras) > 1:
        raise UsageError(f"{name} has several topics with images, name one by --topic: {all_images}")
    found = next(iter(cameras.values()))
    others = listed(str(t) for t in images if t is not found)
    log.info("%s: using %s%s", name, found, f"; there are also {others}" if others else "")
    return found


def chosen_depth(images: Sequence[ImageTopic], color: ImageTopic, name: str) -> ImageTopic:
    """The topic with depth of the size of the images, aligned to them as far as one can tell.

    Raises:
        SourceError: if there is none.
    """
    depths = [t for t in images if t.is_depth]
    if not depths:
        raise SourceError(f"{name} has no depth to use; its images: {listed(map(str, images))}")
    assert color.form is not None
    size = (color.form.width, color.form.height)
    fitting = [t for t in depths if t.form is not None and (t.form.width, t.form.height) == size]
    if not fitting:
        raise SourceError(
            f"the depth of {name} is not aligned to {color}: {listed(map(str, depths))}; record depth that "
            "is registered to colour, or leave out --use-depth on"
        )
    found = max(
        fitting,
        key=lambda t: (t.frame_id == color.frame_id, bool(ALIGNED_NAME.search(t.name)), t.topic.type == IMAGE),
    )
    log.info("%s: depth from %s", name, found)
    if found.frame_id and color.frame_id and found.frame_id != color.frame_id:
        log.warning(
            "%s has its depth in the frame %s, its colour in %s: taken as aligned, since the sizes agree; wrong where "
            "the recorder did not register it",
            *(name, found.frame_id, color.frame_id),
        )
    return found


def camera_info_of(image: ImageTopic, infos: dict[str, Any]) -> tuple[str, Any] | None:
    """The calibration in the namespace of an image topic, with its name; None if there is none."""
    space = image.base.rpartition("/")[0]
    for name in (f"{image.base}/camera_info", f"{space}/camera_info"):
        if name in infos:
            return name, infos[name]
    return None


def camera_from_info(info: Any, topic: str, image: ImageTopic) -> Camera | None:
    """The camera of the images as they are: full-size calibration, cut to its region and binned.

    Args:
        info: sensor_msgs/CameraInfo.
        topic: its name.

    Returns:
        None, with a WARNING, where the camera was never calibrated.

    Raises:
        CalibrationError: if it describes no camera, or a lens that is not known.
    """
    K = [float(x) for x in (info.K if hasattr(info, "K") else info.k)]  # upper case in ROS 1
    D = [float(x) for x in (info.D if hasattr(info, "D") else info.d)]
    P = [float(x) for x in (info.P if hasattr(info, "P") else info.p)]
    model = str(info.distortion_model)
    if "rect" in image.name.rpartition("/")[2] or "rect" in image.base.rpartition("/")[2]:
        intrinsics, D, model = [P[0], P[5], P[2], P[6]], [], ""  # of the rectified images
    else:
        intrinsics = [K[0], K[4], K[2], K[5]]
    if intrinsics[0] == 0:
        log.warning("%s is of a camera that was never calibrated (focal length 0); it is not used", topic)
        return None
    camera = camera_of(model, int(info.width), int(info.height), intrinsics, D, topic)
    roi = info.roi
    if roi.width and roi.height:
        camera = replace(
            camera,
            width=int(roi.width),
            height=int(roi.height),
            cx=camera.cx - int(roi.x_offset),
            cy=camera.cy - int(roi.y_offset),
        )
    x, y = max(int(info.binning_x), 1), max(int(info.binning_y), 1)
    return camera if (x, y) == (1, 1) else camera.resized(camera.width // x, camera.height // y)


def _named(wanted: str, topics: Sequence[Topic], images: Collection[str], name: str) -> str:
    """The topic of images that the user means."""
    spellings = _spellings(wanted)
    found = [image for image in images if image.strip("/") in spellings]
    if found:
        return min(found, key=lambda n: n.strip("/") != spellings[0])
    other = next((t for t in topics if t.name.strip("/") == spellings[0]), None)
    if other is not None:
        why = "has no messages" if not other.count else f"is of type {other.type} ({other.encoding})"
        raise UsageError(f"--topic {wanted} of {name} {why}; topics with images: {listed(images)}")
    raise UsageError(f"{name} has no topic {wanted}; topics with images: {listed(images)}")


def _spellings(wanted: str) -> list[str]:
    """The topic without its slash, and its compressed form."""
    return [wanted.strip("/"), f"{wanted.strip('/')}/compressed"]


def _of_user(image: ImageTopic, name: str) -> ImageTopic:
    if image.form is None:
        raise SourceError(f"no image of {image.name} in {name} can be used: {image.problem}")
    if image.is_depth and (image.form.encoding.lower() != "16uc1" or DEPTH_NAME.search(image.name)):
        raise UsageError(f"--topic {image.name} of {name} shows depth ({image.form}): name a topic with images")
    return image


def _seen(image: ImageTopic, message: Message) -> ImageTopic:
    return replace(image, form=form_of(message, image.topic.type), frame_id=message.frame_id)


def _words(topic: Topic) -> str:
    return f"{topic.name} ({topic.type}{'' if topic.encoding in ENCODINGS else f' in {topic.encoding}'}, {topic.count})"
