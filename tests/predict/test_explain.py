import io
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
from convatlas.predict.explain import draw_explanation, explain, grad_cam, last_stage
from convatlas.predict.predictor import Predictor
from made_images import TRANSFORM, small_network


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
        pytest.param("nin_cifar", 2, id="pooled scores"),
    ],
)
def test_heat_is_that_of_hooks(name: str, stage: int) -> None:
    torch.manual_seed(0)
    net = convatlas.create_model(name).eval()
    x = image(net)
    shares, target, heat = grad_cam(net, x, stage)
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
    _, _, heat = grad_cam(net, x, 3, target=4)
    torch.testing.assert_close(heat, wanted / wanted.max(), rtol=1e-4, atol=1e-5)


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
    assert (found.layer, found.class_name, found.answer) == ("stem", "class 0", "class 0")
    hot = (found.heat > 0.5).nonzero()
    assert hot.amin(dim=0).tolist() == [4, 20]
    assert hot.amax(dim=0).tolist() == [11, 27]


def test_nothing_speaks_for_a_class() -> None:
    image = np.full((32, 32, 3), 90, dtype=np.uint8)
    found = explain(Predictor(red_network()), image, class_name="class 7")
    assert float(found.heat.max()) == 0.0
    assert found.answer == "class 0"
    assert Image.open(io.BytesIO(draw_explanation(found))).size == (940, 526)


def test_the_last_map_that_is_no_pooling() -> None:
    assert last_stage(small_network(), torch.zeros(1, 3, 32, 32)) == 0  # stem, then pool
    net = convatlas.create_model("fractalnet20_cifar").eval()
    assert last_stage(net, torch.zeros(1, 3, 32, 32)) == 3  # 2x2; the last one is 1x1


def test_a_image_of_an_explanation() -> None:
    image = np.zeros((40, 40, 3), dtype=np.uint8)
    image[10:30, 10:30] = (250, 0, 0)
    drawn = draw_explanation(explain(Predictor(red_network()), Image.fromarray(image)))
    with Image.open(io.BytesIO(drawn)) as sheet:
        pixels = np.asarray(sheet.convert("RGB")).astype(int)
    height, width = pixels.shape[:2]
    middle = pixels[62 + 224, width // 2 + 6 + 224]
    corner = pixels[62 + 12, width // 2 + 6 + 12]
    assert middle[0] - middle[2] > 100  # hot
    assert abs(corner[0] - corner[2]) <= 3  # grey
    assert (height, width) == (526, 940)


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
    ],
    ids=["class", "stage", "no image"],
)
def test_what_cannot_be_explained(options: dict[str, Any], error: type[Exception], message: str) -> None:
    given = {"image": np.zeros((32, 32, 3), dtype=np.uint8)} | options
    with pytest.raises(error, match=message):
        explain(Predictor(small_network()), given.pop("image"), **given)


def test_a_network_of_elsewhere() -> None:
    other = Predictor(nn.Flatten(), transform=TRANSFORM, class_names=["a"])
    with pytest.raises(ValueError, match="needs a network of the atlas"):
        explain(other, np.zeros((32, 32, 3), dtype=np.uint8))
