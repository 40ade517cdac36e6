"""Causes of death, from lines as vLLM, Python and nginx write them."""

import pytest

from nimctl.core.diagnosis import Death, Exit, classify, last_exception, recognised

CODE_1 = Exit(1, None)
KILLED = Exit(None, 9)

VALIDATION = (
    "(APIServer pid=7) Traceback (most recent call last):",
    '(APIServer pid=7)   File "/x/vllm/engine/arg_utils.py", line 1, in create_engine_config',
    "(APIServer pid=7) pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig",
    "(APIServer pid=7)   Value error, max_model_len (9) is greater than the derived (8) [type=value_error]",
)
LESS_THAN_ITS_SHARE = (
    "(Worker pid=9) ERROR 11-22 03:08:14 [core.py:1] ValueError: Available memory on node 0 (19.34/21.34 GiB) on "
    "startup is less than desired CPU memory utilization (0.92, 19.63 GiB). To resolve: decrease "
    "`--gpu-memory-utilization` or reduce CPU memory used by other processes."
)
SECOND_HAND = (
    "(EngineCore pid=9) ERROR 11-22 03:08:14 [core.py:1] RuntimeError: Cannot find any weights",
    "(APIServer pid=7) RuntimeError: Engine core initialization failed. See root cause above.",
)


@pytest.mark.parametrize(
    ("lines", "ended", "error_id", "cause"),
    [
        (("torch.OutOfMemoryError: CUDA out of memory. Tried 2 GiB",), CODE_1, "engine-out-of-memory", "GPU memory"),
        (("ValueError: No available memory for the cache blocks. Try",), CODE_1, "engine-out-of-memory", "context"),
        (("RuntimeError: DefaultCPUAllocator: can't allocate memory",), CODE_1, "engine-out-of-memory", "host"),
        ((LESS_THAN_ITS_SHARE,), CODE_1, "engine-out-of-memory", "host memory: ValueError: Available memory on node 0"),
        (("vllm serve: error: argument --x: invalid int value: 'y'",), Exit(2, None), "engine-config", "--x"),
        (VALIDATION, CODE_1, "engine-config", "max_model_len (9) is greater"),
        (SECOND_HAND, CODE_1, "engine-died", "Cannot find any weights"),
        (("OSError: [Errno 28] No space left on device: '/c/x'",), CODE_1, "engine-died", "full"),
        ((), KILLED, "engine-died", "killed from outside"),
        ((), Exit(0, None), "engine-died", "exit code 0"),
    ],
)  # fmt: skip
def test_the_engine(lines, ended, error_id, cause):
    error = classify(Death("engine", ended, lines))
    assert error.id == error_id
    assert cause in error.cause
    assert error.exit_code == 8


def test_the_kernel_knows_best():
    error = classify(Death("engine", CODE_1, ("RuntimeError: worker died",), oom_kills=1))
    assert error.id == "engine-out-of-memory"
    assert "host memory" in error.cause


def test_a_share_of_the_host_that_is_not_free_can_be_made_smaller():
    assert "VLLM_CPU_KVCACHE_SPACE" in classify(Death("engine", CODE_1, (LESS_THAN_ITS_SHARE,))).fix
    assert "VLLM_CPU" not in classify(Death("engine", CODE_1, ("MemoryError",))).fix


def test_refused_settings_are_only_a_cause_before_it_served():
    assert classify(Death("engine", CODE_1, VALIDATION, serving=True)).id == "engine-died"


def test_nginx():
    assert classify(Death("front", KILLED, ())).id == "front-died"
    taken = ("nginx: [emerg] bind() to 0.0.0.0:80 failed (98: Address already in use)",)
    assert classify(Death("front", CODE_1, taken)).id == "port-in-use"


def test_the_telling_exception_is_the_first_hand_one():
    assert last_exception(SECOND_HAND) == "RuntimeError: Cannot find any weights"
    assert last_exception(("Loading took 3 s", "INFO: no Error here")) is None
    assert last_exception(SECOND_HAND[1:]) is not None, "better than nothing"


WORKER_LOST = "(EngineCore pid=9) ERROR 11-22 03:08:14 [multiproc_executor.py:316] Worker proc VllmWorker-1 died \
unexpectedly (exit code: -9), shutting down executor."


def test_the_worker_that_went_first_is_named_with_its_signal():
    error = classify(Death("engine", Exit(0, None), (WORKER_LOST,), serving=True))
    assert error.id == "engine-died"
    assert error.message == "the engine ended while serving: VllmWorker-1, SIGKILL"
    assert error.cause == "VllmWorker-1 was killed from outside"


def test_a_worker_whose_end_vllm_did_not_see():
    line = WORKER_LOST.replace("-9", "None")
    error = classify(Death("engine", Exit(0, None), (line,), serving=True))
    assert error.message == "the engine ended while serving: VllmWorker-1"
    assert "VllmWorker-1 is gone" in error.cause


def test_a_core_that_was_lost_is_named_where_the_server_ends_as_if_nothing_were_wrong():
    line = "(APIServer pid=7) WARNING 11-22 03:08:14 [core_client.py:821] [shutdown] MPClient: engine core exited "
    error = classify(Death("engine", Exit(0, None), (line + "unexpectedly; starting cleanup",), serving=True))
    assert error.message == "the engine ended while serving: EngineCore"
    assert "EngineCore is gone" in error.cause


def test_a_part_that_nobody_saw_end_is_named_all_the_same():
    error = classify(Death("engine", Exit(0, None), ("shutting down",), serving=True, part="EngineCore"))
    assert "EngineCore" in error.message
    assert error.message == "the engine ended while serving: EngineCore"
    assert "EngineCore is gone" in error.cause


def test_a_gpu_that_fails_is_no_death_like_others():
    line = "RuntimeError: CUDA error: uncorrectable ECC error encountered"
    error = classify(Death("engine", CODE_1, (line,), serving=True))
    assert error.id == "engine-gpu-failed"
    assert "uncorrectable ECC" in error.cause
    assert "nimctl doctor" in error.fix


def test_only_what_is_beyond_doubt_is_recognised():
    assert recognised(Death("engine", CODE_1, ("RuntimeError: something",))) is None
    found = recognised(Death("engine", CODE_1, ("torch.OutOfMemoryError: CUDA out of memory.",)))
    assert found is not None and found.id == "engine-out-of-memory"


def test_one_that_is_killed_has_no_last_words():
    lines = ("Traceback (most recent call last):", "BrokenPipeError: [Errno 32] Broken pipe")
    error = classify(Death("engine", KILLED, lines, serving=True))
    assert error.cause == "it was killed from outside"
    assert error.evidence == lines[1:], "they are shown all the same"


def test_a_lost_core_is_explained_by_its_own_lines():
    lines = ("(APIServer pid=7) BrokenPipeError: [Errno 32] Broken pipe", "(EngineCore pid=9) RuntimeError: NCCL error")
    assert classify(Death("engine", Exit(0, None), lines, part="EngineCore")).cause == "RuntimeError: NCCL error"
    assert "is gone" in classify(Death("engine", Exit(0, None), lines[:1], part="EngineCore")).cause
