"""The steps of `nimctl run`, in order: prepare a plan, check the host, get the image, start, wait."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from nimctl.cli import acquire, admission, host
from nimctl.cli.config import Config
from nimctl.cli.proofs.proof import Proof
from nimctl.cli.target import ImageChoice, Target, image_for, resolve
from nimctl.core import cache as cache_room
from nimctl.core import keys
from nimctl.core.errors import NimctlError
from nimctl.core.facts import HostFacts
from nimctl.core.fetch import open_source
from nimctl.core.fetch.sources.folder import require_no_links_outside
from nimctl.core.image_identity import ImageIdentity
from nimctl.core.recipes import Recipe
from nimctl.core.stages import StartupReport
from nimctl.doctor import runner
from nimctl.doctor.model import Needs
from nimctl.launch import handover, progress
from nimctl.launch import plan as planning
from nimctl.launch.model import ExactImage
from nimctl.launch.runtime import RunHandle, Runtime
from nimctl.render import Output


@dataclass(frozen=True)
class Prepared:
    """A plan, and all that it was made from. `recipe` is the one that was named, before GPUs chose its checkpoint;
    `locked` the one image that may be started, where a lock says it.
    """

    recipe: Recipe
    target: Target
    config: Config
    facts: HostFacts
    needs: Needs
    choice: ImageChoice | None
    plan: planning.LaunchPlan
    locked: ImageIdentity | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know of this model and of this plan, each behind an id to search for."""
        return (*self.target.recipe.notes, *self.plan.notes)

    @property
    def command_line(self) -> str:
        """The command that equals the plan, secrets masked."""
        if self.plan.runtime == "process":
            return planning.process_line(self.plan)
        return planning.docker_run_line(self.plan)

    def with_known_image(self) -> Prepared:
        """The same with the image that is on this host, so that the command starts exactly it; asks the daemon only."""
        if self.choice is None:
            return self
        from nimctl.launch.docker import Engine

        try:
            engine = Engine.connect()
            found = engine.inspect_image(self.choice.id or self.choice.reference)
            engine.close()
        except NimctlError:  # a plan is for looking at, also where no daemon answers
            return self
        known = self.choice.identity
        exact = ExactImage(found.id, known or found.identity(self.choice.reference)) if found else None
        return replace(self, plan=replace(self.plan, exact=exact))


@dataclass(frozen=True)
class Asked:
    """What the command line said beside the settings."""

    model: str | None
    image: str | None = None
    name: str | None = None
    env: Sequence[str] = ()
    profile: str | None = None
    engine_args: Sequence[str] = ()
    dry_run: bool = False
    locked: Locked | None = None


@dataclass(frozen=True)
class Locked:
    """What a lock decides before anything else is: the model and the address of its weights at their revision, the
    image, the `variables` that were asked for, and what else goes with the container (`env`, `labels`).

    `facts` are those of this host.
    """

    target: Target
    weights: str | None
    choice: ImageChoice
    facts: HostFacts
    variables: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    env: tuple[tuple[str, str], ...] = ()
    labels: tuple[tuple[str, str], ...] = ()


def prepare(asked: Asked, config: Config, out: Output) -> Prepared:
    """Resolve what was asked, look at the host and plan; nothing is changed."""
    locked = asked.locked
    target = locked.target if locked else resolve(asked.model, config, asked.image)
    recipe = target.recipe
    out.text(f"model {recipe.name} (from {target.origin}): {recipe.title}", style="bold")
    runtime = host.runtime_of(config)
    facts = locked.facts if locked else host.look(config, out, target)
    gpus = host.wanted_gpus(config, recipe, facts)
    choice = image_for(target, "cpu" if gpus == "none" else "cuda", config) if runtime == "docker" else None
    choice = locked.choice if locked else choice
    options = planning.settled(run_options(asked, target, config, gpus, choice), facts)
    if locked and locked.weights and options.recipe:
        options = replace(options, recipe=replace(options.recipe, weights=locked.weights))
    if options.recipe is not None and options.recipe.weights != recipe.weights:
        why = f"these GPUs run {options.recipe.format}" if not locked else "the lock says it"
        out.text(f"checkpoint {options.recipe.weights}: {why}")
    if options.recipe is not None and options.model_path is None:
        options = replace(options, recipe=_as_judged(options.recipe, config, out))
    if options.recipe is not None and options.recipe.weights != recipe.weights:
        target = replace(target, recipe=options.recipe)
    needs = replace(host.needs_for(target, config, gpus, facts), request=planning.request_of(options))
    plan = planning.make_plan(options, facts)
    if locked:
        plan = replace(plan, labels={**plan.labels, **dict(locked.labels)})
    return Prepared(recipe, target, config, facts, needs, choice, plan)


def _as_judged(recipe: Recipe, config: Config, out: Output) -> Recipe:
    """The recipe with the one revision of its weights that a rule is asked about, where one is."""
    from nimctl.cli.proofs.weights import judged_address

    address = judged_address(recipe.weights, config)
    if address != recipe.weights:
        out.text(f"checkpoint {address}: the revision whose signature is judged")
    return replace(recipe, weights=address)


def run_options(
    asked: Asked, target: Target, config: Config, gpus: str, choice: ImageChoice | None
) -> planning.RunOptions:
    """What was asked for, with this user's keys and surroundings."""
    recipe = target.recipe
    return planning.RunOptions(
        recipe=recipe,
        image=choice.reference if choice else None,
        name=asked.name or recipe.name,
        gpus=gpus,
        gpu_mode=host.gpu_mode_of(config),
        host=str(config.text("host")),
        port=config.number("port"),
        cache=config.cache,
        runtime=host.runtime_of(config),
        env=_variables(asked),
        engine_args=tuple(asked.engine_args),
        uid=os.getuid(),
        assume_gpus=asked.dry_run,
        secrets_present=(*keys.present(os.environ, needed=recipe.key), *handover.present(os.environ)),
        surroundings=handover.passed(os.environ),
        model_path=str(target.folder) if target.folder else None,
        origins=_origins(config, target, choice) | _origins_of_variables(asked),
    )


def _origins(config: Config, target: Target, choice: ImageChoice | None) -> dict[str, str]:
    origins = {key: config.origin(key) for key in ("gpus", "host", "port", "cache", "runtime")}
    return origins | {"model": target.origin} | ({"image": choice.origin} if choice else {})


def _origins_of_variables(asked: Asked) -> dict[str, str]:
    if asked.locked:
        names = [name for name, _ in (*asked.locked.variables, *asked.locked.env)]
        return dict.fromkeys((*(f"env.{name}" for name in (*names, PROFILE)), "engine_args"), "the lock")
    return {f"env.{PROFILE}": "--profile"} if asked.profile else {}


# The variable by which the container, and NVIDIA's, is told the one profile that is wanted.
PROFILE = "NIM_MODEL_PROFILE"


def _variables(asked: Asked) -> tuple[tuple[str, str], ...]:
    own = (*asked.locked.variables, *asked.locked.env) if asked.locked else ()
    return (*_pairs(asked.env), *own, *([(PROFILE, asked.profile)] if asked.profile else []))


def _pairs(items: Sequence[str]) -> tuple[tuple[str, str], ...]:
    pairs = []
    for item in items:
        key, equals, value = item.partition("=")
        if not key or not (equals or key in os.environ):
            raise NimctlError(
                "usage",
                f"--env {key or item} has no value",
                cause="it is not K=V, and no such variable is set here",
                fix="Write --env NAME=VALUE, or --env NAME for a variable of this shell.",
            )
        pairs.append((key, value if equals else os.environ[key]))
    return tuple(pairs)


def check(prepared: Prepared, out: Output, *, force: bool) -> None:
    """Judge the host for this plan. Raises the finding's own error; `--force` says it and goes on."""
    if prepared.target.recipe.runs == "ours":
        _require_weights(prepared)
    admission.settle(runner.run_checks(prepared.facts, prepared.needs), out, force=force)


def _require_weights(prepared: Prepared) -> None:
    """Refuse, before an image is fetched, weights that cannot be had or that the engine could not load.

    Remote weights are the container's to fetch; those of a recipe are not asked for here, so that a start needs no
    network on the host.
    """
    folder = prepared.target.folder
    source = open_source(str(folder or prepared.target.recipe.weights), prepared.config.cache)
    if source.in_place is not None:
        source.resolve()
    if folder is not None and prepared.choice is not None:
        require_no_links_outside(folder)


@dataclass(frozen=True)
class Started:
    """A run that has been started."""

    runtime: Runtime
    handle: RunHandle
    proofs: tuple[Proof, ...] = ()  # of its image, and of its weights where a rule is about them

    @property
    def name(self) -> str:
        """The name of the run."""
        return self.handle.name

    @property
    def url(self) -> str:
        """Where it answers."""
        return self.handle.url

    def to_json(self) -> dict[str, object]:
        """The run as part of a JSON document."""
        signatures = [{"subject": proof.subject, **proof.to_json()} for proof in self.proofs]
        return {**self.handle.to_json(), "signatures": signatures}


def start(prepared: Prepared, out: Output, *, force: bool = False) -> Started:
    """Bring the image and the cache folder into place and start; Ctrl-C leaves nothing behind."""
    runtime, exact, proof = _runtime(prepared, out, force=force)
    proofs = tuple(each for each in (proof, _proof_of_weights(prepared, out)) if each is not None)
    make_cache(prepared.config.cache, out)
    secrets = {n: key for n in prepared.plan.secret_names if (key := handover.secret(n, os.environ))}
    for note in prepared.notes:
        out.text(note, style="dim")
    handle = runtime.start(replace(prepared.plan, exact=exact), secrets)
    for note in handle.notes:
        out.text(note, style="yellow")
    return Started(runtime, handle, proofs)


def make_cache(folder: Path, out: Output) -> None:
    """Make a missing cache folder, for every uid:0 where this user may; else for this user, and said so."""
    if folder.exists():
        return
    try:
        out.text(f"cache {folder}: {cache_room.apply_init(folder).summary}")
    except NimctlError as error:
        if error.id != "cache-not-writable":
            raise
        try:
            cache_room.make_shared_folder(folder)
        except OSError as problem:
            raise cache_room.storage_error(problem, folder) from problem
        out.text(f"cache {folder} made for you alone; to share it with others: sudo nimctl cache init {folder}")


def _proof_of_weights(prepared: Prepared, out: Output) -> Proof | None:
    """The proof of the weights that are served, where a rule is about them and a policy asks."""
    from nimctl.cli.proofs.weights import prove_before_start

    folder, uri = prepared.target.folder, prepared.target.recipe.weights
    return prove_before_start(str(folder) if folder else uri, prepared.config, out) if folder or uri else None


def is_locked(held: acquire.Held, locked: ImageIdentity) -> bool:
    """Whether the image here is the locked one by its id, and by all else that engine or registry know of it.

    Not by the digest of an index, because an engine may have been given the manifest in it.
    """
    told = ((held.identity.manifest, locked.manifest), (held.identity.config, locked.config))
    return held.id in locked.digests and all(one == other for one, other in told if one and other)


def _runtime(prepared: Prepared, out: Output, *, force: bool) -> tuple[Runtime, ExactImage | None, Proof | None]:
    """Where it runs, and the image on this host that the container is made of, whatever becomes of its tag."""
    from nimctl.launch.process import ProcessRuntime

    if prepared.choice is None:
        return ProcessRuntime(), None, None
    from nimctl.launch.docker import DockerRuntime

    runtime = DockerRuntime.connect()
    device: Literal["cuda", "cpu"] = "cpu" if prepared.plan.layout_gpus == 0 else "cuda"
    admit = admission.by_labels(prepared.facts, prepared.needs, out, force=force)
    held = acquire.ensure_image(prepared.choice, device, runtime.engine, out, prepared.config, admit=admit)
    if prepared.locked is None:
        return runtime, ExactImage(held.id, held.identity), held.proof
    if not is_locked(held, prepared.locked):
        raise NimctlError(
            "digest-changed",
            f"{prepared.choice.reference} is not the locked image",
            cause=f"it is {held.id} on this host, and the lock says {' / '.join(prepared.locked.digests)}",
            fix="Nothing was started. The digests in the lock are not of one image: take it from version control, or "
            "write it anew with `nimctl lock`.",
        )
    return runtime, ExactImage(held.id, prepared.locked), held.proof


def wait(started: Started, out: Output) -> StartupReport:
    """Follow the stages until the server is ready. Ctrl-C stops and removes the run; the cache stays."""
    try:
        with out.startup() as view:
            return progress.follow(started.runtime, started.handle, on_update=view.update, on_note=view.note)
    except NimctlError:
        raise  # a dead run stays for `nimctl logs`, a stalled one may yet come: the user decides
    except BaseException:
        out.text(f"stopping {started.name}", style="yellow")
        with suppress(NimctlError):
            started.runtime.stop(started.handle)
        raise
