#!/bin/bash
# usage: rust-src.sh DIR VERSION
#
# Unpacks the sources of the standard library of Rust VERSION into DIR/library, from Debian's package rust-src. The lists
# and the package itself are fetched into DIR from the mirror that this machine already uses, so that neither the
# machine's apt nor its rustup is touched and no rights are needed.
set -euo pipefail

mkdir -p "$1"
dir=$(cd "$1" && pwd)
version=$2
apt=$dir/apt
rm -rf "$apt"
trap 'rm -rf "$apt"' EXIT
mkdir -p "$apt"/{lists/partial,cache/archives/partial}
: >"$apt/status"

mirror=$(apt-cache policy | grep -oE 'https?://[^ ]+/debian/? ' | head -n 1 | tr -d ' ' || true)
[ -n "$mirror" ] || { echo "apt knows no Debian mirror; as root: apt-get update" >&2; exit 1; }
key=$(find /usr/share/keyrings -name 'debian-archive-keyring.*' 2>/dev/null | head -n 1)
[ -n "$key" ] || { echo "the package debian-archive-keyring is missing" >&2; exit 1; }
# A release of Rust first comes to testing, then to the backports of the stable release.
for suite in trixie-backports bookworm-backports testing unstable; do
  echo "deb [signed-by=$key] $mirror $suite main"
done >"$apt/sources.list"
options=(-qq
  -o "Dir::Etc::sourcelist=$apt/sources.list" -o Dir::Etc::sourceparts=/dev/null
  -o "Dir::State::lists=$apt/lists" -o "Dir::Cache=$apt/cache" -o "Dir::State::status=$apt/status"
  -o APT::Sandbox::User=root -o Acquire::Languages=none)
# A suite that the mirror does not have is no reason to give up.
apt-get "${options[@]}" update || true
found=$(apt-cache "${options[@]}" madison rust-src | awk '{ print $3 }' | grep -m 1 "^${version//./\\.}[+~-]" || true)
[ -n "$found" ] || { echo "Debian has no rust-src $version" >&2; exit 1; }
(cd "$apt" && apt-get "${options[@]}" download "rust-src=$found")
dpkg-deb --fsys-tarfile "$apt"/rust-src_*.deb |
  tar -x -C "$dir" --strip-components=4 "./usr/src/rustc-$version/library"
