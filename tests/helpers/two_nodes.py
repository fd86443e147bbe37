"""Two machines in one: network namespaces with an address each, and a cable that can be pulled."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).parents[2]
INTERFACE = "si0"
ADDRESSES = ("10.213.77.1", "10.213.77.2")
PORT = 29517


def why_not() -> str | None:
    """Why this machine cannot be two; None where it can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "no program 'ip': install iproute2"
    name = f"si-try-{os.getpid()}"
    tried = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if tried.returncode:
        return f"no network namespaces here: {tried.stderr.strip()}"
    _ip("netns", "del", name)
    return None


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


class TwoNodes:
    """Two namespaces that see each other and nothing else."""

    def __init__(self) -> None:
        self._names = [f"si-{os.getpid()}-{rank}" for rank in range(2)]

    def build(self) -> None:
        for name in self._names:
            _ip("netns", "add", name)
        ends = [f"siv{os.getpid()}{rank}"[:15] for rank in range(2)]
        _ip("link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
        for end, name, address in zip(ends, self._names, ADDRESSES, strict=True):
            _ip("link", "set", end, "netns", name, "name", INTERFACE)
            _ip("-n", name, "addr", "add", f"{address}/24", "dev", INTERFACE)
            _ip("-n", name, "link", "set", "lo", "up")
        self.plug()

    def plug(self) -> None:
        for name in self._names:
            _ip("-n", name, "link", "set", INTERFACE, "up")

    def pull(self) -> None:
        """Cut the link: no packet comes through, and nobody is told."""
        _ip("-n", self._names[1], "link", "set", INTERFACE, "down")

    def remove(self) -> None:
        for name in self._names:
            with suppress(subprocess.CalledProcessError):
                _ip("netns", "del", name)

    def launch(self, rank: int, arguments: list[str], *launcher: str) -> subprocess.Popen[str]:
        """Start what a node contributes: accelerate's launcher with one process."""
        command = ["ip", "netns", "exec", self._names[rank], sys.executable, "-m"]
        command += [
            "accelerate.commands.launch",
            "--config_file",
            "configs/accelerate/multi_node.yaml",
        ]
        command += ["--num_processes", "2", "--mixed_precision", "no", *launcher]
        command += ["--main_process_ip", ADDRESSES[0], "--main_process_port", str(PORT)]
        return subprocess.Popen(
            [*command, "--machine_rank", str(rank), *arguments],
            cwd=ROOT,
            env=os.environ
            | {
                "OMP_NUM_THREADS": "1",
                "HF_HUB_OFFLINE": "1",
                "PYTHONPATH": str(ROOT),
                "CUDA_VISIBLE_DEVICES": "",
                # Else gloo takes the interface that the host's name leads to.
                "GLOO_SOCKET_IFNAME": INTERFACE,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


@contextmanager
def two_nodes() -> Iterator[TwoNodes]:
    """Two nodes that are gone afterwards."""
    nodes = TwoNodes()
    try:
        nodes.build()
        yield nodes
    finally:
        nodes.remove()
