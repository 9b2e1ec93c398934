"""TOML with comments: what each entry of a file written by ``aegis init`` does, next to its value in effect.

>>> print(commented({"rounds": 20}, {"rounds": "how often the sites' updates are combined"}), end="")
rounds = 20                             # how often the sites' updates are combined
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import tomli_w

from coreason_enclave.schemas import FederationJob

_ENTRY = re.compile(r"(?:\"[^\"]*\"|[A-Za-z0-9_-]+) = ")
_COLUMN = 40

JOB_COMMENTS: Mapping[str, str] = {
    "federation": "the folder of the federation whose sites take part",
    "job.job_id": "the study's name; its runs are NAME-1, NAME-2, ...",
    "job.min_clients": "a round needs this many sites",
    "job.rounds": "how often the sites train and their updates are combined",
    "job.strategy": "FED_AVG, FED_PROX or SCAFFOLD: docs/JOBS.md",
    "job.dataset_id": "the folder below each site's data root",
    "job.model_arch": "Linear, MLP, CNN, TabularResNet, TextEmbedding",
    "job.aggregator": "mean withstands no hostile site; trimmed_mean, median or krum with num_byzantine",
    "job.local_steps": "steps at each site in a round; rounds * local_steps spend the budget",
    "job.learning_rate": "the size of a site's step",
    "job.momentum": "the share of earlier steps in a site's step; its memory ends with the round",
    "job.average_last_rounds": "the released model is the mean of the last rounds' models: less noise",
    "job.max_update_norm": "larger updates are refused",
    "job.round_deadline_s": "seconds until a round closes without the sites that are late",
    "job.privacy.mechanism": "DP_SGD; NON_PRIVATE runs on public rows alone",
    "job.privacy.target_epsilon": "cap on the whole run; smaller protects more and learns less",
    "job.privacy.max_grad_norm": "each person's gradient is clipped to this length",
    "job.privacy.sample_rate": "the share of a site's persons in a step, drawn at random",
    "job.privacy.delta": "below one over ten times the persons of the largest site",
    "job.privacy.unit": "whose presence is hidden: a person with all rows, or a record",
    "job.task.kind": "binary, multiclass, multilabel, regression, count, survival",
    "job.task.loss": "squared, absolute or huber",
}

SITE_COMMENTS: Mapping[str, str] = {
    "profile": "development alone accepts simulated evidence",
    "data_root": "the folder above the site's datasets",
    "keys": "private keys: never leave this folder",
    "ledger": "privacy spent so far, for each dataset",
    "audit": "the site's log of every order and refusal",
    "attester": "SIMULATED: no evidence about hardware",
    "policy.coordinator_keys": "orders signed by other keys are refused",
    "policy.participants": "",
    "policy.model_archs": "other architectures are refused",
    "policy.min_clients": "rounds of fewer sites are refused",
    "policy.min_units": "datasets of fewer persons do not train",
    "policy.min_noise_multiplier": "orders with less noise are refused",
    "policy.max_update_norm": "larger updates do not leave the site",
    "lineages.epsilon": "the budget of this dataset over all jobs, for ever",
    "lineages.job_epsilon": "the most that one job may spend",
    "lineages.nominal_units": "persons in the dataset, as registered",
    "lineages.public": "true in this simulation alone: permits training without privacy",
    "lineages.unit": "what one unit of privacy is",
}

DATASET_COMMENTS: Mapping[str, str] = {
    "dataset_id": "the folder below the data root",
    "file": "the rows, next to this file",
    "folder": "the images, next to this file",
    "image_column": "each cell names one file of the folder",
    "public": "true in this simulation alone: permits training without privacy",
    "unit_column": "the person behind a row",
    "label.task": "classes, labels, number, count or survival",
    "label.column": "what is predicted",
    "label.event": "whether the event ended the time",
    "label.cuts": "the ends of the intervals",
    "label.classes": "whole numbers from 0",
    "label.values": "the spellings of the classes, in order",
    "label.low": "smaller values are clipped",
    "label.high": "larger values are clipped",
    "features.low": "values outside [low, high] are clipped; the range becomes [-1, 1]",
    "features.missing": "what a missing cell becomes",
    "features.indicator": "one more input: 1.0 where the cell was missing",
    "features.categories": "one input each, and one for all other spellings",
    "tensor.low": "the range of all values becomes [-1, 1]",
}


def commented(document: Mapping[str, Any], comments: Mapping[str, str]) -> str:
    """Return ``document`` as TOML with a comment at each entry that ``comments`` names by its path.

    Entries of an array of tables go by the array's name (``features.low``) and are explained at the first table only.
    """
    table, said, lines = "", set[str](), list[str]()
    for line in tomli_w.dumps(dict(document)).splitlines():
        if line.startswith("["):
            table = line.strip("[]")
        found = _ENTRY.match(line)
        path = f"{table}.{found[0][:-3]}" if found and table else found[0][:-3] if found else ""
        words = "" if path in said else comments.get(path, "")
        said.add(path)
        if words and line.endswith("["):  # an array over several lines takes no comment behind its bracket
            lines += [f"# {words}", line]
        else:
            lines.append(f"{line:<{_COLUMN - 1}} # {words}" if words else line)
    return "\n".join(lines) + "\n"


def shown_job(job: FederationJob) -> dict[str, Any]:
    """Return a job as its file shows it: entries that differ from the defaults, and the defaults in common use."""
    document = job.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    usual = {"aggregator": str(job.aggregator), "round_deadline_s": job.round_deadline_s, "momentum": job.momentum}
    plain = {name: value for name, value in {**document, **usual}.items() if not isinstance(value, dict)}
    tables = {name: value for name, value in document.items() if isinstance(value, dict)}
    tables["privacy"] = {**tables["privacy"], "sample_rate": job.privacy.sample_rate}
    return {**plain, **tables}
