"""The operator's key, from which job tokens are made: a Secret of its own namespace, made at the first start.

A random value in the chart would be another one at every rendering of a GitOps tool.
"""

import base64
import secrets

from ytrain_operator.kube import Api, ApiError
from ytrain_operator.manifests.ownership import MANAGED_BY

NAME, FIELD = "ytrain-operator-key", "key"


async def operator_key(api: Api, namespace: str) -> bytes:
    """The key, made if there is none.

    Raises:
        ApiError: the API server does not answer, or does not allow it.
    """
    try:
        found = await api.get("Secret", namespace, NAME)
    except ApiError as error:
        if error.status != 404:
            raise
        found = await _made(api, namespace)
    return base64.b64decode(found["data"][FIELD])


async def _made(api: Api, namespace: str) -> dict[str, dict[str, str]]:
    metadata = {"name": NAME, "namespace": namespace, "labels": dict(MANAGED_BY)}
    data = {FIELD: base64.b64encode(secrets.token_bytes(32)).decode()}
    manifest = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque", "data": data}
    try:
        return await api.create(manifest)
    except ApiError as error:
        if error.status != 409:
            raise
        return await api.get("Secret", namespace, NAME)  # another operator was first
