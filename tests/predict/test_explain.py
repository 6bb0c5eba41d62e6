import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import convatlas
from convatlas.data.image_files import ImageError
from convatlas.data.transforms import Transform
from convatlas.errors import UnknownNameError
from convatlas.predict.explain import explain, explain_each, last_stage
from convatlas.predict.outputs import Skipped
from convatlas.predict.predictor import Predictor
from convatlas.predict.saliency import (
    METHODS,
    class_activation_map,
    occlusion_map,
    randomised,
    rank_correlation,
)
from made_figures import faults
from made_images import TRANSFORM, save_images, small_network


def image(net: Any, px: int = 32) -> Tensor:
    return torch.randn(1, net.config.in_chans, px, px, generator=torch.Generator().manual_seed(1))


def hooked_cam(net: nn.Module, layer: str, x: Tensor, target: int) -> Tensor:
    """Grad-CAM as everybody writes it: hooks on a module, and a backward pass through the whole network."""
    kept: list[Tensor] = []

    def keep(module: nn.Module, given: Any, out: Tensor) -> Tensor:
        out.retain_grad()
        kept.append(out)
        return out.clone()

    handle = net.get_submodule(layer).register_forward_hook(keep)
    net(x)[0, target].backward()
    handle.remove()
    (out,) = kept
    assert out.grad is not None
    weights = out.grad[0].mean(dim=(1, 2))
    heat = torch.relu(torch.einsum("c,chw->hw", weights, out[0])).detach()
    return heat / heat.max()


@pytest.mark.parametrize(
    ("name", "stage"),
    [
        pytest.param("resnet20_cifar", 3, id="residual, last"),
        pytest.param("resnet20_cifar", 1, id="residual, early"),
        pytest.param("convnet_cs231n", 0, id="fully connected"),
        pytest.param("lenet5", 1, id="lenet"),
        pytest.param("nin_cifar", 2, id="pooled logits"),
    ],
)
def test_heat_is_that_of_hooks(name: str, stage: int) -> None:
    torch.manual_seed(0)
    net = convatlas.create_model(name).eval()
    x = image(net)
    shares, target, heat = class_activation_map(net, x, stage)
    with torch.no_grad():
        logits = net(x)[0]
    torch.testing.assert_close(shares, logits.softmax(dim=0))
    assert target == int(logits.argmax())
    wanted = hooked_cam(net, net.feature_info[stage].module, x, target)
    torch.testing.assert_close(heat, wanted, rtol=1e-4, atol=1e-5)


def test_with_global_pooling_it_is_the_class_activation_map() -> None:
    # Selvaraju et al., Section 3.1: Grad-CAM generalises CAM, whose weights are those of the linear layer.
    torch.manual_seed(0)
    net = convatlas.create_model("resnet20_cifar").eval()
    x = image(net)
    with torch.no_grad():
        features = net.forward_features(x)[0]
    wanted = torch.relu(torch.einsum("c,chw->hw", net.head.fc.weight[4].detach(), features))
    _, _, heat = class_activation_map(net, x, 3, target=4)
    torch.testing.assert_close(heat, wanted / wanted.max(), rtol=1e-4, atol=1e-5)
    # Draelos and Carin: HiResCAM is CAM too where the head pools globally, and elsewhere it is not Grad-CAM.
    _, _, fine = class_activation_map(net, x, 3, target=4, method="hirescam")
    torch.testing.assert_close(fine, heat, rtol=1e-4, atol=1e-5)


def last_gradient(net: Any, x: Tensor, stage: int, target: int) -> tuple[Tensor, Tensor]:
    """A map and the gradient of a score by it, from hooks."""
    kept: list[Tensor] = []

    def keep(module: nn.Module, given: Any, out: Tensor) -> Tensor:
        out.retain_grad()
        kept.append(out)
        return out.clone()

    handle = net.get_submodule(net.feature_info[stage].module).register_forward_hook(keep)
    net(x)[0, target].backward()
    handle.remove()
    assert kept[0].grad is not None
    return kept[0][0].detach(), kept[0].grad[0]


def test_hirescam_weights_each_place_by_its_own_gradient() -> None:
    net = small_network()
    x = image(net)
    _, target, heat = class_activation_map(net, x, 1, method="hirescam")
    maps, gradient = last_gradient(net, x, 1, target)
    wanted = (maps * gradient).sum(dim=0).clamp(min=0.0)
    torch.testing.assert_close(heat, wanted / wanted.max(), rtol=1e-4, atol=1e-5)
    # Behind a fully connected head the two differ.
    assert not torch.allclose(heat, class_activation_map(net, x, 1, target)[2], atol=0.05)


def test_grad_cam_plus_plus_is_that_of_the_derivatives() -> None:
    # Chattopadhyay et al. 2018: weights sum alpha * relu(dY/dA) with Y = exp(S), where the second and third
    # derivatives of Y by one place are taken here by autograd rather than as powers of the first.
    net = small_network()
    x = image(net)
    _, target, heat = class_activation_map(net, x, 1, method="grad-cam++")
    maps, _ = last_gradient(net, x, 1, target)
    # The head is linear in the map, so that Y = exp(c + <w, A>).
    w = net.head.fc.weight[target].detach().double().reshape(maps.shape)
    maps = maps.double()
    closed = w**2 / (2 * w**2 + maps.sum(dim=(1, 2), keepdim=True) * w**3)
    place = torch.zeros((), dtype=torch.double, requires_grad=True)
    for c, i, j in [(0, 0, 0), (3, 7, 2), (11, 15, 15), (5, 1, 14)]:
        # The factor exp(S) of all derivatives cancels in alpha.
        first = torch.autograd.grad((w[c, i, j] * place).exp(), place, create_graph=True)[0]
        second = torch.autograd.grad(first, place, create_graph=True)[0]
        third = torch.autograd.grad(second, place)[0]
        alpha = second.detach() / (2.0 * second.detach() + maps[c].sum() * third)
        torch.testing.assert_close(alpha, closed[c, i, j])
    weights = (closed * w.clamp(min=0.0)).sum(dim=(1, 2), keepdim=True)
    wanted = (weights * maps).sum(dim=0).clamp(min=0.0)
    torch.testing.assert_close(heat.double(), wanted / wanted.max(), rtol=1e-4, atol=1e-5)


def test_occlusion_is_the_fall_of_the_probability() -> None:
    net = small_network()
    x = image(net)
    shares, target, heat = occlusion_map(net, x, window=8, batch_size=5)
    assert heat.shape == (14, 14)
    falls = torch.zeros(14, 14)
    with torch.no_grad():
        for i in range(14):
            for j in range(14):
                top, left = (round((k + 0.5) * 32 / 14 - 4) for k in (i, j))
                covered = x.clone()
                covered[:, :, max(top, 0) : top + 8, max(left, 0) : left + 8] = 0.0
                falls[i, j] = shares[target] - net(covered)[0].softmax(dim=0)[target]
    torch.testing.assert_close(heat, falls.clamp(min=0.0) / falls.max(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("window", [0, 33])
def test_a_square_that_does_not_fit(window: int) -> None:
    with pytest.raises(ValueError, match=f"`window`={window}; expected 1 to 32 px"):
        occlusion_map(small_network(), torch.zeros(1, 3, 32, 32), window=window)


def red_network() -> Any:
    """Class 0 is the amount of red: every other weight is zero."""
    net = small_network()
    state = {name: torch.zeros_like(tensor) for name, tensor in net.state_dict().items()}
    state["stem.conv.weight"][0, :, 1, 1] = torch.tensor([1.0, -1.0, -1.0])
    state["head.fc.weight"][0, : 16 * 16] = 1.0
    net.load_state_dict(state)
    net.transform = Transform("photo", (3, 32, 32), (0.0,) * 3, (1.0,) * 3, "bilinear", 1.0)
    return net


def test_it_finds_what_the_class_is_about() -> None:
    image = np.full((32, 32, 3), 90, dtype=np.uint8)
    image[4:12, 20:28] = (250, 10, 10)
    found = explain(Predictor(red_network()), image, class_name="class 0")
    assert (found.layer, found.class_name, found.prediction) == ("stem", "class 0", "class 0")
    hot = (found.heat > 0.5).nonzero()
    assert hot.amin(dim=0).tolist() == [4, 20]
    assert hot.amax(dim=0).tolist() == [11, 27]


def test_nothing_speaks_for_a_class() -> None:
    image = np.full((32, 32, 3), 90, dtype=np.uint8)
    found = explain(Predictor(red_network()), image, class_name="class 7")
    assert float(found.heat.max()) == 0.0
    assert found.prediction == "class 0"
    assert found.alike is None
    assert "no place speaks for it" in found.figure().svg


def test_the_last_map_that_is_no_pooling() -> None:
    assert last_stage(small_network(), torch.zeros(1, 3, 32, 32)) == 0  # stem, then pool
    net = convatlas.create_model("fractalnet20_cifar").eval()
    assert last_stage(net, torch.zeros(1, 3, 32, 32)) == 3  # 2x2; the last one is 1x1


@pytest.mark.parametrize("method", METHODS)
def test_every_method_finds_what_the_class_is_about(method: str) -> None:
    image = np.full((32, 32, 3), 90, dtype=np.uint8)
    image[4:12, 20:28] = (250, 10, 10)
    window = 6 if method == "occlusion" else None
    # At a quarter of its weights the class is not yet sure, so that a covered square makes a difference.
    net = red_network()
    net.head.fc.weight.data /= 100.0
    options: dict[str, Any] = {"class_name": "class 0", "method": method, "window": window}
    found = explain(Predictor(net), image, **options)
    row, column = divmod(int(found.heat.argmax()), found.heat.shape[1])
    size = found.heat.shape[0]
    assert 4 / 32 <= (row + 0.5) / size <= 12 / 32
    assert 20 / 32 <= (column + 0.5) / size <= 28 / 32
    assert (found.layer == "input") == (method == "occlusion")


def test_the_map_of_learnt_weights_is_not_that_of_random_ones(lenet_run: Any) -> None:
    image = np.full((60, 60), 255, dtype=np.uint8)
    image[10:50, 27:33] = 0
    found = explain(convatlas.load(lenet_run), image)
    assert found.alike is not None and -1.0 <= found.alike <= 1.0
    words = "another map" if found.alike < 0.5 else "much the same map"
    assert words in found.check and f"{found.alike:.2f}" in found.check
    assert found.check in found.line("cam.png")
    assert explain(convatlas.load(lenet_run), image, check=False).check == ""


def test_a_map_that_random_weights_give_too_is_said_to_be_one() -> None:
    found = explain(Predictor(small_network()), np.full((32, 32, 3), 90, dtype=np.uint8), check=False)
    alike = dataclasses.replace(found, alike=0.93)
    assert alike.check.startswith("random weights give much the same map (rank correlation 0.93)")
    assert "much the same map" in alike.figure().svg


def test_random_weights_are_seeded_and_leave_the_network_alone() -> None:
    net = small_network()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    one, same, other = randomised(net, 1), randomised(net, 1), randomised(net, 2)
    assert torch.equal(one.head.fc.weight, same.head.fc.weight)
    assert not torch.equal(one.head.fc.weight, other.head.fc.weight)
    assert one.head.fc.weight.detach().std().item() == pytest.approx(
        net.head.fc.weight.detach().std().item(), rel=0.05
    )
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert torch.equal(one.head.fc.bias, net.head.fc.bias)


def test_rank_correlation_is_spearmans() -> None:
    from scipy.stats import spearmanr

    generator = torch.Generator().manual_seed(0)
    a, b = torch.rand(7, 7, generator=generator), torch.rand(7, 7, generator=generator)
    a[0, :3] = 0.5  # Ties share their rank.
    assert rank_correlation(a, b) == pytest.approx(spearmanr(a.flatten(), b.flatten()).statistic)
    assert rank_correlation(torch.ones(3, 3), torch.rand(3, 3)) == 0.0


def test_a_image_of_an_explanation(tmp_path: Path) -> None:
    image = np.zeros((40, 40, 3), dtype=np.uint8)
    image[10:30, 10:30] = (250, 0, 0)
    found = explain(Predictor(red_network()), Image.fromarray(image))
    figure = found.figure()
    assert faults(figure) == []
    with Image.open(figure.save(tmp_path / "cam.png", scale=1)) as sheet:
        pixels = np.asarray(sheet.convert("RGB")).astype(int)
    # 448 px of the image, 16 between, and 448 px of the heat, from the left margin of 32.
    left, top = 32 + 448 + 16, 84
    middle, corner = pixels[top + 224, left + 224], pixels[top + 12, left + 12]
    assert middle[0] - middle[2] > 100  # hot
    assert abs(corner[0] - corner[2]) <= 12  # grey
    assert found._repr_svg_() == figure.svg
    assert "#10161D" in found.figure(theme="dark").svg
    with pytest.raises(UnknownNameError, match="unknown theme 'red'"):
        found.figure(theme="red")


def test_many_images_are_explained_one_by_one(tmp_path: Path) -> None:
    save_images(tmp_path / "p", 3)
    (tmp_path / "p" / "001.png").write_text("nothing")
    found = list(explain_each(Predictor(small_network()), str(tmp_path / "p"), check=False))
    assert [Path(each.image).name for each in found] == ["000.png", "001.png", "002.png"]
    assert [isinstance(each, Skipped) for each in found] == [False, True, False]
    alone = explain(Predictor(small_network()), str(tmp_path / "p" / "002.png"), check=False)
    assert torch.equal(found[2].heat, alone.heat)
    with pytest.raises(ImageError, match=r"001\.png: is no image"):
        explain(Predictor(small_network()), str(tmp_path / "p" / "001.png"))


def test_digits(lenet_run: Any) -> None:
    image = np.full((60, 60), 255, dtype=np.uint8)
    image[10:50, 27:33] = 0
    found = explain(convatlas.load(lenet_run), image, stage=-1)
    assert (found.layer, tuple(found.heat.shape), tuple(found.pixels.shape)) == (
        "stages.1",
        (5, 5),
        (3, 448, 448),
    )
    assert found.class_name == "1"
    with pytest.raises(ImageError, match="all of one colour"):
        explain(convatlas.load(lenet_run), np.zeros((60, 60), dtype=np.uint8))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        pytest.param({"class_name": "clas 3"}, UnknownNameError, "unknown class 'clas 3'; nearest: class 3"),
        pytest.param({"stage": 5}, ValueError, "`stage`=5: convnet_cs231n has 2 feature maps"),
        pytest.param({"image": []}, ValueError, "`image` holds no image"),
        pytest.param(
            {"method": "grad-cam+"}, UnknownNameError, r"unknown method 'grad-cam\+'; nearest: grad-cam"
        ),
        pytest.param({"method": "occlusion", "stage": 0}, ValueError, "occlusion covers the input"),
        pytest.param({"window": 4}, ValueError, "`window`=4: only method='occlusion'"),
    ],
    ids=["class", "stage", "no image", "method", "stage of occlusion", "window"],
)
def test_what_cannot_be_explained(options: dict[str, Any], error: type[Exception], message: str) -> None:
    given = {"image": np.zeros((32, 32, 3), dtype=np.uint8)} | options
    with pytest.raises(error, match=message):
        explain(Predictor(small_network()), given.pop("image"), **given)


def test_a_network_of_elsewhere() -> None:
    other = Predictor(nn.Flatten(), transform=TRANSFORM, class_names=["a"])
    with pytest.raises(ValueError, match="needs a network of the atlas"):
        explain(other, np.zeros((32, 32, 3), dtype=np.uint8))
