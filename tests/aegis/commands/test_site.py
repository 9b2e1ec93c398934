"""``coreason-enclave``: the site's own program, by the same rules."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from coreason_enclave.errors import EnvelopeError
from coreason_enclave.ledger.signed_heads import open_export
from coreason_enclave.main import COMMANDS, main
from tests.conftest import site_signer

ROOT = Path(__file__).resolve().parents[3]


def enclave(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.mark.parametrize(
    "path", [(), ("export-ledger",), ("ledger",), ("ledger", "show"), ("ledger", "verify"), ("ledger", "export")]
)
def test_every_command_has_help_with_an_example(path: tuple[str, ...]) -> None:
    result = enclave(*path, "--help")

    assert result.exit_code == 0
    assert f"Example: coreason-enclave {path[0] if path else ''}" in result.stdout


def test_an_exported_ledger_of_a_run_is_shown(finished_run: Path) -> None:
    result = enclave("ledger", "show", finished_run / "ledger" / "clinic-1.json")

    assert result.exit_code == 0, result.stderr
    assert "clinic-1/visits (public, per person, 24 declared)" in result.stdout
    assert "job study-1: epsilon" in result.stdout


def test_a_falsified_ledger_is_refused_with_one_line(run_copy: Path) -> None:
    path = run_copy / "ledger" / "clinic-1.json"
    path.write_bytes(path.read_bytes().replace(b"study-1", b"study-2", 1))

    result = enclave("ledger", "verify", path)

    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr.count("\n") == 1


def test_the_list_of_commands_says_of_each_what_the_command_says_of_itself() -> None:
    for name, lazy in COMMANDS.items():
        assert lazy.load().name == name or lazy.hidden


def test_the_former_name_of_init_works_and_is_not_listed(tmp_path: Path) -> None:
    listed = CliRunner().invoke(main, ["--help"]).stdout
    assert "  init " in listed
    assert "  found " not in listed

    former = CliRunner().invoke(main, ["found", "--config", str(tmp_path)])
    present = CliRunner().invoke(main, ["init", "--config", str(tmp_path)])
    assert (former.exit_code, former.output) == (2, present.output.replace("enclave init", "enclave found"))


def test_the_program_loads_no_framework() -> None:
    code = (
        "import sys; from click.testing import CliRunner; from coreason_enclave.main import main\n"
        "CliRunner().invoke(main, ['ledger', 'show', '--help'])\n"
        "print(sorted({'torch', 'opacus', 'flwr', 'pandas', 'pyarrow', 'aegis'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_the_version_is_said() -> None:
    assert enclave("--version").stdout.startswith("coreason-enclave 0.")


def test_a_sites_exported_ledger_is_under_its_own_signature(finished_run: Path, tmp_path: Path) -> None:
    site = finished_run.parent / "federation" / "sites" / "clinic-1"
    result = enclave("export-ledger", site, "--out", tmp_path / "sent")
    export, signed = ((tmp_path / "sent" / f"clinic-1.{kind}").read_bytes() for kind in ("json", "dsse"))

    assert result.exit_code == 0, result.output
    statement = open_export(signed, export, "clinic-1", site_signer("clinic-1").public_hex)
    assert f"head {statement.head.seq}:{statement.head.hash}, signed" in result.stdout
    assert export == (finished_run / "ledger" / "clinic-1.json").read_bytes()


WRONG_EXPORTS: dict[str, tuple[str, str, bytes]] = {
    "another site's name": ("clinic-2", "clinic-1", b""),
    "another site's key": ("clinic-1", "clinic-2", b""),
    "another export": ("clinic-1", "clinic-1", b" "),
}


@pytest.mark.parametrize(("site", "key", "added"), WRONG_EXPORTS.values(), ids=WRONG_EXPORTS)
def test_a_signature_counts_for_one_site_one_key_and_one_export(
    finished_run: Path, site: str, key: str, added: bytes
) -> None:
    export, signed = ((finished_run / "ledger" / f"clinic-1.{kind}").read_bytes() for kind in ("json", "dsse"))

    with pytest.raises(EnvelopeError):
        open_export(signed, export + added, site, site_signer(key).public_hex)


def test_no_ledger_is_exported_where_a_site_has_none(finished_run: Path, tmp_path: Path) -> None:
    site = Path(shutil.copytree(finished_run.parent / "federation" / "sites" / "clinic-1", tmp_path / "clinic-1"))
    for path in site.glob("ledger.sqlite*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    result = enclave("export-ledger", site, "--out", tmp_path / "sent")

    assert (result.exit_code, result.stdout) == (2, "")
    assert "site.toml names a ledger that does not exist" in result.stderr
    assert not (tmp_path / "sent").exists()
