"""A server in another process with ``--check``: single writes raise the refusal at the client."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from command_line import invoke
from server_process import ServerProcess

from treehub_level import Refused, TransportError
from treehub_level.http.blocking import RemoteServer

RULES = """
from treehub_level import MISSING, Refused

def check(call, changes, read):
    for change in changes:
        if change.after == "fault":
            raise ZeroDivisionError
        if change.after is not MISSING and not isinstance(change.after, int):
            raise Refused(f"{change.key}: only numbers, please 😀", keys=[change.key])

async def later(call, changes, read):
    pass

def of_two(call, changes):
    pass

constant = 1
"""

#: Modules that cannot be imported, by their names.
BROKEN = {"no_syntax": "def check(:", "raises": "1 / 0", "exits": "raise SystemExit(3)"}


def test_a_refused_write_raises_the_reason_and_the_server_goes_on(tmp_path: Path) -> None:
    (tmp_path / "house_rules.py").write_text(RULES, encoding="utf-8")
    prelude = f"import os; os.chdir({str(tmp_path)!r}); "
    server = ServerProcess(tmp_path / "stores", "--check", "house_rules:check", prelude=prelude)
    try:
        with RemoteServer(server.url) as remote:
            remote.put("a", 1)
            for write in (lambda: remote.put("a", "text"), lambda: remote.change(1, [["b", 1], ["a", "text"]])):
                with pytest.raises(Refused) as raised:
                    write()
                assert (raised.value.reason, raised.value.keys) == ("a: only numbers, please 😀", ["a"])
            with pytest.raises(TransportError, match="the check of this server failed") as failed:
                remote.put("a", "fault")
            assert failed.value.status == 500
            assert remote.get("a") == 1
            remote.delete("a")
            assert remote.info()["cid"] == 2
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("reference", "fault"),
    [
        ("rules2", "is not package.module:function"),
        (":check", "is not package.module:function"),
        ("no_such_module:check", "No module named"),
        (".rules2:check", "cannot be imported"),
        ("rules2:missing", "has no attribute"),
        ("rules2:constant", "check is a function"),
        ("rules2:later", "not an async one"),
        ("rules2:of_two", "too many positional arguments"),
        ("treehub_level.checks:json_schema", "too many positional arguments"),
        ("no_syntax:check", "SyntaxError"),
        ("raises:check", "ZeroDivisionError"),
        ("exits:check", "SystemExit"),
    ],
)
def test_a_check_that_cannot_be_called_is_a_usage_error_that_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reference: str, fault: str
) -> None:
    (tmp_path / "rules2.py").write_text(RULES, encoding="utf-8")
    for name, text in BROKEN.items():
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    result = invoke("serve", str(tmp_path / "stores"), "--check", reference, env={"COLUMNS": "400"})
    assert result.exit_code == 2, result.output
    assert "--check" in result.output
    assert fault in result.output
    assert not (tmp_path / "stores").exists()
