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
    "QuestionAnswering": {},  # theirs counts padding among the places of an answer
    "MultipleChoice": {},
}
"""Our label → its name in the batch. Without labels the outputs are compared, and their gradients."""
LAYOUTS = ("right", "left", "packed")
# Where padding comes first, transformers takes it for the first token: its pooler and its classifiers read padding.
BY_SEQUENCE = ("PretrainingModel", "SequenceClassifier", "MultipleChoice")
TOLERANCE = 1e-6
"""In float64, relative to the largest value of each output and gradient, or to 1. Some of their losses are computed in
float32; all else agrees to 1e-14."""

pytestmark = pytest.mark.usefixtures("exact_rotary")


def has_head(family, head):
    """Where theirs has no pair head, ours lies beside their masked language model."""
    if head not in family.classes:
        return False
    return head != "PretrainingModel" or family.classes[head] != family.classes["MaskedLanguageModel"]


@pytest.mark.parametrize(
    "model_type, head",
    [(name, head) for name, family in FAMILIES.items() for head in HEADS if has_head(family, head)],
)
def test_a_family_computes_what_it_does_in_transformers(
    theirs, ours, padded, pack, translate, parity, model_type, head
):
    reference = theirs(model_type, head).double()
    model = ours(reference, head)
    for layout in LAYOUTS:
        if layout == "left" and head in BY_SEQUENCE:
            continue
        batch = batch_of(reference, padded, left=layout == "left")
        tokens = {key: batch[key] for key in inputs_of(reference, model)}
        labels = {key: batch[name] for key, name in HEADS[head].items()}
        reference.zero_grad()
        model.zero_grad()
        expected, gradients = computed_by_theirs(reference, tokens, labels, compared=layout)
        found, mine = computed_by_ours(model, tokens, labels, pack if layout == "packed" else None, expected)
        gradients = translate(gradients, model_type, model)
        assert (found.keys(), mine.keys()) == (expected.keys(), gradients.keys())
        measured = [differences(found, expected), differences(mine, gradients)]
        parity(model_type, head, layout, max(measured))
        assert max(measured) < TOLERANCE, (layout, measured)


def computed_by_theirs(reference, tokens, labels, compared):
    """Their outputs at real tokens under our names, and their gradients under their own."""
    takes, named = (
        inspect.signature(reference.forward).parameters,
        FAMILIES[reference.config.model_type].outputs,
    )
    labels = {key if key in takes else "sentence_order_label": value for key, value in labels.items()}
    rows = dict(tokens)
    if "ForMultipleChoice" in type(reference).__name__:  # takes (examples, choices, tokens), but tasks flat
        rows |= {key: value[:, None] for key, value in tokens.items() if key != "task_type_ids"}
    outputs = reference(**rows, **labels)
    real = tokens["attention_mask"].bool()
    outputs = {named.get(key, key): at(real, value) for key, value in outputs.items()}
    if compared == "left":
        outputs.pop("pooler_output", None)
    objective(outputs).backward()
    parameters = reference.named_parameters(remove_duplicate=False)
    return outputs, {name: p.grad for name, p in parameters if p.grad is not None}


def computed_by_ours(model, tokens, labels, pack, expected):
    """Our outputs at real tokens, of those that theirs has too, and our gradients; `pack` packs a batch."""
    real = tokens["attention_mask"].bool()
    if pack is not None:
        tokens, labels = pack(tokens), {key: at(real, value) for key, value in labels.items()}

    def run(**labels):
        found = {key: value for key, value in dict(model(**tokens, **labels)).items() if key in expected}
        return found if pack is not None else {key: at(real, value) for key, value in found.items()}

    found = run(**labels)
    objective(found).backward()
    with torch.no_grad():  # without labels it keeps all logits
        found |= run()
    return found, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def objective(outputs):
    """The loss; of an encoder without a head something that depends on all it computes."""
    return outputs["loss"] if "loss" in outputs else sum(value.sin().mean() for value in outputs.values())


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


def at(real, value):
    """What belongs to real tokens (T, …), of what has a row for each place (B, S, …)."""
    return value[real] if value.shape[:2] == real.shape else value


def differences(found, expected):
    """The largest difference of all tensors, each relative to its largest value or to 1."""
    scales = {name: expected[name].abs().max().clamp(min=1) for name in found}
    return max(((found[name] - expected[name]).abs().max() / scales[name]).item() for name in found)
