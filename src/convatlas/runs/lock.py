"""One process for each run folder."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import stat
import time
from collections.abc import Generator
from pathlib import Path

LOCK = ".lock"
# A list of runs looks at each lock, and holds it for an instant.
TRIES = 5

# A forked child shares its parent's lock. It must not keep it when the parent is killed, or a run could not
# be resumed while a loader's worker lives on for some seconds.
_held: set[int] = set()


class LockedError(ValueError):
    """Another process works on the run folder; the message says which."""


@contextlib.contextmanager
def locked(folder: Path) -> Generator[None]:
    """Holds the lock of a run folder. It ends with the process, however that ends.

    Args:
        folder: of the run; it must exist.

    Raises:
        LockedError: another process holds it.
        OSError: the folder is missing or may not be written.
    """
    handle = open_lock(folder, os.O_RDWR | os.O_CREAT)
    try:
        _take(handle, folder)
        _held.add(handle)
        owner = f"process {os.getpid()} on {socket.gethostname()}, since {time.strftime('%Y-%m-%d %H:%M:%S')}"
        os.ftruncate(handle, 0)
        os.pwrite(handle, owner.encode(), 0)
        yield
    finally:
        _held.discard(handle)
        os.close(handle)


def open_lock(folder: Path, flags: int) -> int:
    """Opens the lock of a run folder, where it is a file; the handle.

    Raises:
        LockedError: something else lies in its place: a link could lead anywhere, and a pipe be waited for.
        OSError: it cannot be opened.
    """
    try:
        handle = os.open(folder / LOCK, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK, errno.ENXIO, errno.EISDIR):
            raise _no_file(folder) from None
        raise
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise _no_file(folder)
    return handle


def _no_file(folder: Path) -> LockedError:
    return LockedError(f"{folder / LOCK}: is a link or no regular file; remove it")


def _take(handle: int, folder: Path) -> None:
    for attempt in range(TRIES):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
            if attempt < TRIES - 1:
                time.sleep(0.05)
    owner = os.pread(handle, 200, 0).decode(errors="replace") or "another process"
    raise LockedError(f"{folder}: {owner} is working on this run")


def _forget() -> None:
    for handle in _held:
        os.close(handle)
    _held.clear()


os.register_at_fork(after_in_child=_forget)
