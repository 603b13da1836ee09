#!/usr/bin/env bash
# buildah, set up to work where there is neither a user namespace nor overlayfs: inside another container.
# Whoever has configured containers/storage, or sets STORAGE_DRIVER or BUILDAH_ISOLATION, keeps that.
set -euo pipefail

configured=
for file in "${CONTAINERS_STORAGE_CONF:-}" "${XDG_CONFIG_HOME:-$HOME/.config}/containers/storage.conf" \
            /etc/containers/storage.conf /usr/share/containers/storage.conf; do
    if [[ -f $file ]]; then configured=$file; fi
done
driver=${STORAGE_DRIVER:-${configured:+as configured}}
driver=${driver:-vfs}

# As an option, because buildah 1.28 does not read STORAGE_DRIVER.
storage=()
if [[ $driver != "as configured" ]]; then storage=(--storage-driver "$driver"); fi
export BUILDAH_ISOLATION="${BUILDAH_ISOLATION:-chroot}"
exec buildah "${storage[@]}" "$@"
