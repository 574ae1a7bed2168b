"""v2d-doctor: what works on this computer, and what to do about the rest."""

import argparse
import json
import os
import sys
from collections.abc import Sequence

from apps.common import program
from apps.probes import Finding, all_findings

ENDINGS = """Exit codes: 0 a recording can be tracked and mapped here without a display, 1 it cannot: see the lines
marked FAILED. What is only missing is not needed for that."""


def build_parser() -> argparse.ArgumentParser:
    """Command line of v2d-doctor."""
    parser = argparse.ArgumentParser(prog="v2d-doctor", description=__doc__, epilog=ENDINGS)
    parser.add_argument("--json", action="store_true", help="machine-readable")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return program("v2d-doctor", lambda: run(build_parser().parse_args(argv).json), argv is None)


def run(as_json: bool) -> int:
    """Examine this computer and say what was found; 0 if the headless job can run."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as in v2d-slam; the probes inherit it
    findings: list[Finding] = []
    for finding in all_findings():
        findings.append(finding)
        if not as_json:
            print(finding.line(), flush=True)
    failed = [finding.name for finding in findings if finding.failed]
    if as_json:
        print(json.dumps({"ready": not failed, "findings": [vars(finding) for finding in findings]}, indent=2))
    else:
        print(f"NOT READY: {', '.join(failed)}" if failed else "ready: v2d-slam runs here; try v2d-slam --demo")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
