#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# What the rest of the kernel does with a mount: exec and mmap, overlayfs, idmapped mounts, file handles, loop devices,
# remount, freeze, lazy unmount, notification, locks, permissions. The in-tree erofs is mounted from the same image beside
# ours and asked the same questions.

. "$(dirname "$0")/lib.sh"
ktap_print_header

DISK=/mnt/vfs-disk A=/mnt/vfs-a B=/mnt/vfs-b ORACLE_DIR=/mnt/vfs-oracle
MODULE=/sys/module/${FSTYPE//-/_}
uses() { cat "$MODULE/refcnt"; }
uses_before=$(uses)

# run COMMAND...: for conditions in ok, which takes one command
run() { bash -c "set -e -o pipefail; $1"; }
as() { setpriv --reuid="$1" --regid="$1" --clear-groups "${@:2}"; }
export -f as
# mounted DESCRIPTION FSTYPE SOURCE DIR [OPTIONS]
mounted() {
	local what=$1
	shift
	ok "$what" at "$@" && MOUNTS+=("$3")
}

# --- the image -----------------------------------------------------------------------------------------------------------

modprobe overlay
mkdir -p $A $B $ORACLE_DIR
disk $DISK 1G
tree=$DISK/tree
mkdir -p $tree/data/sub/deep $tree/data/void $tree/system/{dev,proc,bin}
for program in bash ls cat sleep; do
	cp "$(command -v $program)" $tree/system/bin/
	ldd "$(command -v $program)" | grep -o '/[^ ]*' | while read -r library; do
		mkdir -p "$tree/system${library%/*}"
		cp -nL "$library" "$tree/system$library"
	done
done
printf '#!/bin/bash\necho "script $1 in $(cat /name)"\n' > $tree/system/bin/script
chmod 755 $tree/system/bin/script
echo "the image" > $tree/system/name
(
	cd $tree/data || exit
	seq 20000 > file
	: > empty
	echo below > sub/deep/down
	seq 20000 > sub/numbers
	ln -s file link
	ln file hard
	mkfifo fifo
	mknod null c 1 3
	head -c 1000000 /dev/urandom > big
	setfattr -n user.a -v one file
	setfattr -n user.b -v two sub
	setfattr -n trusted.t -v three file
	echo secret > denied
	echo secret > allowed
	echo secret > private
	chmod 644 denied
	chmod 600 allowed private
	setfacl -m u:1001:--- denied
	setfacl -m u:1001:r--,g:1002:r-- allowed
	setfacl -d -m u:1001:rwx sub
	chown 5:6 sub/deep/down
	cp "$T/bin/vfs" capable
	cp "$T/bin/vfs" setuid
	cp "$T/bin/vfs" plain
	setcap cap_net_raw+ep capable
	chown 1234 setuid
	chmod 4755 setuid
	truncate -s 4M inner.ext4
	mke2fs -q -F -t ext4 -d sub inner.ext4
	mkfs.erofs --quiet inner.erofs sub > /dev/null
)
image=$DISK/image
mkfs.erofs --quiet -L share-label -U 7c5fb8c2-2d5a-4d0c-9a53-0a1d3b6e94f1 $image $tree > /dev/null || ktap_test_fail "mkfs.erofs"
mkfs.erofs --quiet -zlz4 $DISK/image.lz4 $tree/data/sub > /dev/null
# An upper layer of its own: with a whiteout and an opaque directory
mkdir -p $DISK/over/data/sub
mknod $DISK/over/data/file c 0 0
echo above > $DISK/over/data/big
echo only > $DISK/over/data/sub/only
setfattr -n trusted.overlay.opaque -v y $DISK/over/data/sub
mkfs.erofs --quiet $DISK/image.over $DISK/over > /dev/null

loop_a=$(loop $image) loop_b=$(loop $DISK/image.over) loop_oracle=$(loop $image)
LOOPS+=("$loop_a" "$loop_b" "$loop_oracle")
mounted "mount in-tree" $ORACLE "$loop_oracle" $ORACLE_DIR

# both DESCRIPTION COMMAND: the same output, and some, with @ as the one mount and the other, without errors of bash
both() {
	equal "$1" "$(bash -c "${2//@/$A}" 2>&1 | sed "s,$A,@,g")" "$(bash -c "${2//@/$ORACLE_DIR}" 2>&1 | sed "s,$ORACLE_DIR,@,g")"
}

# maps PID: each file of ours that the process has mapped is shown by its path, with its device and inode number
maps() {
	local range perms offset device inode path seen=0
	while read -r range perms offset device inode path; do
		[[ $path = "$A"/* ]] || continue
		seen=$((seen + 1))
		[ "$device $inode" = "$(stat -c '%Hd:%Ld %i' "$path" | awk -F'[: ]' '{ printf "%02x:%02x %s\n", $1, $2, $3 }')" ] ||
			{ echo "$range $perms $offset $device $inode $path"; stat "$path"; return 1; }
	done < "/proc/$1/maps"
	[ $seen -ge 8 ] || { echo "$seen mappings of files in the image"; cat "/proc/$1/maps"; return 1; }
}

# --- programs ------------------------------------------------------------------------------------------------------------

is_loaded() { [ "$(grep -c " $A/" "/proc/$1/maps")" -ge 8 ]; }

programs() {
	local way=$1 pid i
	drop
	is "$way: static program" "$($A/data/plain label $A 2>&1)" share-label
	is "$way: dynamic programs in a chroot" "$(chroot $A/system /bin/bash -c 'ls /bin; cat /name' 2>&1 | tr '\n' ' ')" \
		"bash cat ls script sleep the image "
	is "$way: a script runs by its interpreter" "$(chroot $A/system /bin/script one 2>&1)" "script one in the image"
	chroot $A/system /bin/sleep 600 &
	pid=$!
	# not chroot itself any more, and all of the program and its libraries mapped
	soon is_loaded $pid
	ok "$way: /proc/PID/maps has the paths" maps $pid
	is "$way: /proc/PID/exe is the program" "$(readlink /proc/$pid/exe)" $A/system/bin/sleep
	is "$way: unmount while it runs" "$(vfs umount $A)" umount=EBUSY
	kill $pid
	wait $pid 2> /dev/null
	drop
	for ((i = 0; i < 6; i++)); do
		chroot $A/system /bin/script $i &
	done > "$TMP/many"
	wait
	is "$way: 6 at once, not yet cached" "$(sort -V "$TMP/many" | md5sum)" \
		"$(for ((i = 0; i < 6; i++)); do echo "script $i in the image"; done | md5sum)"
	both "$way: file capability" "getcap @/data/capable; as 1001 @/data/capable caps; as 1001 @/data/plain caps"
	is "$way: file capability at exec" "$(as 1001 $A/data/capable caps)" "euid 1001 caps 2000"
	is "$way: setuid program" "$(as 1001 $A/data/setuid caps)" "euid 1234 caps 0"
	mount -o remount,bind,ro,nosuid $A
	is "$way: setuid program with nosuid" "$(as 1001 $A/data/setuid caps)" "euid 1001 caps 0"
	mount -o remount,bind,ro,noexec $A
	is "$way: noexec keeps a program from running" "$($A/data/plain caps 2>&1 | grep -o 'Permission denied')" "Permission denied"
	mount -o remount,bind,ro,suid,exec $A
}

# --- attributes and what cannot be changed -------------------------------------------------------------------------------

attributes() {
	local way=$1 dir=$2
	both "$way: statfs" "stat -f -c '%t %s %S %b %f %a %c %d %l' @"
	both "$way: statx" "cd @/data; vfs statx .. . file empty big link sub sub/deep/down fifo null setuid"
	is "$way: volume label" "$(vfs label $dir) $(vfs label $dir/data/file)" "share-label share-label"
	both "$way: direct I/O" "vfs direct @/data/big; vfs direct @/data/sub"
	both "$way: other ioctls of a file" "vfs ioctls @/data/file"
	both "$way: other ioctls of a directory" "vfs ioctls @/data"
	both "$way: FIBMAP" "vfs fibmap @/data/big; vfs fibmap @/data/empty"
	is "$way: an unknown ioctl" "$(vfs ioctls $dir/data/file | grep unknown)" unknown=ENOTTY
	is "$way: every change is refused" "$(vfs errors $dir | grep -v =EROFS | tr '\n' ' ')" \
		"ftruncate=EINVAL fallocate=EBADF write=EBADF mmap-shared-write=EACCES setfslabel=ENOTTY fsync=EINVAL syncfs=ok "
	both "$way: refused as in-tree" "vfs errors @"
	ok "$way: same content" diff -r --no-dereference -x null -x fifo $ORACLE_DIR/data $dir/data
}

# --- permissions and extended attributes ---------------------------------------------------------------------------------

# readable USER NAME
readable() { as "$1" cat "$A/data/$2" > /dev/null 2>&1 && echo yes || echo no; }
acl_answers() { echo "denied $(readable 1001 denied) $(readable 1003 denied) allowed $(readable 1001 allowed) $(readable 1002 allowed) $(readable 1003 allowed) private $(readable 1001 private)"; }
user_xattrs() { getfattr -d -h "$A/data/file" 2> /dev/null | grep -c user; getfattr --absolute-names --only-values -n user.a "$A/data/file" 2>&1 | sed 's/.*: //'; }

permissions() {
	local way=$1
	both "$way: POSIX ACLs" "cd @ && getfacl -nR --skip-base data"
	both "$way: extended attributes" "cd @ && getfattr -dR -m - -h data; as 1001 getfattr -m - data/file"
	is "$way: ACLs are enforced" "$(acl_answers)" "denied no yes allowed yes yes no private no"
	ok "$way: remount with noacl" vfs remount $A ro noacl
	# In-tree takes the option and behaves as before.
	is "$way: ACLs are not enforced with noacl" "$(acl_answers)" \
		"$([ "$FSTYPE" = erofs ] && echo "denied no yes allowed yes yes no" || echo "denied yes yes allowed no no no") private no"
	ok "$way: noacl is shown" grep -q " $A .*[ ,]noacl" /proc/mounts
	ok "$way: remount with nouser_xattr" vfs remount $A ro nouser_xattr
	is "$way: nouser_xattr hides user.*" "$(user_xattrs)" $'0\nOperation not supported'
	is "$way: ACLs are enforced again" "$(acl_answers)" "denied no yes allowed yes yes no private no"
	ok "$way: other attributes stay with nouser_xattr" getfattr -n trusted.t $A/data/file
	ok "$way: remount with mount(8)" mount -o remount,user_xattr $A
	is "$way: user.* is back" "$(user_xattrs)" $'1\none'
	both "$way: remount rw" "vfs remount @ rw; vfs errors @ | head -n 20; grep ' @ ' /proc/mounts | grep -o ' r[ow],'"
	ok "$way: remount ro" vfs remount $A ro
}

# --- file handles --------------------------------------------------------------------------------------------------------

handles() {
	local way=$1 name file parent dir
	both "$way: handles" "for i in . file link sub sub/deep/down fifo; do vfs handle @/data/\$i; vfs handle -c @/data/\$i; done"
	file=$(vfs handle $A/data/file) parent=$(vfs handle -c $A/data/sub/deep/down) dir=$(vfs handle $A/data/sub/deep)
	for name in cached "not cached"; do
		[ "$name" = cached ] || drop
		ok "$way: open a file by handle ($name)" run "vfs open $A $file | grep -q ' 100644 $(stat -c %i $A/data/file) 1\$'"
		[ "$name" = cached ] || drop
		is "$way: open a file by a handle with parent ($name)" "$(vfs open $A $parent)" \
			"/data/sub/deep/down 100644 $(stat -c %i $A/data/sub/deep/down) below"
		[ "$name" = cached ] || drop
		is "$way: open a directory by handle ($name)" "$(vfs open $A $dir)" \
			"/data/sub/deep 40755 $(stat -c %i $A/data/sub/deep) "
	done
	# Cut short, of another type, of no inode
	is "$way: a handle cut short" "$(vfs open $A ${file%????????})" ESTALE
	is "$way: an empty handle" "$(vfs open $A "${file%% *}" "")" EINVAL
	is "$way: a handle of another type" "$(vfs open $A 1 "${file#* }")" ESTALE
	ok "$way: a handle of a number behind the image" run "vfs open $A '${file%% *}' 000000ffffffff0000000000 | grep -E '^(ESTALE|EUCLEAN|EIO)\$'"
	ok "$way: made-up handles" vfs guess $A "${file%% *}" 800 $(($(stat -c %s $image) / 32 * 5 / 4))
	# In-tree goes through a parent that is no directory and brings the kernel down.
	[ "$FSTYPE" = erofs ] ||
		ok "$way: made-up handles with parent" vfs guess $A "${parent%% *}" 800 $(($(stat -c %s $image) / 32 * 5 / 4))
	ok "$way: the files are as before" diff -r --no-dereference -x null -x fifo $ORACLE_DIR/data $A/data
}

# --- overlayfs -----------------------------------------------------------------------------------------------------------

overlay() {
	local way=$1 source=$2 m=$TMP/merged upper
	upper=$(mktemp -d -p $DISK upper.XXXX)
	mkdir -p $m "$upper"/{up,work}
	ok "$way: overlayfs on it" mount -t overlay -o "lowerdir=$A,upperdir=$upper/up,workdir=$upper/work,index=on,nfs_export=on" over $m ||
		return
	MOUNTS+=("$m")
	ok "$way, overlay: index and nfs_export stay on" grep -q " $m .*index=on.*nfs_export=on" /proc/mounts
	ok "$way, overlay: same content" diff -r --no-dereference -x null -x fifo $ORACLE_DIR/data $m/data
	is "$way, overlay: a script runs" "$(chroot $m/system /bin/script 7 2>&1)" "script 7 in the image"
	echo more >> $m/data/file
	is "$way, overlay: copy up" "$(tail -n 2 $m/data/file | tr '\n' ' ')" "20000 more "
	is "$way, overlay: the lower file stays" "$(tail -n 1 $A/data/file)" 20000
	is "$way, overlay: the hard link follows" "$(tail -n 1 $m/data/hard)" more
	is "$way, overlay: attributes are copied up" "$(getfattr --absolute-names -d -m 'user|trusted.t' $m/data/file | grep '=' | tr '\n' ' ')" \
		'trusted.t="three" user.a="one" '
	touch $m/data/allowed $m/data/capable
	equal "$way, overlay: the ACL is copied up" "$(getfacl -cnp $m/data/allowed)" "$(getfacl -cnp $A/data/allowed)"
	is "$way, overlay: the ACL works" "$(as 1001 cat $m/data/allowed)" secret
	is "$way, overlay: the capability is copied up" "$(as 1001 $m/data/capable caps)" "euid 1001 caps 2000"
	chown 77 $m/data/sub/deep/down
	is "$way, overlay: owner changed there alone" "$(stat -c %u:%g $m/data/sub/deep/down $A/data/sub/deep/down | tr '\n' ' ')" "77:6 5:6 "
	rm $m/data/big
	is "$way, overlay: a whiteout" "$(stat -c '%F %t %T' "$upper/up/data/big") $(ls $m/data/big 2> /dev/null)" "character special file 0 0 "
	rm -r $m/data/sub
	mkdir $m/data/sub
	is "$way, overlay: an opaque directory" "$(ls -A $m/data/sub)" ""
	ok "$way, overlay: the lower layer is as before" diff -r --no-dereference -x null -x fifo $ORACLE_DIR/data $A/data
	# overlayfs has a mount of its own of the layer
	ok "$way, overlay: unmount the lower layer" umount $A
	ok "$way, overlay: it is still there" run "cmp $m/data/inner.ext4 $ORACLE_DIR/data/inner.ext4"
	away $m
	ok "$way: mount it again" at "$FSTYPE" "$source" $A
	mounted "$way: mount a second image" "$FSTYPE" "$loop_b" $B
	if ok "$way: overlayfs of two images" mount -t overlay -o "lowerdir=$B:$A" over $m; then
		MOUNTS+=("$m")
		is "$way, overlay: whiteout in an image" "$(ls $m/data/file 2> /dev/null)" ""
		is "$way, overlay: the upper image wins" "$(cat $m/data/big)" above
		is "$way, overlay: opaque directory in an image" "$(ls -A $m/data/sub)" only
		is "$way, overlay: the lower image shows" "$(cat $m/data/hard | md5sum)" "$(seq 20000 | md5sum)"
		is "$way, overlay: it is read-only" "$(touch $m/data/x 2>&1 | sed 's/.*: //')" "Read-only file system"
		away $m
	fi
	away $B
}

# nested FSTYPE SOURCE: overlayfs on it, and overlayfs on that: what a container in a container has
nested() {
	local fs=$1 source=$2 m=$TMP/outer n=$TMP/inmost d=$DISK/nested
	rm -rf $d
	mkdir -p $m $n $d/{up,work,up2,work2}
	at "$fs" "$source" $B || return
	mount -t overlay -o "lowerdir=$B,upperdir=$d/up,workdir=$d/work" over $m || return
	MOUNTS+=("$m")
	mount -t overlay -o "lowerdir=$m,upperdir=$d/up2,workdir=$d/work2" over $n || return
	MOUNTS+=("$n")
	diff -r --no-dereference -x null -x fifo $ORACLE_DIR/data $n/data || return
	chroot $n/system /bin/script 9 || return
	echo more >> $n/data/file
	tail -n 1 $n/data/file
	tail -n 1 $m/data/file
	away $n $m $B
}

# --- mounts --------------------------------------------------------------------------------------------------------------

idmapped() {
	local way=$1 m=$TMP/idmapped
	mkdir -p $m
	ok "$way: idmapped mount" vfs idmap $A $m 100000 || return
	MOUNTS+=("$m")
	is "$way, idmapped: owners are mapped" "$(stat -c %u:%g $m/data/file $m/data/sub/deep/down $m/data/setuid | tr '\n' ' ')" \
		"100000:100000 100005:100006 101234:100000 "
	is "$way, idmapped: ACLs are mapped" "$(getfacl -cnp $m/data/allowed | grep -E ':[0-9]+:' | tr '\n' ' ')" "user:101001:r-- group:101002:r-- "
	is "$way, idmapped: ACL is enforced" "$(as 101001 cat $m/data/allowed 2>&1; as 1001 cat $m/data/allowed 2>&1 | sed 's/.*: //')" \
		$'secret\nPermission denied'
	is "$way, idmapped: the owner may read" "$(as 100000 cat $m/data/private)" secret
	is "$way, idmapped: the other mount is as before" "$(stat -c %u $A/data/file)" 0
	away $m
}

mounts() {
	local way=$1 dir=$2 m=$TMP/bind
	mkdir -p $m
	: > $TMP/bound
	ok "$way: bind mount of a directory" mount --bind $dir/data/sub $m && MOUNTS+=("$m")
	equal "$way: the same inode there" "$(stat -c '%d %i' $m/deep)" "$(stat -c '%d %i' $dir/data/sub/deep)"
	ok "$way: bind mount of a file" mount --bind $dir/data/file $TMP/bound && MOUNTS+=("$TMP/bound")
	is "$way: its content" "$(md5sum < $TMP/bound)" "$(seq 20000 | md5sum)"
	away $m $TMP/bound
	ok "$way: unmounted in another mount namespace" unshare -m --propagation private \
		bash -c "umount $dir && ! mountpoint -q $dir"
	ok "$way: still mounted in this one" run "mountpoint -q $dir && cmp $dir/data/file $dir/data/hard"
	is "$way: no mount in a user namespace" "$(unshare -Urm mnt "$FSTYPE" "$loop_b" $B 2>&1)" EPERM
	exec 5< $dir/data
	is "$way: unmount with an open directory" "$(vfs umount $dir)" umount=EBUSY
	exec 5<&-
	cd $dir/data/sub || return
	is "$way: unmount with a working directory in it" "$(vfs umount $dir)" umount=EBUSY
	cd /
	both "$way: freeze" "vfs freeze @"
	ok "$way: inotify tells of an open and a read" vfs inotify $dir/data file
	both "$way: fanotify with handles" "vfs fanotify @ @/data/file"
	is "$way: locks keep each other out" "$(vfs locks $dir/data/file | tr '\n' ' ')" \
		"flock-exclusive=ok flock-second=EAGAIN flock-release=ok flock-again=ok posix-read=ok ofd-read=ok posix-write=EBADF lease-read=ok lease 0 lease-release=ok lease-write=EAGAIN "
}

# A file of the image as a loop device
inner() {
	local way=$1 dev m=$TMP/inner direct
	mkdir -p $m
	for direct in "" --direct-io=on; do
		# A file-backed mount has no direct I/O, as statx says
		[ "$way$direct" != file--direct-io=on ] || continue
		dev=$(loop $A/data/inner.ext4 $direct) || { ktap_test_fail "$way: loop device on a file in it $direct"; continue; }
		LOOPS+=("$dev")
		if ok "$way: ext4 in a file in it $direct" mount -t ext4 -o ro "$dev" $m; then
			MOUNTS+=("$m")
			ok "$way: content of that ext4 $direct" diff -r -x lost+found $ORACLE_DIR/data/sub $m
			away $m
		fi
		losetup -d "$dev"
		soon run "! losetup $dev"
	done
	dev=$(loop $A/data/inner.erofs)
	LOOPS+=("$dev")
	for fs in $ORACLE "$FSTYPE"; do
		mounted "$way: $fs in a file in it" "$fs" "$dev" $m
		ok "$way: content of that $fs" diff -r $ORACLE_DIR/data/sub $m
		is "$way: busy below that $fs" "$(vfs umount $A)" umount=EBUSY
		away $m
	done
	losetup -d "$dev"
	# Without a loop device: what lies on a file-backed erofs is refused, so that reads do not nest without end.
	file_in $A "$way: $FSTYPE of a file in it, without a loop device" $m
	if [ "$FSTYPE" != $ORACLE ]; then
		file_in $ORACLE_DIR "$way: $FSTYPE of a file in an in-tree mount" $m
		mounted "$way: $ORACLE of a file in it, without a loop device" $ORACLE $A/data/inner.erofs $m
		ok "$way: content of that $ORACLE" diff -r $ORACLE_DIR/data/sub $m
		is "$way: $FSTYPE of a file in an overlay on that" "$(on_overlay $m)" ENOTBLK
		away $m
	fi
}
# file_in OUTER TITLE DIR: an image in the mount OUTER is mounted at DIR if OUTER is on a block device, and refused else
file_in() {
	if grep -q "^/dev/[^ ]* $1 " /proc/mounts; then
		mounted "$2" "$FSTYPE" "$1/data/inner.erofs" "$3"
		ok "$2: its content is right" diff -r $ORACLE_DIR/data/sub "$3"
		away "$3"
	else
		is "$2" "$(mnt "$FSTYPE" "$1/data/inner.erofs" "$3" 2>&1)" ENOTBLK
	fi
}
# on_overlay DIR: the errno of mounting an image in an overlay on DIR
on_overlay() {
	local d=$DISK/on-overlay n=$TMP/overlaid
	mkdir -p $d/{up,work} $n
	mount -t overlay -o "lowerdir=$1,upperdir=$d/up,workdir=$d/work" over $n || return
	cp $DISK/image.lz4 $n/image
	mnt "$FSTYPE" $n/image $B 2>&1
	umount $n
}

lazy() {
	local way=$1 source=$2 before
	before=$(($(uses) - 1))
	exec 5< $A/data/big
	ok "$way: lazy unmount with an open file" umount -l $A
	drop
	ok "$way: the file is still readable" run "cmp - $ORACLE_DIR/data/big <&5" 5<&5
	ok "$way: the module is in use" [ "$(uses)" = $((before + 1)) ]
	exec 5<&-
	ok "$way: released with the last file" soon run "[ \$(cat $MODULE/refcnt) = $before ]"
	if [ -b "$source" ]; then
		ok "$way: the device is free again" soon at "$ORACLE" "$source" $B
		MOUNTS+=("$B")
		away $B
	fi
}

for way in device file; do
	source=$image
	[ $way = file ] || source=$loop_a
	mounted "$way: mount" "$FSTYPE" "$source" $A || continue
	if [ $way = file ]; then
		away $ORACLE_DIR
		mounted "$way: mount in-tree" $ORACLE "$image" $ORACLE_DIR
	fi
	programs $way
	attributes $way $A
	# These do not depend on where the image is
	[ $way = file ] || permissions $way
	[ $way = file ] || idmapped $way
	handles $way
	overlay $way "$source"
	is "$way: overlayfs on overlayfs on it" "$(nested "$FSTYPE" "$source" 2>&1)" $'script 9 in the image\nmore\n20000'
	mounts $way $A
	inner $way
	lazy $way "$source"
	# A lazy unmount took it away
	MOUNTS=("${MOUNTS[@]/#$A/$TMP}")
done

# --- other images and sources --------------------------------------------------------------------------------------------

away $ORACLE_DIR
mounted "directio: mount" "$FSTYPE" $image $A directio
mounted "directio: mount in-tree" $ORACLE $image $ORACLE_DIR directio
attributes directio $A
away $A $ORACLE_DIR

mounted "mounted rw" "$FSTYPE" $image $A rw
mounted "mounted rw in-tree" $ORACLE $image $ORACLE_DIR rw
ok "mounted rw: shown as ro" grep -q " $A $FSTYPE ro," /proc/mounts
is "mounted rw: changes are refused" "$(vfs errors $A | head -n 26 | grep -v =EROFS)" ""
both "mounted rw: remount rw" "vfs remount @ rw; grep ' @ ' /proc/mounts | grep -o ' r[ow],'; vfs errors @"
away $A $ORACLE_DIR

mounted "compressed: mount" "$FSTYPE" $DISK/image.lz4 $A
mounted "compressed: mount in-tree" $ORACLE $DISK/image.lz4 $ORACLE_DIR
both "compressed: direct I/O" "vfs direct @/numbers"
both "compressed: statx" "cd @; vfs statx . numbers deep deep/down"
is "compressed: no volume label" "$(vfs label $A)" ""
ok "compressed: the attribute is set" run "vfs statx $A/numbers | grep 'attributes [0-9a-f]*4 '"
away $A $ORACLE_DIR
loop_lz4=$(loop $DISK/image.lz4)
LOOPS+=("$loop_lz4")
mounted "compressed device: mount" "$FSTYPE" "$loop_lz4" $A
is "compressed device: FIBMAP is refused" "$(vfs fibmap $A/numbers | tr '\n' ' ')" "fibmap=EINVAL block 0 "
away $A
mounted "compressed device: mount in-tree" $ORACLE "$loop_lz4" $ORACLE_DIR
is "compressed device: FIBMAP in-tree" "$(vfs fibmap $ORACLE_DIR/numbers | tr '\n' ' ')" "fibmap=EINVAL block 0 "
away $ORACLE_DIR
losetup -d "$loop_lz4"

losetup -d "$loop_a"
losetup -d "$loop_b"
losetup -d "$loop_oracle"
LOOPS=()
ok "the disk with the images can be unmounted" soon away $DISK
is "the module is used as often as before" "$(uses)" "$uses_before"

finish
