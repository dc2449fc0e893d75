//! A profile made by hand, with everything that a profile can have.

use std::sync::Arc;
use std::time::Duration;

use descry_aggregate::profile::{
    AttributeValue, Attributes, FrameKind, Function, Line, Location, Profile, ProfileKind, ProfileMapping,
    ProfileProcess, ProfileSample, Reason, Stack, WaitState, Waited,
};
use descry_decode::ids::{Comm, Cpu, Tgid, Tid, UnixNanos};

/// 2024-05-06 07:08:09.5 UTC.
pub const START: u64 = 1_714_979_289_500_000_000;
/// 99 Hz.
pub const PERIOD: u64 = 10_101_010;

/// A name that tries everything: line break, terminal control, separator, reading order, a number at its end.
pub const EVIL: &str = "evil\n\x1b[2J;\u{202e}name 12";

fn text(text: &str) -> Arc<str> {
    Arc::from(text)
}

pub fn comm(name: &str) -> Comm {
    let mut bytes = [0; 16];
    for (byte, from) in bytes.iter_mut().take(15).zip(name.bytes()) {
        *byte = from;
    }
    Comm(bytes)
}

fn resource(service: &str, pid: i64, path: &str) -> Attributes {
    let text = |text: &str| AttributeValue::Text(text.to_owned());
    let list = AttributeValue::List(vec![path.to_owned(), "--fast".to_owned()]);
    [
        ("service.name", text(service)),
        ("process.pid", AttributeValue::Int(pid)),
        ("process.executable.path", text(path)),
        ("process.command_args", list),
        ("host.name", text("example")),
    ]
    .into_iter()
    .map(|(name, value)| (name.into(), value))
    .collect()
}

pub fn mapping(path: &str) -> ProfileMapping {
    ProfileMapping {
        path: text(path),
        start: 0,
        end: 0,
        offset: 0,
        gnu_build_id: None,
        go_build_id: None,
        htlhash: None,
        has_functions: false,
        has_filenames: false,
        has_lines: false,
        has_inlines: false,
    }
}

fn mappings() -> Vec<ProfileMapping> {
    vec![
        ProfileMapping {
            start: 0xffff_ffff_8100_0000,
            end: 0xffff_ffff_8200_0000,
            has_functions: true,
            ..mapping("[kernel]")
        },
        ProfileMapping {
            start: 0x5555_5555_4000,
            end: 0x5555_5556_0000,
            offset: 0x1000,
            gnu_build_id: Some(text("0123456789abcdef0123456789abcdef01234567")),
            htlhash: Some(text("00112233445566778899aabbccddeeff")),
            has_functions: true,
            has_filenames: true,
            has_lines: true,
            has_inlines: true,
            ..mapping("/usr/bin/cruncher")
        },
        ProfileMapping {
            gnu_build_id: Some(text("ffeeddccbbaa99887766554433221100ffeeddcc")),
            has_functions: true,
            ..mapping("/usr/lib/x86_64-linux-gnu/libc.so.6")
        },
        ProfileMapping {
            go_build_id: Some(text("abc/def-ghi")),
            htlhash: Some(text("ffeeddccbbaa99887766554433221100")),
            ..mapping("/opt/odd dir/a b.so")
        },
    ]
}

fn function(name: &str, file: Option<&str>) -> Function {
    Function { name: text(name), system_name: text(name), file: file.map(text) }
}

fn functions() -> Vec<Function> {
    vec![
        function("do_syscall_64", None),
        function("entry_SYSCALL_64_after_hwframe", None),
        Function {
            name: text("<[u8; 8] as core::hash::Hash>::hash"),
            system_name: text("_ZN4core4hash4Hash4hash17h0123456789abcdefE"),
            file: Some(text("/rust/core/src/hash/mod.rs")),
        },
        Function {
            name: text("cruncher::work"),
            system_name: text("_ZN8cruncher4work17h0123456789abcdefE"),
            file: Some(text("src/main.rs")),
        },
        function("main", Some("src/main.rs")),
        function("__libc_start_main_impl", None),
        function(EVIL, None),
        function("LazyCompile:~foo /app/x.js:3", None),
    ]
}

fn locations() -> Vec<Location> {
    let line = |function, line, column| Line { function, line, column };
    let location =
        |mapping, address, kind, lines: &[Line]| Location { mapping, address, kind, lines: lines.to_vec() };
    vec![
        location(Some(0), 0xffff_ffff_8100_0123, FrameKind::Kernel, &[line(0, 0, 0)]),
        location(Some(0), 0xffff_ffff_8100_4567, FrameKind::Kernel, &[line(1, 0, 0)]),
        location(Some(1), 0x1234, FrameKind::Rust, &[line(2, 210, 9), line(3, 17, 5)]),
        location(Some(1), 0x1300, FrameKind::Rust, &[line(3, 21, 0)]),
        location(Some(1), 0x1400, FrameKind::Rust, &[line(4, 40, 1)]),
        location(Some(2), 0x2_7249, FrameKind::Native, &[line(5, 0, 0)]),
        location(Some(3), 0x2f10, FrameKind::Native, &[]),
        location(Some(3), 0x3000, FrameKind::Native, &[line(6, 0, 0)]),
        location(None, 0x7f00_1000_0000, FrameKind::V8Js, &[line(7, 0, 0)]),
        location(None, 0x7f00_1234_5678, FrameKind::Native, &[]),
    ]
}

/// Stacks: of a system call, with recursion, cut, of code made at run time, without frames.
fn stacks() -> Vec<Stack> {
    let stack = |locations: &[u32], truncated| Stack { locations: locations.to_vec(), truncated };
    vec![
        stack(&[0, 1, 3, 4, 5], false),
        stack(&[2, 3, 3, 4, 5], false),
        stack(&[6, 7], true),
        stack(&[8, 9], false),
        stack(&[], false),
    ]
}

fn process(tgid: u32, name: &str, path: &str) -> ProfileProcess {
    let resource = resource(name.trim_end_matches(char::is_control), i64::from(tgid), path);
    ProfileProcess { tgid: Tgid(tgid), name: text(name), resource }
}

pub fn sample(process: u32, thread: Option<(u32, &str)>, stack: u32, count: u64) -> ProfileSample {
    ProfileSample {
        process,
        thread: thread.map(|(tid, name)| (Tid(tid), comm(name))),
        cpu: None,
        stack,
        waited: None,
        count,
        weight: count * PERIOD,
        longest: 0,
        timestamps: Vec::new(),
    }
}

/// Two processes, one with two threads; 54 samples.
pub fn cpu() -> Profile {
    let on_cpu = |cpu, sample| ProfileSample { cpu: Some(Cpu(cpu)), ..sample };
    Profile {
        kind: ProfileKind::Cpu,
        start: UnixNanos(START),
        duration: Duration::from_secs(10),
        period: PERIOD,
        processes: vec![
            process(100, "cruncher", "/usr/bin/cruncher"),
            process(200, "odd; name\n\x1b[31m 7", "/opt/odd dir/a b"),
        ],
        mappings: mappings(),
        functions: functions(),
        locations: locations(),
        stacks: stacks(),
        samples: vec![
            sample(0, Some((100, "cruncher")), 0, 7),
            sample(0, Some((100, "cruncher")), 1, 20),
            sample(0, Some((101, "worker;1")), 1, 12),
            on_cpu(0, sample(1, Some((200, "odd")), 2, 9)),
            on_cpu(1, sample(1, Some((200, "odd")), 2, 1)),
            sample(1, None, 3, 4),
            sample(1, None, 4, 1),
        ],
    }
}

/// The same with the time of each sample.
pub fn timed() -> Profile {
    let mut profile = cpu();
    for (index, sample) in profile.samples.iter_mut().enumerate() {
        let first = START + 1_000_000 * index as u64;
        sample.timestamps = (0..sample.count).map(|n| UnixNanos(first + n * PERIOD)).collect();
    }
    profile
}

/// Waits: a few long ones, many too short for a microsecond each.
pub fn off_cpu() -> Profile {
    let mut profile = cpu();
    profile.kind = ProfileKind::OffCpu;
    profile.period = 0;
    for (sample, weight) in profile.samples.iter_mut().zip([1_234_567_890, 999, 400, 499, 499, 2_000_600, 0])
    {
        sample.weight = weight;
    }
    let waits = [
        (Reason::Lock, WaitState::Interruptible, 1_000_000_000),
        (Reason::Disk, WaitState::Uninterruptible, 500),
        (Reason::RunQueue, WaitState::Preempted, 300),
        (Reason::NetworkPoll, WaitState::Interruptible, 60),
        (Reason::NetworkPoll, WaitState::Interruptible, 499),
        (Reason::Sleep, WaitState::Interruptible, 1_000_000),
        (Reason::Other, WaitState::Stopped, 0),
    ];
    for (sample, (reason, state, longest)) in profile.samples.iter_mut().zip(waits) {
        sample.waited = Some(Waited { reason, state });
        sample.longest = longest;
    }
    profile
}

/// Nothing was seen.
pub fn empty() -> Profile {
    let nothing = Profile { processes: Vec::new(), mappings: Vec::new(), functions: Vec::new(), ..cpu() };
    Profile { locations: Vec::new(), stacks: Vec::new(), samples: Vec::new(), ..nothing }
}
