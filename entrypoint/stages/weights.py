"""The stage `weights`: the checkpoint comes into the cache, or is there."""

import json

from entrypoint.front import documents
from entrypoint.run import Run
from entrypoint.stages.profile import Profile
from entrypoint.state import write_atomically
from entrypoint.weights import transfers
from entrypoint.weights.supplies import Snapshots
from nimctl import __version__
from nimctl.core.fetch import Progress


def fetch_weights(run: Run, profile: Profile) -> Snapshots:
    """Bring the weights into the cache, or find them there, and describe what will be served."""
    lines = transfers.Lines(lambda words: run.journal.info("weights", words))

    def on_progress(progress: Progress) -> None:
        run.report.progress("weights", **transfers.stage_fields(progress))
        lines.see(progress)

    try:
        snapshots = profile.supplies.bring(on_progress)
    finally:
        profile.supplies.close()
    snapshot, draft = snapshots.weights, profile.supplies.draft
    beside = f", the draft model {draft.source} in {snapshots.draft}" if draft else ""
    run.journal.info("weights", f"{profile.model.source} is in {snapshot}{beside}{lines.summary}")
    licence = documents.license_info(snapshot)
    written = {
        "manifest": documents.manifest(profile.model, snapshot),
        "license": licence,
        "metadata": documents.metadata(
            profile.model, profile.layout, __version__, licence, run.members.role.nodes * len(profile.layout.used)
        ),
    }  # fmt: skip
    for name, document in written.items():
        write_atomically(run.state.public / f"{name}.json", json.dumps(document))
    return snapshots
