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
