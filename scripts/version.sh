#!/bin/bash
# version.sh : prints Martlet's version, from its only place.
sed -n 's/^public let martletVersion = "\(.*\)"$/\1/p' "$(dirname "$0")/../Sources/AgentContract/AgentProtocol.swift"
