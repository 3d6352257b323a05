#!/bin/sh
# What a container does with the words it is given:
#   --imagesDir=...       flags alone, as WIPP runs its plugins    tune-smp train --imagesDir=...
#   ray start ..., bash   a program                                that program
#   search ..., --help    anything else                            tune-smp, which names a command it does not know
set -eu

case "${1-}" in
  --help | --version) ;;
  --*) set -- train "$@" ;;
  *) if command -v -- "${1-}" > /dev/null; then exec "$@"; fi ;;
esac
exec tune-smp "$@"
