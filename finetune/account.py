"""What the results of a run say beside its metrics: baselines, what was seen before, what stands behind the numbers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from bert.tokenizer import Tokenizer
from finetune import baselines, explain, seen
from finetune.config import KINDS, FinetuneConfig
from finetune.data import TaskData
from finetune.splits import TokenizedSplit
from finetune.tasks.kind import Kind
from finetune.tasks.texts import pooled

Rows = list[dict[str, Any]]
"""the lines of a file of predictions"""


@dataclass
class Account:
    """A finished run, measured on its validation texts and, if there are any, its test texts."""

    config: FinetuneConfig
    data: TaskData
    tokenizer: Tokenizer
    tokenized: Mapping[str, TokenizedSplit]
    """of every split"""
    outputs: Mapping[str, Tensor]
    """of every split but train"""
    rows: Mapping[str, Rows]
    metric: str
    measured: Mapping[str, Mapping[str, float]]

    def results(self) -> dict[str, Any]:
        """What is added to the results."""
        labels, train = self.data.labels, self.tokenized["train"]
        kind = KINDS[self.config.task.kind]
        found = {
            "majority": {
                name: baselines.majority(kind, train, self.tokenized[name], outputs, labels)
                for name, outputs in self.outputs.items()
            }
        }
        if "tfidf" in self.config.baselines:
            found["tfidf"] = baselines.tfidf(self.config.task, self.metric, self.data)
        predictions = [row["prediction"] for row in self.rows["validation"]]
        validation = self.measured["validation"]
        results: dict[str, Any] = {
            "baselines": found,
            "collapsed": baselines.collapse(
                self.metric, validation, found["majority"]["validation"], predictions
            ),
            "duplicates": self._duplicates(),
            "explained": self._explained(),
            "digests": {name: seen.digest(self.data.splits[name]) for name in self.outputs},
        }
        return results | ({"leakage": self._leakage()} if self.config.leakage else {})

    def _duplicates(self) -> dict[str, Any]:
        return {name: seen.duplicates(self.data.train, self.data.splits[name]) for name in self.outputs}

    def _explained(self) -> dict[str, Any]:
        labels, kind = self.data.labels.names, KINDS[self.config.task.kind]
        if not kind.is_calibrated:
            return {}
        return {
            name: explain.explain(rows, self._texts(name), labels)
            if kind.is_classifier
            else explain.explain_labels(rows, labels)
            for name, rows in self.rows.items()
        }

    def _texts(self, name: str) -> list[str]:
        split = self.data.splits[name]
        return [seen.text_of(split, i) for i in range(len(split))]

    def _leakage(self) -> dict[str, Any]:
        """For each split: how many texts are in the text of pretraining, and the metric without them."""
        assert self.config.leakage is not None
        return {"store": self.config.leakage, "ngram": seen.NGRAM} | {
            name: self._leakage_of(name, self.config.leakage) for name in self.outputs
        }

    def _leakage_of(self, name: str, store: str) -> dict[str, Any]:
        shares = seen.contamination(store, self.tokenizer, self._texts(name))
        leaked = np.nan_to_num(shares) >= seen.CONTAMINATED
        rows, names, kind = self.rows[name], self.data.labels.names, KINDS[self.config.task.kind]
        metric = next(one for one in (self.metric, *self.measured[name]) if one != "loss")
        value = kind.weighted(
            metric, [row["target"] for row in rows], [row["prediction"] for row in rows], names
        )
        return {
            "contaminated": int(leaked.sum()),
            "share": float(leaked.mean()),
            "too_short": int(np.isnan(shares).sum()),
            "metric": metric,
            "all": value(np.ones(len(rows), np.int64)),
            "without_contaminated": None if leaked.all() else value((~leaked).astype(np.int64)),
            "first": [rows[i]["row"] for i in np.flatnonzero(leaked)[: seen.SHOWN]],
        }


def calibration(
    kind: Kind, tokenized: Mapping[str, TokenizedSplit], outputs: Mapping[str, Tensor]
) -> dict[str, Any] | None:
    """Expected calibration error before and after temperature scaling, whose temperature is fitted on the validation
    texts; None if the model gives no probabilities."""
    if not kind.is_calibrated:
        return None
    logits = {name: pooled(tokenized[name], one).double().numpy() for name, one in outputs.items()}
    targets = {name: tokenized[name].split.targets for name in outputs}
    temperature = explain.fit_temperature(targets["validation"], logits["validation"])

    def errors(divisor: float) -> dict[str, float]:
        return {
            name: explain.calibration_error(*explain.as_classes(targets[name], one / divisor))
            for name, one in logits.items()
        }

    return {"temperature": temperature, "ece": errors(1.0), "ece_with_temperature": errors(temperature)}


def sentences(results: Mapping[str, Any], split: str) -> list[str]:
    """What a user should read of all this, in words."""
    metric = results["metric"]
    values = {name: measured[split][metric] for name, measured in results["baselines"].items()}
    lines = [baselines.verdict(metric, results[split][metric], values)]
    if results["collapsed"]:
        lines.append(f"this run has collapsed: it {results['collapsed']}")
    return lines + warnings(results)


def warnings(results: Mapping[str, Any]) -> list[str]:
    """What of the texts was seen before."""
    lines = [
        seen.describe_duplicates(name, found)
        for name, found in results["duplicates"].items()
        if found["number"]
    ]
    for name, found in results.get("leakage", {}).items():
        if isinstance(found, dict):
            lines.append(seen.describe_leakage(name, found))
    return lines
