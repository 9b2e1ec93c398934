"""The runtime on NVIDIA FLARE: the coordinator is a workflow in FLARE's server process, a message is a FLARE task.

Enters: sealed messages of a coordinator. Leaves: sealed replies, refusals and delivery failures.
Never: lets a job bring code, a host path or a class outside the allowed list.

On the platform's side only this package imports FLARE. Each internal part of FLARE is used in one place here, and one
test per part fails when an upgrade moves the part.

>>> from pathlib import Path
>>> from tempfile import TemporaryDirectory
>>> from aegis.runtimes.nvflare import FlareJob, write_job_folder
>>> from coreason_enclave.schemas import FederationJob
>>> job = FederationJob(
...     job_id="study-1", min_clients=2, rounds=5, strategy="FED_AVG", dataset_id="clinic/visits",
...     model_arch="LogisticRegression", privacy={"mechanism": "NON_PRIVATE", "max_grad_norm": 1.0})
>>> with TemporaryDirectory() as folder:
...     write_job_folder(Path(folder, "job"), FlareJob(job, run="first", sites=["ash", "birch"]))
...     sorted(path.name for path in Path(folder).rglob("*.*"))  # configuration, and no code
['config_fed_client.json', 'config_fed_server.json', 'job.yaml', 'meta.json']
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
