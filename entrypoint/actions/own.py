"""The image's own model outside an image: an action may then be asked for profiles without a word on which model's.

NVIDIA's operator names nothing else than profiles of the manifest that lies in the image:
https://github.com/NVIDIA/k8s-nim-operator/blob/f63f74d7ad22eaea7943cc640e545f4ccdbb8077/internal/controller/nimcache_controller.go
"""

from collections.abc import Mapping

from entrypoint import settings
from entrypoint.engine.model import engine_device
from entrypoint.stages.hardware import installed_vllm


def with_own_model(environ: Mapping[str, str]) -> Mapping[str, str]:
    """`environ` as in an image, which says what its engine was built for: the settings know its own model by that."""
    asked = settings.read({**environ, "NIM_RECIPE": "demo"})
    return {**environ, "NIMCTL_ENGINE_DEVICE": engine_device(asked, installed_vllm())}
