//! The bus socket in the file system: one owner, only for its user, gone when its owner goes.
#![forbid(unsafe_code)]

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::default_bus_path;
use crate::sys::process::effective_user;
use crate::sys::rendezvous::{LockFile, PacketListener, connect};

/// An open bus socket. Dropping it removes what it has put into the file system.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) listener: PacketListener,
    path: PathBuf,
    // Dropped in this order, after the socket has gone.
    _lock: LockFile,
    _folder: Folder,
}

impl Door {
    /// Binds the socket at `path`, in place of one whose owner has died. An error is a line for a
    /// person.
    pub(super) fn open(path: &Path) -> Result<Self, String> {
        let explain = |why: String| format!("cannot open the bus at {}: {why}", path.display());
        // Another owner, on its way out, may remove the folder between our look and our use of it.
        for _ in 0..3 {
            match Self::try_open(path) {
                Err(Failure::Vanished) => {}
                Err(Failure::Because(why)) => return Err(explain(why)),
                Ok(door) => return Ok(door),
            }
        }
        let folder = path.parent().unwrap_or(path).display();
        Err(explain(format!(
            "there is no folder {folder}; make it, or choose another path"
        )))
    }

    fn try_open(path: &Path) -> Result<Self, Failure> {
        let folder = Folder::for_bus(path)?;
        let mut name = path.as_os_str().to_owned();
        name.push(".lock");
        let lock_path = PathBuf::from(name);
        let Some(lock) = LockFile::take(&lock_path)? else {
            let owner = match LockFile::holder(&lock_path) {
                Some(pid) => format!("another engine (pid {pid})"),
                None => "another engine".to_owned(),
            };
            return Err(Failure::Because(format!(
                "{owner} has it; stop that one, or choose another path"
            )));
        };
        if let Ok(found) = fs::symlink_metadata(path) {
            if !found.file_type().is_socket() {
                return Err(Failure::Because(
                    "there is something else than a socket; remove it, or choose another path"
                        .to_owned(),
                ));
            }
            // The lock is ours, so no engine has it: but another kind of program may.
            match connect(path, Duration::from_millis(100)) {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    fs::remove_file(path)?;
                }
                _ => {
                    return Err(Failure::Because(
                        "the socket of another program is there; choose another path".to_owned(),
                    ));
                }
            }
        }
        Ok(Self {
            listener: PacketListener::bind(path, 128)?,
            path: path.to_owned(),
            _lock: lock,
            _folder: folder,
        })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

enum Failure {
    Because(String),
    /// There is no such folder.
    Vanished,
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Vanished,
            _ => Self::Because(format!(
                "{error}; choose a path in a folder that you may write to"
            )),
        }
    }
}

/// The folder of the socket, removed at the end if it was made for it and nothing else is in it.
#[derive(Debug)]
struct Folder(Option<PathBuf>);

impl Folder {
    /// Only the folder of the default path is made; whoever names a path has a folder for it.
    fn for_bus(path: &Path) -> Result<Self, Failure> {
        if path != default_bus_path() {
            return Ok(Self(None));
        }
        let Some(folder) = path.parent() else {
            return Ok(Self(None));
        };
        match DirBuilder::new().mode(0o700).create(folder) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error.into()),
        }
        // Where everybody may make folders, somebody else may have made this one.
        let found = fs::symlink_metadata(folder)?;
        let is_ours = found.is_dir() && found.uid() == effective_user();
        if !is_ours || found.mode() & 0o022 != 0 {
            return Err(Failure::Because(format!(
                "{} is not a folder of this user alone; remove it, or choose another path",
                folder.display()
            )));
        }
        Ok(Self(Some(folder.to_owned())))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Some(folder) = &self.0 {
            let _ = fs::remove_dir(folder);
        }
    }
}
