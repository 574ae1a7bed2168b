"""Weights files: the networks of one profile in one safetensors file, with their configuration."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from slam.errors import ConfigError, WeightsError, check_range, shown
from slam.io.tensor_file import read_header, read_tensors, write_tensors
from slam.networks.encoder import EncoderConfig
from slam.networks.motion import FlowSE3, MotionNetConfig
from slam.networks.prior import PriorNet, PriorNetConfig
from slam.networks.stereo import StereoNet, StereoNetConfig
from slam.parsing import parse_json
from slam.settings import build_config

FORMAT = "v2d-slam networks"
FORMAT_VERSION = 4
WITHOUT_PRIOR = 3  # the version before: its prior network is untrained
MAX_SIDE = 4096  # pixels
MAX_WEIGHT = 1e5  # no more in half precision
WEIGHTS_DIR = Path(__file__).parent / "weights"


@dataclass(frozen=True)
class NetworkConfig:
    """What must be known to rebuild the networks of a weights file."""

    profile: str = "fast"
    width: int = 256  # image size the networks were trained for; others work, sides are multiples of 8
    height: int = 192
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    motion: MotionNetConfig = field(default_factory=MotionNetConfig)
    stereo: StereoNetConfig = field(default_factory=StereoNetConfig)
    prior: PriorNetConfig = field(default_factory=PriorNetConfig)

    def __post_init__(self) -> None:
        if self.width % 8 or self.height % 8:
            raise ConfigError(f"network size must be multiples of 8, got {self.width}x{self.height}")
        check_range(self, 8, MAX_SIDE, "width", "height")


PROFILES = {
    "fast": NetworkConfig(),
    "base": NetworkConfig(
        "base",
        320,
        240,
        EncoderConfig(64, 96, 128, blocks_4=2, blocks_8=3, image=32),
        MotionNetConfig(hidden=128, motion=96, levels=4),
        StereoNetConfig(width=32, planes=48, near_planes=24),
        PriorNetConfig(48, 64, 80, 104),
    ),
}


class Networks(nn.Module):
    """The networks of one profile; on the CPU and untrained, unless `load_networks` made them."""

    def __init__(self, config: NetworkConfig, file: Path | None = None) -> None:
        """`file`: that the weights were read from."""
        super().__init__()
        self.config, self.file = config, file
        self.motion = FlowSE3(config.encoder, config.motion)
        self.stereo = StereoNet(config.encoder, config.stereo)
        self.prior = PriorNet(config.encoder, config.prior)

    @property
    def pixels(self) -> int:
        """Of the images that they were trained for."""
        return self.config.width * self.config.height

    def sha256(self) -> str:
        """Of the file."""
        assert self.file is not None
        return hashlib.sha256(self.file.read_bytes()).hexdigest()

    def load_weights(self, weights: Mapping[str, Tensor], origin: str) -> None:
        """Copy weights, named as in `state_dict`, into the networks.

        Raises:
            WeightsError: if any is missing, unknown or has another shape; `origin` says where they came from.
        """
        wanted = self.state_dict()
        missing, unknown = sorted(wanted.keys() - weights.keys()), sorted(weights.keys() - wanted.keys())
        misshapen = [k for k in wanted.keys() & weights.keys() if wanted[k].shape != weights[k].shape]
        for problem, names in (("lacks", missing), ("has unknown", unknown), ("has misshapen", sorted(misshapen))):
            if names:
                more = f" and {len(names) - 3} more" if len(names) > 3 else ""
                raise WeightsError(f"{origin} {problem} weights {', '.join(names[:3])}{more}")
        with torch.no_grad():
            for name, tensor in wanted.items():
                tensor.copy_(weights[name])


def save_network(path: Path, config: NetworkConfig, weights: Mapping[str, Tensor], notes: Mapping[str, str]) -> None:
    """Write weights (named as in `Networks`) in half precision; `notes` go into the metadata. Replaces atomically."""
    metadata = {
        "format": FORMAT,
        "format_version": str(FORMAT_VERSION),
        "profile": config.profile,
        "config": json.dumps(asdict(config)),
        **notes,
    }
    write_tensors(path, {k: v.detach().half() for k, v in weights.items()}, metadata)


def weights_path(path_or_profile: str | Path) -> Path:
    """The file of a path, or of a profile's name.

    Raises:
        WeightsError: if there is no such file or profile.
    """
    path = Path(path_or_profile)
    if path.is_file():
        return path
    shipped = WEIGHTS_DIR / f"{path_or_profile}.safetensors"
    if shipped.is_file():
        return shipped
    names = sorted(p.stem for p in WEIGHTS_DIR.glob("*.safetensors")) or ["none"]
    raise WeightsError(f"no weights '{path_or_profile}': give a file, or a shipped profile ({', '.join(names)})")


def read_metadata(path_or_profile: str | Path) -> dict[str, str]:
    """Metadata of a weights file: format, profile, config (JSON) and the notes of its maker.

    Raises:
        WeightsError: if the file is missing, damaged, foreign, or of another format version.
    """
    path = weights_path(path_or_profile)
    try:
        metadata, _ = read_header(path)
    except (ValueError, OSError) as error:
        raise WeightsError(f"{path} is damaged or no safetensors file ({error}); fetch it again") from error
    if metadata.get("format") != FORMAT:
        raise WeightsError(f"{path} was not made for these networks (format: {shown(metadata.get('format'))})")
    if metadata.get("format_version") not in (str(FORMAT_VERSION), str(WITHOUT_PRIOR)):
        raise WeightsError(
            f"{path} has format version {metadata.get('format_version')}, this program reads {FORMAT_VERSION}"
        )
    return metadata


def read_config(metadata: Mapping[str, str]) -> NetworkConfig:
    """Network configuration out of a weights file's metadata.

    Raises:
        WeightsError: if it has unknown or wrong entries.
    """
    try:
        return build_config(NetworkConfig, parse_json(metadata["config"]))
    except (KeyError, ValueError, ConfigError) as error:
        raise WeightsError(f"the weights file has no usable network configuration ({error})") from error


def load_networks(path_or_profile: str | Path) -> Networks:
    """Networks with their weights, float32, in evaluation mode, on the CPU.

    Args:
        path_or_profile: a weights file, or the name of a shipped profile such as "fast".

    Raises:
        WeightsError: missing, damaged or foreign file; missing, unknown or misshapen weights are named.
    """
    path = weights_path(path_or_profile)
    metadata = read_metadata(path)
    config = read_config(metadata)
    try:
        networks = Networks(config, path)
        weights = {name: tensor.float() for name, tensor in read_tensors(path).items()}
    except (ValueError, OSError, ConfigError) as error:
        raise WeightsError(f"{path} is damaged ({error}); fetch it again") from error
    for name, tensor in weights.items():
        if not bool((tensor.abs() < MAX_WEIGHT).all()):  # NaN compares false
            raise WeightsError(f"{path} is damaged: the weights {name} are not finite; fetch it again")
    if metadata["format_version"] == str(WITHOUT_PRIOR):
        weights |= {name: value for name, value in networks.state_dict().items() if name.startswith("prior.")}
    networks.load_weights(weights, str(path))
    return networks.eval()
