"""From the job's words to the objects that train: token weights, model and adapter, start, teacher, engine, plan."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from transformers import PretrainedConfig

from ytrain.corpus.scoring import ROW_TOKENS
from ytrain.data.dataset import TokenDataset
from ytrain.engine.base import Engine, OptimizerSettings
from ytrain.engine.deepspeed_engine import DeepSpeedEngine
from ytrain.engine.torch_engine import TorchEngine
from ytrain.engine.world import World
from ytrain.methods.chosen import chosen_method
from ytrain.methods.inputs import Inputs
from ytrain.methods.method import OtherModel
from ytrain.models.language_model import FrozenModel, HiddenStates, LanguageModel, StartModel
from ytrain.models.load import check_vocabulary, load_language_model
from ytrain.models.lora import add_adapter, continue_adapter, default_learning_rate
from ytrain.models.probe import check_packed_forward, rescaled_beyond
from ytrain.objective import weights
from ytrain.objective.head import Objective
from ytrain.training.plan import Plan
from ytrain.training.selection import Selection
from ytrain_api.errors import SpecError
from ytrain_api.job import Spec
from ytrain_api.loss import TokenLoss

FULL_LEARNING_RATE = 5e-6


def weight_function(loss: TokenLoss) -> weights.WeightFunction:
    """The token weight that the method's `loss` describes."""
    match loss.kind:
        case "nlirg":
            assert loss.nlirg is not None
            return weights.nlirg(**loss.nlirg.model_dump())
        case "eaft":
            assert loss.eaft is not None
            return weights.eaft(exponent=loss.eaft.exponent)
        case "threshold":
            assert loss.threshold is not None
            return weights.threshold(limit=loss.threshold.limit)
        case "dft":
            return weights.dft()
        case "crossEntropy":
            return weights.cross_entropy()


def objective(spec: Spec) -> Objective:
    """What the job minimises."""
    method = chosen_method(spec)
    return Objective(
        weigh=weight_function(method.loss),
        rescale=method.loss.rescale,
        anchor_weight=method.anchor_weight,
        teacher_share=method.teacher_share,
    )


@dataclass(frozen=True, kw_only=True)
class Models:
    """The model that is trained, and how to get at the ones that it is compared with."""

    current: LanguageModel
    start: Callable[[], HiddenStates]
    """The model before training. With LoRA it costs nothing; for a full training it is loaded anew at each call."""
    teacher: HiddenStates | None
    reference: HiddenStates | None


def load_models(spec: Spec, inputs: Inputs, *, device: torch.device, compute_dtype: torch.dtype) -> Models:
    """Load what the job trains, its adapter, and the models that it asks.

    Raises:
        SpecError: a folder that holds no such model, or one to be asked that has another vocabulary, or does not
            compute in packed rows what it does alone.
    """
    lora = spec.model.lora
    current = load_language_model(inputs.model.path, compute_dtype=compute_dtype, device=device, trained=lora is None)
    if lora is not None and inputs.adapter is not None:
        current = continue_adapter(
            current,
            inputs.adapter.path,
            rank=lora.rank,
            alpha=lora.alpha,
            dropout=lora.dropout,
            targets=lora.targets,
        )
    elif lora is not None:
        current = add_adapter(
            current,
            rank=lora.rank,
            alpha=lora.alpha,
            dropout=lora.dropout,
            targets=lora.targets,
            seed=spec.optimization.seed,
        )
    if spec.model.gradient_checkpointing:
        current.module.activation_checkpointing_enable({"use_reentrant": False})

    def start() -> HiddenStates:
        if lora is not None:
            return StartModel(current)
        return FrozenModel(
            load_language_model(inputs.model.path, compute_dtype=compute_dtype, device=device, trained=False)
        )

    method = chosen_method(spec)
    teacher, reference = (
        _ask(other, inputs, current, packing=spec.data.packing) if other else None
        for other in (method.teacher, method.reference)
    )
    return Models(current=current, start=start, teacher=teacher, reference=reference)


def selection(spec: Spec, models: Models) -> Selection | None:
    """How the tokens worth learning are chosen, where the job wants it."""
    if models.reference is None:
        return None
    return Selection(reference=models.reference, keep_fraction=chosen_method(spec).keep_fraction)


def _ask(other: OtherModel, inputs: Inputs, current: LanguageModel, *, packing: bool) -> HiddenStates:
    model = load_language_model(
        inputs.others[other.field].path,
        compute_dtype=current.compute_dtype,
        device=current.device,
        trained=False,
        field=other.field,
    )
    check_vocabulary(model.module.config, current.module.config, other.field)
    check_packed_forward(model, packing=packing, field=other.field)
    return FrozenModel(model)


def engine(spec: Spec, model: LanguageModel, world: World) -> Engine:
    """The engine over the parameters that training moves."""
    optimization = spec.optimization
    settings = OptimizerSettings(weight_decay=optimization.weight_decay, gradient_clip=optimization.gradient_clip)
    if spec.deepspeed is None:
        return TorchEngine(model.trainable(), settings, world)
    head = model.head()
    return DeepSpeedEngine(
        model.top,
        model.trainable(),
        settings,
        world,
        spec.deepspeed,
        outside=[weight for weight in (head.weight_VD, head.bias_V) if isinstance(weight, torch.nn.Parameter)],
    )


def peak_learning_rate(spec: Spec, hidden_size: int) -> float:
    """The job's learning rate, or the default for a full training, or the one that fits a LoRA of this width."""
    if spec.optimization.learning_rate is not None:
        return spec.optimization.learning_rate
    return default_learning_rate(hidden_size) if spec.model.lora else FULL_LEARNING_RATE


def plan(spec: Spec, dataset: TokenDataset) -> Plan:
    """The steps of the job over its training data."""
    optimization, method = spec.optimization, chosen_method(spec)
    return Plan(
        lengths=dataset.lengths,
        label_counts=dataset.supervised_counts,
        seed=optimization.seed,
        epochs=optimization.epochs,
        max_steps=optimization.max_steps,
        batch_tokens=None if method.samples_per_step else optimization.batch_tokens,
        batch_sequences=method.samples_per_step or optimization.batch_sequences,
        row_tokens=row_tokens(spec),
        packing=spec.data.packing,
        window_tokens=method.window_tokens,
        step_row_tokens=spec.data.max_tokens if method.whole_rows else None,
        epoch_samples=partial(dataset.epoch_samples, optimization.seed),
    )


def check_row_positions(spec: Spec, config: PretrainedConfig, inputs: Inputs) -> None:
    """Refuse rows in which a long sample would change what the model computes for a short one.

    Raises:
        SpecError: the model scales the positions of a row by its longest sample, and rows hold several.
    """
    limit = rescaled_beyond(config)
    if limit is None or not spec.data.packing:
        return
    data = [inputs.train, *([inputs.validation] if inputs.validation else []), *inputs.retention.values()]
    longest = max(int(each.dataset.lengths.max()) for each in data)
    if longest > limit:
        raise SpecError(
            f"spec.data.packing: beyond {limit} tokens this model scales the positions of a row otherwise, and the "
            f"longest sample has {longest}, so short samples in its row would not be what they are alone; set "
            f"data.packing: false, or data.maxTokens to {limit}"
        )


def row_tokens(spec: Spec) -> int:
    """Most tokens of one forward pass in training."""
    return spec.optimization.micro_batch_tokens or spec.data.max_tokens


def scored_row_tokens(spec: Spec) -> int:
    """Most tokens of one forward pass that scores a corpus."""
    return spec.optimization.micro_batch_tokens or max(spec.data.max_tokens, ROW_TOKENS)
