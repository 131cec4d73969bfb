"""What a network starts from: nothing, a backbone, or a whole model."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file

from landslide_mapper.checkpoint import ModelInfo, bundled_model, read_info, save_model
from landslide_mapper.config import ARCHITECTURES, ModelConfig, TrainConfig
from landslide_mapper.data.manifest import Dataset
from landslide_mapper.errors import LsmapError
from landslide_mapper.nn.build import build
from landslide_mapper.nn.encoder import dilated_resnet
from landslide_mapper.nn.mrife import MRIFE
from landslide_mapper.training.runs import plan_run
from landslide_mapper.training.start import check_start, start_network

SMALL = ModelConfig(backbone="resnet18", last_layer=3, aspp_channels=32, aspp_rates=(2, 3, 4))


def backbone_file(path: Path, without: tuple[str, ...] = ()) -> dict[str, torch.Tensor]:
    torch.manual_seed(4)
    state = dilated_resnet("resnet18")[0].state_dict()
    state = {name: value for name, value in state.items() if name.split(".")[0] not in without}
    save_file(state, path)
    return state


def test_all_three_encoders_start_from_the_given_weights(tmp_path: Path) -> None:
    state = backbone_file(tmp_path / "w.safetensors")
    network = MRIFE(SMALL)
    start_network(network, str(tmp_path / "w.safetensors"))
    for encoder in (network.segmentation, network.student, network.teacher):
        own = encoder.backbone.state_dict()
        assert all(torch.equal(own[name], state[name]) for name in own)
    own_aspp = [e.aspp.project[0].weight for e in (network.segmentation, network.student)]
    assert not torch.equal(*own_aspp)
    assert torch.equal(
        network.student.aspp.project[0].weight, network.teacher.aspp.project[0].weight
    )


@pytest.mark.parametrize("arch", ["deeplabv3plus", "icssn"])
def test_the_one_encoder_of_others_starts_from_the_given_weights(arch: str, tmp_path: Path) -> None:
    state = backbone_file(tmp_path / "w.safetensors")
    network = build(dataclasses.replace(SMALL, arch=arch))
    start_network(network, str(tmp_path / "w.safetensors"))
    own = network.get_submodule("encoder.backbone").state_dict()
    assert all(torch.equal(own[name], state[name]) for name in own)


def test_missing_stages_are_said_and_bands_inflated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = backbone_file(tmp_path / "w.safetensors", without=("layer4",))
    network = MRIFE(dataclasses.replace(SMALL, last_layer=4, band_count=4))
    said = start_network(network, str(tmp_path / "w.safetensors"))
    assert "layer4" in capsys.readouterr().err
    assert "inflated from 3 to 4" in said
    weight = network.teacher.backbone.conv1.weight
    assert torch.allclose(weight[:, :3], state["conv1.weight"] * 3 / 4)


def test_weights_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = MRIFE(SMALL)
    with pytest.raises(LsmapError, match="imagenet, none, a safetensors file"):
        start_network(network, str(tmp_path / "none"))
    (tmp_path / "text").write_text("hello")
    with pytest.raises(LsmapError, match="not a safetensors file"):
        start_network(network, str(tmp_path / "text"))
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(LsmapError, match="no tensor has a name"):
        start_network(network, str(tmp_path / "x.safetensors"))
    wide = dilated_resnet("resnet50")[0].state_dict()
    save_file(wide, tmp_path / "wide.safetensors")
    with pytest.raises(LsmapError, match="--backbone"):
        start_network(network, str(tmp_path / "wide.safetensors"))

    def offline(*_args: object, **_options: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path / "hub"))
    with pytest.raises(LsmapError, match="--weights none"):
        start_network(network, "imagenet")


def trained(path: Path, model: ModelConfig) -> tuple[torch.nn.Module, ModelInfo]:
    """A model file, of a network whose encoders have all gone their own ways."""
    torch.manual_seed(5)
    network = build(model)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.add_(0.01 * torch.randn_like(parameter) + 0.001 * len(name))
    info = ModelInfo(
        "before", model, (1, 2, 3), "equalize", 64, 0.5, 0.4, calibration=(1.5, -0.75), epoch=7
    )
    save_model(network, info, path, calibration=info.calibration)
    return network.eval(), info


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("by_folder", [False, True])
def test_a_network_goes_on_from_where_training_ended(
    arch: str, by_folder: bool, tmp_path: Path
) -> None:
    config = dataclasses.replace(SMALL, arch=arch)
    path = tmp_path / "best.safetensors"
    before, _ = trained(path, config)
    weights = str(tmp_path if by_folder else path)
    _, planned = plan_run(None, None, None, False, (), {"weights": weights})
    assert planned.model == config
    after = build(planned.model).eval()
    said = start_network(after, weights)
    assert said == "all weights from before, epoch 7"
    images = torch.randint(1, 256, (2, 3, 64, 64), dtype=torch.uint8)
    with torch.inference_mode():
        assert torch.allclose(after(images), before(images), atol=1e-5)


@pytest.mark.parametrize("distillation", [False, True])
def test_the_branch_that_predicted_starts_student_and_teacher(
    distillation: bool, tmp_path: Path
) -> None:
    path = tmp_path / "model.safetensors"
    before, _ = trained(path, SMALL)
    assert isinstance(before, MRIFE)
    after = MRIFE(dataclasses.replace(SMALL, distillation=distillation))
    start_network(after, str(path))
    predicted = before.teacher.state_dict()
    started = [after.student, *([after.teacher] if distillation else [])]
    for encoder in started:
        own = encoder.state_dict()
        assert all(torch.equal(own[name], value) for name, value in predicted.items())
    if distillation:
        assert not any(parameter.requires_grad for parameter in after.teacher.parameters())


def test_options_change_the_network_of_the_model_where_they_can(tmp_path: Path) -> None:
    trained(tmp_path / "best.safetensors", SMALL)
    given = {"weights": str(tmp_path), "beta": 0.5, "epochs": 3}
    _, config = plan_run(None, None, "best", False, (), given)
    assert config.model == dataclasses.replace(SMALL, beta=0.5, sfce=False)
    assert (config.epochs, config.optimizer) == (3, "adamw")
    _, wider = plan_run(None, None, None, False, (), given | {"aspp_channels": 64})
    with pytest.raises(LsmapError, match="leave --arch, --backbone"):
        start_network(build(wider.model), str(tmp_path))


def test_the_bundled_model_can_be_gone_on_with() -> None:
    _, config = plan_run(None, None, None, False, (), {"weights": "bundled"})
    info = read_info(bundled_model())
    assert config == TrainConfig(weights="bundled", model=info.model)
    nearer = {"weights": "bundled", "aspp_rates": (6, 12, 18)}  # the same weights fit
    _, changed = plan_run(None, None, None, False, (), nearer)
    assert changed.model == dataclasses.replace(info.model, aspp_rates=(6, 12, 18))
    assert "all weights from" in start_network(build(changed.model), "bundled")
    assert "all weights from" in start_network(build(config.model), "bundled")


def dataset(bands: int, stretch: str, gsd: float | None) -> Dataset:
    """As much of a dataset as a start looks at."""
    info = {"band_count": bands, "radiometry": {"rule": stretch}, "gsd": gsd}
    return Dataset(Path("tiles"), info, ())


def test_a_model_goes_on_only_with_images_like_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained(tmp_path / "best.safetensors", SMALL)
    weights = str(tmp_path)
    check_start("none", dataset(8, "none", None))
    check_start(weights, dataset(3, "equalize", 0.6))
    check_start(weights, dataset(3, "equalize", None))
    assert capsys.readouterr().err == ""
    check_start(weights, dataset(3, "equalize", 5.0))
    assert "tiles: pixels are 5 m, and before was trained at 0.5 m" in capsys.readouterr().err
    with pytest.raises(LsmapError, match="3 bands with --stretch equalize, tiles has 4"):
        check_start(weights, dataset(4, "equalize", 0.5))
    with pytest.raises(LsmapError, match="--stretch equalize, tiles has 3 with percentile"):
        check_start(weights, dataset(3, "percentile", 0.5))


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(LsmapError, match="does not exist"):
        plan_run(None, None, None, False, (), {"weights": str(tmp_path)})


def test_a_recipe_leaves_out_what_an_architecture_has_no_use_for() -> None:
    for arch in ARCHITECTURES:
        _, config = plan_run(None, None, "best", False, (), {"arch": arch, "lr": 0.125})
        assert (config.optimizer, config.lr) == ("adamw", 0.125)
        assert config.model.sfce == (arch != "mrife")
    assert plan_run(None, None, "paper", False, (), {})[1] == TrainConfig()
    with pytest.raises(LsmapError, match="--recipe goes without"):
        plan_run(None, Path("config.json"), "best", False, (), {})
