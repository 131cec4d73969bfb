"""The split: shares near 6:2:2, an author's file, and no ground in two splits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from landslide_mapper.config import SPLITS
from landslide_mapper.data.split import (
    SHARES,
    block_factor,
    blocks_of,
    conflicts,
    draw,
    draw_groups,
    read_split_file,
)
from landslide_mapper.data.tiles import Plan, Territory
from landslide_mapper.errors import LsmapError


@given(st.integers(1, 900), st.integers(1, 900), st.sampled_from([64, 128, 256]))
def test_blocks_cover_a_source_once(height: int, width: int, side: int) -> None:
    seen = np.zeros((height, width), int)
    for block in blocks_of(0, height, width, side):
        seen[block.top : block.bottom, block.left : block.right] += 1
        assert 0 < block.bottom - block.top <= min(side, height - block.top)
        assert 0 < block.right - block.left <= min(side, width - block.left)
    assert (seen == 1).all()


@given(st.lists(st.floats(0, 1000), min_size=3, max_size=60), st.integers(0, 5))
def test_draw_gives_every_split_some_landslide(weights: list[float], seed: int) -> None:
    splits = draw(weights, seed)
    assert splits == draw(weights, seed)
    positive = [s for s, w in zip(splits, weights, strict=True) if w > 0]
    if len(positive) >= 3:
        assert set(positive) == set(SPLITS)
    for split, share in zip(SPLITS, SHARES, strict=True):
        assert abs(positive.count(split) - share * len(positive)) <= 2


def test_what_has_no_landslide_is_shared_out_as_well() -> None:
    splits = draw([5.0, *[0.0] * 50, 3.0, 2.0], 0)[1:-2]
    assert [splits.count(split) for split in SPLITS] == [30, 10, 10]


def test_draw_is_near_622_in_area_and_depends_on_the_seed() -> None:
    weights = np.random.default_rng(0).lognormal(3, 1, 50)
    draws = {tuple(draw(list(weights), seed)) for seed in range(5)}
    assert len(draws) == 5
    for splits in draws:
        for split, share in zip(SPLITS, SHARES, strict=True):
            mine = weights[np.array(splits) == split].sum() / weights.sum()
            assert mine == pytest.approx(share, abs=0.03)


def test_of_every_five_of_similar_weight_three_are_for_training() -> None:
    weights = np.random.default_rng(0).permutation(2.0 ** np.arange(20))
    splits = np.array(draw(list(weights), 0))[np.argsort(-weights)].reshape(4, 5)
    for five in splits:
        assert sorted(five) == ["test", "train", "train", "train", "val"]


def test_a_group_weighs_what_its_units_do_together() -> None:
    weights = np.random.default_rng(0).lognormal(3, 1, (20, 4))
    groups = np.repeat(np.arange(20), 4)
    drawn = draw_groups(groups.tolist(), weights.ravel().tolist(), 0)
    assert drawn == np.repeat(draw(weights.sum(axis=1).tolist(), 0), 4).tolist()


def test_block_factor_is_the_largest_that_leaves_ten_blocks() -> None:
    many = [(0, r, c) for r in range(40) for c in range(40)]
    assert block_factor(many) == 4
    assert block_factor([(0, r, c) for r in range(6) for c in range(8)]) == 2
    assert block_factor(many[:3]) == 1
    assert [block_factor([(0, 0, 4 * n) for n in range(k)]) for k in (9, 10)] == [1, 4]


def test_conflicts_drop_train_first_and_spare_the_test_set() -> None:
    boxes = shapely.box([0, 0.5, 1.5, 5, 6], 0, [1, 1.5, 2.5, 6, 7], 1)
    splits = ["train", "test", "val", "train", "test"]
    dropped = conflicts(boxes, splits, [0, 1, 2, 3, 4], np.full(5, 1e-4))
    assert dropped == {0}  # 3 and 4 only touch, 1 and 2 as well
    moved = shapely.box([0, 0.5, 1.4], 0, [1, 1.5, 2.5], 1)
    assert conflicts(moved, splits[:3], [0, 1, 2], np.full(3, 1e-4)) == {0, 2}
    assert conflicts(moved, splits[:3], [0, 0, 0], np.full(3, 1e-4)) == set()
    assert conflicts(moved, ["train"] * 3, [0, 1, 2], np.full(3, 1e-4)) == set()


def test_overlaps_are_rounding_below_the_smaller_pixel_of_the_two() -> None:
    boxes = shapely.box([0, 0.9], 0, [1, 1.9], 1)
    tolerances = [[0.2, 0.01], [0.01, 0.2], [0.2, 0.3]]
    found = [conflicts(boxes, ["train", "test"], [0, 1], np.array(two)) for two in tolerances]
    assert found == [{0}, {0}, set()]


def test_what_the_test_set_drops_spares_what_it_overlapped() -> None:
    """Settled in the other order, the train window would go for the val window that goes too."""
    boxes = shapely.box([0, 0.5, 1.1], 0, [1, 1.5, 2.1], 1)
    dropped = conflicts(boxes, ["train", "val", "test"], [0, 1, 2], np.full(3, 1e-4))
    assert dropped == {1}


@given(st.integers(-60, 300), st.integers(-60, 300), st.integers(64, 200), st.sampled_from(SPLITS))
def test_no_crop_sees_a_pixel_of_another_split(row: int, col: int, span: int, split: str) -> None:
    side, tile = 64, 64
    blocks = blocks_of(0, 256, 256, side)
    splits = [SPLITS[(i * 7) % 3] for i in range(len(blocks))]
    territory = Territory.of(blocks, splits, side)
    owner = np.repeat(np.repeat(territory.owner, side, 0), side, 1)
    own = territory.own(Plan("t", 0, row, col, span, split), tile)
    scale = span / tile

    def source(start: int, cell: int) -> slice:
        first, last = start + np.floor(cell * scale), start + np.ceil((cell + 1) * scale)
        return slice(max(0, int(first)), max(0, int(last)))

    inside = owner == SPLITS.index(split)
    for i, j in zip(*np.nonzero(own), strict=True):
        assert inside[source(row, i), source(col, j)].all()
    seen = inside[max(0, row) : max(0, row + span), max(0, col) : max(0, col + span)]
    if seen.shape == (span, span) and seen.all():
        assert own.all()


def test_split_file(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    path.write_text("\ufeffscene,split\nA.tif,train\nb,Validation\nc.tif,TEST\n", encoding="utf-8")
    assert read_split_file(path, ["a.TIF", "b.tif", "c.tif"]) == ["train", "val", "test"]
    with pytest.raises(LsmapError, match=r"1 scene.*not listed: d\.tif"):
        read_split_file(path, ["a.tif", "d.tif"])
    path.write_text("scene,split\nC:\\data\\o_2024.05.01,train\n/data/o_2024.05.17,test\n")
    assert read_split_file(path, ["o_2024.05.17.tif", "o_2024.05.01.tif"]) == ["test", "train"]
    path.write_text("scene,split\nsite.north,train\nsite.south.geotiff,test\n")
    assert read_split_file(path, ["site.north.tif", "site.south.tif"]) == ["train", "test"]


@pytest.mark.parametrize(
    "text",
    [
        "stem, Split\na, Train\n\nb, TEST\n",
        "\ufeffscene;SPLIT\na;train\nb;test\n;\n",
        "\ufeffscene\tnote, year\tsplit \r\na\tx, 1\ttrain\r\nb\t\ttest\r\n",
        '"scene","a;b"," Split"\n"a","1","train"\n"b","2","test"\n',
    ],
)
def test_split_files_as_spreadsheets_write_them(tmp_path: Path, text: str) -> None:
    path = tmp_path / "s.csv"
    path.write_bytes(text.encode("utf-8"))
    assert read_split_file(path, ["b.tif", "a.tif"]) == ["test", "train"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("scene,part\na,train\n", "column 'split'"),
        ("scene,split\na,learn\n", "line 2: split 'learn'"),
        ("scene;split\n\na;\n", "line 3: split ''"),
        ("scene;split\n\na\n", "line 3: split ''"),
        ("scene,split\n", "column 'split'"),
        ("scene,split\na,train\na.tif,test\n", "two splits"),
        ("", "column 'split'"),
    ],
)
def test_bad_split_files(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "s.csv"
    path.write_text(text)
    with pytest.raises(LsmapError, match=says):
        read_split_file(path, ["a"])


def test_absent_split_file(tmp_path: Path) -> None:
    with pytest.raises(LsmapError, match=r"none\.csv: there is no such split file"):
        read_split_file(tmp_path / "none.csv", ["a"])
