"""A file system with one file, which fails, waits or answers as a test wishes. Needs root."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

HEADER = struct.Struct("=IIQQIIII")  # length, opcode, unique, node, uid, gid, pid, padding
ANSWER = struct.Struct("=IiQ")  # length, error, unique
LOOKUP, FORGET, GETATTR, OPEN, READ, RELEASE, FLUSH, INIT = 1, 2, 3, 14, 15, 18, 25, 26
INTERRUPT, BATCH_FORGET = 36, 42
DIRECT_IO = 1  # each read comes here
MNT_DETACH = 2
ROOT, FILE = 1, 2
LIBC = ctypes.CDLL(None, use_errno=True)

# What to answer a read with: from, so many bytes.
Read = Callable[[int, int], bytes]


class FailingFile:
    """Mounted at `folder`; its only file has `size` bytes, which `read` gives or refuses."""

    def __init__(self, folder: Path, size: int, read: Read) -> None:
        self.path = folder / "file"
        self.size = size
        self.read = read
        self.device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        options = f"fd={self.device},rootmode=40000,user_id={os.getuid()},group_id=0"
        arguments = (b"test", os.fsencode(folder), b"fuse", ctypes.c_ulong(0), options.encode())
        if LIBC.mount(*arguments) < 0:
            code = ctypes.get_errno()
            os.close(self.device)
            raise OSError(code, f"mount: {os.strerror(code)}")
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self, folder: Path) -> None:
        # Whoever still waits gets an error.
        LIBC.umount2(os.fsencode(folder), MNT_DETACH)
        os.close(self.device)

    def _serve(self) -> None:
        while True:
            try:
                message = os.read(self.device, 1 << 20)
            except OSError:
                return
            # A read may wait; others do not wait for it.
            threading.Thread(target=self._answer, args=(message,), daemon=True).start()

    def _answer(self, message: bytes) -> None:
        _, opcode, unique, node, *_ = HEADER.unpack_from(message)
        rest = message[HEADER.size :]
        if opcode == INTERRUPT:
            # Who waits is being killed; without this not even that would end it.
            self._say(struct.unpack_from("=Q", rest)[0], errno.EINTR)
        elif opcode not in (FORGET, BATCH_FORGET):
            try:
                data = self._take(opcode, node, rest)
            except OSError as failed:
                self._say(unique, failed.errno or errno.EIO)
            else:
                self._say(unique, 0, data)

    def _say(self, unique: int, error: int, data: bytes = b"") -> None:
        with suppress(OSError):  # perhaps nobody waits for it any more
            os.write(self.device, ANSWER.pack(ANSWER.size + len(data), -error, unique) + data)

    def _take(self, opcode: int, node: int, rest: bytes) -> bytes:
        if opcode == INIT:
            _, _, readahead, _ = struct.unpack_from("=IIII", rest)
            return struct.pack("=IIIIHHIIHHI28x", 7, 31, readahead, 0, 16, 12, 4096, 1, 32, 0, 0)
        if opcode == LOOKUP and rest.rstrip(b"\0") == b"file":
            return struct.pack("=QQQQII", FILE, 0, 0, 0, 0, 0) + self._attributes(FILE)
        if opcode == GETATTR:
            return struct.pack("=QII", 0, 0, 0) + self._attributes(node)
        if opcode == OPEN:
            return struct.pack("=QII", 0, DIRECT_IO, 0)
        if opcode == READ:
            _, offset, size = struct.unpack_from("=QQI", rest)
            return self.read(offset, min(size, max(0, self.size - offset)))
        if opcode in (FLUSH, RELEASE):
            return b""
        raise OSError(errno.ENOENT if opcode == LOOKUP else errno.ENOSYS, "")

    def _attributes(self, node: int) -> bytes:
        kind = stat.S_IFREG if node == FILE else stat.S_IFDIR
        size = self.size if node == FILE else 0
        return struct.pack(
            "=6Q10I", node, size, 0, 0, 0, 0, 0, 0, 0, kind | 0o755, 1, 0, 0, 0, 0, 0
        )


@contextmanager
def mounted(folder: Path, size: int, read: Read) -> Iterator[FailingFile]:
    """Says why, where such a file system cannot be had."""
    folder.mkdir()
    try:
        file = FailingFile(folder, size, read)
    except OSError as error:
        pytest.skip(f"this test needs root and /dev/fuse, to mount a file system: {error}")
    try:
        yield file
    finally:
        file.close(folder)
