"""What every test on a GPU starts from."""

import pytest
import torch


@pytest.fixture(autouse=True)
def exact_and_fresh() -> None:
    """Products in full float32, which a training before may have given up, and no kernels compiled before."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch._dynamo.reset()
