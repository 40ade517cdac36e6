"""Who holds the memory of a GPU, as a folder like /proc tells it."""

import os
from pathlib import Path

import pytest

from nimctl.core.gpus import Gpu, GpuInventory, GpuProcess
from nimctl.doctor.observe.processes import MOST, name_holders

ID = "0123456789abcdef" * 4
OTHER = "f" * 64


def inventory(*pids: int, memory: int | None = 5) -> GpuInventory:
    return GpuInventory("ok", gpus=(Gpu(0), Gpu(1, processes=tuple(GpuProcess(pid, memory) for pid in pids))))


def process(proc: Path, pid: int, name: str = "VLLM::EngineCor", cgroup: str | None = None) -> None:
    (proc / str(pid)).mkdir()
    (proc / str(pid) / "comm").write_text(f"{name}\n")
    if cgroup is not None:
        (proc / str(pid) / "cgroup").write_text(cgroup)


@pytest.mark.parametrize(
    ("cgroup", "container", "engine"),
    [
        (f"0::/system.slice/docker-{ID}.scope\n", ID[:12], "docker"),
        (f"0::/docker/{ID}\n", ID[:12], "docker"),
        (f"12:devices:/docker/{ID}\n1:name=systemd:/docker/{ID}\n", ID[:12], "docker"),
        (f"0::/docker/{ID}/kubelet/kubepods/pod1/{OTHER}\n", ID[:12], "docker"),
        (f"0::/system.slice/docker-{ID}.scope/kubelet.slice/cri-containerd-{OTHER}.scope\n", ID[:12], "docker"),
        # Those of other engines, and of other daemons than the one that is asked.
        (f"0::/user.slice/user-1000.slice/user@1000.service/user.slice/docker-{ID}.scope\n", ID[:12], None),
        (f"0::/lxc.payload.ci/system.slice/docker-{ID}.scope\n", ID[:12], None),
        (f"0::/../../docker/{ID}\n", ID[:12], None),
        (f"0::/batch/{ID}\n", ID[:12], None),
        (f"0::/kubepods.slice/kubepods-pod1f.slice/cri-containerd-{ID}.scope\n", ID[:12], "kubernetes"),
        (f"0::/kubepods.slice/kubepods-pod1f.slice/docker-{ID}.scope\n", ID[:12], "kubernetes"),
        (f"0::/kubepods/besteffort/pod1f/{ID}\n", ID[:12], "kubernetes"),
        (f"0::/machine.slice/libpod-{ID}.scope/container\n", ID[:12], "podman"),
        (f"0::/system.slice/crio-{ID}.scope\n", ID[:12], "cri-o"),
        (f"0::/system.slice/nerdctl-{ID}.scope\n", ID[:12], "containerd"),
        ("0::/user.slice/user-1000.slice/session-3.scope\n", None, None),
        (f"0::/{ID}0\n", None, None),
        ("", None, None),
        (None, None, None),
    ],
)
def test_a_process_is_named_with_its_container_and_who_made_that(
    tmp_path: Path, cgroup: str | None, container: str | None, engine: str | None
) -> None:
    process(tmp_path, 4242, cgroup=cgroup)
    (holder,) = name_holders(inventory(4242), tmp_path).gpus[1].processes
    assert holder == GpuProcess(4242, 5, "VLLM::EngineCor", container, engine=engine)


@pytest.mark.parametrize(("namespace", "name"), [("pid:[4026531836]", "sleep"), ("pid:[4026532501]", None)])
def test_where_processes_have_other_numbers_than_on_the_host_they_are_not_looked_up(
    tmp_path: Path, namespace: str, name: str | None
) -> None:
    process(tmp_path, 4242, "sleep")
    (tmp_path / "self/ns").mkdir(parents=True)
    (tmp_path / "self/ns/pid").symlink_to(namespace)
    (holder,) = name_holders(inventory(4242), tmp_path).gpus[1].processes
    assert holder.name == name


def test_a_process_that_is_gone_or_hidden_stays_a_number(tmp_path: Path) -> None:
    process(tmp_path, 2, "two")
    seen = name_holders(inventory(1, 2), tmp_path)
    assert seen.gpus == (Gpu(0), Gpu(1, processes=(GpuProcess(1, 5), GpuProcess(2, 5, "two"))))


def test_this_very_process_is_found_where_its_number_is_the_hosts() -> None:
    (holder,) = name_holders(inventory(os.getpid())).gpus[1].processes
    counted_by_the_host = Path("/proc/self/ns/pid").readlink() == Path("pid:[4026531836]")
    assert (holder.name is not None) == counted_by_the_host


def test_of_many_processes_the_largest_are_named(tmp_path: Path) -> None:
    for pid in range(1, MOST + 11):
        process(tmp_path, pid, f"p{pid}")
    many = GpuInventory("ok", gpus=(Gpu(0, processes=tuple(GpuProcess(pid, pid) for pid in range(1, MOST + 11))),))
    named = {holder.pid for holder in name_holders(many, tmp_path).gpus[0].processes if holder.name}
    assert named == set(range(11, MOST + 11))


def test_an_inventory_without_processes_is_returned_as_it_is() -> None:
    nothing = inventory()
    assert name_holders(nothing) is nothing
    assert name_holders(GpuInventory("no-library")) == GpuInventory("no-library")
