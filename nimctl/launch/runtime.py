"""What Docker and the process runtime have in common: a run by its name, its state, its log, its end."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from nimctl.core.errors import NimctlError
from nimctl.core.plain import to_plain
from nimctl.core.secret import Secret
from nimctl.launch.model import Kind, LaunchPlan, RuntimeName

Status = Literal["created", "running", "paused", "restarting", "removing", "exited", "dead", "gone"]
_ALIVE = ("created", "running", "paused", "restarting")


@dataclass(frozen=True)
class RunHandle:
    """One run. `id` is the container's id, or the process id as text; `notes` say what the start had to clear away.

    `cache` is its cache folder on this host, `weights` the address that it serves without passwords; None where a run
    of an earlier version does not tell.
    """

    name: str
    runtime: RuntimeName
    id: str
    kind: Kind
    recipe: str
    host: str
    port: int
    image: str | None = None
    served_names: tuple[str, ...] = ()
    layout: str | None = None
    stop_timeout: int = 45
    notes: tuple[str, ...] = ()
    cache: str | None = None
    weights: str | None = None

    @property
    def reachable_host(self) -> str:
        """The address at which this host reaches the run: a wildcard means loopback."""
        return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104 (read, not bound)

    @property
    def url(self) -> str:
        """Where the API answers."""
        host = f"[{self.reachable_host}]" if ":" in self.reachable_host else self.reachable_host
        return f"http://{host}:{self.port}"

    def to_json(self) -> dict[str, Any]:
        """The run as part of a JSON document."""
        return {**to_plain(self), "url": self.url}


@dataclass(frozen=True)
class ContainerState:
    """The life of a container or process. What the runtime cannot say is None. `started_at` is ISO 8601 UTC."""

    status: Status
    exit_code: int | None = None
    oom_killed: bool | None = None
    started_at: str | None = None
    error: str | None = None

    @property
    def alive(self) -> bool:
        """False once nothing runs any more and nothing will by itself."""
        return self.status in _ALIVE


class Runtime(Protocol):
    """Where servers run. Every method raises NimctlError only."""

    def start(self, plan: LaunchPlan, secrets: Mapping[str, Secret]) -> RunHandle:
        """Start `plan`; returns once the server's first process runs. What was begun is undone when it fails."""

    def list_runs(self) -> tuple[RunHandle, ...]:
        """The runs that nimctl started here, alive or dead, sorted by name."""

    def find(self, name: str) -> RunHandle | None:
        """The run of this name."""

    def state(self, run: RunHandle) -> ContainerState:
        """How the run is; `gone` when it has been removed."""

    def logs(self, run: RunHandle, *, tail: int | None = None, follow: bool = False) -> Iterator[str]:
        """The log by lines, keys masked: the last `tail` (None: all), then with `follow` until the run ends."""

    def startup_record(self, run: RunHandle) -> Mapping[str, Any] | None:
        """The last start report that a dead run left on this host, if it left one."""

    def stop(self, run: RunHandle, *, timeout: int | None = None) -> int | None:
        """End the run after its drain (at most `timeout` seconds) and remove what it left, except the cache.

        Returns its exit code, None where nobody knows it.
        """


def check_secrets(plan: LaunchPlan, secrets: Mapping[str, Secret]) -> None:
    """Refuse (`key-missing`) a start that lacks a key which the plan needs."""
    for secret in plan.secrets:
        if secret.required and secret.name not in secrets:
            raise NimctlError(
                "key-missing",
                f"{plan.image or plan.name} needs {secret.name}, and it is not set",
                cause="NVIDIA's images download their model with this key when they start",
                fix=f"export {secret.name}=... (keys are made at https://org.ngc.nvidia.com/setup/api-keys).",
            )


def name_taken(name: str, why: str) -> NimctlError:
    """A `name-in-use` error."""
    return NimctlError(
        "name-in-use",
        f"the name {name} is taken",
        cause=why,
        fix=f"`nimctl stop {name}` ends a run; `--name` gives this one another name.",
    )


def port_taken(host: str, port: int, why: str) -> NimctlError:
    """A `port-in-use` error."""
    return NimctlError(
        "port-in-use",
        f"port {port} on {host} is taken",
        cause=why,
        fix=f"Choose another: `--port {port + 1 if port < 65535 else port - 1}`; "
        f"`ss -ltnp 'sport = :{port}'` shows who has it.",
    )
