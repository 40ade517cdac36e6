"""Fault: two servers on one cache, one of them killed, and a cache with too much compiled code in it."""

import signal
from pathlib import Path

from nimctl.core.cache.held import is_held
from tests.unit.entrypoint.service import needs_nginx, service, until

pytestmark = needs_nginx


def test_the_caches_of_a_living_server_are_held_and_those_of_a_killed_one_go():
    with (
        service() as one,
        service(
            NIM_CACHE_PATH=str(one.cache),
            NIM_COMPILE_CACHE_GIB="1",
            NIM_ENGINE_EXECUTABLE=str(one.cache.parent / "vllm"),  # another engine would have another key
        ) as other,
    ):
        started = one.start().wait_ready().engine()["environ"]
        mine = Path(started["VLLM_CACHE_ROOT"]).parent
        assert is_held(mine) and started["VLLM_ENABLE_STARTUP_PLAN"] == "1"
        assert "the weights are not read ahead: " in one.out
        (mine / ".bytes").write_text(str(2**40))
        beside = other.start().wait_ready().engine()["environ"]
        assert beside["VLLM_CACHE_ROOT"] == started["VLLM_CACHE_ROOT"]
        assert beside["VLLM_ENABLE_STARTUP_PLAN"] == "0", "its memory is another's to measure"
        assert (mine / ".bytes").exists() and "which servers use" in other.out + other.err
        for server in (one, other):
            server.signal(signal.SIGKILL).code()
        until(lambda: not is_held(mine))
        again = other.start().wait_ready()
        assert f"removed compile caches: {mine.name}" in again.out
        assert is_held(mine) and not (mine / ".bytes").exists()
