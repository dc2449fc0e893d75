//! What runs a program, by the names of its files. Pure.

/// (`process.runtime.name`, beginnings of the program's name, beginnings of a library's name)
type Rule = (&'static str, &'static [&'static str], &'static [&'static str]);

/// Values are those of the OpenTelemetry semantic conventions ("Process runtimes") where these have one.
const RULES: [Rule; 12] = [
    ("jvm", &[], &["libjvm.so"]),
    (".NET", &["dotnet"], &["libcoreclr.so"]),
    ("nodejs", &["node"], &["libnode.so"]),
    ("deno", &["deno"], &[]),
    ("bun", &["bun"], &[]),
    ("BEAM", &["beam.smp"], &[]),
    ("pypy", &["pypy"], &["libpypy"]),
    ("cpython", &["python"], &["libpython"]),
    ("ruby", &["ruby"], &["libruby"]),
    ("php", &["php"], &["libphp"]),
    ("luajit", &["luajit"], &["libluajit"]),
    ("perl", &["perl"], &["libperl"]),
];

/// `process.runtime.name` of a process whose program has the file name `executable`, and which has mapped `files`.
pub fn runtime_name<'a>(
    executable: &str,
    files: impl Iterator<Item = &'a str> + Clone,
) -> Option<&'static str> {
    let begins = |name: &str, with: &[&str]| with.iter().any(|prefix| name.starts_with(prefix));
    // A program is what it is called; one that carries an interpreter as a library comes second.
    let by_name = RULES.iter().find(|(_, programs, _)| begins(executable, programs));
    let by_library = || {
        RULES.iter().find(|(_, _, libraries)| {
            files.clone().any(|path| begins(path.rsplit('/').next().unwrap_or(path), libraries))
        })
    };
    by_name.or_else(by_library).map(|(runtime, _, _)| *runtime)
}
