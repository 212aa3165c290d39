"""Free main memory for this process: of the machine, and of the container it is in.

A container or a batch job has its own limit (a cgroup), and a process that exceeds it is killed
without an error, however much the machine has. Each group on the way from this process up to the
root may set one; what the kernel would give back at once (inactive file cache) counts as free.

    version 2   /sys/fs/cgroup/PATH/{memory.max, memory.current, memory.stat}
    version 1   /sys/fs/cgroup/memory/PATH/{memory.limit_in_bytes, memory.usage_in_bytes, ...}
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_V2 = ("memory.max", "memory.current", "inactive_file")
_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def free_memory(root: Path = Path("/")) -> int:
    """Bytes that this process may still allocate.

    Args:
        root: the folder of /proc and /sys.
    """
    return max(0, min([_of_machine(root), *_of_groups(root)]))


def _of_machine(root: Path) -> int:
    for line in _text(root / "proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):  # not available on every system
        return 1 << 30


def _of_groups(root: Path) -> Iterator[int]:
    """The bytes left in each group that limits this process."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, kinds, path = line.split(":", 2)
        if kinds == "memory":
            mount, names = root / "sys/fs/cgroup/memory", _V1
        elif number == "0" and not kinds:
            mount, names = root / "sys/fs/cgroup", _V2
        else:
            continue
        # inside of a container the path may be the one outside, and only the mount is there
        parts = PurePosixPath(path.lstrip("/")).parts
        for depth in range(len(parts), -1, -1):
            left = _left(mount.joinpath(*parts[:depth]), *names)
            if left is not None:
                yield left


def _left(group: Path, limit: str, usage: str, cache: str) -> int | None:
    """Bytes below the limit of one group; None where it has no limit."""
    most, used = _text(group / limit).strip(), _text(group / usage).strip()
    if not most.isdigit() or not used.isdigit():  # "max"
        return None
    stat = dict(line.split(" ", 1) for line in _text(group / "memory.stat").splitlines())
    return int(most) - int(used) + int(stat.get(cache, 0))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""
