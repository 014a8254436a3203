"""The RMS norm written out for CPUs against torch's."""

import pytest
import torch

from bert.model.kernels.rms_norm import RMSNorm


@pytest.mark.parametrize("shape", [(7, 8), (2, 3, 8), (0, 8)])
def test_values_and_gradients_are_torchs(shape: tuple[int, ...]) -> None:
    ours, theirs = RMSNorm(8, eps=0.1).double(), torch.nn.RMSNorm(8, eps=0.1).double()
    torch.nn.init.normal_(ours.weight)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(shape, dtype=torch.double, requires_grad=True)
    upstream = torch.randn_like(x)
    torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=1e-12)
    gradients = [torch.autograd.grad(m(x), (x, m.weight), upstream) for m in (ours, theirs)]
    for mine, other in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-12)


def test_under_autocast_it_computes_in_the_type_of_its_weights() -> None:
    norm, x = RMSNorm(64, eps=1e-5), torch.randn(5, 64)
    with torch.autocast("cpu", torch.bfloat16):
        assert norm(x).dtype == torch.float32
        half = norm(x.bfloat16())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half, norm(x.bfloat16().float()).bfloat16(), rtol=0, atol=0)
