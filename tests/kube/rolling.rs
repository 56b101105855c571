//! Replaces three replicas one after the other, as a Deployment does, under the
//! load of clients that balance as gRPC does with the published service config:
//! round robin over the ready replicas. On UNAVAILABLE they retry on another
//! replica: reads by the policy of the config, writes as the programs in
//! `clients/` do, because such a write had no effect.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tidemark::{
    grpc::client::todo_service_client::TodoServiceClient,
    pb::{self, consistency::Requirement},
};
use tokio::time::sleep;
use tonic::{Code, Status, transport::Channel};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_types::StatusExt as _;

use crate::support::{Tidemark, eventually, free_port, mongo, redis_cluster};

type Client = TodoServiceClient<Channel>;

const REPLICAS: usize = 3;
const CALLERS: usize = 6;
/// `maxAttempts` and `initialBackoff` of the service config.
const ATTEMPTS: usize = 4;
const BACKOFF: Duration = Duration::from_millis(50);
/// preStop: longer than callers need to learn that a replica is terminating.
const PRE_STOP: Duration = Duration::from_secs(1);
const LIMIT: Duration = Duration::from_secs(120);

/// A replica from the view of a balancer: its connection and its readiness.
struct Endpoint {
    port: u16,
    client: Client,
    ready: AtomicBool,
    answered: AtomicU64,
}

impl Endpoint {
    fn new(port: u16) -> Self {
        let channel = Channel::from_shared(format!("http://127.0.0.1:{port}")).expect("an address");
        let client = TodoServiceClient::new(channel.connect_lazy());
        Self {
            port,
            client,
            ready: AtomicBool::new(false),
            answered: AtomicU64::new(0),
        }
    }

    /// Watches health on a separate connection, as gRPC's health checking does.
    async fn follow_health(&self) {
        loop {
            let _ = self.watch_health().await;
            self.ready.store(false, Ordering::Relaxed);
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn watch_health(&self) -> Result<(), Status> {
        let address = format!("http://127.0.0.1:{}", self.port);
        let channel = Channel::from_shared(address)
            .expect("an address")
            .connect()
            .await;
        let mut health =
            HealthClient::new(channel.map_err(|e| Status::unavailable(e.to_string()))?);
        let request = HealthCheckRequest {
            service: "todo.v1.TodoService".into(),
        };
        let mut updates = health.watch(request).await?.into_inner();
        while let Some(update) = updates.message().await? {
            self.ready
                .store(update.status() == ServingStatus::Serving, Ordering::Relaxed);
        }
        Ok(())
    }
}

struct Balancer {
    endpoints: Vec<Endpoint>,
    next: AtomicU64,
    retried: AtomicU64,
}

impl Balancer {
    fn new(ports: &[u16]) -> Arc<Self> {
        let endpoints = ports.iter().map(|port| Endpoint::new(*port)).collect();
        Arc::new(Self {
            endpoints,
            next: AtomicU64::new(0),
            retried: AtomicU64::new(0),
        })
    }

    fn pick(&self) -> Option<&Endpoint> {
        (0..REPLICAS).find_map(|_| {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let endpoint = &self.endpoints[usize::try_from(number).expect("small") % REPLICAS];
            endpoint.ready.load(Ordering::Relaxed).then_some(endpoint)
        })
    }

    /// Makes a call on the next ready replica. Retries on another one while the
    /// result is UNAVAILABLE, with the limits of the service config.
    async fn call<T, F>(&self, attempt_on: impl Fn(Client) -> F) -> Result<T, Status>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let mut last = Status::unavailable("no replica is ready");
        let (mut attempt, patient_until) = (0, Instant::now() + LIMIT);
        while attempt < ATTEMPTS {
            if attempt > 0 {
                sleep(BACKOFF * 3_u32.pow(u32::try_from(attempt).expect("small") - 1)).await;
            }
            attempt += 1;
            let Some(endpoint) = self.pick() else {
                continue;
            };
            match attempt_on(endpoint.client.clone()).await {
                // All replicas say so while a busy machine stops the database.
                Err(status) if is_of_the_database(&status) && Instant::now() < patient_until => {
                    attempt -= 1;
                    sleep(BACKOFF).await;
                }
                // By the contract, UNAVAILABLE means no effect, also for a write.
                Err(status) if status.code() == Code::Unavailable || never_sent(&status) => {
                    self.retried.fetch_add(1, Ordering::Relaxed);
                    last = status;
                }
                answer => {
                    endpoint.answered.fetch_add(1, Ordering::Relaxed);
                    return answer;
                }
            }
        }
        Err(last)
    }
}

/// Whether a replica reports that the database does not answer.
fn is_of_the_database(status: &Status) -> bool {
    let details = status.get_error_details();
    let info = details.error_info();
    info.is_some_and(|info| info.reason == "ORIGIN_UNAVAILABLE")
}

/// Whether the server cannot have seen the call. Either the connection closed
/// before the call was sent (hyper reports "connection closed" only for a request
/// that it still holds), or the server had sent GOAWAY without an error, which
/// rejects only later calls. gRPC libraries retry such calls transparently; tonic
/// returns them to the caller.
fn never_sent(status: &Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        let text = format!("{error:?}");
        if error.to_string().contains("connection closed") {
            return status.code() == Code::Cancelled;
        }
        if text.contains("GoAway") && text.contains("NO_ERROR, Remote") {
            return true;
        }
        cause = error.source();
    }
    false
}

fn name(caller: usize) -> String {
    format!("lists/rolling/todos/of-{caller}")
}

fn at_least(token: &str) -> Option<pb::Consistency> {
    Some(pb::Consistency {
        requirement: Some(Requirement::AtLeastAsFresh(token.into())),
    })
}

/// Writes and reads in turn. A read with the token of the last write must return
/// that write, on every replica.
async fn caller(
    balancer: Arc<Balancer>,
    number: usize,
    stop: Arc<AtomicBool>,
) -> (u64, Vec<String>) {
    let (mut calls, mut failed) = (0, Vec::new());
    for round in 0_u64.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let title = round.to_string();
        let todo = pb::Todo {
            name: name(number),
            title: title.clone(),
            ..Default::default()
        };
        let update = pb::UpdateTodoRequest {
            todo: Some(todo),
            allow_missing: true,
            ..Default::default()
        };
        let written = balancer
            .call(|mut client| {
                let update = update.clone();
                async move { client.update_todo(update).await }
            })
            .await;
        calls += 1;
        let token = match written {
            Ok(written) => written.into_inner().token,
            Err(status) => {
                failed.push(format!("write {round}: {status:?}"));
                continue;
            }
        };
        for _ in 0..5 {
            let get = pb::GetTodoRequest {
                name: name(number),
                consistency: at_least(&token),
            };
            calls += 1;
            let read = balancer.call(|mut client| {
                let get = get.clone();
                async move { client.get_todo(get).await }
            });
            match read.await {
                Ok(read) => {
                    let read = read.into_inner().todo.expect("a todo").title;
                    assert_eq!(read, title, "a read with a token returned an older version");
                }
                Err(status) => failed.push(format!("read {round}: {status:?}")),
            }
        }
    }
    (calls, failed)
}

fn replica(port: u16) -> Tidemark {
    let (uri, url) = (mongo().uri("rolling"), redis_cluster().url());
    let listen = format!("127.0.0.1:{port}");
    Tidemark::start(&[
        "--mongodb-uri",
        &uri,
        "--redis-url",
        &url,
        "--listen",
        &listen,
    ])
}

async fn ready(balancer: &Balancer, index: usize) {
    eventually("readiness", LIMIT, async || {
        balancer.endpoints[index]
            .ready
            .load(Ordering::Relaxed)
            .then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_loses_no_call() {
    let ports: Vec<_> = (0..REPLICAS).map(|_| free_port()).collect();
    let mut replicas: Vec<_> = ports.iter().map(|port| replica(*port)).collect();
    let balancer = Balancer::new(&ports);
    for index in 0..REPLICAS {
        let balancer = Arc::clone(&balancer);
        tokio::spawn(async move { balancer.endpoints[index].follow_health().await });
    }
    for index in 0..REPLICAS {
        ready(&balancer, index).await;
    }
    let stop = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..CALLERS)
        .map(|n| tokio::spawn(caller(Arc::clone(&balancer), n, Arc::clone(&stop))))
        .collect();
    sleep(Duration::from_secs(1)).await;

    for index in 0..REPLICAS {
        // As the kubelet does: preStop, SIGTERM, exit within the grace period.
        sleep(PRE_STOP).await;
        replicas[index].terminate();
        assert_eq!(
            replicas[index].exit_code(LIMIT).await,
            Some(0),
            "the drain of replica {index}"
        );
        let before = balancer.endpoints[index].answered.load(Ordering::Relaxed);
        replicas[index] = replica(ports[index]);
        ready(&balancer, index).await;
        eventually("calls on the new replica", LIMIT, async || {
            (balancer.endpoints[index].answered.load(Ordering::Relaxed) > before + 50).then_some(())
        })
        .await;
    }

    stop.store(true, Ordering::Relaxed);
    let (mut calls, mut failed) = (0, Vec::new());
    for caller in callers {
        let (more, problems) = caller.await.expect("every caller reads its own writes");
        calls += more;
        failed.extend(problems);
    }
    let retried = balancer.retried.load(Ordering::Relaxed);
    println!("{calls} calls, {retried} retried, {} failed", failed.len());
    assert!(calls > 200, "only {calls} calls: too few for a result");
    // The balancer learns of a drain before connections are refused, so few calls
    // need a retry.
    assert!(
        retried * 20 < calls,
        "{retried} of {calls} calls were retried"
    );
    assert_eq!(
        failed.len(),
        0,
        "of {calls} calls: {:#?}",
        &failed[..failed.len().min(10)]
    );
}
