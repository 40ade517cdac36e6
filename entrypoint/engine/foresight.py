"""What was planned of this start, held against what the engine says of itself."""

from pathlib import Path

from entrypoint.engine.model import Device, Model
from entrypoint.observability.journal import Journal
from nimctl.core.layout import Layout
from nimctl.core.memory.ranks import Parallel
from nimctl.core.planning.deciding import Request, asked_of
from nimctl.core.planning.expecting import Comparison, Figures, compare, of_candidate, on_cpu, read_line
from nimctl.core.planning.model import of_checkpoint
from nimctl.core.planning.plan import Plan
from nimctl.core.stages import Figure

_GIB = 2**30
_CPU_CACHE = "VLLM_CPU_KVCACHE_SPACE"  # in GiB, for each rank


class Foresight:
    """Reads the engine's lines as they come; `figures` once it serves."""

    def __init__(self, planned: Figures) -> None:
        self.planned = planned
        self._found = Figures()

    def see(self, line: str) -> None:
        """One line of the engine's log."""
        self._found = read_line(line, self._found)

    def tell(self, journal: Journal) -> tuple[Figure, ...]:
        """Say how near the plan was, as a warning where it was wrong; the figures for the report."""
        compared = compare(self.planned, self._found)
        if compared:
            journal.info("plan", "; ".join(one.words() for one in compared))
        for wrong in (one for one in compared if not one.right):
            journal.warning("plan", f"the plan was wrong: {wrong.words()}")
        return tuple(_figure(one) for one in compared)


def planned(
    model: Model, layout: Layout, plan: Plan | None, request: Request, *, device: Device, environment: dict[str, str]
) -> Figures:
    """What was promised: by the plan for GPUs; for the CPU by the size that its cache is given in `environment`."""
    sizes = Parallel(
        layout.tensor_parallel_size,
        layout.pipeline_parallel_size,
        layout.data_parallel_size,
        layout.decode_context_parallel_size,
        layout.expert,
    )
    if device == "cuda":
        return of_candidate(plan.chosen) if plan is not None and plan.chosen is not None else Figures(world=sizes.world)
    wishes = asked_of(model.recipe, request)
    space = environment.get(_CPU_CACHE, "")
    if wishes.cache_bytes is not None or wishes.utilization is not None or not space.isdecimal():
        return Figures(world=sizes.world)
    return on_cpu(of_checkpoint(model.recipe), sizes, wishes, int(space) * _GIB, amx=has_amx())


def has_amx(path: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the processor has tiles for matrices, which the engine's attention for the CPU prefers."""
    try:
        return "amx_tile" in path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return False


def _figure(one: Comparison) -> Figure:
    return Figure(one.name, one.planned, one.found, round(one.error, 4), one.right)
