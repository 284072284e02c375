"""The OpenAPI document: valid, complete, and true of a running server."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from example_counts import examples
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import sampled_from

from treehub_level import Level, blocking
from treehub_level.http import Tokens
from treehub_level.http.server import refusals
from treehub_level.http.server.openapi import openapi_document
from treehub_level.http.server.operations import OPERATIONS, Operation
from treehub_level.http.server.permissions import AuthorizedRoute, Permission
from treehub_level.http.server.routes import ROUTES, health

from .running import running

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis needs Python 3.11")
pytest.importorskip("openapi_spec_validator")

from openapi_spec_validator import validate  # noqa: E402
from schemathesis.checks import not_a_server_error  # noqa: E402
from schemathesis.core.failures import FailureGroup  # noqa: E402
from schemathesis.specs.openapi.checks import (  # noqa: E402
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

pytestmark = pytest.mark.once

DOCUMENT = openapi_document(ROUTES, OPERATIONS)
#: A watch has no end: `test_watch_answers_as_described` is about it.
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT).exclude(path_regex="/watch$")
OPERATIONS_OF_SCHEMA = [result.ok() for result in SCHEMA.get_all_operations()]
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    unsupported_method,
]
#: The operations that take a database away. They have one of their own.
MOVING = ("DELETE /v1/{db}", "POST /v1/{db}/rename", "POST /v1/{db}/undrop")
SPARE = "spare"
PAGES = Path(__file__).parents[3] / "docs" / "http.md"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, str]]]:
    """The URL of a server with some data, and the headers of an operator."""
    folder = tmp_path_factory.mktemp("server")
    for name in ("notes", SPARE):
        with blocking.Level(folder / "stores" / name, mode=Level.SERVER) as level:
            level.batch([{"type": "put", "key": f"{i}", "value": {"n": i}} for i in range(20)])
    tokens = Tokens(folder / "tokens.json")
    headers = {"Authorization": f"Bearer {tokens.add(databases=['*'], write=True, operator=True)}"}
    with running(folder, "--tokens", str(tokens.path), "--backup-to", str(folder / "backups")) as process:
        yield process.url, headers


def test_the_document_is_valid() -> None:
    validate(DOCUMENT)
    with pytest.raises(Exception, match=r"is not valid|is a required property"):  # control
        validate({**DOCUMENT, "info": {}})


def test_every_route_is_described_and_no_other() -> None:
    """Describe a new route in `operations.OPERATIONS`: its requests and its answers."""
    assert {re.sub(r":\w+", "", route.label) for route in ROUTES} == {*OPERATIONS}


def test_a_route_without_an_operation_has_its_path_and_refusals_all_the_same() -> None:
    route = AuthorizedRoute("POST", "/v1/{db}/new", health, permission=Permission.WRITE)
    document = openapi_document([route], {})
    validate(document)
    found = document["paths"]["/v1/{db}/new"]["post"]
    assert found["parameters"][0]["name"] == "db"
    assert {"200", "401", "404", "503"} <= {*found["responses"]}


def test_every_code_of_the_manual_is_in_the_document() -> None:
    table = PAGES.read_text().partition("\n## Refusals\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (\d{3}) \| (.*?) \|", table, re.MULTILINE)
    manual = {(status, code) for status, codes in rows for code in re.findall(r"LEVEL_\w+", codes)}
    described = {
        (status, code)
        for methods in DOCUMENT["paths"].values()
        for operation in methods.values()
        for status, response in operation["responses"].items()
        for code in re.findall(r"LEVEL_\w+", repr(response))
    }
    nowhere = {("404", "LEVEL_ROUTE_NOT_FOUND"), ("405", "LEVEL_METHOD")}  # of paths that are not listed
    assert manual - described == nowhere
    assert all(code in DOCUMENT["info"]["description"] for _, code in nowhere)


def test_the_server_serves_the_document_without_a_token(server: tuple[str, dict[str, str]]) -> None:
    url, _ = server
    assert httpx.get(f"{url}/openapi.json").json() == DOCUMENT


def test_a_mounted_application_names_its_path() -> None:
    assert openapi_document(ROUTES, OPERATIONS, root_path="/sync")["servers"] == [{"url": "/sync"}]


@pytest.mark.parametrize("operation", OPERATIONS_OF_SCHEMA, ids=lambda operation: operation.label)
def test_the_running_server_answers_as_described(operation: Any, server: tuple[str, dict[str, str]]) -> None:
    url, headers = server

    @settings(max_examples=examples(5), suppress_health_check=[*HealthCheck])
    @given(case=operation.as_strategy(), exists=sampled_from([True, True, False]))
    def answers(case: Any, exists: bool) -> None:
        if "wait" in case.query:
            case.query["wait"] = 0
        if exists and "db" in case.path_parameters:
            case.path_parameters["db"] = SPARE if operation.label in MOVING else "notes"
        case.call_and_validate(base_url=url, headers=headers, checks=CHECKS)

    answers()


def test_an_answer_that_is_not_described_is_found(server: tuple[str, dict[str, str]]) -> None:
    """Control: without its refusals, the description of a route is not true."""
    url, _ = server
    entry = "GET /v1/{db}/entries/{key}"
    told = openapi_document(ROUTES, {**OPERATIONS, entry: Operation(answers={200: {}})})
    del told["paths"]["/v1/{db}/entries/{key}"]["get"]["responses"]["401"]
    case = schemathesis.openapi.from_dict(told)["/v1/{db}/entries/{key}"]["GET"].Case(
        path_parameters={"db": "notes", "key": "absent"}
    )
    with pytest.raises(FailureGroup) as caught:
        case.call_and_validate(base_url=url, checks=CHECKS)
    assert "Undocumented status code" in repr(caught.value.exceptions)


def test_watch_answers_as_described(server: tuple[str, dict[str, str]]) -> None:
    url, headers = server
    responses = DOCUMENT["paths"]["/v1/{db}/watch"]["get"]["responses"]
    with httpx.stream("GET", f"{url}/v1/notes/watch?since=0", headers=headers) as response:
        assert response.headers["content-type"].partition(";")[0] in responses["200"]["content"]
    for query, status in (("since=x", 400), ("since=99999", 409)):
        refused = httpx.get(f"{url}/v1/notes/watch?{query}", headers=headers)
        assert refused.status_code == status
        codes = responses[str(status)]["content"]["application/json"]["schema"]["properties"]["code"]["enum"]
        assert refused.json()["code"] in codes


def test_every_refusal_of_an_error_is_in_the_document() -> None:
    """Each status and code that `refusal_for` can make of an error of the library."""
    from treehub_level import errors

    text = repr(DOCUMENT)
    for error_class in vars(errors).values():
        if not (isinstance(error_class, type) and issubclass(error_class, errors.LevelError)):
            continue
        error = error_class.__new__(error_class)
        for attribute in ("expected", "got", "reason", "keys", "status"):
            if not hasattr(error, attribute):
                setattr(error, attribute, None)
        refusal = refusals.refusal_for(error)
        if refusal.status != 500:
            assert refusal.code in text, (refusal.status, refusal.code)
