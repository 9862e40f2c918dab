//! Makes the network of a lab: a router per region, a bridge per zone, a namespace per host.
//!
//! ```text
//!  host ns        router ns of a region                     switch ns
//!  eth0 ───── h3 ─ z1 ─ d1═u1 ─ lan ─(forwarding)─ wan ───── w0  ┐ user-space
//!  eth0 ───── h4 ─ z2 ─ d2═u2 ─┘                                 │ switch, see
//!                                  client ns  wan ────────── c0  ┘ `switch`
//! ```
//! Neighbour entries are permanent: a host that cannot be reached stays silent, as in a real
//! network, instead of being reported as unreachable after three unanswered ARP requests.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;
use std::process::Stdio;

use crate::address::{End, HostPlace, Layout};
use crate::namespace::Namespace;

/// Reports why the network of a lab could not be made.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The program is not installed.
    #[error("the program `{0}` is not installed (package `iproute2`)")]
    ProgramMissing(&'static str),
    /// The kernel refused a namespace.
    #[error("make the network namespace of {0}")]
    Namespace(String, #[source] io::Error),
    /// A kernel setting could not be written.
    #[error("write the kernel setting `{0}`")]
    Setting(String, #[source] io::Error),
    /// `ip` could not be run.
    #[error("run `ip` in {0}")]
    Run(String, #[source] io::Error),
    /// `ip` refused a command.
    #[error("`ip` in {place}: {message}")]
    Refused {
        /// The part of the network.
        place: String,
        /// What `ip` said.
        message: String,
    },
}

/// Namespaces of everything, in the order of the [`Layout`].
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) hosts: Vec<Namespace>,
    pub(crate) routers: Vec<Namespace>,
    pub(crate) clients: Vec<Namespace>,
    /// Holds the far ends of all wide-area links.
    pub(crate) switch: Namespace,
}

/// Makes the whole network.
pub(crate) fn build(layout: &Layout) -> Result<Network, NetworkError> {
    let regions = 0..layout.regions.len();
    let network = Network {
        hosts: layout.hosts.iter().map(|host| create(&host.name)).collect::<Result<_, _>>()?,
        routers: regions.clone().map(|index| create(&index)).collect::<Result<_, _>>()?,
        clients: regions.clone().map(|index| create(&index)).collect::<Result<_, _>>()?,
        switch: create(&"the switch")?,
    };
    for namespace in network.hosts.iter().chain(&network.clients).chain([&network.switch]) {
        write_settings(namespace, &settings(layout, false))?;
    }
    for namespace in &network.routers {
        write_settings(namespace, &settings(layout, true))?;
    }
    for (index, namespace) in network.routers.iter().enumerate() {
        run_ip(namespace, "a router", &router_script(layout, index, &network))?;
    }
    for (index, namespace) in network.clients.iter().enumerate() {
        run_ip(namespace, "a client", &client_script(layout, index, &network.switch))?;
    }
    for (index, namespace) in network.hosts.iter().enumerate() {
        run_ip(namespace, "a host", &host_script(layout, index))?;
    }
    let ups = regions.fold(String::from("link set lo up\n"), |mut script, index| {
        line(&mut script, format_args!("link set {} up", switch_port(End::RouterOutside(index))));
        line(&mut script, format_args!("link set {} up", switch_port(End::Client(index))));
        script
    });
    run_ip(&network.switch, "the switch", &ups)?;
    Ok(network)
}

fn create(what: &dyn std::fmt::Display) -> Result<Namespace, NetworkError> {
    Namespace::create().map_err(|error| NetworkError::Namespace(what.to_string(), error))
}

/// Returns the name of the switch's interface towards `end`.
pub(crate) fn switch_port(end: End) -> String {
    match end {
        End::Client(index) => format!("c{index}"),
        End::RouterOutside(index) | End::RouterInside(index) | End::Host(index) => {
            format!("w{index}")
        }
    }
}

/// Finds a program in `PATH` and where administrators' programs are, which is outside the `PATH`
/// of ordinary users on Debian.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(usual)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
}

/// Returns kernel settings by their path below `/proc/sys/net`, to be written before any interface
/// exists.
fn settings(layout: &Layout, router: bool) -> Vec<(&'static str, &'static str)> {
    let mut settings = Vec::new();
    if router {
        settings.push(("ipv4/ip_forward", "1"));
        settings.push(("ipv4/conf/all/send_redirects", "0"));
        settings.push(("ipv4/conf/default/send_redirects", "0"));
    }
    settings.push(("ipv4/conf/all/rp_filter", "0"));
    settings.push(("ipv4/conf/default/rp_filter", "0"));
    if layout.has_v6() {
        settings.push(("ipv6/conf/all/disable_ipv6", "0"));
        settings.push(("ipv6/conf/default/disable_ipv6", "0"));
        // No address of its own making, and none checked for duplicates: both cost a second.
        settings.push(("ipv6/conf/default/addr_gen_mode", "1"));
        settings.push(("ipv6/conf/default/accept_dad", "0"));
        settings.push(("ipv6/conf/default/accept_ra", "0"));
        if router {
            settings.push(("ipv6/conf/all/forwarding", "1"));
        }
    }
    settings
}

fn write_settings(
    namespace: &Namespace,
    settings: &[(&'static str, &'static str)],
) -> Result<(), NetworkError> {
    let write = || {
        settings.iter().try_for_each(|(name, value)| {
            fs::write(format!("/proc/sys/net/{name}"), value)
                .map_err(|error| NetworkError::Setting((*name).to_owned(), error))
        })
    };
    namespace.run(write).map_err(|error| NetworkError::Namespace("a setting".to_owned(), error))?
}

/// Runs a script of `ip` commands inside a namespace.
pub(crate) fn run_ip(namespace: &Namespace, place: &str, script: &str) -> Result<(), NetworkError> {
    let program = find_program("ip").ok_or(NetworkError::ProgramMissing("ip"))?;
    let failed = |error| NetworkError::Run(place.to_owned(), error);
    let mut command = namespace.command(program).map_err(failed)?;
    command.args(["-batch", "-"]).env_clear();
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    if let Some(mut input) = child.stdin.take() {
        // A refused early line ends `ip` before it has read all: its message says more.
        drop(input.write_all(script.as_bytes()));
    }
    let output = child.wait_with_output().map_err(failed)?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(NetworkError::Refused { place: place.to_owned(), message })
}

fn router_script(layout: &Layout, region: usize, network: &Network) -> String {
    let mut script = String::from("link set lo up\n");
    let inside = End::RouterInside(region);
    line(&mut script, format_args!("link add name lan type bridge"));
    line(&mut script, format_args!("link set lan address {} up", inside.ethernet_text()));
    for (zone, _) in layout.zones.iter().enumerate().filter(|(_, (home, _))| *home == region) {
        line(&mut script, format_args!("link add name z{zone} type bridge"));
        line(&mut script, format_args!("link add name u{zone} type veth peer name d{zone}"));
        line(&mut script, format_args!("link set u{zone} master lan up"));
        line(&mut script, format_args!("link set d{zone} master z{zone} up"));
        line(&mut script, format_args!("link set z{zone} up"));
    }
    let outside = End::RouterOutside(region);
    add_wan_port(&mut script, outside, &network.switch);
    for v6 in families(layout) {
        add_router_address(&mut script, inside, "lan", v6);
        add_router_address(&mut script, outside, "wan", v6);
    }
    let own = layout.hosts.iter().enumerate().filter(|(_, host)| host.region == region);
    for ((index, host), namespace) in own.map(|own| (own, network.hosts.get(own.0))) {
        let Some(namespace) = namespace else { continue };
        let (mac, fd) = (End::Host(index).ethernet_text(), descriptor_path(namespace));
        line(
            &mut script,
            format_args!(
                "link add name h{index} type veth peer name eth0 address {mac} netns {fd}"
            ),
        );
        line(&mut script, format_args!("link set h{index} master z{} up", host.zone));
        add_neighbour(&mut script, host.address, End::Host(index), "lan");
        line(&mut script, format_args!("route add {} dev lan", single(host.address)));
    }
    for other in (0..layout.regions.len()).filter(|other| *other != region) {
        let hosts = layout.hosts.iter().filter(|host| host.region == other);
        let addresses: Vec<IpAddr> = hosts.map(|host| host.address).collect();
        add_far_routes(&mut script, layout, End::RouterOutside(other), &addresses, None);
    }
    for client in 0..layout.regions.len() {
        let addresses = layout.client_addresses(client);
        add_far_routes(&mut script, layout, End::Client(client), &addresses, None);
    }
    script
}

fn client_script(layout: &Layout, region: usize, switch: &Namespace) -> String {
    let mut script = String::from("link set lo up\n");
    add_wan_port(&mut script, End::Client(region), switch);
    let own = layout.client_addresses(region);
    for address in &own {
        add_address(&mut script, *address, "wan");
    }
    for other in 0..layout.regions.len() {
        let hosts = layout.hosts.iter().filter(|host| host.region == other);
        let addresses: Vec<IpAddr> = hosts.map(|host| host.address).collect();
        add_far_routes(&mut script, layout, End::RouterOutside(other), &addresses, Some(&own));
    }
    script
}

fn host_script(layout: &Layout, index: usize) -> String {
    let mut script = String::from("link set lo up\nlink set eth0 up\n");
    let Some(HostPlace { address: own, region, .. }) = layout.hosts.get(index) else {
        return script;
    };
    add_address(&mut script, *own, "eth0");
    let peers = layout.hosts.iter().enumerate();
    for (peer, place) in peers.filter(|(peer, place)| *peer != index && place.region == *region) {
        add_neighbour(&mut script, place.address, End::Host(peer), "eth0");
        let source = source(place.address, &[*own]);
        line(&mut script, format_args!("route add {} dev eth0{source}", single(place.address)));
    }
    let router = End::RouterInside(*region);
    let hop = router.next_hop(own.is_ipv6());
    add_neighbour(&mut script, hop, router, "eth0");
    line(&mut script, format_args!("route add default via {hop} dev eth0 onlink src {own}"));
    script
}

fn families(layout: &Layout) -> impl Iterator<Item = bool> {
    [false].into_iter().chain(layout.has_v6().then_some(true))
}

fn add_wan_port(script: &mut String, end: End, switch: &Namespace) {
    let (mac, port, fd) = (end.ethernet_text(), switch_port(end), descriptor_path(switch));
    line(
        script,
        format_args!("link add name wan address {mac} type veth peer name {port} netns {fd}"),
    );
    line(script, format_args!("link set wan up"));
}

fn add_router_address(script: &mut String, end: End, interface: &str, v6: bool) {
    add_address(script, end.next_hop(v6), interface);
}

/// Adds routes to `addresses` through a neighbour on the wide-area link.
fn add_far_routes(
    script: &mut String,
    layout: &Layout,
    via: End,
    addresses: &[IpAddr],
    from: Option<&[IpAddr]>,
) {
    for v6 in families(layout) {
        add_neighbour(script, via.next_hop(v6), via, "wan");
    }
    for address in addresses {
        let hop = via.next_hop(address.is_ipv6());
        let source = source(*address, from.unwrap_or_default());
        line(
            script,
            format_args!("route add {} via {hop} dev wan onlink{source}", single(*address)),
        );
    }
}

/// Writes the source address of a route: the own one of the same family.
fn source(to: IpAddr, own: &[IpAddr]) -> String {
    own.iter()
        .find(|address| address.is_ipv6() == to.is_ipv6())
        .map(|address| format!(" src {address}"))
        .unwrap_or_default()
}

fn add_address(script: &mut String, address: IpAddr, interface: &str) {
    let unchecked = if address.is_ipv6() { " nodad" } else { "" };
    line(script, format_args!("address add {} dev {interface}{unchecked}", single(address)));
}

fn add_neighbour(script: &mut String, address: IpAddr, end: End, interface: &str) {
    let mac = end.ethernet_text();
    line(script, format_args!("neigh add {address} lladdr {mac} dev {interface} nud permanent"));
}

fn single(address: IpAddr) -> String {
    let bits = if address.is_ipv6() { 128 } else { 32 };
    format!("{address}/{bits}")
}

/// Returns a path at which `ip` finds a namespace that only this process holds.
fn descriptor_path(namespace: &Namespace) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), namespace.as_fd().as_raw_fd())
}

fn line(script: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing into a String cannot fail.
    writeln!(script, "{text}").ok();
}
