"""Nothing but evidence makes an attester trusted: no constant, no environment variable, no flag.

First the text of the product: who may make a verdict, and out of which roots. Then its behaviour: what would be
accepted under our own vendors' roots is refused under the pinned ones, whatever the policy and the environment say.
Each check is shown to go red by a way around that is built on purpose.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coreason_enclave.attestation.appraisal import Appraiser
from coreason_enclave.attestation.attestation_policy import AttestationPolicy, Unchecked
from coreason_enclave.attestation.evidence import CpuKind, CpuReport, Evidence, GpuReport, to_base64
from coreason_enclave.attestation.verify.dcap.intel_root import INTEL_SGX_ROOT, INTEL_SGX_ROOT_SHA256
from coreason_enclave.attestation.verify.nvidia import roots as nvidia_roots
from coreason_enclave.attestation.verify.snp import roots as snp_roots
from coreason_enclave.crypto.encoding import sha256_hex
from coreason_enclave.errors import AttestationError
from coreason_enclave.hardware.simulated import SimulatedAttester
from coreason_enclave.schemas import AttestationReport, Profile, Provenance
from tests.coreason_enclave.attestation.appraisal.hosts import KINDS, Host, Trial, binding, policy, source

ROOT = Path(__file__).resolve().parents[3]
VERIFY = "coreason_enclave/attestation/verify"
VERDICTS = "coreason_enclave/attestation/"
TRUSTED_ROOMS = ("coreason_enclave/attestation/", "coreason_enclave/hardware/", "aegis/evidence/")

# --- the text of the product ----------------------------------------------------------------------------------------

# Whatever can make a verdict or choose a root, and the calls that do: where, and with which arguments.
MAKERS: dict[str, set[tuple[str, str]]] = {
    "Authentic": {
        (f"{VERIFY}/dcap/quote_verifier.py", "*"),
        (f"{VERIFY}/nvidia/gpu_verifier.py", "*"),
        (f"{VERIFY}/snp/report_verifier.py", "*"),
    },
    "AttestationReport": {("coreason_enclave/attestation/appraisal.py", "*")},
    "SnpVerifier": {(f"{VERIFY}/snp/report_verifier.py", "load_pinned_roots()")},
    "DcapVerifier": {
        (f"{VERIFY}/dcap/quote_verifier.py", "INTEL_SGX_ROOT"),
        ("coreason_enclave/attestation/appraisal.py", "INTEL_SGX_ROOT"),
    },
    "NvidiaVerifier": {
        (f"{VERIFY}/nvidia/gpu_verifier.py", "pinned_roots()"),
        ("coreason_enclave/attestation/appraisal.py", "pinned_roots()"),
    },
    "NvidiaRoots": {(f"{VERIFY}/nvidia/roots.py", "*")},
    "Verifiers": {("coreason_enclave/attestation/appraisal.py", "*")},
    "verify_manifest_under": {(f"{VERIFY}/nvidia/gpu_verifier.py", "self.roots.manifests, manifest, self.now")},
}
# What reads a result that a verifier signed, after it has checked the signature.
READERS = {("coreason_enclave/attestation/results.py", "AttestationReport.from_payload")}
SETTINGS_OF_THE_PROCESS = {"environ", "environb", "getenv", "getenvb", "argv", "orig_argv", "flags", "_xoptions"}
PAST_THE_CHECKS = {"model_construct", "__setattr__", "__new__", "setattr"}
PINNED = {"PINNED", "PINS", "_PINNED", "_INTEL", "INTEL_SGX_ROOT", "_DEVICE_ROOT", "_MANIFEST_ROOT", "_roots", "_root"}
CLOCKS_AND_FILES = {"now", "today", "utcnow", "open", "eval", "exec", "__import__", "import_module"}
PURE = {
    *("__future__", "base64", "binascii", "collections", "contextlib", "dataclasses", "datetime", "enum", "functools"),
    *("hashlib", "hmac", "importlib", "re", "struct", "types", "typing"),
    *("coreason_enclave", "cryptography", "dcap_qvl", "lxml", "pydantic", "signxml"),
    "lazy_loader",  # at a door: it loads files of the same room alone
}


class _WithoutAnnotations(ast.NodeTransformer):
    """Naming a type is no way to make one."""

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        made = ast.Assign(targets=[node.target], value=node.value) if node.value is not None else None
        return made and ast.copy_location(self.generic_visit(made), node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)


def ways_around(relative: str, text: str) -> list[str]:
    """Each line of a module that could make somebody trusted without evidence."""
    tree = _WithoutAnnotations().visit(ast.parse(text))
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    found = [
        *_makers(relative, tree, parents),
        *_attested(relative, tree, parents),
        *(_settings(tree) if relative.startswith(TRUSTED_ROOMS) else ()),
        *_past_the_checks(relative, tree, parents),
        *(_impure(tree) if relative.startswith(VERIFY) else ()),
    ]
    return [f"{relative}:{getattr(node, 'lineno', 0)}: {why}" for node, why in found]


Parents = dict[ast.AST, ast.AST]
Found = Iterator[tuple[ast.AST, str]]


def _name(node: ast.AST | None) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _makers(relative: str, tree: ast.AST, parents: Parents) -> Found:
    for node in ast.walk(tree):
        name = _name(node)
        if name not in MAKERS or not isinstance(getattr(node, "ctx", None), ast.Load):
            continue
        above = parents[node]
        if isinstance(above, ast.Call) and above.func is node:
            arguments = ast.unparse(above)[len(ast.unparse(node)) + 1 : -1]
            if not {(relative, "*"), (relative, arguments)} & MAKERS[name]:
                yield node, f"makes {name}({arguments})"
        elif isinstance(above, ast.Call) and _name(above.func) == "isinstance":
            continue
        elif (relative, ast.unparse(above)) not in READERS and not isinstance(above, ast.Subscript | ast.BinOp):
            yield node, f"hands {name} on"


def _attested(relative: str, tree: ast.AST, parents: Parents) -> Found:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _name(node.func) == "Provenance":
            yield node, "makes a provenance out of something"
        if not isinstance(node, ast.Attribute) or (_name(node.value), node.attr) != ("Provenance", "ATTESTED"):
            continue
        compared = isinstance(parents[node], ast.Compare)
        if not compared and relative != "coreason_enclave/attestation/appraisal.py":
            yield node, "says attested"


def _settings(tree: ast.AST) -> Found:
    for node in ast.walk(tree):
        named = {alias.name for alias in node.names} if isinstance(node, ast.ImportFrom) else {_name(node)}
        if named & SETTINGS_OF_THE_PROCESS:
            yield node, "reads the environment or the command line"


def _past_the_checks(relative: str, tree: ast.AST, parents: Parents) -> Found:
    trusted = relative.startswith(TRUSTED_ROOMS)
    for node in ast.walk(tree):
        name = _name(node)
        called = isinstance(parents.get(node), ast.Call)
        if isinstance(node, ast.keyword) and node.arg in ("verifiers", "roots"):
            yield node.value, f"passes {node.arg} of its own"
        elif name == "model_construct" or (trusted and name in PAST_THE_CHECKS):
            yield node, f"uses {name}"
        elif relative.startswith(VERDICTS) and called and isinstance(node, ast.Name) and name == "replace":
            yield node, "copies a verdict with changes"
        elif _overwrites_a_root(relative, node):
            yield node, f"overwrites {name}"


def _overwrites_a_root(relative: str, node: ast.AST) -> bool:
    if not isinstance(node, ast.Attribute) or not isinstance(node.ctx, ast.Store) or node.attr not in PINNED:
        return False
    return not (_name(node.value) == "self" and (relative.startswith(VERIFY) or node.attr.islower()))


def _impure(tree: ast.AST) -> Found:
    for node in ast.walk(tree):
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        foreign = {module.partition(".")[0] for module in modules} - PURE
        if foreign:
            yield node, f"a verifier imports {', '.join(foreign)}"
        elif isinstance(node, ast.Call) and _name(node.func) in CLOCKS_AND_FILES:
            yield node, f"a verifier calls {_name(node.func)}"


@cache
def product() -> dict[str, str]:
    return {
        path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
        for package in ("aegis", "coreason_enclave")
        for path in (ROOT / package).rglob("*.py")
    }


def test_nothing_in_the_product_makes_a_verdict_or_chooses_a_root_but_the_verifiers_and_the_appraiser() -> None:
    assert [line for relative, text in product().items() for line in ways_around(relative, text)] == []


def test_every_place_that_may_make_a_verdict_is_there() -> None:
    for name, places in MAKERS.items():
        for relative, _ in places:
            assert re.search(rf"\b{name}\(", product()[relative]), (name, relative)


APPRAISAL = "coreason_enclave/attestation/appraisal.py"
SNP = f"{VERIFY}/snp/report_verifier.py"


@pytest.mark.parametrize(
    ("relative", "planted"),
    [
        (SNP, 'import os\ndef trusted():\n    return bool(os.environ.get("AEGIS_TRUST"))'),
        (SNP, 'from os import getenv\ntrusted = getenv("AEGIS_TRUST")'),
        (SNP, "import sys\ntrusted = '--trust' in sys.argv"),
        (SNP, "from pathlib import Path\ntrusted = Path('/etc/aegis/trusted').exists()"),
        (SNP, "import time\nmoment = time.time()"),
        (SNP, "trusted = open('/etc/aegis/trusted')"),
        (SNP, "LATER = SnpVerifier({})"),
        (SNP, "make = SnpVerifier"),
        (SNP, "PINNED._roots = {}"),
        ("coreason_enclave/hardware/tsm.py", "import os\nFORCED = os.environ['AEGIS_TEE']"),
        (APPRAISAL, "def shortcut():\n    return Authentic('snp', b'', {}, None, {}, ())"),
        (APPRAISAL, "LATER = Verifiers(snp=None, dcap=None, nvidia=None)\nfrom x import *\nPINNED.snp._roots = {}"),
        (APPRAISAL, "def shortcut(verdict):\n    return replace(verdict, not_checked=())"),
        (APPRAISAL, "NEW = DcapVerifier(b'a root')"),
        (
            "coreason_enclave/session/secure_session.py",
            "def shortcut():\n    return AttestationReport(provenance='attested')",
        ),
        ("coreason_enclave/session/secure_session.py", "make = AttestationReport"),
        (
            "coreason_enclave/session/secure_session.py",
            "def shortcut(d):\n    return AttestationReport.model_construct(**d)",
        ),
        (
            "coreason_enclave/session/secure_session.py",
            "def shortcut(d):\n    return AttestationReport.model_validate(d)",
        ),
        ("coreason_enclave/session/secure_session.py", "ANSWER = Provenance.ATTESTED"),
        ("coreason_enclave/session/secure_session.py", "ANSWER = Provenance('attested')"),
        (
            "aegis/coordination/admission.py",
            "from coreason_enclave.attestation import appraisal\nappraisal.PINNED = None",
        ),
        ("aegis/coordination/admission.py", "def mine(a, b):\n    return Appraiser(a, b, verifiers=b)"),
        (
            "aegis/coordination/admission.py",
            "def shortcut():\n    return verdict.Authentic('snp', b'', {}, None, {}, ())",
        ),
        (f"{VERIFY}/nvidia/reference.py", "def other(root, data):\n    return verify_manifest_under(root, data, 0)"),
    ],
)
def test_a_way_around_that_somebody_builds_is_seen(relative: str, planted: str) -> None:
    assert ways_around(relative, product()[relative]) == []
    assert ways_around(relative, f"{product()[relative]}\n{planted}\n") != []


def test_the_pinned_roots_are_the_ones_that_were_compared_with_what_vendors_publish() -> None:
    assert dict(snp_roots.PINS) == {
        "Milan": "69d063b45344d26a2e94e1f4210de49ef555308287d4c174445c95639a540bcd",
        "Genoa": "4c6598d19c18719c5dfd4a7d335f674e5bfe1d8f800cea2cf270c10d103db2f1",
        "Turin": "1f084161a44bb6d93778a904877d4819cafa5d05ef4193b2ded9dd9c73dd3f6a",
    }
    assert INTEL_SGX_ROOT_SHA256 == "44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3"
    assert sha256_hex(INTEL_SGX_ROOT) == INTEL_SGX_ROOT_SHA256
    pinned = (nvidia_roots._DEVICE_ROOT, nvidia_roots._MANIFEST_ROOT)
    assert pinned == (
        "102bf659d5419614c9d8e6aecebc80454eb26b1df6a769ac720b9a690b167b48",
        "12977b5115acb0381179279fffeb5a8c4d264971ebb32298023a465fa41df5d1",
    )


def test_evidence_has_no_place_to_say_that_it_is_trusted() -> None:
    fields = {kind.__name__: set(kind.model_fields) for kind in (Evidence, CpuReport, GpuReport)}
    assert fields == {
        "Evidence": {"version", "cpu", "gpus"},
        "CpuReport": {"kind", "report", "certificates"},
        "GpuReport": {"arch", "report", "certificate_chain"},
    }
    genuine = Host(CpuKind.SNP).produce(binding().context()).model_dump(mode="json")
    for name in ("status", "trusted", "provenance", "verdict"):
        with pytest.raises(ValueError, match=name):
            Evidence.model_validate({**genuine, name: "attested"})


def test_no_policy_has_a_field_that_switches_verification_off() -> None:
    unchecked = {name.value.partition(".")[2] for name in Unchecked}
    assert unchecked == {"revocation", "driver_manifest_revocation", "vbios_manifest_revocation"}
    names = " ".join(AttestationPolicy.model_json_schema()["$defs"]) + str(AttestationPolicy.model_json_schema())
    assert not re.search(r"(?i)skip|insecure|bypass|trust_all|allow_debug|no_verify|disable", names)


# --- its behaviour --------------------------------------------------------------------------------------------------

HOSTS = [Host(kind, gpus) for kind in KINDS for gpus in ((), ("",))]
IN_THE_TREE = re.compile(r"\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b")
GUESSED = {
    *("AEGIS_TRUST", "AEGIS_TRUSTED", "AEGIS_DEBUG", "AEGIS_DEV", "AEGIS_INSECURE", "AEGIS_SKIP_ATTESTATION"),
    *("AEGIS_SIMULATED", "AEGIS_PROFILE", "AEGIS_TEST", "COREASON_TRUST", "COREASON_PROFILE", "DEBUG", "TEST", "CI"),
}


def names_in(tree: Path) -> set[str]:
    """Everything in the tree that could be the name of an environment variable."""
    folders = [path for path in (tree / "aegis", tree / "coreason_enclave", tree / "deploy") if path.is_dir()]
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    found = {name for path in files for name in IN_THE_TREE.findall(path.read_text(encoding="utf-8", errors="ignore"))}
    return {name for name in found | GUESSED if not name.startswith(("LD_", "PYTHON"))}


def appraise(trial: Trial) -> AttestationReport:
    """As the product does: under the pinned roots."""
    evidence = trial.evidence or trial.host.produce(trial.asked.context())
    wanted = trial.policy or policy(trial.host.kind, trial.host.gpus)
    return Appraiser(wanted, trial.profile, trial.source or source(trial.host.kind)).appraise(
        evidence, trial.asked, trial.now
    )


@pytest.mark.parametrize("host", HOSTS, ids=str)
def test_what_our_own_vendors_certify_is_attested_under_their_roots_and_nothing_under_the_pinned(host: Host) -> None:
    assert Trial(host).result().provenance is Provenance.ATTESTED
    with pytest.raises(AttestationError):
        appraise(Trial(host))


def policies(host: Host) -> st.SearchStrategy[AttestationPolicy]:
    """Every line of a policy, from strict to as lenient as can be written."""
    flags = {name: st.booleans() for name in ("allow_dynamic_platform", "allow_cached_keys", "allow_smt")}
    dcap = {"accepted_advisories": st.just(["INTEL-SA-00615"]), "out_of_date_until": st.dates(), **flags}
    kinds = st.sets(st.sampled_from(list(CpuKind)), min_size=1).map(lambda found: [*{*found, host.kind}])
    changes = {
        "kinds": kinds,
        "gpus": st.integers(0, 2),
        "lifetime_s": st.integers(30, 600),
        "accept_unchecked": st.sets(st.sampled_from(list(Unchecked))).map(list),
        "dcap": st.fixed_dictionaries({}, optional=dcap),
        "snp": st.fixed_dictionaries({}, optional={"vmpls": st.just([0, 1, 2, 3])}),
    }
    return st.fixed_dictionaries({}, optional=changes).map(lambda chosen: policy(host.kind, host.gpus, **chosen))


_blobs = st.binary(min_size=1, max_size=2000).map(to_base64)


def evidences(host: Host) -> st.SearchStrategy[Evidence]:
    """Genuine but for the roots above it, simulated, simulated under another name, or random bytes."""
    context = binding().context()
    simulated = SimulatedAttester().produce(context)
    renamed = simulated.model_copy(update={"cpu": simulated.cpu.model_copy(update={"kind": host.kind})})
    random = st.builds(
        CpuReport,
        kind=st.sampled_from(list(CpuKind)),
        report=_blobs,
        certificates=st.lists(_blobs, max_size=2).map(tuple),
    )
    gpus = st.lists(st.builds(GpuReport, arch=st.just("HOPPER"), report=_blobs, certificate_chain=_blobs), max_size=2)
    return st.one_of(
        st.just(host.produce(context)),
        st.sampled_from([simulated, renamed]),
        st.builds(Evidence, cpu=random, gpus=gpus.map(tuple)),
    )


@pytest.fixture
def every_variable_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in names_in(ROOT):
        monkeypatch.setenv(name, "1")


@pytest.mark.usefixtures("every_variable_set")
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(st.sampled_from(HOSTS), st.data())
def test_no_policy_no_evidence_and_no_variable_makes_a_site_trusted_in_production(
    host: Host, data: st.DataObject
) -> None:
    trial = replace(Trial(host), policy=data.draw(policies(host)), evidence=data.draw(evidences(host)))
    assert trial.profile is Profile.PRODUCTION
    with pytest.raises(AttestationError):
        appraise(trial)


# Run by an interpreter of its own, so that what is read while modules are imported counts, too.
IN_A_CHILD = """
from coreason_enclave.errors import AttestationError
from tests.coreason_enclave.attestation.test_no_way_around import HOSTS, Trial, appraise, simulated_trials
for trial in [*map(Trial, HOSTS), *simulated_trials()]:
    try:
        print("ACCEPTED", appraise(trial).kind)
    except AttestationError as refused:
        print("refused", trial.host.kind)
"""


def simulated_trials() -> list[Trial]:
    evidence = SimulatedAttester().produce(binding().context())
    wanted = policy(CpuKind.SNP, kinds=["snp", "simulated"])
    return [Trial(Host(CpuKind.SNP), policy=wanted, evidence=evidence)]


def asked_in_a_child(tree: Path, value: str) -> list[str]:
    inherited = {name: text for name, text in os.environ.items() if name in ("PATH", "HOME", "LANG", "TMPDIR")}
    env = {**dict.fromkeys(names_in(tree), value), **inherited, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", IN_A_CHILD],
        cwd=tree,
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return [line.split()[0] for line in done.stdout.splitlines()]


@pytest.mark.parametrize("value", ["1", "true"])
def test_no_variable_that_is_set_from_the_start_makes_a_site_trusted(value: str) -> None:
    assert asked_in_a_child(ROOT, value) == ["refused"] * (len(HOSTS) + 1)


def test_a_variable_that_does_would_be_seen(tmp_path: Path) -> None:
    for name in ("coreason_enclave", "tests/coreason_enclave/attestation", "tools"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    verifier = tmp_path / SNP
    line = "        chain = verify_chain(self._roots,"
    planted = (
        "        import os\n"
        '        if os.environ.get("AEGIS_LENIENT_ROOTS"):\n'
        "            from coreason_enclave.attestation.verify.snp.chain import Root\n"
        "            self._roots = {SnpProduct.MILAN: Root.of(endorsements.certificates[2])}\n"
    )
    text = verifier.read_text(encoding="utf-8")
    assert line in text
    verifier.write_text(text.replace(line, planted + line), encoding="utf-8")

    assert "ACCEPTED" in asked_in_a_child(tmp_path, "1")
