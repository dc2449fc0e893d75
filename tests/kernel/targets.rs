//! What is measured: by name, file, cgroup, container, all, several.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use descry_tests::descry::Descry;
use descry_tests::machine;
use descry_tests::{compile, workload::Workload};

use crate::{HZ, measure};

/// Measures `split` beside `deep` with these options, and checks that only `split` is there.
fn only_split(options: &[&str]) -> Result<()> {
    let (folded, _) = measure(Descry::profile(HZ, 2)?.args(options))?;
    ensure!(folded.total_of("cycle") > 0.95, "{options:?} gave\n{}", folded.heaviest(10));
    ensure!(
        folded.of("deep").total() == 0,
        "{options:?} gave another process:\n{}",
        folded.of("deep").heaviest(10)
    );
    Ok(())
}

/// Measures `split` and `deep`, and checks that both are there.
fn both(descry: Descry) -> Result<()> {
    let (folded, _) = measure(descry)?;
    for (process, function) in [("split", "cycle"), ("deep", "bottom")] {
        ensure!(
            folded.of(process).total_of(function) > 0.95,
            "{process}:\n{}",
            folded.of(process).heaviest(10)
        );
    }
    Ok(())
}

#[test]
fn by_name_and_by_file() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let _workloads = [Workload::native("split", &[])?, Workload::native("deep", &[])?];
    only_split(&["--comm", "split"])?;
    only_split(&["--exe", &compile::native("split")?.to_string_lossy()])
}

#[test]
fn a_program_that_starts_later() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let mut descry =
        Descry::profile(HZ, 4)?.args(["--exe", &compile::native("split")?.to_string_lossy()]).spawn()?;
    descry.measuring()?;
    let _workload = Workload::native("split", &[])?;
    let outcome = descry.wait()?;
    ensure!(outcome.code == Some(0), "descry ended with {:?}:\n{}", outcome.code, outcome.stderr);
    let folded = outcome.folded()?;
    ensure!(folded.total_of("cycle") > 0.9, "the program that started later:\n{}", folded.heaviest(10));
    Ok(())
}

#[test]
fn several_processes() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let (split, deep) = (Workload::native("split", &[])?, Workload::native("deep", &[])?);
    both(Descry::profile(HZ, 2)?.pid(split.pid()).pid(deep.pid()))
}

/// The kernel side keeps processes by the low bits of their ids first (`SCOPE_FILTER`).
#[test]
fn processes_whose_ids_end_alike() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let split = Workload::native("split", &[])?;
    let deep = with_like_id(split.pid())?;
    only_split(&["-p", &split.pid().to_string()])?;
    both(Descry::profile(HZ, 2)?.pid(split.pid()).pid(deep.pid()))
}

/// The workload `deep` under an id whose low bits are those of `id`.
fn with_like_id(id: u32) -> Result<Workload> {
    let far = descry_abi::limits::SCOPE_FILTER_SLOTS;
    let wanted = if id > 2 * far { id - far } else { id + far };
    for _ in 0..50 {
        fs::write("/proc/sys/kernel/ns_last_pid", (wanted - 1).to_string())?;
        let workload = Workload::native("deep", &[])?;
        // Others start processes too.
        if workload.pid() == wanted {
            return Ok(workload);
        }
    }
    bail!("no process got the id {wanted}")
}

#[test]
fn all() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let _workloads = [Workload::native("split", &[])?, Workload::native("deep", &[])?];
    both(Descry::profile(HZ, 3)?.args(["-a"]))
}

/// A cgroup (v2) of this name, gone when it is dropped.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new(name: &str) -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        let mut mounts = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let mount = mounts.find(|fields| fields.get(2) == Some(&"cgroup2"));
        let root = mount.as_ref().and_then(|fields| fields.get(1)).context("cgroup2 is mounted nowhere")?;
        let path = Path::new(root).join(name);
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }

    fn take(&self, pid: u32) -> Result<()> {
        Ok(fs::write(self.0.join("cgroup.procs"), pid.to_string())?)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Killed processes leave their cgroup a moment later.
        for _ in 0..100 {
            if fs::remove_dir(&self.0).is_ok() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

#[test]
fn by_cgroup() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let cgroup = Cgroup::new(&format!("descry-test-{}", std::process::id()))?;
    let (split, _deep) = (Workload::native("split", &[])?, Workload::native("deep", &[])?);
    cgroup.take(split.pid())?;
    only_split(&["--cgroup", &cgroup.0.to_string_lossy()])
}

#[test]
fn by_container() -> Result<()> {
    let Some(_machine) = machine::alone()? else { return Ok(()) };
    let id = format!("{:0>64x}", 0x00de_5c12_0000_0000_u64 + u64::from(std::process::id()));
    let cgroup = Cgroup::new(&format!("docker-{id}.scope"))?;
    let (split, _deep) = (Workload::native("split", &[])?, Workload::native("deep", &[])?);
    cgroup.take(split.pid())?;
    only_split(&["--container", &id])
}
