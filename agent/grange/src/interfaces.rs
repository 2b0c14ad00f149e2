//! Which interface is used for what: what the machine is, by what the configuration says.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::Mutex,
    time::{Duration, Instant},
};

use grange_core::IfaceKind;
use grange_hw::{Assignment, Choice, Kind, Machine, Medium, Selection};
use grange_mesh::{InterfaceChoice, InterfaceFacts, Role, Selector};

use crate::config::{Config, Interfaces, UplinkInterface};

/// A reading of the machine serves the questions of this long: the mesh asks for all interfaces in one go.
const FRESH: Duration = Duration::from_millis(500);

/// What the configuration says about interfaces.
pub(crate) fn selection(config: &Config) -> Selection {
    let choice = |interfaces: &Interfaces| match interfaces {
        Interfaces::Auto => Choice::Auto,
        Interfaces::These(names) => Choice::Named(names.clone()),
    };
    Selection {
        mesh: choice(&config.mesh_interfaces.value),
        exclude: config.mesh_exclude.value.0.clone(),
        lan: choice(&config.lan_interfaces.value),
        uplink: match &config.uplink_interface.value {
            UplinkInterface::Auto => Choice::Auto,
            UplinkInterface::This(name) => Choice::Named(vec![name.clone()]),
        },
        tun: Some(config.mesh_tun.value.0.clone()),
        former_uplinks: Vec::new(),
    }
}

/// Answers the mesh's questions, and logs each answer when it is new.
pub(crate) fn selector(root: PathBuf, selection: Selection) -> Selector {
    let chooser = Mutex::new(Chooser { root, selection, read: None, told: BTreeMap::new() });
    Box::new(move |facts| {
        let mut chooser = chooser.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        chooser.choose(facts)
    })
}

struct Chooser {
    root: PathBuf,
    selection: Selection,
    read: Option<(Instant, Machine)>,
    /// What was logged of each interface.
    told: BTreeMap<String, (Role, String)>,
}

impl Chooser {
    fn choose(&mut self, facts: &InterfaceFacts) -> InterfaceChoice {
        let machine = self.machine(facts);
        let uplinks = grange_hw::uplinks(&machine, &self.selection);
        if self.selection.uplink == Choice::Auto {
            // An uplink that loses its default route for a while must not begin to look for neighbours.
            self.selection.former_uplinks.clone_from(&uplinks);
        }
        let assignment =
            grange_hw::roles(&machine, &self.selection).into_iter().find(|known| known.interface == facts.name);
        let choice = match assignment {
            Some(assignment) => self.translate(&machine, &uplinks, assignment),
            None => InterfaceChoice {
                role: Role::Unused,
                links: false,
                kind: IfaceKind::Wired,
                why: "the machine shows nothing of it".into(),
            },
        };
        let told = (choice.role, choice.why.clone());
        if self.told.get(&facts.name) != Some(&told) {
            let (name, role, why) = (&facts.name, choice.role.as_str(), &choice.why);
            if choice.role == Role::Unused {
                tracing::debug!("interface {name}: {role}, because {why}");
            } else {
                tracing::info!("interface {name}: {role}, because {why}");
            }
            if self.told.len() >= grange_hw::MAX_INTERFACES {
                self.told.clear();
            }
            self.told.insert(facts.name.clone(), told);
        }
        self.read = Some((self.read.take().map_or_else(Instant::now, |(at, _)| at), machine));
        choice
    }

    /// The machine: the last reading if it is fresh and agrees with what the kernel just said.
    fn machine(&mut self, facts: &InterfaceFacts) -> Machine {
        if let Some((at, machine)) = self.read.take()
            && at.elapsed() < FRESH
            && agrees(&machine, facts)
        {
            self.read = Some((at, Machine::clone(&machine)));
            return machine;
        }
        Machine::read(&self.root)
    }

    fn translate(&self, machine: &Machine, uplinks: &[String], assignment: Assignment) -> InterfaceChoice {
        let Assignment { interface, role, why } = assignment;
        let excluded = self.selection.exclude.contains(&interface);
        let radio = machine
            .interface(&interface)
            .is_some_and(|iface| matches!(iface.kind, Kind::Wireless { .. } | Kind::Cellular));
        let by_kind = if radio { IfaceKind::Wireless } else { IfaceKind::Wired };
        let (role, links, kind) = match role {
            grange_hw::Role::Mesh(medium) => {
                let kind = match medium {
                    Medium::Wired => IfaceKind::Wired,
                    Medium::Wireless => IfaceKind::Wireless,
                };
                // Both at once: the gateway must find its uplink, and links may form there.
                let role = if uplinks.contains(&interface) { Role::Uplink } else { Role::Mesh };
                (role, true, kind)
            }
            // A household's cable may lead to the next router just as well as to a computer.
            grange_hw::Role::Lan => (Role::Lan, !excluded, by_kind),
            grange_hw::Role::Uplink => (Role::Uplink, false, by_kind),
            grange_hw::Role::Unused => (Role::Unused, false, by_kind),
        };
        InterfaceChoice { role, links, kind, why }
    }
}

fn agrees(machine: &Machine, facts: &InterfaceFacts) -> bool {
    let routed = machine.default_routes.interfaces().iter().any(|name| *name == facts.name);
    machine.interface(&facts.name).is_some_and(|iface| {
        iface.index == facts.index && iface.master.is_some() == facts.enslaved && routed == facts.default_route
    })
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    /// A wired interface in sysfs. The index is also what the kernel's routing tables would say.
    fn wired(root: &Path, name: &str, index: u32) {
        let dir = root.join("sys/class/net").join(name);
        fs::create_dir_all(dir.join("device")).unwrap();
        for (file, text) in [
            ("uevent", format!("INTERFACE={name}\nIFINDEX={index}\n")),
            ("ifindex", index.to_string()),
            ("iflink", index.to_string()),
            ("type", "1".into()),
            ("flags", "0x1003".into()),
            ("carrier", "1".into()),
            ("mtu", "1500".into()),
            ("address", format!("02:00:00:00:00:{index:02x}")),
        ] {
            fs::write(dir.join(file), text).unwrap();
        }
    }

    fn default_route(root: &Path, name: Option<&str>) {
        let head = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n";
        let route = name.map(|name| format!("{name}\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"));
        fs::create_dir_all(root.join("proc/net")).unwrap();
        fs::write(root.join("proc/net/route"), format!("{head}{}", route.unwrap_or_default())).unwrap();
    }

    fn facts(name: &str, index: u32, default_route: bool) -> InterfaceFacts {
        InterfaceFacts { name: name.into(), index, default_route, enslaved: false }
    }

    #[test]
    fn an_uplink_stays_one_when_its_default_route_is_gone_for_a_while() {
        let root = tempfile::tempdir().unwrap();
        wired(root.path(), "eth0", 2);
        wired(root.path(), "eth1", 3);
        default_route(root.path(), Some("eth0"));
        let choose = selector(root.path().into(), Selection::default());
        let choice = choose(&facts("eth0", 2, true));
        assert_eq!((choice.role, choice.links), (Role::Uplink, false));
        let choice = choose(&facts("eth1", 3, false));
        assert_eq!((choice.role, choice.links, choice.kind), (Role::Mesh, true, IfaceKind::Wired));
        default_route(root.path(), None);
        assert_eq!(choose(&facts("eth0", 2, false)).role, Role::Uplink);
    }

    #[test]
    fn an_interface_that_just_appeared_is_looked_at_anew() {
        let root = tempfile::tempdir().unwrap();
        wired(root.path(), "eth0", 2);
        let choose = selector(root.path().into(), Selection::default());
        assert_eq!(choose(&facts("eth0", 2, false)).role, Role::Mesh);
        assert_eq!(choose(&facts("eth1", 3, false)).role, Role::Unused);
        wired(root.path(), "eth1", 3);
        assert_eq!(choose(&facts("eth1", 3, false)).role, Role::Mesh);
    }

    #[test]
    fn an_uplink_may_carry_the_mesh_too_and_a_lan_may_be_kept_out() {
        let root = tempfile::tempdir().unwrap();
        wired(root.path(), "eth0", 2);
        wired(root.path(), "eth1", 3);
        default_route(root.path(), Some("eth0"));
        let named = |name: &str| Choice::Named(vec![name.into()]);
        let selection =
            Selection { mesh: named("eth0"), lan: named("eth1"), exclude: vec!["eth1".into()], ..Selection::default() };
        let choose = selector(root.path().into(), selection);
        let choice = choose(&facts("eth0", 2, true));
        assert_eq!((choice.role, choice.links), (Role::Uplink, true));
        let choice = choose(&facts("eth1", 3, false));
        assert_eq!((choice.role, choice.links), (Role::Lan, false));
    }
}
