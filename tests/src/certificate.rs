//! A certificate for servers on this machine.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Result, ensure};
use tempfile::TempDir;

use crate::machine;

/// A key and a certificate of this machine that it signed itself, in a directory of their own that every user may read.
#[derive(Debug)]
pub struct Certificate {
    dir: TempDir,
}

impl Certificate {
    /// Makes both.
    ///
    /// # Errors
    /// When openssl is missing, or does not.
    pub fn new() -> Result<Self> {
        let made = Self { dir: tempfile::tempdir()? };
        made.make()?;
        Ok(made)
    }

    fn make(&self) -> Result<()> {
        let mut command = Command::new(machine::tool("openssl")?);
        command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
        command.args(["-days", "2", "-subj", "/CN=localhost"]);
        command.args(["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout"]).arg(self.key());
        command.arg("-out").arg(self.chain()).stderr(Stdio::null());
        ensure!(command.status()?.success(), "openssl makes no certificate");
        let both = [fs::read(self.chain())?, fs::read(self.key())?].concat();
        fs::write(self.chain_and_key(), both)?;
        // A server gives up its rights before it reads them.
        fs::set_permissions(self.dir(), fs::Permissions::from_mode(0o755))?;
        for file in [self.key(), self.chain_and_key()] {
            fs::set_permissions(file, fs::Permissions::from_mode(0o644))?;
        }
        Ok(())
    }

    /// Where they are; a server may put its own files there.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The key (PEM).
    #[must_use]
    pub fn key(&self) -> PathBuf {
        self.dir().join("key.pem")
    }

    /// The certificate (PEM).
    #[must_use]
    pub fn chain(&self) -> PathBuf {
        self.dir().join("cert.pem")
    }

    /// Both in one file, as haproxy wants it.
    #[must_use]
    pub fn chain_and_key(&self) -> PathBuf {
        self.dir().join("both.pem")
    }
}
