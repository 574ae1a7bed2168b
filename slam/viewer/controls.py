"""What the keys and the menu do, as values: no window is needed to try it."""

from dataclasses import dataclass, replace
from enum import Enum

POINT_SIZES = (1, 10)
CONFIDENCE_STEP = 0.1


class Command(Enum):
    """What a key asks for beyond a change of the controls."""

    PLAY = "play or pause"
    STEP = "one step on"
    SAVE_CLOUD = "save points"
    SAVE_SCREENSHOT = "save screenshot"
    RESET_VIEW = "reset view"
    QUIT = "quit"


@dataclass(frozen=True)
class Key:
    """A key, and the same as an item of the menu."""

    character: str
    menu: str
    words: str
    command: Command | None = None
    switch: str | None = None  # the field of the controls that it turns on and off

    @property
    def name(self) -> str:
        """As it is written on the keyboard."""
        return "SPACE" if self.character == " " else self.character.upper()


KEYS = (
    Key(" ", "Run", "play, pause", Command.PLAY),
    Key("n", "Run", "one step on, and pause", Command.STEP),
    Key("p", "Run", "save points as PLY", Command.SAVE_CLOUD),
    Key("s", "Run", "save a screenshot", Command.SAVE_SCREENSHOT),
    Key("q", "Run", "quit", Command.QUIT),
    Key("f", "View", "follow the camera", switch="follows"),
    Key("r", "View", "reset the view", Command.RESET_VIEW),
    Key("k", "View", "keyframes", switch="shows_keyframes"),
    Key("g", "View", "graph", switch="shows_graph"),
    Key("t", "View", "trajectory", switch="shows_trajectory"),
    Key("+", "Points", "larger points"),
    Key("-", "Points", "smaller points"),
    Key("]", "Points", "only surer points"),
    Key("[", "Points", "less sure points too"),
    Key("h", "Help", "keys", switch="shows_help"),
)
HELP = "\n".join(f"{key.name}  {key.words}" for key in KEYS)
_BY_CHARACTER = {key.character: key for key in KEYS}


@dataclass(frozen=True)
class Controls:
    """What is drawn, and how."""

    follows: bool = False
    shows_keyframes: bool = True
    shows_graph: bool = False
    shows_trajectory: bool = True
    shows_help: bool = False
    point_size: int = 2  # pixels
    min_confidence: float = 0.5  # of drawn points


def pressed(controls: Controls, character: str) -> tuple[Controls, Command | None]:
    """What follows from a key; unknown keys change nothing."""
    key = _BY_CHARACTER.get({"=": "+", "_": "-"}.get(character, character.lower()))
    if key is None:
        return controls, None
    if key.switch is not None:
        return replace(controls, **{key.switch: not getattr(controls, key.switch)}), None
    if key.character in "+-":
        size = controls.point_size + (1 if key.character == "+" else -1)
        return replace(controls, point_size=min(max(size, POINT_SIZES[0]), POINT_SIZES[1])), None
    if key.character in "[]":
        confidence = controls.min_confidence + (CONFIDENCE_STEP if key.character == "]" else -CONFIDENCE_STEP)
        return replace(controls, min_confidence=min(max(round(confidence, 2), 0.0), 1.0)), None
    return controls, key.command
