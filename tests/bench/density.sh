#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The guest's part of scripts/density: how many containers of one image, and then a fleet of images, cost, for one contender after
# the other. Prints lines "CONTENDER CONTAINERS ROW VALUE..." (memory in KiB, time in nanoseconds of the processor that the guest has).
# Disk vda: ext4 with layers/NAME.erofs and trees/NAME, the same as directories; list has the fleet (scripts/fleet). Which contenders,
# with commas; the numbers of containers, or "short": as many as there is memory for.

set -eu -o pipefail
programs=/project/build/bench
export PATH=$programs:$PATH
contenders=${1//,/ }
shift
counts=$*

mkdir -p /mnt/disk /mnt/pods /mnt/once
modprobe -a overlay loop ext4
mount -t ext4 -o ro /dev/vda /mnt/disk
mount -t tmpfs tmpfs /mnt/pods

# shellcheck source=tests/bench/memory.sh
. /project/tests/bench/memory.sh

begin() {
	sync
	echo 3 > /proc/sys/vm/drop_caches
	sleep 1
	now
	cache0=$cache kernel0=$kernel available0=$available
}
# memory NAME COUNT: what there is more than at the beginning
memory() {
	now
	echo "$1 $2 cache $((cache - cache0))"
	echo "$1 $2 kernel $((kernel - kernel0))"
	echo "$1 $2 available $((available0 - available))"
	[ ! -e /sys/fs/erofs-shared ] || echo "$1 $2 checked $(($(cat /sys/fs/erofs-shared/stats/blocks_hashed) + $(cat /sys/fs/erofs-shared/stats/blocks_compared)))"
	echo "$1 $2 sectors $(sectors)"
}
sectors() { awk '$3 == "vda" { print $6 }' /proc/diskstats; }

# as NAME: sets how, where the layers are, and what their names end in; the module that the name erofs belongs to
as() {
	grep -q '^erofs ' /proc/modules && rmmod erofs
	grep -q '^erofs_shared ' /proc/modules && rmmod erofs_shared
	how=erofs layers=/mnt/disk/layers/ ends=.erofs
	case $1 in
	ext4) how=dir layers=/mnt/disk/trees/ ends='' ;;
	loop) modprobe erofs; how=loop:erofs ;;
	file) modprobe erofs ;;
	once) modprobe erofs; how=once:erofs ;;
	bind) modprobe erofs; how=bind:erofs ;;
	ours) insmod /project/build/erofs_shared.ko ;;
	*) echo "no contender $1" >&2; exit 1 ;;
	esac
	# The layers of the image of which there are many
	python=("$layers"python-{2,1,0}"$ends")
}

PYTHON='import time; print(open("/srv/base/keep").read().strip(), flush=True); time.sleep(1e6)'
one_image() {
	local name=$1 count had=0
	begin
	for count in $counts; do
		pods start "$how" /mnt/pods $had $((count - had)) "${python[@]}" -- python3.13 -c "$PYTHON" > /tmp/started
		sed -nE "s/^(start|mount) ([0-9]+) /$name \2 one_\1 /p" /tmp/started
		memory "$name" "$count" | sed 's/ \([a-z]*\) \([-0-9]*\)$/ one_\1 \2/'
		had=$count
	done
	[ "$(cat /mnt/pods/*/answer | sort -u)" = "the common base" ]
	pods stop /mnt/pods 0 "$had" > /dev/null
	rm -r /mnt/pods/*
}

# short NAME: containers of the image until less than a tenth of the memory is available; then each runs the same program once more
short() {
	local name=$1 number=0 least i before ran
	least=$(($(value MemTotal) / 10))
	begin
	while [ "$(value MemAvailable)" -gt "$least" ]; do
		pods start "$how" /mnt/pods $number 1 "${python[@]}" -- python3.13 -c "$PYTHON" > /tmp/started || break
		number=$((number + 1))
	done
	echo "$name $number short_cache $(($(value 'Buffers|Cached') - $(value Shmem) - cache0))"
	before=$(sectors) ran=$(date +%s%N)
	for ((i = 0; i < number; i++)); do
		[ "$(chroot /mnt/pods/$i/rootfs python3.13 -c 'print(open("/srv/base/keep").read().strip())')" = "the common base" ]
	done
	echo "$name $number short_again $((($(date +%s%N) - ran) / number))"
	echo "$name $number short_read $((($(sectors) - before) / 2 / number))"
	pods stop /mnt/pods 0 $number > /dev/null
	rm -r /mnt/pods/*
}

fleet() {
	local name=$1 line number=0 image below layer pod_how=$how these
	begin
	# containerd 2.1 mounts a layer once, wherever it is used.
	if [ "$name" = once ]; then
		for layer in /mnt/disk/layers/*.erofs; do
			layer=${layer##*/}
			mkdir -p "/mnt/once/${layer%.erofs}"
			mount -t erofs -o ro "/mnt/disk/layers/$layer" "/mnt/once/${layer%.erofs}"
		done
		pod_how=dir
	fi
	while read -r image below line; do
		these=()
		for layer in ${below//,/ }; do
			if [ "$name" = once ]; then these+=("/mnt/once/$layer"); else these+=("$layers$layer$ends"); fi
		done
		eval "set -- $line"
		# shellcheck disable=SC2154
		timeout 600 pods start "$pod_how" /mnt/pods $number 1 "${these[@]}" -- "$@" > /tmp/started < /dev/null ||
			{ echo "fleet: $image does not start" >&2; exit 1; }
		echo "# $name: $image: $(cat /mnt/pods/$number/answer)" >&2
		sed -nE "s/^(start) ([0-9]+) /$name \2 fleet_\1 /p" /tmp/started
		number=$((number + 1))
	done < /mnt/disk/list
	memory "$name" $number | sed 's/ \([a-z]*\) \([-0-9]*\)$/ fleet_\1 \2/'
	if [ "$name" = once ]; then
		resident /mnt/once/* | sed "s/^/once $number fleet_/"
	fi
	pods stop /mnt/pods 0 $number > /dev/null
	rm -r /mnt/pods/*
	[ "$name" != once ] || umount /mnt/once/*
}

for name in $contenders; do
	as "$name"
	if [ "$counts" = short ]; then
		short "$name"
		continue
	fi
	[ -z "$counts" ] || one_image "$name"
	as "$name"
	# To tell what as many mounts cost by themselves
	[ "$name" = bind ] || [ ! -s /mnt/disk/list ] || fleet "$name"
done
as ours
