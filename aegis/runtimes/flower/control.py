"""Client of SuperLink's control interface (nodes and runs). Internal to Flower 1.41; wrapped only here."""

from __future__ import annotations

import base64
import hashlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from types import TracebackType
from typing import Self, TypeVar

import httpx
from flwr.cli.build import build_fab_from_files
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    RegisterNodeRequest,
    StartRunRequest,
    StopRunRequest,
)
from flwr.proto.fab_pb2 import Fab
from flwr.supercore.control.control_http_client import ControlHttpClient

from aegis.errors import TransportUnavailable
from aegis.runtimes.flower.superlink import SuperLinkEndpoint

_Answer = TypeVar("_Answer")

_APP = b"""\
[project]
name = "aegis-carrier"
version = "1.0.0"
description = "Carries sealed bytes. Holds no code: coordinator and sites run what is installed there."
license = "Apache-2.0"
dependencies = []

[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[tool.flwr.app]
publisher = "aegis"

[tool.flwr.app.components]
serverapp = "nothing.here:app"
clientapp = "nothing.here:app"

[tool.flwr.app.config]
"""


class SuperLinkControl:
    """A client of one SuperLink, for use on SuperLink's host.

    Every method raises :class:`TransportUnavailable` if SuperLink cannot be reached or refuses.
    """

    def __init__(self, endpoint: SuperLinkEndpoint) -> None:
        self._client = ControlHttpClient.from_server_address(
            endpoint.address, insecure=False, root_certificates=endpoint.ca_certificate.read_bytes(), interceptors=[]
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def nodes(self) -> dict[str, int]:
        """Return the ids of the registered nodes by node key (base64 of its PEM, as in ``flwr-public-key``).

        A key keeps its id across reconnections, and across restarts of a SuperLink on the same database.
        """
        answer = self._call(lambda: self._client.ListNodes(ListNodesRequest()))
        return {base64.b64encode(node.public_key).decode(): node.node_id for node in answer.nodes_info}

    def register(self, node_keys: Mapping[str, str]) -> None:
        """Register each site's node key, by site id. Skips registered keys."""
        known = self.nodes()
        for site_id, node_key in sorted(node_keys.items()):
            if node_key not in known:
                request = RegisterNodeRequest(public_key=base64.b64decode(node_key), name=site_id)
                self._call(lambda request=request: self._client.RegisterNode(request))  # type: ignore[misc]

    def start_run(self) -> int:
        """Start a run of the empty app and return its id. The client that acquires the run's task drives the run."""
        app = empty_app()
        fab = Fab(hash_str=hashlib.sha256(app).hexdigest(), content=app)
        run_id = int(self._call(lambda: self._client.StartRun(StartRunRequest(fab=fab))).run_id)
        if run_id == 0:
            raise TransportUnavailable("SuperLink did not accept the run: see its log")
        return run_id

    def stop_run(self, run_id: int) -> None:
        """End a run; SuperLink removes its messages and objects."""
        self._call(lambda: self._client.StopRun(StopRunRequest(run_id=run_id)))

    def unfinished_runs(self) -> tuple[int, ...]:
        """Return the ids of the unfinished runs, newest first."""
        runs = self._call(lambda: self._client.ListRuns(ListRunsRequest())).run_dict
        return tuple(run_id for run_id, run in runs.items() if run.status.status != "finished")

    @staticmethod
    def _call(call: Callable[[], _Answer]) -> _Answer:
        with _transport_errors():
            return call()


@cache
def empty_app() -> bytes:
    """Return the Flower app bundle (FAB) that every run requires.

    The bundle names a module that does not exist, so no process can run the app by mistake.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Flower uses a deprecated name of its pattern library
        content, _ = build_fab_from_files({"pyproject.toml": _APP})
    return content


@contextmanager
def _transport_errors() -> Iterator[None]:
    try:
        yield
    except httpx.HTTPStatusError as error:
        raise TransportUnavailable(f"SuperLink refused the request: HTTP {error.response.status_code}") from error
    except (httpx.HTTPError, ValueError) as error:
        raise TransportUnavailable(f"SuperLink cannot be reached: {type(error).__name__}") from error
