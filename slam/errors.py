"""Errors that a user can cause or fix; programs print them as one line, as they do warnings."""

import functools
import logging
import re
import reprlib
from collections.abc import Iterable
from itertools import islice

log = logging.getLogger(__name__)

MAX_WORD, MAX_LINE = 400, 2000  # characters of a message; a path may be long
MASK = "***"  # in place of what is secret
URL = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*://)([^\s/?#'\"<>]*@)?([^\s'\"<>]*?)([.,:;)\]!]*(?=[\s'\"<>]|$))")
PAIRS = re.compile(r"[&;#?]")
SMALL = re.compile(r"\d{1,4}")
SECRET = re.compile(r"pin|pass|pwd|key|token|code|auth|secret", re.IGNORECASE)
PLAIN = ("action", "camera", "channel", "fps", "height", "resolution", "stream", "subtype", "width")  # words of a query
MAX_LISTED = 12  # names in a message
MAX_SHOWN = 80  # characters of a value in a message


class SlamError(Exception):
    """Base of all expected failures: programs print the message, always one line, and exit with `exit_code`."""

    exit_code = 1

    def __str__(self) -> str:
        """The message; what a damaged file brought into it (line feeds, control codes, endless words) is shortened."""
        return one_line(super().__str__())


def one_line(text: str) -> str:
    """Text without control codes and secrets, its words cut to MAX_WORD characters and itself to MAX_LINE."""
    text = without_secrets(text)
    text = "".join(c if c.isprintable() else " " for c in text)
    text = re.sub(rf"\S{{{MAX_WORD},}}", lambda word: f"{word[0][: MAX_WORD // 2]}...{word[0][-20:]}", text)
    return text if len(text) <= MAX_LINE else f"{text[: MAX_LINE // 2]} ... {text[-MAX_LINE // 4 :]}"


def without_secrets(text: str) -> str:
    """Text in which addresses of the web have no passwords, and of values (`?token=...`) only those of PLAIN words and
    small numbers."""
    return URL.sub(_masked, text)


def _masked(url: re.Match[str]) -> str:
    scheme, user, address, end = url.groups(default="")
    head, mark, query = re.split(r"([?#])", address, maxsplit=1) if re.search(r"[?#]", address) else (address, "", "")
    pairs = "&".join(map(_masked_pair, PAIRS.split(query))) if query else ""
    return f"{scheme}{user and f'{MASK}@'}{head}{mark}{pairs}{end}"


def _masked_pair(pair: str) -> str:
    word, equals, value = pair.partition("=")
    if word.lower() in PLAIN or (SMALL.fullmatch(value) and not SECRET.search(word)):
        return pair
    return f"{word}={MASK}" if equals else MASK


def shown(value: object) -> str:
    """A value for a message: of a long text or number, and of a large or deep structure, the beginning alone.

    `repr` of a few lines of YAML whose aliases unfold takes all memory.
    """
    if isinstance(value, int) and value.bit_length() > 4 * MAX_SHOWN:
        return f"a whole number of {value.bit_length()} bits"
    brief = reprlib.Repr()
    brief.maxlevel, brief.maxstring, brief.maxother, brief.maxlong = 2, MAX_SHOWN, MAX_SHOWN, 2 * MAX_SHOWN
    text = brief.repr(value)
    return text if len(text) <= 2 * MAX_SHOWN else f"{text[: 2 * MAX_SHOWN]}..."


@functools.cache
def warn_once(message: str) -> None:
    """A WARNING the first time that there is reason for it: a file may be read for several ends."""
    log.warning("%s", message)


def listed(names: Iterable[str]) -> str:
    """The first names of many, for a message."""
    shown = list(islice(names, MAX_LISTED + 1))
    return ", ".join(shown[:MAX_LISTED] + ["..."] * (len(shown) > MAX_LISTED))


class UsageError(SlamError):
    """The command line asks for something that makes no sense."""

    exit_code = 2


class ConfigError(UsageError):
    """A configuration value or key is wrong; the message has its full path."""


def check_range(section: object, low: float, high: float, *names: str) -> None:
    """Refuse settings of a section outside [low, high].

    Raises:
        ConfigError: naming the first of them.
    """
    for name in names:
        if not low <= getattr(section, name) <= high:
            raise ConfigError(f"{name} must be from {low:g} to {high:g}, got {getattr(section, name)}")


class SourceError(SlamError):
    """A data set, video or camera cannot be read."""


class RefinementError(SlamError):
    """Refined depth is not better than the depth that there was."""


class CalibrationError(SlamError):
    """The camera calibration is missing, unreadable or for other images."""


class WeightsError(SlamError):
    """A weights file is missing, damaged or made for another network."""


class MapError(SlamError):
    """A saved map is missing, damaged or made for another camera or correspondence."""


class OutputError(SlamError):
    """Results cannot be written."""


class EvaluationError(SlamError):
    """Estimate and ground truth cannot be compared."""


class ViewerError(SlamError):
    """Nothing can be drawn: no display, no graphics driver, or no Open3D."""
