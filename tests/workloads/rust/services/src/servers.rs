//! Servers that only answer, on what Rust services are made of.
//!
//! ```text
//! servers axum PORT              GET / and GET /items/{id}, by HTTP/1.1 and HTTP/2 without TLS
//! servers tonic PORT             grpc.health.v1.Health
//! servers ask PORT CALLS TASKS   asks a tonic for each second time a service that it does not know; prints, for each
//!                                code, how many calls ended with it
//! ```
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::error::Error;

use axum::Router;
use axum::extract::Path;
use axum::routing::get;
use tokio::net::TcpListener;
use tonic::Code;
use tonic::transport::{Channel, Server};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::server::health_reporter;

type Failed = Box<dyn Error + Send + Sync>;

async fn axum(address: String) -> Result<(), Failed> {
    let routes = Router::new()
        .route("/", get(|| async { "a small page\n" }))
        .route("/items/{id}", get(|Path(id): Path<u64>| async move { format!("item {id}\n") }));
    Ok(axum::serve(TcpListener::bind(address).await?, routes).await?)
}

async fn tonic(address: String) -> Result<(), Failed> {
    let (_, service) = health_reporter();
    Ok(Server::builder().add_service(service).serve(address.parse()?).await?)
}

/// Asks `calls` times, in `tasks` tasks over one connection.
async fn ask(address: String, calls: usize, tasks: usize) -> Result<(), Failed> {
    let channel = Channel::from_shared(format!("http://{address}"))?.connect().await?;
    let asking = (0..tasks).map(|task| {
        let mut client = HealthClient::new(channel.clone());
        tokio::spawn(async move {
            let mut codes = Vec::new();
            for call in (task..calls).step_by(tasks) {
                let service = if call % 2 == 0 { "" } else { "unknown" }.to_owned();
                let answer = client.check(HealthCheckRequest { service }).await;
                codes.push(answer.map_or_else(|status| status.code(), |_| Code::Ok));
            }
            codes
        })
    });
    let mut counts = BTreeMap::new();
    for task in asking.collect::<Vec<_>>() {
        for code in task.await? {
            *counts.entry(code as i32).or_insert(0) += 1;
        }
    }
    for (code, count) in counts {
        let name = match Code::from(code) {
            Code::Ok => "OK",
            Code::NotFound => "NOT_FOUND",
            _ => return Err(format!("a call ended with {code}").into()),
        };
        println!("{name} {count}");
    }
    Ok(())
}

#[tokio::main(worker_threads = 4)]
async fn main() -> Result<(), Failed> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let address = |port: &str| format!("127.0.0.1:{port}");
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["axum", port] => axum(address(port)).await,
        ["tonic", port] => tonic(address(port)).await,
        ["ask", port, calls, tasks] => ask(address(port), calls.parse()?, tasks.parse()?).await,
        _ => Err("usage: servers axum PORT | tonic PORT | ask PORT CALLS TASKS".into()),
    }
}
