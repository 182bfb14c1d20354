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
is "and parameters" "$(info parm | cut -d: -f1 | sort | xargs)" "charge directio domain_id finder_cpu finder_delay finder_memory register_erofs reuse_delay share verify"
is "DKMS, which would move it away, is not installed beside it" "$(dpkg-deb -f $D/erofs-shared-modules-*.deb Conflicts)" erofs-shared-dkms
ok "the package runs depmod" eval "dpkg-deb --ctrl-tarfile $D/erofs-shared-modules-*.deb | tar -xO ./postinst | grep -q 'depmod $KERNEL_RELEASE'"

# As the page tells an operator to write them
# shellcheck source=tests/containerd.sh
. tests/containerd.sh
PROJECT=.
page_lines() { page_file "$1" | grep -v '^# /etc' | sed '/^$/d'; }
for file in modprobe.d modules-load.d; do
	is "$file is that of containers.md" "$(sed '/^$/d' "$tool/usr/lib/$file/erofs-shared.conf")" "$(page_lines "/etc/$file/erofs-shared.conf")"
done
# Pages, and what of them others name
doc=$tool/usr/share/doc/erofs-shared
for page in README.md Documentation/packages.md; do
	is "$page installs the kernel that the module is for" "$(grep -oE 'linux-image-[0-9][^ ]*' $page | sort -u)" "linux-image-$KERNEL_RELEASE"
done
is "links of the pages lead to pages" "$(python3 -c "
import re, sys
from pathlib import Path
for page in [*Path('$doc').glob('*.md'), *Path('$doc').rglob('*.rst')]:
    for link in re.findall(r'\]\(([^)\s]+)\)' if page.suffix == '.md' else r'<([^<>\s]+)>\x60_', page.read_text()):
        if not re.match(r'[a-z]+:|#', link) and not (page.parent / link.split('#')[0]).exists(): print(page.name, link)" | xargs)" ""
is "the sysfs files are described, too" "$(cd "$doc" && find ABI -type f | sort | xargs)" "$(cd Documentation && find ABI -type f | sort | xargs)"
for page in operations.rst filesystems/erofs-shared.rst; do
	ok "$page is there" cmp "$doc/$page" Documentation/$page
done
named=$(grep -ohE 'file:///usr/share/doc/[^ ]+' "$tool"/usr/lib/systemd/system/* | sed 's,^file://,,'
	grep -rohE '[{]PAGES[}]/[a-z./-]+' tools/erofs-shared/src | sed 's,^[{]PAGES[}],/usr/share/doc/erofs-shared,')
is "pages that units and the tool name are there" "$(sort -u <<< "$named" | while read -r page; do [ -e "$tool$page" ] || echo "$page"; done | xargs)" ""
is "every manual page that a unit names" "$(grep -ohE 'man:[^ ]+' "$tool"/usr/lib/systemd/system/* | sort -u | sed 's/^man:\(.*\)(8)$/\1/' |
	while read -r page; do [ -e "$tool/usr/share/man/man8/$page.8.gz" ] || echo "$page"; done)" ""
ok "manual page of mount.erofs-shared" eval "zcat $tool/usr/share/man/man8/mount.erofs-shared.8.gz | cmp - Documentation/man/mount.erofs-shared.8"
crates=$doc/crates.copyright
for crate in clap serde tar zstd-sys; do
	ok "the licence of $crate is there" grep -q "^$crate [0-9]" "$crates"
done
is "the licences are those that debian/copyright names" "$(sed -n 's/^[a-z0-9_-]* [0-9][^ ]* (\(.*\))$/\1/p' "$crates" | sed 's, OR \| AND \| WITH LLVM-exception\| */ *,\n,g' | sort -u |
	while read -r licence; do grep -qE "[ ,]${licence//./\\.}([,.]| and |\$)" debian/copyright || echo "$licence"; done | xargs)" ""
ok "the text of MIT is there" grep -q 'Permission is hereby granted, free of charge' "$crates"
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
# What a schema does not know is lost when it is read and written.
schemas() { debian python3 -m venv $T/python && debian $T/python/bin/pip --quiet install "kubernetes-validate==$KUBERNETES_VALIDATE" "grafana-foundation-sdk==$GRAFANA_SDK"; }
ok "the schemas of Grafana and Kubernetes can be had" schemas
cat > $T/dashboard.py << 'END'
import json, sys
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard, prometheus

def lost(a, b, path=""):
    if isinstance(a, dict) and isinstance(b, dict):
        return [x for key in a for x in (lost(a[key], b[key], f"{path}/{key}") if key in b else [f"{path}/{key}"])]
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        return [x for i, pair in enumerate(zip(a, b)) for x in lost(*pair, f"{path}/{i}")]
    return [] if a == b else [path]

plugins.register_default_plugins()
have = json.load(sys.stdin)
read = dashboard.Dashboard.from_json(have)
assert all(isinstance(target, prometheus.Dataquery) for panel in read.panels for target in panel.targets)
print(*lost(have, json.loads(JSONEncoder().encode(read))))
END
dashboard() { debian $T/python/bin/python $T/dashboard.py 2>&1; }
is "Grafana's schema knows all of the dashboard" "$(dashboard < $dist/grafana/erofs-shared.json)" ""
is "which a wrong name it does not" "$(sed '0,/"legendFormat"/s//"legendFormt"/' $dist/grafana/erofs-shared.json | dashboard)" /panels/0/targets/0/legendFormt

# --- Kubernetes ----------------------------------------------------------------------------------------------------------

is "kubectl makes the Kubernetes files one" "$(debian build/packaging/tools/usr/bin/kubectl kustomize $dist/kubernetes | grep '^kind:' | sort | xargs)" \
	"kind: DaemonSet kind: Module kind: Namespace kind: NodeFeatureRule kind: RuntimeClass"
# It has Kubernetes' own schemas of its release 1.37. Those of the operators' resources it has not.
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
{
	echo 'version = 3'
	echo "imports = ['$PWD/$dist/kubernetes/containerd-runtime.toml']"
	page_lines /etc/containerd/config.toml | grep -v '^version'
} > "$T/config.toml"
ok "containerd reads the page's configuration with Kubernetes' part" \
	eval "debian build/packaging/tools/usr/bin/containerd --config $T/config.toml config dump > $T/config"
ok "and has taken all of that" debian python3 -c "
import tomllib
part, config = (tomllib.load(open(name, 'rb')) for name in ('$dist/kubernetes/containerd-runtime.toml', '$T/config'))
def check(a, b, path):
    for key in a:
        assert key in b, f'{path}/{key}'
        check(a[key], b[key], f'{path}/{key}') if isinstance(a[key], dict) else None
        assert isinstance(a[key], dict) or a[key] == b[key], f'{path}/{key}: {b[key]}'
check(part, config, '')
assert config['plugins']['io.containerd.cri.v1.runtime']['containerd']['runtimes']['erofs-shared']['snapshotter'] == 'erofs'
assert config['plugins']['io.containerd.snapshotter.v1.erofs'] is not None"

# Node Feature Discovery: lines of NAME=VALUE, each a label
feature() { SYSFS=$T/sys PROCFS=$T/proc "$tool/usr/libexec/erofs-shared/feature-file" "$1" "$T/features.d"; }
features() { ls -A "$T/features.d"; cat "$T"/features.d/* 2> /dev/null; }
mkdir -p "$T/features.d" "$T/sys/module"
printf 'nodev\tproc\n\terofs-shared\n\terofs\n' > "$T/proc/filesystems"
ok "the feature file is not written without the module" feature write
is "there is none" "$(features)" ""
mkdir "$T/sys/module/erofs_shared" && echo 0.1.0 > "$T/sys/module/erofs_shared/version"
ok "it is written with the module" feature write
label=feature.node.kubernetes.io/erofs-shared
is "and has these lines" "$(features)" "$(printf '%s\n' erofs-shared $label=true $label.version=0.1.0 $label.erofs=true)"
is "which are labels as Kubernetes wants them" "$(features | grep -E '=' | grep -vxE '[a-z0-9.-]+/[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?=[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?')" ""
mkdir "$T/sys/module/erofs"
ok "with the kernel's own erofs it is written again" feature write
is "and does not have that name" "$(features | grep -c 'shared.erofs=')" 0
ok "it is removed" feature remove
is "nothing is left" "$(features)" ""
ok "the rule sets the label that the file does" grep -q "^ *$label: \"true\"" $dist/kubernetes/nfd-rule.yaml

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
