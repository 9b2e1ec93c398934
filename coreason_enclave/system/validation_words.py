"""Words for a document that pydantic refused: the place, the allowed values, and a near name for an unknown field.

No word of pydantic's own reaches the reader: neither its types (``constrained-float``) nor its places within a union.
"""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ValidationError

Places = Callable[[str, int], str]
"""From the name of a list and a place in it, from 0, to the words for that entry."""

_KINDS = {
    "string": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "list": "a list",
    "tuple": "a list",
    "set": "a list",
    "frozen_set": "a list",
    "dict": "a table",
    "mapping": "a table",
    "model": "a table",
    "model_attributes": "a table",
    "dataclass": "a table",
    "bytes": "bytes",
    "date": "a date",
    "datetime": "a date and time",
    "url": "a URL",
    "none_required": "left out",
}
_LIMITS = {
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be at most {le}",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "too_short": "must have at least {min_length} entries",
    "too_long": "must have at most {max_length} entries",
    "finite_number": "must be a finite number",
    "int_from_float": "must be a whole number",
    "multiple_of": "must be a multiple of {multiple_of}",
    "string_pattern_mismatch": "is not written as required",
    "missing": "is required",
}


@dataclass
class _Problem:
    """One place of a document, with the words of every refusal there: a union refuses once for each member."""

    where: str
    words: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        wanted = [text.removeprefix("must be ") for text in self.words]
        if len(wanted) > 1 and all(text.startswith("must be ") for text in self.words):
            text = f"must be {', '.join(wanted[:-1])} or {wanted[-1]}"
        else:
            text = "; ".join(self.words)
        if not self.where:
            return text
        return f"{self.where} {text}" if text.startswith(("must", "needs", "takes", "is ")) else f"{self.where}: {text}"


def explain(error: Exception, *, places: Places | None = None) -> str:
    """Return all problems of a rejected document on one line: the place, the allowed values, the given value.

    Any error but pydantic's is returned in its own words.

    Args:
        places: words for the entries of lists; their place from 0 without.
    """
    if not isinstance(error, ValidationError):
        return str(error)
    roots = [model for model in _models() if model.__name__ == error.title]
    problems: dict[str, _Problem] = {}
    for detail in error.errors(include_url=False):
        place = _Place(roots, places or (lambda name, index: f"{name}.{index}"))
        for number, part in enumerate(detail["loc"], start=1):
            place.enter(part, unknown=detail["type"] == "extra_forbidden" and number == len(detail["loc"]))
        where = place.words()
        text = _words(detail["type"], str(detail["msg"]), detail.get("ctx", {}), detail["input"], place)
        found = problems.setdefault(where, _Problem(where)).words
        if text not in found:
            found.append(text)
    return "; ".join(str(problem) for problem in problems.values())


def _words(kind: str, message: str, context: Mapping[str, Any], given: object, place: _Place) -> str:
    if kind == "extra_forbidden":
        return "is not a known field" + did_you_mean(place.parts[-1], place.siblings)
    if kind in {"literal_error", "enum"}:
        text = f"must be {context['expected']}"
        return text + (did_you_mean(given, str(context["expected"]).split("'")[1::2]) if isinstance(given, str) else "")
    if kind in {"union_tag_invalid", "union_tag_not_found"}:
        return f"must be of a known kind: {context.get('expected_tags', context.get('discriminator', ''))}"
    if kind in _LIMITS:
        return _LIMITS[kind].format(**{name: _plain(value) for name, value in context.items()})
    for suffix in ("_type", "_parsing", "_exact_type", "_from_date_parsing"):
        if kind.endswith(suffix) and kind.removesuffix(suffix) in _KINDS:
            return f"must be {_KINDS[kind.removesuffix(suffix)]}"
    return message.removeprefix("Value error, ").removeprefix("Assertion failed, ")


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """Return ``, did you mean '…'?`` for the nearest known name in any case, or an empty text."""
    by_lower = {name.lower(): name for name in sorted(known, reverse=True)}
    near = difflib.get_close_matches(given.lower(), sorted(by_lower), n=1, cutoff=0.6)
    return f", did you mean {by_lower[near[0]]!r}?" if near else ""


def _plain(value: object) -> object:
    return f"{value:g}" if isinstance(value, float) else value


class _Place:
    """A place in a document, followed through the models that describe the document."""

    def __init__(self, roots: Sequence[type[BaseModel]], places: Places) -> None:
        self.parts: list[str] = []
        self._known, self._here, self._places = bool(roots), list[Any](roots), places

    def enter(self, part: int | str, *, unknown: bool) -> None:
        """Follow one part of pydantic's ``loc``; drop the name of a member of a union."""
        here = [kind for annotation in self._here for kind in _flat(annotation)]
        if isinstance(part, int):
            self.parts.append(self._places(self.parts.pop(), part) if self.parts else str(part))
            self._here = [inner for kind in here for inner in _items(kind)]
            return
        models = [kind for kind in here if isinstance(kind, type) and issubclass(kind, BaseModel)]
        fields = [model.model_fields[part].annotation for model in models if part in model.model_fields]
        values = [typing.get_args(kind)[1] for kind in here if _is_mapping(kind)]
        if fields or values:
            self._here = fields or values
        elif self._known and not unknown:
            return
        self.parts.append(part)

    @property
    def siblings(self) -> set[str]:
        """The known fields at this place."""
        here = [kind for annotation in self._here for kind in _flat(annotation)]
        models = [kind for kind in here if isinstance(kind, type) and issubclass(kind, BaseModel)]
        return {name for model in models for name in model.model_fields}

    def words(self) -> str:
        """Return the place as a dotted path."""
        return ".".join(self.parts)


def _models() -> list[type[BaseModel]]:
    found, waiting = [], [BaseModel]
    while waiting:
        inner = waiting.pop().__subclasses__()
        found += inner
        waiting += inner
    return found


def _flat(annotation: Any) -> list[Any]:
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _flat(typing.get_args(annotation)[0])
    if origin in {typing.Union, types.UnionType}:
        return [kind for member in typing.get_args(annotation) for kind in _flat(member)]
    return [annotation]


def _items(kind: Any) -> list[Any]:
    if typing.get_origin(kind) in {list, tuple, set, frozenset}:
        return [inner for inner in typing.get_args(kind) if inner is not ...]
    return []


def _is_mapping(kind: Any) -> bool:
    origin = typing.get_origin(kind)
    return isinstance(origin, type) and issubclass(origin, Mapping)
