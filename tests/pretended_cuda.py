"""CUDA on the CPU: streams that work whenever they like, as far as events and waits allow."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import numpy as np
import pytest
import torch
from torch import Tensor

from landslide_mapper.nn import on_cuda

copy = Tensor.copy_


class Ticket:
    """A point in a stream, which other streams and the host may wait for."""

    passed = False

    def __call__(self) -> None:
        self.passed = True


PASSED = Ticket()
PASSED()


class Machine:
    """A device. `pace` is how likely it is to go on with some work while the host does something.

    At 0 everything is done as late as may be, at 1 at once.
    """

    def __init__(self, seed: int, pace: float) -> None:
        self.streams: list[Stream] = []
        self.current: list[Stream] = []
        self.captures = 0
        self._rng = np.random.default_rng(seed)
        self._pace = pace

    def queue(self, work: Callable[[], object]) -> None:
        """Add work to the current stream."""
        self.current[-1].work.append((PASSED, work))
        while self._rng.random() < self._pace and self._step():
            pass

    def run_until(self, done: Callable[[], bool]) -> None:
        """Let the host wait."""
        while not done():
            assert self._step(), "waiting for what nobody does"

    def finish(self, *_device: object) -> None:
        """Wait for all streams."""
        self.run_until(lambda: not any(stream.work for stream in self.streams))

    def copy(self, target: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
        """`Tensor.copy_`, on a stream later on."""
        if self.current:
            self.queue(lambda: copy(target, source))
            return target
        return copy(target, source)

    @contextmanager
    def use(self, stream: Stream) -> Iterator[None]:
        """Make a stream the current one."""
        self.current.append(stream)
        yield
        self.current.pop()

    def _step(self) -> bool:
        """One piece of work of any stream that may go on; whether there was one."""
        ready = [stream for stream in self.streams if stream.ready()]
        if ready:
            _, work = ready[self._rng.integers(len(ready))].work.popleft()
            work()
        return bool(ready)


class Stream:
    """A queue of work, each piece with what must have passed before."""

    def __init__(self, machine: Machine) -> None:
        self.work: deque[tuple[Ticket, Callable[[], object]]] = deque()
        self._machine = machine
        machine.streams.append(self)

    def ready(self) -> bool:
        """Whether there is work that need not wait."""
        return bool(self.work) and self.work[0][0].passed

    def wait_event(self, event: Event) -> None:
        """Hold back what comes later."""
        self.work.append((event.ticket, lambda: None))

    def wait_stream(self, _stream: object) -> None:
        """The host's own stream has nothing to do here."""

    def synchronize(self) -> None:
        """Let the host wait for all of this stream."""
        self._machine.run_until(lambda: not self.work)


class Event:
    """The point of a stream at which it was recorded last."""

    def __init__(self, machine: Machine) -> None:
        self.ticket = PASSED
        self._machine = machine

    def record(self) -> None:
        """Mark where the current stream is."""
        self.ticket = Ticket()
        self._machine.queue(self.ticket)

    def synchronize(self) -> None:
        """Let the host wait."""
        self._machine.run_until(lambda: self.ticket.passed)


class Graph:
    """Computes on the CPU what was captured, when its stream comes to it."""

    seed: Tensor  # torch has such a tensor since the capture, and may write to it at a replay

    def __init__(self) -> None:
        self.replay: Callable[[], None] = lambda: None

    def pool(self) -> None: ...


def pretend(monkeypatch: pytest.MonkeyPatch, machine: Machine) -> None:
    """Let `CudaPredictor` work on `machine`; its tensors are on the CPU."""
    zeros, empty, opened = torch.zeros, torch.empty, on_cuda.CudaPredictor._open_lane

    def open_lane(self: on_cuda.CudaPredictor, shape: tuple[int, ...]) -> object:
        lane = opened(self, shape)
        machine.captures += 1

        @torch.no_grad()
        def compute() -> None:
            copy(lane.output, self._forward(lane.input))

        def replay() -> None:
            lane.graph.seed.fill_(0)
            machine.queue(compute)

        lane.graph.replay = replay  # type: ignore[method-assign]
        return lane

    @contextmanager
    def capture(graph: Graph, **_options: object) -> Iterator[None]:
        machine.finish()
        graph.seed = torch.zeros(1)
        yield

    replaced = {
        "Stream": lambda _device: Stream(machine),
        "Event": lambda: Event(machine),
        "CUDAGraph": Graph,
        "device": lambda _device: nullcontext(),
        "stream": machine.use,
        "graph": capture,
        "current_stream": lambda _device: None,
        "synchronize": machine.finish,
    }
    for name, own in replaced.items():
        monkeypatch.setattr(torch.cuda, name, own)
    monkeypatch.setattr(torch, "zeros", lambda *a, pin_memory=False, **o: zeros(*a, **o))
    monkeypatch.setattr(torch, "empty", lambda *a, pin_memory=False, **o: empty(*a, **o))
    monkeypatch.setattr(
        Tensor, "copy_", lambda *tensors, **options: machine.copy(*tensors, **options)
    )
    monkeypatch.setattr(on_cuda.CudaPredictor, "_open_lane", open_lane)
