//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

const AFTER: &str = "\
Files:
  /etc/grange/grange.toml   configuration; every setting has a default (see `grange config`)
  /var/lib/grange           keys and membership (on OpenWrt: /etc/grange)
  /run/grange               control socket of the running agent

Environment: GRANGE_CONFIG, GRANGE_STATE_DIR and GRANGE_RUNTIME_DIR name these places,
GRANGE_LOG sets the log level, NO_COLOR switches colours off, and GRANGE_ with a setting's
name in capitals sets it, as in GRANGE_UPLINK_SHARE=true.

Exit codes: 0 done, 1 failed, 2 wrong command line, 3 wrong configuration, 4 agent not running,
5 agent running already, 6 missing rights, 7 damaged key or membership, 8 disk full or not
writable, 9 network not usable, 10 invitation not good, 11 not possible with this membership,
12 destination not reached.

For your shell and for packages: `grange completions SHELL` prints completions (bash, zsh, fish,
elvish, powershell), `grange man [DIR]` prints the manual page, or writes all of them into DIR.";

/// Turns the routers of a neighbourhood into one town network.
///
/// Each router or gateway that runs the agent (`grange run`) is a node. Nodes of the same town find each other over cable and
/// Wi-Fi, encrypt what passes between them, and carry each other's traffic.
#[derive(Debug, Parser)]
#[command(name = "grange", version, after_help = AFTER, subcommand_required = true, arg_required_else_help = true)]
#[command(max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// Read the configuration from FILE
    #[arg(long, global = true, value_name = "FILE", help_heading = "Global options")]
    pub(crate) config: Option<PathBuf>,
    /// Keep keys and membership in DIR
    #[arg(long, global = true, value_name = "DIR", help_heading = "Global options")]
    pub(crate) state_dir: Option<PathBuf>,
    /// Keep the control socket in DIR
    #[arg(long, global = true, value_name = "DIR", help_heading = "Global options")]
    pub(crate) runtime_dir: Option<PathBuf>,
    /// Set one setting, as in --set uplink.share=true; may be given several times
    #[arg(long, global = true, value_name = "KEY=VALUE", help_heading = "Global options")]
    pub(crate) set: Vec<String>,
    /// Print JSON for programs instead of text for people
    #[arg(long, global = true, help_heading = "Global options")]
    pub(crate) json: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the agent until it is stopped
    ///
    /// It works without any configuration: it makes a key on the first start, looks for neighbours on every wired and mesh
    /// interface except the Internet connection, and says so. When it is stopped (Ctrl-C or SIGTERM) it removes everything that it
    /// added to the system.
    Run,
    /// Show how this node is doing
    ///
    /// Its name and address, its town, how many neighbours it has, what it uses each network interface for and why.
    Status,
    /// Show the links to neighbours
    ///
    /// One line for each neighbour: over which interface, how good the link is (cost: lower is better; 96 is a perfect cable), the
    /// delay there and back, and how much traffic it carried.
    Links,
    /// Show the seals with nodes farther away
    ///
    /// What this node sends to a node that is no neighbour goes in a seal, encrypted from end to end, so that nobody on the way can read or
    /// change it. One line for each seal: with whom, and how much it carried. Seals are made when there is traffic, and go when
    /// there is none.
    Seals,
    /// Show the ways to all nodes of the town
    ///
    /// One line for each known way. Those marked with * are in use; the others stand by.
    Routes,
    /// Show the way to a node or host, hop by hop, with delays
    Trace {
        /// An IPv6 or IPv4 address, or the name of a neighbour
        #[arg(value_name = "ADDR")]
        destination: String,
    },
    /// Show this node's id, address and public keys
    ///
    /// Nothing that is shown is secret. The key itself stays in its file: whoever has a copy of that file can pass for this node.
    Key {
        /// Make a key now; one that exists is never overwritten
        #[arg(long)]
        new: bool,
    },
    /// Found, join, show or leave a town
    #[command(subcommand)]
    Town(Town),
    /// Show the settings in effect, and where each value came from
    Config {
        /// Print a file with all settings, their meanings and defaults, to start from
        #[arg(long)]
        example: bool,
    },
    /// Print completions for a shell
    #[command(hide = true)]
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write those of all commands into DIR
    #[command(hide = true)]
    Man {
        /// Directory for the pages; it must exist
        #[arg(value_name = "DIR")]
        dir: Option<PathBuf>,
    },
}

/// What to do about the town.
#[derive(Debug, Subcommand)]
pub(crate) enum Town {
    /// Found a town; this node becomes its steward's
    ///
    /// Makes the key of the town and the key of its steward. Only this node can then invite others, so keep a copy of the file
    /// steward.key in a safe place.
    Found {
        /// The town's name, at most 32 bytes; put it in quotes if it has blanks
        name: String,
    },
    /// Print an invitation, which another node joins with (steward only)
    ///
    /// Whoever has the invitation can join, so give it only to the people it is meant for, and not over a public channel.
    Invite {
        /// For how many nodes it is meant; 0 for any number. It is written into the invitation; nodes that cannot hear each other
        /// cannot count, so the time limit is what protects the town
        #[arg(long, value_name = "N", default_value_t = 1)]
        uses: u16,
        /// For how many hours it is good; 0 for ever
        #[arg(long, value_name = "H", default_value_t = 72, value_parser = clap::value_parser!(u32).range(..=87_600))]
        hours: u32,
    },
    /// Join a town with an invitation
    Join {
        /// The invitation, which begins with "grange1"; blanks and line ends in it do not matter. With - it is read from standard input
        #[arg(value_name = "STRING", required = true, num_args = 1..)]
        invitation: Vec<String>,
    },
    /// Show the town that this node is in
    Show,
    /// Leave the town
    Leave {
        /// Give up the steward's key too: nobody can then invite to this town any more, unless there is a copy
        #[arg(long)]
        give_up_steward: bool,
    },
}
