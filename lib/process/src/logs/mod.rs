//! Logs in upstream's two shapes: logrus text, and JSON with the same keys.

mod output;

use std::{borrow::Cow, fmt, fs::OpenOptions, io};

use anyhow::Context;
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    EnvFilter, Layer,
    fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields, format::Writer},
    layer::SubscriberExt,
    registry::LookupSpan,
    util::SubscriberInitExt,
};

pub use output::Output;

/// Flags that every process has.
#[derive(clap::Args, Debug, Clone)]
pub struct LogArgs {
    /// Log level: debug, info, warn, error or fatal.
    #[arg(long, default_value = "info")]
    pub log_level: String,
    /// Write logs as JSON, an object a line.
    #[arg(long)]
    pub log_as_json: bool,
    /// Append logs to this file instead of writing them to stdout.
    #[arg(long)]
    pub log_file: Option<String>,
}

/// Who is logging.
#[derive(Debug, Clone)]
pub struct Service {
    /// Shown in the first line, for example `Dapr Operator`.
    pub title: &'static str,
    /// Value of `scope`, for example `dapr.operator`.
    pub scope: &'static str,
    /// Value of `app_id`; only sidecars have one.
    pub app_id: Option<String>,
}

/// Installs the logger of the process. What it returns is to be flushed at the end.
///
/// # Errors
/// An unknown level, a file that cannot be opened, or a second call.
pub fn init(service: &Service, args: &LogArgs) -> anyhow::Result<Output> {
    let level = match args.log_level.to_ascii_lowercase().as_str() {
        level @ ("debug" | "info" | "warn" | "error") => level.to_owned(),
        // There is no level above error here; what upstream calls fatal is logged as error before the exit.
        "fatal" => "error".to_owned(),
        other => anyhow::bail!("invalid value for --log-level: {other} (expected debug, info, warn, error or fatal)"),
    };
    // Other people's crates log connection trivia at info and debug, and kube's client and watches repeat errors that we report.
    let filter = EnvFilter::try_new(format!(
        "warn,kube_client=off,kube_runtime=off,{}",
        OWN.map(|name| format!("{name}={level}")).join(",")
    ))
    .context("log filter")?;
    let format = Format {
        json: args.log_as_json,
        scope: service.scope,
        app_id: service.app_id.clone(),
        instance: hostname(),
    };
    let output = match args.log_file.as_deref().filter(|path| !path.is_empty()) {
        None => Output::start(io::stdout()),
        Some(path) => {
            let file = OpenOptions::new().create(true).append(true).open(path);
            Output::start(file.with_context(|| format!("cannot open the log file {path}"))?)
        }
    }
    .context("cannot start the thread that writes logs")?;
    output::flush_on_panic(output.clone());
    let layer = tracing_subscriber::fmt::layer()
        .event_format(format)
        .with_ansi(false)
        .with_writer(output.clone())
        .with_filter(filter);
    tracing_subscriber::registry()
        .with(layer)
        .try_init()
        .context("logger")?;
    Ok(output)
}

/// Crates of this workspace, which log at the level asked for.
const OWN: [&str; 9] = [
    "outrigger_core",
    "outrigger_crds",
    "outrigger_identity",
    "outrigger_process",
    "outrigger_operator",
    "outrigger_injector",
    "outrigger_sentry",
    "outrigger_sidecar",
    "outrigger_e2e",
];

/// Name of the host, which is the pod's name in Kubernetes.
pub fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim().to_owned())
        .unwrap_or_default()
}

struct Format {
    json: bool,
    scope: &'static str,
    app_id: Option<String>,
    instance: String,
}

impl<S, N> FormatEvent<S, N> for Format
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, ctx: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        if let Some(scope) = ctx.event_scope() {
            for span in scope.from_root() {
                let extensions = span.extensions();
                if let Some(text) = extensions.get::<FormattedFields<N>>().filter(|text| !text.is_empty()) {
                    fields.pairs.push((span.name(), text.fields.clone().into()));
                }
            }
        }
        self.write(&mut writer, jiff::Timestamp::now(), *event.metadata().level(), fields)?;
        writer.write_char('\n')
    }
}

impl Format {
    /// A line without its end.
    fn write<'a>(
        &'a self,
        line: &mut impl fmt::Write,
        time: impl fmt::Display,
        level: Level,
        fields: Fields<'a>,
    ) -> fmt::Result {
        let level = match level {
            Level::ERROR => "error",
            // logrus spells it out.
            Level::WARN => "warning",
            Level::INFO => "info",
            Level::DEBUG | Level::TRACE => "debug",
        };
        let mut rest = fields.pairs;
        rest.extend(self.app_id.iter().map(|id| ("app_id", Cow::from(id))));
        rest.extend([
            ("instance", Cow::from(&self.instance)),
            ("scope", self.scope.into()),
            ("type", "log".into()),
            ("ver", crate::VERSION.into()),
        ]);
        rest.sort_unstable();
        if self.json {
            let fixed = [
                ("time", time.to_string()),
                ("level", level.into()),
                ("msg", fields.message),
            ];
            let object: serde_json::Map<String, serde_json::Value> = fixed
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value.into()))
                .chain(rest.into_iter().map(|(key, value)| (key.to_owned(), value.into())))
                .collect();
            return write!(line, "{}", serde_json::Value::Object(object));
        }
        write!(line, "time=\"{time}\" level={level} msg={:?}", fields.message)?;
        for (key, value) in rest {
            let plain = !value.is_empty()
                && value
                    .bytes()
                    .all(|c| c.is_ascii_alphanumeric() || b"-._/@^+".contains(&c));
            if plain {
                write!(line, " {key}={value}")?;
            } else {
                write!(line, " {key}={value:?}")?;
            }
        }
        Ok(())
    }
}

#[derive(Default)]
struct Fields<'a> {
    message: String,
    pairs: Vec<(&'static str, Cow<'a, str>)>,
}

impl Visit for Fields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record(field, value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record(field, format!("{value:?}"));
    }
}

impl Fields<'_> {
    fn record(&mut self, field: &Field, value: String) {
        match field.name() {
            "message" => self.message = value,
            // Fields of records that came through the `log` crate.
            name if name.starts_with("log.") => {}
            name => self.pairs.push((name, value.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(json: bool) -> String {
        let format = Format {
            json,
            scope: "dapr.operator",
            app_id: None,
            instance: "host".into(),
        };
        let fields = Fields {
            message: "it \"works\"".into(),
            pairs: vec![("namespace", "a b".into())],
        };
        let mut line = String::new();
        format
            .write(&mut line, "2026-05-01T10:00:00.123456789Z", Level::WARN, fields)
            .unwrap();
        line
    }

    #[test]
    fn text_is_logrus_text() {
        let expected = format!(
            "time=\"2026-05-01T10:00:00.123456789Z\" level=warning msg=\"it \\\"works\\\"\" instance=host namespace=\"a b\" \
             scope=dapr.operator type=log ver={}",
            crate::VERSION
        );
        assert_eq!(line(false), expected);
    }

    #[test]
    fn json_has_the_same_keys() {
        let value: serde_json::Value = serde_json::from_str(&line(true)).unwrap();
        assert_eq!(value["level"], "warning");
        assert_eq!(value["msg"], "it \"works\"");
        assert_eq!(value["scope"], "dapr.operator");
        assert_eq!(value["namespace"], "a b");
    }
}
