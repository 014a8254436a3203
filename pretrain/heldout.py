"""Validation: a model's loss and accuracy on the held-out split, beside what guessing by word frequency gives.

The masks are fixed, at 15 % of the tokens. The result is exact however the sequences are divided over processes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from bert.data.batch import IGNORED
from bert.errors import UserError
from bert.inference.common import BATCH_TOKENS
from bert.inference.filling import fill_masks
from bert.model.models import MaskedLanguageModel
from bert.tokenizer import Tokenizer
from bert.training.state import Evaluation, EvaluationStopped, ShouldStop
from pretrain.data.dataset import HeldOutBatches
from pretrain.data.store import Store, evenly_spread

UNIGRAM_SENTENCES = 200_000
"""how many sentences word frequencies are counted on, spread over the whole training split"""
FLAT = 0.05
"""a loss this close (as a share) to the unigram baseline is no better than it"""


@dataclass
class HeldOut:
    """Evaluates a model on held-out sequences and fills in the example sentences.

    `total` sums a tensor over the processes; each process measures some of the sequences.
    """

    batches: HeldOutBatches
    tokenizer: Tokenizer
    sentences: Sequence[str] = ()
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    total: Callable[[Tensor], Tensor] = lambda tensor: tensor
    _flat: int = 0
    """evaluations in a row that were no better than word frequencies"""

    def __post_init__(self) -> None:
        mask = self.tokenizer.special_tokens["mask"]
        self._texts = [sentence.replace("[MASK]", mask) for sentence in self.sentences]
        self._ids = self.tokenizer.encode_batch(self._texts)
        if unmasked := [t for t, ids in zip(self._texts, self._ids) if self.tokenizer.mask_id not in ids]:
            raise UserError(f"evaluation.sentences: {unmasked[0]!r} has no [MASK], the word to fill in")
        self.unigram = unigram_log_probs(Store(self.batches.store_path), self.tokenizer)

    def __call__(self, model: MaskedLanguageModel, should_stop: ShouldStop) -> Evaluation:
        """Evaluate during training: the score is the masked-language-model loss, the lower the better."""
        metrics = self.measure(model, should_stop)
        report = [f"  {line}" for line in self.filled(model)]
        self._flat = self._flat + 1 if is_flat(metrics) else 0
        if self._flat == 2:
            advice = POST_NORM_ADVICE if model.config.norm == "post" else ADVICE
            report.append(PLATEAU.format(advice=advice, **metrics))
        return Evaluation(metrics, score=-metrics["mlm_loss"], report="\n".join(report))

    def remember(self, evaluations: Sequence[Mapping[str, float]]) -> None:
        """Continue after the evaluations of the run so far."""
        self._flat = 0
        for metrics in evaluations:
            self._flat = self._flat + 1 if is_flat(metrics) else 0

    @torch.no_grad()
    def measure(
        self, model: MaskedLanguageModel, should_stop: ShouldStop = lambda: False
    ) -> dict[str, float]:
        """Loss, perplexity and accuracies of the model, and of the baselines on the same masks and pairs.

        Raises EvaluationStopped if the run is told to stop meanwhile.
        """
        # Loss and number of correct answers, of mlm and of nsp; how often each token and each pair label is asked for.
        sums, asked = (torch.zeros(size, dtype=torch.float64) for size in (4, len(self.unigram) + 2))
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
                asked += _asked(batch, len(self.unigram))
        sums, asked = (self.total(tensor.to(self.device)).cpu() for tensor in (sums, asked))
        return self._metrics(sums.tolist(), asked.numpy())

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

    def filled(self, model: MaskedLanguageModel) -> list[str]:
        """The example sentences that the model can read, with the three most probable words for each mask."""
        mask, limit, lines = self.tokenizer.special_tokens["mask"], model.config.max_positions, []
        texts = [t for t, ids in zip(self._texts, self._ids, strict=True) if len(ids) <= limit]
        for text, masks in zip(
            texts, fill_masks((model, self.tokenizer), texts, 3, BATCH_TOKENS), strict=True
        ):
            for predictions in masks:
                words = " · ".join(f"{p['token_str'].strip()} {100 * p['score']:.1f} %" for p in predictions)
                text = text.replace(mask, f"[{words}]", 1)
            lines.append(text)
        return lines

    def some_sentences(self, number: int, max_tokens: int) -> list[str]:
        """Some held-out sentences of 5 to `max_tokens` tokens, spread over the split."""
        store = self.batches.store
        lengths = np.diff(store.sentence_offsets)
        fitting = np.flatnonzero((lengths >= 5) & (lengths <= max_tokens))
        return [
            self.tokenizer.decode(store.gather(store.sentence_offsets[[at]], lengths[[at]]))
            for at in fitting[evenly_spread(len(fitting), number)]
        ]


def unigram_log_probs(store: Store, tokenizer: Tokenizer) -> np.ndarray:
    """float64 (V,): log probability of each token by its frequency in the training split, add-one smoothed."""
    counts = store.count_tokens(tokenizer.vocab_size, UNIGRAM_SENTENCES) + 1.0
    return np.log(counts / counts.sum())


def is_flat(metrics: Mapping[str, float]) -> bool:
    """Whether a model predicts no better, and no worse, than word frequencies do."""
    return abs(metrics["mlm_loss"] - metrics["unigram_loss"]) < FLAT * metrics["unigram_loss"]


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


def _asked(batch: dict, vocab_size: int) -> Tensor:
    """How often each token (V), and each pair label (2), is asked for in a micro-batch."""
    labels = batch["masked_labels"] if "masked_labels" in batch else batch["labels"]
    asked = [torch.bincount(labels[labels != IGNORED].flatten(), minlength=vocab_size)]
    pairs = batch.get("next_sentence_label", labels.new_empty(0))
    return torch.cat([*asked, torch.bincount(pairs[pairs != IGNORED], minlength=2)]).cpu()
