"""A launch plan as the body of Docker's `POST /containers/create`, equal to `docker_run_line`. Pure.

Fields: https://docs.docker.com/reference/api/engine/version/v1.43/#tag/Container/operation/ContainerCreate
"""

from collections.abc import Mapping
from typing import Any

from nimctl.core.cdi import KIND
from nimctl.core.secret import Secret
from nimctl.launch.model import EnvVar, GpuRequest, LaunchPlan
from nimctl.launch.show import gpu_environment, volumes


def container_body(plan: LaunchPlan, secrets: Mapping[str, Secret]) -> dict[str, Any]:
    """The request that creates the container. It holds a key's value only for images that read no key files."""
    port = f"{plan.port.container}/tcp"
    body: dict[str, Any] = {
        "Image": plan.exact.id if plan.exact else plan.image,
        "Cmd": list(plan.argv) or None,
        "Env": [
            *(f"{s.name}={secrets[s.name].reveal()}" for s in plan.secrets if s.source is None and s.name in secrets),
            *gpu_environment(plan.gpu, plan.env),
            *(f"{e.name}={_text(e)}" for e in plan.env),
        ],
        "Labels": dict(plan.container_labels),
        "ExposedPorts": {port: {}},
        "StopTimeout": plan.stop_timeout,
        "HostConfig": {
            "Binds": volumes(plan),
            # Not as volumes: docker would make a folder where a key file is missing, and here it refuses.
            "Mounts": [
                {"Type": "bind", "Source": s.source, "Target": s.target, "ReadOnly": True}
                for s in plan.secrets
                if s.source and s.target
            ],
            "PortBindings": {port: [{"HostIp": plan.port.host_ip, "HostPort": str(plan.port.host)}]},
            "CapDrop": list(plan.security.cap_drop),
            "SecurityOpt": ["no-new-privileges"] if plan.security.no_new_privileges else [],
            "ReadonlyRootfs": plan.security.read_only,
            "Tmpfs": dict(plan.security.tmpfs),
            "ShmSize": plan.shm_bytes,
            **gpu_host_config(plan.gpu),
        },
    }
    if plan.user:
        body["User"] = plan.user
    return body


def _text(variable: EnvVar) -> str:
    return variable.value.reveal() if isinstance(variable.value, Secret) else variable.value


def gpu_host_config(gpu: GpuRequest) -> dict[str, Any]:
    """The part of `HostConfig` that asks for GPUs; `runtime-env` also needs `gpu_environment`."""
    if gpu.mode == "none":
        return {}
    if gpu.mode == "cdi":
        return {"DeviceRequests": [{"Driver": "cdi", "DeviceIDs": [f"{KIND}={name}" for name in gpu.devices]}]}
    if gpu.mode == "runtime-env":
        return {"Runtime": "nvidia"}
    request: dict[str, Any] = {"Driver": "", "Capabilities": [["gpu"]]}
    request |= {"Count": -1} if gpu.devices == ("all",) else {"Count": 0, "DeviceIDs": list(gpu.devices)}
    return {"DeviceRequests": [request], **({"Runtime": "nvidia"} if gpu.mode == "runtime" else {})}
