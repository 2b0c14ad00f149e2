//! Which board this is.

use crate::root::Root;

/// The board, as its firmware describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Board {
    /// For people, such as `GL.iNet GL-MT1300` or `Raspberry Pi 4 Model B Rev 1.4`; `unknown` if nothing says it.
    pub name: String,
    /// The maker, as the source spells it, such as `glinet`, `raspberrypi` or `QEMU`.
    pub vendor: Option<String>,
    /// Who says so.
    pub source: BoardSource,
}

/// Where a board's name comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BoardSource {
    /// OpenWrt's `/tmp/sysinfo`, which also knows boards without a device tree.
    OpenWrt,
    /// The device tree's `model`.
    DeviceTree,
    /// DMI (SMBIOS) of a PC or a virtual machine.
    Dmi,
    /// Nothing said it.
    Unknown,
}

/// What makers leave in DMI fields that they never filled in.
const DMI_PLACEHOLDERS: [&str; 6] = [
    "To Be Filled By O.E.M.",
    "To be filled by O.E.M.",
    "System Product Name",
    "Default string",
    "Not Specified",
    "None",
];

impl Board {
    pub(crate) fn read(root: &Root<'_>) -> Self {
        Self::openwrt(root).or_else(|| Self::device_tree(root)).or_else(|| Self::dmi(root)).unwrap_or_else(|| Self {
            name: "unknown".into(),
            vendor: None,
            source: BoardSource::Unknown,
        })
    }

    fn openwrt(root: &Root<'_>) -> Option<Self> {
        let name = root.line("tmp/sysinfo/model")?;
        let vendor = root.line("tmp/sysinfo/board_name").and_then(|board| before_comma(&board));
        Some(Self { name, vendor, source: BoardSource::OpenWrt })
    }

    fn device_tree(root: &Root<'_>) -> Option<Self> {
        let read = |leaf: &str| {
            root.line(&format!("proc/device-tree/{leaf}"))
                .or_else(|| root.line(&format!("sys/firmware/devicetree/base/{leaf}")))
        };
        let name = read("model")?;
        let vendor = read("compatible").and_then(|compatible| before_comma(&compatible));
        Some(Self { name, vendor, source: BoardSource::DeviceTree })
    }

    fn dmi(root: &Root<'_>) -> Option<Self> {
        let read = |leaf: &str| {
            root.line(&format!("sys/class/dmi/id/{leaf}")).filter(|text| !DMI_PLACEHOLDERS.contains(&text.as_str()))
        };
        let name = read("product_name").or_else(|| read("board_name"))?;
        let vendor = read("sys_vendor").or_else(|| read("board_vendor"));
        Some(Self { name, vendor, source: BoardSource::Dmi })
    }
}

fn before_comma(text: &str) -> Option<String> {
    text.split_once(',').map(|(vendor, _)| vendor.to_owned()).filter(|vendor| !vendor.is_empty())
}
