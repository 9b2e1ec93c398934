"""Names of configfs entries that say whose they are, so that a dead process's can be told from another's.

``aegis-<pid namespace>-<pid>-<random>``: a pid means nothing in another container, so only entries of our own namespace
whose process is gone are ever removed.
"""

from __future__ import annotations

import os
import re
import secrets
from contextlib import suppress

from coreason_enclave.hardware.devices import DeviceTree

__all__ = ["fresh_name", "remove_left_over"]

_NAME = re.compile(r"aegis-([0-9]{1,20})-([0-9]{1,10})-[0-9a-f]{16}")


def fresh_name() -> str:
    """A name that no other thread or process uses."""
    return f"aegis-{_pid_namespace()}-{os.getpid()}-{secrets.token_hex(8)}"


def remove_left_over(tree: DeviceTree, folder: str) -> None:
    """Remove what dead processes left in ``folder``; whatever cannot be removed stays."""
    namespace = _pid_namespace()
    for name in tree.names(folder):
        match = _NAME.fullmatch(name)
        if match and int(match[1]) == namespace and not _lives(int(match[2])):
            with suppress(OSError):
                tree.rmdir(f"{folder}/{name}")


def _pid_namespace() -> int:
    return os.stat("/proc/self/ns/pid").st_ino  # noqa: PTH116 - a magic link of the kernel, not a file of anybody's


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # there, and somebody else's; or no pid at all, so not known to be gone
        return True
    return True
