//! Which server holds which hash slots, by asking the cluster or the sentinels.
//!
//! Any node or sentinel may be asked, and some may be dead or out of date. So
//! several are asked, each a little after the one before; the first complete
//! answer counts. The one that gave it is asked again next time, by the same
//! connection, unless its answer turns out to be wrong.

use std::time::Duration;

use fred::{
    clients::Client,
    prelude::{ClientLike, ClusterInterface, Value},
    types::{ClusterHash, CustomCommand},
};
use futures::{StreamExt as _, stream};
use rand::seq::SliceRandom as _;
use tokio::time::{sleep, timeout};

use super::{
    connection::{Connection, ConnectionSettings, options},
    error::{ErrorKind, RedisError},
    url::{Address, Deployment, RedisUrl},
};

/// Number of hash slots of a Redis Cluster.
const SLOTS: u32 = 16384;
/// How long a server may take to answer.
const ASK_TIMEOUT: Duration = Duration::from_millis(500);
/// Pause after which the next server is asked as well: several times what a
/// healthy one takes.
const STAGGER: Duration = Duration::from_millis(100);
/// Longest time to ask all of them.
const FIND_TIMEOUT: Duration = Duration::from_secs(3);
/// Upper bound on the servers that are remembered to be asked.
const MAX_CANDIDATES: usize = 128;
/// A server is not asked more often than this in a row while a node is down: its
/// view may be the one that is wrong.
const MAX_ASKED_AGAIN: u32 = 10;

/// A range of hash slots and the server that holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SlotRange {
    pub(super) first: u16,
    pub(super) last: u16,
    pub(super) master: Address,
}

/// Ranges by ascending slot, and every server that was named.
#[derive(Debug, Default, PartialEq, Eq)]
struct SlotMap {
    ranges: Vec<SlotRange>,
    servers: Vec<Address>,
}

/// Finds the masters of a deployment.
pub(super) struct Finder {
    deployment: Deployment,
    /// Settings to connect to those that are asked.
    settings: ConnectionSettings,
    seeds: Vec<Address>,
    /// Servers named by the last answer.
    known: Vec<Address>,
    /// The one that gave the last answer.
    current: Option<(Address, Connection)>,
    asked_again: u32,
}

/// What went wrong at which server.
pub(super) type FindError = (Address, RedisError);

impl Finder {
    pub(super) fn new(url: &RedisUrl, settings: &ConnectionSettings) -> Self {
        let mut settings = settings.clone();
        if let Deployment::Sentinel { credentials, .. } = &url.deployment {
            settings.credentials = credentials.clone();
            settings.database = None;
        }
        Self {
            deployment: url.deployment.clone(),
            settings,
            seeds: url.servers.clone(),
            known: Vec::new(),
            current: None,
            asked_again: 0,
        }
    }

    /// The masters and their slots now. `doubt`: a node was not what the last
    /// answer said, so ask another node if the answer is the same again.
    pub(super) async fn find(
        &mut self,
        last: &[SlotRange],
        doubt: bool,
    ) -> Result<Vec<SlotRange>, FindError> {
        if self.deployment == Deployment::Single {
            return Ok(self
                .seeds
                .first()
                .map(SlotRange::of_all)
                .into_iter()
                .collect());
        }
        if let Some((address, connection)) = self.current.take() {
            let answer = ask(&self.deployment, &address, connection.client()).await;
            self.asked_again += 1;
            if let Ok(map) = answer
                && map.is_complete()
                && !(map.ranges == last && (doubt || self.asked_again >= MAX_ASKED_AGAIN))
            {
                self.current = Some((address, connection));
                return Ok(self.accept(map));
            }
        }
        let (address, connection, map) = self.ask_all().await?;
        self.current = Some((address, connection));
        self.asked_again = 0;
        Ok(self.accept(map))
    }

    fn accept(&mut self, map: SlotMap) -> Vec<SlotRange> {
        if self.deployment == Deployment::Cluster {
            self.known = map.servers;
            self.known.truncate(MAX_CANDIDATES);
        }
        map.ranges
    }

    /// Asks all servers, each a little after the one before.
    async fn ask_all(&self) -> Result<(Address, Connection, SlotMap), FindError> {
        let candidates = self.candidates();
        let asked: Vec<_> = candidates
            .into_iter()
            .zip(0_u32..)
            .map(|(address, n)| self.ask_after(STAGGER * n, address))
            .collect();
        let mut answers = stream::iter(asked).buffer_unordered(MAX_CANDIDATES);
        let (mut best, mut error) = (None, None);
        let asking = async {
            while let Some(answer) = answers.next().await {
                match answer {
                    Ok((address, connection, map)) => {
                        let complete = map.is_complete();
                        let more = |(_, _, other): &(Address, Connection, SlotMap)| {
                            map.covered() > other.covered()
                        };
                        if best.as_ref().is_none_or(more) {
                            best = Some((address, connection, map));
                        }
                        if complete {
                            break;
                        }
                    }
                    Err(failed) => error = Some(prefer(error.take(), failed)),
                }
            }
        };
        // What there is by then is used.
        let _ = timeout(FIND_TIMEOUT, asking).await;
        best.ok_or_else(|| {
            error.unwrap_or_else(|| (self.seeds[0].clone(), RedisError::timeout(FIND_TIMEOUT)))
        })
    }

    async fn ask_after(
        &self,
        pause: Duration,
        address: Address,
    ) -> Result<(Address, Connection, SlotMap), FindError> {
        sleep(pause).await;
        let answer = async {
            let connection = Connection::open(&self.settings, &address).await?;
            let map = ask(&self.deployment, &address, connection.client()).await?;
            Ok((connection, map))
        };
        match answer.await {
            Ok((connection, map)) => Ok((address, connection, map)),
            Err(error) => Err((address, error)),
        }
    }

    /// In random order, so that a server that is out of date is not always the
    /// first, and none is asked by all replicas.
    fn candidates(&self) -> Vec<Address> {
        let mut candidates = self.known.clone();
        for seed in &self.seeds {
            if !candidates.contains(seed) {
                candidates.push(seed.clone());
            }
        }
        candidates.shuffle(&mut rand::rng());
        candidates
    }
}

/// Of two errors the one that says more: the words of a server, not that there
/// was no server.
fn prefer(one: Option<FindError>, other: FindError) -> FindError {
    let silent =
        |error: &FindError| matches!(error.1.kind, ErrorKind::Connection | ErrorKind::Timeout);
    match one {
        Some(one) if !silent(&one) || silent(&other) => one,
        _ => other,
    }
}

async fn ask(
    deployment: &Deployment,
    address: &Address,
    client: &Client,
) -> Result<SlotMap, RedisError> {
    let client = client.with_options(&options(ASK_TIMEOUT));
    let asked = async {
        match deployment {
            Deployment::Single => Ok(SlotMap::default()),
            Deployment::Cluster => {
                let slots = client.cluster_slots::<Value>().await?;
                parse_slots(&slots, address).ok_or_else(|| {
                    RedisError::new(
                        ErrorKind::NotCluster,
                        "CLUSTER SLOTS names no node with slots",
                    )
                })
            }
            Deployment::Sentinel { service, .. } => {
                let command = CustomCommand::new_static("SENTINEL", ClusterHash::FirstKey, false);
                let args = vec!["GET-MASTER-ADDR-BY-NAME", service.as_str()];
                let master = client.custom::<Value, _>(command, args).await?;
                let master = parse_master(&master, address).ok_or_else(|| {
                    let text = format!("the sentinel knows no master named {service:?}");
                    RedisError::new(ErrorKind::Other, text)
                })?;
                Ok(SlotMap {
                    ranges: vec![SlotRange::of_all(&master)],
                    servers: Vec::new(),
                })
            }
        }
    };
    timeout(ASK_TIMEOUT, asked)
        .await
        .unwrap_or_else(|_| Err(RedisError::timeout(ASK_TIMEOUT)))
}

impl SlotRange {
    fn of_all(master: &Address) -> Self {
        Self {
            first: 0,
            last: u16::MAX,
            master: master.clone(),
        }
    }
}

impl SlotMap {
    fn covered(&self) -> u32 {
        let slots = |range: &SlotRange| u32::from(range.last) - u32::from(range.first) + 1;
        self.ranges.iter().map(slots).sum()
    }

    fn is_complete(&self) -> bool {
        self.covered() >= SLOTS
    }
}

/// The reply to `CLUSTER SLOTS`: `[[first, last, [host, port, ..], replicas..], ..]`.
/// A node without a host is the one that was asked. `None` if no slot has a node.
fn parse_slots(reply: &Value, asked: &Address) -> Option<SlotMap> {
    let Value::Array(entries) = reply else {
        return None;
    };
    let mut map = SlotMap::default();
    for entry in entries {
        let Value::Array(parts) = entry else { continue };
        let [first, last, nodes @ ..] = parts.as_slice() else {
            continue;
        };
        let nodes: Vec<_> = nodes.iter().map(|node| parse_node(node, asked)).collect();
        for node in nodes.iter().flatten() {
            if !map.servers.contains(node) {
                map.servers.push(node.clone());
            }
        }
        if let (Some(first), Some(last), Some(Some(master))) =
            (slot(first), slot(last), nodes.first())
            && first <= last
        {
            map.ranges.push(SlotRange {
                first,
                last,
                master: master.clone(),
            });
        }
    }
    map.ranges.sort_by_key(|range| range.first);
    (!map.ranges.is_empty()).then_some(map)
}

fn slot(value: &Value) -> Option<u16> {
    u16::try_from(value.as_i64()?)
        .ok()
        .filter(|slot| u32::from(*slot) < SLOTS)
}

fn parse_node(node: &Value, asked: &Address) -> Option<Address> {
    let Value::Array(parts) = node else {
        return None;
    };
    let [host, port, ..] = parts.as_slice() else {
        return None;
    };
    let host = match host.as_string().unwrap_or_default().as_str() {
        "" => asked.host.clone(),
        // The node announces no name, though names are what it should announce.
        "?" => return None,
        host => host.to_owned(),
    };
    let port = u16::try_from(port.as_i64()?)
        .ok()
        .filter(|port| *port != 0)?;
    Some(Address { host, port })
}

/// The reply to `SENTINEL GET-MASTER-ADDR-BY-NAME`: `[host, port]`, or nil.
fn parse_master(reply: &Value, asked: &Address) -> Option<Address> {
    let Value::Array(parts) = reply else {
        return None;
    };
    let [host, port] = parts.as_slice() else {
        return None;
    };
    let port = port.as_string()?.parse::<i64>().ok()?;
    parse_node(&Value::Array(vec![host.clone(), port.into()]), asked)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn array(values: Vec<Value>) -> Value {
        Value::Array(values)
    }

    fn node(host: &str, port: i64) -> Value {
        let id = Value::from("0123456789");
        let host = if host.is_empty() {
            Value::Null
        } else {
            Value::from(host)
        };
        array(vec![host, port.into(), id, array(vec![])])
    }

    fn address(text: &str) -> Address {
        let (host, port) = text.rsplit_once(':').expect("host:port");
        Address {
            host: host.to_owned(),
            port: port.parse().expect("a port"),
        }
    }

    #[test]
    fn slots_are_sorted_and_name_their_master() {
        let reply = array(vec![
            array(vec![8192.into(), 16383.into(), node("::1", 7001)]),
            array(vec![0.into(), 8191.into(), node("", 7000), node("b", 7002)]),
        ]);
        let map = parse_slots(&reply, &address("a:1")).expect("a map");
        assert!(map.is_complete());
        assert_eq!(map.ranges[0].master, address("a:7000"));
        assert_eq!(map.ranges[1].master, address("::1:7001"));
        assert_eq!(map.servers.len(), 3);
    }

    #[test]
    fn what_is_not_a_slot_map_is_refused() {
        let asked = address("a:1");
        for reply in [
            Value::Null,
            Value::from("OK"),
            array(vec![]),
            array(vec![array(vec![0.into(), 1.into()])]),
            array(vec![array(vec![0.into(), 1.into(), node("?", 7000)])]),
            array(vec![array(vec![5.into(), 1.into(), node("b", 7000)])]),
            array(vec![array(vec![0.into(), 16384.into(), node("b", 7000)])]),
            array(vec![array(vec![0.into(), 1.into(), node("b", 0)])]),
        ] {
            assert_eq!(parse_slots(&reply, &asked), None, "{reply:?}");
        }
        let part = array(vec![array(vec![0.into(), 1.into(), node("b", 7000)])]);
        assert!(!parse_slots(&part, &asked).expect("a part").is_complete());
    }

    #[test]
    fn the_master_of_a_service() {
        let asked = address("a:1");
        let reply = array(vec!["10.0.0.1".into(), "6380".into()]);
        assert_eq!(parse_master(&reply, &asked), Some(address("10.0.0.1:6380")));
        assert_eq!(parse_master(&Value::Null, &asked), None);
    }

    #[test]
    fn words_of_a_server_are_preferred_to_silence() {
        let error = |kind| (address("a:1"), RedisError::new(kind, ""));
        let kinds = [ErrorKind::Connection, ErrorKind::Auth, ErrorKind::Timeout];
        let mut best = None;
        for kind in kinds {
            best = Some(prefer(best.take(), error(kind)));
        }
        assert_eq!(best.map(|(_, error)| error.kind), Some(ErrorKind::Auth));
    }
}
