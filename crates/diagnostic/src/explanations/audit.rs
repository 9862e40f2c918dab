//! What is said about `EK02…`: what a declared system can survive.

use crate::code::Explanation;

pub(crate) const ONE_DOMAIN: Explanation = Explanation {
    title: "everything stands in one place",
    checks: "That there is more than one region, zone or host, whichever `survive` names.",
    matters: "What has one place goes down with it; no software changes that.",
    example: r#"
survive = "host"
[region.fra]
hosts = { fra-1 = "10.1.0.11" }
"#,
    fix: r#"
survive = "host"
[region.fra]
hosts = { fra-1 = "10.1.0.11", fra-2 = "10.1.0.12", fra-3 = "10.1.0.13" }
"#,
};

pub(crate) const NO_QUORUM: Explanation = Explanation {
    title: "losing one place loses the quorum",
    checks: r#"
That a majority of the coordinator's voters is left when any one place of the size that `survive`
names is lost.
"#,
    matters: r#"
Without a majority nobody may decide: the key-value store stops, and nothing that fails afterwards
is replaced. Two places are never enough, because neither can tell the other's death from a cut
link. The third may be a small witness.
"#,
    example: r#"
survive = "region"
[region.fra]
hosts = { fra-1 = "10.1.0.11" }
[region.ams]
hosts = { ams-1 = "10.2.0.11" }
"#,
    fix: r#"
Add a third place. A witness votes, but runs no service:

[region.waw]
role  = "witness"
hosts = { waw-1 = "10.3.0.11" }
"#,
};

pub(crate) const TOO_FEW_REPLICAS: Explanation = Explanation {
    title: "the service has one replica only",
    checks: "That each service which requests depend on has a replica left after any one loss that `survive` names.",
    matters: "A service starts again on another host after some seconds, but until then requests fail.",
    example: r#"
[service.web]
replicas = 1
"#,
    fix: r#"
[service.web]
replicas = 2
"#,
};

pub(crate) const REPLICAS_TOGETHER: Explanation = Explanation {
    title: "all replicas fail together",
    checks: r#"
That the replicas of each service which requests depend on do not all stand in one place of the size
that `survive` names.
"#,
    matters: "Copies that fail together are one copy.",
    example: r#"
survive = "region"
# three regions, two of them with `role = "witness"`
"#,
    fix: "Give a second region a host that runs services.",
};

pub(crate) const ONLY_PROCESS: Explanation = Explanation {
    title: "one of Evenkeel's processes has no second",
    checks: r#"
Whether the loss of a single gateway or node process is felt. This is a warning: the process is
started again within about a second, with its sockets held open meanwhile.
"#,
    matters: "Requests wait for that second, and those under way fail.",
    example: "One host only.",
    fix: "Three hosts.",
};

pub(crate) const WORKER_STOPS: Explanation = Explanation {
    title: "a service without routes stops for a while",
    checks: r#"
Whether a service to which no route leads has a replica left after any one loss that `survive` names.
This is a warning: no request depends on it.
"#,
    matters: "Its work stands still until it is placed on another host.",
    example: r#"
[service.mailer]
replicas = 1
"#,
    fix: r#"
[service.mailer]
replicas = 2
"#,
};

pub(crate) const SINGLE_POINT: Explanation = Explanation {
    title: "a single point of failure",
    checks: r#"
That no other single process, host, zone or region, up to the size that `survive` names, takes the
system down.
"#,
    matters: "This is the promise.",
    example: "Placed by hand or after losses: the last two replicas of a service on one host.",
    fix: "Spread what stands together, or bring back what is lost; `evenkeel status` names both.",
};

pub(crate) const DOWN: Explanation = Explanation {
    title: "the system does not answer",
    checks: "That a gateway, a replica of each routed service, and all they need are up now.",
    matters: "Requests fail at this moment.",
    example: "Every host of the only region is down.",
    fix: "Bring back what is named; the rest follows by itself.",
};
