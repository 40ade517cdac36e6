"""Compile caches: the key, the room they take, what goes first, and the memory plans within."""

import fcntl
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from entrypoint.engine import compiled
from nimctl.core.cache import held
from nimctl.core.cache.held import alone, hold, is_held, remove

H100 = compiled.Machine("cuda", "0.32.0", ("NVIDIA H100 80GB HBM3",) * 8, "580.95.05", "x86_64 avx2", "torch-2.9")


def test_the_key_is_a_folder_name_that_people_can_read():
    assert H100.key.startswith("vllm-0.32.0-cuda-NVIDIA_H100_80GB_HBM3-580.95.05-")
    assert "/" not in replace(H100, vllm_version=None, gpus=("../../x",), driver=None).key


@pytest.mark.parametrize(
    "change",
    [
        {"vllm_version": "0.33.0"},
        {"device": "cpu"},
        {"gpus": ("NVIDIA H200",)},
        {"gpus": ("NVIDIA H100 80GB HBM3", "NVIDIA L4")},
        {"driver": "590.1"},
        {"processor": "x86_64 avx2 avx512f"},
        {"build": "torch-2.10"},
    ],
)
def test_another_machine_or_build_has_another_key(change):
    assert replace(H100, **change).key != H100.key


def test_how_many_gpus_there_are_does_not_matter():
    assert replace(H100, gpus=H100.gpus[:1]).key == H100.key


def test_this_machine_is_the_same_twice(tmp_path):
    assert compiled.machine("cpu", "1", (), None) == compiled.machine("cpu", "1", (), None)
    assert compiled.machine("cpu", "1", (), None).key != compiled.machine("cpu", "1", (), None, "/other/vllm").key
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor : 0\nmodel name : X\ncpu MHz : 2100.5\nflags : fpu sse2\n\nprocessor : 1\n")
    assert compiled.processor(cpuinfo).endswith(" fpu sse2")
    assert compiled.processor(tmp_path / "none")


def test_the_build_is_what_is_installed(tmp_path):
    for name in ("torch-2.9.0.dist-info", "numba-1.dist-info", "nimctl-0.1.dist-info", "torch"):
        (tmp_path / name).mkdir()
    assert compiled.build(tmp_path).splitlines()[1:] == ["numba-1.dist-info", "torch-2.9.0.dist-info"]


def cache(folder, name, size, used):
    made = folder / name
    (made / "triton").mkdir(parents=True)
    (made / "triton/kernel.so").write_bytes(b"x" * size)
    hold(made).release()
    os.utime(made / ".in-use", (used, used))
    return made


MIB = 2**20


def test_the_least_recently_used_goes_first(tmp_path):
    old, newer, mine = (cache(tmp_path, name, MIB, used) for name, used in (("a", 1), ("b", 2), ("mine", 0)))
    done = compiled.prune(mine, 5 * MIB // 2)
    assert done.removed == ("a",) and MIB <= done.freed < 3 * MIB // 2
    assert not old.exists() and newer.exists() and (mine / "triton/kernel.so").exists()
    assert compiled.prune(mine, 5 * MIB // 2).removed == ()
    assert {p.name for p in tmp_path.iterdir()} == {"b", "mine"}, "nothing else is left behind"


def test_what_an_ended_removal_left_goes(tmp_path):
    mine = cache(tmp_path, "mine", 10, 1)
    cache(tmp_path, ".old.removed-7", MIB, 1)
    assert compiled.prune(mine, MIB).bytes < MIB
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


def test_one_in_use_stays(tmp_path):
    used, mine = cache(tmp_path, "a", MIB, 1), cache(tmp_path, "mine", 10, 2)
    server = hold(used)
    assert compiled.prune(mine, 1).removed == ("mine",)
    assert used.exists() and mine.is_dir()
    server.release()
    assert compiled.prune(mine, 1).removed[0] == "a"


def test_a_killed_server_lets_go(tmp_path):
    used = cache(tmp_path, "a", 10, 1)
    code = "import sys, pathlib; from nimctl.core.cache.held import hold; h = hold(pathlib.Path(sys.argv[1])); "
    code += "print('held', flush=True); sys.stdin.read()"
    server = subprocess.Popen([sys.executable, "-c", code, str(used)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert server.stdout.readline() == b"held\n"
    with alone(used) as free:
        assert not free
    beside = hold(used)
    assert not beside.alone
    beside.release()
    server.kill()
    server.communicate()
    with alone(used) as free:
        assert free
    assert remove(used) and not used.exists()


def test_somebody_who_looks_in_that_instant_does_not_leave_a_server_unheld(tmp_path, monkeypatch):
    mine = cache(tmp_path, "mine", 10, 1)
    looker = (mine / ".in-use").open("r+")
    with looker:
        fcntl.flock(looker, fcntl.LOCK_EX)
        monkeypatch.setattr(held.time, "sleep", lambda _: looker.close())
        server = hold(mine)
    assert is_held(mine) and server.alone
    server.release()


def test_who_has_it_alone_for_long_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(held, "_PATIENCE", 0.0)
    mine = cache(tmp_path, "mine", 10, 1)
    with alone(mine) as free:
        assert free and not hold(mine).alone


def test_sizes_are_noted_and_believed(tmp_path):
    mine = cache(tmp_path, "mine", MIB, 1)
    assert MIB <= compiled.size_of(mine) < 2 * MIB
    compiled.note_size(mine, delay=0).join(30)
    (mine / "triton/kernel.so").unlink()
    assert MIB <= compiled.size_of(mine) < 2 * MIB, "no walk at the next start"
    (mine / ".bytes").write_text("nonsense")
    assert compiled.size_of(mine) < MIB


def test_one_at_a_time_waits_to_count(tmp_path):
    first, second = (compiled.note_size(tmp_path, delay=300) for _ in range(2))
    first.join(30)
    assert not first.is_alive() and second.is_alive() and second.daemon
    second.cancel()
    second.join(30)


def test_a_folder_that_was_pruned_meanwhile_is_made_again(tmp_path):
    mine = tmp_path / "mine"
    assert hold(mine).alone and mine.stat().st_mode & 0o777 == 0o700


def test_a_cache_without_locks_is_never_alone_and_never_pruned(tmp_path):
    place = tmp_path / "file"
    place.write_text("")
    assert not hold(place).alone
    with alone(place) as free:
        assert not free
    assert not remove(place)


SERVE = ("vllm", "serve", "/w", "--uds", "/run/1/s", "--shutdown-timeout", "30", "--max-num-seqs", "4")


def plans(folder):
    return (folder / "vllm/startup_plan").resolve()


def test_each_command_remembers_its_own_memory(tmp_path):
    held = hold(tmp_path)
    assert compiled.keep_plan(tmp_path, SERVE, held)
    first = plans(tmp_path)
    (first / "startup_plan_x.json").write_text("{}")
    assert compiled.keep_plan(tmp_path, [*SERVE, "--gpu-memory-utilization", "0.5"], held)
    assert plans(tmp_path) != first and not list(plans(tmp_path).iterdir())
    other = [word.replace("/run/1", "/run/2").replace("30", "60") for word in SERVE]
    assert compiled.keep_plan(tmp_path, other, held)
    assert plans(tmp_path) == first, "the socket and the drain time have nothing to do with memory"
    node = ("--master-addr", "10.0.0.9", "--master-port", "29501", "--node-rank", "1")
    assert compiled.keep_plan(tmp_path, [*SERVE, *node], held)
    assert plans(tmp_path) == first, "where the leader is as little"


def test_a_folder_of_plans_that_was_there_before_is_not_trusted(tmp_path):
    (tmp_path / "vllm/startup_plan").mkdir(parents=True)
    (tmp_path / "vllm/startup_plan/startup_plan_y.json").write_text("{}")
    assert compiled.keep_plan(tmp_path, SERVE, hold(tmp_path))
    assert not list(plans(tmp_path).iterdir())


def test_two_servers_on_one_cache_measure_their_memory(tmp_path):
    first = hold(tmp_path)
    assert compiled.keep_plan(tmp_path, SERVE, first)
    assert not compiled.keep_plan(tmp_path, [*SERVE, "--x"], hold(tmp_path))


@pytest.fixture
def described(tmp_path):
    folder = tmp_path / "etc"
    (folder / "modelinfos").mkdir(parents=True)
    (folder / "modelinfos/kimi.json").write_text("new")
    (folder / "architectures.json").write_text('{"Kimi": "kimi.json", "Gone": "gone.json", "Bad": "../../x"}')
    return folder


def checkpoint(tmp_path, text):
    folder = tmp_path / "snapshot"
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(text)
    return folder


def test_what_the_image_knows_of_a_model_is_there_before_the_first_start(tmp_path, described):
    key = tmp_path / "key"
    served = checkpoint(tmp_path, '{"architectures": ["Kimi", "Gone", "Bad", "Other", 3]}')
    assert compiled.seed(key, [served], described) == ("Kimi",)
    kept = key / "vllm/modelinfos/kimi.json"
    assert kept.read_text() == "new"
    kept.write_text("vLLM's own")
    assert compiled.seed(key, [served], described) == ()
    assert kept.read_text() == "vLLM's own"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"architectures": null}'])
def test_a_checkpoint_that_names_no_class_gets_nothing(tmp_path, described, text):
    assert compiled.seed(tmp_path / "key", [checkpoint(tmp_path, text)], described) == ()
    assert compiled.seed(tmp_path / "key", [tmp_path / "none"], tmp_path / "none") == ()
