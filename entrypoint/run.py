"""What every step of a start may use."""

from collections.abc import Mapping
from dataclasses import dataclass

from entrypoint.group.membership import Membership
from entrypoint.observability.journal import Journal
from entrypoint.observability.report import Report
from entrypoint.processes.supervisor import Supervisor
from entrypoint.settings import Settings
from entrypoint.state import State


@dataclass(frozen=True)
class Run:
    """One server: what was asked, where its files are, to whom it tells what happens, who owns its children.

    `members` is its link to the other nodes of its group.
    """

    settings: Settings
    environ: Mapping[str, str]
    state: State
    report: Report
    journal: Journal
    supervisor: Supervisor
    members: Membership
