"""The server's own metrics: valid text of Prometheus' format, true figures, and a file that changes with them."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrypoint.observability import timeline
from entrypoint.observability.metrics import Counts, Family, Metrics, exposition, families
from entrypoint.observability.report import Report
from entrypoint.state import open_state
from nimctl.core.stages import Figure, Stage, StartupReport, Step, report_from_json

_LABEL = r'[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\[\\"n])*"'
_SAMPLE = re.compile(rf"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{{({_LABEL}(?:,{_LABEL})*)\}})? (-?[0-9.e+-]+|[+-]Inf|NaN)")


def parse(text: str) -> dict[str, float]:
    """The samples of an exposition; refuses what `promtool check metrics` refuses."""
    assert not text or text.endswith("\n")
    found: dict[str, float] = {}
    kinds: dict[str, str] = {}
    helped: list[str] = []
    family = ""
    for line in text.split("\n")[:-1]:
        if match := re.fullmatch(r"# HELP (\S+) (.+)", line):
            assert match[1] not in helped and not re.search(r"(?<!\\)(?:\\\\)*\\[^\\n]", match[2])
            family = match[1]
            helped.append(family)
        elif match := re.fullmatch(r"# TYPE (\S+) (counter|gauge)", line):
            assert match[1] == family and family not in kinds
            kinds[family] = match[2]
            assert (match[2] == "counter") == family.endswith("_total"), f"{family} is misnamed"
        else:
            match = _SAMPLE.fullmatch(line)
            assert match, line
            assert match[1] == family and family in kinds, f"{line} stands outside of its family"
            key = f"{match[1]}{{{match[2]}}}" if match[2] else match[1]
            assert key not in found, f"{key} twice"
            found[key] = float(match[3])
    return found


PHASES = (Step("fetching", 0.0, 5.0), Step("verifying", 5.0, 1.0), Step("fetching", 6.0, 2.0))
REPORT = StartupReport(
    "ready",
    (
        Stage("weights", "done", 12.5, steps=PHASES),
        Stage("engine", "running", 30.25),
        Stage("warmup"),
    ),
    "1.0",
    figures=(Figure("cache tokens", 10, 465_920, 0.0, True),),
    restarts=2,
)


def test_every_figure_is_told_once():
    counts = Counts(2**40, {"ok": 3, "failed": 1}, {("/v1/models", "200"): 7, ("other", "404"): 1}, 61.75)
    assert parse(exposition(families(REPORT, counts, {"version": '1"\\\n'}))) == {
        'nimctl_build_info{version="1\\"\\\\\\n"}': 1,
        "nimctl_ready": 1,
        "nimctl_start_seconds": 61.75,
        'nimctl_stage_seconds{stage="weights"}': 12.5,
        'nimctl_stage_seconds{stage="engine"}': 30.25,
        'nimctl_stage_step_seconds{stage="weights",step="fetching"}': 7,
        'nimctl_stage_step_seconds{stage="weights",step="verifying"}': 1,
        "nimctl_downloaded_bytes_total": 2**40,
        "nimctl_cache_tokens": 465_920,
        "nimctl_engine_restarts_total": 2,
        'nimctl_canary_total{result="failed"}': 1,
        'nimctl_canary_total{result="ok"}': 3,
        'nimctl_requests_total{route="/v1/models",code="200"}': 7,
        'nimctl_requests_total{route="other",code="404"}': 1,
    }


@given(st.text(), st.text(), st.floats(allow_nan=False, allow_infinity=False))
def test_whatever_a_label_holds_the_text_is_valid(label: str, told: str, value: float):
    text = exposition([Family("x", "gauge", told or "-", (((("name", label),), value),))])
    assert list(parse(text).values()) == [value]


def test_the_file_changes_only_with_its_content(tmp_path):
    path = tmp_path / "metrics.txt"
    metrics = Metrics(path, {"version": "1.0", "vllm": ""})
    metrics.write(REPORT)
    first = path.stat().st_ino
    metrics.write(REPORT)
    assert path.stat().st_ino == first
    metrics.canary("failed")
    metrics.first_ready(5.0)
    metrics.first_ready(9.0)
    metrics.write(REPORT, downloaded=7, requests={("other", "404"): 1})
    found = parse(path.read_text())
    assert path.stat().st_ino != first
    assert (found['nimctl_canary_total{result="failed"}'], found['nimctl_canary_total{result="ok"}']) == (1, 0)
    assert (found["nimctl_start_seconds"], found["nimctl_downloaded_bytes_total"]) == (5, 7)


def test_a_full_state_folder_ends_nothing(tmp_path):
    Metrics(tmp_path / "none/metrics.txt", {}).write(REPORT)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def report(tmp_path):
    clock = Clock()
    made = Report(open_state(tmp_path / "state"), "1.0", clock=clock)
    made.clock = clock
    return made


ENGINE = [
    (9.0, "(EngineCore pid=2) INFO 11-22 03:07:36 [core.py:133] Initializing a V1 LLM engine (v0.32.0) with config: x"),
    (8.0, "(Worker_TP0 pid=3) INFO 11-22 03:07:45 [gpu_model_runner.py:5040] Starting to load model /x..."),
    (0.1, "(Worker_TP1 pid=4) INFO 11-22 03:07:45 [gpu_model_runner.py:5040] Starting to load model /x..."),
    (20.0, "(Worker_TP0 pid=3) INFO 11-22 03:07:46 [default_loader.py:501] Loading weights took 20.1 seconds"),
    (1.0, "(Worker_TP0 pid=3) INFO 11-22 03:07:46 [gpu_model_runner.py:5040] Starting to load model /draft..."),
    (6.0, "(EngineCore pid=2) INFO 11-22 03:07:47 [kv_cache_utils.py:2327] GPU KV cache size: 310,688 tokens"),
    (2.0, "Capturing CUDA graphs (mixed prefill-decode, PIECEWISE):   0%|          | 0/51 [00:00<?, ?it/s]"),
    (4.0, "(EngineCore pid=2) INFO 11-22 03:07:50 [core.py:402] init engine (profile, create kv cache) took 3.48 s"),
]


def test_the_steps_of_the_engine_are_timed_by_its_lines(report):
    report.listen(told := [].append)
    assert told
    seen = timeline.EngineSteps()
    with report.stage("engine"):
        report.step("engine", timeline.STEPS[0])
        for seconds, line in ENGINE:
            report.clock.now += seconds
            if name := seen.see(line):
                report.step("engine", name)
        report.clock.now += 1.5
    engine = next(stage for stage in report.current.stages if stage.name == "engine")
    assert [(step.name, step.seconds) for step in engine.steps] == [
        ("imports", 9.0),
        ("workers", 8.0),
        ("weights", 20.1),
        ("compile", 7.0),
        ("kernels", 2.0),
        ("graphs", 4.0),
        ("api", 1.5),
    ]
    assert engine.seconds == pytest.approx(sum(step.seconds for step in engine.steps))
    assert "engine 51.6 (imports 9.0, workers 8.0, weights 20.1, compile 7.0" in timeline.in_words(report.current)
    assert report_from_json(report.current.to_json()) == report.current


def test_parts_that_run_beside_each_other_and_phases_of_a_download(report):
    with report.stage("weights"):
        for phase, bytes_there in (("resolving", None), ("fetching", 10), ("fetching", 30), ("verifying", 90)):
            report.progress("weights", phase=phase, bytes=bytes_there)
            report.clock.now += 2.0
        report.progress("weights", phase="done")
    with report.stage("warmup"):
        report.clock.now += 1.0
        report.took("warmup", "text", 1.0)
        report.clock.now += 3.0
        report.took("warmup", "image", 3.5)
    stages = {stage.name: stage.steps for stage in report.current.stages}
    assert stages["weights"] == (Step("resolving", 0.0, 2.0), Step("fetching", 2.0, 4.0), Step("verifying", 6.0, 2.0))
    assert stages["warmup"] == (Step("text", 0.0, 1.0), Step("image", 0.5, 3.5))
    assert report.downloaded == 20


def test_who_listens_hears_each_stage_begin_and_end_and_a_new_start_begins_anew(report):
    with report.stage("settings"):
        report.clock.now += 1
    told: list[tuple[str, str]] = []
    report.listen(lambda stage: told.append((stage.name, stage.state)))
    with pytest.raises(ValueError), report.stage("engine"):
        report.step("engine", "imports")
        raise ValueError
    with report.stage("engine"):
        report.clock.now += 1
    assert told == [
        ("settings", "done"),
        ("engine", "running"),
        ("engine", "failed"),
        ("engine", "running"),
        ("engine", "done"),
    ]
    assert next(stage for stage in report.current.stages if stage.name == "engine").steps == ()
