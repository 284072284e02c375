"""The token file: its content, its permissions, and changes while a server runs."""

from __future__ import annotations

import json
import os
import stat
import time
from pathlib import Path
from typing import Any

import pytest
from served import Served

from treehub_level import StorageError
from treehub_level.engine.access import Access
from treehub_level.http import Tokens

pytestmark = pytest.mark.once


@pytest.fixture
def tokens(tmp_path: Path) -> Tokens:
    """Tokens whose file does not exist yet."""
    return Tokens(tmp_path / "tokens")


def test_a_token_is_found_by_its_secret_only(tokens: Tokens) -> None:
    made = tokens.add(databases=["notes"], write=True, name="alice", prefix="mine/")
    id, _, secret = made.partition(".")
    token = tokens.find(made)
    assert token is not None
    assert (token.id, token.access) == (id, Access("alice", (b"mine/",), True))
    for wrong in (
        id,
        f"{id}.",
        f"{id}.{secret[:-1]}",
        f"{id}.{secret}x",
        f".{secret}",
        secret,
        "",
        f"{id}.{token.digest}",
        "\udcff.x",
    ):
        assert tokens.find(wrong) is None


def test_tokens_are_unique_and_secrets_have_256_bits(tokens: Tokens) -> None:
    made = [tokens.add(databases=["*"]).partition(".") for _ in range(20)]
    assert len({id for id, _, _ in made}) == len({secret for _, _, secret in made}) == 20
    assert all(len(secret) >= 256 / 6 for _, _, secret in made)


def test_the_file_holds_no_secret_and_is_for_its_owner_only(tokens: Tokens) -> None:
    secret = tokens.add(databases=["*"]).partition(".")[2]
    assert secret.encode() not in Path(tokens.path).read_bytes()
    assert stat.S_IMODE(os.stat(tokens.path).st_mode) == 0o600
    assert [path.name for path in Path(tokens.path).parent.iterdir()] == ["tokens"]


def test_a_token_is_read_only_by_default(tokens: Tokens) -> None:
    token = tokens.find(tokens.add(databases=["notes"]))
    assert token is not None
    assert (token.write, token.covers("notes"), token.covers("other")) == (False, True, False)
    assert token.name == token.id


def test_only_a_token_made_for_an_operator_is_one(tokens: Tokens) -> None:
    made = [tokens.add(databases=["*"], write=True), tokens.add(databases=["notes"], operator=True)]
    found = [tokens.find(credentials) for credentials in made]
    assert [token and token.operator for token in found] == [False, True]
    stored = json.loads(Path(tokens.path).read_bytes())["tokens"]
    assert "operator" not in stored[0], "versions without operators read the token of a client"


def test_a_token_expires(tokens: Tokens) -> None:
    assert tokens.find(tokens.add(databases=["*"], expires=time.time() + 60)) is not None
    assert tokens.find(tokens.add(databases=["*"], expires=time.time() - 1)) is None


@pytest.mark.parametrize("expires", [-1.0, 1e300, float("inf"), float("nan")])
def test_an_invalid_expiry_time_is_refused(tokens: Tokens, expires: float) -> None:
    with pytest.raises(ValueError, match="a token cannot expire at"):
        tokens.add(databases=["*"], expires=expires)


def test_a_change_to_the_file_takes_effect_at_once(tokens: Tokens) -> None:
    made = tokens.add(databases=["*"])
    other = Tokens(tokens.path)
    assert other.find(made) is not None
    assert tokens.revoke(made.partition(".")[0])
    assert other.find(made) is None
    assert not tokens.revoke("absent")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        b'{"version": 2, "tokens": []}',
        b'{"version": 1, "tokens": [{}]}',
        b'{"version": 1, "tokens": {"a": 1}}',
        b'{"version": 1, "tokens": 1}',
        b'{"version": 1, "tokens": [], "tokens": []}',
    ],
)
def test_a_damaged_file_admits_no_token(tokens: Tokens, content: bytes) -> None:
    made = tokens.add(databases=["*"])
    assert tokens.find(made) is not None
    Path(tokens.path).write_bytes(content)
    for _ in range(2):
        with pytest.raises(StorageError, match="is not a token file, or is damaged"):
            tokens.find(made)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("digest", "00"),
        ("digest", 1),
        ("write", 1),
        ("databases", [1]),
        ("expires", "x"),
        ("expires", 1e300),
        ("created", -1),
        ("prefix", None),
        ("id", 1),
        ("new", 1),
    ],
)
def test_a_field_of_a_wrong_type_admits_no_token(tokens: Tokens, field: str, value: Any) -> None:
    made = tokens.add(databases=["*"])
    content = json.loads(Path(tokens.path).read_bytes())
    content["tokens"][0][field] = value
    Path(tokens.path).write_text(json.dumps(content))
    with pytest.raises(StorageError, match="damaged"):
        tokens.find(made)


def test_a_missing_file_admits_no_token(tokens: Tokens) -> None:
    made = tokens.add(databases=["*"])
    os.unlink(tokens.path)
    with pytest.raises(StorageError, match="cannot be read"):
        tokens.find(made)


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX file modes")
def test_a_file_writable_by_others_admits_no_token(tokens: Tokens) -> None:
    made = tokens.add(databases=["*"])
    os.chmod(tokens.path, 0o660)
    with pytest.raises(StorageError, match="chmod 600"):
        Tokens(tokens.path).find(made)


@pytest.mark.skipif(os.name != "posix", reason="symbolic links need a privilege on Windows")
@pytest.mark.parametrize("through", ["link", "link to a link", "linked directory"])
def test_a_change_through_a_symbolic_link_reaches_the_file(tokens: Tokens, tmp_path: Path, through: str) -> None:
    made = tokens.add(databases=["*"])
    link = tmp_path / "link"
    if through == "linked directory":
        link.symlink_to(tmp_path, target_is_directory=True)
        link /= "tokens"
    else:
        link.symlink_to("tokens")
    if through == "link to a link":
        (tmp_path / "second").symlink_to("link")
        link = tmp_path / "second"
    added = Tokens(link).add(databases=["*"])
    assert tokens.find(added) is not None
    assert Tokens(link).revoke(made.partition(".")[0])
    assert tokens.find(made) is None
    assert os.path.realpath(link) == os.path.realpath(tokens.path)


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX hard links")
def test_a_file_with_several_names_is_not_changed_under_one_of_them(tokens: Tokens, tmp_path: Path) -> None:
    made = tokens.add(databases=["*"])
    os.link(tokens.path, tmp_path / "other name")
    for path in (tokens.path, tmp_path / "other name"):
        with pytest.raises(StorageError, match="2 names"):
            Tokens(path).revoke(made.partition(".")[0])
    assert Tokens(tmp_path / "other name").find(made) is not None
    assert not os.path.exists(tokens.path + ".new")


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX file modes")
def test_a_changed_file_keeps_its_mode_and_owner(tokens: Tokens) -> None:
    tokens.add(databases=["*"])
    os.chmod(tokens.path, 0o640)
    if os.geteuid() == 0:
        os.chown(tokens.path, 1234, 1234)
    before = os.stat(tokens.path)
    tokens.add(databases=["*"])
    after = os.stat(tokens.path)
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert after.st_ino != before.st_ino


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX file modes")
def test_a_file_whose_owner_cannot_be_kept_is_not_changed(tokens: Tokens, monkeypatch: pytest.MonkeyPatch) -> None:
    made = tokens.add(databases=["*"])
    before = Path(tokens.path).read_bytes()

    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "fchmod", refuse)
    with pytest.raises(StorageError, match="run the command as the owner"):
        tokens.revoke(made.partition(".")[0])
    assert Path(tokens.path).read_bytes() == before
    assert not os.path.exists(tokens.path + ".new")


def test_a_file_that_cannot_be_replaced_says_so(tokens: Tokens, monkeypatch: pytest.MonkeyPatch) -> None:
    made = tokens.add(databases=["*"])

    def busy(*_: object) -> None:
        raise OSError(16, "Device or resource busy")

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", busy)
        with pytest.raises(StorageError, match="mount its directory"):
            tokens.revoke(made.partition(".")[0])
    assert tokens.find(made) is not None


def test_revoking_an_absent_token_writes_nothing(tokens: Tokens) -> None:
    with pytest.raises(StorageError, match="cannot be read"):
        tokens.revoke("absent")
    assert not os.path.exists(tokens.path)
    tokens.add(databases=["*"])
    before = os.stat(tokens.path).st_ino
    assert not tokens.revoke("absent")
    assert os.stat(tokens.path).st_ino == before


def test_concurrent_changes_to_the_file_are_refused(tokens: Tokens) -> None:
    first = tokens.add(databases=["*"])
    Path(tokens.path + ".new").touch()
    with pytest.raises(StorageError, match="another process is changing"):
        tokens.add(databases=["*"])
    os.unlink(tokens.path + ".new")
    assert [token.id for token in tokens.all()] == [first.partition(".")[0]]


def test_a_failed_change_leaves_the_file_unchanged(tokens: Tokens, monkeypatch: pytest.MonkeyPatch) -> None:
    first = tokens.add(databases=["*"])

    def full(_: int) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="no space"):
            tokens.revoke(first.partition(".")[0])
    assert tokens.find(first) is not None
    tokens.add(databases=["*"])


@pytest.mark.parametrize(
    "arguments",
    [
        {"databases": []},
        {"databases": ["Notes"]},
        {"databases": ["../notes"]},
        {"databases": ["*"], "name": ""},
        {"databases": ["*"], "name": "a\nb"},
        {"databases": ["*"], "name": "x" * 65},
    ],
)
def test_a_token_with_invalid_arguments_is_refused(tokens: Tokens, arguments: Any) -> None:
    with pytest.raises(ValueError):
        tokens.add(**arguments)
    assert not os.path.exists(tokens.path)


# ------------------------------------------------------------------------------------ in a server


async def test_a_running_server_sees_added_and_revoked_tokens_at_once(served: Served) -> None:
    made = served.tokens.add(databases=["notes"])
    client = await served.client_with(made)
    assert (await client.get("/v1/notes")).status_code == 200
    # A separate `Tokens` stands for another process.
    Tokens(served.tokens.path).revoke(made.partition(".")[0])
    assert (await client.get("/v1/notes")).status_code == 401


async def test_an_unreadable_token_file_is_503(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    os.unlink(served.tokens.path)
    response = await served.client.get("/v1/notes")
    assert (response.status_code, response.json()["code"]) == (503, StorageError.code)
    assert served.tokens.path not in response.text
    assert "failed: StorageError" in caplog.text
