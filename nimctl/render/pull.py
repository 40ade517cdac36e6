"""A pull as people and CI see it: bytes of all, rate, time left, and the layers at work."""

import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from nimctl.core.pull_progress import PullProgress
from nimctl.render.words import left, shown, size

if TYPE_CHECKING:
    from nimctl.render import Output

_LINE_SECONDS = 5.0  # between two lines where lines cannot be redrawn
_DRAW_SECONDS = 0.1  # between two pictures; docker tells of each layer ten times a second
_RATE_SECONDS = 10.0  # the rate is that of the last seconds, so that a stall shows
_MOST_ROWS = 6


class Rate:
    """Bytes a second over the last seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._seen: deque[tuple[float, int]] = deque()

    def add(self, count: int) -> float | None:
        """Note how many bytes there are now; the rate, None where too little time has passed to tell."""
        now = self._clock()
        if self._seen and count < self._seen[-1][1]:
            self._seen.clear()  # a further try begins below
        self._seen.append((now, count))
        while now - self._seen[0][0] > _RATE_SECONDS:
            self._seen.popleft()
        began, before = self._seen[0]
        return (count - before) / (now - began) if now - began >= 1 else None


class PullView:
    """Draws `PullProgress` as it comes: redrawn on a terminal, else a line every few seconds and at each change."""

    def __init__(self, out: "Output", live: Live | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._out, self._live, self._clock = out, live, clock
        self._rate = Rate(clock)
        self._printed = float("-inf")
        self._phase: tuple[str, int] | None = None

    def update(self, progress: PullProgress) -> None:
        """Show how far it is."""
        rate, now = self._rate.add(progress.fetched), self._clock()
        phase = (progress.phase, progress.attempt)
        pause = _LINE_SECONDS if self._live is None else _DRAW_SECONDS
        same = phase == self._phase
        if same and now - self._printed < pause:
            return
        self._phase, self._printed = phase, now
        if self._live is not None:
            self._live.update(_picture(progress, rate))
        elif self._out.json_lines:
            self._out.progress_line(_plain(progress, rate))
        elif same or progress.phase != "waiting":
            self._out.text(summary(progress, rate))

    def note(self, line: str) -> None:
        """A sentence beside it, such as a failure that is tried again."""
        self._out.text(line, style="yellow")


def summary(progress: PullProgress, rate: float | None) -> str:
    """`fetching   12.0 GB of 25.1 GB, 1.2 GB/s, 11 s left, 3 of 62 layers unpacked`."""
    parts = [f"{size(progress.done)} of {size(progress.total)}"] if progress.total else []
    if progress.phase == "fetching" and rate is not None:
        parts.append(f"{size(rate)}/s")
        if rate:
            parts.append(left((progress.total - progress.done) / rate))
    parts.append(f"{progress.unpacked} of {_layers(len(progress.layers))} unpacked")
    return f"{progress.phase:<10} {', '.join(parts)}"


def _layers(count: int) -> str:
    return f"{count} layer{'' if count == 1 else 's'}"


def _plain(progress: PullProgress, rate: float | None) -> dict[str, Any]:
    """The same as data, with the names of a download of weights."""
    moving = progress.phase == "fetching" and rate
    return {
        "stage": "image",
        "state": "done" if progress.phase == "done" else "running",
        "phase": progress.phase,
        "bytes": progress.done,
        "total": progress.total,
        "rate": round(rate) if rate is not None else None,
        "eta": round((progress.total - progress.done) / rate, 1) if moving and rate else None,
        "layers": len(progress.layers),
        "layers_unpacked": progress.unpacked,
        "attempt": progress.attempt,
    }


def _picture(progress: PullProgress, rate: float | None) -> Group:
    table = Table.grid(padding=(0, 1))
    table.add_column(width=2)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, width=9)
    table.add_column(width=20)
    table.add_column(no_wrap=True)
    for name, layer in progress.active[:_MOST_ROWS]:
        bar = ProgressBar(total=max(layer.size, 1), completed=layer.done, width=20)
        table.add_row("", Text(shown(name), style="dim"), layer.state, bar, f"{size(layer.done)} of {size(layer.size)}")
    lines: list[Any] = [Text(summary(progress, rate), overflow="ellipsis", no_wrap=True), table]
    if len(progress.active) > _MOST_ROWS:
        lines.append(Text(f"   and {len(progress.active) - _MOST_ROWS} more layers", style="dim"))
    elif not progress.active and progress.detail:
        lines.append(Text(f"   {shown(progress.detail)}", style="dim", overflow="ellipsis", no_wrap=True))
    return Group(*lines)
