"""The engine's command line and environment. Pure: what is asked, where things are, and nothing else, decides both."""

import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from entrypoint.engine import drafts
from entrypoint.engine.model import Device, Model
from entrypoint.settings import Settings
from entrypoint.state import State
from nimctl.core.engine_options import Option, merge, options_of, parse_options
from nimctl.core.errors import NimctlError
from nimctl.core.layout import Layout
from nimctl.core.parallel import Sizes
from nimctl.core.planning.deciding import Request
from nimctl.core.secret import is_secret_name

MIDDLEWARE = "entrypoint.api.RequestRules"

# With these the user says how many replicas there are, and where.
_SPREAD = frozenset(
    {"data-parallel-size", "data-parallel-size-local", "data-parallel-rank", "data-parallel-start-rank"}
)
_CONTEXT_MEMORY = ("gpu-memory-utilization", "kv-cache-memory-bytes")
_CPU_CONTEXT_GIB = 4  # over all ranks; enough to see a model answer
# The front owns the network side of the server; the engine must stay where only the front reaches it.
_OURS = {
    "uds": "the engine is always behind the front",
    "host": "set NIM_SERVER_HOST instead",
    "port": "set NIM_SERVER_PORT instead",
    "grpc": "only the HTTP API is served",
    "headless": "a server without API cannot become ready",
    "api-key": "the front has no authentication of this kind",
    "ssl-keyfile": "the engine is on a Unix socket",
    "ssl-certfile": "the engine is on a Unix socket",
    "root-path": "the front decides the paths",
}

# Whole families that stay out of a process that fetches what strangers name and runs model code, beside single keys.
# HF_ENDPOINT and the override may have a password in their address.
_CREDENTIAL_FAMILIES = ("NGC_", "AWS_", "AZURE_", "GOOGLE_", "HF_ENDPOINT", "NIM_REPOSITORY_OVERRIDE")


def request(settings: Settings) -> Request:
    """What was asked of the layout, by variables and by engine arguments, which win. Raises `usage`."""
    drafts.named(user_options(settings))  # says in its own words what it cannot read
    length = options_of({"max-model-len": settings.max_model_len} if settings.max_model_len else {})
    sizes = Sizes(settings.tensor_parallel_size, settings.pipeline_parallel_size)
    return Request(merge(length, user_options(settings)), sizes, profile=settings.model_profile)


def user_options(settings: Settings) -> tuple[Option, ...]:
    """The engine options that the user passed. Raises `usage` for those that are not theirs to give."""
    options = parse_options(settings.engine_args)
    for option in options:
        if why := _OURS.get(option.name):
            raise NimctlError(
                "usage", f"--{option.name} cannot be passed to the engine", cause=why, fix=f"Leave --{option.name} out."
            )
    return options


def draft_of(settings: Settings, model: Model, device: Device) -> drafts.Draft | None:
    """The draft model that the engine will be told to use, with weights of its own. Raises `usage`."""
    return drafts.named(merge(options_of(model.recipe.engine.on(device).args), user_options(settings)))


@dataclass(frozen=True)
class Command:
    """How the engine is started: its words, the names it will serve, and its working folder."""

    argv: tuple[str, ...]
    served_names: tuple[str, ...]


def build_command(
    settings: Settings,
    model: Model,
    device: Device,
    layout: Layout,
    *,
    snapshot: str,
    state: State,
    draft: str | None = None,
) -> Command:
    """`vllm serve` for this model on this layout; `draft` is where its draft model lies. Raises `usage`."""
    own: dict[str, str | int | float | bool] = {
        "served-model-name": "",
        "tensor-parallel-size": layout.tensor_parallel_size,
        "shutdown-timeout": settings.drain_seconds,
        "middleware": MIDDLEWARE,
    }
    passed = user_options(settings)
    recipe = model.recipe
    recipes_own = options_of(recipe.engine.on(device).args)
    own |= _beyond_tensor(layout, recipes_own, passed)
    if device == "cuda":
        own |= layout.arguments
    if model.sees_images:
        limits = {**recipe.limits, recipe.image_limit_key: settings.max_images}
        own["limit-mm-per-prompt"] = json.dumps(limits, separators=(",", ":"))
    if settings.max_model_len:
        own["max-model-len"] = settings.max_model_len
    if settings.allowed_media_domains:
        own["allowed-media-domains"] = " ".join(settings.allowed_media_domains)
    options = merge(
        recipes_own,
        (
            Option("served-model-name", ("--served-model-name", *model.served_names))
            if name == "served-model-name"
            else option
            for name, option in zip(own, options_of(own), strict=True)
        ),
        passed,
    )
    if draft is not None:
        options = drafts.replaced(options, draft)
    names = next(o.values for o in options if o.name == "served-model-name")
    words = [word for option in options for word in option.words]
    return Command((*executable(settings), "serve", snapshot, "--uds", str(state.engine_socket), *words), names)


def _beyond_tensor(
    layout: Layout, recipes_own: Sequence[Option], passed: Sequence[Option]
) -> dict[str, str | int | float | bool]:
    """What a layout is beside its tensor ranks; replicas over several machines are the user's to describe.

    A layout goes before the recipe's own options: a profile may be one without what they say.
    """
    sizes = {
        "pipeline-parallel-size": layout.pipeline_parallel_size,
        "data-parallel-size": layout.data_parallel_size,
        "decode-context-parallel-size": layout.decode_context_parallel_size,
    }
    if any(option.name in _SPREAD for option in passed):
        del sizes["data-parallel-size"]
    own: dict[str, str | int | float | bool] = {name: size for name, size in sizes.items() if size > 1}
    if layout.expert or any(option.name == "enable-expert-parallel" for option in recipes_own):
        own["enable-expert-parallel"] = layout.expert
    return own


def executable(settings: Settings) -> tuple[str, ...]:
    """The engine to run: the one that was named, the one installed beside this Python, or its module."""
    if settings.engine_executable:
        return (settings.engine_executable,)
    beside = Path(sys.executable).with_name("vllm")
    return (str(beside),) if beside.is_file() else (sys.executable, "-m", "vllm.entrypoints.cli.main")


def cache_key(device: Device, vllm_version: str | None, gpu_name: str | None, driver: str | None) -> str:
    """The folder of compiled code that fits this engine, GPU and driver, and no other."""
    parts = (f"vllm-{vllm_version or 'unknown'}", device, gpu_name or "cpu", driver or "none")
    return re.sub(r"[^A-Za-z0-9.+_-]+", "_", "-".join(parts))


def _is_credential(name: str) -> bool:
    """A key, or the path of a key's file."""
    return name.upper().startswith(_CREDENTIAL_FAMILIES) or is_secret_name(name.upper().removesuffix("_FILE"))


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
    env = {name: value for name, value in inherited.items() if not _is_credential(name)}
    env |= {
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
        # The snapshot is complete and verified: whoever wants the network now wants something that was not asked for.
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_MEDIA_URL_ALLOW_REDIRECTS": "0",
        "VLLM_LOGGING_LEVEL": settings.log_level,
        # The default of 600 s ends a cold load from slow storage; our own stall detection is what gives up.
        "VLLM_ENGINE_READY_TIMEOUT_S": "86400",
        # Longer than the front keeps its idle connections, so that it is always the front that closes them.
        "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "75",
        "NIM_MAX_IMAGES_PER_PROMPT": str(settings.max_images),
        "PYTHONUNBUFFERED": "1",
        **model.recipe.engine.on(device).env,
    }
    if device == "cuda":
        # NVML numbers by PCI address and knows no CUDA_VISIBLE_DEVICES: the layout's numbers must mean the same GPUs.
        env["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
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


def with_own_package(env: Mapping[str, str], package_root: Path) -> dict[str, str]:
    """`env` in which the engine's Python finds our middleware, also when we are not installed beside it."""
    if "site-packages" in package_root.parts:
        return dict(env)
    inherited = env.get("PYTHONPATH")
    return {**env, "PYTHONPATH": f"{package_root}:{inherited}" if inherited else str(package_root)}
