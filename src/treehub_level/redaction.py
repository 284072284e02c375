"""Secrets in URLs: user names, passwords, and the values of parameters are not repeated."""

from __future__ import annotations

import re
from typing import Final

#: A URL within a text, from the scheme of PostgreSQL or the end of another scheme.
_URL_IN_TEXT: Final = re.compile(r"(?:postgres(?:ql)?)?://[^\s'\"]+")
#: The user in the URL of a database, which is no secret. That of another URL may be a token.
_DATABASE_USER: Final = re.compile(r"postgres(?:ql)?://([^:@/?]*)")
#: A port that is no number: most likely the password of a URL whose host is missing.
_NO_PORT: Final = re.compile(r":(?![0-9]*(?:,|$))[^:\]]*$")
#: The parameter of a store's URL that is no secret.
_STORE: Final = re.compile(r"store=[a-z0-9_-]*")
#: Names of parameters that hold secrets. In a text, the URL may be a key, which is to be readable.
_SECRET_NAME: Final = re.compile("pass|pwd|secret|token|key|auth|sig|cred|session", re.IGNORECASE)


def redact_url(url: str) -> str:
    """Return a URL, valid or not, without user, password and the values of its parameters.

    The user of a database, and the parameter ``store``, stay.
    """
    return _redact(url, re.compile("")) if "://" in url else url


def redact_text(text: str) -> str:
    """Return a text with its URLs, without their users, passwords and secret parameters."""
    return _URL_IN_TEXT.sub(lambda match: _redact(match[0], _SECRET_NAME), text)


def _redact(url: str, secrets: re.Pattern[str]) -> str:
    """Redact a URL. Everything before the last "@" may be a password.

    Args:
        url: The URL.
        secrets: The names of the parameters whose values are redacted.
    """
    scheme, separator, rest = url.partition("://")
    credentials, at, rest = rest.rpartition("@")
    if at:
        user = _DATABASE_USER.match(url)
        is_user_alone = user is not None and user[1] == credentials
        credentials = credentials if is_user_alone else "***" if user is None else f"{user[1]}:***"
    rest, mark, fragment = rest.partition("#")
    address, question, query = rest.partition("?")
    query = "&".join(_redact_parameter(parameter, secrets) for parameter in query.split("&"))
    fragment = _redact_parameter(fragment, secrets)
    authority, slash, path = address.partition("/")
    authority = _NO_PORT.sub(":***", authority)
    return "".join((scheme, separator, credentials, at, authority, slash, path, question, query, mark, fragment))


def _redact_parameter(parameter: str, secrets: re.Pattern[str]) -> str:
    name, equals, _ = parameter.partition("=")
    if not parameter or _STORE.fullmatch(parameter) or not secrets.search(name):
        return parameter
    return f"{name}=***" if equals else "***"
