"""The actions that bring a model elsewhere, as they are called: results, help, wrong words, stops, and a round trip."""

import io
import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from entrypoint.actions.table import TABLE, Action, asked, find
from entrypoint.observability.journal import Journal
from nimctl.core.errors import NimctlError
from tests.lib.actions import ROOT, run
from tests.lib.checkpoints import read_tree, safetensors
from tests.lib.fault_hub import FaultHub

FILES = {"config.json": b"{}", "model.safetensors": safetensors(300_000), "tokenizer.json": b"{ }"}
URI = "hf://org/name"
KEYS = {"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": "canarySecretCanary"}


@pytest.fixture(scope="module")
def hub() -> Iterator[FaultHub]:
    with FaultHub() as one:
        one.add_repo("org/name", FILES)
        yield one


@pytest.fixture(scope="module")
def s3_url() -> Iterator[str]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    client: Any = boto3.client(
        "s3", endpoint_url=url, aws_access_key_id="a", aws_secret_access_key="b", region_name="us-east-1"
    )
    client.create_bucket(Bucket="models")
    yield url
    server.stop()


def objects(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


def test_the_table_is_cheap_and_leads_to_functions() -> None:
    loaded = subprocess.run(
        [sys.executable, "-c", "import sys, entrypoint.actions.table; print(*sys.modules)"],
        check=True, capture_output=True, text=True, cwd=ROOT, timeout=60,
    )  # fmt: skip
    assert not {"argparse", "json", "nimctl.core.fetch", "entrypoint.settings"} & set(loaded.stdout.split())
    assert all(callable(action.load()) for action in TABLE if action.place)
    assert find("nim_download_to_cache") is find("download-to-cache") is not None
    assert (asked(["nim-serve", "-h"]), asked([]), asked(["--seed"]), asked(["hf://a/b"])) == (None,) * 4


@pytest.mark.parametrize("action", [action for action in TABLE if action.place], ids=lambda action: action.name)
def test_every_action_has_help_with_an_example(action: Action) -> None:
    out = io.StringIO()
    assert action.load()({}, ["-h"], Journal(out)) == 0
    assert out.getvalue().startswith(f"usage: {action.name} ")
    assert f"\nexample: {action.name}" in out.getvalue()
    assert max(map(len, out.getvalue().splitlines())) <= 120


@pytest.mark.parametrize(
    "words",
    [
        ("create-model-store",),
        ("create-model-store", "-m"),
        ("create-model-store", "--all", "-m", "/x"),
        ("download-model", "--workspace"),
        ("mirror",),
        ("mirror", "s3://a", "s3://b"),
        ("model-manifest", "x"),
    ],
)
def test_words_that_mean_nothing(words: tuple[str, ...]) -> None:
    action = find(words[0])
    assert action is not None
    with pytest.raises(NimctlError) as caught:
        action.load()({"NIM_RECIPE": "demo"}, words[1:], Journal(io.StringIO()))
    assert (caught.value.id, caught.value.fix) == ("usage", f"`{words[0]} -h` shows its options.")


def test_an_action_that_fails_ends_with_the_error_for_machines() -> None:
    done = run("mirror", NIM_RECIPE="demo")
    assert (done.code, objects(done.out)[-1]["error"]["id"]) == (2, "usage")
    assert objects(done.out)[-1]["schema"] == "nimctl.progress/1"
    assert "error[usage] mirror cannot be called like this" in done.err


def test_a_mirror_is_where_an_override_looks_for_it(hub: FaultHub, s3_url: str, tmp_path: Path) -> None:
    access = {**KEYS, "AWS_ENDPOINT_URL": s3_url, "HF_ENDPOINT": hub.url, "NIM_LOG_LEVEL": "DEBUG"}
    here, there = {"NIM_CACHE_PATH": str(tmp_path / "here")}, {"NIM_CACHE_PATH": str(tmp_path / "there")}
    for each in (here, there):
        Path(each["NIM_CACHE_PATH"]).mkdir()
    done = run("mirror", "s3://models", "--model-uri", URI, "--json", **access, **here)
    assert done.code == 0, done.err
    last = objects(done.out)[-1]
    assert (last["event"], last["sent"], last["kept"], last["address"]) == ("done", 3, 0, "s3://models/org%2Fname")
    assert KEYS["AWS_SECRET_ACCESS_KEY"] not in done.out + done.err
    # From the cache alone, as on the inner side of an air gap; nothing is sent twice.
    asked_so_far = len(hub.requests())
    done = run("mirror", "s3://models", HF_HUB_OFFLINE="1", NIM_MODEL_PATH=URI, **access, **here)
    assert (done.code, "0 of 3 files sent, 0 B, 3 were there already" in done.out) == (0, True), done.out + done.err
    # What is to be filled is not read, though it takes the place of every source.
    done = run("mirror", "s3://models/", NIM_REPOSITORY_OVERRIDE="s3://models", NIM_MODEL_PATH=URI, **access, **here)
    assert done.code == 0, done.err
    done = run(
        "download-to-cache", "--model-uri", URI, "--json", NIM_REPOSITORY_OVERRIDE="s3://models", **access, **there
    )
    assert done.code == 0, done.err
    assert read_tree(Path(objects(done.out)[-1]["path"])) == FILES
    assert len(hub.requests()) == asked_so_far


def test_what_cannot_be_mirrored_is_told_before_it_is_fetched(hub: FaultHub, tmp_path: Path) -> None:
    done = run("mirror", "s3://models", "--json", NIM_RECIPE="demo", NIM_CACHE_PATH=str(tmp_path))
    assert (done.code, objects(done.out)[-1]["error"]["id"]) == (6, "weights-source-unsupported")
    done = run("mirror", "/folder", "--model-uri", URI, HF_ENDPOINT=hub.url, NIM_CACHE_PATH=str(tmp_path))
    assert (done.code, "error[config-invalid]" in done.err) == (2, True)
    assert not [*tmp_path.rglob("*.safetensors")]


def test_a_workspace_and_a_store(hub: FaultHub, tmp_path: Path) -> None:
    ways = {"HF_ENDPOINT": hub.url, "NIM_CACHE_PATH": str(tmp_path / "cache"), "TMPDIR": str(tmp_path)}
    (tmp_path / "cache").mkdir()
    done = run("download-model", "--model-uri", URI, "--json", **ways)
    assert done.code == 0, done.err
    last = objects(done.out)[-1]
    fresh = Path(last["path"])
    assert (last["event"], last["source"], fresh.parent) == ("done", URI, tmp_path)
    assert all((fresh / name).is_symlink() for name in FILES)
    done = run("create-model-store", "-m", str(tmp_path / "store"), NIM_MODEL_PATH=URI, HF_HUB_OFFLINE="1", **ways)
    assert (done.code, f"{URI} is in {tmp_path / 'store'}: revision" in done.out) == (0, True)
    served = run("download-to-cache", "--model-uri", str(tmp_path / "store"), "--json", **ways)
    assert (served.code, objects(served.out)[-1]["path"]) == (0, str(tmp_path / "store"))


def test_a_store_is_not_made_of_what_is_not_there(hub: FaultHub, tmp_path: Path) -> None:
    ways = {"HF_ENDPOINT": hub.url, "NIM_CACHE_PATH": str(tmp_path)}
    done = run(
        "create-model-store", "-m", str(tmp_path / "s"), "--json", NIM_MODEL_PATH=URI, HF_HUB_OFFLINE="1", **ways
    )
    assert (done.code, objects(done.out)[-1]["error"]["id"]) == (6, "weights-offline")
    assert not (tmp_path / "s").exists()


def test_a_signal_ends_an_upload_to_a_store_that_does_not_answer(hub: FaultHub, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(60)
        environ = {
            "PATH": os.environ["PATH"], "NIM_CACHE_PATH": str(tmp_path), "HF_ENDPOINT": hub.url, **KEYS,
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{silent.getsockname()[1]}",
        }  # fmt: skip
        process = subprocess.Popen(
            [sys.executable, "-m", "entrypoint", "mirror", "s3://models", "--model-uri", URI, "--json"],
            env=environ, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            connection, _ = silent.accept()
            with connection:
                process.send_signal(signal.SIGTERM)
                out, err = process.communicate(timeout=20)  # the library itself bears with longer silence
        finally:
            process.kill()
            process.wait()
    assert (process.returncode, objects(out)[-1]["error"]["id"]) == (143, "terminated")
    assert "Traceback" not in err
