//! Restricts the decode worker to reading, computing and writing to its pipes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetStatus, Scope,
};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

/// A sentence that says why the sandbox could not be built.
pub type SandboxError = String;

/// Folders of ffmpeg's shared libraries and their loader. Missing ones are skipped.
const LIBRARY_PATHS: [&str; 6] =
    ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache"];

/// Makes the kernel kill this process when the thread that started it ends, and rules out setuid programs.
pub fn bind_to_parent() -> Result<(), SandboxError> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|e| format!("pdeathsig: {e}"))?;
    rustix::thread::set_no_new_privs(true).map_err(|e| format!("no_new_privs: {e}"))
}

/// Closes every descriptor except standard input, output and error. A decoder must not reach anything that
/// the server opened without close-on-exec.
#[allow(unsafe_code)]
pub fn close_inherited() {
    // SAFETY: called first in a fresh single-threaded process, so no object owns a descriptor above 2 yet,
    // and none can be used after this.
    unsafe {
        libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, 0u32);
    }
}

/// Limits memory, CPU time and open files; forbids core dumps and writing to files. If the server itself runs
/// under lower limits (`ulimit`), those apply: no process may raise them.
pub fn limit_resources(address_space_bytes: u64, cpu_secs: u64) -> Result<(), SandboxError> {
    let hard = |value: u64| Rlimit { current: Some(value), maximum: Some(value) };
    let cpu = Rlimit { current: Some(cpu_secs), maximum: Some(cpu_secs.saturating_add(1)) };
    let caps = [
        (Resource::Core, hard(0)),
        (Resource::Fsize, hard(0)),
        (Resource::Nofile, hard(64)),
        (Resource::Cpu, cpu),
        (Resource::As, hard(address_space_bytes)),
    ];
    for (resource, limit) in caps {
        let limit = within(limit, getrlimit(resource));
        setrlimit(resource, limit).map_err(|e| format!("rlimit {resource:?}: {e}"))?;
    }
    Ok(())
}

/// The lower of the wanted and the inherited limits.
fn within(wanted: Rlimit, inherited: Rlimit) -> Rlimit {
    let lower = |a: Option<u64>, b: Option<u64>| match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    };
    let maximum = lower(wanted.maximum, inherited.maximum);
    Rlimit { current: lower(lower(wanted.current, inherited.current), maximum), maximum }
}

/// Stack of each ffmpeg thread. The default would count as 8 MiB of memory each.
const THREAD_STACK_BYTES: u64 = 2 << 20;

/// Limits what the process may allocate; the parent may lower the limit further. `most` is the hard limit.
/// Lower inherited limits apply.
pub fn limit_data(bytes: u64, most: u64) -> Result<(), SandboxError> {
    let data = Rlimit { current: Some(bytes.min(most)), maximum: Some(most) };
    let data = within(data, getrlimit(Resource::Data));
    setrlimit(Resource::Data, data).map_err(|e| format!("rlimit Data: {e}"))?;
    let stack = getrlimit(Resource::Stack);
    let stack = within(Rlimit { current: Some(THREAD_STACK_BYTES), ..stack }, stack);
    setrlimit(Resource::Stack, stack).map_err(|e| format!("rlimit Stack: {e}"))
}

/// Removes access to the file system (except `executable` and its libraries), to TCP, and signals to other
/// processes. Survives exec; may be called again to remove more. Returns whether the kernel enforces it.
pub fn landlock(executable: Option<&Path>) -> Result<bool, SandboxError> {
    let say = |e: &dyn std::fmt::Display| format!("landlock: {e}");
    let mut ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(ABI::V5))
        .and_then(|r| r.handle_access(AccessNet::from_all(ABI::V4)))
        .and_then(|r| r.scope(Scope::from_all(ABI::V6)))
        .and_then(Ruleset::create)
        .map_err(|e| say(&e))?;
    if let Some(executable) = executable {
        let allowed: BitFlags<AccessFs> = AccessFs::Execute | AccessFs::ReadFile;
        let libraries = LIBRARY_PATHS.iter().map(PathBuf::from);
        for path in libraries.chain([executable.to_owned()]) {
            // A path that does not exist needs no rule.
            let Ok(fd) = PathFd::new(&path) else { continue };
            ruleset = ruleset.add_rule(PathBeneath::new(fd, allowed)).map_err(|e| say(&e))?;
        }
    }
    let status = ruleset.restrict_self().map_err(|e| say(&e))?;
    Ok(status.ruleset != RulesetStatus::NotEnforced)
}

/// System calls that no decoder needs. They fail with EPERM.
#[rustfmt::skip]
const REFUSED_CALLS: &[libc::c_long] = &[
    libc::SYS_socket, libc::SYS_socketpair, libc::SYS_connect, libc::SYS_bind, libc::SYS_listen,
    libc::SYS_accept, libc::SYS_accept4, libc::SYS_sendmmsg,
    libc::SYS_ptrace, libc::SYS_process_vm_readv, libc::SYS_process_vm_writev, libc::SYS_pidfd_open,
    libc::SYS_pidfd_getfd, libc::SYS_pidfd_send_signal, libc::SYS_kcmp, libc::SYS_kill, libc::SYS_tkill,
    libc::SYS_rt_sigqueueinfo, libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_mount, libc::SYS_umount2, libc::SYS_pivot_root, libc::SYS_chroot, libc::SYS_open_tree,
    libc::SYS_move_mount, libc::SYS_fsopen, libc::SYS_fsconfig, libc::SYS_fsmount, libc::SYS_fspick,
    libc::SYS_mount_setattr, libc::SYS_name_to_handle_at, libc::SYS_open_by_handle_at,
    libc::SYS_unshare, libc::SYS_setns, libc::SYS_bpf, libc::SYS_perf_event_open, libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register,
    libc::SYS_add_key, libc::SYS_request_key, libc::SYS_keyctl, libc::SYS_init_module,
    libc::SYS_finit_module, libc::SYS_delete_module, libc::SYS_kexec_load, libc::SYS_reboot,
    libc::SYS_swapon, libc::SYS_swapoff, libc::SYS_settimeofday, libc::SYS_clock_settime,
    libc::SYS_acct, libc::SYS_quotactl, libc::SYS_fanotify_init, libc::SYS_personality,
    libc::SYS_setuid, libc::SYS_setgid, libc::SYS_setreuid, libc::SYS_setregid, libc::SYS_setresuid,
    libc::SYS_setresgid, libc::SYS_setgroups, libc::SYS_capset, libc::SYS_memfd_create,
    libc::SYS_mq_open, libc::SYS_shmget, libc::SYS_msgget, libc::SYS_semget,
];

#[cfg(target_arch = "x86_64")]
const FORK_CALLS: &[libc::c_long] = &[libc::SYS_fork, libc::SYS_vfork];
#[cfg(not(target_arch = "x86_64"))]
const FORK_CALLS: &[libc::c_long] = &[];

/// Refuses sockets, new processes, tracing and administration. Threads stay possible. Survives exec.
pub fn seccomp() -> Result<(), SandboxError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        REFUSED_CALLS.iter().chain(FORK_CALLS).map(|call| (*call, Vec::new())).collect();
    rules.insert(libc::SYS_clone, vec![new_process()?]);
    install(rules, libc::EPERM)?;
    // clone3 hides its flags behind a pointer. Without it, the C library falls back to clone.
    install(BTreeMap::from([(libc::SYS_clone3, Vec::new())]), libc::ENOSYS)
}

/// Removes exec and the last readable paths, for decoders that run inside the worker, unless ffmpeg may still
/// be needed.
pub fn refuse_exec_unless(needed: bool) -> Result<(), SandboxError> {
    if needed {
        return Ok(());
    }
    // If the kernel lacks Landlock, the first call has already reported it.
    let _ = landlock(None);
    let calls = [libc::SYS_execve, libc::SYS_execveat];
    install(calls.into_iter().map(|call| (call, Vec::new())).collect(), libc::EPERM)
}

/// Matches a clone without CLONE_THREAD, which creates a process.
fn new_process() -> Result<SeccompRule, SandboxError> {
    let thread = libc::CLONE_THREAD as u64;
    let flag = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(thread), 0);
    SeccompRule::new(vec![flag.map_err(|e| format!("seccomp: {e}"))?]).map_err(|e| format!("seccomp: {e}"))
}

fn install(rules: BTreeMap<i64, Vec<SeccompRule>>, errno: i32) -> Result<(), SandboxError> {
    let say = |e: &dyn std::fmt::Display| format!("seccomp: {e}");
    let arch = std::env::consts::ARCH.try_into().map_err(|e| say(&e))?;
    let refuse = SeccompAction::Errno(errno.unsigned_abs());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch).map_err(|e| say(&e))?;
    let program = BpfProgram::try_from(filter).map_err(|e| say(&e))?;
    seccompiler::apply_filter(&program).map_err(|e| say(&e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inherited_caps_are_never_raised() {
        let of = |current, maximum| Rlimit { current, maximum };
        let ours = of(Some(10), Some(11));
        assert_eq!(within(ours, of(None, None)), ours);
        assert_eq!(within(ours, of(Some(4), None)), of(Some(4), Some(11)));
        assert_eq!(within(ours, of(Some(4), Some(5))), of(Some(4), Some(5)));
        assert_eq!(within(ours, of(None, Some(5))), of(Some(5), Some(5)));
        assert_eq!(within(ours, of(Some(20), Some(30))), ours);
    }
}
