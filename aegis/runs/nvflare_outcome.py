"""How a coordinator that ran in FLARE's process ended, told to whoever waits in another: a note in the run folder."""

from __future__ import annotations

from collections.abc import Iterator

import aegis.errors
import coreason_enclave.errors
from aegis.errors import AegisError
from aegis.runs.folder import RunFolder
from coreason_enclave.errors import EnclaveError

__all__ = ["END_NOTE", "forget_end", "has_ended", "raise_as_ended", "record_end"]

END_NOTE = "nvflare-end.json"


def record_end(folder: RunFolder, error: Exception | None) -> None:
    """Note that the coordinator finished (None), or what it refused or paused with."""
    if not folder.path.is_dir():
        return  # refused before anything was begun: FLARE's log has it
    name = None if error is None else type(error).__name__
    folder.write_json(END_NOTE, {"error": name, "message": "" if error is None else str(error)})


def forget_end(folder: RunFolder) -> None:
    """Drop the note of an earlier end, before the coordinator is started again."""
    (folder.path / END_NOTE).unlink(missing_ok=True)


def has_ended(folder: RunFolder) -> bool:
    """Whether the coordinator has left a note."""
    return (folder.path / END_NOTE).exists()


def raise_as_ended(folder: RunFolder) -> None:
    """Raise what the coordinator raised; nothing where it finished.

    Raises:
        AegisError: of the same type, where there is one of that name; so are errors of the ground floor.
    """
    note = folder.read_json(END_NOTE)
    if note.get("error") is None:
        return
    kinds = dict(_plain_errors())
    raise kinds.get(str(note["error"]), AegisError)(str(note.get("message", "")))


def _plain_errors() -> Iterator[tuple[str, type[Exception]]]:
    """Every error that a message alone makes."""
    for module, root in ((aegis.errors, AegisError), (coreason_enclave.errors, EnclaveError)):
        for name in module.__all__:
            kind = getattr(module, name)
            if (
                isinstance(kind, type)
                and issubclass(kind, root)
                and kind.__init__ in (Exception.__init__, root.__init__)
            ):
                yield name, kind
