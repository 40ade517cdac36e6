"""Asking a source what it has, and telling of every wait meanwhile: a silent minute looks like a hang."""

import threading
from dataclasses import replace

from nimctl.core.fetch.manifest import Manifest
from nimctl.core.fetch.protocol import OnProgress, Progress, Source
from nimctl.core.fetch.retry import DEFAULT, Patience, Stop


class Asking:
    """One source that is asked. It is opened with `patience`, which `stop` ends and which tells us of its waits."""

    def __init__(self, stop: Stop | None = None, patience: Patience = DEFAULT) -> None:
        self.patience = replace(patience, stop=stop, on_wait=self._waits)
        self._on_progress: OnProgress | None = None  # somebody listens only while `resolve` runs
        self._retries = 0
        self._lock = threading.Lock()

    def resolve(self, source: Source, on_progress: OnProgress) -> Manifest:
        """`source.resolve()`, with the phase `resolving` and its waits told to `on_progress`. Raises as that does."""
        on_progress(Progress(0, phase="resolving"))
        with self._lock:
            self._on_progress = on_progress
        try:
            return source.resolve()
        finally:
            with self._lock:
                self._on_progress = None

    def _waits(self, words: str) -> None:
        with self._lock:  # some sources ask for several files at once
            if self._on_progress is not None:
                self._retries += 1
                self._on_progress(Progress(0, phase="resolving", retries=self._retries, detail=words))
