"""The stage `cache` before the GPUs are known: any checkpoint that they may choose makes a read-only cache do."""

import pytest

from entrypoint.engine.model import candidates
from entrypoint.settings import read
from entrypoint.weights import cachefolder
from entrypoint.weights.checkpoint import Checkpoint
from nimctl.core.errors import NimctlError
from nimctl.core.fetch import Access, Stop
from tests.lib.checkpoints import safetensors
from tests.lib.fault_hub import FaultHub
from tests.lib.mounts import mounted
from tests.lib.users import needs_root

INT4, NVFP4 = "hf://moonshotai/Kimi-K2.5", "hf://nvidia/Kimi-K2.5-NVFP4"


@pytest.mark.parametrize(
    ("environ", "found"),
    [
        ({}, (INT4, NVFP4)),
        ({"NIM_MODEL_PROFILE": "vllm-nvfp4-tp4-pp1"}, (NVFP4,)),
        ({"NIM_MODEL_PROFILE": "no-such-profile"}, (INT4, NVFP4)),  # refused in its own stage
        ({"NIM_MODEL_PATH": "hf://me/mine"}, ("hf://me/mine",)),
        ({"NIM_MODEL_PATH": NVFP4}, (NVFP4,)),
        ({"NIM_RECIPE": "demo"}, ("builtin://demo",)),
        ({"NIM_RECIPE": "", "NIM_MODEL_PATH": "hf://me/mine"}, ("hf://me/mine",)),
    ],
)
def test_which_weights_may_be_served(environ, found):
    assert candidates(read({"NIM_RECIPE": "kimi-k2.5", **environ})) == found


@needs_root
def test_a_read_only_cache_that_holds_the_second_checkpoint_alone(tmp_path):
    cache, files = tmp_path / "cache", {"config.json": b"{}", "model.safetensors": safetensors(1000)}
    cache.mkdir()
    with FaultHub() as hub:
        hub.add_repo("nvidia/Kimi-K2.5-NVFP4", files)
        checkpoint = Checkpoint(NVFP4, cache, Access(hf_endpoint=hub.url), stop=Stop())
        checkpoint.bring(lambda _: None)
        checkpoint.close()
    with mounted(cache, "--bind", "-o", "ro", str(cache)):
        assert "read-only" in str(cachefolder.probe([INT4, NVFP4], cache, 10)).lower()
        with pytest.raises(NimctlError, match="cache-not-writable"):
            cachefolder.probe([INT4], cache, 10)
    assert cachefolder.probe([INT4], cache, 10) is None
