from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from ragagent.config import keys

Run = Callable[..., Result]


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    path = tmp_path / "ragagent.toml"
    path.write_text(
        """
        [server]
        workers = 3
        bind = "127.0.0.1:9000"
        [redis]
        url = "redis://user:of-redis@localhost:6379/0?password=of-query"
        [generator]
        provider = "openai"
        base_url = "http://127.0.0.1:1/v1"
        api_key = "of-the-model"
        [profile.support]
        stores = ["手册"]
        """
    )
    return path


def test_a_valid_configuration_passes(run: Run, toml: Path) -> None:
    assert run("config", "check").exit_code == 0
    result = run("config", "check", "--config", toml, "--json")
    assert (result.exit_code, json.loads(result.stdout)) == (0, {"ok": True})


def test_an_unknown_key_fails_with_the_nearest_one(run: Run, tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("[server]\nwokers = 3\n")
    result = run("config", "check", "--config", tmp_path / "bad.toml")
    assert result.exit_code == 1
    assert result.stderr == "Error: Unknown config key 'server.wokers'; did you mean 'server.workers'?\n"


def test_a_missing_file_fails(run: Run, tmp_path: Path) -> None:
    assert run("config", "check", "--config", tmp_path / "none.toml").exit_code == 1


def test_each_value_says_where_it_comes_from(run: Run, toml: Path) -> None:
    env = {"RAGAGENT_SERVER__BIND": "127.0.0.1:9001", "OTEL_SERVICE_NAME": "docs", "RAGAGENT_TELEMETRY__ENDPOINT": ""}
    shown = json.loads(run("config", "show", "--config", toml, "--json", **env).stdout)
    assert shown["server.bind"] == {"value": "127.0.0.1:9001", "source": "RAGAGENT_SERVER__BIND", "reload": "restart"}
    assert shown["server.workers"] == {"value": 3, "source": str(toml), "reload": "rolls"}
    assert shown["server.hang_seconds"] == {"value": 10.0, "source": "default", "reload": "hot"}
    assert shown["telemetry.service_name"]["source"] == "OTEL_SERVICE_NAME"
    assert shown["profile.support.stores"] == {"value": ["手册"], "source": str(toml), "reload": "rolls"}


def test_our_variable_wins_over_the_standard_one(run: Run) -> None:
    env = {"REDIS_URL": "redis://standard", "RAGAGENT_REDIS__URL": "redis://ours"}
    shown = json.loads(run("config", "show", "--json", **env).stdout)
    assert shown["redis.url"]["value"] == "redis://ours"
    assert shown["redis.url"]["source"] == "RAGAGENT_REDIS__URL"


def test_every_key_is_shown(run: Run) -> None:
    shown = json.loads(run("config", "show", "--json").stdout)
    expected = {f"{section}.{key}".replace("profile.", "profile.ragagent.") for section, key, _ in keys()}
    assert set(shown) == expected


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_secrets_are_never_shown(run: Run, toml: Path, form: list[str]) -> None:
    told = run("config", "show", "--config", toml, *form, OPENAI_API_KEY="of-openai").stdout
    assert "[redacted]" in told
    for secret in ("of-redis", "of-query", "of-the-model", "of-openai"):
        assert secret not in told
    assert "localhost:6379" in told
