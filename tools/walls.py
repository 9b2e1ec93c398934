"""Contract types for import-linter that see through the doors of rooms.

A room's ``__init__.py`` loads its names lazily, from the list in ``__init__.pyi``. To import-linter, which reads no
stub, ``from aegis.runs import plan_run`` is an import of the room and of no file. The contracts here replace each such
import by an import of the file behind the name, so that every contract holds for files, as if no door were there.

:class:`DoorContract` is the other half: from outside a room, an import names the room and not a file in it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, output
from importlinter.contracts.acyclic_siblings import AcyclicSiblingsContract
from importlinter.contracts.forbidden import ForbiddenContract
from importlinter.contracts.independence import IndependenceContract
from importlinter.contracts.layers import LayersContract

__all__ = ["Acyclic", "DoorContract", "Forbidden", "Independence", "Layers", "behind_doors"]


def _path(module: str) -> Path:
    path = Path(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@cache
def _door(room: str) -> dict[str, str]:
    """Return the file behind each name of a room's door; empty for a module without a door."""
    stub = Path(*room.split("."), "__init__.pyi")
    if not stub.is_file():
        return {}
    return {
        alias.name: f"{room}.{node.module}" if node.module else f"{room}.{alias.name}"
        for node in ast.parse(stub.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


@cache
def _imports(module: str) -> tuple[tuple[str, str, int], ...]:
    """Return each imported name as (module, name, line)."""
    return tuple(
        (node.module, alias.name, node.lineno)
        for node in ast.walk(ast.parse(_path(module).read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0
        for alias in node.names
    )


def _file(room: str, name: str) -> str | None:
    """Return the file behind a name, through doors behind doors."""
    file = _door(room).get(name)
    return (_file(file, name) or file) if file else None


def behind_doors(graph: ImportGraph) -> ImportGraph:
    """Replace each import from a door by an import of the file behind the name; return the same graph."""
    for importer in sorted(graph.modules):
        if graph.is_module_squashed(importer):
            continue
        for room, name, line in _imports(importer):
            if file := _file(room, name):
                graph.add_import(
                    importer=importer,
                    imported=file,
                    line_number=line,
                    line_contents=f"from {room} import {name}",
                )
                graph.remove_import(importer=importer, imported=room)
    return graph


class _BehindDoors(Contract):
    """The check of another contract, on the graph with the files behind the doors."""

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        """See the other contract."""
        return super().check(behind_doors(graph), verbose)  # type: ignore[safe-super]


class Forbidden(_BehindDoors, ForbiddenContract):
    """``forbidden``, behind doors."""


class Layers(_BehindDoors, LayersContract):
    """``layers``, behind doors."""


class Independence(_BehindDoors, IndependenceContract):
    """``independence``, behind doors."""


class Acyclic(_BehindDoors, AcyclicSiblingsContract):
    """``acyclic_siblings``, behind doors."""


class DoorContract(Contract):
    """Imports name a file only in a package that holds the importer too, or at a root; else the room's door."""

    type_name = "doors"

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        """Return the imports that reach past a door."""
        past = sorted(self._past_doors(graph))
        return ContractCheck(kept=not past, metadata={"past": past})

    def _past_doors(self, graph: ImportGraph) -> Iterator[tuple[str, str]]:
        for importer in graph.modules:
            for imported in graph.find_modules_directly_imported_by(importer):
                room, _, name = imported.rpartition(".")
                from_outside = "." in room and not f"{importer}.".startswith(f"{room}.")
                if not from_outside or graph.is_module_squashed(imported):
                    continue
                if not graph.find_children(imported) and _door(room).get(name) != imported:
                    yield importer, imported

    def render_broken_contract(self, check: ContractCheck) -> None:
        """Print each import past a door."""
        for importer, imported in check.metadata["past"]:
            room = imported.rpartition(".")[0]
            output.print_error(f"{importer} imports {imported}: import the name from {room}")
