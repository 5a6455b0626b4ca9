"""API keys: who may come in, and what each may see."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

import servers


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Running]:
    directory = tmp_path_factory.mktemp("locked")
    with servers.server(directory, RAGAGENT_AUTH__REQUIRED="always") as running:
        yield running


def keys(running: servers.Running, *arguments: str) -> dict[str, str]:
    """Run `ragagent keys ...` as the operator of the machine does."""
    command = [sys.executable, "-m", "ragagent.cli.main", "keys", *arguments, "--json"]
    env = servers.environment(running.data_dir, 1, {})
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    found: dict[str, str] = json.loads(done.stdout)
    return found


def _client(running: servers.Running, token: str) -> openai.OpenAI:
    return running.openai(api_key=token, max_retries=0)


def test_without_a_key_there_is_only_health(locked: servers.Running) -> None:
    with locked.http() as http:
        assert http.get("/healthz").status_code == 200
        assert http.get("/readyz").status_code == 200
        refused = http.get("/v1/models")
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"] == "Bearer"
    assert refused.json()["error"]["code"] == "invalid_api_key"


@pytest.mark.parametrize("token", ["rag_", "rag_x_y", "rag_0123456789ab_wrong", "sk-other", "rag_é_\u4e2d"])
def test_a_wrong_key_is_refused(locked: servers.Running, token: str) -> None:
    with locked.http() as http:
        reply = http.get("/v1/models", headers=[(b"authorization", f"Bearer {token}".encode())])
    assert reply.status_code == 401, reply.text


def test_a_revoked_key_is_refused_within_seconds(locked: servers.Running) -> None:
    created = keys(locked, "create", "short-lived")
    client = _client(locked, created["token"])
    assert client.models.list().data
    keys(locked, "revoke", created["id"])
    time.sleep(1.1)  # What every worker may remember of a key.
    for _ in range(6):
        with pytest.raises(openai.AuthenticationError):
            _client(locked, created["token"]).models.list()


def test_a_key_that_is_bound_to_a_store_sees_nothing_else(locked: servers.Running) -> None:
    owner = _client(locked, keys(locked, "create", "owner")["token"])
    mine, theirs = owner.vector_stores.create(name="mine"), owner.vector_stores.create(name="theirs")
    secret = owner.vector_stores.files.upload_and_poll(
        vector_store_id=theirs.id, file=("secret.txt", b"The vault code is 4711.")
    )
    bound = _client(locked, keys(locked, "create", "bound", "--store", "mine")["token"])

    assert [store.id for store in bound.vector_stores.list()] == [mine.id]
    assert secret.id not in [file.id for file in bound.files.list()]
    for attempt in (
        lambda: bound.vector_stores.retrieve(theirs.id),
        lambda: bound.vector_stores.search(theirs.id, query="vault"),
        lambda: bound.files.content(secret.id),
        lambda: bound.files.delete(secret.id),
        lambda: bound.vector_stores.files.create(mine.id, file_id=secret.id),
    ):
        with pytest.raises(openai.NotFoundError):
            attempt()
    with pytest.raises(openai.PermissionDeniedError):
        bound.vector_stores.create(name="more")
    answer = bound.chat.completions.create(
        model="ragagent", messages=[{"role": "user", "content": "What is the vault code?"}]
    )
    assert "4711" not in (answer.choices[0].message.content or "")
    uploaded = bound.vector_stores.files.upload_and_poll(
        vector_store_id=mine.id, file=("own.txt", b"The garden gate is green.")
    )
    assert uploaded.status == "completed"
    assert [file.id for file in bound.files.list()] == [uploaded.id]


def test_tenants_do_not_meet(locked: servers.Running) -> None:
    one = _client(locked, keys(locked, "create", "one", "--tenant", "one")["token"])
    two = _client(locked, keys(locked, "create", "two", "--tenant", "two")["token"])
    store = one.vector_stores.create(name="shared name")
    file = one.vector_stores.files.upload_and_poll(vector_store_id=store.id, file=("a.txt", b"Tenant one's text."))
    assert two.vector_stores.list().data == []
    for attempt in (lambda: two.vector_stores.retrieve(store.id), lambda: two.files.retrieve(file.id)):
        with pytest.raises(openai.NotFoundError):
            attempt()


def test_no_key_stands_on_disk(locked: servers.Running) -> None:
    token = keys(locked, "create", "hidden")["token"]
    for path in locked.data_dir.rglob("*"):
        if path.is_file():
            assert token.encode() not in path.read_bytes(), path
    assert (locked.data_dir / "pepper").stat().st_mode & 0o777 == 0o600


def test_a_public_address_is_refused_without_keys(tmp_path: Path) -> None:
    env = servers.environment(tmp_path / "data", 1, {"RAGAGENT_SERVER__BIND": f"0.0.0.0:{servers.free_port()}"})
    command = [sys.executable, "-m", "ragagent.supervisor"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "ragagent keys create" in done.stderr
