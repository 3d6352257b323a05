#!/usr/bin/env bash
# Build the image, tagged with the version in VERSION and with latest. Options are passed on to docker build.
#   ./build-docker.sh
#   IMAGE=registry.example.org/lab/tune-smp ./build-docker.sh --pull
#   ENGINE=podman ./build-docker.sh
# Without CUDA: --build-arg PIP_EXTRA_INDEX_URL=... with PyTorch's index of CPU builds (see Dockerfile).
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")"

image=${IMAGE:-tune-smp}
engine=${ENGINE:-docker}
version=$(< VERSION)
if [[ ! $version =~ ^[0-9][0-9A-Za-z.]*$ ]]; then
  echo "problem: VERSION holds '$version', which is no version that an image can be tagged with" >&2
  exit 2
fi
# Of an unpacked archive there is none.
revision=$(git rev-parse HEAD 2> /dev/null || true)

"$engine" build \
  --build-arg "VERSION=$version" \
  --build-arg "REVISION=$revision" \
  --tag "$image:$version" \
  --tag "$image:latest" \
  "$@" .
echo "$image:$version"
