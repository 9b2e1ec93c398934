"""YAML for configuration: one small document of plain values, without YAML's other features.

The loader refuses anchors, aliases and tags: a few lines of aliases unfold to gigabytes, and tags make objects. The
loader caps depth and numbers while composing nodes one after the other, so parsing stops at the first refused node.
Only the platform's extra installs PyYAML, so a site never imports this module.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from coreason_enclave.configuration.files import read_text
from coreason_enclave.configuration.toml import MAX_DEPTH, MAX_WORD
from coreason_enclave.errors import ConfigurationError

MAX_YAML_BYTES = 64 * 1024
"""Largest YAML file, in bytes: about as much as PyYAML reads in a second."""

_NUMERIC = "+-.0123456789"
_UNREADABLE = (yaml.YAMLError, ValueError, ArithmeticError, LookupError, TypeError, AttributeError, RecursionError)
"""Errors that PyYAML raises for bad text, including errors from its constructors of numbers and dates."""


class _PlainLoader(yaml.SafeLoader):
    """Safe YAML without anchors and tags. Refuses duplicate keys, and reads ``1e-5`` as a number.

    YAML 1.1, which PyYAML reads, takes a float without a dot for text; YAML 1.2 does not.
    """

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            raise _refused("anchors and aliases are not supported", event)
        if event.tag not in (None, "!"):
            raise _refused(f"tags such as {event.tag[:80]!r} are not supported", event)
        if isinstance(event, yaml.ScalarEvent) and len(event.value) > MAX_WORD and event.value[0] in _NUMERIC:
            raise _refused(f"a number has {len(event.value)} characters; the limit is {MAX_WORD}", event)
        if self._depth == MAX_DEPTH:
            raise _refused(f"values are nested more than {MAX_DEPTH} levels deep", event)
        self._depth += 1
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        duplicates = sorted(key for key, times in keys.items() if times > 1)
        if duplicates:
            raise yaml.constructor.ConstructorError(
                None, None, f"key {', '.join(duplicates)} occurs twice", node.start_mark
            )
        return super().construct_mapping(node, deep)


_PlainLoader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?\d+[eE][-+]?\d+"), list("-+0123456789"))


def read_yaml(path: Path, *, limit: int = MAX_YAML_BYTES) -> Any:
    """Return the value in a YAML file of at most ``limit`` bytes, or raise :class:`ConfigurationError`."""
    text = read_text(path, limit=limit)
    try:
        return yaml.load(text, _PlainLoader)  # noqa: S506 - a safe loader, and stricter
    except _UNREADABLE as error:
        raise ConfigurationError(f"{path} is not YAML: {' '.join(str(error).split())[:500]}") from error


def _refused(message: str, event: Any) -> yaml.composer.ComposerError:
    return yaml.composer.ComposerError(None, None, message, event.start_mark)
