"""What vLLM hashes of our environment into the key of its compile cache: nothing that changes from start to start."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from entrypoint.engine import environment as engine
from entrypoint.engine.model import Model
from entrypoint.settings import read
from nimctl.core.layout import CPU_LAYOUT, Layout
from nimctl.core.recipes import load, names

# vLLM's own module of variables, without torch and the rest of vLLM (ten seconds of imports): of those it asks for
# plain values, whether torch is new enough, and whether it is a build for AMD.
FACTORS = """
import importlib.util, json, os, sys, types
plain = types.ModuleType("vllm.config.utils")
plain.normalize_value = repr
sys.modules["vllm.config.utils"] = plain
utils = types.ModuleType("vllm.utils.torch_utils")
utils.is_torch_equal_or_newer = lambda version: True
sys.modules["vllm.utils.torch_utils"] = utils
sys.modules["torch"] = torch = types.ModuleType("torch")
torch.version = types.SimpleNamespace()
spec = importlib.util.spec_from_file_location("vllm.envs", sys.argv[1])
sys.modules["vllm.envs"] = envs = importlib.util.module_from_spec(spec)
spec.loader.exec_module(envs)
found = []
for environment in json.load(sys.stdin):
    os.environ.clear()
    os.environ.update(environment)
    found.append(envs.compile_factors())
print(json.dumps(found))
"""

SOME_RECIPES = sorted(name for name in names() if load(name).runs == "ours")
# Whatever may be another for the same model on the same GPUs.
THIS_START = {"PATH": "/bin", "HOME": "/root", "NIM_LOG_LEVEL": "INFO"}
OTHER_START = {
    "PATH": "/usr/bin:/bin",
    "HOME": "/home/other",
    "HOSTNAME": "b2",
    "NIM_SERVER_PORT": "9000",
    "NIM_HEALTH_PORT": "9001",
    "NIM_MAX_IMAGES_PER_PROMPT": "9",
    "NIM_MAX_MODEL_LEN": "4096",
    "NIM_LOG_LEVEL": "DEBUG",
    "NIM_JSONL_LOGGING": "1",
    "NIM_DRAIN_SECONDS": "5",
    "NIM_ENGINE_STALL_SECONDS": "60",
    "NIM_ALLOWED_MEDIA_DOMAINS": "a.example",
    "NIM_COMPILE_CACHE_GIB": "1",
    "NIM_WEIGHTS_PREFETCH": "off",
    "NIM_CANARY_INTERVAL": "0",
    "NIMCTL_STATE_DIR": "/run/other",
    "NGC_API_KEY": "x",
    "HF_TOKEN": "y",
    "CUDA_VISIBLE_DEVICES": "1",
    "LD_LIBRARY_PATH": "/x",
    "XDG_CACHE_HOME": "/x",
    # A Kubernetes service called vllm: https://kubernetes.io/docs/concepts/services-networking/service/
    "VLLM_PORT": "tcp://10.0.0.1:8000",
    "VLLM_SERVICE_HOST": "10.0.0.1",
}


def envs_path() -> Path | None:
    found = importlib.util.find_spec("vllm")  # finds it, and runs none of it
    place = Path(found.origin).with_name("envs.py") if found and found.origin else None
    return place if place is not None and place.is_file() else None


def factors(environments):
    place = envs_path()
    if place is None:
        pytest.skip("no vLLM is installed")
    argv = [sys.executable, "-I", "-c", FACTORS, str(place)]
    done = subprocess.run(
        argv, input=json.dumps(environments), capture_output=True, text=True, timeout=60, check=True, env={}
    )
    assert "Skipping" not in done.stderr, done.stderr
    return json.loads(done.stdout)


def start(recipe, environ, private, device="cuda", layout=CPU_LAYOUT):
    settings = read({"NIM_RECIPE": recipe, **environ})
    model = Model(load(recipe), load(recipe).weights, ("m",))
    return engine.build_environment(environ, settings, model, device, layout, visible=range(8), private=Path(private))


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_no_two_starts_of_a_model_differ(device):
    pairs = [
        (start(recipe, THIS_START, "/a/k", device), start(recipe, OTHER_START, "/b/other/k", device))
        for recipe in SOME_RECIPES
    ]
    found = factors([environment for pair in pairs for environment in pair])
    assert found, "there are recipes"
    for recipe, one, other in zip(SOME_RECIPES, found[::2], found[1::2], strict=True):
        assert len(one) > 100, "vLLM looks at many"
        assert one == other, recipe


def test_the_names_of_a_kubernetes_service_do_not_reach_the_engine():
    env = start("demo", OTHER_START, "/a")
    assert "VLLM_PORT" not in env and "VLLM_SERVICE_HOST" not in env, "vLLM refuses an address there"
    assert start("demo", {"VLLM_PORT": "5678"}, "/a")["VLLM_PORT"] == "5678"


def test_another_set_of_gpus_of_the_same_kind_is_the_same_key():
    one, other = (start("demo", {}, "/a", layout=Layout(2, 1, used, (), "because")) for used in ((0, 1), (4, 5)))
    assert one != other
    first, second = factors([one, other])
    assert first == second


def test_the_test_would_see_a_variable_that_changes():
    one = start("demo", THIS_START, "/a")
    first, second = factors([one, one | {"VLLM_ENGINE_READY_TIMEOUT_S": "601"}])
    assert first != second


def test_memory_plans_and_caches_are_not_hashed():
    one = start("demo", THIS_START, "/a")
    first, second = factors([one, one | {"VLLM_ENABLE_STARTUP_PLAN": "1", "VLLM_CACHE_ROOT": "/elsewhere"}])
    assert first == second
