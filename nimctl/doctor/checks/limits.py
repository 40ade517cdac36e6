"""Shared memory and the limits that a server with many ranks meets."""

from nimctl.core.facts import HostFacts
from nimctl.doctor.checks.scope import no_gpu_wanted
from nimctl.doctor.model import Check, Finding, Needs, passed, skipped, unknown, warned
from nimctl.doctor.sizes import human

UNLIMITED = -1
# What a run asks for where the recipe does not say (nimctl.launch.plan).
_SHM = 16 * 2**30
# vLLM raises its own limit to this many where it is allowed to, and else stays with what it has.
# https://github.com/vllm-project/vllm/blob/v0.32.0/vllm/utils/system_utils.py (set_ulimit)
_FILES_ASKED = 65_535
# Weight files, sockets of the ranks, and two for every request in flight.
_FEW_FILES = 4_096
# Podman allows 2,048 threads to a container, and NVIDIA names such limits as a cause of failure.
_FEW_THREADS = 4_096
# What distributions have given everybody since Linux 5.16, and what RDMA needs at least for one queue.
_LITTLE_LOCKED = 8 * 2**20


def judge_shm(facts: HostFacts, needs: Needs) -> list[Finding]:
    """Shared memory is enough: NCCL and vLLM's ranks exchange data in /dev/shm, and fail late when it is full. A
    container has one of its own, which its run makes large enough and which comes out of host memory.
    https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/troubleshooting.html#shared-memory
    """
    if reason := no_gpu_wanted(needs):
        return [skipped("shm", "shared memory", reason)]
    wanted = needs.recipe.shm_bytes if needs.recipe else _SHM
    if needs.runtime == "process":
        return [_host_shm(facts, wanted)]
    free = facts.system.memory_available
    title = f"shared memory of the container: up to {human(wanted)}"
    if free is None:
        return [unknown("shm", title, cause="/proc/meminfo could not be read")]
    if free >= wanted:
        return [passed("shm", title)]
    cause = f"it is taken from host memory, of which {human(free)} are available"
    fix = "Stop other programs (`ps aux --sort=-rss | head`), or use a host with more memory."
    return [warned("shm", "shm-small", title, cause=cause, fix=fix)]


def _host_shm(facts: HostFacts, wanted: int) -> Finding:
    total, free = facts.system.shm_total, facts.system.shm_free
    left = total if free is None else free
    if total is None or left is None:
        return unknown("shm", "shared memory", cause="the size of /dev/shm could not be read")
    title = f"shared memory {human(total)} in /dev/shm, {human(left)} free"
    if left >= wanted:
        return passed("shm", title)
    cause = f"the ranks may use {human(wanted)} of it"
    if total < wanted:
        fix = f"Enlarge it: `sudo mount -o remount,size={-(-wanted // 2**30)}G /dev/shm`; in a container, --shm-size."
    else:
        fix = "Remove what ended programs left there: `ls -l /dev/shm`."
    return warned("shm", "shm-small", title, cause=cause, fix=fix)


def judge_memlock(facts: HostFacts, needs: Needs) -> list[Finding]:
    """Programs may lock memory, which RDMA over InfiniBand needs for its buffers; CUDA's pinned memory does not count
    towards it. https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/troubleshooting.html
    """
    limit, told_by = facts.limits.memlock, "here"
    if needs.runtime == "docker":
        limit, told_by = _docker_default(facts, "memlock"), "in containers, by Docker's default-ulimits"
        if limit is None:
            return [skipped("memlock", "locked memory", "Docker's service sets it for containers")]
    if limit is None:
        return [unknown("memlock", "locked memory", cause="/proc/self/limits could not be read")]
    title = f"locked memory {_size(limit)} {told_by}"
    if limit == UNLIMITED or limit >= _LITTLE_LOCKED or not facts.nvidia_kernel.infiniband:
        return [passed("memlock", title)]
    cause = "InfiniBand devices are there, and RDMA cannot register buffers beyond it"
    fix = "Raise it with `ulimit -l unlimited`, in /etc/security/limits.d or in /etc/docker/daemon.json."
    return [warned("memlock", "memlock-low", title, cause=cause, fix=fix, severity="info")]


def judge_files(facts: HostFacts, needs: Needs) -> list[Finding]:
    """The server may open enough files: weight files, sockets between ranks, and two for each request in flight. vLLM
    raises the limit to 65,535 itself where the hard one allows; NVIDIA lists "too many open files" among the failures.
    https://docs.nvidia.com/nim-operator/3.0.0/release-notes.html
    """
    soft, hard, told_by = facts.limits.open_files, facts.limits.open_files_hard, ""
    if needs.runtime == "docker":
        soft, hard = _docker_default(facts, "nofile"), _docker_default(facts, "nofile", hard=True)
        told_by = " in containers, by Docker's default-ulimits"
        if soft is None:
            return [skipped("open-files", "open files", "Docker's service sets the limit for containers")]
    if soft is None:
        return [unknown("open-files", "open files", cause="/proc/self/limits could not be read")]
    reach = soft
    if soft != UNLIMITED and hard is not None and (hard == UNLIMITED or hard >= _FILES_ASKED):
        reach = max(soft, _FILES_ASKED)
    if reach == UNLIMITED or reach >= _FEW_FILES:
        raised = f", which vLLM raises to {reach}" if reach != soft else ""
        return [passed("open-files", f"open files {_count(soft)}{told_by}{raised}")]
    cause = f"vLLM asks for {_FILES_ASKED}, and the hard limit ({_count(hard)}) keeps it at {soft}"
    fix = "Raise it with `ulimit -Hn 1048576` as root or in /etc/security/limits.d, and log in again."
    if needs.runtime == "docker":
        fix = 'Set "default-ulimits" in /etc/docker/daemon.json to a nofile of 65535 or more, and restart Docker.'
    return [warned("open-files", "open-files-few", f"open files {_count(soft)}{told_by}", cause=cause, fix=fix)]


def judge_pids(facts: HostFacts, needs: Needs) -> list[Finding]:
    """Enough processes and threads may run: every rank, compiler and tokenizer has its own, and a start that meets the
    limit stalls or dies half-way. https://docs.nvidia.com/nim/ingestion/parse/latest/configuration.html
    """
    limits = facts.limits
    bounds = {
        "kernel.pid_max": (limits.pid_max, "Raise it: `sudo sysctl -w kernel.pid_max=4194304`."),
        "kernel.threads-max": (limits.threads_max, "Raise it: `sudo sysctl -w kernel.threads-max=1000000`."),
    }
    if needs.runtime == "process":
        bounds["pids.max of the control group"] = (
            limits.cgroup_pids,
            "Raise it: `sudo systemctl set-property user-$(id -u).slice TasksMax=infinity`, or --pids-limit of the "
            "container that this is.",
        )
        if facts.system.uid != 0:  # the kernel does not hold root to it
            bounds["ulimit -u"] = (limits.processes, "Raise nproc in /etc/security/limits.d, and log in again.")
    told = {name: (limit, fix) for name, (limit, fix) in bounds.items() if limit is not None}
    if not told:
        return [unknown("pids", "processes and threads", cause="/proc/sys/kernel could not be read")]
    finite = [(limit, name, fix) for name, (limit, fix) in told.items() if limit != UNLIMITED]
    if not finite:
        return [passed("pids", "processes and threads are not limited")]
    least, name, fix = min(finite)
    title = f"up to {least} processes and threads ({name})"
    if least >= _FEW_THREADS:
        return [passed("pids", title)]
    cause = "a server with several GPUs may need thousands, and fails in the middle of its start without them"
    return [warned("pids", "pids-few", title, cause=cause, fix=fix)]


def _docker_default(facts: HostFacts, name: str, *, hard: bool = False) -> int | None:
    """A limit that Docker's configuration file gives to every container; None where it says nothing."""
    config = facts.docker.config
    values = ((config.default_ulimits if config else None) or {}).get(name, ())
    return values[-1 if hard else 0] if values else None


def _size(limit: int) -> str:
    return "unlimited" if limit == UNLIMITED else human(limit)


def _count(limit: int | None) -> str:
    return "unlimited" if limit == UNLIMITED else "unknown" if limit is None else str(limit)


CHECKS = (
    Check("shm", "host", "shared memory is enough for the ranks", judge_shm, ("shm-small",)),
    Check("memlock", "host", "enough memory may be locked for RDMA", judge_memlock, ("memlock-low",)),
    Check("open-files", "host", "the server may open enough files", judge_files, ("open-files-few",)),
    Check("pids", "host", "enough processes and threads may run", judge_pids, ("pids-few",)),
)
