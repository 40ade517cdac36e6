"""The action `download-to-cache`: the weights alone, told to people or to machines."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from entrypoint.actions.bringing import wanted
from entrypoint.actions.download import options
from entrypoint.settings import read
from nimctl.core.cache import CachePaths
from nimctl.core.errors import NimctlError
from nimctl.core.fetch import snapshots
from nimctl.core.planning.profiles import offered
from nimctl.core.recipes import load
from tests.lib.actions import run
from tests.lib.checkpoints import safetensors, write_folder
from tests.lib.fault_hub import TOKEN, FaultHub, Stall
from tests.lib.mounts import mounted
from tests.lib.users import needs_root

ROOT = Path(__file__).parents[3]
FILES = {"config.json": b"{}", "model.safetensors": safetensors(3_000_000), "tokenizer.json": b"{ }"}
SIZE = sum(map(len, FILES.values()))
URI = "hf://org/name"


@pytest.fixture
def hub():
    with FaultHub() as one:
        yield one


@contextmanager
def started(cache: Path, *words: str, **environ: str) -> Iterator[subprocess.Popen[str]]:
    cache.mkdir(exist_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "entrypoint", "download-to-cache", *words],
        env={"PATH": os.environ["PATH"], "NIM_CACHE_PATH": str(cache), **environ},
        cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def download(cache: Path, *words: str, **environ: str) -> tuple[int, str, str]:
    cache.mkdir(exist_ok=True)
    ran = run("download-to-cache", *words, NIM_CACHE_PATH=str(cache), **environ)
    return ran.code, ran.out, ran.err


def objects(out: str) -> list[dict]:
    return [json.loads(line) for line in out.splitlines()]


def complete(cache: Path, revision: str) -> bool:
    return snapshots.complete(CachePaths(cache).repo("org/name"), revision) is not None


def test_lines_for_machines(hub, tmp_path):
    commit = hub.add_repo("org/name", FILES)
    code, out, err = download(tmp_path / "c", "--model-uri", URI, "--json", HF_ENDPOINT=hub.url)
    assert code == 0, err
    *progress, last = objects(out)
    assert {line["schema"] for line in [*progress, last]} == {"nimctl.progress/1"}
    assert {line["event"] for line in progress} == {"progress"}
    assert [progress[0]["phase"], progress[-1]["phase"]] == ["resolving", "done"]
    assert (progress[-1]["bytes"], progress[-1]["total"]) == (SIZE, SIZE)
    names = {"phase", "bytes", "total", "rate", "eta", "retries", "connections", "file", "detail", "files"}
    assert all(names <= set(line) for line in progress)
    states = {file["path"]: file["state"] for line in progress for file in line["files"]}
    assert states == dict.fromkeys(FILES, "done")
    seconds = last.pop("seconds")
    assert seconds > 0
    assert last == {
        "schema": "nimctl.progress/1",
        "event": "done",
        "source": URI,
        "revision": commit,
        "path": str(CachePaths(tmp_path / "c").repo("org/name").snapshot(commit)),
        "bytes": SIZE,
        "files": len(FILES),
    }
    assert complete(tmp_path / "c", commit)


def test_lines_for_people(hub, tmp_path):
    commit = hub.add_repo("org/name", FILES)
    code, out, _ = download(tmp_path / "c", HF_ENDPOINT=hub.url, NIM_MODEL_PATH=URI)
    assert code == 0
    assert re.search(rf"INFO .* weights \S+ {URI} is in .*/snapshots/{commit}: revision {commit}, 3 files, 3.0 MB", out)
    assert "{" not in out


def test_an_error_is_the_last_line(hub, tmp_path):
    hub.add_repo("org/name", FILES, gated="manual")
    code, out, err = download(tmp_path / "c", "--model-uri", URI, "--json", HF_ENDPOINT=hub.url)
    last = objects(out)[-1]
    assert (code, last["schema"], last["event"]) == (4, "nimctl.progress/1", "failed")
    assert last["error"]["id"] == "key-missing"
    assert "error[key-missing]" in err


def test_branches_are_looked_up_anew(hub, tmp_path):
    first = hub.add_repo("org/name", FILES)
    assert download(tmp_path / "c", "--model-uri", URI, HF_ENDPOINT=hub.url)[0] == 0
    second = hub.add_repo("org/name", {**FILES, "tokenizer.json": b"[]"})
    sent = hub.bytes_sent("*.safetensors")
    code, out, _ = download(tmp_path / "c", "--model-uri", URI, "--json", HF_ENDPOINT=hub.url)
    assert (code, objects(out)[-1]["revision"]) == (0, second)
    assert complete(tmp_path / "c", first)
    assert hub.bytes_sent("*.safetensors") == sent, "blobs that did not change are not fetched again"


def test_offline_takes_what_is_there_and_says_what_is_not(hub, tmp_path):
    commit = hub.add_repo("org/name", FILES)
    environ = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "1"}
    code, out, _ = download(tmp_path / "c", "--model-uri", URI, "--json", **environ)
    assert (code, objects(out)[-1]["error"]["id"]) == (6, "weights-offline")
    assert download(tmp_path / "c", "--model-uri", URI, HF_ENDPOINT=hub.url)[0] == 0
    asked = len(hub.requests())
    code, out, _ = download(tmp_path / "c", "--model-uri", URI, "--json", **environ)
    assert (code, objects(out)[-1]["revision"]) == (0, commit)
    assert len(hub.requests()) == asked


@pytest.mark.parametrize(
    ("number", "code", "error_id"), [(signal.SIGTERM, 143, "terminated"), (signal.SIGINT, 130, "interrupted")]
)
def test_it_stops_at_once_and_goes_on_later(hub, tmp_path, number, code, error_id):
    commit = hub.add_repo("org/name", FILES)
    hub.fail("model.safetensors", Stall(after=1_500_000))
    with started(tmp_path / "c", "--model-uri", URI, "--json", HF_ENDPOINT=hub.url) as process:
        hub.wait_for_stalls()
        process.send_signal(number)
        assert process.wait(60) == code
        out, err = process.communicate()
    assert objects(out)[-1]["error"]["id"] == error_id
    assert "Traceback" not in err
    assert not complete(tmp_path / "c", commit)
    hub.heal()
    assert download(tmp_path / "c", "--model-uri", URI, HF_ENDPOINT=hub.url)[0] == 0
    assert complete(tmp_path / "c", commit)


def test_it_stops_before_the_source_has_answered(hub, tmp_path):
    hub.add_repo("org/name", FILES)
    hub.fail("/api/*", Stall(after=-1))
    with started(tmp_path / "c", "--model-uri", URI, HF_ENDPOINT=hub.url) as process:
        hub.wait_for_stalls()
        process.terminate()
        assert process.wait(60) == 143


def test_the_key_is_sent_and_not_told(hub, tmp_path):
    hub.add_repo("org/name", FILES, private=True)
    (tmp_path / "key").write_text(TOKEN)
    environ = {"HF_ENDPOINT": hub.url, "HF_TOKEN_FILE": str(tmp_path / "key"), "NIM_LOG_LEVEL": "DEBUG"}
    code, out, err = download(tmp_path / "c", "--model-uri", URI, "--json", **environ)
    assert code == 0, err
    assert hub.knows(TOKEN)
    assert TOKEN not in out + err


def test_the_demo_and_a_folder_need_no_network(tmp_path):
    code, out, _ = download(tmp_path / "c", "--json", NIM_RECIPE="demo")
    assert (code, objects(out)[-1]["source"]) == (0, "builtin://demo")
    folder = write_folder(tmp_path / "weights")
    code, out, _ = download(tmp_path / "c", "--json", "--model-uri", str(folder))
    assert (code, objects(out)[-1]["path"]) == (0, str(folder))


def brought(*words, **environ):
    """The checkpoints of Kimi-K2.5 that these words ask for."""
    wish = options().read(words)
    models = wanted(read({"NIM_RECIPE": "kimi-k2.5", **environ}), wish.profile, everything=wish.all)
    return [model.weights.rpartition("/")[2] for model in models]


INT4, NVFP4 = "Kimi-K2.5", "Kimi-K2.5-NVFP4"


def test_a_profile_chooses_its_checkpoint():
    known = {profile.name: profile.id for profile in offered(load("kimi-k2.5"))}
    assert brought() == [INT4]
    assert brought("--profiles", known["vllm-nvfp4-tp4-pp1"]) == [NVFP4]
    assert brought("-p", "vllm-nvfp4-tp8-pp1", "-p", known["vllm-nvfp4-tp4-pp1"]) == [NVFP4]
    assert brought("--profiles", "vllm-nvfp4-tp8-pp1", "vllm-int4-tp8-pp1") == [NVFP4, INT4]
    assert brought("--all") == [INT4, NVFP4]
    assert brought(NIM_MODEL_PROFILE="vllm-nvfp4-tp4-pp1") == [NVFP4]
    assert brought("-p", "vllm-int4-tp8-pp1", NIM_MODEL_PROFILE="vllm-nvfp4-tp4-pp1") == [INT4]


def test_weights_that_were_named_are_the_only_ones():
    assert brought("--all", "-p", "anything", NIM_MODEL_PATH="hf://me/mine") == ["mine"]


def test_a_profile_that_does_not_exist_brings_nothing(tmp_path):
    code, _, err = download(tmp_path / "c", "--profiles", "vllm-bf16-tp1-pp1", "a" * 64, NIM_RECIPE="demo")
    assert (code, "error[profile-unknown]" in err) == (2, True)
    assert not [*(tmp_path / "c").rglob("*.safetensors")]


def test_all_profiles_of_the_demo_share_a_checkpoint(tmp_path):
    code, out, _ = download(tmp_path / "c", "--json", "-p", "vllm-bf16-tp1-pp1", "vllm-bf16-tp2-pp1", NIM_RECIPE="demo")
    assert (code, [one["source"] for one in objects(out) if one["event"] == "done"]) == (0, ["builtin://demo"])


def test_help(tmp_path):
    code, out, err = download(tmp_path / "c", "-h")
    assert (code, err) == (0, "")
    assert all(word in out for word in ("--model-uri", "--json", "--profiles", "--all", "NIM_CACHE_PATH"))


@pytest.mark.parametrize("words", [["--model-uri"], ["--lora"], ["--json=1"], ["hf://org/name"], ["--prof", "x"]])
def test_words_that_mean_nothing(words):
    with pytest.raises(NimctlError) as caught:
        options().read(words)
    assert caught.value.id == "usage"


def test_options():
    wish = options().read(["-p", "a", "--profiles", "b", "c", "--model-uri", URI])
    assert (wish.model_uri, wish.profile, wish.all, wish.json, wish.help) == (URI, ["a", "b", "c"], False, False, False)


def test_nothing_was_named(tmp_path):
    code, out, _ = download(tmp_path / "c", "--json")
    assert (code, objects(out)[-1]["error"]["id"]) == (2, "config-invalid")


@needs_root
def test_a_read_only_cache(hub, tmp_path):
    commit = hub.add_repo("org/name", FILES)
    cache = tmp_path / "c"
    cache.mkdir()
    with mounted(cache, "--bind", "-o", "ro", str(cache)):
        code, out, _ = download(cache, "--model-uri", URI, "--json", HF_ENDPOINT=hub.url)
        assert (code, objects(out)[-1]["error"]["id"]) == (9, "cache-not-writable")
        assert not hub.requests()
    assert download(cache, "--model-uri", URI, HF_ENDPOINT=hub.url)[0] == 0
    with mounted(cache, "--bind", "-o", "ro", str(cache)):
        code, out, _ = download(cache, "--model-uri", URI, "--json", HF_ENDPOINT=hub.url)
        assert (code, objects(out)[-1]["revision"]) == (0, commit)
