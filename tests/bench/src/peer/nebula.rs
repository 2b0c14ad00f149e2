//! nebula between two hosts, one of which is the lighthouse. It has no way over several hops.

use anyhow::{Result, ensure};
use serde_json::json;

use super::Overlay;
use crate::{daemon::Daemon, debian::Packages, lab::Lab};

/// Certificates and daemons.
///
/// # Errors
/// If the package is missing, a program fails, or there are more than two hosts.
pub(super) fn start(lab: &Lab, packages: &Packages) -> Result<Overlay> {
    ensure!(lab.hosts().len() == 2, "nebula has no way over several hops");
    let program = packages.program("trixie", "usr/bin/nebula")?;
    let cert = packages.program("trixie", "usr/bin/nebula-cert")?;
    let (first, second) = (&lab.hosts()[0], &lab.hosts()[1]);
    let folder = first.directory();
    super::made(&cert, &["ca", "-name", "bench"], folder, None)?;
    let any = json!([{ "port": "any", "proto": "any", "host": "any" }]);
    let mut daemons = Vec::new();
    for host in [first, second] {
        let name = format!("n{}", host.number());
        super::made(&cert, &["sign", "-name", &name, "-ip", &format!("{}/24", host.overlay())], folder, None)?;
        let lighthouse = host.number() == first.number();
        let mut places = serde_json::Map::new();
        let mut lighthouses = Vec::new();
        if !lighthouse {
            places.insert(first.overlay().to_string(), json!([format!("{}:4242", first.ports()[0].address)]));
            lighthouses.push(first.overlay().to_string());
        }
        // JSON is YAML.
        let config = json!({
            "pki": {
                "ca": folder.join("ca.crt"),
                "cert": folder.join(format!("{name}.crt")),
                "key": folder.join(format!("{name}.key")),
            },
            "static_host_map": places,
            "lighthouse": { "am_lighthouse": lighthouse, "hosts": lighthouses },
            "listen": { "host": "0.0.0.0", "port": 4242 },
            "tun": { "dev": "nebula0", "mtu": 1300 },
            "cipher": "aes",
            "firewall": { "outbound": any, "inbound": any },
        });
        let file = host.write("nebula.yml", &config.to_string())?;
        daemons.push(Daemon::start(host, &program, ["-config".as_ref(), file.as_os_str()], None)?);
    }
    Ok(Overlay::one_each(daemons, super::given(lab)))
}
