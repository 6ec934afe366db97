"""A disk whose power can be cut: ext4 in a file, on a loop device, shut down without a flush."""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType

_SHUTDOWN = 0x8004587D
"""EXT4_IOC_SHUTDOWN of the kernel's ext4.h."""
_WITHOUT_LOG_FLUSH = 2
_IMAGE_BYTES = 192 * 1024 * 1024


class LoopDisk:
    """Mounted while used as a context manager, and never afterwards."""

    def __init__(self) -> None:
        self._home = Path(tempfile.mkdtemp(prefix="dosql-power-"))
        self._image = self._home / "image"
        self.path = self._home / "mount"
        """Where files go."""
        self._mounted = False

    def __enter__(self) -> LoopDisk:
        try:
            self.path.mkdir()
            with self._image.open("wb") as image:
                image.truncate(_IMAGE_BYTES)
            _run("mkfs.ext4", "-q", "-F", str(self._image))
            self._mount()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._remove()

    def cut_power(self) -> None:
        """From now on nothing reaches the disk, not even what ext4's journal had ready."""
        descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(descriptor, _SHUTDOWN, struct.pack("I", _WITHOUT_LOG_FLUSH))
        finally:
            os.close(descriptor)

    def restore_power(self) -> None:
        """Mount what is left. No process may have files open on it."""
        self._unmount()
        self._mount()

    def _mount(self) -> None:
        _run("mount", "-o", "loop", str(self._image), str(self.path))
        self._mounted = True

    def _unmount(self) -> None:
        if self._mounted:
            _run("umount", str(self.path))
            self._mounted = False

    def _remove(self) -> None:
        try:
            self._unmount()
        except subprocess.CalledProcessError:
            subprocess.run(["umount", "-l", str(self.path)], check=False)
        shutil.rmtree(self._home, ignore_errors=True)


def why_not() -> str | None:
    """Why power cannot be cut here; None if it can."""
    if os.geteuid() != 0:
        return "needs root, for loop devices and EXT4_IOC_SHUTDOWN"
    for tool in ("mkfs.ext4", "mount", "umount"):
        if shutil.which(tool) is None:
            return f"needs {tool}"
    try:
        with LoopDisk() as disk:
            disk.cut_power()
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", b"") or str(error).encode()
        return f"no loop-mounted ext4 here: {said.decode(errors='replace').strip()}"
    return None


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
