"""A container as the daemon tells it: what its image brings is left out, and all that no run of nimctl has is named."""

from typing import Any

import pytest

from nimctl.launch.docker.create_request import container_body
from nimctl.launch.docker.seeing import container_facts
from tests.unit.launch.launch_hosts import gpus, host, plan

IMAGE = {"Config": {"Env": ["PATH=/bin", "A=1"], "Cmd": ["/serve"], "Entrypoint": ["/start"], "User": "1000:0"}}


def container(config: dict[str, Any] | None = None, **host: Any) -> dict[str, Any]:
    own = {"Env": ["PATH=/bin"], "Cmd": ["/serve"], "Entrypoint": ["/start"], "User": "1001:0", **(config or {})}
    return {"Image": "sha256:x", "Config": own, "HostConfig": host}


def test_a_container_is_described_without_what_its_image_brings() -> None:
    found = container(
        {"Env": ["PATH=/bin", "A=2", "B=3"], "Labels": {"l": "v"}},
        CapDrop=["ALL"],
        SecurityOpt=["no-new-privileges:true"],
        ReadonlyRootfs=True,
        ShmSize=64,
    )
    facts = container_facts(found, IMAGE)
    assert dict(facts.given) == {"A": "2", "B": "3"}
    assert dict(facts.variables) == {"PATH": "/bin", "A": "2", "B": "3"}
    assert facts.argv == facts.image_argv == ("/serve",)
    assert facts.beyond == {}
    assert (facts.cap_drop, facts.no_new_privileges, facts.read_only, facts.shm_bytes) == (("ALL",), True, True, 64)
    assert dict(container_facts(found, None).given) == {"PATH": "/bin", "A": "2", "B": "3"}


@pytest.mark.parametrize(
    ("changed", "beyond"),
    [
        (container(Privileged=True), {"privileged": ("yes",)}),
        (container(CapAdd=["SYS_ADMIN"]), {"cap_add": ("SYS_ADMIN",)}),
        (container(NetworkMode="host", PidMode="container:abc"), {"namespaces": ("network=host", "pid=container:abc")}),
        (container(SecurityOpt=["seccomp=unconfined"]), {"unconfined": ("seccomp=unconfined",)}),
        (container(MaskedPaths=[], ReadonlyPaths=[]), {"unconfined": ("systempaths=unconfined",)}),
        (container(Devices=[{"PathOnHost": "/dev/mem"}]), {"devices": ("/dev/mem",)}),
        (container(DeviceCgroupRules=["a *:* rwm"]), {"device_cgroup_rules": ("a *:* rwm",)}),
        (container(VolumesFrom=["other"]), {"volumes_from": ("other",)}),
        (container(GroupAdd=["docker"]), {"group_add": ("docker",)}),
        (container(Sysctls={"net.ipv4.ip_forward": "1"}), {"sysctls": ("net.ipv4.ip_forward=1",)}),
        (container(ExtraHosts=["huggingface.co:10.0.0.1"]), {"extra_hosts": ("huggingface.co:10.0.0.1",)}),
        (container(Binds=["/etc:/host-etc:ro", "/data:/opt/nim/.cache"]), {"mounts": ("/host-etc",)}),
        (container(Binds=["/:/opt/nim/.cache-host", "/:/opt/nim/model/x"]),
         {"mounts": ("/opt/nim/.cache-host", "/opt/nim/model/x")}),
        (container(Mounts=[{"Target": "/run/secrets/HF_TOKEN"}, {"Target": "/run/secrets/host/x"}]),
         {"mounts": ("/run/secrets/host/x",)}),
        (container({"User": "0:0"}), {"user": ("0:0",)}),
        (container({"Entrypoint": ["/bin/other"]}), {"entrypoint": ("/bin/other",)}),
    ],
)  # fmt: skip
def test_what_no_run_of_nimctl_has_is_named(changed: dict[str, Any], beyond: dict[str, tuple[str, ...]]) -> None:
    assert container_facts(changed, IMAGE).beyond == beyond


@pytest.mark.parametrize(("recipe", "root"), [("demo", True), ("demo", False), ("kimi-k2.5", True)])
def test_what_nimctl_itself_creates_has_nothing_beyond(recipe: str, root: bool) -> None:
    made = plan(recipe, host(*gpus(8), runtime=True, hook=True), uid=0 if root else 1001, secrets_present=("HF_TOKEN",))
    body = container_body(made, {})
    body["Config"] = {key: body[key] for key in ("Env", "Cmd", "Labels", "User")} | {"Entrypoint": ["/start"]}
    assert container_facts(body, IMAGE).beyond == {}
