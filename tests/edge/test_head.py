"""Heads as values: what is refused of a request's, what is said of it, and the bytes of a response's."""

from __future__ import annotations

import socket

import pytest

from ragagent.edge.guard import Refusal
from ragagent.edge.head import Headers, address, request_framing, request_scope, response_head

HOST = (b"host", b"x")


@pytest.mark.parametrize(
    ("version", "headers", "body_bytes"),
    [
        ("1.1", [HOST], 0),
        ("1.1", [HOST, (b"content-length", b"12")], 12),
        ("1.1", [HOST, (b"transfer-encoding", b"Chunked")], None),
        ("1.0", [], 0),
    ],
)
def test_framing_is_a_length_or_chunks(version: str, headers: Headers, body_bytes: int | None) -> None:
    assert request_framing(version, headers).body_bytes == body_bytes


@pytest.mark.parametrize(
    ("version", "headers", "status"),
    [
        ("2.0", [HOST], 505),
        ("0.9", [HOST], 505),
        ("1.1", [], 400),
        ("1.1", [HOST, HOST], 400),
        ("1.1", [HOST, (b"transfer-encoding", b"gzip, chunked")], 501),
        ("1.1", [HOST, (b"transfer-encoding", b"gzip"), (b"transfer-encoding", b"chunked")], 400),
        ("1.0", [(b"transfer-encoding", b"chunked")], 400),
    ],
)
def test_what_llhttp_lets_pass_and_the_rfc_does_not_is_refused(version: str, headers: Headers, status: int) -> None:
    with pytest.raises(Refusal) as caught:
        request_framing(version, headers)
    assert caught.value.status == status


@pytest.mark.parametrize(("version", "expects"), [("1.1", True), ("1.0", False)])
def test_only_http_1_1_may_expect_a_continue(version: str, expects: bool) -> None:
    assert request_framing(version, [HOST, (b"expect", b"100-Continue")]).expects_continue is expects


def test_scope_splits_the_target_and_decodes_the_path() -> None:
    scope = request_scope("GET", b"/a%20b%2Fc?d=%20?e", "1.1", [], None, None, {"key": 1})
    assert (scope["path"], scope["raw_path"], scope["query_string"]) == ("/a b/c", b"/a%20b%2Fc", b"d=%20?e")


def test_scope_has_a_state_of_its_own() -> None:
    state = {"key": 1}
    scope = request_scope("GET", b"/", "1.1", [], None, None, state)
    scope["state"]["key"] = 2
    assert state == {"key": 1}


@pytest.mark.parametrize(
    ("family", "name", "expected"),
    [
        (socket.AF_INET, ("127.0.0.1", 80), ("127.0.0.1", 80)),
        (socket.AF_INET6, ("::1", 80, 0, 0), ("::1", 80)),
        (socket.AF_UNIX, "", None),
    ],
)
def test_address_is_host_and_port(family: int, name: object, expected: object) -> None:
    assert address(family, name) == expected


def test_response_head_has_a_phrase_and_a_date() -> None:
    head = response_head(404, [(b"X-Name", b"value")])
    lines = head.split(b"\r\n")
    assert lines[:2] == [b"HTTP/1.1 404 Not Found", b"x-name: value"]
    assert lines[2].startswith(b"date: ")
    assert lines[2].endswith(b" GMT")
    assert lines[3:] == [b"", b""]


def test_status_without_a_name_has_an_empty_phrase() -> None:
    assert response_head(599, []).startswith(b"HTTP/1.1 599 \r\n")


@pytest.mark.parametrize(
    "header", [(b"a", b"b\r\nc: d"), (b"a", b"b\nc"), (b"a", b"b\rc"), (b"a", b"b\0c"), (b"a b", b""), (b"", b"")]
)
def test_header_that_would_be_more_than_one_is_refused(header: tuple[bytes, bytes]) -> None:
    with pytest.raises(ValueError, match="header"):
        response_head(200, [header])
