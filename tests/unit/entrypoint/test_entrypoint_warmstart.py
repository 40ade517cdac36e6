"""The parts of a quick start, put together as the engine's start uses them."""

from dataclasses import replace

import pytest

from entrypoint.engine import warmstart
from entrypoint.settings import read
from nimctl.core.cache.held import is_held
from nimctl.core.layout import CPU_LAYOUT

MIB = 2**20
ARGV = ("vllm", "serve", "/w", "--uds", "/run/s", "--load-format", "safetensors", "--max-num-seqs", "4")


class Told:
    """What the journal was told."""

    def __init__(self):
        self.lines = []

    def info(self, stage, words):
        self.lines.append(words)

    warning = info


@pytest.fixture
def told():
    return Told()


def settings(**environ):
    return read({"NIM_RECIPE": "demo", **environ})


def test_a_full_cache_makes_room_and_says_so(tmp_path, told):
    (tmp_path / "old").mkdir()
    (tmp_path / "old/.bytes").write_text(str(3 * 2**30))
    caches = warmstart.open_caches(tmp_path / "mine", [], settings(NIM_COMPILE_CACHE_GIB="2"), told)
    assert told.lines == ["removed compile caches: old (freed 3.0 GiB, NIM_COMPILE_CACHE_GIB=2)"]
    assert is_held(tmp_path / "mine") and caches.held.alone
    assert warmstart.open_caches(tmp_path / "mine", [], settings(), told).held is caches.held, "one hold a process"
    assert caches.variables(ARGV) == {"VLLM_ENABLE_STARTUP_PLAN": "1"}
    assert replace(caches, held=warmstart.Hold(None, alone=False)).variables(ARGV) == {"VLLM_ENABLE_STARTUP_PLAN": "0"}


def test_what_is_in_use_and_too_much_is_a_warning(tmp_path, told):
    caches = warmstart.open_caches(tmp_path / "mine", [], settings(), told)
    (caches.folder / ".bytes").write_text(str(2**40))
    warmstart.open_caches(tmp_path / "mine", [], settings(), told)
    assert told.lines == ["compile caches hold 1024.0 GiB, which servers use"]
    assert caches.folder.is_dir()


def test_the_weights_of_a_checkpoint_are_looked_at(tmp_path, told):
    (tmp_path / "model.safetensors").write_bytes(bytes(MIB))
    found = warmstart.loading(ARGV, tmp_path, CPU_LAYOUT, settings(NIM_WEIGHTS_PREFETCH="on"))
    assert [file.size for file in found.files] == [MIB]
    found.begin(told, lambda words: None).join(30)
    assert told.lines[0].startswith("the weights are ") and found.plan.because in told.lines[0]
    off = warmstart.loading(ARGV, tmp_path, CPU_LAYOUT, settings(NIM_WEIGHTS_PREFETCH="off"))
    assert not off.plan.ahead and off.words == ()


def test_whole_experts_on_several_ranks_are_filtered(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(bytes(MIB))
    experts = (*ARGV, "--enable-expert-parallel")
    wide = replace(CPU_LAYOUT, tensor_parallel_size=4, expert=True)
    assert warmstart.loading(experts, tmp_path, wide, settings()).words == ("--enable-ep-weight-filter",)
    assert warmstart.loading(ARGV, tmp_path, wide, settings()).words == ()
    assert warmstart.loading(experts, tmp_path, CPU_LAYOUT, settings()).words == (), "one rank has all of them"
    piped = replace(CPU_LAYOUT, pipeline_parallel_size=2, expert=True)
    assert warmstart.loading(experts, tmp_path, piped, settings()).words == (), "stages do not share experts"
