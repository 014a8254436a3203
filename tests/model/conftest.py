"""Pairs of models with the same random weights, theirs (transformers) and ours, and batches for both."""

from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor
from torch.nn.attention import flex_attention
from transformers.models.modernbert import modeling_modernbert

from bert import huggingface
from bert.model import backends
from bert.model.models import Model, construct

VOCABULARY, LENGTH, WINDOW = 61, 20, 8
ROTARY = [
    import_module(f"transformers.models.{name}.modeling_{name}")
    for name in ("modernbert", "nomic_bert", "eurobert", "ultrabert")
    if name in transformers.CONFIG_MAPPING
]
"""architectures with rotary positions, as far as this transformers has them"""
# One token, a sequence that ends at the window's edge, one that crosses it, and the longest the model reads.
LENGTHS = (1, WINDOW // 2 + 1, WINDOW // 2 + 2, LENGTH)

_SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "num_labels": 3,
    "initializer_range": 0.3,
}
_BERT = {
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "max_position_embeddings": LENGTH,
    "type_vocab_size": 2,
}
_ROBERTA = {**_BERT, "max_position_embeddings": LENGTH + 2}
CONFIGS: dict[str, dict[str, Any]] = {
    "bert": _BERT,
    "roberta": _ROBERTA,
    "roberta-prelayernorm": _ROBERTA,
    "modernbert": {
        "max_position_embeddings": LENGTH,
        "local_attention": WINDOW,
        "pad_token_id": 0,
        **dict.fromkeys(("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id")),
    },
    "nomic_bert": {**_BERT, "max_position_embeddings": LENGTH},
    "eurobert": {
        "num_key_value_heads": 2,
        "max_position_embeddings": LENGTH,
        "pad_token_id": 0,
        **dict.fromkeys(("bos_token_id", "eos_token_id")),
    },
    "ultrabert": {
        "num_key_value_heads": 1,
        "max_position_embeddings": LENGTH,
        "sliding_window": WINDOW // 2,
        "prediction_head_size": 40,
    },
    "xlm-roberta": _ROBERTA,
    "xlm-roberta-xl": _ROBERTA,
    "camembert": _ROBERTA,
    "data2vec-text": _ROBERTA,
    "distilbert": {
        "hidden_dim": 48,
        "dropout": 0.0,
        "attention_dropout": 0.0,
        "seq_classif_dropout": 0.0,
        "max_position_embeddings": LENGTH,
    },
    "albert": {**_BERT, "classifier_dropout_prob": 0.0, "embedding_size": 24, "num_hidden_groups": 2},
    "electra": {**_BERT, "embedding_size": 24},
    "megatron-bert": _BERT,
    "ernie": {**_BERT, "use_task_id": True},
}
"""A small model of each family; what is not given is as in transformers."""


@pytest.fixture
def theirs() -> Callable[..., transformers.PreTrainedModel]:
    """transformers' model for (model_type, our class, changes of its configuration), with random weights."""

    def make(model_type: str, architecture: str, **overrides: Any) -> transformers.PreTrainedModel:
        values = {**_SIZES, **CONFIGS[model_type], **overrides}
        if architecture in (
            "PretrainingModel",
            "QuestionAnswering",
        ):  # some of their heads have a row for each label
            values["num_labels"] = 2
        attention = values.pop("attn_implementation", "sdpa")
        config = transformers.AutoConfig.for_model(model_type, **values)
        model_class = getattr(transformers, huggingface.FAMILIES[model_type].classes[architecture])
        config._attn_implementation = attention if model_class._supports_sdpa else "eager"
        model = model_class(config)
        for parameter in model.parameters():  # so that biases and norms matter as well
            torch.nn.init.normal_(parameter, std=0.3)
        return model.eval()

    return make


@pytest.fixture
def ours() -> Callable[..., Model]:
    """Our model with the configuration and the weights of one of theirs; `overrides` of our configuration."""

    def make(theirs: transformers.PreTrainedModel, architecture: str, **overrides: Any) -> Model:
        written = {**theirs.config.to_dict(), "architectures": [type(theirs).__name__]}
        config, _, labels = huggingface.import_config(written)
        config = type(config)(**{**vars(config), **overrides})
        model = construct(config, architecture, labels).to(theirs.dtype)
        model.load_state_dict(translate(theirs.state_dict(), theirs.config.model_type, model))
        return model.eval()

    return make


def translate(tensors: Mapping[str, Tensor], model_type: str, ours: Model) -> dict[str, Tensor]:
    state, unread = huggingface.import_state(
        ours.config, type(ours).__name__, model_type, tensors, ours.state_dict()
    )
    assert not unread
    return state


@pytest.fixture(name="translate")
def _translate() -> Callable[..., dict[str, Tensor]]:
    """Tensors under their names → under those of one of our models."""
    return translate


@pytest.fixture
def padded() -> dict[str, Tensor]:
    """A ragged batch with all labels a model could be given, as Hugging Face has it."""
    shape = (len(LENGTHS), LENGTH)
    mask = torch.arange(LENGTH) < torch.tensor(LENGTHS)[:, None]
    chosen = (torch.rand(shape) < 0.4) & mask
    chosen[:, 0] = True
    return {
        "input_ids": torch.randint(5, VOCABULARY, shape).masked_fill(~mask, 0),
        "attention_mask": mask.long(),
        "token_type_ids": torch.randint(0, 2, shape).masked_fill(~mask, 0),
        "labels": torch.where(chosen, torch.randint(0, VOCABULARY, shape), -100),
        "next_sentence_label": torch.tensor([0, 1, 1, 0]),
        "token_labels": torch.where(chosen, torch.randint(0, 3, shape), -100),
        "sequence_labels": torch.tensor([2, 0, 1, 2]),
    }


@pytest.fixture
def pack() -> Callable[[Mapping[str, Tensor]], dict[str, Any]]:
    """A padded batch without its padding."""

    def make(batch: Mapping[str, Tensor]) -> dict[str, Any]:
        mask = batch["attention_mask"].bool()
        lengths = mask.sum(1)
        packed: dict[str, Any] = {
            "input_ids": batch["input_ids"][mask],
            "position_ids": torch.arange(mask.shape[1]).expand_as(mask)[mask],
            "sequence_offsets": torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]).int(),
            "max_sequence_length": int(lengths.max()),
        }
        for name in ("token_type_ids", "task_type_ids"):
            if name in batch:
                packed[name] = batch[name][mask]
        return packed

    return make


@pytest.fixture
def exact_rotary(monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers turns queries and keys, and computes RMS norms, in float32 whatever their type. A comparison in
    float64 would see nothing but that, so here it does not round them."""

    def rms_norm(self: torch.nn.Module, x: Tensor) -> Tensor:
        return torch.nn.functional.rms_norm(x, x.shape[-1:], self.weight, self.variance_epsilon)

    def rotate(
        q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, unsqueeze_dim: int = 1
    ) -> tuple[Tensor, Tensor]:
        cos, sin = cos.unsqueeze(unsqueeze_dim), sin.unsqueeze(unsqueeze_dim)
        half = modeling_modernbert.rotate_half
        return q * cos + half(q) * sin, k * cos + half(k) * sin

    for modeling in ROTARY:
        monkeypatch.setattr(modeling, "apply_rotary_pos_emb", rotate)
        for name in ("EuroBertRMSNorm", "UltrabertRMSNorm"):
            if norm := getattr(modeling, name, None):
                monkeypatch.setattr(norm, "forward", rms_norm)


MEASURED = pytest.StashKey[dict[tuple[str, str, str], float]]()
"""(model_type, our class, layout) → the largest difference from transformers"""


@pytest.fixture
def parity(request: pytest.FixtureRequest) -> Callable[[str, str, str, float], None]:
    """Keeps what was measured for (model_type, our class, layout), for the table of --parity-table."""
    measured = request.config.stash.setdefault(MEASURED, {})

    def keep(model_type: str, head: str, layout: str, difference: float) -> None:
        measured[model_type, head, layout] = difference

    return keep


def pytest_sessionfinish(session: pytest.Session) -> None:
    path, measured = session.config.getoption("parity_table"), session.config.stash.get(MEASURED, {})
    if path is None:
        return
    columns = list(dict.fromkeys((head, layout) for _, head, layout in measured))
    lines = [
        f"Largest differences from transformers {transformers.__version__} with the same random weights, in float64:",
        "outputs, losses and gradients, each relative to its largest value or to 1; padded on the right or the left,",
        "and packed. About 1e-8 is a loss that transformers computes in float32. Written by `make parity`.",
        "",
        "| family | " + " | ".join(f"{head}, {layout}" for head, layout in columns) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for family in dict.fromkeys(family for family, _, _ in measured):
        cells = [measured.get((family, *column)) for column in columns]
        shown = ["" if value is None else f"{value:.0e}" for value in cells]
        lines.append(f"| `{family}` | " + " | ".join(shown) + " |")
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture
def flex_on_cpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Flex as it is written in Python: compiling its kernels takes longer than all tests, and has no backward
    pass on CPUs."""
    monkeypatch.setattr(flex_attention, "_validate_device", lambda *_: None)
    monkeypatch.setattr(backends.Flex, "refuses", lambda *_: None)
    with torch.compiler.set_stance("force_eager"):
        yield
