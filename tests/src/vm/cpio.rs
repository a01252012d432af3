//! A file tree in memory, written as a cpio archive in the `newc` form that the kernel unpacks at boot
//! (`Documentation/driver-api/early-userspace/buffer-format.rst`). Owners, times and hard links are absent:
//! everything is root's and was made in 1970.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Component, Path, PathBuf};

/// Where a file's bytes are.
#[derive(Clone, Debug)]
pub enum Source {
    Bytes(Vec<u8>),
    Path(PathBuf),
}

#[derive(Clone, Debug)]
enum Node {
    Folder,
    Link(PathBuf),
    File(Source),
}

/// The tree. Paths are absolute; folders on the way to a file come by themselves.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    nodes: BTreeMap<PathBuf, Node>,
}

impl Tree {
    /// Whether something is there.
    pub fn has(&self, at: &Path) -> bool {
        self.nodes.contains_key(&relative(at))
    }

    /// An empty folder.
    pub fn folder(&mut self, at: &Path) {
        self.put(at, Node::Folder);
    }

    /// A symbolic link.
    pub fn link(&mut self, at: &Path, to: &Path) {
        self.put(at, Node::Link(to.to_path_buf()));
    }

    /// A file that anybody may read and run.
    pub fn file(&mut self, at: &Path, source: Source) {
        self.put(at, Node::File(source));
    }

    fn put(&mut self, at: &Path, node: Node) {
        let at = relative(at);
        for parent in at.ancestors().skip(1).filter(|parent| parent.components().next().is_some()) {
            self.nodes.entry(parent.to_path_buf()).or_insert(Node::Folder);
        }
        self.nodes.insert(at, node);
    }

    /// Writes the archive.
    pub fn write(&self, to: &Path) -> io::Result<()> {
        let mut archive = Archive { to: BufWriter::with_capacity(1 << 20, File::create(to)?), inode: 0 };
        // Paths are ordered by component, so a folder comes before what is in it.
        for (path, node) in &self.nodes {
            let name = path.as_os_str().as_encoded_bytes();
            let (mode, data) = match node {
                Node::Folder => (0o040_755, Cow::Borrowed(&b""[..])),
                Node::Link(target) => (0o120_777, target.as_os_str().as_encoded_bytes().into()),
                Node::File(Source::Bytes(bytes)) => (0o100_755, bytes.into()),
                Node::File(Source::Path(path)) => (0o100_755, fs::read(path)?.into()),
            };
            archive.entry(name, mode, &data)?;
        }
        archive.entry(b"TRAILER!!!", 0, b"")?;
        archive.to.flush()
    }
}

fn relative(path: &Path) -> PathBuf {
    path.components().filter(|component| matches!(component, Component::Normal(_))).collect()
}

struct Archive<W> {
    to: W,
    inode: u32,
}

impl<W: Write> Archive<W> {
    fn entry(&mut self, name: &[u8], mode: u32, data: &[u8]) -> io::Result<()> {
        let short = |length: usize| u32::try_from(length).map_err(io::Error::other);
        self.inode += 1;
        let (links, name_size) = (1, short(name.len() + 1)?);
        let fields = [self.inode, mode, 0, 0, links, 0, short(data.len())?, 0, 0, 0, 0, name_size, 0];
        self.to.write_all(b"070701")?;
        for field in fields {
            write!(self.to, "{field:08x}")?;
        }
        self.to.write_all(name)?;
        self.to.write_all(&[0])?;
        self.pad(6 + 13 * 8 + name.len() + 1)?;
        self.to.write_all(data)?;
        self.pad(data.len())
    }

    fn pad(&mut self, length: usize) -> io::Result<()> {
        let zeros = [0; 3];
        self.to.write_all(zeros.get(..length.next_multiple_of(4) - length).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn cpio_lists_what_was_written_with_folders_first() {
        let folder = tempfile::tempdir().unwrap();
        let mut tree = Tree::default();
        tree.file(Path::new("/b/c/d"), Source::Bytes(b"12345".to_vec()));
        tree.file(Path::new("/b-a"), Source::Path(std::env::current_exe().unwrap()));
        tree.link(Path::new("/a"), Path::new("b/c"));
        let path = folder.path().join("x.cpio");
        tree.write(&path).unwrap();
        let list = Command::new("cpio").arg("-t").stdin(File::open(&path).unwrap()).output().unwrap();
        assert!(list.status.success(), "{}", String::from_utf8_lossy(&list.stderr));
        assert_eq!(String::from_utf8_lossy(&list.stdout), "a\nb\nb/c\nb/c/d\nb-a\n");
        let data = Command::new("cpio")
            .args(["-i", "--to-stdout", "b/c/d"])
            .stdin(File::open(&path).unwrap())
            .output()
            .unwrap();
        assert_eq!(data.stdout, b"12345");
    }
}
