"""What is tried, how often, and what is left of it; the programs are pretended."""

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from slam.batch import child
from slam.batch.child import Ending, Limits, memory_of
from slam.batch.folder import Work, begin
from slam.batch.table import markdown, row_of, write_tables
from slam.batch.tasks import COMPLETE, FOLDER, RUN, Step, perform, read_record, write_record
from slam.errors import SourceError, UsageError
from slam.io.run import Run

ROOT = Path(__file__).parents[2]


def never() -> bool:
    return False


def wait_for(condition, seconds: float = 30.0) -> None:
    end_s = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.02)


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_a_recording_is_tracked_once_and_then_left_as_it_is(task_of, starts):
    task = task_of("desk", "works", "refines")
    record = perform(task, never)
    assert record.words(task) == COMPLETE and record.done == ("works", "then refines") and record.starts == 2
    assert Run(task.run).record().frames_seen == 80
    assert [what for _, what, _ in starts()] == ["works", "refines"]
    assert not list(task.attempts.parent.iterdir())
    assert perform(task, never) == record == read_record(task.file)
    assert len(starts()) == 2


def test_what_fails_is_tried_a_bounded_number_of_times(task_of, starts):
    task = task_of("desk", "fails", "refines", retries=2)
    record = perform(task, never)
    assert record.words(task) == "failed: fails" and record.error == "v2d-slam: the recording is damaged"
    assert [what for _, what, _ in starts()] == ["fails"] * 3  # nothing is done to a run that is not there
    assert perform(task, never) == record and len(starts()) == 3  # also of a second start
    assert task.log.read_text().count("v2d-slam: the recording is damaged") == 3


def test_what_fails_once_is_complete(task_of):
    task = task_of("desk", "fails once")
    record = perform(task, never)
    assert (record.words(task), record.starts, record.error) == (COMPLETE, 2, "")


def test_a_step_that_fails_keeps_what_was_before_it(task_of, starts):
    task = task_of("desk", "works", "fails", "exports", retries=0)
    record = perform(task, never)
    assert record.done == ("works",) and record.words(task) == "failed: then fails"
    assert [what for _, what, _ in starts()] == ["works", "fails"]
    without = task_of("lamp", "works")
    assert perform(without, never).words(without) == COMPLETE


def test_a_wrong_command_line_is_not_tried_again(task_of, starts):
    record = perform(task_of("desk", "usage", retries=5), never)
    assert record.has_failed and record.error == "v2d-slam: no such setting" and len(starts()) == 1


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such signal")
def test_a_program_that_crashes_is_told_by_its_signal(task_of):
    assert "SIGSEGV" in perform(task_of("desk", "dies", retries=0), never).error


def test_a_program_that_hangs_is_ended_after_its_time(task_of, starts, monkeypatch):
    """It ignores being asked."""
    monkeypatch.setattr(child, "GRACE_S", 0.5)
    begin_s = time.monotonic()
    record = perform(task_of("desk", "hangs", timeout_s=1.5, retries=0), never)
    assert record.has_failed and "not done within 0.025 min (--timeout)" in record.error
    assert 2.0 <= time.monotonic() - begin_s < 20 and all(gone(pid) for _, _, pid in starts())


def test_a_program_that_fills_its_memory_is_ended(task_of, starts):
    """The limit is far from what the interpreter needs, and from what this computer has."""
    record = perform(task_of("desk", "fills memory", memory_mb=200, retries=0), never)
    assert record.has_failed and "more than 0.195 GiB of memory (--memory)" in record.error
    assert all(gone(pid) for _, _, pid in starts())


def test_memory_is_that_of_the_process():
    assert memory_of(os.getpid()) == pytest.approx(psutil.Process().memory_info().rss, rel=0.2)
    assert memory_of(2**22 + 1) == 0


def test_being_stopped_keeps_the_results_so_far_and_the_next_start_does_it_again(task_of, starts, pretended):
    """Also where SIGINT is blocked, as in the workers of Ray, and would be so in the programs that they start."""
    task, stop, records = task_of("desk", "slow once", "refines"), threading.Event(), []

    def work() -> None:
        if os.name == "posix":
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        records.append(perform(task, stop.is_set))

    working = threading.Thread(target=work)
    working.start()
    wait_for((pretended / "desk.ready").exists)
    stop.set()
    working.join(30)
    assert records[0].words(task) == "not finished" and records[0].tries == 0
    assert Run(task.run).record().outcome.end == "stopped by the user"
    record = perform(task, never)
    assert record.words(task) == COMPLETE and record.starts == 3
    assert Run(task.run).record().outcome.end == "complete"


def test_a_run_that_others_finished_meanwhile_is_not_replaced(task_of, pretended):
    """As by a node of a cluster that was taken for lost and was not."""
    task, records = task_of("desk", "slow once"), []
    stop = threading.Event()
    working = threading.Thread(target=lambda: records.append(perform(task, stop.is_set)))
    working.start()
    wait_for((pretended / "desk.ready").exists)
    assert perform(task, never).words(task) == COMPLETE
    (task.run / "mark").touch()
    stop.set()
    working.join(30)
    assert (task.run / "mark").exists() and records[0].words(task) == COMPLETE


def test_a_node_without_the_folder_says_so(task_of):
    task = task_of("desk", "works")
    task.file.unlink()
    with pytest.raises(SourceError, match=r"does not see .*desk\.json: --out must be a path that all nodes share"):
        perform(task, never)


def test_a_secret_of_an_address_is_not_written(tmp_path, monkeypatch):
    """The recording is found again all the same; the same address with another value may be another video."""
    monkeypatch.setattr("slam.batch.tasks.run_program", lambda *_: Ending(1, "no answer"))
    (tmp_path / FOLDER).mkdir()
    for token, name in (("abcd1234", "walk"), ("abcd1234", "walk"), ("efgh5678", "walk-")):
        source = f"https://me:hidden77@host/walk.mp4?token={token}"
        ((task, record),) = begin(tmp_path, [source], (), Work((), Limits(1, 1), 0), True).items()
        assert task.name.startswith(name) and source in task.track.arguments
        record = perform(task, never)
        write_tables(tmp_path, [row_of(task, record)])
    written = "".join(file.read_text() for file in tmp_path.rglob("*") if file.is_file())
    assert "host/walk.mp4" in written and not any(word in written for word in ("abcd1234", "efgh5678", "hidden77"))


def test_what_was_given_up_is_tried_again_where_that_is_asked_for(tmp_path):
    """Names and records stay from start to start; another command line for the runs would mix results."""
    work, sources = Work((Step("refine", "apps.refine", (RUN,)),), Limits(1, 1), 1), ["/a/walk.mp4"]
    (tmp_path / FOLDER).mkdir()
    ((task, record),) = begin(tmp_path, sources, ("--x",), work, False).items()
    assert task.then[0].arguments == (str(tmp_path / "walk"),) and task.track.arguments[-1] == "--x"
    write_record(task.file, replace(record, tries=2, has_failed=True, done=("track",)))
    for retry, finished in ((False, True), (True, False)):
        found = begin(tmp_path, ["/b/walk.mp4", *sources], ("--x",), work, retry)
        assert [each.name for each in found] == ["b_walk", "walk"]
        assert found[task].is_finished(task) is finished and found[task].done == ("track",)
    with pytest.raises(UsageError, match="walk was begun with --x for v2d-slam"):
        begin(tmp_path, sources, (), work, False)


HOLDER = """
import sys
from pathlib import Path
from slam.batch.child import Limits, run_program
run_program("pretended", ["hangs"], Path(sys.argv[1]), Limits(1000, 2**40), lambda: False, Path("."))
"""


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_program_dies_with_the_process_that_started_it(pretended, starts, tmp_path):
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "log")]
    holder = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{pretended}"})
    wait_for(starts)
    ((_, _, pid),) = starts()
    assert not gone(pid)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    wait_for(lambda: gone(pid))


def test_the_table_tells_what_is_known(task_of, tmp_path):
    good, bad = task_of("desk", "works"), task_of("lamp", "fails", retries=0)
    rows = [row_of(task, perform(task, never)) for task in (good, bad)]
    assert (rows[0].frames, rows[0].coverage, rows[0].fps, rows[0].ate_m) == ("80", "0.750", "80.00", "0.0123")
    assert (rows[0].end, rows[0].error, rows[0].source) == (COMPLETE, "", "/recordings/desk")
    assert (rows[1].frames, rows[1].end, rows[1].error) == ("", "failed: fails", "v2d-slam: the recording is damaged")
    write_tables(tmp_path, rows)
    csv = (tmp_path / "summary.csv").read_text().splitlines()
    assert csv[0].startswith("name,frames,coverage,fps,ate_m,end,") and csv[1].startswith("desk,80,0.750,80.00,0.0123,")
    assert (tmp_path / "summary.md").read_text() == markdown(rows) + "\n"
    assert len(markdown(rows).splitlines()) == 4
