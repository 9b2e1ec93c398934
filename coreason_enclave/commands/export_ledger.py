"""``coreason-enclave export-ledger``: writes a site's signed ledger for the auditor of a run."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path

import click

from coreason_enclave.command_line import site_folder
from coreason_enclave.errors import ConfigurationError
from coreason_enclave.system import replace_file

_PATH = click.Path(path_type=Path)


@click.command("export-ledger", epilog="Example: coreason-enclave export-ledger /srv/clinic --out for-the-auditor")
@click.argument("folder", metavar="SITE", type=_PATH, callback=site_folder)
@click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder to write to, for example a run's ledger/. Created if it is missing.",
)
def export_ledger(folder: Path, out: Path) -> None:
    """Write this site's whole ledger, and its signature over it: <site>.json and <site>.dsse.

    For the auditor of a run: `aegis verify` wants both in the run's folder ledger/. They hold hashes, caps and what was
    charged; no row, no count of rows and no key.
    """
    from coreason_enclave.crypto import load_signer
    from coreason_enclave.ledger import SqliteLedger, seal_export, verify_export
    from coreason_enclave.policy import load_site_config

    config = load_site_config(folder / "site.toml")
    signer = load_signer(folder / config.keys / "signing.key")
    path = folder / config.ledger
    if not path.exists():
        raise ConfigurationError(f"{path} is missing: site.toml names a ledger that does not exist")
    with closing(SqliteLedger(path, must_exist=True)) as ledger:
        export = ledger.export()
    head = verify_export(export).head
    out.mkdir(parents=True, exist_ok=True)
    replace_file(out / f"{config.site_id}.json", export)
    replace_file(out / f"{config.site_id}.dsse", seal_export(export, config.site_id, signer, now=time.time()))
    click.echo(f"wrote {config.site_id}.json and {config.site_id}.dsse to {out}: head {head.seq}:{head.hash}, signed")
