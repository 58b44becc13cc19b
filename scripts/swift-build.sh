#!/bin/bash
# swift-build.sh ARGUMENT… : `swift build -c release`, without those warnings of the linker that a static executable always
# gets. Swift's libraries and NIO contain calls of glibc functions that need glibc's shared libraries at run time (user and host
# names, dlopen), and Foundation one of mktemp; the guest agent makes none of these calls. Everything else that the compiler
# prints is shown, and its exit status is this script's.
set -uo pipefail
functions='getaddrinfo|dlopen|getpwuid_r|getpwnam_r|getgrgid_r|getgrnam_r'
static="warning: Using '($functions)' in statically linked applications requires at runtime the shared libraries from the glibc version used for linking"
mktemp="/libFoundationEssentials\.a\(.* warning: the use of \`mktemp' is dangerous, better use \`mkstemp' or \`mkdtemp'"
"${SWIFT:-swift}" build -c release "$@" 2>&1 | grep --line-buffered -v -E "($static|$mktemp)\$"
exit "${PIPESTATUS[0]}"
