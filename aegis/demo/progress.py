"""The demonstration's progress: a live table on a terminal while rounds end, a line per round elsewhere."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table

from aegis.runs import RoundReport
from coreason_enclave.ledger import LineageClaim
from coreason_enclave.schemas import FederationJob

_METRICS = ("accuracy", "auc", "loss")


class RoundTable:
    """Collects a private job's rounds and shows them; use as a context manager, and :meth:`show` as the observer.

    The table lives from the first round to the job's last, so that what follows is printed below the table.
    """

    def __init__(self, console: Console, title: str, job: FederationJob) -> None:
        self._console, self._title = console, title
        self._rounds, self._target = job.rounds, job.privacy.target_epsilon
        self._reports: list[RoundReport] = []
        self._live: Live | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def show(self, report: RoundReport) -> None:
        """Add a completed round and show it."""
        self._reports.append(report)
        if not self._console.is_terminal:
            self._console.print(" · ".join(self._summary(report)), soft_wrap=True)
            return
        if self._live is None:
            self._live = Live(console=self._console, auto_refresh=False)
            self._live.start()
        self._live.update(self._render(), refresh=True)
        if report.record.round_number == self._rounds:
            self._stop()

    def _summary(self, report: RoundReport) -> list[str]:
        record = report.record
        metrics = [f"{name} {record.metrics[name]:.3f}" for name in _METRICS if name in record.metrics]
        admitted = f"{len(record.admitted)} admitted, {len(record.refused)} refused"
        spent = [] if self._target is None else [f"epsilon spent {_range(report)} of {self._target:g}"]
        return [f"round {record.round_number}/{self._rounds}", *metrics, admitted, *spent, f"{record.seconds:.2f} s"]

    def _render(self) -> RenderableType:
        known = bool(self._reports and self._reports[-1].lineages)
        return Group(self._round_table(), *([self._site_table()] if known else []))

    def _round_table(self) -> Table:
        table = Table(title=self._title, title_justify="left")
        for name in ("round", *_METRICS, "admitted", "refused", "epsilon spent", "seconds"):
            table.add_column(name, justify="right")
        for report in self._reports:
            record = report.record
            table.add_row(
                f"{record.round_number}/{self._rounds}",
                *(f"{record.metrics[name]:.3f}" if name in record.metrics else "" for name in _METRICS),
                str(len(record.admitted)),
                str(len(record.refused)),
                "no guarantee" if self._target is None else _range(report),
                f"{record.seconds:.2f}",
            )
        return table

    def _site_table(self) -> Table:
        report = self._reports[-1]
        table = Table(title="Privacy at each site, from its own ledger", title_justify="left")
        for name in (
            "site",
            "attestation",
            "epsilon spent in this job",
            "remaining in this job",
            "remaining for the data, all jobs",
        ):
            table.add_column(name, justify="right")
        for site, claim in sorted(report.lineages.items()):
            spent = report.record.epsilon.get(site)
            left = "" if self._target is None or spent is None else f"{max(self._target - spent, 0.0):.3f}"
            table.add_row(
                site,
                report.record.provenance[site].value.upper() if site in report.record.provenance else "refused",
                "no guarantee" if spent is None else f"{spent:.3f}",
                left,
                _left_for_data(claim),
            )
        return table


def _left_for_data(claim: LineageClaim) -> str:
    if claim.non_private:
        return "no bound: NON-PRIVATE training ran"
    return f"{claim.remaining_pico / claim.budget_pico:.0%} of epsilon {claim.caps.epsilon:g}"


def _range(report: RoundReport) -> str:
    values = sorted({round(value, 3) for value in report.record.epsilon.values() if value is not None})
    if not values:
        return "none"
    return f"{values[0]:.3f}" if len(values) == 1 else f"{values[0]:.3f} to {values[-1]:.3f}"
