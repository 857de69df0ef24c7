"""A board on loopback: a real ssh server that runs real commands in a Python without torch.

The server is OpenSSH's sshd, if it is installed or SSHD names it, else asyncssh's in another process.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncssh
import numpy as np

from compress.boards.inventory import Board

SSHD = os.environ.get("SSHD") or shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
BOARD_SCRIPT = """
import sys

sys.path[:0] = {paths!r}
class Ban:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "onnx", "compress", "export", "pydantic", "yaml", "PIL"):
            raise ImportError(name + " is not on the board")
sys.meta_path.insert(0, Ban())
if sys.argv[1] == "-c":
    code, sys.argv = sys.argv[2], ["-c", *sys.argv[3:]]
    exec(code)
else:
    import runpy
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")
"""
SERVER = """
import asyncio, sys, asyncssh
root, port = sys.argv[1], int(sys.argv[2])

async def handle(process):
    shell = await asyncio.create_subprocess_shell(process.command, cwd=root, stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
    out, err = await shell.communicate()
    process.stdout.write(out.decode()); process.stderr.write(err.decode())
    process.exit(shell.returncode)

async def main():
    await asyncssh.listen("127.0.0.1", port, server_host_keys=[root + "/../host_key"],
        authorized_client_keys=root + "/../authorized_keys", process_factory=handle,
        sftp_factory=lambda channel: asyncssh.SFTPServer(channel, chroot=root.encode()))
    await asyncio.Event().wait()

asyncio.run(main())
"""


@dataclass
class Server:
    """A board: its home folder, its settings, and the process of its ssh server."""

    home: Path
    board: Board
    known_hosts: Path
    process: subprocess.Popen[bytes]

    def kill(self) -> None:
        """Kill the server and its sessions, like a power failure."""
        _kill(self.process)

    def start(self) -> None:
        """Start the server again at the same address."""
        self.process = _start(self.home.parent, self.board.port)
        _wait_for(self.board.port, self.process)


@contextmanager
def board_on_loopback(root: Path) -> Iterator[Server]:
    """Start a board that runs until the end of the block; its keys and its home are in `root`."""
    (root / "home").mkdir(parents=True)
    host, mine = new_key(root / "host_key"), new_key(root / "my_key")
    shutil.copy(f"{mine}.pub", root / "authorized_keys")
    port = free_port()
    known_hosts = root / "known_hosts"
    known_hosts.write_text(f"[127.0.0.1]:{port} {Path(f'{host}.pub').read_text()}")
    folder = str(root / "home/bundles") if SSHD else "bundles"
    user = os.environ.get("USER") or "root"
    board = Board(host="127.0.0.1", port=port, user=user, python=str(_board_python(root)), folder=folder,
                  identity=mine)  # fmt: skip
    process = _start(root, port)
    _wait_for(port, process)
    running = Server(root / "home", board, known_hosts, process)
    try:
        yield running
    finally:
        running.kill()


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def new_key(path: Path) -> Path:
    key = asyncssh.generate_private_key("ssh-ed25519")
    key.write_private_key(str(path))
    path.chmod(0o600)
    key.write_public_key(f"{path}.pub")
    return path


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(200):
        assert process.poll() is None, "the server ended; see server.log"
        with socket.socket() as probing:
            if probing.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError("the server does not answer")


def _board_python(folder: Path) -> Path:
    """Return a Python that can import numpy and onnxruntime, but not the packages that only the host has."""
    script, program = folder / "python3", folder / "board.py"
    program.write_text(BOARD_SCRIPT.format(paths=[str(Path(np.__file__).parents[1])]))
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -I {program} "$@"\n')
    script.chmod(0o755)
    return script


def _start(root: Path, port: int) -> subprocess.Popen[bytes]:
    if SSHD is None:
        command = [sys.executable, "-c", SERVER, str(root / "home"), str(port)]
    else:
        config = root / "sshd_config"
        lines = (
            f"Port {port}", "ListenAddress 127.0.0.1", f"HostKey {root}/host_key", "PidFile none", "StrictModes no",
            f"AuthorizedKeysFile {root}/authorized_keys", "UsePAM no", "PasswordAuthentication no",
            "Subsystem sftp internal-sftp",
        )  # fmt: skip
        config.write_text("\n".join(lines) + "\n")
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)  # Debian's service makes it, which does not run in a container
        command = [SSHD, "-D", "-e", "-f", str(config)]
    with (root / "server.log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a server and its sessions, like a power failure."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue  # the process has ended
    doomed = {process.pid}
    for _ in parents:
        doomed |= {pid for pid, parent in parents.items() if parent in doomed}
    for pid in doomed:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()
