//! What becomes of each event.

use descry_config::Switches;
use descry_decode::ids::{Comm, Tgid};
use descry_decode::{Call, ConnectFailed, Event, Lifecycle, Opened, RequestWait, Role, SlowCall, WaitOf};
use descry_export::span::wait_span;
use descry_probe::Session;

use super::Recorder;
use crate::agent::exclusions::Exclusions;
use crate::agent::rules::Rules;
use crate::failure::Failure;
use crate::measure::{Consumer, Tracker};
use crate::syscalls::new_ids;

impl Recorder {
    fn opened(&mut self, tracker: &mut Tracker, opened: &Opened) {
        let Some(requests) = &mut self.requests else { return };
        let terms = if self.own.has(opened) {
            None
        } else {
            if opened.role != Role::Connected
                && let Some(local) = opened.local
                && self.rules.accepted(opened.tgid, local.port())
                && let Some(shares) = &mut self.shares
            {
                shares.forget();
            }
            self.wanted.of(judge(&mut self.rules, &mut self.exclusions, tracker, opened.tgid))
        };
        requests.opened(tracker, opened, terms);
    }

    /// A system call took long.
    fn slow_call(&mut self, tracker: &mut Tracker, slow: &SlowCall) {
        let (Some(syscalls), Some(requests)) = (&mut self.syscalls, &mut self.requests) else { return };
        let sample = &slow.sample;
        let switches = self.rules.of(sample.tgid, Comm::default(), || tracker.who(sample.tgid));
        if !switches.syscalls || !switches.requests {
            self.counters.slow_syscalls_excluded += 1;
            return;
        }
        let name = tracker.process_name(sample.tgid, sample.comm);
        let span = syscalls.slow.span(slow, (sample.tgid, name), self.clocks.boot_to_unix);
        requests.part(tracker, sample.tgid, sample.request, sample.time, span);
        self.hand_over();
    }

    /// A thread that served a request waited long.
    fn request_wait(&mut self, tracker: &mut Tracker, wait: &RequestWait) {
        let (Some(waits), Some(requests)) = (&mut self.waits, &mut self.requests) else { return };
        let tgid = wait.of.tgid;
        let switches = self.rules.of(tgid, Comm::default(), || tracker.who(tgid));
        if !switches.off_cpu || !switches.requests {
            self.counters.long_waits_excluded += 1;
            return;
        }
        let thread = waits.thread(wait.of.tid);
        let span = wait_span(wait, thread, new_ids(), self.clocks.boot_to_unix);
        requests.part(tracker, tgid, wait.request, wait.end, span);
        self.hand_over();
    }

    /// A function was called.
    fn call(&mut self, tracker: &mut Tracker, call: &Call) {
        let Some(functions) = &mut self.functions else { return };
        let is_wanted = self.rules.of(call.tgid, Comm::default(), || tracker.who(call.tgid)).functions;
        if !is_wanted || self.own.is(call.tgid) {
            functions.exclude();
        } else if let Some((process, span)) = functions.call(tracker, call, self.requests.as_mut()) {
            self.outlets.span(&process, span);
        }
        self.hand_over();
    }

    fn connect_failed(&mut self, tracker: &mut Tracker, failed: &ConnectFailed) {
        // That a destination is not there, the agent's own counters and log say.
        if self.own.is(failed.tgid) {
            return;
        }
        let switches = self.rules.of(failed.tgid, Comm::default(), || tracker.who(failed.tgid));
        let wants_log = switches.logs;
        if let (Some(requests), Some(terms)) = (&mut self.requests, self.wanted.of(switches)) {
            requests.connect_failed(tracker, failed, &terms);
        }
        if let Some(lives) = self.lives.as_mut().filter(|_| wants_log)
            && let Some((resource, record)) = lives.connect_failed(tracker, failed)
        {
            self.outlets.log(&resource, &record);
        }
    }

    /// A process has become another one, or is gone.
    fn lifecycle(&mut self, tracker: &mut Tracker, event: &Lifecycle, is_exit: bool) {
        let Some(lives) = &mut self.lives else { return };
        // Who is not known is judged by its name: to look up everybody who comes and goes would cost without bound.
        let is_known = tracker.is_known(event.tgid);
        let switches =
            self.rules.of(event.tgid, event.comm, || if is_known { tracker.who(event.tgid) } else { None });
        let wanted = switches.logs;
        if !wanted {
            return;
        }
        let told = if is_exit { lives.exit(tracker, event) } else { lives.exec(tracker, event) };
        if let Some((resource, record)) = told {
            self.outlets.log(&resource, &record);
        }
    }
}

impl Consumer for Recorder {
    fn event(&mut self, tracker: &mut Tracker, event: Event) {
        match event {
            Event::Sample(sample) => {
                let Some(samples) = &mut self.samples else { return };
                let switches = self.rules.of(sample.tgid, sample.comm, || tracker.who(sample.tgid));
                if let Some(shares) = &mut self.shares {
                    shares.met(sample.tgid, switches);
                }
                if !switches.profile {
                    self.counters.samples_excluded += 1;
                    return;
                }
                let located = tracker.locate(&sample);
                samples.add(&located.observation(&sample));
            }
            Event::Stack(id, sample) => {
                if let Some(waits) = &mut self.waits {
                    waits.stack(tracker, id, &sample);
                }
            }
            Event::Wait(wait) => {
                if let Some(waits) = &mut self.waits
                    && judge(&mut self.rules, &mut self.exclusions, tracker, wait.of.tgid).off_cpu
                {
                    waits.wait(tracker, &wait);
                }
            }
            Event::Fork(fork) => {
                if let Some(exclusions) = &mut self.exclusions {
                    exclusions.forked(&fork);
                }
            }
            Event::Comm(named) => {
                if let Some(waits) = &mut self.waits {
                    waits.name(named.tid, named.comm);
                }
            }
            Event::RequestWait(wait) => self.request_wait(tracker, &wait),
            Event::SlowCall(slow) => self.slow_call(tracker, &slow),
            Event::Call(call) => self.call(tracker, &call),
            Event::Opened(opened) => self.opened(tracker, &opened),
            Event::ConnectFailed(failed) => self.connect_failed(tracker, &failed),
            Event::Message(_) | Event::Exchange(_) | Event::Closed(_) => {
                if let Some(requests) = &mut self.requests {
                    requests.event(tracker, event);
                }
                self.hand_over();
            }
            Event::Exec(lifecycle) | Event::Exit(lifecycle) => {
                let is_exit = matches!(event, Event::Exit(_));
                if !is_exit {
                    self.rules.renew(lifecycle.tgid);
                }
                self.lifecycle(tracker, &lifecycle, is_exit);
                if let Some(shares) = &mut self.shares {
                    shares.ended(lifecycle.tgid);
                }
                match &mut self.exclusions {
                    Some(exclusions) if is_exit => exclusions.ended(lifecycle.tgid),
                    Some(exclusions) => exclusions.began(&lifecycle, &mut self.rules),
                    None => {}
                }
                if let Some(functions) = &mut self.functions {
                    functions.ended(lifecycle.tgid);
                }
                if let Some(requests) = &mut self.requests {
                    requests.event(tracker, event.clone());
                }
                if let Some(syscalls) = &mut self.syscalls {
                    syscalls.event(tracker, event);
                }
            }
            _ => {}
        }
    }

    fn ready(&mut self, session: &mut Session, tracker: &mut Tracker) -> Result<(), Failure> {
        self.tell_exclusions(session)?;
        if let Some(functions) = &mut self.functions {
            functions.ready(session, tracker, &mut self.rules, &self.own)?;
        }
        self.requests.as_mut().map_or(Ok(()), |requests| requests.ready(session, tracker))
    }

    fn drained(&mut self, session: &mut Session, tracker: &mut Tracker) -> Result<(), Failure> {
        if let Some(shares) = &mut self.shares {
            shares.tell(session)?;
            self.counters.frequencies_over_limit += shares.take_full();
        }
        if let Some(waits) = &mut self.waits {
            waits.drained(session, tracker, &mut wants(&mut self.rules, &mut self.exclusions))?;
        }
        self.tell_exclusions(session)?;
        if let Some(syscalls) = &mut self.syscalls {
            syscalls.drained(session, tracker)?;
        }
        if let Some(functions) = &mut self.functions {
            functions.changed(tracker.changed());
            functions.follow(session, tracker, &mut self.rules, &self.own);
        }
        match &mut self.requests {
            Some(requests) => requests.drained(session, tracker)?,
            None => drop(tracker.take_changed()),
        }
        // Nobody here waits for the end of those that were named: these would add up.
        drop((tracker.take_started(), tracker.take_ended()));
        self.hand_over();
        self.outlets.drained();
        Ok(())
    }

    fn time_is_up(&mut self, session: &mut Session) -> Result<(), Failure> {
        if self.functions.is_some() {
            session.detach_functions();
        }
        self.waits.as_mut().map_or(Ok(()), |waits| waits.time_is_up(session))
    }

    fn ending(&mut self, session: &mut Session, tracker: &mut Tracker) -> Result<(), Failure> {
        match &mut self.waits {
            Some(waits) => waits.ending(session, tracker, &mut wants(&mut self.rules, &mut self.exclusions)),
            None => Ok(()),
        }
    }

    fn progress(&self, _: &Tracker) -> String {
        String::new()
    }
}

/// Whose waits the rules want.
fn wants(
    rules: &mut Rules,
    exclusions: &mut Option<Exclusions>,
) -> impl FnMut(&mut Tracker, &WaitOf) -> bool {
    |tracker, of| judge(rules, exclusions, tracker, of.tgid).off_cpu
}

/// What is done with a process, of which the kernel side may have to know.
pub(super) fn judge<'a>(
    rules: &'a mut Rules,
    exclusions: &mut Option<Exclusions>,
    tracker: &mut Tracker,
    tgid: Tgid,
) -> &'a Switches {
    let switches = rules.of(tgid, Comm::default(), || tracker.who(tgid));
    if let Some(exclusions) = exclusions {
        exclusions.met(tgid, switches);
    }
    switches
}
