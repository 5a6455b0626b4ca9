"""The floors of the package, read from its imports: what a reviewer would have to remember is held here."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import ragagent

ROOT = Path(ragagent.__file__).parent
TESTS = Path(__file__).parent

GROUND = {"errors", "types", "text", "config", "config_file", "names", "telemetry", "lifeline"}
ADAPTERS = {"store", "index", "remote", "cache", "limits", "providers", "edge"}
# What each part may import besides itself and the package's own version.
MAY_IMPORT = {
    **dict.fromkeys(GROUND, GROUND),
    **dict.fromkeys(ADAPTERS, GROUND),
    # What both keep in Redis they reach through the one connection to it.
    "cache": GROUND | {"remote"},
    "limits": GROUND | {"remote"},
    "engine": GROUND | (ADAPTERS - {"edge"}),
    "api": GROUND | ADAPTERS | {"engine"},
    "worker": GROUND | ADAPTERS | {"engine", "api"},
    "indexer": GROUND | ADAPTERS | {"engine"},
    "supervisor": GROUND,
    "cli": GROUND | ADAPTERS | {"engine", "supervisor"},
}
# A command speaks to the supervisor's socket or goes through HTTP. Those that work on the data directory or on Redis
# itself, whether a server runs or not, stand here with what they open.
OF_DATA_DIRECTORY = {
    "ragagent.cli.keys": {"store"},
    "ragagent.cli.backup": {"engine"},
    "ragagent.cli.restore": {"engine"},
    "ragagent.cli.export": {"engine"},
    "ragagent.cli.import_": {"engine"},
    "ragagent.cli.index": {"store", "index", "engine"},
    "ragagent.cli.queries": {"store", "engine", "providers"},
    "ragagent.cli.edition": {"store", "index", "engine"},
    "ragagent.cli.orders": {"store"},
    "ragagent.cli.database": {"store"},
    "ragagent.cli.cache": {"cache", "store"},
    "ragagent.cli.census": {"cache", "remote"},
}
OF_SUPERVISOR_FOR_CLI = {"ragagent.supervisor.control", "ragagent.supervisor.status"}

HEAVY = (
    "numpy",
    "faiss",
    "tantivy",
    "redis",
    "aiocache",
    "starlette",
    "pydantic",
    "hypercorn",
    "httptools",
    "anyio",
    "opentelemetry",
)
# `report` sends the supervisor's own telemetry, from a process of its own.
SUPERVISOR_BEYOND_STDLIB = {"ragagent.supervisor.report"}

# Modules without a test file of their own, each with what holds them instead.
UNMIRRORED = {
    "ragagent": "the version, read by the build",
    "ragagent.config": "the sections, all of which test_config_file loads",
    "ragagent.types": "values without behaviour, used by every test",
    "ragagent.worker": "wires; tests/scenarios start it whole",
    "ragagent.indexer": "wires; tests/scenarios start it whole",
    "ragagent.engine.indexing.parsing.parsed": "values; every parser's test reads them",
    "ragagent.engine.retrieval.query": "values without behaviour",
    "ragagent.engine.retrieval.search": "what test_retrieve asks",
    "ragagent.engine.publishing.watching": "what there is to do, under test_publishing and test_editions",
    "ragagent.store.cutover": "the switch, in tests/store/test_editions",
    "ragagent.store.edition_vectors": "the cursor, in tests/store/test_editions and under test_reembed",
    "ragagent.engine.publishing.open_index": "the slices under test_publishing and test_editions",
    "ragagent.engine.publishing.cleaning": "what goes, under test_publishing and test_editions",
    "ragagent.cli.database": "what test_keys and test_index open",
    "ragagent.engine.publishing.checking_child": "a process; test_checking drives it",
    "ragagent.cli.orders": "what test_index orders",
    "ragagent.cli.queries": "the files that test_index compares by",
    "ragagent.cli.edition": "what test_index shows and waits for",
    "ragagent.index.held": "the counting under test_searchers and test_generation",
    "ragagent.edge.lanes": "values without behaviour",
    "ragagent.engine.indexing.parsing.child": "a process; test_process drives it",
    "ragagent.engine.indexing.parsing.frames": "the wire between test_process and its child",
    "ragagent.index.delta": "the rows under test_writer and test_crash",
    "ragagent.index.dense": "the dense leg under test_searcher",
    "ragagent.index.directory": "the files under test_writer and test_files",
    "ragagent.index.lexical_files": "the bytes under test_verify",
    "ragagent.index.opening": "what test_writer opens",
    "ragagent.index.rows": "the rows under test_writer",
    "ragagent.index.positions": "the map under test_writer and test_model",
    "ragagent.providers.endpoint": "the connection under test_openai",
    "ragagent.remote.backend": "the commands under test_connection and test_topology",
    "ragagent.supervisor.actions": "values without behaviour",
    "ragagent.supervisor.member": "the table under test_fleet and test_settle",
    "ragagent.supervisor.release": "values; every test of the fleet reads them",
    "ragagent.api.answers": "what test_chat and test_responses read",
    "ragagent.api.asking": "what test_chat and test_responses ask for",
    "ragagent.api.event_stream": "the streams that test_chat and test_responses leave",
    "ragagent.api.response_draft": "the object that test_responses and test_response_events read",
    "ragagent.api.response_input": "the messages that test_responses says and test_stored_responses lists",
    "ragagent.api.schemas.responses": "the fields, in test_body; what they ask for in test_responses",
    "ragagent.api.services": "what test_app wires",
    "ragagent.api.schemas.asking": "the fields, in test_body; what they ask for in test_chat",
    "ragagent.api.schemas.embeddings": "the fields, in test_body",
    "ragagent.api.schemas.cache": "what test_cache purges",
    "ragagent.api.schemas.fields": "the types of fields, in test_body",
    "ragagent.cache.fetched": "values without behaviour, read by test_tiered and test_computing",
    "ragagent.cache.tiers": "what test_tiered and test_computing look into",
    "ragagent.providers.base": "two protocols; every provider's test speaks them",
}


@cache
def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    return {dotted(path): path for path in sorted(ROOT.rglob("*.py"))}


def dotted(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imported(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    """Yield what the statement names: `from a import b` is `a.b` where that is a module of ours, else `a`."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
        return
    assert node.level == 0, "imports are absolute"
    assert node.module is not None
    for alias in node.names:
        inner = f"{node.module}.{alias.name}"
        yield inner if inner in modules() else node.module


@cache
def imports(name: str) -> frozenset[str]:
    found = (node for node in ast.walk(tree(modules()[name])) if isinstance(node, ast.Import | ast.ImportFrom))
    return frozenset(target for node in found for target in imported(node))


def part(name: str) -> str:
    """Return the floor's unit that a module belongs to: a folder, or a file of the ground."""
    return f"{name}.".split(".")[1]


def ours(name: str) -> bool:
    return name == "ragagent" or name.startswith("ragagent.")


@pytest.mark.parametrize("name", modules())
def test_imports_point_down_and_never_across(name: str) -> None:
    if name == "ragagent":
        assert not imports(name)
        return
    assert part(name) in MAY_IMPORT, f"{name} stands on no floor: give it one here and in the design"
    for target in filter(ours, imports(name)):
        allowed = target == "ragagent" or part(target) == part(name) or part(target) in MAY_IMPORT[part(name)]
        assert allowed, f"{name} imports {target}"


@pytest.mark.parametrize("name", modules())
def test_no_import_hides_in_a_function(name: str) -> None:
    functions = (n for n in ast.walk(tree(modules()[name])) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))
    hidden = [
        node.lineno
        for function in functions
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    assert not hidden, f"{name} imports inside a function, in line {hidden}"


def test_modules_import_each_other_without_a_cycle() -> None:
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail[trail.index(name) :], name))
        if name not in done:
            for target in sorted(t for t in imports(name) if t in modules() and t != name):
                visit(target, (*trail, name))
            done.add(name)

    for name in modules():
        visit(name, ())


def test_cli_knows_only_the_supervisors_socket() -> None:
    for name in (name for name in modules() if part(name) == "cli"):
        of_supervisor = {target for target in imports(name) if part(target) == "supervisor" and ours(target)}
        assert of_supervisor <= OF_SUPERVISOR_FOR_CLI, name


def test_few_commands_open_the_data_directory() -> None:
    for name in (name for name in modules() if part(name) == "cli"):
        opened = {part(target) for target in imports(name) if ours(target)} & (ADAPTERS | {"engine"})
        assert opened == OF_DATA_DIRECTORY.get(name, set()), name


def test_supervisor_rests_on_the_standard_library_and_the_ground() -> None:
    for name in (name for name in modules() if part(name) == "supervisor" and name not in SUPERVISOR_BEYOND_STDLIB):
        foreign = {target for target in imports(name) if not ours(target)}
        assert {target.partition(".")[0] for target in foreign} <= sys.stdlib_module_names, name


def test_supervisor_loads_nothing_heavy() -> None:
    code = f"import sys, ragagent.supervisor.arbiter; print([name for name in {HEAVY!r} if name in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert loaded.stdout.strip() == "[]"


def test_package_files_are_empty() -> None:
    assert [str(p) for p in ROOT.rglob("__init__.py") if p.parent != ROOT and p.stat().st_size] == []


def test_every_module_has_a_test_file_or_a_reason() -> None:
    expected = {name: mirror(path) for name, path in modules().items() if path.name != "__init__.py"}
    bare = {name for name, path in expected.items() if not path.exists()}
    assert bare - set(UNMIRRORED) == set(), "write these tests, or say here why there are none"


def test_reasons_for_missing_tests_are_still_needed() -> None:
    stale = {name for name in UNMIRRORED if name not in modules() or mirror(modules()[name]).exists()}
    assert stale == set()


def mirror(path: Path) -> Path:
    relative = path.relative_to(ROOT)
    return TESTS / relative.parent / f"test_{relative.name.removeprefix('__')}".replace("__.py", ".py")
