"""The environment of a client: proxies, certificates, and the log of TLS keys.

httpx reads these variables, too, but raises ``InvalidURL``, ``ImportError``, ``ValueError`` or
``OSError`` for those that it cannot use, and knows no networks in ``NO_PROXY``. So the variables
are read here, and httpx does not look at the environment.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Literal
from urllib.parse import SplitResult, urlsplit
from urllib.request import getproxies

import httpx

from ...errors import TransportError

_PROXY_SCHEMES = ("http", "https", "socks5", "socks5h")
_DEFAULT_PORTS = {"http": 80, "https": 443}


def network_options(
    url: str, ssl_context: ssl.SSLContext | None
) -> tuple[ssl.SSLContext | Literal[False], httpx.Proxy | None]:
    """Return the certificates and the proxy of a client, which the environment decides.

    Args:
        url: The URL of the database.
        ssl_context: The trusted certificates; ``None`` for those of the environment.

    Raises:
        TransportError: A variable cannot be used. The message names it, and repeats no password.
    """
    # Loading the certificates takes tens of milliseconds, so HTTP does without. A redirect cannot
    # lead from HTTP to HTTPS (`DatabaseURL.resolve_redirect`).
    verify = url.startswith("https:") and (ssl_context or _default_context())
    return verify, proxy_for(url)


# ------------------------------------------------------------------------------------------ proxies


def proxy_for(url: str) -> httpx.Proxy | None:
    """Return the proxy through which a URL is reached; ``None`` for a direct connection.

    It is the one in ``HTTP_PROXY`` or ``HTTPS_PROXY``, by the scheme of the URL, or else in
    ``ALL_PROXY``, unless ``NO_PROXY`` lists the host. On macOS and Windows the settings of the
    system apply if no variable is set.

    Raises:
        TransportError: The proxy cannot be used.
    """
    target = urlsplit(url)
    proxies = getproxies()
    scheme = target.scheme if proxies.get(target.scheme) else "all"
    proxy = proxies.get(scheme)
    if not proxy or is_excluded(target, proxies.get("no", "")):
        return None
    variable = f"{scheme.upper()}_PROXY"
    try:
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        if parts.scheme not in _PROXY_SCHEMES:
            raise _unusable(variable, f"the scheme {parts.scheme[:20]!r} is none of {', '.join(_PROXY_SCHEMES)}")
        if not parts.hostname or parts.port == 0:
            raise ValueError
        parts.hostname.encode("idna")
        parsed = httpx.Proxy(parts.geturl())
    except (ValueError, httpx.InvalidURL):
        # Neither repeat nor chain the error, whose text may contain a password.
        parsed = None
    if parsed is None:
        raise _unusable(variable, "it is no URL like http://HOST:PORT")
    if parsed.url.scheme.startswith("socks") and find_spec("socksio") is None:
        raise _unusable(variable, "SOCKS proxies need the package socksio: pip install 'httpx[socks]'")
    return parsed


def is_excluded(target: SplitResult, no_proxy: str) -> bool:
    """Return True if ``NO_PROXY`` lists the host of a URL.

    Entries are separated by commas or spaces. Each is ``*``; a host name, which stands for its
    subdomains as well; a name that begins with a dot, which stands for its subdomains only; an
    address, in brackets or not; or a network, such as ``10.0.0.0/8`` or ``fd00::/8``. A scheme
    before an entry and a port behind it restrict it. Entries of no such form match no host.
    """
    return any(_matches(target, entry) for entry in no_proxy.replace(",", " ").split())


def _matches(target: SplitResult, entry: str) -> bool:
    if entry == "*":
        return True
    scheme, _, rest = entry.lower().rpartition("://")
    host, port = _split_port(rest)
    if scheme not in ("", "all", target.scheme) or port not in ("", _port(target)):
        return False
    hostname = (target.hostname or "").removesuffix(".")
    address, network = _network(hostname), _network(host)
    if address is not None and network is not None:
        return address.version == network.version and address.subnet_of(network)  # type: ignore[arg-type]
    if address is not None or network is not None:
        return False
    domain = host.removeprefix("*").strip(".")
    return bool(domain) and (hostname.endswith(f".{domain}") or hostname == host)


def _split_port(entry: str) -> tuple[str, str]:
    """Split an entry into the host, without brackets, and the port; empty if there is none."""
    if entry.startswith("["):
        host, _, rest = entry[1:].partition("]")
        return (host + rest, "") if rest.startswith("/") else (host, rest.removeprefix(":"))
    if _network(entry) is not None:
        return entry, ""
    host, _, port = entry.partition(":")
    return host, port


def _port(target: SplitResult) -> str:
    return str(target.port or _DEFAULT_PORTS[target.scheme])


def _network(host: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    """Return the network, or the one of a single address; ``None`` for a host name."""
    try:
        return ipaddress.ip_network(host, strict=False)
    except ValueError:
        return None


# ---------------------------------------------------------------------------------------------- TLS


def _default_context() -> ssl.SSLContext:
    """Return a context with the certificates of the environment, or else with those of httpx."""
    file, folders = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
    if file:
        return _context("SSL_CERT_FILE", partial(ssl.create_default_context, cafile=file))
    if folders:
        # OpenSSL ignores a directory that is missing, and then trusts no certificate at all.
        if not any(map(os.path.isdir, folders.split(os.pathsep))):
            raise _unusable("SSL_CERT_DIR", "it names no directory")
        return _context("SSL_CERT_DIR", partial(ssl.create_default_context, capath=folders))
    return _context("OPENSSL_CONF", partial(httpx.create_ssl_context, trust_env=False))


def _context(variable: str, create: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
    try:
        return create()
    except (OSError, ValueError) as error:  # an SSLError is an OSError
        key_log = os.environ.get("SSLKEYLOGFILE")
        # Only the error of opening that file has a file name.
        if key_log and isinstance(error, OSError) and error.filename == key_log:
            variable = "SSLKEYLOGFILE"
        raise _unusable(variable, str(error) or type(error).__name__) from error


def _unusable(variable: str, reason: str) -> TransportError:
    return TransportError(
        f"the environment variable {variable} cannot be used: {reason}. Correct the variable, or unset it"
    )
