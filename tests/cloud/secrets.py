"""Credentials to plant where users keep theirs, and the search for them in whatever comes out."""

import base64
import bz2
import io
import json
import re
import zipfile
import zlib

# As Beam writes functions down: bzip2 or zlib, in base64.
_PICKLED = re.compile(rb"(?:QlpoO|eJ)[A-Za-z0-9+/]{16,}={0,2}")


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
        packed = base64.b64decode(found + b"=" * (-len(found) % 4))
        try:
            yield bz2.decompress(packed) if packed.startswith(b"BZh") else zlib.decompress(packed)
        except (OSError, ValueError, zlib.error):
            continue
