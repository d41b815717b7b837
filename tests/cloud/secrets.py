"""Credentials to plant where users keep theirs, and the search for them in whatever comes out."""

import base64
import bz2
import contextlib
import io
import json
import re
import zipfile
import zlib

# As Beam writes functions down: bzip2 or zlib, in base64.
_PICKLED = re.compile(rb"(?:QlpoO|eJ|eN)[A-Za-z0-9+/]{16,}={0,2}")


def plant(secret: str, patch, folder) -> None:
    """Puts the secret into every variable and file by which drivers find credentials."""
    account = {
        "type": "service_account",
        "project_id": "mill-project",
        "private_key_id": secret,
        "private_key": f"-----BEGIN PRIVATE KEY-----\n{secret}\n-----END PRIVATE KEY-----\n",
        "client_email": "mill@mill-project.iam.gserviceaccount.com",
        "token_uri": "https://oauth2.googleapis.com/token",
    }
    path = folder / "account.json"
    path.write_text(json.dumps(account))
    patch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
    patch.setenv("HF_TOKEN", secret)
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        patch.setenv(name, secret)


def holds(data: bytes, secret: str) -> bool:
    """Whether the secret stands in some data: plain, in base64, in a zip file, in a pickle."""
    return any(secret.encode() in layer for layer in _layers(data))


def _layers(data: bytes):
    yield data
    if data.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for name in archive.namelist():
                yield from _layers(archive.read(name))
    for found in _PICKLED.findall(data):
        # What stands behind it, if that looks like base64 too, does no harm.
        packed = base64.b64decode(found[: len(found) // 4 * 4])
        for decompressor in (bz2.BZ2Decompressor(), zlib.decompressobj()):
            with contextlib.suppress(OSError, zlib.error):
                yield decompressor.decompress(packed)
