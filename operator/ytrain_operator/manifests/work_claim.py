"""The PersistentVolumeClaim of `storage.size`: the work volume, which outlives the job and its pods."""

from ytrain_operator.manifests.ownership import Manifest, labels, work_claim_name
from ytrain_operator.observed import Observed
from ytrain_operator.settings import Settings


def work_claim(observed: Observed, settings: Settings) -> Manifest | None:
    """None if the job asks for no new volume. It has no owner reference: nothing deletes it but a person."""
    storage = observed.job.spec.storage
    if storage is None or storage.size is None:
        return None
    several = observed.job.spec.workers.replicas > 1
    class_name = storage.class_name or settings.jobs.storage_class
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": work_claim_name(observed.name),
            "namespace": observed.namespace,
            "labels": labels(observed),
        },
        "spec": {
            "accessModes": [storage.access_mode or ("ReadWriteMany" if several else "ReadWriteOnce")],
            "resources": {"requests": {"storage": str(storage.size)}},
            **({"storageClassName": class_name} if class_name else {}),
        },
    }


def serves(claim: Manifest, refusal: str) -> bool:
    """Whether a claim that is there does as well, by the words with which the API server refuses to change it.

    A person enlarged it, or it was made for several workers, or when the settings named another class. One for a single
    node does not serve several workers; the words show how the two differ.
    """
    if "field can not be less than" in refusal:
        return True
    several = "ReadWriteMany" in claim["spec"]["accessModes"]
    return "spec is immutable after creation" in refusal and not (several and "ReadWriteOnce" in refusal)
