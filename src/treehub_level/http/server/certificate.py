"""The TLS certificate of the server, which can be read again while the server runs."""

from __future__ import annotations

import ssl

from .certificate_expiry import certificate_expiry


class Certificate:
    """A certificate chain with its private key.

    Args:
        path: The PEM file with the certificate chain.
        key_path: The PEM file with the private key; ``None`` if it is in the same file.

    Attributes:
        path: The PEM file with the certificate chain.
        context: The TLS settings of new connections.
        expires: The time at which the certificate of new connections expires, in seconds since
            1970; ``None`` if it cannot be read.

    Raises:
        OSError: A file cannot be read, is not PEM, or the key does not belong to the certificate.
    """

    def __init__(self, path: str, key_path: str | None) -> None:
        self.path = path
        self._key_path = key_path
        self.context, self.expires = _loaded(path, key_path, None)

    def reload(self) -> None:
        """Read the files again, for new connections.

        Raises:
            OSError: As for the class. The previous certificate stays in use. A key with a password
                cannot be read again, because no one is there to enter it.
        """
        self.context, self.expires = _loaded(self.path, self._key_path, "")


def _loaded(path: str, key_path: str | None, password: str | None) -> tuple[ssl.SSLContext, float | None]:
    """Return the TLS settings with a certificate, and the time at which it expires."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(path, key_path, password)
    with open(path, encoding="ascii", errors="replace") as file:
        return context, certificate_expiry(file.read())
