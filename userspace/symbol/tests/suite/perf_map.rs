//! Maps of code made at run time.

use std::os::unix::fs::{MetadataExt as _, symlink};

use descry_decode::ids::RuntimeAddress;
use descry_symbol::{FrameKind, PerfMap, SymbolError};

fn look(map: &PerfMap, address: u64) -> String {
    map.lookup(RuntimeAddress(address)).map_or(String::new(), |symbol| symbol.frames[0].function.to_string())
}

#[test]
fn names_tell_who_made_the_code() {
    let check = |name: &str, kind, function: &str, place: &str| {
        let map = PerfMap::parse(format!("1000 10 {name}\n").as_bytes());
        let symbol = map.lookup(RuntimeAddress(0x100f)).expect("an entry");
        let frame = &symbol.frames[0];
        let number = |n: Option<u32>| n.map_or(String::new(), |n| format!(":{n}"));
        let found =
            format!("{}{}{}", frame.file.as_deref().unwrap_or(""), number(frame.line), number(frame.column));
        assert_eq!((&*frame.function, symbol.kind, &*found), (function, kind, place), "{name}");
    };
    check("LazyCompile:*fib /srv/app.js:3:13", FrameKind::V8Js, "fib", "/srv/app.js:3:13");
    check("JS:^get value /srv/a.js:10:2", FrameKind::V8Js, "get", "value /srv/a.js:10:2");
    check("JS:~ node:internal/main:1:1", FrameKind::V8Js, "(anonymous)", "node:internal/main:1:1");
    check("Function:~run file.js:7", FrameKind::V8Js, "run", "file.js:7");
    check("*fib /srv/app.js:3:13", FrameKind::V8Js, "fib", "/srv/app.js:3:13");
    check("Builtin:ArrayMap", FrameKind::V8Js, "Builtin:ArrayMap", "");
    check("Ljava/lang/String;::hashCode", FrameKind::Jvm, "Ljava/lang/String;::hashCode", "");
    check("int java.lang.String.indexOf(int)", FrameKind::Jvm, "int java.lang.String.indexOf(int)", "");
    check("py::main:/srv/app.py", FrameKind::Jit, "main", "/srv/app.py");
    check("trampoline", FrameKind::Jit, "trampoline", "");
}

#[test]
fn later_lines_win() {
    let map = PerfMap::parse(b"100 100 first\n180 100 second\n1a0 10 third\n0x400 10 with prefix\n");
    let all: Vec<_> = [0xff, 0x100, 0x17f, 0x180, 0x19f, 0x1a0, 0x1af, 0x1b0, 0x27f, 0x280, 0x40f]
        .map(|a| look(&map, a))
        .into();
    assert_eq!(
        all,
        ["", "first", "first", "second", "second", "third", "third", "second", "second", "", "with prefix"]
    );
}

#[test]
fn garbage_is_counted_and_left_out() {
    let long = format!("1000 10 {}\n", "x".repeat(10_000));
    let text = [
        b"zz 10 name\n100\n\n100 10\n100 0 empty\nffffffffffffffff 10 wraps\n\xff\xfe\n".as_slice(),
        long.as_bytes(),
        b"200 10 good\n300 10 cut off",
    ]
    .concat();
    let map = PerfMap::parse(&text);
    assert_eq!(
        (look(&map, 0x200), look(&map, 0x300), look(&map, 0x1000)),
        ("good".into(), "".into(), "".into())
    );
    assert_eq!((map.len(), map.bad_lines()), (1, 9));

    let directory = tempfile::TempDir::new().expect("a temporary directory");
    let path = directory.path().join("perf-1.map");
    std::fs::write(&path, &text).expect("it is written");
    let read = PerfMap::read(&path, None).expect("it is read");
    assert_eq!((read.len(), read.bad_lines()), (1, 9));
}

#[test]
fn only_the_programs_own_plain_file_is_read() {
    let directory = tempfile::TempDir::new().expect("a temporary directory");
    let path = directory.path().join("perf-1.map");
    std::fs::write(&path, "100 10 name\n").expect("it is written");
    let owner = std::fs::metadata(&path).expect("it is there").uid();
    assert_eq!(PerfMap::read(&path, Some(owner)).map(|map| map.len()).ok(), Some(1));
    assert!(matches!(PerfMap::read(&path, Some(owner + 1)), Err(SymbolError::WrongOwner { .. })));

    let link = directory.path().join("perf-2.map");
    symlink(&path, &link).expect("a link");
    assert!(matches!(PerfMap::read(&link, None), Err(SymbolError::Read { .. })));

    let pipe = directory.path().join("perf-3.map");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo").success());
    assert!(matches!(PerfMap::read(&pipe, None), Err(SymbolError::NotRegular { .. })));
}
