"""Picking the few lines that say why."""

from hypothesis import given
from hypothesis import strategies as st

from nimctl.core.logshape import Record, as_json, as_text
from nimctl.launch.loglines import recorded_error, relevant

TRACEBACK = """\
(EngineCore pid=7) ERROR 11-22 03:04:05 [core.py:861] EngineCore failed to start.
(EngineCore pid=7) ERROR 11-22 03:04:05 [core.py:861] Traceback (most recent call last):
(EngineCore pid=7) ERROR 11-22 03:04:05 [core.py:861]   File "/opt/vllm/core.py", line 852, in run_engine_core
(EngineCore pid=7) ERROR 11-22 03:04:05 [core.py:861]     engine_core = EngineCoreProc(*args, **kwargs)
(EngineCore pid=7) ERROR 11-22 03:04:05 [core.py:861] torch.OutOfMemoryError: CUDA out of memory. Tried 2.00 GiB.
(APIServer pid=1) RuntimeError: Engine core initialization failed. See root cause above.
""".splitlines()


def test_the_exceptions_and_not_the_frames() -> None:
    lines = relevant(["INFO step"] * 500 + TRACEBACK + ["INFO bye"] * 50)
    assert [line.split("] ")[-1] for line in lines if "pid=7" in line][-1].startswith("torch.OutOfMemoryError")
    assert any("Engine core initialization failed" in line for line in lines)
    assert not any("File" in line or "INFO" in line for line in lines)


def test_both_forms_of_a_server_s_log_are_read_for_what_they_say() -> None:
    text = "torch.OutOfMemoryError: CUDA out of memory. Tried 2.00 GiB."
    record = Record("ERROR", 0.0, "engine", f'Traceback (most recent call last):\n  File "/x.py", line 1, in f\n{text}')
    other = Record("ERROR", 0.0, "front", "no such thing")
    for shape in (as_text, as_json):
        lines = [line for one in (record, other) for line in shape(one).splitlines()]
        assert relevant([*lines, "INFO bye"]) == (text, "no such thing")


def test_without_any_complaint_the_last_lines() -> None:
    assert relevant([f"step {n}" for n in range(20)], limit=3) == ("step 17", "step 18", "step 19")


def test_colours_blanks_and_repetitions_go_and_keys_are_masked() -> None:
    lines = [
        "",
        "\x1b[31mError: bad key nvapi-0123456789\x1b[0m",
        "   ",
        "\x1b[31mError: bad key nvapi-0123456789\x1b[0m",
    ]
    assert relevant(lines) == ("Error: bad key ***",)


@given(st.lists(st.text(max_size=400)), st.integers(1, 10))
def test_never_more_than_asked_and_never_a_line_that_was_not_there(lines: list[str], limit: int) -> None:
    chosen = relevant(lines, limit)
    assert len(chosen) <= limit
    assert all(len(line) <= 300 for line in chosen)


def test_an_error_record_is_found_behind_a_prefix_and_among_other_json() -> None:
    lines = [
        '{"error": {"id": "engine-died", "message": "m1", "cause": "c", "fix": "f"}}',
        '2026-01-01 error {"id": "disk-full", "message": "m2", "cause": "c", "fix": "f", "evidence": ["x"]}',
        '{"cause": "this one is no error"}',
        '{"cause": broken',
    ]
    found = recorded_error(lines)
    assert found is not None and (found.id, found.evidence) == ("disk-full", ("x",))
    assert recorded_error(["plain", "{}"]) is None
    assert recorded_error(['{"error": {"id": "disk-full", "message": "", "cause": "c", "fix": "f"}}']) is None
