"""The models of the coupling benchmark, each with the smallest input that it works on."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import logging
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from edgeprune.system.compat import import_torchvision

LARGE_MB = 600
"""Models whose float32 weights take more run only on request."""

LARGE = ("convnext_large", "regnet_y_128gf", "vit_h_14", "vit_l_16", "vit_l_32")
"""torchvision's classifiers above ``LARGE_MB``, by the sizes in its own documentation."""

ATTENTION = ("vit", "swin", "maxvit")
FIRST = (
    "alexnet",
    "resnet18",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "squeezenet1_1",
    "shufflenet_v2_x0_5",
    "mnasnet0_5",
    "regnet_x_400mf",
    "regnet_y_400mf",
    "efficientnet_b0",
    "googlenet",
    "inception_v3",
    "vgg11_bn",
    "resnext50_32x4d",
    "densenet121",
    "convnext_tiny",
    "vit_b_32",
    "swin_t",
    "swin_v2_t",
    "lraspp_mobilenet_v3_large",
    "fcn_resnet50",
    "r3d_18",
    "r2plus1d_18",
)
"""One or two of every family come first, so that a sweep that is cut short has seen them all."""

SEGMENTATION = (
    "lraspp_mobilenet_v3_large",
    "deeplabv3_mobilenet_v3_large",
    "fcn_resnet50",
    "deeplabv3_resnet50",
    "fcn_resnet101",
    "deeplabv3_resnet101",
)
VIDEO = {
    "r3d_18": (3, 4, 32, 32),
    "mc3_18": (3, 4, 32, 32),
    "r2plus1d_18": (3, 4, 32, 32),
    "s3d": (3, 16, 224, 224),
}
SIDES = {
    "alexnet": 64,
    "inception_v3": 75,
    "maxvit_t": 224,
    "vit_b_32": 64,
    "vit_l_32": 64,
    "vit_h_14": 28,
    # At 32 their last norms see one position an image: rounding of the input grows by up to 1e9 there.
    **dict.fromkeys((f"efficientnet_b{i}" for i in range(4, 8)), 96),
    **dict.fromkeys((f"efficientnet_v2_{size}" for size in "sml"), 96),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "vit_b_16": {"image_size": 32},
    "vit_l_16": {"image_size": 32},
    "vit_b_32": {"image_size": 64},
    "vit_l_32": {"image_size": 64},
    "vit_h_14": {"image_size": 28},
}
TIMM_CONVOLUTIONAL = (
    "resnet10t",
    "seresnet18",
    "eca_resnet33ts",
    "skresnet18",
    "resnest14d",
    "res2net50_26w_4s",
    "resnetv2_18",
    "resnetv2_50x1_bit",
    "nfnet_l0",
    "tf_efficientnetv2_b0",
    "selecsls42b",
    "dla34",
    "hrnet_w18_small",
    "dpn68",
    "ese_vovnet19b_dw",
    "cspresnet50",
    "cspdarknet53",
    "darknet53",
    "gernet_s",
    "vgg11_bn",
    "xception41",
    "inception_v4",
    "inception_resnet_v2",
    "hgnetv2_b0",
    "efficientnet_lite0",
    "mixnet_s",
    "mnasnet_small",
    "fbnetc_100",
    "tinynet_e",
    "lcnet_050",
    "ghostnet_100",
    "ghostnetv2_100",
    "repghostnet_050",
    "mobilenetv4_conv_small",
    "hardcorenas_a",
    "rexnet_100",
    "repvgg_a0",
    "mobileone_s0",
    "regnety_002",
    "nf_regnet_b0",
    "dm_nfnet_f0",
    "starnet_s1",
    "repvit_m0_9",
    "convnextv2_atto",
    "convmixer_768_32",
    "inception_next_atto",
    "poolformer_s12",
)
TIMM_ATTENTION = (
    "edgenext_xx_small",
    "fastvit_t8",
    "efficientvit_b0",
    "mobilevit_xxs",
    "efficientformer_l1",
    "tiny_vit_5m_224",
    "levit_128s",
    "pvt_v2_b0",
    "deit_tiny_patch16_224",
    "mixer_s32_224",
    "resmlp_12_224",
    "swin_tiny_patch4_window7_224",
    "beit_base_patch16_224",
    "eva02_tiny_patch14_224",
    "cait_xxs24_224",
    "coat_tiny",
    "coatnet_nano_rw_224",
    "convit_tiny",
    "crossvit_tiny_240",
    "davit_tiny",
    "focalnet_tiny_srf",
    "gcvit_xxtiny",
    "gmlp_s16_224",
    "hiera_tiny_224",
    "mvitv2_tiny",
    "nest_tiny",
    "pit_ti_224",
    "twins_svt_small",
    "visformer_tiny",
    "volo_d1_224",
    "xcit_nano_12_p16_224",
    "efficientvit_m0",
    "efficientformerv2_s0",
    "mobilevitv2_050",
    "mobilenetv4_hybrid_medium",
    "caformer_s18",
    "botnet26t_256",
    "halonet26t",
    "lambda_resnet26t",
)
TIMM_SIDES = {
    "ghostnetv2_100": 128,
    "inception_v4": 75,
    "inception_resnet_v2": 75,
    "xception41": 64,
    "mobilevit_xxs": 64,
    "edgenext_xx_small": 64,
    "fastvit_t8": 64,
    "hrnet_w18_small": 64,
    "efficientvit_b0": 64,
    "pvt_v2_b0": 64,
    "crossvit_tiny_240": 240,
    "botnet26t_256": 256,
    "halonet26t": 256,
    "lambda_resnet26t": 128,
    "resnetv2_50x1_bit": 64,
    "nfnet_l0": 64,
    "mobilevitv2_050": 64,
    "mobilenetv4_hybrid_medium": 64,
    "caformer_s18": 64,
    "dm_nfnet_f0": 64,
}


@dataclass(frozen=True, kw_only=True)
class BenchModel:
    """One model: ``library`` is torchvision, segmentation, video or timm; ``input_shape`` without batch."""

    library: str
    name: str
    input_shape: tuple[int, ...]
    options: dict[str, Any] = field(default_factory=dict)
    large: bool = False

    @property
    def key(self) -> str:
        """Name over all libraries."""
        return f"{self.library}:{self.name}"

    def build(self) -> nn.Module:
        """The model with random weights, in evaluation mode."""
        if self.library == "timm":
            return quiet_timm().create_model(self.name, pretrained=False, **self.options).eval()
        models = import_torchvision().models
        extra: dict[str, Any] = {"init_weights": False} if self.name in ("googlenet", "inception_v3") else {}
        if self.library == "segmentation":
            extra = {"weights_backbone": None}
        module: nn.Module = models.get_model(self.name, weights=None, **extra, **self.options)
        return module.eval()


def quiet_timm() -> Any:
    """Import timm behind our torchvision shim; its hub of trained weights is not needed."""
    import_torchvision()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return importlib.import_module("timm")


def timm_present() -> bool:
    """Whether timm is installed."""
    return importlib.util.find_spec("timm") is not None


def all_models() -> list[BenchModel]:
    """Every model in the order of the sweep: the families' smallest first."""
    logging.getLogger("edgeprune.system.compat").setLevel(logging.ERROR)
    models = import_torchvision().models
    names = models.list_models(module=models)
    plain = [n for n in names if not n.startswith(ATTENTION)]
    rows = [_classifier(n) for n in plain]
    rows += [BenchModel(library="segmentation", name=n, input_shape=(3, 64, 64)) for n in SEGMENTATION]
    rows += [BenchModel(library="video", name=n, input_shape=shape) for n, shape in VIDEO.items()]
    rows += [_classifier(n) for n in names if n not in plain]
    first = sorted((r for r in rows if r.name in FIRST), key=lambda r: FIRST.index(r.name))
    other = [_timm(n) for n in (*TIMM_CONVOLUTIONAL, *TIMM_ATTENTION)] if timm_present() else []
    return [*first, *other, *(r for r in rows if r.name not in FIRST)]


def _classifier(name: str) -> BenchModel:
    side = SIDES.get(name, 32)
    options = OPTIONS.get(name, {})
    return BenchModel(
        library="torchvision", name=name, input_shape=(3, side, side), options=options, large=name in LARGE
    )


def _timm(name: str) -> BenchModel:
    side = TIMM_SIDES.get(name, 224 if name in TIMM_ATTENTION else 32)
    return BenchModel(library="timm", name=name, input_shape=(3, side, side))
