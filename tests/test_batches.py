"""Batches of pairs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from landslide_mapper.data.batches import PairBatches
from landslide_mapper.errors import LsmapError


@given(
    positives=st.integers(2, 30),
    negatives=st.integers(0, 20),
    half=st.integers(1, 3),
    epoch=st.integers(0, 3),
)
def test_every_batch_holds_whole_pairs(
    positives: int, negatives: int, half: int, epoch: int
) -> None:
    flags = [True] * positives + [False] * negatives
    try:
        batches = PairBatches(flags, 2 * half, seed=1)
    except LsmapError:
        assert (positives + 1) // 2 + (negatives + 1) // 2 < half
        return
    batches.epoch = epoch
    drawn = list(batches)
    assert len(drawn) == len(batches)
    for batch in drawn:
        assert len(batch) == 2 * half
        assert {e for e, _ in batch} == {epoch}
        assert sum(flags[tile] for _, tile in batch) % 2 == 0
        for (_, first), (_, second) in zip(batch[::2], batch[1::2], strict=True):
            assert flags[first] == flags[second]
            assert first != second or not flags[first]


def test_pairs_of_both_kinds_share_batches() -> None:
    flags = [True] * 20 + [False] * 20
    found = [{flags[tile] for _, tile in batch} for batch in PairBatches(flags, 4, seed=1)]
    assert {True, False} in found


def test_an_epoch_holds_every_tile_once_when_all_fits() -> None:
    batches = PairBatches([True] * 12 + [False] * 8, 4)
    tiles = sorted(tile for batch in batches for _, tile in batch)
    assert tiles == list(range(20))


def test_processes_share_the_epoch_without_overlap() -> None:
    flags = [True] * 21 + [False] * 10
    alone = list(PairBatches(flags, 4, seed=3))
    shared = [list(PairBatches(flags, 4, 3, rank, 2)) for rank in range(2)]
    assert len(shared[0]) == len(shared[1]) == len(alone) // 2
    for number in range(len(shared[0])):
        assert shared[0][number] == alone[2 * number]
        assert shared[1][number] == alone[2 * number + 1]


def test_epochs_differ_and_repeat() -> None:
    batches = PairBatches([True] * 20, 4, seed=5)
    first = list(batches)
    batches.epoch = 1
    second = [[tile for _, tile in batch] for batch in batches]
    assert second != [[tile for _, tile in batch] for batch in first]
    batches.epoch = 0
    assert list(batches) == first


def test_too_little_to_train_on() -> None:
    for count, said in enumerate(("none", "1")):  # whatever the network is
        with pytest.raises(LsmapError, match=f"^tiles with landslide .* split has {said}: label"):
            PairBatches([True] * count + [False] * 9, 4)
    with pytest.raises(LsmapError, match="smaller --batch-size"):
        PairBatches([True] * 4, 8)
