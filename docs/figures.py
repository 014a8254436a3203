"""The figures of "How it works", measured on a pretrained encoder: python docs/figures.py RUN [key=value ...]"""

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

import bert
from bert.config import PositiveInt, dump, help_text, load, load_record
from bert.data.batch import IGNORED
from bert.errors import UserError, run_command
from bert.model.positions import RotaryPositions, sinusoids
from bert.training.logging import read_metrics
from pretrain.config import PretrainConfig
from pretrain.data.dataset import HeldOutBatches
from pretrain.data.objective import ObjectiveConfig
from pretrain.data.store import Store, evenly_spread
from pretrain.prepare import store_folder
from pretrain.tokenizer import tokenizer_folder

USAGE = """\
usage: python docs/figures.py RUN [key=value ...]

Draw the figures of docs/how-it-works from a run of pretraining, with what its encoder does on held-out text. The last
one trains a tiny encoder on the run's store under several launches.
"""
SENTENCE = "The animal did not cross the street because it was too tired."
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]
"""distinct for colour-blind readers too (Okabe and Ito 2008)"""
GREY = "#6b7280"
STYLE = {
    "axes.prop_cycle": matplotlib.cycler(color=COLOURS),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "figure.constrained_layout.use": True,
    "font.family": "sans-serif",
    "font.size": 9,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "svg.fonttype": "none",
    "svg.hashsalt": "bert",
}


@dataclass(frozen=True)
class FiguresConfig:
    output: str = "docs/images/how"
    """folder of the figures"""
    sequences: PositiveInt = 2048
    """held-out sequences to measure on; an eighth of them where all states of a model are kept"""
    only: list[str] = field(default_factory=list)
    """names of figures to draw; all if there are none"""
    learned: str | None = None
    """checkpoint with learned positions, if those of RUN are not; without one that figure is left as it is"""
    steps: PositiveInt = 40
    """steps of each launch of the tiny encoder"""


class Run:
    """A run, its encoder and held-out text; what several figures need is measured once."""

    def __init__(self, folder: str, sequences: int) -> None:
        self.folder, self.sequences = Path(folder), sequences
        record = self.folder / "config.yaml"
        if not record.is_file():
            raise UserError(f"{folder}: is no run of pretraining, which has a config.yaml")
        self.config: PretrainConfig = replace(load_record(PretrainConfig, record), run_dir=folder)
        self.model = bert.load(folder, device="cpu").eval()
        self.tokenizer = bert.Tokenizer.load(tokenizer_folder(self.config))
        self.shape = self.model.config

    @cached_property
    def batches(self) -> HeldOutBatches:
        return self.held_out(self.config.objective)

    def held_out(self, objective: ObjectiveConfig) -> HeldOutBatches:
        """Batches of masked held-out text, in pairs or not."""
        store, tokenizer = store_folder(self.config), tokenizer_folder(self.config)
        batch = replace(self.config.batch, sequences=64, layout="packed")
        return HeldOutBatches(store, tokenizer, objective, batch, sequences=self.sequences)

    @cached_property
    def rows(self) -> Tensor:
        """(N, 64): the first tokens of held-out documents, between the special tokens; shorter ones are left out."""
        store = Store(store_folder(self.config), "heldout")
        ends = store.sentence_offsets[store.document_offsets]
        size = min(64, self.config.batch.max_length, int(np.diff(ends).max()) + 2)
        long = np.flatnonzero(np.diff(ends) >= size - 2)
        first, last = (self.tokenizer.id_of(self.tokenizer.special_tokens[name]) for name in ("cls", "sep"))
        chosen = ends[long[evenly_spread(len(long), max(self.sequences // 8, 2))]]
        texts = [store.gather(np.array([at]), np.array([size - 2])) for at in chosen]
        return torch.tensor(np.stack([[first, *text.tolist(), last] for text in texts]))

    @cached_property
    def states(self) -> dict[str, list[Tensor]]:
        """On `rows`: the residual stream before and after each layer, what attention and feed-forward add, and each
        layer's queries and keys as they are before positions turn them."""
        found: dict[str, list[Tensor]] = {
            name: [] for name in ("stream", "attention", "feed_forward", "q", "k")
        }
        rotations = []

        def keep(name: str) -> Callable[..., None]:
            return lambda module, given, result: found[name].append(result)

        def layer_input(module: Any, given: tuple) -> None:
            found["stream"].append(given[0])

        def heads(module: Any, given: tuple, result: Tensor) -> None:
            q, k, _ = result.unflatten(-1, (sum(module_heads), -1)).split(module_heads, -2)
            found["q"].append(q)
            found["k"].append(k)

        module_heads = self.model.encoder.layers[0].attention.heads
        hooks = []
        for layer in self.model.encoder.layers:
            hooks += [
                layer.register_forward_pre_hook(layer_input),
                layer.attention.register_forward_hook(keep("attention")),
                layer.attention.register_forward_pre_hook(
                    lambda m, given: rotations.append(given[1].rotation)
                ),
                layer.attention.qkv.register_forward_hook(heads),
                layer.feed_forward.register_forward_hook(keep("feed_forward")),
            ]
        hooks.append(layer.register_forward_hook(keep("stream")))
        with torch.no_grad():  # with attention maps, batches stay padded
            self.attentions = self.model.encoder(self.rows, output_attentions=True).attentions
        for hook in hooks:
            hook.remove()
        self.rotations = rotations
        return found

    @cached_property
    def maps(self) -> np.ndarray:
        """(layers, heads, N, S, S): the attention probabilities on `rows`."""
        assert self.states
        return torch.stack(self.attentions).transpose(1, 2).numpy()

    @cached_property
    def answers(self) -> dict[str, np.ndarray]:
        """Of each masked held-out token: its id, what stood there, its place, and whether the prediction was right."""
        parts: dict[str, list[Tensor]] = {name: [] for name in ("label", "input", "place", "right")}
        for micro in (m for step in range(len(self.batches)) for m in self.batches[step].micro_batches):
            asked = micro["masked_labels"] != IGNORED
            at, label = micro["masked_positions"][asked], micro["masked_labels"][asked]
            inputs = {key: micro[key] for key in PACKED if key in micro}
            with torch.no_grad():
                output = self.model(**inputs, masked_positions=at)
            logits = output.logits if output.prediction_logits is None else output.prediction_logits
            parts["label"].append(label)
            parts["input"].append(micro["input_ids"][at])
            parts["place"].append(micro["position_ids"][at])
            parts["right"].append(logits.argmax(-1) == label)
        return {name: torch.cat(part).numpy() for name, part in parts.items()}

    @cached_property
    def frequencies(self) -> np.ndarray:
        """How often each token occurs in the training text, or in a sample of it."""
        return Store(store_folder(self.config)).count_tokens(self.tokenizer.vocab_size, 200_000)


LAUNCHES = {
    "one process": ((), ()),
    "small micro-batches": ((), ("batch.micro_tokens=512",)),
    "two processes": (
        ("accelerate.commands.launch", "--cpu", "--num_processes", "2", "-m"),
        ("batch.micro_tokens=512",),
    ),
    "stopped and continued": ((), ("resume={one}/checkpoints/step-{step}",)),
}
"""what starts the training, and the keys that differ"""
PACKED = "input_ids", "position_ids", "sequence_offsets", "max_sequence_length", "token_type_ids"
"""keys of a packed micro-batch that a model reads"""


def scaling(run: Run) -> Figure:
    """Why scores are divided by √d: their spread, and the entropy of the softmax over 64 keys."""
    widths = 2 ** np.arange(2, 11)
    generator = torch.Generator().manual_seed(0)
    spread: dict[str, list[float]] = {"q · k": [], "q · k / √d": []}
    entropy: dict[str, list[float]] = {"q · k": [], "q · k / √d": []}
    for width in widths.tolist():
        q, k = (torch.randn(200, number, width, generator=generator) for number in (1, 64))
        scores = (q @ k.transpose(-1, -2)).squeeze(1)
        for name, scale in (("q · k", 1.0), ("q · k / √d", width**-0.5)):
            spread[name].append(float((scores * scale).std()))
            p = (scores * scale).softmax(-1)
            entropy[name].append(float(-(p * p.clamp_min(1e-30).log2()).sum(-1).mean()))
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.2, 2.7))
    for name, marker in zip(spread, "os"):
        left.loglog(widths, spread[name], marker=marker, markersize=4, label=name, base=2)
        right.semilogx(widths, entropy[name], marker=marker, markersize=4, label=name, base=2)
    left.set(title="Spread of the scores (standard deviation)", xlabel="width of a head, d")
    right.set(title="Entropy of the softmax (bits)", xlabel="width of a head, d", ylim=(0, 6.4))
    right.axhline(6, color=GREY, linestyle=":", linewidth=1)
    right.text(4, 6.05, "64 keys alike: 6 bits", color=GREY, fontsize=8)
    left.legend()
    return figure


def one_map(run: Run) -> Figure:
    """The sentence, and the head whose attention is most spread over the words of a sentence that it marks out."""
    attention = bert.attention_maps((run.model, run.tokenizer), SENTENCE)
    layer, head = np.unravel_index(np.argmax(_shares(run)["the token before"]), run.maps.shape[:2])
    figure, axes = plt.subplots(figsize=(4.6, 4.2))
    _map(axes, attention.tokens, attention.maps[layer, head], labels=True)
    axes.set_title(f"layer {layer + 1}, head {head + 1}")
    axes.set(ylabel="a row: this token asks …", xlabel="… and reads from these")
    return figure


def _map(axes: Axes, tokens: Sequence[str], values: np.ndarray, labels: bool) -> None:
    axes.imshow(values, cmap="Blues", vmin=0, vmax=max(0.5, float(values.max())), interpolation="none")
    places = range(len(tokens))
    axes.set_xticks(places, tokens if labels else [], rotation=60, ha="right", rotation_mode="anchor")
    axes.set_yticks(places, tokens if labels else [])
    axes.tick_params(left=False, bottom=False, labelsize=8)
    axes.spines[:].set_visible(False)


def _shares(run: Run) -> dict[str, np.ndarray]:
    """(layers, heads) each: the share of a token's attention that goes to the token before it, and so on."""
    maps, size = run.maps, run.maps.shape[-1]
    inner = np.arange(1, size - 1)  # tokens of text
    rows = run.rows.numpy()
    same = (rows[:, :, None] == rows[:, None, :]) & ~np.eye(size, dtype=bool)
    special = maps[..., inner, :][..., [0, size - 1]].sum(-1)
    shares = {
        "itself": maps[..., inner, inner],
        "the token before": np.where(inner > 1, maps[..., inner, inner - 1], 0),
        "the token after": np.where(inner < size - 2, maps[..., inner, inner + 1], 0),
        "the same token elsewhere": (maps * same)[..., inner, :].sum(-1),
        "the special tokens": special,
    }
    return {name: share.mean((-1, -2)) for name, share in shares.items()}


def heads(run: Run) -> Figure:
    """What each head reads: shares of its attention on held-out text."""
    shares = _shares(run)
    layers, number = run.maps.shape[:2]
    names = [f"layer {i + 1}, head {j + 1}" for i in range(layers) for j in range(number)]
    figure, axes = plt.subplots(figsize=(7.2, 0.7 + 0.19 * len(names)))
    begin = np.zeros(len(names))
    for (name, share), colour in zip(shares.items(), COLOURS):
        axes.barh(names, share.flatten(), left=begin, label=name, color=colour, height=0.75)
        begin += share.flatten()
    axes.barh(names, 1 - begin, left=begin, label="other tokens", color="#d1d5db", height=0.75)
    axes.set(xlim=(0, 1), ylim=(len(names) - 0.5, -0.5))
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    axes.tick_params(axis="y", length=0, labelsize=8)
    figure.legend(loc="outside upper center", ncols=3)
    return figure


def head_maps(run: Run) -> Figure:
    """Four heads on one sentence: those with the largest share of each of four things."""
    attention = bert.attention_maps((run.model, run.tokenizer), SENTENCE)
    shares = _shares(run)
    figure, axes = plt.subplots(2, 2, figsize=(7.2, 7.0))
    shares["other tokens"] = 1 - np.sum(list(shares.values()), axis=0)
    names = "the token before", "the token after", "the same token elsewhere", "other tokens"
    for place, name in zip(axes.flat, names):
        layer, head = np.unravel_index(np.argmax(shares[name]), shares[name].shape)
        _map(place, attention.tokens, attention.maps[layer, head], labels=True)
        place.set_title(
            f"{name}, {100 * shares[name].max():.0f} %\nlayer {layer + 1}, head {head + 1}", fontsize=9
        )
    return figure


def residuals(run: Run) -> Figure:
    """The stream of vectors through the layers, and the gradients of norms before and after the sum."""
    states = run.states
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.2, 2.7))
    stream = [float(x.norm(dim=-1).mean()) for x in states["stream"]]
    layers = np.arange(len(stream))
    left.plot(layers, stream, marker="o", markersize=4, label="the stream")
    for name, words, marker in (
        ("attention", "added by attention", "s"),
        ("feed_forward", "added by feed-forward", "^"),
    ):
        left.plot(
            layers[1:],
            [float(x.norm(dim=-1).mean()) for x in states[name]],
            marker=marker,
            markersize=4,
            label=words,
        )
    left.set(title="Length of a token's vector", xlabel="after layer", ylim=(0, None), xticks=layers)
    left.legend()
    for norm, marker in (("post", "o"), ("pre", "s")):
        gradients = _gradients(run, norm)
        right.semilogy(
            range(1, len(gradients) + 1), gradients, marker=marker, markersize=4, label=f"{norm}-norm"
        )
    right.set(title="Gradient before the first step, 12 layers", xlabel="layer")
    right.legend()
    return figure


def _gradients(run: Run, norm: str) -> list[float]:
    """Norm of the gradient of each layer's second feed-forward matrix, of a new encoder of 12 layers of 64."""
    shape = bert.EncoderConfig(
        vocab_size=run.shape.vocab_size,
        hidden_size=64,
        num_layers=12,
        num_heads=2,
        intermediate_size=256,
        max_positions=max(512, run.config.batch.max_length),
        norm=norm,
        dropout=0.0,
        attention_dropout=0.0,
        init_std=64**-0.5,  # about Xavier's, with which Xiong et al. (2020) compare the two
    )
    torch.manual_seed(0)
    model = bert.build(shape, "MaskedLanguageModel")
    micro = run.batches[0].micro_batches[0]
    keys = (*PACKED, "masked_positions", "masked_labels")
    loss = model(**{key: micro[key] for key in keys if key in micro}).losses["mlm"]
    (loss.sum / max(int((micro["masked_labels"] != IGNORED).sum()), 1)).backward()
    return [float(layer.feed_forward.down.weight.grad.norm()) for layer in model.encoder.layers]


def norms(run: Run) -> Figure:
    """How far a token's vector moves when the other sequences of its batch are others."""
    hidden = run.states["stream"][-2]  # (N, S, D)
    sizes = [size for size in (1, 2, 4, 8, 16, 32) if 2 * size <= len(hidden)]
    moved: dict[str, list[float]] = {"batch norm": [], "layer norm": []}
    token = hidden[0]
    for size in sizes:
        found: dict[str, list[Tensor]] = {name: [] for name in moved}
        for first in range(1, len(hidden) - size + 1, max(size - 1, 1)):
            batch = torch.cat([token[None], hidden[first : first + size - 1]]).flatten(0, 1)
            found["batch norm"].append(((batch - batch.mean(0)) / batch.std(0, correction=0))[: len(token)])
            found["layer norm"].append(torch.nn.functional.layer_norm(batch, batch.shape[-1:])[: len(token)])
        for name, results in found.items():
            together = torch.stack(results)
            apart = (together - together.mean(0)).norm(dim=-1) / together.norm(dim=-1)
            moved[name].append(100 * float(apart.mean()))
    figure, axes = plt.subplots(figsize=(5.2, 2.7))
    for (name, values), marker in zip(moved.items(), "os"):
        axes.plot(sizes[1:], values[1:], marker=marker, markersize=4, label=name)
    axes.set_xscale("log", base=2)
    axes.set(
        title="How far a token's vector moves when the others change",
        xlabel="sequences in the batch",
        ylim=(-1, None),
    )
    axes.set_xticks(sizes[1:], [str(size) for size in sizes[1:]])
    axes.yaxis.set_major_locator(plt.MultipleLocator(5))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0f} %")
    axes.legend()
    return figure


def sinusoid(run: Run) -> Figure:
    """Sinusoids: their dot products by distance, and three of their pairs as points that turn."""
    table = sinusoids(torch.arange(512), 256)
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.2, 2.9), width_ratios=(1.35, 1))
    distances = np.arange(-100, 101)
    for place, style in ((120, "-"), (200, "--"), (300, ":")):
        left.plot(distances, table[place + distances] @ table[place], style, label=f"of position {place}")
    left.set(title="Dot product with the position that is δ away", xlabel="distance δ")
    left.legend()
    right.add_patch(plt.Circle((0, 0), 1, fill=False, color="#d1d5db"))
    steps = torch.arange(7)
    for pair, marker, radius in ((0, "o", 1.0), (14, "s", 0.78), (24, "^", 0.56)):
        x, y = radius * table[steps, 2 * pair + 1], radius * table[steps, 2 * pair]
        right.plot(x, y, marker, markersize=5, label=f"columns {2 * pair} and {2 * pair + 1}")
        for step in (0, 1, 6):
            right.annotate(str(step), (x[step], y[step]), (4, 3), textcoords="offset points", fontsize=7)
    right.set(title="Positions 0 to 6 turn", aspect="equal", xlim=(-1.25, 1.25), ylim=(-1.2, 1.2))
    right.set_axis_off()
    right.legend(fontsize=7, loc="lower left", bbox_to_anchor=(-0.35, -0.05))
    return figure


def learned(source: str) -> Figure:
    """How alike the vectors of learned positions are."""
    embeddings = bert.load(source, device="cpu").encoder.embeddings.positions
    table = embeddings.table.weight.detach()[embeddings.offset :]
    size = min(64, len(table))
    unit = torch.nn.functional.normalize(table[:size] - table.mean(0), dim=-1)
    figure, axes = plt.subplots(figsize=(4.2, 3.4))
    image = axes.imshow(unit @ unit.T, cmap="RdBu_r", vmin=-1, vmax=1, interpolation="none")
    axes.set(title="Cosine of the vectors of two positions", xlabel="position", ylabel="position")
    figure.colorbar(image, ax=axes)
    return figure


def rotary(run: Run) -> Figure:
    """Rotary positions: one query and key at many places, and the mean score of a trained layer by distance."""
    positions = run.model.encoder.embeddings.positions
    shares = _shares(run)
    near = (shares["the token before"] + shares["the token after"]).max(1)
    layer = int(near.argmax())
    window = run.shape.windows[layer]
    q, k = (run.states[name][layer] for name in "qk")
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.2, 2.8))
    distances = torch.arange(-32, 33)
    one_q, one_k = q[0, 5, :1], k[0, 6, :1]
    for place, style in ((40, "-"), (200, "--"), (400, ":")):
        turned_q = positions.rotation(torch.tensor([place]), window)(one_q[None])
        turned_k = positions.rotation(place + distances, window)(one_k.expand(len(distances), 1, -1))
        scores = (turned_q * turned_k).sum((-1, -2)) * one_q.shape[-1] ** -0.5
        left.plot(distances, scores, style, label=f"query at {place}")
    left.set(title="Score of one query and one key", xlabel="distance of the key")
    left.legend()
    q, k = (run.rotations[layer](x).transpose(1, 2) for x in (q, k))
    k = k.repeat_interleave(q.shape[1] // k.shape[1], 1)
    scores = (q @ k.transpose(-1, -2)) * q.shape[-1] ** -0.5  # (N, H, S, S)
    scores = scores[..., 1:-1, 1:-1].mean(0)
    reach = range(-min(24, scores.shape[-1] - 1), min(24, scores.shape[-1] - 1) + 1)
    for head in range(len(scores)):
        means = [float(scores[head].diagonal(distance).mean()) for distance in reach]
        right.plot(list(reach), means, label=f"head {head + 1}")
    right.set(title=f"Mean score of all tokens, layer {layer + 1}", xlabel="distance of the key")
    right.legend(
        ncols=4, fontsize=7, loc="upper left", bbox_to_anchor=(-0.1, -0.2), columnspacing=1, handlelength=1
    )
    return figure


def masked(run: Run) -> Figure:
    """How often a masked token is right: by its frequency, and by what stood in its place."""
    answers = run.answers
    rank = np.empty(run.tokenizer.vocab_size, int)
    rank[np.argsort(-run.frequencies, kind="stable")] = np.arange(run.tokenizer.vocab_size)
    edges = [0, 10, 30, 100, 300, 1000, 3000, run.tokenizer.vocab_size]
    bins = np.digitize(rank[answers["label"]], edges[1:-1])
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.2, 2.9), width_ratios=(1.5, 1))
    names = [f"{a + 1:,}–{b:,}" for a, b in pairwise(edges)]
    shares = [_percent(answers["right"][bins == i]) for i in range(len(names))]
    bars = left.bar(names, shares, color=COLOURS[0])
    left.bar_label(bars, fmt="%.0f", fontsize=8)
    left.set(title="Right answers (%), by the token's rank in the text")
    left.tick_params(axis="x", rotation=35, labelsize=8)
    mask = run.tokenizer.mask_id
    kinds = {
        "[MASK]": answers["input"] == mask,
        "a random\ntoken": (answers["input"] != mask) & (answers["input"] != answers["label"]),
        "the token\nitself": answers["input"] == answers["label"],
    }
    bars = right.bar(
        list(kinds), [_percent(answers["right"][which]) for which in kinds.values()], color=COLOURS[1]
    )
    right.bar_label(bars, fmt="%.0f", fontsize=8)
    right.set(title="… by what stood there")
    return figure


def learning(run: Run) -> Figure:
    """Validation loss and accuracy over the run, beside what word frequencies give."""
    lines = read_metrics(run.folder / "evaluations.jsonl")
    figure, axes = plt.subplots(1, 2, figsize=(7.2, 2.7))
    steps = [line["step"] for line in lines]
    for place, name, title in zip(axes, ("loss", "accuracy"), ("Validation loss (nats)", "Right answers")):
        place.plot(
            steps, [line[f"mlm_{name}"] for line in lines], marker="o", markersize=4, label="the encoder"
        )
        place.axhline(lines[-1][f"unigram_{name}"], color=GREY, linestyle=":", label="word frequencies alone")
        place.set(title=title, xlabel="step")
    axes[1].yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    axes[1].set_ylim(0, None)
    axes[0].legend()
    return figure


def next_sentences(run: Run) -> Figure:
    """Pairs: how often shared words alone tell whether B follows A, beside the encoder if it was trained on pairs."""
    shared, followed = _shared_words(run)
    half = len(shared) // 2
    limits = np.unique(shared[:half])
    best = limits[np.argmax([((shared[:half] >= limit) == followed[:half]).mean() for limit in limits])]
    right_answers = {
        "always\nthe same": max(followed.mean(), 1 - followed.mean()),
        "shared\nwords": ((shared[half:] >= best) == followed[half:]).mean(),
    }
    evaluations = read_metrics(run.folder / "evaluations.jsonl")
    if evaluations and "nsp_accuracy" in evaluations[-1]:
        right_answers["the\nencoder"] = evaluations[-1]["nsp_accuracy"]
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.2, 2.8), width_ratios=(1, 1.6))
    bars = left.bar(list(right_answers), [100 * share for share in right_answers.values()], color=COLOURS[:3])
    left.bar_label(bars, fmt="%.0f", fontsize=8)
    left.set(title="Right answers (%)", ylim=(0, 100))
    edges = np.linspace(0, max(float(np.quantile(shared, 0.99)), 1e-6), 16)
    for name, which in (("B follows A", followed), ("B is from another document", ~followed)):
        right.hist(shared[which].clip(max=edges[-1]), edges, alpha=0.6, label=name)
    right.set(
        title="Information in the tokens of B that A has too", xlabel="nats a token of B", ylabel="pairs"
    )
    right.legend(fontsize=8)
    return figure


def _shared_words(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Of each held-out pair: the information of B's tokens that occur in A too, and whether B follows A."""
    counts = run.frequencies + 1.0
    information = -np.log(counts / counts.sum())
    information[run.tokenizer.special_ids] = 0
    shared, followed = [], []
    objective = replace(run.config.objective, pairing="next_sentence", balance_pairs=True)
    batches = run.held_out(objective)
    for micro in (m for step in range(len(batches)) for m in batches[step].micro_batches):
        ids, segments = micro["input_ids"].clone(), micro["token_type_ids"]
        asked = micro["masked_labels"] != IGNORED
        ids[micro["masked_positions"][asked]] = micro["masked_labels"][asked]  # as the text was
        for row, label in enumerate(micro["next_sentence_label"].tolist()):
            if label == IGNORED:
                continue
            inside = slice(*micro["sequence_offsets"][row : row + 2].tolist())
            first, second = (ids[inside][segments[inside] == number].numpy() for number in (0, 1))
            common = np.isin(second, first)
            shared.append(information[second[common]].sum() / max(len(second), 1))
            followed.append(label == 0)
    order = np.random.default_rng(0).permutation(len(shared))
    return np.array(shared)[order], np.array(followed)[order]


def launches(run: Run, steps: int) -> Figure:
    """One tiny encoder under four launches: its losses, and how much they differ."""
    with TemporaryDirectory() as folder:
        losses = {name: _losses(each) for name, each in _launched(run, Path(folder), steps)}
    one = losses["one process"]
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.2, 2.8))
    equal = []
    for (name, values), style, colour in zip(losses.items(), ("-", "--", "-.", ":"), COLOURS):
        numbers = np.array(sorted(values))
        left.plot(numbers, [values[n] for n in numbers], style, color=colour, label=name)
        apart = np.array([abs(values[n] - one[n]) / one[n] for n in numbers])
        if apart.any():
            right.semilogy(numbers, np.where(apart > 0, apart, np.nan), ".", color=colour, label=name)
        elif name != "one process":
            equal.append(f"{name}: no difference at all")
    left.set(title="Training loss", xlabel="step")
    left.legend(fontsize=7)
    right.set(title="Difference from one process, as a share", xlabel="step", ylim=(1e-9, 1))
    right.legend(loc="upper left", title="\n".join(equal), title_fontsize=8)
    return figure


def _launched(run: Run, folder: Path, steps: int) -> Iterator[tuple[str, Path]]:
    """Train the tiny encoder under each launch; yield what the launch is called and the folder of its run."""
    given = folder / "tiny.yaml"
    given.write_text(dump(_tiny(run.config, steps)), encoding="utf-8")
    for name, (launcher, words) in LAUNCHES.items():
        run_dir = folder / name.replace(" ", "-")
        words = [word.format(one=folder / "one-process", step=steps // 2) for word in words]
        command = [sys.executable, "-m", *launcher, "pretrain", str(given), f"run_dir={run_dir}", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise UserError(f"{' '.join(command)} failed: {done.stderr[-2000:]}")
        yield name, run_dir


def _tiny(config: PretrainConfig, steps: int) -> PretrainConfig:
    """A run of a tiny encoder on the same store."""
    shape = {"hidden_size": 64, "num_layers": 2, "num_heads": 2, "intermediate_size": 128, "dropout": 0.0}
    return replace(
        config,
        tokenizer=replace(config.tokenizer, path=str(tokenizer_folder(config).resolve())),
        prepare=replace(config.prepare, store=str(store_folder(config).resolve())),
        model=load(
            PretrainConfig, None, [f"model.{k}={v}" for k, v in shape.items()] + ["model.attention_dropout=0"]
        ).model,
        batch=replace(
            config.batch,
            sequences=32,
            max_length=min(128, config.batch.max_length),
            micro_tokens=4096,
            phases=(),
        ),
        training=replace(
            config.training,
            steps=steps,
            tokens=None,
            hours=None,
            epochs=None,
            precision="fp32",
            num_workers=0,
            save_every=max(steps // 2, 1),
            keep_last=3,
            evaluate_every=0,
            branch_from=None,
        ),
        tracking=replace(config.tracking, wandb="off", tensorboard=False, log_every=1),
        evaluation=replace(config.evaluation, sequences=16, also={}),
    )


def _losses(run_dir: Path) -> dict[int, float]:
    return {line["step"]: line["loss"] for line in read_metrics(run_dir / "metrics.jsonl")}


def _percent(right: np.ndarray) -> float:
    return 100 * float(right.mean()) if len(right) else 0.0


def figures(run: Run, config: FiguresConfig) -> Iterator[tuple[str, Callable[[], Figure]]]:
    """The name of each figure that can be drawn, and the function that draws it."""
    for name, draw in {
        "scaling": scaling, "map": one_map, "heads": heads, "head-maps": head_maps, "residuals": residuals,
        "norms": norms, "sinusoids": sinusoid, "masked": masked, "next-sentences": next_sentences, "learning": learning,
    }.items():  # fmt: skip
        yield name, lambda draw=draw: draw(run)
    if isinstance(run.model.encoder.embeddings.positions, RotaryPositions):
        yield "rotary", lambda: rotary(run)
    if config.learned or run.shape.positions == "learned":
        yield "learned", lambda: learned(config.learned or str(run.folder))
    yield "launches", lambda: launches(run, config.steps)


@contextmanager
def drawing() -> Iterator[None]:
    """Without a screen, in this script's style."""
    with matplotlib.rc_context(STYLE), plt.ioff():
        plt.switch_backend("svg")
        yield
    plt.close("all")


def main(argv: Sequence[str]) -> None:
    if "--help" in argv or "-h" in argv:
        print(help_text(FiguresConfig, USAGE))
        return
    words = [word for word in argv if "=" not in word]
    if len(words) != 1:
        raise UserError(f"one word is needed; {USAGE.splitlines()[0]} (--help lists the keys)")
    config: Any = load(FiguresConfig, None, [word for word in argv if "=" in word])
    run, folder = Run(words[0], config.sequences), Path(config.output)
    folder.mkdir(parents=True, exist_ok=True)
    with drawing():
        for name, draw in figures(run, config):
            if config.only and name not in config.only:
                continue
            figure = draw()
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None, "Creator": None})
            plt.close(figure)
            print(folder / f"{name}.svg", flush=True)


if __name__ == "__main__":
    sys.exit(run_command(main))
