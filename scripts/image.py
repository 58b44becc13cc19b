#!/usr/bin/python3
"""image.py [--tree DIRECTORY] NAME OUTPUT [COMMAND…] : writes an image of busybox alone, as `docker save` and `ctr image import`
have it; with --tree with the files of a directory too, as files of root's.

For nodes (`make image`), for tests, and for trying things out where there is no registry.
"""
import hashlib
import io
import json
import subprocess
import sys
import tarfile

BUSYBOX = "/bin/busybox"


def entry(tar, name, kind, data=b"", mode=0o755, link=""):
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.size, info.linkname = kind, mode, len(data), link
    tar.addfile(info, io.BytesIO(data))


def layer():
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as tar:
        for directory in ("bin", "dev", "etc", "proc", "root", "run", "sys", "usr", "usr/bin", "var"):
            entry(tar, directory, tarfile.DIRTYPE)
        entry(tar, "tmp", tarfile.DIRTYPE, mode=0o1777)
        with open(BUSYBOX, "rb") as file:
            entry(tar, "bin/busybox", tarfile.REGTYPE, file.read())
        for applet in subprocess.check_output([BUSYBOX, "--list"], text=True).split():
            if applet != "busybox":
                entry(tar, f"bin/{applet}", tarfile.SYMTYPE, link="busybox")
        entry(tar, "etc/passwd", tarfile.REGTYPE, b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n",
              0o644)
        entry(tar, "etc/group", tarfile.REGTYPE, b"root:x:0:\nnogroup:x:65534:\n", 0o644)
    return output.getvalue()


def tree_layer(directory):
    """The files of a directory, owned by root."""
    def owned(info):
        info.uid = info.gid = 0
        info.uname = info.gname = "root"
        return info

    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as tar:
        tar.add(directory, arcname=".", filter=owned)
    return output.getvalue()


def main(arguments):
    layers = [layer()]
    if arguments[0] == "--tree":
        layers.append(tree_layer(arguments[1]))
        arguments = arguments[2:]
    name, output, *command = arguments
    config = json.dumps({
        "architecture": "amd64", "os": "linux",
        "config": {"Cmd": command or ["/bin/sh"], "Env": ["PATH=/bin:/usr/bin"]},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(data).hexdigest() for data in layers]},
    }).encode()
    config_name = hashlib.sha256(config).hexdigest() + ".json"
    files = [f"layer{number}.tar" for number in range(len(layers))]
    manifest = json.dumps([{"Config": config_name, "RepoTags": [name], "Layers": files}]).encode()
    with tarfile.open(output, "w") as tar:
        for file, content in ((config_name, config), *zip(files, layers), ("manifest.json", manifest)):
            entry(tar, file, tarfile.REGTYPE, content, 0o644)


if len(sys.argv) < (5 if sys.argv[1:2] == ["--tree"] else 3):
    sys.exit(__doc__)
main(sys.argv[1:])
