#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# tests/packages_guest.sh: the Debian packages (build/deb, by make deb) in a guest that boots systemd from a disk with Debian 13, its backports
# kernel, containerd of the next release, node_exporter and Prometheus: installed, used after a reboot, upgraded, removed and purged; at last
# the module that DKMS built (tests/packages_dkms.sh). Three boots, without KVM about 15 minutes. No part of make test. The last line is
# "N passed, N failed"; the console is in build/packaging/console.

set -u
cd "$(dirname "$0")/.." || exit
# shellcheck source=scripts/versions
. scripts/versions
P=build/packaging
IN=$P/trixie-guest
PACKAGES="systemd-sysv kmod initramfs-tools linux-base/$BACKPORTS linux-image-$KERNEL_RELEASE=$KERNEL_PACKAGE_VERSION
	prometheus-node-exporter prometheus jq erofs-utils containerd/$NEXT_SUITE runc/$NEXT_SUITE procps mount udev dbus iproute2 curl e2fsprogs"

die() { echo "tests/packages_guest.sh: $*" >&2; echo "0 passed, 1 failed"; exit 1; }
ls build/deb/*.deb > /dev/null 2>&1 || die "no build/deb: run make deb"
ls $P/dkms/erofs_shared.ko* > /dev/null 2>&1 || die "no module by DKMS in $P/dkms: run tests/packages_dkms.sh"
echo "# building packages of a higher version"
version=$(dpkg-deb -f build/deb/erofs-shared_*.deb Version)
DEB_VERSION=$version+upgrade DEB_OUT=$P/next scripts/deb > build/log/packages-next.log 2>&1 || die "scripts/deb failed; see build/log/packages-next.log"

# --- the disk ------------------------------------------------------------------------------------------------------------

key=$(sha256sum <<< "$PACKAGES $SUITE $DEBIAN_MIRROR" | cut -d' ' -f1)
if [ "$(cat $IN.key 2> /dev/null)" != "$key" ]; then
	echo "# making Debian with systemd (a few minutes)"
	mkdir -p $P
	rm -rf --one-file-system $IN
	for suite in "$SUITE" "$BACKPORTS" "$NEXT_SUITE"; do
		echo "deb [check-valid-until=no] $DEBIAN_MIRROR $suite main"
	done > $P/sources.list
	printf 'Package: *\nPin: release n=%s\nPin-Priority: 100\n' "$NEXT_SUITE" > $P/pin
	# shellcheck disable=SC2016 # for mmdebstrap's shell
	DEBIAN_FRONTEND=noninteractive unshare --mount --propagation private mmdebstrap --mode=root --variant=minbase \
		--aptopt='APT::Install-Recommends "false"' --dpkgopt=force-unsafe-io --dpkgopt='path-exclude=/usr/share/doc/*' \
		--dpkgopt='path-exclude=/usr/share/locale/*' \
		--setup-hook='mkdir -p "$1/etc/apt/preferences.d"; cp '$P'/pin "$1/etc/apt/preferences.d/next"' \
		--setup-hook='mkdir -p "$1/etc/initramfs-tools/conf.d"; echo MODULES=list > "$1/etc/initramfs-tools/conf.d/guest"' \
		--setup-hook='printf "%s\n" virtio_pci virtio_blk ext4 > "$1/etc/initramfs-tools/modules"' \
		--include="$(tr -s ' \t\n' ',' <<< "$PACKAGES" | sed 's/,$//')" "$SUITE" $IN $P/sources.list > build/log/packages-guest.log 2>&1 ||
		die "no Debian with systemd; see build/log/packages-guest.log"
	echo "$key" > $IN.key
fi
root=$P/root
rm -rf --one-file-system $root
cp -a --reflink=auto $IN $root
mkdir $root/root/debs $root/root/next $root/root/dkms
cp build/deb/erofs-shared_*.deb build/deb/erofs-shared-modules-*.deb $root/root/debs/
cp $P/next/erofs-shared_*.deb $P/next/erofs-shared-modules-*.deb $root/root/next/
cp $P/dkms/erofs_shared.ko* $root/root/dkms/
echo "$version" > $root/root/version
cp tests/packages_boot.sh $root/root/boot.sh
echo "$KERNEL_RELEASE" > $root/root/release
echo guest > $root/etc/hostname
# For Prometheus, which has a resolver of its own
echo '127.0.0.1 localhost' > $root/etc/hosts
echo '/dev/vda / ext4 defaults 0 1' > $root/etc/fstab
# As containers.md tells to write it
mkdir -p $root/etc/containerd
sed 's/^       //; t; s/^ *$//; t; s/^.*$/END/' Documentation/containers.md |
	sed -n '/^# \/etc\/containerd\/config.toml$/,/^END/{/^END/!p}' > $root/etc/containerd/config.toml
# An image of two layers with one program
rm -rf $P/layers
mkdir -p $P/layers/1/usr/bin $P/layers/2/srv
cp build/debian/usr/bin/busybox $P/layers/1/usr/bin/
echo 'hello from a layer' > $P/layers/2/srv/hello
python3 -c "
import sys
from pathlib import Path
sys.path.insert(0, 'tests')
import oci
oci.archive({'busybox': [(oci.packed(Path('$P/layers') / n), False) for n in '12']}, '$root/root/busybox.tar')" || die "no container image"
# As metrics.md tells, but sooner; an emulator takes seconds for a scrape
cat > $root/etc/prometheus/prometheus.yml << 'END'
global:
  scrape_interval: 20s
  scrape_timeout: 20s
  evaluation_interval: 5s
rule_files:
  - /usr/share/erofs-shared/prometheus/erofs-shared.rules.yml
scrape_configs:
  - job_name: node
    static_configs:
      - targets: ['localhost:9100']
  - job_name: erofs-shared
    static_configs:
      - targets: ['localhost:9821']
END
mkdir -p $root/etc/kubernetes/node-feature-discovery/features.d
cat > $root/etc/systemd/system/packages-test.service << 'END'
[Unit]
After=multi-user.target containerd.service prometheus.service prometheus-node-exporter.service
[Service]
ExecStart=/bin/bash /root/boot.sh
StandardOutput=null
[Install]
WantedBy=graphical.target
END
mkdir -p $root/etc/systemd/system/graphical.target.wants
ln -sf ../packages-test.service $root/etc/systemd/system/graphical.target.wants/
ln -sf /usr/lib/systemd/system/graphical.target $root/etc/systemd/system/default.target
kernel=$IN/boot/vmlinuz-$KERNEL_RELEASE initrd=$IN/boot/initrd.img-$KERNEL_RELEASE
[ -s "$initrd" ] || die "no $initrd"
rm -f $P/root.ext4
truncate -s 4G $P/root.ext4
scripts/in-debian mke2fs -q -F -t ext4 -d $root $P/root.ext4 || die "mke2fs failed"
rm -rf --one-file-system $root

# --- three boots ---------------------------------------------------------------------------------------------------------

# /dev/kvm may be there and not work: VM_ACCEL=kvm for those who know
options=(-machine q35 -accel "tcg,thread=multi,tb-size=512" -cpu "max,la57=off,-erms,-fsrm,-fsrs")
[ "${VM_ACCEL-}" != kvm ] || options=(-machine "q35,accel=kvm" -cpu host)
# What an emulator is slow in, and no test looks at
fast="tsc=reliable no_timer_check mitigations=off random.trust_cpu=on cryptomgr.notests audit=0 raid=noautodetect"
: > $P/console
for boot in 0 1 2; do
	timeout -k 10 1800 scripts/in-debian qemu-system-x86_64 "${options[@]}" -smp 2 -m 2G -nodefaults -display none -no-reboot \
		-kernel "$kernel" -initrd "$initrd" -append "root=/dev/vda rw console=ttyS0 systemd.show_status=false $fast" \
		-drive file=$P/root.ext4,format=raw,if=virtio,cache=unsafe -serial stdio < /dev/null >> $P/console 2>&1 ||
		echo "# boot $boot: ended with status $?"
	grep -aE "^(not )?ok [0-9]+ boot $boot:|^# " $P/console | tr -d '\r' | sed -n "/# boot $boot,/,\$p"
done
passed=$(grep -acE '^ok [0-9]' $P/console) failed=$(grep -acE '^not ok [0-9]' $P/console)
grep -aq '^1\.\.' $P/console || { echo "the last boot did not get to its end"; failed=$((failed + 1)); }
grep -aE 'BUG:|WARNING:|Oops|Call Trace' $P/console && failed=$((failed + 1))
echo "$passed passed, $failed failed"
[ $failed = 0 ]
