"""Restricts FLARE's serialisation to the needs of sealed messages: containers, text, numbers and byte strings.

FOBS builds any of some sixty classes that a sender names, calls their decomposers, fetches parts from cells and writes
files on a payload's request. This module therefore checks a site's payload before FOBS decodes the payload.

A payload passes as plain if

1. its sections are complete: one main section, followed by sections of text or bytes, without files;
2. its main section is well-formed, with at most :data:`MAX_MAIN` bytes, :data:`MAX_DEPTH` nested containers and
   :data:`MAX_ITEMS` items;
3. its main section names only classes of :data:`CLASSES`, without numpy arrays and tensors.

The simulator skips the check, because all its processes belong to one host.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any, Final

import msgpack  # type: ignore[import-untyped]
from nvflare.fuel.utils.fobs import lobs
from nvflare.fuel.utils.fobs.fobs import FOBS_DATA, FOBS_DECOMPOSER, FOBS_TYPE

MAX_DEPTH: Final = 32
MAX_MAIN: Final = 48 << 20
"""A message has three byte strings; strings above FLARE's ten megabytes travel in sections of their own."""
MAX_ITEMS: Final = 10_000
MAX_SECTIONS: Final = 64

_DICT: Final = "nvflare.fuel.utils.fobs.decomposer.DictDecomposer"
_DATA: Final = "nvflare.fuel.utils.fobs.decomposer.DataClassDecomposer"
_ENUM: Final = "nvflare.fuel.utils.fobs.decomposer.EnumTypeDecomposer"
_FLARE: Final = "nvflare.apis.utils.decomposers.flare_decomposers"

CLASSES: Final = {
    "nvflare.apis.shareable.Shareable": _DICT,
    "nvflare.apis.fl_context.FLContext": f"{_FLARE}.ContextDecomposer",
    "nvflare.apis.dxo.DXO": f"{_FLARE}.DXODecomposer",
    "nvflare.apis.dxo.DataKind": _ENUM,
    "nvflare.fuel.utils.fobs.datum.DatumRef": _DATA,
    "nvflare.private.admin_defs.Message": _DATA,
    "tuple": "nvflare.fuel.utils.fobs.decomposers.core_decomposers.TupleDecomposer",
}
"""The classes that a payload may name, each with its one permitted decomposer."""

_SECTION = struct.Struct(">BBQ")
_NAMING = frozenset({FOBS_TYPE, FOBS_DATA, FOBS_DECOMPOSER})


class NotPlain(ValueError):
    """A payload must not be decoded. The error message holds no text from the sender."""


def require_plain(payload: bytes) -> None:
    """Return if FOBS may decode ``payload``.

    Raises:
        NotPlain: the payload breaks a rule of this module.
    """
    main, *_ = list(_sections(payload))
    if len(main) > MAX_MAIN:
        raise NotPlain(f"a main section of {len(main)} bytes")
    seen = _Seen()
    try:
        value = msgpack.unpackb(
            main,
            strict_map_key=False,
            object_hook=seen.mapping,
            list_hook=seen.sequence,
            max_ext_len=0,
            max_map_len=MAX_ITEMS,
            max_array_len=MAX_ITEMS,
        )
    except NotPlain:
        raise
    except Exception as error:  # noqa: BLE001 - msgpack and UTF-8 raise many kinds, all for malformed input
        raise NotPlain(f"a main section that is malformed ({type(error).__name__})") from None
    _require_shallow(value)


def _sections(payload: bytes) -> Iterable[memoryview]:
    view, at, number = memoryview(payload), 0, 0
    while at < len(view) or number == 0:
        if len(view) - at < _SECTION.size:
            raise NotPlain("a section that is cut short")
        marker, dot, size = _SECTION.unpack_from(view, at)
        at += _SECTION.size
        allowed = (lobs.MARKER_DATUM_BLOB, lobs.MARKER_DATUM_TEXT) if number else (lobs.MARKER_MAIN,)
        if marker not in allowed or dot:
            raise NotPlain("a section that is neither text nor bytes")
        if not 0 < size <= len(view) - at or (number and size <= lobs.DATUM_ID_LEN):
            raise NotPlain("a section that is cut short")
        if number == MAX_SECTIONS:
            raise NotPlain("too many sections")
        yield view[at : at + size]
        at, number = at + size, number + 1


class _Seen:
    """Counts and checks the containers of one main section during parsing, from the inside outwards."""

    def __init__(self) -> None:
        self._items = 0

    def sequence(self, items: list[Any]) -> list[Any]:
        """Count a parsed list and return the list."""
        self._count(len(items))
        return items

    def mapping(self, mapping: dict[Any, Any]) -> Any:
        """Count a parsed mapping; replace a mapping that represents an object by the object's data."""
        self._count(len(mapping))
        if FOBS_TYPE not in mapping:
            return mapping
        name, decomposer = mapping[FOBS_TYPE], mapping.get(FOBS_DECOMPOSER)
        if not isinstance(name, str) or name not in CLASSES or mapping.keys() != _NAMING or decomposer != CLASSES[name]:
            raise NotPlain("an object of a class that messages do not use")
        return mapping[FOBS_DATA]

    def _count(self, number: int) -> None:
        self._items += number
        if self._items > MAX_ITEMS:
            raise NotPlain(f"more than {MAX_ITEMS} items")


def _require_shallow(value: Any) -> None:
    level, depth = [value], 0
    while level:
        if depth > MAX_DEPTH:
            raise NotPlain(f"more than {MAX_DEPTH} nested containers")
        inner: list[Any] = []
        for each in level:
            inner += each.values() if isinstance(each, dict) else each if isinstance(each, list) else ()
        level, depth = inner, depth + 1
