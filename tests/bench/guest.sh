#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The guest's part of scripts/bench: what it costs to read two images, for one contender after the other. Prints lines
# "CONTENDER IMAGE ROW VALUE..." for scripts/bench. What to do: counts (instructions and memory), smoke (the same, of those that
# promises are about), or wall (seconds, on a slow disk); how often.

set -eu -o pipefail
# shellcheck source=tests/bench/lib.sh
. /project/tests/bench/lib.sh
what=$1 times=$2

# cold NAME IMAGE: reads all its files for the first time
cold() {
	local hashed
	# directories and inodes are warm, and so are the programs
	"$reader" /mnt/$2 stat 1 < /tmp/names/$2 > /dev/null
	: > /tmp/none
	"$reader" /mnt/$2 131072 1 < /tmp/none > /dev/null
	before=$(cache)
	hashed=$(stat blocks_hashed)
	echo "$1 $2 cold $("$reader" /mnt/$2 131072 1 < /tmp/names/$2)"
	echo "$1 $2 hashed $(($(stat blocks_hashed) - hashed))"
	echo "$1 $2 merge $(merge_all)"
}

contender() {
	local name=$1 image before
	mount_both
	settle
	for image in 1 2; do
		cold "$name" $image
		echo "$name $image cache $(($(cache) - before))"
		[ "$what" != wall ] || continue
		for way in 131072 4096 touch random; do
			"$reader" /mnt/$image $way "$times" < /tmp/names/$image | sed "s/^/$name $image $way /"
		done
	done
	echo "$name 2 slab $(slab)"
	echo "$name 2 saved $(stat bytes_saved)"
	echo "$name 2 metadata $(stat metadata_bytes)"
	unmount_both
}

# The cold reads again: how much of what they wait for runs beside them depends on the host, and is not the same twice
cold_again() {
	local image before
	mount_both
	settle
	for image in 1 2; do
		cold "$1" $image
	done
	unmount_both
}

# What the kernel's SHA-256 of 4 KiB costs, the copy that user space has it make included: hash_ns would not do, since it
# continues while others run.
sha256() {
	python3 - <<-'END'
		import socket, time
		def cost(size):
		    hasher = socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET)
		    hasher.bind(("hash", "sha256"))
		    took = []
		    for _ in range(100):
		        operation, _ = hasher.accept()
		        begin = time.process_time_ns()
		        operation.sendall(bytes(size))
		        operation.recv(32)
		        took.append(time.process_time_ns() - begin)
		        operation.close()
		    return min(took)
		print("sha256 0 block", (cost(10 * 4096) - cost(2 * 4096)) // 8)
	END
}

list_names
sha256
contenders="in-tree inode_share whole content compare fingerprint"
# Others, and once more what they are compared with, to show how far apart two runs of the same are
[ "$what" != counts ] || contenders="$contenders off squashfs composefs again"
for name in $contenders; do
	with "$name" contender
done
# verify=compare varies most: whether a reader compares what it has read, or a worker that is woken for it.
for name in in-tree compare fingerprint compare whole compare; do
	with "$name" cold_again
done
