"""Tests for encoders in ONNX files."""

from __future__ import annotations

import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from svetlana_jupyter.errors import InputError, SettingsError
from svetlana_jupyter.learn.encoder import check_encoder
from svetlana_jupyter.learn.onnx_encoder import OnnxEncoder


def write_model(path, batch="n", kind=TensorProto.FLOAT, inputs=("patches",)):
    """Write a model that returns the mean of each channel, of the sum of its inputs."""
    values = [helper.make_tensor_value_info(name, kind, [batch, 2, 8, 8]) for name in inputs]
    output = helper.make_tensor_value_info("features", kind, [batch, 2, 1, 1])
    nodes = [
        helper.make_node("Sum", list(inputs), ["sum"]),
        helper.make_node("GlobalAveragePool", ["sum"], ["features"]),
    ]
    model = helper.make_model(
        helper.make_graph(nodes, "means", values, [output]), opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("batch", ["n", 1, 3])
def test_features_are_the_output_of_the_model(tmp_path, batch):
    encoder = OnnxEncoder(write_model(tmp_path / "means.onnx", batch))
    patches = np.random.default_rng(0).normal(size=(7, 2, 8, 8)).astype(np.float32)
    np.testing.assert_allclose(encoder(patches), patches.mean(axis=(2, 3)), atol=1e-6)


def test_half_precision_is_converted(tmp_path):
    encoder = OnnxEncoder(write_model(tmp_path / "means.onnx", kind=TensorProto.FLOAT16))
    features = encoder(np.full((2, 2, 8, 8), 0.5, np.float32))
    assert features.dtype == np.float32
    np.testing.assert_array_equal(features, 0.5)


def test_another_file_has_another_hash(tmp_path):
    one = OnnxEncoder(write_model(tmp_path / "one.onnx"))
    other = OnnxEncoder(write_model(tmp_path / "other.onnx", batch=1))
    assert check_encoder("means", one, 8) == check_encoder("means", OnnxEncoder(tmp_path / "one.onnx"), 8)
    assert check_encoder("means", one, 8) != check_encoder("means", other, 8)


def test_files_that_are_no_such_model_are_refused(tmp_path):
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(InputError, match="cannot be read as an ONNX model"):
        OnnxEncoder(tmp_path / "text.onnx")
    with pytest.raises(InputError, match="cannot be read as an ONNX model"):
        OnnxEncoder(tmp_path / "missing.onnx")
    with pytest.raises(InputError, match="needs one input"):
        OnnxEncoder(write_model(tmp_path / "two.onnx", inputs=("a", "b")))


def test_weights_outside_the_file_are_not_read(tmp_path):
    weight = helper.make_tensor("w", TensorProto.FLOAT, [2], np.zeros(2, np.float32).tobytes(), raw=True)
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="weights.bin")
    weight.ClearField("raw_data")
    (tmp_path / "weights.bin").write_bytes(bytes(8))
    value = helper.make_tensor_value_info("patches", TensorProto.FLOAT, ["n", 2])
    graph = helper.make_graph(
        [helper.make_node("Add", ["patches", "w"], ["y"])],
        "g",
        [value],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])],
        [weight],
    )
    path = tmp_path / "outside.onnx"
    path.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    )
    with pytest.raises(InputError, match="single file that contains its weights"):
        OnnxEncoder(path)


def test_without_onnxruntime_the_error_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(SettingsError, match=r'pip install "svetlana-jupyter\[onnx\]"'):
        OnnxEncoder(tmp_path / "means.onnx")
