"""Deployment over ssh to a real server on loopback, which runs real commands in a Python without torch."""

from __future__ import annotations

import asyncio
import errno
import json
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from compress.boards import deploy
from compress.boards.inventory import Board
from export.bundle import write_bundle
from runtimes import evalset
from runtimes.artifact import Artifact, Manifest
from runtimes.console import Console, SilentConsole
from runtimes.errors import CompressError, InputError, UnavailableError
from runtimes.files import sha256_file
from runtimes.preprocessing import Preprocessing
from runtimes.target import Target

pytest.importorskip("asyncssh", reason="deploying needs asyncssh: pip install -e '.[remote]'")
from board import Server, board_on_loopback, free_port, new_key
from consoles import RecordingConsole

CLASSES = ("cat", "dog")
SILENT = SilentConsole()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with board_on_loopback(tmp_path) as running:
        yield running


def go(
    server: Server,
    tar: Path,
    board: Board | None = None,
    known_hosts: Path | None = None,
    console: Console = SILENT,
) -> deploy.Deployed:
    """Deploy a bundle to the board of a server."""
    return deploy.deploy(tar, "pi", board or server.board, known_hosts or server.known_hosts, console)


@pytest.fixture
def make_bundle(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a bundle of a fake artifact."""

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


def partial_files(home: Path) -> list[str]:
    return [path.name for path in home.rglob("*.partial")]


def test_a_second_deployment_copies_nothing(server: Server, make_bundle: Callable[..., Path]) -> None:
    tar, console = make_bundle(), RecordingConsole()
    first = go(server, tar, console=console)
    assert len(first.copied) == 8
    assert console.events == [("copy to pi", done, 8) for done in range(1, 9)]
    assert console.said[0] == "pi: 8 of 8 files copied"
    assert console.said[-1] == "pi: measure"
    assert first.measurement["accuracy"]["top1"] == 1.0
    assert first.measurement["environment"]["cpu"]
    assert "verified" in first.verified
    assert go(server, tar).copied == ()
    assert partial_files(server.home) == []


def test_only_changed_files_are_copied_again(server: Server, make_bundle: Callable[..., Path]) -> None:
    go(server, make_bundle())
    (golden,) = server.home.rglob("golden.npy")
    golden.write_bytes(b"damaged")
    assert go(server, make_bundle()).copied == ("golden.npy",)
    assert set(go(server, make_bundle("c.tar", padding=9)).copied) == {"m.fake", "m.fake.json", "bundle.json"}


def test_an_unknown_or_different_host_key_is_refused(
    server: Server, make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "empty").write_text("")
    other = new_key(tmp_path / "other")
    wrong = tmp_path / "wrong"
    wrong.write_text(f"[127.0.0.1]:{server.board.port} {Path(f'{other}.pub').read_text()}")
    for known in (tmp_path / "empty", wrong):
        with pytest.raises(UnavailableError, match=r"host key is not the one in known_hosts.*ssh-keyscan"):
            go(server, make_bundle(), known_hosts=known)
    assert list(server.home.iterdir()) == []


def test_a_refused_or_invalid_private_key_is_an_error(
    server: Server, make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    other = server.board.model_copy(update={"identity": new_key(tmp_path / "other")})
    with pytest.raises(UnavailableError, match="refuses the key"):
        go(server, make_bundle(), other)
    (tmp_path / "text").write_text("hello")
    with pytest.raises(InputError, match="not a readable private key"):
        go(server, make_bundle(), server.board.model_copy(update={"identity": tmp_path / "text"}))


def test_a_board_that_is_off_is_an_error(server: Server, make_bundle: Callable[..., Path]) -> None:
    closed = server.board.model_copy(update={"port": free_port()})
    with pytest.raises(UnavailableError, match="cannot be reached"):
        go(server, make_bundle(), closed)


@pytest.mark.parametrize(("error", "expected", "message"), [
    (OSError(errno.ENOSPC, "No space left on device", "/tmp/x"), CompressError, r"^/tmp/x: No space left on device"),
    (PermissionError(errno.EACCES, "Permission denied", "/tmp/x"), CompressError, r"^/tmp/x: Permission denied"),
    (FileNotFoundError(errno.ENOENT, "No such file or directory", "/tmp/x"), CompressError, r"^/tmp/x: No such file"),
    (OSError(errno.EMFILE, "Too many open files"), CompressError, r"^this machine: Too many open files"),
    (OSError(errno.EHOSTUNREACH, "No route to host"), UnavailableError, "cannot be reached.*No route to host"),
    (OSError(errno.ENETUNREACH, "Network is unreachable"), UnavailableError, "cannot be reached"),
    (OSError("Multiple exceptions: [Errno 111] Connect call failed"), UnavailableError, "cannot be reached"),
    (TimeoutError(), UnavailableError, "cannot be reached"),
    (socket.gaierror(-2, "Name or service not known"), UnavailableError, "cannot be reached.*Name or service"),
])  # fmt: skip
def test_an_error_of_this_machine_is_not_one_of_the_network(
    error: OSError, expected: type[CompressError], message: str, make_bundle: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    import asyncssh

    def fail(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(asyncssh, "connect", fail)
    with pytest.raises(CompressError, match=message) as raised:
        deploy.deploy(make_bundle(), "pi", Board(host="pi"), None, SILENT)
    assert type(raised.value) is expected
    assert ("cannot be reached" in str(raised.value)) == (expected is UnavailableError)


@pytest.mark.parametrize("identity", ["~nobody-of-this-name/key", "/dev/zero"])
def test_an_identity_that_is_no_file_is_one_line(identity: str, make_bundle: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match=r"no such file.*give another with --identity"):
        deploy.deploy(make_bundle(), "pi", Board(host="pi", identity=Path(identity)), None, SILENT)


@pytest.mark.parametrize(("script", "message"), [
    ("echo '{\"python\": [3, 8], \"free_bytes\": 1, \"sha256\": {}, \"numpy\": true}'", "is 3.8; 3.10 is needed"),
    ("echo '{\"python\": [3, 11], \"free_bytes\": 1, \"sha256\": {}, \"numpy\": false}'", "has no numpy"),
    ("echo '{\"python\": [3, 11], \"free_bytes\": 1, \"sha256\": {}, \"numpy\": true}'", "its disk is full"),
    ("echo 'PermissionError: no' >&2; exit 1", "cannot prepare .*: PermissionError: no"),
])  # fmt: skip
def test_what_a_board_lacks_is_an_error_of_one_line(
    server: Server, make_bundle: Callable[..., Path], tmp_path: Path, script: str, message: str
) -> None:
    python = tmp_path / "odd-python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    with pytest.raises(UnavailableError, match=message):
        go(server, make_bundle(), server.board.model_copy(update={"python": str(python)}))
    with pytest.raises(UnavailableError, match="has no /no/python"):
        go(server, make_bundle(), server.board.model_copy(update={"python": "/no/python"}))


def test_after_a_lost_connection_the_same_command_continues(
    server: Server, make_bundle: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server is killed while it receives the third file, and started again."""
    tar, original, count = make_bundle(padding=3_000_000), deploy._Deployment._copy, 0

    async def killing(self: deploy._Deployment, name: str) -> None:
        nonlocal count
        count += 1
        if count == 3:
            asyncio.get_running_loop().call_later(0.01, server.kill)
            await asyncio.sleep(0.05)
        await original(self, name)

    monkeypatch.setattr(deploy._Deployment, "_copy", killing)
    with pytest.raises(UnavailableError, match=r"connection was lost.*run the same command again"):
        go(server, tar)
    monkeypatch.undo()
    server.start()
    assert 0 < len(go(server, tar).copied) < 8
    assert partial_files(server.home) == []


def test_other_outputs_on_the_board_are_an_error(server: Server, make_bundle: Callable[..., Path]) -> None:
    tar = make_bundle()
    go(server, tar)
    program = server.home.parent / "board.py"
    program.write_text(program.read_text().replace("    import runpy\n", "    import runpy, numpy\n"
                      "    numpy.load, real = (lambda *a, **k: real(*a, **k)[::-1]), numpy.load\n", 1))  # fmt: skip
    with pytest.raises(CompressError, match=r"another top-1|not the file"):
        go(server, tar)


def test_a_changed_bundle_is_refused_before_anything_is_sent(
    server: Server, make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    content = bytearray(make_bundle().read_bytes())
    place = content.index(b"latency_ms")
    content[place] ^= 1
    (tmp_path / "bad.tar").write_bytes(content)
    with pytest.raises(InputError, match="was changed; unpack the bundle again"):
        go(server, tmp_path / "bad.tar")
    assert list(server.home.iterdir()) == []


def test_a_missing_key_or_known_hosts_file_is_an_error_before_anything_is_sent(tmp_path: Path) -> None:
    board = Board(host="127.0.0.1", identity=Path("/dev/zero"))
    for settings, known_hosts in ((board, None), (Board(host="127.0.0.1"), tmp_path / "none")):
        with pytest.raises(InputError, match="no such file"):
            deploy.deploy(tmp_path / "no.tar", "pi", settings, known_hosts, SILENT)


def test_without_asyncssh_the_error_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UnavailableError, match=r"asyncssh: pip install 'compress-classifiers\[remote\]'"):
        deploy.deploy(tmp_path / "no.tar", "pi", Board(host="127.0.0.1"), None, SILENT)


def test_the_measurement_is_stored_in_the_run_folder(tmp_path: Path) -> None:
    path = deploy.store(tmp_path, deploy.Deployed("pi", "0" * 64, (), "", {"latency_ms_p50": 1.0}))
    assert json.loads(path.read_text()) == {"latency_ms_p50": 1.0, "deployed_sha256": "0" * 64}
    assert path == tmp_path / "boards/pi/measurement.json"


def test_a_full_disk_is_an_error_and_leaves_no_partial_file(
    server: Server, make_bundle: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a real file system of 128 KiB; the second time the check before the copy reports enough space."""
    folder = server.home / "bundles"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "none", str(folder)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("mounting a small tmpfs is not permitted here")
    try:
        tar = make_bundle(padding=1_000_000)
        with pytest.raises(UnavailableError, match=r"its disk is full: .* MB are needed, 0\.1 MB are free"):
            go(server, tar)
        probe, count = deploy._Deployment._probe, 0

        async def enough_space(self: deploy._Deployment) -> dict[str, object]:
            nonlocal count
            count += 1
            state = await probe(self)
            return {**state, "free_bytes": 1 << 40} if count == 1 else state

        monkeypatch.setattr(deploy._Deployment, "_probe", enough_space)
        with pytest.raises(UnavailableError, match="its disk is full"):
            go(server, tar)
        assert partial_files(server.home) == []
    finally:
        subprocess.run(["umount", str(folder)], check=True)
