"""What `load_job` accepts, and what it says about files that are wrong."""

from pathlib import Path

import pytest

from ytrain_api import config_digest, dump_job, load_job
from ytrain_api.errors import SpecError

pytestmark = pytest.mark.unit

GOOD = """\
apiVersion: ytrain.io/v1alpha1
kind: YTrainJob
metadata: {name: support-bot}
spec:
  model:
    source: hf://Qwen/Qwen3-0.6B@main
  data:
    train:
      - source: configmap://support-bot-data/train.jsonl
    systemPrompt: null
  sft: {}
  optimization: {learningRate: 5e-6, epochs: 3}
"""
CONFIG_MAP = "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: data}\n"
SECRET = "---\napiVersion: v1\nkind: Secret\nmetadata: {name: hub}\n"


def load(folder: Path, text: str):
    path = folder / "sft.yaml"
    path.write_text(text)
    return load_job(path)


def findings(folder: Path, text: str) -> list[str]:
    """The lines of the SpecError, without the folder."""
    with pytest.raises(SpecError) as caught:
        load(folder, text)
    return str(caught.value).replace(f"{folder}/", "").splitlines()


def test_a_small_file_gets_every_default(tmp_path: Path) -> None:
    spec = load(tmp_path, GOOD).job.spec
    assert spec.method == "sft"
    assert spec.sft is not None and spec.sft.loss.nlirg is not None
    assert (spec.sft.loss.kind, spec.sft.loss.nlirg.rise_slope) == ("nlirg", 1.7)
    assert (spec.optimization.learning_rate, spec.optimization.batch_tokens) == (5e-6, 65536)
    assert spec.checkpoint.every.seconds == 900
    assert spec.data.system_prompt is None
    assert (spec.model.precision, spec.model.lora, spec.workers.replicas) == ("auto", None, 1)


def test_the_dumped_job_loads_equal(tmp_path: Path) -> None:
    job = load(tmp_path, GOOD).job
    again = load(tmp_path, dump_job(job)).job
    assert again == job
    assert config_digest(again) == config_digest(job)


def test_config_maps_and_secrets_beside_the_job(tmp_path: Path) -> None:
    others = "---\nkind: PersistentVolumeClaim\nspec: {whatever: 1}\n"
    file = load(
        tmp_path,
        GOOD
        + CONFIG_MAP
        + "data: {train.jsonl: 'é'}\nbinaryData: {blob: AAE=}\n"
        + SECRET
        + "data: {token: aGk=, other: aGk=}\nstringData: {token: plain}\n"
        + others,
    )
    assert file.config_maps == {"data": {"train.jsonl": "é".encode(), "blob": b"\x00\x01"}}
    assert file.secrets == {"hub": {"token": b"plain", "other": b"hi"}}
    assert "plain" not in repr(file)


@pytest.mark.parametrize(
    ("written", "instead", "finding"),
    [
        (
            "learningRate: 5e-6",
            "learnignRate: 5e-6",
            "12: spec.optimization.learnignRate: unknown field; did you mean learningRate?",
        ),
        (
            "  sft: {}",
            "  sft: {}\n  maxTokens: 5",
            "12: spec.maxTokens: unknown field; did you mean spec.data.maxTokens",
        ),
        ("  sft: {}", "  sft: {}\n  zzz: 5", "12: spec.zzz: unknown field; known here: suspend, model, data, sft"),
        ("  sft: {}", "  stf: {}", "11: spec.stf: unknown field; did you mean sft?"),
        (
            "learningRate",
            "learning_rate",
            "12: spec.optimization.learning_rate: unknown field; did you mean learningRate?",
        ),
        (
            "5e-6",
            '"5e-6"',
            '12: spec.optimization.learningRate: "5e-6": this is text; write the value without quotes; '
            "allowed is a number above 0 and at most 1",
        ),
        (
            "epochs: 3",
            "epochs: 2.5",
            "12: spec.optimization.epochs: 2.5: not a whole number; allowed is a whole number",
        ),
        ("epochs: 3", "epochs: true", "12: spec.optimization.epochs: true: this is true or false, not a number"),
        ("epochs: 3", "epochs: 0", "12: spec.optimization.epochs: 0: not allowed; allowed is a whole number from 1 to"),
        ("epochs: 3", "epochs: [3]", "12: spec.optimization.epochs: this is a list; allowed is a whole number"),
        ("5e-6", ".nan", "12: spec.optimization.learningRate: NaN: not allowed; allowed is a number above 0"),
        ("epochs: 3", "schedule: cosin", 'schedule: "cosin": not allowed; allowed is one of cosine, linear, constant'),
        (
            "systemPrompt: null",
            "systemPrompt: 5",
            "10: spec.data.systemPrompt: 5: this is a number, not text; put it in",
        ),
        (
            "systemPrompt: null",
            "packing: 'true'",
            '10: spec.data.packing: "true": this is text; write the value without',
        ),
        ("systemPrompt: null", "packing: 1", "10: spec.data.packing: 1: not allowed; allowed is true or false"),
        (
            "  sft: {}",
            "  sft: yes",
            "11: spec.sft: true: this is true or false; allowed is a block with the fields loss",
        ),
        ("  sft: {}", "  sft: []", "11: spec.sft: this is a list; allowed is a block with the fields loss"),
        (
            "  sft: {}",
            "  sft: {}\n  checkpoint: {every: 15 m}",
            '12: spec.checkpoint.every: "15 m": not allowed; allowed is',
        ),
        (
            "  sft: {}",
            "  sft: {}\n  checkpoint: {every: 15}",
            "12: spec.checkpoint.every: 15: this is a number, not text;",
        ),
        (
            "  sft: {}",
            "  sft: {}\n  checkpoint: {every: 0s}",
            "12: spec.checkpoint.every: a duration is longer than zero",
        ),
        (
            "  sft: {}",
            "  sft: {}\n  storage: {size: 5GB}",
            '12: spec.storage.size: "5GB": not allowed; allowed is a size',
        ),
        ("  sft: {}", "  sft: {}\n  secrets: [a, a]", '12: spec.secrets[1]: "a": comes twice; entries are unique'),
        (
            "hf://Qwen/Qwen3-0.6B@main",
            "Qwen/Qwen3",
            '6: spec.model.source: "Qwen/Qwen3": not allowed; allowed is hf://',
        ),
        ("    source: hf://Qwen/Qwen3-0.6B@main", "    {}", "5: spec.model.source: missing; add it: hf://owner/name"),
        (
            "ain.io/v1alpha1",
            "ain.io/v1",
            '1: apiVersion: "ytrain.io/v1": not allowed; allowed is only ytrain.io/v1alpha1',
        ),
        ("metadata: {name: support-bot}\n", "", "1: metadata: missing; add it: a block with at least name"),
        (
            "\n      - source: configmap://support-bot-data/train.jsonl",
            " a.jsonl",
            """8: spec.data.train: "a.jsonl": not a list; write [{source: "a.jsonl"}]; allowed is a list""",
        ),
        (
            "source: configmap://support-bot-data/train.jsonl",
            "a.jsonl",
            """9: spec.data.train[0]: "a.jsonl": this is text; write {source: "a.jsonl"}; allowed is a block""",
        ),
        (
            "configmap://support-bot-data/train.jsonl",
            "./a.jsonl",
            '9: spec.data.train[0].source: "./a.jsonl": a path alone; write file://./a.jsonl; allowed is configmap',
        ),
        (
            "configmap://support-bot-data/train.jsonl",
            "/a.jsonl",
            '9: spec.data.train[0].source: "/a.jsonl": a path alone; write file:///a.jsonl; allowed is configmap',
        ),
        ("name: support-bot", "namespace: x", "3: metadata.name: missing; add it: text"),
        ("name: support-bot", "name: Support_Bot", '3: metadata.name: "Support_Bot": the name becomes part of pod'),
        ("name: support-bot", "name: a, nmae: b", "3: metadata.nmae: unknown field"),
        (
            "epochs: 3",
            "epochs: 3, epochs: 4",
            "12: spec.optimization.epochs: given twice, on lines 12 and 12; remove one",
        ),
        (
            "  sft: {}",
            "  sft: {}\n  evaluation: {tasks: [{name: a, source: 'file:///a'}, {name: a, source: 'file:///b'}]}",
            "12: spec.evaluation.tasks[1].name: ",
        ),
    ],
)
def test_one_wrong_field(tmp_path: Path, written: str, instead: str, finding: str) -> None:
    assert GOOD.count(written) == 1
    (said,) = findings(tmp_path, GOOD.replace(written, instead))
    assert finding in said
    assert said.startswith("sft.yaml:")


def test_everything_wrong_is_said_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = GOOD.replace("hf://", "hub:").replace("epochs: 3", "epochs: 0").replace("  sft: {}", "  sft: {}\n  cpt: {}")
    paths = [line.split(": ")[1] for line in findings(tmp_path, text)]
    assert paths == ["spec", "spec.model.source", "spec.optimization.epochs"]


def test_a_misspelt_block_is_checked_under_the_name_that_was_meant(tmp_path: Path) -> None:
    said = findings(tmp_path, GOOD.replace("  sft: {}", "  sfft: {supervise: none}"))
    assert len(said) == 2
    assert any('spec.sft.supervise: "none": not allowed' in line for line in said)


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        ("", "sft.yaml: empty; it should hold a YTrainJob"),
        ("# nothing\n---\n", "sft.yaml: empty; it should hold a YTrainJob"),
        ("hello", "sft.yaml: no document of kind YTrainJob (found: a document without kind)"),
        ("kind: YtrainJob", "sft.yaml: no document of kind YTrainJob (found: YtrainJob)"),
        ("kind: [x", "sft.yaml:1: not YAML: "),
        ("a: b: c", "sft.yaml:1: not YAML: mapping values are not allowed here"),
        ("a: \x00", "sft.yaml: not YAML: unacceptable character"),
        (GOOD + "---\n" + GOOD, "sft.yaml: 2 documents of kind YTrainJob (lines 1 and 14); a file holds exactly one"),
        (GOOD + CONFIG_MAP + "data: [x]", 'sft.yaml:17: data: ["x"]: not a block of keys with text'),
        (GOOD + CONFIG_MAP + "data: {x: 5}", "sft.yaml:17: data.x: this is not text; put it in quotes or after key: |"),
        (
            GOOD + CONFIG_MAP + "binaryData: {x: '%'}",
            "sft.yaml:17: binaryData.x: not base64; encode it, or move the plain",
        ),
        (
            GOOD + SECRET + "data: {x: plain}",
            "sft.yaml:17: data.x: not base64; encode it, or move the plain text to stringData",
        ),
        (GOOD + "---\nkind: ConfigMap\n", "sft.yaml:14: metadata.name: missing; the job names this ConfigMap by it"),
    ],
)
def test_a_wrong_file(tmp_path: Path, text: str, finding: str) -> None:
    (said,) = findings(tmp_path, text)
    assert said.startswith(finding)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"none\.yaml: cannot be read \(No such file or directory\)"):
        load_job(tmp_path / "none.yaml")
    with pytest.raises(SpecError, match="cannot be read"):
        load_job(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe9")
    with pytest.raises(SpecError, match="not UTF-8 text at byte 3"):
        load_job(tmp_path / "latin.yaml")


@pytest.mark.parametrize(
    ("written", "instead", "same"),
    [
        ("  sft: {}", "  sft: {}\n  suspend: true", True),
        ("  sft: {}", "  sft: {}\n  policy: {restarts: 1}\n  queue: gpu", True),
        ("  sft: {}", "  sft: {loss: {kind: nlirg}}", True),
        ("epochs: 3", "epochs: 3, batchTokens: 65536", True),
        ("  sft: {}", "  sft: {loss: {kind: dft}}", False),
        ("epochs: 3", "epochs: 3, seed: 1", False),
    ],
)
def test_digest_counts_what_determines_the_result(tmp_path: Path, written: str, instead: str, same: bool) -> None:
    changed = load(tmp_path, GOOD.replace(written, instead)).job
    assert (config_digest(changed) == config_digest(load(tmp_path, GOOD).job)) == same


@pytest.mark.parametrize(
    ("method", "optimization", "same"),
    [
        ("sft: {}", "batchSequences: 8", False),
        ("sft: {window: {tokens: 8}}", "batchSequences: 8", True),
        ("sft: {window: {tokens: 8}}", "seed: 1", False),
        ("rl: {reward: {builtin: {kind: exact}}}", "batchTokens: 4096", True),
        ("rl: {reward: {builtin: {kind: exact}}}", "seed: 1", False),
        ("corpus: {}", "seed: 1, weightDecay: 0.1", True),
        ("corpus: {}", "microBatchTokens: 4096", False),
    ],
)
def test_fields_that_say_nothing_do_not_count(tmp_path: Path, method: str, optimization: str, same: bool) -> None:
    text = GOOD.replace("sft: {}", method)
    digests = [
        config_digest(load(tmp_path, text.replace("epochs: 3", fields)).job)
        for fields in ("epochs: 3", f"epochs: 3, {optimization}")
    ]
    assert (digests[0] == digests[1]) == same
