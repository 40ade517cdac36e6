"""Every way nimctl can fail, in one place.

One error class, one catalogue. The id of an error is what users search for, what scripts match on and what doctor
findings, the container and the logs share; its exit code follows from the id and never from where it was raised.

    exit  family                         examples
    1     a bug                          internal
    2     usage                          model-unknown, gpu-spec-invalid
    3     the host is not ready          driver-too-old, docker-unreachable, toolkit-missing
    4     credentials or terms           key-missing, key-refused
    5     image                          image-not-found, image-build-failed
    6     weights                        weights-unreadable, weights-missing
    7     nothing fits                   no-layout, gpus-mixed
    8     engine                         engine-died, engine-stalled
    9     local state                    cache-not-writable, disk-full, port-in-use
    130   stopped by Ctrl-C (SIGINT)     interrupted
    143   stopped by SIGTERM             terminated
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

_ID = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


@dataclass(frozen=True)
class Entry:
    """What the catalogue knows about an id: the exit code and one sentence for `docs/errors.md`."""

    exit_code: int
    summary: str


CATALOGUE: Mapping[str, Entry] = MappingProxyType(
    {
        # 1: bugs
        "internal": Entry(1, "An exception nobody expected: a bug in nimctl. `--debug` shows the traceback."),
        # 2: usage
        "usage": Entry(2, "An option or argument cannot be understood."),
        "model-unknown": Entry(2, "The model is neither a recipe, a folder, a URI nor an image reference."),
        "profile-unknown": Entry(2, "The model has no profile of this name or id."),
        "gpu-spec-invalid": Entry(2, "`--gpus` asks for GPUs that do not exist or cannot be parsed."),
        "config-invalid": Entry(2, "A configuration file or a `NIMCTL_*` or `NIM_*` variable holds a wrong value."),
        "node-refused": Entry(2, "The leader of the group refuses this node: its rank is taken, or it differs."),
        "lock-invalid": Entry(2, "The lock file is missing, is no nimctl.lock/1 document, or does not hold together."),
        "trust-invalid": Entry(2, "The configuration of trust, or a key file in it, cannot be used."),
        "run-unknown": Entry(2, "No run has this name."),
        "facts-invalid": Entry(2, "The file given to `--facts` is not a host facts document."),
        # 3: the host is not ready
        "preflight-failed": Entry(3, "One or more checks found errors; each is listed with its own id."),
        "check-crashed": Entry(3, "A check itself failed; its verdict is unknown."),
        "driver-missing": Entry(3, "No NVIDIA driver answers through NVML."),
        "driver-broken": Entry(3, "The NVIDIA driver is there, and answers through NVML with an error."),
        "driver-not-loaded": Entry(3, "The NVIDIA driver is installed, but its kernel module does not run."),
        "driver-not-built": Entry(3, "There is no NVIDIA kernel module for the kernel that runs."),
        "driver-not-signed": Entry(3, "Secure Boot or kernel lockdown keeps the NVIDIA kernel module from loading."),
        "driver-library-missing": Entry(3, "The NVIDIA kernel module runs, but the driver's library is not there."),
        "driver-nodes-missing": Entry(3, "The NVIDIA kernel module runs, but its device nodes are not there."),
        "driver-no-permission": Entry(3, "This user may not use the NVIDIA driver."),
        "driver-module-wrong": Entry(3, "The GPUs need the other kind of NVIDIA kernel module (open or proprietary)."),
        "nouveau-loaded": Entry(3, "The kernel's own driver nouveau holds the GPUs."),
        "gpu-passthrough": Entry(3, "The GPUs are set aside for virtual machines (vfio-pci)."),
        "driver-hangs": Entry(3, "NVML did not answer in time."),
        "driver-too-old": Entry(3, "The NVIDIA driver is older than 580."),
        "driver-mismatch": Entry(3, "The driver's library and kernel module have different versions."),
        "cuda-too-old": Entry(3, "The driver supports a CUDA version below 12.9."),
        "gpu-missing": Entry(3, "No GPU was found and none was given up on request."),
        "gpu-lost": Entry(3, "A GPU has fallen off the bus or answers with errors."),
        "gpu-compute-mode": Entry(3, "The compute mode of a GPU lets no CUDA program start on it."),
        "gpu-fabric-down": Entry(3, "GPUs have not joined their NVLink fabric, so that CUDA does not start (802)."),
        "fabric-manager-down": Entry(3, "The fabric manager, which sets up the NVSwitches, does not run."),
        "fabric-manager-mismatch": Entry(3, "The fabric manager and the driver have different versions."),
        "ib-umad-missing": Entry(3, "The fabric manager of HGX B200 and B300 needs the kernel module ib_umad."),
        "docker-missing": Entry(3, "No Docker Engine and no docker command were found."),
        "docker-unreachable": Entry(3, "The Docker daemon does not answer, or not to this user."),
        "docker-permission": Entry(3, "The Docker socket exists but this user may not use it."),
        "docker-hangs": Entry(3, "The Docker daemon accepts connections but does not answer in time."),
        "docker-too-old": Entry(3, "The Docker Engine is older than 24.0."),
        "docker-is-podman": Entry(3, "Podman answers on Docker's socket, and would start containers without GPUs."),
        "docker-refused": Entry(3, "The Docker daemon refused a request."),
        "toolkit-missing": Entry(3, "The NVIDIA Container Toolkit is not installed."),
        "toolkit-too-old": Entry(3, "The NVIDIA Container Toolkit is older than 1.14.0."),
        "gpu-runtime-missing": Entry(3, "Docker has neither the nvidia runtime nor a CDI specification for the GPUs."),
        "probe-failed": Entry(3, "A container could not see the GPUs."),
        "cuda-no-device": Entry(3, "CUDA finds no device in a container (100)."),
        "cuda-not-ready": Entry(3, "CUDA is not initialised in a container (802): the NVLink fabric is not up."),
        "cuda-mismatch": Entry(3, "The CUDA library in a container does not fit the driver that is loaded (803)."),
        "cuda-compat-refused": Entry(3, "The image needs CUDA's forward compatibility, and the GPUs have none (804)."),
        "fix-refused": Entry(3, "`doctor --fix` leaves a change alone that would end containers with GPUs."),
        "fix-failed": Entry(3, "A command of `doctor --fix` failed; what it says was changed, the rest was not."),
        "front-missing": Entry(3, "The process runtime needs nginx and did not find it."),
        "engine-missing": Entry(3, "The process runtime needs vLLM in this Python environment and did not find it."),
        "lock-differs": Entry(3, "What would start differs from the lock file; each difference is named."),
        "drift-found": Entry(3, "What runs differs from its lock file; each difference is named."),
        # 4: credentials or terms
        "key-missing": Entry(4, "An API key is needed and none was given."),
        "key-refused": Entry(4, "The registry refused the key."),
        "terms-not-accepted": Entry(4, "The governing terms of this image or model have not been accepted."),
        "organisation-wrong": Entry(4, "The key is good, and the image belongs to another organisation or team."),
        "payment-required": Entry(4, "The organisation of the key has no entitlement to this image."),
        # 5: image
        "image-not-found": Entry(5, "The image does not exist in its registry, or this key may not see it."),
        "image-pull-failed": Entry(5, "The registry or the network failed while the image was pulled."),
        "image-build-failed": Entry(5, "The image could not be built."),
        "image-rate-limited": Entry(5, "The registry refuses further requests for now (429)."),
        "signature-missing": Entry(5, "The image or the weights carry no signature, and one is required."),
        "signature-invalid": Entry(5, "No signature is of a trusted key or identity for exactly these bytes."),
        "image-incompatible": Entry(5, "The image does not fit this host's architecture or purpose."),
        "digest-changed": Entry(5, "The tag stands for another image than before."),
        "image-tampered": Entry(5, "The bytes of an image are not those its digest promises."),
        "platform-missing": Entry(5, "The image exists, and not for this host's architecture."),
        # 6: weights
        "weights-missing": Entry(6, "The weights are not where they should be."),
        "weights-unreadable": Entry(6, "A weight file cannot be read by the container's user."),
        "weights-incomplete": Entry(6, "Files of the checkpoint are missing or have the wrong size or hash."),
        "weights-source-unsupported": Entry(6, "This kind of weight source is not supported."),
        "weights-not-found": Entry(6, "The source has no such model, file or bucket, or this key may not see it."),
        "weights-revision-unknown": Entry(6, "The model has no such revision or version."),
        "weights-pickle": Entry(6, "The weights are pickle files, whose loading would run code."),
        "weights-unsafe-name": Entry(6, "The source names a file that would leave the cache folder."),
        "weights-corrupt": Entry(6, "The bytes that arrived, or lie in the cache, are not those the source promised."),
        "weights-source-failed": Entry(6, "The source kept failing, or kept sending wrong answers."),
        "weights-source-unreachable": Entry(6, "The source cannot be reached: no network, no name, no route."),
        "weights-offline": Entry(6, "The weights are not complete in the cache, and the network must not be used."),
        "tls-untrusted": Entry(6, "The source's certificate is not trusted here (a private CA?)."),
        "clock-wrong": Entry(6, "This machine's clock is so wrong that certificates or signatures are refused."),
        "proxy-refused": Entry(6, "The proxy refuses the connection to the source."),
        # 7: nothing fits
        "no-layout": Entry(7, "The model does not fit these GPUs in any layout."),
        "memory-tight": Entry(7, "The model may not fit these GPUs: by an estimate, too little memory is left."),
        "profile-unfit": Entry(7, "The profile that was asked for does not run on these GPUs."),
        "gpus-mixed": Entry(7, "The chosen GPUs are of different models."),
        "gpu-unsupported": Entry(7, "The engine's build holds no code for these GPUs (compute capability)."),
        "gpu-mig": Entry(7, "MIG is on, and the model fits into no slice."),
        # 8: engine
        "engine-died": Entry(8, "The engine ended before or while serving."),
        "engine-stalled": Entry(8, "The engine made no progress for too long while starting."),
        "engine-out-of-memory": Entry(8, "The engine ran out of GPU or host memory."),
        "engine-gpu-failed": Entry(8, "A GPU failed or was lost under the engine."),
        "engine-answers-garbage": Entry(8, "The engine answers, and what it answers cannot be right."),
        "engine-hangs": Entry(8, "The engine stands still with requests to answer, while its own health is green."),
        "engine-config": Entry(8, "The engine refused its configuration."),
        "node-unreachable": Entry(8, "A node of the group did not come in time, or its leader cannot be reached."),
        "node-lost": Entry(8, "A node of the group is gone: its container or machine died, or the network."),
        "warmup-failed": Entry(8, "The engine started but could not answer the warm-up requests."),
        "front-died": Entry(8, "nginx ended while the server was running."),
        "container-died": Entry(8, "The container ended before it was ready."),
        "not-ready": Entry(8, "The server did not become ready."),
        # 9: local state
        "cache-not-writable": Entry(9, "The cache folder cannot be written by uid:0, the container's user."),
        "disk-full": Entry(9, "A filesystem has too little room."),
        "port-in-use": Entry(9, "The port asked for is already taken."),
        "name-in-use": Entry(9, "A run of this name exists already."),
        "cache-unreachable": Entry(9, "The cache folder does not answer in time (a dead network mount?)."),
        "bundle-damaged": Entry(9, "A file of the bundle is missing, or its bytes are not those that were packed."),
        "bundle-incomplete": Entry(9, "The bundle was not packed to its end, or a part of it was not carried over."),
        "bundle-invalid": Entry(9, "The folder is no bundle, or one of a kind this version does not know."),
        "credentials-unwritable": Entry(9, "Docker's configuration file cannot be read or written."),
        # stopped
        "interrupted": Entry(130, "Stopped by Ctrl-C; what was started has been stopped again."),
        "terminated": Entry(143, "Stopped by SIGTERM after a clean drain."),
    }
)


class NimctlError(Exception):
    """One failure with its id, what happened, why, and the way out.

    Raised by the lower layers; only `nimctl.cli` and `entrypoint.__main__` catch it. `cause` and `fix` are single
    sentences and never empty: an error without a way out is not finished. `evidence` holds the few lines that prove
    the cause (log lines, paths), already free of secrets.
    """

    def __init__(self, id: str, message: str, *, cause: str, fix: str, evidence: Sequence[str] = ()) -> None:  # noqa: A002 (the user's word)
        if not _ID.fullmatch(id) or id not in CATALOGUE:
            raise ValueError(f"error id {id!r} is not in the catalogue")
        if not (message and cause and fix):
            raise ValueError(f"error {id!r} needs a message, a cause and a fix")
        super().__init__(f"{id}: {message}")
        self.id = id
        self.message = message
        self.cause = cause
        self.fix = fix
        self.evidence = tuple(evidence)

    @property
    def exit_code(self) -> int:
        """The process exit code that belongs to the id."""
        return CATALOGUE[self.id].exit_code

    def to_json(self) -> dict[str, object]:
        """The error as the `error` object of a `--json` document and of the container's crash record."""
        return {
            "id": self.id,
            "message": self.message,
            "cause": self.cause,
            "fix": self.fix,
            "exit_code": self.exit_code,
            "evidence": list(self.evidence),
        }
