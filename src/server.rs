//! The life of the service: [`run`] builds the parts, starts their tasks and drains
//! them. `ports.rs` binds, `process.rs` has signals and panics.

mod error;
mod ports;
mod process;

use std::{
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::{
    sync::watch,
    task::{JoinError, JoinHandle},
    time::{interval, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tower::BoxError;

pub use self::error::RunError;
use self::ports::{Listeners, grpc_port, side_port};
use crate::{
    audit::Audit,
    auth::Authenticator,
    backoff::jittered,
    budget::Budgets,
    cache::{Cache, Clock, Fatal, Phase, Settings},
    config::{Config, auth_warning},
    grpc::{
        self, Access,
        health::HealthState,
        transport::{Port, SpareFiles},
    },
    origin::{Cause, ConnectError, Origin, embedded::Embedded, mongo::MongoDb},
    telemetry::{self, Kind, Metrics},
    tier::{
        redis::{self, RedisOptions, RedisTier},
        shared::Shared,
    },
};

/// How often health and gauges are updated.
const HEALTH_INTERVAL: Duration = Duration::from_millis(100);
/// Longest time that the start waits for Redis, so that the first reads use it.
const SHARED_WAIT: Duration = Duration::from_secs(1);
/// Longest pause before the database is tried again at start.
const CONNECT_PAUSE: Duration = Duration::from_secs(1);

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

/// Runs the service until SIGTERM, SIGINT or SIGHUP, and drains it. `on_event` is
/// called once for each [`Event`].
///
/// # Errors
/// Why it could not start or continue: a text for people. The process then ends with
/// exit code 1.
pub async fn run(
    config: Config,
    on_event: impl Fn(Event<'_>) + Send + Sync + 'static,
) -> Result<(), RunError> {
    let signalled = process::shutdown_signal();
    process::raise_open_files();
    let service = Service::new(config)?;
    let spare = SpareFiles::new();
    let listeners = Listeners::bind(&service.config)?;
    let addresses = listeners.addresses(service.config.tls.is_some())?;
    let port = grpc_port(&service.config, listeners.grpc, &service.budgets)?;
    let access = service.load_access()?;
    if let Some(listener) = listeners.metrics {
        service.serve_metrics(side_port("metrics", listener, &spare));
    }
    if let Some(listener) = listeners.health {
        service.serve_health(side_port("health", listener, &spare));
    }
    let mut server = service.serve_grpc(port, access);
    let mut cache = tokio::spawn(service.clone().run_cache());
    let reporting = tokio::spawn(service.clone().report_health());
    on_event(Event::Listening(&addresses));
    tokio::spawn(report_ready(
        service.health.subscribe(),
        addresses,
        on_event,
    ));
    let ended = tokio::select! {
        ended = &mut server => Err(server_ended(ended).err().unwrap_or(RunError::ServerStopped)),
        ended = &mut cache => Err(ended.unwrap_or_else(|panic| service.cache_panicked(panic))),
        signal = signalled => Ok(signal),
    };
    reporting.abort();
    service.health.send_modify(|health| health.ready = false);
    let signal = ended?;
    tracing::info!(signal, "draining");
    service.drain(server).await
}

/// What the tasks of the service share.
#[derive(Clone)]
struct Service {
    config: Arc<Config>,
    budgets: Arc<Budgets>,
    metrics: Arc<Metrics>,
    /// Set once the database is reached and its feed is open.
    cache: Arc<OnceLock<Arc<Cache>>>,
    health: watch::Sender<HealthState>,
    /// No new connections and calls; those under way are finished.
    shutdown: CancellationToken,
}

impl Service {
    fn new(config: Config) -> Result<Self, RunError> {
        let metrics = Arc::new(Metrics::default());
        process::install_panic_hook(Arc::clone(&metrics));
        Ok(Self {
            budgets: Budgets::new(config.memory_plan()?, config.max_origin_loads),
            config: Arc::new(config),
            metrics,
            cache: Arc::default(),
            health: watch::Sender::default(),
            shutdown: CancellationToken::new(),
        })
    }

    /// Reads the files that callers are authenticated with, follows their changes, and
    /// warns if anybody may call.
    fn load_access(&self) -> Result<Access, RunError> {
        let (config, metrics) = (&self.config, &self.metrics);
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

    fn serve_metrics(&self, port: Port) {
        let router = telemetry::metrics_router(self.metrics.registry());
        let (budgets, metrics) = (Arc::clone(&self.budgets), Arc::clone(&self.metrics));
        tokio::spawn(grpc::serve_metrics(port, router, budgets, metrics));
    }

    fn serve_health(&self, port: Port) {
        let (health, shutdown) = (self.health.subscribe(), self.shutdown.clone());
        let (budgets, metrics) = (Arc::clone(&self.budgets), Arc::clone(&self.metrics));
        tokio::spawn(grpc::serve_health(port, health, budgets, metrics, shutdown));
    }

    fn serve_grpc(&self, port: Port, access: Access) -> JoinHandle<Result<(), BoxError>> {
        tokio::spawn(grpc::serve(grpc::Parts {
            port,
            budgets: Arc::clone(&self.budgets),
            cache: Arc::clone(&self.cache),
            health: self.health.subscribe(),
            metrics: Arc::clone(&self.metrics),
            access,
            web: self.config.cors_allow_origins.clone(),
            ui: self.config.ui.is_on(self.config.listen),
            shutdown: self.shutdown.clone(),
        }))
    }

    /// Connects to the database, then runs the cache for as long as the process lives.
    async fn run_cache(self) -> RunError {
        let cache = match self.build_cache().await {
            Ok(cache) => cache,
            Err(error) => return error,
        };
        let mut phase = cache.phase();
        let mut running = tokio::spawn(Arc::clone(&cache).run());
        tokio::select! {
            ended = &mut running => return cache_ended(ended),
            _ = phase.wait_for(|phase| *phase >= Phase::Started) => {}
        }
        let _ = self.cache.set(cache);
        cache_ended(running.await)
    }

    async fn build_cache(&self) -> Result<Arc<Cache>, RunError> {
        // Redis connects while the database is opened.
        let redis = shared_tier(&self.config, &self.metrics, &self.budgets)?;
        let origin = connect_origin(&self.config).await?;
        if let Some(redis) = &redis
            && !redis.wait_ready(SHARED_WAIT).await
        {
            tracing::info!("Redis does not answer yet; reads continue without it");
        }
        Ok(Cache::new(
            settings(&self.config),
            Clock::Boottime,
            origin,
            redis.map(|redis| redis as Arc<dyn Shared>),
            Arc::clone(&self.metrics),
            Arc::clone(&self.budgets),
        ))
    }

    fn cache_panicked(&self, panic: JoinError) -> RunError {
        let kind = Kind { kind: "keep_up" };
        self.metrics.task_panics.get_or_create(&kind).inc();
        RunError::Panicked(panic)
    }

    /// Updates health and gauges until the shutdown.
    async fn report_health(self) {
        let mut tick = interval(HEALTH_INTERVAL);
        while !self.shutdown.is_cancelled() {
            tick.tick().await;
            self.metrics.measure_budgets(&self.budgets);
            let Some(cache) = self.cache.get() else {
                continue;
            };
            cache.measure();
            let now = health_state(cache, &self.config);
            self.health
                .send_if_modified(|reported| std::mem::replace(reported, now) != now);
        }
    }

    /// Waits until calls and writes under way are finished, but no longer than the
    /// drain timeout.
    async fn drain(self, server: JoinHandle<Result<(), BoxError>>) -> Result<(), RunError> {
        self.shutdown.cancel();
        let all = async {
            if let Some(cache) = self.cache.get() {
                cache.drain().await;
            }
            server.await
        };
        let limit = self.config.drain_timeout;
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

fn health_state(cache: &Cache, config: &Config) -> HealthState {
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

fn server_ended(ended: Result<Result<(), BoxError>, JoinError>) -> Result<(), RunError> {
    ended
        .map_err(RunError::Panicked)?
        .map_err(RunError::ServerFailed)
}

fn cache_ended(ended: Result<Fatal, JoinError>) -> RunError {
    ended.map_or_else(RunError::Panicked, RunError::Fatal)
}

/// Tries until the database answers, or until waiting does not help.
async fn connect_origin(config: &Config) -> Result<Arc<dyn Origin>, RunError> {
    loop {
        match open_origin(config).await {
            Ok(origin) => return Ok(origin),
            Err(ConnectError::Permanent(cause)) => return Err(RunError::Origin(cause)),
            Err(ConnectError::Transient(problem)) => {
                tracing::warn!(%problem, "the database cannot be reached yet");
                sleep(jittered(CONNECT_PAUSE)).await;
            }
        }
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
    let Some(uri) = &config.mongodb_uri else {
        let origin = Embedded::open(&config.data_dir, config.cache_epoch)
            .map_err(|error| ConnectError::permanent(Cause::from_error(error, None)))?;
        return Ok(Arc::new(origin));
    };
    let origin = MongoDb::connect(&uri.0, config.cache_epoch, config.max_origin_loads).await?;
    Ok(Arc::new(origin))
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
