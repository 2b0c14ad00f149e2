//! Machines made of files: what is read of them, and what each interface is used for.
#![expect(clippy::unwrap_used, reason = "helpers of the tests unwrap outside of test functions")]

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use grange_hw::{BoardSource, Choice, Kind, Machine, Medium, Role, Selection, absent, roles, uplinks};
use tempfile::TempDir;

/// A root directory that stands for a machine.
struct Fixture {
    dir: TempDir,
    next_index: u32,
}

impl Fixture {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), next_index: 1 }
    }

    fn path(&self, path: &str) -> PathBuf {
        let place = self.dir.path().join(path);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        place
    }

    fn file(&self, path: &str, content: impl AsRef<[u8]>) -> &Self {
        fs::write(self.path(path), content).unwrap();
        self
    }

    fn link(&self, path: &str, target: &str) -> &Self {
        symlink(target, self.path(path)).unwrap();
        self
    }

    /// An interface in sysfs, as the kernel lays it out: a link from `class/net` into `devices`.
    fn net(&mut self, name: &str, devtype: &str) -> Net<'_> {
        let index = self.next_index;
        self.next_index += 1;
        let at = format!("sys/devices/net/{name}");
        self.link(&format!("sys/class/net/{name}"), &format!("../../devices/net/{name}"));
        let devtype = if devtype.is_empty() { String::new() } else { format!("DEVTYPE={devtype}\n") };
        let net = Net { fixture: self, at };
        net.set("uevent", &format!("{devtype}INTERFACE={name}\nIFINDEX={index}\n"))
            .set("ifindex", &index.to_string())
            .set("iflink", &index.to_string())
            .set("type", "1")
            .set("flags", "0x1003")
            .set("carrier", "1")
            .set("mtu", "1500")
            .set("address", &format!("02:00:00:00:00:{index:02x}"))
            .set("speed", "-1")
    }

    fn hardware(&mut self, name: &str, devtype: &str, driver: &str) -> Net<'_> {
        self.net(name, devtype).link("device/driver", &format!("/sys/bus/pci/drivers/{driver}"))
    }

    fn routes(&self, v4: &[&str], v6: &[&str]) -> &Self {
        let mut table = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n".to_owned();
        for (metric, name) in v4.iter().enumerate() {
            table += &format!("{name}\t00000000\t0101A8C0\t0003\t0\t0\t{metric}\t00000000\t0\t0\t0\n");
        }
        self.file("proc/net/route", table);
        let zero = "0".repeat(32);
        let lines = v6.iter().map(|name| {
            format!(
                "{zero} 00 {zero} 00 fe800000000000000000000000000001 00000400 00000001 00000000 00000003 {name:>8}\n"
            )
        });
        self.file("proc/net/ipv6_route", lines.collect::<String>())
    }

    fn machine(&self) -> Machine {
        Machine::read(self.dir.path())
    }
}

struct Net<'a> {
    fixture: &'a Fixture,
    at: String,
}

impl Net<'_> {
    fn set(self, leaf: &str, content: &str) -> Self {
        self.fixture.file(&format!("{}/{leaf}", self.at), format!("{content}\n"));
        self
    }

    fn link(self, leaf: &str, target: &str) -> Self {
        self.fixture.link(&format!("{}/{leaf}", self.at), target);
        self
    }

    fn port_of(self, bridge: &str) -> Self {
        self.link("master", &format!("../{bridge}"))
    }
}

/// GL-MT1300 with OpenWrt: DSA ports in br-lan, `wan` with an IPv4 address from the provider, two radios, one of them
/// also an 802.11s mesh.
fn openwrt_router() -> Fixture {
    let mut fixture = Fixture::new();
    fixture
        .file("tmp/sysinfo/model", "GL.iNet GL-MT1300\n")
        .file("tmp/sysinfo/board_name", "glinet,gl-mt1300\n")
        .file("proc/device-tree/model", "GL-MT1300 as the device tree says\0")
        .file("proc/sys/kernel/arch", "mips\n")
        .file("sys/devices/system/cpu/online", "0-3\n")
        .file("proc/meminfo", "MemTotal:         249204 kB\nMemFree:          100000 kB\n")
        .file(
            "etc/openwrt_release",
            "DISTRIB_ID='OpenWrt'\nDISTRIB_RELEASE='24.10.2'\nDISTRIB_REVISION='r28739-d9340319c6'\n\
             DISTRIB_TARGET='ramips/mt7621'\nDISTRIB_ARCH='mipsel_24kc'\nDISTRIB_DESCRIPTION='OpenWrt 24.10.2 r28739'\n",
        )
        .file("etc/config/network", "config interface 'wan'\n\toption device 'wan'\n\toption proto 'dhcp'\n");
    fixture.net("lo", "").set("type", "772").set("address", "00:00:00:00:00:00");
    fixture.hardware("eth0", "", "mtk_soc_eth").set("dsa/tagging", "mtk");
    for port in ["lan1", "lan2"] {
        fixture.net(port, "dsa").set("iflink", "2").port_of("br-lan");
    }
    fixture.net("wan", "dsa").set("iflink", "2").set("speed", "1000");
    fixture.net("br-lan", "bridge").set("bridge/stp_state", "0");
    fixture.hardware("phy0-ap0", "wlan", "mt7615e").link("phy80211", "../../ieee80211/phy0").port_of("br-lan");
    fixture.hardware("phy1-sta0", "wlan", "mt7615e").link("phy80211", "../../ieee80211/phy1");
    fixture.hardware("phy1-mesh0", "wlan", "mt7615e").link("phy80211", "../../ieee80211/phy1");
    fixture.routes(&["wan"], &[]);
    fixture
}

fn raspberry_pi() -> Fixture {
    let mut fixture = Fixture::new();
    fixture
        .file("sys/firmware/devicetree/base/model", "Raspberry Pi 4 Model B Rev 1.4\0")
        .file("sys/firmware/devicetree/base/compatible", "raspberrypi,4-model-b\0brcm,bcm2711\0")
        .link("proc/device-tree", "/sys/firmware/devicetree/base")
        .file("proc/cpuinfo", "processor\t: 0\n\nprocessor\t: 1\n\nModel\t\t: Raspberry Pi 4 Model B Rev 1.4\n")
        .link("etc/os-release", "../usr/lib/os-release")
        .file("usr/lib/os-release", "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nID=debian\nVERSION_ID=\"12\"\n");
    fixture.net("lo", "").set("type", "772");
    fixture.hardware("eth0", "", "bcmgenet").set("speed", "1000");
    fixture.hardware("eth1", "", "r8152").set("flags", "0x1002").set("carrier", "0");
    fixture.hardware("wlan0", "wlan", "brcmfmac").link("phy80211", "../../ieee80211/phy0");
    fixture.hardware("wlan1", "wlan", "mt76x2u").link("phy80211", "../../ieee80211/phy1");
    fixture.file("sys/kernel/debug/ieee80211/phy1/netdev:wlan1/mesh_config/mesh_ttl", "31\n");
    fixture.routes(&["eth0", "wlan0"], &["eth0"]);
    fixture
}

fn virtual_machine() -> Fixture {
    let mut fixture = Fixture::new();
    fixture
        .file("sys/class/dmi/id/product_name", "Standard PC (Q35 + ICH9, 2009)\n")
        .file("sys/class/dmi/id/sys_vendor", "QEMU\n");
    fixture.net("lo", "").set("type", "772");
    fixture.hardware("enp1s0", "", "virtio_net");
    fixture.net("docker0", "bridge").set("bridge/stp_state", "0");
    fixture.net("br-0123456789ab", "bridge");
    fixture.net("veth12ab", "").set("iflink", "77").port_of("docker0");
    fixture.net("wg0", "wireguard").set("type", "65534").set("address", "");
    fixture.net("grange0", "").set("type", "65534").set("tun_flags", "0x1001");
    fixture.net("dummy0", "").set("flags", "0x83");
    fixture.net("enp1s0.7", "vlan").link("lower_enp1s0", "../enp1s0");
    fixture.net("enp2s0.2", "vlan").link("lower_enp2s0", "../enp2s0");
    fixture.hardware("enp2s0", "", "virtio_net");
    fixture.hardware("enp3s0", "", "virtio_net");
    fixture.routes(&["enp2s0.2"], &["grange0"]);
    fixture
}

fn veth_namespace() -> Fixture {
    let mut fixture = Fixture::new();
    fixture.net("lo", "").set("type", "772");
    // Both ends of the first cable have the index 2, each in its own namespace.
    fixture.net("to-b", "").set("speed", "10000");
    fixture.net("lan", "").set("iflink", "9").set("speed", "10000");
    fixture
}

/// Name to role and reason.
fn decided(machine: &Machine, selection: &Selection) -> BTreeMap<String, (Role, String)> {
    let assignments = roles(machine, selection);
    assert_eq!(assignments.len(), machine.interfaces.len());
    assignments.into_iter().map(|one| (one.interface, (one.role, one.why))).collect()
}

fn expect(fixture: &Fixture, selection: &Selection, expected: &[(&str, Role, &str)]) {
    let got = decided(&fixture.machine(), selection);
    for (name, role, why) in expected {
        let (got_role, got_why) = &got[*name];
        assert_eq!((got_role, got_why.contains(why)), (role, true), "{name}: {got_role:?} because {got_why}");
    }
    assert_eq!(got.len(), expected.len(), "{got:#?}");
}

fn named(names: &[&str]) -> Choice {
    Choice::Named(names.iter().map(|&name| name.to_owned()).collect())
}

const WIRED: Role = Role::Mesh(Medium::Wired);
const RADIO: Role = Role::Mesh(Medium::Wireless);

#[test]
fn an_openwrt_router_is_read() {
    let fixture = openwrt_router();
    let machine = fixture.machine();
    assert_eq!(machine.board.name, "GL.iNet GL-MT1300");
    assert_eq!(machine.board.vendor.as_deref(), Some("glinet"));
    assert_eq!(machine.board.source, BoardSource::OpenWrt);
    assert_eq!((machine.arch.as_str(), machine.cpus, machine.memory_bytes), ("mips", 4, 249_204 * 1024));
    assert!(machine.os.is_openwrt());
    assert_eq!(machine.os.version.as_deref(), Some("24.10.2"));
    assert_eq!(machine.os.openwrt_target.as_deref(), Some("ramips/mt7621"));
    let wan = machine.interface("wan").unwrap();
    assert_eq!(
        (wan.kind.clone(), wan.speed_mbit, wan.mtu, wan.up, wan.carrier),
        (Kind::Wired, Some(1000), 1500, true, true)
    );
    assert_eq!(wan.mac.unwrap().to_string(), "02:00:00:00:00:05");
    let radio = machine.interface("phy0-ap0").unwrap();
    assert_eq!((radio.driver.as_deref(), radio.master.as_deref()), (Some("mt7615e"), Some("br-lan")));
    assert_eq!(radio.kind, Kind::Wireless { mesh: false });
}

#[test]
fn an_openwrt_router_meshes_by_radio_and_keeps_its_lan() {
    expect(
        &openwrt_router(),
        &Selection::default(),
        &[
            ("lo", Role::Unused, "loopback"),
            ("eth0", Role::Unused, "switch"),
            ("lan1", Role::Unused, "port of br-lan"),
            ("lan2", Role::Unused, "port of br-lan"),
            ("wan", Role::Uplink, "default route of IPv4"),
            ("br-lan", Role::Lan, "bridge"),
            ("phy0-ap0", Role::Unused, "port of br-lan"),
            ("phy1-sta0", Role::Unused, "not an 802.11s"),
            ("phy1-mesh0", RADIO, "802.11s"),
        ],
    );
}

#[test]
fn a_wan_port_without_a_provider_stays_the_uplink() {
    let fixture = openwrt_router();
    fixture.routes(&[], &[]);
    let (role, why) = decided(&fixture.machine(), &Selection::default())["wan"].clone();
    assert_eq!((role, why.as_str()), (Role::Uplink, "the network configuration calls it wan"));

    let pi = raspberry_pi();
    pi.routes(&[], &[]);
    let selection = Selection { former_uplinks: vec!["eth0".into(), "gone0".into()], ..Selection::default() };
    assert_eq!(decided(&pi.machine(), &selection)["eth0"].0, Role::Uplink);
    assert_eq!(uplinks(&pi.machine(), &selection), ["eth0"]);
    assert_eq!(decided(&pi.machine(), &Selection::default())["eth0"].0, WIRED);
}

#[test]
fn a_pppoe_port_is_left_alone() {
    let mut fixture = openwrt_router();
    fixture.net("pppoe-wan", "ppp").set("type", "512");
    fixture.file("proc/net/pppoe", "Id       Address              Device\n00000001 02:00:00:00:00:99      wan\n");
    fixture.routes(&["pppoe-wan"], &["pppoe-wan"]);
    let got = decided(&fixture.machine(), &Selection::default());
    assert_eq!(got["pppoe-wan"], (Role::Uplink, "the default routes of IPv4 and IPv6 go through it".into()));
    assert_eq!(got["wan"], (Role::Unused, "it carries a PPPoE session".into()));
}

#[test]
fn a_mesh_radio_inside_a_bridge_is_told_what_to_do() {
    let mut fixture = openwrt_router();
    fixture.hardware("phy0-mesh0", "wlan", "mt7615e").port_of("br-lan");
    let (role, why) = decided(&fixture.machine(), &Selection::default())["phy0-mesh0"].clone();
    assert_eq!(role, Role::Unused);
    assert!(why.contains("take the 802.11s interface out of it"), "{why}");
}

#[test]
fn a_mesh_radio_is_known_by_the_configuration_too() {
    let mut fixture = openwrt_router();
    fixture.hardware("wlan0-1", "wlan", "ath9k");
    fixture.file(
        "etc/config/wireless",
        "config wifi-iface 'a'\n\toption mode 'mesh'\n\toption ifname 'other0'\n\nconfig wifi-iface 'm'\n\toption ifname 'wlan0-1'\n\toption mode 'mesh'\n",
    );
    let machine = fixture.machine();
    assert_eq!(machine.interface("wlan0-1").unwrap().kind, Kind::Wireless { mesh: true });
    assert_eq!(machine.interface("phy1-sta0").unwrap().kind, Kind::Wireless { mesh: false });
}

#[test]
fn a_raspberry_pi_is_read_and_used() {
    let fixture = raspberry_pi();
    let machine = fixture.machine();
    assert_eq!(machine.board.name, "Raspberry Pi 4 Model B Rev 1.4");
    assert_eq!(machine.board.vendor.as_deref(), Some("raspberrypi"));
    assert_eq!(machine.board.source, BoardSource::DeviceTree);
    assert_eq!((machine.cpus, machine.os.id.as_str(), machine.os.version.as_deref()), (2, "debian", Some("12")));
    assert_eq!(uplinks(&machine, &Selection::default()), ["eth0", "wlan0"]);
    let eth1 = machine.interface("eth1").unwrap();
    assert_eq!((eth1.up, eth1.carrier), (false, false));
    expect(
        &fixture,
        &Selection::default(),
        &[
            ("lo", Role::Unused, "loopback"),
            ("eth0", Role::Uplink, "IPv4 and IPv6"),
            ("eth1", WIRED, "cable"),
            ("wlan0", Role::Uplink, "IPv4"),
            ("wlan1", RADIO, "802.11s"),
        ],
    );
}

#[test]
fn a_virtual_machine_keeps_off_containers_and_tunnels() {
    let fixture = virtual_machine();
    let machine = fixture.machine();
    assert_eq!(
        (machine.board.name.as_str(), machine.board.source),
        ("Standard PC (Q35 + ICH9, 2009)", BoardSource::Dmi)
    );
    assert_eq!(machine.interface("enp1s0.7").unwrap().kind, Kind::Vlan { parent: Some("enp1s0".into()) });
    let selection = Selection { tun: Some("grange0".into()), ..Selection::default() };
    expect(
        &fixture,
        &selection,
        &[
            ("lo", Role::Unused, "loopback"),
            ("enp1s0", WIRED, "cable"),
            ("docker0", Role::Unused, "containers"),
            ("br-0123456789ab", Role::Unused, "containers"),
            ("veth12ab", Role::Unused, "port of docker0"),
            ("wg0", Role::Unused, "tunnel"),
            ("grange0", Role::Unused, "own tunnel"),
            ("dummy0", Role::Unused, "virtual"),
            ("enp1s0.7", Role::Unused, "VLAN"),
            ("enp2s0.2", Role::Uplink, "IPv4"),
            ("enp2s0", Role::Unused, "enp2s0.2 is a VLAN on it"),
            ("enp3s0", WIRED, "cable"),
        ],
    );
}

#[test]
fn the_configuration_has_its_way() {
    let fixture = virtual_machine();
    let selection = Selection {
        mesh: named(&["enp2s0.2", "wg0", "enp3s0", "nowhere0"]),
        exclude: vec!["enp3s0".into()],
        lan: named(&["enp1s0", "docker0"]),
        uplink: named(&["enp1s0.7"]),
        tun: Some("grange0".into()),
        former_uplinks: Vec::new(),
    };
    expect(
        &fixture,
        &selection,
        &[
            ("lo", Role::Unused, "loopback"),
            ("enp1s0", Role::Lan, "lan.interfaces"),
            ("docker0", Role::Lan, "lan.interfaces"),
            ("br-0123456789ab", Role::Unused, "lan.interfaces does not name it"),
            ("veth12ab", Role::Unused, "port of docker0"),
            ("wg0", WIRED, "mesh.interfaces names it"),
            ("grange0", Role::Unused, "own tunnel"),
            ("dummy0", Role::Unused, "virtual"),
            ("enp1s0.7", Role::Uplink, "uplink.interface names it"),
            ("enp2s0.2", WIRED, "mesh.interfaces names it"),
            ("enp2s0", Role::Unused, "mesh.interfaces does not name it"),
            ("enp3s0", Role::Unused, "mesh.exclude names it"),
        ],
    );
    assert_eq!(absent(&fixture.machine(), &selection), ["nowhere0"]);
}

#[test]
fn an_interface_named_for_the_mesh_can_be_the_uplink_too() {
    let fixture = raspberry_pi();
    let selection = Selection { mesh: named(&["eth0"]), ..Selection::default() };
    let got = decided(&fixture.machine(), &selection);
    assert_eq!(got["eth0"], (WIRED, "mesh.interfaces names it; it is the uplink too".into()));
    assert_eq!(uplinks(&fixture.machine(), &selection), ["eth0", "wlan0"]);
    assert_eq!(got["wlan1"].1, "mesh.interfaces does not name it");
}

#[test]
fn veth_cables_carry_the_mesh() {
    let fixture = veth_namespace();
    expect(
        &fixture,
        &Selection { lan: named(&["lan"]), ..Selection::default() },
        &[("lo", Role::Unused, "loopback"), ("to-b", WIRED, "cable"), ("lan", Role::Lan, "lan.interfaces")],
    );
}

#[test]
fn sysfs_of_another_namespace_is_not_believed() {
    let fixture = virtual_machine();
    fixture
        .file(
            "proc/net/dev",
            "Inter-|   Receive\n face |bytes\n    lo:       0       0\n  to-b:     100       1\n  tun0:       0       0\n",
        )
        .file("proc/net/dev_mcast", "2    to-b            1     0     333300000001\n")
        .file("proc/net/if_inet6", "fe800000000000005c6026fffe636778 02 40 20 80     to-b\n")
        .file("proc/sys/net/ipv6/conf/to-b/mtu", "1400\n");
    let machine = fixture.machine();
    let names: Vec<&str> = machine.interfaces.iter().map(|iface| iface.name.as_str()).collect();
    assert_eq!(names, ["lo", "tun0", "to-b"]);
    let cable = machine.interface("to-b").unwrap();
    assert_eq!((cable.index, cable.kind.clone(), cable.mtu, cable.up), (2, Kind::Veth, 1400, true));
    assert_eq!(machine.interface("tun0").unwrap().kind, Kind::Unknown);
}

#[test]
fn sysfs_with_the_same_names_and_other_indices_is_another_namespace() {
    let mut fixture = Fixture::new();
    fixture.net("eth0", "bridge").set("ifindex", "12");
    fixture.file("proc/net/dev", "a\nb\n  eth0: 0\n");
    fixture.file("proc/net/dev_mcast", "12   eth0            1     0     333300000001\n");
    assert_eq!(fixture.machine().interface("eth0").unwrap().kind, Kind::Bridge);
    fixture.file("proc/net/dev_mcast", "3    eth0            1     0     333300000001\n");
    assert_eq!(fixture.machine().interface("eth0").unwrap().kind, Kind::Veth);
}

#[test]
fn an_empty_root_is_an_unknown_machine() {
    let dir = tempfile::tempdir().unwrap();
    for root in [dir.path(), Path::new("/nowhere/at/all")] {
        let machine = Machine::read(root);
        assert_eq!((machine.board.name.as_str(), machine.board.source), ("unknown", BoardSource::Unknown));
        assert_eq!((machine.cpus, machine.memory_bytes, machine.os.id.as_str()), (0, 0, "linux"));
        assert!(machine.interfaces.is_empty() && roles(&machine, &Selection::default()).is_empty());
    }
}

#[test]
fn garbage_in_every_file_leaves_unknowns() {
    let garbage: [&[u8]; 4] =
        [b"", b"\n\n\n", b"\xff\xfe\x00\x01 \xc3", b"99999999999999999999 : , - = ' '' \" config"];
    for content in garbage {
        let mut fixture = Fixture::new();
        for path in [
            "tmp/sysinfo/model",
            "proc/device-tree/model",
            "sys/class/dmi/id/product_name",
            "etc/openwrt_release",
            "etc/os-release",
            "etc/config/network",
            "etc/config/wireless",
            "proc/meminfo",
            "proc/cpuinfo",
            "proc/net/route",
            "proc/net/ipv6_route",
            "proc/net/pppoe",
            "sys/devices/system/cpu/online",
            "proc/sys/kernel/arch",
            "sys/class/net/bonding_masters",
        ] {
            fixture.file(path, content);
        }
        fixture.link("sys/class/net/gone0", "../../devices/gone0").link("sys/class/net/self", "self");
        let net = fixture.net("eth0", "");
        for leaf in ["uevent", "ifindex", "iflink", "type", "flags", "carrier", "mtu", "address", "speed"] {
            net.fixture.file(&format!("{}/{leaf}", net.at), content);
        }
        let machine = fixture.machine();
        let names: Vec<&str> = machine.interfaces.iter().map(|iface| iface.name.as_str()).collect();
        assert_eq!(names, ["eth0"]);
        let eth0 = &machine.interfaces[0];
        assert_eq!((eth0.index, eth0.mtu, eth0.mac, eth0.speed_mbit, eth0.up), (0, 0, None, None, false));
        assert_eq!(decided(&machine, &Selection::default())["eth0"].0, Role::Unused);
    }
}

#[test]
fn this_machine_is_read_without_a_panic() {
    let machine = Machine::read(Path::new("/"));
    assert!(machine.memory_bytes > 0 && machine.cpus > 0);
    let lo = machine.interface("lo").expect("every namespace has a loopback interface");
    assert_eq!(lo.kind, Kind::Loopback);
}
