#!/bin/sh
# Chromium for the tests in a browser. On Debian it is installed; elsewhere those tests are skipped
# and say what they need.
for name in chromium chromium-browser google-chrome; do
    command -v "$name" >/dev/null 2>&1 && exit 0
done
. /etc/os-release 2>/dev/null
if [ "$(id -u)" -eq 0 ]; then root=""; else root="sudo -n"; fi
if [ "$ID" != debian ] || ! $root true 2>/dev/null; then
    echo "no Chromium found: install it to run the tests in a browser as well" >&2
    exit 0
fi
echo "installing Debian's Chromium (once)"
$root apt-get update -qq
$root env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends chromium >/dev/null
