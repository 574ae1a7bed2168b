"""Frames of ROS 1 bags, ROS 2 bags and MCAP files."""

import logging
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path

import numpy as np

from slam.errors import SourceError
from slam.frames import Frame
from slam.geometry.camera import Camera
from slam.sources.bags.choice import camera_from_info, camera_info_of, chosen_depth, chosen_images, survey
from slam.sources.bags.messages import Decoder, Message, MessageError
from slam.sources.bags.pixels import MILLIMETRES, depth_of, rgb_of
from slam.sources.bags.storage import open_storage
from slam.sources.depth_format import DepthFormat
from slam.sources.faults import Faults
from slam.sources.sequence import ALL_FRAMES, OWN_CAMERA, CameraChoice, FrameWindow

log = logging.getLogger(__name__)

STAMPS_SEEN = 10  # messages at the begin by which the clock is chosen
RESTART_NS = 10**9  # a stamp that is so much earlier than the last means that the clock began anew
PAIR_NS = 20_000_000  # between an image and its depth
WAIT_NS = 500_000_000  # of recorded time, for the depth of an image
MAX_WAITING = 60  # images


@dataclass(frozen=True, eq=False)
class Shot:
    """An image, and its depth where it has one."""

    image: Message | None  # None: damaged
    depth: Message | None = None


class BagSource:
    """Frames of one image topic, read one at a time. Every iteration starts from the first frame of the window."""

    live = False

    def __init__(
        self,
        path: Path,
        window: FrameWindow = ALL_FRAMES,
        choice: CameraChoice = OWN_CAMERA,
        with_depth: bool | None = None,
        topic: str | None = None,
        depth_scale: float | None = None,
    ) -> None:
        """Find the topics and the camera.

        Args:
            with_depth: deliver the depth nearest in time, at most 0.02 s away, each used once; None: no depth.
            depth_scale: value of one metre in depth of integers; None: 1000, as ROS has it.
            topic: of the images; None: the only one in colour, else the only one.

        Raises:
            SourceError: if it is no bag, rosbags is missing, or it has no images (or depth) that can be used.
            UsageError: if it has several image topics and none is named, or another kind is.
            CalibrationError: if the calibration is unreadable, for other images, or of a lens that is not known.
        """
        self.name = str(path)
        self.skipped = 0
        self._faults = Faults(log)
        self._window = window
        self._depth_scale = DepthFormat(MILLIMETRES, is_stated=True).rescaled(depth_scale, f"ROS, {path},").scale
        self._is_damage_told = False
        self._storage = open_storage(path)
        topics = self._storage.topics()
        self._decoder = Decoder(topics)
        contents = survey(self._storage, topics, self._decoder, topic, self.name)
        self._images = images = chosen_images(contents.images, topic, self.name)
        self._depths = chosen_depth(contents.images, images, self.name) if with_depth else None
        assert images.form is not None
        self._form = images.form
        if images.form.bits > 8:
            log.info("%s: brightness of %d bits, brought to 8", self.name, images.form.bits)
        total = images.topic.count
        self.count: int | None = len(window.indices(total))
        if self.count == 0:
            raise SourceError(f"--start {window.start} is past the end of {path}: {images.name} has {total} images")
        own: list[Path | Camera] = []
        info = None if choice.is_given else camera_info_of(images, contents.infos)
        if info is not None and (camera := camera_from_info(info[1], info[0], images)) is not None:
            own.append(camera)
        self.camera = choice.camera(images.form.width, images.form.height, own, self.name)
        self._by_header = self._header_is_usable()

    def __iter__(self) -> Iterator[Frame]:
        self.skipped = 0
        clock = Clock(self.name)
        delivered = without_depth = 0
        for index, shot in enumerate(self._shots()):
            if not self._is_before_end(index):
                break
            try:
                time_ns = clock.time_ns(self._time_ns(shot.image), shot.image.bag_ns) if shot.image else None
                if not self._is_taken(index):
                    continue
                image = self._image(shot.image, time_ns)
                depth = self._depth(shot.depth)
            except MessageError as error:
                fault = f"skipped an image of {self._images.name}: {error}"
                self._faults.add(fault, fault)
                self.skipped += 1
                continue
            assert time_ns is not None
            without_depth += depth is None
            yield Frame(delivered, time_ns, image, self.camera, depth)
            delivered += 1
        else:
            self._report_damage(delivered)
        self._report(delivered, without_depth)

    def close(self) -> None:
        """Nothing stays open between iterations."""

    def _is_before_end(self, index: int) -> bool:
        length = self._window.max_frames
        return length is None or index < self._window.start + length

    def _is_taken(self, index: int) -> bool:
        return index >= self._window.start and (index - self._window.start) % self._window.stride == 0

    def _time_ns(self, message: Message) -> int:
        return message.header_ns if self._by_header else message.bag_ns

    def _image(self, message: Message | None, time_ns: int | None) -> np.ndarray:
        """RGB of the size of the first one; raises MessageError."""
        if message is None:
            raise MessageError("the message is damaged")
        if time_ns is None:
            raise MessageError("its time stamp is not later than the one before")
        image = rgb_of(message, self._images.topic.type, self._form.bits)
        height, width = image.shape[:2]
        if (width, height) != (self._form.width, self._form.height):
            raise MessageError(f"it is {width}x{height}, the first is {self._form.width}x{self._form.height}")
        return image

    def _depth(self, message: Message | None) -> np.ndarray | None:
        """None where there is none, or it cannot be read: a frame without depth is still a frame."""
        if message is None or self._depths is None:
            return None
        try:
            depth = depth_of(message, self._depths.topic.type, self._depth_scale)
        except MessageError:
            return None
        return depth if depth.shape == (self._form.height, self._form.width) else None

    def _shots(self) -> Iterator[Shot]:
        """All images in the order of the bag, each with the depth nearest in time."""
        if self._depths is None:
            yield from (Shot(message) for message in self._messages(self._images.name))
            return
        pairing = Pairing(self._time_ns)
        for message in self._messages(self._images.name, self._depths.name):
            if message is None:
                yield from pairing.ready(is_ended=True)
                yield Shot(None)
                continue
            pairing.add(message, message.topic == self._depths.name)
            yield from pairing.ready()
        yield from pairing.ready(is_ended=True)

    def _messages(self, images: str, depths: str = "") -> Iterator[Message | None]:
        """Decoded; None for an image whose message is damaged."""
        for raw in self._storage.messages({images, depths}):
            try:
                yield self._decoder.decode(raw)
            except MessageError:
                if raw.topic == images:
                    yield None

    def _header_is_usable(self) -> bool:
        """False, with a WARNING, where the headers have no stamps that increase: the time of recording is used."""
        seen = [m for m in islice(self._messages(self._images.name), STAMPS_SEEN) if m is not None]
        if all(a.header_ns < b.header_ns for a, b in pairwise(seen)) and all(m.header_ns > 0 for m in seen):
            return True
        if not all(a.bag_ns < b.bag_ns for a, b in pairwise(seen)):
            raise SourceError(
                f"{self.name} has no usable time stamps: neither those of {self._images.name} increase "
                "nor the times at which they were recorded"
            )
        log.warning(
            "the time stamps of %s in %s are zero or do not increase: using the times at which it was recorded",
            *(self._images.name, self.name),
        )
        return False

    def _report_damage(self, delivered: int) -> None:
        if self._storage.damage and not self._is_damage_told:
            self._is_damage_told = True
            log.warning("%s is not whole: %s; %d frames were read", self.name, self._storage.damage, delivered)

    def _report(self, delivered: int, without_depth: int) -> None:
        self._faults.end()
        if self._depths is not None and without_depth:
            log.warning("%d of %d frames of %s go without depth", without_depth, delivered, self.name)
        if delivered == 0:
            raise SourceError(f"no image of {self._images.name} in {self.name} could be read")


class Clock:
    """Stamps that increase: what comes late is left out; where a clock began anew, time goes on as it was recorded."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._shift_ns = 0
        self._last_ns: int | None = None
        self._last_bag_ns = 0

    def time_ns(self, stamp_ns: int, bag_ns: int) -> int | None:
        """The time of the next image; None if it is not later than the last one."""
        time_ns = stamp_ns + self._shift_ns
        if self._last_ns is not None and time_ns <= self._last_ns:
            if self._last_ns - time_ns < RESTART_NS:
                return None
            if self._shift_ns == 0:
                log.warning(
                    "the time stamps of %s jump back by %.1f s: time goes on as it was recorded",
                    *(self._name, (self._last_ns - time_ns) / 1e9),
                )
            time_ns = self._last_ns + max(bag_ns - self._last_bag_ns, 1)
            self._shift_ns = time_ns - stamp_ns
        self._last_ns, self._last_bag_ns = time_ns, bag_ns
        return time_ns


class Pairing:
    """Images and depths as they come, brought together by their times."""

    def __init__(self, time_ns: Callable[[Message], int]) -> None:
        self._time_ns = time_ns
        self._images: deque[Message] = deque()
        self._depths: list[Message] = []
        self._now_ns = 0  # by the time of recording

    def add(self, message: Message, is_depth: bool) -> None:
        """One more of either."""
        (self._depths if is_depth else self._images).append(message)
        self._now_ns = max(self._now_ns, message.bag_ns)

    def ready(self, is_ended: bool = False) -> Iterator[Shot]:
        """The images for which no closer depth can come."""
        while self._images and (is_ended or self._is_decided(self._images[0])):
            image = self._images.popleft()
            time_ns = self._time_ns(image)
            near = [d for d in self._depths if abs(self._time_ns(d) - time_ns) <= PAIR_NS]
            depth = min(near, key=lambda d: abs(self._time_ns(d) - time_ns)) if near else None
            self._depths = [d for d in self._depths if d is not depth and self._time_ns(d) > time_ns - PAIR_NS]
            yield Shot(image, depth)

    def _is_decided(self, image: Message) -> bool:
        has_later = any(self._time_ns(d) >= self._time_ns(image) for d in self._depths)
        return has_later or self._now_ns - image.bag_ns > WAIT_NS or len(self._images) > MAX_WAITING
