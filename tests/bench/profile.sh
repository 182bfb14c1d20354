#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The guest's part of scripts/profile: what tests/bench/reader does, and how; the contender.

set -eu -o pipefail
# shellcheck source=tests/bench/lib.sh
. /project/tests/bench/lib.sh
way=$1

# The program without marks
unmarked() {
	python3 -c '
import re, sys
data = open(sys.argv[1], "rb").read()
open("/tmp/unmarked", "wb").write(re.sub(rb"\x0f\x1f\x80[FG]ORP", b"\x0f\x1f\x80\0\0\0\0", data))' "$1"
	chmod +x /tmp/unmarked
}

# The 20 programs of scripts/bench for the first time: those of the first image; or of the second, after them
profile_programs() {
	local image=1
	mount_both
	mount_inside 1
	mount_inside 2
	twenty_programs > /tmp/commands
	unmarked "$programs/runner"
	settle
	/tmp/unmarked / 1 < /dev/null
	if [ "$way" = programs-second ]; then
		/tmp/unmarked /mnt/1 1 < /tmp/commands
		image=2
	fi
	"$programs/runner" /mnt/$image 1 < /tmp/commands
	umount -R /mnt/2 /mnt/1
}

contender() {
	local root=/mnt/2
	if [[ $way = xattr=* ]]; then
		root=/mnt/1
		mount -t "$type" -o "ro,$options" /dev/vde $root
	elif [[ $way = elsewhere=* ]]; then
		root=/mnt/1
		mount -t "$type" -o "ro,$options" /dev/vdf $root
	else
		mount_both
	fi
	: > /tmp/names/all
	[ "$way" = walk ] || files $root > /tmp/names/all
	unmarked "$reader"
	case $way in
	miss) ;;
	elsewhere=*)
		/tmp/unmarked $root 131072 1 < /tmp/names/all
		merge_all > /dev/null
		way=${way#*=}
		echo run > /tmp/names/all
		/tmp/unmarked $root "$way" 1 < /tmp/names/all
		;;
	cold | second)
		# directories and inodes are warm, as in scripts/bench
		settle
		/tmp/unmarked $root stat 1 < /tmp/names/all
		if [ "$way" = second ]; then
			files /mnt/1 | /tmp/unmarked /mnt/1 131072 1
		fi
		way=131072
		;;
	*) /tmp/unmarked $root "$way" 1 < /tmp/names/all ;;
	esac
	"$reader" $root "$way" 1 < /tmp/names/all
}

case $way in
programs*) with "$2" profile_programs ;;
*) with "$2" contender ;;
esac
cat /proc/kallsyms > /share/profile.symbols
