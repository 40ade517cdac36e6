"""The actions `list-model-profiles` and `model-manifest`: which profiles the model has, and which of them run here.

Neither needs a GPU, an engine, the front or the network; of weights that are not in the cache only the recipe is known.
Options as NIM has them: https://docs.nvidia.com/nim/large-language-models/2.0.9/reference/cli-reference.html
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from entrypoint import settings
from entrypoint.actions import table
from entrypoint.actions.own import with_own_model
from entrypoint.engine import invocation
from entrypoint.engine.model import Model, named_model, peeked
from entrypoint.observability.journal import Journal
from entrypoint.stages.hardware import hardware_of
from nimctl.core.address import without_secrets
from nimctl.core.errors import NimctlError
from nimctl.core.fetch import Access, from_environment
from nimctl.core.gpus import Gpu
from nimctl.core.planning.classes import Classed, classes_of
from nimctl.core.planning.manifest import as_yaml, manifest_of
from nimctl.core.planning.profiles import offered
from nimctl.core.recipes import Recipe

_HELP = {
    table.LIST_PROFILES: """usage: list-model-profiles [-h]

Print the profiles of the model that NIM_RECIPE or NIM_MODEL_PATH names, else of this image's own, by what these GPUs
can do with them.
NIM_MODEL_PROFILE takes the id or the name of one. Engine arguments in NIM_PASSTHROUGH_ARGS and NIM_MAX_MODEL_LEN count.

options:
  -h, --help  show this text

example: list-model-profiles""",
    table.MANIFEST: """usage: model-manifest [-h]

Print the model manifest (schema 2) of the model that NIM_RECIPE or NIM_MODEL_PATH names, else of this image's own.
It is the same on every host.

options:
  -h, --help  show this text

example: model-manifest > model_manifest.yaml""",
}

# A GPU of which less than this share is in use counts as free: the driver itself takes a few hundred MB.
_IN_USE = 0.05


def list_profiles(environ: Mapping[str, str], arguments: Sequence[str], output: Journal) -> int:
    """Print every profile of the model by its class on these GPUs. The exit code; raises NimctlError."""
    if _asks_for_help(table.LIST_PROFILES, arguments, output):
        return 0
    # The list is for choosing a profile: the choice of the last time says nothing about the others.
    chosen = replace(settings.read(with_own_model(environ)), model_profile=None)
    _configure(chosen, output)
    recipe, hardware = _described(chosen, from_environment(environ)), hardware_of(chosen)
    on_cpu = hardware.device == "cpu" and (recipe.cpu or chosen.gpus == "none")
    found = classes_of(recipe, hardware.cluster, hardware.device, invocation.request(chosen), cpu=on_cpu)
    for line in (*system_lines(hardware.gpus), *profile_lines(found)):
        output.line(line)
    return 0


def print_manifest(environ: Mapping[str, str], arguments: Sequence[str], output: Journal) -> int:
    """Print the manifest of the model, without one of the image's own. The exit code; raises NimctlError."""
    if _asks_for_help(table.MANIFEST, arguments, output):
        return 0
    environ = with_own_model(environ)
    chosen = settings.read(environ)
    _configure(chosen, output)
    output.line(manifest_text(chosen, from_environment(environ)).rstrip("\n"))
    return 0


def manifest_text(chosen: settings.Settings, access: Access) -> str:
    """The manifest of the model as YAML: of its recipe, or of what its files, where they are at hand, tell of it."""
    recipe = _described(chosen, access)
    weights = {name: _shown(recipe.on(name).weights) for name in recipe.formats}
    return as_yaml(manifest_of(offered(recipe), weights))


def _shown(weights: str) -> str:
    return without_secrets(weights) if "://" in weights else weights


def _asks_for_help(action: str, arguments: Sequence[str], output: Journal) -> bool:
    if arguments and arguments[0] in ("-h", "--help"):
        output.line(_HELP[action])
        return True
    if arguments:
        raise NimctlError(
            "usage",
            f"{action} cannot be called like this",
            cause=f"{arguments[0]!r} is no option of it",
            fix=f"`{action} -h` shows its options.",
        )
    return False


def _configure(chosen: settings.Settings, output: Journal) -> None:
    """What is printed is read by programs, so that warnings go to stderr."""
    output.configure(level=chosen.log_level, secrets=chosen.secrets)
    aside = Journal(sys.stderr, level=chosen.log_level, secrets=chosen.secrets)
    for sentence in chosen.unknown:
        aside.warning("settings", sentence)


def _described(chosen: settings.Settings, access: Access) -> Recipe:
    """The recipe with all its checkpoints; other weights that were named stand alone, as far as they are at hand."""
    model = named_model(chosen)
    if not chosen.model_path and model.recipe.config is not None:
        return model.recipe
    return _alone(peeked(chosen, model, access))


def _alone(model: Model) -> Recipe:
    recipe = model.recipe
    own = recipe.weights_bytes if model.weights == recipe.weights else None
    return replace(recipe, variants=(), weights_bytes=model.weights_bytes or own)


def system_lines(gpus: Iterable[Gpu]) -> list[str]:
    """The GPUs, apart by whether others use their memory."""
    free: list[str] = []
    used: list[str] = []
    for gpu in gpus:
        share = 1 - gpu.memory_free / gpu.memory_total if gpu.memory_total and gpu.memory_free is not None else None
        told = "unknown" if share is None else f"{share:.0%}"
        line = f"  -  ({gpu.index}) {gpu.name or 'unknown GPU'} [current utilization: {told}]"
        (used if share is not None and share >= _IN_USE else free).append(line)
    lines = ["SYSTEM INFO", *_section("- Free GPUs:", free)]
    return lines + (_section("- Non-free GPUs:", used) if used else [])


def profile_lines(found: Sequence[Classed]) -> list[str]:
    """The profiles by class, in the words and the shape of NIM; what cannot be told has a class of its own."""
    by_class: dict[str, list[str]] = {"runnable": [], "unknown": [], "low-memory": [], "incompatible": []}
    for one in found:
        by_class[one.candidate.verdict].append(f"  - {one.profile.id} ({one.profile.name}){_note(one)}")
    lines = ["MODEL PROFILES", *_section("- Compatible with system and runnable:", by_class["runnable"])]
    if by_class["unknown"]:
        lines += _section("- Compatible with system, memory not known:", by_class["unknown"])
    lines += _section("- Compatible with system but low memory:", by_class["low-memory"])
    return lines + _section("- Incompatible with system:", by_class["incompatible"])


def _section(title: str, lines: Sequence[str]) -> list[str]:
    return [title, *lines] if lines else [f"{title} <None>"]


def _note(one: Classed) -> str:
    found = one.candidate
    requires = f"requires >={_gigabytes(one.requires)} GB/gpu" if one.requires is not None else ""
    if found.verdict == "low-memory" and one.reduced is not None:
        # The length first, where scripts that know NIM look for it.
        arguments = sorted(found.arguments.items(), key=lambda item: item[0] != "max-model-len")
        words = " ".join(f"--{name}={value}" for name, value in arguments)
        return f" [{requires}, try {words} to reduce to >={_gigabytes(one.reduced)} GB/gpu]"
    reasons = "; ".join(found.reasons) if found.verdict != "runnable" else ""
    return "".join((f" [{requires}]" if requires else "", f" {reasons}" if reasons else ""))


def _gigabytes(size: int) -> int:
    return -(-size // 10**9)
