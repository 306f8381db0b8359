"""Every refusal of the importer, by its sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from compiler.errors import CompileError, FrontendError
from compiler.frontend.onnx import load_onnx
from compiler.graph.text import to_text
from tests.compiler.frontend.models import floats, model, single

X = (1, 4, 6, 6)
NAN = np.full((5, 4, 3, 3), np.nan, np.float32)
W = floats(5, 4, 3, 3)
HALF, NOT_A_NUMBER = np.float32(0.5).reshape(()), np.float32(np.nan).reshape(())


def ints(*values: int) -> NDArray[np.int64]:
    return np.array(values, np.int64)



NODES = {
    "Node 'n' (Conv): input 1 must have finite values only": single("Conv", X, [NAN]),
    "Node 'n' (Conv): weight must be float32[5,4,3,3], not int8[5,4,3,3]": single("Conv", X, [W.astype(np.int8)]),
    "Node 'n' (Gemm): input 1 must be floating-point, not int8": single("Gemm", (2, 4), [floats(4, 3).astype(np.int8)]),
    "Node 'n' (Exp): operand must be float32, not int8[2,4]": single("Exp", (2, 4), dtype=np.int8),
    "Node 'n' (Add): operands must have one type, not int8[2,4] and float32[4]": single(
        "Add", (2, 4), [floats(4)], dtype=np.int8
    ),
    "Node 'n' (Pow): exponents of integers must be whole and in 0..63, not [2, -1]": single(
        "Pow", (2, 2), [np.array([2, -1], np.int8)], dtype=np.int8
    ),
    "Node 'n' (Max): operand must be of numbers to compute with, not bool[2,4]": single("Max", (2, 4), dtype=np.bool_),
    "Node 'n' (Cast): attribute 'to' must be one of BOOL, DOUBLE, FLOAT, FLOAT16, INT16, INT32, INT64, INT8, UINT16, "
    "UINT32, UINT64, UINT8, not STRING": single("Cast", (2, 4), to=TensorProto.STRING),
    "Node 'n' (Conv): must have 2 to 3 inputs, not ['x']": single("Conv", X),
    "Node 'n' (Conv): weight must have rank 4, not shape [5, 4]": single("Conv", X, [floats(5, 4)]),
    "Node 'n' (Conv): input must have rank 3 or 4, not shape [1, 4]": single("Conv", (1, 4), [W]),
    "Node 'n' (Conv): weight must be float32[5,3,3,3], not float32[5,4,3,3]": single("Conv", (1, 3, 6, 6), [W]),
    "Node 'n' (Conv): groups must divide 4 input and 5 output channels, not be 3": single("Conv", X, [W], group=3),
    "Node 'n' (Conv): attribute 'group' must be 1..2147483647, not 0": single("Conv", X, [W], group=0),
    "Node 'n' (Conv): attribute 'strides' must have 2 values in 1..4096, not (0, 1)": single(
        "Conv", X, [W], strides=[0, 1]
    ),
    "Node 'n' (Conv): attribute 'strides' must have 2 values in 1..4096, not (1,)": single("Conv", X, [W], strides=[1]),
    "Node 'n' (Conv): padding of a window that spans (1, 1) must be at most 17, not (0, 18, 0, 0)": single(
        "Conv", X, [floats(5, 4, 1, 1)], pads=[0, 18, 0, 0]
    ),
    "Node 'n' (Conv): attribute 'pads' must have 4 values in 0..4096, not (0, 0, 0, -1)": single(
        "Conv", X, [W], pads=[0, 0, 0, -1]
    ),
    "Node 'n' (Conv): attribute 'kernel_shape' must be (3, 3), that of the weight, not (3, 2)": single(
        "Conv", X, [W], kernel_shape=[3, 2]
    ),
    "Node 'n' (Conv): attribute 'auto_pad' must be NOTSET, VALID, SAME_UPPER or SAME_LOWER, not 'SAME'": single(
        "Conv", X, [W], auto_pad="SAME"
    ),
    "Node 'n' (Conv): attribute 'group' must be of type INT": single("Conv", X, [W], group=1.5),
    "Node 'n' (Conv): attribute 'fused' is not supported": single("Conv", X, [W], fused=1),
    "Node 'n' (Conv): window of 3x3 must fit in the padded input, not exceed its 2x6": single(
        "Conv", (1, 4, 2, 6), [W]
    ),
    "Node 'n' (Conv): window must span at most 4096 rows and columns, not (8001, 3)": single(
        "Conv", X, [W], dilations=[4000, 1]
    ),
    "Node 'n' (Gemm): attribute 'transA' must be 0..1, not 2": single("Gemm", (4, 2), [floats(4, 3)], transA=2),
    "Node 'n' (Gemm): weight must be float32[3,5], not float32[3,4]": single("Gemm", (2, 5), [floats(4, 3)]),
    "Node 'n' (Gemm): operands must broadcast to one shape, not have [2, 3] and [3, 3]": single(
        "Gemm", (2, 4), [floats(4, 3), floats(3, 3)]
    ),
    "Node 'n' (Gemm): attribute 'alpha' must be finite, not inf": single("Gemm", (2, 4), [floats(4, 3)], alpha=np.inf),
    "Node 'n' (MatMul): rows of the second operand must be 6, the columns of the first, not 5": single(
        "MatMul", X, [floats(5, 3)]
    ),
    "Node 'n' (Add): operands must broadcast to one shape, not have [1, 4, 6, 6] and [5]": single(
        "Add", X, [floats(5)]
    ),
    "Node 'n' (BatchNormalization): attribute 'training_mode' must be 0, not 1": single(
        "BatchNormalization", X, [floats(4)] * 4, training_mode=1
    ),
    "Node 'n' (BatchNormalization): variance plus epsilon must be positive": single(
        "BatchNormalization", X, [-np.ones(4, np.float32)] * 4
    ),
    "Node 'n' (BatchNormalization): scale must be float32[4], not float32[3]": single(
        "BatchNormalization", X, [np.ones(3, np.float32)] * 4
    ),
    "Node 'n' (Clip): input 1 must be one floating-point number, not nan": single("Clip", X, [NOT_A_NUMBER]),
    "Node 'n' (Concat): attribute 'axis' must be given": single("Concat", X, [floats(1)]),
    "Node 'n' (Concat): inputs must differ along axis 1 alone, not be float32[1,4,6,6] and float32[1,4,6,5]": single(
        "Concat", X, [floats(1, 4, 6, 5)], axis=1
    ),
    "Node 'n' (ConvTranspose): weight must be for 4 channels in 1 groups, not for 3": single(
        "ConvTranspose", X, [floats(3, 4, 2, 2)]
    ),
    "Node 'n' (ConvTranspose): result must have extents of at least 1, not -4": single(
        "ConvTranspose", X, [floats(4, 5, 2, 2)], pads=[6, 0, 5, 0]
    ),
    "Node 'n' (DepthToSpace): channels must be a multiple of 9, not 4": single("DepthToSpace", X, blocksize=3),
    "Node 'n' (Expand): shape must be one that [1, 4, 6, 6] broadcasts with, not (5,)": single(
        "Expand", X, [ints(5)]
    ),
    "Node 'n' (Gather): indices must be -4..3, not 0..4": single("Gather", X, [ints(0, 4)], axis=1),
    "Node 'n' (Gelu): attribute 'approximate' must be 'none' or 'tanh', not 'fast'": single(
        "Gelu", X, approximate="fast"
    ),
    "Node 'n' (Pad): attribute 'mode' must be constant, edge, reflect or wrap, not 'mirror'": single(
        "Pad", X, [ints(0, 0, 1, 1, 0, 0, 1, 1)], mode="mirror"
    ),
    "Node 'n' (Pad): pads must have two for each of 4 axes, not be (1, 1)": single("Pad", X, [ints(1, 1)]),
    "Node 'n' (Pow): exponents must be numbers, not bool[]": single("Pow", X, [np.array(True)]),
    "Node 'n' (Pow): exponents must be numbers, not float32[0]": single("Pow", (1, 1), [np.zeros(0, np.float32)]),
    "Node 'n' (Resize): must have scales or sizes": single("Resize", X),
    "Node 'n' (Resize): attribute 'mode' must be nearest, linear, cubic, not 'area'": single("Resize", X, mode="area"),
    "Node 'n' (Slice): slice must have an element, not none of [1, 4, 6, 6]": single(
        "Slice", X, [ints(2), ints(2), ints(1)]
    ),
    "Node 'n' (Split): parts must be 1 of together 4 elements, not (1, 2)": single("Split", X, [ints(1, 2)], axis=1),
    "Node 'n' (Transpose): order must name each dimension of float32[1,4,6,6] once, not be (0, 1, 1, 3)": single(
        "Transpose", X, perm=[0, 1, 1, 3]
    ),
    "Node 'n' (Tile): repeats must be 1 or more for each of 4 axes, not (2, 2)": single("Tile", X, [ints(2, 2)]),
    "Node 'n' (Range): operator must have constant inputs": single("Range", (), [ints(4).reshape(()), ints(1)]),
    "Node 'n' (Trilu): input must have rank 2 or more, not shape [3]": single("Trilu", (3,)),
    "Node 'n' (Trilu): input 1 must be one integer, not (1, 2)": single("Trilu", X, [ints(1, 2)]),
    "Node 'n' (Where): condition must be bool, not float32": single("Where", X, [HALF, HALF]),
    "Node 'n' (MaxPool): attribute 'kernel_shape' must be given": single("MaxPool", X),
    "Node 'n' (MaxPool): padding (2, 0, 0, 0) must leave each 2x2 window an element of the input, not none": single(
        "MaxPool", X, kernel_shape=[2, 2], pads=[2, 0, 0, 0]
    ),
    "Node 'n' (AveragePool): input must have rank 3 to 5, not shape [2, 4]": single(
        "AveragePool", (2, 4), kernel_shape=[2]
    ),
    "Node 'n' (MaxPool): window of 7x2 must fit in the padded input, not exceed its 6x6": single(
        "MaxPool", X, kernel_shape=[7, 2]
    ),
    "Node 'n' (AveragePool): attribute 'ceil_mode' must be 0 when padding counts "
    "and the last window is not whole": single(
        "AveragePool", X, kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1, count_include_pad=1
    ),
    "Node 'n' (ReduceMean): axes must be different and in -4..3, not (1, 4)": single("ReduceMean", X, [ints(1, 4)]),
    "Node 'n' (Reshape): shape must hold the 144 elements of [1, 4, 6, 6], not be (5, -1)": single(
        "Reshape", X, [ints(5, -1)]
    ),
    "Node 'n' (Reshape): shape must hold the elements of [1, 4, 6, 6], not be [2, 3]": single(
        "Reshape", X, [ints(2, 3)]
    ),
    "Node 'n' (Reshape): shape must have one -1 at most, not (-1, -1)": single("Reshape", X, [ints(-1, -1)]),
    "Node 'n' (Reshape): must have extents of at least 0, not shape (-2, 3)": single(
        "Reshape", X, [ints(-2, 3)]
    ),
    "Node 'n' (Squeeze): axes must be those of extent 1 in [1, 4, 6, 6], not [2]": single(
        "Squeeze", X, [ints(2)]
    ),
    "Node 'n' (Unsqueeze): axes must be different and in -6..5, not (0, 0)": single(
        "Unsqueeze", X, [ints(0, 0)]
    ),
    "Node 'n' (Softmax): axis must be -4..3, not 4": single("Softmax", X, axis=4),
    "Node 'n' (Dropout): input 'training_mode' must be false, or the ratio 0": single(
        "Dropout", X, [HALF, np.array(True)]
    ),
    "Node 'n' (Identity): must have 1 input, not ['x', 'c1']": single("Identity", X, [HALF]),
    "Input 'x' must have fixed extents behind the batch, not the open 'W'": single("Relu", (1, 4, 6, "W")),
    "Input 'x' must have at most 268435456 elements, not shape (1, 1099511627776)": single("Relu", (1, 1 << 40)),
    "Input 'x' must have extents of at least 1, not shape (1, 0)": single("Relu", (1, 0)),
    "Opset must be 13..27, not 12": single("Relu", X, opset=12),
}


@pytest.mark.parametrize("sentence", NODES)
def test_refusal(sentence: str) -> None:
    with pytest.raises(FrontendError) as caught:
        load_onnx(NODES[sentence])
    if sentence.startswith("Opset"):
        sentence = f"Opset must be 13..{onnx.defs.onnx_opset_version()}, not 12"
    assert str(caught.value) == sentence


def refused(proto: onnx.ModelProto | bytes | Path, batch: int | None = None) -> str:
    with pytest.raises(FrontendError) as caught:
        load_onnx(proto, batch=batch)
    return str(caught.value)


def test_error_names_node_operator_and_reason() -> None:
    with pytest.raises(CompileError) as caught:
        load_onnx(single("Conv", X, [NAN]))
    error = caught.value
    assert isinstance(error, FrontendError)
    assert (error.node, error.op, error.reason) == ("n", "Conv", "input 1 must have finite values only")


def test_unknown_operator_and_domain() -> None:
    assert refused(single("Det", X)).startswith("Node 'n' (Det): operator must be one of Abs, Add, AveragePool, ")
    foreign = model([helper.make_node("Relu", ["x"], ["y"], domain="com.example")], {"x": X}, ["y"])
    assert refused(foreign).startswith("Node 'y' (com.example.Relu): operator must be one of ")
    strange = model([helper.make_node("Re\nlu", ["x"], ["y"])], {"x": X}, ["y"])
    assert refused(strange).startswith("Node 'y' ('Re\\nlu'): ")


def test_nodes_may_be_in_any_order() -> None:
    names = [helper.make_node("Relu", ["b"], ["y"]), helper.make_node("Add", ["a", "x"], ["b"]),
             helper.make_node("Neg", ["x"], ["a"])]
    ordered, unsorted = model(names[::-1], {"x": X}, ["y"]), model(names, {"x": X}, ["y"])
    assert to_text(load_onnx(unsorted)) == to_text(load_onnx(ordered))


def test_graphs_with_a_cycle() -> None:
    cycle = model([helper.make_node("Add", ["x", "b"], ["a"]), helper.make_node("Relu", ["a"], ["b"])], {"x": X}, ["b"])
    assert refused(cycle) == "Node 'a' (Add): must read values defined before it, not 'b'"
    beside = [helper.make_node("Relu", ["a"], ["b"]), helper.make_node("Relu", ["x"], ["c"])]
    assert refused(model(beside, {"x": X}, ["b"])) == "Node 'b' (Relu): must read values defined before it, not 'a'"


def test_values_are_defined_once() -> None:
    twice = model([helper.make_node("Relu", ["x"], ["a"]), helper.make_node("Relu", ["x"], ["a"])], {"x": X}, ["a"])
    assert refused(twice) == "Node 'a' (Relu): value 'a' must be defined once, not twice"


def test_outputs() -> None:
    node = helper.make_node("Relu", ["x"], ["y"])
    assert refused(model([node], {"x": X}, ["z"])) == "Output 'z' must be computed by a node or be an input"
    empty = model([node], {"x": X}, ["c"], {"c": floats(0)})
    assert refused(empty) == "Output 'c' must have extents of at least 1, not shape (0,)"
    assert refused(model([node], {"x": X}, [])) == "Model must have an output"


def test_indices_of_a_pool_are_refused_when_they_are_read() -> None:
    pool = helper.make_node("MaxPool", ["x"], ["a", "at"], name="p", kernel_shape=[2, 2])
    nodes = [pool, helper.make_node("Relu", ["at"], ["y"])]
    why = "output 1 of node 'p', which is not computed at inference"
    assert refused(model(nodes, {"x": X}, ["y"])) == f"Node 'y' (Relu): must not read {why}"
    assert refused(model(nodes[:1], {"x": X}, ["at"])) == f"Output 'at' must not be {why}"
    load_onnx(model(nodes[:1], {"x": X}, ["a"]))


def test_weights_must_be_known() -> None:
    computed = model([helper.make_node("ConvTranspose", ["x", "x"], ["y"], name="n")], {"x": (4, 4, 6, 6)}, ["y"])
    assert refused(computed) == "Node 'n' (ConvTranspose): input 1 must be a constant, not the computed 'x'"


def test_constants_that_cannot_be_computed() -> None:
    node = helper.make_node("Reshape", ["a", "s"], ["b"], name="r")
    constants = {"a": floats(2, 3), "s": ints(4)}
    proto = model([node, helper.make_node("Add", ["x", "b"], ["y"])], {"x": X}, ["y"], constants)
    assert refused(proto) == (
        "Node 'r' (Reshape): must have constants that can be computed: cannot reshape array of size 6 into shape (4,)"
    )


def test_inputs_must_be_tensors_of_known_types() -> None:
    proto = single("Relu", X)
    proto.graph.input[0].type.tensor_type.elem_type = TensorProto.BFLOAT16
    assert refused(proto) == (
        "Type of input 'x' must be one of BOOL, DOUBLE, FLOAT, FLOAT16, INT16, INT32, INT64, INT8, UINT16, UINT32, "
        "UINT64, UINT8, not BFLOAT16"
    )
    proto.graph.input[0].type.Clear()
    assert refused(proto) == "Input 'x' must be a tensor with a shape"


def test_batch() -> None:
    open_batch, fixed = single("Relu", ("N", 4)), single("Relu", (2, 4))
    assert load_onnx(open_batch).types["y"].shape == (1, 4)
    assert load_onnx(open_batch, batch=7).types["y"].shape == (7, 4)
    assert load_onnx(fixed, batch=2).types["y"].shape == (2, 4)
    assert refused(fixed, batch=3) == "Input 'x' must have the batch it is fixed at, 2, not 3"
    assert refused(fixed, batch=0) == "Batch must be at least 1, not 0"


@pytest.mark.parametrize("data", [b"\x00" * 64, b"not a model", single("Relu", X).SerializeToString()[:-40]])
def test_other_files(data: bytes) -> None:
    assert refused(data) in (
        "Model must be an ONNX file: this one is damaged, cut off, or of another kind",
        "Model must import one version of the standard operators, not []",
    )


def test_an_empty_file() -> None:
    assert refused(b"") == "Model must be an ONNX file: this one is empty"


def test_missing_file(tmp_path: Path) -> None:
    path = tmp_path / "none.onnx"
    assert refused(path) == f"Model file {str(path)!r} must be readable: No such file or directory"


def test_tensors() -> None:
    proto = single("Conv", X, [W])
    tensor = proto.graph.initializer[0]
    tensor.raw_data = tensor.raw_data[:-1]
    assert refused(proto) == "Tensor 'c1' of shape (5, 4, 3, 3) must have 720 bytes, not 719"
    tensor.dims[0] = 1 << 40
    assert refused(proto) == (
        "Tensor 'c1' must have at most 268435456 elements, not shape (1099511627776, 4, 3, 3)"
    )
    tensor.dims[0] = -5
    assert refused(proto) == "Tensor 'c1' must have extents of at least 0, not shape (-5, 4, 3, 3)"
    tensor.data_type = TensorProto.STRING
    assert refused(proto) == "Tensor 'c1' must have a supported element type, not STRING"
    listed = helper.make_tensor("c1", TensorProto.FLOAT, [2], [1.0, 2.0])
    listed.float_data.append(3.0)
    tensor.CopyFrom(listed)
    assert refused(proto) == "Tensor 'c1' of shape (2,) must have 2 elements, not 3"


def external(location: str, **entries: str) -> onnx.ModelProto:
    """A convolution whose weight is kept in another file."""
    proto = single("Conv", X, [W])
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=value)
    return proto


def test_external_data_from_the_models_folder(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "w.bin").write_bytes(b"head" + W.tobytes())
    path = tmp_path / "m.onnx"
    path.write_bytes(external("data/w.bin", offset="4", length=str(W.nbytes)).SerializeToString())
    np.testing.assert_array_equal(load_onnx(path).constants["c1"], W)
    path.write_bytes(external("data/w.bin", offset="40").SerializeToString())
    assert refused(path) == "Tensor 'c1' of shape (5, 4, 3, 3) must have 720 bytes, not 684"
    path.write_bytes(external("data/w.bin", offset="4", length="7").SerializeToString())
    assert refused(path) == "Tensor 'c1' must have 720 bytes at a positive offset, not 7 at 4"
    path.write_bytes(external("data/w.bin", offset="x").SerializeToString())
    assert refused(path) == "Tensor 'c1' must have a numeric offset and length in 'data/w.bin'"


@pytest.mark.parametrize("location", ["../w.bin", "/etc/passwd", "", "a\0b", "link/w.bin", "loop", "n" * 5000])
def test_external_data_from_elsewhere(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "w.bin").write_bytes(W.tobytes())
    (folder / "link").symlink_to(tmp_path)
    (folder / "loop").symlink_to(folder / "loop")
    path = folder / "m.onnx"
    path.write_bytes(external(location).SerializeToString())
    assert refused(path) in (
        f"Tensor 'c1' must lie inside the model's folder, not in {location!r}",
        f"Tensor 'c1' must be readable from {location!r}: [Errno 36] File name too long: {str(folder / location)!r}",
        (
            f"Tensor 'c1' must be readable from {location!r}: [Errno 40] Too many levels of symbolic links: "
            f"{str(folder / location)!r}"
        ),
    )


def test_external_data_without_a_folder() -> None:
    proto = external("w.bin")
    assert refused(proto) == "Tensor 'c1' must be inside the model when that is not read from a file, not in 'w.bin'"


def test_sparse_weights_and_other_constants() -> None:
    proto = single("Relu", X)
    proto.graph.sparse_initializer.add()
    assert refused(proto) == "Model must have dense weights, not sparse ones"
    text = model([helper.make_node("Constant", [], ["y"], value_string="text")], {"x": X}, ["y"])
    assert refused(text) == "Node 'y' (Constant): must have a tensor, integers or floats as its value"
    nan = numpy_helper.from_array(np.float32(np.nan).reshape(()))
    nodes = [helper.make_node("Constant", [], ["k"], value=nan), helper.make_node("Add", ["x", "k"], ["y"])]
    assert refused(model(nodes, {"x": X}, ["y"])) == "Node 'y' (Add): input 1 must have finite values only"
