"""Which recipe trains which network. The recipes lie in `book/`, one TOML file each."""

PAPER_RECIPES = (
    ("lenet5", ("lenet5",)),
    ("lenet5_1998", ("lenet5_1998",)),
    ("alexnet", ("alexnet",)),
    ("nin_cifar", ("nin_cifar",)),
    ("nin_imagenet", ("nin_imagenet",)),
    ("zfnet", ("zfnet", "zfnet_big")),
    ("alexnet_owt", ("alexnet_owt",)),
    ("googlenet", ("googlenet", "googlenet_*")),
    ("vgg", ("vgg*",)),
    ("cs231n", ("convnet_cs231n",)),
    ("inception_v2", ("inception_v2",)),
    ("inception_v3", ("inception_v3",)),
    ("resnet110_cifar", ("resnet110_cifar", "resnet1202_cifar", "plain110_cifar")),
    ("resnet_cifar", ("resnet*_cifar", "plain*_cifar")),
    ("resnet_torch", ("resnet*_v1_5", "wide_resnet50_2", "wide_resnet101_2")),
    ("resnet", ("resnet*", "plain*")),
    ("densenet_cifar", ("densenet*_cifar",)),
    ("densenet", ("densenet*",)),
    ("fractalnet_cifar", ("fractalnet*_cifar",)),
    ("inception_v4", ("inception_v4", "inception_resnet_*")),
    ("preact_resnet_cifar", ("preact_resnet*_cifar",)),
    ("preact_resnet", ("preact_resnet*",)),
    ("resnext_cifar", ("resnext*_cifar",)),
    ("resnext", ("resnext*",)),
    ("wide_resnet_cifar", ("wide_resnet*_cifar",)),
    ("xception", ("xception",)),
    ("mobilenet_v1", ("mobilenet_v1_*",)),
    ("nasnet_cifar", ("nasnet_a_cifar", "cell_cifar")),
    ("nasnet_large", ("nasnet_a_large",)),
    ("nasnet_mobile", ("nasnet_a_mobile", "cell_imagenet")),
    ("senet154", ("senet154",)),
    ("senet", ("se_*",)),
    ("mobilenet_v2", ("mobilenet_v2_*",)),
    ("efficientnet", ("efficientnet_*", "mobile_net")),
)
"""Recipes in the order of their papers, each with patterns of the networks that it trains.

The first that fits counts. A paper's networks and later variants of them share a recipe.
"""

OTHER_RECIPES = ("modern", "finetune", "probe", "super_convergence", "ffcv")
"""Recipes of no paper: `modern` is the default of networks that are not in the atlas, `finetune` of training
that begins with published weights."""
