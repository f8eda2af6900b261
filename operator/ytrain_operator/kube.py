"""The API server, as far as the operator uses it: server-side apply, deletion of one certain object, paged lists.

The only module that imports the Kubernetes client. Paths are written here rather than discovered: discovery would ask
for every API group of the cluster at every start.
"""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import aiohttp
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, ApiException, Configuration
from kubernetes.aio.dynamic import DynamicClient
from prometheus_client import Counter

from ytrain_api.errors import SpecError

FIELD_MANAGER = "ytrain-operator"
PAGE = 500
SECONDS = 30.0
"""Longest wait for an answer."""

_JOBS = ("apis/ytrain.io/v1alpha1", "ytrainjobs")
RESOURCES: Mapping[str, tuple[str, str]] = {
    "YTrainJob": _JOBS,
    "Pod": ("api/v1", "pods"),
    "Secret": ("api/v1", "secrets"),
    "Service": ("api/v1", "services"),
    "PersistentVolumeClaim": ("api/v1", "persistentvolumeclaims"),
    "Event": ("api/v1", "events"),
    "NetworkPolicy": ("apis/networking.k8s.io/v1", "networkpolicies"),
}
"""Where each kind is found: its API and its plural."""

CALLS = Counter("ytrain_operator_api_calls_total", "Requests to the API server.", ["verb", "resource", "code"])


class ApiError(Exception):
    """The API server refused, or did not answer."""

    def __init__(self, status: int | None, message: str) -> None:
        super().__init__(message)
        self.status = status
        """HTTP status; None if there was no answer."""

    @property
    def passing(self) -> bool:
        """Whether trying again soon may help."""
        young = "error looking up service account" in str(self)  # in a namespace that was made just now
        if "failed to create typed patch object" in str(self):  # a field that no pod has, from a template: 500
            return False
        # The garbage collector has yet to remove a child of a former job of this name.
        former = "Only one reference can have Controller set to true" in str(self)
        return self.status is None or self.status in (409, 429) or self.status >= 500 or young or former


async def connect() -> ApiClient:
    """A client for the cluster that this process runs in, or that KUBECONFIG names.

    Raises:
        SpecError: there is neither.
    """
    settings = Configuration()
    try:
        config.load_incluster_config(client_configuration=settings)
    except config.ConfigException:
        try:
            await config.load_kube_config(client_configuration=settings)
        except config.ConfigException as error:
            raise SpecError(f"no cluster: not in a pod, and no kubeconfig ({error}); set KUBECONFIG") from error
    settings.connection_pool_maxsize = 64
    # By default ~/.netrc is looked up for every request, in a thread. The watches read no proxy variables either.
    settings.client_session_kwargs = {"trust_env": False}
    return ApiClient(settings)


class Api:
    """Requests in the operator's name."""

    def __init__(self, client: ApiClient) -> None:
        self.client = client
        self._dynamic = DynamicClient(client)

    async def apply(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """Make an object as the manifest says, whether it exists or not."""
        metadata = manifest["metadata"]
        return await self._request(
            *("patch", manifest["kind"], _path(manifest["kind"], metadata["namespace"], metadata["name"])),
            # As text: the client would write JSON with escapes of two halves (\ud83c\udfd6), which are no YAML.
            body=json.dumps(manifest, ensure_ascii=False),
            content_type="application/apply-patch+yaml; charset=utf-8",
            field_manager=FIELD_MANAGER,
            force_conflicts="true",
        )

    async def make(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """Make an object that is most probably not there yet; for the API server that is two thirds of an apply.

        What it has against the plain way, such as an object of that name, it says of the other way; of one that is
        there already a full quota says so first. A later apply changes fields and adds some; one that it no longer
        names stays, unless it stood in an atomic list.
        """
        try:
            return await self._request(
                *("post", manifest["kind"], _path(manifest["kind"], manifest["metadata"]["namespace"])),
                body=manifest,
                query_params=[("fieldValidation", "Strict")],  # a field that no pod has is an error, as in an apply
                field_manager=FIELD_MANAGER,
            )
        except ApiError as error:
            if error.status not in (400, 403, 409, 422):
                raise
            return await self.apply(manifest)

    async def replace_status(self, job: Mapping[str, Any], status: Mapping[str, Any]) -> dict[str, Any]:
        """Write a job's whole status, if it is still the same job.

        Not by server-side apply: the API server sorts the managers that apply by time, and takes the next apply of an
        unchanged file for a change when another one, of the status, came after the last.
        """
        metadata = job["metadata"]
        body = [
            {"op": "test", "path": "/metadata/uid", "value": metadata["uid"]},
            {"op": "add", "path": "/status", "value": status},
        ]
        path = _path("YTrainJob", metadata["namespace"], metadata["name"]) + "/status"
        return await self._request(
            *("patch", "YTrainJob/status", path),
            body=body,
            content_type="application/json-patch+json",
            field_manager=FIELD_MANAGER,
        )

    async def patch(self, kind: str, namespace: str, name: str, patch: Sequence[Mapping[str, Any]]) -> None:
        """Change an object that still is as the patch's tests say."""
        content = "application/json-patch+json"
        try:
            await self._request(
                *("patch", kind, _path(kind, namespace, name)),
                body=list(patch),
                content_type=content,
                field_manager=FIELD_MANAGER,
            )
        except ApiError as error:
            if error.status not in (404, 422):  # gone, or another one
                raise

    async def delete(
        self, kind: str, namespace: str, name: str, uid: str, *, at_once: bool = False
    ) -> dict[str, Any] | None:
        """Delete an object if it is still the same one; returns it if it goes on for a while, to end by itself."""
        body: dict[str, Any] = {"preconditions": {"uid": uid}, "propagationPolicy": "Background"}
        if at_once:
            body["gracePeriodSeconds"] = 0
        try:
            answer = await self._request("delete", kind, _path(kind, namespace, name), body=body)
        except ApiError as error:
            if error.status in (404, 409):  # gone, or another one of this name
                return None
            raise
        lingers = answer.get("kind") == kind and answer["metadata"].get("deletionGracePeriodSeconds")
        return answer if lingers else None

    async def get(self, kind: str, namespace: str, name: str) -> dict[str, Any]:
        """One object."""
        return await self._request("get", kind, _path(kind, namespace, name))

    async def discovered(self, kind: str) -> bool:
        """Whether discovery tells of a kind: a CRD that was made just now may be served a moment before."""
        api, plural = RESOURCES[kind]
        try:
            response = await self._dynamic.request("get", f"/{api}", serialize=False, _request_timeout=SECONDS)
            return any(resource["name"] == plural for resource in (await response.json())["resources"])
        except ApiException as error:
            if error.status == 404:
                return False
            raise ApiError(error.status, _words(error)) from None
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise ApiError(None, f"get /{api}: the API server does not answer ({type(error).__name__})") from error

    async def create(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """A new object; ApiError 409 if there is one."""
        kind = manifest["kind"]
        path = _path(kind, manifest["metadata"]["namespace"])
        return await self._request("post", kind, path, body=manifest)

    async def pages(
        self, kind: str, *, namespace: str | None = None, labels: str | None = None
    ) -> AsyncIterator[tuple[list[dict[str, Any]], int]]:
        """All objects of a kind, page by page, each with the version of the list."""
        following: str | None = None
        # Items of a list do not say what they are.
        what = {"apiVersion": RESOURCES[kind][0].removeprefix("api/").removeprefix("apis/"), "kind": kind}
        while True:
            page = await self._request(
                "get", kind, _path(kind, namespace), label_selector=labels, limit=PAGE, _continue=following
            )
            yield [{**what, **item} for item in page["items"]], int(page["metadata"]["resourceVersion"])
            following = page["metadata"].get("continue")
            if not following:
                return

    async def _request(self, verb: str, kind: str, path: str, **params: Any) -> dict[str, Any]:
        resource = RESOURCES[kind.partition("/")[0]][1] + kind.removeprefix(kind.partition("/")[0])
        code = "none"
        try:
            response = await self._dynamic.request(verb, path, serialize=False, _request_timeout=SECONDS, **params)
            code = str(response.status)
            answer: dict[str, Any] = await response.json()
            return answer
        except ApiException as error:
            code = str(error.status)
            raise ApiError(error.status, _words(error)) from None
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise ApiError(None, f"{verb} {path}: the API server does not answer ({type(error).__name__})") from error
        finally:
            CALLS.labels(verb, resource, code).inc()


def _path(kind: str, namespace: str | None, name: str | None = None) -> str:
    api, plural = RESOURCES[kind]
    inside = f"/namespaces/{namespace}" if namespace else ""
    return f"/{api}{inside}/{plural}" + (f"/{name}" if name else "")


def _words(error: ApiException) -> str:
    """The API server's own words."""
    try:
        return str(json.loads(error.body or "")["message"])
    except (TypeError, ValueError, KeyError):
        return f"{error.status} {error.reason}"
