//! What the figures are meant to be.

use super::Report;
use crate::subject::SUBJECTS;

/// Which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Better {
    More,
    Less,
}

/// A figure's goal, and where it is not good enough.
struct Goal {
    what: &'static str,
    /// Measurement, subject and key.
    figure: (&'static str, &'static str, &'static str),
    goal: f64,
    limit: f64,
    better: Better,
    digits: usize,
}

const fn more(what: &'static str, figure: (&'static str, &'static str, &'static str), goal: f64, limit: f64) -> Goal {
    Goal { what, figure, goal, limit, better: Better::More, digits: 2 }
}

const fn less(what: &'static str, figure: (&'static str, &'static str, &'static str), goal: f64, limit: f64) -> Goal {
    Goal { what, figure, goal, limit, better: Better::Less, digits: 2 }
}

/// Ratios are to wireguard-go 20231211 in the same round.
const GOALS: &[Goal] = &[
    more("two nodes, AES, ratio", ("two-nodes", "grange-aes", "ratio"), 3.0, 2.5),
    less("two nodes, AES, s/GB", ("two-nodes", "grange-aes", "cpu_s_per_gb"), 1.3, 1.6),
    more("two nodes, ChaCha20, ratio", ("two-nodes", "grange-chacha", "ratio"), 1.9, 1.6),
    less("two nodes, ChaCha20, s/GB", ("two-nodes", "grange-chacha", "cpu_s_per_gb"), 2.5, 3.0),
    less("forwarding node, AES, s/GB", ("forwarding", "grange-aes", "forward_s_per_gb"), 0.8, 1.1),
    less("forwarding node, ChaCha20, s/GB", ("forwarding", "grange-chacha", "forward_s_per_gb"), 2.0, 2.5),
    more("plain cards, two nodes, AES, ratio", ("two-nodes-plain", "grange-aes", "ratio"), 3.0, 2.5),
    more("plain cards, two nodes, ChaCha20, ratio", ("two-nodes-plain", "grange-chacha", "ratio"), 1.9, 1.6),
    less("plain cards, forwarding, AES, s/GB", ("forwarding-plain", "grange-aes", "forward_s_per_gb"), 0.8, 1.1),
    less(
        "plain cards, forwarding, ChaCha20, s/GB",
        ("forwarding-plain", "grange-chacha", "forward_s_per_gb"),
        2.0,
        2.5,
    ),
    more("bare cards, two nodes, AES, ratio", ("two-nodes-bare", "grange-aes", "ratio"), 3.0, 2.5),
    more("bare cards, two nodes, ChaCha20, ratio", ("two-nodes-bare", "grange-chacha", "ratio"), 1.9, 1.6),
    less("bare cards, forwarding, AES, s/GB", ("forwarding-bare", "grange-aes", "forward_s_per_gb"), 0.8, 1.1),
    less("bare cards, forwarding, ChaCha20, s/GB", ("forwarding-bare", "grange-chacha", "forward_s_per_gb"), 2.0, 2.5),
    less("idle ping added by a hop, ms", ("two-nodes", "grange-aes", "added_ms"), 0.2, 0.3),
    less("loaded ping, AES, median ms", ("queue", "grange-aes", "loaded_median_ms"), 15.0, 25.0),
    less("loaded ping, AES, 95th percentile ms", ("queue", "grange-aes", "loaded_p95_ms"), 40.0, 60.0),
    // IPv6's header alone keeps the goodput of full packets below 90.3.
    more("loaded ping, AES, Mbit/s", ("queue", "grange-aes-ipv4", "mbit"), 91.0, 91.0),
    less("loaded ping, AES over IPv4, median ms", ("queue", "grange-aes-ipv4", "loaded_median_ms"), 15.0, 25.0),
    less("loaded ping, AES over IPv4, 95th percentile ms", ("queue", "grange-aes-ipv4", "loaded_p95_ms"), 40.0, 60.0),
    less("loaded ping, ChaCha20, median ms", ("queue", "grange-chacha", "loaded_median_ms"), 15.0, 25.0),
    less("loaded ping, ChaCha20, 95th percentile ms", ("queue", "grange-chacha", "loaded_p95_ms"), 40.0, 60.0),
    less("memory with 50 neighbours, MiB", ("memory", "grange-aes", "peak_mib"), 16.0, 24.0),
];

/// Peers that encrypt from end to end.
const END_TO_END: &[&str] = &["yggdrasil"];

/// What stands in the last column.
fn verdict(value: f64, goal: f64, limit: f64, better: Better) -> &'static str {
    let reaches = |mark: f64| match better {
        Better::More => value >= mark,
        Better::Less => value <= mark,
    };
    if reaches(goal) {
        "met"
    } else if reaches(limit) {
        "near"
    } else {
        "MISSED"
    }
}

/// A table of all goals that something was measured for.
pub(super) fn compared(report: &Report) -> Vec<Vec<String>> {
    let mut rows = vec![["", "measured", "goal", "not done", ""].map(String::from).to_vec()];
    for goal in GOALS {
        let (table, row, key) = goal.figure;
        let Some(value) = report.figure(table, row, key) else { continue };
        let shown = |value: f64| format!("{value:.*}", goal.digits);
        let (wanted, beyond) = match goal.better {
            Better::More => (format!(">= {}", shown(goal.goal)), format!("< {}", shown(goal.limit))),
            Better::Less => (format!("<= {}", shown(goal.goal)), format!("> {}", shown(goal.limit))),
        };
        let verdict = verdict(value, goal.goal, goal.limit, goal.better).to_owned();
        rows.push(vec![goal.what.to_owned(), shown(value), wanted, beyond, verdict]);
    }
    rows.extend(chain(report));
    rows
}

/// The chain of four is compared with the best peer: links alone with each (twice as fast is the goal), links and seals
/// with those that encrypt from end to end.
fn chain(report: &Report) -> Vec<Vec<String>> {
    let mbit = |name: &str| report.figure("chain", name, "mbit");
    let is_peer = |name: &str| {
        SUBJECTS.iter().any(|it| it.name == name && !it.is_grange() && !["raw", "wireguard"].contains(&name))
    };
    let best = |names: &[&str]| names.iter().filter_map(|name| mbit(name)).max_by(f64::total_cmp);
    let peers: Vec<&str> = SUBJECTS.iter().map(|it| it.name).filter(|name| is_peer(name)).collect();
    let mut rows = Vec::new();
    for (what, name, peers, goal) in [
        ("chain of four, AES, links only, times the best peer", "grange-aes", &peers[..], 2.0),
        ("chain of four, ChaCha20, links only, times the best peer", "grange-chacha", &peers[..], 2.0),
        ("chain of four, AES, links and seals, times the best end to end", "grange-aes-seals", END_TO_END, 1.0),
        ("chain of four, ChaCha20, links and seals, times the best end to end", "grange-chacha-seals", END_TO_END, 1.0),
    ] {
        if let (Some(own), Some(best)) = (mbit(name), best(peers)) {
            let verdict = verdict(own / best, goal, 1.0, Better::More).to_owned();
            rows.push(vec![
                what.to_owned(),
                format!("{:.2}", own / best),
                format!(">= {goal:.2}"),
                "< 1.00".into(),
                verdict,
            ]);
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::{MEASURES, Work};

    #[test]
    fn verdicts_go_the_right_way() {
        assert_eq!(verdict(3.0, 3.0, 2.5, Better::More), "met");
        assert_eq!(verdict(2.6, 3.0, 2.5, Better::More), "near");
        assert_eq!(verdict(2.4, 3.0, 2.5, Better::More), "MISSED");
        assert_eq!(verdict(0.1, 0.2, 0.3, Better::Less), "met");
        assert_eq!(verdict(0.4, 0.2, 0.3, Better::Less), "MISSED");
    }

    #[test]
    fn every_goal_is_of_something_that_is_measured() {
        for goal in GOALS {
            let (table, row, key) = goal.figure;
            let measure = MEASURES.iter().find(|it| it.name == table).unwrap();
            let subject = SUBJECTS.iter().find(|it| it.name == row).unwrap();
            assert!(measure.columns.iter().any(|column| column.key == key), "{}", goal.what);
            assert!(matches!(&measure.work, Work::Network(network) if (network.who)(subject)), "{}", goal.what);
        }
    }
}
