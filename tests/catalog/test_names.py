"""Names as people and other libraries write them."""

import pytest

from convatlas import create_model, find_card, is_model, list_models
from convatlas.catalog.cards import FOREIGN, explain_name
from convatlas.errors import UnknownNameError, nearest


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("VGG16", "vgg16"),
        ("ResNet50", "resnet50_v1_5"),
        ("resnet-50", "resnet50_v1_5"),
        ("RESNET 18", "resnet18"),
        ("mobilenet_v2", "mobilenet_v2_100"),
        ("MobileNetV2", "mobilenet_v2_100"),
        ("mobilenetv2_100", "mobilenet_v2_100"),
        ("NASNetLarge", "nasnet_a_large"),
        ("nasnetalarge", "nasnet_a_large"),
        ("InceptionV3", "inception_v3"),
        ("InceptionResNetV2", "inception_resnet_v2"),
        ("EfficientNetB0", "efficientnet_b0"),
        ("tf_efficientnet_lite0", "efficientnet_lite0"),
        ("legacy_xception", "xception"),
        ("DenseNet121", "densenet121"),
        ("resnet20-cifar", "resnet20_cifar"),
    ],
)
def test_capitals_separators_and_other_libraries_names(written: str, name: str) -> None:
    assert is_model(written)
    assert find_card(written).name == name


def test_every_network_is_found_by_its_name_in_capitals() -> None:
    for name in list_models():
        assert find_card(name.upper().replace("_", "-")).name == name


def test_a_foreign_name_says_whose_it_is() -> None:
    assert set(FOREIGN) <= set(list_models())
    assert explain_name("mobilenet_v2") == "mobilenet_v2 is torchvision's name for mobilenet_v2_100"
    assert explain_name("resnet18") == ""


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("efficientnet", "nearest: efficientnet_b0, "),
        ("desnet121", "nearest: densenet121"),
        ("dense", "densenet121"),
    ],
)
def test_families_and_near_names_are_suggested(name: str, shown: str) -> None:
    with pytest.raises(UnknownNameError, match=shown):
        find_card(name)


@pytest.mark.parametrize("name", ["vit", "swin_tiny", "", "convnext", "!!"])
def test_nothing_is_suggested_that_is_not_near(name: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        find_card(name)
    assert "nearest: nin" not in str(caught.value)
    assert not is_model(name)


def test_none_is_said_to_be_near() -> None:
    assert nearest("vit", ["nin_imagenet", "vgg16"]) == "none"
    assert nearest("FP16", ["fp16", "fp32"]) == "fp16, fp32"


def test_one_index_is_refused_with_what_to_write() -> None:
    with pytest.raises(ValueError, match=r"`out_indices`=2; expected a list, such as \[2\]"):
        create_model("lenet5", features_only=True, out_indices=2)
