"""Check the documentation: internal links lead somewhere, every page can be reached, marked commands run.

A fenced block runs when its first line ends in the word ``run``::

    ```sh run
    aegis privacy epsilon --noise-multiplier 1.1 --sample-rate 0.01 --steps 1000 --delta 1e-5
    ```

``sh`` blocks are given to bash and ``python`` blocks to Python, from the repository's root, with the tree's
own interpreter first on the path. ``--no-run`` checks links and reachability only.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
INDEX = Path("docs/README.md")
LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)(?:\s+\"[^\"]*\")?\)")
FENCE = re.compile(r"^(?P<ticks>`{3,})(?P<info>.*)$")
HEADING = re.compile(r"^#{1,6}\s+(?P<title>.+?)\s*#*$")
LONGEST_RUN = 300.0
INTERPRETERS = {"sh": ["bash", "-euo", "pipefail", "-c"], "python": [sys.executable, "-c"]}


@dataclass(frozen=True)
class Block:
    """A fenced block: the line it opens on, the info string behind its ticks, and what stands in it."""

    number: int
    info: str
    body: str


@dataclass(frozen=True)
class Page:
    """A page, taken apart into numbered lines of prose and fenced blocks."""

    prose: list[tuple[int, str]]
    blocks: list[Block]


def parse(text: str) -> Page:
    """Take a page apart; a fence closes with at least as many ticks as it opened."""
    page = Page([], [])
    lines = iter(enumerate(text.splitlines(), 1))
    for number, line in lines:
        if not (opening := FENCE.match(line)):
            page.prose.append((number, line))
            continue
        body = []
        for _, inside in lines:
            closing = FENCE.match(inside)
            if closing and not closing["info"].strip() and len(closing["ticks"]) >= len(opening["ticks"]):
                break
            body.append(inside)
        page.blocks.append(Block(number, opening["info"].strip(), "\n".join(body)))
    return page


def read(path: Path) -> Page:
    """A page's parts."""
    return parse(path.read_text(encoding="utf-8"))


def anchor(title: str) -> str:
    """The fragment that GitHub gives a heading: lower case, punctuation dropped, spaces to hyphens."""
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).lower()
    kept = (c for c in plain if c in "-_ " or unicodedata.category(c)[0] in "LN")
    return "".join(kept).strip().replace(" ", "-")


def anchors(page: Page) -> set[str]:
    """Every fragment that leads into the page; repeated headings are numbered."""
    times: dict[str, int] = {}
    names = set()
    for _, line in page.prose:
        if heading := HEADING.match(line):
            name = anchor(heading["title"])
            names.add(f"{name}-{times[name]}" if name in times else name)
            times[name] = times.get(name, 0) + 1
    return names


def internal_links(page: Page) -> Iterator[tuple[int, str]]:
    """Line number and target of every link that stays inside the repository."""
    for number, line in page.prose:
        for match in LINK.finditer(re.sub(r"`[^`]*`", "", line)):
            if not re.match(r"[a-z][a-z0-9+.-]*:", match["target"]):
                yield number, match["target"]


def pages(root: Path) -> list[Path]:
    """The root's pages and everything under ``docs/``, relative to ``root``."""
    return sorted(path.relative_to(root) for path in [*root.glob("*.md"), *root.glob("docs/**/*.md")])


def resolve(root: Path, page: Path, target: str) -> tuple[Path, str]:
    """The file (relative to ``root``) and the fragment that ``target`` on ``page`` means."""
    name, _, fragment = target.partition("#")
    path = root / page if not name else (root / page).parent / name
    return Path(os.path.relpath(path.resolve(), root.resolve())), fragment


def broken_links(root: Path) -> list[str]:
    """One sentence for each link without a target."""
    findings = []
    for page in pages(root):
        for number, target in internal_links(read(root / page)):
            path, fragment = resolve(root, page, target)
            if path.parts[:1] == ("..",) or not (root / path).exists():
                findings.append(f"{page}:{number}: {target} leads nowhere")
            elif fragment and path.suffix == ".md" and fragment not in anchors(read(root / path)):
                findings.append(f"{page}:{number}: {path} has no heading #{fragment}")
    return findings


def unreachable_pages(root: Path) -> list[str]:
    """Pages under ``docs/`` that no chain of links from the index leads to."""
    if not (root / INDEX).is_file():
        return [f"{INDEX}: the index of the documentation is missing"]
    seen, waiting = {INDEX}, [INDEX]
    while waiting:
        page = waiting.pop()
        linked = {resolve(root, page, target)[0] for _, target in internal_links(read(root / page))}
        new = {path for path in linked - seen if path.suffix == ".md" and (root / path).is_file()}
        seen |= new
        waiting += sorted(new)
    lost = (page for page in pages(root) if page.parts[0] == "docs" and page not in seen)
    return [f"{page}: no link leads here from {INDEX}" for page in lost]


def runnable_blocks(root: Path) -> list[tuple[Path, Block]]:
    """The blocks whose first line ends in ``run``, page by page."""
    found = ((page, block) for page in pages(root) for block in read(root / page).blocks)
    return [(page, block) for page, block in found if block.info.split()[-1:] == ["run"]]


def failed_run(root: Path, page: Path, block: Block) -> str | None:
    """Run one block; None if it exits 0, otherwise a sentence with the end of what it printed."""
    language = block.info.split()[0]
    if language not in INTERPRETERS:
        return f"{page}:{block.number}: cannot run {language!r}; use one of {', '.join(INTERPRETERS)}"
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    try:
        done = subprocess.run(
            [*INTERPRETERS[language], block.body],
            cwd=root,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            timeout=LONGEST_RUN,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"{page}:{block.number}: still running after {LONGEST_RUN:.0f} s"
    if done.returncode == 0:
        return None
    ending = " / ".join((done.stdout + done.stderr).strip().splitlines()[-3:])
    return f"{page}:{block.number}: exited {done.returncode}: {ending}"


def main(arguments: list[str]) -> int:
    """Print the findings; 0 if there are none."""
    if arguments not in ([], ["--no-run"]):
        print(__doc__, file=sys.stderr)
        return 2
    findings = broken_links(ROOT) + unreachable_pages(ROOT)
    blocks = [] if arguments else runnable_blocks(ROOT)
    findings += filter(None, (failed_run(ROOT, page, block) for page, block in blocks))
    print(*findings, sep="\n", end="\n" if findings else "")
    print(f"{len(pages(ROOT))} pages, {len(blocks)} commands run, {len(findings)} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
