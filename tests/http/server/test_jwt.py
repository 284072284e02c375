"""`JWT`: callers by signed tokens, with rotating keys."""

from __future__ import annotations

import asyncio
import base64
import json
import math
import threading
import time
from contextlib import suppress
from http.server import ThreadingHTTPServer
from io import BytesIO
from typing import Any
from unittest import mock

import orjson
import pytest

jwt = pytest.importorskip("jwt")
pytest.importorskip("cryptography")

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa  # noqa: E402
from jwt import algorithms  # noqa: E402
from scripted_server import ScriptedHandler, running  # noqa: E402
from served import Served  # noqa: E402

from treehub_level import extras  # noqa: E402
from treehub_level.http import JWT, Identity  # noqa: E402
from treehub_level.http.server import jwt as module  # noqa: E402

RSA = rsa.generate_private_key(65537, 2048)
OTHER = rsa.generate_private_key(65537, 2048)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()


def jwk(key: Any, kid: str, **members: Any) -> dict[str, Any]:
    """The public key of a key, as a JSON Web Key."""
    kinds: Any = {rsa.RSAPrivateKey: algorithms.RSAAlgorithm, ec.EllipticCurvePrivateKey: algorithms.ECAlgorithm}
    kind = next((kind for of, kind in kinds.items() if isinstance(key, of)), algorithms.OKPAlgorithm)
    return {**json.loads(kind.to_jwk(key.public_key())), "kid": kid, **members}


KEYS = {"keys": [jwk(RSA, "rsa"), jwk(EC, "ec"), jwk(ED, "ed")]}


def token(key: Any = RSA, kid: str | None = "rsa", algorithm: str = "RS256", **claims: Any) -> str:
    """A token that is valid unless the claims say otherwise. ``None`` leaves a claim out."""
    made = {"sub": "alice", "aud": "notes", "iss": "https://id", "exp": time.time() + 60, **claims}
    made = {name: value for name, value in made.items() if value is not None}
    encoded: str = jwt.encode(made, key, algorithm, {"kid": kid} if kid else {})
    return encoded


def served_by(served: Served, **options: Any) -> JWT:
    """Let the server authenticate by JWT."""
    made = JWT(**{"jwks": KEYS, "audience": "notes", "databases": ["notes"], "write": True, **options})
    served.rebuild(tokens=None, authenticate=made)
    return made


async def status(served: Served, credentials: str, method: str = "GET", path: str = "notes") -> int:
    """The status of a request with a token."""
    headers = {"authorization": f"Bearer {credentials}"}
    return (await served.anonymous.request(method, f"/v1/{path}", headers=headers)).status_code


async def test_a_signed_token_is_an_identity(served: Served) -> None:
    served_by(served, issuer="https://id")
    assert await status(served, token()) == 200
    assert await status(served, token(EC, "ec", "ES256")) == 200
    assert await status(served, token(ED, "ed", "EdDSA")) == 200
    assert await status(served, token(), "DELETE", "notes/entries/a") == 204
    assert await status(served, token(), path="other") == 404
    assert await status(served, token(aud=["other", "notes"])) == 200


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": 1},
        {"exp": None},
        {"exp": "never"},
        {"nbf": 4e9},
        {"aud": "other"},
        {"aud": None},
        {"iss": "https://evil"},
        {"iss": None},
        {"sub": None},
        {"sub": "a\nb"},
        {"sub": ""},
        {"sub": "x" * 300},
    ],
    ids=str,
)
async def test_a_token_with_a_wrong_claim_is_refused(served: Served, claims: dict[str, Any]) -> None:
    served_by(served, issuer="https://id")
    assert await status(served, token(**claims)) == 401


def unsigned(header: dict[str, Any]) -> str:
    """A token without a signature."""
    claims = {"sub": "alice", "aud": "notes", "iss": "https://id", "exp": time.time() + 60}
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in (header, claims)]
    return ".".join([*parts, ""])


async def test_a_forged_token_is_refused(served: Served) -> None:
    served_by(served)
    forged = [
        token(OTHER),
        token(OTHER, "unknown"),
        token(EC, "rsa", "ES256"),
        token(RSA, "rsa", "RS512"),  # an algorithm of the key that is not accepted
        token(ED, "ec", "EdDSA"),
        token(RSA, None),  # without an id, and the set has several keys
        unsigned({"alg": "none", "kid": "rsa"}),
        unsigned({"alg": "None", "kid": "rsa"}),
        unsigned({"alg": "RS256", "kid": "rsa"}),
        unsigned({"alg": "RS256", "kid": ["rsa"]}),
        jwt.encode({"sub": "a", "aud": "notes", "exp": 4e9}, b"k" * 64, "HS256", {"kid": "rsa"}),
        token()[:-2],
        "x" * 20_000,
        "a.b.c",
        "",
        "…",
    ]
    for credentials in forged:
        headers = [(b"authorization", f"Bearer {credentials}".encode())]
        assert (await served.anonymous.get("/v1/notes", headers=headers)).status_code == 401, credentials[:80]
    two = [("authorization", f"Bearer {token()}")] * 2
    assert (await served.anonymous.get("/v1/notes", headers=two)).status_code == 401


def test_algorithms_with_a_shared_secret_are_never_accepted() -> None:
    for algorithm in ("none", "HS256", "hs256", ""):
        with pytest.raises(ValueError, match="is not accepted"):
            JWT(jwks=KEYS, audience="notes", algorithms=[algorithm])
    wrong: list[dict[str, Any]] = [
        {"audience": ""},
        {"algorithms": []},
        {"jwks": {"keys": []}},
        {"jwks": "http://example.org/keys"},
        {"leeway": -1},
        {"jwks": {"keys": [jwk(EC, "ec", alg="ES384")]}},
    ]
    for options in wrong:
        with pytest.raises(ValueError, match=r"empty|no public key|https|leeway"):
            JWT(**{"jwks": KEYS, "audience": "notes", **options})
    with pytest.raises(ValueError, match="no public key"):
        JWT(jwks={"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "x"}]}, audience="notes")


async def test_names_are_put_into_databases_and_prefixes(served: Served) -> None:
    made = served_by(served, databases=["notes", "user-{name}"], prefixes=["users/{name}/", "team/"])

    def identity(name: str) -> Identity:
        found = made._identity({"sub": name, "exp": 4e9})
        assert found is not None
        return found

    assert identity("alice").databases == ("notes", "user-alice")
    assert identity("alice").prefixes == ("users/alice/", "team/")
    # A name cannot reach the keys of others, and one that no database can have grants none.
    assert identity("alice/secret").prefixes == ("users/alice%2Fsecret/", "team/")
    assert identity("auth0|5f").databases == ("notes",)
    assert identity("../x").databases == ("notes",)
    assert identity("alice").expires == 4e9


async def test_an_application_decides_on_the_rights_of_claims(served: Served) -> None:
    def rights(claims: Any) -> Identity | None:
        return (
            Identity(claims["sub"], databases=["notes"], write="editor" in claims.get("roles", []))
            if "roles" in claims
            else None
        )

    served_by(served, rights=rights)
    assert await status(served, token()) == 401
    assert await status(served, token(roles=[]), "DELETE", "notes/entries/a") == 403
    assert await status(served, token(roles=["editor"]), "DELETE", "notes/entries/a") == 204


@pytest.mark.parametrize(
    ("claim", "expected"),
    [("admin", 200), (["user", "admin"], 200), ("user admin", 200), (None, 403), (True, 403), ("administrator", 403)],
    ids=str,
)
async def test_a_claim_makes_an_operator(served: Served, claim: Any, expected: int) -> None:
    served.rebuild(
        tokens=None,
        authenticate=JWT(jwks=KEYS, audience="notes", databases=["*"], prefixes=[], operator=("roles", "admin")),
    )
    headers = {"authorization": f"Bearer {token(roles=claim)}"}
    assert (await served.anonymous.get("/metrics", headers=headers)).status_code == expected


def test_an_operator_claim_is_a_pair_of_texts() -> None:
    for wrong in ("roles", ("roles",), ("", "admin"), ("roles", True)):
        with pytest.raises(ValueError, match="is a claim and its value"):
            JWT(jwks=KEYS, audience="notes", operator=wrong)  # type: ignore[arg-type]


async def test_keys_rotate(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[Any] = [{"keys": [jwk(RSA, "old")]}]
    fetches: list[None] = []

    def download(url: str) -> Any:
        fetches.append(None)
        if isinstance(answers[0], Exception):
            raise answers[0]
        return answers[0]

    monkeypatch.setattr(module, "_download", download)
    made = served_by(served, jwks="https://id.example/keys")
    assert await status(served, token(RSA, "old")) == 200
    answers[0] = {"keys": [jwk(OTHER, "new")]}
    assert await status(served, token(OTHER, "new")) == 401  # fetched a moment ago
    for n in range(20):
        assert await status(served, token(OTHER, f"unknown {n}")) == 401
    assert len(fetches) == 1
    made._tried_at -= 31
    assert await status(served, token(OTHER, "new")) == 200
    assert await status(served, token(RSA, "old")) == 401  # withdrawn
    assert len(fetches) == 2
    answers[0] = OSError("unreachable")
    made._tried_at -= 31
    assert await status(served, token(RSA, "old")) == 401
    assert await status(served, token(OTHER, "new")) == 200  # the known keys stay in use
    assert len(fetches) == 3
    made._fetched_at -= 24 * 3600
    assert await status(served, token(OTHER, "new")) == 503  # but not for ever
    made._tried_at -= 31
    answers[0] = {"keys": [jwk(OTHER, "new")]}
    assert await status(served, token(OTHER, "new")) == 200


async def test_a_key_without_an_algorithm_verifies_those_accepted_that_fit_its_type(served: Served) -> None:
    served_by(served, algorithms=["PS256", "RS512", "ES256"])
    for algorithm, expected in {"PS256": 200, "RS512": 200, "RS256": 401}.items():
        assert await status(served, token(algorithm=algorithm)) == expected, algorithm
    served_by(served, algorithms=["PS256", "RS512"], jwks={"keys": [jwk(RSA, "rsa", alg="PS256")]})
    for algorithm, expected in {"PS256": 200, "RS512": 401}.items():
        assert await status(served, token(algorithm=algorithm)) == expected, algorithm


async def test_a_set_with_a_private_key_verifies_by_its_public_half(served: Served) -> None:
    private = json.loads(algorithms.RSAAlgorithm.to_jwk(RSA))
    assert "d" in private
    served_by(
        served,
        jwks={"keys": [{**private, "kid": "rsa", "key_ops": ["sign", "verify"]}, jwk(EC, "ec", key_ops=["sign"])]},
    )
    assert await status(served, token()) == 200
    assert await status(served, token(OTHER)) == 401
    assert await status(served, token(EC, "ec", "ES256")) == 401


async def test_rights_end_with_each_token_though_an_application_returns_one_identity(served: Served) -> None:
    readers = Identity("readers", databases=["notes"], expires=4e9)
    made = served_by(served, rights=lambda claims: readers)
    assert [made._identity({"exp": exp}).expires for exp in (2e9, 3e9, 5e9)] == [2e9, 3e9, 4e9]  # type: ignore[union-attr]
    assert readers.expires == 4e9


@pytest.mark.parametrize("answer", [ValueError("secret"), "alice"], ids=["an error", "no identity"])
async def test_rights_that_fail_are_an_error_of_the_server(
    served: Served, caplog: pytest.LogCaptureFixture, answer: Any
) -> None:
    def rights(claims: Any) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    served_by(served, rights=rights)
    assert await status(served, token()) in (500, 503)
    assert "authenticate" in caplog.text
    assert "secret" not in caplog.text


def test_a_set_that_comes_too_slowly_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(BytesIO):
        def read1(self, size: int | None = -1) -> bytes:
            clock[0] += 4
            return b" "

    clock = [0.0]
    opener = mock.Mock(open=lambda request, timeout: Slow())
    monkeypatch.setattr("urllib.request.build_opener", lambda handler: opener)
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    with pytest.raises(TimeoutError):
        module._download("https://id.example/keys")


async def test_keys_that_cannot_be_fetched_let_nobody_in(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    served_by(served, jwks="http://127.0.0.1:9/keys?secret=1")
    assert await status(served, token()) == 503
    assert "cannot be fetched from http://127.0.0.1/keys" in caplog.text
    assert "secret" not in caplog.text


def raw_token(header: bytes, claims: bytes = b"{}") -> str:
    """A token whose parts are no JSON, or hostile JSON. Its signature is wrong."""
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in (header, claims, b"x" * 256))


@pytest.mark.parametrize(
    "credentials",
    [
        raw_token(b"[" * 9000),
        raw_token(b'{"alg":"RS256","kid":' + b"[" * 8000 + b"]" * 8000 + b"}"),
        raw_token(b'{"alg":"RS256","kid":' + b"9" * 9000 + b"}"),
        raw_token(b'{"alg":"RS256","kid":"rsa","kid":{}}'),
        raw_token(b'{"alg":"RS256","kid":"\\ud800"}'),
        raw_token(b'{"alg":"RS256","kid":"rsa","crit":["b64"],"b64":false}', b"\xff\xfe"),
        raw_token(b'{"alg":["RS256"],"kid":"rsa"}'),
        raw_token(b'{"alg":"none","kid":"rsa"}'),
        raw_token(b'{"alg":"RS256","kid":"rsa"}', b"9" * 9000),
        "x" * 20_000,
        "." * 16_000,
        "a.b.c.d.e",
    ],
    ids=range(12),
)
async def test_a_hostile_token_is_refused(served: Served, credentials: str) -> None:
    served_by(served)
    assert await status(served, credentials) == 401


@pytest.mark.parametrize("claims", [{"exp": math.inf}, {"exp": 10**400}, {"exp": math.inf, "nbf": math.inf}], ids=str)
async def test_claims_that_are_no_time_are_refused(served: Served, claims: dict[str, Any]) -> None:
    served_by(served, leeway=0.5)
    assert await status(served, token(**claims)) == (200 if claims["exp"] == 10**400 else 401)


@pytest.mark.parametrize("kind", ["silent", "dripping"])
async def test_slow_keys_stop_nobody_whose_key_is_known(
    served: Served, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Tokens with unknown key ids make the server fetch the keys once, and wait within bounds."""
    monkeypatch.setattr(module, "_FETCH_SECONDS", 0.5)
    monkeypatch.setattr(module, "_REFETCH_SECONDS", 0.0)
    released = threading.Event()

    class Handler(ScriptedHandler):
        def answer(self) -> None:
            server.fetches += 1
            body = orjson.dumps(KEYS)
            if server.fetches == 1:
                self.respond(200, {"Content-Type": "application/json"}, body)
                return
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            with suppress(OSError):
                while kind == "dripping" and not released.wait(0.1):
                    self.wfile.write(b" ")
            released.wait(10)

        do_GET = answer  # noqa: N815  # a name of http.server

    with running(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as server:
        server.fetches = 0
        served_by(served, jwks=f"{server.url}/keys")
        assert await status(served, token()) == 200
        strangers = [asyncio.ensure_future(status(served, token(kid=f"unknown{n}"))) for n in range(50)]
        await asyncio.sleep(0.1)
        assert await asyncio.wait_for(status(served, token()), 10) == 200
        assert server.fetches == 2
        assert [*await asyncio.wait_for(asyncio.gather(*strangers), 10)] == [401] * 50
        released.set()


def test_a_missing_library_is_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "jwt", None)
    with pytest.raises(ModuleNotFoundError) as caught:
        JWT(jwks=KEYS, audience="notes")
    assert extras.install_command("jwt") in str(caught.value)
