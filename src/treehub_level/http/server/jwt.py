"""`JWT`: callers by signed tokens of an identity provider (OpenID Connect, OAuth 2.0)."""

from __future__ import annotations

import asyncio
import json
import logging
import time
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import quote, urlsplit

from ...extras import missing
from .catalog import DATABASE_NAME
from .identities import ALL_DATABASES, Identity
from .refusals import retry_later

if TYPE_CHECKING:
    from starlette.requests import Request

#: Algorithms with a public key. Those with a shared secret (HS256) and ``none`` are never accepted:
#: with a public key as their secret, every reader of the key could sign.
ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
#: The most characters of a token.
_MAX_TOKEN: Final = 16 << 10
#: A time later than any: an integer of JSON may be too large for a float.
_MAX_TIME: Final = 2**53
#: The most bytes of a set of keys, and the most keys in it.
_MAX_KEYS_BYTES: Final = 1 << 20
_MAX_KEYS: Final = 100
#: Seconds between two fetches of the keys because of an unknown key id, and after a failure.
_REFETCH_SECONDS: Final = 30.0
#: Seconds after which the keys are fetched again in any case: a withdrawn key ends then.
_KEEP_SECONDS: Final = 3600.0
#: Seconds after which keys that could not be fetched again are not used any more: an attacker who
#: blocks the fetches cannot keep a withdrawn key in use.
_EXPIRE_SECONDS: Final = 24 * 3600.0
#: Seconds that a fetch, and a request that waits for one, may take.
_FETCH_SECONDS: Final = 10.0
#: The members of a private key. Only the public half of a key is used.
_PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth"})
#: The algorithms of a key that names none (RFC 7517 leaves ``alg`` out often), by its type and
#: curve.
_OF_TYPE: Final[Mapping[tuple[Any, Any], tuple[str, ...]]] = {
    ("RSA", None): ALGORITHMS[:6],
    ("EC", "P-256"): ("ES256",),
    ("EC", "P-384"): ("ES384",),
    ("EC", "P-521"): ("ES512",),
    ("OKP", "Ed25519"): ("EdDSA",),
    ("OKP", "Ed448"): ("EdDSA",),
}

logger = logging.getLogger("treehub_level.http")


class PublicKey(NamedTuple):
    """A key that verifies signatures, and the algorithms that it may be used with."""

    key: Any
    algorithms: list[str]


class JWT:
    """Authenticates callers by signed JSON Web Tokens in ``Authorization: Bearer``.

    The signature, ``exp``, ``nbf``, ``aud`` and, if it is given, ``iss`` are checked. A token needs
    ``exp``, ``aud`` and, without ``rights``, the claim with the name of the caller. The rights are
    the same for all, with the name of the caller put in, or those that ``rights`` returns. They end
    with the token.

    A key verifies the algorithm in its member ``alg``, or without one those of ``algorithms`` that
    fit its type, never one that only the token names. Keys that cannot be fetched again stay in use
    for a day; without any key, requests get 503.

    Args:
        jwks: The public keys: the URL of a JSON Web Key Set (``https``, or ``http`` on this
            machine), or the set itself as a mapping. A URL is fetched at the first request, once an
            hour, and if a token has an unknown key id, at most every 30 seconds.
        audience: The audience, or several, of which the token must have one.
        issuer: The issuer that the token must have; ``None`` for any.
        algorithms: The accepted algorithms, all of which have public keys.
        name: The claim with the name of the caller.
        databases: The names of the databases. ``{name}`` stands for the name of the caller. A name
            that no database can have grants nothing.
        write: True if the callers may write.
        prefixes: The prefixes of the keys; ``None`` for all keys. ``{name}`` stands for the name of
            the caller, percent-encoded: so that a name with a slash reaches no keys of another one.
        operator: The claim that makes its holder an operator (see `Identity`), and the value for
            that: ``("roles", "admin")``. The claim is that value, a list with it, or a text with it
            among words, as ``scope`` is. ``None`` for no operators.
        rights: A function that returns the `Identity` for the checked claims, or ``None`` to refuse
            them. It takes the place of the last five arguments, and must be quick.
        leeway: Seconds by which the clocks may differ, 0 or more.

    Raises:
        ModuleNotFoundError: The extra ``jwt`` is not installed.
        ValueError: The URL is not one of these, an algorithm is unknown or has a shared secret, the
            set holds no key for one of the algorithms, ``operator`` is no pair of
            texts, or ``leeway`` is negative.
    """

    #: The event loop calls it: a token is checked in some 100 microseconds.
    answers_at_once: Final = True

    def __init__(
        self,
        *,
        jwks: str | Mapping[str, Any],
        audience: str | Iterable[str],
        issuer: str | None = None,
        algorithms: Iterable[str] = ("RS256", "ES256", "EdDSA"),
        name: str = "sub",
        databases: Iterable[str] = (),
        write: bool = False,
        prefixes: Iterable[str] | None = None,
        operator: tuple[str, str] | None = None,
        rights: Callable[[Mapping[str, Any]], Identity | None] | None = None,
        leeway: float = 0,
    ) -> None:
        try:
            import cryptography  # noqa: F401  # without it PyJWT has no public keys
            import jwt
        except ImportError as error:
            raise ModuleNotFoundError(missing("treehub_level.http.JWT", error.name, "jwt"), name=error.name) from error
        self._jwt = jwt
        self._algorithms = [*algorithms]
        for algorithm in self._algorithms:
            if algorithm not in ALGORITHMS:
                raise ValueError(f"{algorithm!r:.80} is not accepted: use some of {', '.join(ALGORITHMS)}")
        if not self._algorithms:
            raise ValueError("algorithms is empty: name at least one")
        self._audience = audience if isinstance(audience, str) else [*audience]
        if not self._audience:
            raise ValueError("audience is empty: name the audience that tokens for this server have")
        if not 0 <= leeway < float("inf"):
            raise ValueError(f"leeway is {leeway!r}: give a number of seconds, 0 or more")
        self._issuer = issuer
        self._name = name
        self._databases = [*databases]
        self._write = write
        self._prefixes = None if prefixes is None else [*prefixes]
        self._operator = None if operator is None else _claim_and_value(operator)
        self._rights = rights
        self._leeway = leeway
        self._url = jwks if isinstance(jwks, str) else None
        self._keys: dict[str, PublicKey] = {}
        self._fetched_at = self._tried_at = -_KEEP_SECONDS
        self._fetching: asyncio.Future[None] | None = None
        if self._url is None:
            assert not isinstance(jwks, str)
            self._keys = self._parse_keys(jwks)
        else:
            _check_url(self._url)

    async def __call__(self, request: Request) -> Identity | None:
        """Return the identity of a request; ``None`` without a valid token.

        Raises:
            RefusedError: The keys cannot be fetched at the moment.
        """
        lines = request.headers.getlist("authorization")
        scheme, _, credentials = (lines[0] if len(lines) == 1 else "").partition(" ")
        token = credentials.strip()
        if scheme.lower() != "bearer" or not token.isascii() or not 0 < len(token) <= _MAX_TOKEN:
            return None
        claims = await self._claims(token)
        return None if claims is None else self._identity(claims)

    # --------------------------------------------------------------------------------------- claims

    async def _claims(self, token: str) -> dict[str, Any] | None:
        """Return the claims of a valid token; ``None`` for any other."""
        try:
            key = await self._key(self._jwt.get_unverified_header(token).get("kid"))
            if key is None:
                return None
            claims: dict[str, Any] = self._jwt.decode(
                token,
                key.key,
                algorithms=key.algorithms,
                audience=self._audience,
                issuer=self._issuer,
                leeway=self._leeway,
                options={"require": ["exp", "aud", *(["iss"] if self._issuer is not None else [])]},
            )
        except (self._jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError):
            return None
        return claims

    def _identity(self, claims: Mapping[str, Any]) -> Identity | None:
        """Return the identity for checked claims; ``None`` if they name none."""
        expires = claims.get("exp")
        if self._rights is not None:
            found = self._rights(claims)
        else:
            name = claims.get(self._name)
            if not isinstance(name, str):
                return None
            databases = [pattern.replace("{name}", name) for pattern in self._databases]
            prefixes = self._prefixes
            if prefixes is not None:
                prefixes = [pattern.replace("{name}", quote(name, safe="")) for pattern in prefixes]
            granted = [
                database
                for database, pattern in zip(databases, self._databases, strict=True)
                if pattern == ALL_DATABASES or DATABASE_NAME.fullmatch(database)
            ]
            try:
                found = Identity(
                    name,
                    databases=granted,
                    write=self._write,
                    prefixes=prefixes,
                    operator=self._operator is not None and _has(claims, *self._operator),
                )
            except ValueError:  # a name that cannot be stored
                return None
        if found is None or not isinstance(expires, (int, float)):
            return found
        return found.until(min(expires, _MAX_TIME) + self._leeway)

    # ----------------------------------------------------------------------------------------- keys

    async def _key(self, kid: object) -> PublicKey | None:
        """Return the key of an id; of a set with one key also for a token without an id.

        Returns:
            ``None`` if there is no such key.

        Raises:
            RefusedError: There are no keys, since they could not be fetched.
        """
        now = time.monotonic()
        if self._url is not None:
            if now - self._fetched_at > _EXPIRE_SECONDS:
                self._keys = {}
            is_old = now - self._fetched_at > _KEEP_SECONDS
            is_unknown = isinstance(kid, str) and kid not in self._keys
            if (is_old or is_unknown) and now - self._tried_at > _REFETCH_SECONDS and self._fetching is None:
                self._tried_at = now
                self._fetching = asyncio.ensure_future(self._fetch())
                self._fetching.add_done_callback(self._end_fetch)
            if self._fetching is not None and (is_unknown or not self._keys):
                await asyncio.wait([self._fetching], timeout=_FETCH_SECONDS)
            if not self._keys:
                raise retry_later(
                    503,
                    "LEVEL_UNAVAILABLE",
                    "the server has no keys to check tokens with at the moment: try again later",
                )
        if kid is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        return self._keys.get(kid) if isinstance(kid, str) else None

    def _end_fetch(self, fetching: asyncio.Future[None]) -> None:
        self._fetching = None
        if not fetching.cancelled():
            fetching.exception()

    async def _fetch(self) -> None:
        """Fetch the keys. After a failure those that are known stay in use."""
        try:
            document = await asyncio.to_thread(_download, self._url)
            self._keys = self._parse_keys(document)
            self._fetched_at = time.monotonic()
        except Exception as error:
            logger.error("the keys of JWT cannot be fetched from %s: %s", _host(self._url), type(error).__name__)

    def _parse_keys(self, document: object) -> dict[str, PublicKey]:
        """Return the keys of a set that verify signatures, by id.

        Raises:
            ValueError: The set holds none for one of the accepted algorithms.
        """
        items = document.get("keys") if isinstance(document, Mapping) else None
        found: dict[str, PublicKey] = {}
        for item in items[:_MAX_KEYS] if isinstance(items, list) else []:
            key = self._parse_key(item) if isinstance(item, Mapping) else None
            if key is not None:
                kid = item.get("kid")
                found[kid if isinstance(kid, str) else ""] = key
        if not found:
            raise ValueError(
                f"the JSON Web Key Set holds no public key for signatures by {', '.join(self._algorithms)}"
            )
        return found

    def _parse_key(self, item: Mapping[str, Any]) -> PublicKey | None:
        """Return a key of a set; ``None`` if it verifies no signature that is accepted."""
        operations = item.get("key_ops")
        if item.get("use", "sig") != "sig" or (isinstance(operations, list) and "verify" not in operations):
            return None
        try:
            usable = _OF_TYPE.get((item.get("kty"), item.get("crv")), ())
            algorithms = [name for name in self._algorithms if name in usable and item.get("alg", name) == name]
            if not algorithms:
                return None
            public = {name: value for name, value in item.items() if name not in _PRIVATE}
            return PublicKey(self._jwt.PyJWK(public, algorithm=algorithms[0]).key, algorithms)
        except (self._jwt.PyJWTError, ValueError, TypeError, KeyError):
            return None


def _claim_and_value(operator: object) -> tuple[str, str]:
    """Return the argument ``operator`` if it is a pair of texts.

    Raises:
        ValueError: It is not.
    """
    match operator:
        case (str(claim), str(value)) if claim and value:
            return claim, value
    raise ValueError(f"operator is a claim and its value, such as ('roles', 'admin'), not {operator!r:.80}")


def _has(claims: Mapping[str, Any], claim: str, value: str) -> bool:
    """Return True if a claim is a value, a list with it, or a text with it among words."""
    found = claims.get(claim)
    if isinstance(found, str):
        return found == value or value in found.split()
    return isinstance(found, list) and value in found


def _check_url(url: str) -> None:
    parts = urlsplit(url)
    is_local = parts.hostname in ("localhost", "127.0.0.1", "::1")
    if not parts.hostname or not (parts.scheme == "https" or (parts.scheme == "http" and is_local)):
        raise ValueError(
            f"the URL of the keys is one with https, not {_host(url)!r:.80}: http is for this machine only"
        )


def _host(url: str | None) -> str:
    """Return a URL without its query and credentials, for messages."""
    parts = urlsplit(url or "")
    return f"{parts.scheme}://{parts.hostname or ''}{parts.path}"


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Follows no redirect, which could lead to another host, or to ``http``."""

    def redirect_request(self, *args: Any, **options: Any) -> None:
        """Refuse a redirect."""
        return


def _download(url: str | None) -> object:
    assert url is not None
    deadline = time.monotonic() + _FETCH_SECONDS
    request = urllib.request.Request(url, headers={"Accept": "application/json"})
    body = bytearray()
    with urllib.request.build_opener(_NoRedirects).open(request, timeout=_FETCH_SECONDS) as response:
        while piece := response.read1(1 << 16):
            body += piece
            if len(body) > _MAX_KEYS_BYTES:
                raise ValueError("the JSON Web Key Set is too large")
            if time.monotonic() > deadline:  # the timeout is that of each read
                raise TimeoutError("the JSON Web Key Set comes too slowly")
    return json.loads(body)
