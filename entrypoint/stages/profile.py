"""The stage `profile`: what is served in which layout."""

from dataclasses import dataclass

from entrypoint.engine import invocation
from entrypoint.engine.drafts import Draft
from entrypoint.engine.model import (
    Model,
    decide_layout,
    described,
    named_model,
    on_gpus,
    require_device,
    with_draft,
)
from entrypoint.front import documents
from entrypoint.group.facts import facts
from entrypoint.run import Run
from entrypoint.settings import Settings
from entrypoint.stages.hardware import Hardware
from entrypoint.weights import transfers
from entrypoint.weights.checkpoint import Checkpoint
from entrypoint.weights.supplies import Supplies, about
from nimctl import __version__
from nimctl.core.engine_options import parse_options
from nimctl.core.fetch import Stop, from_environment
from nimctl.core.layout import Layout
from nimctl.core.planning.deciding import Request
from nimctl.core.planning.plan import Plan


@dataclass(frozen=True)
class Profile:
    """What is served how, and the weights on their way; `plan` is what it was decided by, None on the CPU."""

    model: Model
    layout: Layout
    supplies: Supplies
    plan: Plan | None


def model_for(settings: Settings, hardware: Hardware, request: Request) -> Model:
    """The model that was asked for, with the checkpoint for these GPUs. Raises `gpu-missing`, and as `on_gpus`."""
    model = named_model(settings)
    require_device(settings, model, hardware.device, hardware.inventory, hardware.cluster)
    return on_gpus(settings, model, hardware.device, hardware.cluster, request)


def choose_profile(run: Run, hardware: Hardware) -> Profile:
    """Decide what is served on which GPUs, and say why."""
    request = invocation.request(run.settings)
    model = model_for(run.settings, hardware, request)
    draft = invocation.draft_of(run.settings, model, hardware.device)
    supplies = open_supplies(run, model, draft)
    look, drafts = supplies.look(lambda progress: run.report.progress("profile", detail=transfers.in_words(progress)))
    model = described(run.settings, model, look)
    if draft is not None:
        model = with_draft(model, draft, drafts.weights_bytes)
        run.journal.info("profile", f"draft model: {draft.source}{'' if supplies.drafted else ', within the weights'}")
    if model.runtime:
        told = " ".join(word for option in model.runtime for word in option.words)
        run.journal.info("profile", f"the weights bring options for the engine: {told}")
    decision = decide_layout(model, hardware.cluster, invocation.request(run.settings, model.runtime))
    layout = decision.layout
    run.journal.info("profile", f"{model.served_names[0]}: {layout.because}")
    served = documents.profile_served(model, layout)
    run.journal.info("profile", f"Selected profile: {served.id} ({served.name})")
    if layout.doubt:
        run.journal.warning("profile", f"it may not start: {layout.doubt}")
    if unused := [g for g in hardware.gpus if g.index in layout.unused]:
        run.journal.warning("profile", "unused: " + ", ".join(f"GPU {g.index} ({g.name})" for g in unused))
    if hardware.gpus and hardware.device == "cpu":
        run.journal.warning("profile", "the engine is built for the CPU: the layout is rehearsed, its ranks run there")
    run.report.describe(model=model.served_names[0], layout=layout.name)
    return Profile(model, layout, supplies, decision.plan)


def join_group(run: Run, hardware: Hardware, profile: Profile) -> None:
    """Meet the other nodes before anything is fetched, so that what does not fit is told first."""
    if run.members.role.alone:
        return
    command = invocation.build_command(
        run.settings, profile.model, hardware.device, profile.layout, snapshot="", state=run.state
    )
    model, used = profile.model, profile.layout.used
    run.members.join(
        facts(
            release=__version__,
            engine=hardware.vllm_version,
            model=model.source if "://" in model.weights else model.served_names[0],
            layout=profile.layout.name,
            gpus=f"{len(used)} x {hardware.gpus[0].name}" if used and hardware.gpus else hardware.device,
            options=parse_options(command.argv[command.argv.index("--uds") :]),
        ),
        patience=run.settings.nodes_timeout,
        on_over=run.supervisor.post,
    )


def open_supplies(run: Run, model: Model, draft: Draft | None) -> Supplies:
    """The weights of `model` and the `draft`, with the keys of this moment; whoever stops us stops their download."""
    stop = Stop()
    run.supervisor.on_close(stop.set)
    cache, access = run.settings.cache_path, from_environment(run.environ)
    drafted = None
    if draft is not None and not draft.is_part_of(model.weights):
        with about(draft):
            drafted = Checkpoint(draft.address, cache, access, stop=stop)
    return Supplies(
        Checkpoint(model.weights, cache, access, stop=stop, wanted=run.settings.weights_digest), draft, drafted
    )
