#!/usr/bin/env python3
"""modules-check.py: checks the structure of both packages, and prints what is wrong.

- Each target declares the modules that it imports, and imports those that it declares.
- martlet-vmm, martlet-device and what they import use no Foundation, NIO or protobuf.
- The tables of docs/architecture.md and docs/agent.md name each module once, and no others.
- No file that is written by hand has more than 400 lines.

Exit code 1 when something is wrong."""
import json, os, re, subprocess, sys

MAXIMUM_LINES = 400
# The modules of the toolchain and the C library.
SYSTEM = {'Glibc', 'Musl', 'Foundation', 'FoundationEssentials', 'FoundationXML', 'Synchronization',
          'Dispatch', 'Testing', 'XCTest',
          'PackageDescription'}
HEAVY = re.compile(r'Foundation|NIO|SwiftProtobuf')
# In a condition an import is indented; in the text of another language it names no module of Swift's.
IMPORT = re.compile(
    r'^(?:[ \t]+(?=import [A-Z]))?(?:@\w+(?:\(\w+\))?\s+)*(?:public |package |internal |private |fileprivate )?import\s+'
    r'(?:struct |class |enum |func |protocol |typealias )?(\w+)', re.M)

os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), '..'))
problems = []


def output(*command, directory='.'):
    return subprocess.run(command, cwd=directory, check=True, capture_output=True, text=True).stdout


def written_by_hand(*paths):
    files = output('git', 'ls-files', '--cached', '--others', '--exclude-standard', *paths).splitlines()
    return [f for f in files if os.path.exists(f) and not f.endswith(('.pb.swift', '.ttrpc.swift'))]


def text(path):
    with open(path, errors='replace') as file:
        return file.read()


def targets(package):
    """The targets of a package: name, kind, declared dependencies, imported modules."""
    found = {}
    for target in json.loads(output('swift', 'package', 'dump-package', directory=package))['targets']:
        declared = {next(iter(entry.values()))[0] for entry in target['dependencies']}
        name, kind = target['name'], target['type']
        path = target.get('path') or os.path.join('Tests' if kind == 'test' else 'Sources', name)
        # A program that tests start, and what it is made of.
        if kind != 'test' and path.startswith('Tests/'):
            kind = f'test {kind}'
        directory = os.path.join(package, path)
        imported = set()
        for root, _, names in os.walk(directory):
            for file in names:
                if file.endswith('.swift'):
                    imported |= set(IMPORT.findall(text(os.path.join(root, file))))
        found[name] = (kind, declared, imported - SYSTEM - {name}, imported)
    return found


def check_imports(package, all_targets):
    programs = {name.replace('-', '_') for name, target in all_targets.items() if target[0].endswith('executable')}
    for name, (_, declared, imported, _) in all_targets.items():
        for module in sorted(imported - declared):
            problems.append(f'{package}/Package.swift: {name} imports {module}, which it does not declare')
        for module in sorted(declared - imported):
            # Tests start programs; they need not import them.
            if module.replace('-', '_') not in programs:
                problems.append(f'{package}/Package.swift: {name} declares {module}, which it does not import')


def check_light(all_targets):
    reached, left = set(), ['martlet-vmm', 'martlet-device']
    while left:
        name = left.pop()
        if name in reached or name not in all_targets:
            continue
        reached.add(name)
        left += all_targets[name][2]
        for module in sorted(filter(HEAVY.match, all_targets[name][3])):
            problems.append(f'{name} imports {module}, but martlet-vmm or martlet-device is built on it')


def check_table(page, all_targets):
    """A table whose header begins with `| module |`; its first column has the names in backquotes."""
    lines = text(page).splitlines()
    start = next((i for i, line in enumerate(lines) if line.startswith('| module ')), None)
    named = []
    for line in lines[start + 2:] if start is not None else []:
        if not line.startswith('|'):
            break
        named += re.findall(r'`([^`]+)`', line.split('|')[1])
    modules = {name for name, target in all_targets.items() if not target[0].startswith('test')}
    for name in sorted(modules - set(named)):
        problems.append(f'{page}: the table of modules does not name {name}')
    for name in sorted(n for n in set(named) if n not in modules or named.count(n) > 1):
        problems.append(f'{page}: the table of modules names {name}, ' +
                        ('more than once' if name in modules else 'which is not a target'))


def check_lengths():
    for file in written_by_hand('Sources', 'Tests', 'guest-agent', 'scripts'):
        if file.endswith(('.swift', '.c', '.h', '.py', '.sh', '.go', '.proto')):
            lines = text(file).count('\n')
            if lines > MAXIMUM_LINES:
                problems.append(f'{file}: {lines} lines, more than {MAXIMUM_LINES}')


host, guest = targets('.'), targets('guest-agent')
check_imports('.', host)
check_imports('guest-agent', guest)
check_light(host)
check_table('docs/architecture.md', host)
check_table('docs/agent.md', guest)
check_lengths()
for problem in problems:
    print(f'modules-check: {problem}')
if not problems:
    print(f'{len(host) + len(guest)} targets are as they should be')
sys.exit(1 if problems else 0)
