"""How the engine fetches media: by our own hand, put where the engine looks for another connector.

The engine has a registry for this (VLLM_MEDIA_CONNECTOR names an entry of it):
https://github.com/vllm-project/vllm/blob/v0.32.0/vllm/multimodal/media/connector.py . This module is loaded inside the
engine, where that registry is already imported; it is looked up by its name, so that nothing here imports the engine,
and the engine's own connector keeps all its duties but the connection. Where the entry is missing the engine refuses
to load any media: it fails closed.
"""

import asyncio
import urllib.request
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any
from weakref import WeakValueDictionary

from entrypoint.api.addresses import Allowed, target_of
from entrypoint.api.fetching import LARGEST, Way, fetch
from entrypoint.api.refusals import RefusedError
from entrypoint.settings.inside import CONNECTOR

MODULE = "vllm.multimodal.media.connector"
# Fetches at a time, of all hosts and of one: a host that answers slowly must not hold all. More wait their turn.
_THREADS = 64
_PER_HOST = 8
# The engine gives a picture 5 seconds and three tries of 5, 20 and 80; this is one try.
_PATIENCE = 4


class GuardedConnection:
    """What the engine's connector asks for bytes; `refuse` makes the engine's own error of a refusal's text."""

    def __init__(self, allowed: Allowed, pixels: int, refuse: Callable[[str], Exception]) -> None:
        self._allowed, self._pixels, self._refuse = allowed, pixels, refuse
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="media")
        self._free = asyncio.Semaphore(_THREADS)
        self._hosts: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()  # those that are asked now

    def get_bytes(self, url: str, *, timeout: float | None = None, max_bytes: int | None = None, **_: Any) -> bytes:
        """The media at `url`, of at most `max_bytes`. Blocks."""
        way = Way(self._allowed, min(max_bytes or LARGEST, LARGEST), self._pixels, urllib.request.getproxies())
        try:
            return fetch(url, way, _seconds(timeout))
        except RefusedError as refusal:
            raise self._refuse(str(refusal)) from None

    async def async_get_bytes(
        self, url: str, *, timeout: float | None = None, max_bytes: int | None = None, **_: Any
    ) -> bytes:
        """The same without blocking, in turn; a resolver that does not answer holds a thread, but not the request."""
        seconds = _seconds(timeout)
        give_back = await self._turn(url, seconds)
        call = asyncio.get_running_loop().run_in_executor(
            self._threads, lambda: self.get_bytes(url, timeout=timeout, max_bytes=max_bytes)
        )
        call.add_done_callback(lambda _: give_back())  # when the thread has ended, whoever still waits for it
        try:
            return await asyncio.wait_for(asyncio.shield(call), seconds + 1)
        except TimeoutError:
            raise self._refuse("Media could not be fetched in time") from None

    async def _turn(self, url: str, seconds: float) -> Callable[[], None]:
        """Waits until the host has less than its share and a thread is free; returns what gives both back."""
        try:
            host = target_of(url, self._allowed).host
        except RefusedError as refusal:
            raise self._refuse(str(refusal)) from None
        turn = self._hosts.setdefault(host, asyncio.Semaphore(_PER_HOST))

        def give_back() -> None:
            turn.release()
            self._free.release()

        try:
            async with asyncio.timeout(seconds):
                await turn.acquire()
                try:
                    await self._free.acquire()
                except BaseException:
                    turn.release()
                    raise
        except TimeoutError:
            raise self._refuse(f"Media could not be fetched from {host}: too many are being fetched") from None
        return give_back


def _seconds(timeout: float | None) -> float:
    return (timeout or 5) * _PATIENCE


def install(modules: Mapping[str, ModuleType], allowed: Allowed, pixels: int) -> bool:
    """Puts our connection into the engine's registry. False where there is no such engine in this process."""
    engine = modules.get(MODULE)
    if engine is None:
        return False

    def refuse(text: str) -> Exception:
        error: Exception = engine.VLLMValidationError(text, parameter="image_url")
        return error

    connection = GuardedConnection(allowed, pixels, refuse)

    def connector(media_io_kwargs: Any = None, **more: Any) -> Any:
        return engine.MediaConnector(media_io_kwargs, connection, **more)

    engine.MEDIA_CONNECTOR_REGISTRY.register(CONNECTOR)(connector)
    return True
