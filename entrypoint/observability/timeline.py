"""What the engine's start consists of, told by the first of its lines that can only come then.

    imports -> workers -> weights -> compile -> kernels -> graphs -> api

The lines: https://github.com/vllm-project/vllm/blob/v0.32.0/vllm/v1/engine/core.py (Initializing a V1, init engine),
.../v1/worker/gpu_model_runner.py (Starting to load model, Capturing CUDA graphs), .../model_loader/default_loader.py
(Loading weights took), .../v1/core/kv_cache_utils.py (KV cache size).
"""

import re

from nimctl.core.stages import StartupReport

# Each step ends where the next begins. `compile` is the profiling run, in which torch.compile works; `kernels` the
# allocation of the cache and the tuning of kernels; `graphs` their capture; `api` the way back to the API server.
STEPS = ("imports", "workers", "weights", "compile", "kernels", "graphs", "api")
_BEGINNINGS = (
    (re.compile(r"Initializing a V1 LLM engine"), "workers"),
    (re.compile(r"Starting to load model"), "weights"),
    (re.compile(r"Loading weights took|Model loading took"), "compile"),
    (re.compile(r"[CG]PU KV cache size|# [CG]PU blocks"), "kernels"),
    (re.compile(r"Capturing CUDA graph"), "graphs"),
    (re.compile(r"init engine \(profile"), "api"),
)


class EngineSteps:
    """Which step of its start the engine is in. Several ranks and a draft model say the same twice: no step returns."""

    def __init__(self) -> None:
        self._reached = 0

    def see(self, line: str) -> str | None:
        """The step that begins with this line of the engine's log, if one does."""
        for pattern, name in _BEGINNINGS:
            if STEPS.index(name) > self._reached and pattern.search(line):
                self._reached = STEPS.index(name)
                return name
        return None


def in_words(report: StartupReport) -> str:
    """Every stage with its seconds, and the steps of those that have some: one line for the log."""
    told = []
    for stage in report.stages:
        if stage.seconds is not None:
            steps = ", ".join(f"{step.name} {step.seconds:.1f}" for step in stage.steps)
            told.append(f"{stage.name} {stage.seconds:.1f}" + (f" ({steps})" if steps else ""))
    return ", ".join(told)
