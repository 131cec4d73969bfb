"""Prediction on a CUDA device that never waits for the bus.

While one batch is computed, the next one travels to the device and the answers to the one before
travel back, each on its own stream, from and to page-locked memory. The network runs as a CUDA
graph, the whole chain of kernels launched by one call, in bf16 where the GPU has it.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from landslide_mapper.device import computes_bf16
from landslide_mapper.nn.mirror import shown
from landslide_mapper.nn.network import Network

WARM_UPS = 3  # runs before a capture, in which libraries allocate and choose what they need


class CudaPredictor:
    """A folded network (see `landslide_mapper.nn.folding`) on a CUDA device.

    A call takes uint8 images (N, B, H, W), H and W multiples of 8, and returns probabilities
    float32 (N, H, W), in bf16 up to about 0.02 from those of the CPU. Equal batches give equal
    bits. `stream` works ahead and is the faster way.

    Attributes:
        device: where the network is.
        batch_size: windows to give it at once.
    """

    def __init__(self, network: Network, device: torch.device, batch_size: int) -> None:
        self.device = device
        self.batch_size = batch_size
        self._unseen = network.config.unseen
        # A copy that stays in float32: bf16 would blur the grey values themselves.
        self._normalise = copy.deepcopy(network.normalise).to(device)
        self._kind = torch.bfloat16 if computes_bf16(device) else torch.float32
        network = network.to(device, self._kind)
        self._network = network.to(memory_format=torch.channels_last)
        self._upload, self._compute, self._download = (torch.cuda.Stream(device) for _ in range(3))
        self._lanes: dict[tuple[int, ...], _Lane] = {}
        self._pool: Any = None  # torch's handle of the memory that all graphs share

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Predict one batch."""
        return next(self.stream([images]))

    def stream(self, batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Answers to `batches` in order; asks for one batch more than it has answered.

        Batches may differ in size and may be empty.
        """
        flying: deque[_Sent] = deque()
        try:
            for images in batches:
                flying.append(self._send(images))
                if len(flying) > 1:
                    yield flying.popleft().receive()
            while flying:
                yield flying.popleft().receive()
        finally:
            for sent in flying:  # nobody wants the answer, but its buffers are in use till then
                sent.receive()

    def captured(self, shape: tuple[int, ...]) -> torch.cuda.CUDAGraph:
        """The graph that answers batches of this shape, which must have been predicted before."""
        return self._lanes[shape].graph

    def _send(self, images: np.ndarray) -> _Sent:
        """Start the work on a batch and return at once."""
        if len(images) == 0:
            return _Sent(None, None, images.shape)
        images = shown(images, self._unseen)
        shape = (padded(len(images)), *images.shape[1:])
        with torch.cuda.device(self.device):
            lane = self._lanes.get(shape)
            if lane is None:
                lane = self._lanes[shape] = self._open_lane(shape)
            slot = lane.free.pop() if lane.free else _slot(lane.input, lane.output)
            slot.images.numpy()[: len(images)] = images
            with torch.cuda.stream(self._upload):
                slot.on_device.copy_(slot.images, non_blocking=True)
                slot.arrived.record()
            with torch.cuda.stream(self._compute):
                self._compute.wait_event(slot.arrived)
                lane.input.copy_(slot.on_device)
                lane.graph.replay()
                slot.answer_on_device.copy_(lane.output)
                slot.computed.record()
            with torch.cuda.stream(self._download):
                self._download.wait_event(slot.computed)
                slot.answer.copy_(slot.answer_on_device, non_blocking=True)
                slot.returned.record()
        return _Sent(lane, slot, images.shape)

    def _open_lane(self, shape: tuple[int, ...]) -> _Lane:
        """Capture the network for batches of this shape."""
        images = torch.zeros(shape, dtype=torch.uint8, device=self.device)
        # Without benchmark and with deterministic kernels the bits do not depend on the run.
        # Not in inference mode: torch makes tensors for random numbers here, which a replay (2.6)
        # and other captures of the process (up to 2.10) write to outside of that mode.
        with (
            torch.no_grad(),
            torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True),
        ):
            self._compute.wait_stream(torch.cuda.current_stream(self.device))
            with torch.cuda.stream(self._compute):
                for _ in range(WARM_UPS):
                    self._forward(images)
            self._compute.synchronize()
            graph = torch.cuda.CUDAGraph()
            # The graphs share their memory: they run one after the other, and each answer is
            # copied away before the next one runs.
            with torch.cuda.graph(graph, pool=self._pool, stream=self._compute):
                output = self._forward(images)
        self._pool = graph.pool()
        torch.cuda.synchronize(self.device)
        return _Lane(graph, images, output, [])

    def _forward(self, images: Tensor) -> Tensor:
        normalised = self._normalise(images).to(self._kind, memory_format=torch.channels_last)
        return torch.sigmoid(self._network.predict_logits(normalised).float())


class _Slot(NamedTuple):
    """Buffers of a batch on its way, and the events between the streams."""

    images: Tensor  # page-locked
    on_device: Tensor
    answer_on_device: Tensor
    answer: Tensor  # page-locked
    arrived: torch.cuda.Event
    computed: torch.cuda.Event
    returned: torch.cuda.Event


class _Lane(NamedTuple):
    """A captured network for batches of one shape, and the slots that no batch is using.

    A stream has two batches in flight at most, so there are two slots for each open stream.
    """

    graph: torch.cuda.CUDAGraph
    input: Tensor
    output: Tensor
    free: list[_Slot]


class _Sent(NamedTuple):
    """A batch in flight; without a slot when it was empty."""

    lane: _Lane | None
    slot: _Slot | None
    shape: tuple[int, ...]

    def receive(self) -> np.ndarray:
        """Wait for the answer, (N, H, W), and free the slot."""
        count, _, height, width = self.shape
        if self.lane is None or self.slot is None:
            return np.empty((0, height, width), dtype=np.float32)
        self.slot.returned.synchronize()
        answer = self.slot.answer[:count].numpy().copy()
        self.lane.free.append(self.slot)
        return answer


def _slot(images: Tensor, output: Tensor) -> _Slot:
    return _Slot(
        torch.zeros(images.shape, dtype=images.dtype, pin_memory=True),
        torch.empty_like(images),
        torch.empty_like(output),
        torch.empty(output.shape, dtype=output.dtype, pin_memory=True),
        *(torch.cuda.Event() for _ in range(3)),
    )


def padded(count: int) -> int:
    """Windows that a batch of `count` is filled up to: 1 … 16, 18 … 32, 36 … 64, 72 …

    So few different sizes that few graphs are captured, so many that at most a ninth of the work
    is for nothing. The windows of whole rows make batches of one size throughout a scene.
    """
    step = max(1, (1 << (count - 1).bit_length()) // 16)
    return -(-count // step) * step
