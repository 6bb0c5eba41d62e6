from typing import Any

import pytest
import torch

import convatlas
from convatlas.evaluation.dense import Dense
from convatlas.models.network import Network

# Name, options, px of training, and how the head is turned into one that slides.
NETWORKS = [
    pytest.param("resnet20_cifar", {}, 32, id="global average"),
    pytest.param("resnet20_cifar", {"global_pool": "max"}, 32, id="global maximum"),
    pytest.param("nin_cifar", {}, 32, id="pooled logits"),
    pytest.param("convnet_cs231n", {}, 32, id="one fully connected layer"),
    pytest.param("alexnet_owt", {"num_classes": 5}, 224, id="three fully connected layers"),
    pytest.param("lenet5", {}, 32, id="a head of its own"),
    pytest.param("convnet_cs231n", {}, 40, id="fully connected behind a pooling"),
]


def network(name: str, options: dict[str, Any]) -> Network[Any]:
    torch.manual_seed(0)
    return convatlas.create_model(name, **options).eval()


def images(net: Network[Any], height: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, net.config.in_chans, height, width, generator=generator)


@pytest.mark.parametrize(("name", "options", "px"), NETWORKS)
def test_nothing_changes_at_the_training_size(name: str, options: dict[str, Any], px: int) -> None:
    net = network(name, options)
    x = images(net, px, px)
    with torch.no_grad():
        torch.testing.assert_close(Dense(net, (px, px))(x), net(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "options", "px"), NETWORKS)
def test_the_head_at_every_place(name: str, options: dict[str, Any], px: int) -> None:
    net = network(name, options)
    dense = Dense(net, (px, px))
    x = images(net, px * 5 // 4, px * 3 // 2)
    with torch.no_grad():
        logits, features = dense.score_map(x), net.forward_features(x)
        height, width = net.forward_features(images(net, px, px)).shape[2:]
        rows, columns = features.shape[2] - height + 1, features.shape[3] - width + 1
        assert logits.shape[2:] == (rows, columns)
        assert rows * columns > 1
        wanted = [
            net.forward_head(features[:, :, top : top + height, left : left + width])
            for top in range(rows)
            for left in range(columns)
        ]
        torch.testing.assert_close(
            logits.flatten(2).permute(2, 0, 1), torch.stack(wanted), rtol=1e-4, atol=1e-5
        )
        torch.testing.assert_close(dense(x), torch.stack(wanted).mean(dim=0), rtol=1e-4, atol=1e-5)


def test_smaller_images() -> None:
    dense = Dense(network("resnet20_cifar", {}), (32, 32))
    with pytest.raises(ValueError, match=r"24x40 px give a map of 6x10; dense .* needs at least the 8x8"):
        dense(torch.zeros(1, 3, 24, 40))


def test_no_classifier() -> None:
    with pytest.raises(ValueError, match="resnet20_cifar: has no classifier to slide"):
        Dense(network("resnet20_cifar", {"num_classes": 0}), (32, 32))
