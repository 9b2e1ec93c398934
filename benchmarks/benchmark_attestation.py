"""What judging evidence costs, against the limit of 20 ms for one verification.

    python -m benchmarks.benchmark_attestation [--quick] [--check] [--out benchmarks/results]

Evidence of vendors of our own, in the real formats and key sizes, always; and where ``AEGIS_EVIDENCE_DIR`` names a
folder of recorded evidence, that of real processors and GPUs under the pinned roots. Every run begins with bytes and
ends with a verdict: parsing evidence and endorsements is counted, reading files is not. The cases take turns, so that a
busy machine slows all of them alike; and the limit is for processor time, which what else runs there changes little.

Writes ``attestation.csv`` and ``attestation.md``; ``--check`` turns a missed limit into a non-zero exit.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from aegis.evidence.given_endorsements import GivenEndorsements
from coreason_enclave.attestation.appraisal import Appraiser, Verifiers
from coreason_enclave.attestation.attestation_policy import AttestationPolicy
from coreason_enclave.attestation.binding import Binding, Role
from coreason_enclave.attestation.evidence import parse_evidence
from coreason_enclave.attestation.verify.dcap import DcapEndorsements, DcapPlatformPolicy, verify_sgx, verify_tdx
from coreason_enclave.attestation.verify.nvidia import NvidiaEndorsements, NvidiaPlatformPolicy, verify_nvidia
from coreason_enclave.attestation.verify.nvidia.roots import pinned_roots
from coreason_enclave.attestation.verify.rim import verify_manifest_under
from coreason_enclave.attestation.verify.snp import SnpEndorsements, SnpPlatformPolicy, verify_snp
from coreason_enclave.crypto.encoding import parse_json
from coreason_enclave.policy import Profile
from tests.aegis.commands.evidence_files import endorsing, host
from tests.coreason_enclave.attestation.dcap import hierarchy as intel
from tests.coreason_enclave.attestation.nvidia import hierarchy as nvidia
from tests.coreason_enclave.attestation.snp import hierarchy as amd

LIMIT_S = 0.020
HEADER = ["evidence", "of", "runs", "median_ms", "p95_ms", "median_cpu_ms", "p95_cpu_ms", "limit_over_p95_cpu"]
BINDING = Binding(Role.SITE, "07" * 32, "01" * 32, "02" * 32, "hospital-a", "03" * 32)


@dataclass
class Case:
    """One judgement, from bytes to verdict; the limit is for a single verification (``limited``)."""

    name: str
    of: str
    judge: Callable[[], object]
    limited: bool = True
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def run(self) -> None:
        wall, cpu = time.perf_counter(), time.thread_time()
        self.judge()
        self.cpu.append(time.thread_time() - cpu)
        self.wall.append(time.perf_counter() - wall)

    @property
    def cost(self) -> float:
        """Seconds of processor time that 95 of 100 runs stay below."""
        return percentile_95(self.cpu)

    @property
    def row(self) -> list[str]:
        taken = [f for of in (self.wall, self.cpu) for f in (statistics.median(of), percentile_95(of))]
        return [
            self.name,
            self.of,
            str(len(self.cpu)),
            *(f"{1e3 * s:.2f}" for s in taken),
            f"{LIMIT_S / self.cost:.1f}",
        ]


def percentile_95(seconds: list[float]) -> float:
    return statistics.quantiles(seconds, n=20)[-1]


# --- vendors of our own ---------------------------------------------------------------------------------------------


def own_cases() -> Iterator[Case]:
    ours = "our own vendors"
    for kind in ("sgx", "tdx"):
        yield Case(f"{kind} quote", ours, own_quote(intel.Intel(kind=kind)))
    yield Case("snp report", ours, own_snp())
    yield Case("nvidia report", ours, own_gpu(NvidiaEndorsements(chain=nvidia.pem(nvidia.chain()))))
    yield Case("nvidia report, 2 manifests, 6 OCSP answers", ours, own_gpu(all_of_gpu()))
    yield Case("host: snp and 1 GPU, appraised", ours, own_host(1), limited=False)
    yield Case("host: snp and 8 GPUs, appraised", ours, own_host(8), limited=False)


def own_quote(world: intel.Intel) -> Callable[[], object]:
    verifier, quote, endorsements, policy = world.verifier, world.quote(), world.endorsements(), DcapPlatformPolicy()
    return lambda: verifier.verify(world.kind, quote, endorsements, policy, intel.NOW)


def own_snp() -> Callable[[], object]:
    vendor, files = amd.Vendor(), tuple(endorsing("snp").values())
    report, policy = vendor.report(), SnpPlatformPolicy()
    lists = (*files, vendor.revocation_list())
    return lambda: amd.verifier().verify(
        report, SnpEndorsements.from_files(lists), policy, amd.NOW, report_data=amd.DATA
    )


def all_of_gpu() -> NvidiaEndorsements:
    return NvidiaEndorsements.from_files((*endorsing("gpu").values(), *answers()))


def answers() -> list[bytes]:
    return [answer.der() for answer in (*nvidia.device_answers(), *nvidia.manifest_answers())]


def own_gpu(endorsements: NvidiaEndorsements) -> Callable[[], object]:
    report, policy = nvidia.report(), NvidiaPlatformPolicy()
    return lambda: nvidia.verifier().verify(report, endorsements, policy, nvidia.NOW, nonce=nvidia.NONCE)


def own_host(gpus: int) -> Callable[[], object]:
    """A whole appraisal, from the evidence as it travels to the result; every GPU's manifests and answers."""
    names = ["", *(f"-{number}" for number in range(2, gpus + 1))]
    evidence = host(BINDING.context(), gpus=names)
    answered = {answer.der() for who in names for answer in nvidia.device_answers(who)[:1]}
    files = [*endorsing("snp").values(), amd.Vendor().revocation_list()]
    files += [*endorsing("nvidia").values(), *answers(), *answered]
    verifiers = Verifiers(snp=amd.verifier(), dcap=intel.Intel().verifier, nvidia=nvidia.verifier())
    policy = host_policy(names)

    def judge() -> object:
        appraiser = Appraiser(policy, Profile.PRODUCTION, GivenEndorsements.from_files(files), verifiers=verifiers)
        return appraiser.appraise(parse_evidence(parse_json(evidence, limit=4 << 20)), BINDING, amd.NOW)

    return judge


def host_policy(names: list[str]) -> AttestationPolicy:
    gpus = [
        nvidia.verifier().verify(
            nvidia.report(who=who),
            NvidiaEndorsements(chain=nvidia.pem(nvidia.chain(who))),
            NvidiaPlatformPolicy(),
            nvidia.NOW,
            nonce=None,
        )
        for who in names
    ]
    chip = amd.CHIP[amd.Vendor().product].hex()
    return AttestationPolicy.model_validate(
        {
            "kinds": ["snp"],
            "gpus": len(names),
            "snp": {"tcb_floor": {"Milan": {"boot_loader": 1, "tee": 1, "snp": 1, "microcode": 1}}},
            "reference_values": [{"name": "agent", "kind": "snp", "measurements": {"measurement": "aa" * 48}}],
            "platforms": {BINDING.subject: [chip, *(gpu.platform_id for gpu in gpus)]},
        }
    )


# --- recorded evidence ----------------------------------------------------------------------------------------------


def recorded_cases(folder: Path) -> Iterator[Case]:
    real = "real hardware"
    loose = DcapPlatformPolicy(
        accepted_advisories=("INTEL-SA-00289", "INTEL-SA-00615"),
        allow_dynamic_platform=True,
        allow_cached_keys=True,
        allow_smt=True,
    )
    sgx, of_sgx = read(folder, "sgx/quote.bin", "sgx/collateral.json")
    tdx, of_tdx = read(folder, "tdx/quote_v4.bin", "tdx/quote_v4_collateral.json")
    yield Case("sgx quote", real, lambda: verify_sgx(sgx, DcapEndorsements(of_sgx), loose, 1_751_624_924))
    yield Case("tdx quote", real, lambda: verify_tdx(tdx, DcapEndorsements(of_tdx), loose, 1_751_624_191))
    for line in ("milan", "genoa"):
        yield Case(f"snp report, {line}", real, recorded_snp(folder, line))
    (gpu,) = read(folder, "nvidia/hopper_evidence.json")
    nothing, policy = NvidiaEndorsements(), NvidiaPlatformPolicy()
    yield Case("nvidia report", real, lambda: verify_nvidia(gpu, nothing, policy, 1_780_000_000, nonce=None))
    (manifest,), root = read(folder, "nvidia/driver_rim_550.144.03.xml"), pinned_roots().manifests
    yield Case("nvidia driver manifest", real, lambda: verify_manifest_under(root, manifest, 1_780_000_000))


def recorded_snp(folder: Path, line: str) -> Callable[[], object]:
    report, *files = read(folder, f"snp/{line}_report.bin", *(f"snp/{line}_{n}.pem" for n in ("vcek", "ask", "ark")))
    policy = SnpPlatformPolicy()
    return lambda: verify_snp(report, SnpEndorsements.from_files(files), policy, 1_780_000_000, report_data=None)


def read(folder: Path, *names: str) -> list[bytes]:
    return [(folder / name).read_bytes() for name in names]


# --- the report -----------------------------------------------------------------------------------------------------


def measured(cases: list[Case], runs: int) -> list[Case]:
    for case in cases:
        case.judge()
    for _ in range(runs):
        for case in cases:
            case.run()
    return cases


def verdicts(cases: list[Case]) -> list[tuple[bool, str]]:
    said = []
    for case in (case for case in cases if case.limited):
        met = case.cost <= LIMIT_S
        sentence = f"{case.name} of {case.of}: {1e3 * case.cost:.2f} ms in 95 of 100 runs (limit {1e3 * LIMIT_S:g} ms)"
        said.append((met, f"{sentence}: {'met' if met else 'MISSED'}"))
    return said


def write(cases: list[Case], said: list[tuple[bool, str]], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rows = [case.row for case in cases]
    with (folder / "attestation.csv").open("w", newline="") as file:
        csv.writer(file).writerows([HEADER, *rows])
    packages = ", ".join(f"{name} {version(name)}" for name in ("cryptography", "dcap-qvl", "signxml"))
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {packages}"
    load = f"load {os.getloadavg()[0]:.1f} at the end"
    text = [
        "# Verifying evidence",
        "",
        f"{machine}, {load}. From bytes to a verdict, on one core; the limit is {1e3 * LIMIT_S:g} ms a verification.",
        "",
        "| " + " | ".join(HEADER) + " |",
        "|" + "---|" * len(HEADER),
        *("| " + " | ".join(row) + " |" for row in rows),
        "",
        *(f"- {sentence}" for _, sentence in said),
        "",
    ]
    (folder / "attestation.md").write_text("\n".join(text), encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Measure what verifying and appraising evidence costs.")
    parser.add_argument("--quick", action="store_true", help="fewer runs; rougher")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a limit is missed")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"), help="folder for the results")
    options = parser.parse_args(arguments)
    folder = os.environ.get("AEGIS_EVIDENCE_DIR")
    cases = [*own_cases(), *(recorded_cases(Path(folder)) if folder else ())]
    measured(cases, 40 if options.quick else 300)
    said = verdicts(cases)
    write(cases, said, options.out)
    for row in [HEADER, *(case.row for case in cases)]:
        print(f"{row[0]:<44}{row[1]:<17}" + "".join(cell.rjust(20) for cell in row[2:]))
    for _, sentence in said:
        print(sentence)
    if not folder:
        print("AEGIS_EVIDENCE_DIR is not set: no recorded evidence was measured")
    print(f"Written to {options.out}/attestation.{{csv,md}}")
    return 1 if options.check and not all(met for met, _ in said) else 0


if __name__ == "__main__":
    sys.exit(main())
