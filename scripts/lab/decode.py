#!/usr/bin/env python3
"""decode.py STATUS : takes the frames of scripts/lab/init-bochs.c out of what Bochs writes, from stdin, and passes the
command's output on to stdout and stderr. Appends to the file STATUS "up" when the command has started and "exit N" when it
has ended; ends then, or when the machine starts a second time.
"""
import sys

MARK = b"\n@martlet-lab@\n"


def skip_to_mark(stream):
    """Bochs and its debugger greet first."""
    seen = b""
    while not seen.endswith(MARK):
        byte = stream.read(1)
        if not byte:
            sys.exit(0)
        seen = (seen + byte)[-len(MARK):]


def main(status_path):
    stream = sys.stdin.buffer
    outputs = {b"o": sys.stdout.buffer, b"e": sys.stderr.buffer}
    with open(status_path, "a") as status:
        skip_to_mark(stream)
        while len(head := stream.read(5)) == 5:
            kind, count = head[:1], int.from_bytes(head[1:], "little")
            payload = stream.read(count)
            if kind in outputs:
                outputs[kind].write(payload)
                outputs[kind].flush()
            elif kind == b"u":
                print("up", file=status, flush=True)
            elif kind == b"x":
                print("exit", payload[0], file=status, flush=True)
                return
            else:
                # The mark: the machine has started again.
                return


main(sys.argv[1])
