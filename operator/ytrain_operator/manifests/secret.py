"""The Secret of a job: the token that its pods and the operator know each other by, and the job for the launcher.

The job itself is no secret; a ConfigMap for it would be one more object to make for every job.
"""

import base64
import hashlib
import hmac

import yaml

from ytrain_api import API_VERSION, KIND
from ytrain_operator.manifests.ownership import Manifest, metadata, surroundings_name
from ytrain_operator.observed import Observed

TOKEN, JOB = "token", "job.yaml"
"""Keys, which are files where it is mounted."""

_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # in Python it would be most of a plan's time

_OPERATOR_ALONE = {"suspend", "queue", "image"}
"""What does not matter inside the pods, and would change the Secret for nothing."""


def token(key: bytes, uid: str) -> str:
    """HMAC-SHA256(operator's key, job's uid): made again whenever it is needed, so no Secret is ever read back."""
    return hmac.new(key, uid.encode(), hashlib.sha256).hexdigest()


def secret(observed: Observed, key: bytes) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata(observed, surroundings_name(observed.name)),
        "type": "Opaque",
        "data": {
            name: base64.b64encode(text.encode()).decode()
            for name, text in ((TOKEN, token(key, observed.uid)), (JOB, _job(observed)))
        },
    }


def _job(observed: Observed) -> str:
    """Only what the job's author or the API server wrote: a trainer of another version has defaults of its own."""
    spec = observed.job.spec.model_dump(
        mode="json", by_alias=True, exclude_none=True, exclude_unset=True, exclude=_OPERATOR_ALONE
    )
    for role in ("launcher", "workers"):
        spec.get(role, {}).pop("template", None)
    document = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": observed.name, "namespace": observed.namespace, "uid": observed.uid},
        "spec": spec,
    }
    return yaml.dump(document, Dumper=_DUMPER, sort_keys=False, allow_unicode=True)
