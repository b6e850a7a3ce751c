"""What timm says of its models, in the words of our processor."""

import pytest

from lightning_distill.data.pictures.image_processor import load_image_processor
from lightning_distill.data.pictures.timm_settings import timm_settings

SAID = {"input_size": (3, 224, 224), "interpolation": "bicubic", "crop_pct": 0.95}
SAID |= {"crop_mode": "center", "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.25)}


def test_size_crop_and_normalisation_are_taken():
    found = load_image_processor(timm_settings("a", SAID))
    assert (found.height, found.width, found.shortest_edge) == (224, 224, 235)
    assert (found.mean, found.std, found.resample) == ((0.4, 0.5, 0.6), (0.2, 0.3, 0.25), 3)
    smaller = load_image_processor(timm_settings("a", SAID, 32))
    assert (smaller.height, smaller.shortest_edge) == (32, 33)
    squashed = load_image_processor(
        timm_settings("a", SAID | {"crop_mode": "squash", "crop_pct": 1})
    )
    assert squashed.shortest_edge is None
    # Where a model says nothing, timm has defaults.
    plain = timm_settings("a", {})
    assert plain["shortest_edge"] == 256 and plain["mean"] == [0.485, 0.456, 0.406]


def test_what_is_not_known_is_refused():
    for other in ({"crop_mode": "border"}, {"interpolation": "lanczos"}, {"input_size": (3, 8, 9)}):
        with pytest.raises(ValueError, match=r"a of timm wants .* Name a processor"):
            timm_settings("a", SAID | other)
    with pytest.raises(ValueError, match=r"are height, width, .*; got height, depth"):
        load_image_processor({"height": 8, "depth": 8})
