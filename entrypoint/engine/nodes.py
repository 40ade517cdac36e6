"""This node's part in an engine that spans several nodes: how many there are, which one this is, who leads. Pure.

The same image is started on every node; rank 0 leads and has the API. What the engine wants of each:
https://github.com/vllm-project/vllm/blob/v0.32.0/vllm/engine/arg_utils.py (nnodes, node_rank, master_addr)
https://github.com/vllm-project/vllm/blob/v0.32.0/vllm/entrypoints/cli/serve.py (run_headless)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from nimctl.core.engine_options import Option, options_of, parse_options
from nimctl.core.errors import NimctlError

NODES, RANK, LEADER, PORT, HEADLESS = "nnodes", "node-rank", "master-addr", "master-port", "headless"
OPTIONS = (NODES, RANK, LEADER, PORT, HEADLESS)
_BACKEND = "distributed-executor-backend"
# Those that keep to `--nnodes`: https://github.com/vllm-project/vllm/blob/v0.32.0/vllm/config/parallel.py
_BACKENDS = ("mp", "uni", "external_launcher")

# The operator sets the NIM_* names, the controller of the LeaderWorkerSet below it the others:
# https://github.com/NVIDIA/k8s-nim-operator/blob/f63f74d7ad22eaea7943cc640e545f4ccdbb8077/api/apps/v1alpha1/nimservice_types.go
# https://docs.vllm.ai/en/stable/deployment/frameworks/lws.html
_SETTINGS = {
    NODES: "NIM_NUM_COMPUTE_NODES",
    RANK: "NIM_NODE_RANK",
    LEADER: "NIM_LEADER_ADDRESS",
    PORT: "NIM_LEADER_PORT",
}
_FROM_THE_SET = {NODES: "LWS_GROUP_SIZE", RANK: "LWS_WORKER_INDEX", LEADER: "LWS_LEADER_ADDRESS"}
_MANY, _LEADS = "NIM_MULTI_NODE", "NIM_LEADER_ROLE"


class Asked(Protocol):
    """What of the settings is read here."""

    @property
    def nodes(self) -> int: ...  # noqa: D102 (as the settings say)
    @property
    def node_rank(self) -> int: ...  # noqa: D102
    @property
    def leader_address(self) -> str | None: ...  # noqa: D102
    @property
    def leader_port(self) -> int: ...  # noqa: D102
    @property
    def port(self) -> int: ...  # noqa: D102
    @property
    def engine_args(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def sources(self) -> Mapping[str, str]: ...  # noqa: D102


@dataclass(frozen=True)
class Role:
    """Rank `rank` of `nodes`; `leader` is the leader's host name or address as it was named, if it was.

    The engine meets on `port` of the leader, the supervisors on `link_port`.
    """

    nodes: int = 1
    rank: int = 0
    leader: str | None = None
    port: int = 29501

    @property
    def alone(self) -> bool:
        """True for an ordinary server on one machine."""
        return self.nodes == 1

    @property
    def leads(self) -> bool:
        """True for the node with the API, also where it is the only one."""
        return self.rank == 0

    @property
    def link_port(self) -> int:
        """Where the leader's supervisor listens."""
        return self.port + 1

    @property
    def name(self) -> str:
        """Such as `node 1 of 2`."""
        return f"node {self.rank} of {self.nodes}"

    def arguments(self, address: str) -> dict[str, str | int | float | bool]:
        """The engine's options for this rank, where the leader is at `address`; none for a node alone."""
        if self.alone:
            return {}
        own: dict[str, str | int | float | bool] = {
            NODES: self.nodes,
            RANK: self.rank,
            LEADER: address,
            PORT: self.port,
        }
        return own if self.leads else {**own, HEADLESS: True}


ALONE = Role()


def role_of(settings: Asked, environ: Mapping[str, str]) -> Role:
    """The part that was given to this node: engine options and settings together, then what a LeaderWorkerSet tells.

    Raises `config-invalid` where they contradict each other or lack something, `usage` for options that cannot be.
    """
    options = {
        option.name: option for option in parse_options(settings.engine_args) if option.name in (*OPTIONS, _BACKEND)
    }
    given = {name: _given(name, options.get(name), settings, environ) for name in (NODES, RANK, LEADER, PORT)}
    nodes = _number(NODES, given[NODES], lowest=1, default=1)
    many = environ.get(_MANY, "")
    if many == "0" and not _is_explicit(NODES, options, settings):
        return ALONE  # a pod of a set that serves by itself
    if many == "1" and given[NODES] is None:
        raise _wrong(
            f"{_MANY}=1 without a number of nodes",
            f"{_SETTINGS[NODES]} is not set",
            f"Set {_SETTINGS[NODES]} to their number.",
        )
    if nodes == 1:
        _refuse_part_alone(options, given[RANK] if _is_explicit(RANK, options, settings) else None)
        return ALONE
    rank = _rank(given[RANK], nodes, environ)
    role = Role(nodes, rank, given[LEADER], _number(PORT, given[PORT], lowest=1, default=settings.leader_port))
    _check(role, settings, options)
    return role


def _is_explicit(name: str, options: Mapping[str, Option], settings: Asked) -> bool:
    return name in options or settings.sources.get(_SETTINGS[name], "default") != "default"


def _given(name: str, option: Option | None, settings: Asked, environ: Mapping[str, str]) -> str | None:
    """The one value that options and settings agree on; None where nobody says."""
    variable = _SETTINGS[name]
    value = {
        NODES: settings.nodes,
        RANK: settings.node_rank,
        LEADER: settings.leader_address,
        PORT: settings.leader_port,
    }[name]
    of_setting = None if settings.sources.get(variable, "default") == "default" else str(value)
    of_option = None if option is None else " ".join(option.values)
    if of_option is not None and of_setting is not None and of_option != of_setting:
        raise _wrong(
            f"--{name} {of_option} contradicts {variable}={of_setting}",
            "both say what this node's part is, and they differ",
            f"Leave one of them out; {variable} is enough.",
        )
    return of_option or of_setting or environ.get(_FROM_THE_SET.get(name, "")) or None


def _number(name: str, text: str | None, *, lowest: int, default: int) -> int:
    if text is None:
        return default
    if text.isascii() and text.isdecimal() and len(text) < 6 and lowest <= int(text) < 65535:
        return int(text)
    raise _wrong(f"{_SETTINGS[name]} (--{name}) is {text}", f"a whole number from {lowest} is expected", "Correct it.")


def _rank(text: str | None, nodes: int, environ: Mapping[str, str]) -> int:
    leads = environ.get(_LEADS, "")
    if text is None and leads == "0":
        raise _wrong(
            f"{_LEADS}=0 without a rank", f"{_SETTINGS[RANK]} is not set", f"Set {_SETTINGS[RANK]}: 1 to {nodes - 1}."
        )
    rank = _number(RANK, text, lowest=0, default=0)
    if leads in ("0", "1") and (leads == "1") != (rank == 0):
        raise _wrong(
            f"{_LEADS}={leads} contradicts rank {rank}",
            "rank 0 leads, and no other",
            f"Leave {_LEADS} out; the rank says it.",
        )
    if rank >= nodes:
        raise _wrong(
            f"rank {rank} of {nodes} nodes does not exist",
            f"ranks count from 0 to {nodes - 1}",
            f"Correct {_SETTINGS[RANK]} or {_SETTINGS[NODES]}.",
        )
    return rank


def _refuse_part_alone(options: Mapping[str, Option], rank: str | None) -> None:
    if rank not in (None, "0"):
        raise _wrong(
            f"rank {rank} of one node does not exist",
            f"{_SETTINGS[NODES]} is not set, or 1",
            f"Set {_SETTINGS[NODES]} to the number of nodes, on every one of them.",
        )
    if HEADLESS in options:
        raise NimctlError(
            "usage",
            "--headless cannot be passed to the engine",
            cause="a server without API cannot become ready",
            fix=f"Leave it out; with {_SETTINGS[NODES]} and {_SETTINGS[RANK]} this node follows a leader.",
        )


def _check(role: Role, settings: Asked, options: Mapping[str, Option]) -> None:
    if role.leads and HEADLESS in options:
        raise _wrong("--headless contradicts rank 0", "rank 0 leads, and has the API", "Leave --headless out.")
    if not role.leads and not role.leader:
        raise _wrong(
            f"{role.name} does not know its leader",
            f"{_SETTINGS[LEADER]} is not set",
            f"Set {_SETTINGS[LEADER]} to the address of node 0, on every node.",
        )
    if role.link_port > 65535 or settings.port in (role.port, role.link_port):
        raise _wrong(
            f"port {role.port} for the engine and {role.link_port} for the supervisors cannot be used",
            f"the API is on port {settings.port}, and ports end at 65535",
            f"Choose another {_SETTINGS[PORT]}: it and the next one must be free on node 0.",
        )
    backend = options.get(_BACKEND)
    if backend is not None and backend.values[:1] and backend.values[0] not in _BACKENDS:
        raise NimctlError(
            "usage",
            f"--{_BACKEND} {backend.values[0]} does not work over several nodes here",
            cause="the nodes of this image meet without Ray, by multiprocessing",
            fix=f"Leave --{_BACKEND} out.",
        )


def _wrong(message: str, cause: str, fix: str) -> NimctlError:
    return NimctlError("config-invalid", message, cause=cause, fix=fix)


def placed(argv: Sequence[str], arguments: Mapping[str, str | int | float | bool]) -> tuple[str, ...]:
    """The engine's command line `argv` with the options of this rank, whatever was said of them before."""
    if not arguments:
        return tuple(argv)
    begin = argv.index("--uds")
    words = (
        word for option in (*without(parse_options(argv[begin:])), *options_of(arguments)) for word in option.words
    )
    return (*argv[:begin], *words)


def without(options: Sequence[Option]) -> tuple[Option, ...]:
    """`options` without those that say what a node's part is."""
    return tuple(option for option in options if option.name not in OPTIONS)


def environment(role: Role, inherited: Mapping[str, str], address: str, interface: str | None) -> dict[str, str]:
    """What the engine's processes need to find each other at `address` of this node, on its network `interface`.

    What was set stays. The defaults of the engine are the interface of the default route, and for gloo the one that the
    host name stands for, which on many hosts is the loopback: neither must be where the other nodes are.
    https://docs.vllm.ai/en/stable/serving/parallelism_scaling/, https://pytorch.org/docs/stable/distributed.html
    """
    if role.alone:
        return {}
    wanted = {"VLLM_HOST_IP": address}
    if interface is not None:
        wanted |= {"GLOO_SOCKET_IFNAME": interface, "NCCL_SOCKET_IFNAME": f"={interface}"}
    return {name: value for name, value in wanted.items() if not inherited.get(name)}
