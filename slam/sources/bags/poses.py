"""Ground truth in bags: topics with poses. Whose poses they are the bag does not say; the user must know."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from slam.errors import SourceError, UsageError
from slam.frames import Trajectory
from slam.io.poses import from_quaternions
from slam.sources.bags.messages import ENCODINGS, Decoder, MessageError
from slam.sources.bags.storage import Topic, open_storage

log = logging.getLogger(__name__)

# position and orientation of a message
POSES: dict[str, Callable[[Any], tuple[Any, Any]]] = {
    "geometry_msgs/msg/PoseStamped": lambda m: (m.pose.position, m.pose.orientation),
    "geometry_msgs/msg/PoseWithCovarianceStamped": lambda m: (m.pose.pose.position, m.pose.pose.orientation),
    "geometry_msgs/msg/TransformStamped": lambda m: (m.transform.translation, m.transform.rotation),
    "nav_msgs/msg/Odometry": lambda m: (m.pose.pose.position, m.pose.pose.orientation),
}


def read_poses(path: Path, topic: str | None = None) -> Trajectory:
    """The poses of a topic, taken as T_wc of the camera (INFO says so); stamps are those of the headers.

    Args:
        topic: None: the only one with poses.

    Raises:
        SourceError: if there are none, or it is no bag.
        UsageError: if there are several topics and none is named, or another kind is.
    """
    storage = open_storage(path)
    topics = storage.topics()
    chosen = _chosen([t for t in topics if t.type in POSES and t.encoding in ENCODINGS and t.count], topic, path)
    decoder = Decoder(topics)
    rows: dict[int, list[float]] = {}
    skipped = 0
    last_ns = -1
    for raw in storage.messages({chosen.name}):
        try:
            message = decoder.decode(raw)
        except MessageError:
            skipped += 1
            continue
        p, q = POSES[chosen.type](message.content)
        if message.header_ns <= last_ns:
            skipped += 1
            continue
        last_ns = message.header_ns
        rows[last_ns] = [p.x, p.y, p.z, q.x, q.y, q.z, q.w]
    if skipped or storage.damage:
        why = f"; the bag is not whole: {storage.damage}" if storage.damage else ""
        log.warning("skipped %d poses of %s that are damaged or not in order%s", skipped, chosen.name, why)
    if not rows:
        raise SourceError(f"no pose of {chosen.name} in {path} can be read")
    log.info("%s: the %d poses of %s are taken as those of the camera", path, len(rows), chosen.name)
    values = np.array(list(rows.values()), np.float64)
    usable, T_wc = from_quaternions(values[:, :3], values[:, 3:], f"{chosen.name} in {path}")
    return Trajectory(np.array(list(rows), np.int64)[usable], T_wc)


def _chosen(topics: list[Topic], wanted: str | None, path: Path) -> Topic:
    listed = ", ".join(f"{t.name} ({t.type}, {t.count})" for t in topics)
    if not topics:
        raise SourceError(f"{path} has no ground truth: no topic of {', '.join(POSES)}")
    if wanted is None and len(topics) > 1:
        raise UsageError(f"{path} has several topics with poses, name one by --topic: {listed}")
    found = [t for t in topics if wanted is None or t.name.strip("/") == wanted.strip("/")]
    if not found:
        raise UsageError(f"{path} has no topic {wanted} with poses; those are: {listed}")
    return found[0]
