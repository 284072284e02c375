"""Self-signed certificates for servers on the loopback interface."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

#: True if certificates can be made.
CAN_MAKE_CERTIFICATES = shutil.which("openssl") is not None


@dataclass(frozen=True)
class CertificateFiles:
    """A certificate for localhost and 127.0.0.1.

    Attributes:
        certificate: The path of the certificate.
        key: The path of its private key.
    """

    certificate: str
    key: str

    @property
    def options(self) -> tuple[str, ...]:
        """The options of ``treehub-level serve`` for the certificate."""
        return "--tls-cert", self.certificate, "--tls-key", self.key

    def trusting(self) -> ssl.SSLContext:
        """Return the settings of a client that trusts the certificate."""
        return ssl.create_default_context(cafile=self.certificate)


def make_certificate(folder: Path, days: int = 30) -> CertificateFiles:
    """Make a certificate in a folder, valid for some days, or replace the one that is there."""
    files = CertificateFiles(str(folder / "cert.pem"), str(folder / "key.pem"))
    names = "subjectAltName=DNS:localhost,IP:127.0.0.1"
    make = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=x"]
    command = ["openssl", *make, "-addext", names, "-days", str(days), "-keyout", files.key, "-out", files.certificate]
    subprocess.run(command, check=True, capture_output=True)
    return files
