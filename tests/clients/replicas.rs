//! Replicas of the service that are stopped and started again at the same
//! address, and what their metrics say of who called.

use crate::{
    client::{self, Client},
    support::{Tidemark, free_port, mongo, redis_cluster},
};

/// A replica at an address that it keeps.
pub struct Replica {
    database: String,
    more: Vec<String>,
    pub address: String,
    service: Option<Tidemark>,
    pub client: Client,
}

impl Replica {
    /// Starts one on this database of the tests' replica set.
    pub async fn start(database: &str, more: &[&str]) -> Self {
        let address = format!("127.0.0.1:{}", free_port());
        let more: Vec<_> = more.iter().map(|arg| (*arg).to_owned()).collect();
        let (service, client) = ready(database, &address, &more).await;
        Self {
            database: database.into(),
            more,
            address,
            service: Some(service),
            client,
        }
    }

    pub fn service(&self) -> &Tidemark {
        self.service.as_ref().expect("it runs")
    }

    /// SIGKILL: connections just break.
    pub fn kill(&mut self) {
        self.service.take().expect("it runs").kill();
    }

    /// SIGTERM: it drains, tells its watchers, and ends.
    pub async fn drain(&mut self) {
        let service = self.service.take().expect("it runs");
        service.terminate();
        let code = service.exit_code(crate::program::PATIENCE).await;
        assert_eq!(code, Some(0));
    }

    /// Starts it again where it was.
    pub async fn start_again(&mut self) {
        let (service, client) = ready(&self.database, &self.address, &self.more).await;
        (self.service, self.client) = (Some(service), client);
    }
}

async fn ready(database: &str, address: &str, more: &[String]) -> (Tidemark, Client) {
    let (uri, url) = (mongo().uri(database), redis_cluster().url());
    let mut args = vec![
        "--mongodb-uri",
        &uri,
        "--redis-url",
        &url,
        "--listen",
        address,
    ];
    args.extend(more.iter().map(String::as_str));
    client::ready(Tidemark::start(&args)).await
}

/// A replica that listens and never becomes ready: its database is nowhere.
pub fn never_ready() -> (Tidemark, String) {
    let uri = format!(
        "mongodb://127.0.0.1:{}/nowhere?replicaSet=none",
        free_port()
    );
    let service = Tidemark::start(&["--mongodb-uri", &uri]);
    let address = service.address.trim_start_matches("http://").to_owned();
    (service, address)
}

/// How many calls of this name a replica has answered, whatever it answered.
pub fn answered(service: &Tidemark, call: &str) -> u64 {
    let text = service.metrics_text();
    assert!(text.contains("tidemark_watchers"), "no metrics: {text}");
    let prefix = format!("tidemark_rpc_duration_seconds_count{{call=\"{call}\"");
    let counts = text.lines().filter(|line| line.starts_with(&prefix));
    counts
        .map(|line| {
            line.rsplit(' ')
                .next()
                .expect("a value")
                .parse::<u64>()
                .expect("a count")
        })
        .sum()
}
