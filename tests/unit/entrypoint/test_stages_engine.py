"""What the stage of the engine leaves behind where the engine does not come up."""

from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest

from entrypoint.stages import engine
from nimctl.core.errors import NimctlError


def start(monkeypatch: pytest.MonkeyPatch, await_engine: Any, spawn: Any = None) -> tuple[Any, MagicMock]:
    """How a start ends whose engine is awaited so, and what reads ahead for it."""
    ahead, prepared, run = MagicMock(), MagicMock(), MagicMock(environ={})
    prepared.loading.begin.return_value = ahead
    run.supervisor.spawn, run.supervisor.closed = spawn or MagicMock(), False
    monkeypatch.setattr(engine, "prepare_engine", lambda *_, **__: prepared)
    monkeypatch.setattr(engine, "planned", MagicMock())
    monkeypatch.setattr(engine, "environment", MagicMock())
    monkeypatch.setattr(engine, "invocation", MagicMock())
    monkeypatch.setattr(engine, "await_nodes", lambda *_: None)
    monkeypatch.setattr(engine.loading, "await_engine", await_engine)
    try:
        engine.start_engine(run, *(MagicMock() for _ in range(3)), cache_writable=True, on_spawn=lambda _: None)
    except (NimctlError, RuntimeError, engine.Moot) as error:
        return error, ahead
    return None, ahead


def reasons(ahead: MagicMock) -> list[str]:
    return [call.args[0] for call in ahead.close.call_args_list]


def stalls(*_: object, **__: object) -> None:
    raise NimctlError("engine-stalled", "it stands still", cause="no line for 1800 s", fix="Look at the storage.")


def test_nothing_is_read_ahead_for_an_engine_that_stalled(monkeypatch: pytest.MonkeyPatch) -> None:
    error, ahead = start(monkeypatch, stalls)
    assert error.id == "engine-stalled"
    assert reasons(ahead) == ["the engine is given up"]


def test_nothing_is_read_ahead_for_an_engine_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    error, ahead = start(monkeypatch, stalls, MagicMock(side_effect=RuntimeError("the supervisor is stopping")))
    assert isinstance(error, RuntimeError)
    assert reasons(ahead) == ["the engine is given up"]


@pytest.mark.parametrize(("ended", "why"), [(None, "the engine serves"), (SimpleNamespace(code=1), "the engine ended")])
def test_the_log_tells_why_reading_ahead_stopped(monkeypatch: pytest.MonkeyPatch, ended: Any, why: str) -> None:
    error, ahead = start(monkeypatch, lambda *_, **__: None, lambda *_, **__: SimpleNamespace(exit=ended))
    assert isinstance(error, engine.Moot) == (ended is not None)
    assert reasons(ahead)[0] == why, "of two reasons the first stays"
