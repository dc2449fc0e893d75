//! A web service on axum, PostgreSQL (sqlx) and Redis, whose every question says for which request it is asked.
//!
//! ```text
//! GET /orders/{n}   a query AS order_{n}, SELECT {n mod 1000} and INCR, a sleep of 1 ms, a query AS again_{n}
//! GET /spawned/{n}  a query AS spawned_{n}, made by a task that the handler spawns and awaits
//! GET /slow/{n}     answers after 30 s
//! ```
//!
//! `orders POSTGRES_URL REDIS_URL`: prints the port that it listens on first.
#![forbid(unsafe_code)]

use std::error::Error;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::routing::get;
use sqlx::postgres::{PgPool, PgPoolOptions};

/// Connections to PostgreSQL; fewer than requests at once.
const CONNECTIONS: u32 = 20;
/// Databases of Redis that are told apart.
const DATABASES: u64 = 1000;

#[derive(Clone)]
struct Service {
    postgres: PgPool,
    redis: Arc<Redis>,
}

/// Connections to Redis that are not in use.
struct Redis {
    client: redis::Client,
    idle: Mutex<Vec<redis::Connection>>,
}

impl Redis {
    fn count(&self, database: u64) -> redis::RedisResult<u64> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut connection = match idle {
            Some(connection) => connection,
            None => self.client.get_connection()?,
        };
        redis::cmd("SELECT").arg(database).exec(&mut connection)?;
        let count = redis::cmd("INCR").arg("orders").query(&mut connection)?;
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        Ok(count)
    }
}

async fn query(postgres: &PgPool, name: &str, number: u64) -> Result<(), sqlx::Error> {
    let text = format!("SELECT pg_sleep(0.002), 1 AS {name}_{number}");
    sqlx::raw_sql(&text).execute(postgres).await?;
    Ok(())
}

async fn order(State(service): State<Service>, Path(number): Path<u64>) -> String {
    let asked = async {
        query(&service.postgres, "order", number).await?;
        let count = tokio::task::block_in_place(|| service.redis.count(number % DATABASES))?;
        tokio::time::sleep(Duration::from_millis(1)).await;
        query(&service.postgres, "again", number).await?;
        Ok::<u64, Box<dyn Error>>(count)
    };
    match asked.await {
        Ok(count) => format!("{number} {count}\n"),
        Err(error) => format!("failed: {error}\n"),
    }
}

async fn spawned(State(service): State<Service>, Path(number): Path<u64>) -> String {
    let asked = tokio::spawn(async move { query(&service.postgres, "spawned", number).await });
    match asked.await {
        Ok(Ok(())) => format!("{number}\n"),
        Ok(Err(error)) => format!("failed: {error}\n"),
        Err(error) => format!("failed: {error}\n"),
    }
}

async fn slow(Path(number): Path<u64>) -> String {
    tokio::time::sleep(Duration::from_secs(30)).await;
    format!("{number}\n")
}

#[tokio::main(worker_threads = 4)]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [postgres, redis] = arguments.as_slice() else {
        return Err("usage: orders POSTGRES_URL REDIS_URL".into());
    };
    let service = Service {
        postgres: PgPoolOptions::new().max_connections(CONNECTIONS).connect(postgres).await?,
        redis: Arc::new(Redis { client: redis::Client::open(redis.as_str())?, idle: Mutex::default() }),
    };
    let routes = Router::new()
        .route("/orders/{number}", get(order))
        .route("/spawned/{number}", get(spawned))
        .route("/slow/{number}", get(slow))
        .with_state(service);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?.port());
    std::io::stdout().flush()?;
    axum::serve(listener, routes).await?;
    Ok(())
}
