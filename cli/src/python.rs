//! Which Python runs the workers.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// Where a Python may be, besides what was asked for.
pub(crate) struct Surroundings<'a> {
    /// The Python that `toolb` was started with.
    pub(crate) own: Option<&'a Path>,
    /// `$VIRTUAL_ENV`.
    pub(crate) active: Option<&'a OsStr>,
    /// Where the modules are.
    pub(crate) app_dir: &'a Path,
}

/// The first there is: `asked` for, our own, the active environment's, that of a `.venv` here or
/// beside the modules, the `python3` in `PATH`.
pub(crate) fn find(
    asked: Option<&Path>,
    around: &Surroundings<'_>,
    exists: impl Fn(&Path) -> bool,
) -> PathBuf {
    if let Some(python) = asked.or(around.own) {
        return python.to_owned();
    }
    let active = around.active.filter(|path| !path.is_empty());
    let environments = [
        active.map(PathBuf::from),
        Some(PathBuf::from(".venv")),
        Some(around.app_dir.join(".venv")),
    ];
    environments
        .into_iter()
        .flatten()
        .map(|environment| environment.join("bin/python"))
        .find(|python| exists(python))
        .unwrap_or_else(|| PathBuf::from("python3"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_python_is_taken() {
        let nowhere = Surroundings {
            own: None,
            active: None,
            app_dir: Path::new("src"),
        };
        let own = Surroundings {
            own: Some(Path::new("/own/python")),
            active: Some(OsStr::new("/active")),
            ..nowhere
        };
        let active = Surroundings { own: None, ..own };
        let asked = Some(Path::new("/asked/python"));
        let all = |_: &Path| true;
        let cases = [
            (find(asked, &own, all), "/asked/python"),
            (find(None, &own, all), "/own/python"),
            (find(None, &active, all), "/active/bin/python"),
            (
                find(None, &active, |path| !path.starts_with("/active")),
                ".venv/bin/python",
            ),
            (
                find(None, &nowhere, |path| path.starts_with("src")),
                "src/.venv/bin/python",
            ),
            (find(None, &nowhere, |_| false), "python3"),
        ];
        for (found, expected) in cases {
            assert_eq!(found, Path::new(expected));
        }
    }
}
