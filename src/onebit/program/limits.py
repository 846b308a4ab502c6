"""How large a Program may be. Products of sizes are Python ints, so none can overflow before its check."""

from __future__ import annotations

MAX_RANK = 8  # axes of a tensor, the batch axis not counted
MAX_DIMENSION = 2**31 - 1  # so that an index along one axis fits an int32
MAX_VALUE_ELEMENTS = 2**31 - 1  # of one sample of one value
MAX_CONSTANT_BYTES = 2**40  # of one constant, as stored
MAX_NODES = 10_000
MAX_TENSORS = 50_000  # constants, or values
MAX_NAME = 256  # characters of a name of a value, constant, op, attribute, layer or class
MAX_CLASSES = 50_000  # names of classes
MAX_INTEGER = 2**63 - 1  # magnitude of any int that the file holds
MAX_HEADER_BYTES = 4 * 2**20  # of a file: the constant part of what loading may allocate follows from it
MAX_JSON_DEPTH = 16
MAX_JSON_CONTAINERS = 250_000  # lists and objects in one JSON text
