"""What NVIDIA's Kubernetes operator reads of a NIM image and of a running service, written down here a second time.

Manifest, profiles and their choice:
https://github.com/NVIDIA/k8s-nim-operator/blob/0104166ed014de1a748073fd2d68db219fe02ee2/internal/nimparser/v2/nimparser.go
https://github.com/NVIDIA/k8s-nim-operator/blob/1347ec865e26e704c8000ee3adedc44eda6df028/internal/nimparser/utils/utils.go
The name of the model that a service serves:
https://github.com/NVIDIA/k8s-nim-operator/blob/e0e7cea39ce35224b15bbbeab456fdabef993c1c/internal/nimmodels/models.go
"""

import re
from typing import Any

import yaml


def parsed(text: str) -> list[dict[str, Any]]:
    """What the operator keeps of a manifest: only fields of its own, every one a string or a map of strings."""
    document = yaml.safe_load(text)
    assert not {"model_profile", "manifest"} & set(document), "the older shape without a version"
    assert re.search(r"2\.*\.*", document["schema_version"].strip()), "else it is read as the first version"
    assert isinstance(document["profile_selection_criteria"], str)
    profiles: list[dict[str, Any]] = []
    for one in document["profiles"]:
        assert set(one) == {"id", "tags", "workspace"}
        assert isinstance(one["id"], str)
        assert all(isinstance(word, str) for item in one["tags"].items() for word in item)
        assert set(one["workspace"]) == {"files"}
        assert all(isinstance(name, str) and set(file) == {"uri"} for name, file in one["workspace"]["files"].items())
        profiles.append(one)
    return profiles


def matches(
    profiles: list[dict[str, Any]],
    *,
    precision: str = "",
    tensor: str = "",
    engine: str = "",
    quality: str = "",
    lora: bool | None = None,
    buildable: bool | None = None,
) -> list[str]:
    """The ids that a NIMCache with these wishes, and without GPUs to filter by, selects."""
    found: list[str] = []
    for one in profiles:
        tags = one["tags"].get
        if (precision and tags("precision") != precision) or (tensor and tags("tp") != tensor):
            continue
        if (quality and tags("profile") != quality) or (lora is not None and tags("feat_lora") != str(lora).lower()):
            continue
        if buildable is not None and tags("trtllm_buildable") != str(buildable).lower():
            continue
        backend = tags("llm_engine") or tags("model_type") or tags("backend") or ""
        if engine and engine.removesuffix("_llm") not in ("tensorrt" if backend == "triton" else backend):
            continue
        found.append(one["id"])
    return found


def model_of_list(document: dict[str, Any]) -> str | None:
    """The model's name by `/v1/models`: the only one there, else the first that is its own root (adapters are not)."""
    if document["object"] != "list" or not document["data"]:
        return None
    if len(document["data"]) == 1:
        return str(document["data"][0]["id"])
    own = (one for one in document["data"] if one["object"] == "model" and one.get("root") == one["id"])
    return next((str(one["id"]) for one in own), None)


def model_of_metadata(document: dict[str, Any]) -> str:
    """The model's name by `/v1/metadata`, which is asked where the list is missing."""
    return str(document["modelInfo"][0]["shortName"]).split(":")[0]
