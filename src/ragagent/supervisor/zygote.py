"""The zygote: a fresh interpreter that loads one release, config and code, and forks its children on request.

Loading it *is* the validation of a reload: what cannot be imported or read fails here, in a process that serves
nobody. Forking costs milliseconds and shares the memory of all that was imported. It starts no thread and no event
loop, and opens no database, index or connection: none of them survives a fork.

Children are forked twice, so that they become children of the supervisor (a subreaper), which then gets their real
exit status and outlives them; a dead zygote takes nobody with it.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import importlib
import json
import logging
import os
import socket
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType

from ragagent.config import Config
from ragagent.config_file import load
from ragagent.errors import EXIT_CANNOT_START, EXIT_CONFIG, EXIT_OK, ConfigError
from ragagent.lifeline import Lifeline, settle_signals
from ragagent.supervisor import facts, log
from ragagent.supervisor.prctl import die_with_parent, name_process

# Before the code is imported: these libraries read them once, and their thread pools do not survive a fork.
_SINGLE_THREADED = {
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",  # Where a build has several after all, those that wait must not spin on our cores.
    "OPENBLAS_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
_ADOPTION_SECONDS = 5.0

logger = logging.getLogger("ragagent.supervisor.zygote")


class Zygote:
    def __init__(self, control: socket.socket, listeners: Sequence[socket.socket], supervisor: int) -> None:
        self._control = control
        self._listeners = listeners
        self._supervisor = supervisor

    def load(self, path: Path | None, names: Mapping[str, str]) -> bool:
        """Load config and code and tell the supervisor; False when either could not be."""
        try:
            self._config = load(path)
            log.configure(self._config.server.log_level)
            log.follow(self._config.server.log_path)
            self._modules = {role: importlib.import_module(name) for role, name in names.items()}
            for module in self._modules.values():
                prepare(module, self._config)
        except ConfigError as exc:
            self._say({"failed": str(exc), "code": EXIT_CONFIG})
            return False
        except BaseException as exc:  # Code under load may raise anything, SystemExit included.
            traceback.print_exc()
            self._say({"failed": reason(exc), "code": EXIT_CANNOT_START})
            return False
        # What is loaded now stays for good: out of the collector's sight its pages stay shared.
        gc.collect()
        gc.freeze()
        self._say({"loaded": dataclasses.asdict(facts.facts_of(self._config))})
        return True

    def run(self) -> int:
        """Fork a child per request, until the supervisor hangs up."""
        while True:
            data, fds, _, _ = socket.recv_fds(self._control, 4096, 1)
            if not data:
                return EXIT_OK
            wanted = json.loads(data)
            with socket.socket(fileno=fds[0]) as end:
                self._fork(wanted["role"], wanted["slot"], end)

    def _fork(self, role: str, slot: int, end: socket.socket) -> None:
        try:
            between = os.fork()
        except OSError as exc:
            Lifeline(end).failed(f"The zygote cannot fork: {exc.strerror}.")
            return
        if between == 0:
            self._fork_again(role, slot, end)
        os.waitpid(between, 0)

    def _fork_again(self, role: str, slot: int, end: socket.socket) -> None:
        """Runs in the process between; it, and the child it leaves behind, end here whatever happens."""
        status = EXIT_CANNOT_START
        try:
            if os.fork() != 0:
                os._exit(EXIT_OK)
            status = self._child(role, slot, end)
        except BaseException:
            traceback.print_exc()
        finally:
            _flush()
            os._exit(status)  # Not sys.exit: what the zygote registered with atexit is not the child's to run.

    def _child(self, role: str, slot: int, end: socket.socket) -> int:
        settle_signals()
        if not _adopted_by(self._supervisor):
            return EXIT_CANNOT_START
        name_process(f"rag-{role}-{slot}" if role == "worker" else f"rag-{role}")
        self._control.close()
        listeners = self._listeners if role == "worker" else self._close_listeners()
        lifeline = Lifeline(end)
        lifeline.starting()
        return live(self._modules[role], self._config, slot, listeners, lifeline)

    def _close_listeners(self) -> Sequence[socket.socket]:
        """The indexer answers nobody, and must never be what keeps a port taken."""
        for listener in self._listeners:
            listener.close()
        return ()

    def _say(self, message: Mapping[str, object]) -> None:
        self._control.send(json.dumps(message).encode())


def prepare(module: ModuleType, config: Config) -> None:
    """Let the module load what all its children shall share, such as a model's weights, if it has such a thing."""
    hook = getattr(module, "prepare", None)
    if hook is not None:
        hook(config)


def live(module: ModuleType, config: Config, slot: int, listeners: Sequence[socket.socket], lifeline: Lifeline) -> int:
    """Run the module's `main` and return the child's exit code; a failure is told to the supervisor first."""
    try:
        return int(module.main(config, slot, listeners, lifeline))
    except ConfigError as exc:
        lifeline.failed(str(exc))
        return EXIT_CONFIG
    except Exception as exc:
        logger.exception("%s %d failed.", module.__name__, slot)
        lifeline.failed(reason(exc))
        return EXIT_CANNOT_START


def reason(exc: BaseException) -> str:
    """Return the error and the last place in user code where it passed, in one line."""
    text = f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__
    frames = [frame for frame in traceback.extract_tb(exc.__traceback__) if "importlib" not in frame.filename]
    place = f" ({frames[-1].filename}:{frames[-1].lineno}: {frames[-1].line})" if frames else ""
    return " ".join((text + place).split())


def _adopted_by(supervisor: int) -> bool:
    """Wait until the process between is gone, then tie our life to the supervisor's; False if it is gone as well."""
    deadline = time.monotonic() + _ADOPTION_SECONDS
    while os.getppid() != supervisor and time.monotonic() < deadline:
        time.sleep(0.0005)
    return die_with_parent(supervisor)


def _flush() -> None:
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            pass


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="ragagent.supervisor.zygote")
    parser.add_argument("--supervisor", type=int, required=True)
    parser.add_argument("--control", type=int, required=True)
    parser.add_argument("--listeners", default="")
    parser.add_argument("--config", type=Path)
    parser.add_argument("--worker-module", required=True)
    parser.add_argument("--indexer-module", required=True)
    return parser.parse_args()


def main() -> int:
    arguments = _arguments()
    settle_signals()
    if not die_with_parent(arguments.supervisor):
        return EXIT_CANNOT_START
    for name, value in _SINGLE_THREADED.items():
        os.environ.setdefault(name, value)
    name_process("rag-zygote")
    control = socket.socket(fileno=arguments.control)
    listeners = [socket.socket(fileno=int(fd)) for fd in arguments.listeners.split(",") if fd]
    for inherited in (control, *listeners):
        inherited.set_inheritable(False)
    zygote = Zygote(control, listeners, arguments.supervisor)
    names = {"worker": arguments.worker_module, "indexer": arguments.indexer_module}
    return zygote.run() if zygote.load(arguments.config, names) else EXIT_CANNOT_START


if __name__ == "__main__":
    sys.exit(main())
