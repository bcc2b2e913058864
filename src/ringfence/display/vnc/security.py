"""Who may look: security types of the remote framebuffer protocol.

Sources: RFC 6143, section 7.2 (none, VNC authentication); the VeNCrypt extension, version 0.2
(security type 19: TLS with a certificate, and one of the two inside).
"""

import asyncio
import hmac
import os
import ssl
from asyncio import StreamReader, StreamWriter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from ringfence.display.vnc.config import VncConfig
from ringfence.errors import ConfigError

__all__ = ["RefusedError", "Security", "response"]

NONE, VNC, VENCRYPT = 1, 2, 19
X509_NONE, X509_VNC = 260, 261
_CHALLENGE = 16
#: Seconds before a wrong password is answered.
_PENALTY = 1.0
_MISSING = "vnc: passwords and certificates need cryptography: pip install 'ringfence[screen]'"


class RefusedError(Exception):
    """The client may not look, or does not keep to the protocol; the text is for it."""


def response(password: str, challenge: bytes) -> bytes:
    """What a client that knows the password answers to a challenge (RFC 6143, section 7.2.2).

    Raises:
        ConfigError: cryptography is not installed.
    """
    try:
        from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
        from cryptography.hazmat.primitives.ciphers import Cipher, modes
    except ImportError:
        raise ConfigError(_MISSING) from None
    key = password.encode("latin-1", "replace")[:8].ljust(8, b"\0")
    # The protocol's DES takes the bits of each byte of the key in the opposite order.
    mirrored = bytes(int(f"{byte:08b}"[::-1], 2) for byte in key)
    # Thrice the same key makes it plain DES.
    cipher = Cipher(TripleDES(mirrored * 3), modes.ECB())  # noqa: S305 - the protocol's choice
    return cipher.encryptor().update(challenge)


class Security:
    """The security handshake of a server.

    Args:
        config: What the user asks for.

    Raises:
        ConfigError: cryptography is not installed, or the certificate can't be used.
    """

    def __init__(self, config: VncConfig) -> None:
        self._password = config.password
        if config.password is not None:
            response(config.password, bytes(_CHALLENGE))
        self._tls = _context(config) if config.tls else None

    async def negotiate(self, reader: StreamReader, writer: StreamWriter, version: int) -> None:
        """Lets a client in, or raises.

        Raises:
            RefusedError: it may not look.
        """
        plain = NONE if self._password is None else VNC
        kind = VENCRYPT if self._tls is not None else plain
        if version == 3:
            # Version 3.3: the server decides, and knows no extensions.
            if kind == VENCRYPT:
                raise RefusedError("this server wants TLS, which protocol version 3.3 has not")
            writer.write(kind.to_bytes(4, "big"))
        else:
            writer.write(bytes([1, kind]))
            await writer.drain()
            chosen = (await reader.readexactly(1))[0]
            if chosen != kind:
                raise RefusedError(f"security type {chosen} was not offered")
        if kind == VENCRYPT:
            await self._start_tls(reader, writer)
        if plain == VNC:
            await self._ask_password(reader, writer)
        if version >= 8 or plain == VNC:
            writer.write(bytes(4))

    async def _start_tls(self, reader: StreamReader, writer: StreamWriter) -> None:
        writer.write(bytes([0, 2]))
        await writer.drain()
        if await reader.readexactly(2) != bytes([0, 2]):
            writer.write(b"\xff")
            raise RefusedError("")
        kind = X509_NONE if self._password is None else X509_VNC
        writer.write(bytes([0, 1]) + kind.to_bytes(4, "big"))
        await writer.drain()
        if int.from_bytes(await reader.readexactly(4), "big") != kind:
            writer.write(b"\0")
            raise RefusedError("")
        writer.write(b"\1")
        await writer.drain()
        assert self._tls is not None
        await writer.start_tls(self._tls)

    async def _ask_password(self, reader: StreamReader, writer: StreamWriter) -> None:
        challenge = os.urandom(_CHALLENGE)
        writer.write(challenge)
        await writer.drain()
        answer = await reader.readexactly(_CHALLENGE)
        assert self._password is not None
        if not hmac.compare_digest(answer, response(self._password, challenge)):
            await asyncio.sleep(_PENALTY)
            raise RefusedError("the password is wrong")


def _context(config: VncConfig) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        if config.certificate is not None and config.key is not None:
            context.load_cert_chain(config.certificate, config.key)
        else:
            with TemporaryDirectory(prefix="ringfence-vnc-") as folder:
                context.load_cert_chain(*_make_certificate(Path(folder), config.host))
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"vnc: the certificate can't be used: {error}") from error
    return context


def _make_certificate(folder: Path, host: str) -> tuple[Path, Path]:
    """A certificate that we sign ourselves, and its key, as files."""
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError:
        raise ConfigError(_MISSING) from None
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host or "ringfence")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=365))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    files = folder / "certificate.pem", folder / "key.pem"
    files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return files
