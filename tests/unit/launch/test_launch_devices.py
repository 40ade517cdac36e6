"""How docker is asked for GPUs, and that a plan and the doctor judge a host alike."""

from dataclasses import replace

import pytest

from nimctl.core.errors import NimctlError
from nimctl.core.facts import CdiSpec, DockerState, HostFacts
from nimctl.doctor import checks
from nimctl.doctor.model import Finding, Needs
from nimctl.launch.devices import request_gpus
from tests.unit.launch.launch_hosts import gpus, host

TWO = gpus(2)
UUIDS = tuple(str(g.uuid) for g in TWO)


def refused(facts: HostFacts) -> NimctlError:
    with pytest.raises(NimctlError) as caught:
        request_gpus(facts.gpus.gpus, facts)
    return caught.value


def doctor(check: str, facts: HostFacts, wanted: str = "all") -> list[Finding]:
    (chosen,) = [c for c in checks.ALL if c.id == check]
    return chosen.judge(facts, Needs(gpus=wanted))


@pytest.mark.parametrize("state", ["missing", "permission", "unreachable", "hangs"])
@pytest.mark.parametrize("groups", [(), ("docker",)])
def test_docker_that_cannot_be_used_is_the_error_of_the_doctor(state: DockerState, groups: tuple[str, ...]) -> None:
    well = host(*TWO, runtime=True, hook=True)
    facts = replace(
        well,
        docker=replace(well.docker, state=state, detail="what the socket said", runtimes=()),
        system=replace(well.system, groups=groups),
    )
    error = refused(facts)
    assert error.id == f"docker-{state}"
    (finding,) = doctor("docker", facts)
    assert (finding.id, finding.title, finding.cause, finding.fix) == (error.id, error.message, error.cause, error.fix)
    assert request_gpus((), facts).mode == "none"


@pytest.mark.parametrize(
    ("listed", "wanted", "names"),
    [
        (("0", "1", "all"), "all", ("all",)),
        (("0", "1"), "all", ("0", "1")),
        (("all",), "all", ("all",)),
        (("0", "1", "all"), "1", ("0",)),
        (UUIDS, "all", UUIDS),
        ((*UUIDS, "all"), "device=1", UUIDS[1:]),
        (("0", UUIDS[1]), "all", ("0", UUIDS[1])),
        (("all",), "device=1", None),
        (("0", "all"), "all", None),
        (("GPU-somewhere-else",), "all", None),
    ],
)
def test_cdi_names_are_the_ones_that_are_listed(
    listed: tuple[str, ...], wanted: str, names: tuple[str, ...] | None
) -> None:
    facts = host(*TWO, cdi=listed)
    chosen = {"all": TWO, "1": TWO[:1], "device=1": TWO[1:]}[wanted]
    judged = [f.verdict for f in doctor("gpu-runtime", facts, wanted)]
    if names is None:
        with pytest.raises(NimctlError) as caught:
            request_gpus(chosen, facts)
        assert caught.value.id == "gpu-runtime-missing" and "/etc/cdi/nvidia.yaml" in caught.value.cause
        assert judged == ["fail"]
    else:
        assert request_gpus(chosen, facts).devices == names
        assert judged == ["pass"]


@pytest.mark.parametrize(
    ("folders", "cause"), [(("/run/other",), "/run/other"), (None, "CDI is off in Docker")], ids=["other", "off"]
)
def test_a_specification_that_docker_does_not_read_is_no_way(folders: tuple[str, ...] | None, cause: str) -> None:
    facts = host(*TWO, cdi=("0", "1", "all"))
    facts = replace(facts, docker=replace(facts.docker, cdi_spec_dirs=folders))
    assert cause in refused(facts).cause
    (finding,) = doctor("gpu-runtime", facts)
    assert (finding.id, finding.verdict) == ("gpu-runtime-missing", "fail") and cause in finding.cause


def test_a_specification_without_devices_or_of_another_kind_is_no_way() -> None:
    for spec in (CdiSpec("/etc/cdi/nvidia.yaml", "nvidia.com/gpu"), CdiSpec("/etc/cdi/x.yaml", "x.org/net", ("all",))):
        facts = replace(host(*TWO), cdi=(spec,))
        assert "there is no CDI specification" in refused(facts).cause
        assert [f.verdict for f in doctor("gpu-runtime", facts)] == ["fail"]


def test_a_way_that_is_set_up_and_cannot_work_is_passed_over() -> None:
    well = host(*TWO, runtime=True, hook=True, cdi=("0", "1", "all"))
    gone = replace(well, docker=replace(well.docker, missing_runtimes=("nvidia",)))
    assert request_gpus(TWO, gone).mode == "gpus"
    refusing = replace(gone, toolkit=replace(gone.toolkit, mode="cdi"))
    assert request_gpus(TWO, refusing).mode == "cdi"
    assert doctor("gpu-runtime", refusing)[0].verdict == "pass"


def test_podman_gives_no_gpus_whatever_it_says() -> None:
    well = host(*TWO, runtime=True, hook=True)
    podman = replace(well, docker=replace(well.docker, kind="podman"))
    assert refused(podman).id == "docker-is-podman"
    assert [f.id for f in doctor("docker", podman)] == ["docker-is-podman"]
