"""Attesters: collect evidence on this host.

Enters: the context bytes to bind. Leaves: evidence with CPU and GPU reports, or ``attestation_unavailable``.
Never: vouches for evidence, since the relying party verifies; replaces a missing attester with another.

>>> from pathlib import Path
>>> from tempfile import TemporaryDirectory
>>> from coreason_enclave.hardware import HostDevices, ThisHost, attester_named
>>> attester_named("simulated").produce(b"context").kind
<CpuKind.SIMULATED: 'simulated'>
>>> with TemporaryDirectory() as no_devices:
...     ThisHost(HostDevices(Path(no_devices))).attester("tdx").produce(b"context")
Traceback (most recent call last):
coreason_enclave.errors.AttestationError: this host has no configfs-tsm at /sys/kernel/config/tsm/report ...
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
