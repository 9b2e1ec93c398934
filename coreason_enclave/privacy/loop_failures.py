"""How a training loop ends when it does not return: always as a refusal, and without a word of its own.

The text of an exception may hold a row, and so may a parameter's name or a metric's value that a loop made up. The
site's log may be shown to an auditor, a log of FLARE's is collected by others. So of a loop's failure they get

- the kind of the exception, as its class is called where it is defined;
- the place in the loop's own file, and where this package raised it, the place there;
- the reason code.

Text is kept only where this package alone ran, or where the step gate speaks, whose words are made of public numbers.
``KeyboardInterrupt``, ``SystemExit`` and ``GeneratorExit`` out of a loop are failures like any other. A person's
interrupt is not the loop's: it goes on its way.
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

__all__ = ["contained", "failure_without_words"]

_Result = TypeVar("_Result")

_PACKAGE = Path(errors.__file__).parent
_PUBLIC = _PACKAGE / "privacy" / "gate.py"
_FILE = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def contained(act: Callable[[], _Result], *, own: bool) -> _Result:
    """What ``act`` returns; whatever ends it otherwise is an :class:`EnclaveError`.

    Args:
        own: this package alone decides what runs and what is returned; False where somebody else's loop does.

    Raises:
        EnclaveError: of the kind that was raised, with its reason; ``internal`` for anything foreign.
        KeyboardInterrupt: a person interrupted the process.
    """
    with _interrupts_noticed() as interrupted:
        try:
            return act()
        except BaseException as error:
            if interrupted() and isinstance(error, KeyboardInterrupt):
                raise
            if own and isinstance(error, EnclaveError) and not _strangers(error):
                raise
            failure = failure_without_words(error, during="in the training loop")
    raise failure  # outside of the handler: no traceback of this one leads to the loop's own exception


def failure_without_words(error: BaseException, *, during: str) -> EnclaveError:
    """A refusal that stands for ``error`` in logs: its kind, its reason and its place, and nothing that it says."""
    kind, reason = _kind(error)
    if isinstance(error, EnclaveError) and _files(error)[-1:] == [_PUBLIC]:
        return kind(str(error), reason=reason)
    return kind(f"{_name(type(error))} {during}{_place(error)}", reason=reason)


def _kind(error: BaseException) -> tuple[type[EnclaveError], Reason]:
    """The class of this package's tree that ``error`` is of, and its reason."""
    reason = error.reason if isinstance(error, EnclaveError) else None
    for kind in type(error).__mro__:
        if issubclass(kind, EnclaveError) and kind.__module__ == errors.__name__:
            return kind, reason if isinstance(reason, Reason) else Reason.INTERNAL
    return EnclaveError, Reason.INTERNAL


def _name(kind: type[BaseException]) -> str:
    """The first name in its ancestry that a module really has: a class made on the fly may be called anything."""
    for each in kind.__mro__:
        if getattr(sys.modules.get(each.__module__), each.__name__, None) is each:
            return str(each.__name__)
    return "an exception"


def _place(error: BaseException) -> str:
    """The line in the first file that is none of this package's, and the last line in this package."""
    frames = [(Path(frame.f_code.co_filename), line) for frame, line in walk_tb(error.__traceback__)]
    foreign = [(path, line) for path, line in frames if _PACKAGE not in path.parents]
    own = [(path, line) for path, line in frames if _PACKAGE in path.parents]
    said = f", at {_safe(foreign[0][0].name)}, line {foreign[0][1]}" if foreign else ""
    if own and (frames[-1] == own[-1] or not foreign):
        said += f"; raised at {own[-1][0].relative_to(_PACKAGE.parent)}, line {own[-1][1]}"
    return said


def _safe(name: str) -> str:
    return name if _FILE.fullmatch(name) else "a file of its own"


def _files(error: BaseException) -> list[Path]:
    return [Path(frame.f_code.co_filename) for frame, _ in walk_tb(error.__traceback__)]


def _strangers(error: BaseException) -> bool:
    return any(_PACKAGE not in path.parents for path in _files(error))


@contextmanager
def _interrupts_noticed() -> Iterator[Callable[[], bool]]:
    """Whether the process got an interrupt meanwhile. Python raises it in the main thread, wherever that stands."""
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
