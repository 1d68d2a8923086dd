//! What a decoder taken over by a file could do: this program takes ffmpeg's place, tries, and reports.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, unsafe_code)]

use std::fs::File;
use std::net::{TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;

use rustix::process::{Resource, Signal, getppid, getrlimit, kill_process};
use triptych::media::{Decoder, DecoderConfig, Limits};
use triptych::preprocess::spec::PictureSpec;
use triptych::preprocess::{ClipReader, ClipSpec};

const ADDRESS_SPACE: u64 = 3 << 30;

fn main() {
    if std::env::args().any(|arg| arg == "-nostdin") {
        probe();
    }
    if std::env::args().any(|arg| arg == "--list") {
        return;
    }
    if !kernel_has_landlock() {
        eprintln!("SKIPPED: this kernel has no Landlock");
        return;
    }
    the_sandbox_holds();
    nothing_but_ffmpeg_is_executed();
    println!("sandbox: ok");
}

fn kernel_has_landlock() -> bool {
    use landlock::{AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr};
    let strict = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    strict.handle_access(AccessFs::Execute).and_then(Ruleset::create).is_ok()
}

/// Runs in ffmpeg's place, inside the sandbox.
fn probe() -> ! {
    let refused = |error: std::io::Error| error.kind() == std::io::ErrorKind::PermissionDenied;
    let denied = |result: std::io::Result<()>| result.err().is_some_and(refused);
    let open_descriptors = (3..64).filter(|fd| {
        // SAFETY: F_GETFD only asks; a closed descriptor answers with an error.
        unsafe { libc::fcntl(*fd, libc::F_GETFD) >= 0 }
    });
    let parent = getppid().unwrap();
    let landlocked = [
        ("reads /etc/passwd", denied(File::open("/etc/passwd").map(drop))),
        ("writes /tmp", denied(File::create("/tmp/triptych-sandbox-probe").map(drop))),
        ("lists /", denied(std::fs::read_dir("/").map(drop))),
        ("starts programs", denied(Command::new("/bin/true").status().map(drop))),
    ];
    let always = [
        ("connects", denied(TcpStream::connect("127.0.0.1:9").map(drop))),
        ("binds", denied(UdpSocket::bind("127.0.0.1:0").map(drop))),
        ("makes sockets", denied(UnixStream::pair().map(drop))),
        ("signals its parent", kill_process(parent, Signal::CONT).is_err()),
        ("forks", unsafe { libc::fork() } < 0),
        ("sees the environment", std::env::vars_os().next().is_none()),
        ("has descriptors of the server", open_descriptors.count() <= 2),
        ("has no memory cap", getrlimit(Resource::As).maximum == Some(ADDRESS_SPACE)),
        ("may write files", getrlimit(Resource::Fsize).maximum == Some(0)),
        ("dumps core", getrlimit(Resource::Core).maximum == Some(0)),
        ("has no threads", std::thread::spawn(|| 7).join().is_ok_and(|seven| seven == 7)),
        ("may gain rights", rustix::thread::no_new_privs().unwrap_or(false)),
    ];
    let checks = landlocked.iter().chain(&always);
    let leaks: Vec<&str> = checks.filter(|(_, held)| !held).map(|(what, _)| *what).collect();
    let verdict =
        if leaks.is_empty() { "the sandbox holds".to_owned() } else { format!("it {}", leaks.join(", it ")) };
    eprintln!("[info] Input #0, probe, from 'fd:':\n[info]   Stream #0:0: Video: none\n[error] {verdict}");
    std::process::exit(1);
}

fn decode_with(ffmpeg: PathBuf) -> String {
    let worker_exe = PathBuf::from(env!("CARGO_BIN_EXE_triptych"));
    let limits = Limits { address_space_bytes: ADDRESS_SPACE, wall_clock_secs: 30, ..Limits::default() };
    let decoder = Decoder::new(DecoderConfig { worker_exe, ffmpeg, limits });
    let spec = ClipSpec::mmv(10.0, 8, PictureSpec::mmv(64, 64, true, false), (48_000, 38_400), 0.8);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("any.mp4");
    std::fs::write(&path, b"\0\0\0\x20ftypisom\0\0\0\0").unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    match runtime.block_on(ClipReader::open(&decoder, &path, &spec, None)) {
        Ok(_) => panic!("decoded nothing"),
        Err(error) => format!("{}: {error} {:?}", error.code(), error.detail()),
    }
}

fn the_sandbox_holds() {
    // A descriptor the server forgot to mark close-on-exec.
    let leaked = unsafe { libc::open(c"/etc/passwd".as_ptr(), libc::O_RDONLY) };
    assert!(leaked >= 0);
    let said = decode_with(std::env::current_exe().unwrap());
    assert!(said.contains("the sandbox holds"), "{said}");
}

fn nothing_but_ffmpeg_is_executed() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("ffmpeg");
    std::fs::write(&script, "#!/bin/sh\necho ran >&2\n").unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let said = decode_with(script);
    assert!(said.starts_with("decode_worker_failed") && said.contains("ermission denied"), "{said}");
}
