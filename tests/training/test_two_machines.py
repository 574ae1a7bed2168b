"""torchrun on two machines, each of which is a torchrun of its own here, as the README has it."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
SMALL = ["clips=1", "views=2", "edges=2", "iters=1", "pool=2", "pool_start=1", "steps_per_render=1"]
SMALL += ["augment.crop_height=48", "augment.crop_width=64"]
PATIENCE_S = 300


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_two_machines_train_together_and_either_stops_both(tmp_path):
    """The second is told to end, as when it is needed for something else: the first writes what both have learned."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
    torchrun += ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}", "--rdzv-id", "test"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}

    def start(number: int, *options: str) -> "subprocess.Popen[bytes]":
        settings = [f"--set={setting}" for setting in SMALL]
        command = [*torchrun, "-m", "apps.train", "--out", str(tmp_path / "out"), "--threads", "1", *settings, *options]
        with (tmp_path / f"log{number}").open("w") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=tmp_path)

    def log_of(number: int) -> str:
        return (tmp_path / f"log{number}").read_text()

    machines = [start(n) for n in (0, 1)]
    end_s = time.monotonic() + PATIENCE_S
    while not any((tmp_path / "out").glob("clips*/3.safetensors")):  # made by the second step
        assert time.monotonic() < end_s and all(machine.poll() is None for machine in machines), log_of(0) + log_of(1)
        time.sleep(0.1)
    machines[1].send_signal(signal.SIGTERM)
    ended = "the schedule is not finished; --resume goes on"
    while ended not in log_of(0) + log_of(1):  # which of them is the first, they settle
        assert time.monotonic() < end_s, log_of(0) + log_of(1)
        time.sleep(0.1)
    machines[0].send_signal(signal.SIGTERM)  # torchrun itself would wait five minutes for the other one
    for machine in machines:
        machine.wait(PATIENCE_S)
    checkpoint = torch.load(tmp_path / "out" / "checkpoint.pt", weights_only=True)
    assert checkpoint["counts"]["step"] >= 1
    assert {path.name for path in (tmp_path / "out").glob("clips*")} == {"clips", "clips-1"}
