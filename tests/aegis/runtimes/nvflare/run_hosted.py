"""``aegis run`` over FLARE with injected keys, in a process that a test may kill: FEDERATION HOSTING [KIT]."""

from __future__ import annotations

import sys
from pathlib import Path

from aegis.federation.job_files import load_job
from aegis.runtimes.nvflare.options import FlareHosting
from tests.aegis.runtimes.flower.deployments import Deployment
from tests.aegis.runtimes.nvflare.hosted import Hosted

if __name__ == "__main__":
    path, hosting, *kit = sys.argv[1:]
    options = {"kit": Path(kit[0])} if kit else {}
    Hosted(Deployment(Path(path), load_job(Path(path) / "job.yaml"))).run(FlareHosting(hosting), **options)
