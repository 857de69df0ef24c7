"""Exclusive lock on a folder, released by the operating system when the process exits."""

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
    """Try to take the lock for the block and yield whether that succeeded. wait: block until it does.

    Uses POSIX record locks: they end with the process, so no lock is ever stale; children don't inherit them; network
    file systems support them. The file stays. Raises CompressError where the file system can't lock.
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
    """Return which process holds a lock, as in 'process 71 on host'."""
    return path.read_text().strip() or "another process"
