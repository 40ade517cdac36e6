"""Why a process ended: one id, one cause, one fix, from what it wrote and how it went. Pure.

The order is the order of certainty: what the kernel says, then what only one failure writes, then the last exception.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from nimctl.core.diagnosis.exits import Exit
from nimctl.core.errors import NimctlError

_EVIDENCE_LINES = 5

_GPU_MEMORY = re.compile(
    r"CUDA out of memory|OutOfMemoryError|CUDA error: out of memory|CUBLAS_STATUS_ALLOC_FAILED"
    r"|Free memory on device .* is less than desired"
)
_CACHE_MEMORY = re.compile(
    r"No available memory for the cache blocks|KV cache is needed, which is larger than the available"
)
_HOST_MEMORY = re.compile(
    r"DefaultCPUAllocator: (can't|not enough)|Cannot allocate memory|^MemoryError|std::bad_alloc"
    r"|Available memory on node .* is less than"
)
_SHARED_MEMORY = re.compile(r"No space left on device.*(/dev/shm|psm_)|Bus error|/dev/shm.*No space left")
# https://github.com/vllm-project/vllm/blob/v0.32.0/vllm/v1/executor/multiproc_executor.py (monitor_workers)
_WORKER = re.compile(r"Worker proc (\S+) died unexpectedly(?: \(exit code: (-?\d+|None)\))?")
# The texts of cudaError_t that no program causes:
# https://docs.nvidia.com/cuda/cuda-runtime-api/group__CUDART__TYPES.html
# https://github.com/vllm-project/vllm/blob/v0.32.0/vllm/v1/engine/core_client.py (monitor_engine_cores), v1/utils.py
_CORE = re.compile(r"engine core exited unexpectedly|Engine core process \S+ died unexpectedly")
_DEVICE = re.compile(r"uncorrectable (?:ECC error encountered|NVLink error detected)|hardware stack error|GPU is lost")
_PORT_TAKEN = re.compile(r"bind\(\) to .* failed .*in use")
_DISK = re.compile(r"No space left on device|\[Errno 28\]")
_ARGPARSE = re.compile(r"error: (unrecognized arguments|argument |ambiguous option|the following arguments)")
_VALIDATION = re.compile(r"validation errors? for \w+|pydantic_core\._pydantic_core\.ValidationError")
_CONFIG_FRAME = re.compile(
    r"create_engine_config|create_model_config|validate_parsed_serve_args|validate_api_server_args"
)
_EXCEPTION = re.compile(r"(?:^|\s)((?:[A-Za-z_][\w.]*\.)?[A-Z]\w*(?:Error|Exception|Interrupt|Exit)): ?(.*)$")
# What the API server says about the death of another process: true, and no help.
_SECOND_HAND = re.compile(
    r"Engine core initialization failed|EngineDeadError|EngineCore encountered|See root cause above"
)


@dataclass(frozen=True)
class Death:
    """What is known about the end of a child: who, how, its last lines, kernel OOM kills since it started.

    `serving` tells whether the service had been ready; `part` names the process of the engine that went first, such as
    `EngineCore`, where it was not the engine's own first process (whose `exit` it is otherwise).
    """

    process: str
    exit: Exit
    lines: tuple[str, ...]
    oom_kills: int = 0
    serving: bool = False
    part: str | None = None


def classify(death: Death) -> NimctlError:
    """The error that names the cause. Never an exit code of 0: a server that ends has failed, whatever it returns."""
    if death.process == "front":
        return _front(death)
    found = recognised(death)
    if found:
        return found
    part, ended = _part(death)
    # A server that is killed has no last words: what stands among its lines was about something else.
    line = None if ended.signal == 9 else last_exception(_own_lines(death.lines, part))
    when = "while serving" if death.serving else "while starting"
    killed = ended.signal == 9
    seen = ended != Exit(None, None)
    cause = line or (f"{part} was killed from outside" if killed else f"{part} ended by itself: {ended.text}")
    if not seen and line is None:
        cause = f"{part} is gone, and nobody saw how it ended: it was killed, or crashed without a word"
    if _any(_DISK, death.lines):
        cause, fix = "a filesystem that it writes to is full", "Free space in the cache folder and in /tmp."
    elif killed and not line:
        fix = "Find out who sent SIGKILL (an administrator, another container manager, the kernel's log)."
    else:
        fix = "Read the last lines above that; `nimctl logs` shows all of them."
    return NimctlError(
        "engine-died",
        f"the engine ended {when}" + _told(part, ended),
        cause=cause,
        fix=fix,
        evidence=_evidence(death.lines),
    )


def _own_lines(lines: Sequence[str], part: str) -> Sequence[str]:
    """Of a part that is lost, what it and its like have written themselves: `(EngineCore pid=12) ...`."""
    if part == "it":
        return lines
    prefix = "(EngineCore" if part.startswith("EngineCore") else "(Worker"
    return tuple(line for line in lines if line.startswith(prefix))


def _told(part: str, ended: Exit) -> str:
    if part == "it":
        return f" with {ended.text}"
    return f": {part}" if ended == Exit(None, None) else f": {part}, {ended.text}"


def recognised(death: Death) -> NimctlError | None:
    """The error where the kernel or the engine's own words name the cause beyond doubt: memory, or configuration."""
    return _memory(death) or _device(death) or _configuration(death)


def _part(death: Death) -> tuple[str, Exit]:
    """Which of the engine's processes went first, and how: vLLM names its workers with their exit codes."""
    for line in death.lines:
        if match := _WORKER.search(line):
            code = int(match[2]) if match[2] not in (None, "None") else None
            return match[1], Exit(None, -code) if code is not None and code < 0 else Exit(code, None)
    part = death.part or ("EngineCore" if _any(_CORE, death.lines) else None)
    if part is not None:
        return part, Exit(None, None)
    return "it", death.exit


def _device(death: Death) -> NimctlError | None:
    """A GPU that fell off or failed under the engine: no argument mends that."""
    line = _any(_DEVICE, death.lines)
    if line is None:
        return None
    return NimctlError(
        "engine-gpu-failed",
        f"a GPU failed under the engine ({death.exit.text})",
        cause=line,
        fix="Look at the host: `nimctl doctor`, and the kernel's log (`dmesg | grep -i xid`); a GPU that is lost comes "
        "back with a reset or a reboot.",
        evidence=_evidence(death.lines),
    )


def _front(death: Death) -> NimctlError:
    if line := _any(_PORT_TAKEN, death.lines):  # somebody was quicker between our look and nginx's
        return NimctlError(
            "port-in-use",
            "the public port is taken",
            cause=line,
            fix="Stop what listens there, or set NIM_SERVER_PORT (host side: --port) to another port.",
        )
    return NimctlError(
        "front-died",
        f"nginx ended with {death.exit.text}",
        cause=next((line for line in reversed(death.lines) if "[emerg]" in line), death.exit.text),
        fix="Start again; if it comes back, report the line above.",
        evidence=_evidence(death.lines),
    )


def _memory(death: Death) -> NimctlError | None:
    if death.oom_kills > 0:
        return _out_of_memory(
            death,
            f"the kernel killed {death.oom_kills} process(es) of this container: its host memory limit was reached",
            "Give the container more memory (docker run --memory), or free memory on the host.",
        )
    if line := _any(_CACHE_MEMORY, death.lines):
        return _out_of_memory(
            death,
            f"GPU memory: nothing is left for the context after the weights ({line})",
            "Set NIM_MAX_MODEL_LEN to a smaller context, use more GPUs, or raise --gpu-memory-utilization.",
        )
    if line := _any(_GPU_MEMORY, death.lines):
        return _out_of_memory(
            death,
            f"GPU memory: {line}",
            "Use more or larger GPUs, a smaller NIM_MAX_MODEL_LEN, or stop what else uses these GPUs.",
        )
    if line := _any(_SHARED_MEMORY, death.lines):
        return _out_of_memory(
            death, f"shared memory: {line}", "Give the container more shared memory: docker run --shm-size=32g."
        )
    if line := _any(_HOST_MEMORY, death.lines):
        fix = "Free memory on the host, or give the container more."
        if "CPU memory used by other processes" in line:
            fix = (
                "Free memory on the host, or ask for less: VLLM_CPU_KVCACHE_SPACE (in GiB) or --gpu-memory-utilization."
            )
        return _out_of_memory(death, f"host memory: {line}", fix)
    return None


def _out_of_memory(death: Death, cause: str, fix: str) -> NimctlError:
    return NimctlError(
        "engine-out-of-memory",
        f"the engine ran out of memory ({death.exit.text})",
        cause=cause,
        fix=fix,
        evidence=_evidence(death.lines),
    )


def _configuration(death: Death) -> NimctlError | None:
    """Refused arguments: only before the service was ready, and only from the parts that read the configuration."""
    if death.serving:
        return None
    line = _any(_ARGPARSE, death.lines)
    if line is None and (_any(_VALIDATION, death.lines) or _any(_CONFIG_FRAME, death.lines)):
        line = _detail_of_validation(death.lines) or last_exception(death.lines)
    if line is None:
        return None
    return NimctlError(
        "engine-config",
        "the engine refused its configuration",
        cause=line,
        fix="Correct the NIM_* variable or the engine argument that is named; --dry-run shows all of them.",
        evidence=_evidence(death.lines),
    )


def _detail_of_validation(lines: Sequence[str]) -> str | None:
    """pydantic writes what is wrong on the lines after `1 validation error for X`."""
    for index, line in enumerate(lines):
        if _VALIDATION.search(line):
            return next((_clean(after) for after in lines[index + 1 :] if _clean(after)), None)
    return None


def last_exception(lines: Sequence[str]) -> str | None:
    """The exception that says most: the last one that is not just news of another process's death."""
    fallback = None
    for line in reversed(lines):
        match = _EXCEPTION.search(line)
        if not match:
            continue
        text = f"{match[1]}: {match[2]}".rstrip(": ")
        if not _SECOND_HAND.search(line) and match[1] not in ("SystemExit", "KeyboardInterrupt"):
            return text
        fallback = fallback or text
    return fallback


def _any(pattern: re.Pattern[str], lines: Sequence[str]) -> str | None:
    return next((_clean(line) for line in reversed(lines) if pattern.search(line)), None)


def _clean(line: str) -> str:
    """The line without vLLM's own prefix `(EngineCore pid=12) ERROR 11-22 03:08:14 [core.py:1]`."""
    line = re.sub(r"^\([^)]* pid=\d+\) ", "", line)
    return re.sub(r"^(DEBUG|INFO|WARNING|ERROR|CRITICAL) \d\d-\d\d [\d:.]+ \[[^\]]*\] ?", "", line).strip()


def _evidence(lines: Sequence[str]) -> tuple[str, ...]:
    told = [line for line in lines if line.strip()]
    wrong = [line for line in told if re.search(r"error|exception|killed|fatal|emerg", line, re.IGNORECASE)]
    return tuple((wrong or told)[-_EVIDENCE_LINES:])
