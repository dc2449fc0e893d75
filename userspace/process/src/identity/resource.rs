//! The OpenTelemetry Resource of a process. Pure: what goes in is an [`Identity`] and a [`Host`].

use std::borrow::Cow;

use descry_decode::ids::Tgid;
use uuid::Uuid;

use crate::identity::Identity;
use crate::identity::host::Host;

/// The namespace that OpenTelemetry gives for ids of service instances (semantic conventions, `service.instance.id`).
const INSTANCE_NAMESPACE: Uuid = Uuid::from_u128(0x4d63_009a_8d0f_11ee_aad7_4c79_6ed8_e320);

/// An attribute's value.
#[derive(Clone, Debug, PartialEq)]
pub enum AttributeValue {
    /// Text.
    Text(String),
    /// A whole number.
    Int(i64),
    /// A list of texts.
    List(Vec<String>),
}

/// Attribute names (OpenTelemetry semantic conventions) with values, in the order to send them; no name twice.
pub type Attributes = Vec<(Cow<'static, str>, AttributeValue)>;

/// What a Resource may tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResourceOptions {
    /// `process.command_args`. Off by default: secrets are given as arguments.
    pub command_arguments: bool,
}

/// The Resource of a process.
///
/// What the process says of itself (`OTEL_RESOURCE_ATTRIBUTES`) is told too, save where descry has seen the fact itself.
pub fn resource(tgid: Tgid, identity: &Identity, host: &Host, options: ResourceOptions) -> Attributes {
    let mut attributes = Builder::default();
    let container = identity.container.as_ref();
    attributes.text("service.name", Some(identity.service_name()));
    let said = identity.environment.attribute("service.instance.id").map(str::to_owned);
    attributes.text("service.instance.id", said.or_else(|| instance_id(tgid, identity, host)));
    attributes.int("process.pid", Some(tgid.0));
    attributes.int("process.vpid", identity.namespaced_pids.last().copied().filter(|pid| *pid != tgid.0));
    attributes.int("process.parent_pid", identity.parent.map(|parent| parent.0));
    attributes.text("process.executable.name", identity.executable_name().map(str::to_owned));
    attributes.text("process.executable.path", identity.executable_path.clone());
    attributes.text("process.command", identity.command_line.first().cloned());
    if options.command_arguments && !identity.command_line.is_empty() {
        attributes.add("process.command_args", AttributeValue::List(identity.command_line.clone()));
    }
    let owner = identity.uid.map(|uid| host.users.get(&uid).cloned().unwrap_or_else(|| uid.to_string()));
    attributes.text("process.owner", owner);
    let started = identity.start_time.and_then(|start| host.booted.checked_add(start.since_boot()));
    attributes.text(
        "process.creation.time",
        started.map(|time| humantime::format_rfc3339_millis(time).to_string()),
    );
    attributes.text("process.runtime.name", identity.runtime.map(str::to_owned));
    attributes.text("process.linux.cgroup", identity.cgroups.v2.clone());
    attributes.text("container.id", container.and_then(|container| container.id.clone()));
    attributes.text("k8s.pod.uid", container.and_then(|container| container.pod_uid.clone()));
    attributes.text("k8s.container.name", container.and_then(|container| container.name.clone()));
    attributes.text("host.name", Some(host.name.clone()));
    attributes.text("host.id", host.id.clone());
    attributes.text("host.arch", Some(host.architecture.to_owned()));
    attributes.text("os.type", Some("linux".to_owned()));
    attributes.text("os.name", host.os_name.clone());
    attributes.text("os.version", host.os_version.clone());
    attributes.text("os.description", host.os_description.clone());
    for (key, value) in &identity.environment.resource_attributes {
        attributes.said(key, value);
    }
    attributes.0
}

/// The same for the same process on the same machine, whoever asks; `None` while its start is not known.
fn instance_id(tgid: Tgid, identity: &Identity, host: &Host) -> Option<String> {
    let machine = host.id.as_deref().unwrap_or(&host.name);
    let start = identity.start_time?.0;
    // A machine counts its ticks and pids anew after each boot.
    let name = format!("{machine}/{}/{tgid}/{start}", host.boot_id);
    Some(Uuid::new_v5(&INSTANCE_NAMESPACE, name.as_bytes()).to_string())
}

#[derive(Default)]
struct Builder(Attributes);

impl Builder {
    fn add(&mut self, key: &'static str, value: AttributeValue) {
        self.0.push((Cow::Borrowed(key), value));
    }

    fn text(&mut self, key: &'static str, value: Option<String>) {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            self.add(key, AttributeValue::Text(value));
        }
    }

    fn int(&mut self, key: &'static str, value: Option<u32>) {
        if let Some(value) = value {
            self.add(key, AttributeValue::Int(value.into()));
        }
    }

    fn said(&mut self, key: &str, value: &str) {
        if !self.0.iter().any(|(known, _)| known == key) {
            self.0.push((Cow::Owned(key.to_owned()), AttributeValue::Text(value.to_owned())));
        }
    }
}
