"""An authority of the tests' own, and a certificate for this machine."""

import datetime as dt
import ipaddress
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

PEM = serialization.Encoding.PEM


class Authority:
    """A self-made authority, and a server's certificate for 127.0.0.1, ::1 and localhost."""

    def __init__(self, folder: Path) -> None:
        self.certificate = folder / "ca.pem"
        self.server_certificate = folder / "server.pem"
        self.server_key = folder / "server-key.pem"
        now = dt.datetime.now(dt.UTC)
        own_key, self._key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())

        def build(name: str, issuer: str, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
            return (
                x509.CertificateBuilder()
                .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
                .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
                .public_key(key.public_key())
                .serial_number(x509.random_serial_number())
                .not_valid_before(now - dt.timedelta(days=1))
                .not_valid_after(now + dt.timedelta(days=1))
            )

        authority = (
            build("tests", "tests", own_key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(own_key, hashes.SHA256())
        )
        addresses = [x509.IPAddress(ipaddress.ip_address(address)) for address in ("127.0.0.1", "::1")]
        server = (
            build("redis", "tests", self._key)
            .add_extension(x509.SubjectAlternativeName([*addresses, x509.DNSName("localhost")]), critical=False)
            .sign(own_key, hashes.SHA256())
        )
        self.certificate.write_bytes(authority.public_bytes(PEM))
        self.server_certificate.write_bytes(server.public_bytes(PEM))
        self.server_key.write_bytes(self._key_bytes(serialization.NoEncryption()))

    def encrypted_key(self, path: Path) -> Path:
        """Write the server's key once more, with a password."""
        path.write_bytes(self._key_bytes(serialization.BestAvailableEncryption(b"password")))
        return path

    def server_context(self) -> ssl.SSLContext:
        """What a TLS server in the tests is made with."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.server_certificate, self.server_key)
        return context

    def _key_bytes(self, encryption: serialization.KeySerializationEncryption) -> bytes:
        return self._key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, encryption)
