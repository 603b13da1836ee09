#!/usr/bin/env bash
# Make a stand-in for the Dockerfile's base image, for machines that reach Debian packages but no image registry:
# the same Debian release by debootstrap, under the base image's name, in buildah's store. Needs root.
#
# It is for building and testing. Its Python is Debian's own (/usr/bin/python3), and it has no security updates.
set -euo pipefail
cd "$(dirname "$0")/.."

image=$(sed -n 's/^ARG PYTHON_IMAGE=//p' Dockerfile)
release=${image##*-}

work=$(mktemp -d)
container=
clean_up() {
    if [[ -n $container ]]; then deploy/buildah.sh rm "$container" >/dev/null; fi
    rm -rf "$work"
}
trap clean_up EXIT

debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates "$release" "$work/root" \
    >"$work/log" 2>&1 || { tail -n 20 "$work/log" >&2; exit 1; }
rm -rf "$work"/root/var/cache/apt/* "$work"/root/var/lib/apt/lists/*

container=$(deploy/buildah.sh from scratch)
deploy/buildah.sh add --quiet "$container" "$work/root" / >/dev/null
deploy/buildah.sh config --cmd python3 \
    --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$container"
deploy/buildah.sh commit --quiet --format docker "$container" "$image" >/dev/null
echo "$image: made of Debian $release"
