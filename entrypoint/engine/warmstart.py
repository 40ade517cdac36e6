"""What makes a start quick, put together: the compile caches, the memory plan, and the weights read ahead."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from entrypoint.engine import compiled, memory, prefetch, strategy
from entrypoint.observability.journal import Journal
from entrypoint.settings import Settings
from nimctl.core.cache.held import Hold
from nimctl.core.engine_options import Option, parse_options
from nimctl.core.layout import Layout

_COUNT_SECONDS = 300.0


@dataclass(frozen=True)
class Caches:
    """This start's compile caches: their folder, and the hold on it that lasts as long as this process."""

    folder: Path
    held: Hold

    def variables(self, argv: Sequence[str]) -> dict[str, str]:
        """What the engine's environment gets for a start with the command `argv`."""
        return {"VLLM_ENABLE_STARTUP_PLAN": "1" if compiled.keep_plan(self.folder, argv, self.held) else "0"}

    def count(self) -> None:
        """Note how much they hold, a while from now: when the first requests have compiled what they need."""
        compiled.note_size(self.folder, delay=_COUNT_SECONDS)


def open_caches(folder: Path, snapshots: Sequence[Path], settings: Settings, journal: Journal) -> Caches:
    """Make room below the limit, hold `folder`, and put into it what the image knows of these checkpoints."""
    limit = settings.compile_cache_gib * compiled.GIB
    done = compiled.prune(folder, limit)
    if done.removed:
        freed = f"freed {done.freed / compiled.GIB:.1f} GiB, NIM_COMPILE_CACHE_GIB={settings.compile_cache_gib}"
        journal.info("engine", f"removed compile caches: {', '.join(done.removed)} ({freed})")
    if done.bytes > limit:
        journal.warning("engine", f"compile caches hold {done.bytes / compiled.GIB:.1f} GiB, which servers use")
    held = compiled.take(folder)
    compiled.seed(folder, snapshots, compiled.DESCRIBED)
    return Caches(folder, held)


@dataclass(frozen=True)
class Loading:
    """The weights' files and the plan for them."""

    files: tuple[prefetch.File, ...]
    plan: strategy.LoadPlan

    @property
    def words(self) -> tuple[str, ...]:
        """What the engine is told beside its command."""
        return tuple(word for option in self.plan.options for word in option.words)

    def begin(self, journal: Journal, progress: Callable[[str], None]) -> prefetch.Prefetch:
        """Say what is done, and read ahead where that is the plan. `progress` gets words for people now and then."""
        told = f"; the engine gets {' '.join(self.words)}" if self.words else ""
        kept = "read ahead" if self.plan.ahead else "not read ahead"
        journal.info("engine", f"the weights are {kept}: {self.plan.because}{told}")
        total = sum(file.size for file in self.files)

        def on_progress(done: int) -> None:
            progress(f"reading the weights ahead, {done / 1e9:.1f} of {total / 1e9:.1f} GB")

        return prefetch.Prefetch(
            self.files, self.plan, tell=lambda words: journal.info("engine", words), on_progress=on_progress
        )


def loading(argv: Sequence[str], snapshot: Path, layout: Layout, settings: Settings) -> Loading:
    """How the weights in `snapshot` will be loaded by the engine's command `argv`: looks at files and memory."""
    given = _options(argv)
    files = prefetch.files_of(snapshot)
    facts = strategy.Facts(
        total=sum(file.size for file in files),
        largest=max((file.size for file in files), default=0),
        filesystem=prefetch.filesystem_of(files[0].path) if files else "unknown",
        available=memory.available(),
        resident=prefetch.resident(files),
        ranks=max(1, layout.world_size // settings.nodes),
        nodes=settings.nodes,
        experts=any(o.name == "enable-expert-parallel" for o in given)
        and layout.world_size > layout.pipeline_parallel_size,
        wanted=settings.prefetch,
    )
    return Loading(files, strategy.plan(facts, given))


def _options(argv: Sequence[str]) -> tuple[Option, ...]:
    """The options of `vllm serve FOLDER --uds SOCKET ...`."""
    begin = argv.index("--uds") if "--uds" in argv else len(argv)
    return parse_options(argv[begin:])
