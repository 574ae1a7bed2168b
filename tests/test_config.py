"""The strict configuration loader."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Literal, get_type_hints

import pytest
import yaml

from slam.config import SlamConfig, build_config, dump_config, load_config
from slam.errors import ConfigError


class Mode(Enum):
    FAST = "fast"
    BASE = "base"


@dataclass(frozen=True)
class Tracker:
    max_iters: int = 8
    huber_px: float = 1.5
    damping: float = 1e-4
    size: tuple[int, int] = (320, 240)
    levels: tuple[float, ...] = (1.0, 0.5)
    flow: Literal["dis", "learned"] = "dis"
    mode: Mode = Mode.FAST
    seed: int | None = None
    is_verbose: bool = False
    name: str = "default"
    weights: Path | None = None

    def __post_init__(self) -> None:
        if self.huber_px <= 0:
            raise ConfigError(f"huber_px must be positive, got {self.huber_px}")


@dataclass(frozen=True)
class Whole:
    tracker: Tracker = field(default_factory=Tracker)
    threads: bool = True


def test_defaults_alone_build():
    assert load_config(Whole) == Whole()


def test_a_file_changes_only_what_it_names(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("tracker:\n  max_iters: 12\nthreads: false\n")
    assert load_config(Whole, path) == Whole(Tracker(max_iters=12), threads=False)


@pytest.mark.parametrize(
    ("setting", "name", "expected"),
    [
        ("damping=1e-8", "damping", 1e-8),  # text to PyYAML
        ("damping=1", "damping", 1.0),
        ("max_iters='8'", "max_iters", 8),
        ("max_iters=9.0", "max_iters", 9),
        ("size=[64, '48']", "size", (64, 48)),
        ("levels=[1, 2e-1, 3]", "levels", (1.0, 0.2, 3.0)),
        ("flow=learned", "flow", "learned"),
        ("mode=base", "mode", Mode.BASE),
        ("seed=3", "seed", 3),
        ("seed=null", "seed", None),
        ("seed=", "seed", None),
        ("is_verbose=true", "is_verbose", True),
        ("name=7", "name", "7"),
        ("name=a=b", "name", "a=b"),
        ("weights=x/y.safetensors", "weights", Path("x/y.safetensors")),
    ],
)
def test_values_take_the_type_of_their_field(setting, name, expected):
    value = getattr(load_config(Whole, overrides=[f"tracker.{setting}"]).tracker, name)
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("tracker.hubber_px=2", r"unknown setting tracker\.hubber_px; did you mean huber_px\?"),
        ("traker.huber_px=2", r"unknown setting traker; did you mean tracker\?"),
        ("tracker.zzz=2", r"tracker\.zzz; known here: damping, flow"),
        ("tracker.max_iters=8.5", r"tracker\.max_iters must be a whole number, got 8\.5"),
        ("tracker.max_iters=many", r"tracker\.max_iters must be a whole number, got 'many'"),
        ("tracker.max_iters=true", r"tracker\.max_iters must be a whole number, got True"),
        ("tracker.max_iters=.inf", r"tracker\.max_iters must be a whole number, got inf"),
        ("tracker.max_iters=null", r"tracker\.max_iters must be a whole number, got None"),
        ("tracker.damping=[1]", r"tracker\.damping must be a number, got \[1\]"),
        ("tracker.is_verbose=1", r"tracker\.is_verbose must be true or false, got 1"),
        ("tracker.is_verbose='true'", r"tracker\.is_verbose must be true or false, got 'true'"),
        ("tracker.size=[1, 2, 3]", r"tracker\.size must have 2 values, got 3"),
        ("tracker.size=[1, x]", r"tracker\.size\[1\] must be a whole number, got 'x'"),
        ("tracker.size=320x240", r"tracker\.size must be a list"),
        ("tracker.flow=lerned", r"tracker\.flow must be one of dis, learned, got 'lerned'"),
        ("tracker.mode=FAST", r"tracker\.mode must be one of fast, base, got 'FAST'"),
        ("tracker.seed=x", r"tracker\.seed must be a whole number, got 'x'"),
        ("tracker.name=[a]", r"tracker\.name must be text, got \['a'\]"),
        ("tracker.name=true", r"tracker\.name must be text, got True"),
        ("tracker.huber_px=-1", r"tracker: huber_px must be positive, got -1\.0"),
        ("tracker=5", r"tracker is a section of settings, got 5"),
        ("tracker.max_iters", r"section\.field=value, got 'tracker\.max_iters'"),
        ("tracker..max_iters=1", r"section\.field=value"),
        ("tracker.size=[1", r"tracker\.size is not readable"),
    ],
)
def test_bad_settings_are_refused_with_their_full_path(setting, message):
    with pytest.raises(ConfigError, match=message):
        load_config(Whole, overrides=[setting])


def test_overrides_win_over_the_file_and_later_over_earlier(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("tracker: {max_iters: 12, huber_px: 3}\n")
    config = load_config(Whole, path, ["tracker.max_iters=1", "tracker.max_iters=2"])
    assert (config.tracker.max_iters, config.tracker.huber_px) == (2, 3.0)


def test_a_file_inherits_section_by_section(tmp_path):
    (tmp_path / "base.yaml").write_text("tracker: {max_iters: 12, huber_px: 3}\nthreads: false\n")
    (tmp_path / "sub").mkdir()
    child = tmp_path / "sub" / "child.yaml"
    child.write_text("inherit: ../base.yaml\ntracker: {max_iters: 5}\n")
    assert load_config(Whole, child) == Whole(Tracker(max_iters=5, huber_px=3.0), threads=False)
    child.write_text("inherit: ../base.yaml\ntracker:\n")
    assert load_config(Whole, child) == Whole(Tracker(max_iters=12, huber_px=3.0), threads=False)


def test_unusable_files_are_refused(tmp_path):
    loop = tmp_path / "loop.yaml"
    loop.write_text("inherit: loop.yaml\n")
    with pytest.raises(ConfigError, match="inherits from itself"):
        load_config(Whole, loop)
    with pytest.raises(ConfigError, match=r"no configuration at .*none\.yaml"):
        load_config(Whole, tmp_path / "none.yaml")
    bad = tmp_path / "bad.yaml"
    bad.write_text("a: [1\n")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_config(Whole, bad)
    bad.write_text("- 1\n")
    with pytest.raises(ConfigError, match="mapping of settings, got list"):
        load_config(Whole, bad)
    bad.write_text("")
    assert load_config(Whole, bad) == Whole()
    bad.write_text("tracker:\n")  # a section whose lines are all commented out
    assert load_config(Whole, bad) == Whole()


def test_dump_round_trips_through_yaml():
    config = Whole(Tracker(damping=1e-8, mode=Mode.BASE, seed=4, levels=(), weights=Path("a/b")), threads=False)
    text = yaml.safe_dump(dump_config(config))
    assert build_config(Whole, yaml.safe_load(text)) == config
    assert build_config(Whole, dump_config(Whole())) == Whole()


def test_a_field_without_default_must_be_set():
    @dataclass(frozen=True)
    class Needs:
        size: int

    with pytest.raises(ConfigError, match="size has no default"):
        load_config(Needs)


# the settings of the system


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["depth.plane_sweep.noise=2"], r"depth\.plane_sweep\.noise has no effect unless depth\.stereo is plane_sweep"),
        (["correspondence.learned.updates=4"], r"correspondence\.learned\.updates has no effect unless"),
        (["correspondence.mapping=learned", "correspondence.dis.patch_px=7"], r"correspondence\.dis\.patch_px has no"),
        (
            ["correspondence.tracking=dis", "final_refine=false", "correspondence.photometric.noise=1"],
            r"correspondence\.photometric\.noise has no effect unless final_refine is true, or",
        ),
        (["loops.enabled=false", "loops.min_votes=5"], r"loops\.min_votes has no effect unless loops\.enabled is true"),
        (["backend.adjust=off", "backend.steps=2"], r"backend\.steps has no effect unless backend\.adjust"),
        (["backend.adjust=poses", "backend.prior_deviation=2"], r"backend\.prior_deviation has no effect"),
        (["depth.stereo=none", "backend.neighbours=2"], r"backend\.neighbours has no effect unless depth\.stereo"),
        (
            ["correspondence.tracking=dis", "depth.stereo=none", "prior.min_deviation=0.5"],
            r"prior\.min_deviation has no",
        ),
        (
            ["prior.enabled=false", "prior.min_deviation=0.5"],
            r"prior\.min_deviation has no effect unless prior\.enabled",
        ),
        (["prior.enabled=false", "initialiser.turned_visible_ratio=0.5"], r"initialiser\.turned_visible_ratio has no"),
        (["profile=base", "correspondence.tracking=dis", "depth.stereo=none"], r"^profile has no effect unless"),
    ],
)
def test_a_setting_that_nothing_reads_is_refused(settings: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(SlamConfig, None, settings)


def test_a_setting_is_taken_where_something_reads_it() -> None:
    settings = ["correspondence.mapping=learned", "correspondence.learned.updates=4", "loops.enabled=false"]
    config = load_config(SlamConfig, None, settings)
    assert config.correspondence.learned.updates == 4 and not config.loops.enabled
    assert build_config(SlamConfig, dump_config(config)) == config


def test_the_prior_can_be_switched_off_whatever_else_is_used() -> None:
    """Also where there would be none: a file that switches it off serves with networks and without."""
    for more in ([], ["correspondence.tracking=dis", "depth.stereo=none"]):
        config = load_config(SlamConfig, None, ["prior.enabled=false", *more])
        assert not config.prior.enabled and SlamConfig().prior.enabled
        assert build_config(SlamConfig, dump_config(config)) == config
    assert load_config(SlamConfig, None, ["prior.min_deviation=0.5"]).prior.min_deviation == 0.5


def settings_of(cls: type) -> Iterator[tuple[str, str]]:
    """Class and field of every setting below a section."""
    for name, hint in get_type_hints(cls).items():
        if is_dataclass(hint):
            yield from settings_of(hint)
        else:
            yield cls.__name__, name


def test_every_setting_is_read_somewhere() -> None:
    """As an attribute, outside the class that declares it."""
    read: set[tuple[str, str]] = set()  # attribute, class that it is read in
    for path in (Path(__file__).parents[1] / "slam").rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            owner = node.name if isinstance(node, ast.ClassDef) else ""
            read |= {(n.attr, owner) for n in ast.walk(node) if isinstance(n, ast.Attribute)}
    settings = set(settings_of(SlamConfig))
    assert len(settings) > 60
    unread = [s for s in settings if not any(name == s[1] and owner != s[0] for name, owner in read)]
    assert unread == []


def test_text_that_would_not_end_is_refused_soon(tmp_path):
    """Aliases that hold themselves or unfold by nine again and again, endless brackets, numbers without end."""
    laughs = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
        f"a{n + 1}: &a{n + 1} [{', '.join([f'*a{n}'] * 9)}]\n" for n in range(12)
    )
    for text in ("&a [*a]", laughs, "{" * 9999, "- " * 5000, "backend: " + "9" * 4000, "a: !!int ''", "a: 2001-99-99"):
        (tmp_path / "c.yaml").write_text(text)
        with pytest.raises(ConfigError) as caught:
            load_config(SlamConfig, tmp_path / "c.yaml")
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 2100
