"""The network: shapes, teacher and student, where gradients go."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torchvision
from torch import nn

from landslide_mapper.config import ModelConfig
from landslide_mapper.nn.decoder import Decoder
from landslide_mapper.nn.encoder import Encoder, dilated_resnet, inflate_stem
from landslide_mapper.nn.mrife import MRIFE
from landslide_mapper.nn.network import Losses, Normalise

SMALL = ModelConfig(backbone="resnet18", last_layer=3, aspp_channels=32, aspp_rates=(2, 3, 4))


def batch(samples: int = 2, size: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    """Random images whose landslides are brighter, with a block of ignored pixels."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(1, 120, (samples, 3, size, size), generator=generator, dtype=torch.uint8)
    labels = torch.zeros(samples, size, size, dtype=torch.uint8)
    labels[:, 12:44, 20:50] = 1
    labels[:, :8, :8] = 255
    images[:, :, 12:44, 20:50] += 90
    return images, labels


def training_losses(model: MRIFE, images: torch.Tensor, labels: torch.Tensor) -> Losses:
    losses = model(images, labels, torch.Generator().manual_seed(0))
    assert isinstance(losses, Losses)
    return losses


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "resnet101"])
def test_trunk_has_stride_8_and_torchvisions_names(name: str) -> None:
    reference = getattr(torchvision.models, name)(weights=None).state_dict()
    for last_layer in (3, 4):
        trunk, channels = dilated_resnet(name, last_layer=last_layer)
        own = trunk.state_dict()
        assert all(own[key].shape == reference[key].shape for key in own)
        missing = {key.split(".")[0] for key in reference if key not in own}
        assert missing == ({"fc"} if last_layer == 4 else {"fc", "layer4"})
        with torch.inference_mode():
            assert trunk.eval()(torch.zeros(1, 3, 64, 72)).shape == (1, channels, 8, 9)


def test_bottleneck_dilation_is_torchvisions_own() -> None:
    reference = torchvision.models.resnet50(
        weights=None, replace_stride_with_dilation=[False, True, True]
    )
    trunk, _ = dilated_resnet("resnet50")
    for name, conv in trunk.named_modules():
        if isinstance(conv, nn.Conv2d):
            other = reference.get_submodule(name)
            assert (conv.stride, conv.dilation, conv.padding) == (
                other.stride,
                other.dilation,
                other.padding,
            ), name


def test_basic_blocks_see_what_the_strided_network_sees() -> None:
    """A dilated trunk holds the strided one's values at every position that both have."""
    torch.manual_seed(0)
    strided = torchvision.models.resnet18(weights=None).eval()
    trunk, _ = dilated_resnet("resnet18")
    trunk.load_state_dict(strided.state_dict(), strict=False)
    trunk.eval()
    x = torch.randn(1, 3, 128, 128)
    with torch.inference_mode():
        y = strided.maxpool(strided.relu(strided.bn1(strided.conv1(x))))
        expected = strided.layer4(strided.layer3(strided.layer2(strided.layer1(y))))
        dense = trunk(x)[:, :, ::4, ::4]
    assert torch.allclose(dense, expected, atol=1e-5)


@pytest.mark.parametrize("bands", [1, 2, 3, 4, 7])
def test_inflated_stem_answers_grey_images_alike(bands: int) -> None:
    weight = torch.randn(8, 3, 7, 7)
    inflated = inflate_stem(weight, bands)
    assert inflated.shape == (8, bands, 7, 7)
    assert torch.allclose(inflated.sum(1), weight.sum(1), atol=1e-5)


@pytest.mark.parametrize(("bands", "height", "width"), [(3, 64, 64), (1, 64, 96), (4, 128, 72)])
def test_prediction_has_the_size_of_the_image(bands: int, height: int, width: int) -> None:
    model = MRIFE(dataclasses.replace(SMALL, band_count=bands)).eval()
    images = torch.randint(0, 255, (2, bands, height, width), dtype=torch.uint8)
    with torch.inference_mode():
        assert model(images).shape == (2, height, width)


def test_encoder_at_the_size_of_the_paper() -> None:
    with torch.inference_mode():
        config = ModelConfig(backbone="resnet18", last_layer=3)
        features = Encoder(config).eval()(torch.zeros(1, 3, 512, 512))
    assert features.shape == (1, 256, 64, 64)


def test_a_fresh_decoder_makes_no_checkerboard() -> None:
    """Where the features are constant, so is the answer, away from the border's padding."""
    torch.manual_seed(0)
    decoder = Decoder(32, 0.0).eval()
    constant = torch.randn(1, 32, 1, 1).expand(1, 32, 8, 8)
    with torch.inference_mode():
        logits = decoder(constant)[0]
    assert logits.shape == (64, 64)
    assert logits[16:48, 16:48].std() < 1e-6
    assert logits.std() > 1e-3  # it is no constant function


def test_nodata_becomes_the_mean_colour_and_black_does_not() -> None:
    images = torch.zeros(1, 3, 2, 2, dtype=torch.uint8)
    images[0, :, 0, 0] = 1
    normalised = Normalise(3)(images)
    assert (normalised[0, :, 1, 1] == 0).all()
    assert (normalised[0, :, 0, 0] < -1.5).all()


def test_teacher_starts_as_the_student_and_follows_it() -> None:
    torch.manual_seed(0)
    model = MRIFE(SMALL).train()
    for teacher, student in zip(
        model.teacher.parameters(), model.student.parameters(), strict=True
    ):
        assert torch.equal(teacher, student)
    before = [p.clone() for p in model.teacher.parameters()]
    with torch.no_grad():
        for parameter in model.student.parameters():
            parameter.add_(torch.randn_like(parameter))
    model.after_step()
    for old, new, student in zip(
        before, model.teacher.parameters(), model.student.parameters(), strict=True
    ):
        assert torch.allclose(new, 0.996 * old + 0.004 * student, rtol=1e-5, atol=1e-7)


def test_teachers_batch_statistics_come_from_unmasked_images() -> None:
    torch.manual_seed(0)
    model = MRIFE(SMALL).train()
    images, labels = batch()
    alone = MRIFE(SMALL)
    alone.load_state_dict(model.state_dict())
    training_losses(model, images, labels)
    alone.train()
    with torch.no_grad():
        alone.teacher(alone.normalise(images))
    seen, expected = model.teacher.state_dict(), alone.teacher.state_dict()
    for name in seen:
        assert torch.equal(seen[name], expected[name]), name
    student = model.student.state_dict()
    assert not torch.equal(student["backbone.bn1.running_var"], seen["backbone.bn1.running_var"])


@pytest.mark.parametrize("term", ["alpha", "beta", "gamma"])
def test_the_student_learns_from_each_of_the_three_losses(term: str) -> None:
    torch.manual_seed(0)
    only = dataclasses.replace(
        SMALL, **{name: float(name == term) for name in ("alpha", "beta", "gamma")}
    )
    model = MRIFE(only).train()
    training_losses(model, *batch()).total.backward()
    gradients = [p.grad.abs().sum() for p in model.student.parameters() if p.grad is not None]
    assert sum(gradients) > 0
    reaches_segmentation = any(
        p.grad is not None and p.grad.abs().sum() > 0 for p in model.segmentation.parameters()
    )
    assert reaches_segmentation == (term == "gamma")
    assert all(p.grad is None for p in model.teacher.parameters())


def test_encoders_are_three_different_ones_after_a_step() -> None:
    torch.manual_seed(0)
    model = MRIFE(SMALL).train()
    model.segmentation.load_state_dict(model.student.state_dict())  # all three start alike
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, 0.01)
    training_losses(model, *batch()).total.backward()
    optimizer.step()
    model.after_step()
    for a, b, c in zip(
        *(e.parameters() for e in (model.segmentation, model.student, model.teacher)), strict=True
    ):
        assert a.data_ptr() != b.data_ptr() != c.data_ptr()
    name = "backbone.layer1.0.conv1.weight"
    weights = [e.state_dict()[name] for e in (model.segmentation, model.student, model.teacher)]
    assert not torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert not torch.equal(weights[1], weights[2])


def test_images_without_landslide_give_only_cross_entropy() -> None:
    model = MRIFE(SMALL).train()
    images, labels = batch()
    losses = training_losses(model, images, labels.masked_fill(labels == 1, 0))
    assert losses.parts["reconstruction"] == 0
    assert losses.parts["contrast"] == 0
    assert losses.parts["cross_entropy"] > 0
    losses.total.backward()


@pytest.mark.parametrize(("view", "passes"), [("whole", 2), ("masked", 1)])
def test_what_the_three_encoders_see(view: str, passes: int) -> None:
    model = MRIFE(dataclasses.replace(SMALL, fused_view=view)).train()
    seen: dict[str, list[torch.Tensor]] = {"segmentation": [], "student": [], "teacher": []}
    for name, images_seen in seen.items():
        getattr(model, name).register_forward_pre_hook(
            lambda _module, args, images_seen=images_seen: images_seen.append(args[0].clone())
        )
    images, labels = batch()
    training_losses(model, images, labels)
    normalised = model.normalise(images)
    assert [len(images_seen) for images_seen in seen.values()] == [1, passes, 1]
    assert torch.equal(seen["segmentation"][0], normalised)
    assert torch.equal(seen["teacher"][0], normalised)
    masked = seen["student"][0]
    hidden = (masked != normalised).any(1)
    assert hidden.any()
    assert (masked.masked_select(hidden[:, None]) == 0).all()
    assert view == "masked" or torch.equal(seen["student"][1], normalised)


def test_the_mask_cannot_give_the_labels_to_the_decoder() -> None:
    """The cross-entropy is the same whatever blocks are masked, unless the paper's way is asked."""
    images, labels = batch()
    for view, leaks in (("whole", False), ("masked", True)):
        torch.manual_seed(0)
        model = MRIFE(dataclasses.replace(SMALL, fused_view=view, dropout=0.0)).train()
        entropies = [
            model(images, labels, torch.Generator().manual_seed(seed)).parts["cross_entropy"]
            for seed in (1, 2)
        ]
        assert torch.equal(*entropies) != leaks


@pytest.mark.parametrize(
    "change",
    [
        {"fusion": "concat"},
        {"block_size": 16},
        {"mask_blocks": "interior"},
        {"mask_blocks": "all"},
        {"mask_ratio": 0.0},
        {"sfce": False},
        {"distillation": False},
        {"distillation": False, "fused_view": "masked"},
    ],
)
def test_options_of_the_papers_tables_train(change: dict[str, object]) -> None:
    model = MRIFE(dataclasses.replace(SMALL, **change)).train()
    losses = training_losses(model, *batch(size=128))
    losses.total.backward()
    assert torch.isfinite(losses.total)
    assert all(torch.isfinite(term) for term in losses.parts.values())
    assert (losses.parts["reconstruction"] > 0) == (change.get("mask_ratio") != 0.0)
    trained = [p for p in model.parameters() if p.requires_grad]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in trained)


@pytest.mark.parametrize("fusion", ["add", "concat"])
def test_prediction_fuses_the_segmentation_with_the_teacher(fusion: str) -> None:
    model = MRIFE(dataclasses.replace(SMALL, fusion=fusion)).eval()
    images, _ = batch()
    with torch.inference_mode():
        for parameter in model.teacher.parameters():
            parameter.mul_(0.9)  # no longer the student
        normalised = model.normalise(images)
        first, second = model.segmentation(normalised), model.teacher(normalised)
        fused = first + second if fusion == "add" else model.fusion(first, second)
        assert torch.equal(model(images), model.decoder(fused))


@pytest.mark.parametrize(("part", "term"), [("mfm", "reconstruction"), ("sfce", "contrast")])
def test_a_part_that_is_taken_away_takes_its_term_and_nothing_else(part: str, term: str) -> None:
    """Losses and gradients are those of the whole network with the weight of that term at 0."""
    weight = {"mfm": "alpha", "sfce": "beta"}[part]
    ways = (
        dataclasses.replace(SMALL, **{part: False}),
        dataclasses.replace(SMALL, **{weight: 0.0}),
    )
    models, found = [], []
    for config in ways:
        torch.manual_seed(0)
        models.append(MRIFE(config).train())
        torch.manual_seed(1)
        found.append(training_losses(models[-1], *batch()))
        found[-1].total.backward()
    without, zeroed = found
    assert models[0].loss_names == tuple(without.parts)
    assert set(zeroed.parts) - set(without.parts) == {term}
    assert torch.equal(without.total, zeroed.total)
    for name, value in without.parts.items():
        assert torch.equal(value, zeroed.parts[name])
    for (name, one), other in zip(
        models[0].named_parameters(), models[1].parameters(), strict=True
    ):
        if one.requires_grad:
            assert torch.allclose(one.grad, other.grad, rtol=1e-3, atol=1e-5), name


def test_without_distillation_only_the_averaging_is_missing() -> None:
    """With a teacher that is the student itself, forward and backward are the same."""
    images, labels = batch()
    models = []
    for distillation in (True, False):
        torch.manual_seed(0)
        config = dataclasses.replace(SMALL, distillation=distillation, ema=0.0, dropout=0.0)
        models.append(MRIFE(config))
    found = [training_losses(model.train(), images, labels) for model in models]
    assert found[0].parts == found[1].parts
    for losses in found:
        losses.total.backward()
    with_teacher, alone = (dict(model.named_parameters()) for model in models)
    assert set(with_teacher) - set(alone) == {n for n in with_teacher if n.startswith("teacher.")}
    for name, parameter in alone.items():
        assert torch.equal(parameter.grad, with_teacher[name].grad), name
    assert not alone.keys() - models[1].prediction_state().keys()  # the student predicts
    model = models[1].eval()
    with torch.inference_mode():
        normalised = model.normalise(images)
        expected = model.decoder(model.segmentation(normalised) + model.student(normalised))
        assert torch.equal(model(images), expected)


def test_without_both_parts_no_image_is_masked() -> None:
    model = MRIFE(dataclasses.replace(SMALL, mfm=False, sfce=False)).train()
    images, labels = batch()
    seen: list[torch.Tensor] = []
    model.student.register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
    losses = training_losses(model, images, labels)
    assert list(losses.parts) == ["cross_entropy"]
    assert len(seen) == 1
    assert torch.equal(seen[0], model.normalise(images))
