"""This server's membership in a group of nodes. Of a node that is alone, all of it is nothing and costs nothing."""

from collections.abc import Callable, Iterable, Mapping

from entrypoint.engine import network, nodes
from entrypoint.engine.nodes import Role
from entrypoint.group import Group, Over, Status
from entrypoint.group.follower import Follower
from entrypoint.group.judging import is_echo
from entrypoint.group.leader import Leader
from entrypoint.observability.journal import Journal
from entrypoint.observability.report import Report
from nimctl.core.errors import NimctlError

# The stages of a leader whose engine has come up, which it does only with those of all others.
_ENGINE_IS_UP = ("warmup", "ready")


class Membership:
    """The part of this node, its link to the others once it has joined, and what it says of itself."""

    def __init__(self, role: Role, journal: Journal, report: Report) -> None:
        self.role = role
        self._journal, self._report = journal, report
        self._group: Group | None = None
        self._address = ""
        self._idle = 0.0
        self.over = False  # the others know that it ends

    def join(self, facts: Mapping[str, str], *, patience: float, on_over: Callable[[Over], None]) -> None:
        """Listen as the leader, or call it; only once. Raises `port-in-use`, `config-invalid`."""
        if self.role.alone or self._group is not None:
            return
        if self.role.leads:
            self._address = self._own_address()
            self._journal.info("group", f"{self.role.name} leads; the others need NIM_LEADER_ADDRESS={self._address}")

        def over(event: Over) -> None:
            self.over = True
            on_over(event)

        kind = Leader if self.role.leads else Follower
        self._group = kind(
            self.role,
            facts,
            status=self._status,
            on_over=over,
            on_word=lambda words: self._journal.info("group", words),
            patience=patience,
        )
        self._group.open()

    def _own_address(self) -> str:
        """Where the others reach us. Raises `config-invalid` for an address that is somebody else's."""
        named = self.role.leader
        found = network.addresses(named) if named else ()
        if own := next((address for address in found if network.is_own(address)), None):
            return own
        here = network.own_address(None)
        if found or here is None:
            raise NimctlError(
                "config-invalid",
                f"NIM_LEADER_ADDRESS={named} is not an address of this machine, which is node 0",
                cause=f"{named} is {', '.join(found)}, and this machine {here}" if found else "it has no network",
                fix="Name the address of node 0 in the network of the nodes; a container needs that network itself "
                "(--network host), published ports are not enough.",
            )
        if named:
            self._journal.warning("group", f"{named} cannot be looked up here; {here} is taken for this node")
        return here

    def _status(self) -> Status:
        current = self._report.current
        stage = current.current
        ready = current.state == "ready"
        return Status(
            "ready" if ready else stage.name if stage else "", (stage and stage.detail) or "", self._idle, ready
        )

    def arguments(self) -> dict[str, str | int | float | bool]:
        """The engine's options for this rank."""
        return self.role.arguments(self._address if self.role.leads else str(self.role.leader))

    def await_start(self, weights: str, *, wanted: Callable[[], bool]) -> None:
        """Return when the weights of every node lie ready. Raises `node-unreachable`."""
        if self._group is None:
            return

        def on_wait(words: str) -> None:
            self._report.progress("engine", detail=words)

        self._group.await_start(weights, wanted=wanted, on_wait=on_wait)

    def environment(self, inherited: Mapping[str, str]) -> dict[str, str]:
        """The engine's variables; once all nodes are there, so that the way to the leader is known."""
        if self._group is None:
            return {}
        address: str | None = self._address
        if not self.role.leads:
            found = network.addresses(str(self.role.leader))
            address = network.own_address(found[0] if found else None)
        if not address:
            return {}
        env = nodes.environment(self.role, inherited, address, network.interface_of(address))
        told = " ".join(f"{name}={value}" for name, value in env.items())
        self._journal.info("group", f"the engines start; this node is {address} ({told or 'as was set'})")
        return env

    def idle(self, own: float) -> float:
        """Seconds for which nothing moved on any node, where nothing did on this one for `own`."""
        self._idle = own
        others = self._group.others_idle() if self._group is not None else None
        return own if others is None else min(own, others)

    def engine_is_up(self) -> bool:
        """Of a follower: whether the leader's engine serves, which it does only with those of all."""
        return self._group is not None and self._group.leader().stage in _ENGINE_IS_UP

    def is_ready(self) -> bool:
        """Of a follower: whether the leader is ready."""
        return self._group is not None and self._group.leader().ready

    def fail(self, error: NimctlError, lines: Iterable[str]) -> NimctlError:
        """The one cause of the group, where this node ends with `error`; `lines` are the last of what died."""
        if self._group is None or error.id == "node-refused":
            return error
        return self._group.fail(error, echo=is_echo(error, lines))

    def stop(self) -> None:
        """As the leader: let the others go. As a follower: ask the leader to stop."""
        if self._group is not None:
            self._group.stop()

    def leave(self) -> None:
        """The end: hang up, once what was said is out."""
        group, self._group = self._group, None
        if group is not None:
            group.close()
