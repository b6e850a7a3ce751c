"""timm, for the tests that need it; they are skipped where it cannot be imported.

Its torchvision has to be built for the torch that is there.
"""

import pytest
import torch

try:
    import timm
except (ImportError, RuntimeError) as error:
    pytest.skip(f"timm cannot be imported: {error}", allow_module_level=True)


def weights_file(path, name="test_resnet", classes=3, seed=7, **options):
    """A file of weights of a small model; returns it and the model."""
    from safetensors.torch import save_file

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = timm.create_model(name, num_classes=classes, **options).eval()
    save_file(model.state_dict(), path)
    return str(path), model
