//! What is looked at before an order is spent, and after one has failed: with a real BIND.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;

use fairlead_contract::write_atomically;
use fairlead_tests::{
    AcmePeer, AcmeScript, Answering, Authority, Environment, Loopback, Named, Pebble, PebbleSettings,
    Program, wait_until,
};

/// Uses the peer, and asks this server about names.
fn configure(environment: &Environment, peer: &AcmePeer, named: &Named) {
    let resolvers = format!("resolvers = [\"{}\"]\n", named.address());
    environment.write_config(&format!("{}{resolvers}", peer.settings()));
}

/// Uses Pebble, asks its server about names, and looks at ports before an order.
fn configure_checked(environment: &Environment, pebble: &Pebble, more: &str) {
    let settings = pebble.settings().replace("check-ports = false\n", "");
    let resolvers = format!("resolvers = [\"{}\"]\n", pebble.dns());
    environment.write_config(&format!("{settings}{resolvers}{more}"));
}

fn orders(peer: &AcmePeer) -> usize {
    let requests = peer.requests("/order");
    requests.iter().filter(|request| request.path == "/order").count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_leads_nowhere_costs_no_order_and_is_ordered_as_soon_as_it_leads_somewhere() {
    let environment = Environment::new();
    let peer = AcmePeer::start(&environment, AcmeScript::default()).await;
    let named = Named::start(&[("a.test", "@ A 127.0.0.1\nempty TXT x")], &[]);
    configure(&environment, &peer, &named);
    for host in ["a.test", "empty.a.test", "gone.test"] {
        environment.declare(&[host], "");
    }
    environment.failing_pass();
    assert_eq!(environment.ledger("a.test").failure, None);
    let remedy = "give it an A or AAAA record that leads to this machine";
    for (host, fault) in [
        ("empty.a.test", "has no address in the DNS"),
        ("gone.test", "is not in the DNS"),
    ] {
        let expected = format!("nothing was ordered: {host} {fault}; {remedy}");
        assert_eq!(environment.failure(host).error, expected);
        for command in [&["why", host][..], &["certs"]] {
            let told = environment.run(Program::Cli, command).stdout;
            assert!(told.contains(&expected), "{command:?}: {told}");
        }
    }
    let before = environment.failure("gone.test");
    environment.failing_pass();
    assert_eq!(environment.failure("gone.test"), before);
    assert_eq!(orders(&peer), 1);

    let named = Named::start(&[("a.test", "empty A 127.0.0.1"), ("gone.test", "@ A ::1")], &[]);
    configure(&environment, &peer, &named);
    environment.pass();
    assert_eq!(orders(&peer), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_that_caa_records_do_not_name_is_not_asked() {
    let environment = Environment::new();
    let script = AcmeScript {
        caa_identities: vec!["Peer.test"],
        ..AcmeScript::default()
    };
    let peer = AcmePeer::start(&environment, script).await;
    let a_zone = "@ A 127.0.0.1\nwww A 127.0.0.1\n@ CAA 0 issue \"other.test\"";
    let b_zone = "@ A 127.0.0.1\n@ CAA 0 issue \"other.test\"\n@ CAA 0 issue \"peer.test; policy=ev\"";
    let named = Named::start(&[("a.test", a_zone), ("b.test", b_zone)], &[]);
    configure(&environment, &peer, &named);
    environment.declare(&["www.a.test"], "");
    environment.declare(&["b.test"], "");
    environment.failing_pass();
    assert_eq!(environment.ledger("b.test").failure, None);
    let error = environment.failure("www.a.test").error;
    assert_eq!(
        error,
        "nothing was ordered: the CAA records of a.test let other.test issue for www.a.test, and this \
         authority is Peer.test; add a record for it, or ask another authority"
    );
    assert_eq!(orders(&peer), 1);

    // One that does not say what it is called may be the one that they mean.
    peer.change(|script| script.caa_identities.clear());
    environment.pass();
    assert_eq!(orders(&peer), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_orders_than_a_week_may_have_are_not_made_and_renewals_have_a_share_of_their_own() {
    let environment = Environment::new();
    let peer = AcmePeer::start(&environment, AcmeScript::default()).await;
    let allow = |orders: u32| {
        environment.write_config(&format!("{}orders-per-week = {orders}\n", peer.settings()));
    };
    allow(10);
    for number in 0..10 {
        environment.declare(&[&format!("n{number}.test")], "");
    }
    environment.failing_pass();
    assert_eq!(orders(&peer), 9);
    let number = (0..10).find(|number| environment.ledger(&format!("n{number}.test")).failure.is_some());
    let late = format!("n{}.test", number.expect("one is left out"));
    let error = environment.failure(&late).error;
    let expected = format!(
        "the 9 orders a week that are for such certificates at {} are spent; the next may be made from ",
        peer.directory()
    );
    assert!(error.starts_with(&expected), "{error}");
    let spent = format!("orders: 9 of 10 in seven days at {}", peer.directory());
    for command in ["certs", "status"] {
        let told = environment.run(Program::Cli, &[command]).stdout;
        assert!(told.contains(&spent), "{told}");
    }
    let why = |name: &str| environment.run(Program::Cli, &["why", name]).stdout;
    assert!(why(&late).contains(&expected), "{}", why(&late));

    // What serves is renewed all the same.
    let serving = if late == "n0.test" { "n1.test" } else { "n0.test" };
    let make_due = || {
        environment.change_ledger(serving, |ledger| {
            let issued = ledger.issued.as_mut().expect("there is a certificate");
            issued.revoked = Some(issued.at);
        });
    };
    make_due();
    environment.failing_pass();
    assert_eq!((orders(&peer), environment.ledger(serving).failure), (10, None));
    make_due();
    environment.failing_pass();
    assert_eq!(orders(&peer), 10);
    assert!(
        environment
            .failure(serving)
            .error
            .starts_with("the 10 orders a week")
    );
    let told = why(serving);
    assert!(
        told.contains("the 10 orders a week that are for such certificates"),
        "{told}"
    );

    // Nobody was asked, so there is nothing to wait for.
    allow(20);
    environment.pass();
    assert_eq!(orders(&peer), 12);

    let counts = environment.paths().orders_file();
    write_atomically(&counts, b"not TOML", 0o644).unwrap();
    environment.declare(&["more.test"], "");
    environment.failing_pass();
    let error = environment.failure("more.test").error;
    assert!(
        error.contains(&format!("remove the file to count anew: {}", counts.display())),
        "{error}"
    );
    assert_eq!(orders(&peer), 12);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_is_under_way_is_taken_up_whatever_became_of_its_name() {
    let environment = Environment::new();
    let script = AcmeScript {
        processing: Some("3600"),
        ..AcmeScript::default()
    };
    let peer = AcmePeer::start(&environment, script).await;
    let named = Named::start(&[("a.test", "@ A 127.0.0.1")], &[]);
    configure(&environment, &peer, &named);
    environment.declare(&["a.test"], "");
    environment.failing_pass();
    let without = Named::start(&[], &[]);
    configure(&environment, &peer, &without);
    peer.change(|script| script.processing = None);
    environment.end_waiting("a.test");
    environment.pass();
    assert_eq!(orders(&peer), 1);
}

/// A name that a Pebble cannot reach, because it asks at another port than those of a name.
struct Unreached {
    environment: Environment,
    named: Named,
    _pebble: Pebble,
}

impl Unreached {
    /// Every zone of BIND has this name, at the address of BIND itself.
    const HOST: &str = "ns.a.test";

    /// With more keys of `[acme]`.
    fn new(more: &str) -> Self {
        let environment = Environment::new();
        let named = Named::start(&[("a.test", "")], &[]);
        let mut settings = PebbleSettings::new(SocketAddr::new(named.address().ip(), 1));
        settings.dns = Some(named.address());
        let pebble = Pebble::start(settings);
        configure_checked(&environment, &pebble, more);
        environment.declare(&[Self::HOST], "");
        Self {
            environment,
            named,
            _pebble: pebble,
        }
    }

    /// What a pass says that it has seen itself.
    fn told(&self) -> String {
        self.environment.failing_pass();
        self.environment.end_waiting(Self::HOST);
        let error = self.environment.failure(Self::HOST).error;
        let (said, seen) = error.split_once("; seen from here, ").expect(&error);
        assert!(said.contains("the authority said: "), "{said}");
        seen.to_owned()
    }
}

#[test]
fn what_we_see_of_tls_alpn_is_what_the_authority_asks_for() {
    let unreached = Unreached::new("challenge = \"tls-alpn-01\"\n");
    let (environment, host, ip) = (
        &unreached.environment,
        Unreached::HOST,
        unreached.named.address().ip(),
    );
    let told = || unreached.told();
    let at = SocketAddr::new(ip, 443);
    let wait = || wait_until("port 443 to listen", || TcpStream::connect(at).is_ok());
    let seen = format!("{host} leads to {ip}, where at port 443 ");
    let nobody = told();
    assert!(nobody.starts_with(&format!("{seen}nobody answers (")), "{nobody}");

    environment.store("other.test", &Authority::new().issue(&["other.test"]));
    let pair = environment.certificate("other.test");
    let mut other = Command::new("openssl");
    other.args(["s_server", "-quiet", "-alpn", "acme-tls/1", "-accept"]);
    other.arg(at.to_string()).arg("-cert").arg(pair.chain_file());
    other.arg("-key").arg(pair.key_file());
    let other = environment.start(other);
    wait();
    let handshake = format!("{seen}no handshake of TLS-ALPN-01 succeeds (");
    let another = told();
    assert!(
        another.starts_with(&handshake) && another.contains("another server answers"),
        "{another}"
    );
    drop(other);

    let _proxy = environment.spawn(
        Program::Proxy,
        &["--http", "127.0.0.1:0", "--https", &at.to_string()],
    );
    wait();
    let ours = told();
    assert!(
        ours.starts_with(&format!(
            "{host} leads to {ip}, where port 443 answers as it should;"
        )),
        "{ours}"
    );
    let left = std::fs::read_dir(environment.paths().challenges_dir())
        .unwrap()
        .count();
    assert_eq!(left, 0);
}

#[test]
fn what_we_see_ourselves_explains_why_the_authority_saw_nothing() {
    let unreached = Unreached::new("");
    let (environment, host, ip) = (
        &unreached.environment,
        Unreached::HOST,
        unreached.named.address().ip(),
    );
    let told = || unreached.told();
    let seen = format!("{host} leads to {ip}, where at port 80 ");
    let nobody = told();
    assert!(nobody.starts_with(&format!("{seen}nobody answers (")), "{nobody}");
    let answering = Answering::start_at(environment, SocketAddr::new(ip, 80));
    assert_eq!(
        told(),
        format!(
            "{host} leads to {ip}, where port 80 answers as it should; what is in the way lies between there and \
             the authority"
        )
    );
    answering.refuse(host);
    assert_eq!(
        told(),
        format!("{seen}another server answers, with 404 Not Found")
    );
    drop(answering);
    // The kernel takes connections for it, as it does for a program that hangs.
    let hanging = TcpListener::bind((ip, 80)).unwrap();
    assert_eq!(told(), format!("{seen}nobody answers within 10 seconds"));
    drop(hanging);
    assert_eq!(
        std::fs::read_dir(environment.paths().challenges_dir())
            .unwrap()
            .count(),
        0
    );
}

/// A name that leads to an address of this machine that looks public, where Pebble validates.
struct Public {
    environment: Environment,
    address: Loopback,
    pebble: Pebble,
    _named: Named,
}

impl Public {
    const HOST: &str = "a.test";

    fn new() -> Self {
        let environment = Environment::new();
        let address = Loopback::public();
        let named = Named::start(&[("a.test", &format!("@ A {}", address.ip()))], &[]);
        let mut settings = PebbleSettings::new(SocketAddr::new(address.ip(), 80));
        settings.tls_port = 443;
        settings.dns = Some(named.address());
        let pebble = Pebble::start(settings);
        configure_checked(&environment, &pebble, "");
        environment.declare(&[Self::HOST], "");
        Self {
            environment,
            address,
            pebble,
            _named: named,
        }
    }

    fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.address.ip(), port)
    }

    /// Why a pass orders nothing, as all who tell of it say.
    fn obstacle(&self) -> String {
        let environment = &self.environment;
        environment.failing_pass();
        let error = environment.failure(Self::HOST).error;
        for command in [&["why", Self::HOST][..], &["certs"]] {
            let told = environment.run(Program::Cli, command).stdout;
            assert!(told.contains(&error), "{command:?}: {told}");
        }
        assert_eq!(environment.failure(Self::HOST).issuer, None);
        error
    }
}

#[test]
fn a_port_of_this_machine_s_public_address_that_is_another_server_s_costs_no_order() {
    let public = Public::new();
    let (environment, ip) = (&public.environment, public.address.ip());
    configure_checked(environment, &public.pebble, "challenge = \"http-01\"\n");
    let seen = format!("nothing was ordered: a.test leads to {ip}, where at port 80 ");
    let remedy = "this machine has no other address for it, so the authority would see the same: leave port 80 to \
                  fairlead-proxy, or write \"check-ports = false\" beside the directory in fairlead.toml if what \
                  comes from outside takes another way";
    let nobody = public.obstacle();
    assert!(
        nobody.starts_with(&format!("{seen}nobody answers (")) && nobody.ends_with(remedy),
        "{nobody}"
    );
    let answering = Answering::start_at(environment, public.at(80));
    answering.refuse(Public::HOST);
    let other = format!("{seen}another server answers, with 404 Not Found; {remedy}");
    assert_eq!(public.obstacle(), other);
    assert_eq!(public.pebble.orders(), 0);

    let unchecked = "challenge = \"http-01\"\ncheck-ports = false\n";
    configure_checked(environment, &public.pebble, unchecked);
    environment.failing_pass();
    assert_eq!(public.pebble.orders(), 1);

    configure_checked(environment, &public.pebble, "");
    environment.end_waiting(Public::HOST);
    answering.admit(Public::HOST);
    environment.pass();
    assert_eq!(public.pebble.orders(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_also_leads_elsewhere_is_ordered_whatever_the_port_here_says() {
    let environment = Environment::new();
    let peer = AcmePeer::start(&environment, AcmeScript::default()).await;
    let address = Loopback::public();
    let zone = format!("own A {ip}\nboth A {ip}\nboth A 127.0.0.1", ip = address.ip());
    let named = Named::start(&[("a.test", &zone)], &[]);
    let settings = peer.settings().replace("check-ports = false\n", "");
    let resolvers = format!("resolvers = [\"{}\"]\n", named.address());
    environment.write_config(&format!("{settings}{resolvers}"));
    for host in ["own.a.test", "both.a.test"] {
        environment.declare(&[host], "");
    }
    environment.failing_pass();
    assert_eq!(environment.ledger("both.a.test").failure, None);
    assert_eq!(environment.failure("own.a.test").issuer, None);
    assert_eq!(orders(&peer), 1);
}

#[test]
fn of_the_challenges_that_may_be_answered_the_one_is_whose_port_is_ours() {
    let public = Public::new();
    let other = Answering::start_at(&public.environment, public.at(80));
    other.refuse(Public::HOST);
    let obstacle = public.obstacle();
    assert!(obstacle.contains("port 80 another server answers"), "{obstacle}");
    let at = public.at(443);
    let _proxy = public.environment.spawn(
        Program::Proxy,
        &["--http", "127.0.0.1:0", "--https", &at.to_string()],
    );
    wait_until("port 443 to listen", || TcpStream::connect(at).is_ok());
    public.environment.pass();
    assert_eq!(public.pebble.orders(), 1);
}
