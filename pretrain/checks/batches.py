"""Checks of the batches: pairs, lengths and padding, and some examples as text."""

import itertools
from dataclasses import replace
from typing import Any, get_args

import numpy as np

from bert.data.batch import IGNORED, Layout
from bert.tokenizer import Tokenizer
from pretrain.checks.text import histogram
from pretrain.data.dataset import PretrainingBatches
from pretrain.data.examples import NOT_A_PAIR
from pretrain.data.objective import BatchConfig

SAMPLED_STEPS = 8


def examples(batches: PretrainingBatches) -> dict[str, Any]:
    """The number and lengths of the examples of an epoch, and the share of random or swapped pairs."""
    phase = batches.phases[0]
    plan = batches.plan(phase)
    block = plan.blocks.examples(0, 0)
    pairs = block.label[block.label != NOT_A_PAIR]
    return {
        "examples_per_epoch": plan.num_examples(0),
        "steps_per_epoch": round(batches.steps_per_epoch, 2),
        "mean_length": round(float(block.lengths.mean()), 2),
        "lengths": histogram(block.lengths),
        "pairs_share": round(len(pairs) / len(block), 4),
        "random_share": round(float(pairs.mean()), 4) if len(pairs) else None,
    }


def packing(batches: PretrainingBatches) -> dict[str, Any]:
    """The number of micro-batches of a step, and the padding fraction in every layout."""
    padding_fractions = {}
    layouts: tuple[Layout, ...] = get_args(Layout)
    for layout, static in itertools.product(layouts, (False, True)):
        other = replace(batches.batch, layout=layout, static_shapes=static)
        name = f"{layout}, static shapes" if static else layout
        padding_fractions[name] = round(_padding_fraction(with_batch(batches, other)), 4)
    micro_batches = len(batches[0].micro_batches)
    return {
        "micro_batches": micro_batches,
        "padding_fraction": round(_padding_fraction(batches), 4),
        "padding_fraction_by_layout": padding_fractions,
    }


def with_batch(batches: PretrainingBatches, batch: BatchConfig) -> PretrainingBatches:
    """The same run with other batches."""
    arguments = batches.objective, batch, batches.seed, batches.total_steps
    return PretrainingBatches(batches.store_path, batches.tokenizer_path, *arguments, folder=batches.folder)


def _padding_fraction(batches: PretrainingBatches) -> float:
    return float(np.mean([batches[step].padding_fraction for step in range(SAMPLED_STEPS)]))


def shown(batches: PretrainingBatches, tokenizer: Tokenizer, number: int = 3) -> list[str]:
    """Some examples of the first step as text, every chosen token as `seen→asked`."""
    few = replace(batches.batch, layout="padded", static_shapes=False, sequences=number)
    pairing, micro_batches = batches.objective.pairing, with_batch(batches, few)[0].micro_batches
    return [text for batch in micro_batches for text in _rows(batch, pairing, tokenizer)]


def _rows(batch: dict[str, Any], pairing: str, tokenizer: Tokenizer) -> list[str]:
    words = {"next_sentence": ("B follows A", "B is random"), "sentence_order": ("in order", "swapped")}
    texts = []
    for row, ids in enumerate(batch["input_ids"]):
        length = int(batch["attention_mask"][row].sum())
        labels = batch["labels"][row].tolist()
        tokens = tokenizer.tokens(ids[:length].tolist())
        for place, label in enumerate(labels[:length]):
            if label != IGNORED:
                tokens[place] = f"{tokens[place]}→{tokenizer.tokens([label])[0]}"
        text = " ".join(tokens)
        pair = int(batch["next_sentence_label"][row]) if "next_sentence_label" in batch else NOT_A_PAIR
        texts.append(text if pair == NOT_A_PAIR else f"{text}  ({words[pairing][pair]})")
    return texts
