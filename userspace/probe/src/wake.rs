//! Waiting for what the kernel has to tell.
//!
//! Both rings are read by the clock, so this is about what cannot wait for it: a ring that fills, and code that is mapped
//! anew. The descriptors are watched by edge: records that wake nobody lie in the ring of events most of the time, and by
//! level each would end the wait.

use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::{ProbeError, Session, SideBand};

/// A wait takes so long at least: what userspace gives back of the kernel side's memory rests for some drains, until no
/// program can still be using it.
const LEAST: Duration = Duration::from_millis(2);

/// Waits on the rings of one session. They may be closed before it.
pub struct Wake {
    filling: Epoll,
    news: Epoll,
}

impl Wake {
    /// For these rings.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn new(session: &Session, side_band: &SideBand) -> Result<Self, ProbeError> {
        let epoll = || Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(failed);
        let by_edge = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, 0);
        let (filling, news) = (epoll()?, epoll()?);
        filling.add(session.ring(), by_edge).map_err(failed)?;
        news.add(session.ring(), by_edge).map_err(failed)?;
        for descriptor in side_band.descriptors() {
            news.add(descriptor, by_edge).map_err(failed)?;
        }
        Ok(Self { filling, news })
    }

    /// Waits until the ring of events is a quarter full (or passes the next quarter), or the time is up.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn when_filling(&self, timeout: Duration) -> Result<(), ProbeError> {
        wait(&self.filling, timeout)
    }

    /// The same, or until a process has mapped code or begun to run another program.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn when_news(&self, timeout: Duration) -> Result<(), ProbeError> {
        wait(&self.news, timeout)
    }
}

fn wait(epoll: &Epoll, timeout: Duration) -> Result<(), ProbeError> {
    // All that is ready is told at once: what is left would end the next wait.
    let mut ready = [EpollEvent::empty(); 64];
    let began = Instant::now();
    let most = EpollTimeout::try_from(timeout).unwrap_or(EpollTimeout::MAX);
    match epoll.wait(&mut ready, most) {
        Ok(_) | Err(nix::Error::EINTR) => {}
        Err(errno) => return Err(failed(errno)),
    }
    let left = timeout.min(LEAST).saturating_sub(began.elapsed());
    if !left.is_zero() {
        std::thread::sleep(left);
    }
    Ok(())
}

fn failed(errno: nix::Error) -> ProbeError {
    ProbeError::System { action: "wait for the kernel's events", source: errno.into() }
}
