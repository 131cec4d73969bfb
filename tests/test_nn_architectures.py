"""What holds for every architecture, and what DeepLabV3+ and ICSSN are made of."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest
import torch
from learning import learn_by_heart
from torch import Tensor, nn

from landslide_mapper.config import ARCHITECTURES, ModelConfig, TrainConfig
from landslide_mapper.nn.build import NETWORKS, build
from landslide_mapper.nn.deeplab import DeepLabV3Plus
from landslide_mapper.nn.folding import fold
from landslide_mapper.nn.icssn import ICSSN, draw_objects, near_edges
from landslide_mapper.nn.losses import cross_entropy
from landslide_mapper.nn.masking import BACKGROUND, EDGE, INTERIOR, UNUSABLE
from landslide_mapper.nn.network import Losses, Network
from landslide_mapper.nn.optimiser import load_optimizer, make_optimizer

SMALL = ModelConfig(backbone="resnet18", last_layer=3, aspp_channels=32, aspp_rates=(2, 3, 4))


def config(arch: str, **changes: object) -> ModelConfig:
    return dataclasses.replace(SMALL, arch=arch, **changes)


def made(arch: str, seed: int = 0, **changes: object) -> Network:
    torch.manual_seed(seed)
    return build(config(arch, **changes))


def batch(samples: int = 4, size: int = 128) -> tuple[Tensor, Tensor]:
    """Random images with a brighter landslide on one side, and some ignored pixels."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(1, 120, (samples, 3, size, size), generator=generator, dtype=torch.uint8)
    labels = torch.zeros(samples, size, size, dtype=torch.uint8)
    part = slice(size // 8 + 4, size // 2), slice(4, size // 3)
    labels[:, *part] = 1
    labels[:, :8, :8] = 255
    images[:, :, *part] += 90
    return images, labels


def losses_of(network: Network, images: Tensor, labels: Tensor, seed: int = 0) -> Losses:
    losses = network(images, labels, torch.Generator().manual_seed(seed))
    assert isinstance(losses, Losses)
    return losses


def turns(network: Network) -> Iterator[int]:
    """Epochs after which everything has had its turn."""
    for epoch in range(2 if network.rests else 1):
        network.begin_epoch(epoch)
        yield epoch


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_logits_start_at_the_odds_of_a_landslide(arch: str) -> None:
    free, rare = made(arch, prior=0.0).state_dict(), made(arch, prior=0.02).state_dict()
    (name,) = (name for name in free if not torch.equal(free[name], rare[name]))
    assert torch.sigmoid(rare[name]).item() == pytest.approx(0.02)
    network = made(arch, prior=0.02).eval()
    weight, _ = network._last_layer()
    network.get_parameter(weight).data.zero_()
    images, _ = batch(samples=2)
    logits = network(images)
    assert isinstance(logits, Tensor)
    assert torch.allclose(torch.sigmoid(logits), torch.tensor(0.02), atol=1e-4)


def test_every_name_has_a_network() -> None:
    assert tuple(NETWORKS) == ARCHITECTURES


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize(("bands", "height", "width"), [(3, 64, 64), (1, 64, 104), (5, 16, 8)])
def test_prediction_has_the_size_of_the_image(
    arch: str, bands: int, height: int, width: int
) -> None:
    network = made(arch, band_count=bands).eval()
    images = torch.randint(0, 255, (2, bands, height, width), dtype=torch.uint8)
    with torch.inference_mode():
        assert network(images).shape == (2, height, width)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_losses_are_named_and_every_trained_parameter_learns(arch: str) -> None:
    network = made(arch).train()
    names: list[str] = []
    for _ in turns(network):
        losses = losses_of(network, *batch())
        losses.total.backward()
        names += losses.parts
        assert all(not part.requires_grad for part in losses.parts.values())
        assert all(part > 0 for part in losses.parts.values())
    assert tuple(names) == network.loss_names
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_tiles_without_landslide_or_without_anything_train(arch: str) -> None:
    network = made(arch).train()
    images, labels = batch()
    for wanted in (labels.masked_fill(labels == 1, 0), labels.fill_(255)):
        for _ in turns(network):
            losses = losses_of(network, images, wanted)
            losses.total.backward()
            assert losses.total.isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_folding_changes_no_answer(arch: str) -> None:
    network = made(arch).train()
    images, labels = batch()
    for _ in turns(network):  # batch statistics worth folding
        losses_of(network, images, labels)
    network.eval()
    with torch.inference_mode():
        expected = torch.sigmoid(network(images))
        found = torch.sigmoid(fold(network)(images))
    assert (expected - found).abs().max() < 1e-5
    assert not any(isinstance(part, nn.BatchNorm2d) for part in network.modules())
    assert not set(network.training_parts) & {name for name, _ in network.named_children()}


def test_all_start_with_the_same_first_encoder() -> None:
    first, *others = (made(arch).trained_encoders()[0].state_dict() for arch in ARCHITECTURES)
    for other in others:
        assert first.keys() == other.keys()
        assert all(torch.equal(value, other[name]) for name, value in first.items())


@pytest.mark.slow
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_two_tiles_can_be_learnt_by_heart(arch: str) -> None:
    own = {"ema": 0.9} if arch == "mrife" else {}
    network = made(arch, aspp_channels=64, dropout=0.0, **own).train()
    images, labels = batch(2, 64)
    images = images // 2 + 40  # less obvious
    seeded = torch.Generator().manual_seed
    # After the last step of an epoch, so that each part has had its turn as often.
    iou = learn_by_heart(network, images, labels, seeded, range(19, 301, 20))
    assert iou > 0.9


# --- DeepLabV3+ --------------------------------------------------------------------------------


@pytest.mark.parametrize(("backbone", "low"), [("resnet18", 64), ("resnet50", 256)])
def test_deeplab_decodes_features_beside_the_first_stage(backbone: str, low: int) -> None:
    network = made("deeplabv3plus", backbone=backbone).eval()
    assert isinstance(network, DeepLabV3Plus)
    assert network.skip[0].weight.shape == (48, low, 1, 1)
    assert network.decoder[0][0].weight.shape == (32, 32 + 48, 3, 3)
    images, _ = batch(1, 64)
    seen: dict[str, torch.Size] = {}
    for name in ("encoder.attention", "skip", "decoder"):
        network.get_submodule(name).register_forward_hook(
            lambda _module, _inputs, output, name=name: seen.update({name: output.shape})
        )
    with torch.inference_mode():
        network(images)
    assert seen == {
        "encoder.attention": (1, 32, 8, 8),
        "skip": (1, 48, 16, 16),
        "decoder": (1, 1, 16, 16),
    }


def test_deeplabs_loss_is_the_cross_entropy() -> None:
    images, labels = batch()
    network = made("deeplabv3plus", dropout=0.0, gamma=2.0).train()
    losses = losses_of(network, images, labels)
    expected = cross_entropy(network(images), labels)
    assert torch.equal(losses.parts["cross_entropy"], expected)
    assert torch.isclose(losses.total, 2 * expected)


# --- ICSSN -------------------------------------------------------------------------------------


def test_the_two_networks_of_icssn_take_turns() -> None:
    network = made("icssn", round_epochs=2)
    assert isinstance(network, ICSSN)
    said, ready = [], []
    for epoch in range(8):
        network.begin_epoch(epoch)
        said.append(network.classifies)
        ready.append(network.ready)
    assert said == [True, True, False, False] * 2
    assert ready == [False] * 2 + [True] * 6


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_the_optimiser_of_a_gpu_steps_in_every_epoch(arch: str, optimizer: str) -> None:
    network = made(arch).train()  # on the CPU, which has the same fused optimisers
    training = TrainConfig(optimizer=optimizer)
    steps = make_optimizer(training, network, torch.device("cuda"))
    before = [
        parameter.detach().clone() for parameter in network.trained_encoders()[0].parameters()
    ]
    for _ in turns(network):
        losses_of(network, *batch(2)).total.backward()
        steps.step()
        steps.zero_grad(set_to_none=True)
    after = network.trained_encoders()[0].parameters()
    assert all(not torch.equal(old, new) for old, new in zip(before, after, strict=True))


def test_each_turn_of_icssn_leaves_the_other_network_alone() -> None:
    network = made("icssn").train()
    for epoch, (learns, rests) in enumerate((("classifier", "decoder"), ("decoder", "classifier"))):
        network.begin_epoch(epoch)
        network.zero_grad(set_to_none=True)
        losses_of(network, *batch()).total.backward()
        for part, has_gradient in (("encoder", True), (learns, True), (rests, False)):
            for parameter in network.get_submodule(part).parameters():
                assert (parameter.grad is not None) == has_gradient


@pytest.mark.parametrize("term", ["beta", "gamma"])
def test_the_shared_encoder_learns_from_contrast_and_from_cross_entropy(term: str) -> None:
    weights = {name: float(name == term) for name in ("beta", "gamma")}
    network = made("icssn", **weights).train()
    for _ in turns(network):
        network.zero_grad(set_to_none=True)
        losses_of(network, *batch()).total.backward()
        gradients = [p.grad for p in network.get_submodule("encoder").parameters()]
        assert sum(g.abs().sum() for g in gradients if g is not None) > 0


def test_the_classifier_learns_from_the_objects_that_there_are() -> None:
    network = made("icssn", beta=0.3, gamma=0.7, temperature=0.5).eval()
    assert isinstance(network, ICSSN)
    images, labels = batch()
    labels[0] = 0  # no landslide
    labels[1] = 255
    images = images.float() / 255
    losses = network.training_losses(images, labels, torch.Generator().manual_seed(0))
    windows, truth, there = draw_objects(images, labels, torch.Generator().manual_seed(0))
    vectors, logits = network.classifier(network.encoder(windows[there]))
    of = truth[there] == 1
    contrast = 0.0
    for ones, zeros in ((vectors[of], vectors[~of]), (vectors[~of], vectors[of])):
        against = torch.logsumexp(ones @ zeros.T / 0.5, dim=1, keepdim=True)
        each = nn.functional.softplus(against - ones @ ones.T / 0.5)
        contrast += (each.sum() - each.trace()).item() / len(ones) ** 2 / 2
    entropy = nn.functional.binary_cross_entropy_with_logits(logits, truth[there])
    assert losses.parts["object_contrast"].item() == pytest.approx(contrast, rel=1e-4)
    assert losses.parts["classification"].item() == pytest.approx(entropy.item(), rel=1e-4)
    assert losses.total.item() == pytest.approx(0.3 * contrast + 0.7 * entropy.item(), rel=1e-4)


def test_parts_of_objects_are_held_against_the_background_beside_them() -> None:
    """In every image of a pair, and nowhere else do features feel it."""
    network = made("icssn", gamma=0.0).train()
    network.begin_epoch(1)
    images, labels = batch(size=192)
    labels[:] = 0
    labels[:, 4:36, 4:36] = 1
    felt: list[Tensor] = []

    def listen(_: nn.Module, __: object, features: Tensor) -> None:
        features.register_hook(felt.append)

    network.get_submodule("encoder").register_forward_hook(listen)
    losses_of(network, images, labels).total.backward()
    felt_at = felt[0].abs().sum(dim=1) > 0
    assert felt_at[:, :5, :5].any(dim=(1, 2)).all()
    assert felt_at[:, 5:, 5:].any()
    assert not felt_at[:, 10:].any()
    assert not felt_at[:, :, 10:].any()


def test_objects_are_drawn_where_the_labels_say() -> None:
    """Images that hold their own labels: a window shows what was drawn."""
    labels = torch.zeros(4, 128, 96, dtype=torch.uint8)
    labels[0, 100:128, 60:96] = 1
    labels[1, :, :] = 1  # no background
    labels[2, :, :] = 255  # hardly anything was seen
    labels[2, :20, :20] = 1
    images = labels[:, None].float()
    windows, truth, there = draw_objects(images, labels, torch.Generator().manual_seed(0))
    assert windows.shape == (16, 1, 48, 48)
    assert truth.tolist() == [1.0] * 8 + [0.0] * 8
    assert there.tolist() == [True, True, False, False] * 2 + [True, False, False, True] * 2
    for window, kind, real in zip(windows, truth, there, strict=True):
        if real:
            assert ((window == 1).float().mean() >= 0.01) == (kind == 1)
            assert kind == 1 or not window.any()


def test_landslides_are_drawn_with_at_least_half_of_what_a_window_can_hold() -> None:
    labels = torch.zeros(20, 128, 128, dtype=torch.uint8)
    labels[:, 40:80, 48:80] = 1
    windows, truth, _ = draw_objects(labels[:, None].float(), labels, torch.Generator())
    shown = windows[truth == 1].sum(dim=(1, 2, 3)) / (40 * 32)
    assert 0.5 <= shown.min() < 0.6
    assert shown.max() == 1


def test_objects_are_drawn_anew() -> None:
    images, labels = batch()
    normalised = images.float()
    generator = torch.Generator().manual_seed(0)
    first, second = (draw_objects(normalised, labels, generator)[0] for _ in range(2))
    assert not torch.equal(first, second)
    again = draw_objects(normalised, labels, torch.Generator().manual_seed(0))[0]
    assert torch.equal(first, again)


def test_background_of_parts_lies_near_an_edge() -> None:
    classes = torch.full((1, 12, 12), BACKGROUND)
    classes[0, 0, 0] = EDGE
    classes[0, 11, 11] = INTERIOR
    near = near_edges(classes)
    assert near[0, 0, 0] == EDGE
    assert near[0, 11, 11] == INTERIOR
    assert (near[0, :5, :5] == BACKGROUND).sum() == 24
    assert (near == BACKGROUND).sum() == 24
    assert (near == UNUSABLE).sum() == 144 - 26


@pytest.mark.parametrize(
    ("kind", "own"), [("sgd", {"momentum": 0.8}), ("adamw", {"betas": (0.8, 0.999)})]
)
def test_an_optimiser_has_the_settings_of_the_run(kind: str, own: dict[str, object]) -> None:
    config = TrainConfig(optimizer=kind, lr=0.03, momentum=0.8, weight_decay=0.02)
    (group,) = make_optimizer(config, made("mrife"), torch.device("cpu")).param_groups
    assert {name: group[name] for name in ("lr", "weight_decay", *own)} == {
        "lr": 0.03,
        "weight_decay": 0.02,
        **own,
    }
    assert not any(group.get(name) for name in ("nesterov", "amsgrad", "maximize"))


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_an_optimiser_goes_on_on_another_device(kind: str) -> None:
    """Its counts of steps have to lie where its kernels look for them; meta stands for CUDA."""
    config = TrainConfig(optimizer=kind)
    layer = nn.Linear(2, 1)
    steps = make_optimizer(config, layer, torch.device("cpu"))  # type: ignore[arg-type]
    layer(torch.ones(1, 2)).sum().backward()
    steps.step()
    elsewhere = nn.Linear(2, 1, device="meta")
    fused = torch.optim.AdamW(elsewhere.parameters(), fused=False)
    fused.param_groups[0]["fused"] = True  # which is refused for meta
    if kind == "sgd":
        fused = torch.optim.SGD(elsewhere.parameters(), momentum=0.9)
    load_optimizer(fused, steps.state_dict())
    assert fused.param_groups[0]["fused"] is (True if kind == "adamw" else None)
    for state in fused.state.values():
        assert {value.device.type for value in state.values()} == {"meta"}
