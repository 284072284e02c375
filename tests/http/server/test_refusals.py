"""`RefusedError`: an error of the package, and the content of an HTTP error response."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from treehub_level import LevelError
from treehub_level.http import Hub
from treehub_level.http.server.refusals import RefusedError

pytestmark = pytest.mark.once


async def test_a_refusal_of_a_hub_is_a_level_error_with_the_code_of_the_refusal() -> None:
    async with Hub() as hub:
        with pytest.raises(LevelError) as caught:
            async with hub.use("absent"):
                pass
    assert isinstance(caught.value, RefusedError)
    assert (caught.value.status, caught.value.code) == (404, "LEVEL_DATABASE_NOT_FOUND")


@pytest.mark.parametrize("repeat", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))], ids=["copy", "pickle"])
def test_a_refusal_can_be_sent_to_another_process(repeat: Callable[[RefusedError], Any]) -> None:
    error = repeat(RefusedError(409, "LEVEL_X", "no", headers={"retry-after": "1"}, details={"got": 2}))
    assert type(error) is RefusedError
    assert (error.status, error.code, str(error)) == (409, "LEVEL_X", "no")
    assert (error.headers, error.body()) == ({"retry-after": "1"}, {"code": "LEVEL_X", "message": "no", "got": 2})


def test_refusals_limits_and_tokens_need_no_web_framework() -> None:
    code = (
        "import sys\n"
        "from treehub_level.http.server.limits import Limits\n"
        "from treehub_level.http.server.refusals import RefusedError\n"
        "from treehub_level.http.server.tokens import Token\n"
        "print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"starlette", "uvicorn", "prometheus_client"} & {*done.stdout.split()}
