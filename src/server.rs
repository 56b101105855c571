//! The life of the service: builds the parts, starts the named tasks, drains
//! them. The only place that knows everybody.

use std::{
    io,
    net::SocketAddr,
    path::Path,
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::{JoinError, JoinHandle},
    time::{interval, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tower::BoxError;

use crate::{
    audit::Audit,
    auth::{AuthFileError, Authenticator},
    backoff::jittered,
    budget::{Budgets, CONNECTION_BYTES, DoesNotFit},
    cache::{Cache, Clock, Fatal, Phase, Settings},
    config::{Config, auth_warning},
    grpc::{
        self, Access,
        health::HealthState,
        transport::{Limits, Port, SpareFiles, Tls},
    },
    origin::{Cause, ConnectError, Origin, embedded::Embedded, mongo::MongoDb},
    telemetry::{self, Kind, Metrics},
    tier::{
        redis::{self, MacKeyError, RedisOptions, RedisTier},
        shared::Shared,
    },
    tls::TlsError,
};

/// How often health and gauges are brought up to date: a probe a second later
/// sees what is.
const HEALTH_INTERVAL: Duration = Duration::from_millis(100);
/// Longest time that the start waits for Redis, so that the first reads use it.
const SHARED_WAIT: Duration = Duration::from_secs(1);
/// Connections at once to each of the ports for metrics and health: a few
/// scrapers and probes.
const MAX_SIDE_CONNECTIONS: usize = 64;
/// Longest pause before the database is tried again at start.
const CONNECT_PAUSE: Duration = Duration::from_secs(1);

/// Why the service could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The budgets do not fit into the memory limit.
    #[error(transparent)]
    Memory(#[from] DoesNotFit),
    /// A port cannot be listened on.
    #[error("{setting} {address} cannot be used: {source}; {}", bind_advice(.source))]
    Bind {
        /// The setting that names it.
        setting: &'static str,
        /// The setting's value.
        address: SocketAddr,
        /// What the system reports.
        source: io::Error,
    },
    /// The system does not tell the address of a bound port.
    #[error("a port cannot be used: {0}")]
    Address(#[source] io::Error),
    /// The files for TLS cannot be used.
    #[error("{0}")]
    Tls(#[source] TlsError),
    /// A file of keys cannot be used.
    #[error(transparent)]
    Auth(#[from] AuthFileError),
    /// The audit log cannot be opened.
    #[error("audit-log: {0}")]
    Audit(#[source] io::Error),
    /// The key for hashes of shared entries cannot be used.
    #[error("redis-mac-key-file: {0}")]
    MacKey(#[source] MacKeyError),
    /// The URL of Redis, or its TLS files, cannot be used.
    #[error("{0}")]
    Redis(#[source] redis::ConnectError),
    /// The database cannot be used, and waiting does not help.
    #[error("{0}")]
    Origin(#[source] Cause),
    /// This replica cannot keep up with the database.
    #[error(transparent)]
    Fatal(#[from] Fatal),
    /// The gRPC server could not start or go on.
    #[error("the gRPC server ended: {0}")]
    ServerFailed(#[source] BoxError),
    /// The gRPC server ended without being asked to.
    #[error("the gRPC server ended")]
    ServerStopped,
    /// A task without which the service cannot live panicked.
    #[error("a task of the service ended: {0}")]
    Panicked(#[source] JoinError),
}

/// What to do about a port that cannot be listened on.
fn bind_advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrNotAvailable => {
            "choose an address of this machine, or 0.0.0.0 or [::] for all of them"
        }
        io::ErrorKind::PermissionDenied => "choose a port above 1023",
        _ => "choose another port, or 0 for any",
    }
}

/// Where the service listens.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// gRPC.
    pub grpc: SocketAddr,
    /// gRPC is served with TLS.
    pub tls: bool,
    /// Metrics; `None`: not served.
    pub metrics: Option<SocketAddr>,
    /// Health alone, without TLS; `None`: not served.
    pub health: Option<SocketAddr>,
}

/// A step of the start that a caller may want to report.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// All sockets are bound. Calls are accepted, but may wait for the start.
    Listening(&'a Addresses),
    /// Readiness is SERVING for the first time.
    Ready(&'a Addresses),
}

/// Runs the service until SIGTERM or SIGINT, and drains it. `on_event` is
/// called once for each [`Event`].
///
/// # Errors
/// Why it could not start or go on: for a person, and exit code 1.
pub async fn run(
    config: Config,
    on_event: impl Fn(Event<'_>) + Send + Sync + 'static,
) -> Result<(), RunError> {
    let signalled = shutdown_signal();
    let metrics = Arc::new(Metrics::default());
    install_panic_hook(Arc::clone(&metrics));
    raise_open_files();
    let plan = config.memory_plan()?;
    let budgets = Budgets::new(plan, config.max_origin_loads);
    let spare = SpareFiles::new();
    let (listeners, addresses) = bind_all(&config)?;
    let tls = load_tls(&config)?;
    let access = load_access(&config, &metrics)?;
    if let Some(listener) = listeners.metrics {
        let port = side_port("metrics", listener, &spare);
        let router = telemetry::metrics_router(metrics.registry());
        let (budgets, metrics) = (Arc::clone(&budgets), Arc::clone(&metrics));
        tokio::spawn(grpc::serve_metrics(port, router, budgets, metrics));
    }
    let shutdown = CancellationToken::new();
    let cell = Arc::new(OnceLock::new());
    let (health, told) = watch::channel(HealthState::default());
    if let Some(listener) = listeners.health {
        let port = side_port("health", listener, &spare);
        let (told, shutdown) = (told.clone(), shutdown.clone());
        let (budgets, metrics) = (Arc::clone(&budgets), Arc::clone(&metrics));
        tokio::spawn(grpc::serve_health(port, told, budgets, metrics, shutdown));
    }
    let port = grpc_port(&config, listeners.grpc, tls, &budgets);
    let parts = grpc::Parts {
        port,
        budgets: Arc::clone(&budgets),
        cache: Arc::clone(&cell),
        health: told,
        metrics: Arc::clone(&metrics),
        access,
        web: config.cors_allow_origins.clone(),
        ui: config.ui.is_on(config.listen),
        shutdown: shutdown.clone(),
    };
    let mut server = tokio::spawn(grpc::serve(parts));
    let mut keeping_up = tokio::spawn(keep_up(
        config.clone(),
        Arc::clone(&cell),
        Arc::clone(&metrics),
        Arc::clone(&budgets),
    ));
    let reporting = tokio::spawn(report_health(
        config.clone(),
        (Arc::clone(&budgets), Arc::clone(&metrics)),
        Arc::clone(&cell),
        health.clone(),
        shutdown.clone(),
    ));
    on_event(Event::Listening(&addresses));
    tokio::spawn(report_ready(health.subscribe(), addresses, on_event));
    let ended = tokio::select! {
        ended = &mut server => Err(server_ended(ended).err().unwrap_or(RunError::ServerStopped)),
        ended = &mut keeping_up => Err(ended.unwrap_or_else(|panic| keep_up_panicked(panic, &metrics))),
        () = signalled => Ok(()),
    };
    reporting.abort();
    health.send_modify(|health| health.ready = false);
    ended?;
    tracing::info!("draining");
    shutdown.cancel();
    drain(cell.get(), server, config.drain_timeout).await
}

async fn report_ready(
    mut health: watch::Receiver<HealthState>,
    addresses: Addresses,
    on_event: impl Fn(Event<'_>) + Send + Sync + 'static,
) {
    if health.wait_for(|health| health.ready).await.is_ok() {
        on_event(Event::Ready(&addresses));
    }
}

struct Listeners {
    grpc: TcpListener,
    metrics: Option<TcpListener>,
    health: Option<TcpListener>,
}

fn bind_all(config: &Config) -> Result<(Listeners, Addresses), RunError> {
    let listeners = Listeners {
        grpc: bind(config.listen, "listen")?,
        metrics: bind_if(config.metrics_listen, "metrics-listen")?,
        health: bind_if(config.health_listen, "health-listen")?,
    };
    let addresses = Addresses {
        grpc: address(&listeners.grpc)?,
        tls: config.tls.is_some(),
        metrics: listeners.metrics.as_ref().map(address).transpose()?,
        health: listeners.health.as_ref().map(address).transpose()?,
    };
    Ok((listeners, addresses))
}

fn load_tls(config: &Config) -> Result<Option<Tls>, RunError> {
    let Some(files) = &config.tls else {
        return Ok(None);
    };
    Tls::load(files.clone()).map(Some).map_err(RunError::Tls)
}

/// Reads the files that callers are authenticated with, and follows them. Says
/// what an operator should know.
fn load_access(config: &Config, metrics: &Arc<Metrics>) -> Result<Access, RunError> {
    let (is_open, warning) = auth_warning(config);
    metrics.auth_off.set(i64::from(is_open));
    if let Some(warning) = warning {
        tracing::warn!(listen = %config.listen, "{warning}");
    }
    let authenticator = Authenticator::load(&config.auth, Arc::clone(metrics))?;
    if let Some(authenticator) = &authenticator {
        tokio::spawn(Arc::clone(authenticator).follow());
    }
    let audit = config.audit_log.as_ref();
    let audit = audit.map(|target| Audit::open(target, Arc::clone(metrics)));
    Ok(Access {
        audit: audit.transpose().map_err(RunError::Audit)?,
        authenticator,
        reflection: config.reflection,
    })
}

fn grpc_port(
    config: &Config,
    listener: TcpListener,
    tls: Option<Tls>,
    budgets: &Arc<Budgets>,
) -> Port {
    let (all, one) = (config.max_connections, config.max_connections_per_address);
    Port {
        name: "gRPC",
        listener,
        limits: Limits::new(all, one, tls.is_some(), budgets),
        tls,
        max_age: config.max_connection_age,
        spare: None,
    }
}

/// Every panic, of whatever task, is an error in the log and a metric. Whether
/// the service can live without the task is decided where it is waited for.
fn install_panic_hook(metrics: Arc<Metrics>) {
    std::panic::set_hook(Box::new(move |panic| {
        metrics.panics.inc();
        let location = panic
            .location()
            .map(ToString::to_string)
            .unwrap_or_default();
        let text = panic.payload_as_str().unwrap_or_default();
        tracing::error!(location, text, "a panic: this is a bug of the service");
    }));
}

/// Each client and each watcher is an open file: as many as the system allows,
/// and not the 1024 that a shell begins with.
fn raise_open_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};

    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(problem) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%problem, "the limit of open files stays as it is");
    }
}

/// A port for metrics or health: few connections, no age, and it answers
/// whatever callers use up.
fn side_port(name: &'static str, listener: TcpListener, spare: &Arc<SpareFiles>) -> Port {
    Port {
        name,
        listener,
        limits: Limits {
            connections: MAX_SIDE_CONNECTIONS,
            per_address: MAX_SIDE_CONNECTIONS / 2,
            bytes_each: CONNECTION_BYTES,
        },
        tls: None,
        max_age: None,
        spare: Some(Arc::clone(spare)),
    }
}

fn bind(address: SocketAddr, setting: &'static str) -> Result<TcpListener, RunError> {
    grpc::transport::bind(address).map_err(|source| RunError::Bind {
        setting,
        address,
        source,
    })
}

fn bind_if(
    address: Option<SocketAddr>,
    setting: &'static str,
) -> Result<Option<TcpListener>, RunError> {
    match address {
        Some(address) => bind(address, setting).map(Some),
        None => Ok(None),
    }
}

fn address(listener: &TcpListener) -> Result<SocketAddr, RunError> {
    listener.local_addr().map_err(RunError::Address)
}

/// Completes at SIGTERM or SIGINT. Registered when called, so that a signal during
/// the start is not lost to the default action, which ends the process without a drain.
fn shutdown_signal() -> impl Future<Output = ()> {
    let signals = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    );
    async move {
        let (Ok(mut term), Ok(mut int)) = signals else {
            return std::future::pending().await;
        };
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    }
}

fn keep_up_panicked(panic: JoinError, metrics: &Metrics) -> RunError {
    let kind = Kind { kind: "keep_up" };
    metrics.task_panics.get_or_create(&kind).inc();
    RunError::Panicked(panic)
}

fn server_ended(ended: Result<Result<(), BoxError>, JoinError>) -> Result<(), RunError> {
    ended
        .map_err(RunError::Panicked)?
        .map_err(RunError::ServerFailed)
}

/// Reaches the origin, then keeps up with it for as long as the process lives.
async fn keep_up(
    config: Config,
    cell: Arc<OnceLock<Arc<Cache>>>,
    metrics: Arc<Metrics>,
    budgets: Arc<Budgets>,
) -> RunError {
    // It connects while the origin is opened.
    let shared = match shared_tier(&config, &metrics, &budgets) {
        Ok(shared) => shared,
        Err(error) => return error,
    };
    let origin = loop {
        match open_origin(&config).await {
            Ok(origin) => break origin,
            Err(ConnectError::Permanent(cause)) => return RunError::Origin(cause),
            Err(ConnectError::Transient(problem)) => {
                tracing::warn!(%problem, "the database cannot be reached yet");
                sleep(jittered(CONNECT_PAUSE)).await;
            }
        }
    };
    let shared = match shared {
        Some(shared) => {
            if !shared.wait_ready(SHARED_WAIT).await {
                tracing::info!("Redis does not answer yet; reads continue without it");
            }
            Some(shared as Arc<dyn Shared>)
        }
        None => None,
    };
    let cache = Cache::new(
        settings(&config),
        Clock::Boottime,
        origin,
        shared,
        metrics,
        budgets,
    );
    let mut phase = cache.phase();
    let running = tokio::spawn(Arc::clone(&cache).run());
    let started = async {
        let _ = phase.wait_for(|phase| *phase >= Phase::Started).await;
        let _ = cell.set(cache);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        ended = running => ended.map_or_else(RunError::Panicked, RunError::Fatal),
        () = started => unreachable!("it never ends"),
    }
}

/// The shared tier that the settings name. Connects in the background.
pub(crate) fn shared_tier(
    config: &Config,
    metrics: &Arc<Metrics>,
    budgets: &Arc<Budgets>,
) -> Result<Option<Arc<RedisTier>>, RunError> {
    let Some(url) = &config.redis_url else {
        return Ok(None);
    };
    let options = RedisOptions {
        tls: config.redis_tls.clone(),
        mac_key_file: config.redis_mac_key_file.clone(),
        budgets: Arc::clone(budgets),
    };
    match RedisTier::connect_with(&url.0, options, Arc::clone(metrics)) {
        Ok(tier) => Ok(Some(Arc::new(tier))),
        Err(redis::ConnectError::MacKey(error)) => Err(RunError::MacKey(error)),
        Err(error) => Err(RunError::Redis(error)),
    }
}

/// Opens the origin that the settings name.
///
/// # Errors
/// `Transient`: trying again may help.
pub async fn open_origin(config: &Config) -> Result<Arc<dyn Origin>, ConnectError> {
    match &config.mongodb_uri {
        Some(uri) => {
            let origin =
                MongoDb::connect(&uri.0, config.cache_epoch, config.max_origin_loads).await?;
            Ok(Arc::new(origin))
        }
        None => open_embedded(&config.data_dir, config.cache_epoch),
    }
}

fn open_embedded(dir: &Path, cache_epoch: u64) -> Result<Arc<dyn Origin>, ConnectError> {
    let opened = Embedded::open(dir, cache_epoch);
    opened
        .map(|origin| Arc::new(origin) as Arc<dyn Origin>)
        .map_err(|error| ConnectError::permanent(Cause::from_error(error, None)))
}

fn settings(config: &Config) -> Settings {
    Settings {
        near_capacity: config.near_capacity,
        staleness_limit: config.staleness_limit,
        heartbeat_interval: config.heartbeat_interval,
        replay_window: config.replay_window,
        list_grace: config.list_grace,
        stale_if_error: config.stale_if_error,
        max_origin_loads: config.max_origin_loads,
        verify_one_in: config.verify_one_in,
    }
}

/// Keeps health and gauges up to date.
async fn report_health(
    config: Config,
    (budgets, metrics): (Arc<Budgets>, Arc<Metrics>),
    cell: Arc<OnceLock<Arc<Cache>>>,
    health: watch::Sender<HealthState>,
    shutdown: CancellationToken,
) {
    let mut tick = interval(HEALTH_INTERVAL);
    while !shutdown.is_cancelled() {
        tick.tick().await;
        metrics.measure_budgets(&budgets);
        let Some(cache) = cell.get() else { continue };
        cache.measure();
        let now = state(cache, &config);
        health.send_if_modified(|told| std::mem::replace(told, now) != now);
    }
}

fn state(cache: &Cache, config: &Config) -> HealthState {
    let started = *cache.phase().borrow() == Phase::CaughtUp;
    let within = |age: Option<Duration>| age.is_some_and(|age| age <= config.staleness_limit);
    HealthState {
        ready: started && (within(cache.age()) || config.stale_if_error.is_some()),
        started,
        origin: cache.origin_is_up(),
        shared: cache.shared_is_up().unwrap_or(true),
        feed: within(cache.frontier_bound()),
    }
}

/// Waits until calls and writes under way are finished, but no longer than the
/// drain timeout.
async fn drain(
    cache: Option<&Arc<Cache>>,
    server: JoinHandle<Result<(), BoxError>>,
    limit: Duration,
) -> Result<(), RunError> {
    let all = async {
        if let Some(cache) = cache {
            cache.drain().await;
        }
        server.await
    };
    match timeout(limit, all).await {
        Ok(ended) => server_ended(ended),
        Err(_) => {
            tracing::warn!(
                ?limit,
                "calls were still under way when the drain timeout passed"
            );
            Ok(())
        }
    }
}
