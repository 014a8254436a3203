"""Metrics against scikit-learn and scipy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune import metrics

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
