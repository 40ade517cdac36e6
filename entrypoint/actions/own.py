"""The model of an image that nobody told which: whose manifest lies in the image, and whose profiles may be named.

NVIDIA's operator names nothing else than profiles of that manifest:
https://github.com/NVIDIA/k8s-nim-operator/blob/f63f74d7ad22eaea7943cc640e545f4ccdbb8077/internal/controller/nimcache_controller.go
"""

from collections.abc import Mapping

from entrypoint import settings
from entrypoint.engine.model import engine_device
from entrypoint.steps import installed_vllm
from nimctl.core.recipes import DEFAULT_MODEL


def with_own_model(environ: Mapping[str, str]) -> Mapping[str, str]:
    """`environ`, with the image's own model where it names none: the demo is the one that runs without GPU."""
    if environ.get("NIM_RECIPE") or environ.get("NIM_MODEL_PATH"):
        return environ
    asked = settings.read({**environ, "NIM_RECIPE": "demo"})
    own = "demo" if engine_device(asked, installed_vllm()) == "cpu" else DEFAULT_MODEL
    return {**environ, "NIM_RECIPE": own}
