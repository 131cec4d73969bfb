"""What validation shows of an epoch: metrics, the calibration of probabilities, a threshold."""

from __future__ import annotations

import torch
from torch import Tensor

from landslide_mapper.device import computes_bf16
from landslide_mapper.errors import LsmapFailure
from landslide_mapper.metrics import BINS, Curve, rates
from landslide_mapper.nn.calibration import fit_calibration, probability_histogram
from landslide_mapper.nn.network import Network
from landslide_mapper.training.loaders import Validation, progress, to_device
from landslide_mapper.training.parallel import Process

DIVERGED = "lower --lr, or the weight of a contrast, --beta"


def autocast(device: torch.device) -> torch.autocast:
    """bf16 on GPUs that have it; float32 on others and the CPU, where bf16 is slower by far."""
    return torch.autocast(device.type, torch.bfloat16, enabled=computes_bf16(device))


@torch.inference_mode()
def validate(model: Network, validation: Validation, process: Process) -> Tensor:
    """Histogram (2, BINS) of the probabilities of all valid pixels, over all processes.

    Tiles count for what they stand for: of a scene's windows without landslide a few are drawn,
    and a map of it has the false alarms of all. float64.

    Raises:
        LsmapFailure: the network returns NaN.
    """
    model.eval()
    odd = torch.zeros((), dtype=torch.int64, device=process.device)
    weights = validation.weights
    # By weight: sums of whole numbers are the same in any order, on a GPU and of any processes.
    counts = torch.zeros(len(weights), 2, BINS, dtype=torch.int64, device=process.device)
    batches = progress(validation.loader, "validation", process)
    for (images, labels), stands_for in zip(batches, validation.stands_for, strict=True):
        images, labels = to_device(images, labels, process.device)
        with autocast(process.device):
            logits = model(images)
        odd += logits.isnan().sum()
        probabilities = torch.sigmoid(logits.float())
        for answer, known, weight in zip(probabilities, labels, stands_for, strict=True):
            counts[weights.index(weight)] += probability_histogram(answer, known)
    if process.total(odd):
        raise LsmapFailure(f"the network returns NaN: {DIVERGED}")
    total = process.total(counts).double()
    return torch.tensordot(torch.tensor(weights, dtype=torch.float64), total, 1)


def validation_figures(histogram: Tensor) -> dict[str, float]:
    """Metrics at 0.5, the calibration, the threshold with the highest landslide IoU and that IoU.

    The threshold is one of calibrated probabilities, as the model file is calibrated.
    """
    curve = Curve.of(histogram.numpy())
    threshold = curve.best_threshold()
    calibration = fit_calibration(histogram)
    return {
        **{name: float(value) for name, value in rates(curve.at(0.5)).items()},
        "calibration_scale": calibration.scale,
        "calibration_shift": calibration.shift,
        "threshold": calibration(threshold),
        "landslide_iou_at_threshold": float(rates(curve.at(threshold))["landslide_iou"]),
    }
