"""What `spec.deepspeed` becomes in DeepSpeed's own words, and which of its settings a job may not give."""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from ytrain_api.optimization import Deepspeed

FIELD = "spec.deepspeed.config"
ZERO = "zero_optimization"
BUCKET_ELEMENTS = 50_000_000
"""Gradients in one message, 200 MB: DeepSpeed's own 2 GB are more than many a model. A job may change it."""

_BATCH = "spec.optimization.batchTokens or batchSequences, and the rows that they make"
_SUM = "the number of labels of the step, over which the gradient is summed"
_PRECISION = "spec.model.precision"
_OFFLOAD = "spec.deepspeed.offload"
_CLIP = "spec.optimization.gradientClip"
_ADAMW = "spec.optimization"
_DATA_PARALLEL = "spec.workers: every rank trains on rows of its own"

MANAGED = {
    "train_batch_size": _BATCH,
    "train_micro_batch_size_per_gpu": "spec.optimization.microBatchTokens",
    "gradient_accumulation_steps": _BATCH,
    "managed_gradient_accumulation": _BATCH,
    "gradient_allreduce_op": _SUM,
    "prescale_gradients": _SUM,
    "gradient_predivide_factor": _SUM,
    "gradient_clipping": _CLIP,
    "optimizer": _ADAMW,
    "zero_allow_untested_optimizer": _ADAMW,
    "zero_force_ds_cpu_optimizer": _ADAMW,
    "scheduler": "spec.optimization.schedule",
    "fp16": _PRECISION,
    "bf16": _PRECISION,
    "bfloat16": _PRECISION,
    "amp": _PRECISION,
    "torch_autocast": _PRECISION,
    "data_types": _PRECISION,
    "activation_checkpointing": "spec.model.gradientCheckpointing",
    "checkpoint": "spec.checkpoint",
    "elasticity": "spec.workers",
    "tensor_parallel": _DATA_PARALLEL,
    "expert_parallel": _DATA_PARALLEL,
    "sequence_parallel_size": _DATA_PARALLEL,
    "data_parallel_size": _DATA_PARALLEL,
    "pipeline": _DATA_PARALLEL,
}
"""Settings that the trainer gives DeepSpeed itself, and from what."""

MANAGED_ZERO = {
    "stage": "spec.deepspeed.zeroStage",
    "offload_optimizer": _OFFLOAD,
    "offload_param": _OFFLOAD,
    "cpu_offload": _OFFLOAD,
    "cpu_offload_param": _OFFLOAD,
    "cpu_offload_use_pin_memory": _OFFLOAD,
    "compute_grad_norm": _CLIP,
    "zenflow": _ADAMW,
    "round_robin_gradients": "the order of weights in a checkpoint",
    "elastic_checkpoint": "spec.checkpoint",
    "load_from_fp32_weights": "spec.checkpoint",
}
"""The same inside `zero_optimization`. DeepSpeed refuses what it does not know there, and only there."""

PASSED_ON = (
    ZERO,
    "comms_logger",
    "communication_data_type",
    "disable_python_gc",
    "dump_state",
    "flops_profiler",
    "log_level",
    "memory_breakdown",
    "steps_per_print",
    "wall_clock_breakdown",
)
"""Everything else that has an effect here. DeepSpeed would pass over an unknown name in silence."""


def findings(block: Deepspeed) -> list[str]:
    """What keeps a job with this block from running here, a line each."""
    found = _refused(block.config)
    if find_spec("deepspeed") is None:
        found.append(
            "spec.deepspeed: DeepSpeed is not installed here; install it with: pip install 'ytrain[deepspeed]', "
            "or remove the block to train with PyTorch alone"
        )
    return found


def _refused(config: Mapping[str, Any]) -> list[str]:
    found = [_managed(name, MANAGED[name]) for name in config if name in MANAGED]
    found += [
        f"{FIELD}.{name}: no setting that the trainer passes on; it passes on {', '.join(PASSED_ON)}"
        for name in config
        if name not in MANAGED and name not in PASSED_ON
    ]
    zero = config.get(ZERO, {})
    if not isinstance(zero, Mapping):
        return [*found, f"{FIELD}.{ZERO}: {zero!r}: must be a block of settings"]
    return found + [_managed(f"{ZERO}.{name}", MANAGED_ZERO[name]) for name in zero if name in MANAGED_ZERO]


def _managed(name: str, source: str) -> str:
    return f"{FIELD}.{name}: is set by the trainer from {source}; remove it"


def deepspeed_config(block: Deepspeed) -> dict[str, Any]:
    """DeepSpeed's configuration: float32, no clipping and no accumulation of its own; the job's settings on top."""
    host = {"device": "cpu"}
    offload: dict[str, Any] = {
        "none": {},
        "optimizer": {"offload_optimizer": host},
        "parameters": {"offload_optimizer": host, "offload_param": host},
    }[block.offload]
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_clipping": 0.0,
        # DeepSpeed's own AdamW for CPUs must be compiled and is no faster: 44 ms for 30M weights, PyTorch's 40 ms.
        "zero_force_ds_cpu_optimizer": False,
        **block.config,
        ZERO: {
            "stage": block.zero_stage,
            "reduce_bucket_size": BUCKET_ELEMENTS,
            **offload,
            **block.config.get(ZERO, {}),
        },
    }
