// SPDX-License-Identifier: GPL-2.0

//! Mounted images, and the containers and pods that use them.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs, io,
    path::{Path, PathBuf},
};

use schemars::JsonSchema;
use serde::Serialize;

use crate::system::{display, Figures, MountInfo, System};

/// A container, as containerd keeps it.
#[derive(Clone, Debug, JsonSchema, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Container {
    /// containerd's namespace: `k8s.io` for Kubernetes.
    pub namespace: String,
    pub id: String,
    /// `NAMESPACE/NAME` of its pod, when Kubernetes runs it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// The name of the container in its pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl Container {
    /// For people.
    pub fn label(&self) -> String {
        match (&self.pod, &self.name) {
            (Some(pod), Some(name)) => format!("{pod}/{name}"),
            (Some(pod), None) => pod.clone(),
            _ => format!("{}/{}", self.namespace, self.id),
        }
    }
}

/// How files of a mount are shared, by its options.
#[derive(Clone, Copy, Debug, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Share {
    Content,
    Fingerprint,
    Off,
}

/// How it is verified that blocks of a mount are those that are shared.
#[derive(Clone, Copy, Debug, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verify {
    Digest,
    Compare,
}

/// A mounted image.
#[derive(Clone, Debug, JsonSchema, Serialize)]
pub struct Mount {
    /// The device number that stat(2) shows for its files.
    pub device: String,
    /// The image's file or block device; null when nothing in this mount namespace shows it.
    pub image: Option<String>,
    /// The type that it was mounted as: `erofs-shared` or `erofs`.
    pub fstype: Option<String>,
    /// Where it is mounted.
    pub targets: Vec<String>,
    /// How its files are shared; null when its options cannot be seen.
    pub share: Option<Share>,
    /// Whether single blocks are shared, too.
    pub share_blocks: Option<bool>,
    /// How its blocks are verified; null when its options cannot be seen, or `share` is not
    /// `content`.
    pub verify: Option<Verify>,
    /// Whether the image is read past its own page cache; null when its options cannot be seen, or
    /// the module decides by itself.
    pub directio: Option<bool>,
    /// Containers that have it as a layer.
    pub containers: Vec<Container>,
    #[serde(flatten)]
    pub figures: Figures,
}

impl Mount {
    /// What to call it.
    pub fn label(&self) -> String {
        self.image.clone().unwrap_or_else(|| self.device.clone())
    }

    /// Whether a loop device is between the image and its mount.
    pub fn by_loop(&self) -> bool {
        let image = self.image.as_deref();
        image.is_some_and(|image| image.starts_with("/dev/loop"))
    }
}

/// Images that are mounted as `erofs`, and not by this module.
pub fn foreign_mounts(system: &System) -> io::Result<u64> {
    let infos = system.mountinfo()?;
    let erofs = infos.iter().filter(|info| info.fstype == "erofs");
    let devices: HashSet<&str> = erofs.map(|info| info.device.as_str()).collect();
    let foreign = devices.into_iter().filter(|device| !ours(system, device));
    Ok(foreign.count() as u64)
}

/// How files are shared in a mount with these options.
pub fn share(info: &MountInfo) -> Share {
    match info.option("share") {
        Some("off") => Share::Off,
        Some("fingerprint") => Share::Fingerprint,
        _ if info.option("inode_share").is_some() => Share::Fingerprint,
        _ => Share::Content,
    }
}

/// Whether the image of a mount with these options is read past its own page cache. Without an
/// option it is what the parameter says, which may have been changed since; `None` if that is not
/// known.
pub fn directio(info: &MountInfo, parameter: &str) -> Option<bool> {
    if info.option("directio").is_some() {
        return Some(true);
    }
    match parameter {
        _ if info.option("nodirectio").is_some() => Some(false),
        "Y" => Some(true),
        "N" => Some(false),
        _ => None,
    }
}

/// How blocks are verified in a mount with these options, if it shares by content.
pub fn verify(info: &MountInfo) -> Option<Verify> {
    let hashes = info.option("verify") == Some("digest");
    match share(info) {
        Share::Content if hashes => Some(Verify::Digest),
        Share::Content => Some(Verify::Compare),
        Share::Fingerprint | Share::Off => None,
    }
}

/// `…/io.containerd.runtime.v2.task/NAMESPACE/ID/rootfs`
fn container(system: &System, target: &Path) -> Option<Container> {
    let bundle = target.parent()?;
    if target.file_name()? != "rootfs" {
        return None;
    }
    let id = bundle.file_name()?.to_string_lossy().into_owned();
    let above = bundle.parent()?;
    let namespace = above.file_name()?.to_string_lossy().into_owned();
    if above.parent()?.file_name()? != "io.containerd.runtime.v2.task" {
        return None;
    }
    let mut container = Container {
        namespace,
        id,
        pod: None,
        name: None,
    };
    // The OCI configuration has what Kubernetes calls it; the bundle is seen through the first process.
    let inside = bundle.strip_prefix("/").unwrap_or(bundle);
    let config = fs::read(
        system
            .procfs
            .join("1/root")
            .join(inside)
            .join("config.json"),
    )
    .or_else(|_| fs::read(bundle.join("config.json")));
    if let Some(config) = config
        .ok()
        .and_then(|raw| serde_json::from_slice::<serde_json::Value>(&raw).ok())
    {
        let annotation = |name: &str| {
            let value = config.get("annotations")?.get(name)?;
            value.as_str().map(str::to_owned)
        };
        let namespace = annotation("io.kubernetes.cri.sandbox-namespace");
        let name = annotation("io.kubernetes.cri.sandbox-name");
        container.pod = namespace.zip(name).map(|(ns, name)| format!("{ns}/{name}"));
        container.name = annotation("io.kubernetes.cri.container-name");
    }
    Some(container)
}

/// Containers by the device numbers of the layers that they use.
fn containers(system: &System, infos: &[MountInfo]) -> HashMap<String, Vec<Container>> {
    let by_target: HashMap<&Path, &MountInfo> = infos
        .iter()
        .map(|info| (info.target.as_path(), info))
        .collect();
    let mut found: HashMap<String, Vec<Container>> = HashMap::new();
    for info in infos {
        let Some(container) = container(system, &info.target) else {
            continue;
        };
        let mut devices = vec![info.device.clone()];
        if info.fstype == "overlay" {
            let lower = info.options("lowerdir").flat_map(|dirs| dirs.split(':'));
            let lower = lower.chain(info.options("lowerdir+"));
            devices = lower
                .filter_map(|dir| by_target.get(Path::new(dir)))
                .map(|info| info.device.clone())
                .collect();
        }
        for device in devices {
            found.entry(device).or_default().push(container.clone());
        }
    }
    for containers in found.values_mut() {
        containers.sort();
        containers.dedup();
    }
    found
}

/// All images that the module has mounted, in the order of their device numbers.
pub fn mounts(system: &System) -> io::Result<Vec<Mount>> {
    let infos = system.mountinfo()?;
    let mut containers = containers(system, &infos);
    let mut by_device: BTreeMap<&str, Vec<&MountInfo>> = BTreeMap::new();
    for info in &infos {
        by_device.entry(&info.device).or_default().push(info);
    }
    let parameter = system.parameter("directio").unwrap_or_default();
    let describe = |(device, figures): (String, Figures)| {
        let seen = by_device
            .get(device.as_str())
            .map_or(&[][..], Vec::as_slice);
        // A directory of it that is mounted elsewhere comes behind the whole.
        let info = seen
            .iter()
            .find(|info| info.root == Path::new("/"))
            .or(seen.first());
        Mount {
            image: info.map(|info| display(&info.source)),
            fstype: info.map(|info| info.fstype.clone()),
            targets: seen.iter().map(|info| display(&info.target)).collect(),
            share: info.map(|info| share(info)),
            share_blocks: info.map(|info| {
                share(info) == Share::Content && info.option("share_blocks") != Some("off")
            }),
            verify: info.and_then(|info| verify(info)),
            directio: info.and_then(|info| directio(info, &parameter)),
            containers: containers.remove(&device).unwrap_or_default(),
            figures,
            device,
        }
    };
    Ok(system.mounts()?.into_iter().map(describe).collect())
}

/// The mount that a path is in: the longest target above it with the same device number.
pub fn mount_of<'m>(infos: &'m [MountInfo], path: &Path, device: &str) -> Option<&'m MountInfo> {
    infos
        .iter()
        .filter(|info| info.device == device && path.starts_with(&info.target))
        .max_by_key(|info| info.target.as_os_str().len())
}

/// Whether a mount is this module's: its device number is in the module's own list.
pub fn ours(system: &System, device: &str) -> bool {
    system.dir().join("mounts").join(device).is_dir()
}

/// `MAJOR:MINOR` of a device number of stat(2).
pub fn device_text(dev: u64) -> String {
    format!("{}:{}", rustix::fs::major(dev), rustix::fs::minor(dev))
}

/// The path of a file in its image, of the mount that it is in.
pub fn inside(info: &MountInfo, path: &Path) -> Option<PathBuf> {
    let below = path.strip_prefix(&info.target).ok()?;
    Some(if below.as_os_str().is_empty() {
        info.root.clone()
    } else {
        info.root.join(below)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::parse_mountinfo;

    #[test]
    fn past_the_page_cache() {
        let of = |options: &str, parameter: &str| {
            let line = format!("30 1 7:0 / /mnt ro - erofs-shared /a ro{options}\n");
            directio(&parse_mountinfo(line.as_bytes())[0], parameter)
        };
        assert_eq!(of(",directio", "N"), Some(true));
        assert_eq!(of(",nodirectio", "Y"), Some(false));
        assert_eq!(of("", "N"), Some(false));
        assert_eq!(of("", "Y"), Some(true));
        assert_eq!(of("", ""), None);
    }
}
