"""The lab's second engine, whose images lie in containerd's store, as Docker 29's do."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.lib import lab
from tests.lib.lab.paths import paths

pytestmark = pytest.mark.lab


@pytest.fixture(autouse=True, scope="module")
def _running() -> None:
    lab.environment("none", "containerd")


def engine(*args: str | Path) -> str:
    done = lab.docker(*args, store="containerd")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def reference() -> str:
    """A tiny image in the registry that needs no key, with the registry's address."""
    return f"{lab.registry_info().address}/open/tiny:1"


def test_its_images_lie_in_containerds_store() -> None:
    stores = {store: json.loads(lab.docker("info", "--format", "{{json .DriverStatus}}", store=store).stdout)
              for store in lab.STORES}  # fmt: skip
    assert ["driver-type", "io.containerd.snapshotter.v1"] in stores["containerd"]
    assert ["driver-type", "io.containerd.snapshotter.v1"] not in stores["classic"]


def test_it_shares_no_image_network_or_address_with_the_other(containerd_store: dict[str, str]) -> None:
    assert containerd_store["DOCKER_HOST"] == f"unix://{paths('containerd').docker_socket}"
    images = engine("images", "--quiet", "--no-trunc").split()
    assert not set(images) & set(lab.docker("images", "--quiet", "--no-trunc").stdout.split())
    networks = {store: json.loads(lab.docker("network", "inspect", "bridge", store=store).stdout)[0]
                for store in lab.STORES}  # fmt: skip
    for store in lab.STORES:
        assert networks[store]["Options"]["com.docker.network.bridge.name"] == paths(store).bridge
    assert len({network["IPAM"]["Config"][0]["Subnet"] for network in networks.values()}) == 2


def test_a_container_runs() -> None:
    assert engine("run", "--rm", lab.BASE_IMAGE, "cat", "/etc/debian_version").startswith("12.")


def test_a_simulated_gpu_is_seen_in_its_containers(host: Callable[..., dict[str, str]]) -> None:
    try:
        assert host("1xH100", "containerd")["NVML_DOUBLE_JSON"]
        for way in (("--device", "nvidia.com/gpu=all"), ("--runtime=nvidia", "-e", "NVIDIA_VISIBLE_DEVICES=all")):
            assert "H100" in engine("run", "--rm", *way, lab.BASE_IMAGE, "nvidia-smi", "-L")
    finally:
        lab.environment("none", "containerd")


def test_a_pulled_image_has_the_manifests_digest_as_its_id(reference: str) -> None:
    """The classic store names an image by its configuration: what a user compares differs between the two."""
    engine("pull", reference)
    image = json.loads(engine("image", "inspect", reference))[0]
    assert f"{reference.rpartition(':')[0]}@{image['Id']}" in image["RepoDigests"]


def build(folder: Path, tag: str, *lines: str) -> str:
    """Build an image of these Dockerfile lines; returns its id."""
    folder.mkdir()
    (folder / "Dockerfile").write_text("\n".join(lines))
    engine("buildx", "build", "--quiet", "--tag", tag, folder)
    return engine("image", "inspect", "--format", "{{.Id}}", tag)


def test_what_is_built_runs(tmp_path: Path) -> None:
    build(tmp_path / "context", "lab-second/built", f"FROM {lab.BASE_IMAGE}", "RUN echo built > /built")
    assert engine("run", "--rm", "lab-second/built", "cat", "/built") == "built"
    engine("image", "rm", "lab-second/built")


def test_it_pushes_saves_and_loads(tmp_path: Path) -> None:
    archive, reference = tmp_path / "saved.tar", f"{lab.registry_info().address}/open/lab-second:1"
    config = lab.docker_config(tmp_path / "customer", key=lab.registry_info().key)
    built = build(tmp_path / "context", reference, "FROM scratch", "COPY Dockerfile /")
    engine("--config", config, "push", reference)
    engine("save", "--output", archive, reference)
    engine("image", "rm", reference)
    engine("load", "--input", archive)
    assert engine("image", "inspect", "--format", "{{.Id}}", reference) == built
    engine("image", "rm", reference)
    assert built in engine("pull", reference)
    engine("image", "rm", reference)
