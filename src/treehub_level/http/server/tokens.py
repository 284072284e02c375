"""Tokens: who may do what. A file of them, readable by people, that never holds a secret."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Final

import orjson

from ...engine.access import Access
from ...errors import StorageError
from .catalog import NAME

#: A token for every database.
EVERY: Final = "*"
_VERSION: Final = 1
_MAX_NAME: Final = 64
#: Before which a token expires: the year 10000, which is no date any more.
_END_OF_TIME: Final = 253_402_300_800


@dataclass(frozen=True, slots=True)
class Token:
    """What a token allows. Its secret is known to its holder only.

    Attributes:
        id: The part of the token before the dot.
        digest: SHA-256 of the secret, in hex. The secret is 256 random bits, so nobody can guess it, however fast the
            hash is; slow hashes are for passwords.
        name: Whose it is. Two tokens of one name are one principal: a new one takes the place of an old one.
        databases: Names of databases, or ``"*"`` for all of them.
        write: Whether it may write, too.
        prefix: What the keys begin with that it is for.
        expires: When it stops being valid, in seconds since 1970; ``None`` for never.
        created: When it was made.
    """

    id: str
    digest: str
    name: str
    databases: tuple[str, ...]
    write: bool
    prefix: str
    expires: float | None
    created: float

    def reaches(self, database: str) -> bool:
        """Whether it is for this database."""
        return EVERY in self.databases or database in self.databases

    @property
    def is_for_all(self) -> bool:
        """Whether it is for all of every database."""
        return EVERY in self.databases and not self.prefix

    def is_expired(self) -> bool:
        """Whether its time is over."""
        return self.expires is not None and time.time() >= self.expires

    @property
    def access(self) -> Access:
        """Its right to a database that it is for."""
        return Access(self.name or None, self.prefix.encode(), self.write)


#: Who needs no token, where none are needed.
ANYBODY: Final = Token("", "", "", (EVERY,), True, "", None, 0)


class Tokens:
    """The tokens in a file, as they are there now: a change to the file counts from the next request on.

    If the file is gone or damaged, nobody gets in.

    Args:
        path: The file. `add` makes it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self._stamp: tuple[int, ...] | None = None
        self._known: dict[str, Token] = {}

    def find(self, presented: str) -> Token | None:
        """The token that somebody presents, if it is valid now.

        Args:
            presented: ``id.secret``.

        Raises:
            StorageError: The file cannot be read, or is damaged.
        """
        self._refresh()
        id, _, secret = presented.partition(".")
        token = self._known.get(id)
        # An id that is not known is compared as well, so that time does not tell which ids there are.
        valid = hmac.compare_digest(_digest(secret), _NOBODY if token is None else token.digest)
        return token if valid and token is not None and not token.is_expired() else None

    def all(self) -> list[Token]:
        """Every token, those that have expired too, in the order in which they were made.

        Raises:
            StorageError: The file cannot be read, or is damaged.
        """
        self._refresh()
        return [*self._known.values()]

    def add(
        self,
        *,
        databases: Iterable[str],
        write: bool = False,
        name: str | None = None,
        prefix: str = "",
        expires: float | None = None,
    ) -> str:
        """Make a token. It is returned here, and nowhere else ever.

        Args:
            databases: Names of databases, or ``"*"`` for all of them.
            write: Whether it may write, too.
            name: Whose it is; a new one's own id if not given. It stands in logs, and with the clients' ids in the
                databases.
            prefix: What the keys begin with that it is for.
            expires: When it stops being valid, in seconds since 1970.

        Raises:
            ValueError: No database, or a name that cannot be one; a name of more than 64 characters; a time after 9999.
            StorageError: The file cannot be read or written.
        """
        databases = (*databases,)
        for database in databases:
            if database != EVERY and not NAME.fullmatch(database):
                raise ValueError(f"{database!r:.80} cannot name a database: {NAME.pattern} is needed, or * for all")
        if not databases:
            raise ValueError("a token is for some database: name one, or * for all")
        if name is not None and not (0 < len(name) <= _MAX_NAME and name.isprintable()):
            raise ValueError(f"{name!r:.80} cannot be a name: 1 to {_MAX_NAME} printable characters are needed")
        if expires is not None and not 0 <= expires < _END_OF_TIME:
            raise ValueError(f"a token cannot expire at {expires}: seconds since 1970, and before the year 10000")
        id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
        token = Token(id, _digest(secret), name or id, databases, write, prefix, expires, time.time())
        with self._changing() as tokens:
            tokens.append(token)
        return f"{id}.{secret}"

    def revoke(self, id: str) -> bool:
        """Make a token worthless from now on. Whether there was one of this id.

        Raises:
            StorageError: The file cannot be read or written.
        """
        with self._changing() as tokens:
            left = [token for token in tokens if token.id != id]
            found = len(left) < len(tokens)
            tokens[:] = left
        return found

    # -------------------------------------------------------------------------------------------- the file

    def _refresh(self) -> None:
        try:
            status = os.stat(self.path)
            stamp = status.st_mtime_ns, status.st_ino, status.st_size
            if stamp != self._stamp:
                self._known = {token.id: token for token in self._read(status)}
                self._stamp = stamp
        except StorageError:
            self._stamp = None
            raise
        except OSError as error:
            self._stamp = None
            raise StorageError(f"the tokens in {self.path!r} cannot be read: {error.strerror}") from error

    def _read(self, status: os.stat_result) -> list[Token]:
        if os.name == "posix" and status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise StorageError(f"others than its owner may write to {self.path!r}, and make tokens: chmod 600 it")
        with open(self.path, "rb") as file:
            stored = file.read()
        try:
            content = orjson.loads(stored)
            if content["version"] != _VERSION:
                raise ValueError(f"version {content['version']}")
            return [_token(item) for item in content["tokens"]]
        except (KeyError, TypeError, ValueError) as error:
            raise StorageError(
                f"{self.path!r} is no file of tokens, or was damaged ({type(error).__name__}): restore it"
            ) from error

    @contextmanager
    def _changing(self) -> Iterator[list[Token]]:
        """The tokens, to be changed. While the new file is made, it is a lock; then it takes the old one's place."""
        scratch = self.path + ".new"
        try:
            file = open(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")  # noqa: SIM115
        except FileExistsError as error:
            raise StorageError(
                f"somebody is changing {self.path!r} at this moment; if nobody is, delete {scratch!r} and try again"
            ) from error
        except OSError as error:
            raise StorageError(f"cannot write {scratch!r}: {error.strerror}") from error
        try:
            with file:
                tokens = self.all() if os.path.exists(self.path) else []
                yield tokens
                content = {"version": _VERSION, "tokens": [asdict(token) for token in tokens]}
                file.write(orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
                file.flush()
                os.fsync(file.fileno())
            os.replace(scratch, self.path)
        except BaseException:
            os.unlink(scratch)
            raise


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode(errors="surrogatepass")).hexdigest()


#: What no secret's digest is equal to.
_NOBODY: Final = "0" * 64


def _token(item: dict[str, Any]) -> Token:
    """A token as it stands in the file.

    Raises:
        KeyError, TypeError, ValueError: It is none.
    """
    token = Token(**{**item, "databases": tuple(item["databases"])})
    texts = token.id, token.digest, token.name, token.prefix, *token.databases
    numbers = token.created, 0 if token.expires is None else token.expires
    if not all(isinstance(text, str) for text in texts) or not all(isinstance(n, (int, float)) for n in numbers):
        raise TypeError("a field of a wrong type")
    if not all(0 <= number < _END_OF_TIME for number in numbers):
        raise ValueError("a time that is none")
    if type(token.write) is not bool or len(bytes.fromhex(token.digest)) != 32:
        raise TypeError("a field of a wrong type")
    return token
