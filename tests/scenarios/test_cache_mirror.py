"""A cache that was filled through NIM_REPOSITORY_OVERRIDE: found by the address asked for, mended from the mirror."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from nimctl.core.cache import CachePaths
from nimctl.core.fetch import snapshots
from tests.conftest import Nimctl
from tests.lib.checkpoints import read_tree, safetensors
from tests.lib.fault_hub import TOKEN, FaultHub

NAME = "org/name"
FILES = {"config.json": b'{"a": 1}', "model.safetensors": safetensors(3_000_000), "tokenizer.json": b"{}"}
SUMS = "".join(f"{hashlib.sha256(content).hexdigest()}  {path}\n" for path, content in FILES.items()).encode()


@pytest.fixture
def hub() -> Iterator[FaultHub]:
    """The files as a mirror has them; the Hub itself has none."""
    with FaultHub() as hub:
        for folder in (NAME, f"{NAME}/v1"):
            for path, content in {**FILES, "SHA256SUMS": SUMS}.items():
                hub.add_file(f"{folder}/{path}", content)
        yield hub


@pytest.fixture
def there(bare_host: dict[str, str], hub: FaultHub) -> dict[str, str]:
    return {**bare_host, "HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "NIM_REPOSITORY_OVERRIDE": hub.files_url}


def pulled(nimctl: Nimctl, environment: dict[str, str], address: str = f"hf://{NAME}") -> Path:
    done = nimctl("pull", address, "--json", env=environment)
    assert done.code == 0, done.stderr
    return Path(done.document["weights"]["folder"])


def test_what_came_from_the_mirror_is_mended_from_there(nimctl: Nimctl, there: dict[str, str], hub: FaultHub) -> None:
    snapshot = pulled(nimctl, there)
    blob = (snapshot / "model.safetensors").resolve()
    blob.write_bytes(bytes(reversed(blob.read_bytes())))
    sent = hub.bytes_sent("*.safetensors")
    done = nimctl("cache", "verify", "--repair", "--json", env=there)
    assert done.code == 0, done.stdout
    assert [result["outcome"] for result in done.document["checked"]] == ["repaired"]
    assert read_tree(snapshot) == FILES
    assert hub.bytes_sent("*.safetensors") - sent == len(FILES["model.safetensors"])
    assert snapshots.complete(CachePaths(Path(there["NIMCTL_CACHE"])).repo(_repository(done.document)), snapshot.name)


def _repository(document: dict[str, list[dict[str, str]]]) -> str:
    return document["checked"][0]["repository"]


def test_it_is_found_by_the_address_that_was_asked_for_and_by_the_mirrors_own(
    nimctl: Nimctl, there: dict[str, str], hub: FaultHub
) -> None:
    snapshots_of = {address: pulled(nimctl, there, address) for address in (f"hf://{NAME}", f"hf://{NAME}:v1")}
    assert len(set(snapshots_of.values())) == 2
    for address, folder in snapshots_of.items():
        done = nimctl("cache", "verify", address, "--json", env=there)
        assert done.code == 0, done.stdout
        [result] = done.document["checked"]
        assert CachePaths(Path(there["NIMCTL_CACHE"])).repo(result["repository"]).snapshot(result["revision"]) == folder
        plain = {name: value for name, value in there.items() if name != "NIM_REPOSITORY_OVERRIDE"}
        assert nimctl("cache", "verify", result["source"], "--json", env=plain).document["checked"] == [result]
        assert nimctl("cache", "verify", address, "--json", env=plain).error_id == "weights-missing"


def test_what_came_before_there_was_a_mirror_is_found_by_its_revision(
    nimctl: Nimctl, there: dict[str, str], hub: FaultHub
) -> None:
    commit = hub.add_repo(NAME, FILES)
    plain = {name: value for name, value in there.items() if name != "NIM_REPOSITORY_OVERRIDE"}
    assert pulled(nimctl, plain).name == commit
    for address in (f"hf://{NAME}", f"hf://{NAME}:main", f"hf://{NAME}@{commit[:8]}", f"{NAME}:{commit[:8]}"):
        done = nimctl("cache", "verify", address, "--json", env=there)
        assert [result["revision"] for result in done.document["checked"]] == [commit], address
    assert nimctl("cache", "verify", f"hf://{NAME}:v2", "--json", env=there).error_id == "weights-missing"


def test_one_thing_is_told_in_the_singular(nimctl: Nimctl, there: dict[str, str]) -> None:
    snapshot = pulled(nimctl, there)
    (snapshot / "tokenizer.json").resolve().unlink()
    assert "1 of 3 files" in nimctl("cache", "verify", env=there).stdout
    done = nimctl("cache", "verify", "--json", env=there)
    assert done.document["error"]["message"] == f"1 file in {there['NIMCTL_CACHE']} is damaged or missing"
    (snapshot / "config.json").resolve().unlink()
    done = nimctl("cache", "verify", "--json", env=there)
    assert done.document["error"]["message"] == f"2 files in {there['NIMCTL_CACHE']} are damaged or missing"
