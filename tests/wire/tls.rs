//! TLS and mutual TLS, to the service and from it to MongoDB and Redis, with
//! certificates made on the spot.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use mongodb::bson::doc;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer,
    ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth},
    IsCa, KeyPair, date_time_ymd,
};
use tidemark::{
    grpc::client::todo_service_client::TodoServiceClient,
    pb::{self, Source},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tonic::{
    Code, Status,
    transport::{Certificate, Channel, ClientTlsConfig, Identity},
};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::{
    client::*,
    raw::request_begun,
    support::{Server, Tidemark, binary, eventually, folder, free_port, initiate, redis_cli},
};

/// Whoever signs certificates.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate with its key.
pub struct Signed {
    pub cert: String,
    pub key: String,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("signed"))
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// One for this machine, that ends with this year.
    fn sign_until(&self, year: i32) -> Signed {
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        self.sign_params(CertificateParams::new(names).expect("names"), year)
    }

    /// One with these names.
    pub fn sign_names(&self, names: Vec<rcgen::SanType>) -> Signed {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        self.sign_params(params, 2999)
    }

    fn sign_params(&self, mut params: CertificateParams, year: i32) -> Signed {
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, "tidemark test");
        params.not_after = date_time_ymd(year, 12, 31);
        params.extended_key_usages = vec![ServerAuth, ClientAuth];
        let key = KeyPair::generate().expect("a key");
        let cert = params.signed_by(&key, &self.0).expect("signed");
        Signed {
            cert: cert.pem(),
            key: key.serialize_pem(),
        }
    }

    pub fn sign(&self) -> Signed {
        self.sign_until(2999)
    }

    fn sign_expired(&self) -> Signed {
        self.sign_until(2020)
    }
}

/// The files of a service.
pub struct Files(PathBuf);

impl Files {
    pub fn new(signed: &Signed) -> Self {
        let files = Self(folder("tls"));
        files.put(signed);
        files
    }

    fn put(&self, signed: &Signed) {
        self.write("cert.pem", &signed.cert);
        self.write("key.pem", &signed.key);
    }

    /// Whole or not at all, as a careful person does it.
    pub fn write(&self, name: &str, text: &str) -> String {
        let (new, place) = (self.0.join("new"), self.0.join(name));
        fs::write(&new, text).expect("written");
        fs::rename(&new, &place).expect("moved");
        place.display().to_string()
    }

    pub fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

pub fn serve(files: &Files, more: &[&str]) -> Tidemark {
    let (dir, cert, key) = (
        folder("data").display().to_string(),
        files.path("cert.pem"),
        files.path("key.pem"),
    );
    let mut args = vec!["--data-dir", &dir, "--tls-cert", &cert, "--tls-key", &key];
    args.extend(more);
    Tidemark::start(&args)
}

pub fn trusting(authority: &Authority) -> ClientTlsConfig {
    ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority.pem()))
}

pub fn showing(authority: &Authority, signed: &Signed) -> ClientTlsConfig {
    trusting(authority).identity(Identity::from_pem(&signed.cert, &signed.key))
}

async fn connect(
    service: &Tidemark,
    tls: ClientTlsConfig,
) -> Result<Channel, tonic::transport::Error> {
    let endpoint = Channel::from_shared(service.address.clone())
        .expect("an address")
        .tls_config(tls)?;
    endpoint.connect().await
}

/// What health says of a name, over a channel.
async fn asked(channel: Channel, name: &str) -> Result<i32, Status> {
    let request = HealthCheckRequest {
        service: name.into(),
    };
    Ok(HealthClient::new(channel)
        .check(request)
        .await?
        .into_inner()
        .status)
}

/// A call that gets through: with TLS 1.3 a client learns only then that its
/// certificate was refused.
async fn is_served(service: &Tidemark, tls: ClientTlsConfig) -> bool {
    match connect(service, tls).await {
        Ok(channel) => asked(channel, "liveness").await.is_ok(),
        Err(_) => false,
    }
}

pub async fn ready_by_tls(service: &Tidemark, tls: &ClientTlsConfig) -> Client {
    let channel = eventually("readiness", Duration::from_secs(180), async || {
        let channel = connect(service, tls.clone()).await.ok()?;
        (asked(channel.clone(), "readiness").await.ok()? == SERVING).then_some(channel)
    })
    .await;
    TodoServiceClient::new(channel)
}

#[tokio::test]
async fn right_and_wrong_certificates_of_the_server() {
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    let service = serve(&Files::new(&ours.sign()), &[]);
    assert!(service.address.starts_with("https://"));
    let mut client = ready_by_tls(&service, &trusting(&ours)).await;
    create(&mut client, "milk", "Buy milk").await;
    assert_eq!(
        title(&mut client, "lists/home/todos/milk", strong()).await,
        "Buy milk"
    );
    assert!(
        !is_served(&service, trusting(&other)).await,
        "an unknown authority"
    );
    let plain = service.address.replace("https", "http");
    let plain = Channel::from_shared(plain)
        .expect("an address")
        .connect()
        .await;
    let answered = match plain {
        Ok(channel) => asked(channel, "liveness").await.is_ok(),
        Err(_) => false,
    };
    assert!(!answered, "without TLS");

    let expired = serve(&Files::new(&ours.sign_expired()), &[]);
    assert!(!is_served(&expired, trusting(&ours)).await, "expired");
}

#[tokio::test]
async fn clients_must_show_a_certificate_of_the_authority_named() {
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    let files = Files::new(&ours.sign());
    let ca = files.write("ca.pem", &ours.pem());
    let service = serve(&files, &["--tls-client-ca", &ca]);
    let right = showing(&ours, &ours.sign());
    let mut client = ready_by_tls(&service, &right).await;
    create(&mut client, "milk", "Buy milk").await;
    assert!(
        !is_served(&service, trusting(&ours)).await,
        "no certificate"
    );
    assert!(
        !is_served(&service, showing(&ours, &other.sign())).await,
        "of another authority"
    );
    assert!(
        !is_served(&service, showing(&ours, &ours.sign_expired())).await,
        "expired"
    );
    assert!(is_served(&service, right).await);
    eventually("three refusals", Duration::from_secs(60), async || {
        (service.metric("tidemark_tls_handshakes_total{kind=\"failed\"}") >= 3).then_some(())
    })
    .await;
}

#[tokio::test]
async fn changed_files_are_taken_and_broken_ones_are_not() {
    let (first, second) = (Authority::new("first"), Authority::new("second"));
    let files = Files::new(&first.sign());
    let service = serve(&files, &[]);
    let mut old_connection = ready_by_tls(&service, &trusting(&first)).await;

    files.put(&second.sign());
    eventually("the new certificate", Duration::from_secs(60), async || {
        is_served(&service, trusting(&second)).await.then_some(())
    })
    .await;
    assert!(
        !is_served(&service, trusting(&first)).await,
        "the old one is not shown any more"
    );
    create(&mut old_connection, "milk", "connections from before go on").await;

    // A key that is not that of the certificate, then no certificate at all.
    let failures = "tidemark_tls_reloads_total{kind=\"failed\"}";
    let before = service.metric(failures);
    files.write("key.pem", &first.sign().key);
    eventually("a refusal", Duration::from_secs(60), async || {
        (service.metric(failures) > before).then_some(())
    })
    .await;
    assert!(is_served(&service, trusting(&second)).await);
    fs::remove_file(files.0.join("cert.pem")).expect("removed");
    eventually("another refusal", Duration::from_secs(60), async || {
        (service.metric(failures) > before + 1).then_some(())
    })
    .await;
    assert!(is_served(&service, trusting(&second)).await);
    files.put(&first.sign());
    eventually(
        "the first authority again",
        Duration::from_secs(60),
        async || is_served(&service, trusting(&first)).await.then_some(()),
    )
    .await;
}

#[tokio::test]
async fn files_that_cannot_be_used_end_the_start() {
    let ours = Authority::new("ours");
    let files = Files::new(&ours.sign());
    files.write("key.pem", &ours.sign().key);
    for (cert, key, setting, word) in [
        ("none.pem", "key.pem", "tls-cert: ", "none.pem"),
        ("cert.pem", "none.pem", "tls-key: ", "none.pem"),
        (
            "cert.pem",
            "key.pem",
            "tls-cert, tls-key: ",
            "not that of the certificate",
        ),
        ("key.pem", "key.pem", "tls-cert: ", "no certificate"),
        ("cert.pem", "cert.pem", "tls-key: ", "key"),
    ] {
        let out = std::process::Command::new(env!("CARGO_BIN_EXE_tidemark"))
            .args([
                "serve",
                "--listen",
                "127.0.0.1:0",
                "--metrics-listen",
                "off",
            ])
            .args([
                "--tls-cert",
                &files.path(cert),
                "--tls-key",
                &files.path(key),
            ])
            .output()
            .expect("run");
        let told = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(1), "{told}");
        let told = told.lines().last().unwrap_or_default();
        assert!(
            told.starts_with(&format!("error: {setting}")) && told.contains(word),
            "{told}"
        );
    }
}

#[tokio::test]
async fn the_health_port_is_plain_and_serves_nothing_else() {
    let ours = Authority::new("ours");
    let files = Files::new(&ours.sign());
    let (ca, port) = (files.write("ca.pem", &ours.pem()), free_port());
    let health = format!("127.0.0.1:{port}");
    let _service = serve(
        &files,
        &["--tls-client-ca", &ca, "--health-listen", &health],
    );
    let plain = Channel::from_shared(format!("http://{health}")).expect("an address");
    let plain = eventually("the health port", Duration::from_secs(60), async || {
        plain.connect().await.ok()
    })
    .await;
    eventually("readiness", Duration::from_secs(60), async || {
        (asked(plain.clone(), "readiness").await.ok()? == SERVING).then_some(())
    })
    .await;
    assert_eq!(
        asked(plain.clone(), "startup").await.expect("known"),
        SERVING
    );
    let refused = get(
        &mut TodoServiceClient::new(plain.clone()),
        "lists/home/todos/milk",
        None,
    )
    .await;
    assert_eq!(
        refused.expect_err("health alone").code(),
        Code::Unimplemented
    );
}

#[tokio::test]
async fn the_health_port_answers_during_the_drain() {
    let (dir, health) = (
        folder("data").display().to_string(),
        format!("127.0.0.1:{}", free_port()),
    );
    let args = [
        "--data-dir",
        &dir,
        "--health-listen",
        &health,
        "--cors-allow-origins",
        "*",
        "--drain-timeout",
        "5s",
    ];
    let (service, _client) = ready(Tidemark::start(&args)).await;
    let plain = Channel::from_shared(format!("http://{health}")).expect("an address");
    let plain = plain.connect().await.expect("connected");
    assert_eq!(
        asked(plain.clone(), "readiness").await.expect("known"),
        SERVING
    );
    // A call whose body never ends keeps the drain going.
    let mut call = TcpStream::connect(service.address.trim_start_matches("http://"))
        .await
        .expect("connected");
    let head = "POST /todo.v1.TodoService/GetTodo HTTP/1.1\r\nHost: x\r\n\
        Content-Type: application/grpc-web+proto\r\nContent-Length: 100\r\n\r\n";
    call.write_all(head.as_bytes()).await.expect("sent");
    request_begun(&service).await;
    service.terminate();
    eventually("not ready any more", Duration::from_secs(60), async || {
        (asked(plain.clone(), "readiness").await.expect("an answer") != SERVING).then_some(())
    })
    .await;
    assert_eq!(asked(plain, "liveness").await.expect("known"), SERVING);
    assert_eq!(service.exit_code(Duration::from_secs(60)).await, Some(0));
}

#[tokio::test]
async fn callers_that_say_nothing_keep_nobody_out() {
    let ours = Authority::new("ours");
    let service = serve(&Files::new(&ours.sign()), &[]);
    ready_by_tls(&service, &trusting(&ours)).await;
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(
            TcpStream::connect(service.address.trim_start_matches("https://"))
                .await
                .expect("accepted"),
        );
    }
    let served =
        // Their handshakes are given up after ten seconds.
        tokio::time::timeout(Duration::from_secs(8), is_served(&service, trusting(&ours))).await;
    assert_eq!(served, Ok(true), "while their handshakes are waited for");
    eventually(
        "the end of their time",
        Duration::from_secs(60),
        async || {
            (service.metric("tidemark_tls_handshakes_total{kind=\"slow\"}") == 200).then_some(())
        },
    )
    .await;
    let mut nothing = [0];
    assert_eq!(silent[0].read(&mut nothing).await.unwrap_or(0), 0, "closed");
}

fn redis_by_tls(files: &Files) -> Server {
    let (port, dir) = (free_port(), folder("redis").display().to_string());
    let args = [
        "--port",
        "0",
        "--tls-port",
        &port.to_string(),
        "--bind",
        "127.0.0.1",
        "--dir",
        &dir,
        "--save",
        "",
        "--appendonly",
        "no",
        "--tls-cert-file",
        &files.path("cert.pem"),
        "--tls-key-file",
        &files.path("key.pem"),
        "--tls-ca-cert-file",
        &files.path("ca.pem"),
        "--tls-auth-clients",
        "yes",
    ];
    Server::start(
        binary("redis-server"),
        port,
        args.iter().map(|arg| (*arg).to_owned()).collect(),
    )
}

fn redis_keys(files: &Files, port: u16) -> String {
    let [cert, key, ca] = ["cert.pem", "key.pem", "ca.pem"].map(|name| files.path(name));
    redis_cli(
        port,
        &[
            "--tls", "--cert", &cert, "--key", &key, "--cacert", &ca, "keys", "*",
        ],
    )
}

#[tokio::test]
async fn redis_by_tls_with_a_certificate_of_ours() {
    const TODOS: usize = 30;
    let name = |n: usize| format!("lists/home/todos/{n}");
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    let files = Files::new(&ours.sign());
    let ca = files.write("ca.pem", &ours.pem());
    let redis = redis_by_tls(&files);
    let (url, dir) = (
        format!("rediss://127.0.0.1:{}", redis.port),
        folder("data").display().to_string(),
    );
    let [cert, key] = ["cert.pem", "key.pem"].map(|name| files.path(name));
    let mine = [
        "--data-dir",
        &dir,
        "--redis-url",
        &url,
        "--redis-tls-cert",
        &cert,
        "--redis-tls-key",
        &key,
    ];
    let right = [&mine[..], &["--redis-tls-ca", &ca]].concat();
    let (service, mut client) = ready(Tidemark::start(&right)).await;
    eventually("Redis", Duration::from_secs(60), async || {
        (health(&service, "shared").await.ok()? == SERVING).then_some(())
    })
    .await;
    for n in 0..TODOS {
        create(&mut client, &n.to_string(), "Buy milk").await;
        get(&mut client, &name(n), strong()).await.expect("found");
    }
    eventually("an entry", Duration::from_secs(60), async || {
        redis_keys(&files, redis.port)
            .contains("lists/home")
            .then_some(())
    })
    .await;
    service.terminate();
    service.exit_code(Duration::from_secs(60)).await;
    // Another process, an empty near tier: the entry is used.
    let (service, mut client) = ready(Tidemark::start(&right)).await;
    let mut unread = (0..TODOS).map(name);
    eventually(
        "an answer from Redis",
        Duration::from_secs(60),
        async || {
            (health(&service, "shared").await.ok()? == SERVING).then_some(())?;
            // An answer of Redis that is too late is not used, and then the todo is near.
            let name = unread.next().expect("one of them comes from Redis");
            let read = get(&mut client, &name, None).await.ok()?.read?;
            (read.source() == Source::Shared).then_some(())
        },
    )
    .await;
    service.terminate();
    service.exit_code(Duration::from_secs(60)).await;

    // A server of an unknown authority is not spoken to.
    let unknown = files.write("other.pem", &other.pem());
    let (service, _client) = ready(Tidemark::start(
        &[&mine[..], &["--redis-tls-ca", &unknown]].concat(),
    ))
    .await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_ne!(health(&service, "shared").await.expect("known"), SERVING);
}

fn mongod_by_tls(files: &Files) -> Server {
    let (port, dir) = (free_port(), folder("mongod"));
    let args = [
        "--replSet",
        "tls",
        "--bind_ip",
        "127.0.0.1",
        "--port",
        &port.to_string(),
        "--dbpath",
        &dir.display().to_string(),
        "--logpath",
        &dir.join("log").display().to_string(),
        "--wiredTigerCacheSizeGB",
        "0.25",
        "--oplogSize",
        "100",
        "--quiet",
        "--nounixsocket",
        "--setParameter",
        "diagnosticDataCollectionEnabled=false",
        "--tlsMode",
        "requireTLS",
        "--tlsCertificateKeyFile",
        &files.path("both.pem"),
        "--tlsCAFile",
        &files.path("ca.pem"),
    ];
    Server::start(
        binary("mongod"),
        port,
        args.iter().map(|arg| (*arg).to_owned()).collect(),
    )
}

/// How a service ends that is started with these arguments.
async fn ends_with(args: &[&str]) -> (Option<i32>, String) {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_tidemark"));
    command
        .args([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--metrics-listen",
            "off",
        ])
        .args(args)
        .kill_on_drop(true);
    let out = tokio::time::timeout(Duration::from_secs(120), command.output()).await;
    let out = out.expect("an end").expect("run");
    (
        out.status.code(),
        String::from_utf8_lossy(&out.stderr).into_owned(),
    )
}

#[tokio::test]
async fn mongodb_by_tls_with_a_certificate_of_ours() {
    let ours = Authority::new("ours");
    let signed = ours.sign();
    let files = Files::new(&signed);
    let both = files.write("both.pem", &format!("{}{}", signed.cert, signed.key));
    let ca = files.write("ca.pem", &ours.pem());
    let mongod = mongod_by_tls(&files);
    let (host, tls) = (
        format!("127.0.0.1:{}", mongod.port),
        format!("tls=true&tlsCAFile={ca}&tlsCertificateKeyFile={both}"),
    );
    let config = doc! { "_id": "tls", "members": [{ "_id": 0, "host": &host }] };
    initiate(
        &format!("mongodb://{host}/?directConnection=true&{tls}"),
        config,
    )
    .await;
    let uri = format!("mongodb://{host}/secured?replicaSet=tls&{tls}");
    let (_service, mut client) = ready(Tidemark::start(&["--mongodb-uri", &uri])).await;
    let created = create(&mut client, "milk", "Buy milk").await;
    assert_eq!(
        title(&mut client, "lists/home/todos/milk", strong()).await,
        "Buy milk"
    );
    // The feed comes by TLS, too.
    let request = pb::WatchTodosRequest {
        parent: "lists/home".into(),
        start: Some(pb::watch_todos_request::Start::After(created.token)),
        ..Default::default()
    };
    let mut watch = client
        .watch_todos(request)
        .await
        .expect("a watch")
        .into_inner();
    watch
        .message()
        .await
        .expect("well")
        .expect("where it starts");
    retitle(&mut client, "lists/home/todos/milk", "Buy two").await;
    loop {
        let message = watch.message().await.expect("well").expect("a change");
        match message.event.expect("an event") {
            pb::watch_todos_response::Event::Progress(_) => {}
            pb::watch_todos_response::Event::Change(_) => break,
            other @ pb::watch_todos_response::Event::Reset(_) => panic!("{other:?}"),
        }
    }

    // Neither a server of an unknown authority is spoken to, nor does this one
    // speak to a client that shows no certificate.
    let unknown = files.write("other.pem", &Authority::new("other").pem());
    let wrong = [
        format!("tlsCAFile={unknown}&tlsCertificateKeyFile={both}"),
        format!("tlsCAFile={ca}"),
    ];
    let strangers = wrong.map(|files| {
        let uri = format!("mongodb://{host}/secured?replicaSet=tls&tls=true&{files}");
        Tidemark::start(&["--mongodb-uri", &uri])
    });
    tokio::time::sleep(Duration::from_secs(3)).await;
    for stranger in &strangers {
        assert_ne!(health(stranger, "readiness").await.expect("known"), SERVING);
    }

    assert!(Path::new(&ca).is_file());
    let missing = format!(
        "mongodb://{host}/secured?replicaSet=tls&tls=true&tlsCAFile={}",
        files.path("none.pem")
    );
    let (code, told) = ends_with(&["--mongodb-uri", &missing]).await;
    assert!(code == Some(1) && told.contains("none.pem"), "{told}");
}

/// Certificates that name each other as issuers would be tried in all orders, before the client
/// has proved anything.
#[tokio::test]
async fn long_chains_of_clients_are_not_worked_on() {
    let ours = Authority::new("ours");
    let files = Files::new(&ours.sign());
    let ca = files.write("ca.pem", &ours.pem());
    let service = serve(&files, &["--tls-client-ca", &ca]);
    ready_by_tls(&service, &showing(&ours, &ours.sign())).await;
    let others: Vec<_> = (0..40).map(|_| Authority::new("other")).collect();
    let chain = |count: usize| -> String { others[..count].iter().map(Authority::pem).collect() };
    // A few that are of no use are let pass.
    for (count, served) in [(0, true), (4, true), (5, false)] {
        let mut shown = ours.sign();
        shown.cert += &chain(count);
        let is_served = is_served(&service, showing(&ours, &shown)).await;
        assert_eq!(is_served, served, "{count} certificates behind the own");
    }
    let mut shown = others[0].sign();
    shown.cert += &chain(40);
    let before = cpu_seconds(&service);
    for _ in 0..10 {
        assert!(!is_served(&service, showing(&ours, &shown)).await);
    }
    // Half a second each if they are tried.
    let took = cpu_seconds(&service) - before;
    assert!(took < 1.0, "{took} s of CPU");
}

fn cpu_seconds(service: &Tidemark) -> f64 {
    let text = service.metrics_text();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("process_cpu_seconds_total "));
    line.expect("the metric").parse().expect("a number")
}
