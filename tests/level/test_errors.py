"""Errors: their codes and base classes are part of the API."""

import copy
import pickle
from typing import Any

import pytest

import treehub_level
from treehub_level import CIDMismatchError, HistoryError, LevelError, TransportError

TREE = {
    "LevelError": ("LEVEL_ERROR", Exception),
    "StateError": ("LEVEL_STATE", "LevelError"),
    "NotOpenError": ("LEVEL_DATABASE_NOT_OPEN", "StateError"),
    "LockedError": ("LEVEL_LOCKED", "LevelError"),
    "ModeError": ("LEVEL_MODE", "LevelError"),
    "ModeMismatchError": ("LEVEL_MODE_MISMATCH", "ModeError"),
    "InvalidKeyError": ("LEVEL_INVALID_KEY", "LevelError", ValueError),
    "InvalidValueError": ("LEVEL_INVALID_VALUE", "LevelError", ValueError),
    "DecodeError": ("LEVEL_DECODE", "LevelError"),
    "CorruptionError": ("LEVEL_CORRUPTION", "LevelError"),
    "HistoryError": ("LEVEL_HISTORY", "LevelError"),
    "StorageError": ("LEVEL_STORAGE", "LevelError", OSError),
    "CommitUnknownError": ("LEVEL_COMMIT_UNKNOWN", "StorageError"),
    "UnavailableError": ("LEVEL_UNAVAILABLE", "StorageError"),
    "BackendNotFoundError": ("LEVEL_BACKEND_NOT_FOUND", "LevelError"),
    "ConditionError": ("LEVEL_CONDITION", "LevelError"),
    "Refused": ("LEVEL_REFUSED", "LevelError"),
    "CheckError": ("LEVEL_CHECK", "LevelError"),
    "SyncError": ("LEVEL_SYNC", "LevelError"),
    "CIDMismatchError": ("LEVEL_CID_MISMATCH", "SyncError"),
    "StoreMismatchError": ("LEVEL_STORE_MISMATCH", "SyncError"),
    "ProtocolError": ("LEVEL_PROTOCOL", "SyncError"),
    "ForbiddenError": ("LEVEL_FORBIDDEN", "ProtocolError"),
    "TransportError": ("LEVEL_TRANSPORT", "SyncError"),
}


@pytest.mark.parametrize("name", TREE)
def test_an_error_has_its_code_and_its_bases(name: str) -> None:
    error = getattr(treehub_level, name)
    code, *bases = TREE[name]
    assert error.code == code
    assert error.__bases__ == tuple(getattr(treehub_level, b) if isinstance(b, str) else b for b in bases)


def test_an_internal_error_has_the_code_of_a_public_one() -> None:
    def below(error: Any) -> Any:
        yield error
        for child in error.__subclasses__():
            yield from below(child)

    ours = [error for error in below(LevelError) if error.__module__.startswith("treehub_level")]
    assert {error.__name__ for error in ours if error.__module__ == "treehub_level.errors"} == set(TREE)
    assert {error.code for error in ours} == {code for code, *_ in TREE.values()}


@pytest.mark.parametrize("name", sorted(TREE.keys() - {"CIDMismatchError", "ConditionError", "HistoryError"}))
@pytest.mark.parametrize("repeat", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))], ids=["copy", "pickle"])
def test_an_error_can_be_pickled_and_copied(name: str, repeat: Any) -> None:
    error = repeat(getattr(treehub_level, name)("what was wrong"))
    assert type(error).__name__ == name
    assert str(error) == "what was wrong"


def test_a_cid_mismatch_has_both_cids_after_pickling() -> None:
    error = pickle.loads(pickle.dumps(CIDMismatchError("late", expected=3, got=2)))
    assert (str(error), error.expected, error.got) == ("late", 3, 2)


def test_a_history_error_has_its_cids_after_pickling() -> None:
    error = pickle.loads(pickle.dumps(HistoryError("compacted", cid=2, earliest=3, latest=5)))
    assert (str(error), error.cid, error.earliest, error.latest) == ("compacted", 2, 3, 5)


def test_a_transport_error_may_have_a_status() -> None:
    assert TransportError("refused").status is None
    assert TransportError("refused", status=503).status == 503
