"""The NVML double through the real pynvml: every profile, every fault, and a reader that no file can crash."""

import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pynvml
import pytest

from tests.lib import lab
from tests.lib.nvml import profiles

# Runs in a process of its own, because the loader reads LD_LIBRARY_PATH only at its start.
READER = """
import json, sys
import pynvml as nvml

def ask(call, *args):
    try:
        return call(*args)
    except nvml.NVMLError as error:
        return {"error": error.value}

def part(handle, parent):
    whole = nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle)
    return [nvml.nvmlDeviceGetName(handle), nvml.nvmlDeviceGetMemoryInfo(handle).total,
            bool(nvml.nvmlDeviceIsMigDeviceHandle(handle)), nvml.nvmlDeviceGetUUID(whole) == parent,
            nvml.nvmlDeviceGetAttributes(handle).multiprocessorCount]

def p2p():
    first, second = (nvml.nvmlDeviceGetHandleByIndex(i) for i in (0, 1))
    return nvml.nvmlDeviceGetP2PStatus(first, second, 0)  # 0: read capability

def gpu(index):
    handle = ask(nvml.nvmlDeviceGetHandleByIndex, index)
    if isinstance(handle, dict):
        return handle
    memory, memory_v2 = nvml.nvmlDeviceGetMemoryInfo(handle), nvml.nvmlDeviceGetMemoryInfo(handle, nvml.nvmlMemory_v2)
    fabric = nvml.c_nvmlGpuFabricInfo_v3_t()
    ask(nvml.nvmlDeviceGetGpuFabricInfoV, handle, nvml.byref(fabric))
    pci = nvml.nvmlDeviceGetPciInfo(handle)
    processes = nvml.nvmlDeviceGetComputeRunningProcesses(handle)
    parts = [nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, i) for i in range(7)
             if not isinstance(ask(nvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, i), dict)]
    return {
        "name": nvml.nvmlDeviceGetName(handle), "uuid": nvml.nvmlDeviceGetUUID(handle),
        "index": nvml.nvmlDeviceGetIndex(handle), "minor": nvml.nvmlDeviceGetMinorNumber(handle),
        "total": memory.total, "free": memory.free, "used": memory.used,
        "reserved": memory_v2.reserved, "used_v2": memory_v2.used, "total_v2": memory_v2.total,
        "pci": pci.busId, "pci_legacy": pci.busIdLegacy, "bus": pci.bus, "domain": pci.domain,
        "compute": nvml.nvmlDeviceGetCudaComputeCapability(handle), "mig": nvml.nvmlDeviceGetMigMode(handle),
        "architecture": nvml.nvmlDeviceGetArchitecture(handle), "brand": nvml.nvmlDeviceGetBrand(handle),
        "ecc": nvml.nvmlDeviceGetEccMode(handle), "remapped": nvml.nvmlDeviceGetRemappedRows(handle),
        "uncorrected": nvml.nvmlDeviceGetTotalEccErrors(handle, 1, 0),
        "pages": ask(nvml.nvmlDeviceGetRetiredPages, handle, 0),
        "compute_mode": nvml.nvmlDeviceGetComputeMode(handle), "persistence": nvml.nvmlDeviceGetPersistenceMode(handle),
        "temperature": [nvml.nvmlDeviceGetTemperature(handle, 0), nvml.nvmlDeviceGetTemperatureV(handle, 0)],
        "utilization": nvml.nvmlDeviceGetUtilizationRates(handle).gpu if not parts else None,
        "power": nvml.nvmlDeviceGetPowerUsage(handle), "cores": nvml.nvmlDeviceGetNumGpuCores(handle),
        "processes": [(p.pid, p.usedGpuMemory) for p in processes], "fabric": [fabric.state, fabric.status],
        "links": [ask(nvml.nvmlDeviceGetNvLinkState, handle, i) for i in (0, 17, 18)],
        "parts": [part(p, nvml.nvmlDeviceGetUUID(handle)) for p in parts],
        "by_uuid": nvml.nvmlDeviceGetIndex(nvml.nvmlDeviceGetHandleByUUID(nvml.nvmlDeviceGetUUID(handle))),
        "by_bus": nvml.nvmlDeviceGetIndex(nvml.nvmlDeviceGetHandleByPciBusId(pci.busId)),
    }

started = ask(nvml.nvmlInit)
if started is not None:
    print(json.dumps({"init": started["error"], "text": nvml.nvmlErrorString(started["error"])}))
    sys.exit()
count = nvml.nvmlDeviceGetCount()
print(json.dumps({
    "driver": ask(nvml.nvmlSystemGetDriverVersion), "cuda": ask(nvml.nvmlSystemGetCudaDriverVersion_v2),
    "nvml": ask(nvml.nvmlSystemGetNVMLVersion), "gpus": [gpu(i) for i in range(count)], "beyond": gpu(count),
    "unknown_uuid": ask(nvml.nvmlDeviceGetHandleByUUID, "GPU-00000000"),
    "p2p": ask(p2p),
    "shutdown": [ask(nvml.nvmlShutdown), ask(nvml.nvmlDeviceGetCount)],
}))
"""

Ask = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def double(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("double")


@pytest.fixture
def ask(double: Path, tmp_path: Path) -> Ask:
    """Everything that pynvml says of a host, given by profile name or as its description."""

    def ask_host(host: str | dict[str, Any]) -> dict[str, Any]:
        env = lab.double_environment(host if isinstance(host, str) else "1xH200", double)
        if not isinstance(host, str):
            file = tmp_path / "host.json"
            file.write_text(json.dumps(host))
            env["NVML_DOUBLE_JSON"] = str(file)
        done = subprocess.run(
            [sys.executable, "-c", READER], env=env, capture_output=True, text=True, timeout=60, check=True
        )
        return dict(json.loads(done.stdout))

    return ask_host


FACTS = {
    "H200": ("NVIDIA H200", 150_754_820_096, [9, 0]),
    "H100": ("NVIDIA H100 80GB HBM3", 85_520_809_984, [9, 0]),
    "B200": ("NVIDIA B200", 192_265_846_784, [10, 0]),
    "GB200": ("NVIDIA GB200", 198_674_743_296, [10, 0]),
}


@pytest.mark.parametrize(
    "name", ["1xH200", "2xH200", "8xH200", "1xH100", "2xH100", "8xH100", "1xB200", "2xB200", "8xB200", "72xGB200"]
)
def test_a_healthy_host_is_what_its_name_says(ask: Ask, name: str) -> None:
    count, model = name.split("x")
    seen = ask(name)
    assert (seen["driver"], seen["cuda"], seen["nvml"]) == ("580.95.05", 13000, "13.580.95.05")
    assert [(g["name"], g["total"], g["compute"]) for g in seen["gpus"]] == [FACTS[model]] * int(count)
    assert [g["index"] for g in seen["gpus"]] == list(range(int(count)))
    for unique in ("uuid", "pci", "minor"):
        assert len({g[unique] for g in seen["gpus"]}) == int(count)
    assert all(g["by_uuid"] == g["by_bus"] == g["index"] for g in seen["gpus"])
    assert seen["beyond"] == {"error": pynvml.NVML_ERROR_INVALID_ARGUMENT}
    assert seen["unknown_uuid"] == {"error": pynvml.NVML_ERROR_NOT_FOUND}


def test_memory_counts_the_reserved_bytes_as_the_driver_does(ask: Ask) -> None:
    gpu = ask("1xH200")["gpus"][0]
    assert gpu["used"] == gpu["reserved"] + gpu["used_v2"] > 0
    assert gpu["free"] + gpu["used"] == gpu["total"] == gpu["total_v2"]


def test_a_gpu_tells_its_health_links_and_address(ask: Ask) -> None:
    gpu = ask("2xH200")["gpus"][0]
    assert (gpu["pci"], gpu["pci_legacy"], gpu["domain"], gpu["bus"]) == ("00000000:19:00.0", "0000:19:00.0", 0, 0x19)
    assert (gpu["ecc"], gpu["uncorrected"], gpu["remapped"]) == ([1, 1], 0, [0, 0, 0, 0])
    assert gpu["pages"] == {"error": pynvml.NVML_ERROR_NOT_SUPPORTED}
    assert (gpu["compute_mode"], gpu["persistence"], gpu["mig"], gpu["processes"]) == (0, 1, [0, 0], [])
    assert gpu["links"] == [1, 1, {"error": pynvml.NVML_ERROR_INVALID_ARGUMENT}]
    assert gpu["fabric"] == [pynvml.NVML_GPU_FABRIC_STATE_COMPLETED, 0]
    assert (gpu["architecture"], gpu["brand"]) == (pynvml.NVML_DEVICE_ARCH_HOPPER, pynvml.NVML_BRAND_NVIDIA)
    assert gpu["temperature"][0] == gpu["temperature"][1] > 0


def test_gpus_with_links_reach_each_other(ask: Ask) -> None:
    assert ask("2xH200")["p2p"] == pynvml.NVML_P2P_STATUS_OK


def test_mixed_has_one_gpu_of_each(ask: Ask) -> None:
    assert [g["name"] for g in ask("mixed")["gpus"]] == ["NVIDIA H100 80GB HBM3", "NVIDIA H200"]


def test_mig_cuts_the_first_gpu_into_seven(ask: Ask) -> None:
    first, second = ask("mig")["gpus"]
    assert (first["mig"], second["mig"]) == ([1, 1], [0, 0])
    assert first["parts"] == [["NVIDIA H100 80GB HBM3 MIG 1g.10gb", 9984 << 20, True, True, 16]] * 7
    assert second["parts"] == []


def test_a_lost_gpu_answers_nothing_and_the_others_everything(ask: Ask) -> None:
    gpus = ask("lost")["gpus"]
    assert gpus[5] == {"error": pynvml.NVML_ERROR_GPU_IS_LOST}
    assert [g["name"] for i, g in enumerate(gpus) if i != 5] == ["NVIDIA H200"] * 7


@pytest.mark.parametrize(
    ("name", "code", "text"),
    [
        ("mismatch", pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH, "Driver/library version mismatch"),
        ("not-loaded", pynvml.NVML_ERROR_DRIVER_NOT_LOADED, "Driver Not Loaded"),
        ("no-permission", pynvml.NVML_ERROR_NO_PERMISSION, "Insufficient Permissions"),
    ],
)
def test_a_broken_driver_fails_at_init(ask: Ask, name: str, code: int, text: str) -> None:
    assert ask(name) == {"init": code, "text": text}


def test_an_old_driver_says_so(ask: Ask) -> None:
    seen = ask("driver-550")
    assert (seen["driver"], seen["cuda"]) == ("550.163.01", 12040)


def test_a_busy_gpu_names_its_process(ask: Ask) -> None:
    idle, busy = ask("busy")["gpus"]
    assert (idle["processes"], busy["processes"]) == ([], [[4242, 119_000 << 20]])
    assert busy["free"] < idle["free"] - (100_000 << 20)


def test_ecc_errors_and_a_pending_remap_are_told(ask: Ask) -> None:
    sick, well = ask("ecc")["gpus"]
    assert (sick["uncorrected"], sick["remapped"]) == (3, [0, 0, 1, 0])
    assert (well["uncorrected"], well["remapped"]) == (0, [0, 0, 0, 0])


def test_a_fabric_that_is_not_up_is_in_progress(ask: Ask) -> None:
    assert {tuple(g["fabric"]) for g in ask("fabric-down")["gpus"]} == {(pynvml.NVML_GPU_FABRIC_STATE_IN_PROGRESS, 0)}


def test_one_call_can_fail_on_its_own(ask: Ask) -> None:
    host = profiles.profile("2xH200") | {"faults": {"nvmlSystemGetDriverVersion": {"error": 999}}}
    seen = ask(host)
    assert seen["driver"] == {"error": 999}
    assert len(seen["gpus"]) == 2


def test_after_shutdown_nothing_answers(ask: Ask) -> None:
    assert ask("1xH100")["shutdown"] == [None, {"error": pynvml.NVML_ERROR_UNINITIALIZED}]


def test_a_value_that_is_missing_is_not_supported(ask: Ask) -> None:
    host = profiles.profile("1xH200")
    del host["cuda_driver_version"]
    assert ask(host)["cuda"] == {"error": pynvml.NVML_ERROR_NOT_SUPPORTED}


def test_a_call_can_hang(double: Path, tmp_path: Path) -> None:
    file = tmp_path / "host.json"
    file.write_text(json.dumps(profiles.profile("1xH200") | {"faults": {"nvmlDeviceGetCount": {"hang_ms": 3_600_000}}}))
    env = lab.double_environment("1xH200", double) | {"NVML_DOUBLE_JSON": str(file)}
    script = (
        "import pynvml; pynvml.nvmlInit(); print('asks', flush=True); pynvml.nvmlDeviceGetCount(); print('answered')"
    )
    with subprocess.Popen([sys.executable, "-c", script], env=env, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "asks\n"
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(timeout=0.5)
        child.kill()
        assert child.stdout.read() == ""


def test_beside_the_library_is_where_it_looks_without_a_variable(double: Path, tmp_path: Path) -> None:
    env = lab.double_environment("8xB200", double)
    library = Path(env["LD_LIBRARY_PATH"]) / "libnvidia-ml.so.1"
    (tmp_path / library.name).symlink_to(library)
    (tmp_path / f"{library.name}.json").write_text(Path(env.pop("NVML_DOUBLE_JSON")).read_text())
    script = "import pynvml; pynvml.nvmlInit(); print(pynvml.nvmlDeviceGetCount())"
    env["LD_LIBRARY_PATH"] = str(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", script], env=env, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "8\n"


def test_without_device_nodes_a_container_sees_no_gpu(ask: Ask) -> None:
    if list(Path("/dev").glob("nvidia[0-9]*")):
        pytest.skip("this machine has real GPU nodes")
    assert ask(profiles.profile("2xH200") | {"visible_by_device_nodes": True})["gpus"] == []


def test_the_library_loads_in_an_older_debian(double: Path) -> None:
    """No symbol newer than glibc 2.36 of Debian 12, whatever the machine that compiled it has."""
    library = Path(lab.double_environment("1xH200", double)["LD_LIBRARY_PATH"]) / "libnvidia-ml.so.1"
    versions = {part.split(b"\0")[0].decode() for part in library.read_bytes().split(b"GLIBC_")[1:]}
    assert versions
    assert max(tuple(map(int, version.split("."))) for version in versions) <= (2, 36)


BROKEN = {
    "empty": "",
    "not json": "gpus: 8",
    "unfinished": '{"gpus": [{"name": "NVIDIA H200"',
    "trailing": '{"gpus": []} x',
    "not an object": "[1, 2]",
    "bad escape": r'{"driver_version": "\x41"}',
    "lone quote": '{"driver_version": "',
    "lone backslash": '{"driver_version": "\\',
    "number too large": '{"cuda_driver_version": 99999999999999999999}',
    "exponent": '{"cuda_driver_version": 1e4}',
    "deep": '{"a":' + "[" * 100_000 + "]" * 100_000 + "}",
    "missing colon": '{"a" 1}',
    "NUL": '{"a": "\0"}',
}

# Reads every file of a folder in one process and prints the outcome of nvmlInit and of the count.
FUZZER = """
import ctypes, os, sys
library = ctypes.CDLL("libnvidia-ml.so.1")
libc = ctypes.CDLL(None)
for name in sorted(os.listdir(sys.argv[1])):
    libc.setenv(b"NVML_DOUBLE_JSON", os.path.join(sys.argv[1], name).encode(), 1)
    code, count = library.nvmlInit_v2(), ctypes.c_uint(0)
    if code == 0:
        library.nvmlDeviceGetCount_v2(ctypes.byref(count))
        for index in range(count.value):
            handle, text = ctypes.c_void_p(), ctypes.create_string_buffer(96)
            library.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(handle))
            library.nvmlDeviceGetName(handle, text, 96)
            library.nvmlDeviceGetPciInfo_v3(handle, ctypes.create_string_buffer(256))
        library.nvmlShutdown()
    print(code, count.value)
"""


def read_files(double: Path, folder: Path) -> list[list[int]]:
    env = lab.double_environment("1xH200", double)
    argv = [sys.executable, "-c", FUZZER, str(folder)]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=120, check=True)
    return [[int(word) for word in line.split()] for line in done.stdout.splitlines()]


@pytest.mark.parametrize("kind", BROKEN)
def test_a_file_that_is_not_a_host_is_an_error(double: Path, tmp_path: Path, kind: str) -> None:
    (tmp_path / "host.json").write_text(BROKEN[kind])
    assert read_files(double, tmp_path) == [[pynvml.NVML_ERROR_UNKNOWN, 0]]


def test_a_missing_file_is_an_error(double: Path, tmp_path: Path) -> None:
    (tmp_path / "host.json").symlink_to(tmp_path / "nothing")
    assert read_files(double, tmp_path) == [[pynvml.NVML_ERROR_UNKNOWN, 0]]


def test_json_of_any_shape_is_read(double: Path, tmp_path: Path) -> None:
    gpu = {
        "name": 'q"\\/\b\f\n\r\t\u00e9\u20ac',
        "memory_total": 1.5,
        "a": [None, True, False, -3, {}, [], "", {"x": [1]}],
    }
    (tmp_path / "1.json").write_text(json.dumps({"gpus": [gpu, gpu]}))
    (tmp_path / "2.json").write_text(json.dumps({"gpus": [gpu]}, ensure_ascii=False, indent="\t"))
    (tmp_path / "3.json").write_text(json.dumps({"gpus": "none"}))
    (tmp_path / "4.json").write_text(json.dumps({"gpus": [1, "two", None]}))
    assert read_files(double, tmp_path) == [[0, 2], [0, 1], [0, 0], [0, 0]]


def test_no_damaged_file_crashes_the_reader(double: Path, tmp_path: Path) -> None:
    """Cuts, changed bytes and doubled pieces of a real description: an error or an answer, never a dead process."""
    whole = json.dumps(profiles.profile("mig")).encode()
    dice = random.Random(580)
    for number in range(400):
        damaged = bytearray(whole)
        for _ in range(dice.randint(1, 8)):
            at = dice.randrange(len(damaged))
            match dice.randrange(3):
                case 0:
                    damaged[at] = dice.choice(b'{}[]",:\\0-x\x01\xff')
                case 1:
                    del damaged[at : at + dice.randint(1, 200)]
                case _:
                    damaged[at:at] = damaged[at : at + dice.randint(1, 50)]
        (tmp_path / f"{number:03}.json").write_bytes(damaged)
    outcomes = read_files(double, tmp_path)
    assert len(outcomes) == 400
    assert {code for code, _ in outcomes} == {0, pynvml.NVML_ERROR_UNKNOWN}


# Asks every call that engines and their libraries make besides those of READER, whole and with too little room.
OTHERS = """
import ctypes, json
import pynvml as nvml

def ask(call, *args):
    try:
        return call(*args)
    except nvml.NVMLError as error:
        return -error.value

nvml.nvmlInit()
handle = nvml.nvmlDeviceGetHandleByIndex(0)
v1, v2 = nvml.c_nvmlGpuFabricInfo_t(), nvml.c_nvmlGpuFabricInfo_v2_t()
print(json.dumps({
    "nodes": list(nvml.nvmlDeviceGetMemoryAffinity(handle, 16, 0))[:2],
    "processors": list(nvml.nvmlDeviceGetCpuAffinity(handle, 16))[:2],
    "own node": ask(nvml.nvmlDeviceGetNumaNodeId, handle),
    "addressing": nvml.nvmlDeviceGetAddressingMode(handle),
    "clock": nvml.nvmlDeviceGetClockInfo(handle, 1),
    "pages": [ask(lambda cause: list(nvml.nvmlDeviceGetRetiredPages(handle, cause)), cause) for cause in (0, 1, 2)],
    "pages_v2": ask(lambda: [page["address"] for page in nvml.nvmlDeviceGetRetiredPages_v2(handle, 1)]),
    "pending": ask(nvml.nvmlDeviceGetRetiredPagesPendingStatus, handle),
    "rows": ask(nvml.nvmlDeviceGetRemappedRows, handle),
    "memory": ask(lambda: nvml.nvmlDeviceGetMemoryInfo(handle).total),
    "memory_v2": ask(lambda: nvml.nvmlDeviceGetMemoryInfo(handle, nvml.nvmlMemory_v2).total),
    "ecc": ask(nvml.nvmlDeviceGetEccMode, handle),
    "mig": ask(nvml.nvmlDeviceGetMigMode, handle),
    "pcie": [nvml.nvmlDeviceGetCurrPcieLinkGeneration(handle), nvml.nvmlDeviceGetMaxPcieLinkGeneration(handle),
             nvml.nvmlDeviceGetCurrPcieLinkWidth(handle), nvml.nvmlDeviceGetMaxPcieLinkWidth(handle)],
    "graphics": [p.pid for p in nvml.nvmlDeviceGetGraphicsRunningProcesses(handle)],
    "link": ask(nvml.nvmlDeviceGetNvLinkState, handle, 0),
    "capability": ask(nvml.nvmlDeviceGetNvLinkCapability, handle, 0, 0),
    "fabric": [ask(nvml.nvmlDeviceGetGpuFabricInfo, handle, nvml.byref(v1)), v1.state,
               ask(nvml.nvmlDeviceGetGpuFabricInfoV, handle, nvml.byref(v2)), v2.state, bytes(v2.clusterUuid).hex()],
    "names": [ask(nvml.nvmlDeviceGetName, handle) for _ in range(4)],
}))
"""


@pytest.fixture
def others(double: Path, tmp_path: Path) -> Ask:
    def ask_host(host: str, **changes: Any) -> dict[str, Any]:
        described = profiles.profile(host)
        described["gpus"][0] |= changes
        file = tmp_path / "host.json"
        file.write_text(json.dumps(described))
        env = lab.double_environment("1xH200", double) | {"NVML_DOUBLE_JSON": str(file)}
        argv = [sys.executable, "-c", OTHERS]
        done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, check=True)
        return dict(json.loads(done.stdout))

    return ask_host


NOT_SUPPORTED = -pynvml.NVML_ERROR_NOT_SUPPORTED


def test_a_gpu_that_shares_the_hosts_memory_tells_of_none(others: Ask) -> None:
    seen = others("gb10")
    absent = ("memory", "memory_v2", "rows", "pending", "ecc", "mig", "link", "capability")
    assert {key: seen[key] for key in absent} == dict.fromkeys(absent, NOT_SUPPORTED)
    assert seen["pages"] == [NOT_SUPPORTED, NOT_SUPPORTED, -pynvml.NVML_ERROR_INVALID_ARGUMENT]
    assert (seen["pcie"], seen["graphics"], seen["addressing"]) == ([1, 1, 1, 1], [2020], 2)


def test_an_old_gpu_retires_pages_and_remaps_no_rows(others: Ask) -> None:
    seen = others("1xT4", retired_single_bit=[4096, 8192], retired_double_bit=[65536], retirement_pending=1)
    assert (seen["pages"][:2], seen["pages_v2"], seen["pending"]) == ([[4096, 8192], [65536]], [65536], 1)
    assert seen["rows"] == NOT_SUPPORTED


def test_a_gpu_knows_its_place(others: Ask) -> None:
    seen = others("4xGB200", numa_node=1)
    assert (seen["nodes"], seen["processors"], seen["own node"]) == ([2, 0], [0, 2**64 - 1], 2)
    state, cluster = pynvml.NVML_GPU_FABRIC_STATE_COMPLETED, profiles.profile("4xGB200")["gpus"][0]["fabric"]["cluster"]
    assert seen["fabric"] == [0, state, 0, state, cluster]
    assert others("1xH200")["own node"] == NOT_SUPPORTED


def test_an_idle_gpu_may_have_slowed_its_bus_and_a_mode_may_wait_for_a_reset(others: Ask) -> None:
    seen = others("4xL40S", ecc_mode_pending=0)
    assert (seen["pcie"], seen["link"], seen["ecc"]) == ([1, 4, 16, 16], NOT_SUPPORTED, [1, 0])
    assert others("2xH200", mig_mode_pending=1)["mig"] == [0, 1]


@pytest.mark.parametrize(
    ("fault", "answers"),
    [
        ({"error": 15, "after": 2}, ["NVIDIA H200", "NVIDIA H200", -15, -15]),
        ({"error": 10, "times": 1}, [-10, "NVIDIA H200", "NVIDIA H200", "NVIDIA H200"]),
        ({"error": 10, "after": 1, "times": 2}, ["NVIDIA H200", -10, -10, "NVIDIA H200"]),
    ],
)
def test_a_fault_can_come_later_and_pass(others: Ask, fault: dict[str, int], answers: list[Any]) -> None:
    assert others("2xH200", faults={"nvmlDeviceGetName": fault})["names"] == answers


def test_slices_differ_in_size_and_tell_who_uses_them(ask: Ask) -> None:
    first, _ = ask("a100-mig")["gpus"]
    name = "NVIDIA A100-SXM4-80GB MIG"
    sizes = [("3g.40gb", 40192, 42), ("2g.20gb", 19968, 28), ("1g.10gb", 9728, 14), ("1g.10gb", 9728, 14)]
    assert first["parts"] == [[f"{name} {size}", mib << 20, True, True, cores] for size, mib, cores in sizes]


def test_as_many_gpus_as_the_largest_host_has(double: Path, tmp_path: Path) -> None:
    (tmp_path / "1024.json").write_text(json.dumps(profiles.profile("1024xB200")))
    assert read_files(double, tmp_path) == [[0, 1024]]


def test_threads_may_start_it_at_once(double: Path) -> None:
    script = """
import threading, pynvml
counts = []
def ask():
    for _ in range(200):
        pynvml.nvmlInit()
        counts.append(pynvml.nvmlDeviceGetCount())
        pynvml.nvmlShutdown()
threads = [threading.Thread(target=ask) for _ in range(8)]
[t.start() for t in threads], [t.join() for t in threads]
print(len(counts), set(counts))
"""
    env = lab.double_environment("8xB200", double)
    done = subprocess.run(
        [sys.executable, "-c", script], env=env, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "1600 {8}\n"
