from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from fake_supervisor import FakeSupervisor
from ragagent.cli.control import asked, done
from ragagent.config import Data
from ragagent.errors import RagagentError, Unavailable


def test_arguments_go_with_the_command_and_the_reply_comes_back(supervisor: FakeSupervisor) -> None:
    data = Data(dir=str(supervisor({"scale": {"ok": True, "workers": 3}})))
    assert asked(data, "scale", workers=3) == {"ok": True, "workers": 3}
    assert supervisor.requests == [{"command": "scale", "workers": 3}]


def test_what_was_not_done_is_an_error_with_the_reason(supervisor: FakeSupervisor) -> None:
    data = Data(dir=str(supervisor({"scale": {"ok": False, "reason": "A reload is under way."}})))
    assert asked(data, "scale")["ok"] is False
    with pytest.raises(RagagentError, match="A reload is under way"):
        done(data, "scale")


def test_nobody_there_is_unavailable_and_says_how_to_start(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="ragagent serve"):
        asked(Data(dir=str(tmp_path)), "status")


def test_half_a_reply_is_unavailable(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "control.sock"))
        listener.listen()

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b'{"ok": tr')

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(Unavailable, match="amid its answer"):
            asked(Data(dir=str(tmp_path)), "status")
        thread.join(5)
