"""``docs/OPERATIONS.md``: its commands exist, its examples of configurations are some, its limits hold."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest

import aegis.cli
import coreason_enclave.main
from aegis.federation.registry import FederationConfig
from aegis.http.limits import GatewayLimits
from coreason_enclave.attestation.endorsements import collateral as items
from coreason_enclave.attestation.evidence import CpuKind
from coreason_enclave.attestation.verify.verdict import Refusal
from coreason_enclave.errors import Reason
from coreason_enclave.policy import SiteConfig
from coreason_enclave.wire.documents import COORDINATOR
from tools import check_docs

PAGE = Path(__file__).resolve().parents[4] / "docs" / "OPERATIONS.md"
TEXT = PAGE.read_text(encoding="utf-8")
PROGRAMS: dict[str, click.Group] = {"aegis": aegis.cli.main, "coreason-enclave": coreason_enclave.main.main}


def commands() -> list[str]:
    blocks = [line for block in check_docs.parse(TEXT).blocks if block.info == "sh" for line in block.body.splitlines()]
    in_text = re.findall(r"`((?:aegis|coreason-enclave) [^`…]+)`", TEXT)
    return sorted({*blocks, *in_text})


@pytest.mark.parametrize("line", commands())
def test_a_command_on_the_page_exists_with_its_options(line: str) -> None:
    program, *words = shlex.split(line)
    command: click.Command = PROGRAMS[program]
    while isinstance(command, click.Group) and words:
        found = command.get_command(click.Context(command), words.pop(0))
        assert found is not None, line
        command = found
    known = {name for option in command.params for name in (*option.opts, *option.secondary_opts)}

    assert {word for word in words if word.startswith("--")} <= known


def examples() -> list[dict[str, Any]]:
    return [tomllib.loads(block.body) for block in check_docs.parse(TEXT).blocks if block.info == "toml"]


def merged(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """``over``'s lines written into ``under``, table by table."""
    both = {name: merged(under[name], over[name]) for name in under.keys() & over if isinstance(over[name], dict)}
    return {**under, **over, **both}


def read(example: dict[str, Any]) -> SiteConfig | FederationConfig | GatewayLimits:
    """A whole file, or, of a site's, lines to write into the first one; of the gateway's, its limits."""
    if "limits" in example:
        return GatewayLimits.model_validate(example["limits"])
    if "public_keys" in example:
        return FederationConfig.model_validate(example)
    site = next(each for each in examples() if "site_id" in each)
    return SiteConfig.model_validate(merged(site, example))


def test_every_configuration_on_the_page_is_one() -> None:
    kinds = [type(read(example)) for example in examples()]

    assert sorted(kind.__name__ for kind in kinds) == [
        "FederationConfig",
        "FederationConfig",
        "GatewayLimits",
        "SiteConfig",
        "SiteConfig",
        "SiteConfig",
    ]


def test_the_gateways_limits_on_the_page_are_the_ones_that_hold() -> None:
    table = TEXT.partition("| `[limits]` |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| (`[^|]+) \| ([0-9][^|]*) \|", table, flags=re.MULTILINE)
    said = {
        name: float(value)
        for names, values in rows
        for name, value in zip(re.findall(r"`(\w+)`", names), values.split(", "), strict=True)
    }

    assert said == {name: float(value) for name, value in GatewayLimits().model_dump().items()}
    assert f"the limits above {GatewayLimits().descriptors:,}" in TEXT


def test_the_examples_of_attestation_leave_nothing_out_that_would_refuse_everybody() -> None:
    federation = next(config for example in examples() if isinstance(config := read(example), FederationConfig))
    site = next(config for example in examples() if isinstance(config := read(example), SiteConfig) and asks(config))
    policies = {"clinic-1": federation.attestation_policy(), COORDINATOR: site.policy.coordinator_attestation}

    for subject, policy in policies.items():
        assert policy is not None
        assert {value.kind for value in policy.reference_values} == set(policy.kinds)
        assert policy.platforms[subject]
        assert CpuKind.SNP not in policy.kinds or policy.snp.tcb_floor
        for value in policy.reference_values:
            lengths = {len(measured) for measured in value.measurements.values()}
            assert lengths == {64 if value.kind is CpuKind.SGX else 96}, value.name


def asks(config: SiteConfig) -> bool:
    return config.policy.coordinator_attestation is not None


def test_every_code_of_a_refusal_is_explained() -> None:
    section = TEXT.split("## Proving what runs where", 1)[1].split("\n## ", 1)[0]
    first_cells = re.findall(r"^\| (.+?) \|", section, flags=re.MULTILINE)
    explained = {code for cell in first_cells for code in re.findall(r"`(\w+)`", cell)}
    attestation = {reason.value for reason in Reason if reason.value.startswith("attestation_")}

    assert explained >= {*(refusal.value for refusal in Refusal), *attestation, "undecryptable"}


def test_every_example_of_a_bundle_is_a_name_that_is_looked_for() -> None:
    (listing,) = [block.body for block in check_docs.parse(TEXT).blocks if block.body.startswith("endorsements/")]
    shown = re.findall(r"^  (\S+?/)", listing, flags=re.MULTILINE)
    told = re.findall(r"^ {4}(\w+)/", items.__doc__ or "", flags=re.MULTILINE)

    assert shown == [f"{folder}/" for folder in told]


def test_a_site_on_another_host_takes_ten_commands_at_most() -> None:
    section = TEXT.split("## A site on another host", 1)[1].split("\n### ", 1)[0]
    numbered = re.findall(r"^\| (\d+) \|", section, flags=re.MULTILINE)

    assert 0 < len(numbered) <= 10
