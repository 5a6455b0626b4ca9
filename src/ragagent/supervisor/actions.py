"""The steps that the supervisor takes: `decide` decides them, `settle` notes them, the arbiter carries them out."""

from __future__ import annotations

from dataclasses import dataclass

from ragagent.supervisor.member import Member
from ragagent.supervisor.release import Failure, Release


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
    """Have the zygote fork this member; beside one that it will replace, and why, if it is to be a successor."""

    member: Member
    instead_of: Member | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Serve:
    """Tell a ready member to begin."""

    member: Member


@dataclass(frozen=True, slots=True)
class Drain:
    """SIGTERM: finish what you hold, then leave. The reason, if there is one, is what the exit will be put down to."""

    member: Member
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Probe:
    """Ask a worker, on a connection that only it can answer, whether it is ready."""

    member: Member


@dataclass(frozen=True, slots=True)
class GiveUpProbe:
    """No answer came in time."""

    member: Member


@dataclass(frozen=True, slots=True)
class Weigh:
    """Read how much memory a worker takes."""

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
class Rehearse:
    """Have a new process show that the supervisor's code on disk could take over from here."""


@dataclass(frozen=True, slots=True)
class CallOff:
    """It could not, or not in time: this image goes on."""

    reason: str


@dataclass(frozen=True, slots=True)
class Succeed:
    """Become the new image: same process, same children, other code."""


@dataclass(frozen=True, slots=True)
class GiveUp:
    """No worker can be kept alive: stop, and say so by the exit code."""

    reason: str


@dataclass(frozen=True, slots=True)
class Leave:
    """No child is left, and none is wanted."""

    code: int


Action = (
    Load
    | Unload
    | Start
    | Serve
    | Drain
    | Probe
    | GiveUpProbe
    | Weigh
    | Abort
    | Kill
    | Switch
    | Promote
    | Abandon
    | Finish
    | Rehearse
    | CallOff
    | Succeed
    | GiveUp
    | Leave
)
