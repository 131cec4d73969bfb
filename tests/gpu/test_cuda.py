"""What needs CUDA: bf16 steps that learn, prediction that agrees with the CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from landslide_mapper.checkpoint import ModelInfo, load_predictor, save_model
from landslide_mapper.config import ModelConfig
from landslide_mapper.nn.mrife import MRIFE

pytestmark = pytest.mark.gpu

SMALL = ModelConfig(backbone="resnet18", last_layer=3, aspp_channels=64)


def batch(samples: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(1, 120, (samples, 3, size, size), generator=generator, dtype=torch.uint8)
    labels = torch.zeros(samples, size, size, dtype=torch.uint8)
    labels[:, 40:120, 30:150] = 1
    images[:, :, 40:120, 30:150] += 90
    return images.cuda(), labels.cuda()


def test_bf16_steps_learn() -> None:
    torch.manual_seed(0)
    model = MRIFE(SMALL).cuda().to(memory_format=torch.channels_last).train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, 0.01, 0.9, fused=True)
    images, labels = batch(4, 256)
    generator = torch.Generator("cuda").manual_seed(0)
    entropies = []
    for _ in range(30):
        with torch.autocast("cuda", torch.bfloat16):
            losses = model(images, labels, generator)
        optimizer.zero_grad(set_to_none=True)
        losses.total.backward()
        optimizer.step()
        model.update_teacher()
        assert torch.isfinite(losses.total)
        entropies.append(losses.cross_entropy.item())
    assert entropies[-1] < 0.5 * entropies[0]


def test_prediction_agrees_with_the_cpu(tmp_path: Path) -> None:
    torch.manual_seed(0)
    info = ModelInfo("test", SMALL, (1, 2, 3), "equalize", 256, None, 0.5)
    save_model(MRIFE(SMALL), info, tmp_path / "m.safetensors")
    images = batch(2, 256)[0].cpu().numpy()
    found = [
        load_predictor(tmp_path / "m.safetensors", device)[0](images) for device in ("cpu", "cuda")
    ]
    assert np.abs(found[0] - found[1]).max() < 0.03  # bf16 has 8 bits of mantissa
