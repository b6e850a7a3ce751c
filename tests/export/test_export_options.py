import importlib.util

import pytest

from lightning_distill.export_options import check_formats, check_quantization


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("onnx", ("onnx",)),
        (["safetensors", "onnx", "onnx"], ("safetensors", "onnx")),
        (("torch_export",), ("torch_export",)),
    ],
)
def test_a_word_is_a_list_of_one_and_each_format_comes_once(given, found):
    assert check_formats(given) == found


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("onx", r"got 'onx'\. Did you mean onnx\?"),
        (["safetensors", "torchexport"], r"got 'torchexport'\. Did you mean torch_export\?"),
        (["zip"], r"`job.formats` must be some of safetensors, onnx, torch_export, got 'zip'\.$"),
        ([], "`job.formats` is empty"),
        (None, "`job.formats` is empty"),
    ],
)
def test_other_formats_are_refused(given, words):
    with pytest.raises(ValueError, match=words):
        check_formats(given)


@pytest.mark.parametrize(
    ("kind", "formats", "words"),
    [
        ("int5", ("onnx",), "`job.quantization` must be int8, int8_weights, int4, .*got 'int5'"),
        ("int4", ("safetensors", "onnx"), "onnx has int8 only. Leave onnx out of job.formats, or"),
    ],
)
def test_other_kinds_of_numbers_are_refused(kind, formats, words):
    with pytest.raises(ValueError, match=words):
        check_quantization(kind, formats)
    check_quantization(None, formats)


@pytest.mark.parametrize(
    ("package", "extra"), [("onnxruntime", "onnx"), ("onnxscript", "onnx"), ("torchao", "quantiza")]
)
def test_a_package_that_is_not_installed_is_named_with_its_extra(package, extra, monkeypatch):
    there = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == package else there(name)
    )
    words = rf"needs the package {package}, which is not installed: pip .*-distill\[{extra}"
    with pytest.raises(ValueError, match=words):
        check_formats(["onnx", "torch_export"])
        check_quantization("int8", ["torch_export"])
