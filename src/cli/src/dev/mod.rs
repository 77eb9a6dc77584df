//! `fairlead dev`: everything on one person's machine, without systemd and without root.
//!
//! This process does what systemd does elsewhere: it starts the programs, starts passes when something
//! changed, and reloads the proxy by the same code as `fairlead reload`.

pub(crate) mod child;
mod children;
mod hello;
mod home;
mod ports;
mod view;

use std::convert::Infallible;
use std::env;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use fairlead_contract::{Configuration, Files, Status};
use tokio::net::UnixStream;
use tokio::select;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use crate::answer::{Exit, print, print_fault};
use crate::arguments::DevOptions;
use crate::certificates::{self, State};
use crate::compare::Digests;
use crate::keeper::announce_dev;
use crate::machine::Machine;
use crate::programs::Program;
use crate::reload::{Outcome, reload};

use children::{Children, Event};
use hello::Hello;
use home::Home;
use ports::Ports;
use view::View;

/// How often files and Docker's socket are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How often the certs program looks even if nothing changed: for renewals and further tries.
const RENEW: Duration = Duration::from_secs(600);

/// Runs until a signal says to end, or until the proxy ends by itself.
pub(crate) async fn run(options: DevOptions) -> Result<Exit> {
    let mut stops = Stops::new()?;
    let mut dev = Dev::open(options).await?;
    let worked = select! {
        worked = dev.work() => worked,
        () = stops.next() => Err(anyhow!(Stopped)),
    };
    let failed = worked.err().filter(|error| !error.is::<Stopped>());
    dev.close(&mut stops).await;
    failed.map_or(Ok(Exit::Fine), Err)
}

/// The person at the terminal wants to end.
#[derive(Debug, thiserror::Error)]
#[error("stopped by a signal")]
struct Stopped;

struct Dev {
    home: Home,
    ports: Ports,
    hello: Hello,
    docker: DockerSocket,
    children: Children,
    view: View,
    /// The files as they were before the last reload.
    seen: Digests,
    /// What the last pass of the watcher failed with.
    watcher_fault: Option<String>,
    ticks: Ticks,
}

impl Dev {
    async fn open(options: DevOptions) -> Result<Self> {
        let home = Home::open(options.dir)?;
        let ports = Ports::choose(options.http, options.https)?;
        announce_dev(&home.paths, ports.https)?;
        Ok(Self {
            ports,
            hello: Hello::start(&home.paths).await?,
            docker: DockerSocket::choose(options.docker),
            children: Children::new(&home)?,
            view: View::default(),
            seen: Digests::new(),
            watcher_fault: None,
            ticks: Ticks::new(),
            home,
        })
    }

    async fn work(&mut self) -> Result<Infallible> {
        self.hello
            .declare(&Configuration::parse(&Files::read(&self.home.paths)))?;
        self.children.start_proxy(&self.ports).await?;
        self.greet()?;
        self.follow_docker().await?;
        self.settle().await?;
        self.say_how_to_ask()?;
        loop {
            self.wait_for_change().await?;
            self.settle().await?;
        }
    }

    async fn wait_for_change(&mut self) -> Result<()> {
        loop {
            select! {
                event = self.children.next() => match event? {
                    Event::Dirty => {
                        self.pass_of_watcher().await?;
                        return Ok(());
                    }
                    Event::FollowerEnded(how) => say(&format!("! fairlead-watcher --follow ended ({how}); it is started again"))?,
                },
                _ = self.ticks.renew.tick() => return Ok(()),
                _ = self.ticks.look.tick() => {
                    self.follow_docker().await?;
                    if Files::read(&self.home.paths).digests() != self.seen {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Follows the containers as soon as there is a daemon; it marks them dirty when it has begun.
    async fn follow_docker(&mut self) -> Result<()> {
        let socket = self.docker.path(&self.home);
        if !self.children.follows() && UnixStream::connect(&socket).await.is_ok() {
            self.children.follow(&socket)?;
        }
        Ok(())
    }

    async fn pass_of_watcher(&mut self) -> Result<()> {
        let mut command = self.children.command(Program::Watcher);
        command.arg("--socket").arg(self.docker.path(&self.home));
        self.watcher_fault = self.children.pass(command).await?;
        Ok(())
    }

    /// Makes live what changed, and says what became different.
    ///
    /// The proxy is reloaded before the certs program runs, because an ACME server asks it for the
    /// answers, and after it, to show what was obtained.
    async fn settle(&mut self) -> Result<()> {
        let paths = self.home.paths.clone();
        self.hello.declare(&Configuration::parse(&Files::read(&paths)))?;
        let first = self.reload().await;
        let certs = self.children.command(Program::Certs);
        let certs_fault = self.children.pass(certs).await?;
        self.seen = Files::read(&paths).digests();
        let second = match first {
            Ok(_) => self.reload().await,
            Err(fault) => Err(fault),
        };
        let machine = Machine::observe(paths).await;
        let faults = self.faults(&machine, &second, certs_fault);
        let live = second.ok().filter(|status| status.standing_refusal().is_none());
        let sites = live.map(|status| view::sites(&machine.configuration, &status, &self.hello.file));
        let view = View {
            sites: sites.unwrap_or_else(|| self.view.sites.clone()),
            faults,
        };
        for line in view::changes(
            &self.view,
            &view,
            self.ports.https,
            &machine.paths.internal_ca_file(),
        ) {
            say(&line)?;
        }
        self.view = view;
        Ok(())
    }

    /// Returns what the proxy serves now, or why that is not known.
    async fn reload(&self) -> Result<Status, String> {
        match reload(&self.home.paths, None).await {
            Ok(Outcome::NotRunning) => Err("the proxy does not answer".to_owned()),
            Ok(
                Outcome::NothingToDo { status }
                | Outcome::Loaded { status, .. }
                | Outcome::Refused { status, .. },
            ) => Ok(status),
            Err(error) => Err(format!("{:#}", anyhow::Error::from(error))),
        }
    }

    fn faults(
        &self,
        machine: &Machine,
        reloaded: &Result<Status, String>,
        certs_fault: Option<String>,
    ) -> Vec<String> {
        let mut faults = view::rejections(&machine.configuration);
        faults.extend(
            self.watcher_fault
                .iter()
                .map(|fault| format!("containers: {fault}")),
        );
        match reloaded {
            Ok(status) => faults.extend(view::refusal(status)),
            Err(fault) => faults.push(format!("not reloaded: {fault}")),
        }
        let failing = certificates::list(machine).into_iter();
        let failing: Vec<_> = failing
            .filter(|certificate| certificate.state == State::Failing)
            .collect();
        // The ledgers tell it in more detail.
        if failing.is_empty() {
            faults.extend(certs_fault.map(|fault| format!("certificates: {fault}")));
        }
        faults.extend(failing.iter().map(view::failing));
        faults
    }

    fn greet(&self) -> Result<()> {
        let paths = &self.home.paths;
        say(&format!(
            "fairlead dev keeps everything in {}; its log is {}",
            self.home.directory.display(),
            self.home.log.display()
        ))?;
        for remark in self.ports.remarks.iter().chain(&self.docker.remark) {
            say(remark)?;
        }
        say(&format!(
            "listening at http://127.0.0.1:{} and https://127.0.0.1:{}",
            self.ports.http, self.ports.https
        ))?;
        say(&format!(
            "a site from a file: write it to {}/NAME.toml",
            paths.routes_dir().display()
        ))?;
        let socket = self.docker.path(&self.home);
        match socket.exists() {
            true => say("a site from a container: docker run -d --label fairlead.hosts=app.localhost IMAGE"),
            false => say(&format!(
                "no containers: there is no Docker socket at {} yet",
                socket.display()
            )),
        }
    }

    /// The root exists once the first certificate was made.
    fn say_how_to_ask(&self) -> Result<()> {
        let root = self.home.paths.internal_ca_file();
        let host = self.view.sites.keys().find(|host| view::is_local(host));
        if let (Some(host), true) = (host, root.is_file()) {
            say(&format!(
                "ask with: curl --cacert {} https://{host}:{}/",
                root.display(),
                self.ports.https
            ))?;
        }
        say("Ctrl-C ends it")
    }

    /// Ends the programs, and leaves nothing that would be declared without them.
    async fn close(&mut self, stops: &mut Stops) {
        self.children.end(stops.next()).await;
        if let Err(error) = self.hello.withdraw() {
            // Nothing else can be done about it, and whoever reads this may have gone.
            let _ = print_fault(&format!("fairlead: {:#}", anyhow::Error::from(error)));
        }
    }
}

/// A reader of the lines who has gone ends the program as a signal does.
fn say(line: &str) -> Result<()> {
    print(&format!("{line}\n")).context("cannot print what changed")
}

/// Where Docker is.
struct DockerSocket {
    /// Named for this run, instead of in the settings.
    named: Option<PathBuf>,
    remark: Option<String>,
}

impl DockerSocket {
    fn choose(option: Option<PathBuf>) -> Self {
        let host = env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty());
        let by_host = host
            .as_deref()
            .and_then(|host| host.strip_prefix("unix://"))
            .map(PathBuf::from);
        let ignored = host.filter(|_| option.is_none() && by_host.is_none());
        Self {
            named: option.or(by_host),
            remark: ignored.map(|host| format!("DOCKER_HOST={host:?} is no Unix socket and is not used")),
        }
    }

    fn path(&self, home: &Home) -> PathBuf {
        let in_settings = || {
            Configuration::parse(&Files::read_without_pairs(&home.paths))
                .config
                .docker
                .socket
        };
        self.named.clone().unwrap_or_else(in_settings)
    }
}

/// When to look without an event.
struct Ticks {
    look: Interval,
    renew: Interval,
}

impl Ticks {
    fn new() -> Self {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            look,
            renew: tokio::time::interval_at(Instant::now() + RENEW, RENEW),
        }
    }
}

/// The signals that end the program; the last one is the terminal's own end.
struct Stops {
    signals: [Signal; 3],
}

impl Stops {
    fn new() -> Result<Self> {
        let kinds = [
            SignalKind::interrupt(),
            SignalKind::terminate(),
            SignalKind::hangup(),
        ];
        let [interrupt, terminate, hangup] = kinds.map(signal);
        Ok(Self {
            signals: [interrupt?, terminate?, hangup?],
        })
    }

    async fn next(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.signals;
        select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}
