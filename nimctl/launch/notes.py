"""What a plan does beyond the command of NVIDIA's page, in words. Pure."""

import ipaddress

from nimctl.launch.asked import host_ip
from nimctl.launch.model import GpuRequest, Kind, RunOptions, SecretMount


def added_notes(
    options: RunOptions, kind: Kind, gpu: GpuRequest, secrets: tuple[SecretMount, ...], user: str | None
) -> tuple[str, ...]:
    """One sentence for each thing that the user did not type, each behind its id."""
    address = ipaddress.ip_address(host_ip(options.host))
    notes: list[str] = []
    if not address.is_loopback:
        notes.append(f"published-widely: The API has no login and will be reachable on {options.host}.")
    if kind == "ours":
        return tuple(notes)
    if address.is_loopback:
        notes.append("loopback: Published for this host only; the page publishes everywhere (--host 0.0.0.0 does).")
    if user:
        notes.append(f"user: --user {user} makes new files in the cache yours; group 0 is what the image needs.")
    if gpu.mode != "none":
        notes.append(f"gpu-request: The GPUs are asked for this way because {gpu.why}.")
    notes += [
        "shm: NCCL and the engine's workers share memory; docker's default of 64 MB makes them fail late.",
        "no-new-privileges: Nothing in the container can gain rights that it did not start with.",
        "stop-timeout: Running requests may end; docker alone would kill the server after 10 s.",
        "labels: They let `nimctl ps`, `status`, `logs` and `stop` find the run.",
        "kept-after-death: Without --rm the log of a dead container can still be read; `nimctl stop` removes it.",
    ]
    for secret in secrets:
        notes.append(
            f"key-in-environment: The image reads {secret.name} from its environment only, "
            "so everybody who may use docker can read it in `docker inspect`."
        )
        if secret.name not in options.secrets_present:
            notes.append(f"key-missing: {secret.name} is not set here; the start will need it.")
    return tuple(notes)
