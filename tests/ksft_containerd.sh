#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Debian's unmodified containerd with its snapshotter and differ "erofs" on this module, set up as Documentation/containers.md has
# it: two images with a layer in common (tests/oci.py) are imported, unpacked, run, entered, changed, committed and removed, while
# containerd is killed and comes again. With FSTYPE=erofs the same on the kernel's own erofs.

. "$(dirname "$0")/lib.sh"
# shellcheck source=tests/containerd.sh
. "$HERE/containerd.sh"
ktap_print_header

OCI=/project/build/tests/containers
STATS=/sys/fs/erofs-shared
PARAMS=/sys/module/erofs_shared/parameters
ours() { [ "$FSTYPE" = erofs-shared ]; }

export CONTAINERD_SNAPSHOTTER=erofs
FORGETS=

# Before what lib.sh has: containers, their shims and what is mounted for them
# shellcheck disable=SC2317
away_with_all() {
	local dir
	pkill -KILL -f '/srv/app/main serve|sleep 98765' 2> /dev/null
	pkill -KILL containerd-shim 2> /dev/null
	[ -z "$FORGETS" ] || kill "$FORGETS" 2> /dev/null
	[ -z "$CONTAINERD_PID" ] || kill -9 "$CONTAINERD_PID" 2> /dev/null
	sleep 1
	for dir in "$TMP/again" "$CONTAINERD_RUN"/*/rootfs "$CONTAINERD_LAYERS"/*/fs; do umount -l "$dir" 2> /dev/null; done
	umount -l $CONTAINERD_ROOT 2> /dev/null
	[ ! -e /dev/mapper/slow ] || dmsetup remove --retry slow 2> /dev/null
	cleanup
}
trap away_with_all EXIT

# --- the name ------------------------------------------------------------------------------------------------------------

modprobe ext4
names() { awk '$NF ~ /^erofs/ { print $NF }' /proc/filesystems | sort | xargs; }
if ours; then
	is "the kernel's own erofs is not loaded" "$(grep -w ^erofs /proc/modules)" ""
	ok "the module is unloaded" rmmod erofs_shared
	is "there is no erofs at first" "$(names)" ""
	# depmod reads each module: a minute here for all 4,000, so those of hardware that no guest has are aside meanwhile.
	modules=/lib/modules/$(uname -r)
	mkdir -p "$TMP/indexes" /lib/modules/aside
	cp "$modules"/modules.* "$TMP/indexes/"
	mv "$modules/kernel/drivers" "$modules/kernel/sound" /lib/modules/aside/
	mkdir "$modules/kernel/drivers"
	cp -r /lib/modules/aside/drivers/{block,md} "$modules/kernel/drivers/"
	install -D -m 644 /project/build/erofs_shared.ko "$modules/updates/erofs_shared.ko"
	depmod
	for file in /etc/modprobe.d/erofs-shared.conf /etc/modules-load.d/erofs-shared.conf; do
		ok "the page has $file" operator_file $file
	done
	ok "modules-load.d's file loads the module" \
		xargs -a <(grep -v '^#' /etc/modules-load.d/erofs-shared.conf) modprobe -a
	is "/proc/filesystems has both names" "$(names)" "erofs erofs-shared"
	ok "as containerd looks for it" grep -qP '\terofs$' /proc/filesystems
	ok "modprobe erofs is content" modprobe erofs
	is "modprobe erofs has not loaded the kernel's own" "$(grep -w ^erofs /proc/modules)" ""
	ok "whose name is taken" eval '! modprobe --ignore-install -C /dev/null erofs 2> /dev/null'
else
	ok "the kernel's own erofs is loaded" modprobe erofs
fi

# --- containerd ----------------------------------------------------------------------------------------------------------

note "$(dpkg-query -W -f '${Package} ${Version}, ' containerd runc erofs-utils)"
# Manual pages and the like are not installed; a configuration file is the operator's.
is "containerd and runc are Debian's, unmodified" \
	"$(dpkg --verify containerd runc 2>&1 | grep -vE '^(missing| *\?*5\?* *c) ')" ""
ok "the page has /etc/containerd/config.toml" operator_file /etc/containerd/config.toml

truncate -s 1G "$TMP/disk"
mke2fs -q -F -t ext4 -m 0 "$TMP/disk"
D=$(losetup -f --show "$TMP/disk")
LOOPS+=("$D")
mkdir -p $CONTAINERD_ROOT
mount "$D" $CONTAINERD_ROOT
MOUNTS+=("$CONTAINERD_ROOT")

: > "$CONTAINERD_LOG"
ok "containerd starts" containerd_start || tail -n 20 "$CONTAINERD_LOG"
plugins() { ctr plugins ls | awk '$2 == "erofs" { print $1, $NF }' | sort; }
is "its snapshotter and differ are ok" "$(plugins)" "$(printf '%s\n' 'io.containerd.differ.v1 ok' 'io.containerd.snapshotter.v1 ok')"

# made: how many images it has had mkfs.erofs make
made() { grep -c 'running [^ ]*mkfs.erofs' "$CONTAINERD_LOG"; }
mounted() { findmnt -rno MAJ:MIN,TARGET,FSTYPE -t erofs,erofs-shared; }

# --- images --------------------------------------------------------------------------------------------------------------

ok "an image is imported and unpacked" ctr images import $OCI/python.tar
is "three layers became EROFS images" "$(made)" 3
ok "another one, by the client itself" ctr images import --local $OCI/perl.tar
is "two of its three layers became EROFS images" "$(made)" 5
is "each layer is a snapshot" "$(ctr snapshots ls | grep -c Committed)" 5
is "each layer is a file" "$(find $CONTAINERD_LAYERS/*/layer.erofs -size +0 | wc -l)" 5

# --- containers ----------------------------------------------------------------------------------------------------------

says() { is "$1" "$(shift; timeout 600 ctr "$@" 2>&1)" "${SAYS?}"; }
SAYS='python says hello from the common base' says "a container of the first image" \
	run --rm localhost/python:1 hello1 python3.13 /srv/app/main hello
SAYS='perl says hello from the common base' says "a container of the second" \
	run --rm localhost/perl:1 hello2 perl /srv/app/main hello
ok "a container that keeps running starts" ctr run -d localhost/python:1 serve python3.13 /srv/app/main serve
ok "a container of the other image starts beside it" ctr run -d localhost/perl:1 sleep sleep 98765
running() { ctr tasks ls | awk '$3 == "RUNNING" { print $1 }' | sort | xargs; }
is "both are running" "$(running)" "serve sleep"

N=0
inside() {
	local id=$1
	shift
	timeout 600 ctr tasks exec --exec-id "e$((N++))" "$id" "$@"
}
ok "all files of the second are right, as it sees them" inside sleep sha256sum -c --quiet /srv/SHA256SUMS
is "what its last layer removed is gone" "$(inside sleep bash -c 'cd /srv/base; echo *; echo hidden/*; cat replaced')" \
	"$(printf '%s\n' 'dir fifo hidden keep replaced setuid setuid-too symlink' hidden/new 'a file')"
# as_made IMAGE CONTAINER DIRECTORY: every file, link, owner, mode, time and attribute; but for what the container itself writes there
as_made() {
	python3 /project/scripts/manifest.py compare "$OCI/$1.$3" "$CONTAINERD_RUN/$2/rootfs/$3" > "$TMP/compared"
	tail -n 1 "$TMP/compared" | grep -oE '"entries": [0-9]{2,}' || return
	! grep -vE '^\.: mtime [^;]*$|^ticks(\.new)?: not in the record$|^\{' "$TMP/compared"
}
for top in usr etc srv; do
	ok "/$top of the first: all is as it was made" as_made python serve $top
	ok "/$top of the second: all is as it was made" as_made perl sleep $top
done

is "all five layers are mounted, as erofs" "$(mounted | awk '{ print $NF }' | sort | uniq -c | xargs)" "5 erofs"
is "with the magic number of erofs" "$(stat -f -c %t $CONTAINERD_LAYERS/*/fs | grep -cx e0f5e1e2)" 5
if ours; then
	is "all are this module's" "$(mounted | cut -d' ' -f1 | sort)" "$(cd $STATS/mounts && printf '%s\n' [0-9]* | sort)"
	# both images have these bytes, in layers and files of their own
	drop
	saved=$(cat $STATS/stats/bytes_saved)
	sums=$(cat "$CONTAINERD_RUN/serve/rootfs/srv/python-data" | sha256sum; cat "$CONTAINERD_RUN/sleep/rootfs/srv/perl-data" | sha256sum)
	is "each image has its 2 MiB" "$(sort -u <<< "$sums" | wc -l)" 1
	settled
	saved=$(($(cat $STATS/stats/bytes_saved) - saved))
	note "saved: $saved bytes"
	ok "these 2 MiB are in memory once" [ "$saved" -ge $((2 << 20)) -a "$saved" -lt $((3 << 20)) ]
	is "the module cannot be unloaded" "$(rmmod erofs_shared 2>&1 | grep -c 'in use')" 1
fi

# ticking: the first container does its work
ticking() {
	local before
	before=$(cat $CONTAINERD_RUN/serve/rootfs/srv/ticks)
	until_true 100 eval "[ \"\$(cat $CONTAINERD_RUN/serve/rootfs/srv/ticks)\" -gt ${before:-0} ]"
}
ok "the first does its work" ticking
ok "containerd is killed" containerd_end KILL
ok "the first keeps running" ticking
ok "containerd starts again" containerd_start
is "its snapshotter and differ are ok again" "$(plugins | grep -c 'ok$')" 2
is "both containers are running after that" "$(running)" "serve sleep"
is "they can be entered" "$(inside sleep perl /srv/app/main hello)" "perl says hello from the common base"

# overlayfs on the container's own root, which is overlayfs on erofs
cat > "$TMP/nest" << 'END'
set -e
# mount(2), which perl-base has no program for: TYPE DIR OPTIONS
mount() { perl -e 'my ($type, $dir, $options) = @ARGV; syscall(165, $type, $dir, $type, 0, $options) == 0 or die "mount: $!\n"' "$@"; }
mount tmpfs /tmp mode=700
mkdir /tmp/up /tmp/work /tmp/root
mount overlay /tmp/root lowerdir=/,upperdir=/tmp/up,workdir=/tmp/work
echo the inner one > /tmp/root/srv/base/keep
rm /tmp/root/usr/bin/dash
/usr/sbin/chroot /tmp/root /usr/bin/perl /srv/app/main hello
perl /srv/app/main hello
[ -e /usr/bin/dash ]
grep -v ' /srv/base/keep$\| /usr/bin/dash$' /srv/SHA256SUMS > /tmp/root/tmp/sums
/usr/sbin/chroot /tmp/root /usr/bin/sha256sum -c --quiet /tmp/sums
echo done
END
SAYS=$(printf '%s\n' 'perl says hello from the inner one' 'perl says hello from the common base' 'done') \
	says "overlayfs on the root of a container" run --rm --privileged \
	--mount "type=bind,src=$TMP/nest,dst=/run/nest,options=rbind:ro" \
	localhost/perl:1 nest bash /run/nest

# --- a changed container becomes a layer ---------------------------------------------------------------------------------

ok "the first changes its files" inside serve bash -ec \
	'echo a changed base > /srv/base/keep; rm -r /srv/base/dir /srv/base/symlink; mkdir /srv/base/dir; echo new > /srv/base/dir/c; mv /srv/base/setuid /srv/'
ok "it is stopped" eval 'ctr tasks kill -s KILL serve && until_true 100 eval "! running | grep -q serve"'
ok "its task is removed" ctr tasks rm serve
ok "its snapshot is committed" ctr snapshots commit changed serve
is "as one more EROFS image" "$(made)" 6
ok "a snapshot on top of it" eval 'ctr snapshots prepare again changed > /dev/null'
mkdir "$TMP/again"
ctr snapshots mounts "$TMP/again" again > "$TMP/mounts"
# mount(8) would pass lowerdir= by fsconfig(2), which takes 255 bytes.
ok "the snapshot is mounted" env LIBMOUNT_FORCE_MOUNT2=always sh "$TMP/mounts"
is "on top of four layers" "$(grep -o "$CONTAINERD_LAYERS/[0-9]*/fs" "$TMP/mounts" | sort -u | while read -r dir; do findmnt -rno FSTYPE -M "$dir"; done | xargs)" \
	"erofs erofs erofs erofs"
SAYS=$(printf '%s\n' 'python says hello from a changed base' 'c' 'new' 'no link' '4755') says "a container runs on it" run --rm --rootfs "$TMP/again" again \
	/usr/bin/bash -ec 'python3.13 /srv/app/main hello; ls /srv/base/dir; cat /srv/base/dir/c; [ -L /srv/base/symlink ] || echo no link; stat -c %a /srv/setuid'
! ours || is "all layers are this module's" "$(mounted | cut -d' ' -f1 | sort)" "$(cd $STATS/mounts && printf '%s\n' [0-9]* | sort)"

# --- everything goes -----------------------------------------------------------------------------------------------------

ok "the other container is stopped" eval 'ctr tasks kill -s KILL sleep && until_true 100 eval "[ -z \"\$(running)\" ]" && ctr tasks rm sleep'
umount "$TMP/again"
ok "snapshots are removed" ctr snapshots rm again changed
ok "containers are removed" ctr containers rm serve sleep
is "no container is left" "$(ctr containers ls -q)" ""
ok "the first image is removed" ctr images rm --sync localhost/python:1
is "only the other's snapshots are left" "$(ctr snapshots ls | grep -c Committed)" 3
is "only the other's layers are left" "$(find $CONTAINERD_LAYERS/*/layer.erofs | wc -l)" 3
SAYS='perl says hello from the common base' says "it runs" run --rm localhost/perl:1 last perl /srv/app/main hello
ok "it is removed" ctr images rm --sync localhost/perl:1
is "no snapshot is left" "$(ctr snapshots ls | grep -c Committed)" 0
is "no content is left" "$(ctr content ls -q)" ""
is "no layer is left" "$(find $CONTAINERD_LAYERS -name layer.erofs)" ""
is "nothing is mounted" "$(mounted)" ""

# --- many images at once -------------------------------------------------------------------------------------------------

# Tasks that unpack images with a base in common see side by side that it is not mounted, and mount it. They have time for that: reads
# from the disk take long, and no layer stays in memory.
! ours || is "mount(2) gives a superblock of its own within a second" "$(cat $PARAMS/reuse_delay)" 1
ok "containerd is stopped" containerd_end
umount $CONTAINERD_ROOT
modprobe dm-delay
dmsetup create slow --table "0 $(blockdev --getsz "$D") delay $D 0 400 $D 0 0"
dmsetup mknodes slow
ok "its filesystem is mounted from a slow disk" mount /dev/mapper/slow $CONTAINERD_ROOT
ok "containerd starts on that" containerd_start
python3 - "$CONTAINERD_LAYERS" <<- 'END' &
import glob, os, sys, time
while True:
    for name in glob.glob(sys.argv[1] + "/*/layer.erofs"):
        try:
            with open(name, "rb") as f:
                os.fsync(f.fileno())
                os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        except FileNotFoundError:
            pass
    time.sleep(0.05)
END
FORGETS=$!
names=$(printf 'many-%s\n' {a..c}-{0..3})
many() { ctr images ls -q | sed -n 's/^localhost\/\(many-.*\):1$/\1/p' | sort; }
has_its_files() { [ "$(cat "$TMP/view/base" "$TMP/view/number" | xargs)" = "$1 $1$2" ]; }
mkdir "$TMP/view"
ok "twelve images with three bases are imported at once" ctr images import $OCI/many.tar
is "all are there" "$(many)" "$names"
is "each layer is a snapshot" "$(ctr snapshots ls | grep -c Committed)" 18
note "mounts of layers: $(mounted | wc -l), at $(mounted | cut -d' ' -f2 | sort -u | wc -l) places"
ok "bases were mounted twice at one place" [ "$(mounted | wc -l)" -gt "$(mounted | cut -d' ' -f2 | sort -u | wc -l)" ]
for name in $names; do
	IFS=- read -r _ base number <<< "$name"
	ok "$name is mounted" eval 'ctr images mount localhost/$name:1 "$TMP/view" > /dev/null'
	ok "$name has its files" has_its_files "$base" "$number"
	ok "$name is unmounted" ctr images unmount --rm "$TMP/view"
done
# shellcheck disable=SC2046
ok "they are removed" ctr images rm --sync $(printf 'localhost/%s:1\n' $names)
is "no layer of them is left" "$(find $CONTAINERD_LAYERS -name layer.erofs)" ""
is "nothing of them is mounted" "$(mounted)" ""
kill $FORGETS

ok "containerd stops" containerd_end
CONTAINERD_PID=
# A shim ends by itself, after its container.
until_true 50 eval '! pgrep "containerd|runc" > /dev/null'
is "no process of a container is left" "$(pgrep -l 'containerd|runc')" ""
# It tells of connections that broke when it was killed, too.
is "containerd has no complaint about layers and mounts" \
	"$(grep -E 'level=(warning|error|fatal)|^(panic|fatal error):' "$CONTAINERD_LOG" | grep -iE 'erofs|mount|snapshot|unpack|differ|layer|panic|fatal')" ""
ok "its filesystem can be unmounted" away $CONTAINERD_ROOT
ok "its disk is removed" dmsetup remove slow
if ours; then
	# One extra device for mounts of both types
	mkdir "$TMP/multi"
	echo content > "$TMP/multi/file"
	truncate -s 1M "$TMP/blob"
	mkfs.erofs --quiet --chunksize=4096 --blobdev="$TMP/blob" "$TMP/multi.1" "$TMP/multi" > /dev/null
	cp "$TMP/multi.1" "$TMP/multi.2"
	blob=$(loop "$TMP/blob") one=$(loop "$TMP/multi.1") two=$(loop "$TMP/multi.2")
	LOOPS+=("$blob" "$one" "$two")
	ok "an image with an extra device is mounted as erofs" at erofs "$one" "$TMP/erofs" "device=$blob"
	ok "one with the same extra device is mounted as erofs-shared" at erofs-shared "$two" "$TMP/erofs-shared" "device=$blob"
	is "the first has its file" "$(cat "$TMP/erofs/file")" content
	is "the second has its file" "$(cat "$TMP/erofs-shared/file")" content
	ok "both are unmounted" away "$TMP/erofs" "$TMP/erofs-shared"
	losetup -d "$blob" "$one" "$two"
	LOOPS=("$D")

	log_mark
	drop
	ok "the module can be unloaded" rmmod erofs_shared
	is "nothing is left behind" "$(log_since | grep -iE 'busy|objects|leak|slab')" ""
	is "both names are gone" "$(names)" ""
	ok "it can be loaded without the name" load register_erofs=off
	is "the name erofs is not there then" "$(names)" erofs-shared
	# The tests after this one find the system as it was.
	rm -rf /etc/modprobe.d/erofs-shared.conf /etc/modules-load.d/erofs-shared.conf "$modules/updates/erofs_shared.ko" \
		"$modules/kernel/drivers"
	mv /lib/modules/aside/* "$modules/kernel/"
	rmdir /lib/modules/aside
	cp "$TMP"/indexes/* "$modules/"
fi
no_complaint

finish
