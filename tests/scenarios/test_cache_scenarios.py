"""The cache at the command line: weights are fetched, listed, checked, mended and freed, with the real program."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from nimctl.core.cache import CachePaths
from nimctl.core.fetch import snapshots
from tests.conftest import ROOT, Done, Nimctl
from tests.lib.checkpoints import read_tree, safetensors
from tests.lib.fault_hub import TOKEN, FaultHub, Sparse, Stall
from tests.unit.core.fetch.test_fetch_inventory import left_by_hf

NAME = "org/name"
FILES = {"config.json": b'{"a": 1}', "model.safetensors": safetensors(3_000_000), "tokenizer.json": b"{}"}


@pytest.fixture
def hub() -> Iterator[FaultHub]:
    with FaultHub() as hub:
        hub.add_repo(NAME, FILES)
        yield hub


@pytest.fixture
def there(bare_host: dict[str, str], hub: FaultHub) -> dict[str, str]:
    """A host without Docker whose Hub is the fault hub."""
    return {**bare_host, "HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN}


def checked(done: Done) -> Any:
    """The one document of a `cache` verb, which keeps to its schema."""
    schema = json.loads((ROOT / "docs/schemas/cache.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(done.document)
    assert TOKEN not in done.stdout + done.stderr and "Traceback" not in done.stderr
    return done.document


def cache_of(environment: dict[str, str]) -> Path:
    return Path(environment["NIMCTL_CACHE"])


def pulled(nimctl: Nimctl, environment: dict[str, str]) -> Path:
    done = nimctl("pull", f"hf://{NAME}", "--json", env=environment)
    assert done.code == 0, done.stderr
    return Path(done.document["weights"]["folder"])


def damage(snapshot: Path) -> Path:
    """Flip one bit in the middle of the weights."""
    blob = (snapshot / "model.safetensors").resolve()
    content = bytearray(blob.read_bytes())
    content[len(content) // 2] ^= 1
    blob.write_bytes(content)
    return blob


def test_weights_are_pulled_without_docker_and_progress_is_lines_of_json(
    nimctl: Nimctl, there: dict[str, str], hub: FaultHub
) -> None:
    done = nimctl("pull", f"hf://{NAME}", "--json", env=there)
    assert done.code == 0, done.stderr
    weights = done.document["weights"]
    assert done.document["schema"] == "nimctl.pull/1" and weights["files"] == 3
    assert read_tree(Path(weights["folder"])) == FILES
    lines = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    assert lines and {line["schema"] for line in lines} == {"nimctl.progress/1"}
    assert lines[-1]["phase"] == "done" and lines[-1]["bytes"] == lines[-1]["total"] == weights["bytes"]
    sent = hub.bytes_sent("*.safetensors")
    assert nimctl("pull", f"hf://{NAME}", "--quiet", env=there).stdout == f"{weights['folder']}\n"
    assert hub.bytes_sent("*.safetensors") == sent


def test_a_model_with_weights_says_that_its_image_needs_docker(nimctl: Nimctl, there: dict[str, str]) -> None:
    done = nimctl("pull", "demo", "--weights", "--json", env=there)
    assert done.code == 0, done.stderr
    assert done.document["skipped"] == "docker-missing" and done.document["weights"]["revision"]
    # NVIDIA's downloader chooses the weights by the GPUs that it finds.
    assert nimctl("pull", "kimi-k2.5-turbo", "--weights", "--json", env=there).error_id == "gpu-missing"


def test_what_is_there_is_listed(nimctl: Nimctl, there: dict[str, str]) -> None:
    assert "holds nothing yet" in nimctl("cache", "ls", env=there).stdout
    pulled(nimctl, there)
    left_by_hf(cache_of(there), FILES, name="org/foreign")
    text = nimctl("cache", "ls", env=there).stdout
    assert all(len(line) <= 80 for line in text.splitlines()[:-1]), text
    assert "not verified yet" in text and "verified" in text
    states = {
        r["name"]: r["revisions"][0]["state"]
        for r in checked(nimctl("cache", "ls", "--json", env=there))["inventory"]["repositories"]
    }
    assert states == {"org/foreign": "unverified", NAME: "verified"}


def test_a_flipped_bit_is_found_named_and_mended_by_fetching_that_file_alone(
    nimctl: Nimctl, there: dict[str, str], hub: FaultHub
) -> None:
    snapshot = pulled(nimctl, there)
    assert checked(nimctl("cache", "verify", "--json", env=there))["ok"]
    blob = damage(snapshot)
    done = nimctl("cache", "verify", NAME, "--json", env=there)
    document = checked(done)
    assert (done.code, done.error_id) == (6, "weights-corrupt")
    [bad] = document["checked"][0]["bad"]
    assert (bad["path"], bad["blob"], bad["condition"]) == ("model.safetensors", str(blob), "wrong-digest")
    assert bad["expected"] == f"sha256:{blob.name}" != bad["found"]
    repo = CachePaths(cache_of(there)).repo(NAME)
    assert snapshots.complete(repo, snapshot.name) is None  # no start takes it any more
    small, large = hub.bytes_sent("config.json"), hub.bytes_sent("*.safetensors")
    done = nimctl("cache", "verify", "--repair", "--json", env=there)
    assert done.code == 0, done.stderr
    assert checked(done)["checked"][0]["outcome"] == "repaired"
    assert read_tree(snapshot) == FILES and snapshots.complete(repo, snapshot.name)
    assert hub.bytes_sent("config.json") == small
    assert hub.bytes_sent("*.safetensors") - large == len(FILES["model.safetensors"])
    assert nimctl("cache", "verify", env=there).code == 0


def test_a_repair_that_cannot_be_had_keeps_the_damaged_file_and_says_why(nimctl: Nimctl, there: dict[str, str]) -> None:
    snapshot = pulled(nimctl, there)
    blob = damage(snapshot)
    before = blob.read_bytes()
    for _ in range(2):
        done = nimctl("cache", "verify", "--repair", "--json", env={**there, "HF_HUB_OFFLINE": "1"})
        assert (done.code, done.error_id) == (6, "weights-corrupt")
        why = checked(done)["checked"][0]["error"]
        assert why["id"] == "weights-corrupt" and "network must not be used" in why["cause"], why
    assert blob.read_bytes() == before
    assert nimctl("cache", "verify", "--repair", env=there).code == 0


def test_a_missing_file_is_fetched_again(nimctl: Nimctl, there: dict[str, str]) -> None:
    snapshot = pulled(nimctl, there)
    (snapshot / "tokenizer.json").resolve().unlink()
    done = nimctl("cache", "verify", "--json", env=there)
    assert (done.code, done.error_id) == (6, "weights-incomplete")
    assert nimctl("cache", "verify", "--repair", env=there).code == 0
    assert read_tree(snapshot) == FILES


def test_what_hf_left_gets_our_mark_once_it_was_verified(nimctl: Nimctl, there: dict[str, str], hub: FaultHub) -> None:
    left_by_hf(cache_of(there), FILES, name="org/foreign")
    document = checked(nimctl("cache", "verify", "--json", env=there))
    assert document["checked"][0]["marked"] and document["checked"][0]["outcome"] == "right"
    repo = CachePaths(cache_of(there)).repo("org/foreign")
    assert snapshots.complete(repo, "c" * 40)
    assert not hub.bytes_sent("*")


def test_a_name_that_the_cache_does_not_hold(nimctl: Nimctl, there: dict[str, str]) -> None:
    pulled(nimctl, there)
    done = nimctl("cache", "verify", "org/other", "--json", env=there)
    assert (done.code, done.error_id) == (6, "weights-missing") and NAME in checked(done)["error"]["cause"]


def test_pruning_shows_asks_and_frees(nimctl: Nimctl, there: dict[str, str], hub: FaultHub) -> None:
    old = pulled(nimctl, there)
    hub.add_repo(NAME, {**FILES, "config.json": b'{"a": 2}'})
    new = pulled(nimctl, there)
    assert old != new
    planned = checked(nimctl("cache", "prune", "--dry-run", "--json", env=there))
    assert [item["name"] for item in planned["plan"]["items"]] == [old.name] and planned["removed"] is None
    refused = nimctl("cache", "prune", env=there, stdin="y\n")
    assert refused.code == 2 and "--yes" in refused.stderr and "1 thing of" in refused.stderr and old.exists()
    assert checked(nimctl("cache", "prune", "--keep", "1", "--yes", "--json", env=there))["plan"]["items"] == []
    removed = checked(nimctl("cache", "prune", "--yes", "--json", env=there))["removed"]
    assert removed["items"] == planned["plan"]["items"] and removed["bytes"] > 0
    assert not old.exists() and read_tree(new)["model.safetensors"] == FILES["model.safetensors"]


@pytest.mark.parametrize(
    ("number", "code", "error_id"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_a_stopped_pull_says_how_to_go_on_and_goes_on(
    nimctl: Nimctl, there: dict[str, str], hub: FaultHub, number: signal.Signals, code: int, error_id: str
) -> None:
    size = 64 * 2**20
    hub.add_repo("org/large", {"config.json": b"{}", "model.safetensors": Sparse(size, seed=1)})
    hub.fail("model.safetensors", Stall(after=9 * 2**20))
    argv = [sys.executable, "-m", "nimctl", "pull", "hf://org/large", "--json"]
    child = subprocess.Popen(
        argv, env=there, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=there["HOME"]
    )
    assert child.stderr is not None
    for line in child.stderr:  # ends with the child at the latest
        if line.startswith("{") and json.loads(line)["phase"] == "fetching":
            break
    os.kill(child.pid, number)
    stdout, _ = child.communicate(timeout=60)
    assert child.returncode == code
    error = json.loads(stdout)["error"]
    assert error["id"] == error_id and "goes on" in error["fix"]
    hub.heal()
    hub.release()
    assert nimctl("pull", "hf://org/large", "--json", env=there).code == 0


def test_a_run_of_a_hub_model_is_judged_by_its_list_of_files_alone(
    nimctl: Nimctl, there: dict[str, str], hub: FaultHub
) -> None:
    config = {"num_attention_heads": 8, "num_hidden_layers": 2}
    hub.add_repo(NAME, {**FILES, "config.json": json.dumps(config).encode()})
    done = nimctl("run", NAME, "--dry-run", "--gpus", "none", "--runtime", "process", "--json", env=there)
    assert done.code == 0, done.stderr
    variables = {variable["name"]: variable["value"] for variable in done.document["plan"]["env"]}
    assert variables["NIM_MODEL_PATH"] == f"hf://{NAME}" and variables["HF_ENDPOINT"] == hub.url
    assert variables["HF_TOKEN_FILE"].endswith("/HF_TOKEN")
    assert hub.bytes_sent("*.safetensors") == 0 and hub.bytes_sent("config.json") > 0
    assert not cache_of(there).exists() and TOKEN not in done.stdout + done.stderr


def test_a_model_that_is_not_there_is_refused_before_anything_is_started(
    nimctl: Nimctl, there: dict[str, str], hub: FaultHub
) -> None:
    done = nimctl("run", "org/absent", "--json", env=there)
    assert done.error_id in ("weights-not-found", "key-missing") and "org/absent" in done.stderr
    done = nimctl("run", f"hf://{NAME}:no-such-branch", "--json", env=there)
    assert (done.code, done.error_id) == (6, "weights-revision-unknown")
