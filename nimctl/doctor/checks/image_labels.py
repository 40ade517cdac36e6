"""What the image itself asks of the host: its labels against the driver and the GPUs."""

from nimctl.core.facts import HostFacts, ImageFacts
from nimctl.doctor.checks.driver_silent import GUIDE, INSTALL_WSL
from nimctl.doctor.checks.gpu_words import lines, ranges
from nimctl.doctor.checks.scope import chosen_gpus, no_docker_wanted, no_gpu_wanted
from nimctl.doctor.model import Check, Finding, Needs, failed, passed, skipped, unknown
from nimctl.doctor.versions import at_least

_CHECK, _TITLE = "image-needs", "what the image needs"


def judge_needs(facts: HostFacts, needs: Needs) -> list[Finding]:
    """The image that is here was built for this driver and these GPUs: its labels io.nimctl.min-driver and
    io.nimctl.min-compute-capability say what its CUDA libraries and its kernels need, which a newer image may raise.
    https://docs.nvidia.com/deploy/cuda-compatibility/
    """
    if reason := no_docker_wanted(needs) or no_gpu_wanted(needs) or _nothing_said(facts.image):
        return [skipped(_CHECK, _TITLE, reason)]
    image = facts.image
    if image is None or image.present is None:
        return [unknown(_CHECK, _TITLE, cause="Docker could not be asked for the image")]
    if facts.gpus.state != "ok":
        return [skipped(_CHECK, _TITLE, "no driver answers")]
    findings = [finding for finding in (_driver(facts, image), _gpus(facts, needs, image)) if finding]
    return findings or [passed(_CHECK, f"the image needs {_asked(image)}, and has it")]


def _nothing_said(image: ImageFacts | None) -> str:
    if image is None or image.present is False:
        return "the image is not on this host yet"
    if image.present and not (image.min_driver or image.min_compute_capability):
        return "the image does not say it"
    return ""


def _asked(image: ImageFacts) -> str:
    driver = f"driver {image.min_driver}" if image.min_driver else ""
    capability = f"compute capability {image.min_compute_capability}" if image.min_compute_capability else ""
    return " and ".join(word for word in (driver, capability) if word)


def _driver(facts: HostFacts, image: ImageFacts) -> Finding | None:
    if image.min_driver is None:
        return None
    enough = at_least(facts.gpus.driver, image.min_driver)
    if enough:
        return None
    if enough is None:
        title = f"driver {facts.gpus.driver or 'of unknown version'}, and the image asks for {image.min_driver}"
        return unknown(_CHECK, title, cause="one of the two cannot be read as a version")
    return failed(
        _CHECK,
        "driver-too-old",
        f"the image needs driver {image.min_driver}, and this is {facts.gpus.driver}",
        cause="the CUDA libraries in the image start with that driver or a later one only",
        fix=INSTALL_WSL if facts.system.wsl else f"Install driver {image.min_driver} or later: {GUIDE}",
        evidence=(image.reference,),
    )


def _gpus(facts: HostFacts, needs: Needs, image: ImageFacts) -> Finding | None:
    least = image.min_compute_capability
    chosen = chosen_gpus(facts, needs) if least else ()
    told = {g.index: at_least(g.compute_capability, least or "") for g in chosen}
    if old := [g for g in chosen if told[g.index] is False]:
        return failed(
            _CHECK,
            "gpu-unsupported",
            f"the image needs compute capability {least}: not GPU {ranges(old)}",
            cause="its kernels are compiled for newer GPUs only",
            fix="Choose other GPUs with --gpus, or use an image that was built for these.",
            evidence=lines(old, lambda g: f"{g.name or 'unknown'}, {g.compute_capability}"),
        )
    if unread := [g for g in chosen if told[g.index] is None]:
        title = f"the image needs compute capability {least}; GPU {ranges(unread)} does not tell its own"
        return unknown(_CHECK, title, cause="the driver does not say it, or the label cannot be read as a number")
    return None


CHECKS = (
    Check(
        _CHECK,
        "docker",
        "driver and GPUs are those that the image's labels ask for",
        judge_needs,
        ("driver-too-old", "gpu-unsupported"),
    ),
)
