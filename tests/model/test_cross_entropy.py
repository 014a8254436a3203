"""The cross-entropy that uses up its logits, beside torch's."""

import pytest
import torch
import torch.nn.functional as F

from bert.data.batch import IGNORED
from bert.model.kernels import cross_entropy
from bert.model.kernels.cross_entropy import consuming_cross_entropy

M, V = 50, 37


@pytest.fixture(params=[1, V * 7, 2**20], ids=["rows of one", "rows of seven", "one chunk"])
def chunk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(cross_entropy.CHUNK_ELEMENTS, "cpu", request.param)


def problem(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    labels = torch.randint(0, V, (M,))
    labels[::9] = IGNORED
    logits = 3 * torch.randn(M, V, dtype=dtype)
    return logits.requires_grad_(), torch.randn(V, dtype=dtype, requires_grad=True), labels


@pytest.mark.usefixtures("chunk")
@pytest.mark.parametrize("with_bias", [True, False])
def test_agrees_with_torch(with_bias: bool) -> None:
    logits, bias, labels = problem(torch.float64)
    inputs = (logits, bias) if with_bias else (logits,)
    expected = F.cross_entropy(sum(inputs), labels, reduction="sum", ignore_index=IGNORED)
    gradients = torch.autograd.grad(expected, inputs, torch.tensor(0.3))
    right = (sum(inputs).argmax(1) == labels).sum()

    loss = consuming_cross_entropy(logits * 1, bias if with_bias else None, labels)
    assert (loss.count, loss.correct) == ((labels != IGNORED).sum(), right)
    torch.testing.assert_close(loss.sum, expected)
    for ours, theirs in zip(torch.autograd.grad(loss.sum, inputs, torch.tensor(0.3)), gradients, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_tokens_without_a_score_get_neither_probability_nor_gradient() -> None:
    logits, bias, labels = problem(torch.float32)
    labels = labels.clamp(max=V - 4)
    padded = bias.masked_fill(torch.arange(V) >= V - 3, -torch.inf)
    loss = consuming_cross_entropy(logits * 1, padded, labels).sum
    torch.testing.assert_close(loss, F.cross_entropy((logits + bias)[:, :-3], labels, reduction="sum"))
    loss.backward()
    assert logits.grad[:, -3:].eq(0).all() and bias.grad[-3:].eq(0).all()
    assert logits.grad.isfinite().all()


def test_uses_the_memory_of_the_logits() -> None:
    logits, bias, labels = problem(torch.bfloat16)
    given = logits * 1
    loss = consuming_cross_entropy(given, bias.float(), labels).sum
    assert loss.dtype == torch.float32
    (gradient,) = torch.autograd.grad(loss, given)
    assert gradient.data_ptr() == given.data_ptr()
    expected = F.cross_entropy(logits.float() + bias.float(), labels, reduction="sum")
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, logits)[0], rtol=0.01, atol=1e-3)


def test_nothing_to_predict() -> None:
    _, bias, labels = problem(torch.float32)
    logits = torch.zeros(0, V, requires_grad=True)
    loss = consuming_cross_entropy(logits * 1, bias, labels[:0])
    loss.sum.backward()
    assert (loss.sum, loss.count, loss.correct) == (0, 0, 0)
    assert bias.grad.eq(0).all()
