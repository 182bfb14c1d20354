#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# tests/packages.sh: builds the Debian packages, signed by a key made for it, and checks what is in them and beside them. No part of make
# test; needs "make deb" to work. The last line is "N passed, N failed".

set -u
cd "$(dirname "$0")/.." || exit
# shellcheck source=scripts/versions
. scripts/versions
T=build/packaging/test
D=build/deb
dist=tools/dist
passed=0 failed=0

# ok TITLE COMMAND...
ok() {
	local title=$1
	shift
	if "$@" > "$T/said" 2>&1; then
		echo "ok: $title"
		passed=$((passed + 1))
	else
		echo "FAILED: $title"
		tail -n 20 "$T/said"
		failed=$((failed + 1))
	fi
}
# is TITLE GOT WANTED
is() { ok "$1" test "$2" = "$3"; [ "$2" = "$3" ] || printf 'got:      %s\nexpected: %s\n' "$2" "$3"; }
debian() { scripts/in-debian "$@"; }

rm -rf "$T" && mkdir -p "$T" || exit
debian openssl req -new -x509 -newkey rsa:2048 -nodes -days 2 -subj '/CN=packages test/' \
	-addext extendedKeyUsage=codeSigning -keyout "$T/key.pem" -out "$T/cert.pem" 2> /dev/null
ok "make deb, lintian is content" make deb SIGN_KEY="$T/key.pem" SIGN_CERT="$T/cert.pem"

# --- packages ------------------------------------------------------------------------------------------------------------

is "there are three" "$(cd $D && for deb in *.deb; do echo "${deb%%_*}"; done | sort | xargs)" \
	"erofs-shared erofs-shared-dkms erofs-shared-modules-$KERNEL_RELEASE"
for package in erofs-shared erofs-shared-dkms "erofs-shared-modules-$KERNEL_RELEASE"; do
	ok "$package unpacks" dpkg-deb -x $D/"$package"_*.deb "$T/$package"
done
tool=$T/erofs-shared modules=$T/erofs-shared-modules-$KERNEL_RELEASE dkms=$T/erofs-shared-dkms
ko=usr/lib/modules/$KERNEL_RELEASE/updates/erofs_shared.ko
info() { debian modinfo -F "$1" "$modules/$ko"; }
is "the module is for the pinned kernel" "$(info vermagic | cut -d' ' -f1)" "$KERNEL_RELEASE"
is "and signed by the key" "$(info signer)" "packages test"
is "with its licence" "$(info license)" GPL
is "and parameters" "$(info parm | cut -d: -f1 | sort | xargs)" "charge directio domain_id finder_cpu finder_delay register_erofs share verify"
ok "the package runs depmod" eval "dpkg-deb --ctrl-tarfile $D/erofs-shared-modules-*.deb | tar -xO ./postinst | grep -q 'depmod $KERNEL_RELEASE'"

# As the page tells an operator to write them
operator_file() { sed 's/^       //; t; s/^ *$//; t; s/^.*$/END/' Documentation/containers.md | sed -n "/^# ${1//\//\\/}\$/,/^END/{/^END/!p}" | grep -v '^# /etc' | sed '/^$/d'; }
for file in modprobe.d modules-load.d; do
	is "$file is that of containers.md" "$(sed '/^$/d' "$tool/usr/lib/$file/erofs-shared.conf")" "$(operator_file "/etc/$file/erofs-shared.conf")"
done
for command in status top doctor estimate explain verify prewarm prewarm-record prewarm-replay metrics dump check bound; do
	ok "manual page of $command" eval "zcat $tool/usr/share/man/man8/erofs-shared-$command.8.gz | grep -q '^.TH erofs-shared-$command'"
done
ok "bash reads the completion" bash -n "$tool/usr/share/bash-completion/completions/erofs-shared"
is "DKMS' sources are these" "$(cd "$dkms"/usr/src/erofs-shared-*/ && find src include Kbuild -type f -exec sha256sum {} + | sort -k2)" \
	"$(git ls-files src include Kbuild | xargs sha256sum | sort -k2)"
is "what is missing for DKMS is told" "$(debian "$dkms"/usr/src/erofs-shared-*/dkms-build 7.3.0-none /nonexistent 2>&1)" \
	"erofs-shared: no configuration of 7.3.0-none: apt install linux-headers-7.3.0-none"
mkdir "$T/headers"
echo '# CONFIG_RUST is not set' > "$T/headers/.config"
ok "a kernel without Rust is passed over" eval "debian $dkms/usr/src/erofs-shared-*/dkms-build 6.12.0 $T/headers; [ \$? = 77 ]"

# --- metrics -------------------------------------------------------------------------------------------------------------

promtool=build/packaging/tools/usr/bin/promtool
program=$tool/usr/bin/erofs-shared
# The figures of a module, as sysfs has them
sys=$T/sys/fs/erofs-shared
mkdir -p "$sys/stats" "$sys/mounts/7:0" "$sys/features" "$T/proc/self"
grep -oE '/stats/[a-z_]+$' Documentation/ABI/testing/sysfs-fs-erofs-shared | while read -r name; do echo 4096 > "$sys/stats/${name##*/}"; done
grep -oE '>/[a-z_]+$' Documentation/ABI/testing/sysfs-fs-erofs-shared | while read -r name; do echo 4096 > "$sys/mounts/7:0/${name##*/}"; done
cat > "$T/proc/self/mountinfo" << 'END'
30 1 7:0 / /mnt/a ro - erofs /srv/a"b.erofs ro
31 1 0:50 / /run/containerd/io.containerd.runtime.v2.task/k8s.io/c0ffee/rootfs rw - overlay overlay rw,lowerdir=/mnt/a,upperdir=/u
END
metrics() { debian "$program" metrics --sysfs "$T/sys" --procfs "$T/proc"; }
metrics > "$T/metrics"
ok "promtool check metrics" eval "debian $promtool check metrics < $T/metrics"
ok "of an image and a container, too" eval "grep -q '^erofs_shared_container_layer_info{' $T/metrics && grep -q '^erofs_shared_mount_saved_bytes{' $T/metrics"
ok "promtool check metrics without the module" eval "debian $program metrics --sysfs /nonexistent | debian $promtool check metrics"
ok "promtool check rules" debian $promtool check rules $dist/prometheus/erofs-shared.rules.yml
ok "promtool test rules" debian sh -c "cd $dist/prometheus && $PWD/$promtool test rules erofs-shared.rules.test.yml"
names() { grep -ohE 'erofs_shared_[a-z_]+' "$@" | sort -u; }
sed -n 's/^# TYPE \([a-z_]*\) .*/\1/p' "$T/metrics" | sort > "$T/have"
for file in $dist/prometheus/erofs-shared.rules.yml $dist/grafana/erofs-shared.json; do
	is "${file##*/} names metrics that there are" "$(names $file | comm -13 "$T/have" - | xargs)" ""
done
# Of several that begin alike, the page has {a,b}, or the ends only.
is "metrics.md has each" "$(python3 -c "
import re, sys
page = re.sub(r'([a-z_]+)\\{([a-z,]+)\\}([a-z_]*)', lambda m: ' '.join(m[1] + x + m[3] for x in m[2].split(',')), open('Documentation/metrics.md').read())
for name in open('$T/have').read().split():
    ends = [name] + [name[i:] for i in range(len('erofs_shared'), len(name)) if name[i] == '_']
    if not any(re.search(r'(?<![a-z])' + end + r'(?![a-z_])', page) for end in ends): print(name)" | xargs)" ""
ok "the dashboard has panels with queries" python3 -c "
import json
panels = json.load(open('$dist/grafana/erofs-shared.json'))['panels']
assert len({p['id'] for p in panels}) == len(panels) == 11
assert all(t['expr'] and t['refId'] for p in panels for t in p['targets'])"

# --- Kubernetes ----------------------------------------------------------------------------------------------------------

is "kubectl makes the Kubernetes files one" "$(debian build/packaging/tools/usr/bin/kubectl kustomize $dist/kubernetes | grep '^kind:' | sort | xargs)" \
	"kind: DaemonSet kind: Module kind: Namespace kind: NodeFeatureRule kind: RuntimeClass"
# It has Kubernetes' own schemas of its release 1.37. Those of the operators' resources it has not.
validator() {
	debian python3 -m venv $T/python && debian $T/python/bin/pip --quiet install kubernetes-validate==1.37.0
}
ok "Kubernetes' schemas can be had" validator
for file in daemonset runtimeclass; do
	ok "$file.yaml is as Kubernetes' schema wants it" debian $T/python/bin/kubernetes-validate --strict $dist/kubernetes/$file.yaml
done
sed 's/containerPort: /containerPort: x/' $dist/kubernetes/daemonset.yaml > "$T/wrong.yaml"
ok "which a wrong port is not" eval '! debian $T/python/bin/kubernetes-validate --strict "$T/wrong.yaml"'
ok "every node label that is selected is one that a rule sets or Kubernetes has" debian python3 -c "
import glob, yaml
docs = [d for f in glob.glob('$dist/kubernetes/*.yaml') for d in yaml.safe_load_all(open(f))]
kind = {d['kind']: d for d in docs}
own = {l for r in kind['NodeFeatureRule']['spec']['rules'] for l in r['labels']}
pod = kind['DaemonSet']['spec']['template']
used = [*pod['spec']['nodeSelector'], *kind['RuntimeClass']['scheduling']['nodeSelector'], *kind['Module']['spec']['selector']]
assert all(l in own or l.startswith(('kubernetes.io/', 'feature.node.kubernetes.io/kernel-config.')) for l in used), used
assert kind['DaemonSet']['spec']['selector']['matchLabels'].items() <= pod['metadata']['labels'].items()
assert kind['Module']['spec']['moduleLoader']['container']['kernelMappings'][0]['literal'] == '$KERNEL_RELEASE'
mounts = {m['name'] for c in pod['spec']['containers'] for m in c['volumeMounts']}
assert mounts == {v['name'] for v in pod['spec']['volumes']}"
ok "containerd's part is TOML" debian python3 -c "
import tomllib
config = tomllib.load(open('$dist/kubernetes/containerd-runtime.toml', 'rb'))
assert config['version'] == 3
runtime = config['plugins']['io.containerd.cri.v1.runtime']['containerd']['runtimes']
assert 'erofs-shared' in runtime and runtime['erofs-shared']['snapshotter'] == 'erofs'"

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
