"""A bundle to a board over ssh: copy what isn't there, verify and measure there, bring the figures back."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import shlex
import socket
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, ValidationError

from compress.recipe import errors as recipe_errors
from compress.recipe import strict_yaml
from compress.recipe.section import Config
from runtimes import bundle
from runtimes.bundle import Bundle
from runtimes.clock import Progress
from runtimes.errors import CompressError, InputError, UnavailableError
from runtimes.files import sha256_file, write_text

if TYPE_CHECKING:
    import asyncssh

OLDEST_PYTHON = (3, 10)
CONNECT_TIMEOUT_S = 20
KEEPALIVE_S = 5  # three answers missing, and the board is taken for gone
PIECE_BYTES = 1 << 18
RESULT = "bench.json"
GOES_ON = "run the same command again, it goes on where it stopped"

# Says what the board has; runs on any Python 3. Arguments: the folder, then names of files in it.
PROBE = """
import hashlib, importlib.util, json, os, shutil, sys
folder, names = sys.argv[1], sys.argv[2:]
os.makedirs(folder, exist_ok=True)
found = {}
for name in names:
    path = os.path.join(folder, name)
    if os.path.isfile(path):
        with open(path, "rb") as stream:
            found[name] = hashlib.sha256(stream.read()).hexdigest()
    os.makedirs(os.path.dirname(path), exist_ok=True)
print(json.dumps({"python": sys.version_info[:2], "free_bytes": shutil.disk_usage(folder).free, "sha256": found,
                  "numpy": importlib.util.find_spec("numpy") is not None}))
"""


class Board(Config):
    """A board that is reached over ssh, as an inventory of boards holds it.

    user: yours unless given. python: with numpy and the runtime. folder: for bundles, from the home folder. identity: a
    private key's file; those of ~/.ssh and the agent unless given.
    """

    host: str
    user: str | None = None
    port: Annotated[int, Field(ge=1, le=65535)] = 22
    python: str = "python3"
    folder: str = "compress-bundles"
    identity: Path | None = None


@dataclass(frozen=True)
class Deployed:
    """What came of it. copied: names of files that were not there. measurement: as `runtimes.measure` gives it."""

    board: str
    copied: tuple[str, ...]
    verified: str
    measurement: dict[str, Any]


def find_board(name: str, inventory: Path | None) -> Board:
    """Return the board of that name in an inventory, or the one that `user@host` or `user@host:port` means.

    Raises InputError for an inventory that is none, and for names that are neither.
    """
    boards = _inventory(inventory) if inventory else {}
    if name in boards:
        return boards[name]
    user, _, address = name.rpartition("@")
    host, _, port = address.partition(":")
    if user and host:
        with contextlib.suppress(ValidationError):  # of the port
            return Board.model_validate({"host": host, "user": user, **({"port": port} if port else {})})
    known = f"; {inventory} has {', '.join(boards)}" if boards else "; or name a board of --inventory"
    raise InputError(f"'{name}' is no board: give user@host or user@host:port{known}")


def deploy(
    tar: Path,
    name: str,
    board: Board,
    known_hosts: Path | None,
    progress: Progress,
    say: Callable[[str], None],
) -> Deployed:
    """Bring a bundle to a board, verify and measure it there; what is there already is not copied again.

    known_hosts: ~/.ssh/known_hosts unless given; a host that is not in it is refused. Raises InputError for a bundle
    that is none, UnavailableError where the board can't be reached or lacks something, CompressError where the answers
    there are not the bundle's.
    """
    if importlib.util.find_spec("asyncssh") is None:
        raise UnavailableError("deploying needs the package asyncssh: pip install -e '.[remote]'")
    for option, path in (("--identity", board.identity), ("--known-hosts", known_hosts)):
        if path is not None and not path.expanduser().is_file():
            raise InputError(f"{path}: no such file; give another with {option}")
    with tempfile.TemporaryDirectory(prefix="compress-") as folder:
        opened = bundle.unpack(tar, Path(folder) / "bundle")
        return asyncio.run(_deploy(opened, name, board, known_hosts, progress, say))


async def _deploy(
    opened: Bundle,
    name: str,
    board: Board,
    known_hosts: Path | None,
    progress: Progress,
    say: Callable[[str], None],
) -> Deployed:
    import asyncssh

    where = f"{board.user}@{board.host}:{board.port}" if board.user else f"{board.host}:{board.port}"
    options: dict[str, Any] = {} if known_hosts is None else {"known_hosts": str(known_hosts)}
    if board.identity is not None:
        options |= {"client_keys": [str(board.identity.expanduser())], "agent_path": None}
    try:
        async with asyncssh.connect(
            board.host, board.port, username=board.user or (), connect_timeout=CONNECT_TIMEOUT_S,
            keepalive_interval=KEEPALIVE_S, config=None, **options,
        ) as connection:  # fmt: skip
            return await _Remote(connection, name, board, opened, progress, say).deploy()
    except asyncssh.HostKeyNotVerifiable as error:
        raise UnavailableError(
            f"{where}: its host key is not the one in known_hosts ({error}); compare it with the board's, "
            f"then: ssh-keyscan -p {board.port} {board.host} >> ~/.ssh/known_hosts"
        ) from error
    except asyncssh.PermissionDenied as error:
        raise UnavailableError(
            f"{where}: refuses the key ({error}); give another with --identity, or: ssh-copy-id -p {board.port} …"
        ) from error
    except asyncssh.KeyImportError as error:
        raise InputError(f"{board.identity}: not a private key that can be read ({error})") from error
    except (asyncssh.DisconnectError, asyncssh.ChannelOpenError, ConnectionResetError, BrokenPipeError) as error:
        raise UnavailableError(f"{where}: the connection was lost ({error}); {GOES_ON}") from error
    except (ConnectionRefusedError, TimeoutError, socket.gaierror, OSError) as error:
        raise UnavailableError(f"{where}: can't be reached ({error}); is it on, and is that its address?") from error


class _Remote:
    """One bundle on one connected board."""

    def __init__(
        self,
        connection: asyncssh.SSHClientConnection,
        name: str,
        board: Board,
        opened: Bundle,
        progress: Progress,
        say: Callable[[str], None],
    ) -> None:
        self._connection, self._name, self._board = connection, name, board
        self._opened, self._progress, self._say = opened, progress, say
        description = json.loads((opened.folder / bundle.DESCRIPTION).read_text())
        self._sha256: dict[str, str] = {
            **description["files"],
            bundle.DESCRIPTION: sha256_file(opened.folder / bundle.DESCRIPTION),
        }
        self._folder = PurePosixPath(board.folder) / f"{description['recipe'] or 'model'}-{opened.target.name}"

    async def deploy(self) -> Deployed:
        """Copy, verify, measure."""
        copied = await self._copy_missing()
        verified = await self._program("verify")
        self._say(verified.splitlines()[1] if verified.count("\n") > 1 else verified.strip())
        self._say(f"{self._name}: measure")
        await self._program("bench", "--json", RESULT)
        text = (await self._run(f"cat {self._quoted(self._folder / RESULT)}")).stdout
        return Deployed(self._name, copied, verified, json.loads(str(text)))

    async def _copy_missing(self) -> tuple[str, ...]:
        found = await self._probe()
        missing = [name for name in self._sha256 if found["sha256"].get(name) != self._sha256[name]]
        needed = sum((self._opened.folder / name).stat().st_size for name in missing)
        if found["free_bytes"] < needed:
            raise UnavailableError(self._full(needed, found["free_bytes"]))
        for number, name in enumerate(missing):
            await self._copy(name)
            self._progress(f"copy to {self._name}", number + 1, len(missing))
        again = (await self._probe())["sha256"] if missing else found["sha256"]
        wrong = [name for name, digest in self._sha256.items() if again.get(name) != digest]
        if wrong:
            raise UnavailableError(f"{self._name}: {wrong[0]} is not there as it was sent; {GOES_ON}")
        self._say(f"{self._name}: {len(missing)} of {len(self._sha256)} files copied")
        return tuple(missing)

    async def _copy(self, name: str) -> None:
        """Send a file under another name, flush it there, then give it its own: it is whole or not there."""
        import asyncssh

        final = str(self._folder / name)
        temporary = f"{final}.partial"
        source = self._opened.folder / name
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
                    raise UnavailableError(self._full(size, free)) from error
                raise UnavailableError(f"{self._name}: can't write {final} ({error})") from error

    async def _probe(self) -> dict[str, Any]:
        """Return what the board has of what is needed; raises UnavailableError for what can't be done without."""
        python = shlex.quote(self._board.python)
        words = " ".join(shlex.quote(word) for word in (PROBE, str(self._folder), *self._sha256))
        done = await self._run(f"{python} -c {words}")
        if done.exit_status == 127:
            raise UnavailableError(f"{self._name}: has no {self._board.python}; name another with --python")
        if done.exit_status != 0:
            last = (str(done.stderr).strip().splitlines() or ["no reason given"])[-1]
            raise UnavailableError(f"{self._name}: {self._board.python} can't prepare {self._folder}: {last}")
        found: dict[str, Any] = json.loads(str(done.stdout))
        if tuple(found["python"]) < OLDEST_PYTHON:
            version = ".".join(map(str, found["python"]))
            raise UnavailableError(f"{self._name}: {self._board.python} is {version}; 3.10 is needed; try --python")
        if not found["numpy"]:
            raise UnavailableError(f"{self._name}: {self._board.python} has no numpy: pip install numpy")
        return found

    async def _program(self, *arguments: str) -> str:
        """Run the bundle's program there; raises CompressError with what it says where it fails."""
        words = " ".join(map(shlex.quote, (self._board.python, bundle.PROGRAM, *arguments)))
        done = await self._run(f"cd {self._quoted(self._folder)} && {words}")
        if done.exit_status != 0:
            told = (str(done.stderr).strip().splitlines() or [f"run.pyz ended with {done.exit_status}"])[-1]
            raise CompressError(f"{self._name}: {told.removeprefix('run.pyz: ')}")
        return str(done.stdout)

    async def _run(self, command: str) -> asyncssh.SSHCompletedProcess:
        return await self._connection.run(command)

    def _quoted(self, path: PurePosixPath) -> str:
        return shlex.quote(str(path))

    def _full(self, needed: int, free: int) -> str:
        return (
            f"{self._name}: its disk is full: {needed / 1e6:.1f} MB are needed, {free / 1e6:.1f} MB free in "
            f"{self._folder}; make room, or name another folder in the inventory (folder:)"
        )


def store(run_folder: Path, deployed: Deployed) -> Path:
    """Write a measurement into a run folder, for the report; returns its path."""
    path = run_folder / "boards" / deployed.board / "measurement.json"
    write_text(path, json.dumps(deployed.measurement, indent=1) + "\n")
    return path


def _inventory(path: Path) -> dict[str, Board]:
    boards, problems = {}, []
    for name, section in strict_yaml.read(path).items():
        if not isinstance(section, dict):
            problems.append(f"{path}: {name}: must be a mapping, as {{host: 10.0.0.8, user: me}}")
            continue
        try:
            boards[str(name)] = Board.model_validate(section)
        except ValidationError as error:
            problems += [f"{path}: {name}.{line}" for line in recipe_errors.lines(error, Board, section)]
    if problems:
        raise InputError("\n".join(problems))
    return boards
