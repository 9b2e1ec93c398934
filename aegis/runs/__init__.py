"""Run folders: the records of one run, and every step from its plan to its signed results.

Enters: a job, a federation folder, a choice of runtime. Leaves: rounds, a final global model, a signed run folder.
Never: decides who takes part or whose update counts, or implements a transport.

>>> from pathlib import Path
>>> from tempfile import TemporaryDirectory
>>> from aegis.runs import MANIFEST, SIGNATURE, read_manifest, sign_manifest
>>> from coreason_enclave.crypto import Signer
>>> coordinator, job_digest = Signer.generate(), "ab" * 32
>>> with TemporaryDirectory() as path:
...     sign_manifest(Path(path), job_digest, coordinator, pending={"outcome.json": b"{}"})
...     listed, signature = (Path(path, name).read_bytes() for name in (MANIFEST, SIGNATURE))
>>> list(read_manifest(listed, signature, job_digest, coordinator.public_hex))
['outcome.json']
>>> read_manifest(listed.replace(b"outcome", b"another"), signature, job_digest, coordinator.public_hex)
Traceback (most recent call last):
aegis.errors.VerificationFailed: manifest.json is not the manifest that manifest.dsse signs
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
