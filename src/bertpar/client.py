"""The connection to Temporal: the local stack, or the cluster that configuration or environment names."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from functools import cache
from typing import TYPE_CHECKING, TypeVar

from bertpar import stack
from bertpar.errors import ConfigError, ConnectionFailedError, StackError
from bertpar.paths import Home
from bertpar.spec import TemporalSpec
from bertpar.stack.control import OnWait, log_tail
from bertpar.stack.record import NAMESPACE, TEMPORAL

if TYPE_CHECKING:
    from temporalio.client import Client
    from temporalio.envconfig import ClientConfigProfile

T = TypeVar("T")

DEFAULT_TRAINING_QUEUE = "bert-training-task-queue"
DEFAULT_EVAL_QUEUE = "bert-eval-task-queue"
"""What the workers of the local stack serve, and `bertpar worker` without --queue."""

_CLOUD_HOSTS = (".tmprl.cloud", ".api.temporal.io")
_CONNECT_SECONDS = 8.0
_LOCAL_PATIENCE_SECONDS = 20.0


def temporal_spec(address: str | None = None, namespace: str | None = None, profile: str | None = None) -> TemporalSpec:
    """Return the TemporalSpec of a command that only looks at a cluster and starts no sweep."""
    return TemporalSpec(
        address=address,
        namespace=namespace,
        profile=profile,
        training_queue=DEFAULT_TRAINING_QUEUE,
        eval_queue=DEFAULT_EVAL_QUEUE,
        heartbeat_timeout_seconds=10.0,
        max_attempts=1,
    )


def uses_local_stack(temporal: TemporalSpec) -> bool:
    """Say whether neither `temporal.address` nor TEMPORAL_ADDRESS nor a Temporal profile names a cluster.

    Raises:
        ConfigError: `temporal.profile` does not exist, cannot be read, or names no address.
    """
    if temporal.address is not None:
        return False
    address = load_profile(temporal.profile).address
    if temporal.profile is not None and not address:
        raise ConfigError(
            f"temporal.profile={temporal.profile} has no address. Give it one in Temporal's configuration "
            "file, or set temporal.address=host:port"
        )
    return not address


async def connect(temporal: TemporalSpec, home: Home, *, on_wait: OnWait = lambda _message: None) -> Client:
    """Return a client of the cluster that is configured, else of the local stack, which is started if needed.

    Raises:
        ConfigError: the namespace or profile does not exist, or the local stack does not serve the queues.
        ConnectionFailedError: the cluster cannot be reached; known within a few seconds.
        StackError: the local stack does not come up.
    """
    _silence_core()
    if not uses_local_stack(temporal):
        return await connect_to_cluster(temporal.address, temporal.namespace, temporal.profile)
    _check_fits_local_stack(temporal)
    client, running = await _connect_to_local_stack(home, on_wait)
    if stack.runs_other_code(running):
        on_wait("bertpar's code has changed since the local stack started; to load it: bertpar down, bertpar up")
    return client


async def connect_if_up(temporal: TemporalSpec, home: Home) -> Client | None:
    """Return a client as `connect` does, but None where that would have to start the local stack.

    Raises:
        ConfigError, ConnectionFailedError: as `connect`.
    """
    _silence_core()
    if not uses_local_stack(temporal):
        return await connect_to_cluster(temporal.address, temporal.namespace, temporal.profile)
    running = stack.read(home)
    return None if running is None else await connect_to_address(running.temporal_address, running.namespace)


async def ask_once(
    temporal: TemporalSpec,
    home: Home,
    work: Callable[[Client], Awaitable[T]],
    *,
    on_wait: OnWait = lambda _message: None,
) -> T:
    """Connect, and return what `work` returns: now, or not at all.

    Raises:
        ConfigError, ConnectionFailedError, StackError: as `connect`; the second also for an outage after it.
    """
    from temporalio.service import RPCError

    client = await connect(temporal, home, on_wait=on_wait)
    try:
        return await work(client)
    except RPCError as error:
        raise ConnectionFailedError(
            f"Temporal does not answer: {error.message}. Is it up, and does a worker run on its evaluation queue? "
            "(bertpar status; on a cluster: bertpar worker eval)"
        ) from error


async def connect_to_cluster(address: str | None, namespace: str | None, profile: str | None) -> Client:
    """Return a client of a cluster. What is None comes from TEMPORAL_* variables or Temporal's own profile.

    Raises:
        ConfigError: no address anywhere, or the namespace does not exist.
        ConnectionFailedError: the cluster cannot be reached or refuses.
    """
    loaded = load_profile(profile)
    if not (address := address or loaded.address):
        raise ConfigError("no Temporal address: temporal.address, TEMPORAL_ADDRESS and Temporal's profile name none.")
    return await connect_to_address(address, namespace or loaded.namespace or "default", loaded)


async def connect_to_address(address: str, namespace: str, profile: ClientConfigProfile | None = None) -> Client:
    """Return a client with bertpar's data converter, the namespace checked. `profile` adds TLS and keys.

    Raises:
        ConfigError: the address is malformed or the namespace does not exist.
        ConnectionFailedError: nothing answers there within a few seconds, or it refuses.
    """
    import temporalio.client
    from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
    from temporalio.service import RPCError, RPCStatusCode

    from bertpar.payloads import DATA_CONVERTER

    if not re.fullmatch(r"[^\s/]+:\d+", address):
        raise ConfigError(f"temporal.address={address} must be host:port, for example 10.0.0.5:7233")
    options = profile.to_client_connect_config() if profile is not None else {}
    options |= {"target_host": address, "namespace": namespace}
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            client = await temporalio.client.Client.connect(**options, data_converter=DATA_CONVERTER)
            await client.workflow_service.describe_namespace(DescribeNamespaceRequest(namespace=namespace))
    except RPCError as error:
        if error.status == RPCStatusCode.NOT_FOUND:
            raise ConfigError(
                f"temporal.namespace={namespace} does not exist at {address}. Name another, or make it: "
                f"temporal operator namespace create --namespace {namespace} --address {address}"
            ) from error
        raise _unreachable(address, f"{error.status.name}: {error.message}") from error
    except (RuntimeError, ValueError, TimeoutError) as error:
        raise _unreachable(address, _gist(error) or f"no answer within {_CONNECT_SECONDS:g} s") from error
    return client


def web_ui(temporal: TemporalSpec, home: Home) -> str | None:
    """Return the URL of the namespace on Temporal's web page; None where it cannot be known.

    It is known for the local stack while that runs, and for Temporal Cloud.
    """
    if uses_local_stack(temporal):
        running = stack.read(home)
        return f"{running.temporal_ui}/namespaces/{running.namespace}" if running is not None else None
    profile = load_profile(temporal.profile)
    host = (temporal.address or profile.address or "").partition(":")[0]
    namespace = temporal.namespace or profile.namespace or "default"
    return f"https://cloud.temporal.io/namespaces/{namespace}" if host.endswith(_CLOUD_HOSTS) else None


def load_profile(name: str | None) -> ClientConfigProfile:
    """Return what TEMPORAL_* variables and Temporal's configuration file say.

    Raises:
        ConfigError: the file cannot be read, or has no such profile.
    """
    from temporalio.envconfig import ClientConfigProfile

    try:
        return ClientConfigProfile.load(name)
    except (RuntimeError, ValueError, OSError) as error:
        raise ConfigError(
            f"temporal.profile={name or 'default'} cannot be loaded from Temporal's client configuration: {error}"
        ) from error


@cache
def _silence_core() -> None:
    """Keep the SDK's native core, in a process that only asks and tells, from logging to the terminal.

    It does so past Python, in the midst of a live table. What it would tell (retries) the client says in its own words.
    """
    from temporalio.runtime import Runtime, TelemetryConfig

    Runtime.set_default(Runtime(telemetry=TelemetryConfig(logging=None)), error_if_already_set=False)


async def _connect_to_local_stack(home: Home, on_wait: OnWait) -> tuple[Client, stack.Stack]:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _LOCAL_PATIENCE_SECONDS
    while True:
        running = await asyncio.to_thread(stack.ensure_up, home, on_wait=on_wait)
        try:
            return await connect_to_address(running.temporal_address, NAMESPACE), running
        except ConnectionFailedError as error:  # its server has just died, and is being started again
            if loop.time() > deadline:
                raise StackError(f"the local stack is up, but: {error}{log_tail(home, TEMPORAL)}") from error
        await asyncio.sleep(0.1)


def _check_fits_local_stack(temporal: TemporalSpec) -> None:
    problems = [
        f"{key}={value} is served by no worker of the local stack (it serves {served})."
        for key, value, served in (
            ("temporal.training_queue", temporal.training_queue, DEFAULT_TRAINING_QUEUE),
            ("temporal.eval_queue", temporal.eval_queue, DEFAULT_EVAL_QUEUE),
        )
        if value != served
    ]
    if temporal.namespace not in (None, NAMESPACE):
        problems.append(f"temporal.namespace={temporal.namespace}: the local stack has only {NAMESPACE!r}.")
    if problems:
        raise ConfigError("\n".join([*problems, "Leave it out, or name your cluster: temporal.address=host:port"]))


def _gist(error: Exception) -> str:
    """Return the innermost message of an error of temporalio's core, whose text nests Rust's debug output."""
    messages = re.findall(r'(?:message|error): "([^"]+)"', str(error))
    return messages[-1] if messages else str(error)


def _unreachable(address: str, reason: str) -> ConnectionFailedError:
    return ConnectionFailedError(
        f"temporal.address={address} cannot be reached ({reason}). Check address, TLS, API key and "
        "that the server runs; or leave temporal.address (and TEMPORAL_ADDRESS) out to use the local stack."
    )
