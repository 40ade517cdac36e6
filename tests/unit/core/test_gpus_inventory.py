"""What is read of each kind of host through NVML."""

from dataclasses import fields, replace
from typing import Any

import pytest

from nimctl.core.gpus import Fabric, Gpu, GpuInventory, GpuLink, GpuProcess
from tests.lib.nvml import profiles
from tests.lib.nvml.reading import Reading, read_hosts

MIB = profiles.MIB
GB200_CLUSTER = profiles.profile("4xGB200")["gpus"][0]["fabric"]["cluster"]


def changed(name: str, index: int, **values: Any) -> profiles.Json:
    host = profiles.profile(name)
    host["gpus"][index] |= values
    return host


def faulty(name: str, call: str, error: int, **more: int) -> profiles.Json:
    return changed(name, 1, faults={call: {"error": error, **more}})


def health(mask: int) -> profiles.Json:
    return changed("2xH200", 0, fabric={"state": 3, "status": 0, "clique": 0, "health_mask": mask})


PROFILES = [name for name in profiles.names() if name != "hangs"]
HOSTS = {name: profiles.profile(name) for name in [*PROFILES, "1024xH200"]} | {
    "pending": changed("2xH200", 0, mig_mode_pending=1, ecc_mode_pending=0),
    "aggregate": changed("1xH200", 0, ecc_uncorrected_aggregate=7, remapped_corrected=2, remapped_uncorrected=3),
    "remap failed": changed("1xH200", 0, remap_failed=1, remap_pending=1),
    "retired": changed("1xT4", 0, retired_single_bit=[4096, 8192], retired_double_bit=[65536], retirement_pending=1),
    "links down": changed("2xH200", 1, nvlinks_up=14),
    "who": changed(
        "1xH200",
        0,
        processes=[{"pid": 30, "memory_used": 5 * MIB}, {"pid": 10}],
        graphics_processes=[{"pid": 20, "memory_used": 6 * MIB}, {"pid": 30, "memory_used": 5 * MIB}],
    ),
    "narrow": changed("1xL40S", 0, pcie_width=8),
    "exclusive": changed("1xL40S", 0, compute_mode=3, persistence_mode=0, ecc_mode=0),
    "odd": changed("2xH200", 0, compute_mode=9, architecture=99, fabric={"state": 9, "status": 1, "clique": 3}),
    "degraded": health(0b01),
    "healthy mask": health(0b10 | 0b10 << 2 | 0b10 << 4 | 0b10 << 6 | 1 << 8),
    "all unhealthy": health(1 | 1 << 2 | 1 << 4 | 1 << 6 | 4 << 8),
    "no bytes": changed("1xH200", 0, memory_total=0),
    "memory refused": faulty("2xH200", "nvmlDeviceGetMemoryInfo", 4),
    "name fails": faulty("2xH200", "nvmlDeviceGetName", 999),
    "lost at once": faulty("2xH200", "*", 15),
    "lost at the links": faulty("2xH200", "nvmlDeviceGetP2PStatus", 15),
    "reset midway": faulty("2xH200", "nvmlDeviceGetComputeMode", 16),
    "old fabric": faulty("2xH200", "nvmlDeviceGetGpuFabricInfo", 25, times=2),
    "older fabric": faulty("2xH200", "nvmlDeviceGetGpuFabricInfo", 13, times=1),
    "one link silent": faulty("2xH200", "nvmlDeviceGetNvLinkState", 10, after=3, times=2),
    "no gpu": {**profiles.profile("1xH200"), "gpus": []},
    "no cuda": {k: v for k, v in profiles.profile("1xH200").items() if k not in ("cuda_driver_version",)},
}


@pytest.fixture(scope="module")
def readings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Reading]:
    return read_hosts(HOSTS, tmp_path_factory.mktemp("hosts"))


@pytest.fixture(scope="module")
def seen(readings: dict[str, Reading]) -> dict[str, GpuInventory]:
    return {name: reading.inventory for name, reading in readings.items()}


@pytest.mark.parametrize("name", [n for n in PROFILES if n not in ("mismatch", "not-loaded", "no-permission")])
def test_every_profile_is_read(seen: dict[str, GpuInventory], name: str) -> None:
    host, read = HOSTS[name], seen[name]
    assert (read.state, read.driver, len(read.gpus)) == ("ok", host["driver_version"], len(host["gpus"]))
    for gpu, told in zip(read.gpus, host["gpus"], strict=True):
        if gpu.error is None:
            assert (gpu.name, gpu.uuid, gpu.pci_id) == (told["name"], told["uuid"], told["pci_bus_id"])
            assert gpu.memory_total == told.get("memory_total")
            assert gpu.compute_capability == f"{told['compute_capability_major']}.{told['compute_capability_minor']}"
    first = min(len(read.gpus), 16)
    alive = [gpu.index for gpu in read.gpus[:first] if gpu.error is None]
    assert [(link.first, link.second) for link in read.links] == [(a, b) for a in alive for b in alive if a < b]


def test_a_gpu_says_everything_that_there_is_a_field_for(seen: dict[str, GpuInventory]) -> None:
    assert seen["8xH200"].gpus[5] == Gpu(
        index=5,
        uuid=HOSTS["8xH200"]["gpus"][5]["uuid"],
        name="NVIDIA H200",
        pci_id="00000000:BB:00.0",
        architecture="hopper",
        compute_capability="9.0",
        memory_total=143771 * MIB,
        memory_free=(143771 - 604) * MIB,
        unified_memory=False,
        mig=False,
        mig_pending=False,
        ecc=True,
        ecc_pending=True,
        ecc_uncorrected=0,
        ecc_uncorrected_aggregate=0,
        rows_remapped=0,
        row_remap_pending=False,
        row_remap_failed=False,
        compute_mode="default",
        persistence=True,
        pcie_generation=5,
        pcie_generation_max=5,
        pcie_width=16,
        pcie_width_max=16,
        nvlinks_up=18,
        nvlinks_down=0,
        fabric=Fabric("completed", 0, None, 0),
    )


def test_no_field_is_left_unread(seen: dict[str, GpuInventory]) -> None:
    told = [gpu for inventory in seen.values() for gpu in inventory.gpus]
    never = [f.name for f in fields(Gpu) if all(getattr(gpu, f.name) in (None, ()) for gpu in told)]
    assert never == []


@pytest.mark.parametrize(
    ("name", "architecture", "links", "mig", "fabric", "generation"),
    [
        ("8xA100", "ampere", 12, False, False, (4, 4)),
        ("8xH100", "hopper", 18, False, True, (5, 5)),
        ("8xB200", "blackwell", 18, False, True, (5, 5)),
        ("72xGB200", "blackwell", 18, False, True, (5, 5)),
        ("4xL40S", "ada", None, None, False, (1, 4)),
        ("8xRTXPRO6000", "blackwell", None, False, False, (1, 5)),
        ("1xT4", "turing", None, None, False, (1, 3)),
        ("gb10", "blackwell", None, None, False, (1, 1)),
    ],
)
def test_products_differ_in_what_they_have(
    seen: dict[str, GpuInventory],
    name: str,
    architecture: str,
    links: int | None,
    mig: bool | None,
    fabric: bool,
    generation: tuple[int, int],
) -> None:
    for gpu in seen[name].gpus:
        assert (gpu.architecture, gpu.nvlinks_up, gpu.mig) == (architecture, links, mig)
        assert (gpu.fabric is not None, (gpu.pcie_generation, gpu.pcie_generation_max)) == (fabric, generation)


def test_a_gpu_that_shares_the_hosts_memory_is_well(seen: dict[str, GpuInventory]) -> None:
    (gpu,) = seen["gb10"].gpus
    assert (gpu.error, gpu.unified_memory, gpu.memory_total, gpu.memory_free) == (None, True, None, None)
    assert (gpu.ecc, gpu.rows_remapped, gpu.pages_retired) == (None, None, None)
    assert gpu.processes == (GpuProcess(2020, 43 * MIB, graphics=True),)
    assert seen["no bytes"].gpus[0].unified_memory


def test_memory_that_this_user_may_not_see_is_unknown_and_the_gpu_is_well(seen: dict[str, GpuInventory]) -> None:
    gpu = seen["memory refused"].gpus[1]
    assert (gpu.error, gpu.unified_memory, gpu.memory_total, gpu.memory_free) == (None, None, None, None)
    assert gpu.compute_mode == "default"


def test_slices_of_a_gpu(seen: dict[str, GpuInventory]) -> None:
    cut, whole = seen["a100-mig"].gpus
    assert (cut.mig, whole.mig, whole.mig_devices) == (True, False, ())
    told = [(d.name, d.memory_total, d.gpu_instance, d.compute_instance) for d in cut.mig_devices]
    name = "NVIDIA A100-SXM4-80GB MIG"
    assert told == [
        (f"{name} 3g.40gb", 40192 * MIB, 2, 0),
        (f"{name} 2g.20gb", 19968 * MIB, 3, 0),
        (f"{name} 1g.10gb", 9728 * MIB, 9, 0),
        (f"{name} 1g.10gb", 9728 * MIB, 10, 0),
    ]
    assert [d.memory_free for d in cut.mig_devices][2:] == [(9728 - 12) * MIB, (9728 - 9000) * MIB]
    assert len({d.uuid for d in cut.mig_devices}) == 4
    assert len(seen["mig"].gpus[0].mig_devices) == 7


def test_what_waits_for_a_reset(seen: dict[str, GpuInventory]) -> None:
    gpu = seen["pending"].gpus[0]
    assert (gpu.mig, gpu.mig_pending, gpu.ecc, gpu.ecc_pending) == (False, True, True, False)


def test_worn_memory(seen: dict[str, GpuInventory]) -> None:
    gpu = seen["ecc"].gpus[0]
    assert (gpu.ecc_uncorrected, gpu.ecc_uncorrected_aggregate, gpu.row_remap_pending) == (3, 9, True)
    gpu = seen["aggregate"].gpus[0]
    assert (gpu.ecc_uncorrected, gpu.ecc_uncorrected_aggregate, gpu.rows_remapped) == (0, 7, 5)
    assert (seen["remap failed"].gpus[0].row_remap_failed, gpu.row_remap_failed) == (True, False)
    old = seen["retired"].gpus[0]
    assert (old.pages_retired, old.page_retirement_pending, old.rows_remapped) == (3, True, None)
    assert (gpu.pages_retired, gpu.page_retirement_pending) == (None, None)


def test_nvlinks_are_counted(seen: dict[str, GpuInventory]) -> None:
    assert [(g.nvlinks_up, g.nvlinks_down) for g in seen["links down"].gpus] == [(18, 0), (14, 4)]
    assert [(g.nvlinks_up, g.nvlinks_down) for g in seen["one link silent"].gpus] == [(18, 0), (16, 0)]


def test_the_place_in_the_host(seen: dict[str, GpuInventory]) -> None:
    narrow = seen["narrow"].gpus[0]
    assert (narrow.pcie_width, narrow.pcie_width_max) == (8, 16)
    assert seen["8xH200"].links[0] == GpuLink(0, 1, "node", True, "ok")
    assert seen["8xH200"].links[-1].ancestor == "node"
    assert GpuLink(3, 4, "system", True, "ok") in seen["8xH200"].links
    assert seen["1xH200"].links == ()


def test_modes(seen: dict[str, GpuInventory]) -> None:
    gpu = seen["exclusive"].gpus[0]
    assert (gpu.compute_mode, gpu.persistence, gpu.ecc) == ("exclusive-process", False, False)
    assert gpu.ecc_uncorrected is None


def test_the_fabric(seen: dict[str, GpuInventory]) -> None:
    assert seen["4xGB200"].gpus[3].fabric == Fabric("completed", 0, GB200_CLUSTER, 32766)
    assert {gpu.fabric for gpu in seen["fabric-down"].gpus} == {Fabric("in-progress", 0, None, 0)}
    told = {name: seen[name].gpus[0].fabric for name in ("degraded", "healthy mask", "all unhealthy")}
    assert told["degraded"] == Fabric("completed", 0, None, 0, ("degraded-bandwidth",))
    assert told["healthy mask"] == Fabric("completed", 0, None, 0)
    every = ("degraded-bandwidth", "route-recovery", "route-unhealthy", "access-timeout", "incorrect-configuration")
    assert told["all unhealthy"] == Fabric("completed", 0, None, 0, every)


@pytest.mark.parametrize("name", ["old fabric", "older fabric"])
def test_older_drivers_tell_of_the_fabric_in_their_own_form(seen: dict[str, GpuInventory], name: str) -> None:
    assert seen[name].gpus[1].fabric == Fabric("completed", 0, None, 0)


def test_numbers_that_no_header_knows_yet(seen: dict[str, GpuInventory]) -> None:
    gpu = seen["odd"].gpus[0]
    assert (gpu.error, gpu.architecture, gpu.compute_mode) == (None, None, "9")
    assert gpu.fabric == Fabric(None, 1, None, 3)


def test_who_holds_memory(seen: dict[str, GpuInventory]) -> None:
    processes = seen["who"].gpus[0].processes
    assert processes == (GpuProcess(10, None), GpuProcess(20, 6 * MIB, graphics=True), GpuProcess(30, 5 * MIB))
    assert seen["busy"].gpus[1].processes == (GpuProcess(4242, 119_000 * MIB),)


@pytest.mark.parametrize(
    ("name", "index", "error", "known"),
    [
        ("lost", 5, "lost: GPU is lost", False),
        ("lost at once", 1, "lost: GPU is lost", False),
        ("name fails", 1, "lost: Unknown Error", False),
        ("lost-midway", 5, "lost: GPU is lost", True),
        ("reset midway", 1, "lost: GPU requires restart", True),
    ],
)
def test_a_gpu_that_is_gone_says_nothing_but_who_it_was(
    seen: dict[str, GpuInventory], name: str, index: int, error: str, known: bool
) -> None:
    gpus = seen[name].gpus
    told = HOSTS[name]["gpus"][index]
    assert gpus[index] == Gpu(index, gpus[index].uuid, gpus[index].name, gpus[index].pci_id, error=error)
    if known:
        assert (gpus[index].uuid, gpus[index].name, gpus[index].pci_id) == (
            told["uuid"],
            told["name"],
            told["pci_bus_id"],
        )
    well = seen["8xH200" if len(gpus) == 8 else "2xH200"].gpus
    assert [g for g in gpus if g.index != index] == [g for g in well if g.index != index]
    assert not [link for link in seen[name].links if index in (link.first, link.second)]


def test_a_gpu_lost_between_two_questions_about_links_is_not_guessed(seen: dict[str, GpuInventory]) -> None:
    read = seen["lost at the links"]
    assert [gpu.error for gpu in read.gpus] == [None, None]
    assert read.links == (GpuLink(0, 1, "system"),)


@pytest.mark.parametrize(
    ("name", "state"),
    [("mismatch", "mismatch"), ("not-loaded", "driver-not-loaded"), ("no-permission", "no-permission")],
)
def test_a_driver_that_cannot_be_asked(seen: dict[str, GpuInventory], name: str, state: str) -> None:
    assert seen[name] == GpuInventory(state, detail=seen[name].detail)
    assert seen[name].detail


def test_a_host_without_gpus_or_without_a_version(seen: dict[str, GpuInventory]) -> None:
    assert seen["no gpu"] == GpuInventory("ok", driver="580.95.05", cuda="13.0")
    assert seen["no cuda"] == replace(seen["1xH200"], cuda=None)


def test_the_largest_host(readings: dict[str, Reading], seen: dict[str, GpuInventory]) -> None:
    read = seen["1024xH200"]
    assert [gpu.index for gpu in read.gpus] == list(range(1024))
    assert {(gpu.error, gpu.nvlinks_up) for gpu in read.gpus} == {(None, 18)}
    assert len(read.links) == 16 * 15 // 2


def test_a_gpu_that_hangs_is_told_of_as_one_that_does_not_answer(tmp_path) -> None:
    hosts = {"hangs": profiles.profile("hangs"), "well": profiles.profile("8xH200")}
    assert hosts["hangs"]["gpus"][5]["faults"]["nvmlDeviceGetEccMode"]["hang_ms"] >= 3_600_000
    # In processes of their own: the double keeps the host that hangs until all calls have come back.
    read = {name: read_hosts({name: host}, tmp_path, limit=3.0)[name].inventory for name, host in hosts.items()}
    assert [gpu.error for gpu in read["well"].gpus] == [None] * 8
    assert read["hangs"].gpus[5] == Gpu(5, error="no answer in time: NVML hangs")
    for kept in ("gpus", "links"):
        others = [item for item in getattr(read["well"], kept) if 5 not in _indices(item)]
        assert [item for item in getattr(read["hangs"], kept) if 5 not in _indices(item)] == others


def _indices(item: Gpu | GpuLink) -> tuple[int, ...]:
    return (item.index,) if isinstance(item, Gpu) else (item.first, item.second)
