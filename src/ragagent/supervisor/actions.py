"""The steps that the supervisor takes: `decide` decides them, `settle` notes them, the arbiter carries them out."""

from __future__ import annotations

from dataclasses import dataclass

from ragagent.supervisor.fleet import Failure, Member, Release


@dataclass(frozen=True, slots=True)
class Load:
    """Exec a zygote: a new release's first, or a current one's next."""

    release: Release


@dataclass(frozen=True, slots=True)
class Unload:
    """End the zygote of the current release, which cannot load any more; its children are not touched."""

    release: Release
    reason: str


@dataclass(frozen=True, slots=True)
class Start:
    """Have the zygote fork this member."""

    member: Member


@dataclass(frozen=True, slots=True)
class Serve:
    """Tell a ready member to begin."""

    member: Member


@dataclass(frozen=True, slots=True)
class Drain:
    """SIGTERM: finish what you hold, then leave."""

    member: Member


@dataclass(frozen=True, slots=True)
class Abort:
    """SIGABRT: dump every stack and die."""

    member: Member
    reason: str


@dataclass(frozen=True, slots=True)
class Kill:
    """SIGKILL. A fault counts against the member's slot, or its release; anything else is only the end of a wait."""

    member: Member
    reason: str
    fault: bool = False


@dataclass(frozen=True, slots=True)
class Switch:
    """Every member of the incoming release is ready: from here they are told to serve."""

    release: Release


@dataclass(frozen=True, slots=True)
class Promote:
    """Every worker of the incoming release runs: it is the current one now, and its predecessor may drain."""

    release: Release
    predecessor: Release | None


@dataclass(frozen=True, slots=True)
class Abandon:
    """The incoming release cannot be: forget it. The current one was not touched."""

    release: Release
    failure: Failure


@dataclass(frozen=True, slots=True)
class Finish:
    """The reload is over: nothing is left of any other release."""

    release: Release


@dataclass(frozen=True, slots=True)
class Leave:
    """No child is left, and none is wanted."""

    code: int


Action = Load | Unload | Start | Serve | Drain | Abort | Kill | Switch | Promote | Abandon | Finish | Leave
