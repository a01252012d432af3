//! The CNI configuration file: read, edited by `router_core::cni`, and replaced whole, so that a runtime never
//! sees half of it. Mode and owner stay; nothing is written where nothing changes.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::{Path, PathBuf};

use router_core::cni::{self, Wanted};

/// Why the file is not as it should be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("it cannot be read")]
    Read(#[source] io::Error),
    #[error("it cannot be edited")]
    Edit(#[source] cni::Error),
    #[error("it cannot be written")]
    Write(#[source] io::Error),
}

/// Makes the file say what is wanted; returns whether it had to be written.
pub(crate) fn update(path: &Path, wanted: &Wanted<'_>) -> Result<bool, Error> {
    let before = fs::read_to_string(path).map_err(Error::Read)?;
    let is_list = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("conflist"));
    let after = cni::edit(&before, is_list, wanted).map_err(Error::Edit)?;
    if before == after {
        return Ok(false);
    }
    replace(path, after.as_bytes()).map_err(Error::Write)?;
    Ok(true)
}

fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let path = fs::canonicalize(path)?;
    let draft = draft_of(&path);
    let written = write_draft(&path, &draft, content).and_then(|()| fs::rename(&draft, &path));
    let Err(error) = written else { return Ok(()) };
    // What was never made need not be removed.
    let _ = fs::remove_file(&draft);
    // A file that is itself a mount cannot be replaced, only written.
    if error.raw_os_error() == Some(libc::EBUSY) { fs::write(&path, content) } else { Err(error) }
}

/// A runtime loads whatever ends in `.conf`, `.conflist` or `.json`.
fn draft_of(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.kube-router"))
}

fn write_draft(path: &Path, draft: &Path, content: &[u8]) -> io::Result<()> {
    let kept = fs::metadata(path)?;
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(draft)?;
    file.write_all(content)?;
    fchown(&file, Some(kept.uid()), Some(kept.gid()))?;
    file.set_permissions(kept.permissions())?;
    file.sync_all()?;
    File::open(draft.parent().unwrap_or(Path::new("/")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// A directory of its own, gone with the test.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("kube-router-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn file(&self, name: &str, text: &str) -> PathBuf {
            let path = self.0.join(name);
            fs::write(&path, text).unwrap();
            path
        }

        fn names(&self) -> Vec<String> {
            let names = fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().file_name());
            names.map(|name| name.into_string().unwrap()).collect()
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    const BRIDGE: &str = r#"{"plugins":[{"type":"bridge","ipam":{"type":"host-local"}}]}"#;

    #[test]
    fn the_file_is_replaced_once_and_keeps_its_mode() {
        let scratch = Scratch::new("cni-replace");
        let path = scratch.file("10.conflist", BRIDGE);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let cidrs = ["10.1.0.0/24".parse().unwrap()];
        let wanted = Wanted { pod_cidrs: &cidrs, mtu: Some(1450) };
        assert!(update(&path, &wanted).unwrap());
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(r#""mtu":1450"#) && text.contains("10.1.0.0/24"), "{text}");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
        assert!(!update(&path, &wanted).unwrap());
        assert_eq!(scratch.names(), ["10.conflist"]);
    }

    #[test]
    fn a_link_stays_a_link() {
        let scratch = Scratch::new("cni-link");
        let target = scratch.file("real.conflist", BRIDGE);
        let link = scratch.0.join("10.conflist");
        std::os::unix::fs::symlink(&target, &link).unwrap();
        let wanted = Wanted { pod_cidrs: &[], mtu: Some(1400) };
        assert!(update(&link, &wanted).unwrap());
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert!(fs::read_to_string(&target).unwrap().contains("1400"));
    }

    #[test]
    fn what_is_no_json_stays_as_it_is() {
        let scratch = Scratch::new("cni-bad");
        let path = scratch.file("10.conflist", "{");
        let error = update(&path, &Wanted { pod_cidrs: &[], mtu: None }).unwrap_err();
        assert!(matches!(error, Error::Edit(cni::Error::NoJson(_))), "{error:?}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "{");
    }
}
