//! What authentication and rights cost: the same calls with `--auth off` and by a
//! caller with an API key, a member of every list.

use prost::Message as _;
use tidemark::pb::{self, Role};
use tonic::{Request, metadata::MetadataValue};

use super::{
    Bench,
    load::{Calls, Pace},
    near::{
        CONNECTIONS, NEAR_TODOS, OUTSTANDING, Side, cpu, gets, in_turns, p99, pages, ratio, spread,
        zipf,
    },
    servers::{LIST_SIZE, Running, Tiers, block_on, embedded, list_name, todo_name, warm, warm_as},
    support::folder,
};

/// The caller's key, and the administrator's, who shares the lists.
const KEY: &str = "tmk_bob-0123456789abcdef0123456789abcdef01234567";
const ADMIN_KEY: &str = "tmk_root-0123456789abcdef0123456789abcdef0123456";
/// Writes wait for the disk: so many keep it busy.
const WRITES: usize = 32;

/// `--auth keys` and the rest that a server with callers needs.
fn with_keys() -> Vec<String> {
    let hash = |key: &str| blake3::hash(key.as_bytes()).to_hex();
    let lines = format!("bob = {}\nroot = {}\n", hash(KEY), hash(ADMIN_KEY));
    let file = folder("bench-keys").join("keys");
    std::fs::write(&file, lines).expect("written");
    let file = file.display().to_string();
    ["--auth", "keys", "--keys-file", &file, "--admin", "root"]
        .map(String::from)
        .to_vec()
}

fn serve(origin: &[&str], access: &[String]) -> Running {
    let access = access.iter().map(String::as_str);
    let args: Vec<&str> = origin.iter().copied().chain(access).collect();
    Running::tidemark(&args)
}

/// Bob may write every list.
fn share(server: &Running) {
    block_on(async {
        let mut client = server.client().await;
        let bearer = format!("Bearer {ADMIN_KEY}");
        let bearer: MetadataValue<_> = bearer.parse().expect("a header");
        for list in 0..NEAR_TODOS / LIST_SIZE {
            let mut request = Request::new(pb::CreateTodoListRequest {
                todo_list: Some(pb::TodoList {
                    members: [("bob".to_owned(), Role::Writer.into())].into(),
                    ..Default::default()
                }),
                todo_list_id: list_name(list).replace("lists/", ""),
                ..Default::default()
            });
            let metadata = request.metadata_mut();
            metadata.insert("authorization", bearer.clone());
            client.create_todo_list(request).await.expect("shared");
        }
    });
}

/// Each todo gets another title, and then the first one again.
pub fn updates() -> Calls {
    let request = |(title, number): (&str, usize)| {
        let todo = pb::Todo {
            name: todo_name(number),
            title: title.into(),
            ..Default::default()
        };
        pb::UpdateTodoRequest {
            todo: Some(todo),
            ..Default::default()
        }
        .encode_to_vec()
    };
    let both = ["one title", "another"];
    let all = both
        .into_iter()
        .flat_map(|title| (0..NEAR_TODOS).map(move |number| (title, number)));
    Calls {
        method: "UpdateTodo",
        requests: all.map(request).collect(),
        order: (0..2 * NEAR_TODOS)
            .map(|at| u32::try_from(at).expect("few"))
            .collect(),
    }
}

impl Bench {
    /// Near hit, page of 50 and update, without and with rights.
    pub fn access(&mut self) {
        let dirs = [0, 1].map(|_| embedded(NEAR_TODOS, 400).display().to_string());
        let off = serve(&["--data-dir", &dirs[0]], &[]);
        let on = serve(&["--data-dir", &dirs[1]], &with_keys());
        share(&on);
        warm(&off, NEAR_TODOS);
        warm_as(Some(KEY), &on, NEAR_TODOS);
        self.pair(
            (&off, &on),
            "GetTodo, near hit, with a right: CPU",
            &|| gets(NEAR_TODOS, zipf(NEAR_TODOS)),
            OUTSTANDING,
            Some(1.05),
        );
        self.pair(
            (&off, &on),
            "ListTodos, page of 50, near, with a right: CPU",
            &|| pages(NEAR_TODOS / LIST_SIZE),
            16,
            Some(1.05),
        );
        self.pair(
            (&off, &on),
            "UpdateTodo, embedded, with a right: CPU",
            &updates,
            WRITES,
            None,
        );
        drop((off, on));
        let tiers = Tiers::start();
        tiers.fill(NEAR_TODOS, 400);
        let (uri, url) = (tiers.uri(), tiers.redis_url());
        let origin = ["--mongodb-uri", &uri, "--redis-url", &url];
        let off = serve(&origin, &[]);
        let on = serve(&origin, &with_keys());
        share(&on);
        self.pair(
            (&off, &on),
            "UpdateTodo, MongoDB, with a right: CPU",
            &updates,
            WRITES,
            None,
        );
    }

    /// Both servers in turns; the CPU of the second is to be at most `most` times the
    /// first's.
    fn pair(
        &mut self,
        (off, on): (&Running, &Running),
        work: &'static str,
        calls: &dyn Fn() -> Calls,
        outstanding: usize,
        most: Option<f64>,
    ) {
        let mut sides = [
            Side::new("off", off, CONNECTIONS, calls()),
            Side::of(Some(KEY), "keys", on, CONNECTIONS, calls()),
        ];
        let pace = Pace::Outstanding(outstanding);
        let all = in_turns(&mut sides, pace, self.form.round, self.form.rounds);
        let ratios = ratio(&all[1], &all[0], cpu);
        self.report.row(
            work,
            match most {
                Some(most) => format!("<= {most:.2} x `--auth off`"),
                None => "none: what the check costs".into(),
            },
            format!(
                "{ratios} x; {} us against {} us; p99 {} ms against {} ms",
                spread(&all[1], cpu),
                spread(&all[0], cpu),
                spread(&all[1], p99),
                spread(&all[0], p99)
            ),
            most.is_none_or(|most| ratios.median <= most),
        );
    }
}
