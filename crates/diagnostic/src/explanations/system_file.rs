//! What is said about `EK01…`: a system file as a text.

use crate::code::Explanation;

pub(crate) const SYNTAX: Explanation = Explanation {
    title: "the text is not TOML",
    checks: "That the file can be read as TOML 1.1 at all. Nothing else is checked before it can.",
    matters: "A file that is read in part would start a part of the system.",
    example: r#"
[service.web]
health = { http = "/", every = 1s }
"#,
    fix: r#"
Texts, durations and sizes stand in quotes:

[service.web]
health = { http = "/", every = "1s" }
"#,
};

pub(crate) const UNKNOWN_KEY: Explanation = Explanation {
    title: "the key is not known",
    checks: "That every key of the file has a meaning at the place where it stands.",
    matters: "A mistyped key would be passed over in silence, and its default used instead.",
    example: r#"
[service.web]
replica = 3
"#,
    fix: r#"
[service.web]
replicas = 3
"#,
};

pub(crate) const MISSING_KEY: Explanation = Explanation {
    title: "a key is missing",
    checks: "That every key without a default is there.",
    matters: "Evenkeel does not guess what runs, what is promised, or where.",
    example: r#"
system = "shop"
# and no `survive`
"#,
    fix: r#"
system  = "shop"
survive = "zone"
"#,
};

pub(crate) const WRONG_TYPE: Explanation = Explanation {
    title: "the value is of another type",
    checks: "That each value is of the type its key asks for. Durations and sizes are texts with a unit.",
    matters: "A number without a unit is read as seconds by one reader and as milliseconds by the next.",
    example: r#"
[service.web]
drain = 20
"#,
    fix: r#"
[service.web]
drain = "20s"
"#,
};

pub(crate) const BAD_NAME: Explanation = Explanation {
    title: "the text is not a name",
    checks: "That names have 1 to 63 characters of a-z, 0-9 and inner `-` (a DNS label).",
    matters: "Each name also stands in host names, metrics and log lines.",
    example: "[service.Web_Shop]",
    fix: "[service.web-shop]",
};

pub(crate) const DUPLICATE_NAME: Explanation = Explanation {
    title: "a name is used twice",
    checks: "That no key stands twice in one table, and that a host stands in one place only.",
    matters: "A host is one machine: it fails with exactly one zone and one region.",
    example: r#"
[region.fra]
hosts = { h1 = "10.1.0.11" }
[region.ams]
hosts = { h1 = "10.2.0.11" }
"#,
    fix: r#"
[region.fra]
hosts = { fra-1 = "10.1.0.11" }
[region.ams]
hosts = { ams-1 = "10.2.0.11" }
"#,
};

pub(crate) const BAD_QUANTITY: Explanation = Explanation {
    title: "the quantity cannot be used",
    checks: r#"
That durations (`500ms`, `20s`, `1m30s`, `2h`), sizes (`64KiB`, `1MiB`) and numbers can be read
and lie within their bounds.
"#,
    matters: "Zero replicas, or a check every 0 ms, would be a system that is down or busy with itself.",
    example: r#"
[service.web]
replicas = 0
drain    = "20 secs"
"#,
    fix: r#"
[service.web]
replicas = 3
drain    = "20s"
"#,
};

pub(crate) const UNKNOWN_CHOICE: Explanation = Explanation {
    title: "the word is not one of the choices",
    checks: "That a key with a fixed list of words has one of them.",
    matters: "The promise, above all, must mean one thing.",
    example: r#"
survive = "datacenter"
"#,
    fix: r#"
survive = "zone"    # process, host, zone or region
"#,
};

pub(crate) const DANGLING_REFERENCE: Explanation = Explanation {
    title: "what is named does not exist",
    checks: "That each route leads to a service, and that each need is `kv` or `service.NAME`.",
    matters: "A route to nowhere answers every request with an error.",
    example: r#"
[gateway.public]
listen = ":8080"
routes = [{ path = "/", to = "wbe" }]
"#,
    fix: r#"
[gateway.public]
listen = ":8080"
routes = [{ path = "/", to = "web" }]
"#,
};

pub(crate) const BAD_ADDRESS: Explanation = Explanation {
    title: "the address cannot be a host's",
    checks: r#"
That a host's address is one IPv4 or IPv6 address at which the other hosts reach it: not a name,
not `0.0.0.0`, and not a loopback address unless all hosts have one.
"#,
    matters: "Hosts find each other before any DNS is there, and must go on when it fails.",
    example: r#"
[region.fra]
hosts = { fra-1 = "fra-1.example.com", fra-2 = "127.0.0.1" }
"#,
    fix: r#"
[region.fra]
hosts = { fra-1 = "10.1.0.11", fra-2 = "10.1.0.12" }
"#,
};

pub(crate) const DUPLICATE_ADDRESS: Explanation = Explanation {
    title: "two hosts have one address",
    checks: "That each host has an address of its own.",
    matters: "Two names for one machine look like two failure domains, and fail as one.",
    example: r#"
[region.fra]
hosts = { fra-1 = "10.1.0.11", fra-2 = "10.1.0.11" }
"#,
    fix: r#"
[region.fra]
hosts = { fra-1 = "10.1.0.11", fra-2 = "10.1.0.12" }
"#,
};

pub(crate) const PORT_CLASH: Explanation = Explanation {
    title: "two things want one port",
    checks: r#"
That gateways, fixed ports of services, the ports under `[ports]` and the range for replicas do
not overlap.
"#,
    matters: "All of them listen on every host; the second one to start would fail there, perhaps months later.",
    example: r#"
[gateway.public]
listen = ":7401"    # the default of `ports.api`
"#,
    fix: r#"
[gateway.public]
listen = ":8080"
"#,
};

pub(crate) const BAD_LISTEN: Explanation = Explanation {
    title: "the listener is not an address and a port",
    checks: "That `listen` is `:PORT`, `ADDRESS:PORT` or `[ADDRESS]:PORT` with a port of 1 to 65535.",
    matters: "Without it nobody can reach the system.",
    example: r#"
[gateway.public]
listen = "8080"
"#,
    fix: r#"
[gateway.public]
listen = ":8080"           # or "127.0.0.1:8080", or "[::1]:8080"
"#,
};

pub(crate) const UNKNOWN_PLACEHOLDER: Explanation = Explanation {
    title: "the placeholder is not known",
    checks: "That each `${…}` in a command or in `env` is one of `${PORT}`, `${ADDRESS}`, `${HOST}` and `${kv.url}`.",
    matters: "It would reach the program as it is, and fail there on every host at once.",
    example: r#"
[service.web]
command = ["/opt/web", "--port", "${port}"]
"#,
    fix: r#"
[service.web]
command = ["/opt/web", "--port", "${PORT}"]
"#,
};

pub(crate) const EMPTY_LIST: Explanation = Explanation {
    title: "the list is empty",
    checks: "That a command names a program, and that a gateway has a route.",
    matters: "An empty list says that something is wanted and leaves open what.",
    example: r#"
[service.web]
command = []
"#,
    fix: r#"
[service.web]
command = ["/opt/shop/bin/web", "--port", "${PORT}"]
"#,
};

pub(crate) const NO_HOST: Explanation = Explanation {
    title: "there is no host",
    checks: "That the file has a region, and each region and zone a host.",
    matters: "Nothing can run, and an empty region would count as a place that can take over.",
    example: r#"
[region.fra]
zones = { a = {} }
"#,
    fix: r#"
[region.fra]
zones = { a = { fra-a1 = "10.1.0.11" } }
"#,
};

pub(crate) const ONLY_WITNESSES: Explanation = Explanation {
    title: "no host may run services",
    checks: "That at least one host is not a witness when the file has services.",
    matters: "A witness votes, keeps the coordinator's log and runs a gateway, but no service.",
    example: r#"
[region.fra]
role  = "witness"
hosts = { fra-1 = "10.1.0.11" }
"#,
    fix: r#"
[region.fra]
hosts = { fra-1 = "10.1.0.11" }
"#,
};

pub(crate) const FIXED_PORT_REPLICAS: Explanation = Explanation {
    title: "more replicas than hosts for a fixed port",
    checks: "That a service with a fixed `port` has at most one replica for each host that runs services.",
    matters: "Two replicas on one host cannot listen on the same port.",
    example: r#"
[service.web]
port     = 9000
replicas = 5          # with three hosts
"#,
    fix: r#"
[service.web]
replicas = 5          # the port comes from the range, as ${PORT}
"#,
};

pub(crate) const BAD_PATH: Explanation = Explanation {
    title: "the path is not absolute",
    checks: r#"
That paths of routes, health checks and directories begin with `/` and have no spaces or control
characters where they are part of a URL.
"#,
    matters: "A relative path has no one meaning on many hosts.",
    example: r#"
[service.web]
health = { http = "healthz" }
"#,
    fix: r#"
[service.web]
health = { http = "/healthz" }
"#,
};

pub(crate) const DUPLICATE_ROUTE: Explanation = Explanation {
    title: "two routes match the same requests",
    checks: "That no two routes of a gateway have the same host and path.",
    matters: "Only one of them would ever be used.",
    example: r#"
routes = [{ path = "/", to = "web" }, { path = "/", to = "api" }]
"#,
    fix: r#"
routes = [{ path = "/", to = "web" }, { path = "/api", to = "api" }]
"#,
};

pub(crate) const NO_DATABASES: Explanation = Explanation {
    title: "databases are not available in this version",
    checks: "That the file declares no `[database.*]` and refers to none.",
    matters: "Evenkeel does not pretend to protect data that it does not yet manage.",
    example: r#"
[database.main]
engine = "postgres"
"#,
    fix: r#"
Keep small state in the embedded key-value store:

[service.web]
needs = ["kv"]
env   = { STORE_URL = "${kv.url}" }
"#,
};

pub(crate) const RESERVED_NAME: Explanation = Explanation {
    title: "the name belongs to Evenkeel",
    checks: "That no service or gateway is called `kv` or `evenkeel`, and that `env` sets nothing that Evenkeel sets.",
    matters: "It would hide one of Evenkeel's own parts.",
    example: r#"
[service.kv]
command = ["redis-server"]
"#,
    fix: r#"
[service.cache]
command = ["redis-server"]
"#,
};

pub(crate) const EXCLUSIVE_KEYS: Explanation = Explanation {
    title: "keys exclude each other",
    checks: "That a health check is either `http` or `tcp`, and that a region has either `hosts` or `zones`.",
    matters: "The two say different things about one matter.",
    example: r#"
[service.web]
health = { http = "/healthz", tcp = true }
"#,
    fix: r#"
[service.web]
health = { http = "/healthz" }
"#,
};

pub(crate) const NEEDS_ITSELF: Explanation = Explanation {
    title: "a service needs itself",
    checks: "That no service names itself in `needs`.",
    matters: "It could never start.",
    example: r#"
[service.web]
needs = ["service.web"]
"#,
    fix: r#"
[service.web]
needs = ["kv"]
"#,
};

pub(crate) const LISTEN_ON_ONE_HOST: Explanation = Explanation {
    title: "the listener's address belongs to one host only",
    checks: "That a gateway listens on all addresses or on a loopback address. This is a warning.",
    matters: "Every host opens every gateway; an address of one machine makes that machine the only way in.",
    example: r#"
[gateway.public]
listen = "10.1.0.11:8080"
"#,
    fix: r#"
[gateway.public]
listen = ":8080"
"#,
};

pub(crate) const BAD_TEXT: Explanation = Explanation {
    title: "the text cannot be handed to a program",
    checks: r#"
That arguments and values have no NUL character, and that names in `env` are not empty and have
no `=`. The host of a route is a host name without a port.
"#,
    matters: "The operating system, or HTTP, has no way to pass it on.",
    example: r#"
[service.web]
env = { "A=B" = "1" }
"#,
    fix: r#"
[service.web]
env = { A = "1" }
"#,
};

pub(crate) const UNDECLARED_NEED: Explanation = Explanation {
    title: "the key-value store is used but not needed",
    checks: "That a service which is given `${kv.url}` names `kv` in `needs`. This is a warning.",
    matters: "The audit and the drill would believe that the service works without a quorum.",
    example: r#"
[service.web]
env = { STORE_URL = "${kv.url}" }
"#,
    fix: r#"
[service.web]
needs = ["kv"]
env   = { STORE_URL = "${kv.url}" }
"#,
};
