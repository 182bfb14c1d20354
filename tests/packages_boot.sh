#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Runs in the guest of tests/packages_guest.sh at each boot, when systemd has started everything: the first boot installs the packages, the
# second looks at what works and purges them, the third looks that nothing is left. TAP goes to the console.

set -u
exec > /dev/ttyS0 2>&1
export LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive
boot=$(cat /root/boot 2> /dev/null || echo 0)
echo $((boot + 1)) > /root/boot
number=$(cat /root/number 2> /dev/null || echo 0)

# ok TITLE COMMAND...
ok() {
	local title=$1
	shift
	number=$((number + 1))
	if "$@" > /tmp/said 2>&1 < /dev/null; then
		echo "ok $number boot $boot: $title"
	else
		sed 's/^/# /' /tmp/said | tail -n 25
		echo "not ok $number boot $boot: $title"
	fi
}
is() { ok "$1" test "$2" = "$3"; [ "$2" = "$3" ] || printf '# got:      %s\n# expected: %s\n' "$2" "$3"; }
over() {
	echo $number > /root/number
	[ $# = 0 ] || echo "1..$number"
	sync
	systemctl --no-block poweroff
	exit
}
# Files of the system that packages put there; what /etc and /var had before
files() { find /etc /usr /lib /var/lib/dpkg/info -xdev \( -path '/usr/lib/modules/*/modules.*' -o -path /etc/systemd/system -o -name '*.cache' -o -path /etc/.updated \) -prune -o -type f -print | sort; }
names() { awk '$NF ~ /^erofs/ { print $NF }' /proc/filesystems | sort | xargs; }
image() { mkdir -p /root/tree/sub && echo hello > /root/tree/sub/file && mkfs.erofs --quiet "$1" /root/tree; }
snapshotter() {
	for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do
		ctr plugins ls 2> /dev/null | awk '$2 == "erofs" && $1 ~ /snapshotter/ { print $NF }' | grep . && return
		sleep 4
	done
}

echo "# boot $boot, $(uname -r), up for $(cut -d. -f1 /proc/uptime) s"
case $boot in
0)
	is "Debian's kernel" "$(uname -r)" "$(cat /root/release)"
	is "has no erofs at first" "$(names)" ""
	files > /root/before
	ok "an image is made" image /root/image.erofs
	ok "apt installs the packages" apt-get install -y --no-install-recommends /root/debs/*.deb
	ok "modinfo finds the module" modinfo erofs_shared
	ok "modules-load.d loads it without a reboot, too" systemctl restart systemd-modules-load.service
	ok "the timer is enabled" systemctl enable erofs-shared-metrics.timer
	over
	;;
1)
	is "the module is loaded" "$(cut -d' ' -f1 /proc/modules | grep -w erofs_shared)" erofs_shared
	is "both names are its own" "$(names)" "erofs erofs-shared"
	# Of a file each: a block device is one type's at a time.
	for type in erofs erofs-shared; do
		ok "mount -t $type" eval "mkdir -p /mnt/$type && cp /root/image.erofs /root/$type.img && mount -t $type -o loop /root/$type.img /mnt/$type"
		is "reads" "$(cat /mnt/$type/sub/file)" hello
	done
	ok "a file is mounted without a loop device" eval "mkdir -p /mnt/file && mount -i -t erofs /root/image.erofs /mnt/file"
	ok "erofs-shared status" erofs-shared status
	erofs-shared status | sed 's/^/# /'
	ok "erofs-shared verify" erofs-shared verify /mnt/erofs-shared
	is "containerd's snapshotter" "$(snapshotter)" ok
	erofs-shared doctor /var/lib/containerd | sed 's/^/# /'
	ok "man pages are there" test -s /usr/share/man/man8/erofs-shared-status.8.gz
	ok "metrics are written" systemctl start erofs-shared-metrics.service
	ok "and shown by node_exporter" eval 'curl -s http://127.0.0.1:9100/metrics | grep -x "erofs_shared_up 1"'
	ok "the exporter starts" systemctl start erofs-shared-exporter.service
	sleep 5
	ok "and serves them" eval 'curl -s http://127.0.0.1:9821/metrics | grep "^erofs_shared_mount_saved_bytes{"'
	is "no unit failed" "$(systemctl --failed --no-legend --plain | cut -d' ' -f1 | xargs)" ""
	ok "systemd has no complaint about the units" eval '! systemd-analyze verify --man=no /usr/lib/systemd/system/erofs-shared-*.{service,timer} 2>&1 | grep erofs-shared'
	ok "systemctl status is clean" systemctl is-active erofs-shared-exporter.service erofs-shared-metrics.timer
	ok "the packages are installed again, with mounts in use" apt-get install -y --no-install-recommends --reinstall /root/debs/*.deb
	is "which still read" "$(cat /mnt/erofs/sub/file)" hello
	ok "and are purged, with mounts in use" apt-get purge -y 'erofs-shared*'
	is "which still read" "$(cat /mnt/erofs/sub/file)" hello
	over
	;;
*)
	is "the module is gone" "$(grep -c erofs_shared /proc/modules)" 0
	is "and its names" "$(names)" ""
	ok "modprobe finds the kernel's own erofs" modprobe erofs
	is "which has the name" "$(names)" erofs
	ok "and mounts the image" eval 'mount -t erofs -o loop /root/image.erofs /mnt/erofs && grep -qx hello /mnt/erofs/sub/file'
	files > /root/after
	is "no file is left" "$(diff /root/before /root/after | xargs)" ""
	is "no unit failed" "$(systemctl --failed --no-legend --plain | cut -d' ' -f1 | xargs)" ""
	is "no package is left" "$(dpkg -l 'erofs-shared*' 2> /dev/null | grep -c '^[a-z]')" 0
	over last
	;;
esac
