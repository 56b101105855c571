//! Client certificates.

use rcgen::SanType;
use tidemark::grpc::client::todo_service_client::TodoServiceClient;
use tonic::transport::{Certificate, Channel, ClientTlsConfig};

use super::{keys::new_key, *};
use crate::tls::{Authority, Files, Signed, ready_by_tls, serve, showing};

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().expect("ASCII"))
}

fn dns(text: &str) -> SanType {
    SanType::DnsName(text.try_into().expect("ASCII"))
}

async fn connect_by(service: &Tidemark, tls: ClientTlsConfig) -> Result<Client, String> {
    let endpoint = Channel::from_shared(service.address.clone()).expect("an address");
    let endpoint = endpoint.tls_config(tls).expect("a configuration");
    let channel = endpoint.connect().await.map_err(|e| e.to_string())?;
    Ok(TodoServiceClient::new(channel))
}

struct Setup {
    ours: Authority,
    files: Files,
    ca: String,
}

impl Setup {
    fn new() -> Self {
        let ours = Authority::new("ours");
        let files = Files::new(&ours.sign());
        let ca = files.write("ca.pem", &ours.pem());
        Self { ours, files, ca }
    }

    /// A service that knows the authority's clients, ready.
    async fn serve(&self, more: &[&str]) -> Tidemark {
        let service = serve(
            &self.files,
            &[&["--tls-client-ca", &self.ca], more].concat(),
        );
        ready_by_tls(&service, &showing(&self.ours, &self.ours.sign())).await;
        service
    }

    async fn judge(&self, service: &Tidemark, signed: &Signed) -> Result<(), String> {
        let mut client = connect_by(service, showing(&self.ours, signed)).await?;
        judged(&mut client, &[]).await
    }
}

const WEB: &str = "spiffe://todos.example/ns/web/sa/front";

#[tokio::test]
async fn the_name_in_the_certificate_is_the_caller() {
    let setup = Setup::new();
    let names = "spiffe://todos.example/ns/web/*,batch.example";
    let admin = ["--admin", WEB];
    let auth = ["--auth", "mtls", "--tls-client-names", names];
    let service = setup.serve(&[&auth[..], &admin].concat()).await;
    let sign = |names: Vec<SanType>| setup.ours.sign_names(names);
    for right in [
        vec![uri(WEB)],
        vec![dns("other.example"), uri(WEB)],
        vec![dns("batch.example"), dns("other.example")],
    ] {
        assert_eq!(setup.judge(&service, &sign(right)).await, Ok(()));
    }
    for wrong in [
        vec![],
        vec![uri("spiffe://todos.example/ns/webb/sa/x")],
        vec![uri("spiffe://evil.example/ns/web/sa/x"), uri(WEB)],
        vec![dns("other.example"), dns("batch.example")],
        vec![uri("spiffe://other"), dns("batch.example")],
    ] {
        let judged = setup.judge(&service, &sign(wrong.clone())).await;
        assert_eq!(judged, why("certificate"), "{wrong:?}");
    }
    // Of another authority, or none at all: TLS itself refuses.
    let other = Authority::new("other").sign_names(vec![uri(WEB)]);
    assert!(setup.judge(&service, &other).await.is_err());
    let ca = Certificate::from_pem(setup.ours.pem());
    let without = connect_by(&service, ClientTlsConfig::new().ca_certificate(ca)).await;
    if let Ok(mut client) = without {
        assert!(client.list_todos(a_page()).await.is_err());
    }
    // A header of a kind that is off is no way around.
    let right = showing(&setup.ours, &sign(vec![uri(WEB)]));
    let mut client = connect_by(&service, right).await.expect("connected");
    assert_eq!(judged_bearer(&mut client, "tmk_x").await, why("malformed"));
}

#[tokio::test]
async fn without_a_list_every_named_certificate_may_call() {
    let setup = Setup::new();
    let service = setup.serve(&["--auth", "mtls"]).await;
    assert_eq!(setup.judge(&service, &setup.ours.sign()).await, Ok(()));
    let nameless = setup.ours.sign_names(vec![]);
    assert_eq!(setup.judge(&service, &nameless).await, why("certificate"));
}

#[tokio::test]
async fn with_keys_a_certificate_is_optional_and_the_header_decides() {
    let setup = Setup::new();
    let folder = Folder::new();
    let (key, line) = new_key("user:ada");
    let keys = folder.write("keys", &line);
    let auth = ["--auth", "mtls,keys", "--keys-file", &keys];
    let service = setup.serve(&auth).await;
    let ca = Certificate::from_pem(setup.ours.pem());
    let without = ClientTlsConfig::new().ca_certificate(ca);
    let mut client = connect_by(&service, without).await.expect("connected");
    assert_eq!(judged(&mut client, &[]).await, why("missing"));
    assert_eq!(judged_bearer(&mut client, &key).await, Ok(()));
    let named = showing(&setup.ours, &setup.ours.sign_names(vec![uri(WEB)]));
    let mut client = connect_by(&service, named).await.expect("connected");
    assert_eq!(judged(&mut client, &[]).await, Ok(()));
    assert_eq!(judged_bearer(&mut client, &key).await, Ok(()));
    assert_eq!(judged_bearer(&mut client, "tmk_x").await, why("key"));
    assert_eq!(judged(&mut client, &[]).await, Ok(()));

    // A list of names is a condition for every certificate.
    let service = setup
        .serve(&[&auth[..], &["--tls-client-names", WEB]].concat())
        .await;
    let named = showing(
        &setup.ours,
        &setup.ours.sign_names(vec![uri("spiffe://other")]),
    );
    let mut client = connect_by(&service, named).await.expect("connected");
    assert_eq!(judged_bearer(&mut client, &key).await, why("certificate"));
}

#[tokio::test]
async fn an_authority_without_mtls_stays_a_condition_only() {
    let setup = Setup::new();
    let folder = Folder::new();
    let (key, line) = new_key("user:ada");
    let keys = folder.write("keys", &line);
    let service = setup.serve(&["--auth", "keys", "--keys-file", &keys]).await;
    let ca = Certificate::from_pem(setup.ours.pem());
    let without = connect_by(&service, ClientTlsConfig::new().ca_certificate(ca)).await;
    if let Ok(mut client) = without {
        assert_ne!(judged_bearer(&mut client, &key).await, Ok(()));
        assert!(client.list_todos(a_page()).await.is_err());
    }
    let named = showing(&setup.ours, &setup.ours.sign_names(vec![uri(WEB)]));
    let mut client = connect_by(&service, named).await.expect("connected");
    assert_eq!(judged(&mut client, &[]).await, why("missing"));
    assert_eq!(judged_bearer(&mut client, &key).await, Ok(()));
}
