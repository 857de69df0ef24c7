"""ImageNet classifiers at 224 px as ONNX graphs without weight values: shapes and operators are all that they have."""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper


class Builder:
    """Writes one layer after the other; every method returns the name of what it made."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[TensorProto] = []

    def conv(self, x: str, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> str:
        name = f"conv{len(self.nodes)}"
        weight = self._constant(f"{name}_w", [outputs, inputs // groups, kernel, kernel])
        bias = self._constant(f"{name}_b", [outputs])
        return self.add("Conv", [x, weight, bias], name, kernel_shape=[kernel] * 2, strides=[stride] * 2,
                        pads=[kernel // 2] * 4, group=groups)  # fmt: skip

    def add(self, op: str, inputs: list[str], name: str = "", **attributes: object) -> str:
        name = name or f"{op.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [f"{name}_out"], name=name, **attributes))
        return f"{name}_out"

    def clip(self, x: str) -> str:
        return self.add("Clip", [x, self._constant("zero", []), self._constant("six", [])])

    def _constant(self, name: str, dims: list[int]) -> str:
        if name not in {tensor.name for tensor in self.constants}:
            self.constants.append(TensorProto(name=name, dims=dims, data_type=TensorProto.FLOAT))
        return name

    def classifier(self, x: str, inputs: int) -> onnx.ModelProto:
        """Pool, classify into 1000 and return the whole."""
        flat = self.add("Flatten", [self.add("GlobalAveragePool", [x])])
        constants = [self._constant("head_w", [1000, inputs]), self._constant("head_b", [1000])]
        self.nodes.append(helper.make_node("Gemm", [flat, *constants], ["logits"], name="head", transB=1))
        images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, 224, 224])
        logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 1000])
        graph = helper.make_graph(self.nodes, "network", [images], [logits], self.constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def resnet(depth: int) -> onnx.ModelProto:
    """Return ResNet-18 or ResNet-50 (He et al., CVPR 2016; the stride in the 3x3, as torchvision has it)."""
    build, bottleneck = Builder(), depth == 50
    x = build.add("Relu", [build.conv("images", 3, 64, 7, 2)])
    x = build.add("MaxPool", [x], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    inputs = 64
    for stage, blocks in enumerate((3, 4, 6, 3) if bottleneck else (2, 2, 2, 2)):
        width = 64 << stage
        outputs = width * (4 if bottleneck else 1)
        for block in range(blocks):
            stride = 2 if block == 0 and stage > 0 else 1
            sizes = ((1, 1), (3, stride), (1, 1)) if bottleneck else ((3, stride), (3, 1))
            shortcut = build.conv(x, inputs, outputs, 1, stride) if (stride, inputs) != (1, outputs) else x
            for index, (kernel, step) in enumerate(sizes):
                last = index == len(sizes) - 1
                x = build.conv(x, inputs if index == 0 else width, outputs if last else width, kernel, step)
                x = build.add("Relu", [build.add("Add", [x, shortcut]) if last else x])
            inputs = outputs
    return build.classifier(x, inputs)


def mobilenet_v2() -> onnx.ModelProto:
    """Return MobileNetV2 1.0 (Sandler et al., CVPR 2018, table 2)."""
    build = Builder()
    x, inputs = build.clip(build.conv("images", 3, 32, 3, 2)), 32
    for expand, outputs, blocks, first_stride in ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2),
                                                  (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)):  # fmt: skip
        for block in range(blocks):
            stride, width = first_stride if block == 0 else 1, inputs * expand
            y = build.clip(build.conv(x, inputs, width, 1)) if expand > 1 else x
            y = build.clip(build.conv(y, width, width, 3, stride, groups=width))
            y = build.conv(y, width, outputs, 1)
            x = build.add("Add", [y, x]) if (stride, inputs) == (1, outputs) else y
            inputs = outputs
    return build.classifier(build.clip(build.conv(x, inputs, 1280, 1)), 1280)
