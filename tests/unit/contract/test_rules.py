"""Every CEL rule: a job that breaks it, the field that is named, and changes of an existing job."""

from typing import Any

import pytest

from ytrain_api import parse_job
from ytrain_api.cel import check_rules, holds
from ytrain_api.check import check_job, check_update
from ytrain_api.schema import Schema, job_schema

pytestmark = pytest.mark.unit

LORA = {"spec.model.lora": {}}
RL = {"spec.sft": ..., "spec.rl": {"reward": {"builtin": {"kind": "exact"}}}}
TREE = {"spec.sft": ..., "spec.rl.reward": {"builtin": {"kind": "exact"}}}
TOKEN = "hf_" + "aB3" * 11
ENV = {"spec": {"containers": [{"name": "trainer", "env": [{"name": "HF_TOKEN", "value": TOKEN}]}]}}

BROKEN: list[tuple[str, dict[str, Any]]] = [
    ("metadata.name", {"metadata.name": "Support"}),
    ("metadata.name", {"metadata.name": "7b"}),
    ("metadata.name", {"metadata.name": "a" * 51}),
    ("spec", {"spec.sft": ...}),
    ("spec", {"spec.cpt": {}}),
    ("spec.data.overlong", {"spec.data.overlong": "split"}),
    ("spec.data.overlong", RL | {"spec.data.overlong": "split"}),
    ("spec.optimization.microBatchTokens", {"spec.optimization.microBatchTokens": 1024}),
    ("spec.optimization.batchSequences", {"spec.optimization": {"batchTokens": 1024, "batchSequences": 8}}),
    ("spec.output.merge", {"spec.output.merge": True}),
    ("spec.workers.replicas", {"spec.workers.replicas": 2}),
    ("spec.workers.minReplicas", {"spec.workers.minReplicas": 2}),
    (
        "spec.storage.accessMode",
        {"spec.workers.replicas": 2, "spec.storage": {"size": "1Gi", "accessMode": "ReadWriteOnce"}},
    ),
    ("spec.storage", {"spec.storage": {}}),
    ("spec.storage", {"spec.storage": {"claim": "a", "size": "1Gi"}}),
    ("spec.storage.className", {"spec.storage": {"claim": "a", "className": "fast"}}),
    ("spec.storage.accessMode", {"spec.storage": {"claim": "a", "accessMode": "ReadWriteMany"}}),
    ("spec.policy.ttlDeletes", {"spec.policy.ttlDeletes": "job"}),
    ("spec.policy.hangTimeout", {"spec.policy.hangTimeout": "0s"}),
    ("spec.policy.activeDeadline", {"spec.policy.activeDeadline": "0h0m"}),
    ("spec.deepspeed.offload", {"spec.deepspeed": {"offload": "parameters"}}),
    ("spec.deepspeed.offload", {"spec.deepspeed": {"offload": "optimizer", "zeroStage": 0}}),
    ("spec.sft.loss.nlirg", {"spec.sft.loss": {"kind": "dft", "nlirg": {}}}),
    ("spec.sft.loss.eaft", {"spec.sft.loss": {"eaft": {"exponent": 2}}}),
    ("spec.sft.loss.threshold", {"spec.sft.loss": {"threshold": {"limit": 5}}}),
    ("spec.sft.loss.threshold", {"spec.sft.loss": {"kind": "threshold"}}),
    ("spec.sft.loss.nlirg.split", {"spec.sft.loss.nlirg": {"split": 20}}),
    ("spec.corpus.clusters", {"spec.sft": ..., "spec.corpus": {"analyses": ["divergence"], "clusters": {}}}),
    ("spec.corpus.divergence", {"spec.sft": ..., "spec.corpus": {"analyses": ["clusters"], "divergence": {}}}),
    ("spec.corpus.duplicates", {"spec.sft": ..., "spec.corpus": {"analyses": ["clusters"], "duplicates": {}}}),
    ("spec.rl.reward", {"spec.sft": ..., "spec.rl.reward": {}}),
    ("spec.rl.objective.advantage", TREE | {"spec.rl.objective.advantage": "tree"}),
    ("spec.rl.reward.builtin.pattern", {"spec.sft": ..., "spec.rl.reward.builtin": {"kind": "regex"}}),
    ("spec.rl.reward.builtin.jsonSchema", {"spec.sft": ..., "spec.rl.reward.builtin": {"kind": "jsonSchema"}}),
    (
        "spec.rl.reward.builtin.maxTokens",
        {"spec.sft": ..., "spec.rl.reward.builtin": {"kind": "exact", "maxTokens": 5}},
    ),
    ("spec.rl.rollout.gpuMemoryUtilization", TREE | {"spec.rl.rollout": {"gpuMemoryUtilization": 0.5}}),
    ("spec.rl.rollout.topP", TREE | {"spec.rl.rollout": {"engine": "vllm", "topP": 0.9, "temperature": 0.7}}),
    ("spec.rl.tree.pruning", TREE | {"spec.rl.rollout": {"engine": "vllm"}, "spec.rl.tree.pruning": {}}),
    ("spec.rl.tree", TREE | {"spec.rl.tree": {"rounds": 4, "forks": 32, "branches": 32}}),  # and 8 chains
    ("spec.model.source", {"spec.model.source": f"hf://{TOKEN}@hub/model"}),
    ("spec.data.systemPrompt", {"spec.data.systemPrompt": "use AKIAABCDEFGHIJKLMNOP"}),
    ("spec.data.systemPrompt", {"spec.data.systemPrompt": "key: sk-" + "x1" * 12}),
    ("spec.data.systemPrompt", {"spec.data.systemPrompt": "sk-proj-" + "x1" * 12}),
    ("spec.data.systemPrompt", {"spec.data.systemPrompt": "configmap://prompts/system.txt"}),
    ("spec.output.target", {"spec.output.target": "s3://AKIAABCDEFGHIJKLMNOP/x"}),
    ("spec.workers.template.spec.containers[0].env[0].value", {"spec.workers.template": ENV}),
]

ACCEPTED: list[dict[str, Any]] = [
    {"spec.data.systemPrompt": "file://x is how you name files."},
    {"metadata.name": "a" * 50},
    {"spec.sft": ..., "spec.cpt": {}, "spec.data.overlong": "split"},
    {"spec.sft": ..., "spec.corpus": {"analyses": ["clusters"]}, "spec.data.overlong": "split"},
    {"spec.optimization.microBatchTokens": 4096},
    {"spec.optimization.batchSequences": 8, "spec.optimization.batchTokens": None},
    LORA | {"spec.output.merge": True},
    {"spec.workers": {"replicas": 2, "minReplicas": 2}, "spec.storage": {"claim": "work"}},
    {"spec.storage": {"size": "1Gi", "className": "fast"}},
    {"spec.policy": {"ttlDeletes": "job", "ttlAfterFinished": "24h", "hangTimeout": "10m"}},
    {"spec.deepspeed": {"offload": "parameters", "zeroStage": 3}},
    {"spec.sft.loss": {"kind": "threshold", "threshold": {"limit": 5}}},
    {"spec.sft.loss": {"kind": "eaft", "eaft": {"exponent": 2}}},
    TREE | {"spec.rl.objective.advantage": "tree", "spec.rl.tree": {}},
    TREE | {"spec.rl.rollout": {"engine": "vllm", "gpuMemoryUtilization": 0.5, "temperature": 0.7}, "spec.rl.tree": {}},
    TREE | {"spec.rl.rollout": {"engine": "vllm", "topP": 0.9}},
    TREE | {"spec.rl.rollout.chains": 1024, "spec.rl.tree": {"rounds": 3, "forks": 32, "branches": 32}},
    TREE | {"spec.rl.rollout": {"topP": 0.9, "temperature": 0.7}, "spec.rl.tree.pruning": {}},
    {"spec.sft": ..., "spec.rl.reward.builtin": {"kind": "regex", "pattern": "a+"}},
    {"spec.sft": ..., "spec.rl.reward.python": {"source": "configmap://my/reward.py:score"}},
    {"spec.data.systemPrompt": "a task-specific risk-averse helper, see hf_hub and sk-learn"},
    {"spec.workers.template": {"spec": {"nodeSelector": {"gpu": "yes"}, "containers": [{"name": "trainer"}]}}},
    {"spec.deepspeed": {"config": {"zero_optimization": {"overlap_comm": None}}}},
]

CHANGES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("", {}, {"spec.suspend": True}),
    ("", {}, {"spec.policy.restarts": 1, "spec.queue": "gpu"}),
    ("", {}, {"spec.optimization.epochs": 4}),
    ("", {"spec.optimization.maxSteps": 5}, {"spec.optimization.maxSteps": 6}),
    ("", {"spec.optimization.maxSteps": 5}, {}),
    ("", {}, {"spec.sft.loss": {"kind": "nlirg"}, "spec.optimization.learningRate": None}),
    ("spec.optimization", {}, {"spec.optimization.batchTokens": 65536}),
    (
        "",
        {"spec.suspend": True, "spec.storage": {"claim": "a"}},
        {"spec.workers.replicas": 2, "spec.storage": {"claim": "a"}},
    ),
    (
        "spec.workers.replicas",
        {"spec.storage": {"claim": "a"}},
        {"spec.workers.replicas": 2, "spec.storage": {"claim": "a"}},
    ),
    ("spec.optimization.epochs", {}, {"spec.optimization.epochs": 2}),
    ("spec.optimization.maxSteps", {"spec.optimization.maxSteps": 5}, {"spec.optimization.maxSteps": 4}),
    ("spec.optimization.maxSteps", {}, {"spec.optimization.maxSteps": 4}),
    ("spec.optimization", {}, {"spec.optimization.seed": 1}),
    ("spec.optimization", {}, {"spec.optimization.learningRate": 1e-5}),
    ("spec.model", {}, {"spec.model.source": "hf://other/model"}),
    ("spec.model", {}, LORA),
    ("spec.data", {}, {"spec.data.maxTokens": 100}),
    ("spec.sft", {}, {"spec.sft.window": {"tokens": 10}}),
    ("spec.cpt", {"spec.sft": ..., "spec.cpt": {}}, {"spec.sft": ..., "spec.cpt.loss.kind": "dft"}),
    ("spec.rl", RL, RL | {"spec.rl": {"reward": {"builtin": {"kind": "numeric"}}}}),
    ("spec.corpus", {"spec.sft": ..., "spec.corpus": {}}, {"spec.sft": ..., "spec.corpus": {"examples": 5}}),
    ("spec.deepspeed", {}, {"spec.deepspeed": {}}),
    ("spec.evaluation", {}, {"spec.evaluation.everySteps": 5}),
    ("spec.checkpoint", {}, {"spec.checkpoint.keep": 5}),
    ("spec.output", {}, {"spec.output.target": "pvc://models/x"}),
    ("spec.storage", {}, {"spec.storage": {"claim": "a"}}),
    ("spec.image", {}, {"spec.image": "trainer:2"}),
    ("spec.secrets", {}, {"spec.secrets": ["a"]}),
    ("spec.launcher", {}, {"spec.launcher.resources": {"limits": {"cpu": 1}}}),
    ("spec.workers", {}, {"spec.workers.template": {"metadata": {"labels": {"a": "b"}}}}),
]


@pytest.mark.parametrize(("path", "changes"), BROKEN)
def test_a_broken_rule_names_its_field(job_data, path: str, changes: dict[str, Any]) -> None:
    job, findings = check_job(job_data(changes))
    assert job is None
    assert [str(finding).split(": ")[0] for finding in findings] == [path]


@pytest.mark.parametrize("changes", ACCEPTED)
def test_an_accepted_job_breaks_none(job_data, changes: dict[str, Any]) -> None:
    parse_job(job_data(changes))


@pytest.mark.parametrize(("path", "before", "after"), CHANGES)
def test_changes_of_an_existing_job(job_data, path: str, before: dict[str, Any], after: dict[str, Any]) -> None:
    old, new = job_data(before), job_data(after)
    assert parse_job(old) and parse_job(new)
    assert [str(finding).split(": ")[0] for finding in check_update(old, new)] == ([path] if path else [])


def test_a_new_job_may_only_be_chained_not_edited(job_data) -> None:
    (finding,) = check_update(job_data(), job_data({"spec.data.maxTokens": 100}))
    assert "create a new job, with model.source set to this one's output.target" in str(finding)


def every_rule(schema: Schema) -> list[dict[str, str]]:
    children = [*schema.get("properties", {}).values(), *([schema["items"]] if "items" in schema else [])]
    return [*schema.get("x-kubernetes-validations", []), *(rule for child in children for rule in every_rule(child))]


def test_every_rule_has_a_job_that_breaks_it(job_data) -> None:
    broken = {finding.message for _, changes in BROKEN for finding in check_job(job_data(changes))[1]}
    for _, before, after in CHANGES:
        broken |= {finding.message for finding in check_update(job_data(before), job_data(after))}
    assert {rule["message"] for rule in every_rule(job_schema())} - broken == set()


def test_no_secret_is_repeated_in_its_message(job_data) -> None:
    _, findings = check_job(job_data({"spec.model.source": f"{TOKEN}"}))
    assert findings
    assert not any(TOKEN in str(finding) for finding in findings)


def test_a_rule_is_a_truth_value() -> None:
    assert holds("self.a > 1 && !has(self.b)", {"a": 2})
    assert holds("self == oldSelf", {"a": [1]}, {"a": [1]})


def test_a_rule_that_cannot_be_evaluated_is_broken_as_in_the_api_server() -> None:
    schema = {"type": "string", "x-kubernetes-validations": [{"rule": "self > 1", "message": "more than one"}]}
    assert [finding.message for finding in check_rules(schema, "text")] == ["more than one"]
    assert list(check_rules(schema, "text", types_are_right=False)) == []
