#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Runs in the guest of tests/packages_guest.sh at each boot, when systemd has started everything: the first boot installs the packages, the
# second looks at what works, upgrades, removes and purges them, the third looks that nothing is left, and loads the module that DKMS built.
# TAP goes to the console.

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
# What packages put into the system: files, links and directories; not what systemd, Prometheus and containerd themselves change as they run
files() {
	find /etc /usr /var/lib/dpkg/info /var/lib/prometheus /var/lib/systemd -xdev \
		\( -path '/usr/lib/modules/*/modules.*' -o -path '/var/lib/prometheus/metrics2/*' -o -path '/var/lib/systemd/timers/*' ! -name '*erofs*' \
		-o -path /var/lib/systemd/random-seed -o -name '*.cache' -o -path /etc/.updated -o -path /etc/cni \) -prune -o -print | sort -u
}
names() { awk '$NF ~ /^erofs/ { print $NF }' /proc/filesystems | sort | xargs; }
image() { mkdir -p /root/tree/sub && echo hello > /root/tree/sub/file && mkfs.erofs --quiet "$1" /root/tree; }
snapshotter() {
	for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do
		ctr plugins ls 2> /dev/null | awk '$2 == "erofs" && $1 ~ /snapshotter/ { print $NF }' | grep . && return
		sleep 4
	done
}
# until_is SECONDS TITLE WANTED COMMAND...: what it prints comes to be that
until_is() {
	local end=$((SECONDS + $1)) title=$2 wanted=$3 got
	shift 3
	until got=$("$@" 2>&1) && [ "$got" = "$wanted" ] || [ $SECONDS -ge $end ]; do sleep 2; done
	is "$title" "$got" "$wanted"
}
prometheus() { curl -s "http://127.0.0.1:9090/api/v1/$1" | jq -r "$2"; }
# What a packager's script could have left running: units, and programs that are not there any more
ours() { systemctl list-units --all --no-legend --plain 'erofs-shared*' | awk '$3 != "inactive" { print $1 }' | sort | xargs; }
deleted() { find /proc/[0-9]*/exe -lname '/usr/bin/erofs-shared*(deleted)' -printf '%h ' 2> /dev/null; }
in_use() {
	is "the mounts still read" "$(cat /mnt/erofs/sub/file)" hello
	is "and the container" "$(ctr tasks exec --exec-id "e$number" sleeper /usr/bin/busybox cat /srv/hello 2>&1)" "hello from a layer"
	is "no unit failed" "$(systemctl --failed --no-legend --plain | cut -d' ' -f1 | xargs)" ""
	is "no program runs that is not there any more" "$(deleted)" ""
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
	is "no unit of the packages runs" "$(ours)" ""
	ok "units are enabled" systemctl enable erofs-shared-metrics.timer erofs-shared-exporter.service erofs-shared-nfd.service erofs-shared-prewarm@srv-app.service
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
	ok "the exporter runs" systemctl is-active erofs-shared-exporter.service
	until_is 60 "and serves them" 0 sh -c 'curl -s http://127.0.0.1:9821/metrics | grep "^erofs_shared_mount_saved_bytes{" > /dev/null; echo $?'
	until_is 240 "Prometheus has both jobs" "erofs-shared 1 node 1" \
		eval "prometheus 'query?query=erofs_shared_up' '.data.result[] | .metric.job + \" \" + .value[1]' | sort | xargs"
	until_is 120 "and takes the rules" "$(grep -cE '^ +- (record|alert):' /usr/share/erofs-shared/prometheus/erofs-shared.rules.yml) ok" \
		eval "prometheus rules '.data.groups[].rules[].health' | sort | uniq -c | xargs"
	is "none of the alerts fires" "$(prometheus alerts '.data.alerts[] | select(.state == "firing") | .labels.alertname' | xargs)" ""
	is "Node Feature Discovery is told" "$(sed 's/.*[/]//' /etc/kubernetes/node-feature-discovery/features.d/erofs-shared | xargs)" \
		"erofs-shared=true erofs-shared.version=$(modinfo -F version erofs_shared) erofs-shared.erofs=true"

	ok "ctr imports a container image" ctr images import --snapshotter erofs /root/busybox.tar
	is "a container of it runs" "$(ctr run --rm --snapshotter erofs localhost/busybox:1 hello /usr/bin/busybox cat /srv/hello 2>&1)" "hello from a layer"
	ok "one that stays" ctr run -d --snapshotter erofs localhost/busybox:1 sleeper /usr/bin/busybox sleep 100000
	is "its layers are this module's" "$(erofs-shared status --json | jq '[.mounts[] | select(any(.containers[]?; .id == "sleeper"))] | length')" 2
	ok "status names it" eval 'erofs-shared status | grep -w sleeper'
	erofs-shared status | sed 's/^/# /'
	is "no unit failed" "$(systemctl --failed --no-legend --plain | cut -d' ' -f1 | xargs)" ""
	ok "systemd has no complaint about the units" eval '! systemd-analyze verify --man=no /usr/lib/systemd/system/erofs-shared-*.{service,timer} 2>&1 | grep erofs-shared'
	ok "systemctl status is clean" systemctl is-active erofs-shared-exporter.service erofs-shared-metrics.timer erofs-shared-nfd.service

	version=$(cat /root/version)
	ok "apt upgrades the packages, with mounts in use" apt-get install -y --no-install-recommends /root/next/*.deb
	is "to the higher version" "$(dpkg-query -W -f '${Version}\n' 'erofs-shared*' | grep . | sort -u)" "$version+upgrade"
	in_use
	ok "the units run on" systemctl is-active erofs-shared-exporter.service erofs-shared-metrics.timer erofs-shared-nfd.service
	ok "modinfo finds the module" modinfo erofs_shared

	ok "apt removes them, with mounts in use" apt-get remove -y 'erofs-shared*'
	in_use
	is "no unit of theirs is left" "$(ours)" ""
	is "node_exporter tells nothing stale" "$(find /var/lib/prometheus/node-exporter -name '*erofs*'; curl -s http://127.0.0.1:9100/metrics | grep -c '^erofs_shared')" 0
	is "nor Node Feature Discovery" "$(ls -A /etc/kubernetes/node-feature-discovery/features.d)" ""
	ok "apt purges them" apt-get purge -y 'erofs-shared*'
	in_use
	# As "Go back" in Documentation/containers.md has it.
	is "modprobe erofs leads to the kernel's own again" "$(modprobe --show-depends erofs | grep -oE 'erofs(_shared)?\.ko' | tail -n 1)" erofs.ko
	ctr tasks kill -s KILL sleeper
	until_is 30 "the container ends" STOPPED eval "ctr tasks ls | awk '\$1 == \"sleeper\" { print \$3 }'"
	ctr tasks rm sleeper > /dev/null
	ctr containers rm sleeper
	ctr images rm --sync localhost/busybox:1 > /dev/null
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

	ok "the kernel's own is unloaded" eval 'umount /mnt/erofs && rmmod erofs'
	ok "the module that DKMS built and signed is found" \
		eval 'install -D -t /usr/lib/modules/$(uname -r)/updates/dkms /root/dkms/* && depmod && modinfo -F filename erofs_shared | grep /updates/dkms/'
	ok "mount -t erofs-shared loads it" eval 'mount -t erofs-shared -o loop /root/image.erofs /mnt/erofs-shared'
	is "it reads" "$(cat /mnt/erofs-shared/sub/file)" hello
	is "it is of this version" "$(cat /sys/module/erofs_shared/version)" "$(cat /root/version)"
	is "it has both names" "$(names)" "erofs erofs-shared"
	ok "it is unloaded" eval 'umount /mnt/erofs-shared && rmmod erofs_shared'
	is "and leaves none" "$(names)" ""
	over last
	;;
esac
