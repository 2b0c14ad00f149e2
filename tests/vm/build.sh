#!/bin/bash
# build.sh FOLDER: makes FOLDER/{kernel,initramfs,modules}, a Debian kernel and what boots it into the machine's own root
# file system. The packages come from the Debian client of this machine. Exits with 77 where they cannot be had.
#
# Nothing is put together as a root file system: the guest shows the host's, read only (see init). So the initramfs
# needs no more than a shell that mounts it.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
folder=$1
packages=(busybox-static)

rm -rf "$folder.new"
mkdir -p "$folder.new/stage"
cd "$folder.new"

unavailable() {
    echo "$*" >&2
    exit 77
}

# A meta package names the newest kernel of the release; the kernel itself is wanted without the tools for its boot loader.
kernel_package() {
    apt-cache depends linux-image-amd64 2>/dev/null | awk '/Depends: linux-image/ { print $2; exit }'
}

# As root, apt fetches as a user of its own, who may not write here.
fetch() {
    apt-get --quiet --quiet -o APT::Sandbox::User=root download "$1" "${packages[@]}"
}

kernel=$(kernel_package)
# The lists of a fresh machine are empty, those of an old one name packages that are gone.
if [ -z "$kernel" ] || ! fetch "$kernel" 2>/dev/null; then
    apt-get --quiet --quiet update || unavailable "apt-get update does not work, and the kernel's package is not known or gone"
    kernel=$(kernel_package)
    [ -n "$kernel" ] || unavailable "the Debian client knows no package linux-image-amd64"
    fetch "$kernel" || unavailable "the Debian client cannot fetch $kernel and ${packages[*]}"
fi

# Drivers of hardware that no virtual machine has are two thirds of the package.
for package in ./*.deb; do
    dpkg-deb --fsys-tarfile "$package" | tar --extract --directory stage --no-same-owner \
        --exclude='./lib/modules/*/kernel/sound' \
        --exclude='./lib/modules/*/kernel/drivers/gpu' --exclude='./lib/modules/*/kernel/drivers/media' \
        --exclude='./lib/modules/*/kernel/drivers/infiniband' --exclude='./lib/modules/*/kernel/drivers/scsi' \
        --exclude='./lib/modules/*/kernel/drivers/staging' --exclude='./lib/modules/*/kernel/drivers/iio' \
        --exclude='./lib/modules/*/kernel/drivers/net/ethernet' --exclude='./usr/share'
done
release=$(cd stage/lib/modules && ls | head -n 1)

# The uncompressed kernel starts without a BIOS and without unpacking itself, which takes seconds under emulation. One
# that is packed in another way boots as it is.
packed=stage/boot/vmlinuz-$release
offset=$(LC_ALL=C grep --only-matching --byte-offset --text --perl-regexp '\xfd7zXZ\x00' "$packed" | head -n 1 | cut -d: -f1)
if [ -n "$offset" ]; then
    xz --decompress --stdout --single-stream < <(tail -c "+$((offset + 1))" "$packed") >kernel || true
fi
[ "$(head -c 4 kernel 2>/dev/null)" = $'\x7fELF' ] || cp "$packed" kernel

# What the guest needs until it sees the host's files, in the order of loading.
depmod --basedir stage "$release"
mkdir -p root/{bin,lib,proc,sys,dev,lower,upper,new}
for module in virtio_pci 9pnet_virtio 9p overlay virtio_console virtio_rng; do
    modprobe --dirname stage --set-version "$release" --show-depends "$module" | awk '$1 == "insmod" { print $2 }'
done | awk '!seen[$0]++' | while read -r file; do
    cp "$file" root/lib/
    name=$(basename "$file")
    case "$name" in *.xz) xz -d "root/lib/$name" && name=${name%.xz} ;; esac
    echo "$name" >>root/lib/order
done
cp stage/bin/busybox root/bin/busybox 2>/dev/null || cp stage/usr/bin/busybox root/bin/busybox
ln -s busybox root/bin/sh
cp "$here/init" root/init
chmod 755 root/init
(cd root && find . | bin/busybox cpio -o -H newc 2>/dev/null) >initramfs

mv stage/lib/modules modules
rm -rf stage root ./*.deb
rm -rf "$folder"
cd /
mv "$folder.new" "$folder"
echo "Linux $release"
