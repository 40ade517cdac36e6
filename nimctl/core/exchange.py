"""One question to a program that may be anybody's: a bounded time, a bounded answer, and nothing of it left behind."""

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_BLOCK = 65536  # bytes
_TICK = 0.05  # seconds between two looks whether a silent program has ended
_GRACE = 0.5  # seconds for what an ended program's children still hold open, such as an agent that it started


@dataclass(frozen=True)
class Answer:
    """What the program left: exit code (negative: the signal; None: it was missing or was ended) and its output."""

    code: int | None
    stdout: str = ""
    stderr: str = ""
    missing: bool = False
    timed_out: bool = False
    flooded: bool = False


def exchange(argv: Sequence[str], question: str, *, env: Mapping[str, str], timeout: float, limit: int) -> Answer:
    """Run `argv` without a shell, with `question` on its stdin, for `timeout` seconds and `limit` bytes of output.

    A program that takes longer or says more is killed with its group. Never raises for what it does.
    """
    try:
        process = subprocess.Popen(
            list(argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(env),
            start_new_session=True,
        )
    except OSError:  # no such program, none for this machine, or one without a first line
        return Answer(None, missing=True)
    try:
        return _Talk(process, question.encode(), limit).until(time.monotonic() + timeout)
    finally:
        with contextlib.suppress(ProcessLookupError):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe:
                with contextlib.suppress(OSError):
                    pipe.close()


class _Talk:
    """The pipes of a running program."""

    def __init__(self, process: subprocess.Popen[bytes], question: bytes, limit: int) -> None:
        self._process, self._question, self._limit = process, question, limit
        self._said = {"stdout": bytearray(), "stderr": bytearray()}
        self._pipes = selectors.DefaultSelector()
        for name, event in (("stdin", "write"), ("stdout", "read"), ("stderr", "read")):
            descriptor = getattr(process, name).fileno()
            os.set_blocking(descriptor, False)
            self._pipes.register(descriptor, selectors.EVENT_WRITE if event == "write" else selectors.EVENT_READ, name)

    def until(self, deadline: float) -> Answer:
        """Talk until the program has ended, has said too much, or the time is up."""
        with self._pipes:
            while self._pipes.get_map():
                now = time.monotonic()
                if now >= deadline:
                    return self._answer(None, timed_out=self._process.poll() is None)
                for key, _ in self._pipes.select(_TICK):
                    self._serve(key.fd, key.data)
                if sum(map(len, self._said.values())) > self._limit:
                    return self._answer(None, flooded=True)
                if self._process.poll() is not None:
                    deadline = min(deadline, now + _GRACE)
        try:
            return self._answer(self._process.wait(max(0.0, deadline - time.monotonic())))
        except subprocess.TimeoutExpired:
            return self._answer(None, timed_out=True)

    def _serve(self, descriptor: int, name: str) -> None:
        try:
            if name == "stdin":
                self._question = self._question[os.write(descriptor, self._question) :]
                done = not self._question
            else:
                block = os.read(descriptor, _BLOCK)
                self._said[name] += block
                done = not block
        except BlockingIOError:
            return
        except OSError:  # it reads no further
            done = True
        if done:
            self._pipes.unregister(descriptor)
            pipe = getattr(self._process, name)
            with contextlib.suppress(OSError):
                pipe.close()

    def _answer(self, code: int | None, *, timed_out: bool = False, flooded: bool = False) -> Answer:
        texts = {name: said.decode(errors="replace") for name, said in self._said.items()}
        ended = self._process.poll() if code is None and not (timed_out or flooded) else code
        return Answer(ended, texts["stdout"], texts["stderr"], timed_out=timed_out, flooded=flooded)
