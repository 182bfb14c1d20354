#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Mounting: sources (block device, file, descriptor, offset), every option of the in-tree documentation, what is shown in
# /proc/mounts, what is refused and with which words. The oracle for what both understand is the in-tree erofs.

. "$(dirname "$0")/lib.sh"
ktap_print_header

A=/mnt/a B=/mnt/b E=/mnt/e
mkdir -p $A $B

# --- images --------------------------------------------------------------------------------------------------------------

disk $E 160M

mkdir "$TMP/tree"
cp /usr/bin/ls "$TMP/tree"
echo hello > "$TMP/tree/hello"
setfattr -n user.mime -v text/plain "$TMP/tree/hello"
setfattr -n trusted.secret -v yes "$TMP/tree/hello"
setfacl -m u:1234:r "$TMP/tree/hello"
mkfs.erofs --quiet -Lour-label $E/img "$TMP/tree" > /dev/null
mkfs.erofs --quiet -b512 $E/img512 "$TMP/tree" > /dev/null
cat <(head -c 1048576 /dev/urandom) $E/img > $E/shifted
cat <(head -c 1536 /dev/urandom) $E/img512 > $E/shifted512
sum=$(cd "$TMP/tree" && sha256sum hello ls)
L=$(loop $E/img)
LOOPS+=("$L")

bytes() { [ "$(cd $A && sha256sum hello ls)" = "$sum" ]; }
try() { ok "$1" at "$FSTYPE" "$2" $A "${3-}" && { ok "$1: bytes" bytes; away $A; }; }
# shown FSTYPE SOURCE OPTIONS: the options in /proc/mounts, of a mount by one of the two
shown() {
	at "$1" "$2" $A "$3" || return
	grep " $A " /proc/mounts | cut -d' ' -f4
	away $A
}

# --- sources -------------------------------------------------------------------------------------------------------------

try "block device" "$L"
try "regular file" $E/img
try "regular file, direct I/O" $E/img directio
try "fsoffset= in a file" $E/shifted fsoffset=1048576
S=$(loop $E/shifted)
LOOPS+=("$S")
try "fsoffset= on a block device" "$S" fsoffset=1048576
try "fsoffset= of 512-byte blocks" $E/shifted512 fsoffset=1536
try "fsoffset= of 512-byte blocks, direct I/O" $E/shifted512 fsoffset=1536,directio

# What was written to a device may be in its page cache only, as long as something has the device open.
for i in one two; do
	line_image "$TMP/written-$i" $i
	: > "$TMP/blob-$i"
	line_image "$TMP/multi-$i" $i --chunksize=4096 --blobdev="$TMP/blob-$i"
	truncate -s %4096 "$TMP/multi-$i"
done
writeback=$(cat /proc/sys/vm/dirty_writeback_centisecs)
echo 0 > /proc/sys/vm/dirty_writeback_centisecs
for name in written blob; do
	cp "$TMP/$name-one" $E/written
	W=$(losetup -f --show $E/written)
	LOOPS+=("$W")
	exec 9< "$W"
	cat "$W" > /dev/null
	dd if="$TMP/$name-two" of="$W" conv=notrunc status=none
	source=$W options=
	[ $name = written ] || source=$(loop "$TMP/multi-two") options=device=$W
	ok "an image that was just written to a device is mounted: $name" at "$FSTYPE" "$source" $A "$options"
	is "its file is the new one: $name" "$(cat $A/file)" two
	sync
	drop
	is "it is so later: $name" "$(cat $A/file)" two
	away $A
	exec 9<&-
	[ $name = written ] || LOOPS+=("$source")
done
echo "$writeback" > /proc/sys/vm/dirty_writeback_centisecs

# descriptor: mounted by fsconfig with an open file
if ok "source as a descriptor" fsctx "$FSTYPE" $A fd:$E/img; then
	MOUNTS+=("$A")
	ok "source as a descriptor: its files are right" bytes
	is "source as a descriptor: shows the path" "$(grep " $A " /proc/mounts | cut -d' ' -f1)" $E/img
	rm -f $E/gone && cp $E/img $E/gone
	away $A
	ok "a deleted source file, by descriptor" fsctx "$FSTYPE" $A fd:$E/gone && {
		MOUNTS+=("$A")
		rm $E/gone
		drop
		ok "a deleted source file: its files are right" bytes
		away $A
	}
fi

ok "a device is mounted" at "$FSTYPE" "$L" $A
ok "a device is mounted a second time" at "$FSTYPE" "$L" $B
is "a device mounted twice is one filesystem" "$(stat -c %d $A)" "$(stat -c %d $B)"
away $A $B
ok "a file is mounted" at "$FSTYPE" $E/img $A
ok "a file is mounted a second time" at "$FSTYPE" $E/img $B
is "a file mounted twice is one filesystem" "$(stat -c %d $A)" "$(stat -c %d $B)"
is "the source of a mounted file cannot be freed" "$(umount $E 2>&1 | grep -o busy)" busy
away $A $B

# --- options -------------------------------------------------------------------------------------------------------------

for options in "" nouser_xattr noacl nouser_xattr,noacl user_xattr,acl cache_strategy=disabled \
	cache_strategy=readahead cache_strategy=readaround nodirectio domain_id=secret; do
	equal "options shown as in-tree: '$options'" "$(shown "$FSTYPE" "$L" "$options")" "$(shown $ORACLE "$L" "$options")"
done
# The in-tree erofs knows the dax options only in a kernel with FS_DAX, which the debug kernel is not. To be told not to do it is fine
# with erofs-shared in any.
wanted=$(shown $ORACLE "$L" dax=never 2> /dev/null) || wanted=$(shown $ORACLE "$L" ""),dax=never
equal "options are shown as in-tree: for dax=never" "$(shown "$FSTYPE" "$L" dax=never)" "$wanted"
equal "options are shown as in-tree: for directio" "$(shown "$FSTYPE" $E/img directio)" "$(shown $ORACLE $E/img directio)"
equal "options are shown as in-tree: for fsoffset=" "$(shown "$FSTYPE" "$S" fsoffset=1048576)" "$(shown $ORACLE "$S" fsoffset=1048576)"

at "$FSTYPE" "$L" $A nouser_xattr
is "nouser_xattr hides user.*" "$(getfattr -d -m - $A/hello 2>&1 | grep -c user.mime)" 0
is "nouser_xattr refuses user.*" "$(getfattr -n user.mime $A/hello 2>&1 | grep -c 'Operation not supported')" 1
is "nouser_xattr leaves trusted.*" "$(getfattr --only-values -n trusted.secret --absolute-names $A/hello)" yes
away $A
at "$FSTYPE" "$L" $A
is "user_xattr is the default" "$(getfattr --only-values -n user.mime --absolute-names $A/hello)" text/plain
is "acl is the default" "$(getfacl -cp $A/hello | grep -c '^user:1234:r--')" 1
away $A
at "$FSTYPE" "$L" $A noacl
is "noacl: no ACL is shown" "$(getfacl -cp $A/hello | grep -c '^user:1234')" 0
away $A
at "$FSTYPE" "$L" $A share=off
ok "share=off is accepted" bytes
away $A

# refused WORDS OPTION...: fails with EINVAL, and the words are in the context's log
refused() {
	local words=$1 out
	shift
	out=$(fsctx "$FSTYPE" $A "$@" 2>&1) && { umount $A; echo "mounted"; return 1; }
	grep -qE "^e .*$words" <<< "$out" && grep -q EINVAL <<< "$out" || { echo "$out"; return 1; }
}

if [ "$FSTYPE" = erofs-shared ]; then
	for option in dax dax=always; do
		ok "$option is refused by name" refused "${option%%=*}: .*(not supported)" "source=$L" "$option"
	done
	for option in share=fingerprint inode_share; do
		ok "$option needs a domain" refused "needs domain_id=" "source=$L" "$option"
	done
	ok "domain_id= needs a name" refused "domain_id" "source=$L" domain_id=
	ok "a way to share that there is not" refused "share" "source=$L" share=maybe
	for option in share=content share=content,domain_id=x inode_share,domain_id=x domain_id=x,share=fingerprint; do
		at "$FSTYPE" "$L" $A "$option"
		ok "$option is accepted" bytes
		away $A
	done
fi
ok "an unknown option" refused "" "source=$L" nonsense=1
ok "a bad value" refused "cache_strategy" "source=$L" cache_strategy=maybe
cat <(head -c 512 /dev/urandom) $E/img > $E/odd
ok "fsoffset= that is no multiple of a block" refused "fsoffset 512 is not a multiple" "source=$E/odd" fsoffset=512
ok "fsoffset= that is no multiple of 512" refused "fsoffset 100 is not a multiple" "source=$E/odd" fsoffset=100
ok "fsoffset= that is no number" refused "fsoffset" "source=$S" fsoffset=a
ok "a second source is refused" refused "ource" "source=$L" "source=$S"
ok "device= without a device table" refused "extra devices" "source=$L" "device=$S"

# --- logs ----------------------------------------------------------------------------------------------------------------

# Anybody with a user namespace may open a context and give options, as often as he likes: what is wrong with them is told in
# the log of the context, and nowhere else.
stranger() { setpriv --reuid=65534 --regid=65534 --clear-groups unshare -Urm "$@"; }
log_mark
stranger fsctx -n 1000 "$FSTYPE" source=/one source=/two dax > "$TMP/context"
ok "options given 1000 times by a stranger: his context's log has it" grep -E "^e .*dax" "$TMP/context"
ok "his context's log has what is wrong with a second source" grep -iE "^e .*sources?" "$TMP/context"
is "the kernel's log has nothing of it" "$(log_since)" ""
log_mark
stranger fsctx -n 140000 "$FSTYPE" device=a > "$TMP/context"
ok "devices named 140,000 times by a stranger: his context's log has it" grep -E "^e .*device" "$TMP/context"
is "the kernel's log has nothing of that" "$(log_since)" ""
if [ "$FSTYPE" = erofs-shared ]; then
	# mount(2) has no context: 10 lines in 5 seconds in the kernel's log
	log_mark
	begin=$SECONDS
	stranger bash -c "for ((i = 0; i < 200; i++)); do mnt $FSTYPE /nowhere $A dax; done 2> /dev/null"
	lines=$(log_since | grep -c "dax: not supported")
	note "$lines lines in $((SECONDS - begin)) s"
	ok "mount(2) by a stranger: the kernel's log has it" [ "$lines" -ge 1 ]
	ok "mount(2) by a stranger: the kernel's log does not have it each time" [ "$lines" -le $((((SECONDS - begin) / 5 + 2) * 10)) ]
fi

# --- errors --------------------------------------------------------------------------------------------------------------

# fails ERRNO SOURCE [OPTIONS]
fails() {
	local out
	out=$(mnt "$FSTYPE" "$2" $A "${3-}" 2>&1) && { umount $A; echo mounted; return 1; }
	echo "$out"
	grep -qxE "$1" <<< "$out"
}
ok "a source that is not there" fails ENOENT /nowhere
ok "a directory as the source is refused" fails 'ENOTBLK|EISDIR|EINVAL' /tmp
ok "a character device" fails 'ENOTBLK|EINVAL' /dev/null
mkdir -p /mnt/o
mount -t hugetlbfs hugetlbfs /mnt/o
truncate -s 2M /mnt/o/img
ok "a file on hugetlbfs: ENOTBLK, so that the caller takes a loop device" fails ENOTBLK /mnt/o/img
umount /mnt/o
mkdir -p "$TMP/up" "$TMP/work"
mount -t overlay -o "lowerdir=$E,upperdir=$TMP/up,workdir=$TMP/work" overlay /mnt/o
MOUNTS+=(/mnt/o)
ok "a file on overlayfs" fails ENOTBLK /mnt/o/img
away /mnt/o
mkdir "$TMP/nested"
cp $E/img "$TMP/nested/img"
mkfs.erofs --quiet $E/outer "$TMP/nested" > /dev/null
at "$FSTYPE" $E/outer $B
ok "a file on a file-backed mount of ours" fails ENOTBLK $B/img
N=$(loop $B/img)
ok "a loop device on it is mounted" at "$FSTYPE" "$N" $A && { ok "loop on a file inside: bytes" bytes; away $A; }
losetup -d "$N"
away $B

while IFS=$'\t' read -r name errno words; do
	log_mark
	ok "$name: the mount is refused" fails "$errno" "$IMAGES/$name"
	ok "$name: the log says why" grep -qE "$words" <(log_since | grep "${FSTYPE/-/.}")
	if [ "$FSTYPE" = erofs-shared ]; then
		ok "$name: the log names the image" grep -q "cannot mount $IMAGES/$name:" <(log_since)
	fi
done < "$IMAGES/bad-list"

# --- extra devices -------------------------------------------------------------------------------------------------------

# What device= names, for a source on a block device and for one in a file: the errno is as in-tree. ENOTBLK, on which callers
# try again with a loop device, is only for a source.
: > $E/blob
mkfs.erofs --quiet --chunksize=4096 --blobdev=$E/blob $E/multi "$TMP/tree" > /dev/null || ktap_exit_fail_msg "mkfs.erofs"
truncate -s %4096 $E/multi $E/blob
blob=$(loop $E/blob)
multi=$(loop $E/multi)
LOOPS+=("$blob" "$multi")
declare -A kinds=([regular]=$E/blob [directory]=$E [missing]=$E/nowhere [character]=/dev/null [block]=$blob)
# answer FSTYPE SOURCE DEVICE: an errno, or what is read
answer() {
	mnt "$1" "$2" $A "device=$3" 2>&1 || return
	(cd $A && sha256sum hello ls) 2>&1
	umount $A
}
for source in "$multi" $E/multi; do
	[ -b "$source" ] && way="block device" || way="file"
	for kind in "${!kinds[@]}"; do
		equal "$way, device= that is a $kind: as in-tree" "$(answer "$FSTYPE" "$source" "${kinds[$kind]}")" \
			"$(answer $ORACLE "$source" "${kinds[$kind]}")"
	done
	for kind in directory character; do
		is "$way, device= that is a $kind: the error is EINVAL" "$(answer "$FSTYPE" "$source" "${kinds[$kind]}")" EINVAL
	done
	is "$way, device= that is missing: the error is ENOENT" "$(answer "$FSTYPE" "$source" $E/nowhere)" ENOENT
done
is "block device, device= that is a regular file: the error is EINVAL" "$(answer "$FSTYPE" "$multi" $E/blob)" EINVAL
is "block device, device= that is one: its files are right" "$(answer "$FSTYPE" "$multi" "$blob")" "$sum"
is "file, device= that is one: its files are right" "$(answer "$FSTYPE" $E/multi $E/blob)" "$sum"

# The source's path is a block device when it is looked up, and an image file a moment later: a mount that fails must not go on
# with the file, since its state is gone. It fails because device= is none for a block device, and is one for a file.
swap() {
	local target=$TMP/swap i got
	for ((i = 0; i < 24; i++)); do
		ln -sfn "$multi" "$target"
		(
			sleep 0.0$((i % 4))
			ln -sfn $E/multi "$target.new" && mv -T "$target.new" "$target"
		) &
		got=$(answer "$FSTYPE" "$target" $E/blob)
		wait $!
		[ "$got" = EINVAL ] || [ "$got" = "$sum" ] || { echo "$got"; return 1; }
	done
}
ok "a source that is exchanged while the mount fails" swap

# --- remount -------------------------------------------------------------------------------------------------------------

at "$FSTYPE" "$L" $A
ok "the image is remounted" mount -o remount,noacl,nouser_xattr $A
is "remount: takes effect" "$(getfattr -d -m - $A/hello 2>&1 | grep -c user.mime)" 0
is "remount: is shown" "$(grep " $A " /proc/mounts | grep -c nouser_xattr,noacl)" 1
mount -o remount,rw $A 2> /dev/null
is "the mount is not writable after it, either" "$(touch $A/x 2>&1 | grep -c 'Read-only file system')" 1
away $A

finish
