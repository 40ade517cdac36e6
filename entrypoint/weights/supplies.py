"""The checkpoints of one start: the weights, and beside them the draft model of speculative decoding.

The draft is asked for before the weights come, and comes first: 600 GB are not fetched for a start that lacks it, and
what is left of the disk is then what the weights need.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from entrypoint.engine.drafts import Draft
from entrypoint.weights.checkpoint import Checkpoint, Look
from entrypoint.weights.transfers import amount
from nimctl.core.cache import free_bytes
from nimctl.core.errors import NimctlError
from nimctl.core.fetch import OnProgress, Progress

_ABOUT_ANYTHING = ("interrupted", "cache-unreachable")


@dataclass(frozen=True)
class Snapshots:
    """The folders to start the engine on: of the weights, and of the draft where there is one."""

    weights: Path
    draft: Path | None = None


@dataclass(frozen=True)
class Supplies:
    """`weights`, and the checkpoint of `draft`: None where there is none or it is a part of the weights."""

    weights: Checkpoint
    draft: Draft | None = None
    drafted: Checkpoint | None = None

    def look(self, on_progress: OnProgress) -> tuple[Look, Look]:
        """What the weights tell, and what the draft does; the room for both is asked for. Raises as `bring` does."""
        look = self.weights.look(on_progress)
        if self.drafted is None or self.draft is None:
            return look, Look()
        with about(self.draft):
            drafts = self.drafted.look(partial(_told, on_progress))
        require_room(self.weights, self.drafted)
        return look, drafts

    def bring(self, on_progress: OnProgress) -> Snapshots:
        """All folders, complete and verified; the progress is that of all together. Raises as `Checkpoint.bring`."""
        if self.draft is None:
            return Snapshots(self.weights.bring(on_progress))
        if self.drafted is None:
            snapshot = self.weights.bring(on_progress)
            return Snapshots(snapshot, snapshot)
        first, second = self.drafted.manifest.total, self.weights.manifest.total
        with about(self.draft):
            draft = self.drafted.bring(lambda progress: on_progress(_of_both(progress, 0, second)))
        return Snapshots(self.weights.bring(lambda progress: on_progress(_of_both(progress, first, 0))), draft)

    def close(self) -> None:
        """Close what connections are left."""
        self.weights.close()
        if self.drafted is not None:
            self.drafted.close()


@contextmanager
def about(draft: Draft | None) -> Iterator[None]:
    """Say of errors inside the block that they are about the draft, where it is one that is brought."""
    try:
        yield
    except NimctlError as error:
        if draft is None or error.id in _ABOUT_ANYTHING:
            raise
        message = f"the draft model {draft.shown} is not to be had: {error.message}"
        raise NimctlError(error.id, message, cause=error.cause, fix=error.fix, evidence=error.evidence) from error


def require_room(*checkpoints: Checkpoint) -> None:
    """Refuse (`disk-full`) what will not fit together; each alone is asked for again, exactly, when it comes."""
    cache = checkpoints[0].cache
    lacking, free = sum(checkpoint.lacking() for checkpoint in checkpoints), free_bytes(cache)
    if lacking > free:
        raise NimctlError(
            "disk-full",
            f"{cache} has no room for the weights and the draft model",
            cause=f"{amount(lacking)} more are needed and {amount(free)} are free",
            fix="Free space there (`nimctl cache prune` lists what can go), name a folder on a larger disk with "
            "--cache, or leave speculative decoding out. What is there already is kept.",
        )


def _told(on_progress: OnProgress, progress: Progress) -> None:
    words = f"draft model, {progress.detail}" if progress.detail else "draft model"
    on_progress(replace(progress, detail=words))


def _of_both(progress: Progress, before: int, after: int) -> Progress:
    """The progress of one of two checkpoints, with `before` bytes done and `after` bytes to come of the other."""
    total = None if progress.total is None else progress.total + before + after
    over = progress.phase == "done" and not after
    eta = None if progress.eta is None else progress.eta + (after / progress.rate if progress.rate else 0)
    return replace(
        progress,
        bytes=progress.bytes + before,
        total=total,
        eta=eta,
        phase="done" if over else "fetching" if progress.phase == "done" else progress.phase,
    )
