"""Sizes and normalisation, against the processors of transformers."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close
from transformers import (
    AutoImageProcessor,
    CLIPImageProcessorPil,
    ConvNextImageProcessorPil,
    ViTImageProcessorPil,
)

from lightning_distill.data import ImageProcessor
from lightning_distill.data.pictures.image_processor import load_image_processor

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)


def picture(height=37, width=53):
    smooth = np.random.default_rng(0).integers(0, 256, (8, 9, 3)).astype(np.uint8)
    return Image.fromarray(smooth).resize((width, height), Image.Resampling.BICUBIC)


def as_tensor(image):
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


OF_TRANSFORMERS = {
    "stretched": lambda: ViTImageProcessorPil(
        size={"height": 24, "width": 18}, image_mean=MEAN, image_std=STD
    ),
    "bicubic, and cut out": lambda: CLIPImageProcessorPil(
        size={"shortest_edge": 30}, crop_size={"height": 24, "width": 20}
    ),
    "cut out of a larger one": lambda: ConvNextImageProcessorPil(
        size={"shortest_edge": 28}, crop_pct=0.875, image_mean=MEAN, image_std=STD
    ),
    "not normalised": lambda: ViTImageProcessorPil(
        size={"height": 60, "width": 60}, do_normalize=False
    ),
}


@pytest.mark.parametrize("name", OF_TRANSFORMERS)
def test_a_picture_is_as_transformers_makes_it_and_after_it_was_saved(name, tmp_path):
    theirs = OF_TRANSFORMERS[name]()
    expected = theirs(picture(), return_tensors="pt")["pixel_values"][0]
    ours = load_image_processor(theirs)
    # Both round to whole pixels, which may differ by one.
    step = 1.01 / 255 / min(ours.std)
    assert_close(ours(as_tensor(picture())), expected, atol=step, rtol=0)
    ours.save_pretrained(tmp_path)
    assert load_image_processor(str(tmp_path)) == ours
    again = AutoImageProcessor.from_pretrained(tmp_path)(picture(), return_tensors="pt")
    assert_close(again["pixel_values"][0], expected, atol=step, rtol=0)


def test_a_picture_of_the_right_size_is_only_normalised():
    values = as_tensor(picture())
    expected = (values.double() / 255 - torch.tensor(MEAN).double()[:, None, None]) / torch.tensor(
        STD
    ).double()[:, None, None]
    assert_close(ImageProcessor(37, 53, MEAN, STD)(values).double(), expected, atol=1e-6, rtol=0)


def test_processors_that_cannot_be_are_refused(tmp_path):
    with pytest.raises(ValueError, match="red, green and blue"):
        ImageProcessor(8, 8, mean=(0.5,))
    with pytest.raises(ValueError, match="`std` must be above 0"):
        ImageProcessor(8, 8, std=(0.5, 0.0, 0.5))
    with pytest.raises(FileNotFoundError, match="No image processor can be loaded"):
        load_image_processor(str(tmp_path))
    with pytest.raises(ValueError, match="Set data.size"):
        load_image_processor(CLIPImageProcessorPil(size={"longest_edge": 30}, do_center_crop=False))
