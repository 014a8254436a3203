"""Validation: a model's loss and accuracy on held-out text, beside what guessing by word frequency gives.

The masks are fixed, at 15 % of the tokens. The result is exact however the sequences are divided over processes.
Several texts are measured side by side: the held-out split of the run, and those of other stores (`evaluation.also`).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bert import config as configuration
from bert.data.batch import IGNORED
from bert.data.ragged import evenly_spread
from bert.data.store import is_finished, read_index
from bert.errors import UserError
from bert.inference.common import BATCH_TOKENS
from bert.inference.filling import fill_masks
from bert.model.models import MaskedLanguageModel
from bert.tokenizer import Tokenizer
from bert.training.state import Evaluation, EvaluationStopped, ShouldStop
from pretrain.config import PretrainConfig, check_names
from pretrain.data.dataset import HeldOutBatches
from pretrain.data.store import Store
from pretrain.prepare import store_folder
from pretrain.tokenizer import tokenizer_folder

SHOWN_SENTENCES = 4
"""held-out sentences that are filled in at each evaluation, beside those of the configuration"""
UNIGRAM_SENTENCES = 200_000
"""how many sentences word frequencies are counted on, spread over the whole training split"""
FLAT = 0.05
"""a loss this close (as a share) to the unigram baseline is no better than it"""
FIRST_POSITIONS = 128
"""the first range of positions whose loss is measured; each further one ends at twice the position"""
BY_POSITION = "mlm_loss_to_"


def store_of(place: str, key: str) -> Path:
    """The finished store that a folder is, or that the run in it has; UserError, which names the key, without one."""
    folder = Path(place)
    places = [folder, folder / "store"]
    if (folder / "config.yaml").is_file():
        config = configuration.load_record(PretrainConfig, folder / "config.yaml")
        places.append(store_folder(replace(config, run_dir=place)))
    for store in places:
        if is_finished(store):
            return store
    raise UserError(f"{key}: {place} is neither a store nor a run that has prepared one")


def open_held_out(
    config: PretrainConfig,
    tokenizer: Tokenizer,
    process_index: int = 0,
    num_processes: int = 1,
    also: Mapping[str, str] = MappingProxyType({}),
    **options: Any,
) -> "HeldOut | None":
    """The evaluation of a configuration: its own held-out text, that of each named source alone, and those of
    `evaluation.also` and of a command's own `also`; None if its own store holds nothing out. `options` are those of
    HeldOut."""

    def open_split(store: Path, source: int | None = None) -> HeldOutBatches:
        run = tokenizer_folder(config), config.objective, config.batch, process_index, num_processes
        return HeldOutBatches(store, *run, sequences=config.evaluation.sequences, source=source)

    own, others = store_folder(config), other_texts(config, also)
    batches = open_split(own)
    if not len(batches):
        for key, _ in others.values():
            raise UserError(
                f"{key}: this run holds out no text of its own; raise corpus.heldout_share, or leave it out"
            )
        return None
    texts = {s.name: open_split(own, n) for n, s in enumerate(config.corpus.sources) if s.name is not None}
    texts = {name: text for name, text in texts.items() if len(text)}
    for name, (key, store) in others.items():
        check_tokenizer(config, key, store, tokenizer)
        other = open_split(store)
        if not len(other):
            raise UserError(f"{key}: {other.store_path} has no held-out text; raise its corpus.heldout_share")
        texts[name] = other
    bare = options | {"sentences": (), "compares": False}
    beside = {name: HeldOut(text, tokenizer, **bare) for name, text in texts.items()}
    return HeldOut(batches, tokenizer, also=beside, **options)


def other_texts(
    config: PretrainConfig, also: Mapping[str, str] = MappingProxyType({})
) -> dict[str, tuple[str, Path]]:
    """The further texts by name: the key that names each, and its store. A command's own `also` comes first."""
    keys = {name: (f"evaluation.also.{name}", place) for name, place in config.evaluation.also.items()}
    keys |= {name: (f"also.{name}", place) for name, place in also.items()}
    try:
        check_names([*config.corpus.names, *((key, name) for name, (key, _) in keys.items())])
    except ValueError as error:
        raise UserError(str(error)) from None
    return {name: (key, store_of(place, key)) for name, (key, place) in keys.items()}


def check_tokenizer(config: PretrainConfig, key: str, store: Path, tokenizer: Tokenizer) -> None:
    """UserError, which names the key, if a store is of another tokenizer than the run's."""
    if read_index(store)["tokenizer_digest"] not in ("", tokenizer.digest):
        raise UserError(
            f"{key}: {store} was prepared with another tokenizer than this run's; prepare its text again with "
            f"tokenizer.from={config.run_dir}"
        )


@dataclass(frozen=True)
class MaskedText:
    """A text to fill in."""

    text: str
    """with the tokenizer's mask"""
    ids: Sequence[int]
    answer: str | None = None
    """the word that stood there, if it is known"""


@dataclass
class HeldOut:
    """Evaluates a model on held-out sequences and fills in the example sentences.

    `total` sums a tensor over the processes; each process measures some of the sequences. `also` are further texts by
    name. With `compares`, the first evaluation is of the model before its first step, and later ones are shown
    beside it.
    """

    batches: HeldOutBatches
    tokenizer: Tokenizer
    sentences: Sequence[str] = ()
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    total: Callable[[Tensor], Tensor] = lambda tensor: tensor
    also: Mapping[str, "HeldOut"] = field(default_factory=dict)
    compares: bool = False
    _before: Mapping[str, float] | None = None
    """metrics before the first step; None while that is to be measured"""
    _flat: int = 0
    """evaluations in a row that were no better than word frequencies"""

    def __post_init__(self) -> None:
        mask = self.tokenizer.special_tokens["mask"]
        texts = [sentence.replace("[MASK]", mask) for sentence in self.sentences]
        self._texts = list(map(MaskedText, texts, self.tokenizer.encode_batch(texts)))
        if unmasked := [one.text for one in self._texts if self.tokenizer.mask_id not in one.ids]:
            raise UserError(f"evaluation.sentences: {unmasked[0]!r} has no [MASK], the word to fill in")
        if self.sentences:
            self._texts += masked_sentences(self.batches.store, self.tokenizer, SHOWN_SENTENCES)
        self.unigram = unigram_log_probs(Store(self.batches.store_path), self.tokenizer)

    def __call__(self, model: MaskedLanguageModel, should_stop: ShouldStop) -> Evaluation:
        """Evaluate during training: the score is the masked-language-model loss, the lower the better."""
        metrics = self.measure_all(model, should_stop)
        samples = self.samples(model)
        report = [f"  {line}" for line in [*self.compared(metrics), *_filled(samples)]]
        if self.compares and self._before is None:
            self._before = metrics
        self._flat = self._flat + 1 if is_flat(metrics) else 0
        if self._flat == 2:
            advice = POST_NORM_ADVICE if model.config.norm == "post" else ADVICE
            report.append(PLATEAU.format(advice=advice, **metrics))
        shown = {name: value for name, value in metrics.items() if not is_detail(name)}
        details = {name: value for name, value in metrics.items() if is_detail(name)}
        score = -metrics["mlm_loss"]
        return Evaluation(shown, score, "\n".join(report), details=details, samples=samples)

    def remember(self, evaluations: Sequence[Mapping[str, float]]) -> None:
        """Continue after the evaluations of the run so far."""
        self._flat, self._before = 0, {}
        for metrics in evaluations:
            self._flat = self._flat + 1 if is_flat(metrics) else 0
            self._before = metrics if metrics.get("step") == 0 else self._before

    def compared(self, metrics: Mapping[str, float]) -> list[str]:
        """The losses of several texts, and of ranges of positions, each beside the one before the first step."""
        before = self._before or {}

        def figures(names: Mapping[str, str]) -> str:
            return " · ".join(
                f"{words} {metrics[name]:.3f}" + (f" (before: {before[name]:.3f})" if name in before else "")
                for name, words in names.items()
            )

        texts = {"mlm_loss": "this corpus"} | {f"{name}/mlm_loss": name for name in self.also}
        places = {
            name: f"to {name.removeprefix(BY_POSITION)}" for name in metrics if name.startswith(BY_POSITION)
        }
        lines = [f"held-out loss: {figures(texts)}"] if self.also or before else []
        return [*lines, f"by position: {figures(places)}"] if places else lines

    def measure_all(
        self, model: MaskedLanguageModel, should_stop: ShouldStop = lambda: False
    ) -> dict[str, float]:
        """The metrics of this text, and those of the others with their names: `general/mlm_loss`."""
        metrics = self.measure(model, should_stop)
        for name, text in self.also.items():
            metrics |= {f"{name}/{metric}": v for metric, v in text.measure(model, should_stop).items()}
        return metrics

    @torch.no_grad()
    def measure(
        self, model: MaskedLanguageModel, should_stop: ShouldStop = lambda: False
    ) -> dict[str, float]:
        """Loss, perplexity and accuracies of the model, and of the baselines on the same masks and pairs; the loss also
        by position, `mlm_loss_to_256` at positions 129 to 256, if sequences are longer than the first range. The last
        range ends with the longest sequence.

        Raises EvaluationStopped if the run is told to stop meanwhile.
        """
        # Loss and number of correct answers, of mlm and of nsp; how often each token and each pair label is asked for.
        # Then the loss and the number of masked tokens in each range of positions.
        ends = ends_of_ranges(self.batches.batch.max_length)
        sizes = 4 + 2 * len(ends), len(self.unigram) + 2
        sums, asked = (torch.zeros(size, dtype=torch.float64) for size in sizes)
        for step in range(len(self.batches)):
            if should_stop():
                raise EvaluationStopped
            data = self.batches[step]
            for batch in data.on(self.device):
                losses = model(**batch).losses
                for i, name in enumerate(("mlm", "nsp")):
                    if name in losses:
                        sums[2 * i] += losses[name].sum.double().cpu()
                        sums[2 * i + 1] += losses[name].correct.double().cpu()
                if ends:
                    sums[4:] += _by_position(batch, losses["mlm"].each, ends)
                asked += _asked(batch, len(self.unigram))
        sums, asked = (self.total(tensor.to(self.device)).cpu() for tensor in (sums, asked))
        by_position = zip(ends, *sums[4:].view(2, -1).tolist())
        return self._metrics(sums.tolist(), asked.numpy()) | {
            f"{BY_POSITION}{end}": loss / count for end, loss, count in by_position if count
        }

    def _metrics(self, sums: list[float], asked: np.ndarray) -> dict[str, float]:
        tokens, pairs = asked[:-2], asked[-2:]
        num_masked, num_pairs = max(tokens.sum(), 1.0), pairs.sum()
        loss = sums[0] / num_masked
        metrics = {
            "mlm_loss": loss,
            "perplexity": np.exp(loss),
            "mlm_accuracy": sums[1] / num_masked,
            "unigram_loss": -(tokens * self.unigram).sum() / num_masked,
            "unigram_accuracy": tokens.max() / num_masked,
        }
        if num_pairs:
            metrics["nsp_loss"] = sums[2] / num_pairs
            metrics["nsp_accuracy"] = sums[3] / num_pairs
            metrics["nsp_chance"] = pairs.max() / num_pairs
        return {name: float(value) for name, value in metrics.items()}

    def samples(self, model: MaskedLanguageModel) -> list[dict[str, Any]]:
        """The texts to fill in that the model can read: `parts` of the text around its masks, the three best `words`
        for each mask with their probabilities, and the `answer`, or None."""
        mask, limit = self.tokenizer.special_tokens["mask"], model.config.max_positions
        readable = [one for one in self._texts if len(one.ids) <= limit]
        filled = fill_masks((model, self.tokenizer), [one.text for one in readable], 3, BATCH_TOKENS)
        return [
            {
                "parts": one.text.split(mask),
                "words": [
                    [[p["token_str"].strip(), round(p["score"], 4)] for p in predictions]
                    for predictions in masks
                ],
                "answer": one.answer,
            }
            for one, masks in zip(readable, filled, strict=True)
        ]

    def filled(self, model: MaskedLanguageModel) -> list[str]:
        """The sentences of the configuration, with the three most probable words for each mask."""
        return _filled(self.samples(model))

    def some_sentences(self, number: int, max_tokens: int) -> list[str]:
        """Some held-out sentences of 5 to `max_tokens` tokens, spread over the split."""
        store = self.batches.store
        lengths = np.diff(store.sentence_offsets)
        fitting = np.flatnonzero((lengths >= 5) & (lengths <= max_tokens))
        return [
            self.tokenizer.decode(store.gather(store.sentence_offsets[[at]], lengths[[at]]))
            for at in fitting[evenly_spread(len(fitting), number)]
        ]


def masked_sentences(store: Store, tokenizer: Tokenizer, number: int) -> list[MaskedText]:
    """At most `number` sentences of 8 to 32 tokens, spread over a split, each with one word masked."""
    lengths = np.diff(store.sentence_offsets)
    fitting = np.flatnonzero((lengths >= 8) & (lengths <= 32))
    spread = fitting[evenly_spread(len(fitting), 4 * number)]
    chosen = np.concatenate([spread[first::4] for first in range(4)])  # each quarter is spread, too
    sentences = (store.gather(store.sentence_offsets[[at]], lengths[[at]]) for at in chosen)
    masked = (_masked(ids.astype(np.int64), tokenizer) for ids in sentences)
    return list(islice(filter(None, masked), number))


def _masked(ids: np.ndarray, tokenizer: Tokenizer) -> MaskedText | None:
    """A sentence with a mask in the place of its longest word of one token, but for the first and the last; None if it
    has no such word, or is read differently from what it is."""
    begins = tokenizer.begins_word(ids)
    places = [place for place in range(1, len(ids) - 1) if begins[place] and begins[place + 1]]
    names = {place: tokenizer.decode(ids[[place]]).strip() for place in places}
    place = max((at for at in places if names[at].isalpha()), key=lambda at: len(names[at]), default=None)
    if place is None:
        return None
    mask = tokenizer.special_tokens["mask"]
    text = tokenizer.decode([*ids[:place], tokenizer.mask_id, *ids[place + 1 :]], skip_special_tokens=False)
    (read,) = tokenizer.encode_batch([text])
    is_single = text.count(mask) == 1 and list(read).count(tokenizer.mask_id) == 1
    return MaskedText(text, read, names[place]) if is_single else None


def _filled(samples: Sequence[Mapping[str, Any]]) -> list[str]:
    """The samples without a known answer, as lines for the console."""
    lines = []
    for sample in samples:
        if sample["answer"] is None:
            masks = (
                " · ".join(f"{word} {100 * score:.1f} %" for word, score in words)
                for words in sample["words"]
            )
            between = (f"[{words}]{part}" for words, part in zip(masks, sample["parts"][1:], strict=True))
            lines.append("".join([sample["parts"][0], *between]))
    return lines


def unigram_log_probs(store: Store, tokenizer: Tokenizer) -> np.ndarray:
    """float64 (V,): log probability of each token by its frequency in the training split, add-one smoothed."""
    counts = store.count_tokens(tokenizer.vocab_size, UNIGRAM_SENTENCES) + 1.0
    return np.log(counts / counts.sum())


def is_flat(metrics: Mapping[str, float]) -> bool:
    """Whether a model predicts no better, and no worse, than word frequencies do."""
    return abs(metrics["mlm_loss"] - metrics["unigram_loss"]) < FLAT * metrics["unigram_loss"]


def is_detail(name: str) -> bool:
    """Whether a metric is of another text or of a range of positions only."""
    return "/" in name or name.startswith(BY_POSITION)


def ends_of_ranges(max_length: int) -> list[int]:
    """Where the ranges of positions end: 128, 256, 512 … up to the longest; none if there would be one only."""
    doublings = max(0, math.ceil(math.log2(max_length / FIRST_POSITIONS)))
    return [*(FIRST_POSITIONS << i for i in range(doublings)), max_length] if doublings else []


def start_of_range(end: int) -> int:
    """The first position, from 1, of the range that ends there."""
    return 1 if end <= FIRST_POSITIONS else 1 + (1 << (end - 1).bit_length() - 1)


PLATEAU = (
    "the loss is that of guessing by word frequency alone ({unigram_loss:.2f}): the model does not look at "
    "the words around a mask yet. {advice}"
)
POST_NORM_ADVICE = (
    "Post-norm encoders (norm=post, as BERT's) often stay here for thousands of steps and then leave it "
    "suddenly. More steps, a longer schedule.warmup or another learning rate help; pre-norm encoders "
    "(configs/model/modern-mini.yaml) hardly know this phase"
)
ADVICE = (
    "More steps help; if thousands of them change nothing, try another learning rate or a longer "
    "schedule.warmup"
)


def _by_position(batch: dict, losses: Tensor, ends: Sequence[int]) -> Tensor:
    """(2 R,) for R ranges of positions: the sum of the losses (M,) of masked tokens in each, then their number."""
    if "masked_labels" in batch:
        asked = batch["masked_labels"] != IGNORED
        places, losses = batch["position_ids"][batch["masked_positions"]][asked], losses[asked]
    else:
        places = (batch["labels"] != IGNORED).nonzero()[:, 1]
    ranges = torch.bucketize(places, torch.tensor(ends[:-1], device=places.device), right=True).cpu()
    found = (
        torch.bincount(ranges, losses.double().cpu(), len(ends)),
        torch.bincount(ranges, minlength=len(ends)),
    )
    return torch.cat(found)


def _asked(batch: dict, vocab_size: int) -> Tensor:
    """How often each token (V), and each pair label (2), is asked for in a micro-batch."""
    labels = batch["masked_labels"] if "masked_labels" in batch else batch["labels"]
    asked = [torch.bincount(labels[labels != IGNORED].flatten(), minlength=vocab_size)]
    pairs = batch.get("next_sentence_label", labels.new_empty(0))
    return torch.cat([*asked, torch.bincount(pairs[pairs != IGNORED], minlength=2)]).cpu()
