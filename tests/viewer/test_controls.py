"""Keys, without a window."""

import pytest

from slam.viewer.controls import HELP, KEYS, Command, Controls, pressed


def after(keys: str, controls: Controls = Controls()) -> Controls:
    for key in keys:
        controls, command = pressed(controls, key)
        assert command is None
    return controls


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
    assert getattr(after(key), name) is not getattr(Controls(), name)
    assert after(2 * key) == Controls()


def test_point_size_and_confidence_stay_in_range():
    assert (after("+").point_size, after("=-").point_size) == (3, 2)
    assert (after("-" * 20).point_size, after("+" * 20).point_size) == (1, 10)
    assert (after("]").min_confidence, after("[[").min_confidence) == (0.6, 0.3)
    assert (after("[" * 20).min_confidence, after("]" * 20).min_confidence) == (0.0, 1.0)


def test_commands_leave_the_controls_alone():
    commands = [pressed(Controls(), key) for key in " npsrqX"]
    assert [command for _, command in commands] == [
        Command.PLAY,
        Command.STEP,
        Command.SAVE_CLOUD,
        Command.SAVE_SCREENSHOT,
        Command.RESET_VIEW,
        Command.QUIT,
        None,
    ]
    assert all(controls == Controls() for controls, _ in commands)


def test_every_key_does_something_and_is_in_the_help():
    assert len({key.character for key in KEYS}) == len(KEYS) == len(HELP.splitlines())
    for key in KEYS:
        controls, command = pressed(Controls(), key.character)
        assert (controls != Controls()) is (command is None), key.name
