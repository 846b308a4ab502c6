"""Defects of the graph: its JSON, its fields, and the rules that the verifier holds."""

from __future__ import annotations

from malformed.forge import Change, drop, graph, with_graph, with_graph_text

NODE0 = "node 0 'u8_gemm' (layer 'fc0')"

CASES: dict[str, tuple[Change, str]] = {
    "graph empty": (with_graph_text(lambda t: ""), "graph: JSON: found Expecting value at character 0"),
    "graph cut short": (with_graph_text(lambda t: t[:-1]), "graph: JSON: found"),
    "graph is a list": (with_graph_text(lambda t: "[]"), "graph: format: found [], expected 'onebit'"),
    "graph is null": (with_graph_text(lambda t: "null"), "graph: format: found None"),
    "graph nested deep": (with_graph_text(lambda t: "[" * 50_000), "graph: depth of the JSON"),
    "graph key twice": (
        with_graph_text(lambda t: t[:-1] + ',"nodes":[]}'),
        "graph: keys are unique: found 'nodes' twice",
    ),
    "attribute named twice": (
        with_graph_text(lambda t: t.replace('"offset": -255', '"offset": -255, "offset": 0')),
        "graph: keys are unique: found 'offset' twice",
    ),
    "format of another tool": (graph("onnx", "format"), "graph: format: found 'onnx', expected 'onebit'"),
    "version missing": (with_graph(lambda g: drop(g, "format_version")), "graph: format_version: found None"),
    "version 0": (graph(0, "format_version"), "graph: format_version: found 0, expected an int >= 1"),
    "version is true": (graph(True, "format_version"), "graph: format_version: found True, expected an int"),
    "version is text": (graph("1", "format_version"), "graph: format_version: found '1', expected an int"),
    "a newer version": (
        graph(3, "format_version"),
        "graph: format_version: found 3, expected at most 2: a newer onebit wrote this file, upgrade onebit",
    ),
    "a newer version with new fields": (
        with_graph(lambda g: g.update(format_version=7, more=[1])),
        "found 7, expected at most 2: a newer onebit",
    ),
    "version 1 with a checksum": (
        graph(1, "format_version"),
        "graph: fields: found unknown 'checksum', expected exactly format",
    ),
    "no checksum": (with_graph(lambda g: drop(g, "checksum")), "graph: fields: found no checksum"),
    **{
        f"checksum {name}": (
            graph(value, "checksum"),
            "graph.checksum: form: found",
        )
        for name, value in (
            ("is a number", 12345678),
            ("is empty", ""),
            ("in capitals", "ABCDEF01"),
            ("too long", "0123456789"),
            ("in other digits", "\u0661" * 8),
        )
    },
    "field missing": (
        with_graph(lambda g: drop(g, "outputs")),
        "graph: fields: found no outputs, expected exactly",
    ),
    "field unknown": (graph(1, "extra"), "graph: fields: found unknown 'extra', expected exactly format"),
    "inputs are an object": (graph({}, "inputs"), "inputs: type: found {}, expected a list"),
    "inputs are empty": (graph([], "inputs"), "program: inputs: found (), expected"),
    "input is a string": (graph("x", "inputs", 0), "inputs[0]: type: found 'x', expected an object"),
    "input twice": (with_graph(lambda g: g["inputs"].append(g["inputs"][0])), "inputs[1]: names are unique"),
    "input name is a number": (
        graph(3, "inputs", 0, "name"),
        "inputs[0].name: type: found 3, expected a string",
    ),
    "input dtype": (
        graph("f16", "inputs", 0, "dtype"),
        "inputs[0].dtype: dtype: found 'f16', expected one of bits",
    ),
    "input rank 1000": (
        graph([1] * 1000, "inputs", 0, "shape"),
        "inputs[0]: rank: found 1000, expected at most 8",
    ),
    "input shape is a string": (graph("70", "inputs", 0, "shape"), "inputs[0].shape: type: found '70'"),
    "input shape holds null": (graph([None], "inputs", 0, "shape"), "each size of a shape: found None"),
    "a huge value": (
        graph([2**31 - 1] * 8, "inputs", 0, "shape"),
        "inputs[0]: size of a value: found 45231",
    ),
    "a huge constant": (
        graph([2**31 - 1, 2**31 - 1], "constants", "t0", "shape"),
        "constants.'t0': size of a constant: found 18446744056529682436 bytes",
    ),
    "constant without a shape": (with_graph(lambda g: drop(g, "constants", "t0", "shape")), "found no shape"),
    "constants are a list": (graph([], "constants"), "constants: type: found [], expected an object"),
    "outputs are a string": (graph("y", "outputs"), "outputs: type: found 'y', expected a list"),
    "outputs are empty": (graph([], "outputs"), "program: outputs: found ()"),
    "output is a number": (graph([1], "outputs"), "outputs[0]: type: found 1, expected a string"),
    "output dangling": (graph(["ghost"], "outputs"), "output 'ghost': an output exists"),
    "output twice": (graph(["y", "y"], "outputs"), "output 'y': outputs are unique"),
    "metadata value is a number": (graph(1, "metadata", "model"), "metadata.'model': type: found 1"),
    "metadata value is a list": (
        graph(["a"], "metadata", "model"),
        "metadata 'model': its text: found ['a']",
    ),
    "classes are text": (graph("abc", "metadata", "classes"), "metadata 'classes': type: found 'abc'"),
    "classes are a number": (graph(3, "metadata", "classes"), "metadata.'classes': type: found 3"),
    "classes are an object": (graph({"a": 1}, "metadata", "classes"), "metadata.'classes': type: found {"),
    "classes are none": (graph([], "metadata", "classes"), "metadata 'classes': number of names: found 0"),
    "classes are too many": (
        graph(["a"] * 50_001, "metadata", "classes"),
        "metadata 'classes': number of names: found 50001, expected 1 to 50000",
    ),
    "classes hold a number": (graph(["a", 1], "metadata", "classes"), "metadata.'classes'[1]: type: found 1"),
    "classes hold a list": (
        graph([["a"]], "metadata", "classes"),
        "metadata.'classes'[0]: type: found ['a']",
    ),
    "a class without a name": (graph(["a", ""], "metadata", "classes"), "'classes'[1]: length of a name"),
    "a class with a long name": (
        graph(["a" * 257], "metadata", "classes"),
        "metadata 'classes'[0]: length of a name: found 257 characters",
    ),
    "a class that cannot be shown": (
        graph(["\x1b[2J"], "metadata", "classes"),
        "metadata 'classes'[0]: characters of a name: found '\\x1b[2J'",
    ),
    "classes of another number": (
        graph(["a", "b"], "metadata", "classes"),
        "metadata 'classes': number of names: found 2, expected ",
    ),
    "metadata is not Unicode": (graph("\ud800", "metadata", "model"), "a str of Unicode characters"),
    # nodes
    "nodes are an object": (graph({}, "nodes"), "nodes: type: found {}, expected a list"),
    "node is null": (graph(None, "nodes", 0), "nodes[0]: type: found None, expected an object"),
    "node without attrs": (
        with_graph(lambda g: drop(g, "nodes", 0, "attrs")),
        "nodes[0]: fields: found no attrs",
    ),
    "node with an unknown field": (graph(1, "nodes", 0, "color"), "nodes[0]: fields: found unknown 'color'"),
    "op is a number": (graph(1, "nodes", 0, "op"), "nodes[0].op: type: found 1, expected a string"),
    "op unknown": (graph("exec", "nodes", 0, "op"), "unknown op: found 'exec', expected one of abs"),
    "op version true": (
        graph(True, "nodes", 0, "version"),
        "nodes[0].version: type: found True, expected an int",
    ),
    "op version 9": (
        graph(9, "nodes", 0, "version"),
        f"{NODE0}: version of the op: found 9, expected 1; a newer",
    ),
    "inputs of a node are a string": (graph("x", "nodes", 0, "inputs"), "nodes[0].inputs: type: found 'x'"),
    "input of a node is null": (graph(None, "nodes", 0, "inputs", 0), "nodes[0].inputs[0]: type: found None"),
    "dangling input": (
        graph("ghost", "nodes", 2, "inputs", 0),
        "node 2 'binary_gemm' (layer 'fc1'), input x = 'ghost': every input is defined",
    ),
    "cycle": (
        graph("a1", "nodes", 1, "inputs", 0),
        "nodes stand in topological order without cycles: found the output of node 2",
    ),
    "wrong order": (with_graph(lambda g: g["nodes"].reverse()), "nodes stand in topological order"),
    "arity": (
        graph(["x", "w0", "w0"], "nodes", 0, "inputs"),
        f"{NODE0}: number of inputs: found 3, expected 2",
    ),
    "output name taken": (graph("x", "nodes", 0, "output"), "nodes[0]: names are unique: found 'x'"),
    "output named like a constant": (graph("w0", "nodes", 0, "output"), "found a name already taken"),
    "output empty": (graph("", "nodes", 4, "output"), "length of a name: found 0 characters"),
    "node twice": (
        with_graph(lambda g: g["nodes"].append(g["nodes"][-1])),
        "nodes[5]: names are unique: found 'y'",
    ),
    "layer with a line break": (graph("a\nb", "nodes", 0, "layer"), "characters of a name: found 'a\\nb'"),
    "layer too long": (graph("l" * 10_000, "nodes", 0, "layer"), "length of a name: found 10000 characters"),
    "declared shape": (graph([34], "nodes", 0, "shape"), "declared type: found i32[34], expected i32[33]"),
    "declared dtype": (graph("u8", "nodes", 0, "dtype"), "declared type: found u8[33], expected i32[33]"),
    "attribute missing": (
        graph({}, "nodes", 0, "attrs"),
        f"{NODE0}: attributes: found [], expected ['multiplier'",
    ),
    "attribute unknown": (graph(1, "nodes", 1, "attrs", "x"), "attributes: found ['x'], expected []"),
    "attribute is true": (
        graph(True, "nodes", 0, "attrs", "multiplier"),
        "nodes[0].attrs.'multiplier': type: found True, expected a number, a string or a list of ints",
    ),
    "attribute is null": (
        graph(None, "nodes", 0, "attrs", "multiplier"),
        "type: found None, expected a number",
    ),
    "attribute is 2.0": (
        graph(2.0, "nodes", 0, "attrs", "multiplier"),
        "attribute multiplier: found 2.0 (float), expected an int",
    ),
    "attribute is text": (graph("2", "nodes", 0, "attrs", "offset"), "attribute offset: found '2' (str)"),
    "attribute is NaN": (
        graph(float("nan"), "nodes", 0, "attrs", "offset"),
        "graph: numbers are finite: found NaN",
    ),
    "attribute list with a bool": (
        graph([True], "nodes", 0, "attrs", "offset"),
        "type: found [True], expected",
    ),
    "attribute of 30 digits": (
        graph(10**30, "nodes", 0, "attrs", "offset"),
        "graph: size of a number: found 1000",
    ),
    "accumulator overflows": (
        graph(2**40, "nodes", 0, "attrs", "multiplier"),
        f"{NODE0}: range of the int32 accumulator: found",
    ),
    "unused constant": (
        with_graph(lambda g: [g["nodes"].pop(), g.update(outputs=["r1"])]),
        "every constant is used: found no node",
    ),
}
