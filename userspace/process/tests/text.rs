//! Parsers, from text as the kernel and the runtimes write it.
#![expect(clippy::unwrap_used, reason = "a helper that cannot help is a failed test")]

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use descry_decode::ids::{Comm, FileOffset, RuntimeAddress, Tgid};
use descry_process::AttributeValue;
use descry_process::identity::cgroup::{Cgroups, Container, container_from_mountinfo};
use descry_process::identity::environment::OtelEnvironment;
use descry_process::identity::host::{Host, Release, users};
use descry_process::identity::{Identity, ResourceOptions, StartTime, Stat, Status, resource, runtime_name};
use descry_process::maps::{Device, MappingSource, parse};
use descry_process::target::cgroup_mount_in;

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const POD: &str = "11111111-2222-3333-4444-555555555555";

fn file(path: &str, deleted: bool) -> MappingSource {
    MappingSource::File { path: PathBuf::from(path), deleted }
}

fn check_source(name: &str, expected: MappingSource) {
    let line = format!("7f0000001000-7f0000002000 r-xp 00003000 fe:01 42                         {name}\n");
    let maps = parse(line.as_bytes()).unwrap();
    assert_eq!(maps.malformed, 0);
    let [mapping] = &maps.mappings[..] else { panic!("{name}: {maps:?}") };
    assert_eq!(mapping.source, expected, "{name}");
    assert_eq!(
        (mapping.start, mapping.end),
        (RuntimeAddress(0x7f00_0000_1000), RuntimeAddress(0x7f00_0000_2000))
    );
    assert_eq!((mapping.offset, mapping.inode), (FileOffset(0x3000), 42));
    assert_eq!(mapping.device, Device { major: 0xfe, minor: 1 });
}

#[test]
fn names_of_mappings() {
    check_source("/usr/lib/libc.so.6", file("/usr/lib/libc.so.6", false));
    check_source("/a path/with  spaces ", file("/a path/with  spaces ", false));
    check_source("/a\\012newline", file("/a\nnewline", false));
    check_source("/a\\backslash", file("/a\\backslash", false));
    check_source("/gone (deleted)", file("/gone", true));
    check_source("/memfd:jit cache (deleted)", file("/memfd:jit cache", true));
    check_source("[vdso]", MappingSource::Vdso);
    check_source("[vsyscall]", MappingSource::Vsyscall);
    check_source("[uprobes]", MappingSource::Special("[uprobes]".into()));
    let anonymous = ["", "//anon", "[heap]", "[stack]", "[anon:v8]", "[anon_shmem:x]"];
    let shared = ["/dev/zero (deleted)", "/SYSV00000000 (deleted)", "/anon_hugepage (deleted)"];
    for name in anonymous.into_iter().chain(shared) {
        check_source(name, MappingSource::Anonymous);
    }
}

#[test]
fn only_executable_mappings_are_kept_and_garbage_is_counted() {
    let text = b"\
55d0c0000000-55d0c0001000 r--p 00000000 fe:01 1 /bin/x
55d0c0001000-55d0c0002000 r-xp 00001000 fe:01 1 /bin/\xff\xfe
55d0c0002000-55d0c0003000 rw-p 00002000 fe:01 1 /bin/x
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
not a line
2000-1000 r-xp 00000000 00:00 0
1000-2000 r-xp zzz 00:00 0
1000-2000 r-xp
1000-2000 r-xp 00000000 00:00 18446744073709551616

11111111111111111-2 r-xp 00000000 00:00 0";
    let maps = parse(&text[..]).unwrap();
    assert_eq!(maps.mappings.len(), 2);
    assert_eq!(maps.malformed, 7);
    assert_eq!(maps.mappings[1].source, MappingSource::Vsyscall);
}

#[test]
fn mappings_are_limited() {
    let text: String =
        (0..20_000).map(|page| format!("{:x}000-{:x}000 r-xp 0 0:0 0\n", page + 1, page + 2)).collect();
    let maps = parse(text.as_bytes()).unwrap();
    assert_eq!((maps.mappings.len(), maps.beyond_limit), (16_384, 3_616));
}

fn check_container(path: &str, id: Option<&str>, pod: Option<&str>) {
    let expected = (id.is_some() || pod.is_some()).then(|| Container {
        id: id.map(str::to_owned),
        pod_uid: pod.map(str::to_owned),
        name: None,
    });
    let path = path.replace("ID", ID).replace("POD_", &POD.replace('-', "_")).replace("POD", POD);
    let cgroups = Cgroups::parse(&format!("0::{path}\n"));
    assert_eq!(cgroups.v2.as_deref(), Some(&*path));
    assert_eq!(cgroups.container(), expected, "{path}");
    // The same in a hierarchy of v1.
    assert_eq!(Cgroups::parse(&format!("4:memory:{path}\n0::/\n")).container(), expected, "{path}");
}

#[test]
fn containers_by_cgroup() {
    check_container("/docker/ID", Some(ID), None);
    check_container("/system.slice/docker-ID.scope", Some(ID), None);
    check_container("/system.slice/docker-ID.scope/init.scope", Some(ID), None);
    check_container(
        "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope/container",
        Some(ID),
        None,
    );
    check_container("/machine.slice/libpod-conmon-ID.scope", None, None);
    check_container("/kubepods/burstable/podPOD/ID", Some(ID), Some(POD));
    check_container(
        "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podPOD_.slice/cri-containerd-ID.scope",
        Some(ID),
        Some(POD),
    );
    check_container("/kubepods.slice/kubepods-podPOD_.slice/crio-ID.scope", Some(ID), Some(POD));
    check_container("/kubepods.slice/kubepods-podPOD_.slice", None, Some(POD));
    check_container(
        "/system.slice/containerd.service/kubepods-besteffort-podPOD_.slice:cri-containerd:ID",
        Some(ID),
        Some(POD),
    );
    check_container(
        "/ecs/task/0123456789abcdef0123456789abcdef-1234567890",
        Some("0123456789abcdef0123456789abcdef-1234567890"),
        None,
    );
    check_container("/lxc.payload.web/system.slice/nginx.service", Some("web"), None);
    check_container("/lxc/web/init", Some("web"), None);
    check_container("/../../docker/ID", Some(ID), None);
    check_container("/", None, None);
    check_container("/system.slice/nginx.service", None, None);
    check_container("/user.slice/podman", None, None);
}

#[test]
fn the_innermost_container_counts() {
    let outer = "f".repeat(64);
    let path =
        format!("0::/docker/{outer}/kubelet.slice/kubepods-pod{POD}.slice/cri-containerd-{ID}.scope\n");
    assert_eq!(Cgroups::parse(&path).container().unwrap().id.as_deref(), Some(ID));
}

#[test]
fn systemd_units() {
    let unit = |path: &str| Cgroups::parse(&format!("0::{path}\n")).systemd_unit();
    assert_eq!(unit("/system.slice/nginx.service").as_deref(), Some("nginx"));
    assert_eq!(
        unit("/system.slice/system-postgresql.slice/postgresql@15-main.service").as_deref(),
        Some("postgresql@15-main")
    );
    assert_eq!(unit("/system.slice/a\\x2db.service").as_deref(), Some("a-b"));
    assert_eq!(unit("/user.slice/user-0.slice/user@0.service/app.slice/x.service").as_deref(), Some("x"));
    assert_eq!(unit("/user.slice/user-0.slice/user@0.service/init.scope"), None);
    assert_eq!(unit(&format!("/system.slice/containerd.service/docker-{ID}.scope")), None);
    assert_eq!(unit(&format!("/docker/{ID}/system.slice/ssh.service")).as_deref(), Some("ssh"));
    let v1 = "5:memory:/x.service\n1:name=systemd:/system.slice/cron.service\n0::/\n";
    assert_eq!(Cgroups::parse(v1).systemd_unit().as_deref(), Some("cron"));
}

#[test]
fn containers_by_mounts() {
    let docker = format!(
        "610 600 254:1 /var/lib/docker/containers/{ID}/hostname /etc/hostname rw,relatime - ext4 /dev/vda1 rw\n"
    );
    assert_eq!(container_from_mountinfo(&docker).id.as_deref(), Some(ID));
    let podman = format!(
        "9 8 0:2 /containers/storage/overlay-containers/{ID}/userdata/hosts /etc/hosts rw - tmpfs tmpfs rw\n"
    );
    assert_eq!(container_from_mountinfo(&podman).id.as_deref(), Some(ID));
    let pod = format!(
        "1 0 8:1 /var/lib/kubelet/pods/{POD}/etc-hosts /etc/hosts rw - ext4 /dev/sda1 rw\n\
         2 0 8:1 /var/lib/kubelet/pods/{POD}/containers/web/0a1b2c3d /dev/termination-log rw - ext4 /dev/sda1 rw\n\
         3 0 8:1 /var/lib/containerd/io.containerd.grpc.v1.cri/sandboxes/{ID}/hostname /etc/hostname rw - ext4 x rw\n"
    );
    let expected = Container { id: None, pod_uid: Some(POD.to_owned()), name: Some("web".to_owned()) };
    assert_eq!(container_from_mountinfo(&pod), expected);
    let host = format!("4 0 8:1 / /var/lib/docker/containers/{ID}/mounts/shm rw - tmpfs shm rw\nnonsense\n");
    assert_eq!(container_from_mountinfo(&host), Container::default());
}

#[test]
fn the_environment_as_the_specification_has_it() {
    let parse = |text: &[u8]| OtelEnvironment::parse(text);
    let found = parse(b"A=1\0OTEL_SERVICE_NAME= shop \0OTEL_RESOURCE_ATTRIBUTES=a=b%2Cc, k8s.x = 1 \0Z=\0");
    assert_eq!(found.service_name.as_deref(), Some("shop"));
    let expected = [("a", "b,c"), ("k8s.x", "1")].map(|(key, value)| (key.to_owned(), value.to_owned()));
    assert_eq!(found.resource_attributes, expected);
    assert_eq!(found.attribute("a"), Some("b,c"));
    assert_eq!(
        parse(b"OTEL_RESOURCE_ATTRIBUTES=a=1,broken"),
        OtelEnvironment::default(),
        "one error discards all"
    );
    assert_eq!(
        parse(b"OTEL_SERVICE_NAME=\0XOTEL_SERVICE_NAME=x\0OTEL_SERVICE_NAME=\xff"),
        OtelEnvironment::default()
    );
}

#[test]
fn stat_and_status() {
    let line = b"42 (a) b ((\xff) S 7 42 42 0 -1 4194560 1 0 0 0 1 2 0 0 20 0 1 0 12345 1000 10 18446744073709551615 \
        1 1 0 0 0 0 0 0 0 0 0 0 17 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n";
    let stat = Stat::parse(line).unwrap();
    assert_eq!(stat.comm, Comm(*b"a) b ((\xff\0\0\0\0\0\0\0\0"));
    assert_eq!((stat.parent, stat.start_time), (Some(Tgid(7)), StartTime(12345)));
    assert_eq!(stat.start_time.since_boot(), Duration::from_millis(123_450));
    for len in 0..60 {
        assert!(Stat::parse(&line[..len]).is_err(), "{len}");
    }
    let status = Status::parse(b"Name:\t\xff\nTgid:\t500\nUid:\t1\t1000\t3\t4\nNSpid:\t500\t7\t1\n");
    assert_eq!(status, Status { tgid: Some(Tgid(500)), uid: Some(1000), namespaced_pids: vec![500, 7, 1] });
    assert_eq!(Status::parse(b"garbage"), Status::default());
}

#[test]
fn runtimes_by_program_then_by_library() {
    let name = |program: &str, files: &[&str]| runtime_name(program, files.iter().copied());
    assert_eq!(name("python3.13", &[]), Some("cpython"));
    assert_eq!(name("uwsgi", &["/usr/lib/libpython3.13.so.1.0"]), Some("cpython"));
    assert_eq!(name("java", &["/opt/jdk/lib/server/libjvm.so"]), Some("jvm"));
    assert_eq!(name("node", &["/usr/lib/libnode.so.115"]), Some("nodejs"));
    assert_eq!(name("nginx", &["/usr/lib/libc.so.6"]), None);
}

fn host() -> Host {
    Host {
        name: "box".into(),
        id: Some("0123456789abcdef0123456789abcdef".into()),
        architecture: "amd64",
        os_description: Some("Debian GNU/Linux 13 (trixie)".into()),
        os_name: Some("Debian GNU/Linux".into()),
        os_version: Some("13".into()),
        boot_id: "boot".into(),
        booted: SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000),
        users: users("root:x:0:0:root:/root:/bin/sh\nbroken\nweb:x:33:33::/:/bin/false\n"),
    }
}

#[test]
fn the_resource_of_a_process() {
    let identity = Identity {
        comm: Comm(*b"server\0\0\0\0\0\0\0\0\0\0"),
        executable_path: Some("/opt/shop/server".into()),
        command_line: vec!["./server".into(), "--token=secret".into()],
        start_time: Some(StartTime(150)),
        parent: Some(Tgid(1)),
        uid: Some(33),
        namespaced_pids: vec![500, 7],
        cgroups: Cgroups::parse("0::/docker/x\n"),
        container: Some(Container {
            id: Some(ID.into()),
            pod_uid: Some(POD.into()),
            name: Some("web".into()),
        }),
        environment: OtelEnvironment::parse(
            b"OTEL_RESOURCE_ATTRIBUTES=team=a,process.pid=1,service.version=2",
        ),
        runtime: Some("go"),
        ..Identity::default()
    };
    let attributes = resource(Tgid(500), &identity, &host(), ResourceOptions::default());
    let lines: Vec<_> = attributes
        .iter()
        .map(|(key, value)| match value {
            AttributeValue::Text(text) => format!("{key}={text}"),
            AttributeValue::Int(number) => format!("{key}={number}"),
            AttributeValue::List(list) => format!("{key}={list:?}"),
        })
        .filter(|line| !line.starts_with("service.instance.id="))
        .collect();
    assert_eq!(
        lines,
        [
            "service.name=web",
            "process.pid=500",
            "process.vpid=7",
            "process.parent_pid=1",
            "process.executable.name=server",
            "process.executable.path=/opt/shop/server",
            "process.command=./server",
            "process.owner=web",
            "process.creation.time=2001-09-09T01:46:41.500Z",
            "process.runtime.name=go",
            "process.linux.cgroup=/docker/x",
            &format!("container.id={ID}"),
            &format!("k8s.pod.uid={POD}"),
            "k8s.container.name=web",
            "host.name=box",
            "host.id=0123456789abcdef0123456789abcdef",
            "host.arch=amd64",
            "os.type=linux",
            "os.name=Debian GNU/Linux",
            "os.version=13",
            "os.description=Debian GNU/Linux 13 (trixie)",
            "team=a",
            "service.version=2",
        ]
    );
}

#[test]
fn instances_have_ids_of_their_own() {
    let id = |tgid, start| {
        let identity = Identity { start_time: Some(StartTime(start)), ..Identity::default() };
        let attributes = resource(Tgid(tgid), &identity, &host(), ResourceOptions::default());
        attributes.into_iter().find(|(key, _)| key == "service.instance.id").unwrap().1
    };
    assert_eq!(id(1, 2), id(1, 2));
    assert_ne!(id(1, 2), id(1, 3));
    assert_ne!(id(1, 2), id(2, 2));
}

#[test]
fn service_names_in_order_of_precedence() {
    let mut identity = Identity { comm: Comm(*b"comm\0\0\0\0\0\0\0\0\0\0\0\0"), ..Identity::default() };
    assert_eq!(identity.service_name(), "comm");
    identity.executable_path = Some("/usr/bin/exe".into());
    assert_eq!(identity.service_name(), "exe");
    identity.container = Some(Container { name: Some("container".into()), ..Container::default() });
    assert_eq!(identity.service_name(), "container");
    identity.systemd_unit = Some("unit".into());
    assert_eq!(identity.service_name(), "unit");
    identity.environment.resource_attributes = vec![("service.name".into(), "attribute".into())];
    assert_eq!(identity.service_name(), "attribute");
    identity.environment.service_name = Some("variable".into());
    assert_eq!(identity.service_name(), "variable");
}

#[test]
fn the_release_of_the_system() {
    let text = "PRETTY_NAME=\"Debian GNU/Linux 13 (trixie)\"\nNAME=\"Debian GNU/Linux\"\nVERSION_ID='13'\n";
    let release = Release::parse(text);
    assert_eq!(release.pretty_name.as_deref(), Some("Debian GNU/Linux 13 (trixie)"));
    assert_eq!(release.version_id.as_deref(), Some("13"));
    assert_eq!(Release::parse(""), Release::default());
}

#[test]
fn the_unified_hierarchy_is_found_among_the_mounts() {
    let hybrid = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";
    assert_eq!(cgroup_mount_in(hybrid), Some(PathBuf::from("/sys/fs/cgroup/unified")));
    assert_eq!(cgroup_mount_in("31 23 0:28 / /sys rw - sysfs sysfs rw\n"), None);
}
