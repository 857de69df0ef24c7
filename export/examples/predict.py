"""Predict the class of an image: python predict.py IMAGE. Needs numpy, onnxruntime and pillow."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from PIL import Image, ImageOps

BUNDLE = Path(__file__).resolve().parents[1]


def prepare(image: Image.Image, manifest: dict[str, Any]) -> npt.NDArray[Any]:  # Any: an object of JSON
    """Return the input of the model: the image resized, its centre cropped, its pixels normalised."""
    wanted = manifest["preprocessing"]
    batch, channels, *crop = manifest["input_shape"]
    covered = [round(wanted["resize"] * side / min(crop)) for side in crop]  # height and width
    scale = max(covered[0] / image.height, covered[1] / image.width)
    width, height = max(covered[1], round(image.width * scale)), max(covered[0], round(image.height * scale))
    left, top = (width - crop[1]) // 2, (height - crop[0]) // 2
    image = image.convert("RGBA" if channels == 4 else "RGB").convert({1: "L", 3: "RGB", 4: "RGBA"}[channels])
    image = image.resize((width, height), Image.Resampling[wanted["interpolation"].upper()])
    pixels = np.asarray(image.crop((left, top, left + crop[1], top + crop[0]))).reshape(1, *crop, channels)
    if wanted["channels"] == "bgr":
        pixels = pixels[..., ::-1]
    if manifest["input_dtype"] == "float32":  # otherwise the file itself normalises
        pixels = ((pixels / 255 - wanted["mean"]) / wanted["std"]).astype(np.float32)
    if manifest["input_layout"] == "NCHW":
        pixels = pixels.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(np.repeat(pixels, batch or 1, axis=0))


def main() -> None:
    """Print the label of the image that the command line names."""
    file = json.loads((BUNDLE / "bundle.json").read_text("utf-8"))["artifact"]
    manifest = json.loads((BUNDLE / f"{file}.json").read_text("utf-8"))
    options = ort.SessionOptions()
    for key, value in manifest["session_options"].items():  # needed for correct results
        options.add_session_config_entry(key, value)
    session = ort.InferenceSession(BUNDLE / file, options, providers=["CPUExecutionProvider"])
    image = ImageOps.exif_transpose(Image.open(sys.argv[1]))
    scores = session.run(None, {manifest["input_name"]: prepare(image, manifest)})[0][0]
    is_single = len(scores) < len(manifest["labels"])  # one score, of the second of two classes
    best = int(scores[0] > (0 if manifest["output"] == "logits" else 0.5)) if is_single else int(scores.argmax())
    print(f"{sys.argv[1]}: {manifest['labels'][best]}")


if __name__ == "__main__":
    main()
