"""``aegis evidence``: the group of its commands."""

from __future__ import annotations

import click

from aegis.commands.evidence.appraise import appraise
from aegis.commands.evidence.inspect import inspect
from aegis.commands.evidence.verify import verify


@click.group(no_args_is_help=True)
def evidence() -> None:
    """Verify, appraise and read evidence of hardware: Intel SGX and TDX, AMD SEV-SNP, NVIDIA H100.

    Offline, from files, and under the vendors' pinned roots alone.

    \b
    Example: aegis evidence verify --kind snp --evidence report.bin --endorsements vcek.der --endorsements ask.pem
    """


for command in (verify, appraise, inspect):
    evidence.add_command(command)
