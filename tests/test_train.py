"""Training on real tiles: what a run leaves behind, resuming, two processes, learning at all."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
import torch._dynamo
from learning import learn_by_heart
from running import LIGHT, QUICK, full_disk, run
from torch import nn

from landslide_mapper.checkpoint import read_info
from landslide_mapper.config import (
    ARCHITECTURES,
    ModelConfig,
    TrainConfig,
    read_train_config,
)
from landslide_mapper.data.dataset import TileDataset
from landslide_mapper.data.manifest import load_dataset
from landslide_mapper.metrics import confusion, rates
from landslide_mapper.nn.build import build
from landslide_mapper.nn.calibration import Calibration
from landslide_mapper.nn.mrife import MRIFE
from landslide_mapper.nn.optimiser import RunningMean
from landslide_mapper.predictors import load_predictor
from landslide_mapper.train import TrainReport
from landslide_mapper.training.history import best_row, read_log
from landslide_mapper.training.loaders import (
    common_gsd,
    load_datasets,
    make_loaders,
    warn_of_tiles,
)
from landslide_mapper.training.parallel import Process
from landslide_mapper.training.runs import plan_run


def test_a_run_leaves_everything_behind(dataset: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    options = [*QUICK, "--epochs", 2, "--lr", 0.02]
    output = run("train", dataset, "-o", folder, *options, "--tensorboard")
    assert "Next: lsmap detect" in output
    names = {path.name for path in folder.iterdir()}
    assert {"config.json", "log.csv", "curves.png", "best.safetensors", "last.pt"} <= names
    assert any(name.startswith("events.out.tfevents") for name in names)
    assert not [name for name in names if name.endswith(".partial")]

    rows = read_log(folder / "log.csv")
    assert [row["epoch"] for row in rows] == [1, 2]
    assert all(np.isfinite(value) for row in rows for value in row.values())
    assert rows[0]["reconstruction"] > 0
    assert rows[0]["contrast"] > 0
    assert (folder / "curves.png").read_bytes()[:4] == b"\x89PNG"

    predict, info = load_predictor(folder / "best.safetensors", "cpu")
    best = best_row(rows)
    assert info.epoch == best["epoch"]
    assert info.metrics["landslide_iou"] == pytest.approx(best["landslide_iou"], abs=1e-5)
    assert info.radiometry == "equalize"
    assert info.bands == (1, 2, 3)
    assert info.gsd == pytest.approx(0.5, rel=0.01)

    # The metric in the log is the saved model's, counted here with numpy alone.
    tp = fp = fn = expected = share = 0.0
    half = Calibration(*info.calibration)(0.5)
    for tile in load_dataset(dataset).split("val"):
        image, mask = TileDataset([tile])[0, 0]
        probability, labels = predict(image[None].numpy())[0], mask.numpy()
        seen, slide, found = labels != 255, labels == 1, probability >= half
        tp += tile.stands_for * int((found & slide).sum())
        fp += tile.stands_for * int((found & ~slide & seen).sum())
        fn += tile.stands_for * int((~found & slide).sum())
        expected += tile.stands_for * float(probability[seen].sum(dtype=np.float64))
        share += tile.stands_for * int(slide.sum())
    assert tp / max(tp + fp + fn, 1) == pytest.approx(best["landslide_iou"], abs=2e-3)
    # As many pixels are landslide as the model expects, on validation.
    assert info.calibration != (1.0, 0.0)
    assert expected == pytest.approx(share, rel=0.02)


def test_where_tiles_are_moved_validation_shows_them_off_the_middle(
    dataset: Path, tmp_path: Path
) -> None:
    """The log has what `evaluate --moved` says of the model that was kept, where all is drawn."""
    drawn, folder, out = tmp_path / "drawn", tmp_path / "run", tmp_path / "out"
    shutil.copytree(dataset, drawn)
    info = json.loads((drawn / "dataset.json").read_text("utf-8"))
    info["counts"]["val"]["undrawn_negatives"] = 0
    (drawn / "dataset.json").write_text(json.dumps(info), "utf-8")
    run("train", drawn, "-o", folder, *QUICK, "--epochs", 2, "--lr", 0.02, "--shift", 0.4)
    run("evaluate", folder, drawn, "--split", "val", "--moved", "--device", "cpu", "-o", out)
    (found,) = json.loads((out / "metrics.json").read_text("utf-8"))["at"]
    best = best_row(read_log(folder / "log.csv"))
    assert best["landslide_iou_at_threshold"] == pytest.approx(
        found["pixels"]["landslide_iou"], abs=2e-3
    )


def test_a_model_is_gone_on_with(dataset: Path, tmp_path: Path) -> None:
    """Its network need not be named, and where weights stay as they are, it is what it was."""
    still = ["--workers", 0, "--device", "cpu", "--batch-size", 8, "--epochs", 1, "--lr", 1e-6]
    run("train", dataset, "-o", tmp_path / "a", *QUICK, "--epochs", 2, "--lr", 0.02)
    run("train", dataset, "-o", tmp_path / "b", *still, "--weights", tmp_path / "a", "--no-sfce")
    run("train", dataset, "-o", tmp_path / "fresh", *QUICK, *still[-4:])
    (after,), (fresh,) = (read_log(tmp_path / name / "log.csv") for name in ("b", "fresh"))
    info = read_info(tmp_path / "b" / "best.safetensors")
    assert "all weights from a" in info.data
    assert info.model.aspp_channels == 32
    assert not info.model.sfce
    assert after["cross_entropy"] < fresh["cross_entropy"] - 0.03
    settings = tmp_path / "b" / "config.json"
    _, again = plan_run(None, settings, None, resume=False, datasets=(), settings={})
    assert again == read_train_config(settings)
    settings.write_text(json.dumps({"weights": str(tmp_path / "a")}))  # says nothing of a network
    _, again = plan_run(None, settings, None, resume=False, datasets=(), settings={})
    assert again.model == read_info(tmp_path / "a" / "best.safetensors").model
    output = run("train", dataset, "--weights", tmp_path / "a", "--arch", "icssn", code=2)
    assert "is of --arch mrife and cannot become icssn" in output


def wait_for(condition: object, process: subprocess.Popen[bytes], seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert process.poll() is None, "training ended before it could be killed"
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.05)


def test_killed_and_resumed_equals_uninterrupted(dataset: Path, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    # More to keep than with the paper's settings.
    recipe = ["--recipe", "best", "--sfce", "--average", "1"]
    options = [*QUICK, "--epochs", "3", *recipe]
    command = [sys.executable, "-m", "landslide_mapper", "train", str(dataset), *options, "-o"]
    subprocess.run([*command, str(whole)], check=True, capture_output=True)
    process = subprocess.Popen([*command, str(broken)], stderr=subprocess.DEVNULL)
    wait_for((broken / "last.pt").exists, process)
    time.sleep(0.3)  # into the second epoch
    process.kill()
    process.wait()
    epochs_done = len(torch.load(broken / "last.pt", weights_only=True)["rows"])
    assert 1 <= epochs_done < 3
    resume = [sys.executable, "-m", "landslide_mapper", "train", "--resume", "-o", str(broken)]
    subprocess.run(resume, check=True, capture_output=True)

    first, second = (torch.load(path / "last.pt", weights_only=True) for path in (whole, broken))
    for part in ("model", "mean"):
        assert first[part].keys() == second[part].keys()
        for key, value in first[part].items():
            assert torch.equal(value, second[part][key]), (part, key)
    for key, moments in first["optimizer"]["state"].items():
        assert moments.keys() == {"step", "exp_avg", "exp_avg_sq"}
        for name, value in moments.items():
            assert torch.equal(value, second["optimizer"]["state"][key][name])
    timed = ("seconds", "samples_per_s")
    logs = [
        [{k: v for k, v in row.items() if k not in timed} for row in read_log(path / "log.csv")]
        for path in (whole, broken)
    ]
    assert logs[0] == logs[1]


def test_the_mean_is_plain_until_it_spans_its_steps_and_then_forgets() -> None:
    config = ModelConfig(backbone="resnet18", last_layer=3, aspp_channels=16)
    model, *after = (build(config) for _ in range(5))
    mean = RunningMean(model)
    for step, later in enumerate(after):
        model.load_state_dict(later.state_dict())
        mean.take(step, 2)
    weights = [0.125, 0.125, 0.25, 0.5]
    for name, value in mean.network.state_dict().items():
        if value.is_floating_point():
            terms = [w * later.state_dict()[name] for w, later in zip(weights, after, strict=True)]
            torch.testing.assert_close(value, torch.stack(terms).sum(0))


def test_the_mean_of_the_weights_is_kept_and_changes_nothing_in_what_is_learnt(
    dataset: Path, tmp_path: Path
) -> None:
    states, files = {}, {}
    # From even odds the best epoch is the last one.
    options = [dataset, *QUICK, "--lr", 0.03, "--prior", 0, "--epochs", 2]
    for epochs in (0, 2):
        folder = tmp_path / f"{epochs}"
        run("train", *options, "-o", folder, "--average", epochs)
        states[epochs] = torch.load(folder / "last.pt", weights_only=True)
        files[epochs] = load_predictor(folder / "best.safetensors", "cpu")
    assert states[0]["mean"] is None
    for name, value in states[0]["model"].items():
        assert torch.equal(value, states[2]["model"][name]), name

    tile = load_dataset(dataset).split("val")[0]
    image = TileDataset([tile])[0, 0][0][None]
    for epochs, part in ((0, "model"), (2, "mean")):
        predict, info = files[epochs]
        network = build(info.model)
        network.load_state_dict(states[epochs][part])
        with torch.inference_mode():
            logits = network.eval()(image)
        scale, shift = info.calibration
        expected = torch.sigmoid(scale * logits + shift).numpy()
        np.testing.assert_allclose(predict(image.numpy()), expected, atol=1e-4)
    assert files[0][1].threshold != files[2][1].threshold  # it was the mean that was validated


@pytest.mark.parametrize("arch", ["deeplabv3plus", "icssn"])
def test_every_architecture_trains_resumes_and_detects(
    arch: str, dataset: Path, tmp_path: Path, train_scenes: list[Path]
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    options = [dataset, *QUICK, "--arch", arch]
    run("train", *options, "-o", whole, "--epochs", 3)
    run("train", *options, "-o", parts, "--epochs", 2)
    output = run("train", "--resume", "-o", parts, "--epochs", 3)
    assert "cross-entropy" in output or arch == "icssn"
    first, second = (torch.load(path / "last.pt", weights_only=True) for path in (whole, parts))
    for key, value in first["model"].items():
        assert torch.equal(value, second["model"][key]), key
    for key, value in first["optimizer"]["state"].items():
        assert torch.equal(
            value["momentum_buffer"], second["optimizer"]["state"][key]["momentum_buffer"]
        )
    rows = read_log(parts / "log.csv")
    turns = [[name for name in row if np.isnan(row[name])] for row in rows]
    segments, classifies = (
        ["boundary_contrast", "cross_entropy"],
        ["object_contrast", "classification"],
    )
    assert turns == ([segments, classifies, segments] if arch == "icssn" else [[], [], []])
    facts = json.loads(run("info", parts, "--json"))
    assert "NaN" not in json.dumps(facts)
    info = load_predictor(parts / "best.safetensors", "cpu")[1]
    assert info.arch == arch
    run("detect", train_scenes[0], "-o", tmp_path / "s.gpkg", "--model", parts, "--device", "cpu")
    assert (tmp_path / "s.gpkg").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_a_compiled_network_learns_the_same(
    arch: str, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through dynamo, but with its plain backend: building kernels is torch's matter, and slow."""
    compiled: list[nn.Module] = []

    def compile_plainly(part: nn.Module) -> None:
        compiled.append(part)
        part._compiled_call_impl = torch.compile(part._call_impl, backend="eager")

    monkeypatch.setattr(nn.Module, "compile", compile_plainly)
    options = [dataset, *QUICK, "--arch", arch, "--dropout", 0, "--epochs", 2, "--lr", 1e-3]
    # Else torch gives a part up with a warning, and it runs as if it were not compiled.
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
        run("train", *options, "-o", tmp_path / "compiled", "--compile")
    assert len(compiled) > 2
    run("train", *options, "-o", tmp_path / "plain")
    logs = [read_log(tmp_path / name / "log.csv") for name in ("compiled", "plain")]
    for one, two in zip(*logs, strict=True):
        assert one["loss"] == pytest.approx(two["loss"], rel=1e-3)


def test_all_architectures_see_the_same_batches(dataset: Path) -> None:
    seen = []
    for arch in ARCHITECTURES:
        config = TrainConfig((str(dataset),), seed=3, workers=0, model=ModelConfig(arch=arch))
        batches, training, _ = make_loaders(
            config, load_datasets(config), Process(0, 1, torch.device("cpu"))
        )
        batches.epoch = 2
        seen.append(list(training))
    for other in seen[1:]:
        for one, two in zip(seen[0], other, strict=True):
            assert torch.equal(one[0], two[0])
            assert torch.equal(one[1], two[1])


def test_reading_processes_take_no_random_numbers(dataset: Path) -> None:
    """Or dropout would get others in a run that goes on than in one that was never stopped."""
    config = TrainConfig((str(dataset),), workers=1, model=ModelConfig(arch="deeplabv3plus"))
    _, training, validation = make_loaders(
        config, load_datasets(config), Process(0, 1, torch.device("cpu"))
    )
    torch.manual_seed(0)
    before = torch.get_rng_state()
    for loader in (training, validation.loader):
        assert loader.num_workers == 1
        next(iter(loader))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_tile_is_one_line(workers: int, dataset: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(dataset, tmp_path / "dataset")
    for tile in load_dataset(copy).split("train"):
        tile.image.write_bytes(tile.image.read_bytes()[:300])
    options = [*QUICK, "--epochs", 1, "--workers", workers]
    output = run("train", copy, *options, "-o", tmp_path / "run", code=1)
    assert output.startswith("Error: tile ")
    assert len(output.strip().splitlines()) == 1


def test_a_full_disk_loses_no_epoch(dataset: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run("train", dataset, *QUICK, "--epochs", 1, "-o", folder)
    command = [sys.executable, "-m", "landslide_mapper", "train", "--resume", "--epochs", "2"]
    before = (folder / "last.pt").read_bytes()
    result = subprocess.run(
        [*command, "-o", str(folder)],
        capture_output=True,
        text=True,
        **full_disk(1_000_000),
    )
    assert result.returncode == 1
    *_, line = result.stderr.strip().splitlines()
    assert line.startswith(f"Error: {folder}: the epoch could not be written")
    assert "Traceback" not in result.stderr
    assert not list(folder.glob(".*"))
    assert (folder / "last.pt").read_bytes() == before
    # More epochs are remembered, so that to go on needs no more than --resume.
    assert json.loads((folder / "config.json").read_text())["epochs"] == 2
    run("train", "--resume", "-o", folder)
    assert len(read_log(folder / "log.csv")) == 2
    assert "has its 2 epochs already" in run("train", "--resume", "-o", folder)
    (folder / "last.pt").write_bytes(b"")
    output = run("train", "--resume", "-o", folder, code=2)
    assert "is damaged, the run cannot be resumed: it is empty" in output


def test_the_threshold_is_not_taken_for_a_landslide_iou(tmp_path: Path) -> None:
    names = ("epoch", "landslide_iou", "precision", "recall", "f1", "landslide_iou_at_threshold")
    best = dict.fromkeys(names, 0.75) | {"threshold": 0.67}
    said = TrainReport(tmp_path, 2, best, True).summary()
    assert "landslide IoU 0.7500 at the model's threshold (0.67 after calibration)." in said


@pytest.mark.parametrize("arch", ["mrife", "icssn"])
def test_two_processes_stay_one_model(arch: str, dataset: Path, tmp_path: Path) -> None:
    """torchrun with gloo: both processes end with the same weights, all validation pixels count."""
    folder = tmp_path / "run"
    epochs = 2 if arch == "icssn" else 1
    script = tmp_path / "worker.py"
    script.write_text(
        "import os, sys, torch\n"
        "from torch.optim import SGD\n"
        "step = SGD.step\n"
        "def remember(self, *a, **k):\n"
        "    sums = [float(p.double().sum()) for g in self.param_groups for p in g['params']]\n"
        "    out = os.path.join(sys.argv[1], f\"rank{os.environ['RANK']}.txt\")\n"
        "    with open(out, 'a') as file: file.write(repr(sums) + '\\n')\n"
        "    return step(self, *a, **k)\n"
        "SGD.step = remember\n"
        "from landslide_mapper.cli import main\n"
        "main(sys.argv[2:])\n"
    )
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run(
        [
            *[sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"],
            *["--master-port=0", "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0"],
            *[str(script), str(tmp_path), "train", str(dataset), "-o", str(folder)],
            *[*LIGHT, "--weights", "none", "--workers", "0", "--device", "cpu"],
            *["--batch-size", "4", "--epochs", str(epochs), "--arch", arch, "--lr", "0.03"],
            *["--average", "0.5"],
        ],
        check=True,
        capture_output=True,
        env=environment,
    )
    steps = [(tmp_path / f"rank{rank}.txt").read_text().splitlines() for rank in (0, 1)]
    assert len(steps[0]) > 1
    assert steps[0] == steps[1]
    assert steps[0][0] != steps[0][-1]
    rows = read_log(folder / "log.csv")
    assert len(rows) == epochs
    predict, info = load_predictor(folder / "best.safetensors", "cpu")
    # What the log says is what the file does, though each process has batch statistics of its own.
    thresholds = (Calibration(*info.calibration)(0.5), info.threshold)
    counts = np.zeros((2, 4))
    for tile in load_dataset(dataset).split("val"):
        image, mask = TileDataset([tile])[0, 0]
        probability = predict(image[None].numpy())[0]
        shown = [confusion(probability >= least, mask.numpy()) for least in thresholds]
        counts += tile.stands_for * np.array(shown)
    expected = rates(counts)
    best = rows[info.epoch - 1]
    assert best["accuracy"] == pytest.approx(expected["accuracy"][0], abs=1e-3)
    assert best["landslide_iou_at_threshold"] == pytest.approx(
        expected["landslide_iou"][1], abs=1e-3
    )


@pytest.mark.slow
def test_the_network_can_learn_four_real_tiles(dataset: Path) -> None:
    tiles = sorted(load_dataset(dataset).tiles, key=lambda tile: abs(tile.landslide_fraction - 0.4))
    data = [TileDataset(tiles[:4])[0, n] for n in range(4)]
    images = torch.stack([image for image, _ in data])
    labels = torch.stack([mask for _, mask in data])
    torch.manual_seed(0)
    small = ModelConfig(
        backbone="resnet18", last_layer=3, aspp_channels=64, ema=0.9, dropout=0.0, mask_ratio=0.2
    )
    model = MRIFE(small).train()
    generator = torch.Generator().manual_seed(0)
    iou = learn_by_heart(model, images, labels, lambda _: generator, range(50, 401, 50))
    assert iou > 0.9


def test_a_network_that_diverged_is_not_saved(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict = MRIFE.predict_logits
    monkeypatch.setattr(MRIFE, "predict_logits", lambda *args: predict(*args) * float("nan"))
    output = run("train", dataset, "-o", tmp_path / "run", *QUICK, "--epochs", 1, code=1)
    assert "lower --lr" in output
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["config.json"]


def test_the_pixel_size_of_a_model_is_one_that_it_has_seen(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    coarse = shutil.copytree(dataset, tmp_path / "coarse")
    info = json.loads((coarse / "dataset.json").read_text())
    (coarse / "dataset.json").write_text(json.dumps(info | {"gsd": 4 * info["gsd"]}))
    fine = load_dataset(dataset).gsd
    config = TrainConfig((str(dataset), str(coarse)))
    both = load_datasets(config)
    assert common_gsd(both[:1]) == fine
    assert common_gsd(both) in (fine, 4 * fine)
    warn_of_tiles(config, both[:1])
    assert capsys.readouterr().err == ""
    warn_of_tiles(config, both)
    assert "--gsd native" in capsys.readouterr().err


def test_icssn_keeps_no_epoch_before_its_segmenter_has_learnt(
    dataset: Path, tmp_path: Path
) -> None:
    run("train", dataset, "-o", tmp_path / "run", *QUICK, "--arch", "icssn", "--epochs", 2)
    rows = read_log(tmp_path / "run" / "log.csv")
    assert [row["kept"] for row in rows] == [0, 1]
    assert read_info(tmp_path / "run" / "best.safetensors").epoch == 2


def test_losses_that_nothing_enters_are_told_once(tmp_path: Path) -> None:
    """Objects are windows of half a tile, which images of 20 pixels do not fill by half."""
    for folder, count in (("images", 3), ("masks", 1)):
        (tmp_path / folder).mkdir()
        for n in range(6):
            pixels = np.full((count, 20, 20), 10 * n, np.uint8)
            pixels[:, 6:14, 6:14] = 255
            size = {"count": count, "height": 20, "width": 20}
            path = tmp_path / folder / f"{n}.png"
            with rasterio.open(path, "w", driver="PNG", dtype="uint8", **size) as raster:
                raster.write(pixels)
    tiles, folder = tmp_path / "tiles", tmp_path / "run"
    pairs = ["--pairs", tmp_path / "images", tmp_path / "masks"]
    run("prepare", *pairs, "-o", tiles, "--tile-size", 64, "--workers", 1)
    options = [*QUICK, "--batch-size", 2, "--arch", "icssn", "--epochs", 3]
    output = run("train", tiles, "-o", folder, *options)
    said = "object-contrast and classification: 0 in every step of epoch "
    assert f"{said}1, as no batch had what is compared" in output
    assert f"{said}3" not in output
    assert [row["loss"] == 0 for row in read_log(folder / "log.csv")] == [True, False, True]
