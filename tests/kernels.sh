#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# tests/kernels.sh: checks scripts/kernels against Debian's archive: the lock file is whole, what the archive no longer has is told,
# the newest is taken. Builds nothing. No part of make test, since the archive moves; make test-kernels begins with it. The last line is
# "N passed, N failed".

set -u
cd "$(dirname "$0")/.." || exit
T=build/kernels/test
lock=scripts/kernels.lock
passed=0 failed=0

# is TITLE GOT WANTED
is() {
	if [ "$2" = "$3" ]; then
		echo "ok: $1"
		passed=$((passed + 1))
	else
		printf 'FAILED: %s\ngot:      %s\nexpected: %s\n' "$1" "$2" "$3"
		failed=$((failed + 1))
	fi
}

rm -rf $T && mkdir -p $T || exit
names=$(grep -v '^#' $lock | cut -d' ' -f1)

is "each line of the lock file has eight columns" "$(grep -v '^#' $lock | awk 'NF != 8')" ""
is "each name is listed once, with the pinned kernel" "$(scripts/kernels | awk 'NR > 1 { print $1 }')" "amd64
$names"
is "a column is given as the lock file has it" "$(for name in $names; do scripts/kernels --get "$name" version; done)" \
	"$(grep -v '^#' $lock | awk '{ print $6 }')"
is "an unknown name is refused, with those that there are" "$(scripts/kernels none 2>&1)" \
	"kernels: none: no such kernel; there are: amd64 $(tr '\n' ' ' <<< "$names")"
is "make refuses it, too" "$(make KERNEL=none module 2>&1 | grep -o 'KERNEL=none is not one of scripts/kernels')" \
	"KERNEL=none is not one of scripts/kernels"

is "a kernel with other pages than of 4 KiB is refused, and why" \
	"$(scripts/in-debian make -C build/linux M="$PWD" MO="$PWD/$T" CONFIG_PAGE_SHIFT=14 modules 2>&1 | grep -o 'erofs-shared needs.*KiB')" \
	"erofs-shared needs a kernel with pages of 4 KiB; this one has pages of 16 KiB"

# As if all were of a release that the archive never had, with other compilers. The commands use another directory.
sed '/^#/!{s/[0-9.]*+deb/&0.0/; s/[0-9.]* *[0-9]*$/1.0.0  1/}' $lock > $T/lock
for name in $names; do
	said=$(KERNELS_LOCK=$T/lock KERNELS_BUILD=$PWD/$T scripts/kernels "$name" 2>&1)
	is "$name: what the archive does not have is told, and the command that takes the newest" \
		"$(grep -c "no longer has kernel .*+deb0.0" <<< "$said") $(grep -o 'scripts/kernels --update [^ ]*' <<< "$said")" \
		"1 scripts/kernels --update $name"
done
said=$(KERNELS_LOCK=$T/lock KERNELS_BUILD=$PWD/$T scripts/kernels --update $names 2>&1)
is "an update says what it takes for each" "$(grep -c 'takes .* in place of' <<< "$said")" "$(wc -w <<< "$names")"
is "and writes releases, versions and compilers as the archive has them" \
	"$(grep -v '^#' $T/lock | awk '{ print $1, $5 ~ "^" $2 "[.].*-" $3 "$|^" $2 "[.].*deb[0-9]+-" $3 "$", $6 ~ "^" $2 "[.]", $7 ~ /^1[.]/, $8 ~ /^1[0-9]$/ }')" \
	"$(for name in $names; do echo "$name 1 1 1 1"; done)"
cp $T/lock $T/lock.before
said=$(KERNELS_LOCK=$T/lock KERNELS_BUILD=$PWD/$T scripts/kernels --update $names 2>&1)
is "a second update takes nothing" "$(grep -c 'is the newest' <<< "$said") $(cmp $T/lock $T/lock.before)" "$(wc -w <<< "$names") "
diff $T/lock $lock > $T/newer || { echo "# the archive has newer ones than $lock:"; cat $T/newer; }

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
