"""What the service manager hears of the fleet: ready, reloading, stopping, alive, and one line of status.

It looks at the fleet once per turn and says what has changed since; it decides nothing. A reload that began and failed
within one turn is told as well: the count of reloads says so.
"""

from __future__ import annotations

from ragagent.supervisor.fleet import Fleet
from ragagent.supervisor.member import Member, State
from ragagent.supervisor.notify import Notifier
from ragagent.supervisor.watch import MERCY_SECONDS

MARGIN_SECONDS = 5.0  # from the last child's death to our exit, on a busy machine
MAX_STATUS_CHARACTERS = 300


class Herald:
    """`ready` is for the caller to say, once; the rest follows from `tell`."""

    def __init__(self, notifier: Notifier) -> None:
        self._notifier = notifier
        self._is_ready = False
        self._is_reloading = False
        self._is_stopping = False
        self._ended = 0  # reloads that were told to their end
        self._status = ""
        self._watchdog_at = 0.0

    def ready(self) -> None:
        """Say that requests are answered; a second time changes nothing."""
        if not self._is_ready:
            self._is_ready = True
            self._notifier.ready()

    def resume(self, fleet: Fleet) -> None:
        """Go on where an earlier image of this process, which was ready, has left off."""
        self._is_ready, self._is_reloading = True, is_reloading(fleet)
        self._ended = fleet.reloads.ok + fleet.reloads.failed

    def tell(self, fleet: Fleet, now: float) -> None:
        """Say what is new. Called once per turn, after the steps of that turn were carried out."""
        if fleet.stop is not None:
            self._tell_stop(fleet)
        elif self._is_ready:
            self._tell_reload(fleet)
        self._tell_status(fleet)
        self._tell_watchdog(fleet, now)
        self._notifier.flush()

    def _tell_stop(self, fleet: Fleet) -> None:
        if self._is_stopping:
            return
        self._is_stopping = True
        self._notifier.stopping()
        # Once and in full: past its own budget the supervisor kills what is left, and if it cannot, the manager should.
        self._notifier.extend_timeout(budget(fleet) + MARGIN_SECONDS)

    def _tell_reload(self, fleet: Fleet) -> None:
        ended = fleet.reloads.ok + fleet.reloads.failed
        if ended > self._ended:
            self._tell_begin()
            self._tell_status(fleet)  # Before READY: whoever waits for that reads what became of the reload.
            self._notifier.ready()
            self._is_reloading, self._ended = False, ended
        if is_reloading(fleet):
            self._tell_begin()

    def _tell_begin(self) -> None:
        if not self._is_reloading:
            self._is_reloading = True
            self._notifier.reloading()

    def _tell_watchdog(self, fleet: Fleet, now: float) -> None:
        """Vouch for the service, not for this loop: without a worker that answers, a restart is what it needs."""
        interval = self._notifier.watchdog_seconds
        if interval is None or not self._is_ready or now < self._watchdog_at:
            return
        if is_healthy(fleet, now):
            self._watchdog_at = now + interval / 2
            self._notifier.watchdog()

    def _tell_status(self, fleet: Fleet) -> None:
        text = status_text(fleet)
        if text != self._status:
            self._status = text
            self._notifier.status(text)


def is_reloading(fleet: Fleet) -> bool:
    """Whether a reload is on its way, up to the last of its predecessor's members."""
    if fleet.incoming is not None:
        return fleet.incoming.is_reload
    return fleet.current is not None and fleet.current.is_reload and not fleet.current.finished


def is_healthy(fleet: Fleet, now: float) -> bool:
    """Whether at least one worker serves, answers its probes, and has beaten lately."""
    healthy = (member for member in _running(fleet) if member.is_healthy)
    return any(now - member.beat_at < member.release.limits.hang_seconds for member in healthy)


def budget(fleet: Fleet) -> float:
    """Return the seconds in which every member there is has left, by itself or not."""
    return max([m.release.limits.graceful_seconds for m in fleet.members], default=0.0) + MERCY_SECONDS


def status_text(fleet: Fleet) -> str:
    """Return what the fleet does, in one line for a person on call."""
    if fleet.stop is not None:
        return f"Stopping: {_count(len(fleet.members), 'process', 'processes')} left."
    if fleet.current is None:
        return "Starting."
    workers = _count(len(_running(fleet)), "worker", "workers")
    text = f"Release {fleet.current.number} serves, {workers} running."
    if fleet.incoming is not None:
        return f"{text} Release {fleet.incoming.number} is on its way."
    if fleet.reloads.last_failure is not None:
        text = f"{text} Reload failed: {fleet.reloads.last_failure.reason}"
    return text if len(text) <= MAX_STATUS_CHARACTERS else f"{text[: MAX_STATUS_CHARACTERS - 1]}…"


def _running(fleet: Fleet) -> list[Member]:
    return [member for member in fleet.members if member.role == "worker" and member.state is State.RUNNING]


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
