//! The load: closed (so many calls outstanding) or open (so many calls a
//! second, whatever the server does; latency counts from the instant a call
//! was due, so that a stall is seen by every call that it delays).

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::http2::{Connection, Event};

/// Calls of one kind, for the generator to choose from.
pub struct Calls {
    pub method: &'static str,
    /// Encoded requests.
    pub requests: Vec<Vec<u8>>,
    /// The order in which they are made, over and over.
    pub order: Vec<u32>,
}

/// How the calls are made.
#[derive(Clone, Copy)]
pub enum Pace {
    /// This many outstanding, over all connections.
    Outstanding(usize),
    /// This many a second.
    PerSecond(u32),
}

/// What came of it.
#[derive(Clone, Default)]
pub struct Outcome {
    pub calls: u64,
    pub failed: u64,
    pub seconds: f64,
    /// The generator's own time on the CPU.
    pub generator_cpu: f64,
    pub latency: Histogram,
}

impl Outcome {
    pub fn per_second(&self) -> f64 {
        self.calls as f64 / self.seconds
    }
}

/// Between runs nobody answers a server's pings: after so long, connections are
/// opened anew.
const IDLE: Duration = Duration::from_secs(5);

/// The generator: its connections stay open from run to run, if the next one
/// comes soon.
pub struct Generator {
    address: SocketAddr,
    path: String,
    bearer: Option<String>,
    connections: Vec<Connection>,
    used: Instant,
    calls: Calls,
    at: usize,
}

impl Generator {
    pub fn open(address: SocketAddr, connections: usize, calls: Calls) -> Self {
        Self::open_as(None, address, connections, calls)
    }

    /// The same with a key or a token, which each call carries.
    pub fn open_as(
        bearer: Option<&str>,
        address: SocketAddr,
        connections: usize,
        calls: Calls,
    ) -> Self {
        let path = format!("/todo.v1.TodoService/{}", calls.method);
        let open = |_| Connection::open(address, &path, bearer).expect("connected");
        let connections = (0..connections).map(open).collect();
        Self {
            address,
            path,
            bearer: bearer.map(str::to_owned),
            connections,
            used: Instant::now(),
            calls,
            at: 0,
        }
    }

    fn open_again(&mut self) {
        if self.used.elapsed() > IDLE {
            for connection in &mut self.connections {
                let bearer = self.bearer.as_deref();
                *connection =
                    Connection::open(self.address, &self.path, bearer).expect("connected");
            }
        }
    }

    /// Makes calls for so long, and waits for those under way at the end.
    pub fn run(&mut self, pace: Pace, length: Duration) -> Outcome {
        self.open_again();
        let (began, cpu) = (Instant::now(), cpu_of_thread());
        let ends = began + length;
        let mut out = Outcome::default();
        let mut due: u64 = 0;
        loop {
            let now = Instant::now();
            let running = now < ends;
            match pace {
                Pace::Outstanding(most) if running => {
                    let each = most.div_ceil(self.connections.len());
                    for at in 0..self.connections.len() {
                        while self.connections[at].outstanding < each
                            && self.call(at, elapsed(began, now))
                        {}
                    }
                }
                Pace::PerSecond(rate) if running => {
                    let since = elapsed(began, now);
                    while due * 1_000_000_000 / u64::from(rate) <= since {
                        let connection = usize::try_from(due).unwrap_or(0) % self.connections.len();
                        self.call(connection, due * 1_000_000_000 / u64::from(rate));
                        due += 1;
                    }
                }
                _ if self.connections.iter().all(|c| c.outstanding == 0) => break,
                _ => {}
            }
            let next = match pace {
                Pace::PerSecond(rate) if running => {
                    let next = Duration::from_nanos(due * 1_000_000_000 / u64::from(rate));
                    next.saturating_sub(began.elapsed())
                }
                _ => Duration::from_millis(100),
            };
            self.exchange(next, began, &mut out);
        }
        out.seconds = began.elapsed().as_secs_f64();
        out.generator_cpu = cpu_of_thread() - cpu;
        self.used = Instant::now();
        out
    }

    /// Makes exactly these calls once each, that many outstanding.
    pub fn run_once(&mut self, outstanding: usize, most: usize) -> Outcome {
        self.open_again();
        let began = Instant::now();
        let mut out = Outcome::default();
        let (mut made, each) = (0, outstanding.div_ceil(self.connections.len()));
        while made < most || self.connections.iter().any(|c| c.outstanding > 0) {
            for at in 0..self.connections.len() {
                while made < most && self.connections[at].outstanding < each {
                    if !self.call(at, elapsed(began, Instant::now())) {
                        break;
                    }
                    made += 1;
                }
            }
            self.exchange(Duration::from_millis(100), began, &mut out);
        }
        out.seconds = began.elapsed().as_secs_f64();
        self.used = Instant::now();
        out
    }

    fn call(&mut self, connection: usize, tag: u64) -> bool {
        let request = &self.calls.requests[self.calls.order[self.at] as usize];
        let connection = &mut self.connections[connection];
        if !connection.has_room(request.len()) {
            return false;
        }
        connection.call(request, tag);
        self.at = (self.at + 1) % self.calls.order.len();
        true
    }

    /// Sends, waits at most this long for replies, and takes them in.
    fn exchange(&mut self, wait: Duration, began: Instant, out: &mut Outcome) {
        let mut wanted = Vec::with_capacity(self.connections.len());
        for connection in &mut self.connections {
            let all = connection.flush().expect("sent");
            wanted.push(if all {
                PollFlags::IN
            } else {
                PollFlags::IN | PollFlags::OUT
            });
        }
        let wait = Timespec {
            tv_sec: i64::try_from(wait.as_secs()).unwrap_or(0),
            tv_nsec: i64::from(wait.subsec_nanos()),
        };
        let fds = self.connections.iter().zip(&wanted);
        let mut fds: Vec<_> = fds
            .map(|(c, flags)| PollFd::new(&c.socket, *flags))
            .collect();
        if poll(&mut fds, Some(&wait)).is_err() {
            return;
        }
        let ready: Vec<bool> = fds
            .iter()
            .map(|fd| fd.revents().contains(PollFlags::IN))
            .collect();
        let now = elapsed(began, Instant::now());
        for (connection, _) in self
            .connections
            .iter_mut()
            .zip(ready)
            .filter(|(_, ready)| *ready)
        {
            let took = connection.read(|tag, event| {
                if let Event::End { ok } = event {
                    out.calls += 1;
                    out.failed += u64::from(!ok);
                    out.latency.record(now.saturating_sub(tag));
                }
            });
            took.expect("read");
        }
    }
}

fn elapsed(began: Instant, now: Instant) -> u64 {
    u64::try_from((now - began).as_nanos()).unwrap_or(u64::MAX)
}

fn cpu_of_thread() -> f64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    t.tv_sec as f64 + t.tv_nsec as f64 / 1e9
}

/// Nanoseconds in buckets of 1.6 % each.
#[derive(Clone)]
pub struct Histogram {
    buckets: Vec<u64>,
    count: u64,
}

const SUB_BITS: u32 = 6;

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: vec![0; (64 - SUB_BITS as usize + 1) << SUB_BITS],
            count: 0,
        }
    }
}

impl Histogram {
    pub fn record(&mut self, nanos: u64) {
        let shift = (64 - nanos.leading_zeros()).saturating_sub(SUB_BITS + 1);
        let at = ((shift as usize) << SUB_BITS) + usize::try_from(nanos >> shift).unwrap_or(0);
        self.buckets[at] += 1;
        self.count += 1;
    }

    /// In milliseconds.
    pub fn percentile(&self, percent: f64) -> f64 {
        let rank = (self.count as f64 * percent / 100.0).ceil().max(1.0);
        let mut seen = 0;
        for (at, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen as f64 >= rank {
                let (whole, sub) = (at >> SUB_BITS, at & ((1 << SUB_BITS) - 1));
                let (shift, value) = if whole == 0 {
                    (0, sub)
                } else {
                    (whole - 1, (1 << SUB_BITS) + sub)
                };
                return ((value as u64) << shift) as f64 / 1e6;
            }
        }
        0.0
    }
}
