#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The guest's part of scripts/containerd: twenty-two images in Debian's unmodified containerd, for one
# contender after the other:
#
#   ours       snapshotter erofs, set up as Documentation/containers.md says. Images are imported, and
#              every file below usr, etc and srv is compared with the record that umoci's unpacking gave
#   erofs      the same layers, mounted by the kernel's own erofs
#   overlayfs  unpacked by containerd's snapshotter overlayfs
#
# Prints lines "CONTENDER ROW VALUE" (memory in KiB, time in hundredths of a second, a start in ms), and
# ends with an error when something is not as it should be. Disk vda has images.tar, list, layers and
# records/NAME.TOP; vdb is for containerd.

set -eu -o pipefail
export PATH=/project/build/bench:$PATH
DISK=/mnt/disk ROOT=/var/lib/containerd RUN=/run/containerd/io.containerd.runtime.v2.task/default
PAGE=/project/Documentation/containers.md LOG=/tmp/containerd.log
PREFIX=localhost/fleet
mkdir -p $DISK $ROOT /tmp/said
modprobe -a overlay loop ext4
mount -t ext4 -o ro /dev/vda $DISK
mke2fs -q -F -t ext4 -m 0 -O ^has_journal -E lazy_itable_init=1 /dev/vdb
mount -t ext4 /dev/vdb $ROOT
names=() commands=()
while read -r name command; do
	names+=("$name") commands+=("$command")
done < $DISK/list

step() { echo "# $SECONDS s: $*"; }
fail() {
	echo "containerd: $*" >&2
	tail -n 20 $LOG >&2
	exit 1
}
# until_true TENTHS COMMAND...
until_true() {
	local i
	for ((i = 0; i < $1; i++)); do
		! "${@:2}" || return 0
		sleep 0.1
	done
	return 1
}
operator_file() {
	mkdir -p "$(dirname "$1")"
	sed 's/^       //; t; s/^ *$//; t; s/^.*$/END/' $PAGE | sed -n "/^# ${1//\//\\/}\$/,/^END/{/^END/!p}" > "$1"
	[ -s "$1" ]
}

# --- containerd ----------------------------------------------------------------------------------------------------------

unit() { sed -n "s/^$1=-\?//p" /usr/lib/systemd/system/containerd.service; }
answers() { ctr version > /dev/null 2>&1; }
containerd_start() {
	local start
	read -ra start <<< "$(unit ExecStart)"
	"${start[@]}" >> $LOG 2>&1 < /dev/null &
	containerd=$!
	until_true 1000 answers || fail "containerd does not start"
}
ended() { ! kill -0 "$containerd" 2> /dev/null; }
containerd_stop() {
	kill "$containerd"
	until_true 300 ended || fail "containerd does not stop"
}
plugin() { ctr plugins ls | awk -v type="$1" -v id="$2" '$1 == type && $2 == id { print $NF }'; }

# as CONTENDER: the module that the name erofs belongs to, containerd with the snapshotter
as() {
	! grep -q '^erofs ' /proc/modules || rmmod erofs
	! grep -q '^erofs_shared ' /proc/modules || rmmod erofs_shared
	export CONTAINERD_SNAPSHOTTER=erofs
	operator_file /etc/containerd/config.toml
	case $1 in
	# What the page's modprobe.d file has modprobe do
	ours) insmod /project/build/erofs_shared.ko register_erofs=on ;;
	erofs) modprobe erofs ;;
	overlayfs)
		CONTAINERD_SNAPSHOTTER=overlayfs
		sed -i "s/snapshotter = 'erofs'/snapshotter = 'overlayfs'/; s/differ = 'erofs'/differ = 'walking'/" /etc/containerd/config.toml
		;;
	*) fail "no contender $1" ;;
	esac
	containerd_start
	[ "$(plugin io.containerd.snapshotter.v1 $CONTAINERD_SNAPSHOTTER)" = ok ] || fail "the snapshotter $CONTAINERD_SNAPSHOTTER is not ok"
}

# shellcheck source=tests/settled.sh
. /project/tests/settled.sh

# --- memory and time -----------------------------------------------------------------------------------------------------

value() { awk -v names="$1" 'BEGIN { n = split(names, name, "|"); for (i = 1; i <= n; i++) want[name[i] ":"] } $1 in want { sum += $2 } END { print sum }' /proc/meminfo; }
ticks() { awk '$1 == "cpu" { print $2 + $3 + $4 + $7 + $8 }' /proc/stat; }
now() {
	local shrink
	settled || fail "equal blocks are still being looked for"
	for shrink in /sys/kernel/slab/*/shrink; do echo 1 > "$shrink"; done
	cache=$(($(value 'Buffers|Cached') - $(value Shmem)))
	kernel=$(value 'Slab|Percpu|KernelStack|VmallocUsed|PageTables')
	available=$(value MemAvailable)
}

# --- containers ----------------------------------------------------------------------------------------------------------

milliseconds() { echo $((${EPOCHREALTIME/[.,]/} / 1000)); }
answered() { [ -s "/tmp/said/$1" ]; }
# start NAME COMMAND
start() {
	local begin
	begin=$(milliseconds)
	: > "/tmp/said/$1"
	eval "set -- $1 $2"
	# What Python compiles is not to be written beside its files.
	ctr run -d --env PYTHONDONTWRITEBYTECODE=1 --log-uri "file:///tmp/said/$1" "$PREFIX:$1" "$1" "${@:2}" || fail "$1 does not start"
	until_true 6000 answered "$1" || fail "$1 does not answer"
	echo "$contender start $1 $(($(milliseconds) - begin))"
}
running() { ctr tasks ls | awk '$3 == "RUNNING"' | wc -l; }
# as_made NAME: every file, link, owner, mode, time and attribute of what images have there; "." has
# another time when a container makes or removes something in it.
as_made() {
	local top differences
	for top in usr etc srv; do
		if ! python3 /project/scripts/manifest.py compare "$DISK/records/$1.$top" "$RUN/$1/rootfs/$top" > /tmp/compared; then
			differences=$(grep -vE '^\.: mtime [^;]*$|^\{' /tmp/compared | head -n 5 || true)
			[ -z "$differences" ] || fail "$1: /$top is not as umoci unpacks it: $differences"
		fi
		tail -n 1 /tmp/compared | grep -qE '"entries": [0-9]+' || fail "$1: /$top was not compared"
	done
}
run_all() {
	local i name system
	sync
	echo 3 > /proc/sys/vm/drop_caches
	# The programs of containerd are in memory before.
	cat /usr/bin/{ctr,containerd,containerd-shim-runc-v2} /usr/sbin/runc > /dev/null
	ctr containers ls > /dev/null
	now
	local cache0=$cache kernel0=$kernel available0=$available ticks0
	ticks0=$(ticks)
	for i in "${!names[@]}"; do
		start "${names[i]}" "${commands[i]}"
	done
	echo "$contender ticks $(($(ticks) - ticks0))"
	now
	echo "$contender cache $((cache - cache0))"
	echo "$contender kernel $((kernel - kernel0))"
	echo "$contender available $((available0 - available))"
	[ "$(running)" = ${#names[@]} ] || fail "$(running) of ${#names[@]} containers are running"
	for name in "${names[@]}"; do
		# shellcheck disable=SC2016 # for the shell in the container
		system=$(ctr tasks exec --exec-id look "$name" sh -c '. /etc/os-release; echo "$ID-$VERSION_ID"')
		[ "$system" = "debian-${name##*-}" ] || fail "$name: a process in it sees $system"
		echo "# $name: $(head -n 1 "/tmp/said/$name")"
	done
}
none() { [ "$(running)" = 0 ]; }
stop_all() {
	local name
	for name in "${names[@]}"; do
		ctr tasks kill -s KILL "$name"
	done
	until_true 600 none || fail "$(running) containers do not stop"
	for name in "${names[@]}"; do
		ctr tasks rm "$name" > /dev/null
		ctr containers rm "$name"
	done
}
layers() { find $ROOT/io.containerd.snapshotter.v1.erofs/snapshots -name layer.erofs -size +0 2> /dev/null | wc -l; }
# A layer that several images have may be mounted twice at one place.
mounted() { awk '$3 == "erofs" { print $2 }' /proc/self/mounts | sort -u; }

imported=
for contender; do
	: > $LOG
	as "$contender"
	if [ -z "$imported" ]; then
		step "$contender: images are imported"
		ctr images import --base-name $PREFIX $DISK/images.tar > /tmp/imported || fail "the import fails"
		imported=$contender
	elif [ "$contender" = overlayfs ]; then
		step "$contender: images are unpacked"
		for name in "${names[@]}"; do
			ctr snapshots unpack --snapshotter overlayfs "$(ctr images ls "name==$PREFIX:$name" | awk 'NR == 2 { print $3 }')" > /dev/null ||
				fail "$name is not unpacked"
		done
	fi
	if [ "$contender" != overlayfs ]; then
		[ "$(layers)" = "$(cat $DISK/layers)" ] || fail "containerd made $(layers) EROFS images of $(cat $DISK/layers) layers"
	fi
	step "$contender: containers start"
	run_all
	if [ "$contender" = erofs ]; then
		# shellcheck disable=SC2046 # paths of numbers
		resident $(mounted) | sed -n "s/^distinct /$contender distinct /p"
	fi
	if [ "$contender" = ours ]; then
		[ "$(mounted | wc -l)" = "$(cat $DISK/layers)" ] || fail "$(mounted | wc -l) layers are mounted"
		[ "$(find /sys/fs/erofs-shared/mounts -mindepth 1 -maxdepth 1 | wc -l)" = "$(mounted | wc -l)" ] || fail "not all mounts are of the module"
		step "$contender: files are compared"
		for name in "${names[@]}"; do as_made "$name"; done
		step "$contender: containerd is killed and started again"
		kill -9 "$containerd"
		until_true 300 ended
		containerd_start
		[ "$(running)" = ${#names[@]} ] || fail "after containerd was killed $(running) containers are running"
	fi
	step "$contender: containers are removed"
	stop_all
	containerd_stop
	! grep -q erofs_shared /proc/modules || { ! rmmod erofs_shared 2> /dev/null || fail "the module was unloaded while layers are mounted"; }
	mounted | xargs -r umount
done

# All is removed, by the contender that has imported it.
as "$imported"
step "images are removed"
for name in "${names[@]}"; do ctr images rm --sync "$PREFIX:$name" > /dev/null; done
[ "$(ctr snapshots ls | grep -c Committed || true)" = 0 ] || fail "snapshots are left"
[ -z "$(ctr content ls -q)" ] || fail "content is left"
[ "$(layers)" = 0 ] || fail "$(layers) layers are left"
[ -z "$(mounted)" ] || fail "these are mounted: $(mounted)"
containerd_stop
umount $ROOT
! grep -q erofs_shared /proc/modules || rmmod erofs_shared
step "done"
