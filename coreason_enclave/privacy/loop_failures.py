"""Failures of a training loop: each becomes a refusal without the loop's own words.

The text of an exception may hold a row, and so may a parameter name or metric value that a loop made up. An auditor may
see the site's log, and other parties collect FLARE's logs. These logs therefore get only three facts about a failure:

- the exception's class name, as defined in its module;
- the place in the loop's own file and, if this package raised the exception, the place in the package;
- the reason code.

The text survives in two cases only: this package alone ran, or the step gate raised, whose messages contain public
numbers only. ``KeyboardInterrupt``, ``SystemExit`` and ``GeneratorExit`` from a loop count as ordinary failures. A
person's interrupt (SIGINT) does not come from the loop and propagates.
"""

from __future__ import annotations

import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from traceback import walk_tb
from types import FrameType
from typing import Any, TypeVar

from coreason_enclave import errors
from coreason_enclave.errors import EnclaveError, Reason

_Result = TypeVar("_Result")

_PACKAGE = Path(errors.__file__).parent
_PUBLIC = _PACKAGE / "privacy" / "step_gate.py"
_FILE = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def contained(act: Callable[[], _Result], *, own: bool) -> _Result:
    """Return the result of ``act``; turn any other outcome into an :class:`EnclaveError`.

    Args:
        own: True if this package alone decides what runs and what returns; False if a user's loop does.

    Raises:
        EnclaveError: of the kind that ``act`` raised, with its reason; ``internal`` for any foreign exception.
        KeyboardInterrupt: a person interrupted the process.
    """
    with _interrupts_noticed() as interrupted:
        try:
            return act()
        except BaseException as error:
            if interrupted() and isinstance(error, KeyboardInterrupt):
                raise
            if own and isinstance(error, EnclaveError) and not _is_foreign(error):
                raise
            failure = failure_without_words(error, during="in the training loop")
    raise failure  # outside the handler: no traceback may lead from the refusal to the loop's own exception


def failure_without_words(error: BaseException, *, during: str) -> EnclaveError:
    """Return the refusal to log for ``error``: its kind, its reason and its place, without its text."""
    kind, reason = _kind(error)
    if isinstance(error, EnclaveError) and _files(error)[-1:] == [_PUBLIC]:
        return kind(str(error), reason=reason)
    return kind(f"{_name(type(error))} {during}{_place(error)}", reason=reason)


def _kind(error: BaseException) -> tuple[type[EnclaveError], Reason]:
    """Return the class of ``error`` in this package's error tree, and its reason."""
    reason = error.reason if isinstance(error, EnclaveError) else None
    for kind in type(error).__mro__:
        if issubclass(kind, EnclaveError) and kind.__module__ == errors.__name__:
            return kind, reason if isinstance(reason, Reason) else Reason.INTERNAL
    return EnclaveError, Reason.INTERNAL


def _name(kind: type[BaseException]) -> str:
    """Return the first class name in the ancestry that a module really defines: a dynamic class may carry any name."""
    for each in kind.__mro__:
        if getattr(sys.modules.get(each.__module__), each.__name__, None) is each:
            return str(each.__name__)
    return "an exception"


def _place(error: BaseException) -> str:
    """Return the line in the first file outside this package and, if raised in the package, the last line there."""
    frames = [(Path(frame.f_code.co_filename), line) for frame, line in walk_tb(error.__traceback__)]
    foreign = [(path, line) for path, line in frames if _PACKAGE not in path.parents]
    own = [(path, line) for path, line in frames if _PACKAGE in path.parents]
    place = f", at {_safe(foreign[0][0].name)}, line {foreign[0][1]}" if foreign else ""
    if own and (frames[-1] == own[-1] or not foreign):
        place += f"; raised at {own[-1][0].relative_to(_PACKAGE.parent)}, line {own[-1][1]}"
    return place


def _safe(name: str) -> str:
    return name if _FILE.fullmatch(name) else "a file of its own"


def _files(error: BaseException) -> list[Path]:
    return [Path(frame.f_code.co_filename) for frame, _ in walk_tb(error.__traceback__)]


def _is_foreign(error: BaseException) -> bool:
    return any(_PACKAGE not in path.parents for path in _files(error))


@contextmanager
def _interrupts_noticed() -> Iterator[Callable[[], bool]]:
    """Yield a check for an interrupt (SIGINT) since entry. Python raises it in the main thread, at any point."""
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield lambda: False
        return
    handler, seen = before, list[int]()

    def notice(number: int, frame: FrameType | None) -> Any:
        seen.append(number)
        return handler(number, frame)

    signal.signal(signal.SIGINT, notice)
    try:
        yield lambda: bool(seen)
    finally:
        if signal.getsignal(signal.SIGINT) is notice:
            signal.signal(signal.SIGINT, before)
