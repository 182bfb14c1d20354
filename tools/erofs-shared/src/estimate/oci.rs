// SPDX-License-Identifier: GPL-2.0

//! Container images: OCI layouts, archives of them, and what `docker save` writes.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use serde::{de::DeserializeOwned, Deserialize};

/// Bytes in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    pub file: PathBuf,
    pub offset: u64,
    pub len: u64,
    /// The digest that it is to have, in hexadecimal; what is read is verified.
    pub sha256: Option<String>,
}

impl Blob {
    /// Opens it.
    pub fn open(&self) -> io::Result<io::Take<File>> {
        let mut file = File::open(&self.file)?;
        file.seek(SeekFrom::Start(self.offset))?;
        Ok(file.take(self.len))
    }
}

/// A container image.
#[derive(Debug)]
pub struct Image {
    pub name: Option<String>,
    /// Digest (or name) and place of each layer, lowest first.
    pub layers: Vec<(String, Blob)>,
}

/// Manifests that point to manifests deeper than this are no real ones.
const DEPTH: usize = 4;
/// A manifest is not larger.
const MANIFEST_MAX: u64 = 16 << 20;

#[derive(Deserialize)]
struct Descriptor {
    #[serde(rename = "mediaType", default)]
    media_type: String,
    digest: String,
    size: Option<u64>,
    platform: Option<Platform>,
    #[serde(default)]
    annotations: HashMap<String, String>,
}

#[derive(Deserialize)]
struct Platform {
    os: String,
    architecture: String,
}

/// An index or a manifest: what it has tells.
#[derive(Deserialize)]
struct Manifest {
    manifests: Option<Vec<Descriptor>>,
    layers: Option<Vec<Descriptor>>,
}

/// `manifest.json` of `docker save`
#[derive(Deserialize)]
struct Saved {
    #[serde(rename = "RepoTags")]
    tags: Option<Vec<String>>,
    /// An image without layers may have null.
    #[serde(rename = "Layers")]
    layers: Option<Vec<String>>,
}

/// Where the files of a layout are.
enum Store {
    Directory(PathBuf),
    Archive(HashMap<String, Blob>),
}

pub(super) fn bad(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

impl Store {
    fn find(&self, name: &str) -> io::Result<Blob> {
        match self {
            Store::Directory(dir) => {
                // Digests are checked by their caller; names in manifest.json are not.
                if Path::new(name)
                    .components()
                    .any(|part| !matches!(part, std::path::Component::Normal(_)))
                {
                    return Err(bad(format!("bad name {name:?}")));
                }
                let file = dir.join(name);
                let meta = fs::metadata(&file)
                    .map_err(|err| io::Error::new(err.kind(), format!("{name}: {err}")))?;
                // A pipe would be waited for.
                if !meta.is_file() {
                    return Err(bad(format!("{name} is no regular file")));
                }
                Ok(Blob {
                    file,
                    offset: 0,
                    len: meta.len(),
                    sha256: None,
                })
            }
            Store::Archive(files) => files.get(name).cloned().ok_or_else(|| {
                io::Error::new(io::ErrorKind::NotFound, format!("{name} is missing"))
            }),
        }
    }

    fn json<T: DeserializeOwned>(&self, name: &str) -> io::Result<T> {
        Self::parse(name, &self.find(name)?)
    }

    fn parse<T: DeserializeOwned>(name: &str, blob: &Blob) -> io::Result<T> {
        if blob.len > MANIFEST_MAX {
            return Err(bad(format!("{name} is too large for a manifest")));
        }
        serde_json::from_reader(io::BufReader::new(blob.open()?))
            .map_err(|err| bad(format!("{name}: {err}")))
    }

    /// What a descriptor is of.
    fn described(&self, descriptor: &Descriptor) -> io::Result<Blob> {
        let digest = &descriptor.digest;
        let mut blob = self.find(&Self::blob(digest)?)?;
        blob.sha256 = digest.strip_prefix("sha256:").map(str::to_lowercase);
        // Some programs state a wrong size of what has its digest.
        match descriptor.size {
            Some(size) if blob.sha256.is_none() && size != blob.len => {
                let what = format!("{digest}: it has {} bytes in place of {size}", blob.len);
                Err(bad(what))
            }
            _ => Ok(blob),
        }
    }

    fn blob(digest: &str) -> io::Result<String> {
        let good = digest.split_once(':').filter(|(algorithm, hex)| {
            !algorithm.is_empty()
                && !hex.is_empty()
                && algorithm.bytes().all(|byte| byte.is_ascii_alphanumeric())
                && hex.bytes().all(|byte| byte.is_ascii_hexdigit())
        });
        match good {
            Some((algorithm, hex)) => Ok(format!("blobs/{algorithm}/{hex}")),
            None => Err(bad(format!("bad digest {digest:?}"))),
        }
    }

    /// Images below an index.
    fn index(
        &self,
        all: Vec<Descriptor>,
        name: Option<&str>,
        platform: &(String, String),
        depth: usize,
        out: &mut Vec<Image>,
    ) -> io::Result<()> {
        if depth > DEPTH {
            return Err(bad("indexes are nested too deeply"));
        }
        for descriptor in all {
            // Others are for other machines, or attestations.
            if let Some(stated) = &descriptor.platform {
                if (&stated.os, &stated.architecture) != (&platform.0, &platform.1) {
                    continue;
                }
            }
            let own = [
                "io.containerd.image.name",
                "org.opencontainers.image.ref.name",
            ]
            .iter()
            .find_map(|key| descriptor.annotations.get(*key));
            let name = own.map(String::as_str).or(name);
            let blob = self.described(&descriptor)?;
            let manifest: Manifest = Self::parse(&descriptor.digest, &blob)?;
            match (manifest.manifests, manifest.layers) {
                (Some(all), _) => self.index(all, name, platform, depth + 1, out)?,
                (None, Some(layers)) => {
                    let layers = layers.into_iter().map(|layer| {
                        let blob = self.described(&layer)?;
                        Ok((layer.digest, blob))
                    });
                    out.push(Image {
                        name: name.map(str::to_owned),
                        layers: layers.collect::<io::Result<_>>()?,
                    });
                }
                (None, None) => {
                    let what = format!(
                        "{}: neither an index nor a manifest ({})",
                        descriptor.digest, descriptor.media_type
                    );
                    return Err(bad(what));
                }
            }
        }
        Ok(())
    }

    fn images(&self, platform: &(String, String)) -> io::Result<Vec<Image>> {
        let mut images = Vec::new();
        match self.json::<Manifest>("index.json") {
            Ok(index) => {
                let all = index
                    .manifests
                    .ok_or_else(|| bad("index.json lists no manifests"))?;
                self.index(all, None, platform, 0, &mut images)?;
            }
            Err(err) if err.kind() == io::ErrorKind::NotFound => {
                for saved in self.json::<Vec<Saved>>("manifest.json")? {
                    let layers = saved.layers.unwrap_or_default();
                    let layers = layers
                        .into_iter()
                        .map(|name| Ok((name.clone(), self.find(&name)?)));
                    images.push(Image {
                        name: saved.tags.and_then(|tags| tags.into_iter().next()),
                        layers: layers.collect::<io::Result<_>>()?,
                    });
                }
            }
            Err(err) => return Err(err),
        }
        if images.is_empty() {
            return Err(bad(format!(
                "no image for {}/{} in it; see --platform",
                platform.0, platform.1
            )));
        }
        Ok(images)
    }
}

/// Whether a directory is an OCI layout.
pub fn is_layout(dir: &Path) -> bool {
    dir.join("oci-layout").is_file() && dir.join("index.json").is_file()
}

/// Images in a layout.
pub fn layout(dir: &Path, platform: &(String, String)) -> io::Result<Vec<Image>> {
    Store::Directory(dir.to_owned()).images(platform)
}

/// Images in an archive; `None` if it is a tar file of something else.
pub fn archive(path: &Path, platform: &(String, String)) -> io::Result<Option<Vec<Image>>> {
    let mut file = File::open(path)?;
    // Also of a block device.
    let end = file.seek(io::SeekFrom::End(0))?;
    file.rewind()?;
    let mut archive = tar::Archive::new(file);
    let mut files = HashMap::new();
    let mut links = Vec::new();
    for entry in archive.entries_with_seek()? {
        let entry = entry?;
        let name = entry
            .path()?
            .to_string_lossy()
            .trim_start_matches("./")
            .to_owned();
        match entry.header().entry_type() {
            tar::EntryType::Regular => {
                let blob = Blob {
                    file: path.to_owned(),
                    offset: entry.raw_file_position(),
                    len: entry.size(),
                    sha256: None,
                };
                if blob.offset.checked_add(blob.len).is_none_or(|to| to > end) {
                    return Err(bad(format!("it ends inside {name}")));
                }
                files.insert(name, blob);
            }
            // Old versions of docker save refer to a layer that is there already by a link.
            tar::EntryType::Symlink | tar::EntryType::Link => {
                if let Some(target) = entry.link_name()? {
                    links.push((
                        name,
                        target
                            .to_string_lossy()
                            .trim_start_matches("../")
                            .to_owned(),
                    ));
                }
            }
            _ => {}
        }
    }
    for (name, target) in links {
        if let Some(blob) = files.get(&target).cloned() {
            files.insert(name, blob);
        }
    }
    if !files.contains_key("index.json") && !files.contains_key("manifest.json") {
        return Ok(None);
    }
    Store::Archive(files).images(platform).map(Some)
}
