"""The decision that host and container share: which checkpoint and which layout, for these GPUs and wishes. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from nimctl.core.engine_options import Option, merge, options_of
from nimctl.core.errors import NimctlError
from nimctl.core.layout import CPU_LAYOUT, Layout
from nimctl.core.memory.ranks import Parallel
from nimctl.core.parallel import NOTHING_ASKED, Sizes
from nimctl.core.planning.cluster import Cluster
from nimctl.core.planning.layouts import obstacles
from nimctl.core.planning.model import ModelFacts, of_checkpoint, of_recipe, unseen
from nimctl.core.planning.plan import Plan, make_plan
from nimctl.core.planning.profile import Profile
from nimctl.core.planning.profiles import asked_for, insist, restricted
from nimctl.core.planning.refusing import refusal, tensor_sizes
from nimctl.core.planning.wishes import Goal, Wishes, wishes_of
from nimctl.core.recipes import Device, Engine, Recipe


@dataclass(frozen=True)
class Decision:
    """The layout, the format of the checkpoint it is for, and the plan it was taken from (None on the CPU)."""

    layout: Layout
    format: str
    plan: Plan | None = None


@dataclass(frozen=True)
class Request:
    """What was asked beside the model: engine options (lowest precedence first), sizes in variables, and the goal.

    `profile` is the id or name of the only profile that is wanted.
    """

    options: tuple[Option, ...] = ()
    sizes: Sizes = NOTHING_ASKED
    goal: Goal = "latency"
    checkpoint: str | None = None
    profile: str | None = None


NOTHING_MORE = Request()
_SHARE = "gpu-memory-utilization"


def asked_of(recipe: Recipe, request: Request) -> Wishes:
    """The wishes for a recipe: the arguments of its default device, then what was asked.

    Raises `usage`, and `profile-unknown` for a profile that it does not have.
    """
    options = merge(options_of(recipe.engine.common.args), request.options)
    wishes = replace(wishes_of(options, request.sizes, goal=request.goal), checkpoint=request.checkpoint)
    if (profile := _asked_profile(recipe, request)) is None:
        return wishes
    given = replace(wishes_of(request.options, request.sizes), checkpoint=request.checkpoint)
    return restricted(wishes, [profile], profile.id, given=given)


def _asked_profile(recipe: Recipe, request: Request) -> Profile | None:
    """The profile that was asked for; None also before the configuration is known, on which profiles depend."""
    if not request.profile or recipe.config is None:
        return None
    return asked_for(recipe, request.profile)


def on_these(recipe: Recipe, cluster: Cluster, device: Device, request: Request) -> Recipe:
    """`recipe` with the checkpoint for these GPUs in place of the default, and the engine's options for them alone.

    Raises as `decide`.
    """
    settled = on_device(recipe, cluster, device)
    if recipe.variants:
        profile = _asked_profile(settled, request)
        wanted = decide(of_recipe(recipe), cluster, asked_of(settled, request), profile).format
        settled = on_device(recipe.on(wanted), cluster, device)
    return settled


def settle(recipe: Recipe, cluster: Cluster, device: Device, request: Request) -> Decision:
    """The decision for a recipe's own weights: that of `on_these` and `decide_for`, judged once where that will do.

    Raises as `decide`.
    """
    first = on_device(recipe, cluster, device)
    wishes = asked_of(first, request)
    if recipe.variants:
        decision = decide(of_recipe(recipe), cluster, wishes, _asked_profile(first, request))
        settled = on_device(recipe.on(decision.format), cluster, device)
        if replace(asked_of(settled, request), checkpoint=None) == replace(wishes, checkpoint=None):
            return decision
        return decide_for(settled, cluster, request)
    return decide_for(first, cluster, request)


def decide_for(recipe: Recipe, cluster: Cluster, request: Request, *, seen: bool = True) -> Decision:
    """The decision for the default checkpoint of a recipe that `on_these` returned. Raises as `decide`.

    `seen` is False where other weights than the recipe's were named and nobody has looked at them.
    """
    model = of_checkpoint(recipe)
    if not seen:
        model = unseen(model, "nobody has looked at the weights that were named")
    wishes = replace(asked_of(recipe, request), checkpoint=None)
    return decide([model], cluster, wishes, _asked_profile(recipe, request))


def on_device(recipe: Recipe, cluster: Cluster, device: Device) -> Recipe:
    """`recipe` with the engine's options for this device and these GPUs alone."""
    return replace(recipe, engine=Engine(common=recipe.engine.on(device, cluster.capability)))


def decide(models: Sequence[ModelFacts], cluster: Cluster, wishes: Wishes, profile: Profile | None = None) -> Decision:
    """The decision for one of `models` (the checkpoints of one model, default first) on one machine; CPU without GPUs.

    Sizes that were asked for are kept. What an estimate speaks against is told as the layout's `doubt`; only what is
    certain is refused, and of a `profile` that the wishes stand for all that does not run: nobody starts another then.
    Raises `gpus-mixed`, `gpu-mig`, `usage`, `profile-unfit`, and `no-layout` with the reasons.
    """
    if not cluster.slots and cluster.left:
        raise _uncut(cluster)
    if not cluster.slots:
        model = next((m for m in models if m.format == wishes.checkpoint), models[0])
        return Decision(_on_cpu(model, wishes, cluster.nodes), model.format)
    plan = make_plan(models, cluster, wishes, every=False)
    if profile is not None:
        insist(profile, plan.best)
    if plan.chosen is None and plan.best.certain:
        raise refusal(plan)
    return Decision(layout_of(plan), plan.best.model.format, plan)


def layout_of(plan: Plan) -> Layout:
    """The layout that a plan comes to: what is chosen, or what comes nearest, with its doubt."""
    best = plan.best
    sizes = best.parallel
    # beside other programs the engine starts with a smaller share or not at all, whatever else speaks against it
    share = {name: value for name, value in best.arguments.items() if best.crowded and name == _SHARE}
    return Layout(
        sizes.tensor,
        sizes.pipeline,
        plan.used,
        plan.unused,
        "; ".join((plan.because, *best.reasons)) if plan.chosen else "nothing better was found",
        sizes.data,
        sizes.decode_context,
        sizes.expert,
        arguments=best.arguments if plan.chosen else share,
        doubt=None if plan.chosen else "; ".join(best.reasons),
        slice=plan.cluster.slots[0].uuid,
    )


def _uncut(cluster: Cluster) -> NimctlError:
    named = ",".join(map(str, cluster.left))
    return NimctlError(
        "gpu-mig",
        f"MIG is on for GPU {named}, without a slice",
        cause="no program can use such a GPU until it is cut into slices or MIG is off",
        fix=f"With nothing running on them: `sudo nvidia-smi -i {named} -mig 0`, or cut them "
        "(`sudo nvidia-smi mig -cgi 0 -C` makes one slice of the whole).",
    )


def _on_cpu(model: ModelFacts, wishes: Wishes, nodes: int) -> Layout:
    sizes = _one_rank_each(model, nodes) if nodes > 1 and wishes.sizes == NOTHING_ASKED else wishes.sizes
    asked = Parallel(
        sizes.tensor or 1, sizes.pipeline or 1, sizes.data or 1, wishes.decode_context or 1, bool(wishes.expert)
    )
    if reasons := obstacles(model, asked):
        raise NimctlError(
            "no-layout",
            "the model cannot be split like this",
            cause=f"{sizes}: {'; '.join(reasons)}",
            fix=f"Ask for no sizes, or for one of these tensor sizes: {', '.join(map(str, tensor_sizes(model, 8)))}.",
            evidence=reasons,
        )
    if asked.world % nodes:
        raise NimctlError(
            "no-layout",
            f"{asked.world} ranks cannot be spread evenly over {nodes} nodes",
            cause=f"{sizes}: every node runs as many ranks as the others",
            fix=f"Ask for sizes whose product divides by {nodes}, or for none.",
        )
    if asked == Parallel():
        return CPU_LAYOUT
    chosen = "it was asked for" if sizes is wishes.sizes else "one rank on each node"
    why = f"{sizes}: {chosen}; all ranks run on the CPU"
    return Layout(asked.tensor, asked.pipeline, (), (), why, asked.data, asked.decode_context, asked.expert)


def _one_rank_each(model: ModelFacts, nodes: int) -> Sizes:
    """Stages, which talk least across nodes; tensor ranks where the model has no such stages."""
    staged = Parallel(1, nodes, 1, 1, expert=False)
    return Sizes(nodes, 1) if obstacles(model, staged) else Sizes(1, nodes)
