"""Which process of the engine went first."""

import subprocess
import sys

from entrypoint.processes.witness import GRACE_SECONDS, Witness, named
from tests.unit.entrypoint.service import until


def watching(*looks: dict[int, str]) -> tuple[Witness, list[float]]:
    clock, left = [0.0], list(looks)
    witness = Witness(1, names=lambda _: left.pop(0) if len(left) > 1 else left[0], clock=lambda: clock[0])
    return witness, clock


def test_an_engine_that_is_whole_says_nothing():
    witness, clock = watching({7: "EngineCore", 8: "Worker_TP0"})
    for _ in range(5):
        clock[0] += 10
        assert not witness.look()
    assert witness.first is None


def test_the_first_to_go_is_named_and_an_orderly_end_gets_its_time():
    witness, clock = watching({7: "EngineCore", 8: "Worker_TP0"}, {7: "EngineCore"}, {})
    assert not witness.look()
    assert not witness.look(), "it may be the engine's own end"
    assert witness.first == "Worker_TP0"
    clock[0] += GRACE_SECONDS
    assert witness.look()
    assert witness.first == "Worker_TP0", "those that follow do not take its place"


def test_new_processes_are_no_loss_and_names_may_change():
    witness, _ = watching({7: "Worker"}, {7: "Worker_TP0", 9: "EngineCore"}, {7: "Worker_TP0", 9: "EngineCore"})
    for _ in range(3):
        witness.look()
    assert witness.first is None


def test_processes_are_known_by_the_titles_that_vllm_gives_them():
    titled = "import os; os.execv('/bin/sleep', ['VLLM::EngineCore', '60'])"
    with subprocess.Popen([sys.executable, "-c", f"import os\nif os.fork() == 0:\n {titled}\nos.wait()"]) as parent:
        try:
            assert list(until(lambda: named(parent.pid)).values()) == ["EngineCore"]
        finally:
            for pid in named(parent.pid):
                subprocess.run(["kill", str(pid)], check=False)
            parent.wait(10)
