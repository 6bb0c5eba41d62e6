"""The figures of the docs' pages on networks: for each, the command that draws it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DocFigure:
    """A figure of the docs.

    Attributes:
        file: its name, without the ending.
        command: of `convatlas`, without the output file.
        shows: what it shows, in a few words.
    """

    file: str
    command: str
    shows: str


_F = DocFigure

FIGURES: dict[str, tuple[DocFigure, ...]] = {
    "lenet": (
        _F(
            "lenet5-volumes",
            "draw lenet5 --style volumes",
            "LeNet-5: maps as prisms, filters on the map before",
        ),
        _F("lenet5", "draw lenet5", "LeNet-5, stage by stage"),
    ),
    "alexnet": (
        _F("alexnet-volumes", "draw alexnet --style volumes", "AlexNet's maps"),
        _F("alexnet-towers", "draw alexnet --style graph", "AlexNet's two towers"),
        _F("zfnet-volumes", "draw zfnet --style volumes", "ZFNet: smaller filters first"),
    ),
    "nin": (_F("nin_imagenet", "draw nin_imagenet", "Network in Network"),),
    "vgg": (
        _F("vgg16", "draw vgg16", "VGG-16"),
        _F("vgg-columns", "draw vgg11 vgg13 vgg16 vgg19", "the columns of VGG's Table 1"),
    ),
    "inception": (
        _F(
            "inception-modules",
            "draw googlenet_naive googlenet --style graph --module stages.1.1",
            "the module, naive and with bottlenecks",
        ),
        _F("googlenet", "draw googlenet", "GoogLeNet"),
        _F("inception_v3", "draw inception_v3", "Inception v3"),
        _F("inception_v4", "draw inception_v4", "Inception v4"),
        _F("inception_resnet_v2", "draw inception_resnet_v2", "Inception-ResNet v2"),
    ),
    "resnet": (
        _F("resnet50", "draw resnet50_v1", "ResNet-50"),
        _F("vgg19-plain34-resnet34", "draw vgg19 plain34 resnet34", "VGG-19, plain-34 and ResNet-34"),
        _F("basic-block", "draw resnet34 --style graph --module stages.0.1", "the block of two 3×3"),
        _F("bottleneck", "draw resnet50_v1 --style graph --module stages.1.1", "the bottleneck block"),
        _F(
            "preactivation-block",
            "draw preact_resnet50 --style graph --module stages.1.1",
            "the pre-activation block",
        ),
        _F("unrolled", "draw --lesson unrolled --count 3", "residual blocks unrolled into their paths"),
        _F("resnext50", "draw resnext50_32x4d", "ResNeXt-50"),
        _F("wide_resnet50_2", "draw wide_resnet50_2", "Wide ResNet-50-2"),
        _F("se-block", "draw se_resnet50 --style graph --module stages.1.1", "a block with a gate"),
    ),
    "fractalnet": (
        _F("fractal-block", "draw fractalnet20_cifar --style graph --module stages.0", "a fractal block"),
        _F("fractalnet20", "draw fractalnet20_cifar", "FractalNet-20"),
    ),
    "densenet": (
        _F("densenet121", "draw densenet121", "DenseNet-121"),
        _F(
            "dense-block",
            "draw densenet121 --style graph --module stages.0.block",
            "a dense block, every edge",
        ),
    ),
    "mobilenet": (
        _F("xception", "draw xception", "Xception"),
        _F("mobilenet_v1", "draw mobilenet_v1_100", "MobileNet"),
        _F(
            "separable",
            "draw mobilenet_v1_100 --style graph --module stages.1.1",
            "a depthwise separable convolution",
        ),
        _F("mobilenet_v2", "draw mobilenet_v2_100", "MobileNetV2"),
        _F(
            "inverted-residual",
            "draw mobilenet_v2_100 --style graph --module stages.2.1",
            "an inverted residual",
        ),
    ),
    "nasnet": (
        _F(
            "nasnet-normal",
            "draw nasnet_a_large --style graph --module stages.1.2",
            "NASNet-A's normal cell",
        ),
        _F(
            "nasnet-reduction",
            "draw nasnet_a_large --style graph --module stages.2.0",
            "NASNet-A's reduction cell",
        ),
        _F("nasnet_a_mobile", "draw nasnet_a_mobile", "NASNet-A (4 @ 1056)"),
    ),
    "efficientnet": (
        _F("efficientnet_b0", "draw efficientnet_b0", "EfficientNet-B0"),
        _F("efficientnet_lite0", "draw efficientnet_lite0", "EfficientNet-Lite0"),
    ),
    "course": (_F("convnet_cs231n", "draw convnet_cs231n --style volumes", "a course's network"),),
}
"""By the name of a family, the main figure first."""

LESSONS = (
    _F("padding", "draw --lesson padding --input 28 --kernel 5", "padding on a 28×28 input"),
    _F(
        "receptive-field",
        "draw --lesson receptive-field --kernel 3 --count 3",
        "the receptive field of stacked 3×3",
    ),
    _F(
        "exercise",
        'draw "conv 8 5x5 pad 2, relu, pool 2x2 /2" --input 3,28,28 --style volumes',
        "an exercise",
    ),
)
HISTORY = (
    _F("history-depth", "history", "the revolution of depth"),
    _F("history-ideas", "history --chart ideas", "who introduced what"),
    _F("history-accuracy", "history --chart accuracy", "accuracy and what it costs"),
)


def all_figures() -> tuple[DocFigure, ...]:
    """Every figure of the docs' pages on networks."""
    return (*HISTORY, *(figure for figures in FIGURES.values() for figure in figures), *LESSONS)
