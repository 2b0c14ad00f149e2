//! Which operating system runs.

use crate::root::Root;

/// The operating system, by `/etc/openwrt_release` and `/etc/os-release`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Os {
    /// For people, such as `OpenWrt 24.10.2 r28739-d9340319c6`; `unknown` if nothing says it.
    pub name: String,
    /// Lower case, such as `openwrt`, `debian`, `raspbian`; `linux` if nothing says it (as os-release(5) defines).
    pub id: String,
    /// Such as `24.10.2` or `12`.
    pub version: Option<String>,
    /// OpenWrt's target, such as `ramips/mt7621`.
    pub openwrt_target: Option<String>,
    /// OpenWrt's package architecture, such as `mipsel_24kc`.
    pub openwrt_arch: Option<String>,
}

impl Os {
    pub(crate) fn read(root: &Root<'_>) -> Self {
        let openwrt = root.read("etc/openwrt_release", 16384).unwrap_or_default();
        let release =
            root.read("etc/os-release", 16384).or_else(|| root.read("usr/lib/os-release", 16384)).unwrap_or_default();
        let of_openwrt = |key| value(&openwrt, key);
        let of_release = |key| value(&release, key);
        let id = if of_openwrt("DISTRIB_ID").is_some() { Some("openwrt".into()) } else { of_release("ID") };
        Self {
            name: of_openwrt("DISTRIB_DESCRIPTION")
                .or_else(|| of_release("PRETTY_NAME"))
                .or_else(|| of_release("NAME"))
                .unwrap_or_else(|| "unknown".into()),
            id: id.unwrap_or_else(|| "linux".into()),
            version: of_openwrt("DISTRIB_RELEASE").or_else(|| of_release("VERSION_ID")),
            openwrt_target: of_openwrt("DISTRIB_TARGET"),
            openwrt_arch: of_openwrt("DISTRIB_ARCH"),
        }
    }

    /// Whether this is OpenWrt or one of its children.
    #[must_use]
    pub fn is_openwrt(&self) -> bool {
        self.id == "openwrt"
    }
}

/// The value of `KEY=value`, `KEY="value"` or `KEY='value'`.
fn value(text: &str, key: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let raw = line.trim().strip_prefix(key)?.strip_prefix('=')?.trim();
        let quoted = |mark| raw.strip_prefix(mark).and_then(|rest: &str| rest.strip_suffix(mark));
        let plain = quoted('"').or_else(|| quoted('\'')).unwrap_or(raw).trim();
        (!plain.is_empty()).then(|| plain.to_owned())
    })
}
