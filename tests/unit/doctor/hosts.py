"""Hosts to judge: one that is well, and small changes of it."""

from dataclasses import replace
from itertools import combinations
from typing import Any

from nimctl.core import recipes
from nimctl.core.facts import (
    CacheFacts,
    CdiSpec,
    CredentialFacts,
    DaemonConfig,
    DiskFacts,
    DockerFacts,
    FabricManagerFacts,
    HostFacts,
    LimitFacts,
    NvidiaKernelFacts,
    PortFacts,
    SecurityFacts,
    SystemFacts,
    ToolFacts,
    ToolkitFacts,
)
from nimctl.core.gpus import Fabric, Gpu, GpuInventory, GpuLink
from nimctl.doctor import checks
from nimctl.doctor.model import Finding, Needs

GIB = 2**30
KIMI = recipes.load("kimi-k2.5")
NIM = recipes.load("kimi-k2.5-turbo")
NIM_PAGE = recipes.load("kimi-k2.5-nim")
DEMO = recipes.load("demo")


def gpu(index: int, **changes: Any) -> Gpu:
    return replace(
        Gpu(
            index=index,
            uuid=f"GPU-{index:08d}",
            name="NVIDIA H200",
            pci_id=f"00000000:{index + 16:02X}:00.0",
            compute_capability="9.0",
            memory_total=141 * GIB,
            memory_free=140 * GIB,
            mig=False,
            ecc=True,
            ecc_uncorrected=0,
            compute_mode="default",
            persistence=True,
            row_remap_pending=False,
            row_remap_failed=False,
            pcie_width=16,
            pcie_width_max=16,
            nvlinks_up=18,
            nvlinks_down=0,
            fabric=Fabric("completed", 0),
        ),
        **changes,
    )


def gpus(count: int = 8, **changes: Any) -> tuple[Gpu, ...]:
    return tuple(gpu(i, **changes) for i in range(count))


def inventory(*cards: Gpu, driver: str | None = "580.159.03", cuda: str | None = "13.0") -> GpuInventory:
    links = tuple(GpuLink(a.index, b.index, "node", True, "ok") for a, b in combinations(cards[:16], 2))
    return GpuInventory("ok", driver=driver, cuda=cuda, gpus=cards, links=links)


DISK = DiskFacts("/data", "xfs", "259:1", 4_000 * GIB, 3_000 * GIB, 10**9, read_only=False)
STORE = DiskFacts("/var/lib/docker", "ext4", "259:2", 500 * GIB, 300 * GIB, 10**7, read_only=False)

HEALTHY = HostFacts(
    nimctl="0.1.0",
    taken_at="2026-01-02T03:04:05+00:00",
    system=SystemFacts(
        os_id="ubuntu",
        os_version="24.04",
        os_name="Ubuntu 24.04.3 LTS",
        kernel="6.8.0-90-generic",
        arch="x86_64",
        cpus=192,
        memory_total=2_000 * GIB,
        memory_available=1_900 * GIB,
        shm_total=1_000 * GIB,
        shm_free=999 * GIB,
        uid=1000,
        groups=("docker", "engineers"),
        wsl=False,
        container="none",
    ),
    limits=LimitFacts(
        memlock=8 * 2**20,
        open_files=1024,
        open_files_hard=1_048_576,
        pid_max=4_194_304,
        threads_max=16_508_000,
        cgroup_pids=5_447_640,
    ),
    security=SecurityFacts(selinux="disabled", apparmor=True, secure_boot=False, lockdown="none"),
    gpus=inventory(*gpus(8)),
    nvidia_kernel=NvidiaKernelFacts(
        nvswitches=4,
        module="580.159.03",
        module_open=True,
        modules=("nvidia", "nvidia_modeset", "nvidia_uvm"),
        installed="580.159.03",
        installed_known=True,
        device_nodes=(*(f"nvidia{i}" for i in range(8)), "nvidia-modeset", "nvidia-uvm", "nvidiactl"),
        dev_char_links=True,
    ),
    fabric_manager=FabricManagerFacts(service="active"),
    docker=DockerFacts(
        "ok",
        endpoint="unix:///var/run/docker.sock",
        kind="engine",
        version="29.5.1",
        api_version="1.51",
        runc="1.3.6",
        containerd="1.7.28",
        rootless=False,
        storage_driver="overlay2",
        containerd_store=False,
        data_root="/var/lib/docker",
        runtimes=("io.containerd.runc.v2", "nvidia", "runc"),
        default_runtime="runc",
        cdi_spec_dirs=("/etc/cdi", "/var/run/cdi"),
        cgroup_driver="systemd",
        cgroup_version="2",
        security_options=("name=apparmor", "name=seccomp,profile=builtin"),
        architecture="x86_64",
        live_restore=False,
        pids_limit=True,
        http_proxy=False,
        config=DaemonConfig("/etc/docker/daemon.json", exists=True, runtimes=("nvidia",)),
        containers=(),
    ),
    toolkit=ToolkitFacts("1.19.1", "nvidia-ctk", "/usr/bin/nvidia-container-runtime-hook"),
    cdi=(CdiSpec("/etc/cdi/nvidia.yaml", "nvidia.com/gpu", (*map(str, range(8)), "all")),),
    image_store=STORE,
    cache=CacheFacts(
        "/data/nim",
        exists=True,
        uid=1000,
        gid=0,
        mode="2770",
        group_writable=True,
        writable=True,
        entries_seen=12,
        entries_bytes=0,
        disk=DISK,
    ),
    port=PortFacts("127.0.0.1", 8000, free=True),
    credentials=CredentialFacts(
        {"NGC_API_KEY": True, "HF_TOKEN": True},
        {"NGC_API_KEY": "personal", "HF_TOKEN": "hugging-face"},
        logins=("nvcr.io",),
    ),
    tools=ToolFacts("/usr/sbin/nginx", "1.24.0", "0.32.0"),
)


def host(facts: HostFacts = HEALTHY, **parts: Any) -> HostFacts:
    """`facts` with parts replaced. A part may be a dict of its changed fields: host(docker={"state": "missing"})."""
    return replace(
        facts,
        **{
            name: replace(getattr(facts, name), **value) if isinstance(value, dict) else value
            for name, value in parts.items()
        },
    )


def without_gpus(state: str = "no-library") -> GpuInventory:
    return GpuInventory(state, detail="NVML says no")  # type: ignore[arg-type]


def judge(check: str, facts: HostFacts, needs: Needs | None = None) -> list[Finding]:
    """The findings of one check by its id."""
    (chosen,) = [c for c in checks.ALL if c.id == check]
    return chosen.judge(facts, needs or Needs(recipe=KIMI))


def verdicts(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(f.verdict, f.id) for f in findings]
