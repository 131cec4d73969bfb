"""Training steps: samples per second, share of the device's matrix peak, and where the time goes.

A step is what ``lsmap train`` does with a batch that is on the device: forward, backward,
optimiser, teacher. The peak is measured here, as the fastest large matrix product: bf16 on
CUDA, float32 on the CPU. The work of a step is what torch counts of its convolutions and matrix
products, each multiplication and addition. Tiles are random; so is the network.

Beside it stands how many tiles per second the reading processes of ``lsmap train`` deliver,
augmented, from a data set on disk. Where that is less than the steps take, the device waits.

``LSMAP_BENCH_TRAIN`` chooses other sizes than the default ones, with commas between:
``arch:backbone:batch:window``, e.g. ``mrife:resnet101:4:512,deeplabv3plus:resnet101:best:512``.
``best`` is the batch with most samples per second, of 4, 8, 16, ... as far as memory goes.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from common import mosaic, print_table
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from landslide_mapper.config import ModelConfig, TrainConfig
from landslide_mapper.device import enough_memory
from landslide_mapper.errors import LsmapFailure
from landslide_mapper.nn.build import build
from landslide_mapper.nn.optimiser import make_optimizer
from landslide_mapper.prepare import PrepareConfig, prepare
from landslide_mapper.training.loaders import load_datasets, make_loaders
from landslide_mapper.training.parallel import Process
from landslide_mapper.training.validation import autocast

ON_CUDA = (
    "mrife:resnet101:4:512,mrife:resnet101:best:512,mrife:resnet18:4:512,mrife:resnet18:best:512,"
    "deeplabv3plus:resnet101:4:512,icssn:resnet101:4:512"
)
ON_CPU = "mrife:resnet18:2:128,deeplabv3plus:resnet18:2:128,icssn:resnet18:2:128"
TOP = 12  # operators in the profile
WARM_UPS = 3  # libraries choose their kernels
SMALLEST_BATCH = 4  # where the search for the best begins; the paper's
GAIN = 1.02  # samples per second that twice the batch has to bring, for the search to go on
REPEATS = 6  # of the bundled scene along each side, in the data set that is read


class Case(NamedTuple):
    """What is measured; batch 0 stands for the best."""

    arch: str
    backbone: str
    batch: int
    window: int

    @classmethod
    def parse(cls, text: str) -> Case:
        """From ``arch:backbone:batch:window``."""
        arch, backbone, batch, window = text.split(":")
        return cls(arch, backbone, 0 if batch == "best" else int(batch), int(window))


def cases(device: torch.device) -> list[Case]:
    """The sizes asked for, else those that suit the device."""
    text = os.environ.get("LSMAP_BENCH_TRAIN") or (ON_CUDA if device.type == "cuda" else ON_CPU)
    return [Case.parse(case) for case in text.split(",")]


def seconds_of(work: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Seconds per call; on CUDA all calls are queued, as in training, and waited for once."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    for _ in range(WARM_UPS):
        work()
    wait()
    began = time.perf_counter()
    for _ in range(repeats):
        work()
    wait()
    return (time.perf_counter() - began) / repeats


def matrix_peak(device: torch.device) -> float:
    """Floating-point operations per second of the best square matrix product."""
    on_cuda = device.type == "cuda"
    kind = torch.bfloat16 if on_cuda else torch.float32
    best = 0.0
    for side in (4096, 8192, 16384) if on_cuda else (512, 1024, 2048):
        one, two = (torch.randn(side, side, device=device, dtype=kind) for _ in range(2))
        seconds = seconds_of(lambda one=one, two=two: one @ two, device, 20 if on_cuda else 3)
        best = max(best, 2 * side**3 / seconds)
    return best


def tiles(case: Case, device: torch.device) -> tuple[Tensor, Tensor]:
    """A batch with a landslide in the middle of each tile."""
    shape = (case.batch, 3, case.window, case.window)
    images = torch.randint(1, 256, shape, dtype=torch.uint8, device=device)
    labels = torch.zeros((case.batch, *shape[2:]), dtype=torch.uint8, device=device)
    part = slice(case.window // 4 + 3, 3 * case.window // 4)
    labels[:, part, part] = 1
    return images.to(memory_format=torch.channels_last), labels


def steps(case: Case, device: torch.device) -> Callable[[], None]:
    """One training step per call. ICSSN's turn is the segmenter's."""
    network = build(ModelConfig(arch=case.arch, backbone=case.backbone))
    network = network.to(device=device, memory_format=torch.channels_last).train()
    network.begin_epoch(1)
    optimizer = make_optimizer(TrainConfig(lr=1e-4), network, device)
    images, labels = tiles(case, device)
    generator = torch.Generator(device).manual_seed(0)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast(device):
            losses = network(images, labels, generator)
        losses.total.backward()
        optimizer.step()
        network.after_step()

    return step


def operations(step: Callable[[], None]) -> int:
    """Floating-point operations of a step."""
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def hot_spots(step: Callable[[], None], device: torch.device) -> list[tuple[str, str, str]]:
    """The operators that take the most time of their own: name, share and calls per step."""
    on_cuda = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_cuda else [])]
    repeats = 5 if on_cuda else 1
    with profile(activities=activities) as profiler:
        for _ in range(repeats):
            step()
        if on_cuda:
            torch.cuda.synchronize(device)
    key = "self_device_time_total" if on_cuda else "self_cpu_time_total"
    times = [(entry.key, getattr(entry, key), entry.count) for entry in profiler.key_averages()]
    if on_cuda:  # kernels stand beside the operators that launched them; count each once
        times = [entry for entry in times if entry[0].startswith("aten::")]
    total = sum(spent for _, spent, _ in times)
    if not total:
        return [("no times: the profiler may not look into this device", "", "")]
    times.sort(key=lambda entry: -entry[1])
    return [
        (name, f"{spent / total:.1%}", f"{count / repeats:.0f}")
        for name, spent, count in times[:TOP]
    ]


def seconds_per_step(case: Case, device: torch.device) -> float:
    """Seconds of a training step."""
    return seconds_of(steps(case, device), device, 20 if device.type == "cuda" else 2)


def with_best_batch(case: Case, device: torch.device) -> Case:
    """The same case with the batch that gives most samples per second."""
    case, fastest = case._replace(batch=SMALLEST_BATCH), 0.0
    while True:
        try:
            with enough_memory(lambda: "the search ends"):
                speed = case.batch / seconds_per_step(case, device)
        except LsmapFailure:
            speed = 0.0
        if speed < GAIN * fastest or not speed:
            return case._replace(batch=case.batch // 2) if fastest else case
        case, fastest = case._replace(batch=2 * case.batch), speed


def tiles_read_per_second(window: int) -> tuple[float, int]:
    """Augmented tiles that the reading processes deliver in a second; and how many they are."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scene, labels = mosaic(folder, REPEATS)
        prepare(
            PrepareConfig(
                output=folder / "tiles", scenes=(str(scene),), labels=str(labels), tile_size=window
            )
        )
        config = TrainConfig(datasets=(str(folder / "tiles"),), jitter=1.4)
        batches, training, _ = make_loaders(
            config, load_datasets(config), Process(0, 1, torch.device("cpu"))
        )
        batches.epoch = 0
        for _ in training:  # the processes start
            pass
        batches.epoch = 1
        began = time.perf_counter()
        read = sum(len(images) for images, _ in training)
        return read / (time.perf_counter() - began), training.num_workers


def row(case: Case, device: torch.device, peak: float, read: float) -> tuple[str, ...]:
    """A line of the table; `read` is in tiles per second."""
    seconds = seconds_per_step(case, device)
    work = operations(steps(case, device))
    return (
        f"{1000 * seconds:.0f}",
        f"{case.batch / seconds:.2f}",
        f"{work / case.batch / 1e9:.0f}",
        f"{work / seconds / peak:.1%}",
        f"{read * seconds / case.batch:.1f}",
    )


def run() -> None:
    """Print the table, and a profile of each case."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    peak = matrix_peak(device)
    chosen = [case if case.batch else with_best_batch(case, device) for case in cases(device)]
    read = {case.window: tiles_read_per_second(case.window) for case in chosen}
    rows, profiles = [], []
    for case in chosen:
        named = (f"{case.arch} {case.backbone}", str(case.batch), str(case.window))
        try:
            with enough_memory(lambda: "it is left out"):
                measured = (*named, *row(case, device, peak, read[case.window][0]))
                print(*measured, file=sys.stderr, flush=True)  # should time be up before the table
                profiles.append((case, hot_spots(steps(case, device), device)))
        except LsmapFailure:
            measured = (*named, "out of memory", *[""] * 4)
        rows.append(measured)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    threads = "" if device.type == "cuda" else f", {torch.get_num_threads()} thread(s)"
    print_table(
        f"Training on {name}{threads}; measured matrix peak {peak / 1e12:.3g} TFLOP/s",
        (
            "network", "batch", "window", "ms/step", "samples/s", "GFLOP/sample", "of the peak",
            "read ÷ trained",
        ),
        rows,
    )  # fmt: skip
    for window, (speed, processes) in read.items():
        print(f"Tiles of {window} pixels: {speed:.0f}/s read by {processes} processes.")
    for case, spots in profiles:
        title = f"{case.arch} {case.backbone}, batch {case.batch}, window {case.window}"
        print_table(title, ("operator", "share", "calls/step"), spots)
