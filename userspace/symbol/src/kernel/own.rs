//! All functions of the kernel itself, in little memory: they stay what they are until the machine is started again.

use std::io;

use super::kallsyms::{Rank, Symbol};

/// Names that are compressed together; a name costs the decompression of so many.
const BLOCK: usize = 128;
/// Bytes of the names of a block: each is shorter than a line of the file.
const MAX_BLOCK_BYTES: usize = BLOCK * 4096;
/// Level 3 makes names a third of their size; higher ones win little.
const LEVEL: i32 = 3;

/// The symbols of a kernel image by address: 120 000 take about 1.5 MB.
#[derive(Debug, Default)]
pub(super) struct OwnFunctions {
    /// The first function.
    base: u64,
    /// Where each symbol starts, from `base`; an image is smaller than 4 GiB.
    starts: Vec<u32>,
    /// Their names, a line each, [`BLOCK`] of them compressed together. Data has an empty one.
    names: Vec<u8>,
    /// Where each block ends in `names`.
    ends: Vec<usize>,
}

impl OwnFunctions {
    /// The number of the symbol that an address belongs to, if any does, and how far in it the address is. Nobody knows
    /// where the last one ends.
    pub(super) fn find(&self, address: u64) -> Option<(usize, u64)> {
        let offset = u32::try_from(address.checked_sub(self.base)?).ok()?;
        let behind = self.starts.partition_point(|start| *start <= offset);
        let number = behind.checked_sub(1).filter(|_| behind < self.starts.len())?;
        Some((number, u64::from(offset - self.starts.get(number)?)))
    }
}

/// Reads names; those that stand together cost one decompression.
pub(super) struct Names<'a> {
    functions: &'a OwnFunctions,
    /// The block that `text` holds.
    block: Option<usize>,
    text: Vec<u8>,
}

impl<'a> Names<'a> {
    pub(super) fn new(functions: &'a OwnFunctions) -> Self {
        Self { functions, block: None, text: Vec::new() }
    }

    /// The name of a function by its number; none for data.
    pub(super) fn get(&mut self, number: usize) -> Option<&[u8]> {
        let block = number / BLOCK;
        if self.block != Some(block) {
            let end = *self.functions.ends.get(block)?;
            let start =
                block.checked_sub(1).map_or(Some(0), |before| self.functions.ends.get(before).copied())?;
            self.text =
                zstd::bulk::decompress(self.functions.names.get(start..end)?, MAX_BLOCK_BYTES).ok()?;
            self.block = Some(block);
        }
        self.text.split(|byte| *byte == b'\n').nth(number % BLOCK).filter(|name| !name.is_empty())
    }
}

/// Makes them from symbols in the order of the file, which is by address.
#[derive(Default)]
pub(super) struct Builder {
    made: OwnFunctions,
    last: u64,
    rank: Rank,
    name: String,
    /// Names of the block at hand.
    text: Vec<u8>,
}

impl Builder {
    /// The next symbol. One that is out of order or too far from the first function is left out.
    pub(super) fn symbol(&mut self, symbol: &Symbol<'_>) -> io::Result<()> {
        // Before the image are per-CPU variables at low addresses.
        if self.made.starts.is_empty() {
            if !symbol.rank.is_code {
                return Ok(());
            }
            self.made.base = symbol.start;
        }
        if symbol.start < self.last {
            return Ok(());
        }
        let Ok(offset) = u32::try_from(symbol.start - self.made.base) else { return Ok(()) };
        if symbol.start == self.last && symbol.rank <= self.rank {
            return Ok(());
        }
        if symbol.start != self.last {
            self.finish_symbol()?;
            self.made.starts.push(offset);
            self.last = symbol.start;
        }
        self.rank = symbol.rank;
        self.name.clear();
        self.name.push_str(symbol.name);
        Ok(())
    }

    /// What was made of all of them.
    pub(super) fn finish(mut self) -> io::Result<OwnFunctions> {
        self.finish_symbol()?;
        self.finish_block()?;
        self.made.starts.shrink_to_fit();
        self.made.names.shrink_to_fit();
        Ok(self.made)
    }

    fn finish_symbol(&mut self) -> io::Result<()> {
        if self.made.starts.is_empty() {
            return Ok(());
        }
        if self.rank.is_code {
            self.text.extend_from_slice(self.name.as_bytes());
        }
        self.text.push(b'\n');
        if self.made.starts.len().is_multiple_of(BLOCK) {
            self.finish_block()?;
        }
        Ok(())
    }

    fn finish_block(&mut self) -> io::Result<()> {
        self.made.names.extend(zstd::bulk::compress(&self.text, LEVEL)?);
        self.made.ends.push(self.made.names.len());
        self.text.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::kallsyms;
    use super::*;
    use std::io::Write as _;

    /// The functions of a file with these lines.
    fn made(lines: &str) -> OwnFunctions {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(lines.as_bytes()).unwrap();
        let mut builder = Builder::default();
        kallsyms::read(file.path(), |symbol| builder.symbol(&symbol)).unwrap();
        builder.finish().unwrap()
    }

    fn name(functions: &OwnFunctions, address: u64) -> Option<String> {
        let (number, _) = functions.find(address)?;
        Names::new(functions).get(number).map(|name| String::from_utf8(name.to_vec()).unwrap())
    }

    #[test]
    fn every_function_of_many_has_its_name() {
        for count in [1, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK] {
            let lines = (0..count).map(|n| format!("{:x} t function_{n}\n", 0x1000 + 16 * n));
            let functions = made(&(lines.collect::<String>() + "9000000 D _end\n"));
            for n in 0..count {
                let address = 0x1000 + 16 * n as u64 + 15;
                assert_eq!(name(&functions, address), Some(format!("function_{n}")), "of {count}");
                assert_eq!(functions.find(address), Some((n, 15)));
            }
            assert_eq!(name(&functions, 0xfff), None);
        }
    }

    #[test]
    fn data_has_no_name_and_lines_out_of_order_do_no_harm() {
        let lines = "10 D percpu\n1000 t alias\n1000 T one\n1100 d data\n900 t low\n200000000 t far\n1200 t two\n1300 D _end\n";
        let functions = made(lines);
        assert_eq!(name(&functions, 0x1010).as_deref(), Some("one"));
        assert_eq!(name(&functions, 0x1110), None);
        assert_eq!(name(&functions, 0x1210).as_deref(), Some("two"));
        assert_eq!(name(&functions, 0x910), None);
        assert_eq!(name(&functions, 0x1310), None);
        assert_eq!(name(&made(""), 0x10), None);
    }
}
