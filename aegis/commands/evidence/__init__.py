"""``aegis evidence``: verify, appraise and read evidence of hardware, offline, from files.

Enters: files with evidence, endorsements and a policy.
Leaves: a verdict as text or JSON, and an exit code.
Never: uses the network; judges by a rule of its own, since :mod:`aegis.evidence` judges.

>>> from pathlib import Path
>>> from tempfile import TemporaryDirectory
>>> from aegis.commands.evidence import evidence
>>> from click.testing import CliRunner
>>> from coreason_enclave.hardware import SimulatedAttester
>>> with TemporaryDirectory() as folder:
...     path = Path(folder) / "evidence.json"
...     _ = path.write_bytes(SimulatedAttester().produce(b"context").canonical())
...     print(CliRunner().invoke(evidence, ["inspect", str(path)]).output.splitlines()[0])
NOT VERIFIED: nothing below has been checked; run `aegis evidence verify` to check the file
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
