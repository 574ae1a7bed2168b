#!/usr/bin/env bash
# Train on a machine that is lent for minutes at a time: each call goes on exactly where the last one stopped.
#
#   tools/train_on_gpu.sh OUT FROM --profile base --config configs/train_base.yaml --minutes 240 --stop-after 9
#
# OUT: folder for what is to be kept: weights with their card, csv logs, the checkpoint in parts of 15 MB.
# FROM: such a folder of an earlier call (may be OUT, may be missing: then training begins).
# The rest are options of v2d-train; --stop-after is the time this call has, and it ends a minute earlier; --resume WEIGHTS
# counts where FROM has no checkpoint yet.
# Needs torch, numpy, numba and OpenCV, nothing of this project installed. PYTHON, DEVICE and WORK (a folder for clips,
# which are rendered again where they are missing) may be set in the environment. When the log says that the schedule is
# finished, a further call begins a new one from the averaged weights.
set -euo pipefail
if [ $# -lt 2 ]; then
    sed -n '2,13s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
mkdir -p "$1"
out=$(cd "$1" && pwd)
from=$([ -d "$2" ] && cd "$2" && pwd || true)
shift 2
cd "$(dirname "$0")/.."
work=${WORK:-${TMPDIR:-/tmp}/v2d-train}
mkdir -p "$work"
rm -f "$work"/{checkpoint.pt,weights.safetensors,weights.md,train.csv,validation.csv}
resume=()
if [ -n "$from" ] && compgen -G "$from/checkpoint.pt.[0-9][0-9]" >/dev/null; then
    cat "$from"/checkpoint.pt.[0-9][0-9] >"$work/checkpoint.pt"
    (cd "$work" && sha256sum --check --quiet "$from/checkpoint.sha256") || {
        echo "train_on_gpu: the parts of the checkpoint in $from do not fit together; fetch them again" >&2
        exit 1
    }
    for name in weights.safetensors weights.md train.csv validation.csv; do
        if [ -f "$from/$name" ]; then cp "$from/$name" "$work/$name"; fi
    done
    resume=(--resume)
fi

keep() { # what the work folder has, to OUT; the old parts go when the new ones are whole
    if [ -f "$work/checkpoint.pt" ]; then
        rm -f "$out"/new.pt.*
        split --bytes 15m --numeric-suffixes --suffix-length 2 "$work/checkpoint.pt" "$out/new.pt."
        rm -f "$out"/checkpoint.pt.[0-9][0-9]
        for part in "$out"/new.pt.*; do mv "$part" "$out/checkpoint.pt.${part##*.}"; done
        (cd "$work" && sha256sum checkpoint.pt >"$out/checkpoint.sha256")
    fi
    for name in weights.safetensors weights.md train.csv validation.csv; do
        if [ -f "$work/$name" ]; then cp "$work/$name" "$out/$name"; fi
    done
}

"${PYTHON:-python3}" -m apps.train --device "${DEVICE:-cuda}" --out "$work" "$@" "${resume[@]}" &
child=$!
trap 'kill -TERM "$child" 2>/dev/null || true' TERM INT
status=0
wait "$child" || status=$?
if kill -0 "$child" 2>/dev/null; then # a signal ended the waiting, not the training
    status=0
    wait "$child" || status=$?
fi
keep
exit "$status"
