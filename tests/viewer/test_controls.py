"""Keys, without a window."""

import pytest

from slam.viewer.controls import HELP, Command, Controls, pressed


def after(keys: str, controls: Controls) -> Controls:
    for key in keys:
        controls, command = pressed(controls, key)
        assert command is None
    return controls


def test_space_plays_pauses_and_starts_again():
    end = Controls(total=4, shown=4)
    playing = after(" ", end)
    assert (playing.shown, playing.is_playing) == (1, True)
    paused = after(" ", playing.advanced())
    assert (paused.shown, paused.is_playing) == (2, False)
    assert after(" ", paused).is_playing and after(" ", paused).shown == 2
    assert playing.advanced().advanced().is_playing
    last = playing.advanced().advanced().advanced()
    assert (last.shown, last.is_playing) == (4, False)  # playing ends by itself
    assert last.advanced() == last


def test_n_steps_and_pauses():
    stepped = after("n", Controls(total=4, shown=1, is_playing=True))
    assert (stepped.shown, stepped.is_playing) == (2, False)
    assert after("nnnnn", stepped).shown == 4


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("f", "follows"),
        ("k", "shows_keyframes"),
        ("g", "shows_graph"),
        ("T", "shows_trajectory"),
        ("h", "shows_help"),
    ],
)
def test_switches_go_on_and_off(key, name):
    start = Controls(total=4, shown=4)
    assert getattr(after(key, start), name) is not getattr(start, name)
    assert after(2 * key, start) == start


def test_point_size_and_confidence_stay_in_range():
    start = Controls(total=4, shown=4)
    assert (after("+", start).point_size, after("=-", start).point_size) == (3, 2)
    assert (after("-" * 20, start).point_size, after("+" * 20, start).point_size) == (1, 10)
    assert (after("]", start).min_confidence, after("[[", start).min_confidence) == (0.6, 0.3)
    assert (after("[" * 20, start).min_confidence, after("]" * 20, start).min_confidence) == (0.0, 1.0)


def test_commands_leave_the_controls_alone():
    start = Controls(total=4, shown=2)
    commands = [pressed(start, key) for key in "psrqX"]
    assert [command for _, command in commands] == [
        Command.SAVE_CLOUD,
        Command.SAVE_SCREENSHOT,
        Command.RESET_VIEW,
        Command.QUIT,
        None,
    ]
    assert all(controls == start for controls, _ in commands)


def test_every_key_is_in_the_help():
    keys = {line[0] for line in HELP.splitlines()} - {"S", "+", "["}
    assert keys == set("NFKGTPRHQ") and "S  save" in HELP and "SPACE" in HELP
