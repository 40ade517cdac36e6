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
    ("cgroup", "container"),
    [
        (f"0::/system.slice/docker-{ID}.scope\n", ID[:12]),
        (f"0::/docker/{ID}\n", ID[:12]),
        (f"12:devices:/docker/{ID}\n1:name=systemd:/docker/{ID}\n", ID[:12]),
        (f"0::/user.slice/user-1000.slice/user@1000.service/user.slice/docker-{ID}.scope\n", ID[:12]),
        (f"0::/kubepods.slice/kubepods-pod1f.slice/cri-containerd-{ID}.scope\n", ID[:12]),
        (f"0::/docker/{ID}/kubelet/kubepods/pod1/{OTHER}\n", ID[:12]),
        ("0::/user.slice/user-1000.slice/session-3.scope\n", None),
        (f"0::/{ID}0\n", None),
        ("", None),
        (None, None),
    ],
)
def test_a_process_is_named_with_its_container(tmp_path: Path, cgroup: str | None, container: str | None) -> None:
    process(tmp_path, 4242, cgroup=cgroup)
    (holder,) = name_holders(inventory(4242), tmp_path).gpus[1].processes
    assert holder == GpuProcess(4242, 5, "VLLM::EngineCor", container)


def test_a_process_that_is_gone_or_hidden_stays_a_number(tmp_path: Path) -> None:
    process(tmp_path, 2, "two")
    seen = name_holders(inventory(1, 2), tmp_path)
    assert seen.gpus == (Gpu(0), Gpu(1, processes=(GpuProcess(1, 5), GpuProcess(2, 5, "two"))))


def test_this_very_process_is_found() -> None:
    (holder,) = name_holders(inventory(os.getpid())).gpus[1].processes
    assert holder.name


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
