"""Where a job's result goes, and how it gets there: once, complete, with a record of what it was made from."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeGuard

import torch

from ytrain.methods.bucket_output import RECORD, BucketOutput
from ytrain.methods.inputs import Inputs
from ytrain.models.export import Verified, export
from ytrain.models.folder import check_empty, check_writable, digest
from ytrain.models.language_model import LanguageModel
from ytrain.training.checkpoint import Position
from ytrain.training.run_folder import RunFolder, read_json, write_json
from ytrain_api.errors import SpecError
from ytrain_api.job import Spec

VERIFIED_SAMPLES, VERIFIED_TOKENS = 3, 512


class OutputFolder:
    """The folder that a job's result goes to; one that is to lie in a bucket is written to `default` and uploaded.

    Args:
        config: digest of what determines the result.
        identity: of the run that fills it, see `run_identity`.
        run: its work folder. Once it has a checkpoint, an output of its own may lie there: the finished one, or
            the one of fewer steps, which is replaced. Absent: nothing may lie there.

    Raises:
        SpecError: a claim without a folder here, a path that leaves its claim, or a folder or bucket that
            holds something else or cannot be written.
        TransientError: the bucket cannot be reached.
    """

    def __init__(
        self,
        spec: Spec,
        config: str,
        identity: str,
        *,
        default: Path,
        base_dir: Path,
        claims: Mapping[str, Path],
        run: RunFolder | None = None,
    ) -> None:
        target = spec.output.target
        self.path = locate(target, base_dir, claims, default)
        self._spec = spec
        self._config = config
        self._run = identity
        begun = run is not None and run.begun()
        record = self.path / RECORD
        ours = begun and record.is_file() and read_json(record)["run"] == identity
        # True where the process died between writing the output and recording the end of the run.
        self.written = ours and read_json(record)["config"] == config
        self._outdated = ours and not self.written
        field = f"spec.output.target: {target or self.path}"
        if not ours:
            check_empty(self.path, field=field)
        check_writable(self.path.parent, field=field)  # it is written beside its place
        self._bucket = (
            # An upload that was cut off is no output yet: whoever does the same job may replace it.
            BucketOutput(target, lambda record, finished: record.get("run") == identity and (begun or not finished))
            if in_bucket(target)
            else None
        )

    def write(
        self, model: LanguageModel, inputs: Inputs, position: Position, tell: Callable[[str], None] = lambda _: None
    ) -> dict[str, Any]:
        """Export, verify and upload; returns the `output` entry of result.json.

        Args:
            tell: hears now and then how far an upload is.
        """
        if self._outdated:
            shutil.rmtree(self.path)  # the last checkpoint holds what is written now
        if not self.written:
            dataset = inputs.train.dataset
            samples = [
                torch.from_numpy(dataset[i].input_ids[:VERIFIED_TOKENS].astype("int64"))
                for i in range(min(VERIFIED_SAMPLES, len(dataset)))
            ]

            def record(stage: Path, verified: Verified) -> None:
                write_json(stage / RECORD, self._record(inputs, position, verified))

            export(model, inputs.tokenizer, self.path, merge=self._spec.output.merge, samples=samples, record=record)
        if self._bucket is not None:
            self._bucket.upload(self.path, tell)
        verified = read_json(self.path / RECORD)["verified"]
        return {
            "path": told_path(self._spec.output.target, self.path),
            "digest": digest(self.path),
            "verified": verified,
        }

    def _record(self, inputs: Inputs, position: Position, verified: Verified) -> dict[str, Any]:
        return {
            "run": self._run,
            "config": self._config,
            "data": position.data_digest,
            "base": {"source": self._spec.model.source, "revision": inputs.model.revision},
            "step": position.step,
            "verified": {
                "maxLogitDifference": verified.max_logit_difference,
                "mergedMaxLogitDifference": verified.merged_max_logit_difference,
                "changeFromBase": verified.change_from_base,
            },
        }


def in_bucket(target: str | None) -> TypeGuard[str]:
    """Whether `spec.output.target` names a bucket."""
    return target is not None and target.startswith("s3://")


def told_path(target: str | None, folder: Path) -> str:
    """Where the result lies, as records and messages say it."""
    return target if in_bucket(target) else str(folder)


def locate(target: str | None, base_dir: Path, claims: Mapping[str, Path], default: Path) -> Path:
    """The folder that `spec.output.target` names: `default` without one, and before an upload to a bucket.

    Raises:
        SpecError: a claim without a folder here, or a path that leaves its claim.
    """
    if target is None or in_bucket(target):
        return default
    scheme, _, rest = target.partition("://")
    if scheme == "file":
        return (base_dir / rest).resolve()
    claim, _, path = rest.partition("/")
    if claim not in claims:
        raise SpecError(
            f"spec.output.target: {target}: the claim has no folder here; give one with --claim {claim}=DIR"
        )
    root = claims[claim].resolve()
    folder = (root / path).resolve()
    if folder == root or not folder.is_relative_to(root):
        raise SpecError(f"spec.output.target: {target}: name a folder below the claim, without '..'")
    return folder
