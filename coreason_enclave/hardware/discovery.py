"""Look up attesters by name and detect the hardware of this host. A missing attester never falls back to another.

>>> attester_named("simulated").kind
<CpuKind.SIMULATED: 'simulated'>
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from coreason_enclave.attestation import Attester, CpuKind
from coreason_enclave.errors import ConfigurationError
from coreason_enclave.hardware.collectors import CpuCollector, unavailable
from coreason_enclave.hardware.devices import DeviceTree, HostDevices
from coreason_enclave.hardware.gramine import ATTESTATION, GramineCollector
from coreason_enclave.hardware.host import HostAttester
from coreason_enclave.hardware.nvidia import NvidiaCollector, Nvml
from coreason_enclave.hardware.nvml import BINDING, PythonNvml
from coreason_enclave.hardware.simulated import SimulatedAttester, UnattestedAttester
from coreason_enclave.hardware.tsm import PROVIDERS, REPORTS, TsmCollector, provider_here

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
_WITHOUT_HARDWARE: Mapping[str, Callable[[], Attester]] = {
    CpuKind.SIMULATED.value: SimulatedAttester,
    CpuKind.UNATTESTED.value: UnattestedAttester,
}
_NEEDS: Mapping[str, str] = {"tdx": "configfs-tsm", "snp": "configfs-tsm", "sgx": "SGX under Gramine"}
_NVIDIA_BINDING = "nvidia-ml-py"


@dataclass(frozen=True)
class LookedFor:
    """An interface that could supply evidence: name, place searched, and presence on this host."""

    name: str
    where: str
    there: bool


class ThisHost:
    """The attestation capabilities of this host.

    Args:
        tree, nvml: For tests only; the product passes neither.
    """

    def __init__(self, tree: DeviceTree | None = None, nvml: Nvml | None = None) -> None:
        self._tree: DeviceTree = HostDevices() if tree is None else tree
        self._nvml: Nvml = PythonNvml() if nvml is None else nvml

    def attester(self, name: str) -> Attester:
        """See :func:`attester_named`."""
        if name in _WITHOUT_HARDWARE:
            return _WITHOUT_HARDWARE[name]()
        if name not in HARDWARE:
            known = ", ".join((*_WITHOUT_HARDWARE, *HARDWARE))
            raise ConfigurationError(f"attester {name[:64]!r} is not known; known: {known}")
        gpus = NvidiaCollector(self._nvml) if name.endswith(_GPUS) else None
        return HostAttester(_CPUS[name.removesuffix(_GPUS)](self._tree), gpus)

    def looked_for(self) -> tuple[LookedFor, ...]:
        """See :func:`devices_looked_for`."""
        devices = [LookedFor(name, f"/{path}", self._tree.exists(path)) for name, path in DEVICES.items()]
        binding = importlib.util.find_spec(BINDING) is not None
        return (*devices, LookedFor(_NVIDIA_BINDING, f"Python module {BINDING}", binding))

    def missing(self, name: str) -> tuple[LookedFor, ...]:
        """Return the interfaces that attester ``name`` (of :data:`HARDWARE`) needs and this host lacks.

        Opens no device.
        """
        needed = {_NEEDS[name.removesuffix(_GPUS)]}
        needed |= {"NVIDIA GPU", _NVIDIA_BINDING} if name.endswith(_GPUS) else set()
        return tuple(looked for looked in self.looked_for() if looked.name in needed and not looked.there)

    def detected(self) -> str:
        """Return the name of the only attester for this host's hardware, GPUs included.

        Raises:
            AttestationError: ``attestation_unavailable``: no processor can attest, or several can. The message lists
                the interfaces searched.
        """
        provider = provider_here(self._tree)
        kinds = [str(kind) for kind, name in PROVIDERS.items() if name == provider]
        kinds += ["sgx"] if self._tree.exists(DEVICES[_NEEDS["sgx"]]) else []
        if len(kinds) != 1:
            problem = f"several processors attest ({', '.join(kinds)}): name one" if kinds else "no device can attest"
            raise unavailable(f"{problem} on this host; looked for {self._inventory()}")
        return kinds[0] + (_GPUS if self._tree.exists(DEVICES["NVIDIA GPU"]) else "")

    def _inventory(self) -> str:
        looked = (
            f"{interface.name} ({interface.where}: {'there' if interface.there else 'no'})"
            for interface in self.looked_for()
        )
        return ", ".join(looked)


def attester_named(name: str) -> Attester:
    """Return the attester called ``name``: ``simulated``, ``unattested``, or one of :data:`HARDWARE`.

    Opens no device. On a host without the hardware, every ``produce`` raises ``attestation_unavailable``, lists the
    interfaces searched, and tries no alternative.

    Raises:
        ConfigurationError: No attester has this name.
    """
    return ThisHost().attester(name)


def devices_looked_for() -> tuple[LookedFor, ...]:
    """Return every interface that could supply evidence, and its presence on this host. Opens no device."""
    return ThisHost().looked_for()
