"""The Secret with the token that the job's pods and the operator know each other by."""

import base64
import hashlib
import hmac

from ytrain_operator.manifests.ownership import Manifest, metadata, surroundings_name
from ytrain_operator.observed import Observed

FILE = "token"


def token(key: bytes, uid: str) -> str:
    """HMAC-SHA256(operator's key, job's uid): made again whenever it is needed, so no Secret is ever read back."""
    return hmac.new(key, uid.encode(), hashlib.sha256).hexdigest()


def secret(observed: Observed, key: bytes) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata(observed, surroundings_name(observed.name)),
        "type": "Opaque",
        "data": {FILE: base64.b64encode(token(key, observed.uid).encode()).decode()},
    }
