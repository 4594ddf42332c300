//! Records how the programs run: once with counters in them, once with Valgrind looking on, as it sees the libraries that have
//! no counters too. What is exercised are the benchmarks and a rotation of the root.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, ensure};
use flate2::{Compression, write::GzEncoder};
use tokio::process::Command;

use super::{
    PROGRAMS,
    recorded::{COUNTS, HOST, NAMES, ORDER, counted, folder, names},
};
use crate::command::run;

/// What each benchmark is asked for.
struct Effort {
    admission: &'static [&'static str],
    signing: &'static [&'static str],
    fanout: &'static [&'static str],
}

/// Enough for counts that mean something.
const FULL: Effort = Effort {
    admission: &["--seconds", "4"],
    signing: &["--certificates", "2000", "--storm", "500"],
    fanout: &["--sidecars", "500", "--edits", "40"],
};
/// Enough for everything to run once, fifty times slower.
const LIGHT: Effort = Effort {
    admission: &["--seconds", "2", "--connections", "2", "--rates", "20"],
    signing: &["--certificates", "60", "--storm", "20"],
    fanout: &["--sidecars", "10", "--edits", "5"],
};

/// Records, and writes it where releases read it.
///
/// # Errors
/// What failed, also when a tool is missing or this is another host than releases are made on.
pub async fn record() -> anyhow::Result<()> {
    let host = super::host().await?;
    ensure!(host == HOST, "recordings are made on {HOST}, this is {host}");
    let profdata = llvm_profdata(&host).await?;
    run(with("valgrind", &["--version"]))
        .await
        .context("install Valgrind")?;

    let began = Instant::now();
    let say = |what: &str| println!("{:>5} s: {what}", began.elapsed().as_secs());
    // Gigabytes that nothing else uses: the flags name files of this run.
    let target = tempfile::tempdir_in(super::target_folder())?;
    let work = tempfile::tempdir()?;
    let raw = work.path().join("raw");
    say("compiling with counters");
    let counting = [format!("-Cprofile-generate={}", raw.display())];
    let programs = super::compile(&host, &target.path().join("counting"), &counting).await?;
    say("exercising");
    exercise(&programs, &FULL).await?;
    let counts = work.path().join(COUNTS);
    let mut merge = with(&profdata, &["merge", "-sparse", "-o"]);
    merge.arg(&counts);
    for file in fs::read_dir(&raw).context("the counters wrote nothing")? {
        merge.arg(file?.path());
    }
    run(merge).await?;

    say("compiling with the counts, symbols kept");
    // Last wins: cargo's own flag says to strip.
    let named = [counted(&counts), vec!["-Cstrip=none".to_owned()]].concat();
    let programs = super::compile(&host, &target.path().join("named"), &named).await?;
    say("exercising under Valgrind");
    let (watched, seen) = (work.path().join("watched"), work.path().join("seen"));
    watch(&programs, &watched, &seen)?;
    exercise(&watched, &LIGHT).await?;
    let mut ran = Vec::new();
    for (program, _) in PROGRAMS {
        let mut of_program = BTreeSet::new();
        for file in fs::read_dir(seen.join(program))? {
            of_program.extend(functions(&fs::read_to_string(file?.path())?));
        }
        ran.push(of_program);
    }
    let order = ordered(&ran);

    let folder = folder();
    fs::create_dir_all(&folder)?;
    pack(&folder, ORDER, (order.join("\n") + "\n").as_bytes())?;
    pack(&folder, COUNTS, &fs::read(&counts)?)?;
    fs::write(folder.join(NAMES), names()?)?;
    say(&format!("recorded, {} functions ran", order.len()));
    Ok(())
}

/// Runs programs of a folder; the load programs are beside this one.
async fn exercise(programs: &Path, effort: &Effort) -> anyhow::Result<()> {
    let here = std::env::current_exe()?;
    for (what, flag, program, args) in [
        ("admission", "--injector", "injector", effort.admission),
        ("signing", "--sentry", "sentry", effort.signing),
        ("fanout", "--operator", "operator", effort.fanout),
    ] {
        let mut bench = with(here.with_file_name("bench"), &[what, flag]);
        bench.arg(programs.join(program)).args(args);
        print!("{}", run(bench).await?);
    }
    let mut rotations = with(here.with_file_name("rotations"), &["--roots", "1", "--programs"]);
    rotations.arg(programs);
    print!("{}", run(rotations).await?);
    Ok(())
}

/// Makes a folder with a script for each program, which runs it under Valgrind. What is seen of it goes to a folder of its name.
fn watch(programs: &Path, scripts: &Path, seen: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(scripts)?;
    for (name, _) in PROGRAMS {
        let (script, program, seen) = (scripts.join(name), programs.join(name), seen.join(name));
        fs::create_dir_all(&seen)?;
        let text = format!(
            "#!/bin/sh\nexec valgrind --quiet --tool=callgrind --demangle=no --callgrind-out-file='{}/%p' '{}' \"$@\"\n",
            seen.display(),
            program.display()
        );
        fs::write(&script, text)?;
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

/// All functions in the order for the linker, from what each program ran. Those of the same programs stay together: what only
/// others run is out of a program's way, although all are linked in one order.
fn ordered(ran: &[BTreeSet<String>]) -> Vec<&str> {
    let mut programs: BTreeMap<&str, u32> = BTreeMap::new();
    for (program, names) in ran.iter().enumerate() {
        for name in names {
            *programs.entry(name).or_default() |= 1 << program;
        }
    }
    let mut order: Vec<_> = programs.into_iter().map(|(name, programs)| (programs, name)).collect();
    order.sort_unstable();
    order.into_iter().map(|(_, name)| name).collect()
}

/// The functions that Callgrind saw, and those that other processors run in their place.
fn functions(callgrind: &str) -> BTreeSet<String> {
    let seen = callgrind.lines().filter_map(|line| {
        let (kind, rest) = line.split_once("=(")?;
        let (_, name) = rest.split_once(") ")?;
        // A recursion's depth follows.
        let name = name.split_once('\'').map_or(name, |(name, _)| name);
        let plain = |c: char| c.is_ascii_alphanumeric() || "_.$".contains(c);
        (matches!(kind, "fn" | "cfn") && name.chars().all(plain) && !name.starts_with("0x")).then_some(name)
    });
    // Where every program begins; Callgrind calls it `(below main)`.
    let mut names = BTreeSet::from(["_start".to_owned()]);
    for name in seen {
        names.insert(name.to_owned());
        names.extend(twins(name));
    }
    names
}

/// What runs on a real processor in place of a function: Valgrind's has no AVX-512, and AWS-LC keeps the functions with `_alt`
/// for those that multiply as slowly as it. Names that do not exist do no harm.
fn twins(name: &str) -> Vec<String> {
    let mut twins = Vec::new();
    twins.extend(name.strip_suffix("_alt").map(str::to_owned));
    if let Some((head, tail)) = name.split_once("_avx") {
        let tail = tail.strip_prefix('2').unwrap_or(tail);
        twins.extend(["_evex", "_avx512"].map(|kind| format!("{head}{kind}{tail}")));
        twins.push(format!("{head}_evex{tail}_rtm"));
    }
    if let Some((head, _)) = name.split_once("_sse2") {
        twins.push(format!("{head}_avx512"));
    }
    twins
}

/// LLVM's tool of the same version as the compiler's.
async fn llvm_profdata(host: &str) -> anyhow::Result<PathBuf> {
    let sysroot = run(with("rustc", &["--print", "sysroot"])).await?;
    let path = format!("{}/lib/rustlib/{host}/bin/llvm-profdata", sysroot.trim());
    ensure!(Path::new(&path).is_file(), "run `rustup component add llvm-tools`");
    Ok(path.into())
}

/// In the checkout, since its toolchain file decides which compiler it is.
fn with(program: impl AsRef<std::ffi::OsStr>, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.current_dir(super::workspace()).args(args);
    command
}

fn pack(folder: &Path, name: &str, content: &[u8]) -> anyhow::Result<()> {
    let file = fs::File::create(folder.join(format!("{name}.gz")))?;
    let mut packed = GzEncoder::new(file, Compression::best());
    packed.write_all(content)?;
    packed.finish()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_named_once_each() {
        let callgrind = "events: Ir\nfn=(1) _ZN4main17h0E\ncfn=(2) _RNvC3std2io'2\ncfn=(1)\nfn=(3) (below main)\n\
                         fn=(4) 0x0000000000401000\nob=(1) /tmp/injector\nfn=(5) x25519_alt\n";
        let expected = ["_RNvC3std2io", "_ZN4main17h0E", "_start", "x25519", "x25519_alt"];
        assert_eq!(functions(callgrind), BTreeSet::from(expected.map(str::to_owned)));
    }

    #[test]
    fn functions_of_the_same_programs_stay_together() {
        let ran = [["all", "mine", "some"].as_slice(), &["all", "some", "yours"], &["all"]];
        let ran = ran.map(|names| names.iter().copied().map(str::to_owned).collect());
        assert_eq!(ordered(&ran), ["mine", "yours", "some", "all"]);
    }

    #[test]
    fn real_processors_run_the_twins() {
        let strlen = ["__strlen_evex", "__strlen_avx512", "__strlen_evex_rtm"];
        assert_eq!(twins("__strlen_avx2"), strlen);
        assert_eq!(
            twins("__memcpy_avx_unaligned_erms"),
            [
                "__memcpy_evex_unaligned_erms",
                "__memcpy_avx512_unaligned_erms",
                "__memcpy_evex_unaligned_erms_rtm"
            ]
        );
        assert_eq!(twins("__strstr_sse2_unaligned"), ["__strstr_avx512"]);
        assert!(twins("main").is_empty());
    }
}
