"""Deploy a bundle to a board over ssh: copy the missing files, verify and measure it there, fetch the measurement."""

from __future__ import annotations

import asyncio
import errno
import importlib.util
import json
import shlex
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from compress.boards.inventory import Board
from runtimes import bundle
from runtimes.bundle import Bundle
from runtimes.console import Console
from runtimes.errors import CompressError, InputError, UnavailableError
from runtimes.files import sha256_file, write_json

if TYPE_CHECKING:
    import asyncssh

OLDEST_PYTHON = (3, 10)
CONNECT_TIMEOUT_S = 20
KEEPALIVE_S = 5  # the connection counts as lost after three unanswered messages
PIECE_BYTES = 1 << 18
RESULT = "bench.json"
NETWORK_ERRORS = {
    errno.EHOSTUNREACH,
    errno.ENETUNREACH,
    errno.EHOSTDOWN,
    errno.ENETDOWN,
    errno.ENETRESET,
    errno.EADDRNOTAVAIL,
    errno.ENOTCONN,
}  # besides those of ConnectionError and TimeoutError
RETRY = "run the same command again to continue"

# Prints the state of the board as JSON; runs on any Python 3. Arguments: the folder, then names of files in it.
PROBE = """
import hashlib, importlib.util, json, os, shutil, sys
folder, names = sys.argv[1], sys.argv[2:]
os.makedirs(folder, exist_ok=True)
digests = {}
for name in names:
    path = os.path.join(folder, name)
    if os.path.isfile(path):
        with open(path, "rb") as stream:
            digests[name] = hashlib.sha256(stream.read()).hexdigest()
    os.makedirs(os.path.dirname(path), exist_ok=True)
print(json.dumps({"python": sys.version_info[:2], "free_bytes": shutil.disk_usage(folder).free, "sha256": digests,
                  "numpy": importlib.util.find_spec("numpy") is not None}))
"""


@dataclass(frozen=True)
class Deployed:
    """Result of a deployment.

    artifact_sha256: of the bundle's model file, from which a board may build an engine. copied: names of the files that
    were missing or different on the board. verified: output of the bundle's `verify`.
    measurement: JSON of `runtimes.measure.Measurement`.
    """

    board: str
    artifact_sha256: str
    copied: tuple[str, ...]
    verified: str
    measurement: dict[str, Any]  # as the board's JSON gives it; reports validate it when they read it


def deploy(tar: Path, name: str, board: Board, known_hosts: Path | None, console: Console) -> Deployed:
    """Copy a bundle to a board, then verify and measure it there; files that the board already has are not copied.

    name: of the board, in messages and in the run folder. known_hosts: ~/.ssh/known_hosts by default; an unknown host
    key is refused. Raises InputError for an invalid bundle, UnavailableError if the board cannot be reached or lacks
    something, CompressError if the outputs on the board differ from the bundle's.
    """
    if importlib.util.find_spec("asyncssh") is None:
        raise UnavailableError("deploying needs the package asyncssh: pip install 'compress-classifiers[remote]'")
    for option, path in (("--identity", board.identity), ("--known-hosts", known_hosts)):
        if path is not None:
            _require_readable(path, option)
    with tempfile.TemporaryDirectory(prefix="compress-") as folder:
        unpacked = bundle.unpack(tar, Path(folder) / "bundle")
        return asyncio.run(_deploy(unpacked, name, board, known_hosts, console))


async def _deploy(unpacked: Bundle, name: str, board: Board, known_hosts: Path | None, console: Console) -> Deployed:
    import asyncssh

    address = f"{board.user}@{board.host}:{board.port}" if board.user else f"{board.host}:{board.port}"
    options: dict[str, Any] = {} if known_hosts is None else {"known_hosts": str(known_hosts)}
    if board.identity is not None:
        options |= {"client_keys": [str(board.identity.expanduser())], "agent_path": None}
    try:
        async with asyncssh.connect(
            board.host, board.port, username=board.user or (), connect_timeout=CONNECT_TIMEOUT_S,
            keepalive_interval=KEEPALIVE_S, config=None, **options,
        ) as connection:  # fmt: skip
            return await _Deployment(connection, name, board, unpacked, console).run()
    except asyncssh.HostKeyNotVerifiable as error:
        raise UnavailableError(
            f"{address}: its host key is not the one in known_hosts ({error}); compare it with the board's, "
            f"then: ssh-keyscan -p {board.port} {board.host} >> ~/.ssh/known_hosts"
        ) from error
    except asyncssh.PermissionDenied as error:
        raise UnavailableError(
            f"{address}: refuses the key ({error}); give another with --identity, or: ssh-copy-id -p {board.port} …"
        ) from error
    except asyncssh.KeyImportError as error:
        raise InputError(f"{board.identity}: not a readable private key ({error})") from error
    except (asyncssh.DisconnectError, asyncssh.ChannelOpenError, ConnectionResetError, BrokenPipeError) as error:
        raise UnavailableError(f"{address}: the connection was lost ({error}); {RETRY}") from error
    except OSError as error:
        if not _is_of_network(error):
            where = error.filename or "this machine"
            raise CompressError(
                f"{where}: {error.strerror or error}; this is not the board's fault; {RETRY}"
            ) from error
        raise UnavailableError(
            f"{address}: cannot be reached ({error}); check the address and whether the board is on"
        ) from error


def _require_readable(path: Path, option: str) -> None:
    """Raise InputError unless a file of the user's can be read."""
    try:
        expanded = path.expanduser()
        if not expanded.is_file():
            raise InputError(f"{path}: no such file; give another with {option}")
        expanded.open("rb").close()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give another with {option}") from error
    except RuntimeError as error:  # the home folder of an unknown user
        raise InputError(f"{path}: no such file ({error}); give another with {option}") from error


def _is_of_network(error: OSError) -> bool:
    """Return whether an error is that of a connection, not of a file or of a resource of this machine."""
    if isinstance(error, (ConnectionError, TimeoutError, socket.gaierror)):
        return True
    # asyncio joins the errors of several addresses into one without a number
    return error.filename is None and (error.errno is None or error.errno in NETWORK_ERRORS)


class _Deployment:
    """Deployment of one unpacked bundle to one connected board."""

    def __init__(
        self, connection: asyncssh.SSHClientConnection, name: str, board: Board, unpacked: Bundle, console: Console
    ) -> None:
        self._connection, self._name, self._board = connection, name, board
        self._unpacked, self._console = unpacked, console
        description = json.loads((unpacked.folder / bundle.DESCRIPTION).read_text("utf-8"))
        self._sha256: dict[str, str] = {
            **description["files"],
            bundle.DESCRIPTION: sha256_file(unpacked.folder / bundle.DESCRIPTION),
        }
        self._folder = PurePosixPath(board.folder) / f"{description['recipe'] or 'model'}-{unpacked.target.name}"

    async def run(self) -> Deployed:
        """Copy, verify, measure."""
        copied = await self._copy_missing()
        verified = await self._program("verify")
        self._console.say(verified.splitlines()[1] if verified.count("\n") > 1 else verified.strip())
        self._console.say(f"{self._name}: measure")
        await self._program("bench", "--json", RESULT)
        text = (await self._run(f"cat {self._quoted(self._folder / RESULT)}")).stdout
        return Deployed(self._name, self._unpacked.artifact.manifest.sha256, copied, verified, json.loads(str(text)))

    async def _copy_missing(self) -> tuple[str, ...]:
        state = await self._probe()
        missing = [name for name in self._sha256 if state["sha256"].get(name) != self._sha256[name]]
        needed = sum((self._unpacked.folder / name).stat().st_size for name in missing)
        if state["free_bytes"] < needed:
            raise UnavailableError(self._disk_full(needed, state["free_bytes"]))
        for number, name in enumerate(missing):
            await self._copy(name)
            self._console.progress(f"copy to {self._name}", number + 1, len(missing))
        digests = (await self._probe())["sha256"] if missing else state["sha256"]
        damaged = [name for name, digest in self._sha256.items() if digests.get(name) != digest]
        if damaged:
            raise UnavailableError(f"{self._name}: {damaged[0]} differs there from what was sent; {RETRY}")
        self._console.say(f"{self._name}: {len(missing)} of {len(self._sha256)} files copied")
        return tuple(missing)

    async def _copy(self, name: str) -> None:
        """Send a file under a temporary name, flush it, then rename it: no reader sees a partial file."""
        import asyncssh

        final = str(self._folder / name)
        temporary = f"{final}.partial"
        source = self._unpacked.folder / name
        async with self._connection.start_sftp_client() as sftp:
            try:
                async with sftp.open(temporary, "wb") as out:
                    with source.open("rb") as stream:
                        while piece := stream.read(PIECE_BYTES):
                            await out.write(piece)
                    await out.fsync()
                await sftp.posix_rename(temporary, final)
            except asyncssh.SFTPConnectionLost:
                raise
            except asyncssh.SFTPError as error:
                free = (await self._probe())["free_bytes"]
                await self._run(f"rm -f {self._quoted(PurePosixPath(temporary))}")
                size = source.stat().st_size
                if free < size:
                    raise UnavailableError(self._disk_full(size, free)) from error
                raise UnavailableError(f"{self._name}: cannot write {final} ({error})") from error

    async def _probe(self) -> dict[str, Any]:
        """Return the JSON that PROBE prints; raises UnavailableError if the board's Python cannot run the bundle."""
        python = shlex.quote(self._board.python)
        words = " ".join(shlex.quote(word) for word in (PROBE, str(self._folder), *self._sha256))
        process = await self._run(f"{python} -c {words}")
        if process.exit_status == 127:
            raise UnavailableError(f"{self._name}: has no {self._board.python}; name another with --python")
        if process.exit_status != 0:
            reason = (str(process.stderr).strip().splitlines() or ["no reason given"])[-1]
            raise UnavailableError(f"{self._name}: {self._board.python} cannot prepare {self._folder}: {reason}")
        state: dict[str, Any] = json.loads(str(process.stdout))
        if tuple(state["python"]) < OLDEST_PYTHON:
            version = ".".join(map(str, state["python"]))
            raise UnavailableError(
                f"{self._name}: {self._board.python} is {version}; 3.10 is needed; name another with --python"
            )
        if not state["numpy"]:
            raise UnavailableError(f"{self._name}: {self._board.python} has no numpy: pip install numpy")
        return state

    async def _program(self, *arguments: str) -> str:
        """Run the bundle's program on the board and return its output; raises CompressError with its last line."""
        words = " ".join(map(shlex.quote, (self._board.python, bundle.PROGRAM, *arguments)))
        process = await self._run(f"cd {self._quoted(self._folder)} && {words}")
        if process.exit_status != 0:
            lines = str(process.stderr).strip().splitlines() or [f"run.pyz ended with {process.exit_status}"]
            raise CompressError(f"{self._name}: {lines[-1].removeprefix('run.pyz: ')}")
        return str(process.stdout)

    async def _run(self, command: str) -> asyncssh.SSHCompletedProcess:
        return await self._connection.run(command)

    def _quoted(self, path: PurePosixPath) -> str:
        return shlex.quote(str(path))

    def _disk_full(self, needed: int, free: int) -> str:
        return (
            f"{self._name}: its disk is full: {needed / 1e6:.1f} MB are needed, {free / 1e6:.1f} MB are free in "
            f"{self._folder}; free some space, or set another folder in the inventory (folder:)"
        )


def store(run_folder: Path, deployed: Deployed) -> Path:
    """Write a measurement to boards/ of the run folder, from where the report reads it; return its path."""
    path = run_folder / "boards" / deployed.board / "measurement.json"
    write_json(path, {**deployed.measurement, "deployed_sha256": deployed.artifact_sha256})
    return path
