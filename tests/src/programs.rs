use std::collections::VecDeque;
use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, kill_process};

pub use rustix::process::Signal;

/// How long anything may take before a test gives up on it. Generous: only failures ever wait for it.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// How long a program may run that always says something new.
const LONGEST: Duration = Duration::from_secs(10 * 60);

/// One of fairlead's programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    Proxy,
    Watcher,
    Certs,
    Cli,
}

impl Program {
    const ALL: [Self; 4] = [Self::Proxy, Self::Watcher, Self::Certs, Self::Cli];

    /// The binary. All of them are there, side by side as they are installed: `fairlead dev` starts
    /// the others.
    pub fn path(self) -> PathBuf {
        static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
        DIRECTORY.get_or_init(build).join(self.package())
    }

    fn package(self) -> &'static str {
        match self {
            Self::Proxy => "fairlead-proxy",
            Self::Watcher => "fairlead-watcher",
            Self::Certs => "fairlead-certs",
            Self::Cli => "fairlead",
        }
    }
}

/// Builds each program by itself as it is shipped, with the profile of the running test, and returns
/// their directory. A test binary lies in `target/PROFILE/deps/`, the programs one directory above.
fn build() -> PathBuf {
    let test = env::current_exe().expect("the test has a path");
    let directory = test.ancestors().nth(2).expect("the test lies in deps/");
    let profile = match directory.file_name().and_then(|name| name.to_str()) {
        Some("debug") => "dev",
        Some(profile) => profile,
        None => panic!("no profile in {}", test.display()),
    };
    for program in Program::ALL {
        let status = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--locked", "--profile", profile])
            .args(["--package", program.package()])
            .arg("--manifest-path")
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"))
            .arg("--target-dir")
            .arg(directory.parent().expect("the profile lies in target/"))
            .status()
            .expect("cargo cannot be started");
        assert!(status.success(), "{} does not build", program.package());
    }
    directory.to_owned()
}

/// A program that runs; killed when dropped. When a test fails, what the program said is printed.
#[derive(Debug)]
pub struct Running {
    name: String,
    child: Child,
    said: Arc<Said>,
}

/// A program that ended.
#[derive(Debug)]
pub struct Finished {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Running {
    /// Starts the command with its output captured and with `NOTIFY_SOCKET` at `notify`, or at
    /// `notify` and a number if that is taken.
    pub fn start(mut command: Command, notify: &Path) -> Self {
        let name = shown(&command);
        let (socket, notify) = bind_free(notify);
        command
            .env("NOTIFY_SOCKET", &notify)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        let said = Arc::new(Said::new(notify));
        let stdout = child.stdout.take().expect("stdout is piped");
        let stderr = child.stderr.take().expect("stderr is piped");
        said.clone().read(stdout, |heard| &mut heard.stdout);
        said.clone().read(stderr, |heard| &mut heard.stderr);
        said.clone().receive(socket);
        Self { name, child, said }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What the kernel counts under this key of `/proc/PID/status` (proc_pid_status(5)), in bytes.
    pub fn memory(&self, key: &str) -> u64 {
        let file = format!("/proc/{}/status", self.pid());
        let status = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file}: {error}"));
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        kibibytes.unwrap_or_else(|| panic!("{file} has no {key}:\n{status}")) << 10
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).unwrap_or_else(|error| panic!("cannot signal {}: {error}", self.name));
    }

    /// Takes notifications (sd_notify(3)) out of the queue until one has the line `assignment`,
    /// and returns that one whole.
    pub fn wait_for_notification(&self, assignment: &str) -> String {
        loop {
            let notification = self.next_notification();
            if notification.lines().any(|line| line == assignment) {
                return notification;
            }
        }
    }

    /// Takes the next notification out of the queue.
    pub fn next_notification(&self) -> String {
        self.wait_until("a notification", |heard| heard.notifications.pop_front())
    }

    /// Waits until a line of the log holds `part`, now or before, and returns the line.
    pub fn wait_for_log(&self, part: &str) -> String {
        let what = format!("a log line with {part:?}");
        self.wait_until(&what, |heard| find_line(&heard.stderr, part))
    }

    /// Waits until a line of the standard output holds `part`, now or before, and returns the line.
    pub fn wait_for_output(&self, part: &str) -> String {
        let what = format!("a line with {part:?} on standard output");
        self.wait_until(&what, |heard| find_line(&heard.stdout, part))
    }

    /// Waits until the standard output has at least `count` lines, and returns how many it has.
    pub fn wait_for_output_lines(&self, count: usize) -> usize {
        self.wait_until(&format!("{count} lines on standard output"), |heard| {
            Some(heard.stdout.lines().count()).filter(|lines| *lines >= count)
        })
    }

    /// What was logged up to now.
    pub fn log(&self) -> String {
        self.said.lock().stderr.clone()
    }

    /// Waits until the program ends by itself. One that has much to do is given up on when it says nothing any more.
    pub fn finish(mut self) -> Finished {
        let limit = Instant::now() + LONGEST;
        let mut said = 0;
        let mut has_ended = false;
        while !has_ended {
            let said_more = |heard: &mut Heard| {
                let length = heard.stdout.len() + heard.stderr.len();
                (heard.open == 0 || length > said).then_some((heard.open == 0, length))
            };
            let more = self.said.wait(DEADLINE, said_more);
            let more = more.filter(|_| Instant::now() < limit);
            (has_ended, said) = more.unwrap_or_else(|| panic!("{} did not end", self.name));
        }
        let status = self.child.wait().expect("the child can be waited for");
        let mut heard = self.said.lock();
        Finished {
            status,
            stdout: std::mem::take(&mut heard.stdout),
            stderr: heard.stderr.clone(),
        }
    }

    fn wait_until<T>(&self, what: &str, mut found: impl FnMut(&mut Heard) -> Option<T>) -> T {
        let found = |heard: &mut Heard| match found(heard) {
            Some(value) => Some(Some(value)),
            None => (heard.open == 0).then_some(None),
        };
        match self.said.wait(DEADLINE, found) {
            Some(Some(value)) => value,
            Some(None) => panic!("{} ended without {what}", self.name),
            None => panic!("no {what} from {} in time", self.name),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail if it ended already, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("-- {} said:\n{}-- end", self.name, self.said.lock().stderr);
        }
    }
}

/// What a program said up to now, and a bell that rings whenever it says more.
#[derive(Debug)]
struct Said {
    heard: Mutex<Heard>,
    more: Condvar,
    notify: PathBuf,
}

#[derive(Debug, Default)]
struct Heard {
    stdout: String,
    stderr: String,
    notifications: VecDeque<String>,
    /// How many of the two output streams and of the notifications are still open: none when the program
    /// has ended and all it said was heard.
    open: usize,
}

impl Said {
    fn new(notify: PathBuf) -> Self {
        Self {
            heard: Mutex::new(Heard {
                // All, before the first of them can end.
                open: 3,
                ..Heard::default()
            }),
            more: Condvar::new(),
            notify,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, change: impl FnOnce(&mut Heard)) {
        change(&mut self.lock());
        self.more.notify_all();
    }

    /// `None` if `found` finds nothing in time.
    fn wait<T>(&self, limit: Duration, mut found: impl FnMut(&mut Heard) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + limit;
        let mut heard = self.lock();
        loop {
            if let Some(value) = found(&mut heard) {
                return Some(value);
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            let woken = self.more.wait_timeout(heard, left);
            heard = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn read(self: Arc<Self>, stream: impl Read + Send + 'static, part: fn(&mut Heard) -> &mut String) {
        thread::spawn(move || {
            let mut stream = BufReader::new(stream);
            let mut line = Vec::new();
            while stream.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
                self.add(|heard| part(heard).push_str(&String::from_utf8_lossy(&line)));
                line.clear();
            }
            self.add(|heard| heard.open -= 1);
            if self.lock().open == 1 {
                self.end_notifications();
            }
        });
    }

    /// By an empty datagram behind those that the program sent.
    fn end_notifications(&self) {
        let _ = UnixDatagram::unbound().and_then(|socket| socket.send_to(&[], &self.notify));
    }

    fn receive(self: Arc<Self>, socket: UnixDatagram) {
        thread::spawn(move || {
            let mut buffer = [0; 8192];
            while let Ok(length @ 1..) = socket.recv(&mut buffer) {
                let notification = String::from_utf8_lossy(&buffer[..length]).into_owned();
                self.add(|heard| heard.notifications.push_back(notification));
            }
            self.add(|heard| heard.open -= 1);
        });
    }
}

fn find_line(text: &str, part: &str) -> Option<String> {
    text.lines().find(|line| line.contains(part)).map(str::to_owned)
}

fn bind_free(path: &Path) -> (UnixDatagram, PathBuf) {
    let numbered = (1..).map(|number| path.with_extension(number.to_string()));
    std::iter::once(path.to_owned())
        .chain(numbered)
        .take(1000)
        .find_map(|path| Some((UnixDatagram::bind(&path).ok()?, path)))
        .unwrap_or_else(|| panic!("cannot bind a socket at {}", path.display()))
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}
