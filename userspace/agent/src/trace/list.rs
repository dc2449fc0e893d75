//! What would be probed, as text.

use std::io::{self, Write};

use descry_export::format::printable;
use descry_function::{Cost, Exits, Place};

use super::catalog::{Catalog, How, Work};

/// Writes a line for each place, and one for each function that cannot be probed.
pub fn write(catalog: &Catalog, work: &[Work], out: &mut dyn Write) -> io::Result<()> {
    for work in work {
        writeln!(out, "{}", printable(&work.object.path))?;
        for item in &work.items {
            let name = catalog.get(item.number).map(|traced| traced.name.to_string()).unwrap_or_default();
            match &item.how {
                How::Usdt(probe) => {
                    writeln!(out, "  {}  about {} ns", printable(&name), Cost::Emulated.nanos())?;
                    writeln!(out, "    {:<8} {}", "USDT", probe.address)?;
                }
                How::Function(plan) => {
                    writeln!(out, "  {}  about {} ns a call", printable(&name), plan.nanos())?;
                    place(out, "entry", &plan.entry)?;
                    match &plan.exits {
                        Exits::ReturnProbe => {
                            writeln!(out, "    {:<8} by the kernel's return probe", "exit")?
                        }
                        Exits::Instructions(exits) => {
                            exits.iter().try_for_each(|exit| place(out, "exit", exit))?;
                        }
                    }
                }
            }
        }
        for (name, why) in &work.unprobeable {
            writeln!(out, "  {}  cannot be probed: {why}", printable(name))?;
        }
    }
    Ok(())
}

fn place(out: &mut dyn Write, what: &str, place: &Place) -> io::Result<()> {
    writeln!(out, "    {what:<8} {}  {}  ({})", place.address, printable(&place.instruction), place.cost)
}
