//! What a node keeps on its disk, and where.

pub(crate) mod file;
pub(crate) mod key;
pub(crate) mod town;

use std::path::{Path, PathBuf};

/// Where things are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Places {
    /// Keys and membership.
    pub(crate) state: PathBuf,
    /// Lock and control socket: gone after a reboot.
    pub(crate) runtime: PathBuf,
    /// The configuration file.
    pub(crate) config: PathBuf,
    /// Whether a person named the configuration file, so that it must exist.
    pub(crate) config_named: bool,
}

impl Places {
    /// The places that were named, and defaults for the others. `root`: `/`.
    pub(crate) fn new(root: &Path, state: Option<PathBuf>, runtime: Option<PathBuf>, config: Option<PathBuf>) -> Self {
        // Only /etc survives an upgrade of OpenWrt, and /var lies in memory there.
        let openwrt = root.join("etc/openwrt_release").exists();
        let state_default = if openwrt { "etc/grange" } else { "var/lib/grange" };
        Self {
            state: state.unwrap_or_else(|| root.join(state_default)),
            runtime: runtime.unwrap_or_else(|| root.join("run/grange")),
            config_named: config.is_some(),
            config: config.unwrap_or_else(|| root.join("etc/grange/grange.toml")),
        }
    }

    /// The agent's socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.runtime.join("control.sock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_openwrt_the_state_stands_where_upgrades_keep_it() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(Places::new(root.path(), None, None, None).state, root.path().join("var/lib/grange"));
        std::fs::create_dir(root.path().join("etc")).unwrap();
        std::fs::write(root.path().join("etc/openwrt_release"), "").unwrap();
        assert_eq!(Places::new(root.path(), None, None, None).state, root.path().join("etc/grange"));
    }
}
