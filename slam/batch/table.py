"""What became of many recordings: a row for each, as CSV and as Markdown."""

import csv
import io
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from slam.batch.tasks import COMPLETE, Task, TaskRecord
from slam.errors import SlamError
from slam.io.files import read_json, write_text
from slam.io.run import Run

CSV, MARKDOWN = "summary.csv", "summary.md"


@dataclass(frozen=True)
class Row:
    """What is told of a recording; empty where it is not known."""

    name: str
    frames: str
    coverage: str  # share of the frames with a pose
    fps: str
    ate_m: str  # after Sim(3) alignment, where truth was found
    end: str
    starts: str  # of programs
    seconds: str
    error: str
    source: str


def row_of(task: Task, record: TaskRecord) -> Row:
    """The row of a recording, by its record and the files of its run."""
    frames, coverage, fps, ate_m = _numbers(task.run)
    end = record.words(task)
    error = "" if end == COMPLETE else record.error
    starts, seconds = str(record.starts), f"{record.seconds:.1f}"
    return Row(task.name, frames, coverage, fps, ate_m, end, starts, seconds, error, record.source)


def _numbers(path: Path) -> tuple[str, str, str, str]:
    """Frames, share of them with a pose, frames per second and ATE of a run; empty where it has none."""
    try:
        record, metrics = Run(path).record(), read_json(path / "metrics.json", dict)
    except SlamError:  # there is no run, or not the whole of it
        return "", "", "", ""
    share = metrics.get("poses", 0) / max(record.frames_seen, 1)
    ate = metrics.get("evaluation", {}).get("ate_m", {}).get("sim3", {}).get("rmse")
    return str(record.frames_seen), f"{share:.3f}", f"{record.fps:.2f}", "" if ate is None else f"{ate:.4f}"


def write_tables(out: Path, rows: Sequence[Row]) -> None:
    """Write both files; raises OutputError."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(_heads())
    table.writerows(astuple(row) for row in rows)
    write_text(out / CSV, text.getvalue())
    write_text(out / MARKDOWN, markdown(rows) + "\n")


def markdown(rows: Sequence[Row]) -> str:
    """The table for people."""
    lines = [_heads(), ["---"] * len(_heads()), *(list(astuple(row)) for row in rows)]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def _heads() -> list[str]:
    return [field.name for field in fields(Row)]
