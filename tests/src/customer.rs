//! Customers of a web service: many at once, each on a connection kept alive.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};

/// An answer that takes longer does not come.
const PATIENCE: Duration = Duration::from_secs(20);

/// A customer's connection.
#[derive(Debug)]
pub struct Customer {
    writer: TcpStream,
    reader: BufReader<TcpStream>,
}

impl Customer {
    /// Connects to a port of 127.0.0.1.
    ///
    /// # Errors
    /// When nobody listens.
    pub fn connect(port: u16) -> Result<Self> {
        let writer = TcpStream::connect(("127.0.0.1", port))?;
        writer.set_nodelay(true)?;
        writer.set_read_timeout(Some(PATIENCE))?;
        let reader = BufReader::new(writer.try_clone()?);
        Ok(Self { writer, reader })
    }

    /// Asks for a path, with more lines of a head if wanted (each with its end), and does not wait.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn ask(&mut self, path: &str, head: &str) -> Result<()> {
        Ok(self.writer.write_all(format!("GET {path} HTTP/1.1\r\nhost: shop\r\n{head}\r\n").as_bytes())?)
    }

    /// The body of the answer, which has a length.
    ///
    /// # Errors
    /// When it does not come, or is none of status 200.
    pub fn answer(&mut self) -> Result<String> {
        let mut first = String::new();
        self.reader.read_line(&mut first)?;
        ensure!(first.starts_with("HTTP/1.1 200 "), "the answer is {first:?}");
        let mut length = None;
        loop {
            let mut line = String::new();
            if self.reader.read_line(&mut line)? <= 2 {
                break;
            }
            let line = line.to_ascii_lowercase();
            length =
                length.or(line.strip_prefix("content-length:").and_then(|value| value.trim().parse().ok()));
        }
        let mut body = vec![0; length.context("the answer has no length")?];
        self.reader.read_exact(&mut body)?;
        Ok(String::from_utf8(body)?)
    }
}

/// Has the numbers from `first` on, `total` of them, asked for by `at_once` customers. `request` makes a path and more of
/// the head of a number; each answer begins with it.
///
/// # Errors
/// When one is not answered as it should be.
pub fn crowd(
    port: u16,
    at_once: usize,
    first: u64,
    total: u64,
    request: impl Fn(u64) -> (String, String) + Sync,
) -> Result<()> {
    let next = AtomicU64::new(first);
    let customer = || -> Result<()> {
        let mut customer = Customer::connect(port)?;
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= first + total {
                return Ok(());
            }
            let (path, head) = request(number);
            customer.ask(&path, &head)?;
            let body = customer.answer().with_context(|| format!("of {path}"))?;
            ensure!(body.trim_end().starts_with(&number.to_string()), "{path} has {body:?}");
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..at_once).map(|_| scope.spawn(customer)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| anyhow!("a customer failed"))?)
    })
}
