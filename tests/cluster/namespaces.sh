#!/usr/bin/env bash
# Network namespaces with an address each on one bridge, as machines on one switch. Needs root.
#
#   tests/cluster/namespaces.sh up NAME...    NAME is at 10.77.0.1, the next at 10.77.0.2, ...
#   tests/cluster/namespaces.sh down NAME...
set -euo pipefail

bridge=slamsbr
subnet=10.77.0
command=$1
shift

case $command in
  up)
    ip link add "$bridge" type bridge
    ip link set "$bridge" up
    number=0
    for name in "$@"; do
      number=$((number + 1))
      ip netns add "$name"
      ip link add "v$name" type veth peer name eth0 netns "$name"
      ip link set "v$name" master "$bridge" up
      ip -n "$name" addr add "$subnet.$number/24" dev eth0
      ip -n "$name" link set eth0 up
      ip -n "$name" link set lo up
    done
    ;;
  down)
    for name in "$@"; do
      ip netns del "$name" 2>/dev/null || true
    done
    ip link del "$bridge" 2>/dev/null || true
    ;;
  *)
    echo "namespaces.sh: got $command, expected up or down" >&2
    exit 2
    ;;
esac
