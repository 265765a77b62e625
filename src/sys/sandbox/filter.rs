//! Leaves a thread the system calls that a camera makes: a seccomp filter in classic BPF.
//!
//! seccomp(2). What is not listed fails with EPERM and is logged by the kernel; what only an
//! intruder would call (another program, a mount, a module, a debugger, BPF) ends the process.

use std::io;

use nix::errno::Errno;
use nix::libc::{self, c_long, sock_filter, sock_fprog};
use nix::sys::prctl;

/// Installs the filter.
///
/// # Errors
///
/// EINVAL or ENOSYS from a kernel without filters; then nothing has changed.
pub fn restrict_calls() -> io::Result<()> {
    let mut program = program();
    let length = u16::try_from(program.len()).map_err(|_| Errno::EINVAL)?;
    let program = sock_fprog { len: length, filter: program.as_mut_ptr() };
    prctl::set_no_new_privs()?;
    let (mode, flags) = (libc::SECCOMP_SET_MODE_FILTER, libc::SECCOMP_FILTER_FLAG_LOG);
    // SAFETY: the third argument points to a program of the length that it tells; both outlive the
    // call, which copies them.
    let done = unsafe { libc::syscall(libc::SYS_seccomp, mode, flags, &raw const program) };
    Errno::result(done)?;
    Ok(())
}

fn program() -> Vec<sock_filter> {
    let mut program = vec![load(ARCHITECTURE)];
    answer_if(&mut program, Test::Differs(OWN_ARCHITECTURE), libc::SECCOMP_RET_KILL_PROCESS);
    program.push(load(NUMBER));
    // x86-64 has a second table of calls, which we never use.
    answer_if(&mut program, Test::AtLeast(X32), DENY);
    for &call in ALLOWED.iter().chain(ALLOWED_HERE) {
        answer_if(&mut program, Test::Is(number(call)), libc::SECCOMP_RET_ALLOW);
    }
    for &call in DEADLY {
        answer_if(&mut program, Test::Is(number(call)), libc::SECCOMP_RET_KILL_PROCESS);
    }
    // Its flags are in memory, where no filter can see them: the C library then uses clone.
    let not_there = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned();
    answer_if(&mut program, Test::Is(number(libc::SYS_clone3)), not_there);
    for (call, argument, tests) in BY_ARGUMENT {
        let mut body = vec![load(ARGUMENTS + 8 * argument)];
        for &test in *tests {
            answer_if(&mut body, test, libc::SECCOMP_RET_ALLOW);
        }
        body.push(answer(DENY));
        let past = u8::try_from(body.len()).unwrap_or(u8::MAX);
        program.push(jump(libc::BPF_JEQ, number(*call), 0, past));
        program.append(&mut body);
    }
    program.push(answer(DENY));
    program
}

/// What the word that was loaded is compared with.
#[derive(Clone, Copy, Debug)]
enum Test {
    Is(u32),
    Differs(u32),
    AtLeast(u32),
    HasBit(u32),
    HasNoBit(u32),
    /// Of the bits in the first, exactly those of the second are set. Spoils the word.
    Masked(u32, u32),
}

fn answer_if(program: &mut Vec<sock_filter>, test: Test, what: u32) {
    let test = match test {
        Test::Is(value) => jump(libc::BPF_JEQ, value, 0, 1),
        Test::Differs(value) => jump(libc::BPF_JEQ, value, 1, 0),
        Test::AtLeast(value) => jump(libc::BPF_JGE, value, 0, 1),
        Test::HasBit(bit) => jump(libc::BPF_JSET, bit, 0, 1),
        Test::HasNoBit(bit) => jump(libc::BPF_JSET, bit, 1, 0),
        Test::Masked(mask, value) => {
            program.push(instruction(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, mask, 0, 0));
            jump(libc::BPF_JEQ, value, 0, 1)
        }
    };
    program.push(test);
    program.push(answer(what));
}

fn load(offset: u32) -> sock_filter {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset, 0, 0)
}

fn jump(condition: u32, value: u32, if_true: u8, if_false: u8) -> sock_filter {
    instruction(libc::BPF_JMP | condition | libc::BPF_K, value, if_true, if_false)
}

fn answer(what: u32) -> sock_filter {
    instruction(libc::BPF_RET | libc::BPF_K, what, 0, 0)
}

fn instruction(code: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code: u16::try_from(code).expect("BPF codes are 16 bits"), jt, jf, k }
}

fn number(call: c_long) -> u32 {
    u32::try_from(call).expect("the kernel's numbers are small")
}

const DENY: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;

/// Offsets in `struct seccomp_data`; the low halves of the arguments, on little-endian machines.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;
const X32: u32 = 0x4000_0000;

/// linux/audit.h: ELF machine, 64 bits, little-endian.
#[cfg(target_arch = "x86_64")]
const OWN_ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const OWN_ARCHITECTURE: u32 = 0xc000_00b7;

/// Calls that depend on an argument: the call, which argument, and the values that are allowed.
const BY_ARGUMENT: &[(c_long, u32, &[Test])] = &[
    // Threads, not processes.
    (libc::SYS_clone, 0, &[Test::HasBit(libc::CLONE_THREAD as u32)]),
    // Names of threads.
    (libc::SYS_prctl, 0, &[Test::Is(libc::PR_SET_NAME as u32)]),
    (
        libc::SYS_socket,
        0,
        &[
            Test::Is(libc::AF_UNIX as u32),
            Test::Is(libc::AF_INET as u32),
            Test::Is(libc::AF_INET6 as u32),
            Test::Is(libc::AF_NETLINK as u32),
        ],
    ),
    (
        libc::SYS_ioctl,
        1,
        &[
            Test::Is(0x5401), // TCGETS: is it a terminal?
            Test::Is(0x5411), // SIOCOUTQ
            Test::Is(0x5421), // FIONBIO
            Test::Is(0x8910), // SIOCGIFNAME
            Test::Is(0x8933), // SIOCGIFINDEX
            Test::Masked(0xff00, (b'V' as u32) << 8),
            Test::Is((b'|' as u32) << 8), // media controllers; masked already
        ],
    ),
    // All our code was there from the start.
    (libc::SYS_mmap, 2, &[Test::HasNoBit(libc::PROT_EXEC as u32)]),
    (libc::SYS_mprotect, 2, &[Test::HasNoBit(libc::PROT_EXEC as u32)]),
];

/// What a camera has no business with, and an intruder has.
const DEADLY: &[c_long] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsmount,
    libc::SYS_open_tree,
    libc::SYS_pivot_root,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_bpf,
];

const ALLOWED: &[c_long] = &[
    // Files and descriptors.
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_openat,
    libc::SYS_close,
    libc::SYS_lseek,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_getdents64,
    libc::SYS_readlinkat,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fcntl,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_pipe2,
    // Waiting.
    libc::SYS_eventfd2,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_futex,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_restart_syscall,
    // Sockets.
    libc::SYS_socketpair,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_connect,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_sendmmsg,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_recvmmsg,
    libc::SYS_shutdown,
    // Memory.
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    // Threads.
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_rseq,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_setscheduler,
    libc::SYS_sched_getattr,
    libc::SYS_sched_setattr,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // Signals.
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_sigaltstack,
    libc::SYS_tgkill,
    libc::SYS_tkill,
    // Clocks and the rest.
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    // Whether the clock is right; to change it takes a privilege that a camera does not have.
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_prlimit64,
    libc::SYS_getrusage,
    libc::SYS_uname,
    libc::SYS_sysinfo,
];

/// Older forms that only this architecture has.
#[cfg(target_arch = "x86_64")]
const ALLOWED_HERE: &[c_long] = &[
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_poll,
    libc::SYS_epoll_wait,
    libc::SYS_time,
];
#[cfg(target_arch = "aarch64")]
const ALLOWED_HERE: &[c_long] = &[];

#[cfg(test)]
#[allow(clippy::disallowed_types, reason = "the calls behind the type are what is tested")]
mod tests {
    use std::fs;
    use std::net::TcpListener;
    use std::thread;

    use nix::sched::{CloneFlags, unshare};
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

    use super::*;

    #[test]
    fn no_jump_leads_out_of_the_program() {
        let program = program();
        for (at, step) in program.iter().enumerate() {
            let is_jump = u32::from(step.code) & 0x07 == libc::BPF_JMP;
            let furthest = at + 1 + usize::from(step.jt.max(step.jf));
            assert!(!is_jump || furthest < program.len(), "{at}");
        }
        assert_eq!(program.last().unwrap().k, DENY);
        assert!(program.len() < 4096, "BPF_MAXINSNS");
    }

    #[test]
    fn no_call_is_both_allowed_and_something_else() {
        let others = DEADLY.iter().chain(BY_ARGUMENT.iter().map(|(call, ..)| call));
        for call in others.chain([&libc::SYS_clone3]) {
            assert!(!ALLOWED.contains(call) && !ALLOWED_HERE.contains(call), "{call}");
        }
    }

    #[test]
    fn threads_sockets_and_memory_work_and_other_calls_are_refused() {
        let restricted = || {
            restrict_calls().unwrap();
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            listener.set_nonblocking(true).unwrap();
            crate::sys::udp::bind_any(0).unwrap();
            crate::sys::process::shorten_turns().unwrap();
            let sum = thread::Builder::new().name("inner".into()).spawn(|| {
                let big: Vec<u64> = (0..4_000_000).collect();
                big.iter().sum::<u64>()
            });
            assert_eq!(sum.unwrap().join().unwrap(), 7_999_998_000_000);
            fs::read("/proc/self/status").unwrap();
            assert_eq!(unshare(CloneFlags::CLONE_NEWUSER), Err(Errno::EPERM));
            let made =
                fs::create_dir("/dev/shm/ocellus-made").map_err(|error| error.raw_os_error());
            assert_eq!(made, Err(Some(libc::EPERM)));
            let packet = socket(AddressFamily::Packet, SockType::Raw, SockFlag::empty(), None);
            assert_eq!(packet.unwrap_err(), Errno::EPERM);
            // Not even the child of a fork, which would not share our memory.
            assert!(std::process::Command::new("/bin/true").status().is_err());
        };
        thread::spawn(restricted).join().unwrap();
    }
}
