# CPU:   docker build --target cpu  -t generalist .       && docker run --rm -it -v "$PWD/runs:/generalist/runs" generalist
# CUDA:  docker build --target cuda -t generalist:cuda .  && docker run --rm -it --gpus all -v "$PWD/runs:/generalist/runs" generalist:cuda
# Tests: docker run --rm generalist make test
#
# Pass PyTorch's wheel index for your platform: --build-arg TORCH_INDEX=URL (docs/start/install.md).

FROM python:3.11-slim-bookworm AS base
# Debian keeps no older versions of a release, so none is pinned.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends make git libegl1 libosmesa6 libgl1 libglu1-mesa libglib2.0-0 \
    && rm -rf /var/lib/apt/lists/*
ENV MUJOCO_GL=egl PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1
WORKDIR /generalist
COPY . .

FROM base AS cuda
# Triton compiles what launches its kernels.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
ARG TORCH=torch==2.13.0
ARG TORCH_INDEX=
# The wheels bring their own CUDA libraries; the driver comes from the host (--gpus all).
ENV TORCH=${TORCH} TORCH_INDEX=${TORCH_INDEX} NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility,graphics
RUN make install
CMD ["make", "quickstart"]

FROM base AS cpu
ARG TORCH=torch==2.13.0
ARG TORCH_INDEX=
ENV TORCH=${TORCH} TORCH_INDEX=${TORCH_INDEX} MUJOCO_GL=osmesa
RUN make install
CMD ["make", "quickstart"]
