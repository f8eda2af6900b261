"""Refuses by name what the contract knows and this version cannot do yet: nothing is ignored in silence."""

from ytrain.engine.deepspeed_config import findings as deepspeed_findings
from ytrain.methods import rl
from ytrain.methods.corpus import ignored_fields
from ytrain_api import YTrainJob
from ytrain_api.errors import SpecError


def check_available(job: YTrainJob) -> None:
    """Raises:
    SpecError: one line for each thing that is asked for and not available, or that keeps the job from running here.
    """
    spec = job.spec
    findings = []
    if spec.suspend:
        findings.append("spec.suspend: true: the job is not to run; set it to false")
    if spec.corpus is not None:
        findings += ignored_fields(spec)
    else:
        if spec.rl is not None:
            findings += rl.findings(spec)
        if spec.deepspeed is not None:
            findings += deepspeed_findings(spec.deepspeed)
    if findings:
        raise SpecError("\n".join(findings))
