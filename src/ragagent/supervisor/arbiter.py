"""The supervisor's loop: wait, take in what happened, let `decide` say what follows, carry it out.

One thread, no event loop, nothing imported that could break: this process is the init of its tree and must outlive
whatever it starts. All that arrives (a signal, a word on a lifeline, a control request, a dead child) changes `fleet`
and nothing else; every step that is taken comes out of `settle`.
"""

from __future__ import annotations

import logging
import selectors
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ragagent import __version__
from ragagent.config import Config
from ragagent.errors import EXIT_OK
from ragagent.supervisor import log, sockets
from ragagent.supervisor.actions import (
    Abandon,
    Abort,
    CallOff,
    Drain,
    Finish,
    GiveUp,
    GiveUpProbe,
    Kill,
    Leave,
    Load,
    Probe,
    Promote,
    Rehearse,
    Serve,
    Start,
    Succeed,
    Switch,
    Unload,
    Weigh,
)
from ragagent.supervisor.chronicle import Chronicle
from ragagent.supervisor.commands import Commands
from ragagent.supervisor.control import Client, Control
from ragagent.supervisor.crew import Crew
from ragagent.supervisor.facts import limits_of
from ragagent.supervisor.fleet import Fleet
from ragagent.supervisor.handover import Estate
from ragagent.supervisor.herald import Herald
from ragagent.supervisor.notify import Notifier
from ragagent.supervisor.process import Helpers
from ragagent.supervisor.reporter import Reporter
from ragagent.supervisor.settle import settle
from ragagent.supervisor.upgrade import Upgrader
from ragagent.supervisor.waiters import Waiters
from ragagent.supervisor.wakeup import Wakeup

TICK_SECONDS = 0.2  # How late a limit may be noticed; every event wakes the loop by itself.

logger = logging.getLogger("ragagent.supervisor")


@dataclass(frozen=True)
class Options:
    config_path: Path | None = None
    worker_module: str = "ragagent.worker"
    indexer_module: str = "ragagent.indexer"

    def arguments(self) -> list[str]:
        """Return the zygote's command line for these."""
        path = ["--config", str(self.config_path)] if self.config_path is not None else []
        return [*path, "--worker-module", self.worker_module, "--indexer-module", self.indexer_module]


_GREETING = """
  ragagent {version} ready on {where} ({workers} workers, data in {directory})

    ask      ragagent ask "What happens to a reload with a mistake in it?"
    load     ragagent ingest PATH --store NAME
    code     OpenAI(base_url="{where}/v1", api_key="any")
    look     ragagent status

  The command is in the bin folder of the environment that runs this. Stop with Ctrl-C.
"""


class Arbiter:
    """Supervises one tree, from the first boot to the last exit. Closes `listeners` when it is asked to stop.

    `pidfile` is the descriptor that holds the lock; `estate` is what an earlier image of this process has left.
    """

    def __init__(
        self,
        options: Options,
        config: Config,
        listeners: Sequence[socket.socket],
        pidfile: int,
        recent: log.Recent,
        terminal: log.Terminal,
        notifier: Notifier,
        estate: Estate | None = None,
    ) -> None:
        self._config = config
        self._terminal = terminal
        self._herald = Herald(notifier)
        self._listeners = listeners
        self._pidfile = pidfile
        self._where = " ".join(map(sockets.url, listeners))
        self._started_at = estate.started_at if estate is not None else time.time()
        self._selector = selectors.DefaultSelector()
        self._fleet = estate.fleet if estate is not None else Fleet(limits_of(config))
        helpers: Helpers = {}
        self._chronicle = Chronicle(self._fleet, Reporter(helpers))
        self._crew = Crew(self._fleet, self._selector, listeners, options.arguments(), helpers, self._chronicle)
        self._upgrader = Upgrader(self._fleet, helpers, self._estate, SIGNALS, notifier.environment)
        self._commands = Commands(
            self._fleet, self._crew, self._where, self._started_at, recent, config.server.log_path, self._handle_stop
        )
        self._waiters = Waiters()
        self._announced = self._fleet.answered
        if self._announced:
            self._herald.resume(self._fleet)
        if estate is not None:
            self._crew.adopt(estate.children, estate.zygotes)
            self._fleet.ask_reload()  # The workers' code is as old as ours was.

    def run(self) -> int:
        """Supervise until asked to stop, or until the first boot fails; return the exit code."""
        self._wakeup = Wakeup(_HANDLERS)
        self._selector.register(self._wakeup, selectors.EVENT_READ, lambda: None)
        control = Control(self._config.data.path, self._selector, self._answer)
        try:
            while self._fleet.left is None:
                try:
                    self._turn()
                except Exception:
                    # A fault of ours must not end the service: every child dies with this process.
                    logger.exception("A turn of the supervisor's loop failed; it goes on.")
                    time.sleep(TICK_SECONDS)
            return self._fleet.left
        finally:
            self._waiters.dismiss("The supervisor has stopped.")
            self._crew.close()
            self._chronicle.close()
            control.close()
            self._wakeup.close()
            self._selector.close()

    def _turn(self) -> None:
        for number in self._wait():
            _HANDLERS[number](self)
        self._crew.reap()
        self._reconcile()
        self._chronicle.turn(self._crew.children, time.monotonic())
        self._waiters.tell()
        self._announce()
        self._herald.tell(self._fleet, time.monotonic())

    def _wait(self) -> list[signal.Signals]:
        """Take in what has arrived on any line, and return the signals."""
        for key, _ in self._selector.select(TICK_SECONDS):
            if key.fd in self._selector.get_map():  # Not closed by an earlier one of this round.
                key.data()
        return self._wakeup.signals()

    def _reconcile(self) -> None:
        """Take the steps from what there is to what there should be."""
        for action in settle(self._fleet, time.monotonic()):
            self._chronicle.took(action, time.monotonic())
            _CARRIED_OUT[type(action)](self, action)

    def _announce(self) -> None:
        """Say once, to the service manager that it is ready, and to the person at the terminal what to try."""
        if self._announced or not self._fleet.answered or self._fleet.current is None:
            return
        self._announced = True
        self._herald.ready()
        greeting = _GREETING.format(
            version=__version__,
            where=self._where,
            workers=self._fleet.current.workers,
            directory=self._config.data.dir,
        )
        self._terminal.say(greeting)

    # -- signals

    def _handle_hup(self) -> None:
        logger.info("SIGHUP: reload.")
        self._chronicle.asked(time.monotonic())
        self._fleet.ask_reload()

    def _handle_stop(self) -> None:
        logger.info("Asked to stop%s.", " gracefully" if self._fleet.stop is None else " at once")
        self._fleet.ask_stop(time.monotonic())
        self._take_no_more()

    def _take_no_more(self) -> None:
        """Let go of the port. Workers do as they drain: from then on clients are refused, not left in the queue."""
        self._crew.close()
        for listener in self._listeners:
            listener.close()

    def _handle_usr1(self) -> None:
        """The log was moved away. Ourselves first: whoever is started from here on inherits what we have."""
        if self._config.server.log_path is None:
            return
        try:
            log.reopen(self._config.server.log_path)
        except OSError as exc:
            logger.error("The log file cannot be opened again, the old one is kept: %s.", exc.strerror)
            return
        logger.info("SIGUSR1: the log file is opened anew.")
        self._crew.reopen_logs()

    def _handle_usr2(self) -> None:
        logger.info("SIGUSR2: upgrade of the supervisor, from %s.", __version__)
        self._fleet.ask_upgrade()

    def _handle_ttin(self) -> None:
        self._scale(+1)

    def _handle_ttou(self) -> None:
        self._scale(-1)

    def _scale(self, step: int) -> None:
        if self._fleet.current is not None:
            self._fleet.ask_workers(self._fleet.current.workers + step)

    def _handle_chld(self) -> None:
        """Only a reason to wake up: several deaths may be one signal, so `reap` asks the kernel."""

    # -- steps

    def _load(self, action: Load) -> None:
        logger.info("Release %d: loading config and code.", action.release.number)
        self._crew.load(action.release)

    def _unload(self, action: Unload) -> None:
        logger.warning("The zygote of release %d is ended: %s.", action.release.number, action.reason)
        self._crew.unload(action.release)

    def _start(self, action: Start) -> None:
        self._crew.start(action.member)

    def _serve(self, action: Serve) -> None:
        self._crew.serve(action.member)

    def _drain(self, action: Drain) -> None:
        logger.info("%s: told to finish%s.", action.member, f", as {action.reason}" if action.reason else "")
        self._crew.signal(action.member, signal.SIGTERM)

    def _probe(self, action: Probe) -> None:
        self._crew.probe(action.member)

    def _give_up_probe(self, action: GiveUpProbe) -> None:
        seconds = action.member.release.limits.probe.timeout_seconds
        logger.warning("%s has not answered its probe within %g s.", action.member, seconds)
        self._crew.give_up_probe(action.member)

    def _weigh(self, action: Weigh) -> None:
        self._crew.weigh(action.member)

    def _abort(self, action: Abort) -> None:
        logger.error("%s hangs: %s. Its stacks follow.", action.member, action.reason)
        self._crew.signal(action.member, signal.SIGABRT)

    def _kill(self, action: Kill) -> None:
        logger.warning("%s is killed: %s.", action.member, action.reason)
        self._crew.signal(action.member, signal.SIGKILL)

    def _switch(self, action: Switch) -> None:
        logger.info("Release %d is ready: %d workers and the indexer.", action.release.number, action.release.workers)

    def _promote(self, action: Promote) -> None:
        logger.info("Release %d serves.", action.release.number)
        if action.predecessor is not None:
            self._crew.unload(action.predecessor)

    def _abandon(self, action: Abandon) -> None:
        self._crew.unload(action.release)
        if action.release.is_reload:
            reason = action.failure.reason
            logger.error("Reload failed, release %s keeps serving: %s", action.release.previous, reason)
        elif action.failure.code != EXIT_OK:
            self._terminal.say(f"ragagent cannot start: {action.failure.reason}")

    def _finish(self, action: Finish) -> None:
        if action.release.is_reload:
            logger.info("Reload done: only release %d is left.", action.release.number)

    def _rehearse(self, action: Rehearse) -> None:
        self._upgrader.rehearse()

    def _call_off(self, action: CallOff) -> None:
        self._upgrader.call_off(action.reason)

    def _succeed(self, action: Succeed) -> None:
        self._waiters.dismiss("The supervisor was upgraded while you waited; look at 'status'.")
        self._upgrader.succeed()

    def _estate(self) -> Estate:
        listeners = [listener.fileno() for listener in self._listeners]
        crew = self._crew
        return Estate(
            self._config, self._started_at, listeners, self._pidfile, self._fleet, crew.children, crew.zygotes
        )

    def _give_up(self, action: GiveUp) -> None:
        logger.critical("Giving up: %s.", action.reason)
        self._take_no_more()

    def _leave(self, action: Leave) -> None:
        logger.info("Nothing is left to supervise: exit code %d.", action.code)

    # -- control

    def _answer(self, request: Mapping[str, Any], client: Client) -> None:
        command = request.get("command")
        if command not in ("status", "logs"):  # Asked for all the time, by whoever watches.
            logger.info("Control socket: %s.", command)
        if command == "reload":
            self._chronicle.asked(time.monotonic())
        answer = self._commands.answer(request)
        if callable(answer):
            self._waiters.add(client, answer)
        else:
            client.reply(answer)


# What the loop takes in. Blocked before it begins and after it has ended, so that none comes too early or too late.
_HANDLERS: dict[signal.Signals, Callable[[Arbiter], None]] = {
    signal.SIGHUP: Arbiter._handle_hup,
    signal.SIGTERM: Arbiter._handle_stop,
    signal.SIGINT: Arbiter._handle_stop,
    signal.SIGUSR1: Arbiter._handle_usr1,
    signal.SIGUSR2: Arbiter._handle_usr2,
    signal.SIGTTIN: Arbiter._handle_ttin,
    signal.SIGTTOU: Arbiter._handle_ttou,
    signal.SIGCHLD: Arbiter._handle_chld,
}

SIGNALS = frozenset(_HANDLERS)

_CARRIED_OUT: dict[type, Callable[[Arbiter, Any], None]] = {
    Load: Arbiter._load,
    Unload: Arbiter._unload,
    Start: Arbiter._start,
    Serve: Arbiter._serve,
    Drain: Arbiter._drain,
    Probe: Arbiter._probe,
    GiveUpProbe: Arbiter._give_up_probe,
    Weigh: Arbiter._weigh,
    Abort: Arbiter._abort,
    Kill: Arbiter._kill,
    Switch: Arbiter._switch,
    Promote: Arbiter._promote,
    Abandon: Arbiter._abandon,
    Finish: Arbiter._finish,
    Rehearse: Arbiter._rehearse,
    CallOff: Arbiter._call_off,
    Succeed: Arbiter._succeed,
    GiveUp: Arbiter._give_up,
    Leave: Arbiter._leave,
}
