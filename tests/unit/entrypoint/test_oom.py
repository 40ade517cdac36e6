"""The kernel's count of out-of-memory kills, from both versions of control groups."""

import pytest

from entrypoint.processes.oom import oom_kills


@pytest.mark.parametrize(
    ("membership", "file"),
    [
        ("0::/\n", "memory.events"),
        ("0::/user/x.scope\n", "user/x.scope/memory.events"),
        ("4:memory:/docker/abc\n", "memory/docker/abc/memory.oom_control"),
        ("4:memory:/docker/abc\n", "memory/memory.oom_control"),
    ],
)
def test_the_kernels_count_in_both_versions(tmp_path, membership, file):
    own = tmp_path / "cgroup"
    own.write_text(membership)
    counts = tmp_path / "fs" / file
    counts.parent.mkdir(parents=True)
    counts.write_text("oom_kill_disable 0\noom 7\noom_kill 3\noom_group_kill 0\n")
    assert oom_kills(tmp_path / "fs", own) == 3


def test_no_count_is_none(tmp_path):
    assert oom_kills(tmp_path, tmp_path / "missing") == 0
