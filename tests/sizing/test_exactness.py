"""Parameters and MACs against PyTorch's own counts, on a sample of published models."""

import warnings

import pytest
import timm
import torch
import torchvision
from torch import nn

from convatlas.sizing import size
from counting import MacCounter

# Drawn by seed from the models of at most 30 M parameters and 6 GMACs by
# `benchmarks/sizing_coverage.py --draw`, which also sizes all models that there are.
TORCHVISION = (
    "densenet201 efficientnet_b1 efficientnet_b2 mnasnet0_75 regnet_x_3_2gf regnet_y_1_6gf regnet_y_3_2gf "
    "regnet_y_400mf resnet18 shufflenet_v2_x1_0 shufflenet_v2_x1_5 swin_t"
).split()
TIMM = (
    "coat_lite_tiny convit_small convnext_zepto_rms_ols convnextv2_atto csatv2_21m dla46x_c "
    "dla60_res2next dpn68b eca_nfnet_l0 eca_resnet33ts ecaresnet26t edgenext_small_rw "
    "efficientnet_blur_b0 efficientnet_cc_b0_8e efficientnet_es_pruned efficientvim_m4 efficientvit_m2 "
    "fasternet_t2 fastvit_t12 gcvit_xtiny hgnetv2_b3 hrnet_w18_small_v2 legacy_seresnext50_32x4d "
    "maxvit_pico_rw_256 mobilenetv1_100 nf_ecaresnet50 regnetx_004_tv regnetx_008 regnetx_040 regnetz_005 "
    "regnetz_c16 repghostnet_130 repvit_m1 repvit_m1_5 resmlp_12_224 resnet32ts resnet50_gn resnet50d "
    "resnetv2_18 resnetv2_50t skresnet50 test_convnext3 test_efficientnet_evos test_vit_relpos "
    "tf_efficientnet_lite3 twins_svt_small xcit_tiny_12_p16_384 xcit_tiny_24_p16_224"
).split()


def build(library: str, model: str) -> tuple[nn.Module, tuple[int, ...]]:
    create = timm.create_model if library == "timm" else torchvision.models.get_model
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with torch.device("meta"):
                net = create(model)
        except (NotImplementedError, RuntimeError):
            # Its constructor computes with values.
            net = create(model).to("meta")
    px = 299 if model == "inception_v3" else 224
    return net.eval(), tuple(net.default_cfg["input_size"]) if library == "timm" else (3, px, px)


@pytest.mark.parametrize(
    ("library", "model"),
    [("torchvision", n) for n in TORCHVISION] + [("timm", n) for n in TIMM if timm.is_model(n)],
)
def test_equals_pytorchs_counts(library: str, model: str) -> None:
    net, shape = build(library, model)
    sheet = size(net, shape)
    # Another one: some networks keep what they computed from their parameters, and do not read these again.
    fresh, _ = build(library, model)
    with MacCounter() as counter, torch.no_grad():
        out = fresh(torch.empty(1, *shape, device="meta"))
    assert sheet.params == sum(p.numel() for p in net.parameters()) <= 30_000_000
    assert sheet.macs == counter.macs
    assert sheet.output == tuple(out.shape)
