"""Which attesters there are by name, and what of it this host has. A name that is not there never becomes another.

>>> attester_named("simulated").kind
<CpuKind.SIMULATED: 'simulated'>
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from coreason_enclave.attestation.evidence import Attester, CpuKind
from coreason_enclave.errors import ConfigurationError
from coreason_enclave.hardware.collectors import CpuCollector, unavailable
from coreason_enclave.hardware.devices import DeviceTree, HostDevices
from coreason_enclave.hardware.gramine import ATTESTATION, GramineCollector
from coreason_enclave.hardware.host import HostAttester
from coreason_enclave.hardware.nvidia import NvidiaCollector, Nvml
from coreason_enclave.hardware.nvml import BINDING, PythonNvml
from coreason_enclave.hardware.simulated import SimulatedAttester
from coreason_enclave.hardware.tsm import PROVIDERS, REPORTS, TsmCollector, provider_here

__all__ = ["DEVICES", "HARDWARE", "LookedFor", "ThisHost", "attester_named", "devices_looked_for"]

DEVICES: Mapping[str, str] = {
    "configfs-tsm": REPORTS,
    "Intel TDX": "dev/tdx_guest",
    "AMD SEV-SNP": "dev/sev-guest",
    "Intel SGX": "dev/sgx_enclave",
    "SGX under Gramine": f"{ATTESTATION}/attestation_type",
    "NVIDIA GPU": "dev/nvidiactl",
}
_GPUS = "+nvidia"
_CPUS: Mapping[str, Callable[[DeviceTree], CpuCollector]] = {
    "tdx": lambda tree: TsmCollector(tree, CpuKind.TDX),
    "snp": lambda tree: TsmCollector(tree, CpuKind.SNP),
    "sgx": GramineCollector,
}
HARDWARE: tuple[str, ...] = tuple(name + gpus for name in _CPUS for gpus in ("", _GPUS))
"""Names of the attesters that need hardware; ``+nvidia``: with every GPU of the host."""
_NEEDS: Mapping[str, str] = {"tdx": "configfs-tsm", "snp": "configfs-tsm", "sgx": "SGX under Gramine"}
_NVIDIA_BINDING = "nvidia-ml-py"


@dataclass(frozen=True)
class LookedFor:
    """An interface that evidence could come from: its name, where it was looked for, whether it is there."""

    name: str
    where: str
    there: bool


class ThisHost:
    """What this host can attest with.

    Args:
        tree, nvml: others are for tests alone; the product passes none.
    """

    def __init__(self, tree: DeviceTree | None = None, nvml: Nvml | None = None) -> None:
        self._tree: DeviceTree = HostDevices() if tree is None else tree
        self._nvml: Nvml = PythonNvml() if nvml is None else nvml

    def attester(self, name: str) -> Attester:
        """See :func:`attester_named`."""
        if name == CpuKind.SIMULATED:
            return SimulatedAttester()
        if name not in HARDWARE:
            known = ", ".join((CpuKind.SIMULATED, *HARDWARE))
            raise ConfigurationError(f"attester {name[:64]!r} is not known; known: {known}")
        gpus = NvidiaCollector(self._nvml) if name.endswith(_GPUS) else None
        return HostAttester(_CPUS[name.removesuffix(_GPUS)](self._tree), gpus)

    def looked_for(self) -> tuple[LookedFor, ...]:
        """See :func:`devices_looked_for`."""
        devices = [LookedFor(name, f"/{path}", self._tree.exists(path)) for name, path in DEVICES.items()]
        binding = importlib.util.find_spec(BINDING) is not None
        return (*devices, LookedFor(_NVIDIA_BINDING, f"Python module {BINDING}", binding))

    def missing(self, name: str) -> tuple[LookedFor, ...]:
        """What attester ``name`` (one of :data:`HARDWARE`) needs and is not there. Nothing is asked of a device."""
        needed = {_NEEDS[name.removesuffix(_GPUS)]}
        needed |= {"NVIDIA GPU", _NVIDIA_BINDING} if name.endswith(_GPUS) else set()
        return tuple(looked for looked in self.looked_for() if looked.name in needed and not looked.there)

    def detected(self) -> str:
        """The name of the one attester that this host's hardware is for: all of it, GPUs included.

        Raises:
            AttestationError: ``attestation_unavailable``: there is none, or more than one; says what was looked for.
        """
        provider = provider_here(self._tree)
        found = [str(kind) for kind, name in PROVIDERS.items() if name == provider]
        found += ["sgx"] if self._tree.exists(DEVICES[_NEEDS["sgx"]]) else []
        if len(found) != 1:
            said = f"more than one processor could ({', '.join(found)}): name one" if found else "nothing can attest"
            raise unavailable(f"{said} on this host; looked for {self._inventory()}")
        return found[0] + (_GPUS if self._tree.exists(DEVICES["NVIDIA GPU"]) else "")

    def _inventory(self) -> str:
        looked = (f"{found.name} ({found.where}: {'there' if found.there else 'no'})" for found in self.looked_for())
        return ", ".join(looked)


def attester_named(name: str) -> Attester:
    """The attester of this name: ``simulated``, or one of :data:`HARDWARE`.

    No device is opened here: where the hardware is missing, every ``produce`` raises ``attestation_unavailable``,
    says what was looked for, and nothing else is tried.

    Raises:
        ConfigurationError: there is no attester of this name.
    """
    return ThisHost().attester(name)


def devices_looked_for() -> tuple[LookedFor, ...]:
    """Every interface that evidence could come from, and whether this host has it. Nothing is asked of it."""
    return ThisHost().looked_for()
