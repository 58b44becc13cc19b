#!/usr/bin/env python3
"""Writes the ELF kernel that is packed inside a bzImage to stdout.

The boot header says where the packed kernel is (Documentation/x86/boot.rst: setup_sects, payload_offset,
payload_length); its magic says how it is packed. The last four bytes of the payload are the unpacked size.
"""
import struct
import subprocess
import sys

UNPACKERS = {
    b"\x1f\x8b": ["gzip", "-dc"],
    b"\xfd7zXZ\x00": ["xz", "-dc", "--single-stream"],
    b"\x28\xb5\x2f\xfd": ["zstd", "-dcq"],
    b"\x02\x21\x4c\x18": ["lz4", "-dcq"],
}


def main(path):
    image = open(path, "rb").read()
    if image[0x202:0x206] != b"HdrS":
        sys.exit(f"{path} is no bzImage")
    setup_sectors = image[0x1F1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    payload = image[start : start + length]
    size = struct.unpack("<I", payload[-4:])[0]
    for magic, command in UNPACKERS.items():
        if payload.startswith(magic):
            # The unpacker may complain about the size that follows its data; the result is checked below.
            kernel = subprocess.run(command, input=payload[:-4], stdout=subprocess.PIPE).stdout
            break
    else:
        sys.exit(f"{path}: unknown packing {payload[:6].hex()}")
    if not kernel.startswith(b"\x7fELF") or len(kernel) != size:
        sys.exit(f"{path}: unpacked {len(kernel)} bytes, the header says {size}")
    sys.stdout.buffer.write(kernel)


main(sys.argv[1])
