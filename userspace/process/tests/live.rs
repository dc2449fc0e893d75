//! This process and its children, watched.
#![expect(clippy::unwrap_used, reason = "a helper that cannot help is a failed test")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use descry_decode::ids::{BootNanos, Comm, FileOffset, RuntimeAddress, Tgid};
use descry_process::identity::host::Host;
use descry_process::identity::{ResourceOptions, resource};
use descry_process::maps::{self, MappingSource};
use descry_process::namespace::PidNamespace;
use descry_process::table::{MmapEvent, ProcessTable, Resolved, TableLimits, TableMapping};
use descry_process::{AttributeValue, ProcessError, target};
use object::{Object as _, ObjectSymbol as _};

const LATER: BootNanos = BootNanos(u64::MAX);

/// A child that is killed in the end.
struct Sleeper(Child);

impl Sleeper {
    fn start(program: &Path) -> Self {
        let child = Command::new(program).arg("600").env("OTEL_SERVICE_NAME", "sleepy").spawn().unwrap();
        // The parent of a new process may run on before the kernel has mapped the program: until it sleeps.
        let stat = format!("/proc/{}/stat", child.id());
        while !std::fs::read_to_string(&stat).unwrap().contains(") S ") {
            std::thread::yield_now();
        }
        Self(child)
    }

    fn tgid(&self) -> Tgid {
        Tgid(self.0.id())
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        self.0.kill().and_then(|()| self.0.wait()).ok();
    }
}

fn sleep() -> PathBuf {
    // A copy, because some systems have one program for all of coreutils.
    std::fs::canonicalize("/bin/sleep").unwrap()
}

fn own() -> Tgid {
    Tgid(std::process::id())
}

fn table() -> ProcessTable {
    ProcessTable::new(TableLimits::default())
}

fn mapping_of<'a>(table: &'a ProcessTable, tgid: Tgid, path: &Path) -> &'a TableMapping {
    let mappings = table.get(tgid).unwrap().mappings();
    mappings.iter().find(|mapping| *mapping.name == *path.to_str().unwrap()).unwrap()
}

fn event_of(mapping: &TableMapping, time: BootNanos) -> MmapEvent {
    MmapEvent {
        time,
        start: mapping.start,
        len: mapping.end.0 - mapping.start.0,
        offset: mapping.offset,
        inode: mapping.inode,
        path: mapping.name.as_bytes().to_vec(),
        build_id: None,
    }
}

#[unsafe(no_mangle)]
extern "C" fn a_function_to_look_up() -> u32 {
    std::hint::black_box(42)
}

#[test]
fn a_function_of_this_process_has_its_address_in_the_file() {
    let mut table = table();
    table.load(own()).unwrap();
    let runtime = RuntimeAddress(a_function_to_look_up as *const () as u64);
    let Resolved::Object { id, address } = table.resolve(own(), runtime) else { panic!("in no binary") };
    let object = table.objects().get(id).unwrap().clone();
    assert_eq!(Path::new(&*object.path), std::env::current_exe().unwrap());
    assert!(object.is_rust && !object.is_go);
    let bytes = std::fs::read(object.open_path().unwrap()).unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    let symbol = file.symbols().find(|symbol| symbol.name() == Ok("a_function_to_look_up")).unwrap();
    assert_eq!(address.0, symbol.address());
    assert_eq!(table.resolve(own(), RuntimeAddress(8)), Resolved::Unknown);
}

#[test]
fn the_vdso_is_a_binary_too() {
    let mut table = table();
    table.load(own()).unwrap();
    let vdso = mapping_of(&table, own(), Path::new("[vdso]")).clone();
    let Resolved::Object { id, address } = table.resolve(own(), vdso.start) else {
        panic!("the vdso is unreadable")
    };
    let object = table.objects().get(id).unwrap().clone();
    assert_eq!(object.elf_address(FileOffset(0)), Some(address));
    let symbols = object.read_section(".dynstr").unwrap().unwrap().data;
    assert!(String::from_utf8_lossy(&symbols).contains("__vdso_clock_gettime"));
    assert!(object.open_path().is_none());
}

#[test]
fn a_deleted_program_is_still_read() {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("short lived\nprogram");
    std::fs::copy(sleep(), &program).unwrap();
    let sleeper = Sleeper::start(&program);
    std::fs::remove_file(&program).unwrap();
    let maps = maps::read(sleeper.tgid()).unwrap();
    let source = MappingSource::File { path: program.clone(), deleted: true };
    assert!(maps.mappings.iter().any(|mapping| mapping.source == source));

    let mut table = table();
    table.load(sleeper.tgid()).unwrap();
    let start = mapping_of(&table, sleeper.tgid(), &program).start;
    let Resolved::Object { id, .. } = table.resolve(sleeper.tgid(), start) else { panic!("not readable") };
    let object = table.objects().get(id).unwrap().clone();
    assert_eq!(object.read_all(1 << 30).unwrap(), std::fs::read(sleep()).unwrap());
    // An intact copy elsewhere is the same binary, if it says so by a build id.
    let other = Sleeper::start(&sleep());
    table.load(other.tgid()).unwrap();
    let start = mapping_of(&table, other.tgid(), &sleep()).start;
    let Resolved::Object { id: other, .. } = table.resolve(other.tgid(), start) else {
        panic!("not readable")
    };
    assert_eq!(id == other, object.gnu_build_id.is_some());
}

#[test]
fn a_replaced_program_is_not_taken_for_the_mapped_one() {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("program");
    std::fs::copy(sleep(), &program).unwrap();
    let mut sleeper = Sleeper::start(&program);
    let mut known = table();
    known.load(sleeper.tgid()).unwrap();
    let event = event_of(mapping_of(&known, sleeper.tgid(), &program), BootNanos(1));
    let address = event.start;
    let tgid = sleeper.tgid();
    sleeper.kill();
    let new = directory.path().join("new");
    std::fs::copy(std::env::current_exe().unwrap(), &new).unwrap();
    std::fs::rename(&new, &program).unwrap();

    let mut table = table();
    table.apply_mmap(tgid, &event);
    let name = program.to_str().unwrap().into();
    assert_eq!(table.resolve(tgid, address), Resolved::Unreadable { name, offset: event.offset });
    assert_eq!(table.objects().counters().unavailable, 1);
}

#[test]
fn a_dead_process_resolves_by_events_alone() {
    let mut sleeper = Sleeper::start(&sleep());
    let tgid = sleeper.tgid();
    let mut known = table();
    known.load(tgid).unwrap();
    let mapping = mapping_of(&known, tgid, &sleep()).clone();
    let address = RuntimeAddress(mapping.start.0 + 0x10);
    let expected = known.resolve(tgid, address);
    let Resolved::Object { id, address: in_file } = expected else { panic!("not readable") };
    let build_id = known.objects().get(id).unwrap().gnu_build_id.clone();
    sleeper.kill();
    assert!(matches!(known.load(tgid), Err(ProcessError::NoSuchProcess { .. })));
    assert_eq!(known.resolve(tgid, address), expected, "what was known stays known");

    let mut by_inode = table();
    by_inode.apply_mmap(tgid, &event_of(&mapping, BootNanos(1)));
    assert!(
        matches!(by_inode.resolve(tgid, address), Resolved::Object { address, .. } if address == in_file)
    );
    assert_eq!(by_inode.get(tgid).unwrap().identity.executable_path.as_deref(), sleep().to_str());

    if let Some(build_id) = build_id {
        let bytes = |hex: &str| u8::from_str_radix(hex, 16).unwrap();
        let build_id: Vec<_> =
            build_id.as_bytes().chunks(2).map(|hex| bytes(std::str::from_utf8(hex).unwrap())).collect();
        let event = |build_id| MmapEvent { inode: None, build_id, ..event_of(&mapping, BootNanos(1)) };
        let mut by_build_id = table();
        by_build_id.apply_mmap(tgid, &event(Some(build_id)));
        assert!(
            matches!(by_build_id.resolve(tgid, address), Resolved::Object { address, .. } if address == in_file)
        );
        let mut by_wrong_build_id = table();
        by_wrong_build_id.apply_mmap(tgid, &event(Some(vec![1; 20])));
        assert!(matches!(by_wrong_build_id.resolve(tgid, address), Resolved::Unreadable { .. }));
    }
}

#[test]
fn children_inherit_and_programs_replace() {
    let mut table = table();
    let loaded = table.load(own()).unwrap().revision;
    assert_eq!(table.load(own()).unwrap().revision, loaded, "nothing has changed");
    let address = RuntimeAddress(a_function_to_look_up as *const () as u64);
    let expected = table.resolve(own(), address);
    let child = Tgid(u32::MAX);
    table.fork(own(), child, LATER);
    assert_eq!(table.resolve(child, address), expected);
    let forked = table.get(child).unwrap().revision;
    assert_ne!(forked, loaded);
    assert_eq!(table.get(child).unwrap().identity.parent, Some(own()));

    table.exec(child, Comm(*b"other\0\0\0\0\0\0\0\0\0\0\0"), LATER);
    assert_eq!(table.resolve(child, address), Resolved::Unknown);
    assert_ne!(table.get(child).unwrap().revision, forked);
    assert_eq!(table.get(child).unwrap().identity.service_name(), "other");

    let jit = MmapEvent {
        time: LATER,
        start: RuntimeAddress(0x1000),
        len: 0x1000,
        offset: FileOffset(0),
        inode: None,
        path: b"//anon".to_vec(),
        build_id: None,
    };
    table.apply_mmap(child, &jit);
    assert_eq!(table.resolve(child, RuntimeAddress(0x1fff)), Resolved::Anonymous);
    // An event from before this process was read from /proc does not undo what was read.
    table.exec(own(), Comm::default(), BootNanos(1));
    let mapping = mapping_of(&table, own(), &std::env::current_exe().unwrap()).clone();
    table.apply_mmap(own(), &MmapEvent { path: b"//anon".to_vec(), ..event_of(&mapping, BootNanos(1)) });
    assert_eq!(table.resolve(own(), address), expected);
    assert_eq!(table.counters().stale, 2);
}

#[test]
fn ended_processes_stay_for_a_while() {
    let mut table = ProcessTable::new(TableLimits { ended: 1, ..TableLimits::default() });
    let event = |path: &[u8]| MmapEvent {
        time: BootNanos(1),
        start: RuntimeAddress(0x1000),
        len: 0x1000,
        offset: FileOffset(0),
        inode: None,
        path: path.to_vec(),
        build_id: None,
    };
    let [first, second] = [Tgid(u32::MAX), Tgid(u32::MAX - 1)];
    for tgid in [first, second] {
        table.apply_mmap(tgid, &event(b"//anon"));
    }
    table.exit(first, LATER);
    assert_eq!(table.resolve(first, RuntimeAddress(0x1000)), Resolved::Anonymous);
    table.exit(second, LATER);
    assert_eq!(table.resolve(first, RuntimeAddress(0x1000)), Resolved::Unknown);
    assert_eq!(table.resolve(second, RuntimeAddress(0x1000)), Resolved::Anonymous);
    // The pid is used again.
    table.fork(first, second, LATER);
    assert_eq!(table.resolve(second, RuntimeAddress(0x1000)), Resolved::Unknown);
    assert_eq!((table.counters().expired, table.counters().pid_reused), (1, 1));
}

#[test]
fn a_pid_that_is_used_again_is_another_process() {
    let sleeper = Sleeper::start(&sleep());
    let tgid = sleeper.tgid();
    let mut table = table();
    let start_time = table.load(tgid).unwrap().start_time.unwrap();
    let started = BootNanos(start_time.since_boot().as_nanos() as u64);
    let address = mapping_of(&table, tgid, &sleep()).start;
    // The event of its own making comes late.
    table.fork(own(), tgid, started);
    assert!(matches!(table.resolve(tgid, address), Resolved::Object { .. }));
    assert_eq!(table.counters().pid_reused, 0);
    // So does the end of the process that had the pid before.
    table.exit(tgid, BootNanos(started.0 - 1));
    assert!(!table.get(tgid).unwrap().ended);
    // Another process with this pid was made later.
    table.fork(Tgid(u32::MAX), tgid, LATER);
    assert_eq!(table.resolve(tgid, address), Resolved::Unknown);
    assert_eq!((table.counters().pid_reused, table.counters().stale), (1, 1));
}

#[test]
fn processes_are_bounded() {
    let limits = TableLimits { processes: 2.try_into().unwrap(), ..TableLimits::default() };
    let mut table = ProcessTable::new(limits);
    for child in 0..10 {
        table.fork(own(), Tgid(u32::MAX - child), LATER);
    }
    assert_eq!(table.iter().count(), 2);
    assert_eq!(table.counters().evicted, 8);
}

#[test]
fn identity_and_resource_of_a_child() {
    let sleeper = Sleeper::start(&sleep());
    let mut table = table();
    let identity = table.load(sleeper.tgid()).unwrap().identity.clone();
    assert_eq!(identity.parent, Some(own()));
    assert_eq!(identity.executable_path.as_deref(), sleep().to_str());
    assert_eq!(identity.command_line, [sleep().to_str().unwrap(), "600"]);
    assert_eq!(identity.namespaced_pids.first(), Some(&sleeper.tgid().0));
    let host = Host::read();
    let told = |options| resource(sleeper.tgid(), &identity, &host, options);
    let attributes = told(ResourceOptions::default());
    let value = |name: &str| attributes.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    assert_eq!(value("service.name"), Some(AttributeValue::Text("sleepy".into())));
    assert_eq!(value("process.pid"), Some(AttributeValue::Int(sleeper.tgid().0.into())));
    assert_eq!(value("process.command_args"), None, "arguments may hold secrets");
    assert_eq!(attributes, told(ResourceOptions::default()), "stable");
    let told = told(ResourceOptions { command_arguments: true });
    assert!(told.iter().any(|(key, _)| key == "process.command_args"));
}

#[test]
fn targets_are_found_by_program_parent_and_thread() {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("a-rare-name");
    std::fs::copy(sleep(), &program).unwrap();
    let not_running = target::by_executable(&program).unwrap_err().to_string();
    assert!(not_running.contains("no process runs"), "{not_running}");
    let sleeper = Sleeper::start(&program);
    assert_eq!(target::by_executable(&program).unwrap(), [sleeper.tgid()]);
    assert!(target::by_comm("a-rare-name").unwrap().contains(&sleeper.tgid()));
    let near = target::by_comm("a-rare-nmae").unwrap_err().to_string();
    assert!(near.contains("did you mean") && near.contains("a-rare-name"), "{near}");
    assert!(target::descendants(own()).unwrap().contains(&sleeper.tgid()));
    assert_eq!(
        target::tids(sleeper.tgid()).unwrap().iter().map(|tid| tid.0).collect::<Vec<_>>(),
        [sleeper.0.id()]
    );
    let threads = target::tids(own()).unwrap();
    assert!(threads.len() > 1, "the test harness has threads");
    for tid in threads {
        // Threads of other tests come and go.
        assert!(target::process_of(tid).map_or(true, |tgid| tgid == own()));
    }
    assert!(target::tids(Tgid(u32::MAX)).unwrap_err().to_string().contains("no process has pid 4294967295"));
}

#[test]
fn unknown_cgroups_and_containers_are_errors_that_say_so() {
    let cgroup = target::cgroup("/no/such/cgroup").unwrap_err().to_string();
    assert!(cgroup.contains("no/such/cgroup") || cgroup.contains("no cgroup v2"), "{cgroup}");
    let container = target::container("0123456789abcdef").unwrap_err().to_string();
    assert!(container.contains("no running container"), "{container}");
    if let Ok(mount) = target::cgroup_mount() {
        assert_eq!(target::cgroup("/").unwrap().path.components().count(), mount.components().count());
    }
}

#[test]
fn the_pid_namespace_is_known() {
    let namespace = PidNamespace::current().unwrap();
    assert_ne!(namespace.inode, 0);
    assert_eq!(namespace, PidNamespace::current().unwrap());
}

#[test]
fn a_child_that_was_not_waited_for_keeps_what_was_known() {
    let mut sleeper = Sleeper::start(&sleep());
    let tgid = sleeper.tgid();
    let mut table = table();
    table.load(tgid).unwrap();
    let start = mapping_of(&table, tgid, &sleep()).start;
    sleeper.0.kill().unwrap();
    // Until the kernel has taken its memory away.
    while !maps::read(tgid).unwrap().mappings.is_empty() {
        std::thread::yield_now();
    }
    assert!(matches!(table.load(tgid), Err(ProcessError::NoSuchProcess { .. })));
    assert!(matches!(table.resolve(tgid, start), Resolved::Object { .. }));
}
