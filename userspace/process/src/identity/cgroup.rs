//! `/proc/PID/cgroup` and `/proc/PID/mountinfo`: the container, pod and systemd unit of a process. Pure.

use procfs::process::MountInfo;

/// Cgroups of one process kept at most; v1 has a dozen hierarchies.
const MAX_CGROUPS: usize = 64;

/// Where a process is in the cgroup hierarchies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cgroups {
    /// Path in the unified hierarchy (v2), as seen from descry's cgroup namespace.
    pub v2: Option<String>,
    /// (controllers, path) in each hierarchy of v1.
    pub v1: Vec<(String, String)>,
}

impl Cgroups {
    /// Parses `/proc/PID/cgroup`: `HIERARCHY:CONTROLLERS:PATH` lines (cgroups(7)). Other lines are left out.
    pub fn parse(text: &str) -> Self {
        let mut cgroups = Self::default();
        for line in text.lines().take(MAX_CGROUPS) {
            let mut fields = line.splitn(3, ':');
            let (Some(hierarchy), Some(controllers), Some(path)) =
                (fields.next(), fields.next(), fields.next())
            else {
                continue;
            };
            // A cgroup that was removed meanwhile is marked.
            let path = path.strip_suffix(" (deleted)").unwrap_or(path);
            if hierarchy == "0" && controllers.is_empty() {
                cgroups.v2 = Some(path.to_owned());
            } else {
                cgroups.v1.push((controllers.to_owned(), path.to_owned()));
            }
        }
        cgroups
    }

    /// All paths, that of v2 first.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.v2.as_deref().into_iter().chain(self.v1.iter().map(|(_, path)| path.as_str()))
    }

    /// The innermost container of the first path that tells one.
    pub fn container(&self) -> Option<Container> {
        self.paths().find_map(container_of)
    }

    /// The innermost systemd service inside the container, or on the host where there is none.
    pub fn systemd_unit(&self) -> Option<String> {
        let systemd = self.v1.iter().find(|(controllers, _)| controllers == "name=systemd");
        self.v2.as_deref().into_iter().chain(systemd.map(|(_, path)| path.as_str())).find_map(unit_of)
    }
}

/// A container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container {
    /// Its id as its runtime knows it; `None` where only the pod is known.
    pub id: Option<String>,
    /// Uid of its Kubernetes pod.
    pub pod_uid: Option<String>,
    /// Its name in the pod.
    pub name: Option<String>,
}

fn container_of(path: &str) -> Option<Container> {
    let id = path.rsplit('/').find_map(container_id).or_else(|| lxc_name(path));
    let pod_uid = path.rsplit('/').find_map(pod_uid);
    (id.is_some() || pod_uid.is_some()).then_some(Container { id, pod_uid, name: None })
}

/// `ID`, `docker-ID.scope`, `cri-containerd-ID.scope`, `crio-ID.scope`, `libpod-ID.scope`, `SLICE:RUNTIME:ID`.
fn container_id(component: &str) -> Option<String> {
    // The monitors of Podman and CRI-O are beside their containers, not inside.
    if component.contains("conmon") {
        return None;
    }
    let name = component.strip_suffix(".scope").unwrap_or(component);
    let name = name.rsplit(':').next().unwrap_or(name);
    if is_ecs_id(name) {
        return Some(name.to_owned());
    }
    let id = name.rsplit('-').next().unwrap_or(name);
    is_id(id).then(|| id.to_owned())
}

/// 64 hex digits.
fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// AWS Fargate: 32 hex digits, `-`, digits.
fn is_ecs_id(text: &str) -> bool {
    text.split_once('-').is_some_and(|(task, number)| {
        task.len() == 32
            && task.bytes().all(|byte| byte.is_ascii_hexdigit())
            && !number.is_empty()
            && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// `/lxc/NAME` and `/lxc.payload.NAME`.
fn lxc_name(path: &str) -> Option<String> {
    let mut components = path.split('/');
    let name = components
        .find_map(|component| component.strip_prefix("lxc.payload."))
        .or_else(|| path.split_once("/lxc/").and_then(|(_, rest)| rest.split('/').next()))?;
    (!name.is_empty()).then(|| name.to_owned())
}

/// `podUID` and `kubepods-QOS-podUID.slice`, where `-` in the uid is written `_`; also before `:RUNTIME:ID`.
fn pod_uid(component: &str) -> Option<String> {
    let component = component.split(':').next().unwrap_or(component);
    let name = component.strip_suffix(".slice").unwrap_or(component);
    let name = name.rsplit('-').next().filter(|last| last.starts_with("pod")).unwrap_or(name);
    let uid = name.strip_prefix("pod")?.replace('_', "-");
    // Static pods have a hash of 32 digits in place of a UUID.
    let digits = uid.bytes().filter(|byte| *byte != b'-');
    (matches!(uid.len(), 32 | 36)
        && digits.clone().count() == 32
        && digits.clone().all(|byte| byte.is_ascii_hexdigit()))
    .then_some(uid)
}

fn unit_of(path: &str) -> Option<String> {
    for component in path.rsplit('/') {
        // Units around a container (its runtime, the kubelet) are not what runs in it.
        if container_id(component).is_some() || pod_uid(component).is_some() {
            return None;
        }
        if let Some(unit) = component.strip_suffix(".service") {
            // The service manager of a logged-in user is what everything of that user runs under.
            return (!unit.starts_with("user@")).then(|| unescape_unit(unit));
        }
    }
    None
}

/// `\xNN` as systemd.unit(5) writes other characters.
fn unescape_unit(unit: &str) -> String {
    let mut bytes = Vec::with_capacity(unit.len());
    let mut rest = unit.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let escaped = rest.strip_prefix(b"\\x").and_then(|hex| hex.get(..2));
        let escaped = escaped
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        bytes.push(escaped.unwrap_or(first));
        rest = if escaped.is_some() { rest.get(4..).unwrap_or(&[]) } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The container that the mounts of a process tell, for cgroup namespaces that hide it: its runtime mounts files of its
/// own over `/etc/hostname` and the like, and the kubelet one with the container's name. Gives what it finds.
pub fn container_from_mountinfo(text: &str) -> Container {
    let mut container = Container::default();
    for mount in text.lines().filter_map(|line| MountInfo::from_line(line).ok()) {
        let by_runtime = ["/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/dev/termination-log"];
        if !mount.mount_point.to_str().is_some_and(|point| by_runtime.contains(&point)) {
            continue;
        }
        let mut components = mount.root.split('/');
        while let Some(component) = components.next() {
            match component {
                // containerd and CRI-O mount these files from the pod's sandbox, which is another container.
                "containers" | "overlay-containers" if container.id.is_none() => {
                    container.id = components.clone().next().filter(|id| is_id(id)).map(str::to_owned);
                }
                "pods" => {
                    let uid = components.next().and_then(|uid| pod_uid(&format!("pod{uid}")));
                    let in_pod = (components.next(), components.next());
                    if let (Some(_), (Some("containers"), Some(name))) = (&uid, in_pod) {
                        container.name = Some(name.to_owned());
                    }
                    container.pod_uid = container.pod_uid.or(uid);
                    break;
                }
                _ => {}
            }
        }
    }
    container
}
