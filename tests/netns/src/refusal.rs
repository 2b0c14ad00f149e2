//! A kernel that refuses UDP super-packets, as those before Linux 4.18 and many a card's driver do.
//!
//! No interface of a namespace can be made to refuse them on every kernel, so the refusal stands before the kernel: a seccomp
//! filter hands each sendmsg(2) and sendmmsg(2) of the process to a thread of ours (seccomp_unotify(2)), which answers `EIO`
//! where the message asks for segmentation and lets all others pass.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    os::unix::process::CommandExt,
    process::{Child, Command},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use anyhow::{Context, Result};
use rustix::{
    event::{PollFd, PollFlags, poll},
    process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open},
};

use crate::Unavailable;

/// `SECCOMP_IOCTL_NOTIF_RECV` and `_SEND` (linux/seccomp.h).
const RECEIVE: libc::c_ulong = 0xc050_2100;
const SEND: libc::c_ulong = 0xc018_2101;

/// `UDP_SEGMENT` (linux/udp.h).
const UDP_SEGMENT: libc::c_int = 103;

/// The descriptor of the listener in the process: high, where it is in nobody's way.
const LISTENER: libc::c_int = 250;

/// Bytes of control messages that are looked at.
const MAX_CONTROL: usize = 512;

/// Decides about a process's UDP super-packets.
#[derive(Clone, Debug, Default)]
pub struct Refusal(Arc<State>);

#[derive(Debug, Default)]
struct State {
    refuse: AtomicBool,
    refused: AtomicU64,
    passed: AtomicU64,
}

impl Refusal {
    /// Refuses from now on, or lets pass again. At first they pass.
    pub fn set(&self, refuse: bool) {
        self.0.refuse.store(refuse, Ordering::Relaxed);
    }

    /// How many were refused so far.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.0.refused.load(Ordering::Relaxed)
    }

    /// How many passed so far.
    #[must_use]
    pub fn passed(&self) -> u64 {
        self.0.passed.load(Ordering::Relaxed)
    }

    /// Starts the command under supervision.
    pub(crate) fn spawn(&self, command: &mut Command) -> Result<Child> {
        // SAFETY: the closure only makes system calls, which is allowed between fork and exec.
        unsafe {
            command.pre_exec(install);
        }
        let child = command.spawn().map_err(|error| match error.raw_os_error() {
            Some(libc::EINVAL | libc::EACCES | libc::EPERM | libc::ENOSYS | libc::EBUSY) => {
                Unavailable(format!("this kernel supervises no system calls for us (seccomp: {error})")).into()
            }
            _ => anyhow::Error::from(error).context(format!("starting {command:?}")),
        })?;
        let pid = Pid::from_raw(child.id().cast_signed()).context("no process id")?;
        let process = pidfd_open(pid, PidfdFlags::empty()).context("opening the process")?;
        let listener = pidfd_getfd(&process, LISTENER, PidfdGetfdFlags::empty()).context("taking the listener over")?;
        let state = Arc::clone(&self.0);
        // It ends with the last process under the filter.
        std::thread::spawn(move || supervise(&listener, &state));
        Ok(child)
    }
}

/// Puts the filter on the calling process and leaves its listener at [`LISTENER`].
fn install() -> io::Result<()> {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const EQUALS: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    // The number of the call is the first word of what a filter sees.
    let mut steps = [
        step(LOAD, 0, 0, 0),
        step(EQUALS, 1, 0, libc::SYS_sendmsg as u32),
        step(EQUALS, 0, 1, libc::SYS_sendmmsg as u32),
        step(RETURN, 0, 0, libc::SECCOMP_RET_USER_NOTIF),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
    // SAFETY: the program and its steps live through the call.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
            &raw const program,
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `fd` was just made and nobody else owns it.
    let listener = unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) };
    // The copy has no close-on-exec flag: the parent fetches it after the program has begun.
    // SAFETY: dup2(2) takes no pointer.
    if unsafe { libc::dup2(listener.as_raw_fd(), LISTENER) } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Answers until no process under the filter is left.
fn supervise(listener: &OwnedFd, state: &State) {
    loop {
        let mut polls = [PollFd::new(listener, PollFlags::IN)];
        if poll(&mut polls, None).is_err() {
            continue;
        }
        if !polls[0].revents().contains(PollFlags::IN) {
            return;
        }
        // SAFETY: all-zero bytes are a valid request, and what the kernel demands.
        let mut request: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        // SAFETY: the pointer is that of a `seccomp_notif` that lives through the call.
        if unsafe { libc::ioctl(listener.as_raw_fd(), RECEIVE as _, &raw mut request) } < 0 {
            // The caller was killed meanwhile.
            continue;
        }
        // SAFETY: all-zero bytes are a valid response.
        let mut response: libc::seccomp_notif_resp = unsafe { std::mem::zeroed() };
        response.id = request.id;
        response.flags = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32;
        let message = request.data.args[1];
        if asks_for_segments(request.pid, message) {
            if state.refuse.load(Ordering::Relaxed) {
                state.refused.fetch_add(1, Ordering::Relaxed);
                response.flags = 0;
                response.error = -libc::EIO;
            } else {
                state.passed.fetch_add(1, Ordering::Relaxed);
            }
        }
        // A caller that was killed meanwhile wants no answer.
        // SAFETY: the pointer is that of a `seccomp_notif_resp` that lives through the call.
        let _ = unsafe { libc::ioctl(listener.as_raw_fd(), SEND as _, &raw mut response) };
    }
}

/// Whether the message header at this address of the process (the first one of sendmmsg(2)'s) carries `UDP_SEGMENT`.
fn asks_for_segments(pid: u32, address: u64) -> bool {
    let mut header = [0; size_of::<libc::msghdr>()];
    if read(pid, address, &mut header) != header.len() {
        return false;
    }
    // SAFETY: any bytes are a valid msghdr; its pointers, which mean nothing here, are not followed.
    let header: libc::msghdr = unsafe { std::ptr::read_unaligned(header.as_ptr().cast()) };
    let mut control = [0; MAX_CONTROL];
    let length = (header.msg_controllen as usize).min(MAX_CONTROL);
    let length = read(pid, header.msg_control as u64, &mut control[..length]);
    // Each: length with the header (a size_t), level, type, data, up to the next multiple of a size_t's bytes.
    const WORD: usize = size_of::<usize>();
    let mut rest = &control[..length];
    while let Some((head, _)) = rest.split_at_checked(WORD + 8) {
        let number = |at: usize| head[at..at + 4].first_chunk().map_or(0, |bytes| i32::from_ne_bytes(*bytes));
        if (number(WORD), number(WORD + 4)) == (libc::SOL_UDP, UDP_SEGMENT) {
            return true;
        }
        let whole = head.first_chunk().map_or(0, |bytes| usize::from_ne_bytes(*bytes));
        let Some(next) = rest.get(whole.max(WORD + 8).next_multiple_of(WORD)..) else { break };
        rest = next;
    }
    false
}

/// Reads another process's memory; gives the number of bytes that could be read.
fn read(pid: u32, address: u64, into: &mut [u8]) -> usize {
    let local = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
    let remote = libc::iovec { iov_base: address as *mut libc::c_void, iov_len: into.len() };
    // SAFETY: the local vector names `into`, which lives through the call; the remote one is checked by the kernel.
    let count = unsafe { libc::process_vm_readv(pid.cast_signed(), &raw const local, 1, &raw const remote, 1, 0) };
    usize::try_from(count).unwrap_or(0)
}
