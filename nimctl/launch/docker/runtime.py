"""Servers in Docker containers. Runs are found by their labels, never by a file of ours."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from nimctl.core.errors import NimctlError
from nimctl.core.secret import Secret
from nimctl.launch import secrets as staging
from nimctl.launch.docker.create_request import container_body
from nimctl.launch.docker.engine import Engine
from nimctl.launch.model import IMAGE_LABEL, ExactImage, Kind, LaunchPlan
from nimctl.launch.runtime import ContainerState, RunHandle, Status, check_secrets, name_taken, port_taken

LABEL = "io.nimctl.run"
_NEVER = "0001-01-01T00:00:00Z"


@dataclass(frozen=True)
class DockerRuntime:
    """The `Runtime` of a Docker daemon."""

    engine: Engine

    @classmethod
    def connect(cls, timeout: float = 5.0) -> "DockerRuntime":
        """The daemon of this user's environment. Raises a `docker-*` error within `timeout` seconds."""
        return cls(Engine.connect(timeout))

    def start(self, plan: LaunchPlan, secrets: Mapping[str, Secret]) -> RunHandle:
        """Create and start the plan's container. A dead run of the same name is removed first, and that is noted.

        The container is made of `plan.exact`, and the daemon must say so before it starts. Raises `name-in-use`,
        `port-in-use`, `image-not-found`, `key-missing`, `gpu-runtime-missing`, `digest-changed`, `image-tampered` and
        others; a container that was created and cannot start is removed again.
        """
        check_secrets(plan, secrets)
        notes = self._make_way(plan.name)
        container = None
        try:
            with staging.keys_for(plan, secrets, f"docker {self.engine.facts.endpoint}", self._names):
                container = self.engine.create(plan.name, container_body(plan, secrets))
                self._require_image(container, plan)
                self.engine.start(container)
        except BaseException as error:  # Ctrl-C too: nothing half-made may stay
            if container is not None:
                self.engine.remove(container)
            if isinstance(error, NimctlError) and error.id == "port-in-use":
                raise port_taken(plan.port.host_ip, plan.port.host, error.cause) from error
            raise
        return _handle(
            {"Id": container, "Image": plan.image, "Labels": plan.container_labels}, plan.stop_timeout, notes
        )

    def _require_image(self, container: str, plan: LaunchPlan) -> None:
        """Refuse (`digest-changed`, `image-tampered`) a container of another image than the one that was decided on."""
        if plan.exact is None:
            return
        made_of = str((self.engine.inspect(container) or {}).get("Image") or "")
        if problem := image_problem(plan.exact, made_of):
            raise problem

    def _make_way(self, name: str) -> tuple[str, ...]:
        other = self.engine.inspect(name)
        if other is None:
            return ()
        labels = (other.get("Config") or {}).get("Labels") or {}
        if LABEL not in labels:
            raise name_taken(name, "a container that nimctl did not start has this name")
        state = _state(other)
        if state.alive and state.status != "created":
            raise name_taken(name, f"the run {name} is {state.status}")
        self.engine.remove(str(other["Id"]))
        _remove_keys(labels)
        return (f"replaced: The dead run {name} (exit code {state.exit_code}) was removed to make way.",)

    def list_runs(self) -> tuple[RunHandle, ...]:
        """Every container that nimctl started here, alive or dead, sorted by name."""
        return tuple(sorted(map(_handle, self.engine.list_labelled(LABEL)), key=lambda run: run.name))

    def _names(self) -> set[str]:
        return {run.name for run in self.list_runs()}

    def find(self, name: str) -> RunHandle | None:
        """The run of this name."""
        return next(map(_handle, self.engine.list_labelled(f"{LABEL}={name}")), None)

    def state(self, run: RunHandle) -> ContainerState:
        """How the container is; `gone` when it has been removed."""
        found = self.engine.inspect(run.id)
        return _state(found) if found else ContainerState("gone")

    def logs(self, run: RunHandle, *, tail: int | None = None, follow: bool = False) -> Iterator[str]:
        """The container's log by lines, keys masked."""
        return self.engine.logs(run.id, tail=tail, follow=follow)

    def startup_record(self, run: RunHandle) -> Mapping[str, Any] | None:
        """None: a container's start report is in its memory and ends with it; its log has the error."""
        return None

    def stop(self, run: RunHandle, *, timeout: int | None = None) -> int | None:
        """Stop the container, read its exit code, remove it and its key files."""
        found = self.engine.inspect(run.id)
        if found is None:
            return None
        labels = (found.get("Config") or {}).get("Labels") or {}
        limit = (found.get("Config") or {}).get("StopTimeout") or run.stop_timeout
        self.engine.stop(run.id, limit if timeout is None else timeout)
        ended = self.engine.inspect(run.id)
        self.engine.remove(run.id)
        _remove_keys(labels)
        return _state(ended).exit_code if ended else None


def image_problem(exact: ExactImage, made_of: str) -> NimctlError | None:
    """What is wrong with a container that was to be made of `exact` and is made of `made_of`, an id. Pure."""
    reference, digests = exact.identity.reference, exact.identity.digests
    if made_of != exact.id:
        return NimctlError(
            "digest-changed",
            f"the container was made of another image than {reference}",
            cause=f"it was to be {exact.id}, and the daemon says {made_of or 'nothing'}",
            fix="Nothing was started. Run the same command again; if it stays, look for who changes images here.",
        )
    if digests and made_of not in digests:
        return NimctlError(
            "image-tampered",
            f"the image on this host is not {reference}",
            cause=f"it is {made_of}, and the registry promised {' / '.join(digests)}",
            fix=f"Nothing was started. Remove it (`docker rmi {made_of}`) and run the same command again.",
        )
    return None


def _remove_keys(labels: Mapping[str, str]) -> None:
    if folder := labels.get("io.nimctl.secrets"):
        staging.remove(Path(folder))


def _handle(summary: Mapping[str, Any], stop_timeout: int = 45, notes: tuple[str, ...] = ()) -> RunHandle:
    labels: Mapping[str, str] = summary.get("Labels") or {}
    port = labels.get("io.nimctl.port", "")
    return RunHandle(
        name=labels[LABEL],
        runtime="docker",
        id=str(summary["Id"]),
        kind=cast(Kind, labels.get("io.nimctl.kind", "ours")),
        recipe=labels.get("io.nimctl.recipe", ""),
        host=labels.get("io.nimctl.host", "127.0.0.1"),
        port=int(port) if port.isdigit() else 0,
        image=labels.get(IMAGE_LABEL) or summary.get("Image"),
        served_names=tuple(filter(None, labels.get("io.nimctl.served", "").split(","))),
        layout=labels.get("io.nimctl.layout") or None,
        stop_timeout=stop_timeout,
        notes=notes,
        cache=labels.get("io.nimctl.cache"),
        weights=labels.get("io.nimctl.weights"),
    )


def _state(inspected: Mapping[str, Any]) -> ContainerState:
    state = inspected.get("State") or {}
    status = cast(Status, state.get("Status") or "created")
    ended = status in ("exited", "dead")
    started = state.get("StartedAt")
    return ContainerState(
        status=status,
        exit_code=state.get("ExitCode") if ended else None,
        oom_killed=state.get("OOMKilled"),
        started_at=None if started == _NEVER else started,
        error=state.get("Error") or None,
    )
