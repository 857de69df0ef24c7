"""Boards over ssh: a real server on loopback that runs real commands in a Python without torch.

OpenSSH's sshd is used where it is installed (or named by SSHD); else a server of asyncssh in another process.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from compress import deploy
from compress.deploy import Board, find_board
from export.bundle import write_bundle
from runtimes import evalset
from runtimes.artifact import Artifact, Manifest
from runtimes.errors import CompressError, InputError, UnavailableError
from runtimes.files import sha256_file
from runtimes.preprocessing import Preprocessing
from runtimes.target import Target

asyncssh = pytest.importorskip("asyncssh", reason="deploying needs asyncssh: pip install -e '.[remote]'")

CLASSES = ("cat", "dog")
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
    """A board: its home, its address, and the process that serves it."""

    home: Path
    board: Board
    known_hosts: Path
    process: subprocess.Popen[bytes]

    def go(self, tar: Path, board: Board | None = None, known_hosts: Path | None = None) -> deploy.Deployed:
        """Deploy a bundle to it."""
        return deploy.deploy(tar, "pi", board or self.board, known_hosts or self.known_hosts, lambda *_: None, print)


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def _key(path: Path) -> Path:
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
    """Return a Python that has numpy and onnxruntime and nothing else of the host."""
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
    """Kill a server with its sessions, as a power cut would."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue  # it has ended
    doomed = {process.pid}
    for _ in parents:
        doomed |= {pid for pid, parent in parents.items() if parent in doomed}
    for pid in doomed:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "home").mkdir()
    host, mine = _key(tmp_path / "host_key"), _key(tmp_path / "my_key")
    shutil.copy(f"{mine}.pub", tmp_path / "authorized_keys")
    port = _free_port()
    known = tmp_path / "known_hosts"
    known.write_text(f"[127.0.0.1]:{port} {Path(f'{host}.pub').read_text()}")
    process = _start(tmp_path, port)
    _wait_for(port, process)
    folder = str(tmp_path / "home/bundles") if SSHD else "bundles"
    user = os.environ.get("USER") or "root"
    board = Board(host="127.0.0.1", port=port, user=user, python=str(_board_python(tmp_path)), folder=folder,
                  identity=mine)  # fmt: skip
    running = Server(tmp_path / "home", board, known, process)
    yield running
    _kill(running.process)


@pytest.fixture
def make_bundle(tmp_path: Path) -> Callable[..., Path]:
    """Return a maker of bundles of a fake artifact."""

    def make(name: str = "b.tar", padding: int = 0) -> Path:
        model = tmp_path / "m.fake"
        content = {"latency_ms": 0.1, "logits": [[3.0, 0.0], [0.0, 2.0]], "padding": "x" * padding}
        model.write_text(json.dumps(content))
        preprocessing = Preprocessing(4, 4)
        manifest = Manifest(sha256_file(model), model.stat().st_size, "fake", "float32", "x", (None, 3, 4, 4), "y",
                            preprocessing, CLASSES, recipe="solar")  # fmt: skip
        artifact = Artifact(model, manifest)
        artifact.save_manifest()
        pixels = np.random.default_rng(0).integers(0, 256, (4, 4, 4, 3), np.uint8)
        folder = tmp_path / "sample"
        sample = evalset.write(folder, pixels, np.asarray([0, 1, 0, 1]), tuple("abcd"), CLASSES, preprocessing)
        write_bundle(artifact, Target("pi", runtime="fake"), folder, sample, tmp_path / name)
        return tmp_path / name

    return make


def left_behind(home: Path) -> list[str]:
    return [path.name for path in home.rglob("*.partial")]


def test_the_second_time_nothing_is_copied(server: Server, make_bundle: Callable[..., Path]) -> None:
    tar = make_bundle()
    first = server.go(tar)
    assert len(first.copied) == 8
    assert first.measurement["accuracy"]["top1"] == 1.0
    assert first.measurement["environment"]["cpu"]
    assert "verified" in first.verified
    assert server.go(tar).copied == ()
    assert left_behind(server.home) == []


def test_only_what_changed_is_copied_again(server: Server, make_bundle: Callable[..., Path]) -> None:
    server.go(make_bundle())
    (victim,) = server.home.rglob("golden.npy")
    victim.write_bytes(b"damaged")
    assert server.go(make_bundle()).copied == ("golden.npy",)
    assert set(server.go(make_bundle("c.tar", padding=9)).copied) == {"m.fake", "m.fake.json", "bundle.json"}


def test_a_host_key_that_is_not_known_or_another_is_refused(
    server: Server, make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "empty").write_text("")
    other = _key(tmp_path / "other")
    wrong = tmp_path / "wrong"
    wrong.write_text(f"[127.0.0.1]:{server.board.port} {Path(f'{other}.pub').read_text()}")
    for known in (tmp_path / "empty", wrong):
        with pytest.raises(UnavailableError, match=r"host key is not the one in known_hosts.*ssh-keyscan"):
            server.go(make_bundle(), known_hosts=known)
    assert list(server.home.iterdir()) == []


def test_a_key_that_is_refused_or_is_none_is_told(
    server: Server, make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    other = server.board.model_copy(update={"identity": _key(tmp_path / "other")})
    with pytest.raises(UnavailableError, match="refuses the key"):
        server.go(make_bundle(), other)
    (tmp_path / "text").write_text("hello")
    with pytest.raises(InputError, match="not a private key"):
        server.go(make_bundle(), server.board.model_copy(update={"identity": tmp_path / "text"}))


def test_a_board_that_is_off_is_told(server: Server, make_bundle: Callable[..., Path]) -> None:
    closed = server.board.model_copy(update={"port": _free_port()})
    with pytest.raises(UnavailableError, match="can't be reached"):
        server.go(make_bundle(), closed)


@pytest.mark.parametrize(("script", "message"), [
    ("echo '{\"python\": [3, 8], \"free_bytes\": 1, \"sha256\": {}, \"numpy\": true}'", "is 3.8; 3.10 is needed"),
    ("echo '{\"python\": [3, 11], \"free_bytes\": 1, \"sha256\": {}, \"numpy\": false}'", "has no numpy"),
    ("echo '{\"python\": [3, 11], \"free_bytes\": 1, \"sha256\": {}, \"numpy\": true}'", "its disk is full"),
    ("echo 'PermissionError: no' >&2; exit 1", "can't prepare .*: PermissionError: no"),
])  # fmt: skip
def test_what_a_board_lacks_is_one_line(
    server: Server, make_bundle: Callable[..., Path], tmp_path: Path, script: str, message: str
) -> None:
    python = tmp_path / "odd-python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    with pytest.raises(UnavailableError, match=message):
        server.go(make_bundle(), server.board.model_copy(update={"python": str(python)}))
    with pytest.raises(UnavailableError, match="has no /no/python"):
        server.go(make_bundle(), server.board.model_copy(update={"python": "/no/python"}))


def test_after_a_lost_connection_the_same_command_goes_on(
    server: Server, make_bundle: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server is killed while the third file is under way, and started again."""
    tar, original, count = make_bundle(padding=3_000_000), deploy._Remote._copy, 0

    async def killing(self: deploy._Remote, name: str) -> None:
        nonlocal count
        count += 1
        if count == 3:
            asyncio.get_running_loop().call_later(0.01, _kill, server.process)
            await asyncio.sleep(0.05)
        await original(self, name)

    monkeypatch.setattr(deploy._Remote, "_copy", killing)
    with pytest.raises(UnavailableError, match=r"connection was lost.*run the same command again"):
        server.go(tar)
    monkeypatch.undo()
    server.process = _start(server.home.parent, server.board.port)
    _wait_for(server.board.port, server.process)
    done = server.go(tar)
    assert 0 < len(done.copied) < 8
    assert left_behind(server.home) == []


def test_answers_that_differ_there_are_an_error(server: Server, make_bundle: Callable[..., Path]) -> None:
    tar = make_bundle()
    server.go(tar)
    program = server.home.parent / "board.py"
    program.write_text(program.read_text().replace("    import runpy\n", "    import runpy, numpy\n"
                      "    numpy.load, real = (lambda *a, **k: real(*a, **k)[::-1]), numpy.load\n", 1))  # fmt: skip
    with pytest.raises(CompressError, match=r"another top-1|not the file"):
        server.go(tar)


def test_a_changed_bundle_is_refused_before_anything_is_sent(
    server: Server, make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    content = bytearray(make_bundle().read_bytes())
    place = content.index(b"latency_ms")
    content[place] ^= 1
    (tmp_path / "bad.tar").write_bytes(content)
    with pytest.raises(InputError, match="is not the file that was bundled"):
        server.go(tmp_path / "bad.tar")
    assert list(server.home.iterdir()) == []


def test_boards_by_address_and_by_name(tmp_path: Path) -> None:
    assert find_board("pi@10.0.0.7:2222", None) == Board(host="10.0.0.7", user="pi", port=2222)
    (tmp_path / "boards.yaml").write_text("orin: {host: 10.0.0.8, user: me, python: /opt/py/bin/python3}\n")
    assert find_board("orin", tmp_path / "boards.yaml").python == "/opt/py/bin/python3"
    with pytest.raises(InputError, match=r"'nano' is no board.*has orin"):
        find_board("nano", tmp_path / "boards.yaml")
    (tmp_path / "bad.yaml").write_text("orin: {hots: 10.0.0.8}\npi: {host: x, port: many}\n")
    with pytest.raises(InputError) as caught:
        find_board("orin", tmp_path / "bad.yaml")
    assert len(str(caught.value).splitlines()) >= 3
    assert f"{tmp_path / 'bad.yaml'}: orin.hots" in str(caught.value)


def test_what_was_measured_is_kept_with_the_run(tmp_path: Path) -> None:
    path = deploy.store(tmp_path, deploy.Deployed("pi", (), "", {"latency_ms_p50": 1.0}))
    assert json.loads(path.read_text()) == {"latency_ms_p50": 1.0}
    assert path == tmp_path / "boards/pi/measurement.json"


def test_a_full_disk_is_told_and_nothing_half_written_stays(
    server: Server, make_bundle: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real file system of 128 KiB; the second time the check beforehand believes that there is room."""
    folder = server.home / "bundles"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "none", str(folder)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("mounting a small tmpfs is not permitted here")
    try:
        tar = make_bundle(padding=1_000_000)
        with pytest.raises(UnavailableError, match=r"its disk is full: .* MB are needed, 0\.1 MB free"):
            server.go(tar)
        probe, count = deploy._Remote._probe, 0

        async def hopeful(self: deploy._Remote) -> dict[str, object]:
            nonlocal count
            count += 1
            found = await probe(self)
            return {**found, "free_bytes": 1 << 40} if count == 1 else found

        monkeypatch.setattr(deploy._Remote, "_probe", hopeful)
        with pytest.raises(UnavailableError, match="its disk is full"):
            server.go(tar)
        assert left_behind(server.home) == []
    finally:
        subprocess.run(["umount", str(folder)], check=True)
