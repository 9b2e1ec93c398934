"""The text output of ``aegis evidence``: the verdict first, with terminal control characters escaped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from aegis.commands.terminal_text import visible

if TYPE_CHECKING:
    from aegis.evidence import EvidenceVerdict, Inspection

NOT_VERIFIED = "NOT VERIFIED: nothing below has been checked; run `aegis evidence verify` to check the file"

_MAX_CHARACTERS = 512


def verdict_page(judged: EvidenceVerdict) -> str:
    """Return a page with verdict, claims, measurements and unchecked items."""
    if not judged.ok:
        lines = [f"REFUSED ({judged.reason}): {judged.message}"]
        return "\n".join([*map(printable, lines), *_gpus(judged)])
    facts = {"kind": judged.kind, "platform_id": judged.platform_id, "report_data": judged.report_data}
    lines = [judged.verdict.upper(), *_rows({name: value for name, value in facts.items() if value is not None})]
    lines += _section("claims", judged.claims)
    lines += _measured(f"measurements ({_compared(judged)})", judged.measurements)
    unchecked = f"NOT CHECKED: {', '.join(judged.not_checked)}" if judged.not_checked else "every item was checked"
    return "\n".join([*lines, *_gpus(judged), printable(unchecked)])


def inspection_page(inspection: Inspection) -> str:
    """Return a page that warns "not verified" first, then shows the file's content."""
    return "\n".join([NOT_VERIFIED, *_inspected(inspection)])


def printable(text: str) -> str:
    """Return the text on one line, at most 512 characters, with terminal control characters escaped."""
    escaped = visible(text)
    return escaped if len(escaped) <= _MAX_CHARACTERS else f"{escaped[:_MAX_CHARACTERS]}…"


def _inspected(inspection: Inspection) -> Iterator[str]:
    yield printable(f"claimed kind: {inspection.what}")
    facts = {} if inspection.report_data is None else {"report_data": inspection.report_data}
    yield from _rows({**facts, **inspection.says})
    yield from _measured("measurements", inspection.measurements)
    for number, gpu in enumerate(inspection.gpus):
        yield f"GPU {number}"
        yield from (f"  {line}" for line in _inspected(gpu))


def _gpus(judged: EvidenceVerdict) -> Iterator[str]:
    """Yield a section for each GPU, if the verdict covers several."""
    if len(judged.parts) > 1:
        for number, part in enumerate(judged.parts):
            yield f"GPU {number}"
            yield from (f"  {line}" for line in verdict_page(part).splitlines())


def _compared(judged: EvidenceVerdict) -> str:
    if judged.verdict == "accepted":
        return "compared where the reference value names a register"
    return "not compared" if "measurements" in judged.not_checked else "compared with the vendor's manifests"


def _measured(title: str, values: Mapping[str, str]) -> Iterator[str]:
    """Yield the measurements; only count registers of zeros."""
    used = {name: value for name, value in values.items() if value.strip("0")}
    yield from _section(title, used)
    if len(used) < len(values):
        yield f"  and {len(values) - len(used)} that are zero"


def _section(title: str, values: Mapping[str, object]) -> Iterator[str]:
    if values:
        yield title
        yield from _rows(values)


def _rows(values: Mapping[str, object]) -> Iterator[str]:
    flat = dict(_flat(values))
    width = max(map(len, flat), default=0)
    return (printable(f"  {name:<{width}}  {value}") for name, value in flat.items())


def _flat(values: Mapping[str, object], before: str = "") -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}.")
        elif isinstance(value, list | tuple):
            yield f"{before}{name}", ", ".join(map(str, value)) or "none"
        else:
            yield f"{before}{name}", _as_text(value)


def _as_text(value: object) -> str:
    if value is None:
        return "unknown"
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)
