"""The static documents of NIM's API: `/v1/version`, `/v1/metadata`, `/v1/manifest`, `/v1/license`.

Shapes as NVIDIA's operator reads them:
https://github.com/NVIDIA/k8s-nim-operator/blob/f63f74d7ad22eaea7943cc640e545f4ccdbb8077/internal/nimmodels/models.go
"""

import hashlib
import re
from pathlib import Path
from typing import Any

from entrypoint.engine.model import Model
from nimctl.core.layout import Layout
from nimctl.core.memory.ranks import Parallel
from nimctl.core.planning.model import of_checkpoint
from nimctl.core.planning.profile import Profile, profile_of

# The version of this API as NIM counts it: 2.x containers say 2.
API_VERSION = "2.0.0"

_LICENSE_NAMES = re.compile(r"(LICENSE|LICENCE|COPYING)(\..*)?", re.IGNORECASE)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LARGEST_LICENSE = 2**20


def version(release: str, engine: str | None) -> dict[str, Any]:
    """Who answers: our release, the API's version, and the engine with its version."""
    return {"release": release, "api": API_VERSION, "engine": f"vllm {engine}" if engine else "vllm"}


def profile_served(model: Model, layout: Layout) -> Profile:
    """The profile that is served: under the name and the id that `list-model-profiles` prints."""
    sizes = Parallel(
        layout.tensor_parallel_size,
        layout.pipeline_parallel_size,
        layout.data_parallel_size,
        layout.decode_context_parallel_size,
        layout.expert,
    )
    return profile_of(of_checkpoint(model.recipe), sizes, model.recipe.weights)


def manifest(model: Model, snapshot: Path) -> dict[str, Any]:
    """Every file that is served with its size in bytes, and its SHA-256 where the cache's layout tells it."""
    files = []
    for path in sorted(p for p in snapshot.rglob("*") if p.is_file()):
        blob = path.resolve().name
        files.append(
            {
                "path": path.relative_to(snapshot).as_posix(),
                "size": path.stat().st_size,
                "sha256": blob if path.is_symlink() and _SHA256.fullmatch(blob) else None,
            }
        )
    return {"source": model.source, "revision": snapshot.name, "files": files}


def license_info(snapshot: Path) -> dict[str, Any]:
    """The licence file that came with the weights; without one, a document that says so."""
    for path in sorted(snapshot.iterdir()):
        if _LICENSE_NAMES.fullmatch(path.name) and path.is_file() and path.stat().st_size <= _LARGEST_LICENSE:
            content = path.read_bytes()
            return {
                "name": path.name,
                "path": path.name,
                "sha": hashlib.sha256(content).hexdigest(),
                "size": len(content),
                "type": "file",
                "content": content.decode(errors="replace"),
            }
    return {"name": "none given", "path": "", "sha": "", "size": 0, "type": "none", "content": ""}


def metadata(model: Model, layout: Layout, release: str, licence: dict[str, Any], gpus: int) -> dict[str, Any]:
    """What runs here: model, licence (without its text), profile and layout."""
    profile = profile_served(model, layout)
    return {
        "version": release,
        "assetInfo": [model.source],
        "licenseInfo": {k: v for k, v in licence.items() if k != "content"},
        "modelInfo": [{"shortName": name, "modelUrl": model.source} for name in model.served_names],
        "repository_override": "",
        "selectedModelProfileId": profile.id,
        "selectedModelProfile": profile.name,
        "tensorParallelSize": layout.tensor_parallel_size,
        "pipelineParallelSize": layout.pipeline_parallel_size,
        "gpus": gpus,
    }
