//! `./test servers`: MongoDB and Redis for trying things out, until Ctrl-C.

#[path = "mod.rs"]
mod support;

use std::io::Write as _;

fn main() {
    let (mongo, redis) = (support::mongo(), support::redis_cluster());
    println!(
        "export MONGODB_URI='{}' REDIS_URL='{}'",
        mongo.uri("tour"),
        redis.url()
    );
    std::io::stdout().flush().expect("somebody reads");
    // The servers die with this process.
    loop {
        std::thread::park();
    }
}
