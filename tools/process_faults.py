"""Faults of processes, for `faults.py`: signals, streams, folders and limits."""

import signal

from fault_scene import Scene, check, fault

MODULES = ("argparse", "cv2", "json", "numba", "runpy")


@fault
def modules_where_it_is_started(scene: Scene) -> None:
    """Modules in the working directory that are called as ours and as those of libraries are not run."""
    for name in MODULES:
        (scene.folder / f"{name}.py").write_text("open('ran', 'w')\n")
    (scene.folder / "apps").mkdir()
    (scene.folder / "apps/__init__.py").write_text("open('ran', 'w')\n")
    scene.track("--screenshot", "map.png").end().check(0)
    scene.check_complete()
    check((scene.folder / "map.png").stat().st_size > 1000, "no image")
    scene.start("doctor").end().check(0)
    check(not (scene.folder / "ran").exists(), "a module of the working directory ran")


@fault
def ctrl_c(scene: Scene) -> None:
    """Ctrl-C ends a run in order: everything is written."""
    child = scene.track()
    child.wait_for_poses(scene.run)
    child.signal(signal.SIGINT)
    child.end().check(0)
    scene.check_complete(end="stopped by the user")
