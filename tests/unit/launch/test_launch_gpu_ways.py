"""Each way in which docker hands over GPUs: which are possible, which one is asked for, and what a probe sends."""

import pytest

from nimctl.core.errors import NimctlError
from nimctl.core.secret import Secret
from nimctl.launch.devices import possible_requests, request_gpus
from nimctl.launch.docker.create_request import container_body
from nimctl.launch.docker.once import probe_body
from tests.unit.launch.launch_hosts import gpus, host, plan

TWO = gpus(2)
ALL_WAYS = host(*TWO, runtime=True, hook=True, cdi=("0", "1", "all"))


@pytest.mark.parametrize(
    ("facts", "modes"),
    [
        (ALL_WAYS, ["runtime", "gpus", "cdi"]),
        (host(*TWO, runtime=True), ["runtime"]),
        (host(*TWO, cdi=("0", "1")), ["cdi"]),
        (host(*TWO, hook=True, cdi=("0",)), ["gpus"]),
        (host(*TWO), []),
    ],
)
def test_the_first_possible_way_is_the_one_of_a_run(facts, modes):
    found = possible_requests(TWO, facts)
    assert [mode for mode, _ in found] == modes
    if found:
        assert found[0][1] == request_gpus(TWO, facts)


def test_a_way_that_is_asked_for_is_taken():
    assert request_gpus(TWO, ALL_WAYS, "cdi").mode == "cdi"
    assert request_gpus(TWO, ALL_WAYS, "gpus").mode == "gpus"
    assert plan("demo", ALL_WAYS, gpu_mode="cdi").gpu.mode == "cdi"


@pytest.mark.parametrize("mode", ["runtime", "gpus", "cdi"])
def test_a_way_that_is_asked_for_and_closed_is_refused_and_never_replaced(mode):
    with pytest.raises(NimctlError) as caught:
        request_gpus(TWO, host(*TWO, **{"hook": True} if mode != "gpus" else {"runtime": True}), mode)
    assert caught.value.id == "gpu-runtime-missing"


@pytest.mark.parametrize("recipe", ["demo", "kimi-k2.5-nim"])
def test_a_probe_is_the_run_but_for_what_it_must_not_have(recipe):
    made = plan(recipe, ALL_WAYS, secrets_present=("NGC_API_KEY", "HF_TOKEN"))
    run = container_body(made, {"NGC_API_KEY": Secret("nvapi-CANARY0123456789")})
    body = probe_body(made, request_gpus(TWO, ALL_WAYS, "cdi"), ("sh", "-c", "x"), cache=True)
    assert (body["Image"], body.get("User"), body["Entrypoint"], body["Cmd"]) == (
        run["Image"],
        run.get("User"),
        ["sh"],
        ["-c", "x"],
    )
    for name in ("Binds", "CapDrop", "SecurityOpt", "ReadonlyRootfs", "Tmpfs", "ShmSize"):
        assert body["HostConfig"][name] == run["HostConfig"][name]
    assert body["HostConfig"]["DeviceRequests"][0]["Driver"] == "cdi"
    assert not {"Mounts", "PortBindings"} & set(body["HostConfig"])
    assert body["HostConfig"]["NetworkMode"] == "none"
    assert "ExposedPorts" not in body
    assert "io.nimctl.run" not in body["Labels"]
    assert "CANARY" not in str(body)


def test_a_cache_that_is_not_there_is_not_made_by_a_probe():
    body = probe_body(plan("demo", ALL_WAYS), request_gpus(TWO, ALL_WAYS), ("sh",), cache=False)
    assert "Binds" not in body["HostConfig"]
