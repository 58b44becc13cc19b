#!/usr/bin/env python3
"""manual.py DIRECTORY [--check] : writes the man pages of martlet, one for each command, from the JSON that
`martlet --experimental-dump-help` prints (standard input). With --check it writes nothing and fails if a page is missing.

Pages are in man(7): martlet.1 and martlet-COMMAND.1, for nested commands martlet-pod-list.1."""
import json
import pathlib
import sys


def escaped(text):
    """Text as roff takes it: no escapes, no requests at the beginning of a line."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return "\n".join("\\&" + line if line[:1] in (".", "'") else line for line in text.splitlines())


def names(argument):
    return [("--" if name["kind"] == "long" else "-") + name["name"] for name in argument.get("names", [])]


def label(argument):
    value = argument.get("valueName", "value")
    if argument["kind"] == "positional":
        return f"\\fI{escaped(value)}\\fR"
    text = ", ".join(f"\\fB{escaped(name)}\\fR" for name in names(argument))
    return text + (f" \\fI{escaped(value)}\\fR" if argument["kind"] == "option" else "")


def usage(argument):
    if argument["kind"] == "positional":
        text = label(argument)
    else:
        preferred = argument["preferredName"]
        text = f"\\fB{escaped(names({'names': [preferred]})[0])}\\fR"
        if argument["kind"] == "option":
            text += f" \\fI{escaped(argument.get('valueName', 'value'))}\\fR"
    text += " ..." if argument.get("isRepeating") else ""
    return f"[{text}]" if argument.get("isOptional") else text


def describe(argument):
    text = argument.get("abstract", "")
    if argument.get("discussion"):
        text += "\n" + argument["discussion"]
    values = argument.get("allValues")
    if values:
        text += f" Values: {', '.join(values)}."
    if argument.get("defaultValue"):
        text += f" Default: {argument['defaultValue']}."
    return text


def shown(items):
    return [item for item in items or [] if item.get("shouldDisplay", True)]


def children(command):
    return [child for child in shown(command.get("subcommands")) if child["commandName"] != "help"]


def page(command, path):
    arguments = shown(command.get("arguments"))
    subcommands = children(command)
    words = " ".join(path)
    lines = [
        f'.TH {escaped("-".join(path)).upper()} 1 "" Martlet',
        ".SH NAME", f'{escaped("-".join(path))} \\- {escaped(command.get("abstract", ""))}',
        ".SH SYNOPSIS",
        " ".join([f"\\fB{escaped(words)}\\fR"] + [usage(argument) for argument in arguments]
                 + (["\\fIcommand\\fR"] if subcommands else [])),
    ]
    if command.get("discussion"):
        lines += [".SH DESCRIPTION", escaped(command["discussion"])]
    for title, positional in (("ARGUMENTS", True), ("OPTIONS", False)):
        chosen = [argument for argument in arguments if (argument["kind"] == "positional") == positional]
        if chosen:
            lines.append(f".SH {title}")
        for argument in chosen:
            lines += [".TP", label(argument), escaped(describe(argument)) or "\\&"]
    if subcommands:
        lines.append(".SH COMMANDS")
    for child in subcommands:
        lines += [".TP", f'\\fB{escaped("-".join(path + [child["commandName"]]))}\\fR(1)',
                  escaped(child.get("abstract", "")) or "\\&"]
    if len(path) > 1:
        lines += [".SH SEE ALSO", f'\\fB{escaped("-".join(path[:-1]))}\\fR(1)']
    return "\n".join(lines) + "\n"


def pages(command, path=()):
    path = [*path, command["commandName"]]
    yield "-".join(path) + ".1", page(command, path)
    for child in children(command):
        yield from pages(child, path)


def main():
    directory = pathlib.Path(sys.argv[1])
    made = dict(pages(json.load(sys.stdin)["command"]))
    if "--check" in sys.argv[2:]:
        missing = [name for name in made if not (directory / name).is_file()]
        if missing:
            sys.exit("missing man pages: " + " ".join(missing))
        return
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in made.items():
        (directory / name).write_text(text)


main()
