"""Every command line that NVIDIA's operator starts a NIM container with, as the users that it starts it as.

Commands, variables and users: nimcache_controller.go and nimservice_types.go of
https://github.com/NVIDIA/k8s-nim-operator/tree/f63f74d7ad22eaea7943cc640e545f4ccdbb8077
"""

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lib.actions import Ran, run_as
from tests.lib.checkpoints import safetensors
from tests.lib.fault_hub import FaultHub
from tests.lib.operator_rules import parsed
from tests.lib.users import open_folder

# The pod's own user with the volume's group, and OpenShift's: any uid of the project, group 0.
USERS = [(1000, 2000), (1_000_660_000, 0)]
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "num_hidden_layers": 1,
    "num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 16, "intermediate_size": 128, "vocab_size": 32,
    "max_position_embeddings": 128, "torch_dtype": "bfloat16",
}  # fmt: skip
FILES = {"config.json": json.dumps(CONFIG).encode(), "model.safetensors": safetensors(30_000)}
URI = "hf://org/name"


class Pod:
    """A volume as the kubelet hands it over (group and setgid bit), and a container with the operator's variables."""

    def __init__(self, user: tuple[int, int], root: Path) -> None:
        self.user, self.store = user, root / "model-store"
        self.store.mkdir()
        if os.geteuid() == 0:
            os.chown(self.store, 0, user[1])
        self.store.chmod(0o2775)

    def run(self, *words: str, **environ: str) -> Ran:
        """In the image, NIMCTL_ENGINE_DEVICE is set."""
        more = {"NIM_CACHE_PATH": str(self.store), "NIMCTL_ENGINE_DEVICE": "cpu", "NIM_GPUS": "none"}
        return run_as(self.user, *words, **{**more, **environ})

    def done(self, *words: str, **environ: str) -> str:
        ran = self.run(*words, **environ)
        assert ran.code == 0, ran.err + ran.out
        return ran.out


@pytest.fixture(scope="module")
def hub() -> Iterator[FaultHub]:
    with FaultHub() as one:
        one.add_repo("org/name", FILES)
        yield one


@pytest.fixture(params=USERS, ids=["1000:2000", "any:0"])
def pod(request: pytest.FixtureRequest) -> Iterator[Pod]:
    with open_folder() as root:
        yield Pod(request.param, root)


def profiles_of(text: str) -> list[dict[str, Any]]:
    """What the operator reads of the manifest, where every profile must tell what it is and where its files are."""
    found = parsed(text)
    for one in found:
        assert len(one["id"]) == 64
        assert {"llm_engine", "tp"} <= set(one["tags"])
        assert all(file["uri"] for file in one["workspace"]["files"].values())
    return found


def test_the_profiles_of_an_image_are_cached_by_their_ids(pod: Pod) -> None:
    known = profiles_of(pod.done("model-manifest"))  # what `cat /etc/nim/config/model_manifest.yaml` shows
    ids = [one["id"] for one in known[:2]]
    jobs = {"HF_HOME": str(pod.store), "NGC_HOME": str(pod.store)}
    pod.done("download-to-cache", "--profiles", *ids, **jobs)
    assert [*pod.store.rglob("snapshots/*/config.json")]
    assert ids[0] in pod.done("list-model-profiles")
    if os.geteuid() == 0:
        assert {path.lstat().st_gid for path in pod.store.rglob("*")} == {pod.user[1]}
        blobs = [path for path in pod.store.rglob("blobs/*") if path.is_file()]
        assert {stat.S_IMODE(path.stat().st_mode) for path in blobs} == {0o664}


def test_a_model_that_the_image_does_not_know_is_cached_with_its_manifest(pod: Pod, hub: FaultHub) -> None:
    manifest = pod.store / "manifests/model_manifest.yaml"
    jobs = {
        "HF_HOME": str(pod.store / "huggingface/hub"), "HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0",
        "NIM_JSONL_LOGGING": "1", "NIM_LOG_LEVEL": "INFO", "OUTLINES_CACHE_DIR": "/tmp/outlines",
    }  # fmt: skip
    out = pod.done("download-to-cache", "--model-uri", URI, "--manifest-file", str(manifest), **jobs)
    assert all(json.loads(line) for line in out.splitlines())
    text = manifest.read_text()
    assert {one["workspace"]["files"]["checkpoint"]["uri"] for one in profiles_of(text)} == {URI}
    assert "bf16" in {one["tags"]["precision"] for one in profiles_of(text)}
    assert [path.name for path in manifest.parent.iterdir()] == [manifest.name]
    # The job is repeated when its pod was evicted, and the service starts without network and without a key.
    pod.done("download-to-cache", "--model-uri", URI, "--manifest-file", str(manifest), **jobs)
    assert manifest.read_text() == text
    service = {"NIM_SERVER_PORT": "8000", "HF_HUB_OFFLINE": "1", "NIM_MODEL_PATH": URI}
    command = json.loads(pod.done("nim-serve", "--dry-run", **service))["engine"]
    assert any(str(word).startswith(str(pod.store)) or word == URI for word in command)


def test_a_folder_for_a_host_without_network(pod: Pod, hub: FaultHub) -> None:
    ways = {"HF_ENDPOINT": hub.url}
    pod.done("download-model", "--model-uri", URI, "--workspace-path", str(pod.store / "workspace"), **ways)
    assert (pod.store / "workspace/config.json").is_symlink()
    pod.done("create-model-store", "--model-repo", URI, "--model-store", str(pod.store / "out"), HF_HUB_OFFLINE="1")
    assert {path.name: path.read_bytes() for path in (pod.store / "out").iterdir() if path.name in FILES} == FILES
    assert not (pod.store / "out/config.json").is_symlink()


@pytest.mark.parametrize("pod", USERS[:1], indirect=True, ids=["1000:2000"])
def test_a_manifest_that_cannot_be_written_is_told_before_the_download(pod: Pod, hub: FaultHub) -> None:
    before = hub.bytes_sent("*.safetensors")
    for path in ("/proc/manifest.yaml", str(pod.store)):
        ran = pod.run("download-to-cache", "--model-uri", URI, "--manifest-file", path, HF_ENDPOINT=hub.url)
        assert (ran.code, "error[cache-not-writable]" in ran.err) == (9, True), ran.err
    assert hub.bytes_sent("*.safetensors") == before


@pytest.mark.parametrize("pod", USERS[:1], indirect=True, ids=["1000:2000"])
@pytest.mark.parametrize("words", [("--head", "--port", "6379"), ("--head-address", "leader.nim.svc:6379")])
def test_the_pods_of_a_set_start_without_ray(pod: Pod, words: tuple[str, ...]) -> None:
    told = pod.done("nim-serve-ray", *words, "--dry-run", "--max-model-len", "64", NIM_RECIPE="demo")
    engine = [str(word) for word in json.loads(told)["engine"]]
    assert engine[engine.index("--max-model-len") + 1] == "64"
    assert not {"--head", "--port", "6379", "--head-address", "leader.nim.svc:6379"} & set(engine)
