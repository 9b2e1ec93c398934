"""A note in the run folder about the end of a coordinator in FLARE's process, for the command that waits elsewhere."""

from __future__ import annotations

from collections.abc import Iterator

import aegis.errors
import coreason_enclave.errors
from aegis.errors import AegisError, RunPaused
from aegis.runs.folder import RunFolder
from coreason_enclave.errors import EnclaveError

END_NOTE = "nvflare-end.json"


def record_end(folder: RunFolder, error: Exception | None) -> None:
    """Note the coordinator's end: success (None), or the error behind a refusal or pause, with each site's reason."""
    if not folder.path.is_dir():
        return  # refused before the run folder existed: FLARE's log has the error
    name = None if error is None else type(error).__name__
    reasons = dict(error.reasons) if isinstance(error, RunPaused) else {}
    folder.write_json(END_NOTE, {"error": name, "message": "" if error is None else str(error), "reasons": reasons})


def forget_end(folder: RunFolder) -> None:
    """Drop the note of an earlier end, before the coordinator starts again."""
    (folder.path / END_NOTE).unlink(missing_ok=True)


def has_ended(folder: RunFolder) -> bool:
    """Return True if the coordinator left a note."""
    return (folder.path / END_NOTE).exists()


def raise_as_ended(folder: RunFolder) -> None:
    """Raise the coordinator's error again, a pause with each site's reason; return if the coordinator finished.

    Raises:
        AegisError: of the recorded type, if known.
        EnclaveError: likewise, for errors of :mod:`coreason_enclave.errors`.
    """
    note = folder.read_json(END_NOTE)
    if note.get("error") is None:
        return
    kinds = dict(_plain_errors())
    error = kinds.get(str(note["error"]), AegisError)(str(note.get("message", "")))
    if isinstance(error, RunPaused) and isinstance(reasons := note.get("reasons"), dict):
        error.reasons = {str(site): str(reason) for site, reason in reasons.items()}
    raise error


def _plain_errors() -> Iterator[tuple[str, type[Exception]]]:
    """Yield every error class whose constructor takes a message alone."""
    for module, root in ((aegis.errors, AegisError), (coreason_enclave.errors, EnclaveError)):
        for name, kind in vars(module).items():
            if (
                isinstance(kind, type)
                and issubclass(kind, root)
                and kind.__init__ in (Exception.__init__, root.__init__)
            ):
                yield name, kind
