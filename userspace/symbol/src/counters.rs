//! What was found and what was not, counted.

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// Counters of one [`Symbolizer`](crate::Symbolizer), from its start.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counters { $($(#[doc = $doc])+ pub $name: u64,)+ }

        impl Counters {
            /// Adds those of another symbolizer.
            pub fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)+
            }

            /// (name as a metric, help, value) of every counter.
            pub fn entries(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> + use<> {
                [$((concat!("descry.symbols.", stringify!($name)), concat!($($doc,)+), self.$name),)+].into_iter()
            }
        }
    };
}

counters! {
    /// Addresses asked for.
    addresses,
    /// Addresses named by debug information.
    by_dwarf,
    /// Addresses named by a symbol table alone.
    by_symbol_table,
    /// Addresses named as entries of a procedure linkage table.
    by_plt,
    /// Addresses named by the table of functions of a stripped Go program.
    by_go_table,
    /// Addresses of the kernel that were named.
    by_kallsyms,
    /// Addresses that no symbol covers.
    unknown,
    /// Problems reported.
    problems,
    /// Panics of blazesym, each of which cost some addresses their names.
    panics,
    /// Files of which a copy was symbolized, because others can change them or their sections are compressed.
    copies,
}
