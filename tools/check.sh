#!/usr/bin/env bash
# Format, lint, types, tests: green before every commit, and what CI runs. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
ruff format --check .
ruff check .
mypy & # on a core of its own, beside the tests
types=$!
OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-PASSIVE} pytest -q -n 2 --dist loadfile "$@"
wait "$types"
