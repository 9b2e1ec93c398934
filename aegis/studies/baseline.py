"""The same job without privacy, as a baseline: what the private job would reach if nobody's rows had to be hidden.

A baseline trains without any guarantee. It runs only where that harms nobody: every row registered as public, in a
federation under profile ``development``, on sites of this machine.
"""

from __future__ import annotations

from aegis.federation import FederationFolder
from coreason_enclave.policy import load_site_config
from coreason_enclave.schemas import FederationJob, Mechanism, PrivacyConfig, Profile


def baseline_of(job: FederationJob) -> FederationJob:
    """Return the same job without privacy: the same sampling, clipping, steps and aggregator, and no noise."""
    privacy = job.privacy
    without = PrivacyConfig(
        mechanism=Mechanism.NON_PRIVATE,
        max_grad_norm=privacy.max_grad_norm,
        sample_rate=privacy.sample_rate,
        delta=privacy.delta,
        unit=privacy.unit,
    )
    return job.model_copy(update={"job_id": f"{job.job_id}-baseline", "privacy": without, "client_privacy": None})


def why_no_baseline(job: FederationJob, federation: FederationFolder) -> str | None:
    """Return why no job without privacy may run beside this one; None if one may.

    Raises:
        RunFolderError: ``federation.toml`` cannot be read.
        ConfigurationError: a local ``site.toml`` cannot be read.
    """
    config = federation.config()
    if job.privacy.mechanism is Mechanism.NON_PRIVATE:
        return "the job itself is without privacy"
    if config.profile is not Profile.DEVELOPMENT:
        return f"the federation's profile is {config.profile}, and a job without privacy needs a simulation"
    local = {site.site_id: site for site in (load_site_config(p / "site.toml") for p in federation.site_folders())}
    elsewhere = sorted(config.public_keys.keys() - local.keys())
    if elsewhere:
        return f"the rows of {', '.join(elsewhere)} are not on this machine"
    private = sorted(
        site.site_id
        for site in local.values()
        if not any(lineage.public for lineage in site.lineages if lineage.dataset_id == job.dataset_id)
    )
    return f"the rows of {', '.join(private)} are not registered as public" if private else None
