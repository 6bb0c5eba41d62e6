"""Families of networks: what belongs together on a page, and the colour that stands for it in charts."""

from __future__ import annotations

from dataclasses import dataclass

from convatlas.catalog.cards import Card, all_cards


@dataclass(frozen=True)
class Family:
    """Networks that grew out of one idea.

    Attributes:
        name: of its page, such as "resnet".
        title: in words.
        modules: of `convatlas.models`, in the order in which their networks are shown.
        colour: its colour in charts, by name; several families may share "other".
    """

    name: str
    title: str
    modules: tuple[str, ...]
    colour: str


FAMILIES = (
    Family("lenet", "LeNet", ("lenet",), "lenet"),
    Family("alexnet", "AlexNet and ZFNet", ("alexnet", "zfnet"), "alexnet"),
    Family("nin", "Network in Network", ("nin",), "other"),
    Family("vgg", "VGG", ("vgg",), "vgg"),
    Family(
        "inception",
        "Inception",
        ("googlenet", "inception_v2", "inception_v3", "inception_v4", "inception_resnet"),
        "inception",
    ),
    Family(
        "resnet",
        "ResNet, ResNeXt and SENet",
        (
            "resnet",
            "resnet_cifar",
            "preact_resnet",
            "wide_resnet",
            "wide_resnet_cifar",
            "resnext",
            "senet",
        ),
        "resnet",
    ),
    Family("fractalnet", "FractalNet", ("fractalnet",), "other"),
    Family("densenet", "DenseNet", ("densenet",), "densenet"),
    Family(
        "mobilenet",
        "MobileNet, Xception and MnasNet",
        ("xception", "mobilenet_v1", "mobilenet_v2", "mobile_net"),
        "mobilenet",
    ),
    Family("nasnet", "NASNet and other cells", ("nasnet", "cell_network", "nasbench201"), "nasnet"),
    Family("efficientnet", "EfficientNet", ("efficientnet",), "efficientnet"),
    Family("course", "A course's network", ("toy",), "other"),
)


def family_of(card: Card) -> Family:
    """The family of a network.

    Raises:
        ValueError: its module belongs to none.
    """
    for family in FAMILIES:
        if card.module in family.modules:
            return family
    raise ValueError(f"`{card.name}`: its module {card.module!r} is in no family of catalog/families.py")


def cards_of(family: Family) -> list[Card]:
    """The cards of a family's networks, module by module, in the order of `list_models`."""
    found = [card for card in all_cards().values() if card.module in family.modules]
    return sorted(found, key=lambda card: family.modules.index(card.module))
