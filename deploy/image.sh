#!/usr/bin/env bash
# Build one target of the Dockerfile: with docker or, where no engine answers, with buildah.
#
#   deploy/image.sh cpu|gpu
#
# PYTHON_IMAGE    another base image
# PIP_CONFIG_FILE pip's settings for the build instead of /etc/pip.conf
#
# The build reaches packages as pip on this machine does: its settings, the index of PIP_INDEX_URL and its like, the
# proxies and the certificates that this machine trusts go in as secrets, which leave no trace in the image.
set -euo pipefail
cd "$(dirname "$0")/.."

target=${1:-cpu}
case $target in
    cpu | gpu) ;;
    *) echo "Use: $0 cpu|gpu" >&2; exit 2 ;;
esac

version=$(sed -n 's/^version = "\(.*\)"$/\1/p' pyproject.toml)
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
base=${PYTHON_IMAGE:-$(sed -n 's/^ARG PYTHON_IMAGE=//p' Dockerfile)}

secrets=$(mktemp -d)
trap 'rm -rf "$secrets"' EXIT

build=(--file Dockerfile --target "$target" --tag "trichord:$version-$target" --tag "trichord:$target"
       --build-arg "PYTHON_IMAGE=$base" --build-arg "VERSION=$version" --build-arg "REVISION=$revision")

for name in HTTP_PROXY HTTPS_PROXY NO_PROXY http_proxy https_proxy no_proxy; do
    if [[ -n ${!name:-} ]]; then build+=(--build-arg "$name=${!name}"); fi
done

settings=${PIP_CONFIG_FILE:-/etc/pip.conf}
if [[ -s $settings ]]; then build+=(--secret "id=pip.conf,src=$settings"); fi

for bundle in "${PIP_CERT:-}" "${SSL_CERT_FILE:-}" "${REQUESTS_CA_BUNDLE:-}" \
              /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt; do
    if [[ -s $bundle ]]; then
        build+=(--secret "id=ca.pem,src=$bundle")
        break
    fi
    bundle=
done

{
    echo "[global]"
    if [[ -n $bundle ]]; then echo "cert = /run/secrets/ca.pem"; fi
    for option in index-url extra-index-url trusted-host default-timeout retries; do
        name=PIP_${option^^}
        name=${name//-/_}
        if [[ -n ${!name:-} ]]; then echo "$option = ${!name}"; fi
    done
} >"$secrets/pip-env.conf"
build+=(--secret "id=pip-env.conf,src=$secrets/pip-env.conf")

if docker info >/dev/null 2>&1; then
    DOCKER_BUILDKIT=1 docker build "${build[@]}" .
    bytes=$(docker image inspect --format '{{.Size}}' "trichord:$target")
    echo "trichord:$target (trichord:$version-$target): $((bytes / 1000000)) MB"
elif command -v buildah >/dev/null; then
    # Docker's image format: OCI's has no health check.
    replaced=$(deploy/buildah.sh images --quiet "trichord:$target" 2>/dev/null || true)
    deploy/buildah.sh build --format docker "${build[@]}" . || {
        echo "If $base cannot be reached from here, deploy/base.sh makes a stand-in for it." >&2
        exit 1
    }
    # The image that had these tags until now would stay behind without a name.
    for image in $(deploy/buildah.sh images --quiet --filter dangling=true); do
        if [[ $replaced == *"$image"* ]]; then deploy/buildah.sh rmi "$image" >/dev/null; fi
    done
    size() { deploy/buildah.sh images --noheading --format '{{.Size}}' "$1" | head -n 1; }
    echo "trichord:$target (trichord:$version-$target): $(size "trichord:$target"), of which $(size "$base") are $base"
else
    echo "Neither a docker engine nor buildah is here. Install one of them." >&2
    exit 1
fi
