"""TLS certificates made for one call, with which a scheduler's processes authenticate each other."""

from datetime import datetime
from typing import Any

from cntk_bench.errors import UserError
from cntk_bench.text import one_line

VALID = datetime(1970, 1, 2), datetime(2199, 12, 31)


def made() -> Any:
    """Make a new certificate and key, as Dask's `Security`.

    They are protected by the key, which is discarded after the call, not by an expiry date: the clocks of
    several machines differ and may be reset meanwhile.

    Raises
    ------
    UserError
        If a library is missing.
    """
    import distributed

    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError as error:
        raise UserError(
            f"a scheduler needs certificates ({one_line(error, 80)}): pip install 'cntk-bench[cluster]'"
        ) from None
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "cntk-bench")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("cntk-bench")]), critical=False)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(VALID[0])
        .not_valid_after(VALID[1])
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
        .decode()
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    each = {f"tls_{who}_{what}": text for who in ("client", "scheduler", "worker")
            for what, text in (("key", secret), ("cert", certificate))}  # fmt: skip
    return distributed.Security(require_encryption=True, tls_ca_file=certificate, **each)
