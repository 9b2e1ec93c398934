"""Where a dataset lies below a site's data root, and the options that the dataset commands share."""

from __future__ import annotations

from pathlib import Path

import click

from coreason_enclave.command_line import site_folder
from coreason_enclave.errors import ConfigurationError
from coreason_enclave.schemas import explained

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)

config_option = click.option(
    "--config",
    "folder",
    required=True,
    type=click.Path(path_type=Path),
    callback=site_folder,
    help="A site.toml or its folder.",
)


def place_of(folder: Path, dataset_id: str) -> Path:
    """Return a dataset's folder, which need not exist.

    Raises:
        ConfigurationError: the id is malformed, or a link is on the way.
    """
    from pydantic import TypeAdapter

    from coreason_enclave.policy import load_site_config
    from coreason_enclave.schemas import SafePath

    with explained(lambda why: ConfigurationError(f"--dataset-id {why}")):
        TypeAdapter(SafePath).validate_python(dataset_id)
    place = folder / load_site_config(folder / "site.toml").data_root
    for part in dataset_id.split("/"):
        place /= part
        if place.is_symlink():
            raise ConfigurationError(f"{place} is a symbolic link: a dataset lies in plain folders")
    return place
