"""The owner's side of a study over real sites without a TEE."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aegis.errors import InvalidStudy, RunFolderError
from aegis.services.participants import admit
from aegis.studies.real_sites import create_unattested_study
from coreason_enclave.datasets.dictionary import DataDictionary
from coreason_enclave.datasets.schema import parse_schema
from coreason_enclave.schemas import Profile
from coreason_enclave.site.registration_request import make_request
from tests.conftest import SmallFederation, job

DICTIONARY = DataDictionary.of(
    parse_schema(
        b"""
version = 1
dataset_id = "clinic/visits"
format = "csv"
file = "rows.csv"
public = false
unit_column = "patient"
label = { column = "visited", classes = 2 }
features = [{ name = "a", low = 0.0, high = 10.0 }, { name = "b", low = 0.0, high = 10.0 }]
"""
    )
)


def test_the_owner_gets_a_job_a_dictionary_and_an_empty_federation_that_is_not_attested(tmp_path: Path) -> None:
    study = create_unattested_study(tmp_path / "study", job(), DICTIONARY, public_address="localhost:9443")
    federation = study.federation().config()

    assert study.job() == job()
    assert study.dictionary() == DICTIONARY
    assert (federation.profile, federation.attester, federation.delta) == (Profile.UNATTESTED, "unattested", 1e-5)
    assert (federation.public_keys, federation.unattested_sites) == ({}, ())
    assert "NOT ATTESTED" in (study.path / "study.toml").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["study"]


def test_a_real_site_is_admitted_to_the_new_study_by_name(tmp_path: Path) -> None:
    study = create_unattested_study(tmp_path / "study", job(), DICTIONARY)
    site = SmallFederation(tmp_path / "sites").create(
        profile="unattested", attester="unattested", lineage={"public": False}
    )
    admit(study.federation(), make_request(site.folder), accept_unattested=True)

    assert study.federation().config().unattested_sites == ("clinic-1",)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dataset_id": "clinic/other"}, "the job is about clinic/other"),
        ({"privacy": {"unit": "record"}}, "the job's unit is record"),
        ({"privacy": {"delta": None}}, "its own delta"),
        (
            {
                "privacy": {
                    "mechanism": "NON_PRIVATE",
                    "target_epsilon": None,
                    "noise_multiplier": None,
                    "max_grad_norm": None,
                }
            },
            "mechanism DP_SGD",
        ),
    ],
)
def test_a_job_that_does_not_fit_is_refused_and_nothing_is_written(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidStudy, match=words):
        create_unattested_study(tmp_path / "study", job(**changes), DICTIONARY)
    assert list(tmp_path.iterdir()) == []


def test_an_address_that_cannot_be_used_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="host:port"):
        create_unattested_study(tmp_path / "study", job(), DICTIONARY, public_address="nonsense")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_anything_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "notes.txt").write_text("mine")
    with pytest.raises(InvalidStudy, match="exists"):
        create_unattested_study(tmp_path / "study", job(), DICTIONARY)
    assert [path.name for path in (tmp_path / "study").iterdir()] == ["notes.txt"]
