# The server in a container: `make image`, or `docker build --target cpu .`
#
# The context is the short list in .dockerignore: neither training code nor torch can get in. The optional secrets
# (pip.conf, pip-env.conf, ca.pem) carry a machine's package index into the build and stay out of every
# layer; deploy/image.sh passes them. Plain `docker build` needs none.

ARG PYTHON_IMAGE=docker.io/library/python:3.11-slim-bookworm

# --- build: dependencies and the project apart, so that a change of code ships a small layer ----------

FROM ${PYTHON_IMAGE} AS build
ENV PIP_CACHE_DIR=/var/cache/pip \
    PIP_CONFIG_FILE=/run/secrets/pip-env.conf \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore
# pip has an environment of its own; the one that ships has no installer in it.
RUN python3 -m venv /opt/pip && python3 -m venv --without-pip /opt/trichord
WORKDIR /src
COPY pyproject.toml constraints.txt ./
RUN touch README.md LICENSE

FROM build AS dependencies-cpu
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    --mount=type=secret,id=pip-env.conf \
    --mount=type=secret,id=ca.pem \
    --mount=type=cache,target=/var/cache/pip \
    /opt/pip/bin/pip --python /opt/trichord/bin/python install '.[serve,cpu]' --constraint constraints.txt

FROM build AS dependencies-gpu
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    --mount=type=secret,id=pip-env.conf \
    --mount=type=secret,id=ca.pem \
    --mount=type=cache,target=/var/cache/pip \
    /opt/pip/bin/pip --python /opt/trichord/bin/python install '.[serve,gpu]' --constraint constraints.txt

FROM build AS project
COPY . .
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    --mount=type=secret,id=pip-env.conf \
    --mount=type=secret,id=ca.pem \
    --mount=type=cache,target=/var/cache/pip \
    /opt/pip/bin/pip --python /opt/trichord/bin/python install . --no-deps --no-warn-script-location --root /out

# --- what ships ------------------------------------------------------------------------------------

FROM ${PYTHON_IMAGE} AS runtime
# ONNX Runtime sends usage data to its maker unless told not to before it loads.
ENV PATH=/opt/trichord/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    MALLOC_ARENA_MAX=2 \
    TOKENIZERS_PARALLELISM=false \
    ORT_DISABLE_TELEMETRY=1 \
    TRICHORD_HOST=0.0.0.0 \
    TRICHORD_MODELS_DIR=/models
EXPOSE 8000
STOPSIGNAL SIGTERM
# A number, so that Kubernetes' runAsNonRoot can see that it is not root. It owns no file of the image.
USER 10001:10001
WORKDIR /
HEALTHCHECK --interval=15s --timeout=10s --start-period=60s --retries=3 CMD ["trichord", "healthcheck"]
ENTRYPOINT ["trichord"]
CMD ["serve"]
ARG PYTHON_IMAGE
LABEL org.opencontainers.image.title="trichord" \
      org.opencontainers.image.description="One prediction from an image, a text and a sound, also when one is missing." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="${PYTHON_IMAGE}"

# CUDA 13 and cuDNN come from pip; the host brings the NVIDIA driver (580 or newer) and its container toolkit.
FROM runtime AS gpu
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=dependencies-gpu /opt/trichord /opt/trichord
COPY --from=project /out/ /
COPY --chmod=0755 models /models
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

FROM runtime AS cpu
COPY --from=dependencies-cpu /opt/trichord /opt/trichord
COPY --from=project /out/ /
# The committed models, readable by any user: the image answers alone. Mount another folder over it.
COPY --chmod=0755 models /models
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
