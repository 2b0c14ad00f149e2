use grange_core::GatewayPolicy;
use grange_wire::NodeId;
use proptest::prelude::*;

use super::*;

fn problems(text: &str) -> Vec<String> {
    Policy::parse(text).unwrap_err().0.iter().map(ToString::to_string).collect()
}

#[test]
fn nothing_said_is_a_new_towns_policy_and_its_text_reads_back() {
    assert_eq!(Policy::parse(""), Ok(Policy::default()));
    let text = Policy::default().to_text();
    assert_eq!(Policy::parse(&text), Ok(Policy::default()));
    assert!(text.len() < POLICY_MAX / 2, "{} bytes leave no room to edit", text.len());
}

#[test]
fn values_come_from_their_places() {
    let policy = Policy::parse(
        "version = 1\nstore.copies = 3\n[uplink]\nquota_gb = 0x64\ngateways = [\"fd01::1\"]\nweights = { Meier = 2, \"Müller am Bach\" = 3 }\n\
         [babel]\naccept = [\"10.12.0.0/16\"]\n[firmware]\nminimum = \"0.3.12\"\n",
    )
    .unwrap();
    assert_eq!((policy.store_copies.0, policy.uplink_quota_gb.0), (3, 100));
    assert_eq!((policy.uplink_weights.of("Müller am Bach"), policy.uplink_weights.of("Huber")), (3, 1));
    let mut named = NodeId([0; 32]);
    (named.0[0], named.0[14]) = (1, 1);
    assert_eq!(policy.uplink_gateways.0, GatewayPolicy::Only(vec![named]));
    assert_eq!(policy.firmware_minimum, Version([0, 3, 12]));
    assert_eq!(Policy::parse(&policy.to_text()), Ok(policy));
}

#[test]
fn each_mistake_says_its_line_and_what_to_do() {
    assert_eq!(
        problems(
            "[store]\ncopeis = 3\nquota_gb = -1\n[uplnk]\nx = 1\n[babel]\ncopies = 3\naccept = [\"10.1.2.3/16\", 7]\n"
        ),
        [
            "line 2: store.copeis: there is no such key; did you mean store.copies?",
            "line 3: store.quota_gb: expected a whole number from 0 to 1000000, found -1",
            "line 4: uplnk: there is no such section; did you mean [uplink]?",
            "line 7: babel.copies: there is no such key; did you mean store.copies?",
            "line 8: babel.accept: expected texts in the list, found 7",
        ]
    );
    assert_eq!(problems("store = 3"), ["line 1: store: expected a section [store], found 3"]);
    assert_eq!(
        problems("\n[uplink]\ngateways = [\"mill\"]"),
        [
            "line 3: uplink.gateways: \"mill\" is no node: expected its address, as `grange key` shows it, or its id of 64 hexadecimal digits"
        ]
    );
    assert_eq!(
        problems("version = 2"),
        ["line 1: version: this program knows version 1 of the policy, found 2; update grange on this node"]
    );
    assert_eq!(
        problems("[firmware]\nminimum = \"1.0.0\"\nwanted = \"0.9.9\"\n"),
        ["line 3: firmware.wanted: 0.9.9 is below firmware.minimum, 1.0.0; raise it, or lower the minimum"]
    );
    assert!(problems("[store\ncopies = 3")[0].starts_with("line 1: this is not TOML: "));
    assert!(problems(&"#".repeat(POLICY_MAX + 1))[0].contains("shorten its comments"));
    for bad in ["\"1.2\"", "\"1.2.3.4\"", "\"1.+2.3\"", "1.2", "\"70000.0.0\""] {
        assert_eq!(problems(&format!("firmware.minimum = {bad}")).len(), 1, "{bad}");
    }
}

#[test]
fn hostile_documents_end_soon() {
    let deep = format!("x = {}", "[".repeat(POLICY_MAX - 10));
    assert!(Policy::parse(&deep).is_err());
    let many: String = (0..1000).map(|number| format!("k{number} = 1\n")).collect();
    assert_eq!(problems(&many).len(), PROBLEMS_MAX);
}

#[test]
fn one_mistake_refuses_the_whole() {
    assert!(Policy::parse("[store]\ncopies = 3\n[uplink]\nquota_gb = \"much\"\n").is_err());
}

#[test]
fn a_diff_names_what_changes() {
    let old = Policy::default();
    let new = Policy::parse("[store]\ncopies = 3\n[uplink]\ngateways = \"nobody\"").unwrap();
    assert_eq!(
        old.diff(&new),
        ["-uplink.gateways = \"any\"", "+uplink.gateways = \"nobody\"", "-store.copies = 4", "+store.copies = 3"]
    );
    assert!(new.diff(&new).is_empty());
}

#[test]
fn local_settings_tighten_and_never_loosen() {
    let town =
        Policy::parse("[store]\ncopies = 3\nquota_gb = 50\n[uplink]\nquota_gb = 0\n[babel]\naccept = [\"10.0.0.0/8\"]")
            .unwrap();
    let local = LocalSettings::parse(
        "[store]\ncopies = 1\nquota_gb = 0\n[uplink]\nquota_gb = 20\n[babel]\naccept = [\"10.12.0.0/16\", \"192.168.0.0/16\"]\n[seals]\nrequired = false",
    )
    .unwrap();
    let merged = town.merge_local(&local);
    assert_eq!((merged.store_copies.0, merged.store_quota_gb.0, merged.uplink_quota_gb.0), (3, 50, 20));
    assert_eq!(merged.babel_accept.0, ["10.12.0.0/16".parse().unwrap()]);
    assert!(merged.seals_required.0, "the town asks for it");
    assert_eq!(merged.looser_than(&town), None);
    assert_eq!(town.looser_than(&merged), Some("uplink.quota_gb"));
    let error = LocalSettings::parse("[credits]\ncarried = 3").unwrap_err().to_string();
    assert_eq!(error, "line 2: credits.carried: the town decides this for all; take it out here, or propose a policy");
}

/// A document with any of the keys, from numbers.
fn document(local: bool) -> impl Strategy<Value = String> {
    let choices = proptest::collection::vec((any::<bool>(), 0..6_usize), Policy::KEYS.len());
    choices.prop_map(move |choices| {
        let mut text = String::new();
        for (row, (there, choice)) in Policy::default().rows().iter().zip(choices) {
            if !there || (local && !row.local) {
                continue;
            }
            let values: [&str; 6] = match row.key {
                "uplink.gateways" => {
                    ["\"any\"", "\"nobody\"", "[]", "[\"fd01::1\"]", "[\"fd01::1\", \"fd02::2\"]", "[\"fd03::3\"]"]
                }
                "uplink.weights" => ["{}", "{ a = 1 }", "{ a = 2 }", "{ b = 3 }", "{ a = 1, b = 2 }", "{ c = 100 }"],
                "uplink.settlement" => ["\"equal\"", "\"use\"", "\"mix\"", "\"equal\"", "\"use\"", "\"mix\""],
                "guests.allowed" | "seals.required" => ["true", "false", "true", "false", "true", "false"],
                "babel.accept" | "babel.announce" | "babel.deny" => [
                    "[]",
                    "[\"10.0.0.0/8\"]",
                    "[\"10.12.0.0/16\", \"2001:db8::/32\"]",
                    "[\"0.0.0.0/0\", \"::/0\"]",
                    "[\"2001:db8:1::/48\"]",
                    "[\"10.13.0.0/16\"]",
                ],
                "firmware.minimum" => ["\"0.0.0\"", "\"0.1.0\"", "\"0.1.2\"", "\"0.0.9\"", "\"1.0.0\"", "\"0.2.0\""],
                "firmware.wanted" => ["\"0.0.0\"", "\"2.0.0\"", "\"2.0.1\"", "\"3.0.0\"", "\"0.0.0\"", "\"2.1.0\""],
                _ => ["1", "2", "3", "4", "7", if row.expected.contains("from 0") { "0" } else { "5" }],
            };
            text.push_str(&format!("{} = {}\n", row.key, values[choice]));
        }
        text
    })
}

proptest! {
    #[test]
    fn merging_never_loosens(town in document(false), local in document(true)) {
        let town = Policy::parse(&town).unwrap();
        let local = LocalSettings::parse(&local).unwrap();
        let merged = town.merge_local(&local);
        prop_assert_eq!(merged.looser_than(&town), None);
        prop_assert_eq!(merged.merge_local(&local), merged.clone(), "twice is as once");
        // What the owner asks for is in force too.
        if let Some(copies) = local.store_copies {
            prop_assert!(merged.store_copies.0 >= copies.0);
        }
        if let Some(accept) = &local.babel_accept {
            prop_assert!(merged.babel_accept.within(accept));
        }
        if let Some(gateways) = &local.uplink_gateways {
            prop_assert!(merged.uplink_gateways.within(gateways));
        }
    }

    #[test]
    fn what_is_shown_is_read(text in document(false)) {
        let policy = Policy::parse(&text).unwrap();
        prop_assert_eq!(Policy::parse(&policy.to_text()), Ok(policy));
    }

    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,200}") {
        let _ = Policy::parse(&text);
        let _ = LocalSettings::parse(&text);
    }
}
