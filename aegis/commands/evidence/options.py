"""The options of ``aegis evidence``: each given once, hex of exact length, moments in Unix seconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from pydantic import TypeAdapter, ValidationError

from aegis.evidence import EvidenceKind
from coreason_enclave.schemas import SafeId
from coreason_enclave.system import explain

_F = TypeVar("_F", bound=Callable[..., Any])

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
LAST_MOMENT = 1 << 53
_NAME: TypeAdapter[str] = TypeAdapter(SafeId)


class Once(click.Option):
    """An option given at most once, so that no reader has to guess which of two values counts."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{**options, "multiple": True})

    def process_value(self, ctx: click.Context, value: Any) -> Any:
        """Return the value, or None."""
        values = super().process_value(ctx, value)
        if len(values) > 1:
            raise click.BadParameter("is given more than once", ctx=ctx, param=self)
        return values[0] if values else None


class Hex(click.ParamType[bytes]):
    """A hex string of a fixed number of bytes."""

    name = "hex"

    def __init__(self, *lengths: int) -> None:
        self._lengths = lengths

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> bytes:
        """Refuse all but hex digits, two for each byte."""
        try:
            data = bytes.fromhex(value) if value.isascii() and not any(map(str.isspace, value)) else None
        except ValueError:
            data = None
        if data is None:
            self.fail(f"must be hex digits, got {value!r:.80}", param, ctx)
        if len(data) not in self._lengths:
            wanted = " or ".join(str(length) for length in self._lengths)
            self.fail(f"must be {wanted} bytes, got {len(data)}", param, ctx)
        return data


class Subject(click.ParamType[str]):
    """The name of a site or of a coordinator."""

    name = "name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Refuse an invalid name."""
        try:
            return _NAME.validate_python(value)
        except ValidationError as error:
            self.fail(explain(error), param, ctx)


json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
moment_option = click.option(
    "--now", type=click.IntRange(0, LAST_MOMENT), cls=Once, metavar="UNIX", help="Unix time to verify at  [now]."
)


def report_options(*, kind_required: bool) -> Callable[[_F], _F]:
    """Return a decorator with the options that ``verify`` and ``appraise`` share."""
    options = (
        click.option(
            "--kind",
            type=click.Choice([kind.value for kind in EvidenceKind]),
            cls=Once,
            required=kind_required,
            help="Hardware that made the report."
            if kind_required
            else "Hardware that made the report; left out for a whole host's evidence.",
        ),
        click.option("--evidence", "path", type=FILE, cls=Once, required=True, help="The evidence file."),
        click.option(
            "--endorsements",
            type=FILE,
            multiple=True,
            help="A file of the vendor's endorsements of the platform; repeatable.",
        ),
        click.option(
            "--nonce", type=Hex(32), cls=Once, metavar="HEX", help="The nonce that the evidence was requested with."
        ),
        click.option(
            "--report-data",
            type=Hex(64, 32),
            cls=Once,
            metavar="HEX",
            help="The data that the report must cover: 64 bytes; 32 for a GPU.",
        ),
    )

    def apply(command: _F) -> _F:
        for option in reversed(options):
            command = option(command)
        return command

    return apply


def refuse_length(kind: EvidenceKind, report_data: bytes | None) -> None:
    """Refuse report data of the wrong length: 64 bytes for a processor's report, 32 bytes for a GPU's."""
    wanted = 32 if kind is EvidenceKind.NVIDIA else 64
    if report_data is not None and len(report_data) != wanted:
        raise click.UsageError(f"--report-data of --kind {kind} must be {wanted} bytes, got {len(report_data)}")
