"""What a clone gets is what is here: no source file falls under a line of .gitignore."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(not (ROOT / ".git").exists() or shutil.which("git") is None, reason="not a git checkout")
@pytest.mark.parametrize("folder", ["aegis", "coreason_enclave", "tests", "tools"])
def test_no_source_file_is_ignored_by_git(folder: str) -> None:
    names = [str(path.relative_to(ROOT)) for path in sorted((ROOT / folder).rglob("*.py"))]
    assert names
    ignored = subprocess.run(
        ["git", "check-ignore", "--no-index", "--stdin"],
        cwd=ROOT,
        input="\n".join(names),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ignored.stdout.split() == []
