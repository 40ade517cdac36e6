"""The engine's environment. Pure: what is asked, where things are, and nothing else, decides it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from entrypoint.engine.invocation import user_options
from entrypoint.engine.model import Device, Model
from entrypoint.observability import otel
from entrypoint.settings import Settings
from entrypoint.settings.inside import CONNECTOR, MOST_PIXELS, PIXELS
from nimctl.core.layout import Layout
from nimctl.core.secret import is_secret_name

_CONTEXT_MEMORY = ("gpu-memory-utilization", "kv-cache-memory-bytes")
_CPU_CONTEXT_GIB = 4  # over all ranks; enough to see a model answer
# Whole families that stay out of a process that fetches what strangers name and runs model code, beside single keys.
# HF_ENDPOINT and the override may have a password in their address.
_CREDENTIAL_FAMILIES = ("NGC_", "AWS_", "AZURE_", "GOOGLE_", "HF_ENDPOINT", "NIM_REPOSITORY_OVERRIDE")


def _is_credential(name: str) -> bool:
    """A key, or the path of one, but for those that the sender of traces needs."""
    if name.startswith(otel.FAMILY):
        return False
    return name.upper().startswith(_CREDENTIAL_FAMILIES) or is_secret_name(name.upper().removesuffix("_FILE"))


def _is_service_link(name: str, value: str) -> bool:
    """What Kubernetes sets for a service called vllm: VLLM_PORT is vLLM's own, and an address there ends its start.

    https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
    """
    return name.startswith("VLLM_") and (("://" in value and "_PORT" in name) or name.startswith("VLLM_SERVICE_"))


def build_environment(
    inherited: Mapping[str, str],
    settings: Settings,
    model: Model,
    device: Device,
    layout: Layout,
    *,
    visible: Sequence[int],
    private: Path,
) -> dict[str, str]:
    """The engine's environment: no credentials, offline, every cache in `private`, the same at every start.

    vLLM hashes most of its own variables into the key of its compile cache, so nothing here may change from run to
    run: https://github.com/vllm-project/vllm/blob/v0.32.0/vllm/envs.py (compile_factors).
    `visible` are the indices of all GPUs that NVML lists, used or not.
    """
    env = {
        name: value
        for name, value in inherited.items()
        if not _is_credential(name) and not _is_service_link(name, value)
    }
    env.setdefault(PIXELS, str(MOST_PIXELS))
    env |= {
        **_folders(private),
        # The snapshot is complete and verified: whoever wants the network now wants something that was not asked for.
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_MEDIA_URL_ALLOW_REDIRECTS": "0",
        # Media come by our own connection, which judges every address: entrypoint.api.connector.
        "VLLM_MEDIA_CONNECTOR": CONNECTOR,
        "NIM_ALLOWED_MEDIA_DOMAINS": " ".join(settings.allowed_media_domains),
        "NIM_MAX_BODY_MIB": str(settings.max_body_mib),
        "VLLM_LOGGING_LEVEL": settings.log_level,
        # The default of 600 s ends a cold load from slow storage; our own stall detection is what gives up.
        "VLLM_ENGINE_READY_TIMEOUT_S": "86400",
        # Longer than the front keeps its idle connections, so that it is always the front that closes them.
        "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "75",
        "NIM_MAX_IMAGES_PER_PROMPT": str(settings.max_images),
        "PYTHONUNBUFFERED": "1",
        **model.recipe.engine.on(device).env,
        **otel.variables(settings, inherited),
    }
    if device == "cuda":
        # NVML numbers by PCI address and knows no CUDA_VISIBLE_DEVICES: the layout's numbers must mean the same GPUs.
        env["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
        if settings.deterministic:  # https://docs.vllm.ai/en/stable/features/batch_invariance/
            env["VLLM_BATCH_INVARIANT"] = "1"
        if layout.slice is not None:  # a slice has no number: https://docs.nvidia.com/datacenter/tesla/mig-user-guide/
            env["CUDA_VISIBLE_DEVICES"] = layout.slice
        elif "CUDA_VISIBLE_DEVICES" in env or layout.used != tuple(visible):
            env["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, layout.used))
    if device == "cpu" and layout.world_size > 1:
        env.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")  # else every rank binds itself to the same cores
    if device == "cpu" and not any(option.name in _CONTEXT_MEMORY for option in user_options(settings)):
        # The engine's own share is 92 % of the machine for every rank, and it refuses to start where that is not free:
        # https://github.com/vllm-project/vllm/blob/v0.32.0/vllm/v1/worker/cpu_worker.py
        env.setdefault("VLLM_CPU_KVCACHE_SPACE", str(max(1, _CPU_CONTEXT_GIB // layout.world_size)))
    return env


def _folders(private: Path) -> dict[str, str]:
    """Wherever the engine and its libraries write what they compile or remember."""
    return {
        "HOME": str(private / "home"),
        "XDG_CACHE_HOME": str(private / "home/.cache"),
        "XDG_CONFIG_HOME": str(private / "home/.config"),
        "VLLM_CACHE_ROOT": str(private / "vllm"),
        "VLLM_CONFIG_ROOT": str(private / "vllm-config"),
        "TRITON_CACHE_DIR": str(private / "triton"),
        "TORCHINDUCTOR_CACHE_DIR": str(private / "inductor"),
        "TORCH_EXTENSIONS_DIR": str(private / "torch-extensions"),
        "FLASHINFER_WORKSPACE_BASE": str(private / "flashinfer"),
        "DG_JIT_CACHE_DIR": str(private / "deep-gemm"),
        "CUDA_CACHE_PATH": str(private / "cuda"),
        "NUMBA_CACHE_DIR": str(private / "numba"),
    }


def with_own_package(env: Mapping[str, str], package_root: Path) -> dict[str, str]:
    """`env` in which the engine's Python finds our middleware, also when we are not installed beside it."""
    if "site-packages" in package_root.parts:
        return dict(env)
    inherited = env.get("PYTHONPATH")
    return {**env, "PYTHONPATH": f"{package_root}:{inherited}" if inherited else str(package_root)}
