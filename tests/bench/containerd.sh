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
DISK=/mnt/disk PREFIX=localhost/fleet
# shellcheck source=tests/bench/memory.sh
. /project/tests/bench/memory.sh
# shellcheck source=tests/containerd.sh
. /project/tests/containerd.sh
mkdir -p $DISK $CONTAINERD_ROOT /tmp/said
modprobe -a overlay loop ext4
mount -t ext4 -o ro /dev/vda $DISK
mke2fs -q -F -t ext4 -m 0 -O ^has_journal -E lazy_itable_init=1 /dev/vdb
mount -t ext4 /dev/vdb $CONTAINERD_ROOT
names=() commands=()
while read -r name command; do
	names+=("$name") commands+=("$command")
done < $DISK/list

step() { echo "# $SECONDS s: $*"; }
fail() {
	echo "containerd: $*" >&2
	tail -n 20 $CONTAINERD_LOG >&2
	exit 1
}

# --- containerd ----------------------------------------------------------------------------------------------------------

plugin() { ctr plugins ls | awk -v type="$1" -v id="$2" '$1 == type && $2 == id { print $NF }'; }

start_it() { containerd_start || fail "containerd does not start"; }
stop_it() { containerd_end || fail "containerd does not stop"; }
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
	start_it
	[ "$(plugin io.containerd.snapshotter.v1 $CONTAINERD_SNAPSHOTTER)" = ok ] || fail "the snapshotter $CONTAINERD_SNAPSHOTTER is not ok"
}

ticks() { awk '$1 == "cpu" { print $2 + $3 + $4 + $7 + $8 }' /proc/stat; }

# --- containers ----------------------------------------------------------------------------------------------------------

milliseconds() { echo $((${EPOCHREALTIME/[.,]/} / 1000)); }
# answered NAME: it has said something on its standard output, or has ended
answered() { [ -s "/tmp/said/$1" ] || ! kill -0 "$(cat "$CONTAINERD_RUN/$1/init.pid")" 2> /dev/null; }
# start NAME COMMAND
start() {
	local begin
	begin=$(milliseconds)
	: > "/tmp/said/$1"
	eval "set -- $1 $2"
	# What Python compiles is not to be written beside its files; what goes wrong is no answer.
	# shellcheck disable=SC2016 # for the shell in the container
	ctr run -d --env PYTHONDONTWRITEBYTECODE=1 --log-uri "file:///tmp/said/$1" "$PREFIX:$1" "$1" sh -c 'exec "$@" 2> /tmp/stderr' sh "${@:2}" ||
		fail "$1 does not start"
	until_true 600 answered "$1" || fail "$1 does not answer"
	[ -s "/tmp/said/$1" ] || fail "$1 has ended: $(cat "$CONTAINERD_RUN/$1/rootfs/tmp/stderr")"
	echo "$contender start $1 $(($(milliseconds) - begin))"
}
# A layer that several images have may be mounted twice at one place.
mounted() { awk '$3 == "erofs" { print $2 }' /proc/self/mounts | sort -u; }
unmount_layers() { while [ -n "$(mounted)" ]; do mounted | xargs umount || fail "layers are not unmounted"; done; }
running() { ctr tasks ls | awk '$3 == "RUNNING"' | wc -l; }
# as_made NAME: every file, link, owner, mode, time and attribute of what images have there; "." has
# another time when a container makes or removes something in it.
as_made() {
	local top differences
	for top in usr etc srv; do
		if ! python3 /project/scripts/manifest.py compare "$DISK/records/$1.$top" "$CONTAINERD_RUN/$1/rootfs/$top" > /tmp/compared; then
			differences=$(grep -vE '^\.: mtime [^;]*$|^\{' /tmp/compared | head -n 5 || true)
			[ -z "$differences" ] || fail "$1: /$top is not as umoci unpacks it: $differences"
		fi
		tail -n 1 /tmp/compared | grep -qE '"entries": [0-9]+' || fail "$1: /$top was not compared"
	done
}
run_all() {
	local i name system
	# What was imported by this containerd, and mounted for it, is not part of what containers take.
	stop_it
	unmount_layers
	start_it
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
	# What looks for equal blocks is part of it.
	found
	echo "$contender ticks $(($(ticks) - ticks0))"
	now
	if [ "$contender" = erofs ]; then
		# shellcheck disable=SC2046 # paths of numbers
		resident $(mounted) | sed -n "s/^distinct /$contender distinct /p"
	fi
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
	until_true 60 none || fail "$(running) containers do not stop"
	for name in "${names[@]}"; do
		ctr tasks rm "$name" > /dev/null
		ctr containers rm "$name"
	done
}
layers() { find $CONTAINERD_LAYERS -name layer.erofs -size +0 2> /dev/null | wc -l; }

imported=
for contender; do
	: > $CONTAINERD_LOG
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
	if [ "$contender" = ours ]; then
		[ "$(mounted | wc -l)" = "$(cat $DISK/layers)" ] || fail "$(mounted | wc -l) layers are mounted"
		[ "$(find /sys/fs/erofs-shared/mounts -mindepth 1 -maxdepth 1 | wc -l)" = "$(mounted | wc -l)" ] || fail "not all mounts are of the module"
		step "$contender: files are compared"
		for name in "${names[@]}"; do as_made "$name"; done
		step "$contender: containerd is killed and started again"
		containerd_end KILL || fail "containerd is not killed"
		start_it
		[ "$(running)" = ${#names[@]} ] || fail "after containerd was killed $(running) containers are running"
	fi
	step "$contender: containers are removed"
	stop_all
	stop_it
	! grep -q erofs_shared /proc/modules || { ! rmmod erofs_shared 2> /dev/null || fail "the module was unloaded while layers are mounted"; }
	unmount_layers
done

# All is removed, by the contender that has imported it.
as "$imported"
step "images are removed"
for name in "${names[@]}"; do ctr images rm --sync "$PREFIX:$name" > /dev/null; done
[ "$(ctr snapshots ls | grep -c Committed || true)" = 0 ] || fail "snapshots are left"
[ -z "$(ctr content ls -q)" ] || fail "content is left"
[ "$(layers)" = 0 ] || fail "$(layers) layers are left"
[ -z "$(mounted)" ] || fail "these are mounted: $(mounted)"
stop_it
umount $CONTAINERD_ROOT
! grep -q erofs_shared /proc/modules || rmmod erofs_shared
step "done"
