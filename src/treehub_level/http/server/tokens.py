"""Access tokens, in a JSON file that holds the hashes of their secrets."""

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
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NoReturn

import orjson

from ...backends.directory_sync import sync_directory
from ...engine.access import Access
from ...engine.codec import decode_json
from ...errors import StorageError
from .catalog import DATABASE_NAME
from .identities import ALL_DATABASES, MAX_NAME, Identity
from .refusals import bad_request

if TYPE_CHECKING:
    from starlette.requests import Request

_VERSION: Final = 1
_MAX_NAME: Final = 64
#: The principal of a temporary token. It is the same in each run of a server, so that the clients
#: keep their ids.
_TEMPORARY_NAME: Final = "temporary"
#: Expiry times lie before this one: the year 10000, which Python's `datetime` cannot represent.
_END_OF_TIME: Final = 253_402_300_800


@dataclass(frozen=True, slots=True)
class Token:
    """An access token, as the file stores it: without its secret.

    Attributes:
        id: The part of the token before the dot.
        digest: The SHA-256 of the secret, in hex. The secret is 256 random bits and cannot be
            guessed, so it needs no slow password hash.
        name: The principal that the token stands for. Tokens of the same name share their clients,
            so a new token can replace an old one.
        databases: Names of databases, or ``"*"`` for all of them.
        write: True if the token may write.
        prefix: The prefix of the keys that the token may see; empty for all keys.
        expires: The time of expiry, in seconds since 1970; ``None`` for never.
        created: The time of creation, in seconds since 1970.
        operator: True if the token may administer its databases: see `Identity`.
        max_writes_per_minute: The most changes that may be written with the token in a minute;
            ``None`` for no limit.
    """

    id: str
    digest: str
    name: str
    databases: tuple[str, ...]
    write: bool
    prefix: str
    expires: float | None
    created: float
    operator: bool = False
    max_writes_per_minute: int | None = None

    def covers(self, database: str) -> bool:
        """Return True if the token is for this database."""
        return ALL_DATABASES in self.databases or database in self.databases

    def is_expired(self) -> bool:
        """Return True if the token has expired."""
        return self.expires is not None and time.time() >= self.expires

    @property
    def access(self) -> Access:
        """The access that the token grants to each of its databases."""
        return Access(self.name or None, (self.prefix.encode(),), self.write)


@lru_cache(maxsize=1024)
def _identity_of(token: Token) -> Identity:
    """Return the identity that a token stands for."""
    name = token.name if 0 < len(token.name) <= MAX_NAME and token.name.isprintable() else "-"
    prefixes = [token.prefix] if token.prefix else None
    identity = Identity(
        name,
        databases=token.databases,
        write=token.write,
        prefixes=prefixes,
        operator=token.operator,
        expires=None,  # the file checks that
        max_writes_per_minute=token.max_writes_per_minute,
    )
    identity.id, identity.access = token.id, token.access
    return identity


class Tokens:
    """The access tokens in a file. A change to the file takes effect at the next request.

    If the file is missing or damaged, no token is valid. If the path is a symbolic link, the file
    is the one that it leads to.

    Args:
        path: The path of the file. `add` creates it.
    """

    #: The event loop calls it: a look costs one `stat` and one SHA-256.
    answers_at_once: Final = True

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self._signature: tuple[int, ...] | None = None
        self._by_id: dict[str, Token] = {}

    def __call__(self, request: Request) -> Identity | None:
        """Return the identity of a request by its header ``Authorization: Bearer id.secret``.

        Raises:
            RefusedError: The request has two such headers.
            StorageError: The file cannot be read, or is damaged.
        """
        headers = request.headers.getlist("authorization")
        if len(headers) > 1:
            raise bad_request("the request has two `Authorization` headers: send one")
        scheme, _, credentials = (headers[0] if headers else "").partition(" ")
        token = self.find(credentials.strip()) if scheme.lower() == "bearer" else None
        return None if token is None else _identity_of(token)

    def find(self, credentials: str) -> Token | None:
        """Return the token with these credentials; ``None`` if there is none or it has expired.

        Args:
            credentials: ``id.secret``.

        Raises:
            StorageError: The file cannot be read, or is damaged.
        """
        self._refresh()
        id, _, secret = credentials.partition(".")
        token = self._by_id.get(id)
        # Compare digests even for an unknown id: the response time must not reveal which ids exist.
        valid = hmac.compare_digest(_digest(secret), _NO_DIGEST if token is None else token.digest)
        return token if valid and token is not None and not token.is_expired() else None

    def all(self) -> list[Token]:
        """Return all tokens, expired ones included, in the order of their creation.

        Raises:
            StorageError: The file cannot be read, or is damaged.
        """
        self._refresh()
        return [*self._by_id.values()]

    def add(
        self,
        *,
        databases: Iterable[str],
        write: bool = False,
        name: str | None = None,
        prefix: str = "",
        operator: bool = False,
        expires: float | None = None,
        max_writes_per_minute: int | None = None,
    ) -> str:
        """Create a token.

        Args:
            databases: Names of databases, or ``"*"`` for all of them.
            write: True to allow writes.
            name: The principal, 1 to 64 printable characters; the id of the token if not given. It
                is stored in the databases with the ids of the principal's clients. A token that
                replaces another one has the same name.
            prefix: The prefix of the keys that the token may see; empty for all keys.
            operator: True to allow the administration of the databases: see `Identity`.
            expires: The time of expiry, in seconds since 1970; ``None`` for never.
            max_writes_per_minute: The most changes that may be written with the token in a minute;
                ``None`` for no limit.

        Returns:
            The credentials, ``id.secret``. They cannot be retrieved again: the file holds a hash.

        Raises:
            ValueError: ``databases`` is empty or has an invalid name, ``name`` or ``prefix`` is
                invalid, ``expires`` is negative or after the year 9999, or
                ``max_writes_per_minute`` is no number above 0.
            StorageError: The file cannot be read or written.
        """
        databases = (*databases,)
        if not _is_rate(max_writes_per_minute):
            raise ValueError(f"max_writes_per_minute is a number above 0 or None, not {max_writes_per_minute!r:.80}")
        for database in databases:
            if database != ALL_DATABASES and not DATABASE_NAME.fullmatch(database):
                raise ValueError(
                    f"{database!r:.80} is not a valid database name: use {DATABASE_NAME.pattern}, or * for all"
                )
        if not databases:
            raise ValueError("a token needs a database: name one, or * for all")
        if name is not None and not (0 < len(name) <= _MAX_NAME and name.isprintable()):
            raise ValueError(f"{name!r:.80} is not a valid name: use 1 to {_MAX_NAME} printable characters")
        if any("\ud800" <= character <= "\udfff" for character in prefix):
            raise ValueError(f"{prefix!r:.80} is not a valid prefix of keys: it is not UTF-8")
        if expires is not None and not 0 <= expires < _END_OF_TIME:
            raise ValueError(
                f"a token cannot expire at {expires}: give seconds since 1970, for a time before the year 10000"
            )
        id, secret = _new_credentials()
        token = Token(
            id,
            _digest(secret),
            name or id,
            databases,
            write,
            prefix,
            expires,
            time.time(),
            operator,
            max_writes_per_minute,
        )
        with self._update() as tokens:
            tokens.append(token)
        return f"{id}.{secret}"

    def revoke(self, id: str) -> bool:
        """Delete a token. Return False, and write nothing, if there is no token with this id.

        Raises:
            StorageError: The file cannot be read or written.
        """
        if all(token.id != id for token in self.all()):
            return False
        with self._update() as tokens:
            remaining = [token for token in tokens if token.id != id]
            found = len(remaining) < len(tokens)
            tokens[:] = remaining
        return found

    # ------------------------------------------------------------------------------------ the file

    def _refresh(self) -> None:
        """Read the file again if it has changed."""
        try:
            status = os.stat(self.path)
            signature = status.st_mtime_ns, status.st_ino, status.st_size
            if signature != self._signature:
                self._by_id = {token.id: token for token in self._read(status)}
                self._signature = signature
        except StorageError:
            self._signature = None
            raise
        except OSError as error:
            self._signature = None
            raise StorageError(
                f"the token file {self.path!r} cannot be read: {error.strerror}; "
                "create it with `treehub-level token add`, or allow the server to read it"
            ) from error

    def _read(self, status: os.stat_result) -> list[Token]:
        if os.name == "posix" and status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise StorageError(
                f"users other than its owner can write to the token file {self.path!r}, and so create tokens: "
                "chmod 600 it"
            )
        with open(self.path, "rb") as file:
            stored = file.read()
        try:
            content = decode_json(stored)
            if content["version"] != _VERSION:
                raise ValueError(f"version {content['version']}")
            return [_parse_token(item) for item in content["tokens"]]
        except (KeyError, TypeError, ValueError) as error:
            raise StorageError(
                f"{self.path!r} is not a token file, or is damaged ({type(error).__name__}): restore it from a backup"
            ) from error

    @contextmanager
    def _update(self) -> Iterator[list[Token]]:
        """Yield the tokens for modification, then replace the file atomically.

        The new file is created exclusively, so until it replaces the old one it also serves as a
        lock against other writers. It replaces the file that a symbolic link leads to, not the
        link: a server that was given another path of the file must see the change. It has the owner
        and the mode of the old one: the server may run as another user than the administrator.
        """
        target = os.path.realpath(self.path)
        scratch = target + ".new"
        try:
            descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError as error:
            raise StorageError(
                f"another process is changing the token file {self.path!r}: try again; "
                f"if no process is, delete {scratch!r}"
            ) from error
        except OSError as error:
            raise StorageError(f"the token file {scratch!r} cannot be written: {error.strerror}") from error
        try:
            with open(descriptor, "wb") as file:
                exists = os.path.exists(target)
                if exists:
                    self._keep_access(target, descriptor)
                tokens = self.all() if exists else []
                yield tokens
                content = {"version": _VERSION, "tokens": [_document(token) for token in tokens]}
                file.write(orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
                file.flush()
                os.fsync(file.fileno())
            _replace(scratch, target)
        except BaseException:
            os.unlink(scratch)
            raise

    def _keep_access(self, target: str, descriptor: int) -> None:
        """Give the new file the owner and the mode of the old one.

        Raises:
            StorageError: The process may not, or the file has several names, of which a new file
                would replace one only.
        """
        old, new = os.stat(target), os.fstat(descriptor)
        if old.st_nlink > 1:
            raise StorageError(
                f"the token file {self.path!r} has {old.st_nlink} names (hard links), and a change would reach one of "
                "them only: delete the other names, or make them symbolic links"
            )
        if os.name != "posix":
            return
        try:
            if (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid):
                os.fchown(descriptor, old.st_uid, old.st_gid)
            os.fchmod(descriptor, stat.S_IMODE(old.st_mode))
        except OSError as error:
            raise StorageError(
                f"the token file {self.path!r} belongs to another user or group, who could not read the changed one: "
                "run the command as the owner of the file, or as root"
            ) from error


class TemporaryToken(Tokens):
    """One operator token for all databases, in memory. It is valid until this process ends.

    Attributes:
        credentials: The credentials of the token, ``id.secret``.
    """

    def __init__(self) -> None:
        super().__init__("(memory)")
        id, secret = _new_credentials()
        self.credentials = f"{id}.{secret}"
        token = Token(id, _digest(secret), _TEMPORARY_NAME, (ALL_DATABASES,), True, "", None, time.time(), True)
        self._by_id = {id: token}

    def _refresh(self) -> None:
        """Do nothing: there is no file."""

    def _update(self) -> NoReturn:
        raise StorageError("a temporary token is in no file, so it cannot be changed")


def _replace(scratch: str, target: str) -> None:
    """Replace the token file by the new one.

    Raises:
        StorageError: The directory does not allow it.
    """
    try:
        os.replace(scratch, target)
        sync_directory(os.path.dirname(target))  # a revoked token must not be back after a power failure
    except OSError as error:
        # A container can mount a single file, which cannot be replaced (EBUSY).
        raise StorageError(
            f"the token file {target!r} cannot be replaced: {error.strerror}; if it is a mount point, "
            "mount its directory instead"
        ) from error


def _new_credentials() -> tuple[str, str]:
    """Return a new id and a secret of 256 random bits."""
    return secrets.token_hex(6), secrets.token_urlsafe(32)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode(errors="surrogatepass")).hexdigest()


#: A digest that no secret has.
_NO_DIGEST: Final = "0" * 64


def _document(token: Token) -> dict[str, Any]:
    """Return a token as the file stores it: without later fields that earlier versions lack."""
    document = asdict(token)
    if not token.operator:
        del document["operator"]
    if token.max_writes_per_minute is None:
        del document["max_writes_per_minute"]
    return document


def _is_rate(limit: object) -> bool:
    """Return True if a value is a rate of writes, or None."""
    return limit is None or (type(limit) is int and limit > 0)


def _parse_token(item: dict[str, Any]) -> Token:
    """Parse a token from the file.

    Raises:
        KeyError, TypeError, ValueError: A field is missing, unknown, or of a wrong type or value.
    """
    token = Token(**{**item, "databases": tuple(item["databases"])})
    texts = token.id, token.digest, token.name, token.prefix, *token.databases
    numbers = token.created, 0 if token.expires is None else token.expires
    if not all(isinstance(text, str) for text in texts) or not all(isinstance(n, (int, float)) for n in numbers):
        raise TypeError("a field of a wrong type")
    if not all(0 <= number < _END_OF_TIME for number in numbers):
        raise ValueError("a time out of range")
    if not _is_rate(token.max_writes_per_minute):
        raise ValueError("a rate of writes that is no number above 0")
    if {type(token.write), type(token.operator)} != {bool} or len(bytes.fromhex(token.digest)) != 32:
        raise TypeError("a field of a wrong type")
    return token
