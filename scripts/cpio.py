#!/usr/bin/env python3
"""Writes a cpio archive (newc, as the kernel unpacks it) to stdout from a list on stdin. Nothing of the host gets in
but the files' contents: owner root, time 0, order by name, so the same list gives the same bytes. Needs no root.

    dir  PATH MODE
    file PATH MODE SOURCE
    link PATH TARGET
    node PATH MODE MAJOR MINOR        (character device)
"""
import sys

DIRECTORY, REGULAR, SYMLINK, CHARACTER = 0o040000, 0o100000, 0o120000, 0o020000


def pad(data):
    return data + b"\0" * (-len(data) % 4)


def entry(inode, path, mode, data=b"", major=0, minor=0, links=1):
    name = path.encode() + b"\0"
    # Documentation/driver-api/early-userspace/buffer-format.rst: c_ino … c_chksum, each 8 hexadecimal digits.
    fields = (inode, mode, 0, 0, links, 0, len(data), 0, 0, major, minor, len(name), 0)
    header = b"070701" + b"".join(b"%08X" % field for field in fields)
    return pad(header + name) + pad(data)


def main():
    out = sys.stdout.buffer
    lines = sorted((line.split() for line in sys.stdin if line.strip()), key=lambda words: words[1])
    for inode, (kind, path, *rest) in enumerate(lines, start=1):
        path = path.lstrip("/")
        if kind == "dir":
            out.write(entry(inode, path, DIRECTORY | int(rest[0], 8), links=2))
        elif kind == "file":
            with open(rest[1], "rb") as source:
                out.write(entry(inode, path, REGULAR | int(rest[0], 8), source.read()))
        elif kind == "link":
            out.write(entry(inode, path, SYMLINK | 0o777, rest[0].encode()))
        elif kind == "node":
            out.write(entry(inode, path, CHARACTER | int(rest[0], 8), major=int(rest[1]), minor=int(rest[2])))
        else:
            sys.exit(f"unknown kind {kind}")
    out.write(entry(0, "TRAILER!!!", 0))


main()
