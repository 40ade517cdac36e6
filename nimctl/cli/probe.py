"""The acting part of `nimctl doctor --probe`: one container that must see the GPUs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nimctl.cli.target import image_for
from nimctl.doctor import probe

if TYPE_CHECKING:
    from nimctl.cli.config import Config
    from nimctl.cli.target import Target
    from nimctl.core.facts import HostFacts
    from nimctl.doctor.model import Finding, Needs
    from nimctl.render import Output

# The image of NVIDIA's page; the toolkit mounts nvidia-smi into it.
PAGE_IMAGE = "docker.io/library/ubuntu:24.04"


def run_probe(
    facts: HostFacts, needs: Needs, config: Config, target: Target, image: str | None, out: Output
) -> Finding:
    """Start our own image where it is on this host, else the page's, with the GPUs a run would get."""
    from nimctl.launch.devices import request_gpus
    from nimctl.launch.docker import Engine

    engine = Engine.connect()
    ours = image_for(target, "cuda", config).reference
    chosen = image or (ours if engine.image_digest(ours) else PAGE_IMAGE)
    info = engine.inspect_image(chosen)

    def run_container(reference: str, argv: Sequence[str], spec: str) -> tuple[int, str]:
        from nimctl.core.gpus import select

        return engine.run_once(reference, argv, request_gpus(select(facts.gpus, spec), facts))

    with out.working(f"starting a container of {chosen}"):
        if info is None:
            engine.pull(chosen)
        is_ours = bool(info and "io.nimctl.engine" in info.labels)
        return probe.probe(facts, needs, chosen, run_container, ours=is_ours)
