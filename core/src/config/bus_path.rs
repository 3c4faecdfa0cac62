//! Where an engine and the programs started by hand look for each other.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::sys::process::effective_user;

/// Where the bus socket of an engine is unless it is given another place:
/// `$XDG_RUNTIME_DIR/toolb/bus`. Without that variable the folder of the user in `/run/user` takes
/// its place, or else one in the folder for temporary files.
pub fn default_bus_path() -> PathBuf {
    let runtime = env::var_os("XDG_RUNTIME_DIR");
    choose(runtime.as_deref(), effective_user(), Path::is_dir)
}

fn choose(runtime: Option<&OsStr>, user: u32, is_dir: impl Fn(&Path) -> bool) -> PathBuf {
    let given = runtime.map(Path::new).filter(|path| path.is_absolute());
    if let Some(folder) = given {
        return folder.join("toolb/bus");
    }
    let usual = PathBuf::from(format!("/run/user/{user}"));
    match is_dir(&usual) {
        true => usual.join("toolb/bus"),
        false => env::temp_dir().join(format!("toolb-{user}/bus")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_of_the_session_is_preferred() {
        let (yes, no) = (|_: &Path| true, |_: &Path| false);
        let given = choose(Some(OsStr::new("/run/me")), 7, yes);
        assert_eq!(given, Path::new("/run/me/toolb/bus"));
        let usual = Path::new("/run/user/7/toolb/bus");
        for senseless in [None, Some(OsStr::new("")), Some(OsStr::new("here"))] {
            assert_eq!(choose(senseless, 7, yes), usual);
        }
        assert!(choose(None, 7, no).ends_with("toolb-7/bus"));
    }
}
