"""Networks small enough to be trained in a test."""

from slam.networks.encoder import EncoderConfig
from slam.networks.motion import MotionNetConfig
from slam.networks.prior import PriorNetConfig
from slam.networks.stereo import StereoNetConfig
from slam.networks.storage import NetworkConfig

TINY = NetworkConfig(
    "tiny",
    64,
    48,
    EncoderConfig(8, 16, 24, blocks_4=1, blocks_8=1, matching=24, stereo=8, image=8),
    MotionNetConfig(hidden=16, motion=16, levels=2, radius=2),
    StereoNetConfig(groups=4, width=8, planes=16),
    PriorNetConfig(12, 16, 24, 24),
)
