"""Against transformers with the same random weights: every family, head and layout, its outputs, loss and gradients.

`pytest tests/model/test_families.py --parity-table FILE` also writes what it measured as a table.
"""

import inspect

import pytest
import torch

from bert.huggingface import FAMILIES

HEADS = {
    "EncoderModel": {},
    "MaskedLanguageModel": {"labels": "labels"},
    "PretrainingModel": {"labels": "labels", "next_sentence_label": "next_sentence_label"},
    "SequenceClassifier": {"labels": "sequence_labels"},
    "TokenClassifier": {"labels": "token_labels"},
}
LAYOUTS = ("right", "left", "packed")
# Where padding comes first, transformers takes it for the first token: its pooler and its classifiers read padding.
BY_SEQUENCE = ("PretrainingModel", "SequenceClassifier")
TOLERANCE = 1e-6
"""In float64, relative to the largest value of each output and gradient, or to 1. Some of their losses are computed in
float32; all else agrees to 1e-14."""

pytestmark = pytest.mark.usefixtures("exact_rotary")


def has_head(family, head):
    """A pair head and the prediction head in one; elsewhere our pair head lies beside their masked language model."""
    return head != "PretrainingModel" or family.classes[head] != family.classes["MaskedLanguageModel"]


CASES = [
    (name, head, layout)
    for name, family in FAMILIES.items()
    for head in HEADS
    for layout in LAYOUTS
    if has_head(family, head) and not (layout == "left" and head in BY_SEQUENCE)
]


@pytest.mark.parametrize("model_type, head, layout", CASES)
def test_a_family_computes_what_it_does_in_transformers(
    theirs, ours, padded, pack, translate, parity, model_type, head, layout
):
    reference = theirs(model_type, head).double()
    model = ours(reference, head)
    batch = batch_of(reference, padded, left=layout == "left")
    real = batch["attention_mask"].bool()
    tokens = {key: batch[key] for key in inputs_of(reference, model)}
    labels = {key: batch[name] for key, name in HEADS[head].items()}
    named = FAMILIES[model_type].outputs
    expected = reference(**tokens, **labels_for(reference, labels))
    expected = {named.get(key, key): at(real, value) for key, value in expected.items()}
    if layout == "packed":
        tokens, labels = pack(tokens), {key: at(real, value) for key, value in labels.items()}
    found = dict(model(**tokens, **labels))
    if layout != "packed":
        found = {key: at(real, value) for key, value in found.items()}
    if layout == "left":
        found.pop("pooler_output", None)
    measured = [differences(found, expected)]
    compared = ["loss"] if labels else list(found)
    sum(found[key].sin().mean() for key in compared).backward()
    sum(expected[key].sin().mean() for key in compared).backward()
    named_parameters = reference.named_parameters(remove_duplicate=False)
    gradients = {name: p.grad for name, p in named_parameters if p.grad is not None}
    gradients = translate(gradients, model_type, model)
    mine = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert mine.keys() == gradients.keys()
    measured.append(differences(mine, gradients))
    if labels:  # with which ours computes no logits
        with torch.no_grad():
            found = dict(model(**tokens))
        found = {key: value if layout == "packed" else at(real, value) for key, value in found.items()}
        assert sum("logits" in key and key in expected for key in found) == len(labels)
        measured.append(differences(found, expected))
    parity(model_type, head, layout, max(measured))
    assert max(measured) < TOLERANCE, measured


def batch_of(reference, padded, left):
    """The batch with the padding id of the model, and padding before the tokens if it is to be `left`."""
    padding = padded["attention_mask"] == 0
    ids = padded["input_ids"].masked_fill(padding, reference.config.pad_token_id)
    batch = {**padded, "input_ids": ids, "task_type_ids": padded["token_type_ids"] * 2}
    return {key: value.flip(1) if left and value.ndim == 2 else value for key, value in batch.items()}


def inputs_of(reference, model):
    """The inputs that both take."""
    takes = set(inspect.signature(reference.forward).parameters)
    ours = {"token_type_ids": model.config.num_segments, "task_type_ids": model.config.num_tasks}
    return ["input_ids", "attention_mask", *(key for key, rows in ours.items() if rows and key in takes)]


def labels_for(reference, labels):
    """Our labels under their names."""
    takes = inspect.signature(reference.forward).parameters
    return {key if key in takes else "sentence_order_label": value for key, value in labels.items()}


def at(real, value):
    """What belongs to real tokens (T, …), of what has a row for each place (B, S, …)."""
    return value[real] if value.shape[:2] == real.shape else value


def differences(found, expected):
    """The largest difference of all tensors that both have, each relative to its largest value or to 1."""
    shared = found.keys() & expected.keys()
    scales = {name: expected[name].abs().max().clamp(min=1) for name in shared}
    return max(((found[name] - expected[name]).abs().max() / scales[name]).item() for name in shared)
