//! Go's command-line habits on top of clap: one dash or two, `-flag=false`, the last of a repeated flag wins, words that are
//! not flags are ignored, usage errors exit with 2.

use std::ffi::OsString;

use clap::{ArgAction, CommandFactory, FromArgMatches, builder::ValueParser};
use outrigger_core::GoDuration;

/// How a program treats words that are not flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Go's `flag` package: the first such word ends parsing, the rest is ignored silently.
    GoFlag,
    /// pflag: such words are ignored, flags may follow.
    Pflag,
}

/// Parses the process's arguments; prints usage and exits with 2 on an error, with 0 after `-h`.
pub fn parse_or_exit<T: CommandFactory + FromArgMatches>(style: Style) -> T {
    match parse(style, std::env::args_os()) {
        Ok(args) => args,
        Err(error) => {
            // Upstream prints usage on stderr in both cases.
            eprintln!("{}", error.render());
            std::process::exit(if error.use_stderr() { 2 } else { 0 });
        }
    }
}

/// Parses `args`, whose first element is the program's name.
///
/// # Errors
/// clap's error, which also stands for a request for help.
pub fn parse<T: CommandFactory + FromArgMatches>(
    style: Style,
    args: impl IntoIterator<Item = OsString>,
) -> Result<T, clap::Error> {
    let rest = clap::Arg::new("ignored words")
        .num_args(0..)
        .hide(true)
        .trailing_var_arg(style == Style::GoFlag);
    let command = T::command().args_override_self(true).mut_args(as_go).arg(rest);
    let matches = command.try_get_matches_from(args.into_iter().enumerate().map(|(i, arg)| match i {
        0 => arg,
        _ => two_dashes(arg),
    }))?;
    T::from_arg_matches(&matches)
}

/// Booleans take a value only after `=`; other flags take the next word whatever it begins with.
fn as_go(arg: clap::Arg) -> clap::Arg {
    if arg.get_long().is_none() {
        return arg;
    }
    let switch = matches!(arg.get_action(), ArgAction::SetTrue);
    let boolean = switch || arg.get_value_parser().type_id() == std::any::TypeId::of::<bool>();
    if !boolean {
        return arg.allow_hyphen_values(true);
    }
    let no_default = arg.get_default_values().is_empty();
    let arg = arg
        .action(ArgAction::Set)
        .num_args(0..=1)
        .require_equals(true)
        .default_missing_value("true")
        .value_parser(ValueParser::new(boolean_value));
    // Without a default an optional boolean stays unset, a plain one is false.
    if switch && no_default {
        arg.default_value("false")
    } else {
        arg
    }
}

fn boolean_value(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err("expected true or false".to_owned()),
    }
}

/// Value parser for Go durations such as `1h30m`.
///
/// # Errors
/// Says what was found and what was expected.
pub fn duration(text: &str) -> Result<GoDuration, String> {
    GoDuration::parse(text).map_err(|error| error.to_string())
}

/// Prepends a dash to `-name` and `-name=value`, but not to `-h`, `--name` or numbers.
fn two_dashes(arg: OsString) -> OsString {
    match arg.to_str().map(str::as_bytes) {
        Some([b'-', first, _, ..]) if first.is_ascii_alphabetic() => {
            let mut longer = OsString::from("-");
            longer.push(arg);
            longer
        }
        _ => arg,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser, Debug)]
    struct Args {
        #[arg(long, default_value = "info")]
        log_level: String,
        #[arg(long)]
        log_as_json: bool,
        #[arg(long, default_value_t = true)]
        enable_metrics: bool,
        #[arg(long)]
        enable_api_logging: Option<bool>,
        #[arg(long, default_value_t = -1)]
        seconds: i64,
        #[arg(long, value_parser = duration, default_value = "0")]
        interval: GoDuration,
    }

    fn args(style: Style, words: &[&str]) -> Result<Args, clap::Error> {
        parse(
            style,
            std::iter::once("x").chain(words.iter().copied()).map(OsString::from),
        )
    }

    #[test]
    fn accepts_one_dash_and_two() {
        let parsed = args(
            Style::Pflag,
            &[
                "-log-level",
                "debug",
                "--log-as-json",
                "-enable-metrics=false",
                "-seconds",
                "-5",
            ],
        )
        .unwrap();
        assert_eq!(parsed.log_level, "debug");
        assert!(parsed.log_as_json && !parsed.enable_metrics);
        assert_eq!(parsed.enable_api_logging, None);
        assert_eq!(parsed.seconds, -5);
    }

    #[test]
    fn optional_booleans_have_three_states() {
        assert_eq!(
            args(Style::Pflag, &["--enable-api-logging"])
                .unwrap()
                .enable_api_logging,
            Some(true)
        );
        assert_eq!(
            args(Style::Pflag, &["--enable-api-logging=F"])
                .unwrap()
                .enable_api_logging,
            Some(false)
        );
    }

    #[test]
    fn last_of_a_repeated_flag_wins() {
        assert_eq!(
            args(Style::Pflag, &["-log-level=a", "-log-level=b"]).unwrap().log_level,
            "b"
        );
    }

    #[test]
    fn words_that_are_no_flags_are_ignored() {
        let parsed = args(Style::Pflag, &["--log-as-json", "true", "--log-level", "warn"]).unwrap();
        assert!(parsed.log_as_json && parsed.log_level == "warn");
        let parsed = args(Style::GoFlag, &["--log-as-json", "true", "--log-level", "warn"]).unwrap();
        assert!(
            parsed.log_as_json && parsed.log_level == "info",
            "parsing ends at the first word"
        );
    }

    #[test]
    fn bad_values_are_refused() {
        for words in [
            &["-seconds", "x"][..],
            &["-unknown"],
            &["-log-as-json=maybe"],
            &["-interval", "10"],
            &["-log-level"],
        ] {
            let error = args(Style::Pflag, words).unwrap_err();
            assert!(error.use_stderr() && error.exit_code() == 2, "{words:?}");
        }
        assert_eq!(
            args(Style::Pflag, &["-interval", "1h30m"])
                .unwrap()
                .interval
                .to_string(),
            "1h30m0s"
        );
    }
}
