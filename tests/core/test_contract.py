"""Both cores follow their contract, the stub ``_core_c.pyi``.

``stubtest`` compares the compiled core with the stub as well.
"""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from typing import Any

import pytest

import treehub_level._core
import treehub_level._core_py

pytestmark = pytest.mark.once

STUB = ast.parse(Path(treehub_level._core.__file__).with_name("_core_c.pyi").read_text(encoding="utf-8"))


def arguments_of(function: ast.FunctionDef) -> list[tuple[str, bool]]:
    """The arguments of a function of the stub: each name, and True if it is optional."""
    positional = function.args.args
    required = len(positional) - len(function.args.defaults)
    return [(argument.arg, index >= required) for index, argument in enumerate(positional)] + [
        (argument.arg, default is not None)
        for argument, default in zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True)
    ]


def signature_of(function: Any) -> list[tuple[str, bool]]:
    """The arguments of a function object, as in `arguments_of`."""
    parameters = inspect.signature(function).parameters.values()
    return [(parameter.name, parameter.default is not parameter.empty) for parameter in parameters]


FUNCTIONS = {node.name: node for node in STUB.body if isinstance(node, ast.FunctionDef)}
CLASSES = {node.name: node for node in STUB.body if isinstance(node, ast.ClassDef)}
CONSTANTS = [
    node.target.id for node in STUB.body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
]
METHODS = [
    (owner, method)
    for owner, node in CLASSES.items()
    for method in node.body
    if isinstance(method, ast.FunctionDef) and not method.decorator_list
]


def test_the_contract_the_pure_core_and_the_selection_list_the_same_names() -> None:
    contract = sorted([*FUNCTIONS, *CLASSES, *CONSTANTS])
    assert sorted(treehub_level._core_py.__all__) == contract
    assert sorted(treehub_level._core.__all__) == sorted(["CORE", *contract])


def test_both_cores_offer_every_name(core: Any) -> None:
    for name in [*FUNCTIONS, *CLASSES, *CONSTANTS]:
        assert hasattr(core, name)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_take_the_arguments_of_the_contract(core: Any, name: str) -> None:
    assert signature_of(getattr(core, name)) == arguments_of(FUNCTIONS[name])


@pytest.mark.parametrize(("owner", "method"), METHODS, ids=lambda part: getattr(part, "name", part))
def test_methods_take_the_arguments_of_the_contract(pure: Any, owner: str, method: ast.FunctionDef) -> None:
    name = "__init__" if method.name == "__new__" else method.name
    assert signature_of(getattr(getattr(pure, owner), name))[1:] == arguments_of(method)[1:]


def test_the_limits_are_those_of_the_protocol(core: Any) -> None:
    assert (core.MAX_CID, core.MAX_KEY_BYTES, core.MAX_VALUE_BYTES, core.MAX_DEPTH) == (2**53 - 1, 1024, 2**22, 64)
