"""Reading the tokens and the certificate again, at SIGHUP."""

from __future__ import annotations

import logging
import os
import ssl
from contextlib import suppress

from ...errors import StorageError
from .certificate import Certificate
from .tokens import Tokens

logger = logging.getLogger("treehub_level.http")


def reload(tokens: Tokens | None, certificate: Certificate | None) -> None:
    """Read the tokens and the certificate again, and log the outcome for each. Raise no error.

    Args:
        tokens: The tokens of the server, if it has any.
        certificate: The certificate of the server, if it uses TLS.
    """
    if tokens is None and certificate is None:
        logger.info("SIGHUP: the server has neither tokens nor a certificate to reload")
    if tokens is not None:
        _reload_tokens(tokens)
    if certificate is not None:
        _reload_certificate(certificate)


def _reload_tokens(tokens: Tokens) -> None:
    try:
        count = len(tokens.all())
    except StorageError as error:
        logger.error("SIGHUP: the tokens were not reloaded, and requests that need one get 503: %s", error)
    else:
        logger.info("SIGHUP: reloaded %d tokens from %s", count, tokens.path)


def _reload_certificate(certificate: Certificate) -> None:
    try:
        certificate.reload()
    except OSError as error:
        reason = error.reason or "it is not PEM" if isinstance(error, ssl.SSLError) else error.strerror
        logger.error(
            "SIGHUP: the certificate %s was not reloaded, and the previous one stays in use: %s; "
            "check that both files are readable, the key belongs to the certificate and has no password",
            certificate.path,
            reason,
        )
    else:
        logger.info("SIGHUP: reloaded the certificate %s for new connections", certificate.path)


def has_terminal() -> bool:
    """Return True if the process has a controlling terminal. A closed one sends SIGHUP, too."""
    with suppress(OSError):
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
        return True
    return False
