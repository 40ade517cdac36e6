"""Starts vLLM on checkpoints, one after the other, and prints what their ranks hold: a line of JSON for each start.

Arguments: the longest context, the tokens of a batch, then folder and tensor-parallel size of each start. Each line
follows the one that the engine logs of its cache.
"""

import json
import multiprocessing
import os
import sys
from typing import Any

os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # the engine's core in this process: one import less each time

import vllm.model_executor.model_loader.base_loader as loader
import vllm.v1.executor.multiproc_executor as executor
from torch import nn
from vllm import LLM
from vllm.logger import _print_info_once
from vllm.platforms import current_platform

_REGISTER = "register_triton_kernel_overrides"
_PREPARE = "process_weights_after_loading"
_prepare = vars(loader)[_PREPARE]
_seen: dict[str, int] = {}


def _count(model: nn.Module, *others: Any, **named: Any) -> None:
    """Counts before the CPU's kernels lay the weights out anew, which GPUs do not do."""
    _seen["parameters"] = sum(p.numel() * p.element_size() for p in model.parameters())
    # a table that layers share is in each of them
    tables = {b.data_ptr(): b.numel() * b.element_size() for name, b in model.named_buffers() if "cos_sin" in name}
    _seen["rotary"] = sum(tables.values())
    _prepare(model, *others, **named)


vars(loader)[_PREPARE] = _count
# Workers are forked from this process, as they are on GPUs: on a CPU each would import the engine anew, 11 s of 15.
vars(executor)["get_mp_context"] = lambda: multiprocessing.get_context("fork")
# What each worker does first looks through all modules, and trips over one that only this process has (llvmlite's).
getattr(current_platform, _REGISTER)()
setattr(type(current_platform), _REGISTER, staticmethod(lambda: None))


class Counting:
    """What is added to each worker: a fork of this process, which counts for itself."""

    def held(self) -> dict[str, int]:
        """Bytes of parameters and of rotary tables of this rank."""
        return _seen


def start(folder: str, tensor: int, max_len: int, batch: int) -> list[dict[str, int]]:
    _print_info_once.cache_clear()  # else two starts with caches of one size log it once
    engine = LLM(
        model=folder,
        tensor_parallel_size=tensor,
        max_model_len=max_len,
        max_num_batched_tokens=batch,
        max_num_seqs=8,
        enforce_eager=True,
        skip_tokenizer_init=True,
        distributed_executor_backend="mp",
        worker_extension_cls=f"{__name__}.Counting",
    )
    held: list[dict[str, int]] = engine.collective_rpc("held")
    engine.llm_engine.engine_core.shutdown()
    return held


if __name__ == "__main__":
    max_len, batch, *starts = sys.argv[1:]
    for folder, tensor in zip(starts[::2], starts[1::2], strict=True):
        found = start(folder, int(tensor), int(max_len), int(batch))
        sys.stdout.write(f"\nheld {folder} {tensor} {json.dumps(found)}\n")
        sys.stdout.flush()
