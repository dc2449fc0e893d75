//! What kernels get that lack something this one has: descry is told to do without.

use anyhow::Result;
use descry_tests::descry::Descry;
use descry_tests::machine;
use descry_tests::workload::Workload;

use crate::{HZ, check_whole, measure, requests, sockets};

/// Names what to do without.
const WITHOUT: &str = "DESCRY_WITHOUT";

/// Before Linux 6.3.
#[test]
fn requests_without_the_tracepoints_of_sockets() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    requests::check_every_request(Descry::new("requests")?.env(WITHOUT, "socket_tracepoints"))?;
    sockets::check_every_way(Descry::new("requests")?.env(WITHOUT, "socket_tracepoints"))
}

/// Before Linux 5.17.
#[test]
fn stacks_without_bpf_loop() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    for workload in ["split", "deep", "signal"] {
        let workload = Workload::native(workload, &[])?;
        let descry = Descry::profile(HZ, 2)?.pid(workload.pid()).env(WITHOUT, "bpf_loop");
        let (folded, stats) = measure(descry)?;
        check_whole(&folded, &stats)?;
    }
    Ok(())
}
