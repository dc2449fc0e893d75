//! The frames of a wait as they are shown: without those of the measuring itself, and with the waker's.

use descry_symbol::FrameKind;

/// What a frame is, as far as it matters here.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// Who made its code.
    pub kind: FrameKind,
    /// Its function, where that is known.
    pub name: Option<&'a str>,
}

/// Functions in which a task leaves its CPU or wakes another: what is above them on the stack measures.
const SWITCHES: [&str; 2] = ["__schedule", "try_to_wake_up"];
/// Beginnings of what measures, where neither is on the stack.
const MEASURES: [&str; 5] = ["bpf_", "__bpf_", "__traceiter_", "__probestub_", "trace_"];
/// Beginnings of the functions in which an interrupt enters the kernel: what is below them was merely interrupted.
const INTERRUPTS: [&str; 7] = [
    "asm_common_interrupt",
    "asm_sysvec_",
    "common_interrupt",
    "sysvec_",
    "el0t_64_irq",
    "el1h_64_irq",
    "call_on_irq_stack",
];

/// How many frames at the leaf are those of the measuring. `frames` are leaf first.
pub fn measuring<'a>(frames: impl Iterator<Item = Frame<'a>> + Clone) -> usize {
    let kernel = frames.take_while(|frame| frame.kind == FrameKind::Kernel);
    let named = kernel.clone().map(|frame| frame.name.unwrap_or_default());
    let switch = named.clone().position(|name| SWITCHES.contains(&name));
    let measures = |name: &str| MEASURES.iter().any(|beginning| name.starts_with(beginning));
    switch.unwrap_or_else(|| named.take_while(|name| measures(name)).count())
}

/// How many frames of a waker are its own, counted from the leaf; fewer than all: an interrupt woke the task.
pub fn until_interrupt<'a>(frames: impl Iterator<Item = Frame<'a>> + Clone) -> usize {
    let all = frames.clone().count();
    let is_interrupt = |frame: Frame<'_>| {
        let name = frame.name.filter(|_| frame.kind == FrameKind::Kernel);
        name.is_some_and(|name| INTERRUPTS.iter().any(|beginning| name.starts_with(beginning)))
    };
    frames.clone().position(is_interrupt).map_or(all, |entry| entry + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(names: &'static [&'static str]) -> impl Iterator<Item = Frame<'static>> + Clone {
        names.iter().map(|name| match name.strip_suffix("_[k]") {
            Some(name) => Frame { kind: FrameKind::Kernel, name: Some(name).filter(|name| !name.is_empty()) },
            None => Frame { kind: FrameKind::Native, name: Some(name) },
        })
    }

    #[test]
    fn what_measures_is_above_the_switch() {
        let check = |names, expected| assert_eq!(measuring(frames(names)), expected, "{names:?}");
        check(&["bpf_prog_1_[k]", "bpf_trace_run4_[k]", "__schedule_[k]", "schedule_[k]", "main"], 2);
        check(&["bpf_prog_1_[k]", "__traceiter_sched_switch_[k]", "other_[k]"], 2);
        check(&["_[k]", "_[k]", "main"], 0);
        check(&["__schedule"], 0);
        check(&[], 0);
    }

    #[test]
    fn an_interrupt_ends_the_chain_of_a_waker() {
        let check = |names, expected| assert_eq!(until_interrupt(frames(names)), expected, "{names:?}");
        check(&["try_to_wake_up_[k]", "hrtimer_wakeup_[k]", "sysvec_apic_timer_interrupt_[k]", "main"], 3);
        check(&["try_to_wake_up_[k]", "futex_wake_[k]", "main"], 3);
    }
}
