//! The bus socket in the file system: one owner, only for its user, gone when its owner goes.
#![forbid(unsafe_code)]

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::config::default_bus_path;
use crate::sys::process::effective_user;
use crate::sys::rendezvous::{FileId, LockFile, PacketListener, connect};

/// The bus socket. Dropping it removes what it has put into the file system.
#[derive(Debug)]
pub(super) struct Door {
    path: PathBuf,
    /// `None`: somebody has removed it, and it could not be bound again.
    open: Option<Open>,
    look_at: Instant,
    /// Why it could not, as last told.
    told: String,
}

/// What a look at the door has found to tell.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Look {
    /// It had gone and is open again.
    Again,
    /// It has gone and cannot be opened again: why.
    Lost(String),
}

/// Nobody says that the socket has gone: it is looked for so often.
pub(super) const LOOK: Duration = Duration::from_secs(5);

impl Door {
    /// Binds the socket at `path`, in place of one whose owner has died. An error is a line for a
    /// person.
    pub(super) fn open(path: &Path, now: Instant) -> Result<Self, String> {
        let open = Open::at(path)
            .map_err(|why| format!("cannot open the bus at {}: {why}", path.display()))?;
        Ok(Self {
            path: path.to_owned(),
            open: Some(open),
            look_at: now + LOOK,
            told: String::new(),
        })
    }

    /// Looks for the socket, if that is due, and binds it again if somebody has removed or replaced
    /// it: those who are attached do not need it, but nobody else finds this engine.
    pub(super) fn look(&mut self, now: Instant) -> Option<Look> {
        if now < self.look_at {
            return None;
        }
        self.look_at = now + LOOK;
        if self
            .open
            .as_ref()
            .is_some_and(|open| open.is_there(&self.path))
        {
            return None;
        }
        // Its lock first, if we still have it: it is taken like any other.
        self.open = None;
        match Open::at(&self.path) {
            Ok(open) => {
                self.open = Some(open);
                self.told.clear();
                Some(Look::Again)
            }
            Err(why) if why == self.told => None,
            Err(why) => {
                self.told.clone_from(&why);
                Some(Look::Lost(why))
            }
        }
    }

    /// When [`look`](Self::look) has something to do.
    pub(super) fn look_at(&self) -> Instant {
        self.look_at
    }

    /// What listens there, if anything can.
    pub(super) fn listener(&self) -> Option<&PacketListener> {
        self.open.as_ref().map(|open| &open.listener)
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        // Not what somebody else has put in its place.
        if self
            .open
            .as_ref()
            .is_some_and(|open| open.is_there(&self.path))
        {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A socket that is bound, and what belongs to it.
#[derive(Debug)]
struct Open {
    listener: PacketListener,
    file: FileId,
    // Dropped in this order, after the socket has gone.
    _lock: LockFile,
    _folder: Folder,
}

impl Open {
    /// An error says why not, and how to mend it.
    fn at(path: &Path) -> Result<Self, String> {
        // Another owner, on its way out, may remove the folder between our look and our use of it.
        let mut again = 0..2;
        let error = loop {
            match Self::try_at(path) {
                Err(Failure::Vanished(error)) if again.next().is_none() => break error,
                Err(Failure::Vanished(_)) => {}
                Err(Failure::Because(why)) => return Err(why),
                Ok(open) => return Ok(open),
            }
        };
        let folder = path.parent().unwrap_or(path);
        let name = folder.display();
        Err(match folder.is_dir() {
            true => {
                format!("nothing can be made in {name} ({error}); choose a path in another folder")
            }
            false => format!("there is no folder {name}; make it, or choose another path"),
        })
    }

    fn try_at(path: &Path) -> Result<Self, Failure> {
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
        let listener = PacketListener::bind(path, 128)?;
        Ok(Self {
            listener,
            file: FileId::at(path)?,
            _lock: lock,
            _folder: folder,
        })
    }

    /// Whether it is what stands at its path. Where nobody can look it may be: it is good for those who
    /// can.
    fn is_there(&self, path: &Path) -> bool {
        match FileId::at(path) {
            Ok(file) => file == self.file,
            Err(error) => !matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ),
        }
    }
}

enum Failure {
    Because(String),
    /// There is no such folder, or so it seems.
    Vanished(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Vanished(error),
            io::ErrorKind::InvalidInput => Self::Because(format!("{error}; choose a shorter path")),
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A door in a folder of its own, and when it is looked after.
    fn door(name: &str) -> (Door, Instant) {
        let folder = std::env::temp_dir().join(format!("toolb-{name}-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let now = Instant::now();
        let door = Door::open(&folder.join("bus"), now).unwrap();
        assert_eq!(door.look_at(), now + LOOK);
        (door, now + LOOK)
    }

    fn remove_folder(of: &Path) {
        fs::remove_dir(of.parent().unwrap()).unwrap();
    }

    #[test]
    fn a_socket_that_was_removed_is_bound_again() {
        let (mut door, mut now) = door("removed");
        let path = door.path().to_owned();
        assert_eq!(door.look(now), None);
        for _ in 0..2 {
            now += LOOK;
            fs::remove_file(&path).unwrap();
            assert_eq!(door.look(now - Duration::from_millis(1)), None);
            assert_eq!(door.look(now), Some(Look::Again));
            connect(&path, LOOK).unwrap();
            assert!(door.listener().unwrap().accept().unwrap().is_some());
        }
        drop(door);
        remove_folder(&path);
    }

    #[test]
    fn a_socket_that_cannot_be_looked_at_is_left_alone() {
        let (mut door, now) = door("hidden");
        let path = door.path().to_owned();
        let folder = path.parent().unwrap();
        let away = folder.with_extension("away");
        fs::rename(folder, &away).unwrap();
        // A link to itself leads nowhere, which is not to say that there is nothing.
        symlink(folder, folder).unwrap();
        assert_eq!(door.look(now), None);
        fs::remove_file(folder).unwrap();
        fs::rename(&away, folder).unwrap();
        connect(&path, LOOK).unwrap();
        assert!(door.listener().unwrap().accept().unwrap().is_some());
        assert_eq!(door.look(now + LOOK), None);
        drop(door);
        remove_folder(&path);
    }

    #[test]
    fn what_somebody_else_has_put_in_its_place_is_left_there() {
        let (mut door, now) = door("replaced");
        let path = door.path().to_owned();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "").unwrap();
        let Some(Look::Lost(why)) = door.look(now) else {
            panic!("nothing is told");
        };
        assert!(why.contains("something else than a socket"), "{why}");
        assert_eq!(door.look(now + LOOK), None, "it is told once");
        fs::remove_file(&path).unwrap();
        assert_eq!(door.look(now + 2 * LOOK), Some(Look::Again));
        fs::remove_file(&path).unwrap();
        fs::write(&path, "").unwrap();
        drop(door);
        fs::remove_file(&path).unwrap();
        remove_folder(&path);
    }

    #[test]
    fn why_there_can_be_no_socket_is_told_with_what_helps() {
        let long = std::env::temp_dir().join("x".repeat(200));
        for (path, why, remedy) in [
            (
                "/proc/bus",
                "nothing can be made in /proc (No such file",
                "in another folder",
            ),
            (
                "/proc/none/bus",
                "there is no folder /proc/none",
                "make it, or",
            ),
            (
                "/dev/null/bus",
                "Not a directory",
                "a folder that you may write to",
            ),
            (
                &*long.to_string_lossy(),
                "a Unix socket path has",
                "a shorter path",
            ),
        ] {
            let error = Door::open(Path::new(path), Instant::now()).unwrap_err();
            let begin = format!("cannot open the bus at {path}: {why}");
            assert!(
                error.starts_with(&begin) && error.contains(remedy),
                "{error}"
            );
        }
    }

    #[test]
    fn an_engine_that_has_taken_the_place_keeps_it() {
        let (mut door, now) = door("taken");
        let path = door.path().to_owned();
        for file in fs::read_dir(path.parent().unwrap()).unwrap() {
            fs::remove_file(file.unwrap().path()).unwrap();
        }
        let other = Door::open(&path, now).unwrap();
        let Some(Look::Lost(why)) = door.look(now) else {
            panic!("nothing is told");
        };
        assert!(why.starts_with("another engine (pid "), "{why}");
        drop(door);
        connect(&path, LOOK).unwrap();
        drop(other);
        remove_folder(&path);
    }
}
