//! gRPC and DNS.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use descry_tests::server::free_port;
use descry_tests::{compile, machine};

use super::{Asked, Scenario, Server, play, said};

/// Server and client of Python's gRPC, in processes of their own. The client says how many calls of which method ended
/// with which status.
pub(super) const GRPC: Scenario = Scenario {
    name: "grpcio",
    start: |_| {
        let port = free_port()?;
        let mut command = grpc("serve", port)?;
        command.stderr(Stdio::null());
        Server::listening(command, port)
    },
    drive: |server, _| {
        let text = said(grpc("ask", server.port)?.arg("400"))?;
        let counts: Vec<(String, String, usize)> = text
            .lines()
            .last()
            .and_then(|line| serde_json::from_str(line).ok())
            .with_context(|| text.clone())?;
        let asked = |(method, status, count): (String, String, usize)| {
            Asked::new(method, count).with("rpc.response.status_code", status)
        };
        Ok(counts.into_iter().map(asked).collect())
    },
};

fn grpc(what: &str, port: u16) -> Result<Command> {
    let mut command = Command::new(machine::tool("python3")?);
    command.arg(compile::script("grpc_shop.py")).arg(what).arg(port.to_string());
    Ok(command)
}

/// dnsmasq, which knows some names and says of the others of its domain that there are none.
pub(super) const DNS: Scenario = Scenario { name: "dig", start: start_dnsmasq, drive: dig };

fn start_dnsmasq(dir: &Path) -> Result<Server> {
    let port = free_port()?;
    let mut command = Command::new(machine::tool("dnsmasq")?);
    command.args(["--keep-in-foreground", "--no-resolv", "--no-hosts", "--bind-interfaces", "--user=root"]);
    command.args(["--listen-address=127.0.0.1", "--local=/test/", "--address=/known.test/192.0.2.1"]);
    command.arg(format!("--port={port}")).arg(format!("--pid-file={}", dir.join("pid").display()));
    command.args(["--conf-file=/dev/null", "--log-facility=-"]).stderr(Stdio::null());
    Server::listening(command, port)
}

/// Three of four questions are of the name that is known, by UDP and by TCP. dig's own times tell of its start and of
/// connecting, too.
fn dig(server: &Server, dir: &Path) -> Result<Vec<Asked>> {
    let unknown = |number: u32| number.is_multiple_of(4);
    let name = |number| if unknown(number) { format!("un{number}.test") } else { "known.test".to_owned() };
    let questions: String = (0..200).map(|number| name(number) + " A\n").collect();
    fs::write(dir.join("questions"), questions)?;
    let (mut known, mut missing) = (0, 0);
    for transport in ["+notcp", "+tcp"] {
        let mut command = Command::new(machine::tool("dig")?);
        command.args(["@127.0.0.1", "-p", &server.port.to_string(), "-u", transport]);
        command.args(["+noall", "+comments", "-f"]).arg(dir.join("questions"));
        let text = said(&mut command)?;
        known += text.matches("status: NOERROR").count();
        missing += text.matches("status: NXDOMAIN").count();
    }
    let of = |code: &str, count| Asked::new("DNS A", count).with("dns.response_code", code);
    Ok(vec![of("NOERROR", known), of("NXDOMAIN", missing)])
}

#[test]
fn grpcio() -> Result<()> {
    play(&GRPC)
}

#[test]
fn dns_by_dig() -> Result<()> {
    play(&DNS)
}
