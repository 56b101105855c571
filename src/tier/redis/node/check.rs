//! What a node allows, tried once for `tidemark check`.

use std::time::Duration;

use fred::{prelude::ClientLike, types::InfoKind};

use super::{Direction, Node, within};

/// How long each answer may take.
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);

/// What a node of Redis allows, and how it uses its memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeCheck {
    /// Its address.
    pub server: String,
    /// Why it refuses to read an entry, in its own words.
    pub read: Result<(), String>,
    /// Why it refuses to write one.
    pub write: Result<(), String>,
    /// How much memory it may use, and what it does then; or why it does not say.
    pub memory: Result<Memory, String>,
}

/// What a node says of its memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// `maxmemory` in bytes; 0: no limit.
    pub limit: u64,
    /// `maxmemory_policy`.
    pub policy: String,
}

impl Memory {
    /// Reads it from the text of `INFO memory`.
    fn parse(info: &str) -> Self {
        let value = |key: &str| {
            let mut lines = info.lines();
            lines.find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))
        };
        Self {
            limit: value("maxmemory").and_then(|n| n.parse().ok()).unwrap_or(0),
            policy: value("maxmemory_policy").unwrap_or_default().to_owned(),
        }
    }
}

impl Node {
    /// Tries what the tier does. Stores nothing.
    pub(in super::super) async fn check(&self) -> NodeCheck {
        let closed = || Err("no connection is open".to_owned());
        let reads = self.client(Direction::Read, CHECK_TIMEOUT);
        let writes = self.client(Direction::Write, CHECK_TIMEOUT);
        let (read, memory) = match reads {
            None => (closed(), Err("no connection is open".to_owned())),
            Some(client) => {
                let info = client.info::<String>(Some(InfoKind::Memory));
                let memory = within(CHECK_TIMEOUT, info).await;
                let read = self.probe_read(client).await;
                (
                    read.map_err(|error| error.text),
                    memory
                        .map(|info| Memory::parse(&info))
                        .map_err(|error| error.text),
                )
            }
        };
        let write = match writes {
            None => closed(),
            Some(client) => {
                let write = self.probe_write(client).await;
                write.map_err(|error| error.text)
            }
        };
        NodeCheck {
            server: self.address.to_string(),
            read,
            write,
            memory,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_memory_of_a_node() {
        let info = "# Memory\r\nused_memory:9\r\nmaxmemory:1048576\r\nmaxmemory_human:1.00M\r\nmaxmemory_policy:allkeys-lru\r\n";
        let memory = Memory::parse(info);
        assert_eq!((memory.limit, &*memory.policy), (1 << 20, "allkeys-lru"));
        assert_eq!(Memory::parse(""), Memory::default());
    }
}
