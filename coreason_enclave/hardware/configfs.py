"""Name configfs entries after their owner, so cleanup can recognise the entries of dead processes.

Format: ``aegis-<pid namespace>-<pid>-<random>``. A pid has no meaning in another container. Cleanup therefore removes
only entries from this process's own pid namespace whose process has ended.
"""

from __future__ import annotations

import os
import re
import secrets
from contextlib import suppress

from coreason_enclave.hardware.devices import DeviceTree

_NAME = re.compile(r"aegis-([0-9]{1,20})-([0-9]{1,10})-[0-9a-f]{16}")


def fresh_name() -> str:
    """Return a name that no other thread or process uses."""
    return f"aegis-{_pid_namespace()}-{os.getpid()}-{secrets.token_hex(8)}"


def remove_left_over(tree: DeviceTree, folder: str) -> None:
    """Remove the entries of dead processes from ``folder``; keep entries that resist removal."""
    namespace = _pid_namespace()
    for name in tree.names(folder):
        match = _NAME.fullmatch(name)
        if match and int(match[1]) == namespace and not _is_alive(int(match[2])):
            with suppress(OSError):
                tree.rmdir(f"{folder}/{name}")


def _pid_namespace() -> int:
    return os.stat("/proc/self/ns/pid").st_ino  # noqa: PTH116 - a magic link of the kernel, not a file of anybody's


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # another user's process, or an impossible pid: not known to be dead
        return True
    return True
