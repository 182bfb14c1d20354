#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The tool erofs-shared with the module: what it says of mounts against sysfs and against what the images have by construction,
# and what it estimates against what the kernel then saves.

. "$(dirname "$0")/lib.sh"
ktap_print_header

TOOL=${TOOL:-/project/build/cargo-target/debug/erofs-shared}
STATS=/sys/fs/erofs-shared/stats
D=$TMP/disk
SAID=$TMP/json

tool() { "$TOOL" "$@"; }
# json COMMAND...: the tool's JSON, for j; the exit status is the tool's
json() { tool "$@" --json > "$SAID"; }
# j EXPRESSION: of what json got, in Python
j() { python3 -c 'import json, sys; v = json.load(open(sys.argv[1])); print(eval(sys.argv[2]))' "$SAID" "$1"; }
# resident FILE: its pages in the page cache, by cachestat(2)
resident() {
	python3 -c 'import ctypes, sys
f, all, stat = open(sys.argv[1]), (ctypes.c_uint64 * 2)(), (ctypes.c_uint64 * 5)()
assert ctypes.CDLL(None).syscall(451, f.fileno(), all, stat, 0) == 0
print(stat[0])' "$1"
}
# stat_or_none NAME: of all mounts, as Python
stat_or_none() { cat "$STATS/$1" 2> /dev/null || echo None; }
# status WANTED COMMAND...: the tool's exit status
status() {
	local wanted=$1 got=0
	shift
	tool "$@" || got=$?
	[ $got = "$wanted" ] || { echo "exit status $got, expected $wanted"; return 1; }
}

# --- images --------------------------------------------------------------------------------------------------------------

# Of two trees of 6 MiB: the same 2 MiB; 2 MiB but for one block in the middle; 2 MiB of each one's own.
python3 - "$TMP" << 'END'
import os, random, sys
r = random.Random(15)
same, alike = r.randbytes(2 << 20), bytearray(r.randbytes(2 << 20))
for name in "one", "two":
    top = f"{sys.argv[1]}/{name}"
    os.makedirs(f"{top}/sub", exist_ok=True)
    open(f"{top}/sub/same-{name}", "wb").write(same)
    alike[1 << 20] ^= 1
    open(f"{top}/alike", "wb").write(alike)
    open(f"{top}/own", "wb").write(r.randbytes(2 << 20))
    open(f"{top}/empty", "wb").close()
    os.symlink("own", f"{top}/link")
END
ok "a disk is there" disk "$D" 64M
for name in one two; do
	ok "mkfs.erofs makes the image $name" mkfs.erofs --quiet "$D/$name.erofs" "$TMP/$name"
	ok "the image $name is mounted" at "$FSTYPE" "$D/$name.erofs" "/mnt/$name"
done
ok "one without sharing" at "$FSTYPE" "$D/two.erofs" /mnt/off share=off

# --- record, before anything is read --------------------------------------------------------------------------------------

ok "prewarm records what a command reads" json prewarm record /mnt/one --output "$TMP/list" -- \
	bash -c 'cat /mnt/one/alike > /dev/null; head -c 65536 /mnt/one/own > /dev/null; cat /mnt/two/own > /dev/null'
cp "$TMP/list" "$SAID"
is "the list has the files of that mount, in their order" "$(j '[f["path"] for f in v["files"]]')" "['alike', 'own']"
is "the first one whole" "$(j 'v["files"][0]["ranges"]')" "[[0, 512]]"
ok "of the other what was read" [ "$(j 'sum(n for _, n in v["files"][1]["ranges"])')" -lt 512 ]
is "what its command ends with is passed on" "$(tool prewarm record /mnt/one --output "$TMP/other" -- sh -c 'exit 7' > /dev/null 2>&1; echo $?)" 7
# A signal in the middle: the list is written, and the tracer removed.
signalled() {
	"$TOOL" prewarm record /mnt/one --output "$TMP/other" > /dev/null 2>&1 &
	soon test -d "/sys/kernel/tracing/instances/erofs-shared-$!" && sleep 1 && kill "$!" && ! wait "$!" && [ -s "$TMP/other" ]
}
ok "SIGTERM ends a record, and its list is written" signalled
ok "what cannot be written is found before" status 2 prewarm record /mnt/one --output /nonexistent/list -- touch "$TMP/was-run"
ok "its command does not run then" [ ! -e "$TMP/was-run" ]
ok "a command that reads nothing is a problem" eval 'status 1 prewarm record /mnt/one --output "$TMP/other" -- true 2>&1 | grep -q "nothing was read"'
is "no tracer is left" "$(ls /sys/kernel/tracing/instances)" ""
ok "what is no mount of the module is not recorded" status 2 prewarm record "$D" --output "$TMP/other" --seconds 1

away /mnt/one
ok "mount one again" at "$FSTYPE" "$D/one.erofs" /mnt/one
ok "prewarm reads it" json prewarm replay "$TMP/list" /mnt/one
ok "as many bytes" [ "$(j 'v["bytes"]')" -ge $((2 << 20)) ]
is "what prewarm has read is in memory" "$(resident /mnt/one/alike)" 512
ok "files that are not there are named" status 1 prewarm replay "$TMP/list" "$D"

# --- what it estimates, and what the kernel saves --------------------------------------------------------------------------

ok "verify: the first is as its image" json verify /mnt/one
is "all of it" "$(j '(v["same"], v["files"], v["bytes"])')" "(True, 4, 6291456)"
ok "verify: the second" json verify /mnt/two/sub
ok "verify: it is not as another image" status 1 verify /mnt/two --image "$D/one.erofs"
ok "verify: a mount without sharing" status 0 verify /mnt/off
ok "verify: there has to be one" status 2 verify "$D"
away /mnt/off
settled
ok "estimate of what is mounted" json estimate --running
saved=$(cat $STATS/bytes_saved)
estimated=$(j 'v["total"]["no_sharing_bytes"] - v["total"]["blocks_bytes"]')
note "estimated $estimated, saved $saved"
ok "is what the kernel saves, within 2 %" [ $((saved * 100)) -ge $((estimated * 98)) -a $((saved * 100)) -le $((estimated * 102)) ]
is "the estimate is the file that both have, and the other but for a block" "$estimated" $(((2 << 20) + (2 << 20) - 4096))

# --- status, top, metrics --------------------------------------------------------------------------------------------------

ok "status gives JSON" json status
is "says what sysfs says" "$(j '(v["loaded"], v["saved_bytes"], v["cost_bytes"], v["profit_bytes"])')" \
	"(True, $saved, $(($(cat $STATS/metadata_bytes) + $(cat $STATS/index_bytes))), $((saved - $(cat $STATS/metadata_bytes) - $(cat $STATS/index_bytes))))"
is "knows the images" "$(j '[m["image"] for m in v["mounts"]]')" "['$D/one.erofs', '$D/two.erofs']"
is "status knows where they are mounted" "$(j '[m["targets"] for m in v["mounts"]]')" "[['/mnt/one'], ['/mnt/two']]"
is "for people, too" "$(tool status | grep -c "$D/.*content")" 2
is "what is compared, and waits, as sysfs has it" \
	"$(j '[v["totals"][n] for n in ("blocks_compared", "finder_blocks", "finder_passes", "finder_ns", "finder_waiting", "merges_waiting")]')" \
	"[$(stat_or_none blocks_compared), $(stat_or_none finder_blocks), $(stat_or_none finder_passes), $(stat_or_none finder_ns), $(
		stat_or_none finder_waiting), $(stat_or_none merges_waiting)]"
ok "sees since when the module is there" [ "$(j 'v["finder_share"] is not None')" = True ]
ok "status draws it" tool status --plot "$TMP/plot.svg"
is "with both images" "$(grep -c ">[^<]*\(one\|two\)\.erofs<" "$TMP/plot.svg")" 2
ok "the plot has the sums" grep -q "without sharing" "$TMP/plot.svg"
ok "the plot is XML" python3 -c 'import sys, xml.dom.minidom as m; m.parse(sys.argv[1])' "$TMP/plot.svg"
ok "as PNG, too" tool status --plot "$TMP/plot.png"
is "the plot is PNG then" "$(head -c 4 "$TMP/plot.png" | tail -c 3)" PNG
ok "not as something else" status 2 status --plot "$TMP/plot.gif"
ok "status --plot fails where nothing can be written" status 2 status --plot /proc/plot.png
ok "status is root's" eval 'setpriv --reuid 65534 --clear-groups --bounding-set=-all "$TOOL" status 2>&1 | grep -q sudo'

ok "top gives JSON" json top
is "top sorts by images" "$(j 'sorted(e["name"] for e in v["entries"])')" "['$D/one.erofs', '$D/two.erofs']"
ok "top sorts by files" json top --by file
is "what is the same is shared by two" "$(j 'max(e["files"] for e in v["entries"])')" 2
# With verify=compare, three contents have the size of this one.
names="['/mnt/one/sub/same-one', '/mnt/two/sub/same-two']" first=1
[ "$VERIFY" = digest ] || names="[]" first=0
is "top has the file's names" "$(j 'sorted(p for e in v["entries"] if e["files"] == 2 for p in e["paths"] if "same" in p)')" "$names"
is "as all files have" "$(j 'v["named_all"]')" True
is "the first of them for people" "$(tool top --once --by file | grep -c '^ */mnt/[a-z]*/sub/same-')" $first
is "none if they are not asked for" "$(tool top --once --by file --no-names | grep -c /mnt/)" 0
is "for people, too" "$(tool top --once --by file | grep -c '2.0 MiB')" "$(j 'sum(e["shared_bytes"] == 2 << 20 for e in v["entries"])')"
ok "live only on a terminal" status 2 top
# A terminal of its own, which q ends
live() {
	: > "$TMP/screen"
	(soon grep -qa profit "$TMP/screen"; echo q) | timeout 100 script -qefc "stty rows 24 cols 100; $TOOL top" "$TMP/screen" > /dev/null &&
		grep -qa profit "$TMP/screen"
}
ok "top runs on a terminal until it is told to end" live

ok "metrics writes them" eval 'tool metrics > "$TMP/metrics"'
is "say the same" "$(sed -n 's/^erofs_shared_saved_bytes //p' "$TMP/metrics")" "$saved"
is "of each image" "$(grep -c '^erofs_shared_mount_saved_bytes{' "$TMP/metrics")" 2
is "metrics leaves out mounts by --no-mounts" "$(tool metrics --no-mounts | grep -c '^erofs_shared_mount_')" 0

# --- images that are compared ------------------------------------------------------------------------------------------------

for name in one two; do
	ok "mount $name with verify=compare" at "$FSTYPE" "$D/$name.erofs" "/mnt/c$name" verify=compare
	cat "/mnt/c$name/sub/same-$name" "/mnt/c$name/alike" > /dev/null
done
ok "all that is equal is found" eval 'VERIFY=compare settled'
ok "status of images that are compared" json status
is "status knows how each mount is verified" "$(j '[m["verify"] for m in v["mounts"] if any(t.startswith("/mnt/c") for t in m["targets"])]')" "['compare', 'compare']"
is "how much was compared" "$(j 'v["totals"]["blocks_compared"]')" "$(cat $STATS/blocks_compared)"
ok "a file at least was compared" [ "$(cat $STATS/blocks_compared)" -ge 512 ]
ok "status has what the finder looked at, in what time" [ "$(j 'v["totals"]["finder_passes"] > 0 and v["finder_seconds"] > 0 and v["finder_share"] > 0')" = True ]
is "status says that nothing waits" "$(j 'v["waiting"] in (False, None)')" True
is "for people, too" "$(tool status | grep -c '^finder .* % of one since')" 1
is "the metrics say so" "$(tool metrics | sed -n 's/^erofs_shared_finder_blocks_total //p')" "$(cat $STATS/finder_blocks)"
away /mnt/cone /mnt/ctwo

# --- explain ---------------------------------------------------------------------------------------------------------------

ok "explain: what is the same" json explain /mnt/one/sub/same-one
if [ "$VERIFY" = digest ]; then
	is "is found in debugfs by its key" "$(j '(v["shareable"], v["now"]["sharers"], v["now"]["size"])')" "(True, 2, 2097152)"
else
	is "has a key that is secret, and others have its size" "$(j '(v["shareable"], v["key"], v["now"])')" "(True, None, None)"
fi
is "explain names the file of the other image" "$(j '[(p["path"], p["same"]) for p in v["peers"]]')" "[('/mnt/two/sub/same-two', True)]"
ok "explain: what is alike" json explain /mnt/one/alike
is "explain names the block that differs" "$(j '[(p["path"], p["differs_at"], p["same_blocks"]) for p in v["peers"]]')" "[('/mnt/two/alike', 1048576, 511)]"
ok "explain: what is alone" json explain /mnt/one/own
is "is with no other" "$(j '(v["peers"], v["now"])')" "([], None)"
ok "explain: an empty file" status 1 explain /mnt/one/empty
ok "explain: a directory" status 1 explain /mnt/one/sub
ok "explain: a file on ext4" status 1 explain "$D/one.erofs"
ok "explain: what is not there" status 2 explain /mnt/one/nothing

# --- containers --------------------------------------------------------------------------------------------------------------

B=/run/containerd/io.containerd.runtime.v2.task/k8s.io/0123abcd
mkdir -p "$B/rootfs" "$TMP/up" "$TMP/work"
cat > "$B/config.json" << 'END'
{ "annotations": { "io.kubernetes.cri.sandbox-namespace": "shop", "io.kubernetes.cri.sandbox-name": "till-0",
  "io.kubernetes.cri.container-name": "web" } }
END
modprobe overlay
mount -t overlay overlay "$B/rootfs" -o "lowerdir=/mnt/one:/mnt/two,upperdir=$TMP/up,workdir=$TMP/work"
MOUNTS+=("$B/rootfs")
ok "status with a container" json status
is "both images are its layers" "$(j '[m["containers"][0]["pod"] + "/" + m["containers"][0]["name"] for m in v["mounts"]]')" \
	"['shop/till-0/web', 'shop/till-0/web']"
ok "top by pods" json top --by pod
is "has the pod" "$(j '[(e["name"], e["images"]) for e in v["entries"]]')" "[('shop/till-0', 2)]"
ok "explain follows a file to its layer" json explain "$B/rootfs/sub/same-two"
is "that layer is the second image" "$(j '(v["layer_path"], v["shareable"])')" "('/mnt/two/sub/same-two', True)"
echo new > "$B/rootfs/own"
ok "explain: what the container changed" status 1 explain "$B/rootfs/own"
away "$B/rootfs"
rm -r "$B"

# --- doctor -------------------------------------------------------------------------------------------------------------------

mkdir -p /mnt/stacked
ok "an overlayfs is mounted" mount -t overlay overlay /mnt/stacked -o lowerdir=/mnt/one:/mnt/two
MOUNTS+=(/mnt/stacked)
json doctor "$D" /tmp /mnt/stacked /mnt/one
is "doctor: the module is loaded" "$(j '[f["level"] for f in v["findings"] if f["id"] == "loaded"]')" "['ok']"
is "an image can be in /tmp and on the disk, and not in overlayfs or an image that is a file" "$(j 'sorted((f["found"].split()[0].rstrip(":"), f["level"]) for f in v["findings"] if f["id"] == "filesystem")')" \
	"$(python3 -c 'import sys; print(sorted([("/mnt/one", "warning"), ("/mnt/stacked", "warning"), ("/tmp", "ok"), (sys.argv[1], "ok")]))' "$D")"
is "every problem has an advice" "$(j '[f["id"] for f in v["findings"] if f["level"] in ("warning", "error") and not f["advice"]]')" "[]"

away /mnt/stacked /mnt/two /mnt/one

# --- container images: what is estimated before they are there -----------------------------------------------------------------

ok "two images of ten layers each" layers.py /usr/lib/python3.13 "$TMP/made"
ok "estimate of both archives" json estimate "$TMP/made/one.tar" "$TMP/made/two.tar"
estimated=$(j 'v["total"]["no_sharing_bytes"] - v["total"]["blocks_bytes"]')
all=$(j 'v["total"]["no_sharing_bytes"]')
ok "bound of their layers' images" json bound "$TMP"/made/layers/*.erofs
is "has as many pages" "$(j 'v["total"]["pages"], v["total"]["blocks"]')" "($((all / 4096)), $(((all - estimated) / 4096)))"
cp "$TMP"/made/layers/*.erofs "$D/"
before=$(cat $STATS/bytes_saved)
layers=()
for file in "$TMP"/made/layers/*.erofs; do
	name=$(basename "$file" .erofs)
	at "$FSTYPE" "$D/$name.erofs" "/mnt/layers/$name" && layers+=("/mnt/layers/$name")
done
is "all layers are mounted" ${#layers[@]} 20
sync
drop
pages=$(cached)
# Each file once, not by its other name, too: what is used again is not taken apart (Documentation/sharing.md, "Merging").
find "${layers[@]}" -type f ! -name link -exec cat {} + > /dev/null
settled
saved=$(($(cat $STATS/bytes_saved) - before))
note "estimated $estimated of $all, saved $saved; page cache grew by $((($(cached) - pages) * 4096))"
ok "the estimate is what the kernel saves, within 2 %" [ $((saved * 100)) -ge $((estimated * 98)) -a $((saved * 100)) -le $((estimated * 102)) ]
ok "the images have much in common" [ $((estimated * 4)) -gt "$all" ]
away "${layers[@]}"
reloaded
no_complaint
finish
