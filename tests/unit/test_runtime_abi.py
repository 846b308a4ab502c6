"""runtime/abi.py against the headers in csrc/include, read as text: neither may have what the other lacks."""

import ctypes
import re
import shutil
import subprocess
from enum import IntEnum
from pathlib import Path

from onebit.program import OPS
from onebit.runtime import abi, library
from support import require

INCLUDE = Path(__file__).parents[2] / "csrc" / "include"
ENUMS: dict[str, tuple[type[IntEnum], str]] = {
    "onebit_status": (abi.Status, "ONEBIT_"),
    "onebit_dtype": (abi.Dtype, "ONEBIT_"),
    "onebit_gemm_family": (abi.GemmFamily, "ONEBIT_"),
    "onebit_conv_family": (abi.ConvFamily, "ONEBIT_"),
    "onebit_epilogue_kind": (abi.EpilogueKind, "ONEBIT_EPILOGUE_"),
    "onebit_pooling": (abi.Pooling, "ONEBIT_POOL_"),
    "onebit_sharing": (abi.Sharing, "ONEBIT_SHARE_"),
    "onebit_unary": (abi.Unary, ""),
    "onebit_binary": (abi.Binary, ""),
}
STRUCTS: dict[str, type[ctypes.Structure]] = {
    "onebit_gemm": abi.Gemm,
    "onebit_window": abi.Window,
    "onebit_isa_info": abi.IsaInfo,
    "onebit_conv": abi.Conv,
    "onebit_op_info": abi.OpInfo,
    "onebit_memory": abi.MemoryInfo,
}
SCALARS = {
    "int32_t": ctypes.c_int32,
    "uint32_t": ctypes.c_uint32,
    "uint64_t": ctypes.c_uint64,
    "float": ctypes.c_float,
    "onebit_value": ctypes.c_int32,
    "onebit_window": abi.Window,
    "void": None,
}


def _text() -> str:
    text = "\n".join((INCLUDE / name).read_text() for name in ("onebit_ops.h", "onebit.h"))
    text = re.sub(r"/\*.*?\*/", " ", text, flags=re.DOTALL)
    return text.replace("\\\n", " ")


def _enums(text: str) -> dict[str, dict[str, int]]:
    """Name of a type → its members: those written out, and those of the lists that a macro makes."""
    found = {}
    for body, name in re.findall(r"typedef enum \{([^}]*)\}\s*(\w+);", text):
        if "=" in body:
            members = re.findall(r"(ONEBIT_\w+)\s*=\s*(\d+)", body)
            assert len(members) == body.count("="), name
        else:
            members = re.findall(r"OP\((\w+), (\d+),", _list(text, re.findall(r"(\w+_OPS)", body)[0]))
        found[name] = {member: int(number) for member, number in members}
        assert len(found[name]) == len(members), f"{name} has a member twice"
    return found


def _list(text: str, macro: str) -> str:
    match = re.search(rf"#define {macro}\(OP\)(.*)", text)
    assert match is not None
    return match.group(1)


def _declared(type_: str, name: str) -> tuple[bool, object]:
    """Whether a declaration in C is a pointer, and what ctypes has for the type if it is none."""
    if "*" in type_ or "*" in name:
        return True, None
    base = type_.replace("const", "").strip()
    return False, SCALARS.get(base, ctypes.c_int if base in ENUMS else base)


def _is_pointer(type_: object) -> bool:
    pointers = (ctypes.c_void_p, ctypes.c_char_p)
    return type_ in pointers or (isinstance(type_, type) and issubclass(type_, ctypes._Pointer))


def _assert_same(type_: object, declared: tuple[bool, object], what: str) -> None:
    pointer, scalar = declared
    assert _is_pointer(type_) == pointer, what
    assert pointer or type_ is scalar, what


def test_enums_are_those_of_the_header() -> None:
    enums = _enums(_text())
    assert enums.keys() == ENUMS.keys()
    for name, (mirror, prefix) in ENUMS.items():
        assert {prefix + member.name: member.value for member in mirror} == enums[name], name


def test_ops_are_named_as_in_a_program_and_have_their_attributes() -> None:
    text = _text()
    unary = re.findall(r"OP\((\w+), \d+, (\w+), (\d+),", _list(text, "ONEBIT_UNARY_OPS"))
    binary = re.findall(r"OP\((\w+), \d+, (\w+),", _list(text, "ONEBIT_BINARY_OPS"))
    assert len(unary) == len(abi.Unary)
    assert len(binary) == len(abi.Binary)
    for capital, name, parameters in unary:
        assert capital.lower() == name
        assert len(OPS[name].attrs) == int(parameters) <= abi.MAX_PARAMETERS, name
    for capital, name in binary:
        assert capital.lower() == name
        assert len(OPS[name].operands) == 2, name


def test_numbers_are_those_of_the_header() -> None:
    text = _text()
    defined = dict(re.findall(r"#define ONEBIT_(\w+)\s+(\d+)\s*$", text, re.MULTILINE))
    for body in re.findall(r"(?<!typedef )enum \{([^}]*)\}", text):
        defined.update(re.findall(r"ONEBIT_(MAX_\w+)\s*=\s*(\d+)", body))
    mirrored = {name: value for name, value in vars(abi).items() if type(value) is int and name.isupper()}
    assert mirrored == {name: int(number) for name, number in defined.items()}


def test_structures_are_those_of_the_header() -> None:
    bodies = {name: body for body, name in re.findall(r"typedef struct \{([^}]*)\}\s*(\w+);", _text())}
    assert bodies.keys() == STRUCTS.keys()
    for name, mirror in STRUCTS.items():
        fields = []
        for declaration in filter(None, map(str.strip, bodies[name].split(";"))):
            type_, names = re.fullmatch(r"((?:const )?\w+)\s+(.*)", declaration, re.DOTALL).groups()  # type: ignore[union-attr]
            fields += [(field.strip(" *\n"), _declared(type_, field)) for field in names.split(",")]
        assert [field[0] for field in mirror._fields_] == [field for field, _ in fields], name
        for (field, declared), (_, type_) in zip(fields, mirror._fields_, strict=True):  # type: ignore[misc]
            _assert_same(type_, declared, f"{name}.{field}")


def test_functions_are_those_of_the_header() -> None:
    text = _text()
    found = re.findall(r"ONEBIT_API\s+([\w ]+?[\s*]+)(\w+)\(([^)]*)\);", text)
    assert len(found) == len(re.findall(r"^ONEBIT_API", text, re.MULTILINE))
    mirrored = {name: (ctypes.c_int, arguments) for name, arguments in abi.STATUS_FUNCTIONS.items()}
    mirrored |= abi.OTHER_FUNCTIONS  # type: ignore[arg-type]
    assert {name for _, name, _ in found} == mirrored.keys()
    for result, name, arguments in found:
        restype, argtypes = mirrored[name]
        _assert_same(restype, _declared(result, ""), f"result of {name}")
        wanted = (
            [] if arguments.strip() == "void" else [part.rsplit(None, 1) for part in arguments.split(",")]
        )
        assert len(argtypes) == len(wanted), name
        for number, (type_, (declared, argument)) in enumerate(zip(argtypes, wanted, strict=True)):
            _assert_same(type_, _declared(declared, argument), f"argument {number} of {name}")
        assert (name in abi.STATUS_FUNCTIONS) == (result.strip() == "onebit_status"), name


def test_sizes_are_those_that_a_compiler_finds(tmp_path: Path) -> None:
    """Reading cannot see padding: a C program prints each size and the offset of each last field."""
    lines = [
        f'printf("%zu %zu\\n", sizeof({name}), offsetof({name}, {mirror._fields_[-1][0]}));'
        for name, mirror in STRUCTS.items()
    ]
    source = tmp_path / "sizes.c"
    source.write_text(
        '#include <stdio.h>\n#include "onebit.h"\nint main(void) {\n' + "\n".join(lines) + "\nreturn 0;\n}\n"
    )
    program = tmp_path / "sizes"
    require(shutil.which("cc") is not None, "a C compiler `cc`")
    subprocess.run(["cc", "-I", str(INCLUDE), str(source), "-o", str(program)], check=True)
    printed = subprocess.run([str(program)], check=True, capture_output=True, text=True).stdout.split()
    wanted: list[int] = []
    for mirror in STRUCTS.values():
        wanted += [ctypes.sizeof(mirror), getattr(mirror, mirror._fields_[-1][0]).offset]
    assert list(map(int, printed)) == wanted


def test_the_library_has_each_function() -> None:
    for name in (*abi.STATUS_FUNCTIONS, *abi.OTHER_FUNCTIONS):
        assert hasattr(library().functions, name), name
