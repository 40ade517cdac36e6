"""A model that is not in the cache yet: small files, the decision, the weights, and what is told meanwhile."""

import json
import re
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from entrypoint.engine import invocation
from entrypoint.engine.model import decide_layout, described, named_model
from entrypoint.settings import read
from entrypoint.stages.profile import open_supplies
from entrypoint.weights.checkpoint import Checkpoint
from nimctl.core.cache import CachePaths
from nimctl.core.errors import NimctlError
from nimctl.core.fetch import Access, Stop, snapshots
from nimctl.core.gpus import Gpu
from nimctl.core.planning.cluster import cluster_of
from tests.lib.checkpoints import safetensors
from tests.lib.fault_hub import TOKEN, FaultHub, Sparse, Stall
from tests.lib.mounts import mounted
from tests.lib.users import needs_root
from tests.unit.entrypoint.service import Service, needs_nginx, service, until

pytestmark = needs_nginx

CONFIG = {"num_attention_heads": 64, "num_hidden_layers": 3, "vision_config": {"num_attention_heads": 8}}
FILES = {
    "config.json": json.dumps(CONFIG).encode(),
    "tokenizer.json": b"{}",
    "model-00001-of-00002.safetensors": safetensors(3_000_000),
    "model-00002-of-00002.safetensors": safetensors(2_000_000),
}
NO_GPU = {"NIM_RECIPE": "", "NIM_GPUS": "none", "NIM_MODEL_PATH": "hf://org/name"}


@pytest.fixture
def hub():
    with FaultHub() as one:
        yield one


def served_from(hub: FaultHub, **environ: str):
    return service(HF_ENDPOINT=hub.url, **{**NO_GPU, **environ})


def weights(one: Service) -> dict:
    """The stage, as anybody is told it."""
    return next(stage for stage in one.startup()["stages"] if stage["name"] == "weights")


def is_complete(one: Service, revision: str) -> bool:
    return snapshots.complete(CachePaths(one.cache).repo("org/name"), revision) is not None


def test_a_model_is_fetched_and_served(hub):
    commit = hub.add_repo("org/name", FILES)
    with served_from(hub) as one:
        one.start().wait_ready()
        assert is_complete(one, commit)
        started = one.engine()
        assert started["argv"][started["argv"].index("serve") + 1].endswith(f"/snapshots/{commit}")
        assert "--limit-mm-per-prompt" in started["argv"], "config.json was believed: it has a vision tower"
        manifest = one.get("/v1/manifest").json
        assert (manifest["source"], manifest["revision"]) == ("hf://org/name", commit)
        assert {file["path"] for file in manifest["files"]} == set(FILES)
        stage = weights(one)
        assert (stage["bytes"], stage["total"]) == (sum(map(len, FILES.values())),) * 2
        assert (stage["state"], stage["files"], stage["phase"]) == ("done", [], None)
        assert len(hub.requests("config.json")) == 1, "what came with the look is not fetched again"


def test_the_second_start_asks_nobody(hub):
    hub.add_repo("org/name", FILES)
    with served_from(hub) as one:
        one.start().wait_ready().signal(signal.SIGTERM)
        assert one.code() == 143
        asked = len(hub.requests())
        hub.add_repo("org/name", {**FILES, "tokenizer.json": b"[]"})
        one.start().wait_ready()
        assert len(hub.requests()) == asked, "a start never moves to another revision by itself"


def test_what_does_not_fit_is_refused_before_the_weights(hub):
    hub.add_repo("org/name", FILES)
    with served_from(hub, NIM_TENSOR_PARALLEL_SIZE="5") as one:
        one.start()
        assert one.code() == 7
        assert one.failure()["error"]["id"] == "no-layout"
        assert one.failure()["stage"] == "profile"
        assert hub.requests("config.json")
        assert not hub.requests("*.safetensors")


def test_a_download_tells_how_far_it_is_and_stops_at_once(hub):
    commit = hub.add_repo("org/name", FILES)
    hub.fail("model-00001*", Stall(after=1000))
    with served_from(hub) as one:
        one.start().wait_stage("weights")
        hub.wait_for_stalls()
        until(lambda: {"fetching", "done"} <= {file["state"] for file in weights(one)["files"]})
        stage = weights(one)
        assert (stage["state"], stage["phase"]) == ("running", "fetching")
        assert stage["total"] == sum(map(len, FILES.values()))
        assert 0 < stage["bytes"] < stage["total"]
        assert stage["connections"] >= 1
        assert {file["path"]: file["size"] for file in stage["files"]} == {n: len(b) for n, b in FILES.items()}
        assert one.get("/v1/health/startup").json["stages"][5]["files"]

        one.signal(signal.SIGTERM)
        assert one.code() == 143, "though the source says nothing any more"
        assert not is_complete(one, commit)

        sent, stalled = hub.bytes_sent("model-00002*"), len(hub.requests("model-00001*"))
        hub.heal()
        one.start().wait_ready()
        assert is_complete(one, commit)
        assert hub.bytes_sent("model-00002*") == sent, "what was fetched is kept"
        assert len(hub.requests("model-00001*")) > stalled


def test_a_start_stops_while_the_source_is_asked(hub):
    hub.add_repo("org/name", FILES)
    hub.fail("/api/*", Stall(after=-1))
    with served_from(hub) as one:
        one.start().wait_stage("profile")
        hub.wait_for_stalls()
        one.signal(signal.SIGTERM)
        assert one.code() == 143
        assert one.startup()["state"] == "stopping"
        assert "Traceback" not in one.err


def test_whoever_stops_the_supervisor_stops_the_download(hub, tmp_path):
    hub.add_repo("org/name", FILES)
    hub.fail("*.safetensors", Stall(after=0))
    told: list = []
    settings = read({"NIM_MODEL_PATH": "hf://org/name", "NIM_CACHE_PATH": str(tmp_path)})
    supervisor = SimpleNamespace(on_close=told.append)
    run = SimpleNamespace(settings=settings, environ={"HF_ENDPOINT": hub.url}, supervisor=supervisor)
    supplies = open_supplies(run, named_model(settings), None)
    with ThreadPoolExecutor() as pool:
        download = pool.submit(supplies.bring, lambda _: None)
        hub.wait_for_stalls()
        for tell in told:
            tell()
        with pytest.raises(NimctlError) as caught:
            download.result(60)
    supplies.close()
    assert caught.value.id == "interrupted"


def test_the_log_is_not_flooded(hub):
    hub.add_repo("org/name", FILES)
    hub.fail("*.safetensors", "slow(2000000)")
    with served_from(hub) as one:
        one.start().wait_ready()
        lines = [line for line in one.out.splitlines() if re.match(r"INFO \S+ \S+ weights (?!report.py)", line)]
        assert 1 <= len(lines) <= 4, lines
        assert "hf://org/name is in " in lines[-1]


def test_the_key_reaches_the_hub_and_never_the_engine(hub, tmp_path):
    hub.add_repo("org/name", FILES, gated="auto")
    key = tmp_path / "key"
    key.write_text(TOKEN + "\n")
    with served_from(hub, HF_TOKEN_FILE=str(key)) as one:
        one.start().wait_ready()
        assert hub.knows(TOKEN)
        environ = one.engine()["environ"]
        assert not {"HF_TOKEN", "HF_TOKEN_FILE", "HF_ENDPOINT"} & set(environ)
        assert TOKEN not in json.dumps(one.engine()) + one.out + one.err + json.dumps(one.startup())


def test_without_the_key_the_start_ends_with_its_name(hub):
    hub.add_repo("org/name", FILES, gated="auto")
    with served_from(hub) as one:
        one.start()
        assert one.code() == 4
        assert one.failure()["error"]["id"] == "key-missing"


@pytest.mark.parametrize("complete", [True, False])
def test_offline(hub, complete):
    hub.add_repo("org/name", FILES)
    with served_from(hub) as one:
        if complete:
            one.start().wait_ready().signal(signal.SIGTERM)
            assert one.code() == 143
        asked = len(hub.requests())
        one._environ["HF_HUB_OFFLINE"] = "1"
        one.start()
        if complete:
            one.wait_ready()
        else:
            assert one.code() == 6
            assert one.failure()["error"]["id"] == "weights-offline"
        assert len(hub.requests()) == asked


@needs_root
def test_a_read_only_cache_serves_what_is_complete_in_it(hub):
    hub.add_repo("org/name", FILES)
    with served_from(hub) as one:
        one.start().wait_ready().signal(signal.SIGTERM)
        assert one.code() == 143
        shutil.rmtree(one.cache / "engine")
        with mounted(one.cache, "--bind", "-o", "ro", str(one.cache)):
            one.start().wait_ready()
            private = one.engine()["environ"]["VLLM_CACHE_ROOT"]
            assert not private.startswith(str(one.cache))
            assert Path(private).parent.stat().st_mode & 0o777 == 0o700
            assert "the cache is read-only" in one.out
            assert f"compiled code goes to {Path(private).parent}" in one.out


@needs_root
@pytest.mark.parametrize(
    ("lost", "stage"),
    # Without a shard nobody has to be asked; what else belongs to the model only its source can tell.
    [("model-00002-of-00002.safetensors", "cache"), ("tokenizer.json", "profile")],
)
def test_a_read_only_cache_that_lacks_something_is_refused(hub, lost, stage):
    commit = hub.add_repo("org/name", FILES)
    with served_from(hub) as one:
        one.start().wait_ready().signal(signal.SIGTERM)
        assert one.code() == 143
        (CachePaths(one.cache).repo("org/name").snapshot(commit) / lost).unlink()
        with mounted(one.cache, "--bind", "-o", "ro", str(one.cache)):
            one.start()
            assert one.code() == 9
            error = one.failure()
            assert (error["stage"], error["error"]["id"]) == (stage, "cache-not-writable")


def test_the_sizes_of_the_files_are_held_against_the_gpus(hub, tmp_path):
    """Weights that exceed the memory are refused though no recipe says how large they are."""
    hub.add_repo("org/large", {"config.json": FILES["config.json"], "model.safetensors": Sparse(10**9, seed=1)})
    settings = read({"NIM_MODEL_PATH": "hf://org/large"})
    gpus = (Gpu(0, name="small", memory_total=10**9),)
    checkpoint = Checkpoint("hf://org/large", tmp_path, Access(hf_endpoint=hub.url), stop=Stop())
    try:
        model = described(settings, named_model(settings), checkpoint.look(lambda _: None))
    finally:
        checkpoint.close()
    assert model.weights_bytes == 10**9
    with pytest.raises(NimctlError, match="no-layout"):
        decide_layout(model, cluster_of(gpus), invocation.request(settings))
    assert not hub.requests("*.safetensors")


def test_a_recipe_with_weights_on_the_hub_takes_the_same_road(hub):
    """The config.json of the repository, not the recipe's figures, decides whether Kimi-K2.5 can be split."""
    files = {**FILES, "config.json": json.dumps({**CONFIG, "num_attention_heads": 6}).encode()}
    hub.add_repo("moonshotai/Kimi-K2.5", files)
    asked = {"NIM_RECIPE": "kimi-k2.5", "NIM_MODEL_PATH": "", "NIM_TENSOR_PARALLEL_SIZE": "4"}
    with served_from(hub, **asked) as one:
        one.start()
        assert one.code() == 7
        assert "6 attention heads do not divide by 4" in one.failure()["error"]["cause"]
        assert not hub.requests("*.safetensors")


def test_strace_is_quiet_about_a_warm_cache(hub, tmp_path):
    """Looking and bringing what is complete connects to nobody, with or without HF_HUB_OFFLINE."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    hub.add_repo("org/name", FILES)
    program = (
        "import sys; from pathlib import Path; from entrypoint.weights.checkpoint import Checkpoint\n"
        "from nimctl.core.fetch import Stop, from_environment\n"
        "access = from_environment({'HF_ENDPOINT': sys.argv[2], 'HF_HUB_OFFLINE': sys.argv[3]})\n"
        "one = Checkpoint('hf://org/name', Path(sys.argv[1]), access, stop=Stop())\n"
        "assert one.look(lambda _: None).config; one.bring(lambda _: None); one.close()\n"
    )

    def calls(offline: str) -> list[str]:
        trace = tmp_path / "trace"
        argv = [strace, "-f", "-e", "trace=network", "-o", str(trace), sys.executable, "-c", program]
        root = Path(__file__).parents[3]
        done = subprocess.run(
            [*argv, str(tmp_path / "cache"), hub.url, offline],
            check=False, capture_output=True, text=True, cwd=root, timeout=120,
        )  # fmt: skip
        if "ptrace" in done.stderr:
            pytest.skip("tracing is not allowed here")
        assert done.returncode == 0, done.stderr
        return [line for line in trace.read_text().splitlines() if "connect(" in line or "send" in line]

    assert calls(""), "the first one fetches, so that the trace is known to see it"
    assert calls("") == []
    assert calls("1") == []
