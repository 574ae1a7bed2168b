"""Faults of processes, for `faults.py`: signals, streams, folders and limits."""

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

from fault_scene import Scene, check, fault

MODULES = ("argparse", "cv2", "json", "numba", "runpy")
HEAVY = ("run", "evaluate", "refine", "export", "train", "view", "calibrate")  # programs that import for seconds
EARLY_S = (0.1, 0.4, 1.0, 2.0)  # after a start
SMALL_MB = 1000  # of addresses: too few for torch
COMPILING_S = 1200.0  # of all loops anew, on a busy computer
PROMPT_S = 60.0  # for what is refused before anything heavy begins, on a busy computer


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
    check(not (scene.folder / "ran").exists(), "a module of the working directory ran")


@fault
def ctrl_c(scene: Scene) -> None:
    """Ctrl-C ends a run in order: everything is written."""
    stopped_by(scene, signal.SIGINT)


@fault
def terminal_closed(scene: Scene) -> None:
    """SIGHUP, several times, as a terminal sends it: everything is written."""
    stopped_by(scene, signal.SIGHUP, signal.SIGHUP)


def stopped_by(scene: Scene, *signals: int) -> None:
    child = scene.track()
    child.wait_for_poses(scene.run)
    for number in signals:
        child.signal(number)
        time.sleep(0.2)
    child.end().check(0)
    scene.check_complete(end="stopped by the user")


@fault
def nohup(scene: Scene) -> None:
    """SIGHUP that was ignored at the start stays so: the run goes on to its end."""
    child = scene.track(before=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    child.wait_for_poses(scene.run)
    child.signal(signal.SIGHUP)
    child.end().check(0)
    scene.check_complete()


@fault
def second_ctrl_c(scene: Scene) -> None:
    """Ctrl-C twice: what there is, is written without the last adjustment, and the process ends as interrupted."""
    child = scene.track()
    child.wait_for_poses(scene.run)
    child.signal(signal.SIGINT)
    time.sleep(0.05)
    child.signal(signal.SIGINT)
    ended = child.end()
    if ended.code == 0:  # it had ended before it heard the second
        scene.check_complete(end="stopped by the user")
        return
    ended.check(130, r"^v2d-slam: interrupted by SIGINT; what there was is in .*run$")
    scene.check_complete(end="stopped by the user, and again: .*")


@fault
def ctrl_c_while_it_starts(scene: Scene) -> None:
    """Ctrl-C at several moments of the start of each program: one line at most, and no traceback."""
    options = {
        "run": ("--sequence", scene.recording, "--headless"),
        "evaluate": (".", "--groundtruth", scene.recording),
    }
    options |= {"refine": (".",), "export": (".", "--to", "ply"), "train": ("--out", "out"), "view": (".",)}
    options |= {"calibrate": ("--images", scene.recording / "rgb", "--size", "9x6", "--square", "1")}
    for program in HEAVY:
        for early_s in EARLY_S:
            child = scene.start(program, *options[program])
            time.sleep(early_s)
            if child.is_running():
                child.signal(signal.SIGINT)
            ended = child.end()
            words = f"{program} after {early_s} s: {ended.code}, {ended.err[-400:]}"
            has_stack = "Traceback" in ended.err and ("/apps/" in ended.err or "/slam/" in ended.err)  # of ours
            check(not has_stack and ended.code in (0, 1, 2, 130, -signal.SIGINT), words)
            check(ended.code != 130 or ended.err.count("\n") < 4, words)


@fault
def killed(scene: Scene) -> None:
    """kill -9: the poses so far are on the disk."""
    child = scene.track()
    child.wait_for_poses(scene.run)
    child.kill()
    lines = (scene.run / "trajectory_online.txt").read_text().splitlines()
    check(any(line[0].isdigit() for line in lines), "no poses")


@fault
def words_to_a_full_disk(scene: Scene) -> None:
    """Standard output and error on a full disk."""
    with open("/dev/full", "wb") as full:
        scene.track(stdout=full, stderr=full).end().check(0)
    scene.check_complete()


@fault
def words_to_a_reader_that_has_gone(scene: Scene) -> None:
    """Standard output and error are pipes whose readers have gone, as after `| head` or Ctrl-C of `| tee`."""
    readers, writers = zip(os.pipe(), os.pipe())
    for reader in readers:
        os.close(reader)
    scene.track("--save-map", "room.map", stdout=writers[0], stderr=writers[1]).end().check(0)
    for writer in writers:
        os.close(writer)
    scene.check_complete()
    check((scene.folder / "room.map").stat().st_size > 1000, "no map")


@fault
def started_without_streams(scene: Scene) -> None:
    """Started with `<&- >&- 2>&-`: words go nowhere, and into no file."""
    scene.track(before=lambda: os.closerange(0, 3)).end().check(0)
    scene.check_complete()


@fault
def no_home(scene: Scene) -> None:
    """Neither home nor package nor NUMBA_CACHE_DIR can be written: compiled loops are not kept, with one warning."""
    package = scene.folder / "package"
    for name in ("slam", "apps", "configs"):
        shutil.copytree(Path(__file__).parents[1] / name, package / name, ignore=shutil.ignore_patterns("__pycache__"))
    for cache in [path for path in package.rglob("*") if path.is_dir()]:
        (cache / "__pycache__").write_text("no folder")  # also where the tests run as root
    places = {"HOME": "/dev/null/home", "XDG_CACHE_HOME": "/dev/null/cache", "NUMBA_CACHE_DIR": "/dev/null/numba"}
    ended = scene.track(env=places, package=package).end(COMPILING_S)
    ended.check(0, "WARNING: compiled loops are not kept .*NUMBA_CACHE_DIR names another")
    check(ended.err.count("are not kept") == 1, f"more than one warning: {ended.err}")
    scene.check_complete()


@fault
def output_directory_removed(scene: Scene) -> None:
    """The directory of the results is removed meanwhile: what is lost is named, the rest is written anew."""
    child = scene.track()
    child.wait_for_poses(scene.run)
    shutil.rmtree(scene.run)
    child.end().check(1, r"^v2d-slam: results in .* are incomplete: trajectory_online\.txt not written \(broken off")
    record = json.loads((scene.run / "run.json").read_text())
    check(list(record["missing"]) == ["trajectory_online.txt"], f"missing: {record['missing']}")


@fault
def map_to_a_bad_place(scene: Scene) -> None:
    """--save-map to a folder, below a file, to a device: refused before the run begins."""
    (scene.folder / "folder").mkdir()
    (scene.folder / "file").write_text("")
    for place in ("folder", "file/room.map", "/dev/null"):
        ended = scene.track("--save-map", place).end(PROMPT_S)
        ended.refused(1, rf"^v2d-slam: cannot write {place}: ")
        check(not scene.run.exists(), "the run had begun")
    scene.check_no_leftovers()


@fault
def variables_that_cannot_be(scene: Scene) -> None:
    """Thread counts of the environment that libraries cannot read."""
    for variable in ("NUMBA_NUM_THREADS=0", "NUMBA_NUM_THREADS=abc", "OMP_NUM_THREADS=abc", "OMP_NUM_THREADS=-3"):
        name, value = variable.split("=")
        ended = scene.track(env={name: value}).end(PROMPT_S)
        ended.refused(2, rf"^v2d-slam: the environment says {variable}: it must be a number of threads")
    scene.track(env={"NUMBA_NUM_THREADS": "300", "OMP_NUM_THREADS": "300"}).end().check(0)  # more than there are cores
    scene.check_complete()


@fault
def too_few_addresses(scene: Scene) -> None:
    """`ulimit -v`: refused where libraries would hang or crash."""
    scene.track(before=limit("RLIMIT_AS", SMALL_MB << 20)).end(PROMPT_S).refused(2, rf"{SMALL_MB} MB of addresses")


@fault
def few_open_files(scene: Scene) -> None:
    """`ulimit -n 64`: enough."""
    scene.track(before=limit("RLIMIT_NOFILE", 64)).end().check(0)
    scene.check_complete()


@fault
def files_of_bounded_size(scene: Scene) -> None:
    """`ulimit -f`: what is too large is named, the rest is written."""
    ended = scene.track("--save-map", "room.map", before=limit("RLIMIT_FSIZE", 100_000)).end()
    ended.check(1, r"map\.ply is missing: .*File too large", r"cannot write room\.map: File too large")
    check((scene.run / "trajectory.txt").stat().st_size > 1000, "no trajectory")
    scene.check_no_leftovers()


def limit(name: str, value: int) -> Callable[[], None]:
    """What sets a limit of the child."""
    import resource

    return lambda: resource.setrlimit(getattr(resource, name), (value, value))


@fault
def working_directory_removed(scene: Scene) -> None:
    """The directory that a program is started in has gone."""
    gone = scene.folder / "gone"
    gone.mkdir()

    def before() -> None:
        os.chdir(gone)
        gone.rmdir()

    scene.track(before=before).end(PROMPT_S).refused(2, "the working directory was removed")


@fault
def secrets_of_addresses(scene: Scene) -> None:
    """An address with a password and a token that does not answer: no word of them."""
    address = "http://me:hunter22@127.0.0.1:9/stream?token=swordfish"
    for option in ("--camera", "--video"):
        ended = scene.track(source=(option, address)).end(PROMPT_S)
        ended.refused(1, r"http://\*\*\*@127\.0\.0\.1:9/stream\?token=\*\*\*")
        check("hunter22" not in ended.err + ended.out and "swordfish" not in ended.err + ended.out, ended.err)
