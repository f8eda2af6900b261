"""The chart's roles: an operator that may do this and nothing else runs a job, and each of its rules is used."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes.aio import client
from live import InNamespace, Namespace, requests_made, until

from ytrain_operator.kube import Api

pytestmark = pytest.mark.api

CHART = Path("helm/ytrain/templates")
UNUSED_HERE = {
    ("watch", "ytrainjobs"),  # kopf's own requests are not counted
    ("watch", "pods"),
    ("update", "ytrainjobs/finalizers"),  # asked for by an admission plugin that this cluster does not have
    ("get", "events"),  # of news that was told before, which is counted
    ("patch", "events"),
    ("delete", "ytrainjobs"),  # policy.ttlDeletes: job
    ("patch", "pods"),  # one whose name is taken, and Kueue's marks
}


def rules_between(file: str, begin: str, end: str) -> list[dict[str, Any]]:
    """Rules of a template; they stand there as plain YAML."""
    text = (CHART / file).read_text()
    rules: list[dict[str, Any]] = yaml.safe_load(text[text.index(begin) + len(begin) :].partition(end)[0])
    return rules


JOB_RULES = rules_between("_helpers.tpl", 'define "ytrain.jobRules" -}}', "{{- end }}")
OWN_RULES = rules_between("roles.yaml", "rules:\n", "---")


async def as_service_account(namespace: Namespace) -> Api:
    """An API of an operator that has the chart's roles."""
    rbac = client.RbacAuthorizationV1Api(namespace.connection)
    await namespace.core.create_namespaced_service_account(namespace.name, {"metadata": {"name": "operator"}})
    await rbac.create_namespaced_role(
        namespace.name, {"metadata": {"name": "operator"}, "rules": [*JOB_RULES, *OWN_RULES]}
    )
    await rbac.create_namespaced_role_binding(
        namespace.name,
        {
            "metadata": {"name": "operator"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "operator"},
            "subjects": [{"kind": "ServiceAccount", "name": "operator", "namespace": namespace.name}],
        },
    )
    asked = {"spec": {"audiences": [], "expirationSeconds": 3600}}
    made = await namespace.core.create_namespaced_service_account_token("operator", namespace.name, asked)
    given = namespace.connection.configuration
    settings = client.Configuration(host=given.host)
    settings.ssl_ca_cert, settings.verify_ssl = given.ssl_ca_cert, given.verify_ssl
    settings.api_key["BearerToken"] = f"Bearer {made.status.token}"
    return Api(client.ApiClient(settings))


def test_the_roles_are_enough_and_not_more(in_namespace: InNamespace) -> None:
    async def test(namespace: Namespace) -> None:
        api = await as_service_account(namespace)
        async with api.client:
            before = requests_made()
            async with namespace.operator(api):
                await namespace.create_job({"storage": {"claim": None, "size": "1Gi"}})

                async def made() -> bool:
                    return len(await namespace.pods()) == 3

                await until("all pods are made", made)
                await namespace.change_job({"suspend": True})
                await namespace.phase_is("Suspended")
                await namespace.change_job({"suspend": False})  # children that are there are applied
                await until("all pods are made again", made)
            used = {key for key, value in requests_made().items() if value > before[key]}
        # The tests' own requests count too; those are of the objects that they look at.
        allowed = {(verb, resource) for rule in JOB_RULES for resource in rule["resources"] for verb in rule["verbs"]}
        applied = {resource for verb, resource in used if verb == "patch" and "/" not in resource}
        asked = used | {("create", resource) for resource in applied} | {("list", "ytrainjobs"), ("list", "pods")}
        assert allowed - asked == UNUSED_HERE
        assert ("get", "secrets") not in allowed

    in_namespace(test)
