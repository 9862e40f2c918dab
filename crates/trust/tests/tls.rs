//! Who is let in, and who is not.
#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use evenkeel_model::name::{HostName, SystemName};
use evenkeel_trust::authority::Authority;
use evenkeel_trust::credentials::{Credentials, Key};
use evenkeel_trust::identity::Subject;
use evenkeel_trust::join::{self, PinError};
use evenkeel_trust::renewal::{GRACE, HOST_LIFE, Validity};
use evenkeel_trust::request::PublicKey;
use evenkeel_trust::stream::Stream;
use evenkeel_trust::tls::{Caller, Members, Scope, Trust};
use evenkeel_trust::token::{Secret, Token};
use rustls::pki_types::UnixTime;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn system() -> SystemName {
    SystemName::parse("shop").unwrap()
}

fn host(name: &str) -> HostName {
    HostName::parse(name).unwrap()
}

fn members() -> Members {
    BTreeMap::from([(host("a1"), LOOPBACK), (host("b1"), IpAddr::from([127, 0, 0, 2]))])
}

fn authority() -> Authority {
    Authority::create(&system(), UnixTime::now()).unwrap()
}

fn trust(authority: &Authority, name: &str) -> Trust {
    trust_as(authority, &Subject::Host(host(name)))
}

fn trust_as(authority: &Authority, subject: &Subject) -> Trust {
    let credentials = authority.equip(subject, UnixTime::now(), HOST_LIFE).unwrap();
    Trust::new(&system(), credentials, members(), Scope::Everywhere).unwrap()
}

/// Makes credentials whose life began `age` ago and lasted for `life`.
fn aged(authority: &Authority, name: &str, begin: UnixTime, life: Duration) -> Credentials {
    let key = Key::generate().unwrap();
    let end = UnixTime::since_unix_epoch(Duration::from_secs(begin.as_secs()) + life);
    let validity = Validity { begin, end };
    let subject = Subject::Host(host(name));
    let certificate = authority.issue(&subject, &PublicKey::of(&key), validity).unwrap();
    Credentials::new(&key, certificate, authority.certificate().clone())
}

fn ago(time: Duration) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(UnixTime::now().as_secs()) - time)
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((LOOPBACK, 0)).await.unwrap();
    let connecting = TcpStream::connect(listener.local_addr().unwrap());
    let (client, accepted) = tokio::join!(connecting, listener.accept());
    (client.unwrap(), accepted.unwrap().0)
}

/// Connects to `b1` and sends a byte each way.
async fn talk(client: &Trust, server: &Trust) -> io::Result<(Stream, Stream, HostName)> {
    let (outgoing, incoming) = pair().await;
    let name = host("b1");
    let calling = async {
        let mut stream = client.connect(outgoing, &name).await?;
        stream.write_all(b"?").await?;
        stream.flush().await?;
        assert_eq!(stream.read_u8().await?, b'!');
        Ok::<_, io::Error>(stream)
    };
    let answering = async {
        let (mut stream, caller) = server.accept(incoming).await?;
        assert_eq!(stream.read_u8().await?, b'?');
        stream.write_all(b"!").await?;
        stream.flush().await?;
        Ok::<_, io::Error>((stream, caller))
    };
    let (called, answered) = tokio::join!(calling, answering);
    let (incoming, caller) = answered?;
    Ok((called?, incoming, caller))
}

#[tokio::test]
async fn hosts_of_a_system_know_each_other() {
    let authority = authority();
    let (_, _, caller) = talk(&trust(&authority, "a1"), &trust(&authority, "b1")).await.unwrap();
    assert_eq!(caller, host("a1"));
}

#[tokio::test]
async fn an_authority_is_the_same_after_it_was_read() {
    let first = authority();
    let again = Authority::from_pem(&first.to_pem(), &system()).unwrap();
    assert_eq!(first.fingerprint(), again.fingerprint());
    talk(&trust(&first, "a1"), &trust(&again, "b1")).await.unwrap();
}

#[track_caller]
fn check_refused(outcome: io::Result<(Stream, Stream, HostName)>, expected: &str) {
    let refused = outcome.unwrap_err().to_string();
    assert!(refused.contains(expected), "{refused}");
}

#[tokio::test]
async fn whoever_does_not_belong_here_is_refused() {
    let (own, other) = (authority(), authority());
    let b1 = trust(&own, "b1");
    // The server is of another authority, then the client is.
    check_refused(talk(&trust(&own, "a1"), &trust(&other, "b1")).await, "UnknownCA");
    let mut foreign = trust_as(&other, &Subject::Host(host("a1")));
    check_refused(talk(&foreign, &b1).await, "UnknownCA");
    // Another host answers.
    check_refused(talk(&trust(&own, "b1"), &trust(&own, "a1")).await, "BadCertificate");
    // The host is no longer, or not yet, in the system file.
    check_refused(talk(&trust(&own, "c1"), &b1).await, "host `c1` is not in the system file");
    // An operator is no host.
    foreign = trust_as(&own, &Subject::Operator(host("drill")));
    check_refused(talk(&foreign, &b1).await, "is no host");
}

#[tokio::test]
async fn who_says_nothing_of_itself_is_no_host() {
    let authority = authority();
    let b1 = trust(&authority, "b1");
    let token = token(&authority);
    let (outgoing, incoming) = pair().await;
    let (_, refused) = tokio::join!(join::connect(outgoing, &token), b1.accept(incoming));
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("peer sent no certificates"), "{refused}");

    let (outgoing, incoming) = pair().await;
    let (joining, taken) =
        tokio::join!(join::connect(outgoing, &token), b1.accept_anyone(incoming));
    joining.unwrap();
    assert_eq!(taken.unwrap().1, Caller::Stranger);

    let (mut outgoing, incoming) = pair().await;
    outgoing.write_all(b"GET / HTTP/1.1\r\nhost: b1\r\n\r\n").await.unwrap();
    assert!(b1.accept(incoming).await.is_err());
}

fn token(authority: &Authority) -> Token {
    Token {
        authority: authority.fingerprint(),
        secret: Secret::generate().unwrap(),
        system: system(),
        host: host("c1"),
        addresses: Vec::new(),
    }
}

#[tokio::test]
async fn a_token_leads_to_its_own_system_alone() {
    let (own, other) = (authority(), authority());
    let (outgoing, incoming) = pair().await;
    let token = token(&own);
    let b1 = trust(&other, "b1");
    let (refused, _) = tokio::join!(join::connect(outgoing, &token), b1.accept_anyone(incoming));
    assert!(matches!(refused, Err(PinError::OtherSystem(_))), "{refused:?}");

    let key = Key::generate().unwrap();
    let validity = Validity::starting(UnixTime::now(), HOST_LIFE);
    let check = |authority: &Authority, name: &str, expected: bool| {
        let subject = Subject::Host(host(name));
        let certificate = authority.issue(&subject, &PublicKey::of(&key), validity).unwrap();
        let answer = join::certificates_to_text(&certificate, authority.certificate());
        assert_eq!(join::accept_answer(&key, &token, &answer).is_some(), expected);
    };
    check(&own, "c1", true);
    check(&own, "a1", false);
    check(&other, "c1", false);
}

#[tokio::test]
async fn a_certificate_that_has_ended_takes_nobody_down() {
    let authority = authority();
    let check = async |begin: UnixTime, expected: bool| {
        let aged = |name| {
            let credentials = aged(&authority, name, begin, DAY);
            Trust::new(&system(), credentials, members(), Scope::Everywhere).unwrap()
        };
        let fresh = trust(&authority, "a1");
        let outcome = talk(&fresh, &aged("b1")).await.map(drop);
        assert_eq!(outcome.is_ok(), expected, "{outcome:?}");
        let outcome = talk(&aged("a1"), &trust(&authority, "b1")).await.map(drop);
        assert_eq!(outcome.is_ok(), expected, "{outcome:?}");
    };
    // Over for a day, for almost as long as is borne, for longer.
    check(ago(DAY * 2), true).await;
    check(ago(DAY + GRACE - Duration::from_secs(600)), true).await;
    check(ago(DAY * 2 + GRACE), false).await;
    // The clock of whoever made it was ahead, by days and by years.
    let ahead =
        |time| UnixTime::since_unix_epoch(Duration::from_secs(UnixTime::now().as_secs()) + time);
    check(ahead(DAY * 2), true).await;
    check(ahead(DAY * 4000), true).await;
}

#[tokio::test]
async fn a_certificate_is_replaced_under_open_connections() {
    let authority = authority();
    let (a1, b1) = (trust(&authority, "a1"), trust(&authority, "b1"));
    let (mut open, mut other, _) = talk(&a1, &b1).await.unwrap();
    let before = b1.validity().unwrap();
    for (trust, name) in [(&a1, "a1"), (&b1, "b1")] {
        trust.replace(aged(&authority, name, ago(DAY), DAY * 9)).unwrap();
    }
    let validity = b1.validity().unwrap();
    assert_ne!(before, validity);
    assert_eq!(validity.end.as_secs() - validity.begin.as_secs(), DAY.as_secs() * 9);
    open.write_all(b"still there").await.unwrap();
    open.flush().await.unwrap();
    let mut heard = [0; 11];
    other.read_exact(&mut heard).await.unwrap();
    talk(&a1, &b1).await.unwrap();

    let foreign = self::authority();
    assert!(a1.replace(aged(&foreign, "a1", ago(DAY), DAY * 9)).is_err());
    talk(&a1, &b1).await.unwrap();
}

#[tokio::test]
async fn a_host_that_was_removed_is_refused_from_then_on() {
    let authority = authority();
    let (a1, b1) = (trust(&authority, "a1"), trust(&authority, "b1"));
    talk(&a1, &b1).await.unwrap();
    b1.set_members(BTreeMap::from([(host("b1"), LOOPBACK)]));
    check_refused(talk(&a1, &b1).await, "host `a1` is not in the system file");
}

#[tokio::test]
async fn the_host_at_an_address_is_the_one_that_is_wanted() {
    let authority = authority();
    let (a1, b1) = (trust(&authority, "a1"), trust(&authority, "b1"));
    // At this address is `a1`, as far as the client knows.
    let (outgoing, incoming) = pair().await;
    let (connected, _) = tokio::join!(b1.connect_to_member(outgoing), a1.accept(incoming));
    connected.unwrap();
    a1.set_members(BTreeMap::new());
    let (outgoing, _incoming) = pair().await;
    let refused = a1.connect_to_member(outgoing).await.unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::NotFound);
}
