#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# tests/packages_dkms.sh: erofs-shared-dkms (build/deb, by make deb) in a Debian 13 tree with the backports kernel's headers: apt installs it
# with all that it needs, DKMS builds the module for that kernel, signs and installs it, and the purge leaves nothing. Some 10 minutes. What
# DKMS installed is kept in build/packaging/dkms, where tests/packages_guest.sh takes it from. No part of make test. The last line is "N
# passed, N failed"; what apt and DKMS say is in build/log/packages-dkms.log.

set -u
cd "$(dirname "$0")/.." || exit
# shellcheck source=scripts/versions
. scripts/versions
P=build/packaging
IN=$P/trixie-dkms
root=$P/root-dkms
LOG=$PWD/build/log/packages-dkms.log
# Seconds of processors, which is more than it takes on a machine that has nothing else to do
LIMIT=600
passed=0 failed=0

die() { echo "tests/packages_dkms.sh: $*" >&2; echo "$passed passed, $((failed + 1)) failed"; exit 1; }

# ok TITLE COMMAND...
ok() {
	local title=$1
	shift
	printf '\n=== %s\n' "$title" >> "$LOG"
	if "$@" >> "$LOG" 2>&1; then
		echo "ok: $title"
		passed=$((passed + 1))
	else
		echo "FAILED: $title"
		tail -n 20 "$LOG"
		failed=$((failed + 1))
	fi
}
is() { ok "$1" test "$2" = "$3"; [ "$2" = "$3" ] || printf 'got:      %s\nexpected: %s\n' "$2" "$3"; }
# A shell in the tree, with what apt and DKMS have on a system; what apt downloads is kept for the next time.
# shellcheck disable=SC2016 # for that shell
inside() {
	unshare --mount --propagation private sh -c 'mount --bind "$1/archives" "$2/var/cache/apt/archives" && shift 2 && exec "$@"' sh "$P" $root \
		scripts/in-debian --tree $root env -u TMPDIR DEBIAN_FRONTEND=noninteractive sh -c "cd /root; $1"
}

mkdir -p $P/archives/partial build/log
: > "$LOG"
deb=$(echo build/deb/erofs-shared-dkms_*.deb)
[ -e "$deb" ] || die "no build/deb: run make deb"
version=$(dpkg-deb -f "$deb" Version)

# --- a Debian with the kernel's headers and source -----------------------------------------------------------------------

# None of what the package itself depends on but the source, which must be of the kernel's version
PACKAGES="kmod linux-modules-$KERNEL_RELEASE=$KERNEL_PACKAGE_VERSION linux-headers-$KERNEL_RELEASE=$KERNEL_PACKAGE_VERSION
	$KERNEL_SOURCE=$KERNEL_PACKAGE_VERSION"
key=$(sha256sum <<< "$PACKAGES $SUITE $DEBIAN_MIRROR" | cut -d' ' -f1)
if [ "$(cat $IN.key 2> /dev/null)" != "$key" ]; then
	echo "# making Debian with the headers (a few minutes)"
	rm -rf --one-file-system $IN
	# shellcheck disable=SC2086 # a list of words
	DEBIAN_FRONTEND=noninteractive unshare --mount --propagation private mmdebstrap --mode=root --variant=minbase \
		--aptopt='APT::Install-Recommends "false"' --dpkgopt=force-unsafe-io --include="$(echo $PACKAGES | tr ' ' ,)" "$SUITE" $IN \
		"deb $DEBIAN_MIRROR $SUITE main" "deb $DEBIAN_MIRROR $BACKPORTS main" >> "$LOG" 2>&1 || die "no Debian with headers; see $LOG"
	echo "$key" > $IN.key
fi
rm -rf --one-file-system $root
cp -a --reflink=auto $IN $root
cp "$deb" $root/root/
# What the purge has to leave as it was
files() {
	(cd $root && { find usr/src -maxdepth 1; find usr/lib/modules var/lib/dkms etc/modprobe.d etc/modules-load.d ! -name 'modules.*' 2> /dev/null; } | sort)
}

# --- installation --------------------------------------------------------------------------------------------------------

ok "apt reads its lists" inside 'apt-get update -q'
inside "apt-get -s install --no-install-recommends ./${deb##*/}" | awk '$1 == "Inst" && $2 != "erofs-shared-dkms" { print $2 }' > $P/dkms-needs
echo "# $(wc -l < $P/dkms-needs) packages come with it"
ok "what it depends on is installed" inside "apt-get install -q -y --no-install-recommends $(xargs < $P/dkms-needs)"
# dkms is not ours, and leaves its own.
files > $P/dkms-before
is "the headers have no Rust metadata" "$(find $root/usr/src/linux-headers-* -name '*.rmeta')" ""
echo "# beside it: $(ps -eo comm= | grep -c '^\(qemu\|ld-linux\)') guests, load $(cut -d' ' -f1 /proc/loadavg), $(nproc) processors"
begin=$SECONDS
# The same as children, in ticks: what it takes without all that is beside it
before=$(awk '{ print $16 + $17 }' /proc/$$/stat)
ok "apt installs it, and DKMS builds the module" inside "apt-get install -q -y --no-install-recommends ./${deb##*/}"
took=$((SECONDS - begin))
busy=$((($(awk '{ print $16 + $17 }' /proc/$$/stat) - before) / $(getconf CLK_TCK)))
echo "# $took s, $busy s of processors; load $(cut -d' ' -f1 /proc/loadavg)"
[ $failed = 0 ] || { find $root/var/lib/dkms -name make.log -exec tail -n 30 {} +; die "there is nothing to look at"; }
ok "in less than $((LIMIT / 60)) minutes of processors" [ $busy -lt $LIMIT ]
is "dkms status" "$(inside 'dkms status')" "erofs-shared/$version, $KERNEL_RELEASE, x86_64: installed"
is "nothing is left in /var/tmp" "$(ls $root/var/tmp)" ""

# --- the module ----------------------------------------------------------------------------------------------------------

ko=$(cd $root && find usr/lib/modules -name 'erofs_shared.ko*')
is "it is where DKMS puts modules" "${ko%/*}" "usr/lib/modules/$KERNEL_RELEASE/updates/dkms"
info() { inside "modinfo -k $KERNEL_RELEASE -F $1 erofs_shared"; }
is "modinfo finds it" "$(info filename)" "/lib/modules/$KERNEL_RELEASE/updates/dkms/${ko##*/}"
is "its version is that of the package" "$(info version)" "$version"
is "its vermagic is the kernel's" "$(info vermagic)" "$(inside "modinfo -k $KERNEL_RELEASE -F vermagic ext4")"
is "its licence" "$(info license)" GPL
is "its parameters are those of the other package" "$(info parm | sort)" \
	"$(scripts/in-debian modinfo -F parm build/deb/erofs_shared.ko | sort)"
is "its sources are those of the other package" "$(info srcversion)" "$(scripts/in-debian modinfo -F srcversion build/deb/erofs_shared.ko)"
ok "it is signed" test -n "$(info signer)"
is "by DKMS' key" "$(info signer)" "$(inside 'openssl x509 -inform DER -in /var/lib/dkms/mok.pub -noout -subject -nameopt multiline' |
	sed -n 's/^ *commonName *= //p')"
symbols() { inside "modprobe -S $KERNEL_RELEASE --show-depends erofs_shared" | sed 's,.*/,,; s/\.ko.*//' | sort | xargs; }
is "modprobe knows what it needs" "$(symbols)" "$(info depends | tr , ' ' | xargs -n1 | { cat; echo erofs_shared; } | sort | xargs)"
rm -rf $P/dkms
mkdir $P/dkms && cp "$root/$ko" $P/dkms/

# --- again, and away -----------------------------------------------------------------------------------------------------

is "a kernel that is not there is told" "$(inside 'dkms build -m erofs-shared -v '"$version"' -k 7.3.0-none > /dev/null 2>&1; echo $?')" 21
ok "it is purged" inside 'apt-get purge -q -y erofs-shared-dkms'
is "dkms status is empty" "$(inside 'dkms status')" ""
# The key is the system's.
is "no file is left" "$(files | diff $P/dkms-before - | grep "^[<>]" | grep -v '/dkms/mok\.' | xargs)" ""
is "modprobe finds none" "$(inside "modinfo -k $KERNEL_RELEASE erofs_shared 2>&1" | grep -c 'not found')" 1
rm -rf --one-file-system $root

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
