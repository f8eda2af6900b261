"""kopf's event handlers: they put what they hear into the cache and wake the job that it is about, nothing else.

Only low-level handlers are used: they write no annotation and no finalizer to anybody's object, and kopf needs no
persistence for them. kopf keeps the connections, the bookmarks and the reconnects.
"""

from collections.abc import Mapping
from typing import Any

import kopf
from kubernetes.aio.client import Configuration

from ytrain_operator.cache import Cache, Key
from ytrain_operator.manifests.ownership import MANAGED_BY
from ytrain_operator.work_queue import WorkQueue

OUR_PODS = ",".join(f"{name}={value}" for name, value in MANAGED_BY.items())
"""Label selector, for the API server: pods of others never come here."""


def handlers(cache: Cache, queue: WorkQueue[Key], connection: Configuration) -> kopf.OperatorRegistry:
    """What kopf calls."""
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.ConnectionInfo:
        """The same cluster and the same credentials as the client's; a token is read anew."""
        given = await connection.get_api_key_with_prefix("BearerToken")
        scheme, _space, token = (given or "").rpartition(" ")
        return kopf.ConnectionInfo(
            server=connection.host,
            ca_path=connection.ssl_ca_cert,
            insecure=not connection.verify_ssl,
            scheme=(scheme or "Bearer") if token else None,
            token=token or None,
            certificate_path=connection.cert_file,
            private_key_path=connection.key_file,
        )

    @kopf.on.event("ytrain.io", "v1alpha1", "ytrainjobs", registry=registry)
    async def job(event: Mapping[str, Any], **_: Any) -> None:
        gone = event["type"] == "DELETED"
        key = (cache.drop_job if gone else cache.put_job)(event["object"])
        if key is not None:
            # In a burst of jobs all get their pods before the statuses of any are brought up to date.
            queue.add(key, first="status" not in event["object"])

    @kopf.on.event("", "v1", "pods", registry=registry)
    async def pod(event: Mapping[str, Any], **_: Any) -> None:
        gone = event["type"] == "DELETED"
        key = (cache.drop_pod if gone else cache.put_pod)(event["object"])
        if key is not None:
            queue.add(key)

    return registry


class _NothingToCompare(kopf.DiffBaseStorage):
    """No last state of objects, which kopf compares with for handlers that we do not have.

    Its default copies every object whole at every event; that was half of the operator's processor time.
    """

    def build(self, **_: Any) -> kopf.BodyEssence:
        return kopf.BodyEssence()

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None:
        return None


class _NoProgress(kopf.ProgressStorage):
    """Nor progress of handlers."""

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None:
        return None

    def purge(self, **_: Any) -> None:
        return None

    def touch(self, **_: Any) -> None:
        return None

    def clear(self, *, essence: kopf.BodyEssence) -> kopf.BodyEssence:
        return essence


def kopf_settings() -> kopf.OperatorSettings:
    """Watches that notice when they are dead, and nothing of kopf's that we do ourselves."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.persistence.diffbase_storage = _NothingToCompare()
    settings.persistence.progress_storage = _NoProgress()
    settings.scanning.disabled = True  # no watch of CRDs and namespaces, which needs a ClusterRole
    settings.watching.chunk_size = 500
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 310
    settings.watching.label_selectors["", "v1", "pods"] = OUR_PODS
    settings.networking.connect_timeout = 10
    settings.networking.request_timeout = 30
    return settings
