"""Bundles, caches and chains of sources."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coreason_enclave.attestation.endorsements import (
    CachedEndorsements,
    EndorsementSettings,
    FetchedEndorsements,
    FirstOf,
    ItemwiseSource,
    NoEndorsements,
    OfflineBundle,
    opened,
)
from coreason_enclave.attestation.endorsements.collateral import Item, SnpAuthorities, SnpRevocationList
from coreason_enclave.attestation.evidence import CpuKind, to_base64
from coreason_enclave.attestation.verify.snp import SigningKey, SnpProduct
from coreason_enclave.attestation.verify.verdict import Refusal, VerificationRefused
from coreason_enclave.errors import ConfigurationError, Reason
from tests.coreason_enclave.attestation.appraisal.hosts import KINDS, NOW, Host, Trial, binding, cpu_report, policy
from tests.coreason_enclave.attestation.endorsements.services import everything, plain_http, serving
from tests.coreason_enclave.attestation.snp import hierarchy as amd

DAY = 86_400
CRL = SnpRevocationList(SnpProduct.MILAN, SigningKey.VCEK)
every_kind = pytest.mark.parametrize("kind", KINDS)


@dataclass
class Counting(ItemwiseSource):
    """Gives what it was given, and counts how often it is asked."""

    contents: dict[str, bytes | VerificationRefused] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def get(self, item: Item, now: int) -> bytes:
        self.asked.append(item.name)
        found = self.contents.get(item.name)
        if isinstance(found, bytes):
            return found
        raise found or VerificationRefused(Refusal.ENDORSEMENTS_MISSING, f"no {item.name}")


def crl(first: int = NOW - DAY, last: int = NOW + 30 * DAY) -> bytes:
    return amd.Vendor().revocation_list(window=(first, last))


def cached(inner: ItemwiseSource, folder: Path, kind: CpuKind) -> CachedEndorsements:
    source = CachedEndorsements(inner, folder)
    assert Trial(Host(kind, ("",)), source=source).refusal() == "accepted"
    return source


def filled(folder: Path, kind: CpuKind) -> Path:
    """A cache after one appraisal of a host of this kind."""
    with serving(everything(kind)) as service:
        cached(FetchedEndorsements(plain_http, service.addresses), folder, kind)
    return folder


def refusal(source: ItemwiseSource, item: Item = CRL, now: int = NOW) -> tuple[Refusal, Reason]:
    with pytest.raises(VerificationRefused) as refused:
        source.get(item, now)
    return refused.value.refusal, refused.value.reason


@every_kind
def test_what_was_fetched_once_is_not_fetched_again_and_needs_no_network(kind: CpuKind, tmp_path: Path) -> None:
    folder = filled(tmp_path, kind)
    offline = Counting()
    assert Trial(Host(kind, ("",)), source=CachedEndorsements(offline, folder)).refusal() == "accepted"
    assert offline.asked == []


@every_kind
def test_the_folder_of_a_cache_is_a_bundle_for_a_host_that_reaches_no_vendor(kind: CpuKind, tmp_path: Path) -> None:
    shutil.copytree(filled(tmp_path / "cache", kind), tmp_path / "bundle")
    assert Trial(Host(kind, ("",)), source=OfflineBundle(tmp_path / "bundle")).refusal() == "accepted"


@every_kind
def test_every_file_that_is_missing_from_a_bundle_is_missed(kind: CpuKind, tmp_path: Path) -> None:
    folder = filled(tmp_path, kind)
    for path in sorted(folder.rglob("*")):
        if path.is_dir() or path.name.endswith(".stored.json"):
            continue
        content = path.read_bytes()
        path.unlink()
        refusal = Trial(Host(kind, ("",)), source=OfflineBundle(folder)).refusal()
        assert refusal == (
            "unchecked" if path.suffix == ".crl" or path.parent.name == "ocsp" else "endorsements_missing"
        )
        path.write_bytes(content)


def test_an_entry_counts_for_its_age_and_no_longer(tmp_path: Path) -> None:
    inner = Counting({CRL.name: crl()})
    source = CachedEndorsements(inner, tmp_path, max_age_s=100)
    for moment, asked in ((NOW, 1), (NOW + 99, 1), (NOW + 100, 2), (NOW + 150, 2), (NOW + 149, 2), (NOW + 99, 3)):
        source.get(CRL, moment)
        assert len(inner.asked) == asked, moment - NOW


def test_an_entry_ends_with_its_own_window_however_young_it_is(tmp_path: Path) -> None:
    inner = Counting({CRL.name: crl(last=NOW + 50)})
    source = CachedEndorsements(inner, tmp_path, max_age_s=100)
    source.get(CRL, NOW)
    source.get(CRL, NOW + 50)
    assert len(inner.asked) == 1
    inner.contents[CRL.name] = fresh = crl(last=NOW + 500)
    assert source.get(CRL, NOW + 51) == fresh
    assert source.get(CRL, NOW + 60) == fresh
    assert len(inner.asked) == 2


def test_an_entry_that_is_too_old_is_no_substitute_for_a_service_that_does_not_answer(tmp_path: Path) -> None:
    down = VerificationRefused(Refusal.ENDORSEMENTS_MISSING, "down", reason=Reason.ATTESTATION_UNAVAILABLE)
    inner = Counting({CRL.name: crl()})
    source = CachedEndorsements(inner, tmp_path, max_age_s=100)
    source.get(CRL, NOW)
    inner.contents[CRL.name] = down
    assert refusal(source, now=NOW + 100) == (Refusal.ENDORSEMENTS_MISSING, Reason.ATTESTATION_UNAVAILABLE)


@pytest.mark.parametrize("content", [b"", b"junk", b"0" * 100, amd.Vendor().root()])
def test_what_cannot_be_read_or_is_something_else_is_refused_and_not_kept(tmp_path: Path, content: bytes) -> None:
    source = CachedEndorsements(Counting({CRL.name: content}), tmp_path)
    assert refusal(source)[0] in {Refusal.MALFORMED, Refusal.ENDORSEMENTS_MISMATCH}
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_what_is_not_valid_now_is_given_and_not_kept(tmp_path: Path) -> None:
    source = CachedEndorsements(Counting({CRL.name: crl(last=NOW - 1)}), tmp_path)
    assert source.get(CRL, NOW) == source._inner.get(CRL, NOW)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


GOOD_CRL = crl()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_a_damaged_entry_counts_as_absent(tmp_path: Path, data: st.DataObject) -> None:
    inner = Counting({CRL.name: GOOD_CRL})
    source = CachedEndorsements(inner, tmp_path)
    source.get(CRL, NOW)
    inner.asked.clear()
    victim = data.draw(st.sampled_from(sorted(path for path in tmp_path.rglob("*") if path.is_file())))
    content = bytearray(victim.read_bytes())
    if data.draw(st.booleans()):
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    else:
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    victim.write_bytes(content)
    assert source.get(CRL, NOW) == GOOD_CRL
    assert source.get(CRL, NOW) == GOOD_CRL
    assert len(inner.asked) <= 1


def test_the_content_of_another_entry_in_its_place_counts_as_absent(tmp_path: Path) -> None:
    other = SnpRevocationList(SnpProduct.MILAN, SigningKey.VLEK)
    inner = Counting({CRL.name: crl(), other.name: crl(last=NOW + 2 * DAY)})
    source = CachedEndorsements(inner, tmp_path)
    source.get(CRL, NOW)
    source.get(other, NOW)
    (tmp_path / CRL.name).write_bytes((tmp_path / other.name).read_bytes())
    inner.asked.clear()
    assert source.get(CRL, NOW) == inner.contents[CRL.name]
    assert inner.asked == [CRL.name]


def test_a_cache_that_cannot_be_written_costs_time_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    inner = Counting({CRL.name: crl()})
    source = CachedEndorsements(inner, tmp_path / "file")
    assert source.get(CRL, NOW) == inner.contents[CRL.name]
    assert "not cached" in caplog.text


def test_nothing_half_written_is_left_behind(tmp_path: Path) -> None:
    source = CachedEndorsements(Counting({CRL.name: crl()}), tmp_path)
    source.get(CRL, NOW)
    names = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert names == {"vcek.crl", "vcek.crl.stored.json"}


def test_what_could_not_be_put_in_its_place_is_cleared_away(tmp_path: Path) -> None:
    (tmp_path / CRL.name / "in the way").mkdir(parents=True)
    source = CachedEndorsements(Counting({CRL.name: crl()}), tmp_path)
    source.get(CRL, NOW)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_whoever_reads_an_entry_while_it_is_replaced_reads_the_old_one(tmp_path: Path) -> None:
    inner = Counting({CRL.name: crl()})
    source = CachedEndorsements(inner, tmp_path, max_age_s=100)
    old = source.get(CRL, NOW)
    with (tmp_path / CRL.name).open("rb") as reader:
        inner.contents[CRL.name] = crl(last=NOW + 3 * DAY)
        assert source.get(CRL, NOW + 100) != old
        assert reader.read() == old


# --- chains of sources ---


def test_the_first_source_that_has_a_valid_item_is_taken(tmp_path: Path) -> None:
    old, good, unread = crl(last=NOW - 1), crl(), Counting({CRL.name: b"x"})
    chain = FirstOf(
        [Counting(), Counting({CRL.name: b"junk"}), Counting({CRL.name: old}), Counting({CRL.name: good}), unread]
    )
    assert chain.get(CRL, NOW) == good
    assert unread.asked == []


def test_a_list_that_cannot_be_read_is_not_the_same_as_no_list() -> None:
    vendor = amd.Vendor()
    brought = tuple(to_base64(der) for der in vendor.endorsements().certificates)
    host, context = Host(CpuKind.SNP), binding().context()
    evidence = host.produce(context)
    evidence = evidence.model_copy(update={"cpu": evidence.cpu.model_copy(update={"certificates": brought})})
    lenient = policy(CpuKind.SNP, accept_unchecked=["snp.revocation"])
    for source, outcome in ((Counting(), "accepted"), (Counting({CRL.name: b"junk"}), "malformed")):
        assert Trial(host, policy=lenient, evidence=evidence, source=FirstOf([source])).refusal() == outcome


def test_an_unusable_file_of_a_bundle_is_named_and_no_sites_fault(tmp_path: Path) -> None:
    path = tmp_path / CRL.name
    path.parent.mkdir(parents=True)
    for content in (b"junk", b"<html>We will be back.</html>", bytes((1 << 20) + 1)):
        path.write_bytes(content)
        source = FirstOf([OfflineBundle(tmp_path)])
        assert refusal(source)[1] is Reason.ATTESTATION_UNAVAILABLE
        with pytest.raises(VerificationRefused, match=CRL.name):
            source.get(CRL, NOW)


def test_what_is_out_of_date_is_given_where_there_is_nothing_better(tmp_path: Path) -> None:
    old = crl(last=NOW - 1)
    assert FirstOf([Counting({CRL.name: old}), Counting()]).get(CRL, NOW) == old


def test_a_chain_says_what_each_source_said() -> None:
    down = VerificationRefused(Refusal.ENDORSEMENTS_MISSING, "down", reason=Reason.ATTESTATION_UNAVAILABLE)
    assert refusal(FirstOf([Counting(), Counting()])) == (Refusal.ENDORSEMENTS_MISSING, Reason.ATTESTATION_INVALID)
    assert refusal(FirstOf([Counting(), Counting({CRL.name: down})]))[1] is Reason.ATTESTATION_UNAVAILABLE
    assert refusal(FirstOf([Counting(), Counting({CRL.name: b"junk"})]))[0] is Refusal.MALFORMED
    assert refusal(FirstOf([])) == (Refusal.ENDORSEMENTS_MISSING, Reason.ATTESTATION_INVALID)


# --- nothing, and what is set up ---


def test_without_a_source_endorsements_are_missing_and_it_says_what_to_do() -> None:
    with pytest.raises(VerificationRefused, match=r"bundle.*fetch = true") as refused:
        NoEndorsements().dcap(cpu_report(CpuKind.TDX, bytes(64)), NOW)
    assert refused.value.refusal is Refusal.ENDORSEMENTS_MISSING


def test_without_a_source_the_certificates_of_the_host_serve_and_revocation_stays_unchecked() -> None:
    vendor = amd.Vendor()
    brought = tuple(to_base64(der) for der in vendor.endorsements().certificates)
    host = Host(CpuKind.SNP)
    evidence = host.produce(binding().context())
    evidence = evidence.model_copy(update={"cpu": evidence.cpu.model_copy(update={"certificates": brought})})
    assert Trial(host, evidence=evidence, source=NoEndorsements()).refusal() == "unchecked"
    lenient = policy(CpuKind.SNP, accept_unchecked=["snp.revocation"])
    assert Trial(host, policy=lenient, evidence=evidence, source=NoEndorsements()).refusal() == "accepted"


def test_junk_in_the_table_of_the_host_is_refused() -> None:
    report = cpu_report(CpuKind.SNP, bytes(64)).model_copy(update={"certificates": (to_base64(b"junk"),)})
    with pytest.raises(VerificationRefused):
        NoEndorsements().snp(report, NOW)


def test_a_bundles_file_that_is_too_large_or_no_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / CRL.name
    path.parent.mkdir(parents=True)
    path.write_bytes(bytes((1 << 20) + 1))
    assert refusal(OfflineBundle(tmp_path))[0] is Refusal.OVERSIZED
    path.unlink()
    path.mkdir()
    assert refusal(OfflineBundle(tmp_path))[0] is Refusal.ENDORSEMENTS_MISSING


def test_nothing_set_up_finds_nothing(tmp_path: Path) -> None:
    assert isinstance(opened(EndorsementSettings(), tmp_path), NoEndorsements)


def test_a_bundle_is_found_beside_the_configuration(tmp_path: Path) -> None:
    filled(tmp_path / "endorsements", CpuKind.SNP)
    source = opened(EndorsementSettings(bundle="endorsements"), tmp_path)
    assert Trial(Host(CpuKind.SNP, ("",)), source=source).refusal() == "accepted"


def test_a_bundle_that_is_not_there_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="bundle"):
        opened(EndorsementSettings(bundle="nowhere"), tmp_path)


@pytest.mark.parametrize(
    "lines",
    [{"cache": "c"}, {"max_age_s": 5}, {"max_age_s": 10**9}, {"fetch": "yes"}, {"bundle": ""}, {"url": "x"},
     {"bundle": "a\0b"}],
)  # fmt: skip
def test_settings_that_mean_nothing_are_refused(lines: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(lines))):
        EndorsementSettings.model_validate(lines)


def test_a_bundle_comes_before_the_vendors_and_the_cache_is_used(tmp_path: Path) -> None:
    """The bundle has all, so that nobody is asked; no address outside this machine is ever opened here."""
    filled(tmp_path / "bundle", CpuKind.SNP)
    source = opened(EndorsementSettings(bundle="bundle", cache="cache", fetch=True), tmp_path)
    assert Trial(Host(CpuKind.SNP, ("",)), source=source).refusal() == "accepted"
    assert not (tmp_path / "cache").exists()


def test_authorities_of_another_kind_of_file_are_not_taken_for_them() -> None:
    item = SnpAuthorities(SnpProduct.MILAN, SigningKey.VCEK)
    for content in (amd.leaf_of(amd.Vendor()), crl()):
        with pytest.raises(VerificationRefused):
            item.is_current(content, NOW)
