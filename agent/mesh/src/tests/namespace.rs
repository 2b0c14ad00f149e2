//! A fresh network namespace for a test.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    process::Command,
    sync::{Condvar, Mutex},
    thread,
    time::Duration,
};

use tokio::runtime::{Builder, Runtime};

/// Runs a test on a thread of its own in a fresh network namespace, which vanishes with the thread. What the machine
/// does not allow is reported as skipped.
pub(super) fn run(name: &'static str, test: impl FnOnce() + Send + 'static) {
    let thread = thread::Builder::new().name(name.into()).spawn(move || match enter() {
        Ok(()) => test(),
        Err(reason) => println!("SKIPPED {name}: {reason}"),
    });
    if let Err(panic) = thread.expect("a thread").join() {
        std::panic::resume_unwind(panic);
    }
}

/// Gives this thread a network namespace of its own, or says why that is impossible.
pub(super) fn enter() -> Result<(), String> {
    if !Path::new("/dev/net/tun").exists() {
        return Err("/dev/net/tun is missing; as root: modprobe tun".into());
    }
    if Command::new("ip").arg("-V").output().is_err() {
        return Err("the program ip is missing; as root: apt install iproute2".into());
    }
    if Command::new("nft").arg("-V").output().is_err() {
        return Err("the program nft is missing; as root: apt install nftables".into());
    }
    // SAFETY: only this thread changes its namespace; nothing else of the process is touched.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
        return Err(format!("no network namespace of its own ({}); run as root", io::Error::last_os_error()));
    }
    ip("link set lo up");
    // Addresses are usable at once, and tables change only by what the test does.
    fs::write("/proc/sys/net/ipv6/conf/default/accept_dad", "0").expect("accept_dad");
    fs::write("/proc/sys/net/ipv6/conf/all/accept_dad", "0").expect("accept_dad");
    Ok(())
}

/// Where this thread's namespace is found, for `ip link set NAME netns PATH`.
pub(super) fn here() -> PathBuf {
    // SAFETY: asks for a number; nothing can go wrong.
    let thread = unsafe { libc::gettid() };
    format!("/proc/{}/task/{thread}/ns/net", std::process::id()).into()
}

/// A runtime like the agent's. Dropping it stops the tasks on it in the middle of what they do: as SIGKILL does, as far
/// as the kernel can tell.
pub(super) fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// Runs `ip` with these words and gives what it prints; it must succeed.
pub(super) fn ip(words: &str) -> String {
    let output = Command::new("ip").args(words.split(' ')).output().expect("ip runs");
    assert!(output.status.success(), "ip {words}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// Whether `ip` succeeds with these words.
pub(super) fn ip_works(words: &str) -> bool {
    Command::new("ip").args(words.split(' ')).output().expect("ip runs").status.success()
}

/// As [`ip`] for `nft`.
pub(super) fn nft(words: &str) -> String {
    let output = Command::new("nft").args(words.split(' ')).output().expect("nft runs");
    assert!(output.status.success(), "nft {words}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// An interface with a cable in it, whose other end is `far-NAME`.
pub(super) fn wire(name: &str) {
    ip(&format!("link add {name} type veth peer name far-{name}"));
    ip(&format!("link set {name} up"));
    ip(&format!("link set far-{name} up"));
}

/// All that Grange could change: addresses, rules, routes, settings.
pub(super) fn state() -> BTreeMap<String, String> {
    let commands = ["addr", "rule", "-6 rule", "route show table all", "-6 route show table all", "link"];
    // Duplicate address detection of a new interface ends by itself, and is nobody's change.
    for _ in 0..100 {
        if !ip("-6 addr").contains("tentative") {
            break;
        }
        thread::sleep(Duration::from_millis(50));
    }
    let mut state: BTreeMap<String, String> = commands.iter().map(|words| ((*words).into(), ip(words))).collect();
    state.insert("nft".into(), nft("list ruleset"));
    for root in ["/proc/sys/net/ipv4/conf", "/proc/sys/net/ipv6/conf"] {
        for interface in fs::read_dir(root).expect("settings").flatten() {
            for setting in fs::read_dir(interface.path()).expect("settings").flatten() {
                let value = fs::read_to_string(setting.path()).unwrap_or_default();
                state.insert(setting.path().display().to_string(), value);
            }
        }
    }
    let forward = "/proc/sys/net/ipv4/ip_forward";
    state.insert(forward.into(), fs::read_to_string(forward).expect("ip_forward"));
    state
}

/// Fails with what differs.
#[track_caller]
pub(super) fn assert_same(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) {
    for (what, text) in before {
        assert_eq!(Some(text), after.get(what), "{what}");
    }
    assert_eq!(before.len(), after.len(), "settings of an interface stayed behind");
}

/// Waits until `done` gives something; fails after ten seconds, naming `what`.
pub(super) async fn until<T>(what: &str, mut done: impl AsyncFnMut() -> Option<T>) -> T {
    let wait = async {
        loop {
            if let Some(value) = done().await {
                return value;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), wait)
        .await
        .unwrap_or_else(|_| panic!("not within 10 s: {what}\n{}", ip("-6 route show table all")))
}

/// Where threads wait for each other. Unlike a barrier, nobody waits for ever for one that failed.
pub(super) struct Meeting {
    parties: usize,
    arrived: Mutex<usize>,
    changed: Condvar,
}

impl Meeting {
    pub(super) fn of(parties: usize) -> Self {
        Self { parties, arrived: Mutex::new(0), changed: Condvar::new() }
    }

    /// Returns when all have called it as often as the caller.
    pub(super) fn wait(&self) {
        let mut arrived = self.arrived.lock().expect("nobody fails in here");
        *arrived += 1;
        let all = arrived.div_ceil(self.parties) * self.parties;
        self.changed.notify_all();
        let (_arrived, result) = self
            .changed
            .wait_timeout_while(arrived, Duration::from_secs(30), |arrived| *arrived < all)
            .expect("nobody fails in here");
        assert!(!result.timed_out(), "another thread of this test failed");
    }
}
