//! Requests whose answer does not come.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use descry_tests::customer::Customer;
use descry_tests::machine;

use super::{Stores, orders, seen};

#[test]
fn requests_without_an_answer_say_why() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let stores = Stores::start()?;
    let (mut service, port) = stores.axum(&orders()?)?;
    let (spans, _) = seen(&[service.pid()], &["--timeout", "3s"], || {
        let mut patient = Customer::connect(port)?;
        patient.ask("/slow/1", "")?;
        sleep(Duration::from_millis(4500));
        // Goes away before its answer.
        let mut hasty = Customer::connect(port)?;
        hasty.ask("/slow/2", "")?;
        sleep(Duration::from_millis(300));
        drop(hasty);
        sleep(Duration::from_millis(300));
        // The service goes away.
        let mut left = Customer::connect(port)?;
        left.ask("/slow/3", "")?;
        sleep(Duration::from_millis(300));
        service.signal(nix::sys::signal::Signal::SIGKILL)?;
        service.wait()?;
        sleep(Duration::from_millis(300));
        Ok(())
    })?;
    for (number, why, error, status) in [
        (1, "timeout", "timeout", "error"),
        (2, "closed_by_client", "", "unset"),
        (3, "closed_by_server", "connection_closed", "error"),
    ] {
        let found: Vec<_> = spans.iter().filter(|span| span.number() == Some(number)).collect();
        let [span] = found.as_slice() else { anyhow::bail!("{} spans of /slow/{number}", found.len()) };
        let told = (span.attribute("descry.unanswered"), span.attribute("error.type"), span.text("status"));
        ensure!(told == (why, error, status), "/slow/{number}: {told:?}");
    }
    let timed_out = spans.iter().find(|span| span.number() == Some(1)).context("no span")?;
    let time = |name: &str| timed_out.0[name].as_u64().unwrap_or_default();
    let seconds = (time("end_unix_nano") - time("start_unix_nano")) as f64 / 1e9;
    ensure!((3.0..4.5).contains(&seconds), "given up after {seconds} s");
    Ok(())
}
