//! Counters and the own cost, as a caller sees them.

use descry_telemetry::{Counters, Logging, ProcessUsage, Reading, logging};

#[test]
fn equal_names_are_one_counter_and_snapshots_are_sorted() {
    let counters = Counters::default();
    let late = counters.counter("descry.z", "Last.");
    let early = counters.clone().counter("descry.a", "First.");
    late.add(1);
    counters.counter("descry.z", "Another help.").add(1);
    early.raise_to(10);
    early.raise_to(7);
    assert_eq!(
        counters.snapshot(),
        [
            Reading { name: "descry.a", help: "First.", value: 10 },
            Reading { name: "descry.z", help: "Last.", value: 2 },
        ]
    );
}

#[test]
fn usage_grows_with_work_and_memory() {
    let before = ProcessUsage::now().unwrap();
    let memory = std::hint::black_box(vec![1_u8; 32 << 20]);
    let sum: u64 = (0..50_000_000_u64).fold(0, |sum, next| std::hint::black_box(sum.wrapping_add(next)));
    std::hint::black_box((memory, sum));
    let after = ProcessUsage::now().unwrap();
    assert!(after.cpu_ns > before.cpu_ns);
    assert!(after.peak_rss_bytes >= 32 << 20);
}

#[test]
fn nonsense_directives_name_the_variable() {
    let logging = Logging { directives: Some("descry=loud".to_owned()), ..Logging::default() };
    let error = logging::init(&logging, None).unwrap_err().to_string();
    assert!(error.starts_with("DESCRY_LOG is invalid"), "{error}");
}
