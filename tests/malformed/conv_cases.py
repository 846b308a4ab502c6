"""Defects of the graph of a convolutional network, `forge.conv_base`: geometry, groups, windows, joins."""

from __future__ import annotations

from malformed.forge import Change, Tree, graph, with_graph

PERMUTE, CONV0, POOL0, CONV1, CONV2, BOX, CONCAT = 0, 1, 3, 4, 6, 10, 13
NODE1 = "node 1 'u8_conv2d' (layer 'conv0')"
NODE3 = "node 3 'max_pool2d' (layer 'pool0')"
NODE4 = "node 4 'binary_conv2d' (layer 'conv1')"


def attr(value: object, node: int, name: str, *index: int) -> Change:
    return graph(value, "nodes", node, "attrs", name, *index)


def shape(node: int, *sizes: int) -> Change:
    return graph(list(sizes), "nodes", node, "shape")


def both(first: Change, second: Change) -> Change:
    return lambda raw: second(first(raw))


def repeat_input(g: Tree) -> None:
    g["nodes"][CONCAT]["inputs"] = ["scaled"] * 20_000


CASES: dict[str, tuple[Change, str]] = {
    "stride 0": (attr(0, CONV0, "stride", 0), f"{NODE1}: attribute stride: found (0, 1) (tuple), expected"),
    "stride negative": (attr(-1, CONV0, "stride", 1), "attribute stride: found (1, -1)"),
    "stride of three": (
        attr([1, 1, 1], CONV0, "stride"),
        "attribute stride: found (1, 1, 1), expected two ints",
    ),
    "stride of none": (attr([], CONV0, "stride"), "attribute stride: found (), expected two ints"),
    "stride an int": (
        attr(1, CONV0, "stride"),
        "attribute stride: found 1 (int), expected a tuple of ints >= 1",
    ),
    "stride beyond an int32": (attr(2**31, CONV0, "stride", 0), "attribute stride: found (2147483648, 1)"),
    "stride of floats": (attr([1.0, 1.0], CONV0, "stride"), "attrs.'stride': type: found [1.0, 1.0]"),
    "stride of 10,000": (attr([1] * 10_000, CONV0, "stride"), "rank of attribute stride: found 10000"),
    "stride missing": (
        with_graph(lambda g: g["nodes"][CONV0]["attrs"].pop("stride")),
        f"{NODE1}: attributes: found",
    ),
    "padding negative": (attr(-1, CONV0, "padding", 2), "attribute padding: found (1, 1, -1, 1)"),
    "padding of two": (attr([1, 1], CONV0, "padding"), "attribute padding: found (1, 1), expected four ints"),
    "padding beyond an index": (
        attr(2**31 - 1, CONV0, "padding", 0),
        f"{NODE1}: height with its padding: found 2147483647 + 5 + 1, expected at most 2147483647",
    ),
    "a huge output": (
        both(attr([2**30, 1, 2**30, 1], CONV0, "padding"), shape(CONV0, 2**30 + 4, 2**30 + 4, 4)),
        "nodes[1]: size of a value: found 46116",
    ),
    "dilation 0": (attr([0, 1], CONV0, "dilation"), "attribute dilation: found (0, 1)"),
    "dilation beyond int64": (
        attr([2**31 - 1, 2**31 - 1], CONV0, "dilation"),
        f"{NODE1}: output height: found a window of 4294967295 (kernel 3, dilation 2147483647) on 7",
    ),
    "kernel larger than the image": (
        attr([0, 0, 0, 0], CONV0, "padding"),
        "declared type: found i32[5, 5, 4]",
    ),
    "groups 0": (
        attr(0, CONV1, "groups"),
        f"{NODE4}: attribute groups: found 0, expected a divisor of C = 4",
    ),
    "groups negative": (attr(-2, CONV1, "groups"), "attribute groups: found -2"),
    "groups 3": (attr(3, CONV1, "groups"), "attribute groups: found 3"),
    "groups 1": (attr(1, CONV1, "groups"), "channels of w: found bits[6, 2, 2, 2], expected C/groups = 4/1"),
    "groups 2^63": (attr(2**63, CONV1, "groups"), "graph: size of a number: found 9223372036854775808"),
    "padding_value 3": (attr(3, CONV1, "padding_value"), f"{NODE4}: attribute padding_value: found 3"),
    "padding_value -0.0": (attr(-0.0, CONV1, "padding_value"), "attribute padding_value: found -0.0 (float)"),
    "accumulator overflows": (
        attr(2**40, CONV0, "multiplier"),
        f"{NODE1}: range of the int32 accumulator: found KH·KW·C/groups·(255·|multiplier| + |offset|) = 50",
    ),
    "multiplier 0": (attr(0, CONV0, "multiplier"), "attribute multiplier: found 0, expected a non-zero int"),
    "weights of rank 2": (
        graph(["p0", "f0"], "nodes", CONV1, "inputs"),
        f"{NODE4}: rank of w: found bits[4], expected bits[N, KH, KW, C/groups]",
    ),
    "image of rank 2": (
        graph([5, 10], "inputs", 0, "shape"),
        "node 0 'permute' (layer 'permute'): attribute axes",
    ),
    "a conv's declared rows": (
        shape(CONV2, 5, 8, 3),
        "declared type: found f32[5, 8, 3], expected f32[4, 8, 3]",
    ),
    # pools
    "kernel 0": (attr(0, POOL0, "kernel", 0), f"{NODE3}: attribute kernel: found (0, 2)"),
    "kernel huge": (
        attr(2**31 - 1, POOL0, "kernel", 0),
        f"{NODE3}: output height: found a window of 2147483647",
    ),
    "a window outside": (
        both(attr(3, POOL0, "padding", 0), shape(POOL0, 7, 5, 4)),
        f"{NODE3}: windows along the height: found kernel 2, stride 1, dilation 1, padding 3 and 0 on size 5",
    ),
    "count_include_pad 2": (attr(2, BOX, "count_include_pad"), "attribute count_include_pad: found 2"),
    "an average with dilation": (attr([1, 1], BOX, "dilation"), "attributes: found"),
    # moves
    "axis twice": (attr([1, 1, 0], PERMUTE, "axes"), "attribute axes: found (1, 1, 0) for u8[2, 5, 5]"),
    "axis of the batch": (attr([1, 2, 3], PERMUTE, "axes"), "expected each of 0 to 2 once"),
    "axis -1": (attr([1, 2, -1], PERMUTE, "axes"), "attribute axes: found (1, 2, -1)"),
    "axis 2^62": (attr([1, 2, 2**62], PERMUTE, "axes"), "attribute axes: found (1, 2, 4611686018427387904)"),
    "concat of one": (
        graph(["cat"], "nodes", CONCAT + 2, "inputs"),
        "number of inputs: found 1, expected 2 or more (a, b)",
    ),
    "concat of two dtypes": (
        graph(["bits", "b0"], "nodes", CONCAT + 2, "inputs"),
        "dtype and leading axes of input 1: found bits[5, 5, 4], expected those of bits[3, 10, 7]",
    ),
    "concat of 20,000": (
        with_graph(repeat_input),
        "declared type: found f32[3, 10, 7], expected f32[3, 10, 60000]",
    ),
    "concat of itself": (
        graph(["bits", "twice"], "nodes", CONCAT + 2, "inputs"),
        "nodes stand in topological order without cycles",
    ),
    "one channel of another size": (
        graph(["mean", "x"], "nodes", CONCAT - 1, "inputs"),
        "dtype of b: found u8[5, 5, 2], expected f32",
    ),
}
