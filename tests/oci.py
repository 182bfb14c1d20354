#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Make two container images, as OCI archives, of files that Debian packages installed in a tree.

  oci.py TREE DIR     DIR/python.tar and DIR/perl.tar; for each DIR/NAME.usr, NAME.etc and NAME.srv: records (scripts/manifest.py)
                      of what a container has there; DIR/many.tar: twelve small images, many-BASE-N, of which four each have a
                      base in common, and files /base and /number; DIR/layers: the layers of the two as containerd makes them,
                      NAME-0 lowest:
                      NAME-N.erofs (a copy of the tar's files), NAME-N.lz4.erofs (compressed), NAME-N.index.erofs (in blocks of
                      512 bytes over the tar, which follows in the same file)

The images have three layers each, the first in common:

  base       a shell, coreutils, the C library; files, links, owners, modes, an attribute in srv/base
  language   an interpreter and, in a file of another name each, the same 2 MiB
  app        a program; of srv/base it removes a file, hides what is in a directory, puts a file in place of a directory

Layers are put together here as directories, and what a container is to have is made of these by nothing but copying and removing.
"""

import gzip
import hashlib
import io
import json
import os
import random
import shutil
import stat
import subprocess
import sys
import tarfile
import uuid
from pathlib import Path

TIME = 1700000000
SKIP = ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "usr/share/bug", "usr/share/lintian",
        "usr/bin/dir", "usr/bin/vdir", *(f"usr/lib/x86_64-linux-gnu/{name}" for name in ("gconv", "libmvec.so.1", "libssl.so.3")))
BASE = """base-files libc6 coreutils dash bash grep libacl1 libattr1 libcap2 libgmp10 libselinux1 libpcre2-8-0 libssl3t64
    libtinfo6 libzstd1 zlib1g""".split()
# What overlayfs notes for itself, and the mark of a directory that shows nothing of those below
OVERLAYS_OWN = [f"trusted.overlay.{name}" for name in ("impure", "nlink", "opaque", "origin", "upper", "uuid")]
LANGUAGES = {
    "python": ["python3.13-minimal", "libpython3.13-minimal", "libexpat1"],
    "perl": ["perl-base", "libcrypt1"],
}
PROGRAMS = {
    "python": """import os, sys, time
if sys.argv[1] == "hello":
    print("python says hello from", open("/srv/base/keep").read().strip())
elif sys.argv[1] == "serve":
    n = 0
    while True:
        n += 1
        with open("/srv/ticks.new", "w") as f:
            f.write(f"{n}\\n")
        os.rename("/srv/ticks.new", "/srv/ticks")
        time.sleep(0.2)
""",
    "perl": """open my $f, "<", "/srv/base/keep" or die; my $line = <$f>; chomp $line;
print "perl says hello from $line\\n" if $ARGV[0] eq "hello";
""",
}


def put(path, text, mode=0o644, owner=(0, 0)):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    os.chown(path, *owner)
    path.chmod(mode)
    os.utime(path, (TIME, TIME))


def take(tree, packages, layer):
    """What the packages installed in the tree, into the layer."""
    for package in packages:
        info = tree / "var/lib/dpkg/info"
        lists = [f for f in (info / f"{package}.list", info / f"{package}:amd64.list") if f.exists()]
        if not lists:
            sys.exit(f"oci.py: {tree} has no package {package}")
        for name in lists[0].read_text().split("\n"):
            name = name.lstrip("/.")
            source, target = tree / name, layer / name
            if not name or any(name == skip or name.startswith(skip + "/") for skip in SKIP) or not os.path.lexists(source):
                continue
            if source.is_dir() and not source.is_symlink():
                target.mkdir(parents=True, exist_ok=True)
                target.chmod(stat.S_IMODE(source.stat().st_mode))
            elif not os.path.lexists(target):
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target, follow_symlinks=False)
                status = source.lstat()
                os.chown(target, status.st_uid, status.st_gid, follow_symlinks=False)
                if not source.is_symlink():
                    target.chmod(stat.S_IMODE(status.st_mode))


def base_layer(tree, layer):
    take(tree, BASE, layer)
    put(layer / "etc/passwd", "root:x:0:0:root:/root:/bin/bash\n")
    here = layer / "srv/base"
    put(here / "keep", "the common base\n", 0o600)
    put(here / "gone", "of the base only\n")
    put(here / "dir/a", "a\n" * 3000, 0o640, (1000, 1001))
    put(here / "dir/b", "")
    put(here / "gone-dir/file", "in a directory that goes\n")
    put(here / "hidden/old", "old\n")
    put(here / "replaced/file", "in a directory that a file replaces\n")
    put(here / "setuid", "#!/bin/sh\n", 0o4755)
    os.link(here / "setuid", here / "setuid-too")
    os.symlink("dir/a", here / "symlink")
    os.setxattr(here / "keep", "user.note", b"an attribute")
    os.mkfifo(here / "fifo")


def language_layer(tree, layer, name):
    take(tree, LANGUAGES[name], layer)
    put(layer / f"srv/{name}-data", random.Random(12).randbytes(2 << 20))


def app_layer(layer, name):
    """Returns (removed, opaque): what of the layers below goes, and which directories show nothing of them."""
    put(layer / "srv/app/main", PROGRAMS[name])
    put(layer / "srv/base/dir/a", "of the application\n")
    put(layer / "srv/base/hidden/new", "new\n")
    put(layer / "srv/base/replaced", "a file\n")
    return ["srv/base/gone", "srv/base/gone-dir"], ["srv/base/hidden"]


def remove(path):
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif os.path.lexists(path):
        path.unlink()


def apply(layer, removed, opaque, result):
    for name in removed:
        remove(result / name)
    for name in opaque:
        remove(result / name)
    for path in sorted(layer.rglob("*")):
        target = result / path.relative_to(layer)
        if not (path.is_dir() and not path.is_symlink()) or not target.is_dir():
            remove(target)
    # hard links, attributes and all
    subprocess.run(["cp", "-a", f"{layer}/.", str(result)], check=True)


def settle(top):
    """Whole seconds, as tar has them; the time of directories, which depends on how they were filled, is one for all."""
    for path in [top, *top.rglob("*")]:
        info = path.lstat()
        when = TIME if stat.S_ISDIR(info.st_mode) else int(info.st_mtime)
        os.utime(path, (when, when), follow_symlinks=False)


def pack(layer, out, removed=(), opaque=()):
    """
    Write a directory to the file `out` as a layer, in tar's format. What overlayfs marks as removed or opaque in it is marked as in
    OCI images, and so are the names in `removed` and the directories in `opaque`.
    """
    marks = {}
    for name in removed:
        marks.setdefault(os.path.dirname(name), []).append(f".wh.{os.path.basename(name)}")
    for name in opaque:
        marks.setdefault(name, []).append(".wh..wh..opq")
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(layer.rglob("*")):
            name, info = str(path.relative_to(layer)), path.lstat()
            if stat.S_ISCHR(info.st_mode) and info.st_rdev == 0:
                tar.addfile(tarfile.TarInfo(os.path.join(os.path.dirname(name), f".wh.{path.name}")))
                continue
            entry = tar.gettarinfo(path, name)
            entry.uname = entry.gname = ""
            entry.mtime = int(info.st_mtime)
            attributes = os.listxattr(path, follow_symlinks=False)
            for attribute in attributes:
                if attribute in OVERLAYS_OWN:
                    continue
                if attribute.startswith("trusted.overlay."):
                    sys.exit(f"oci.py: {path} has {attribute}, which OCI images have no mark for")
                value = os.getxattr(path, attribute, follow_symlinks=False)
                entry.pax_headers[f"SCHILY.xattr.{attribute}"] = value.decode(errors="surrogateescape")
            if entry.isreg():
                with open(path, "rb") as f:
                    tar.addfile(entry, f)
            else:
                tar.addfile(entry)
            if entry.isdir():
                if "trusted.overlay.opaque" in attributes:
                    marks.setdefault(name, []).append(".wh..wh..opq")
                for mark in marks.pop(name, ()):
                    tar.addfile(tarfile.TarInfo(f"{name}/{mark}"))
        assert not marks, marks


def packed(layer, removed=(), opaque=()):
    """The same, as bytes."""
    data = io.BytesIO()
    pack(layer, data, removed, opaque)
    return data.getvalue()


def archive(images, out):
    """images: {name: [(tar, compressed)]}"""
    blobs = {}

    def blob(data, kind, **more):
        digest = hashlib.sha256(data).hexdigest()
        blobs[digest] = data
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(data), **more}

    def image(name, layers):
        described = []
        for data, compressed in layers:
            kind = "application/vnd.oci.image.layer.v1.tar"
            described.append(blob(gzip.compress(data, 1, mtime=0), kind + "+gzip") if compressed else blob(data, kind))
        config = blob(json.dumps({
            "architecture": "amd64", "os": "linux", "config": {"Env": ["PATH=/usr/bin", "PYTHONDONTWRITEBYTECODE=1"], "Cmd": ["/bin/bash"], "WorkingDir": "/"},
            "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(d).hexdigest() for d, _ in layers]},
        }).encode(), "application/vnd.oci.image.config.v1+json")
        return blob(json.dumps({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": described,
        }).encode(), "application/vnd.oci.image.manifest.v1+json", annotations={
            "io.containerd.image.name": f"localhost/{name}:1", "org.opencontainers.image.ref.name": "1"})

    index = {"schemaVersion": 2, "manifests": [image(name, layers) for name, layers in images.items()]}
    with tarfile.open(out, "w") as tar:
        files = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": json.dumps(index).encode(),
                 **{f"blobs/sha256/{digest}": data for digest, data in blobs.items()}}
        for path, data in files.items():
            entry = tarfile.TarInfo(path)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))


def many(work):
    """Small images, some of them with a base in common."""
    def layer(name, text):
        put(work / f"{name}-{text}" / name, f"{text}\n")
        settle(work / f"{name}-{text}")
        return packed(work / f"{name}-{text}"), False

    # Two layers, since containerd 2.1 takes a loop device where there is one below.
    bases = {base: [layer("base", base), layer("more", base)] for base in "abc"}
    return {f"many-{base}-{number}": [*below, layer("number", f"{base}{number}")] for base, below in bases.items() for number in range(4)}


def layer_images(layers, name, out):
    """What containerd's differ makes of them (internal/erofsutils in its source), with the options that its documentation gives"""
    out.mkdir(exist_ok=True)
    for number, (data, _) in enumerate(layers):
        path, tar = out / f"{name}-{number}", out / "layer.tar"
        tar.write_bytes(data)
        for kind, options in (("", ["--tar=f"]), (".lz4", ["--tar=f", "-zlz4"]), (".index", ["--tar=i"])):
            image = f"{path}{kind}.erofs"
            block = ["-Enoinline_data", "-b4096", "-T0", "--mkfs-time"] if kind != ".index" else []
            # the stable release's mkfs.erofs has no --sort=none for all of these
            subprocess.run(["mkfs.erofs", *options, "--aufs", "--quiet", *block, "-U", str(uuid.uuid5(uuid.NAMESPACE_OID, image)),
                            image, str(tar)], check=True)
            if kind == ".index":
                with open(image, "ab") as f:
                    f.write(data)
        tar.unlink()


def main():
    tree, out = map(Path, sys.argv[1:])
    manifest = Path(__file__).resolve().parent.parent / "scripts/manifest.py"
    work = out / "work"
    shutil.rmtree(out, ignore_errors=True)
    base = work / "base"
    base.mkdir(parents=True)
    base_layer(tree, base)
    settle(base)
    packed_base = packed(base)
    for name in LANGUAGES:
        language, app, result = (work / name / part for part in ("language", "app", "result"))
        for path in (language, app, result):
            path.mkdir(parents=True)
        language_layer(tree, language, name)
        removed, opaque = app_layer(app, name)
        for layer in (language, app):
            settle(layer)
        apply(base, [], [], result)
        apply(language, [], [], result)
        apply(app, removed, opaque, result)
        # What sha256sum says of all files, for a container to check itself
        sums = "".join(f"{hashlib.sha256(p.read_bytes()).hexdigest()}  /{p.relative_to(result)}\n"
                       for p in sorted(result.rglob("*")) if p.is_file() and not p.is_symlink())
        for top in (app, result):
            put(top / "srv/SHA256SUMS", sums)
            os.utime(top / "srv/SHA256SUMS", (TIME, TIME))
            settle(top)
        layers = [(packed_base, False), (packed(language), False), (packed(app, removed, opaque), True)]
        archive({name: layers}, out / f"{name}.tar")
        layer_images(layers, name, out / "layers")
        for part in ("usr", "etc", "srv"):
            with open(out / f"{name}.{part}", "wb") as f:
                subprocess.run([sys.executable, str(manifest), "record", str(result / part)], check=True, stdout=f)
    archive(many(work), out / "many.tar")
    shutil.rmtree(work)


if __name__ == "__main__":
    main()
