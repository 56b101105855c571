//! `tidemark serve`: runs the service.

use std::{collections::HashMap, io::Write as _, path::PathBuf, process::ExitCode};

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::output::{self, note};
use crate::{
    auth::AuthSettings,
    config::{Config, ConfigErrors, SETTINGS, Values, display_url, environment, variable},
    server::{self, Addresses, Event},
    telemetry::{self, LogFormat},
};

/// The arguments of `serve`.
#[derive(clap::Args)]
#[command(
    after_help = "Every flag has an environment variable (--list-grace, TIDEMARK_LIST_GRACE) and a key in \
the file.\n\nExamples:\n  tidemark serve\n  tidemark serve --mongodb-uri mongodb://localhost/?replicaSet=rs0 \
--redis-url redis-cluster://localhost:7000\n  tidemark serve --config tidemark.toml --print-config"
)]
pub struct Args {
    /// TOML file with settings; flags and environment variables override it
    #[arg(long, value_name = "FILE", env = "TIDEMARK_CONFIG")]
    config: Option<PathBuf>,
    /// Print the settings in force as a config file, each with its source, and exit
    #[arg(long)]
    print_config: bool,
    #[command(flatten)]
    settings: SettingArgs,
}

/// A flag for each setting of the table.
pub struct SettingArgs(HashMap<String, String>);

impl clap::Args for SettingArgs {
    fn augment_args(command: Command) -> Command {
        SETTINGS.iter().fold(command, |command, setting| {
            let default = if setting.default.is_empty() {
                String::new()
            } else {
                format!(" [default: {}]", setting.default)
            };
            let help = format!(
                "{}{default} [env: {}]",
                setting.help,
                variable(setting.name)
            );
            let action = if setting.is_list {
                ArgAction::Append
            } else {
                ArgAction::Set
            };
            command.arg(
                Arg::new(setting.name)
                    .long(setting.name)
                    .value_name("VALUE")
                    .action(action)
                    .help(help),
            )
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for SettingArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = |name: &str| {
            let values: Vec<_> = matches.get_many::<String>(name)?.cloned().collect();
            Some((name.to_owned(), values.join(",")))
        };
        Ok(Self(
            SETTINGS
                .iter()
                .filter_map(|setting| given(setting.name))
                .collect(),
        ))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args {
    /// The settings in force.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn config(&self) -> Result<Config, ConfigErrors> {
        self.values()?.parse()
    }

    fn values(&self) -> Result<Values, ConfigErrors> {
        Values::gather(&self.settings.0, &environment()?, self.config.as_deref())
    }
}

/// Runs the service until SIGTERM, SIGINT or SIGHUP.
pub async fn run(args: Args) -> ExitCode {
    let config = args.values().and_then(|values| {
        if args.print_config {
            output::print(values.print().trim_end());
        }
        values.parse()
    });
    let config: Config = match config {
        Ok(config) => config,
        Err(errors) => {
            note(&format!("error: wrong settings\n{errors}"));
            return ExitCode::from(2);
        }
    };
    if args.print_config {
        if let Ok(plan) = config.memory_plan() {
            output::print(plan.to_string().trim_end());
        }
        return ExitCode::SUCCESS;
    }
    let _telemetry = telemetry::init(config.log_format);
    let stores = Stores::of(&config);
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        revision = telemetry::REVISION,
        store = stores.store,
        shared_cache = stores.shared,
        "tidemark starts"
    );
    // With JSON asked for, all output is JSON on one stream: a log collector reads
    // each line.
    let json = config.log_format == LogFormat::Json;
    let auth = config.auth.clone();
    let report = move |event: Event<'_>| match event {
        event if json => log_event(&event),
        Event::Listening(addresses) => print_addresses(addresses, &stores),
        Event::Ready(addresses) => print_examples(addresses, &auth),
    };
    match server::run(config, report).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(fatal) => {
            tracing::error!(%fatal, "the service ends");
            if !json {
                telemetry::print_line(&format!("error: {fatal}"));
            }
            ExitCode::FAILURE
        }
    }
}

/// Where the data is, without secrets.
struct Stores {
    store: String,
    shared: String,
}

impl Stores {
    fn of(config: &Config) -> Self {
        let store = match &config.mongodb_uri {
            Some(uri) => {
                let shown = display_url(&uri.0);
                format!("MongoDB {shown}, database {}", config.database())
            }
            None => format!("embedded, in {}", config.data_dir.display()),
        };
        let shared = match &config.redis_url {
            Some(url) => format!("Redis {}", display_url(&url.0)),
            None => "none".into(),
        };
        Self { store, shared }
    }
}

fn log_event(event: &Event<'_>) {
    if let Event::Listening(addresses) = event {
        tracing::info!(
            grpc = %addresses.grpc,
            tls = addresses.tls,
            metrics = addresses.metrics.map(tracing::field::display),
            health = addresses.health.map(tracing::field::display),
            "tidemark listens"
        );
    }
}

/// Prints where the service listens.
fn print_addresses(addresses: &Addresses, stores: &Stores) {
    let Addresses {
        grpc,
        tls,
        metrics,
        health,
    } = addresses;
    let scheme = if *tls { "https" } else { "http" };
    let mut text = format!("tidemark listens on {scheme}://{grpc}\n");
    match metrics {
        Some(metrics) => text += &format!("metrics on http://{metrics}/metrics\n"),
        None => text += "metrics are off\n",
    }
    if let Some(health) = health {
        text += &format!("health alone on http://{health}\n");
    }
    let Stores { store, shared } = stores;
    text += &format!("store: {store}\nshared cache: {shared}\n");
    print(&text);
}

/// Prints calls to paste. Printed once the service is ready, so that they work
/// at once.
fn print_examples(addresses: &Addresses, auth: &AuthSettings) {
    let Addresses { grpc, tls, .. } = addresses;
    let mut grpcurl = String::from("grpcurl ");
    grpcurl += if *tls { "-cacert ca.pem" } else { "-plaintext" };
    let mut text = String::from("\nTry it:\n");
    if auth.accepts_headers() {
        text = String::from("\nTry it, with an API key or a token in the variable KEY:\n");
        grpcurl += " -H \"authorization: Bearer $KEY\"";
    } else if auth.mtls {
        grpcurl += " -cert client.pem -key client.key";
    }
    if auth.is_on() {
        // Its creator may write it.
        text += &format!(
            "  {grpcurl} -d '{{\"todo_list_id\": \"home\"}}' {grpc} todo.v1.TodoService/CreateTodoList\n"
        );
    }
    text += &format!(
        r#"  {grpcurl} -d '{{"parent": "lists/home", "todo_id": "milk", "todo": {{"title": "Buy milk"}}}}' {grpc} todo.v1.TodoService/CreateTodo
  {grpcurl} -d '{{"name": "lists/home/todos/milk", "consistency": {{"fully_consistent": true}}}}' {grpc} todo.v1.TodoService/GetTodo
  {grpcurl} -d '{{"parent": "lists/home"}}' {grpc} todo.v1.TodoService/ListTodos
"#
    );
    print(&text);
}

fn print(text: &str) {
    // A closed stdout must not end the service.
    let _ = std::io::stdout()
        .write_all(text.as_bytes())
        .and_then(|()| std::io::stdout().flush());
}
