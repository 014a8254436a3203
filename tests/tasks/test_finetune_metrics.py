"""Metrics against scikit-learn and scipy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bert.model.config import Labels, ProblemType
from finetune import metrics
from finetune.config import KINDS

sklearn_metrics = pytest.importorskip("sklearn.metrics")
scipy_stats = pytest.importorskip("scipy.stats")

CLASSES = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=30)


@pytest.mark.filterwarnings("ignore:A single label was found")
@settings(max_examples=60, deadline=None)
@given(CLASSES)
def test_classification_metrics_are_those_of_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    references, predictions = np.array(pairs).T
    assert metrics.accuracy(references, predictions) == sklearn_metrics.accuracy_score(
        references, predictions
    )
    assert metrics.macro_f1(references, predictions) == pytest.approx(
        sklearn_metrics.f1_score(references, predictions, average="macro", zero_division=0)
    )
    assert metrics.matthews(references, predictions) == pytest.approx(
        sklearn_metrics.matthews_corrcoef(references, predictions), abs=1e-12
    )
    binary = references > 1, predictions > 1
    assert metrics.f1(*(b.astype(int) for b in binary)) == pytest.approx(
        sklearn_metrics.f1_score(*binary, zero_division=0)
    )


def test_multi_label_metrics_are_those_of_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    references, predictions = (generator.random((40, 5)) < [0.5, 0.3, 0.1, 0.0, 1.0] for _ in range(2))
    for name, average in [("micro_f1", "micro"), ("macro_f1", "macro")]:
        expected = sklearn_metrics.f1_score(references, predictions, average=average, zero_division=0)
        assert metrics.METRICS[name](references, predictions) == pytest.approx(expected)
    assert metrics.accuracy(references, predictions) == sklearn_metrics.accuracy_score(
        references, predictions
    )


@pytest.mark.filterwarnings("ignore::scipy.stats.ConstantInputWarning")
@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=2, max_size=30))
def test_correlations_are_those_of_scipy(pairs: list[tuple[int, int]]) -> None:
    references, predictions = np.array(pairs, dtype=float).T
    for name, expected in [("pearson", scipy_stats.pearsonr), ("spearman", scipy_stats.spearmanr)]:
        statistic = np.nan_to_num(expected(references, predictions).statistic)
        assert metrics.METRICS[name](references, predictions) == pytest.approx(statistic, abs=1e-12)


@pytest.mark.parametrize("kind", ["single_label", "multi_label", "regression"])
def test_the_loss_among_the_metrics_is_that_of_training(kind: ProblemType) -> None:
    """Its mean, in float64."""
    generator = torch.Generator().manual_seed(0)
    logits = 5 * torch.randn(200, 1 if kind == "regression" else 3, generator=generator)
    right = torch.randint(0, 3, (200,), generator=generator)
    many = torch.randint(0, 2, (200, 3), generator=generator).float()
    targets = {"single_label": right, "multi_label": many, "regression": right.float()}[kind].numpy()
    scores = logits.double().numpy()
    expected = {
        "single_label": lambda: sklearn_metrics.log_loss(right, logits.double().softmax(1), labels=[0, 1, 2]),
        "multi_label": lambda: (np.logaddexp(0, scores) - many.numpy() * scores).mean(),
        "regression": lambda: sklearn_metrics.mean_squared_error(targets, scores[:, 0]),
    }
    labels = Labels(tuple("abc")[: logits.shape[1]], kind)
    measured = KINDS[kind].measure_logits(targets, logits, labels)
    assert measured["loss"] == pytest.approx(expected[kind](), rel=1e-12)
