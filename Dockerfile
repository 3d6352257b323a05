# tune-smp in a container: for one machine, as a WIPP plugin, and on every node of a Ray cluster (deploy/). The same image
# uses GPUs where there are some (docker run --gpus all) and runs without. Build it with build-docker.sh.

# By version and not by digest, so that it can be read; a rebuild takes the Debian patches of that Python release.
# Python is that of constraints.txt's tests: nodes of one cluster must have the same.
FROM python:3.11.14-slim-bookworm AS base

FROM base AS build
WORKDIR /build
COPY constraints.txt pyproject.toml ./
# requirements.txt: what tune-smp needs, apart from itself. Its layer stays as it is until the list or a version changes.
RUN pip install --no-cache-dir --root-user-action=ignore --constraint constraints.txt hatchling \
    && python -c "import tomllib; \
project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
print(*project['dependencies'], *project['optional-dependencies']['onnx'], sep='\n')" > requirements.txt
COPY LICENSE README.md VERSION ./
COPY search_spaces ./search_spaces
COPY tune_smp ./tune_smp
RUN python -m hatchling build --target wheel --directory dist

FROM base
# bash, which KubeRay starts pods with, is in the base image; wget: KubeRay's probes; rsync: ray up; tini: gives signals
# to the program and buries the processes that Ray orphans, where nothing else does (docker run --init).
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends rsync tini wget \
    && rm -rf /var/lib/apt/lists/*

# Into the image's own Python: the login shells of KubeRay and ray up find it there, and so does a Dockerfile that adds
# packages. torch is the CUDA build, which brings CUDA along and also runs on CPUs. For an image without CUDA, a third of
# the size: --build-arg PIP_EXTRA_INDEX_URL with PyTorch's index of CPU builds.
ARG PIP_EXTRA_INDEX_URL=""
COPY --from=build /build/constraints.txt /build/requirements.txt /opt/tune-smp/
RUN pip install --no-cache-dir --root-user-action=ignore \
    --constraint /opt/tune-smp/constraints.txt --requirement /opt/tune-smp/requirements.txt
COPY --from=build /build/dist/*.whl /opt/tune-smp/
RUN pip install --no-cache-dir --root-user-action=ignore --no-deps /opt/tune-smp/*.whl
COPY --chmod=755 deploy/entrypoint.sh /usr/local/bin/tune-smp-entrypoint

# Any user may run it (docker run --user, OpenShift): all may write home and cache, and none can remove what is another's.
# A volume that is mounted on /cache keeps decoded images and encoder weights from one container to the next.
RUN useradd --uid 1000 --gid 0 --create-home tune-smp \
    && mkdir /cache /data \
    && chmod 1777 /cache /home/tune-smp
# USER, for programs that ask for a name: an arbitrary user has none in /etc/passwd. Which GPUs a container sees is for
# those who start it to say; with them come CUDA and nvidia-smi.
ENV HOME=/home/tune-smp \
    USER=tune-smp \
    XDG_CACHE_HOME=/cache \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    RAY_USAGE_STATS_ENABLED=0
USER 1000:0

# For the folders of the user: docker run --volume "$PWD:/data". Without a volume nothing can be written there, so that
# no result goes with its container.
WORKDIR /data

# No HEALTHCHECK: a run ends by itself, and its exit code says how. Docker's SIGTERM is answered as Ctrl-C is.
ENTRYPOINT ["tini", "-s", "--", "tune-smp-entrypoint"]
CMD ["--help"]

ARG VERSION=""
ARG REVISION=""
LABEL org.opencontainers.image.title="tune-smp" \
    org.opencontainers.image.description="Hyperparameter search around segmentation-models-pytorch for microscopy" \
    org.opencontainers.image.licenses="MIT" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}"
