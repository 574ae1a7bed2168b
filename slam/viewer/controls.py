"""What the keys do, as values: no window is needed to try it."""

from dataclasses import dataclass, replace
from enum import Enum

HELP = """SPACE  play, pause
N  one keyframe on
F  follow the camera
K  keyframes on, off
G  graph on, off
T  trajectory on, off
P  save points as PLY
S  save a screenshot
R  reset the view
+ -  point size
[ ]  confidence
H  this help
Q  quit"""

POINT_SIZES = (1, 10)
CONFIDENCE_STEP = 0.1


class Command(Enum):
    """What a key asks for beyond a change of the controls."""

    SAVE_CLOUD = "save cloud"
    SAVE_SCREENSHOT = "save screenshot"
    RESET_VIEW = "reset view"
    QUIT = "quit"


COMMANDS = {
    "p": Command.SAVE_CLOUD,
    "s": Command.SAVE_SCREENSHOT,
    "r": Command.RESET_VIEW,
    "q": Command.QUIT,
}


@dataclass(frozen=True)
class Controls:
    """What is shown, and how."""

    total: int  # keyframes there are
    shown: int  # the first so many are drawn; 1 to total
    is_playing: bool = False
    follows: bool = False
    shows_keyframes: bool = True
    shows_graph: bool = False
    shows_trajectory: bool = True
    shows_help: bool = False
    point_size: int = 2  # pixels
    min_confidence: float = 0.5  # of drawn points

    def advanced(self) -> "Controls":
        """One keyframe more; playing ends with the last one."""
        shown = min(self.shown + 1, self.total)
        return replace(self, shown=shown, is_playing=self.is_playing and shown < self.total)


def pressed(controls: Controls, key: str) -> tuple[Controls, Command | None]:
    """What follows from a key, given as its character; unknown keys change nothing."""
    key = key.lower()
    if key in COMMANDS:
        return controls, COMMANDS[key]
    if key == " ":
        if not controls.is_playing and controls.shown == controls.total:  # from the start again
            return replace(controls, shown=1, is_playing=controls.total > 1), None
        return replace(controls, is_playing=not controls.is_playing), None
    if key == "n":
        return replace(controls, is_playing=False).advanced(), None
    if key in "+=-_":
        low, high = POINT_SIZES
        size = controls.point_size + (1 if key in "+=" else -1)
        return replace(controls, point_size=min(max(size, low), high)), None
    if key in "[]":
        confidence = controls.min_confidence + (CONFIDENCE_STEP if key == "]" else -CONFIDENCE_STEP)
        return replace(controls, min_confidence=min(max(round(confidence, 2), 0.0), 1.0)), None
    switches = {
        "f": "follows",
        "k": "shows_keyframes",
        "g": "shows_graph",
        "t": "shows_trajectory",
        "h": "shows_help",
    }
    if key in switches:
        return replace(controls, **{switches[key]: not getattr(controls, switches[key])}), None
    return controls, None
