//! What is done with which process.

use std::sync::Arc;

use descry_config::{Config, Pattern, Rule, Switches};
use descry_decode::ids::{Comm, Tgid};
use descry_process::identity::Identity;
use descry_process::listening::Listening;
use rustc_hash::{FxHashMap, FxHashSet};

/// Decisions, and ports on which connections were accepted, that are remembered at most.
const MAX_REMEMBERED: usize = 1 << 14;

/// The rules, and what they said of whom.
pub struct Rules {
    rules: Vec<(Rule, Arc<Switches>)>,
    others: Arc<Switches>,
    decided: FxHashMap<Tgid, (Comm, Arc<Switches>)>,
    listening: Listening,
    /// Who was seen to accept a connection on a port of a rule.
    accepted: FxHashSet<(Tgid, u16)>,
}

impl Rules {
    /// Those of a configuration.
    pub fn new(config: &Config) -> Self {
        let with_switches = |rule: &Rule| (rule.clone(), Arc::new(rule.switches()));
        Self {
            rules: config.rules.iter().map(with_switches).collect(),
            others: Arc::new(config.others.clone()),
            decided: FxHashMap::default(),
            listening: Listening::default(),
            accepted: FxHashSet::default(),
        }
    }

    /// What is done with a process. `who` is asked only where that is not known yet; nobody knows a process that is gone,
    /// and a kernel thread has a name only.
    pub fn of<'a>(
        &mut self,
        tgid: Tgid,
        comm: Comm,
        who: impl FnOnce() -> Option<&'a Identity>,
    ) -> &Arc<Switches> {
        if self.rules.is_empty() {
            return &self.others;
        }
        // A thread's name may differ from its process's; then the process is looked at again.
        let is_known = self.decided.get(&tgid).is_some_and(|(known, _)| *known == comm);
        if !is_known {
            let decision = self.decide(tgid, who(), comm);
            if self.decided.len() >= MAX_REMEMBERED {
                self.decided.clear();
            }
            self.decided.insert(tgid, (comm, decision));
        }
        self.decided.get(&tgid).map_or(&self.others, |(_, decision)| decision)
    }

    /// A process has accepted a connection on a port: it listens there, also if it did not when it was looked at. True: it is
    /// judged anew.
    pub fn accepted(&mut self, tgid: Tgid, port: u16) -> bool {
        if !self.rules.iter().any(|(rule, _)| rule.ports.contains(&port)) {
            return false;
        }
        if self.accepted.len() >= MAX_REMEMBERED {
            self.accepted.clear();
        }
        let is_new = self.accepted.insert((tgid, port));
        if is_new {
            self.decided.remove(&tgid);
        }
        is_new
    }

    /// A process runs another program: it is judged anew.
    pub fn renew(&mut self, tgid: Tgid) {
        self.decided.remove(&tgid);
    }

    /// Looks at every process anew: a program may have been replaced by one of the same name, or listen elsewhere.
    pub fn forget(&mut self) {
        self.decided.clear();
        self.listening.forget();
        self.accepted.clear();
    }

    fn decide(&mut self, tgid: Tgid, identity: Option<&Identity>, comm: Comm) -> Arc<Switches> {
        let own = identity.map(|identity| identity.comm).filter(|comm| !comm.as_bytes().is_empty());
        let comm = own.unwrap_or(comm).to_string();
        let (listening, accepted) = (&mut self.listening, &self.accepted);
        let mut listens = |ports: &[u16]| {
            ports.is_empty()
                || ports.iter().any(|port| accepted.contains(&(tgid, *port)))
                || listening.ports(tgid).iter().any(|port| ports.contains(port))
        };
        // The patterns first: ports are looked up in /proc.
        let mut rules = self.rules.iter();
        let fitting = rules.find(|(rule, _)| fits(rule, identity, &comm) && listens(&rule.ports));
        Arc::clone(fitting.map_or(&self.others, |(_, switches)| switches))
    }
}

/// Whether a process is of the form that a rule's patterns describe.
fn fits(rule: &Rule, identity: Option<&Identity>, comm: &str) -> bool {
    let container = identity.and_then(|identity| identity.container.as_ref());
    let matches = |pattern: &Option<Pattern>, text: Option<&str>| {
        pattern.as_ref().is_none_or(|pattern| text.is_some_and(|text| pattern.matches(text)))
    };
    matches(&rule.comm, Some(comm))
        && matches(&rule.exe, identity.and_then(|identity| identity.executable_path.as_deref()))
        && matches(&rule.cgroup, identity.and_then(|identity| identity.cgroups.v2.as_deref()))
        && matches(&rule.container, container.and_then(|container| container.id.as_deref()))
        && matches(&rule.unit, identity.and_then(|identity| identity.systemd_unit.as_deref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which of these (name, program) are wanted by the rules of this file.
    fn check(file: &str, expected: &[(&str, &str, bool)]) {
        let loaded = descry_config::load(file, |_| None).unwrap();
        let mut rules = Rules::new(&loaded.config);
        for (number, (comm, exe, wanted)) in expected.iter().enumerate() {
            let mut name = Comm::default();
            name.0[..comm.len()].copy_from_slice(comm.as_bytes());
            let identity =
                Identity { comm: name, executable_path: Some((*exe).to_owned()), ..Identity::default() };
            let decision = rules.of(Tgid(number as u32), name, || Some(&identity)).profile;
            assert_eq!(decision, *wanted, "{comm} {exe} by\n{file}");
        }
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        check("", &[("a", "/bin/a", true)]);
        check("others: {profile: false}", &[("a", "/bin/a", false)]);
        let file = "rules:\n  - {comm: 'web*', exe: /usr/*}\n  - {comm: web-test, profile: false}\n\
                    others: {profile: false}\n";
        check(
            file,
            &[
                ("web-test", "/usr/bin/web", true),
                ("web-test", "/tmp/web", false),
                ("other", "/usr/bin/web", false),
            ],
        );
        check("rules: [{exe: /tmp/*, profile: false}]", &[("a", "/tmp/a", false), ("a", "/bin/a", true)]);
    }

    #[test]
    fn who_is_gone_is_known_by_its_name_only() {
        let loaded = descry_config::load("rules: [{exe: /*, profile: false}]", |_| None).unwrap();
        assert!(Rules::new(&loaded.config).of(Tgid(1), Comm::default(), || None).profile);
    }

    #[test]
    fn who_listens_on_a_port() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let file = format!("rules: [{{ports: [1, {port}]}}]\nothers: {{profile: false}}\n");
        let loaded = descry_config::load(&file, |_| None).unwrap();
        let (own, other) = (Tgid(std::process::id()), Tgid(u32::MAX));
        let mut rules = Rules::new(&loaded.config);
        let is_wanted = |rules: &mut Rules, tgid| rules.of(tgid, Comm::default(), || None).profile;
        assert!(is_wanted(&mut rules, own));
        assert!(!is_wanted(&mut rules, other));
        assert!(!rules.accepted(other, 2), "no rule has that port");
        assert!(!is_wanted(&mut rules, other));
        assert!(rules.accepted(other, 1) && !rules.accepted(other, 1));
        assert!(is_wanted(&mut rules, other), "it listens where it accepts");
        drop(listener);
        assert!(is_wanted(&mut rules, own), "remembered");
        rules.forget();
        assert!(!is_wanted(&mut rules, own));
    }
}
