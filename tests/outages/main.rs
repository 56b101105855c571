//! Troubles of the database that operators meet, tried on real servers: error
//! codes, rules, rights, missing primaries, index builds, lost connections.

#[path = "../wire/client.rs"]
#[expect(dead_code, reason = "the tests of the wire use all of it")]
mod client;
#[path = "../support/mod.rs"]
mod support;

use std::future::Future;

use tokio::net::{TcpListener, TcpStream};

mod disk;
mod feed;
mod mongo;
mod orphans;
mod rights;
mod start;

/// A proxy before a server on this machine, with its own runtime, so that it also works
/// while a test blocks. `pass` gets both connections. Returns its port.
fn proxy<F: Future<Output = ()> + Send + 'static>(
    target: u16,
    pass: impl Fn(TcpStream, TcpStream) -> F + Send + 'static,
) -> u16 {
    let port = support::free_port();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.expect("a runtime").block_on(async move {
            let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("free");
            loop {
                let (client, _) = listener.accept().await.expect("accepted");
                let server = TcpStream::connect(("127.0.0.1", target)).await;
                tokio::spawn(pass(client, server.expect("a server")));
            }
        });
    });
    port
}
