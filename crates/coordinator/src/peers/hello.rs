//! The first words on a link: both sides must belong together before a message counts.

use std::io;
use std::time::Duration;

use evenkeel_consensus::lineage::Lineage;
use evenkeel_model::name::HostName;
use evenkeel_trust::stream::Stream;
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Identity;
use super::frame;
use crate::options;

/// The version of everything on a link.
const FORMAT: u32 = 3;
const MAGIC: &[u8; 4] = b"EKpl";
const HELLO_MAX: usize = 4 << 10;
/// Time for the first words.
const HELLO_TIMEOUT: Duration = Duration::from_secs(2);

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub(super) enum Channel {
    /// Not said.
    Unset = 0,
    /// Messages in order.
    Messages = 1,
    /// One snapshot.
    Bulk = 2,
}

/// What the connecting side says first.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct Hello {
    #[prost(uint32, tag = "1")]
    format: u32,
    #[prost(string, tag = "2")]
    system: String,
    #[prost(string, tag = "3")]
    pub(super) host: String,
    #[prost(uint64, tag = "4")]
    pub(super) member: u64,
    #[prost(enumeration = "Channel", tag = "6")]
    channel: i32,
    /// Whom it wants to reach.
    #[prost(uint64, tag = "7")]
    to: u64,
    /// Of its state; absent while it has none.
    #[prost(uint64, optional, tag = "8")]
    lineage: Option<u64>,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct Welcome {
    /// Why not; absent when accepted.
    #[prost(string, optional, tag = "1")]
    refusal: Option<String>,
    /// Of the answering side's state; absent while it has none, and for whoever does not belong here.
    #[prost(uint64, optional, tag = "2")]
    lineage: Option<u64>,
}

/// Says the first words and waits for the welcome.
///
/// # Errors
/// The inner one is why the other side refused.
pub(super) async fn introduce(
    stream: &mut Stream,
    identity: &Identity,
    to: u64,
    channel: Channel,
) -> io::Result<Result<(), String>> {
    let hello = Hello {
        format: FORMAT,
        system: identity.system.to_string(),
        host: identity.host.to_string(),
        member: identity.member.0,
        channel: channel.into(),
        to,
        lineage: identity.succession.own().map(|own| own.0),
    };
    let mut bytes = MAGIC.to_vec();
    frame::append(&mut bytes, &hello.encode_to_vec());
    let exchange = async {
        stream.write_all(&bytes).await?;
        stream.flush().await?;
        let welcome = frame::read(stream, HELLO_MAX).await?;
        let welcome = Welcome::decode(welcome.as_slice()).map_err(io::Error::other)?;
        identity.succession.hear(welcome.lineage.map(Lineage));
        Ok(welcome.refusal.map_or(Ok(()), Err))
    };
    within(exchange).await
}

/// Hears the first words and answers them; `caller` is the host that the other side has proved to
/// be, if it had to.
///
/// # Errors
/// The inner one is why this side refused.
pub(super) async fn welcome(
    stream: &mut Stream,
    identity: &Identity,
    caller: Option<&HostName>,
    is_known: impl Fn(u64) -> bool,
) -> io::Result<Result<(Hello, Channel), String>> {
    let exchange = async {
        let mut magic = [0; MAGIC.len()];
        stream.read_exact(&mut magic).await?;
        if magic != *MAGIC {
            return Err(frame::invalid("not a voter's connection".to_owned()));
        }
        let hello = frame::read(stream, HELLO_MAX).await?;
        let hello = Hello::decode(hello.as_slice()).map_err(io::Error::other)?;
        let stranger = refusal(&hello, identity, caller, is_known);
        // A stranger must not learn it: a member that took another system's for a later one of its
        // own would give up its log.
        let lineage = identity.succession.own().filter(|_| stranger.is_none());
        let refusal = stranger.or_else(|| refuse_lineage(&hello, identity));
        let mut bytes = Vec::new();
        let welcome = Welcome { refusal: refusal.clone(), lineage: lineage.map(|own| own.0) };
        frame::append(&mut bytes, &welcome.encode_to_vec());
        stream.write_all(&bytes).await?;
        stream.flush().await?;
        let channel = hello.channel();
        Ok(refusal.map_or(Ok((hello, channel)), Err))
    };
    within(exchange).await
}

async fn within<T>(exchange: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(HELLO_TIMEOUT, exchange).await.unwrap_or_else(|_| {
        Err(io::Error::new(io::ErrorKind::TimedOut, "no introduction within 2 s"))
    })
}

fn refusal(
    hello: &Hello,
    identity: &Identity,
    caller: Option<&HostName>,
    is_known: impl Fn(u64) -> bool,
) -> Option<String> {
    let Identity { system, host, member, .. } = identity;
    if hello.format != FORMAT {
        return Some(format!("format {} is not {FORMAT}, the format of `{host}`", hello.format));
    }
    if hello.system != system.as_str() {
        return Some(format!("`{host}` belongs to system `{system}`, not to `{}`", hello.system));
    }
    if let Some(caller) = caller
        && (hello.host != caller.as_str() || hello.member != options::member(caller).0)
    {
        return Some(format!("host `{caller}` says that it is `{}`", hello.host));
    }
    if hello.to != member.0 {
        return Some(format!("another host is looked for, this is `{host}`"));
    }
    if !is_known(hello.member) {
        return Some(format!("`{}` is not in the system file of `{host}`", hello.host));
    }
    (hello.channel() == Channel::Unset).then(|| "the connection's purpose is missing".to_owned())
}

/// Refuses a member of this system whose state is of another lineage, and takes note of that.
fn refuse_lineage(hello: &Hello, identity: &Identity) -> Option<String> {
    let theirs = hello.lineage.map(Lineage);
    let may_speak = identity.succession.hear(theirs);
    (!may_speak).then(|| {
        let [own, theirs] = [identity.succession.own(), theirs].map(Option::unwrap_or_default);
        format!("the log of `{}` is of lineage {theirs}, not {own}", hello.host)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_consensus::settings::MemberId;
    use evenkeel_model::name::{HostName, SystemName};

    use crate::peers::Succession;

    fn check(change: impl FnOnce(&mut Hello), expected: Option<&str>) {
        check_from(None, change, expected);
    }

    fn check_from(caller: Option<&str>, change: impl FnOnce(&mut Hello), expected: Option<&str>) {
        let caller = caller.map(|caller| HostName::parse(caller).unwrap());
        let identity = Identity {
            system: SystemName::parse("shop").unwrap(),
            host: HostName::parse("fra-a1").unwrap(),
            member: MemberId(1),
            trust: None,
            succession: Succession::new(Some(Lineage(5))),
        };
        let mut hello = Hello {
            format: FORMAT,
            system: "shop".to_owned(),
            host: "ams-a1".to_owned(),
            member: 2,
            channel: Channel::Messages.into(),
            to: 1,
            lineage: Some(5),
        };
        change(&mut hello);
        let known = [2, options::member(&HostName::parse("ams-a1").unwrap()).0];
        let refusal = refusal(&hello, &identity, caller.as_ref(), |member| known.contains(&member));
        assert_eq!(refusal.as_deref(), expected);
    }

    #[test]
    fn refuses_whoever_does_not_belong_here() {
        check(|_| (), None);
        check(|hello| hello.format = 1, Some("format 1 is not 3, the format of `fra-a1`"));
        check(
            |hello| hello.system = "blog".to_owned(),
            Some("`fra-a1` belongs to system `shop`, not to `blog`"),
        );
        check(|hello| hello.to = 5, Some("another host is looked for, this is `fra-a1`"));
        let unknown = Some("`ams-a1` is not in the system file of `fra-a1`");
        check(|hello| hello.member = 5, unknown);
        check(|hello| hello.channel = 0, Some("the connection's purpose is missing"));
    }

    #[test]
    fn refuses_a_host_that_says_it_is_another() {
        let own = options::member(&HostName::parse("ams-a1").unwrap()).0;
        check_from(Some("ams-a1"), |hello| hello.member = own, None);
        let lies = Some("host `ams-a1` says that it is `waw-a1`");
        check_from(Some("ams-a1"), |hello| hello.host = "waw-a1".to_owned(), lies);
        // The name is its own, the member is not.
        let lies = Some("host `ams-a1` says that it is `ams-a1`");
        check_from(Some("ams-a1"), |_| (), lies);
    }

    fn member(system: &str, host: &str, lineage: u64) -> Identity {
        let host = HostName::parse(host).unwrap();
        let succession = Succession::new(Some(Lineage(lineage)));
        Identity::new(&SystemName::parse(system).unwrap(), &host, None, succession)
    }

    /// Has `ams-a1` of lineage 5 call `answering`; returns what it and the other side made of that,
    /// and the later lineage that each has heard of.
    async fn meet(answering: Identity) -> (Result<(), String>, [Option<Lineage>; 2]) {
        let calling = member("shop", "ams-a1", 5);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let to = answering.member.0;
        let called = async {
            let mut stream = Stream::Plain(listener.accept().await.unwrap().0);
            welcome(&mut stream, &answering, None, |_| true).await.unwrap().map(drop)
        };
        let call = async {
            let stream = tokio::net::TcpStream::connect(address).await.unwrap();
            introduce(&mut Stream::Plain(stream), &calling, to, Channel::Messages).await.unwrap()
        };
        let (accepted, introduced) = tokio::join!(called, call);
        assert_eq!(accepted, introduced);
        let later = [&calling, &answering].map(|member| *member.succession.later().borrow());
        (introduced, later)
    }

    #[tokio::test]
    async fn of_two_lineages_both_sides_hear_which_is_the_later() {
        let (met, later) = meet(member("shop", "fra-a1", 5)).await;
        assert_eq!((met, later), (Ok(()), [None, None]));
        let (met, later) = meet(member("shop", "fra-a1", 9)).await;
        let stale = "the log of `ams-a1` is of lineage 0.00000005, not 0.00000009";
        assert_eq!((met.unwrap_err().as_str(), later), (stale, [Some(Lineage(9)), None]));
        let (met, later) = meet(member("shop", "fra-a1", 3)).await;
        assert!(met.is_err());
        assert_eq!(later, [None, Some(Lineage(5))]);
    }

    #[tokio::test]
    async fn the_lineage_of_another_system_gives_up_no_log() {
        for lineage in [3, 9] {
            let (met, later) = meet(member("blog", "fra-a1", lineage)).await;
            let stranger = "`fra-a1` belongs to system `blog`, not to `shop`";
            assert_eq!((met.unwrap_err().as_str(), later), (stranger, [None, None]));
        }
    }
}
