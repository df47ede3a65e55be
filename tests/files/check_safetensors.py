"""The reference implementation's word on safetensors files, for safetensors_test.cpp (needs safetensors 0.8 and numpy).

  read FILE      one line per metadata entry and per tensor: name, type, shape, bytes in hexadecimal
  verdicts FILE  one character per case of FILE, each a 4-byte length and as many bytes: 1 if accepted, 0 if refused
  write FILE     the committed fixture fixtures/safetensors/reference.safetensors
"""

import ctypes
import struct
import sys

import safetensors

TENSORS = {
    "half": ("float16", [5], struct.pack("<5H", 0x3E00, 0xC000, 0x0001, 0x7BFF, 0x7C00)),
    "brain": ("bfloat16", [2], struct.pack("<2H", 0x3FC0, 0xC000)),
    "single": ("float32", [2, 3], struct.pack("<6f", 0, 0.5, 1, 1.5, 2, 2.5)),
    "double": ("float64", [1, 2], struct.pack("<2d", 0.1, -1e300)),
    "long": ("int64", [2], struct.pack("<2q", -1, 2**40)),
    "byte": ("uint8", [3], bytes([0, 127, 255])),
    "flag": ("bool", [], b"\1"),
    "nichts \u00e9\u4e2d\U0001f600": ("float32", [0, 4], b""),
}


def read(path):
    with safetensors.safe_open(path, framework="numpy") as file:
        for key, value in sorted((file.metadata() or {}).items()):
            print(f"{key}={value}")
    with open(path, "rb") as file:
        tensors = safetensors.deserialize(file.read())
    for name, tensor in sorted(tensors):
        shape = ",".join(map(str, tensor["shape"]))
        print(f"{name}:{tensor['dtype']}[{shape}]{tensor['data'].hex()}")


def verdicts(path):
    with open(path, "rb") as file:
        content = file.read()
    at = 0
    result = ""
    while at < len(content):
        (size,) = struct.unpack_from("<I", content, at)
        case = content[at + 4 : at + 4 + size]
        at += 4 + size
        try:
            safetensors.deserialize(case)
            result += "1"
        except Exception:
            result += "0"
    print(result)


def write(path):
    buffers = {name: ctypes.create_string_buffer(data, max(len(data), 1)) for name, (_, _, data) in TENSORS.items()}
    specs = {
        name: safetensors.TensorSpec(
            dtype=dtype, shape=shape, data_ptr=ctypes.addressof(buffers[name]), data_len=len(data)
        )
        for name, (dtype, shape, data) in TENSORS.items()
    }
    safetensors.serialize_file(specs, path, {"format": "pt", "quote": 'a "b"\n\\'})


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8")
    {"read": read, "verdicts": verdicts, "write": write}[sys.argv[1]](sys.argv[2])
