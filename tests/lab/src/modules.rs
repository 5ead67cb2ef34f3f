//! Kernel modules: which ones a driver needs, in the order in which they are inserted, and their bytes.
//!
//! Packages of kernels come without `modules.dep`, which is made when they are installed; each module
//! says itself what it needs, in the `depends=` string of its `.modinfo` section.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::error::{Context, Result};

/// The modules of one kernel.
#[derive(Debug)]
pub struct Modules {
    files: BTreeMap<String, PathBuf>,
}

/// One module, ready to be inserted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    /// Its name, with underscores.
    pub name: String,
    /// The uncompressed object file.
    pub object: Vec<u8>,
}

impl Modules {
    /// All modules under `folder`.
    ///
    /// # Errors
    ///
    /// When a folder cannot be read.
    pub fn in_folder(folder: &Path) -> Result<Self> {
        let mut files = BTreeMap::new();
        let mut folders = vec![folder.to_owned()];
        while let Some(folder) = folders.pop() {
            let what = || format!("reading {}", folder.display());
            for entry in fs::read_dir(&folder).context(what)? {
                let entry = entry.context(what)?;
                let path = entry.path();
                if entry.file_type().context(what)?.is_dir() {
                    folders.push(path);
                } else if let Some(name) = module_name(&path) {
                    files.insert(name, path);
                }
            }
        }
        Ok(Self { files })
    }

    /// The modules `wanted` and all that they need, each after those it needs. Names that the kernel
    /// has no module for are left out: a driver may be built in.
    ///
    /// # Errors
    ///
    /// When a module cannot be read or unpacked.
    pub fn with_dependencies(&self, wanted: &[&str]) -> Result<Vec<Module>> {
        let mut ordered = Vec::new();
        for name in wanted {
            self.visit(&canonical(name), &mut ordered)?;
        }
        Ok(ordered)
    }

    fn visit(&self, name: &str, ordered: &mut Vec<Module>) -> Result<()> {
        let Some(path) = self.files.get(name) else {
            return Ok(());
        };
        if ordered.iter().any(|module| module.name == name) {
            return Ok(());
        }
        let object = read_module(path)?;
        // Modules cannot depend on each other in a circle: the kernel could not insert them.
        for needed in dependencies(&object) {
            self.visit(&needed, ordered)?;
        }
        ordered.push(Module {
            name: name.to_owned(),
            object,
        });
        Ok(())
    }
}

/// What a module's own `depends=` names.
fn dependencies(object: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(position) = object.windows(KEY.len()).position(|window| window == KEY) else {
        return Vec::new();
    };
    let value = &object[position + KEY.len()..];
    let end = value
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end])
        .split(',')
        .filter(|name| !name.is_empty())
        .map(canonical)
        .collect()
}

fn module_name(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    let name = name.strip_suffix(".xz").unwrap_or(name);
    Some(canonical(name.strip_suffix(".ko")?))
}

/// Files have hyphens where modules have underscores.
fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

fn read_module(path: &Path) -> Result<Vec<u8>> {
    let what = || format!("reading {}", path.display());
    let bytes = fs::read(path).context(what)?;
    if path.extension().is_none_or(|extension| extension != "xz") {
        return Ok(bytes);
    }
    let mut object = Vec::new();
    lzma_rust2::XzReader::new(bytes.as_slice(), true)
        .read_to_end(&mut object)
        .context(what)?;
    Ok(object)
}

#[cfg(test)]
mod tests;
