"""Who works in a folder: a file that one process at a time can hold, which its end gives back, however it ends."""

from __future__ import annotations

import errno
import fcntl
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runtimes.errors import CompressError


@contextmanager
def held(path: Path, wait: bool = False) -> Iterator[bool]:
    """Try to hold the lock, and give whether that succeeded. wait: until it does.

    POSIX record locks: the system drops them with the process, so that none is ever stale, children don't inherit them,
    and network file systems know them. The file stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise CompressError(f"{path}: can't be locked ({error.strerror}); choose another folder") from error
            yield False
            return
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}\n")
        file.flush()
        yield True


def owner(path: Path) -> str:
    """Return who holds a lock, as in 'process 71 on host'."""
    return path.read_text().strip() or "another process"
