use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use fairlead_contract::write_atomically;
use tempfile::TempDir;

use crate::{Running, Signal};

/// What [`Docker::run`] runs: a web server on the exposed port 80, stopped at once. It answers `/` at once and
/// `/cgi-bin/slow` after a while.
const IMAGE: &str = "fairlead-test";
const NETWORK: &str = "fairlead-test";
const SLOW: &str =
    "#!/bin/sh\n/bin/busybox sleep 0.2\nprintf 'Content-Type: text/plain\\r\\n\\r\\nslow\\n'\n";

/// A real dockerd of this test's own, or a Podman that is spoken to as one, apart from any other on the
/// machine. Needs root.
///
/// It changes nothing of the host but the bridge of its network, which goes with it in the end.
pub struct Docker {
    root: TempDir,
    engine: Engine,
    daemon: Option<Running>,
}

/// Who runs the containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Engine {
    Docker,
    Rootless,
    Podman,
}

impl Docker {
    /// Starts the daemon, with an image and one network.
    #[expect(clippy::new_without_default, reason = "it starts a daemon")]
    pub fn new() -> Self {
        Self::of(Engine::Docker)
    }

    /// The same without root: a dockerd of a user that exists for it alone, with networks of its own.
    pub fn rootless() -> Self {
        Self::of(Engine::Rootless)
    }

    /// The same with Podman behind the socket. What it listens to and runs is in a network of its own.
    pub fn podman() -> Self {
        Self::of(Engine::Podman)
    }

    fn of(engine: Engine) -> Self {
        let root = tempfile::Builder::new()
            .prefix("fairlead-")
            .tempdir()
            .expect("cannot make a directory below $TMPDIR");
        let mut docker = Self {
            root,
            engine,
            daemon: None,
        };
        for (name, text) in [("daemon.json", "{}"), ("containers.conf", PODMAN_SETTINGS)] {
            write_atomically(&docker.root.path().join(name), text.as_bytes(), 0o644)
                .expect("cannot write a file of the test");
        }
        docker.start_daemon();
        docker.import_image();
        docker.create_network(NETWORK);
        docker
    }

    pub fn socket(&self) -> PathBuf {
        self.root.path().join("docker.sock")
    }

    /// The text of a `fairlead.toml` that names the socket.
    pub fn settings(&self) -> String {
        format!("[docker]\nsocket = {:?}\n", self.socket())
    }

    /// Runs Docker's own command to its end and returns what it printed.
    pub fn docker(&self, arguments: &[&str]) -> String {
        let output = self
            .command(arguments)
            .output()
            .expect("cannot run docker: install docker-cli");
        assert!(
            output.status.success(),
            "docker {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// `docker run` in the background, in the one network unless `options` say otherwise.
    pub fn run(&self, name: &str, options: &[&str]) {
        self.run_command(name, options, &[]);
    }

    /// The same with another command than the image's.
    pub fn run_command(&self, name: &str, options: &[&str], command: &[&str]) {
        self.make(&["run", "--detach"], name, options, command);
    }

    /// The same without starting it.
    pub fn create(&self, name: &str, options: &[&str]) {
        self.make(&["create"], name, options, &[]);
    }

    fn make(&self, verb: &[&str], name: &str, options: &[&str], command: &[&str]) {
        let mut arguments = [verb, &["--name", name, "--stop-signal", "KILL"]].concat();
        if !options.iter().any(|option| option.starts_with("--network")) {
            arguments.extend(["--network", NETWORK]);
        }
        arguments.extend(options);
        arguments.push(IMAGE);
        arguments.extend(command);
        self.docker(&arguments);
    }

    /// Removes the container, running or not.
    pub fn remove(&self, name: &str) {
        self.docker(&["rm", "--force", name]);
    }

    /// Tries to remove the container while the disk does not let go of its files. Returns what Docker says of it
    /// afterwards.
    pub fn fail_to_remove(&self, name: &str) -> String {
        let layers = self.root.path().join("data/vfs/dir").display().to_string();
        let freeze = format!("mount --bind {layers} {layers} && mount -o remount,bind,ro {layers}");
        self.beside_the_daemon(&freeze);
        let removed = self.command(&["rm", "--force", name]).output();
        assert!(
            removed.is_ok_and(|output| !output.status.success()),
            "it was removed"
        );
        let state = self.docker(&["inspect", "--format", "{{.State.Status}}", name]);
        self.beside_the_daemon(&format!("umount {layers}"));
        state
    }

    /// Runs a command of the shell where the daemon's mounts are.
    fn beside_the_daemon(&self, command: &str) {
        let pid = self.daemon.as_ref().expect("the daemon runs").pid().to_string();
        let status = Command::new("nsenter")
            .args(["--target", &pid, "--mount", "sh", "-c", command])
            .status();
        assert!(status.is_ok_and(|status| status.success()), "{command}");
    }

    /// Lets the containers run on when the daemon stops.
    pub fn keep_containers_alive(&self) {
        let settings = self.root.path().join("daemon.json");
        write_atomically(&settings, b"{\"live-restore\":true}", 0o644)
            .expect("cannot write a file of the test");
        let daemon = self.daemon.as_ref().expect("the daemon runs");
        daemon.signal(Signal::HUP);
        while self.docker(&["info", "--format", "{{.LiveRestoreEnabled}}"]) != "true" {}
    }

    /// The container's IPv4 address in its only network.
    pub fn address(&self, name: &str) -> String {
        let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
        self.docker(&["inspect", "--format", format, name])
    }

    /// Makes another network. Daemons choose subnets by looking at the host's routes, so only one of
    /// them may choose at a time.
    pub fn create_network(&self, name: &str) {
        let path = env::temp_dir().join("fairlead-tests-docker.lock");
        let file = File::create(path).expect("cannot make a file in $TMPDIR");
        file.lock().expect("cannot lock a file in $TMPDIR");
        self.docker(&["network", "create", name]);
    }

    /// Starts the daemon again after [`Self::stop_daemon`].
    pub fn start_daemon(&mut self) {
        let root = self.root.path();
        let (program, package, command) = match self.engine {
            Engine::Docker => ("dockerd", "docker.io", dockerd(root)),
            Engine::Rootless => (
                "rootlesskit",
                "rootlesskit, uidmap and slirp4netns",
                rootless_dockerd(root),
            ),
            Engine::Podman => ("podman", "podman and netavark", podman(root)),
        };
        let version = Command::new(program).arg("--version").output();
        version.unwrap_or_else(|error| panic!("cannot run {program}, install {package}: {error}"));
        let running = Running::start(command, &root.join("notify"));
        running.wait_for_notification("READY=1");
        self.daemon = Some(running);
    }

    /// Stops the daemon and its containers, as `systemctl stop docker` does.
    pub fn stop_daemon(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            daemon.signal(match self.engine {
                Engine::Docker | Engine::Rootless => Signal::TERM,
                // It is the first process of its own, and all others go with it.
                Engine::Podman => Signal::KILL,
            });
            daemon.finish();
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command
            .arg("--host")
            .arg(format!("unix://{}", self.socket().display()))
            .args(arguments)
            .env("DOCKER_CONFIG", self.root.path())
            .env_remove("DOCKER_HOST")
            .env_remove("DOCKER_CONTEXT")
            .stdin(Stdio::null());
        command
    }

    /// An image without a registry: a static busybox and a page.
    fn import_image(&self) {
        let image = self.root.path().join("image");
        for directory in ["bin", "www/cgi-bin"] {
            fs::create_dir_all(image.join(directory)).expect("cannot make a directory below $TMPDIR");
        }
        fs::copy("/bin/busybox", image.join("bin/busybox"))
            .expect("cannot copy /bin/busybox: install busybox-static");
        // What health checks are run by.
        symlink("busybox", image.join("bin/sh")).expect("cannot make a link below $TMPDIR");
        File::create(image.join("www/index.html")).expect("cannot make a file below $TMPDIR");
        write_atomically(&image.join("www/cgi-bin/slow"), SLOW.as_bytes(), 0o755)
            .expect("cannot write a file of the test");
        let archive = self.root.path().join("image.tar");
        let status = Command::new("tar")
            .args(["--create", "--file"])
            .arg(&archive)
            .arg("--directory")
            .arg(&image)
            .arg(".")
            .status();
        assert!(status.is_ok_and(|status| status.success()), "tar fails");
        self.docker(&[
            "import",
            "--change",
            r#"CMD ["/bin/busybox", "httpd", "-f", "-p", "80", "-h", "/www"]"#,
            "--change",
            "EXPOSE 80",
            &archive.display().to_string(),
            IMAGE,
        ]);
    }

    fn clean_up(&self) {
        let containers = self.docker(&["ps", "--all", "--quiet"]);
        let mut remove = vec!["rm", "--force"];
        remove.extend(containers.lines());
        if remove.len() > 2 {
            self.docker(&remove);
        }
        if self.engine == Engine::Podman {
            return;
        }
        let filters = ["network", "ls", "--quiet", "--filter", "type=custom"];
        for network in self.docker(&filters).lines() {
            self.docker(&["network", "rm", network]);
        }
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        // Containers and bridges outlive a daemon that is only stopped.
        if self.daemon.is_none() {
            self.start_daemon();
        }
        self.clean_up();
        self.stop_daemon();
    }
}

/// A daemon that shares nothing with others: neither files nor firewall rules nor, if it finds a
/// containerd of the system, the names in there. What it mounts goes with it.
fn dockerd(root: &Path) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "dockerd"]).args(dockerd_arguments(root));
    command
}

/// As Docker's own script for it starts the daemon, and with the user only where the daemon's mounts are.
fn rootless_dockerd(root: &Path) -> Command {
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-c", AS_A_USER, "sh"])
        .arg(root)
        .args(dockerd_arguments(root));
    command
}

const AS_A_USER: &str = r#"
set -e
root=$1
shift
cp -a /etc "$root/etc"
mount --bind "$root/etc" /etc
echo "rootless:x:64242:64242::$root:/bin/sh" >> /etc/passwd
echo "rootless:64243:65536" | tee -a /etc/subuid >> /etc/subgid
chown 64242:64242 "$root"
mknod -m 666 "$root/tun" c 10 200
mount --bind "$root/tun" /dev/net/tun
chmod 666 "$NOTIFY_SOCKET"
export HOME="$root" XDG_RUNTIME_DIR="$root" PATH="$PATH:/usr/share/docker.io/contrib"
exec setpriv --reuid 64242 --regid 64242 --clear-groups dockerd-rootless.sh "$@"
"#;

fn dockerd_arguments(root: &Path) -> Vec<OsString> {
    let namespace = root.file_name().unwrap_or_default().to_string_lossy();
    let path = |name| root.join(name).into_os_string();
    let host = format!("unix://{}", root.join("docker.sock").display());
    let plugins = format!("{namespace}-plugins");
    let mut arguments: Vec<OsString> = vec!["--host".into(), host.into()];
    for (option, name) in [
        ("--data-root", "data"),
        ("--exec-root", "exec"),
        ("--pidfile", "pid"),
        ("--config-file", "daemon.json"),
    ] {
        arguments.extend([option.into(), path(name)]);
    }
    let others = [
        "--containerd-namespace",
        &namespace,
        "--containerd-plugins-namespace",
        &plugins,
        "--log-level",
        "warn",
        "--storage-driver",
        "vfs",
        "--bridge",
        "none",
        "--iptables=false",
        "--ip6tables=false",
        "--ip-forward=false",
    ];
    arguments.extend(others.map(Into::into));
    arguments
}

/// Podman asks for more open files than a test may have, and has no systemd to ask for control groups.
const PODMAN_SETTINGS: &str = r#"
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
lock_type = "file"
"#;

/// What serves Podman's socket. Its containers, networks and firewall rules end with it.
fn podman(root: &Path) -> Command {
    let mut command = Command::new("unshare");
    command
        .args([
            "--mount",
            "--net",
            "--pid",
            "--mount-proc",
            "--fork",
            "--kill-child",
        ])
        .args(["podman", "--storage-driver", "vfs", "--root"])
        .arg(root.join("data"))
        .arg("--runroot")
        .arg(root.join("exec"))
        .arg("--tmpdir")
        .arg(root.join("tmp"))
        .arg("--network-config-dir")
        .arg(root.join("networks"))
        .args(["system", "service", "--time", "0"])
        .arg(format!("unix://{}", root.join("docker.sock").display()))
        .env("CONTAINERS_CONF", root.join("containers.conf"));
    command
}
