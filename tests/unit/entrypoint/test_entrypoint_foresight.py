"""The plan against the engine's log, as the container tells it."""

from entrypoint.engine.foresight import Foresight, has_amx, planned
from entrypoint.engine.model import Model
from entrypoint.observability.journal import Journal
from nimctl.core.layout import CPU_LAYOUT, Layout
from nimctl.core.planning.deciding import Request, decide_for
from nimctl.core.planning.expecting import Figures
from nimctl.core.recipes import load
from nimctl.core.stages import StartupReport, report_from_json
from tests.unit.core.planning.test_deciding import gpus

DEMO = Model(load("demo"), "builtin://demo", ("demo",))


def test_what_was_right_is_told_and_what_was_wrong_warned_of(capsys):
    foresight = Foresight(Figures(weights=72 * 2**30, kv_tokens=1000, world=2))
    for line in ("Model loading took 60.00 GiB memory", "GPU KV cache size: 1,010 tokens", "world_size=2 rank=0"):
        foresight.see(line)
    figures = foresight.tell(Journal())
    lines = capsys.readouterr().out.splitlines()
    assert "cache tokens: 1,000 planned, 1,010 in the engine (-1.0%)" in lines[0]
    assert lines[1].startswith("WARNING ") and "the plan was wrong: weights: 72.00 GiB planned, 60.00 GiB" in lines[1]
    assert len(lines) == 2
    report = StartupReport("ready", (), "1", figures=figures)
    assert report_from_json(report.to_json()).figures == figures


def test_an_engine_that_says_nothing_is_not_judged(capsys):
    assert Foresight(Figures(kv_tokens=5)).tell(Journal()) == ()
    assert capsys.readouterr().out == ""


def test_what_is_planned_for_gpus_is_the_plans_own():
    kimi, cluster = load("kimi-k2.5"), gpus(8)
    decision = decide_for(kimi, cluster, Request())
    model = Model(kimi, kimi.weights, ("k",))
    found = planned(model, decision.layout, decision.plan, Request(), device="cuda", environment={})
    assert found.world == 8 and found.kv_tokens and found.weights
    assert abs(found.weights - 77_125_250_016) < 0.001 * found.weights, "the figure of the published account"


def test_on_the_cpu_the_size_of_the_cache_is_promised_only_where_it_is_fixed():
    def promised(**environment):
        return planned(DEMO, CPU_LAYOUT, None, Request(), device="cpu", environment=environment).kv_tokens

    assert promised(VLLM_CPU_KVCACHE_SPACE="1")
    assert promised() is None
    assert planned(DEMO, Layout(2, 1, (), (), ""), None, Request(), device="cpu", environment={}).world == 2


def test_tiles_are_read_from_the_kernel(tmp_path):
    (tmp_path / "cpuinfo").write_text("flags\t: fpu amx_tile amx_bf16\n")
    assert has_amx(tmp_path / "cpuinfo")
    assert not has_amx(tmp_path / "none")
